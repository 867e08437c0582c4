//! How somebody gets what is missing: the words of `crun-lite doctor` and of errors.
//! Pure.

use std::path::Path;

use super::Cgroups;

/// What limits are made of.
pub const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Where no cgroups are mounted.
pub const MOUNT: &str = "as root, 'mount -t cgroup2 cgroup2 /sys/fs/cgroup'";

/// Where our own cgroup is out of our cgroup namespace.
pub const NAMESPACE: &str =
    "start the container that this is in with a cgroup namespace of its own";

/// How the user gets a part of the tree.
pub fn delegate(cgroups: &Cgroups, root: bool) -> String {
    let service = cgroups.own.as_ref().and_then(|own| {
        own.components()
            .filter_map(|part| part.as_os_str().to_str())
            .find(|name| name.ends_with(".service") && !name.starts_with("user@"))
    });
    if root {
        return "have /sys/fs/cgroup mounted read-write where the container that this is in is \
                started (podman: --security-opt unmask=/sys/fs/cgroup)"
            .to_owned();
    }
    if !cgroups.systemd {
        return "as root, make a cgroup below /sys/fs/cgroup, give it, its cgroup.procs and its \
                cgroup.subtree_control to the user with chown(1), and start the user's shell in a \
                cgroup below it"
            .to_owned();
    }
    match service {
        Some(service) => drop_in(service),
        None => format!(
            "start it by 'systemd-run --user --scope -p Delegate=yes crun-lite ...'; for all \
             controllers, {}",
            drop_in("user@.service")
        ),
    }
}

/// How `parent` comes to pass these controllers on.
pub fn pass_on(cgroups: &Cgroups, root: bool, parent: &Path, missing: &[&str]) -> String {
    if cgroups.systemd && !root {
        return drop_in("user@.service");
    }
    let words: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    format!(
        "as root, 'echo {} > {}/cgroup.subtree_control', where cgroup.controllers has them",
        words.join(" "),
        parent.display()
    )
}

/// systemd.resource-control(5)
fn drop_in(unit: &str) -> String {
    format!(
        "as root, '[Service]' and 'Delegate={}' in /etc/systemd/system/{unit}.d/delegate.conf, \
         then 'systemctl daemon-reload' and {}",
        CONTROLLERS.join(" "),
        if unit == "user@.service" {
            "a new login".to_owned()
        } else {
            format!("'systemctl restart {unit}'")
        }
    )
}

/// How a cgroup that has processes comes to have limited ones below it.
pub fn make_room(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "put them into a cgroup below it, 'mkdir {dir}/main; for p in $(cat {dir}/cgroup.procs); \
         do echo $p > {dir}/main/cgroup.procs; done'"
    )
}

/// How controllers of v1 come to be the caller's.
pub fn v1(root: bool) -> &'static str {
    if root {
        "have the cgroups mounted read-write where the container that this is in is started"
    } else {
        "v1 is not made to be delegated: as root, boot with 'systemd.unified_cgroup_hierarchy=1' \
         (without systemd: 'cgroup_no_v1=all') for v2"
    }
}
