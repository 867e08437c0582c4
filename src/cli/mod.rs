//! The command line: the verbs.
//!
//! [`args`] holds the words as typed, [`options`] what they mean, [`run`] what is
//! done about it. Standard output belongs to [`output`], standard error to
//! [`logging`] (messages) and [`report`] (the error that ends the program).

mod args;
mod bench;
mod binfmt;
mod doctor;
mod inspect;
mod logging;
mod options;
mod output;
mod report;
pub mod run;
mod seal;
mod soak;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use crate::config::RunSpec;
use crate::error::Error;
use crate::sys;
use args::{Cli, LogFormat, Verb};
use report::Report;

/// Parses the arguments and runs the verb they name.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    let cli = match refuse_privileges()
        .map_err(Report::from)
        .and_then(|()| parse(&args))
    {
        Ok(Some(cli)) => cli,
        Ok(None) => return ExitCode::SUCCESS,
        Err(report) if args::asks_for_json(&args) => return report.print(LogFormat::Json),
        Err(report) => return report.print(LogFormat::Text),
    };
    let format = cli.global.log_format;
    logging::start(cli.global.log_level, format);
    let ended = match cli.verb {
        Verb::Run(args) => run::run(*args, format),
        Verb::Bench(args) => bench::run(*args),
        Verb::Port(args) => inspect::port(args),
        Verb::Net(args) => inspect::net(args),
        Verb::Doctor(args) => doctor::run(args),
    };
    ended.unwrap_or_else(|error| Report::from(error).print(format))
}

/// What `crun-lite run` with these words means to whoever calls; nothing is done about it.
///
/// # Errors
/// They mean nothing, or ask for help.
pub fn meaning(words: &[OsString]) -> Result<RunSpec, String> {
    let verb = ["crun-lite", "run"].map(OsString::from);
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let matches = args::command()
        .try_get_matches_from(verb.iter().chain(words))
        .map_err(|error| told(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| told(&error))?;
    match cli.verb {
        Verb::Run(args) => {
            options::validate(*args, &options::Host::current()).map_err(|error| told(&error))
        }
        _ => Err("another verb".to_owned()),
    }
}

/// The command line; `None` when it asked for help, which has been given.
fn parse(args: &[OsString]) -> Result<Option<Cli>, Report> {
    let parsed = args::command().try_get_matches_from(args);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output::print(&error.render().to_string())?;
                Ok(None)
            }
            _ => Err(Report::from(error)),
        },
    }
}

/// crun-lite runs what it is told with the rights of whoever tells it, so it must
/// never have more of them than its caller (bubblewrap's CVE-2020-5291).
fn refuse_privileges() -> Result<(), Error> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    if sys::auxv::at_secure() || getuid() != geteuid() || getgid() != getegid() {
        return Err(Error::Usage(
            "refusing to run with more privileges than the caller: crun-lite must not be \
             set-user-ID, set-group-ID or have file capabilities"
                .to_owned(),
        ));
    }
    Ok(())
}
