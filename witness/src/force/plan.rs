//! A schedule of the model as what a real machine is to do: stores, harvests, copies, and ioctls that are held at places within them.
//!
//! An ioctl is held where the schedule lets somebody else do something between two of its steps. Places are entries of functions that the
//! kernel calls between these steps and nowhere else in the ioctl; where there is none, the schedule cannot be forced, and that is said.

use std::collections::BTreeMap;

use dirtysim::trace::step::StepRow;

use crate::refusal::Refused;

/// An ioctl of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ioctl {
    /// `KVM_RESET_DIRTY_RINGS`.
    Reset,
    /// `KVM_GET_DIRTY_LOG`.
    Get,
    /// `KVM_CLEAR_DIRTY_LOG` of every page.
    Clear,
    /// `KVM_SET_USER_MEMORY_REGION`, which switches the log on.
    LogOn,
}

/// Something that the machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The guest stores to a page; `faults` says whether the schedule has it go through the fault path.
    Store {
        /// The page.
        page: u64,
        /// It faults first.
        faults: bool,
    },
    /// A thread begins an ioctl and runs until it comes to a place, or to its end.
    Begin {
        /// The thread's number.
        thread: u64,
        /// What it calls.
        ioctl: Ioctl,
        /// Where it is held.
        hold: Option<Hold>,
    },
    /// A thread that is held runs on until it comes to a place, or to its end.
    GoOn {
        /// Where it is held next.
        hold: Option<Hold>,
    },
    /// An entry of the ring is harvested.
    Harvest,
    /// A page is copied.
    Copy(u64),
    /// The guest leaves KVM_RUN.
    Pause,
}

/// A place within an ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The step of the model that comes next there.
    pub before: &'static str,
    /// Names that the function at whose entry it is has had, newest first.
    pub functions: &'static [&'static str],
}

/// Every place that is known.
pub const HOLDS: &[Hold] = &[
    hold("reset-rearm", REARM),
    hold("get-rearm", REARM),
    hold("clear-rearm", REARM),
    hold("reset-flush", &["kvm_flush_remote_tlbs"]),
    hold("get-flush", FLUSH_SLOT),
    hold("clear-flush", FLUSH_SLOT),
];

const REARM: &[&str] = &["kvm_arch_mmu_enable_log_dirty_pt_masked"];
const FLUSH_SLOT: &[&str] = &[
    "kvm_flush_remote_tlbs_memslot",
    "kvm_arch_flush_remote_tlbs_memslot",
];

const fn hold(before: &'static str, functions: &'static [&'static str]) -> Hold {
    Hold { before, functions }
}

/// The schedule of a trace, made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is done, in order.
    pub moves: Vec<Move>,
    /// Pages that the schedule loses.
    pub lost: Vec<u64>,
}

/// The ioctl that a step begins with, and the prefix of its steps.
fn ioctl(word: &str) -> Option<(Ioctl, &'static str)> {
    match word {
        "reset-enter" => Some((Ioctl::Reset, "reset-")),
        "get-enter" => Some((Ioctl::Get, "get-")),
        "clear-enter" => Some((Ioctl::Clear, "clear-")),
        "slot-enter" => Some((Ioctl::LogOn, "slot-")),
        _ => None,
    }
}

fn page_of(row: &StepRow) -> Result<u64, Refused> {
    let page = row.page.as_deref().and_then(|page| page.rsplit_once(':'));
    page.and_then(|(_, number)| number.parse().ok())
        .ok_or_else(|| Refused(format!("`{}` names no page", row.what)))
}

/// What a row does by itself, whatever its operation is.
fn visible(rows: &[StepRow], index: usize) -> Result<Option<Move>, Refused> {
    let row = &rows[index];
    let next = rows[index + 1..].iter().find(|next| next.who == row.who);
    let next = next.map_or("", |next| next.what.as_str());
    Ok(match row.what.as_str() {
        "store" | "retry-store" if next != "fault-resolve" => Some(Move::Store {
            page: page_of(row)?,
            faults: row.what == "retry-store" && faulted(rows, index),
        }),
        "harvest-store-flags" => Some(Move::Harvest),
        "copy" => Some(Move::Copy(page_of(row)?)),
        "return-to-user" => Some(Move::Pause),
        _ => None,
    })
}

/// Whether the access that a row retires went through the fault path since the vCPU's last.
fn faulted(rows: &[StepRow], index: usize) -> bool {
    let who = &rows[index].who;
    rows[..index]
        .iter()
        .rev()
        .filter(|row| row.who == *who)
        .take_while(|row| row.what != "retry-store" && row.what != "run")
        .any(|row| row.what == "fault-resolve")
        && retries_of(rows, index) > 0
}

/// Rows of the fault path between this access's first try and this row.
fn retries_of(rows: &[StepRow], index: usize) -> usize {
    let who = &rows[index].who;
    rows[..index]
        .iter()
        .rev()
        .filter(|row| row.who == *who)
        .take_while(|row| row.what != "store" && row.what != "retry-store")
        .filter(|row| row.what.starts_with("fault-"))
        .count()
}

