//! Control groups: what could be limited. No run needs them.

use super::super::Finding;
use super::super::facts::{Cgroups, Delegated, Hierarchy};
use crate::cgroup::remedy::{self, CONTROLLERS};

const PART: &str = "cgroups";

pub(super) fn judge(cgroups: &Cgroups, root: bool) -> Finding {
    match cgroups.hierarchy {
        Hierarchy::None => {
            Finding::missing(PART, "none are mounted (/proc/self/mountinfo)").remedy(remedy::MOUNT)
        }
        Hierarchy::V2 => v2(cgroups, root),
        Hierarchy::Hybrid => v1(cgroups, root, "v1, with v2 beside it"),
        Hierarchy::V1 => v1(cgroups, root, "v1"),
    }
}

fn v2(cgroups: &Cgroups, root: bool) -> Finding {
    let Some(own) = &cgroups.own else {
        return Finding::missing(PART, "v2; our own cgroup is not to be seen")
            .remedy(remedy::NAMESPACE);
    };
    let own = own.display();
    let Some(Delegated { dir, controllers }) = &cgroups.delegated else {
        let found = format!("v2, own cgroup {own}; neither it nor one above is delegated to you");
        return Finding::missing(PART, found).remedy(remedy::delegate(cgroups, root));
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !controllers.iter().any(|controller| controller == name))
        .collect();
    let found = format!(
        "v2, own cgroup {own}; delegated from {} on, with {}",
        dir.display(),
        if controllers.is_empty() {
            "no controller".to_owned()
        } else {
            controllers.join(", ")
        }
    );
    if missing.is_empty() {
        return Finding::ok(PART, found);
    }
    Finding::limited(PART, format!("{found}; without {}", missing.join(", "))).remedy(
        remedy::pass_on(cgroups, root, dir.parent().unwrap_or(dir), &missing),
    )
}

fn v1(cgroups: &Cgroups, root: bool, version: &str) -> Finding {
    // io has another name there.
    let wanted = |name: &str| CONTROLLERS.contains(&name) || name == "blkio";
    let (ours, others): (Vec<_>, Vec<_>) = cgroups
        .v1
        .iter()
        .filter(|controller| wanted(&controller.name))
        .partition(|controller| controller.writable);
    let names = |list: &[&super::super::facts::V1]| {
        let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
        names.join(", ")
    };
    if others.is_empty() && !ours.is_empty() {
        return Finding::ok(PART, format!("{version}; {} can be divided", names(&ours)));
    }
    let own = others.iter().find(|controller| controller.name == "memory");
    let own = own
        .or(others.first())
        .map_or_else(String::new, |controller| {
            format!(" ({}: {})", controller.name, controller.dir.display())
        });
    let found = format!(
        "{version}; {}{own} cannot be divided by you",
        names(&others)
    );
    let remedy = remedy::v1(root);
    if ours.is_empty() {
        Finding::missing(PART, found).remedy(remedy)
    } else {
        Finding::limited(PART, format!("{found}, but {} can", names(&ours))).remedy(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::super::facts::V1;
    use super::super::testing::says;
    use super::*;

    fn v2_at(own: &str, delegated: Option<(&str, &[&str])>) -> Cgroups {
        Cgroups {
            hierarchy: Hierarchy::V2,
            own: Some(own.into()),
            handed_over: false,
            delegated: delegated.map(|(dir, controllers)| Delegated {
                dir: dir.into(),
                controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            }),
            v1: Vec::new(),
            systemd: true,
        }
    }

    #[test]
    fn delegated() {
        let top = "/c/user.slice/user-1.slice/user@1.service";
        let own = "/c/user.slice/user-1.slice/user@1.service/app.slice/a.scope";
        let all = judge(&v2_at(own, Some((top, &CONTROLLERS))), false);
        assert_eq!(all.state, State::Ok);
        says(
            &judge(&v2_at(own, Some((top, &["memory", "pids"]))), false),
            State::Limited,
            "without cpu, cpuset, io",
            "/etc/systemd/system/user@.service.d/delegate.conf",
        );
        let mut bare = v2_at("/c/a/b", Some(("/c/a", &["pids"])));
        bare.systemd = false;
        says(
            &judge(&bare, false),
            State::Limited,
            "with pids",
            "echo +cpu +cpuset +io +memory > /c/cgroup.subtree_control",
        );
    }

    #[test]
    fn not_delegated() {
        let session = v2_at("/c/user.slice/user-1.slice/session-1.scope", None);
        says(
            &judge(&session, false),
            State::Missing,
            "session-1.scope",
            "systemd-run --user --scope -p Delegate=yes",
        );
        let service = v2_at("/c/system.slice/ci.service", None);
        says(
            &judge(&service, false),
            State::Missing,
            "ci.service",
            "/etc/systemd/system/ci.service.d/delegate.conf",
        );
        let bare = Cgroups {
            systemd: false,
            ..session.clone()
        };
        says(&judge(&bare, false), State::Missing, "", "chown(1)");
        says(&judge(&session, true), State::Missing, "", "read-write");
        let unseen = Cgroups {
            own: None,
            ..session
        };
        says(
            &judge(&unseen, false),
            State::Missing,
            "not to be seen",
            "cgroup namespace",
        );
    }

    #[test]
    fn the_old_version() {
        let old = |hierarchy, writable: [bool; 2]| Cgroups {
            hierarchy,
            own: None,
            handed_over: false,
            delegated: None,
            v1: ["memory", "blkio", "devices"]
                .into_iter()
                .zip([writable[0], writable[1], false])
                .map(|(name, writable)| V1 {
                    name: name.to_owned(),
                    dir: format!("/c/{name}").into(),
                    writable,
                })
                .collect(),
            systemd: false,
        };
        let all = judge(&old(Hierarchy::V1, [true, true]), true);
        assert_eq!(
            (all.state, all.found.as_str()),
            (State::Ok, "v1; memory, blkio can be divided")
        );
        says(
            &judge(&old(Hierarchy::Hybrid, [false, false]), false),
            State::Missing,
            "v1, with v2 beside it; memory, blkio (memory: /c/memory)",
            "cgroup_no_v1=all",
        );
        says(
            &judge(&old(Hierarchy::V1, [true, false]), false),
            State::Limited,
            "but memory can",
            "unified",
        );
        says(
            &judge(&old(Hierarchy::None, [true, true]), false),
            State::Missing,
            "none",
            "mount -t cgroup2",
        );
    }
}
