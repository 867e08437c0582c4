//! Who runs it, on which kernel, and what is around it.

use std::collections::BTreeMap;
use std::fs;

use crate::error::hint;

/// Settings of the kernel that decide something.
const SETTINGS: [&str; 13] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv6.conf.all.disable_ipv6",
    "user.max_cgroup_namespaces",
    "user.max_ipc_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
    "user.max_pid_namespaces",
    "user.max_time_namespaces",
    "user.max_user_namespaces",
    "user.max_uts_namespaces",
];

/// What is around the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Name, release and architecture of the kernel.
    pub kernel: String,
    /// We are uid 0.
    pub root: bool,
    /// By dotted key; what the kernel does not have is not here.
    pub settings: BTreeMap<String, String>,
    /// System-call filters are on this process (proc(5), `Seccomp`).
    pub filtered: bool,
    /// What a security module calls this process, if it confines it.
    pub label: Option<String>,
    /// Our root directory is no mount: chroot(2).
    pub chroot: bool,
    /// What is mounted below `/proc`, and hides a part of it.
    pub hidden: Vec<String>,
    /// Hard limit on open files; `None`: there is none.
    pub descriptors: Option<u64>,
}

impl Surroundings {
    /// A setting of the kernel.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.settings.get(key).cloned()
    }
}

pub(super) fn look() -> Surroundings {
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounts = read("/proc/self/mountinfo");
    let label = read("/proc/self/attr/current");
    let points = || mounts.lines().filter_map(|line| line.split(' ').nth(4));
    Surroundings {
        kernel: format!(
            "{} {} on {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy()
        ),
        root: rustix::process::geteuid().is_root(),
        settings: SETTINGS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), hint::sysctl(key)?)))
            .collect(),
        filtered: read("/proc/self/status").lines().any(|line| {
            line.strip_prefix("Seccomp:")
                .is_some_and(|mode| mode.trim() == "2")
        }),
        label: Some(label.trim_matches(['\0', '\n']).to_owned())
            .filter(|label| !label.is_empty() && label != "unconfined"),
        chroot: !mounts.is_empty() && !points().any(|point| point == "/"),
        hidden: points()
            .filter(|point| point.starts_with("/proc/"))
            .map(str::to_owned)
            .collect(),
        descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
    }
}
