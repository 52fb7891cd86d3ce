//! A scenario and a schedule of it inside a text that people read: a mail carries both, and gives them back.
//!
//! ```text
//! ---8<--- dirtysim scenario ---8<---
//! name = "mine"
//! ...
//! --->8---
//! ---8<--- dirtysim schedule ---8<---
//! expect: no_dirty_page_lost
//! vcpu0: run
//! thread0: slot-enter slot-publish copy=ram:0 !no_dirty_page_lost @ram:1
//! --->8---
//! ```
//!
//! The lines may be quoted (`> `), as long as all are quoted alike. The scenario is TOML; of a schedule, each line is an actor and
//! what it does next, step by step, with the page that a step is about behind `=`. Behind a step stand the claims that it breaks
//! (`!`) and their pages (`@`).

use serde_json::Value;

use crate::scenario::enclosed::{self, COLUMNS, END, block};

use super::header::{Expect, Header, Kind};
use super::step::StepRow;
use super::{ScheduleProblem, TraceRow};

/// What a line may begin with that is no actor.
const KEYS: [&str; 4] = ["expect", "found by", "switched on", "cycle"];

const SCHEDULE: &str = "---8<--- dirtysim schedule ---8<---";

/// The schedule in a text, as a trace of kind `step`; none where there is none.
///
/// # Errors
/// A line that is none of a schedule, with its number and what to write; a schedule without its scenario.
pub fn trace(text: &str) -> Option<Result<String, (usize, ScheduleProblem)>> {
    let lines = block(text, SCHEDULE)?;
    Some(read(text, &lines))
}

fn read(text: &str, lines: &[(usize, &str)]) -> Result<String, (usize, ScheduleProblem)> {
    let first = lines.first().map_or(0, |(line, _)| *line);
    let Some(value) = enclosed::value(text) else {
        return Err((first, ScheduleProblem::NoScenario));
    };
    let value = value.map_err(|(line, problem)| (line, ScheduleProblem::NotToml(problem)))?;
    let mut header = Header::new(Kind::Step);
    header.title = value.get("name").and_then(Value::as_str).map(str::to_owned);
    header.scenario = Some(value);
    let mut rows: Vec<StepRow> = Vec::new();
    for &(line, text) in lines {
        if text.trim().is_empty() {
            continue;
        }
        let actor = |(who, _): &(&str, &str)| KEYS.contains(who) || !who.contains(' ');
        let Some((who, rest)) = text.split_once(':').filter(actor) else {
            let shown: String = text.chars().take(40).collect();
            return Err((line, ScheduleProblem::NoActor(shown)));
        };
        let rest = rest.trim();
        match who {
            "expect" if rest == "holds" => header.expect = Some(Expect::Holds),
            "expect" => header.expect = Some(Expect::Violated(rest.to_owned())),
            "found by" => header.found_by = Some(rest.to_owned()),
            "switched on" => header.mutations.extend(rest.split(' ').map(str::to_owned)),
            "cycle" => match rest.parse() {
                Ok(steps) => header.cycle = Some(steps),
                Err(_) => return Err((line, ScheduleProblem::Cycle)),
            },
            who => {
                for word in rest.split_whitespace() {
                    let about = match word.split_at_checked(1) {
                        Some(("!", claim)) => Some((claim, true)),
                        Some(("@", page)) => Some((page, false)),
                        _ => None,
                    };
                    let Some((about, is_claim)) = about else {
                        let (what, page) = match word.split_once('=') {
                            Some((what, page)) => (what, Some(page.to_owned())),
                            None => (word, None),
                        };
                        rows.push(StepRow {
                            who: who.to_owned(),
                            what: what.to_owned(),
                            page,
                            breaks: Vec::new(),
                            pages: Vec::new(),
                        });
                        continue;
                    };
                    let Some(row) = rows.last_mut() else {
                        return Err((line, ScheduleProblem::NoStep(word.to_owned())));
                    };
                    let list = if is_claim {
                        &mut row.breaks
                    } else {
                        &mut row.pages
                    };
                    list.push(about.to_owned());
                }
            }
        }
    }
    let mut out = format!("{}\n", header.to_line());
    for row in rows {
        // A step has texts only, which can always be written.
        out.push_str(&row.to_line().unwrap_or_default());
        out.push('\n');
    }
    Ok(out)
}

