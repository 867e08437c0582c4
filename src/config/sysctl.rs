//! Kernel parameters that a container has for itself (sysctl(8)).

use serde::Serialize;

/// A parameter and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// Dotted key, one for which [`SysctlOwner::of`] is known.
    pub key: String,
    /// What is written.
    pub value: String,
}

/// The namespace that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysctlOwner {
    /// ipc_namespaces(7)
    Ipc,
    /// network_namespaces(7)
    Network,
    /// uts_namespaces(7)
    Uts,
}

/// Parameters of the IPC namespace (Docker's and podman's list).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Those of the UTS namespace.
const UTS: [&str; 2] = ["kernel.domainname", "kernel.hostname"];

impl SysctlOwner {
    /// The namespace that has the parameter `key`. `None`: it is the machine's, and
    /// root of a user namespace that is mapped to the host's root could set it; or
    /// the key is not well formed, and might name another file (CVE-2022-0811).
    pub fn of(key: &str) -> Option<Self> {
        if !is_well_formed(key) {
            None
        } else if key.starts_with("net.") {
            Some(Self::Network)
        } else if key.starts_with("fs.mqueue.") || IPC.contains(&key) {
            Some(Self::Ipc)
        } else if UTS.contains(&key) {
            Some(Self::Uts)
        } else {
            None
        }
    }
}

/// Letters, digits, `_` and `-` in parts that none is empty; in particular no `/`
/// and no `..`.
fn is_well_formed(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    key.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_a_namespace_have_an_owner() {
        for (key, owner) in [
            ("net.ipv4.ip_forward", Some(SysctlOwner::Network)),
            ("net.ipv6.conf.tap0.mtu", Some(SysctlOwner::Network)),
            ("fs.mqueue.msg_max", Some(SysctlOwner::Ipc)),
            ("kernel.shm_rmid_forced", Some(SysctlOwner::Ipc)),
            ("kernel.domainname", Some(SysctlOwner::Uts)),
            ("kernel.core_pattern", None),
            ("kernel.shm", None),
            ("kernel.shmmax.x", None),
            ("kernel", None),
            ("net", None),
            ("network.x", None),
            ("fs.mqueue", None),
            ("vm.swappiness", None),
            ("user.max_user_namespaces", None),
            ("net.", None),
            ("net..x", None),
            ("net...kernel.core_pattern", None),
            ("net./../kernel.core_pattern", None),
            ("net.ipv4/../../kernel/core_pattern", None),
            ("net.x\nkernel.core_pattern", None),
            ("net.a+b", None),
            ("net.ä", None),
            ("NET.ipv4.x", None),
            ("", None),
        ] {
            assert_eq!(SysctlOwner::of(key), owner, "{key:?}");
        }
    }
}
