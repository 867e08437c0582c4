//! Namespaces, and what a container does in them: tried.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::child::in_namespaces;
use crate::error::{Error, StepFailure};
use crate::fs::{Origin, probe as mounts};
use crate::net::probe::{self as link, Offloads};
use crate::ns::idmap;
use crate::security;
use crate::sys::process::CloneFlags;

const DEVICE: &str = "/dev/net/tun";

/// What came of making namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// A user namespace, or errno(3).
    pub user: Result<(), i32>,
    /// Each other kind, with the user namespace that it belongs to.
    pub others: Vec<(&'static str, Result<(), i32>)>,
    /// What could be done in all of them, or why they could not be had together.
    pub inside: Result<Inside, String>,
}

/// What came of the steps of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Making a tmpfs, which needs a capability; errors are errno(3).
    pub tmpfs: Result<(), i32>,
    /// Making a procfs.
    pub proc: Result<Origin, i32>,
    /// Making a sysfs.
    pub sysfs: Result<Origin, i32>,
    /// Making a TAP device.
    pub tap: Result<Offloads, StepFailure>,
    /// Making a veth pair and a packet socket.
    pub veth: Result<(), StepFailure>,
    /// Installing the default system-call filter.
    pub filter: Result<(), i32>,
}

/// The node of the TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tun {
    /// There is none to be seen; errno(3).
    Unseen(i32),
    /// Something else has its name.
    NotADevice,
    /// It is a character device.
    Device {
        /// Permission bits.
        mode: u32,
        /// Opening it to read and write; errno(3).
        opened: Result<(), i32>,
    },
}

/// Tries them, and whether the default id maps can be written.
pub(super) fn try_namespaces() -> (Tried, Option<Result<(), Error>>) {
    const OTHERS: [(&str, CloneFlags); 6] = [
        ("mount", CloneFlags::NEWNS),
        ("pid", CloneFlags::NEWPID),
        ("uts", CloneFlags::NEWUTS),
        ("ipc", CloneFlags::NEWIPC),
        ("net", CloneFlags::NEWNET),
        ("cgroup", CloneFlags::NEWCGROUP),
    ];
    let code = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let with = |flag| CloneFlags::NEWUSER.with(flag, true);
    let make = |flags| in_namespaces(flags, None, || ()).map(drop).map_err(code);
    let user = make(CloneFlags::NEWUSER);
    if user.is_err() {
        let tried = Tried {
            user,
            others: Vec::new(),
            inside: Err("without a user namespace".to_owned()),
        };
        return (tried, None);
    }
    let others: Vec<_> = OTHERS
        .into_iter()
        .map(|(kind, flag)| (kind, make(with(flag))))
        .collect();
    let all = OTHERS
        .into_iter()
        .fold(CloneFlags::NEWUSER, |all, (_, flag)| all.with(flag, true));
    let (inside, written) = match in_namespaces(all, Some(&idmap::default_maps()), attempt) {
        Ok(said) => (
            said.answer.map_err(|error| error.to_string()),
            Some(said.maps),
        ),
        Err(error) => (Err(error.to_string()), None),
    };
    let tried = Tried {
        user,
        others,
        inside,
    };
    (tried, written)
}

/// In the child.
fn attempt() -> Inside {
    Inside {
        tmpfs: mounts::tmpfs(),
        proc: mounts::proc(),
        sysfs: mounts::sysfs(),
        tap: link::tap(),
        veth: link::veth(),
        // Last: it stays.
        filter: security::try_filter(),
    }
}

/// Looks at the node, and opens it: no interface is made by that.
pub(super) fn look_at_tun() -> Tun {
    let code = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    match fs::metadata(DEVICE) {
        Err(error) => Tun::Unseen(code(error)),
        Ok(node) if !node.file_type().is_char_device() => Tun::NotADevice,
        Ok(node) => Tun::Device {
            mode: node.mode() & 0o7777,
            opened: rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map(drop)
                .map_err(|error| error.raw_os_error()),
        },
    }
}
