//! `dirtysim-witness live`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Outcome;
use super::args::Args;
use crate::interrupted::{Report, interrupted_reset};
use crate::kernel::Kernel;
use crate::kvm::refusals::{Refusal, refusals};
use crate::kvm::{self, Errno};
use crate::live::{Log, Order, live};
use crate::refusal::Refused;

pub(super) fn command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &["--seconds", "--seed"], 0)?;
    let time = Duration::from_secs(args.number("--seconds", 5)?);
    let seed = args.number("--seed", 0)?;
    // Opening the kernel shows that guests run, or says why they do not.
    drop(Kernel::open()?);
    let kvm = kvm::open()?;
    let mut results = Vec::new();
    let mut lines = Vec::new();
    let mut as_expected = true;
    for (log, log_name) in [(Log::Ring, "ring"), (Log::Bitmap, "bitmap")] {
        for (order, order_name) in [(Order::Right, "right"), (Order::Wrong, "wrong")] {
            let report = live(&kvm, log, order, time, seed)?;
            let verdict = if report.lost > 0 { "violated" } else { "holds" };
            let expected = if order == Order::Right {
                "holds"
            } else {
                "violated"
            };
            as_expected &= verdict == expected;
            let mut row = Map::new();
            for (key, value) in [
                ("log", log_name),
                ("order", order_name),
                ("verdict", verdict),
                ("expected", expected),
                ("coverage", "sampled"),
            ] {
                row.insert(key.into(), value.into());
            }
            row.insert("as_expected".into(), (verdict == expected).into());
            row.insert("invariant".into(), "no_dirty_page_lost".into());
            for (key, value) in [
                ("rounds", report.rounds),
                ("stores", report.stores),
                ("passes", report.passes),
                ("collected", report.collected),
                ("ring_full", report.ring_full),
                ("lost", report.lost),
            ] {
                row.insert(key.into(), value.into());
            }
            results.push(Value::Object(row));
            lines.push(format!(
                "{log_name}, {order_name} order: {} of {} checked ends with a lost page ({} stores, {} collections, {} pages collected){}",
                u64::from(report.lost > 0).min(report.rounds),
                report.rounds,
                report.stores,
                report.passes,
                report.collected,
                if verdict == expected { "" } else { ": NOT as expected" },
            ));
        }
    }
    let interrupted = interrupted_reset(&kvm)?;
    as_expected &= interrupted.unrecorded_otherwise == 0;
    lines.push(interrupted_text(&interrupted));
    results.push(json!({
        "call": "KVM_RESET_DIRTY_RINGS", "signal": true, "harvested": interrupted.harvested, "reset": interrupted.reset,
        "unrecorded": interrupted.unrecorded, "as_expected": interrupted.unrecorded_otherwise == 0,
    }));
    #[cfg(target_arch = "x86_64")]
    {
        let crate::strings::Report {
            loads,
            soft_full,
            overwritten,
        } = crate::strings::emulated_string(&kvm)?;
        lines.push(format!(
            "a string instruction from emulated memory: {loads} elements loaded, {} exit 31; {overwritten} of the entries before it are overwritten",
            if soft_full { "then" } else { "no" },
        ));
        results.push(json!({
            "what": "a string instruction from emulated memory", "loads": loads, "ring_full": soft_full, "overwritten": overwritten,
        }));
    }
    for Refusal {
        call,
        what,
        expected,
        answer,
    } in refusals(&kvm)?
    {
        let answer = answer.map_or_else(|| "success".to_owned(), Errno::name);
        let right = answer == expected;
        as_expected &= right;
        lines.push(format!(
            "{call}, {what}: {answer}{}",
            if right {
                String::new()
            } else {
                format!(": NOT as expected, which is {expected}")
            }
        ));
        results.push(json!({"call": call, "what": what, "answer": answer, "as_expected": right}));
    }
    #[cfg(target_arch = "aarch64")]
    for (call, errno) in crate::live::writers_while_running(&kvm)? {
        let answer = errno.map_or_else(|| "success".to_owned(), |errno| errno.name());
        as_expected &= answer == "EBUSY";
        lines.push(format!(
            "{call} while a vCPU runs: {answer}{}",
            if answer == "EBUSY" {
                ""
            } else {
                ": NOT as expected, which is EBUSY"
            }
        ));
        results.push(json!({"call": call, "answer": answer, "as_expected": answer == "EBUSY"}));
    }
    let mut document = Map::new();
    document.insert("command".into(), "live".into());
    document.insert("as_expected".into(), as_expected.into());
    document.insert("results".into(), results.into());
    Ok(Outcome {
        document,
        text: lines.join("\n"),
        code: u8::from(!as_expected),
    })
}

/// What a signal within a RESET did, in a sentence.
fn interrupted_text(report: &Report) -> String {
    let Some(reset) = report.reset else {
        return "KVM_RESET_DIRTY_RINGS, a signal: no call ended before it had reset every entry"
            .to_owned();
    };
    let after = match (report.unrecorded.first(), report.unrecorded.last()) {
        (Some(first), Some(last)) => format!(
            "stores to {} pages, {first} to {last}, left no entry afterwards",
            report.unrecorded.len()
        ),
        _ => "stores to every page left an entry afterwards".to_owned(),
    };
    format!(
        "KVM_RESET_DIRTY_RINGS, a signal: ended after {reset} of {} entries; the rest was reset by a second call; {after}{}",
        report.harvested,
        if report.unrecorded_otherwise == 0 {
            ""
        } else {
            ": NOT as expected, since some leave none without a signal too"
        }
    )
}
