//! The command line: one file per verb.

use std::process::ExitCode;

pub mod run;

/// Parses the arguments and runs the verb they name.
pub fn main() -> ExitCode {
    ExitCode::from(125)
}
