//! What `page`, `distil` and `blame` have in common: a log as it is, or the trace that it became.

use std::io::{BufReader, Seek};
use std::path::Path;

use super::CliError;
use super::input::Input;
use crate::import::detect::{Detected, detect_file};
use crate::import::{LogOptions, import_logs};
use crate::observed::CheckConfig;
use crate::trace::{Kind, TraceReader};

/// The events of a log, imported now, or of a trace of kind `observed`; none where the file is something else.
pub(super) fn events_of(
    path: &Path,
    pids: &[u32],
    check: CheckConfig,
) -> Result<Option<TraceReader<BufReader<Input>>>, CliError> {
    let name = path.display().to_string();
    // What is no regular file cannot be read twice.
    if !path.is_file() {
        return Ok(None);
    }
    match detect_file(path) {
        Ok(Detected::Log(kind)) => {
            let input = Input::open(path)
                .map_err(|error| CliError(format!("{name}: cannot read: {error}")))?;
            let options = LogOptions {
                from: Some(kind),
                pids: pids.to_vec(),
                check,
                title: None,
            };
            let mut whole = tempfile::tempfile()?;
            import_logs(vec![(name.clone(), input)], &mut whole, &options)?;
            whole.rewind()?;
            Ok(Some(TraceReader::new(BufReader::new(Input(whole)), &name)?))
        }
        Ok(Detected::Trace) => {
            let reader = TraceReader::open_through(path, Input)?;
            Ok((reader.header().kind == Kind::Observed).then_some(reader))
        }
        _ => Ok(None),
    }
}
