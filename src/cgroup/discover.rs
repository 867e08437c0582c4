//! Which version, where we are, and what is ours to divide.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Which versions are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// Neither.
    None,
    /// v2 alone.
    V2,
    /// v1, and v2 without the controllers that v1 has.
    Hybrid,
    /// v1 alone.
    V1,
}

/// A controller of v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    /// Its name.
    pub name: String,
    /// Our cgroup's directory.
    pub dir: PathBuf,
    /// Cgroups can be made below it.
    pub writable: bool,
}

/// A part of the v2 tree that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Its top.
    pub dir: PathBuf,
    /// What can be limited below it.
    pub controllers: Vec<String>,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Which versions.
    pub hierarchy: Hierarchy,
    /// Our own cgroup's directory in v2, where it can be seen.
    pub own: Option<PathBuf>,
    /// systemd has handed our own cgroup over as a whole (`Delegate=yes`).
    pub handed_over: bool,
    /// What of v2 is ours.
    pub delegated: Option<Delegated>,
    /// The controllers of v1.
    pub v1: Vec<V1>,
    /// systemd manages this host.
    pub systemd: bool,
}

/// Where cgroups are, by the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    /// Mount point and own directory of v2.
    v2: Option<(PathBuf, Option<PathBuf>)>,
    /// Controllers of v1, with our own directory.
    v1: Vec<(String, PathBuf)>,
}

/// Looks; changes nothing.
pub fn look() -> Cgroups {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let places = places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let hierarchy = match (&places.v2, places.v1.is_empty()) {
        (None, true) => Hierarchy::None,
        (None, false) => Hierarchy::V1,
        (Some(_), true) => Hierarchy::V2,
        (Some(_), false) => Hierarchy::Hybrid,
    };
    let (top, own) = places.v2.unzip();
    let own = own.flatten();
    Cgroups {
        hierarchy,
        handed_over: own.as_deref().is_some_and(is_handed_over),
        delegated: top
            .zip(own.as_ref())
            .and_then(|(top, own)| delegated(&top, own)),
        own,
        v1: places
            .v1
            .into_iter()
            .map(|(name, dir)| V1 {
                writable: may_write(&dir) && may_write(&dir.join("cgroup.procs")),
                name,
                dir,
            })
            .collect(),
        // sd_booted(3)
        systemd: Path::new("/run/systemd/system").is_dir(),
    }
}

fn may_write(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}

/// How systemd marks what it leaves alone (its "Control Group APIs and Delegation").
fn is_handed_over(dir: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(dir, "user.delegate", &mut value) == Ok(1) && value == *b"1"
}

/// The topmost cgroup from `own` up to `top` that is ours.
fn delegated(top: &Path, own: &Path) -> Option<Delegated> {
    let is_ours = |dir: &&Path| {
        may_write(dir)
            && ["cgroup.procs", "cgroup.subtree_control"]
                .iter()
                .all(|file| may_write(&dir.join(file)))
    };
    let dir = own
        .ancestors()
        .take_while(|dir| dir.starts_with(top))
        .filter(is_ours)
        .last()?;
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    Some(Delegated {
        dir: dir.to_owned(),
        controllers: controllers.split_whitespace().map(str::to_owned).collect(),
    })
}

fn places(mountinfo: &str, own: &str) -> Places {
    let mut places = Places::default();
    // "ID:CONTROLLERS:PATH", v2 has no controllers.
    let paths: Vec<(&str, &str)> = own
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .collect();
    for line in mountinfo.lines() {
        // proc(5): "ID PARENT DEVICE ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS"
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let (Some(root), Some(point), Some(kind), Some(options)) =
            (before.get(3), before.get(4), after.first(), after.get(2))
        else {
            continue;
        };
        let point = Path::new(point);
        let below = |path: &str| {
            let rest = Path::new(path).strip_prefix(root).ok()?;
            // Out of our cgroup namespace.
            (!rest.starts_with("..")).then(|| {
                // Without the slash at the end that joining nothing makes.
                point.join(rest).components().collect::<PathBuf>()
            })
        };
        match *kind {
            "cgroup2" if places.v2.is_none() => {
                let path = paths.iter().find(|(controllers, _)| controllers.is_empty());
                places.v2 = Some((point.to_owned(), path.and_then(|(_, path)| below(path))));
            }
            "cgroup" => {
                for (controllers, path) in &paths {
                    // Mounted together or not, a controller is among the options.
                    for name in controllers.split(',').filter(|name| !name.contains('=')) {
                        let known = places.v1.iter().any(|(known, _)| known == name);
                        if !known && options.split(',').any(|option| option == name) {
                            places
                                .v1
                                .extend(below(path).map(|dir| (name.to_owned(), dir)));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified() {
        let mounts = "22 1 0:5 / /proc rw - proc proc rw\n\
                      30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let found = places(mounts, "0::/user.slice/user-1.slice/session-2.scope\n");
        let dir = "/sys/fs/cgroup/user.slice/user-1.slice/session-2.scope";
        assert_eq!(found.v2, Some(("/sys/fs/cgroup".into(), Some(dir.into()))));
        assert_eq!(found.v1, []);
        let found = places(mounts, "0::/\n").v2.unwrap();
        assert_eq!(found.1, Some("/sys/fs/cgroup".into()));
        // In a cgroup namespace that is not ours, or in none at all.
        assert_eq!(places(mounts, "0::/../x\n").v2.unwrap().1, None);
        assert_eq!(places(mounts, "").v2.unwrap().1, None);
    }

    #[test]
    fn a_part_that_is_mounted() {
        let mounts = "30 23 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = places(mounts, "0::/docker/1/x\n").v2.unwrap();
        assert_eq!(found.1, Some("/sys/fs/cgroup/x".into()));
        assert_eq!(places(mounts, "0::/docker/2\n").v2.unwrap().1, None);
    }

    #[test]
    fn hybrid() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/\n1:name=systemd:/c\n0::/c\n";
        let found = places(mounts, own);
        assert_eq!(
            found.v1,
            [
                ("cpu".into(), "/sys/fs/cgroup/cpu,cpuacct".into()),
                ("cpuacct".into(), "/sys/fs/cgroup/cpu,cpuacct".into()),
                ("memory".into(), "/sys/fs/cgroup/memory/a/b".into()),
            ]
        );
        assert_eq!(found.v2.unwrap().1, Some("/sys/fs/cgroup/unified/c".into()));
    }

    #[test]
    fn none() {
        assert_eq!(places("broken\n1 2 - x\n", "0\n"), Places::default());
    }
}
