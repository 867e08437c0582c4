//! The walls around the process that runs the packet loop.
//!
//! # Theory of operation
//!
//! The parent looks at what a hostile container and everybody on the Internet sends.
//! If that makes it do what it should not, it is to find itself with nothing: the
//! last thing it does before the container's command can start is [`Sandbox::enter`].
//! From then on it has
//!
//! - no capability, in none of the five sets; of a caller that is not root the bounding
//!   set stays as it was, since emptying it takes a capability, and means nothing to a
//!   process that can neither execute a program nor gain a privilege by it;
//! - `no_new_privs`, and nobody of its own user can look into it (not dumpable);
//! - no file system: a Landlock domain that handles all that the kernel's Landlock
//!   knows and allows nothing, and no call that takes a path;
//! - the system calls of a short list ([`calls`]), with their arguments where those
//!   matter. Any other kills the process, and so do those of another ABI. It cannot
//!   open, execute, clone, trace, map code or change a mapping to code;
//! - no core dump, and no further process (`RLIMIT_CORE`, `RLIMIT_NPROC`).
//!
//! What it still needs of the rest it asks the `keeper` for. Its descriptors are what
//! it has: the link, the sockets of flows, netlink sockets that only ask, the ends of
//! its socketpairs, files that it appends to.
//!
//! Not limited is the size of files (`RLIMIT_FSIZE`): the log, the capture and standard
//! error may be files. Of Landlock's parts, connecting by TCP stays free, as it is what
//! the loop is for; so do signals, for init has to be killed, and the list allows that
//! signal alone.
//!
//! A panic ends the process by a signal to itself: what the C library's abort(3) calls
//! besides is not on the list, and neither is what prints a backtrace. For the same
//! reason the handlers that Rust installs for faults are taken out before.

mod calls;

use std::io::{self, Write};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use serde::{Serialize, Serializer};

use super::seccomp::{self, Condition, Ways};
use crate::error::Error;
use crate::sys::landlock::{self, Ruleset};
use crate::sys::seccomp::{FilterFlags, Instruction, install_filter};
use crate::sys::signal;
use calls::{CALLS, Check, Needed};

/// What a run does that not every run does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It relays a terminal.
    pub terminal: bool,
    /// It binds what leaves the host to an address.
    pub outbound_address: bool,
}

impl Features {
    /// The names of the system calls that such a run may make.
    pub fn calls(self) -> Vec<&'static str> {
        let calls = CALLS.iter().filter(|call| self.need(call.needed));
        calls.map(|call| call.name).collect()
    }

    fn need(self, needed: Needed) -> bool {
        match needed {
            Needed::Always => true,
            Needed::Terminal => self.terminal,
            Needed::OutboundAddress => self.outbound_address,
        }
    }
}

/// As the names of the calls.
impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.calls().serialize(serializer)
    }
}

/// The walls, ready to be put up.
#[derive(Debug)]
pub struct Sandbox {
    own: Pid,
    filter: Vec<Instruction>,
    /// `None`: the kernel has no Landlock.
    rules: Option<Ruleset>,
}

impl Sandbox {
    /// Prepares the walls for this process; changes nothing.
    ///
    /// # Errors
    /// What the kernel refuses of Landlock, having it.
    pub fn prepare(features: Features) -> Result<Self, Error> {
        let own = rustix::process::getpid();
        let rules = match landlock::version() {
            Ok(version) => {
                let rules = forbid_all(version, features.outbound_address);
                Some(rules.map_err(|error| failed("make a Landlock ruleset", error))?)
            }
            Err(error) => {
                tracing::info!("the network's process has no Landlock around it: {error}");
                None
            }
        };
        Ok(Self {
            own,
            filter: compile(features, own),
            rules,
        })
    }

    /// Puts the walls up around this process, which has one thread, for good.
    ///
    /// # Errors
    /// The kernel's. The process may be partly held then, and is not to go on.
    pub fn enter(self) -> Result<(), Error> {
        end_by_signal_on_panic(self.own);
        for fault in [libc::SIGSEGV, libc::SIGBUS] {
            signal::reset_disposition(fault).map_err(|e| failed("reset a signal handler", e))?;
        }
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|e| failed("make not dumpable", e))?;
        set_no_new_privs(true).map_err(|e| failed("set no_new_privs", e))?;
        drop_capabilities().map_err(|e| failed("drop capabilities", e))?;
        for resource in [Resource::Core, Resource::Nproc] {
            let none = Rlimit {
                current: Some(0),
                maximum: Some(0),
            };
            rustix::process::setrlimit(resource, none)
                .map_err(|e| failed("set resource limits", e))?;
        }
        if let Some(rules) = &self.rules {
            rules
                .restrict_self()
                .map_err(|e| failed("enter a Landlock domain", e))?;
        }
        drop(self.rules);
        install_filter(&self.filter, FilterFlags::NONE)
            .map_err(|e| failed("install a system-call filter", e))
    }
}

fn failed(step: &'static str, error: impl Into<io::Error>) -> Error {
    Error::Sandbox {
        step,
        source: error.into(),
    }
}

fn compile(features: Features, own: Pid) -> Vec<Instruction> {
    let own = own.as_raw_nonzero().get().cast_unsigned();
    let condition = |check: &Check| match *check {
        Check::Is(argument, value) => Condition::Is(argument, value),
        Check::Without(argument, bits) => Condition::Without(argument, bits),
        Check::Own(argument) => Condition::Is(argument, own),
    };
    let mut list = Vec::with_capacity(CALLS.len());
    for call in CALLS.iter().filter(|call| features.need(call.needed)) {
        let ways: Ways = if call.ways.is_empty() {
            vec![Vec::new()]
        } else {
            let way = |way: &&[Check]| way.iter().map(condition).collect();
            call.ways.iter().map(way).collect()
        };
        if let Ok(number) = u32::try_from(call.number) {
            list.push((number, ways));
        }
    }
    list.sort_unstable_by_key(|(number, _)| *number);
    seccomp::compile_list(&list)
}

/// A ruleset without a rule: it forbids all that Landlock of this version can forbid
/// and the packet loop does not do.
fn forbid_all(version: u32, binds: bool) -> io::Result<Ruleset> {
    // linux/landlock.h: LANDLOCK_ACCESS_FS_*, with the version that brought them.
    let mut files = (1 << 13) - 1;
    for (since, bit) in [(2, 13), (3, 14), (5, 15)] {
        if version >= since {
            files |= 1 << bit;
        }
    }
    // LANDLOCK_ACCESS_NET_BIND_TCP
    let network = u64::from(version >= 4 && !binds);
    // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    let scoped = u64::from(version >= 6);
    Ruleset::new(files, network, scoped)
}

/// Leaves this process no capability in any set that it can change.
fn drop_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number after the last one; not for a caller without privileges.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error),
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// Has a panic say what is wrong, and end the process by `SIGABRT` where it does not
/// unwind.
fn end_by_signal_on_panic(own: Pid) {
    std::panic::set_hook(Box::new(move |panic| {
        // Where standard error cannot be written to, the signal says it all.
        let _ = io::stderr().write_all(format!("crun-lite: {panic}\n").as_bytes());
        if cfg!(panic = "abort") {
            let _ = signal::raise(own, libc::SIGABRT);
        }
    }));
}

#[cfg(test)]
mod tests;
