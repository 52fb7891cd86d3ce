//! The report as a directory: written beside its place, then renamed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{Debate, document, mail, page, proofs};
use crate::debate::claim::Outcome;
use crate::replay::steps;

/// The file by which a directory is known for one of ours.
const MARK: &str = "debate.json";

/// The files of the report, by their path within the directory. The same debate gives the same bytes.
///
/// # Errors
/// A trace that cannot be written.
pub fn files(debate: &Debate) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut files = BTreeMap::new();
    files.insert("index.html".to_owned(), page(debate).into_bytes());
    files.insert("debate.txt".to_owned(), mail(debate).into_bytes());
    let proofs = proofs(debate);
    if !proofs.is_empty() {
        files.insert("proofs.md".to_owned(), proofs.into_bytes());
    }
    let document = serde_json::to_string_pretty(&document(debate)).map_err(|e| e.to_string())?;
    files.insert(MARK.to_owned(), format!("{document}\n").into_bytes());
    for plot in &debate.plots {
        files.insert(
            format!("plots/{}.svg", plot.name),
            plot.svg.clone().into_bytes(),
        );
    }
    for bound in &debate.bounds {
        files.insert(
            format!("scenarios/{}.toml", bound.name),
            bound.text.clone().into_bytes(),
        );
    }
    for evidence in debate.judgements.iter().flat_map(|j| &j.evidence) {
        let name = &evidence.scenario.name;
        files.insert(
            format!("scenarios/{name}.toml"),
            evidence.text.clone().into_bytes(),
        );
        if let Some(Outcome::Breaks(invariant)) = evidence.outcome() {
            let mut trace = Vec::new();
            steps::write(
                &mut trace,
                &evidence.scenario,
                &evidence.steps,
                Some(invariant),
                "debate",
            )
            .map_err(|e| e.to_string())?;
            files.insert(format!("traces/{name}.trace.jsonl"), trace);
        }
    }
    Ok(files)
}

/// Writes the report to `place`: beside it, then renamed, so that no reader ever sees half of one. What stood there is
/// replaced if it was such a report, or an empty directory.
///
/// # Errors
/// What stands there is something else, or cannot be replaced.
pub fn write(debate: &Debate, place: &Path) -> Result<usize, String> {
    let files = files(debate)?;
    put(&files, place).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(files.len())
}

fn put(files: &BTreeMap<String, Vec<u8>>, place: &Path) -> io::Result<()> {
    let there = place.symlink_metadata().is_ok();
    if there {
        let ours =
            place.is_dir() && (place.join(MARK).is_file() || fs::read_dir(place)?.next().is_none());
        if !ours {
            return Err(io::Error::other(format!(
                "there is something else than a report of `dirtysim debate` (no {MARK} in it); give another directory, or remove it"
            )));
        }
    }
    let parent = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    let beside = tempfile::Builder::new()
        .prefix(".debate-")
        .tempdir_in(parent)?;
    // The report lies one level down, so that it has an ordinary directory's mode.
    let new = beside.path().join("new");
    for (name, bytes) in files {
        let path = new.join(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(path, bytes)?;
    }
    if there {
        fs::rename(place, beside.path().join("old"))?;
    }
    fs::rename(&new, place)
}
