//! Standard output: what writes to it, but for the load generator of `bench` and the
//! relay of a terminal.

use std::io::{self, ErrorKind, Write};

use super::args::LogFormat;
use crate::error::Error;
use crate::plan::Plan;

/// Writes text. A reader that has gone away has read all it wanted.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::host("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Writes the plan of `--dry-run`: lines to read, or one JSON object.
pub(super) fn plan(plan: &Plan, format: LogFormat) -> Result<(), Error> {
    match format {
        LogFormat::Text => print(&plan.to_string()),
        LogFormat::Json => {
            let json = serde_json::to_string(plan)
                .map_err(|error| Error::host("write the plan as JSON", error))?;
            print(&format!("{json}\n"))
        }
    }
}
