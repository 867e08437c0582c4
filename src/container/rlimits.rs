//! `--ulimit`: resource limits of the command.
//!
//! # Theory of operation
//! Everybody may lower a hard limit, and only the host's root raise one: root of a user
//! namespace can not. So the parent raises its own as far as is asked for, before there
//! is a container; init and the command inherit that. The command sets its limits itself,
//! last of all, since they may be too tight for what comes before.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Ulimit;
use crate::error::{Error, StepFailure, hint};

/// Raises this process's own hard limits where `ulimits` go beyond them.
///
/// # Errors
/// [`Error::Usage`] where that is not allowed; nothing else has been changed.
pub fn raise(ulimits: &[Ulimit]) -> Result<(), Error> {
    for ulimit in ulimits {
        let own = getrlimit(ulimit.resource);
        let Some(most) = own.maximum else { continue };
        if ulimit.hard.is_some_and(|hard| hard <= most) {
            continue;
        }
        let raised = Rlimit {
            maximum: ulimit.hard,
            ..own
        };
        setrlimit(ulimit.resource, raised).map_err(|error| {
            let nr_open =
                hint::sysctl("fs.nr_open").filter(|_| ulimit.resource == Resource::Nofile);
            let system = nr_open.map_or_else(String::new, |most| {
                format!(", and up to fs.nr_open, {most}")
            });
            Error::Usage(format!(
                "--ulimit: {ulimit} is above our own hard limit of {most}, which only the host's \
                 root can raise (CAP_SYS_RESOURCE){system}: {}",
                io::Error::from(error)
            ))
        })?;
    }
    Ok(())
}

/// Sets them for this process; to be called right before it becomes the command.
pub(super) fn set(ulimits: &[Ulimit]) -> Result<(), StepFailure> {
    ulimits.iter().try_for_each(|ulimit| {
        let limit = Rlimit {
            current: ulimit.soft,
            maximum: ulimit.hard,
        };
        setrlimit(ulimit.resource, limit)
            .map_err(|error| StepFailure::new("set the limit", ulimit.to_string(), &error.into()))
    })
}
