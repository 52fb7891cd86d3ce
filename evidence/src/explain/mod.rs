//! Stories: what a schedule did to a page, told so that a maintainer understands it in a minute.
//!
//! A [`Story`] is built by replaying a schedule with the oracle beside it: who stored to the page that the broken claim
//! is about, where its record went from there, and which step took the last record away. It is told in four forms:
//! text for a terminal, plain text for a mailing list, one self-contained HTML page, and a Chrome trace for Perfetto.
//!
//! ```
//! use dirtysim_evidence::explain::{Format, Story};
//! use dirtysim_check::run::{Options, run};
//! use dirtysim_check::scheduler::Scheduler;
//! use dirtysim_check::scenario::Scenario;
//! # let text = r#"
//! # name = "early"
//! # [machine]
//! # arch = "x86"
//! # pages = 1
//! # [writers]
//! # vcpu = { stores = 1 }
//! # [protocol]
//! # steps = ["enable-logging", "copy-all", "get-dirty-log", "pause-vcpus", "copy", "finish"]
//! # "#;
//! let scenario = Scenario::from_toml("early.toml", text).unwrap();
//! let options = Options { seeds: 0..1_000, scheduler: Scheduler::Mix, keep_going: false };
//! let failure = run(&scenario, &options, &|_| true).failure.unwrap();
//! let claim = Some(failure.invariant);
//! let story = Story::new(&scenario, &failure.steps, claim, String::new()).unwrap();
//! assert!(Format::Text.tell(&story).contains("the write that is lost"));
//! ```

mod drawn;
mod facts;
mod html;
mod lkml;
mod overflow;
mod perfetto;
mod rows;
mod story;
mod text;
mod view;
mod waits;
pub mod what_if;
mod words;

use crate::scenario::{Scenario, builtin};

pub use facts::Facts;
pub use html::{Aboard, page};
pub(crate) use lkml::ascii;
pub use overflow::Overwritten;
pub use rows::{Phrase, Row};
pub use story::{Lane, LaneKind, Note, Story, StoryError};
pub use view::View;
pub use waits::{Waiting, at_the_end};
pub use words::of_op as op_words;

/// How a story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal of at least 100 columns.
    Text,
    /// Plain ASCII of at most 72 columns, for a mail.
    Lkml,
    /// One HTML file that needs no network.
    Html,
    /// Chrome trace events, for Perfetto.
    Perfetto,
}

impl Format {
    /// The story in this form.
    #[must_use]
    pub fn tell(self, story: &Story) -> String {
        match self {
            Self::Text => text::tell(story),
            Self::Lkml => lkml::tell(story),
            Self::Html => html::page(story, None),
            Self::Perfetto => perfetto::tell(story),
        }
    }
}

/// What happened and the schedule alone, as a mail has them.
#[must_use]
pub fn for_a_mail(story: &Story) -> String {
    let mut out = String::new();
    lkml::happened(story, &mut out);
    ascii(&out)
}

/// What `dirtysim run` is given so that seeds mean what they meant to a scheduler, by the words in which it is told.
fn options_of(scheduler: &str) -> Option<String> {
    match scheduler.strip_prefix("pct of depth ") {
        Some(depth) => Some(format!(
            "--scheduler pct --pct-depth {}",
            depth.parse::<u32>().ok()?
        )),
        None => ["random", "interrupt"]
            .contains(&scheduler)
            .then(|| format!("--scheduler {scheduler}")),
    }
}

/// The command that shows the same violation again: by the scenario's name where that is enough, else from the trace.
#[must_use]
pub fn reproduce(scenario: &Scenario, found_by: Option<&str>, trace: &str) -> String {
    let known = builtin(&scenario.name).is_some_and(|known| known.source == scenario.source);
    let seed = found_by
        .and_then(|found_by| found_by.split(';').next())
        .and_then(|first| first.split_once(", seed "))
        .and_then(|(scheduler, seed)| {
            Some((options_of(scheduler)?, seed.trim().parse::<u64>().ok()?))
        })
        .and_then(|(options, seed)| Some((options, seed, seed.checked_add(1)?)));
    match seed {
        Some((options, seed, end)) if known => {
            format!(
                "dirtysim run {} {options} --seeds {seed}..{end}",
                scenario.name
            )
        }
        _ => format!("dirtysim replay {trace}"),
    }
}
