//! placeholder
use super::story::Story;
pub(super) fn tell(story: &Story) -> String {
    format!("{:?}", story.scenario)
}
