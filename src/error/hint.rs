//! What can be done about errors whose cause is known and outside our reach.
//!
//! The words are here and nowhere else: `crun-lite doctor` says the same of a host
//! as an error says that has come of it.

use std::fmt;
use std::fs;

use super::Error;

/// The cause of an error as far as the host's settings tell it, and its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// There is no TUN driver.
    TunMissing,
    /// The TUN device is closed to us.
    TunForbidden,
    /// There is no veth driver.
    VethMissing,
    /// `user.max_user_namespaces` (namespaces(7)) is 0.
    UserNamespacesOff,
    /// Debian's `kernel.unprivileged_userns_clone` is 0.
    UserNamespacesForRoot,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is 1.
    AppArmor,
    /// A limit of namespaces(7) other than 0 has been reached.
    NamespaceLimit,
    /// No setting explains it, so something around us forbids it.
    Confined,
    /// A port below `net.ipv4.ip_unprivileged_port_start` (ip(7)).
    PrivilegedPort(u16, u16),
    /// Another program listens there.
    BusyPort(u16),
    /// The subordinate ids are not the caller's.
    SubordinateIds,
    /// newuidmap(1) or newgidmap(1) is not installed.
    IdMapTools,
    /// A file system whose mounts know no id maps, or not here.
    IdMappedMounts,
    /// The kernel has no system-call filters, or something around us forbids them.
    NoFilters,
}

impl Hint {
    /// What is so, in lower case and without a full stop.
    pub fn cause(&self) -> String {
        match self {
            Self::TunMissing => "this host has no /dev/net/tun".into(),
            Self::TunForbidden => "/dev/net/tun is closed to you".into(),
            Self::VethMissing => "this kernel has no veth driver".into(),
            Self::UserNamespacesOff => "user namespaces are switched off here".into(),
            Self::UserNamespacesForRoot => "user namespaces are for root only here".into(),
            Self::AppArmor => "AppArmor withholds the rights of user namespaces here".into(),
            Self::NamespaceLimit => "a limit on namespaces has been reached".into(),
            Self::Confined => "something around crun-lite forbids new namespaces, such as the \
                 system-call filter of a container"
                .into(),
            Self::PrivilegedPort(first, _) => {
                format!("ports below {first} are for root only here")
            }
            Self::BusyPort(_) => "another program has that port".into(),
            Self::SubordinateIds => "these ids are not yours in /etc/subuid and /etc/subgid".into(),
            Self::IdMappedMounts => "a file system there knows no idmapped mounts, or another \
                 user namespace than the host's has mounted it"
                .into(),
            Self::IdMapTools => "only root can map more than one id without them".into(),
            Self::NoFilters => "this kernel has no system-call filters to offer".into(),
        }
    }

    /// What to do about it, and as whom.
    pub fn remedy(&self) -> String {
        match self {
            Self::TunMissing => "load it as root with 'modprobe tun' (in a container: pass the \
                 device in), or run with --net=builtin:link=veth, which needs none"
                .into(),
            Self::TunForbidden => "open it as root with 'chmod 0666 /dev/net/tun', or run with \
                 --net=builtin:link=veth, which does not need it"
                .into(),
            Self::VethMissing => "load it as root with 'modprobe veth', or have /dev/net/tun \
                  opened to you"
                .into(),
            Self::UserNamespacesOff => "as root, 'sysctl user.max_user_namespaces=15000'".into(),
            Self::UserNamespacesForRoot => {
                "as root, 'sysctl kernel.unprivileged_userns_clone=1'".into()
            }
            Self::AppArmor => "as root, 'crun-lite doctor --apparmor-profile \
                 > /etc/apparmor.d/crun-lite' and 'apparmor_parser -r /etc/apparmor.d/crun-lite', \
                 or 'sysctl kernel.apparmor_restrict_unprivileged_userns=0'"
                .into(),
            Self::NamespaceLimit => "see 'sysctl -a | grep max_.*_namespaces', and raise it as \
                 root with 'sysctl'"
                .into(),
            Self::Confined => {
                "start that one with less (podman, docker: --security-opt seccomp=unconfined)"
                    .into()
            }
            Self::PrivilegedPort(_, port) => format!(
                "as root, 'sysctl net.ipv4.ip_unprivileged_port_start={port}', or have the socket \
                 bound for you (LISTEN_FDS)"
            ),
            Self::BusyPort(port) => format!("'ss -lnp sport = :{port}' says which"),
            Self::SubordinateIds => subordinate_ids("USER", 100_000),
            Self::IdMappedMounts => {
                "use one that does (ext4, xfs, btrfs; tmpfs since Linux 6.3), or \
                 leave idmap out"
                    .into()
            }
            Self::IdMapTools => "as root, install newuidmap and newgidmap (package uidmap or \
                 shadow-utils)"
                .into(),
            Self::NoFilters => "a kernel with CONFIG_SECCOMP_FILTER is needed; or run with \
                 --net=builtin:sandbox=false, and without that wall"
                .into(),
        }
    }

