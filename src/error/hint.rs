//! What can be done about errors whose cause is known and outside our reach.

use std::fs;

use super::Error;

/// The cause of an error as far as the host's settings tell it, and its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hint {
    /// There is no TUN driver.
    #[error(
        "this host has no /dev/net/tun: load it as root with 'modprobe tun' (in a container: pass \
         the device in), or run with --net=builtin:link=veth, which needs none"
    )]
    TunMissing,
    /// The TUN device is closed to us.
    #[error(
        "/dev/net/tun is closed to you: open it as root with 'chmod 0666 /dev/net/tun', or run \
         with --net=builtin:link=veth, which does not need it"
    )]
    TunForbidden,
    /// There is no veth driver.
    #[error(
        "this kernel has no veth driver: load it as root with 'modprobe veth', or have \
         /dev/net/tun opened to you"
    )]
    VethMissing,
    /// `user.max_user_namespaces` (namespaces(7)) is 0.
    #[error(
        "user namespaces are switched off here: as root, 'sysctl user.max_user_namespaces=15000'"
    )]
    UserNamespacesOff,
    /// Debian's `kernel.unprivileged_userns_clone` is 0.
    #[error(
        "user namespaces are for root only here: as root, 'sysctl \
         kernel.unprivileged_userns_clone=1'"
    )]
    UserNamespacesForRoot,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is 1.
    #[error(
        "AppArmor withholds the rights of user namespaces here: give crun-lite a profile with the \
         'userns,' rule, or as root 'sysctl kernel.apparmor_restrict_unprivileged_userns=0'"
    )]
    AppArmor,
    /// A limit of namespaces(7) other than 0 has been reached.
    #[error("a limit on namespaces has been reached: see 'sysctl -a | grep max_.*_namespaces'")]
    NamespaceLimit,
    /// No setting explains it, so something around us forbids it.
    #[error(
        "something around crun-lite forbids new namespaces, such as the system-call filter of a \
         container (podman, docker: --security-opt seccomp=unconfined)"
    )]
    Confined,
    /// A port below `net.ipv4.ip_unprivileged_port_start` (ip(7)).
    #[error(
        "ports below {0} are for root only here: as root, 'sysctl \
         net.ipv4.ip_unprivileged_port_start={1}', or have the socket bound for you (LISTEN_FDS)"
    )]
    PrivilegedPort(u16, u16),
    /// Another program listens there.
    #[error("another program has that port: 'ss -lnp sport = :{0}' says which")]
    BusyPort(u16),
    /// The subordinate ids are not the caller's.
    #[error(
        "these ids are not yours in /etc/subuid and /etc/subgid: as root, 'usermod --add-subuids \
         100000-165535 --add-subgids 100000-165535 USER'"
    )]
    SubordinateIds,
}

impl Error {
    /// What to do about the error, where its cause is known. Reads `/proc/sys`.
    pub fn hint(&self) -> Option<Hint> {
        let is_root = rustix::process::geteuid().is_root();
        find(self, is_root, |name| {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            fs::read_to_string(path)
                .ok()
                .map(|value| value.trim().to_owned())
        })
    }
}

/// `sysctl` is the value of a dotted key, `None` where the kernel has no such key.
fn find(error: &Error, is_root: bool, sysctl: impl Fn(&str) -> Option<String>) -> Option<Hint> {
    if let Error::IdMapTool { reason, .. } = error {
        // newuidmap(1): "uid range [1-2) -> [5-6) not allowed"
        return reason
            .contains("not allowed")
            .then_some(Hint::SubordinateIds);
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
    let (what, errno) = cause(error)?;
    let is = |name: &str, value: &str| sysctl(name).is_some_and(|found| found == value);
    let forbidden = matches!(errno, libc::EPERM | libc::EACCES);
    let app_armor = || !is_root && is("kernel.apparmor_restrict_unprivileged_userns", "1");
    if what.contains("/dev/net/tun") {
        return match errno {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Some(Hint::TunMissing),
            _ => forbidden.then_some(Hint::TunForbidden),
        };
    }
    if what.contains("a veth pair") && errno == libc::EOPNOTSUPP {
        return Some(Hint::VethMissing);
    }
    if ["clone3", "unshare", "namespace"]
        .iter()
        .any(|word| what.contains(word))
    {
        // ENOSPC: a limit is reached, and 0 is one. EUSERS was that before Linux 4.9.
        let limit = matches!(errno, libc::ENOSPC | libc::EUSERS);
        if !limit && !forbidden {
            return None;
        }
        return Some(if is("user.max_user_namespaces", "0") {
            Hint::UserNamespacesOff
        } else if limit {
            Hint::NamespaceLimit
        } else if !is_root && is("kernel.unprivileged_userns_clone", "0") {
            Hint::UserNamespacesForRoot
        } else if app_armor() {
            Hint::AppArmor
        } else {
            Hint::Confined
        });
    }
    // With this restriction the namespace is made, but without any capability: the
    // first step that needs one fails.
    (errno == libc::EPERM && matches!(error, Error::Step(_)) && app_armor())
        .then_some(Hint::AppArmor)
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
                host("clone3 into new namespaces", libc::ENOMEM),
                &[OFF],
                None,
            ),
            (
                id_map("uid range [1-2) -> [5-6) not allowed"),
                &[],
                Some(Hint::SubordinateIds),
            ),
            (id_map("not installed"), &[], None),
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
