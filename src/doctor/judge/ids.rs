//! The ids of a container.

use super::super::facts::Ids;
use super::super::{Finding, Stops};
use crate::error::{Hint, hint};
use crate::ns::idmap::{Subordinate, Tool};

const PART: &str = "ids";
/// What images reckon with, id 0 included: nobody is 65534.
const USUAL: u64 = 65_535;

pub(super) fn judge(ids: &Ids) -> Finding {
    if let Some(Err((message, hint))) = &ids.written {
        return Finding::missing(PART, format!("the id maps cannot be written: {message}"))
            .remedy(remedy_of_failure(ids, *hint))
            .stops(Stops::Run);
    }
    let count = format!("{} user and {} group ids", ids.uids, ids.gids);
    match &ids.subordinate {
        None if ids.uids.min(ids.gids) >= USUAL => {
            Finding::ok(PART, format!("as root, {count}, each the same as here"))
        }
        None => Finding::limited(
            PART,
            format!("as root, {count}: there are no more here (/proc/self/uid_map, gid_map)"),
        )
        .remedy("whoever made the user namespace that this is run in has to map more into it"),
        Some(subordinate) if ids.uids > 1 => with_ranges(ids, &count, subordinate),
        Some(subordinate) => alone(ids.own, subordinate),
    }
}

fn remedy_of_failure(ids: &Ids, hint: Option<Hint>) -> String {
    let (uid, gid) = ids.own;
    let otherwise =
        format!("run with '--uidmap=0:{uid}:1 --gidmap=0:{gid}:1', which needs no newuidmap");
    match (hint, &ids.subordinate) {
        (Some(Hint::SubordinateIds), Some(subordinate)) => {
            format!("{}, or {otherwise}", grant(subordinate))
        }
        (Some(hint), _) => format!("{}, or {otherwise}", hint.remedy()),
        (None, _) => otherwise,
    }
}

fn grant(subordinate: &Subordinate) -> String {
    let name = subordinate.name.as_deref().unwrap_or("USER");
    hint::subordinate_ids(name, subordinate.free)
}

fn with_ranges(ids: &Ids, count: &str, subordinate: &Subordinate) -> Finding {
    let ranges = |ranges: &[(u32, u32)]| {
        let ranges: Vec<String> = ranges
            .iter()
            .map(|(first, count)| format!("{first}:{count}"))
            .collect();
        ranges.join(", ")
    };
    let tools = match (&subordinate.uid_tool, &subordinate.gid_tool) {
        (Tool::Works(uid), Tool::Works(gid)) => {
            format!(", by {} and {}", uid.display(), gid.display())
        }
        _ => String::new(),
    };
    let found = format!(
        "{count}: your own, and those of /etc/subuid ({}) and /etc/subgid ({}){tools}",
        ranges(&subordinate.uids),
        ranges(&subordinate.gids)
    );
    if ids.uids.min(ids.gids) >= USUAL {
        Finding::ok(PART, found)
    } else {
        Finding::limited(PART, format!("{found}; images reckon with {USUAL}"))
            .remedy(grant(subordinate))
    }
}

