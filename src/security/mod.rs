//! What the command may do: capabilities, `no_new_privs`, system-call filter.
//!
//! # Theory of operation
//!
//! All of it is thread state that execve(2) keeps or derives from, and the
//! order in which it is set is forced by the kernel (capabilities(7)):
//!
//! 1. [`Restrictions::prepare`] builds the filter while memory and errors are
//!    still cheap.
//! 2. [`Restrictions::before_setuid`], while the thread is root in its user
//!    namespace: the bounding set can only be cut down with `CAP_SETPCAP`, and
//!    the permitted set only survives the change of ids if `keepcaps` says so.
//! 3. The ids change.
//! 4. [`Restrictions::after_setuid`]: the sets get their final value. The
//!    [`landlock`] domain and then the filter come last, since they refuse some of
//!    the above, except where they need `CAP_SYS_ADMIN` for want of `no_new_privs`.
//!
//! The inheritable and ambient sets end up empty (CVE-2022-29162 and its
//! like): a file with inheritable capabilities must not give what the bounding
//! set would not. The exception is a command that is not root: what was added on
//! purpose, a part of the bounding set, is all that it has.

pub mod caps;
pub mod landlock;
pub mod sandbox;
mod seccomp;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use crate::config::SeccompProfile;
use crate::error::StepFailure;
use crate::plan::ExecStep;
use crate::sys::landlock::Ruleset;
use crate::sys::seccomp::{FilterFlags, Instruction, install_filter};

pub use seccomp::file;

/// Holds the calling thread to the default profile, to see whether the kernel can.
///
/// # Errors
/// The kernel's, as errno(3).
pub fn try_filter() -> Result<(), i32> {
    let code = |error: Errno| error.raw_os_error();
    set_no_new_privs(true).map_err(code)?;
    install_filter(&seccomp::compile(0), FilterFlags::NONE).map_err(code)
}

/// What the command is to be held to, ready to be applied.
#[derive(Debug)]
pub struct Restrictions {
    capabilities: u64,
    ambient: u64,
    no_new_privileges: bool,
    domain: Option<Ruleset>,
    filter: Option<(Vec<Instruction>, FilterFlags)>,
}

impl Restrictions {
    /// Prepares what `exec` asks for, in a container whose root directory is
    /// `root`; changes nothing.
    ///
    /// # Errors
    /// `EINVAL` for capabilities that do not exist; what Landlock refuses.
    pub fn prepare(exec: &ExecStep, root: BorrowedFd<'_>) -> Result<Self, StepFailure> {
        if exec.capabilities & !caps::ALL != 0 {
            let object = format!("{:#x}", exec.capabilities);
            return Err(StepFailure::new(
                "keep capabilities",
                object,
                &Errno::INVAL.into(),
            ));
        }
        let filter = match &exec.seccomp {
            SeccompProfile::Default => {
                Some((seccomp::compile(exec.capabilities), FilterFlags::NONE))
            }
            SeccompProfile::File(file) => Some((file.filter.clone(), file.flags)),
            SeccompProfile::Unconfined => None,
        };
        let domain = match &exec.landlock {
            Some(step) => landlock::prepare(step, root)?,
            None => None,
        };
        Ok(Self {
            capabilities: exec.capabilities,
            ambient: exec.ambient,
            no_new_privileges: exec.no_new_privileges,
            domain,
            filter,
        })
    }

    /// To be called as root of the user namespace, before the ids change.
    ///
    /// # Errors
    /// What failed, and why.
    pub fn before_setuid(&self) -> Result<(), StepFailure> {
        // Every number that the kernel knows, of which there may be more than
        // there are names here.
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities >> number & 1 == 1 {
                continue;
            }
            let dropped = match remove_capability_from_bounding_set(capability) {
                // The first number after the last one.
                Err(Errno::INVAL) => break,
                // Only what is there needs the privilege to take it away.
                Err(Errno::PERM) if capability_is_in_bounding_set(capability) == Ok(false) => {
                    Ok(())
                }
                dropped => dropped,
            };
            dropped.map_err(failed("drop from the bounding set", &name(number)))?;
        }
        set_keep_capabilities(true).map_err(failed("keep capabilities", "prctl"))
    }

    /// To be called when the ids are final; `uid_is_root` says whether the
    /// command is root in its user namespace. Another user starts with those that were
    /// added on purpose, as with podman; set-user-id programs and file capabilities can
    /// give it those of the bounding set, if at all.
    ///
    /// Capabilities that the thread itself does not have (without a user
    /// namespace of its own) are left out.
    ///
    /// # Errors
    /// What failed, and why.
    pub fn after_setuid(&self, uid_is_root: bool) -> Result<(), StepFailure> {
        let held = capabilities(None)
            .map_err(failed("read capabilities", "capget"))?
            .permitted;
        let [kept, ambient] = match uid_is_root {
            true => [self.capabilities, 0],
            false => [self.ambient; 2],
        };
        let kept = held & CapabilitySet::from_bits_retain(kept);
        let ambient = held & CapabilitySet::from_bits_retain(ambient);
        if self.no_new_privileges {
            set_no_new_privs(true).map_err(failed("set no_new_privs", "prctl"))?;
        } else if self.domain.is_some() || self.filter.is_some() {
            set(held, CapabilitySet::empty())?;
            self.wall_in()?;
        }
        set(kept, ambient)?;
        clear_ambient_capability_set().map_err(failed("clear capabilities", "ambient set"))?;
        for capability in ambient {
            configure_capability_in_ambient_set(capability, true)
                .map_err(failed("add to the ambient set", "prctl"))?;
        }
        set_keep_capabilities(false).map_err(failed("keep capabilities", "prctl"))?;
        if self.no_new_privileges {
            self.wall_in()?;
        }
        Ok(())
    }

    fn wall_in(&self) -> Result<(), StepFailure> {
        if let Some(domain) = &self.domain {
            landlock::enter(domain)?;
        }
        match &self.filter {
            Some((filter, flags)) => install_filter(filter, *flags)
                .map_err(failed("install the system-call filter", "seccomp")),
            None => Ok(()),
        }
    }
}

/// These, all of which are effective; an ambient one has to be inheritable.
fn set(permitted: CapabilitySet, inheritable: CapabilitySet) -> Result<(), StepFailure> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable,
        },
    )
    .map_err(failed("set capabilities", "capset"))
}

fn name(number: u32) -> String {
    match caps::names(1 << number).first() {
        Some(name) => format!("CAP_{name}"),
        None => format!("capability {number}"),
    }
}

fn failed<'a>(step: &'static str, object: &'a str) -> impl FnOnce(Errno) -> StepFailure + 'a {
    move |error| StepFailure::new(step, object, &error.into())
}

#[cfg(test)]
mod tests;
