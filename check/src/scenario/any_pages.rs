//! `pages = "any"`: what is refused with it, and why.

use super::machine::Parts;
use super::reader::{Result, Source};
use crate::search::tracked;

/// Refuses a scenario that cannot be about any number of pages.
pub(super) fn check(source: Source<'_>, parts: &Parts) -> Result<()> {
    let Some(span) = &parts.any_pages else {
        return Ok(());
    };
    const HELP: &str = "write a number in pages; docs/proofs.md says what is argued for any number";
    if let Some(why) = tracked::stands_in_the_way(&parts.machine) {
        return source.error(span, format!("any number of pages: {why}"), HELP);
    }
    for (program, origins) in parts.machine.programs.iter().zip(&parts.origins) {
        for (op, origin) in program.iter().zip(origins) {
            if let Some(why) = tracked::not_argued(&parts.machine, op) {
                let span = origin.as_ref().unwrap_or(span);
                return source.error(span, format!("any number of pages: {why}"), HELP);
            }
        }
    }
    Ok(())
}
