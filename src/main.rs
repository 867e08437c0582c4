//! The `crun-lite` program: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    crun_lite::cli::main()
}