/// Why there is no more than the own id.
fn alone(own: (u32, u32), subordinate: &Subordinate) -> Finding {
    let mut reasons = Vec::new();
    let mut remedies = Vec::new();
    match &subordinate.name {
        None => {
            reasons.push(format!(
                "/etc/passwd has no user {} with group {}",
                own.0, own.1
            ));
            remedies.push("run as a user of /etc/passwd, with its own group".to_owned());
        }
        Some(name) => {
            let files: Vec<&str> = [
                ("/etc/subuid", &subordinate.uids),
                ("/etc/subgid", &subordinate.gids),
            ]
            .into_iter()
            .filter(|(_, ranges)| ranges.is_empty())
            .map(|(file, _)| file)
            .collect();
            if !files.is_empty() {
                reasons.push(format!("no range for {name} in {}", files.join(" and ")));
                remedies.push(grant(subordinate));
            }
        }
    }
    for (name, capability, tool) in [
        ("newuidmap", "cap_setuid", &subordinate.uid_tool),
        ("newgidmap", "cap_setgid", &subordinate.gid_tool),
    ] {
        match tool {
            Tool::Works(_) => {}
            Tool::Missing => {
                reasons.push(format!("{name} is not in PATH"));
                let remedy = Hint::IdMapTools.remedy();
                if !remedies.contains(&remedy) {
                    remedies.push(remedy);
                }
            }
            Tool::Unprivileged(path) => {
                let path = path.display();
                reasons.push(format!(
                    "{path} is neither set-user-ID nor has {capability}"
                ));
                remedies.push(format!(
                    "as root, 'chmod u+s {path}' or 'setcap {capability}+ep {path}'"
                ));
            }
            Tool::Nosuid(path) => {
                let path = path.display();
                reasons.push(format!("{path} is on a file system that is mounted nosuid"));
                remedies.push(format!(
                    "as root, remount the file system of {path} with suid"
                ));
            }
        }
    }
    if subordinate.no_new_privs {
        reasons.push("no_new_privs is set, so that newuidmap gets no privilege".to_owned());
        remedies.push(
            "start crun-lite without it (systemd: NoNewPrivileges=no; podman, docker: not with \
             --security-opt no-new-privileges)"
                .to_owned(),
        );
    }
    Finding::limited(PART, format!("only your own, as 0: {}", reasons.join("; ")))
        .remedy(remedies.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::*;

    fn works() -> Subordinate {
        Subordinate {
            name: Some("anna".to_owned()),
            uids: vec![(100_000, 65536)],
            gids: vec![(100_000, 65536)],
            uid_tool: Tool::Works("/usr/bin/newuidmap".into()),
            gid_tool: Tool::Works("/usr/bin/newgidmap".into()),
            no_new_privs: false,
            free: 165_536,
        }
    }

    fn user(subordinate: Subordinate, size: u64) -> Ids {
        Ids {
            own: (1000, 1000),
            uids: size,
            gids: size,
            subordinate: Some(subordinate),
            written: Some(Ok(())),
        }
    }

    #[test]
    fn all_of_them() {
        let finding = judge(&user(works(), 65537));
        assert_eq!(finding.state, State::Ok);
        assert!(
            finding.found.contains("/etc/subuid (100000:65536)"),
            "{finding:?}"
        );
        let root = Ids {
            subordinate: None,
            ..user(works(), 65536)
        };
        assert_eq!(judge(&root).state, State::Ok);
        let few = Ids {
            uids: 1,
            ..root.clone()
        };
        assert_eq!(judge(&few).state, State::Limited);
    }

    #[test]
    fn few_of_them() {
        let few = Subordinate {
            gids: vec![(100_000, 99)],
            ..works()
        };
        let finding = judge(&Ids {
            gids: 100,
            ..user(few, 65537)
        });
        assert_eq!(finding.state, State::Limited);
        assert!(finding.remedy.unwrap().contains("165536-231071 anna'"));
    }

    #[test]
    fn each_reason_and_its_remedy() {
        let cases: [(Subordinate, &str, &str); 6] = [
            (
                Subordinate {
                    gids: vec![],
                    ..works()
                },
                "no range for anna in /etc/subgid",
                "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 anna",
            ),
            (
                Subordinate {
                    name: None,
                    ..works()
                },
                "/etc/passwd has no user 1000 with group 1000",
                "user of /etc/passwd",
            ),
            (
                Subordinate {
                    uid_tool: Tool::Missing,
                    ..works()
                },
                "newuidmap is not in PATH",
                "package uidmap",
            ),
            (
                Subordinate {
                    gid_tool: Tool::Unprivileged("/b/newgidmap".into()),
                    ..works()
                },
                "/b/newgidmap is neither set-user-ID",
                "'setcap cap_setgid+ep /b/newgidmap'",
            ),
            (
                Subordinate {
                    uid_tool: Tool::Nosuid("/b/newuidmap".into()),
                    ..works()
                },
                "mounted nosuid",
                "remount the file system of /b/newuidmap",
            ),
            (
                Subordinate {
                    no_new_privs: true,
                    ..works()
                },
                "no_new_privs is set",
                "NoNewPrivileges=no",
            ),
        ];
        for (subordinate, found, remedy) in cases {
            let finding = judge(&user(subordinate, 1));
            assert_eq!((finding.state, finding.stops), (State::Limited, None));
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(
                finding.remedy.as_ref().unwrap().contains(remedy),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn maps_that_cannot_be_written() {
        let failed = |hint| {
            judge(&Ids {
                written: Some(Err(("newuidmap: no".to_owned(), hint))),
                ..user(works(), 65537)
            })
        };
        let finding = failed(Some(Hint::SubordinateIds));
        assert_eq!(finding.stops, Some(Stops::Run));
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains("165536-231071 anna'"), "{remedy}");
        assert!(remedy.contains("--uidmap=0:1000:1"), "{remedy}");
        assert!(failed(None).remedy.unwrap().starts_with("run with"));
    }
}
