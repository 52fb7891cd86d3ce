//! `dirtysim-witness force`.

use std::path::Path;

use serde_json::Map;

use super::Outcome;
use super::args::Args;
use crate::force::driver::{self, End};
use crate::force::plan::Plan;
use crate::refusal::Refused;

pub(super) fn command(arguments: &[String]) -> Result<Outcome, Refused> {
    let args = Args::parse(arguments, &["--json"], &["--gdb", "--port"], 1)?;
    let trace = args.positional("a trace of kind `step`, as in `force TRACE`")?;
    let plan = Plan::open(Path::new(trace))?;
    if std::process::id() == 1 {
        return perform(&plan);
    }
    let (Some(gdb), Some(port)) = (args.value("--gdb"), args.value("--port")) else {
        return Err(Refused::new(
            "no machine to force it on: `witness/machines/run arm64 --in TRACE force /in/TRACE` has one",
        ));
    };
    let (end, story) = driver::force(&plan, Path::new(gdb), Path::new(port))?;
    let mut document = Map::new();
    document.insert("command".into(), "force".into());
    document.insert("scenario".into(), plan.name.as_str().into());
    document.insert("forced".into(), (end == End::Forced).into());
    document.insert("turns".into(), story.lines().collect::<Vec<_>>().into());
    let (text, code) = match end {
        End::Forced => (format!("{story}every turn came to its place"), 0),
        End::NotAllowed(what) => {
            document.insert("why".into(), what.as_str().into());
            (format!("{story}not so on this kernel: {what}"), 1)
        }
    };
    Ok(Outcome {
        document,
        text,
        code,
    })
}

/// As the first process of the machine: the actors.
#[cfg(target_arch = "aarch64")]
fn perform(plan: &Plan) -> Result<Outcome, Refused> {
    use crate::force::actors;

    let kvm = crate::kvm::open()?;
    let port = super::guest_init::port();
    super::guest_init::wait_for(&port);
    let report = actors::perform(&kvm, plan, &port)?;
    let same = report.lost == report.lost_in_model && report.differences.is_empty();
    let pages = |names: &[String]| match names {
        [] => "no page".to_owned(),
        names => names.join(", "),
    };
    let mut text = format!(
        "{}: lost on this kernel: {}; in the model: {}",
        plan.name,
        pages(&report.lost),
        pages(&report.lost_in_model)
    );
    for difference in &report.differences {
        text.push_str("\ndiffers: ");
        text.push_str(difference);
    }
    let mut document = Map::new();
    document.insert("command".into(), "force".into());
    document.insert("scenario".into(), plan.name.as_str().into());
    for (key, names) in [
        ("lost", report.lost),
        ("lost_in_model", report.lost_in_model),
        ("differences", report.differences),
    ] {
        document.insert(key.into(), names.into());
    }
    Ok(Outcome {
        document,
        text,
        code: u8::from(!same),
    })
}

#[cfg(not(target_arch = "aarch64"))]
fn perform(_: &Plan) -> Result<Outcome, Refused> {
    Err(Refused::new(
        "schedules are forced on arm64: the guest of another architecture has no place to be held at",
    ))
}
