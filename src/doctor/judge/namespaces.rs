//! Namespaces.

use super::super::facts::{Surroundings, Tried};
use super::super::{Finding, Stops};
use super::os;
use crate::error::Hint;

/// User namespaces, and the rights in them.
pub(super) fn user(tried: &Tried, around: &Surroundings) -> Finding {
    const PART: &str = "user namespaces";
    let setting = |key: &str| around.setting(key);
    let max = setting("user.max_user_namespaces");
    if let Err(errno) = tried.user {
        let hint = Hint::of_namespaces(errno, around.root, setting);
        let found = format!(
            "clone3(2) with CLONE_NEWUSER: {}; {}",
            os(errno),
            why(hint, around)
        );
        let remedy = match hint {
            Some(Hint::Confined) => confined(around),
            Some(hint) => hint.remedy(),
            None => "a kernel with CONFIG_USER_NS is needed".to_owned(),
        };
        return Finding::missing(PART, found)
            .remedy(remedy)
            .stops(Stops::Run);
    }
    // The first step that needs a right in it.
    if let Ok(inside) = &tried.inside
        && let Err(errno) = inside.tmpfs
    {
        let hint = Hint::of_rights(errno, around.root, setting);
        let found = format!(
            "one can be made, but not a tmpfs in it (fsopen(2)): {}; {}",
            os(errno),
            why(hint.or(Some(Hint::Confined)), around)
        );
        let remedy = hint.map_or_else(|| confined(around), |hint| hint.remedy());
        return Finding::missing(PART, found)
            .remedy(remedy)
            .stops(Stops::Run);
    }
    let count = max.map_or_else(String::new, |max| {
        format!(" (user.max_user_namespaces = {max})")
    });
    Finding::ok(PART, format!("one can be made and has its rights{count}"))
}

/// The object that explains it.
fn why(hint: Option<Hint>, around: &Surroundings) -> String {
    let with_value = |key: &str| match around.setting(key) {
        Some(value) => format!("{key} = {value}"),
        None => format!("there is no {key}"),
    };
    match hint {
        Some(Hint::UserNamespacesForRoot) => with_value("kernel.unprivileged_userns_clone"),
        Some(Hint::AppArmor) => with_value("kernel.apparmor_restrict_unprivileged_userns"),
        Some(Hint::Confined) => around_us(around),
        _ => with_value("user.max_user_namespaces"),
    }
}