    /// Why namespaces could not be made, by the OS error.
    pub fn of_namespaces(
        errno: i32,
        is_root: bool,
        sysctl: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let is = |name: &str, value: &str| sysctl(name).is_some_and(|found| found == value);
        // ENOSPC: a limit is reached, and 0 is one. EUSERS was that before Linux 4.9.
        let limit = matches!(errno, libc::ENOSPC | libc::EUSERS);
        // What a filter answers in the place of clone3(2), to have clone(2) tried.
        let filtered = errno == libc::ENOSYS;
        if !limit && !filtered && !is_forbidden(errno) {
            return None;
        }
        Some(if filtered {
            Self::Confined
        } else if is("user.max_user_namespaces", "0") {
            Self::UserNamespacesOff
        } else if limit {
            Self::NamespaceLimit
        } else if !is_root && is("kernel.unprivileged_userns_clone", "0") {
            Self::UserNamespacesForRoot
        } else if restricted_by_app_armor(is_root, sysctl) {
            Self::AppArmor
        } else {
            Self::Confined
        })
    }

    /// Why a user namespace came without its rights, so that the first step that needs
    /// one failed.
    pub fn of_rights(
        errno: i32,
        is_root: bool,
        sysctl: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        (errno == libc::EPERM && restricted_by_app_armor(is_root, sysctl)).then_some(Self::AppArmor)
    }

    /// Why there is no TAP device.
    pub fn of_tun(errno: i32) -> Option<Self> {
        match errno {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Some(Self::TunMissing),
            _ => is_forbidden(errno).then_some(Self::TunForbidden),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause(), self.remedy())
    }
}

/// What gives `user` 65536 subordinate ids from `first` on.
pub fn subordinate_ids(user: &str, first: u32) -> String {
    let last = first.saturating_add(65535);
    format!("as root, 'usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}'")
}

fn is_forbidden(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES)
}

fn restricted_by_app_armor(is_root: bool, sysctl: impl Fn(&str) -> Option<String>) -> bool {
    !is_root
        && sysctl("kernel.apparmor_restrict_unprivileged_userns").is_some_and(|value| value == "1")
}

/// The keys that hints depend on.
pub const SETTINGS: [&str; 4] = [
    "user.max_user_namespaces",
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "net.ipv4.ip_unprivileged_port_start",
];

/// The value of a dotted key; `None` where the kernel has no such key.
pub fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = fs::read_to_string(path).ok()?;
    Some(value.trim().to_owned())
}

impl Error {
    /// What to do about the error, where its cause is known. Reads `/proc/sys`.
    pub fn hint(&self) -> Option<Hint> {
        self.hint_by(rustix::process::geteuid().is_root(), sysctl)
    }

    /// The same for a caller that cannot look itself: whether it is root, and the value
    /// of one of [`SETTINGS`].
    pub fn hint_by(&self, is_root: bool, sysctl: impl Fn(&str) -> Option<String>) -> Option<Hint> {
        find(self, is_root, sysctl)
    }
}

