//! `crun-lite run`: where container and network meet.

use std::process::ExitCode;

use super::args::{LogFormat, RunArgs};
use super::options::{self, Host};
use super::output;
use crate::config::RunSpec;
use crate::error::Error;
use crate::plan::Plan;

/// Validates, plans, and unless it is a dry run carries the plan out. Nothing has
/// been changed when an error comes before the last of these.
pub(super) fn run(args: RunArgs, format: LogFormat) -> Result<ExitCode, Error> {
    let dry_run = args.dry_run;
    let spec = options::validate(args, &Host::current())?;
    let plan = prepare(&spec)?;
    if dry_run {
        output::plan(&plan, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    carry_out(&spec, plan)
}

/// Everything that can be found out and decided without changing anything: the
/// root filesystem, the id maps, the private files, and from them the steps.
fn prepare(spec: &RunSpec) -> Result<Plan, Error> {
    Ok(Plan {
        namespaces: spec.namespaces,
        uid_map: spec.uid_map.clone(),
        gid_map: spec.gid_map.clone(),
        steps: Vec::new(),
    })
}

/// Starts the container and its network and waits for the end of both.
fn carry_out(_spec: &RunSpec, _plan: Plan) -> Result<ExitCode, Error> {
    Err(Error::host("start the container", rustix::io::Errno::NOSYS))
}