/// Makes a schedule ready: one vCPU, any number of threads of which one at a time is within an ioctl that is held.
///
/// # Errors
/// What cannot be forced, and why.
pub fn plan(rows: &[StepRow]) -> Result<Plan, Refused> {
    // The rows of each ioctl, and which row of it each row is.
    let mut calls: Vec<(Ioctl, Vec<usize>)> = Vec::new();
    let mut open: BTreeMap<&str, (usize, &'static str)> = BTreeMap::new();
    let mut call_of: Vec<Option<(usize, usize)>> = vec![None; rows.len()];
    for (index, row) in rows.iter().enumerate() {
        if let Some((what, prefix)) = ioctl(&row.what) {
            open.insert(&row.who, (calls.len(), prefix));
            calls.push((what, Vec::new()));
        }
        if let Some(&(call, prefix)) = open.get(row.who.as_str())
            && row.what.starts_with(prefix)
        {
            call_of[index] = Some((call, calls[call].1.len()));
            calls[call].1.push(index);
        }
    }
    let mut alone = Vec::with_capacity(rows.len());
    for index in 0..rows.len() {
        alone.push(visible(rows, index)?);
    }
    let acts = |index: usize| alone[index].is_some() || matches!(call_of[index], Some((_, 0)));
    // Where each ioctl is left in the middle: the number of its row that comes after.
    let mut cuts: Vec<Vec<(usize, Hold)>> = Vec::new();
    for (_, members) in &calls {
        let mut held = Vec::new();
        for (number, pair) in members.windows(2).enumerate() {
            let between = pair[0] + 1..pair[1];
            if !between.into_iter().any(acts) {
                continue;
            }
            let before = rows[pair[1]].what.as_str();
            let hold = HOLDS.iter().find(|hold| hold.before == before);
            let hold = hold.ok_or_else(|| {
                Refused(format!(
                    "this schedule lets others act before `{before}` of {}, where no function of the kernel begins that only it calls",
                    rows[pair[1]].who
                ))
            })?;
            held.push((number + 1, *hold));
        }
        cuts.push(held);
    }
    let mut moves = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if let Some((call, number)) = call_of[index] {
            let cut = cuts[call].iter().position(|(at, _)| *at == number);
            if number == 0 {
                moves.push(Move::Begin {
                    thread: row
                        .who
                        .strip_prefix("thread")
                        .and_then(|n| n.parse().ok())
                        .unwrap_or(0),
                    ioctl: calls[call].0,
                    hold: cuts[call].first().map(|(_, hold)| *hold),
                });
            } else if let Some(cut) = cut {
                moves.push(Move::GoOn {
                    hold: cuts[call].get(cut + 1).map(|(_, hold)| *hold),
                });
            }
        }
        if let Some(act) = &alone[index] {
            moves.push(act.clone());
        }
    }
    let lost = rows
        .iter()
        .filter(|row| row.breaks.iter().any(|claim| claim == "no_dirty_page_lost"))
        .flat_map(|row| row.pages.iter())
        .filter_map(|page| page.rsplit_once(':')?.1.parse().ok())
        .collect();
    Ok(Plan { moves, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(who: &str, what: &str) -> StepRow {
        StepRow {
            who: who.to_owned(),
            what: what.to_owned(),
            page: Some("ram:0".to_owned()),
            breaks: Vec::new(),
            pages: Vec::new(),
        }
    }

    fn rows(text: &[&str]) -> Vec<StepRow> {
        let split = |line: &&str| {
            let (who, what) = line.split_once(' ').expect("who and what");
            row(who, what)
        };
        text.iter().map(split).collect()
    }

    #[test]
    fn an_ioctl_is_held_where_others_act_within_it() {
        let plan = plan(&rows(&[
            "vcpu0 store",
            "vcpu0 fault-resolve",
            "vcpu0 fault-map",
            "vcpu0 retry-store",
            "thread0 harvest-store-flags",
            "thread1 reset-enter",
            "thread1 reset-rearm",
            "thread0 copy",
            "vcpu0 retry-store",
            "thread1 reset-flush",
            "thread1 reset-return",
            "vcpu0 return-to-user",
        ]))
        .expect("a plan");
        let flush = HOLDS[3];
        assert_eq!(
            plan.moves,
            [
                Move::Store {
                    page: 0,
                    faults: true
                },
                Move::Harvest,
                Move::Begin {
                    thread: 1,
                    ioctl: Ioctl::Reset,
                    hold: Some(flush)
                },
                Move::Copy(0),
                Move::Store {
                    page: 0,
                    faults: false
                },
                Move::GoOn { hold: None },
                Move::Pause,
            ]
        );
    }

    #[test]
    fn a_place_that_no_function_marks_is_refused() {
        let refused = plan(&rows(&[
            "thread0 reset-enter",
            "thread1 copy",
            "thread0 reset-index",
        ]));
        assert!(refused.is_err_and(|Refused(why)| why.contains("before `reset-index`")));
    }
}