/// `sysctl` is the value of a dotted key, `None` where the kernel has no such key.
fn find(error: &Error, is_root: bool, sysctl: impl Fn(&str) -> Option<String>) -> Option<Hint> {
    if let Error::IdMapTool { reason, .. } = error {
        // newuidmap(1): "uid range [1-2) -> [5-6) not allowed"
        return if reason.contains("not allowed") {
            Some(Hint::SubordinateIds)
        } else {
            (reason == super::NOT_INSTALLED).then_some(Hint::IdMapTools)
        };
    }
    if let Error::Publish {
        address, source, ..
    } = error
    {
        let port = address.port();
        return match source.raw_os_error()? {
            libc::EACCES => {
                let first = sysctl("net.ipv4.ip_unprivileged_port_start")?
                    .parse()
                    .ok()?;
                (port < first).then_some(Hint::PrivilegedPort(first, port))
            }
            libc::EADDRINUSE if port != 0 => Some(Hint::BusyPort(port)),
            _ => None,
        };
    }
    if let Error::Sandbox { step, .. } = error {
        return step.contains("filter").then_some(Hint::NoFilters);
    }
    let (what, errno) = cause(error)?;
    if what.contains("/dev/net/tun") {
        return Hint::of_tun(errno);
    }
    if what.contains("a veth pair") && errno == libc::EOPNOTSUPP {
        return Some(Hint::VethMissing);
    }
    if what.starts_with("map the ids of") {
        let refused = matches!(errno, libc::EINVAL | libc::EOPNOTSUPP) || is_forbidden(errno);
        return refused.then_some(Hint::IdMappedMounts);
    }
    if ["clone3", "unshare", "namespace"]
        .iter()
        .any(|word| what.contains(word))
    {
        return Hint::of_namespaces(errno, is_root, sysctl);
    }
    match error {
        Error::Step(_) => Hint::of_rights(errno, is_root, sysctl),
        _ => None,
    }
}
/// What failed, with its object, and the OS error.
fn cause(error: &Error) -> Option<(String, i32)> {
    match error {
        Error::Host { step, source } => Some(((*step).to_owned(), source.raw_os_error()?)),
        Error::Step(failure) => Some((
            format!("{} {}", failure.step, failure.object),
            failure.errno,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::StepFailure;
    use super::*;

    fn host(step: &'static str, errno: i32) -> Error {
        Error::host(step, io::Error::from_raw_os_error(errno))
    }

    fn step(step: &str, object: &str, errno: i32) -> Error {
        StepFailure::new(step, object, &io::Error::from_raw_os_error(errno)).into()
    }

    fn id_map(reason: &str) -> Error {
        Error::IdMapTool {
            tool: "newuidmap",
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn causes_are_told_apart() {
        const OFF: (&str, &str) = ("user.max_user_namespaces", "0");
        const DEBIAN: (&str, &str) = ("kernel.unprivileged_userns_clone", "0");
        const UBUNTU: (&str, &str) = ("kernel.apparmor_restrict_unprivileged_userns", "1");
        let clone = || host("clone3 into new namespaces", libc::EPERM);
        let full = || host("clone3 into new namespaces", libc::ENOSPC);
        for (error, settings, wanted) in [
            (
                step("open", "/dev/net/tun", libc::ENOENT),
                &[][..],
                Some(Hint::TunMissing),
            ),
            (
                step("open", "/dev/net/tun", libc::EACCES),
                &[],
                Some(Hint::TunForbidden),
            ),
            (
                host("open /dev/net/tun", libc::EPERM),
                &[UBUNTU],
                Some(Hint::TunForbidden),
            ),
            (step("open", "/dev/net/tun", libc::EBUSY), &[], None),
            (full(), &[OFF], Some(Hint::UserNamespacesOff)),
            (full(), &[UBUNTU], Some(Hint::NamespaceLimit)),
            (clone(), &[OFF, DEBIAN], Some(Hint::UserNamespacesOff)),
            (
                clone(),
                &[DEBIAN, UBUNTU],
                Some(Hint::UserNamespacesForRoot),
            ),
            (clone(), &[UBUNTU], Some(Hint::AppArmor)),
            (clone(), &[], Some(Hint::Confined)),
            (
                host("clone3 into new namespaces", libc::ENOSYS),
                &[OFF],
                Some(Hint::Confined),
            ),
            (
                host("clone3 into new namespaces", libc::ENOMEM),
                &[OFF],
                None,
            ),
            (
                id_map("uid range [1-2) -> [5-6) not allowed"),
                &[],
                Some(Hint::SubordinateIds),
            ),
            (id_map("not installed"), &[], Some(Hint::IdMapTools)),
            (id_map("exit status: 1"), &[], None),
            (
                step("mount tmpfs", "/", libc::EPERM),
                &[UBUNTU],
                Some(Hint::AppArmor),
            ),
            (step("mount tmpfs", "/", libc::EPERM), &[], None),
            (step("mount tmpfs", "/", libc::ENOENT), &[UBUNTU], None),
            (
                step("make a veth pair", "tap0", libc::EOPNOTSUPP),
                &[],
                Some(Hint::VethMissing),
            ),
            (Error::Usage("/dev/net/tun".to_owned()), &[], None),
        ] {
            let sysctl = |name: &str| {
                assert!(SETTINGS.contains(&name), "{name}");
                let found = settings.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(
                find(&error, false, sysctl),
                wanted,
                "{error:?} {settings:?}"
            );
        }
        // Root is not who these two settings hold up.
        assert_eq!(
            find(&clone(), true, |_| Some("1".to_owned())),
            Some(Hint::Confined)
        );
    }

    #[test]
    fn hints_are_one_line() {
        assert!(!Hint::AppArmor.to_string().contains(['\n', '\t']));
        assert!(!Hint::UserNamespacesForRoot.to_string().contains("  "));
    }
}