/// A schedule as a text carries it.
#[must_use]
pub fn write_schedule(header: &Header, steps: &[StepRow]) -> String {
    let mut out = format!("{SCHEDULE}\n");
    match &header.expect {
        Some(Expect::Violated(name)) => out.push_str(&format!("expect: {name}\n")),
        Some(Expect::Holds) => out.push_str("expect: holds\n"),
        None => {}
    }
    if let Some(found_by) = &header.found_by {
        out.push_str(&format!("found by: {found_by}\n"));
    }
    if !header.mutations.is_empty() {
        out.push_str(&format!("switched on: {}\n", header.mutations.join(" ")));
    }
    if let Some(cycle) = header.cycle {
        out.push_str(&format!("cycle: {cycle}\n"));
    }
    let mut line = String::new();
    let mut last = "";
    for step in steps {
        let word = match &step.page {
            Some(page) => format!("{}={page}", step.what),
            None => step.what.clone(),
        };
        let claims = step.breaks.iter().map(|claim| format!("!{claim}"));
        let pages = step.pages.iter().map(|page| format!("@{page}"));
        for word in std::iter::once(word).chain(claims).chain(pages) {
            let goes_on = last == step.who && line.len() + 1 + word.len() <= COLUMNS;
            if !goes_on {
                if !line.is_empty() {
                    out.push_str(&line);
                    out.push('\n');
                }
                line = format!("{}:", step.who);
                last = &step.who;
            }
            line.push(' ');
            line.push_str(&word);
        }
    }
    if !line.is_empty() {
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str(END);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::enclosed::write_scenario;

    #[test]
    fn a_schedule_comes_back_as_a_trace() {
        let step = |who: &str, what: &str, page: Option<&str>| StepRow {
            who: who.to_owned(),
            what: what.to_owned(),
            page: page.map(str::to_owned),
            breaks: Vec::new(),
            pages: Vec::new(),
        };
        let mut header = Header::new(Kind::Step);
        header.expect = Some(Expect::Violated("no_dirty_page_lost".to_owned()));
        let mut steps = vec![step("vcpu0", "run", None)];
        steps[0].breaks = vec!["no_dirty_page_lost".to_owned()];
        steps[0].pages = vec!["ram:1".to_owned(), "ram:2".to_owned()];
        steps.extend((0..30).map(|n| step("thread0", "copy", Some(&format!("ram:{n}")))));
        let schedule = write_schedule(&header, &steps);
        assert!(
            schedule.lines().all(|line| line.len() <= COLUMNS),
            "{schedule}"
        );
        let mail = format!(
            "{}\n{schedule}",
            write_scenario(&json!({ "name": "a" }), None)
        );
        let text = trace(&mail).expect("it is there").expect("it is right");
        assert_eq!(text.lines().count(), 32);
        let rows: Vec<StepRow> = text
            .lines()
            .skip(1)
            .map(|line| StepRow::from_text(line).expect("a row"))
            .collect();
        assert_eq!(rows, steps);
        assert_eq!(
            trace(&schedule)
                .expect("it is there")
                .expect_err("no scenario")
                .1,
            ScheduleProblem::NoScenario
        );
        let wrong = mail.replace("vcpu0: ", "vcpu0 ");
        let (line, error) = trace(&wrong).expect("it is there").expect_err("no colon");
        assert_eq!(
            wrong.lines().nth(line - 1),
            Some("vcpu0 run !no_dirty_page_lost @ram:1 @ram:2"),
            "{error}"
        );
    }
}