/// What is around us that may forbid it.
fn around_us(around: &Surroundings) -> String {
    let signs: Vec<String> = [
        around
            .chroot
            .then(|| "our root directory is a chroot(2)".to_owned()),
        around.filtered.then(|| {
            "a system-call filter is on this process (/proc/self/status: Seccomp 2)".into()
        }),
        around.label.as_ref().map(|label| {
            format!("a security module calls this process {label} (/proc/self/attr/current)")
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    if signs.is_empty() {
        "no setting explains it".to_owned()
    } else {
        signs.join(", ")
    }
}

fn confined(around: &Surroundings) -> String {
    if around.chroot {
        return "run crun-lite outside of the chroot, or have its root made by pivot_root(2)"
            .to_owned();
    }
    let remedy = Hint::Confined.remedy();
    match &around.label {
        Some(_) => {
            format!("{remedy}; for the security module, 'apparmor=unconfined' or 'label=disable'")
        }
        None => remedy,
    }
}

/// The other namespaces.
pub(super) fn others(tried: &Tried, around: &Surroundings) -> Finding {
    const PART: &str = "namespaces";
    if tried.user.is_err() {
        return Finding::missing(PART, "none can be tried without a user namespace")
            .remedy("see user namespaces");
    }
    let failed: Vec<_> = tried
        .others
        .iter()
        .filter_map(|(kind, made)| Some((*kind, made.err()?)))
        .collect();
    if failed.is_empty() {
        let kinds: Vec<&str> = tried.others.iter().map(|(kind, _)| *kind).collect();
        return match &tried.inside {
            Ok(_) => Finding::ok(PART, format!("{} can be made", kinds.join(", "))),
            Err(why) => Finding::missing(PART, format!("not all of them at once: {why}"))
                .remedy(Hint::NamespaceLimit.remedy())
                .stops(Stops::Run),
        };
    }
    // proc_sys_user(5): the keys' names, in part older than the kinds'.
    let key = |kind: &str| {
        let kind = if kind == "mount" { "mnt" } else { kind };
        format!("user.max_{kind}_namespaces")
    };
    let described = failed.iter().map(|(kind, errno)| {
        let value = around.setting(&key(kind));
        let value = value.map_or_else(String::new, |value| format!(" ({} = {value})", key(kind)));
        format!("{kind}: {}{value}", os(*errno))
    });
    let described: Vec<String> = described.collect();
    let full = failed.iter().find(|(_, errno)| *errno == libc::ENOSPC);
    let unknown = failed.iter().any(|(_, errno)| *errno == libc::EINVAL);
    let remedy = match full {
        Some((kind, _)) => format!("as root, 'sysctl {}=15000'", key(kind)),
        None if unknown => "a kernel with CONFIG_NAMESPACES and all kinds of them is needed".into(),
        None => confined(around),
    };
    Finding::missing(PART, described.join("; "))
        .remedy(remedy)
        .stops(Stops::Run)
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::testing::{around, inside};
    use super::*;

    fn tried(user: Result<(), i32>) -> Tried {
        Tried {
            user,
            others: ["mount", "net"].map(|kind| (kind, Ok(()))).to_vec(),
            inside: Ok(inside()),
        }
    }

    fn stopped(finding: &Finding, found: &str, remedy: &str) {
        assert_eq!(finding.state, State::Missing, "{finding:?}");
        assert_eq!(finding.stops, Some(Stops::Run), "{finding:?}");
        assert!(finding.found.contains(found), "{finding:?}");
        let words = finding.remedy.as_ref().unwrap();
        assert!(words.contains(remedy), "{finding:?}");
    }

    #[test]
    fn causes_are_told_apart() {
        let max = ("user.max_user_namespaces", "0");
        let debian = ("kernel.unprivileged_userns_clone", "0");
        let ubuntu = ("kernel.apparmor_restrict_unprivileged_userns", "1");
        let no =
            |errno, settings: &[(&'static str, &str)]| user(&tried(Err(errno)), &around(settings));
        stopped(
            &no(libc::ENOSPC, &[max]),
            "user.max_user_namespaces = 0",
            "sysctl user.max_user_namespaces=15000",
        );
        stopped(
            &no(libc::EPERM, &[debian, ubuntu]),
            "kernel.unprivileged_userns_clone = 0",
            "sysctl kernel.unprivileged_userns_clone=1",
        );
        stopped(
            &no(libc::EACCES, &[ubuntu]),
            "kernel.apparmor_restrict_unprivileged_userns = 1",
            "crun-lite doctor --apparmor-profile",
        );
        stopped(
            &no(libc::ENOSPC, &[("user.max_user_namespaces", "7")]),
            "user.max_user_namespaces = 7",
            "raise it as root",
        );
        stopped(
            &no(libc::EPERM, &[]),
            "no setting explains it",
            "seccomp=unconfined",
        );
        stopped(
            &no(libc::ENOSYS, &[]),
            "not implemented",
            "seccomp=unconfined",
        );
        stopped(&no(libc::EINVAL, &[]), "Invalid argument", "CONFIG_USER_NS");
    }

    #[test]
    fn what_is_around_us_is_named() {
        let outer = Surroundings {
            filtered: true,
            label: Some("docker-default (enforce)".to_owned()),
            ..around(&[])
        };
        let finding = user(&tried(Err(libc::EPERM)), &outer);
        stopped(&finding, "Seccomp 2", "seccomp=unconfined");
        stopped(&finding, "docker-default", "apparmor=unconfined");
        let chroot = Surroundings {
            chroot: true,
            ..around(&[])
        };
        stopped(
            &user(&tried(Err(libc::EPERM)), &chroot),
            "chroot",
            "outside of the chroot",
        );
    }

    #[test]
    fn a_namespace_without_rights() {
        let mut withheld = tried(Ok(()));
        withheld.inside.as_mut().unwrap().tmpfs = Err(libc::EPERM);
        let ubuntu = [("kernel.apparmor_restrict_unprivileged_userns", "1")];
        stopped(
            &user(&withheld, &around(&ubuntu)),
            "restrict_unprivileged_userns = 1",
            "apparmor_parser -r",
        );
        stopped(
            &user(&withheld, &around(&[])),
            "no setting explains it",
            "seccomp=unconfined",
        );
    }

    #[test]
    fn all_is_well() {
        let around = around(&[("user.max_user_namespaces", "9")]);
        let finding = user(&tried(Ok(())), &around);
        assert_eq!(finding.state, State::Ok);
        assert!(finding.found.ends_with("(user.max_user_namespaces = 9)"));
        assert_eq!(
            others(&tried(Ok(())), &around).found,
            "mount, net can be made"
        );
    }

    #[test]
    fn other_kinds() {
        let mut some = tried(Ok(()));
        some.others = vec![("mount", Err(libc::ENOSPC)), ("net", Ok(()))];
        let finding = others(&some, &around(&[("user.max_mnt_namespaces", "0")]));
        stopped(
            &finding,
            "user.max_mnt_namespaces = 0",
            "sysctl user.max_mnt_namespaces=15000",
        );
        some.others = vec![("cgroup", Err(libc::EINVAL))];
        stopped(&others(&some, &around(&[])), "cgroup: ", "a kernel with");
        some.others = vec![("net", Err(libc::EPERM))];
        stopped(&others(&some, &around(&[])), "net: ", "seccomp=unconfined");
        let none = others(&tried(Err(1)), &around(&[]));
        assert_eq!((none.state, none.stops), (State::Missing, None));
        let mut together = tried(Ok(()));
        together.inside = Err("No space left on device".to_owned());
        stopped(
            &others(&together, &around(&[])),
            "not all",
            "max_.*_namespaces",
        );
    }
}
