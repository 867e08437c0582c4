//! The root filesystem, `/proc` and `/sys`.

use super::super::facts::{Inside, Surroundings};
use super::super::{Finding, Stops};
use super::os;
use crate::fs::Origin;

/// The default root.
pub(super) fn rootfs(chosen: &Result<String, String>) -> Finding {
    const PART: &str = "root filesystem";
    match chosen {
        Ok(summary) => Finding::ok(PART, summary.clone()),
        Err(why) => Finding::missing(PART, why.clone())
            .remedy("as root, install busybox-static (Debian, Ubuntu) or another static BusyBox")
            .stops(Stops::Run),
    }
}

/// The kernel's own file systems.
pub(super) fn kernel(inside: Result<&Inside, &str>, around: &Surroundings) -> Finding {
    const PART: &str = "/proc and /sys";
    let inside = match inside {
        Ok(inside) => inside,
        Err(why) => {
            return Finding::missing(PART, format!("not tried: {why}"))
                .remedy("see user namespaces");
        }
    };
    let both = [("/proc", inside.proc), ("/sys", inside.sysfs)];
    let failed: Vec<String> = both
        .iter()
        .filter_map(|(path, made)| Some(format!("{path}: {}", os(made.err()?))))
        .collect();
    if !failed.is_empty() {
        return Finding::missing(PART, format!("cannot be mounted: {}", failed.join("; ")))
            .remedy(
                "start the container that this is in with less around it (podman: \
                     --security-opt unmask=ALL, docker: --security-opt systempaths=unconfined)",
            )
            .stops(Stops::Run);
    }
    let outer: Vec<&str> = both
        .iter()
        .filter(|(_, made)| *made == Ok(Origin::Outer))
        .map(|(path, _)| *path)
        .collect();
    if outer.is_empty() {
        return Finding::ok(PART, "fresh ones can be mounted");
    }
    let hidden = if around.hidden.is_empty() {
        String::new()
    } else {
        format!(" (mounted over: {})", around.hidden.join(", "))
    };
    Finding::limited(
        PART,
        format!(
            "the kernel mounts no fresh {} where parts of the outer one are hidden{hidden}: a \
             container sees the outer one",
            outer.join(" and ")
        ),
    )
    .remedy(
        "start the container that this is in with podman's --security-opt unmask=ALL or docker's \
         --security-opt systempaths=unconfined",
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::testing::{around, inside};
    use super::*;

    #[test]
    fn roots() {
        assert_eq!(rootfs(&Ok("busybox: x".to_owned())).state, State::Ok);
        let none = rootfs(&Err("no".to_owned()));
        assert_eq!((none.state, none.stops), (State::Missing, Some(Stops::Run)));
        assert!(none.remedy.unwrap().contains("busybox-static"));
    }

    #[test]
    fn fresh_outer_or_neither() {
        assert_eq!(kernel(Ok(&inside()), &around(&[])).state, State::Ok);
        let masked = Inside {
            proc: Ok(Origin::Outer),
            ..inside()
        };
        let hidden = Surroundings {
            hidden: vec!["/proc/kcore".to_owned()],
            ..around(&[])
        };
        let finding = kernel(Ok(&masked), &hidden);
        assert_eq!((finding.state, finding.stops), (State::Limited, None));
        assert!(
            finding.found.contains("no fresh /proc where"),
            "{finding:?}"
        );
        assert!(finding.found.contains("/proc/kcore"), "{finding:?}");
        assert!(finding.remedy.unwrap().contains("unmask=ALL"));
        let none = Inside {
            sysfs: Err(libc::EPERM),
            ..inside()
        };
        let finding = kernel(Ok(&none), &hidden);
        assert_eq!(finding.stops, Some(Stops::Run));
        assert!(finding.found.contains("/sys: "), "{finding:?}");
        assert_eq!(kernel(Err("x"), &hidden).stops, None);
    }
}
