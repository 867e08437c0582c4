//! T3, T4, T5, T7: a root filesystem whose paths become links while the container is
//! being made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;

use super::{race, races};
use crate::util::{Who, report, rootfs, tool};

/// Directories of the root that are exchanged with links.
const NAMES: [&str; 7] = ["proc", "sys", "dev", "etc", "tmp", "run", "volume"];

/// A tree of the host that must stay as it is, and what is told of changes to it.
struct Canary {
    path: PathBuf,
    watch: std::os::fd::OwnedFd,
    before: String,
}

impl Canary {
    fn new(path: PathBuf) -> Self {
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        let mut folders = vec![path.clone()];
        for name in NAMES {
            // What the runtime is to find when it is led here.
            let folder = path.join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("null"), "").unwrap();
            fs::write(folder.join("hosts"), "").unwrap();
            folders.push(folder);
        }
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVE
            | inotify::WatchFlags::MOVE_SELF;
        for folder in &folders {
            inotify::add_watch(&watch, folder, flags).unwrap();
        }
        let before = tree(&path);
        Self {
            path,
            watch,
            before,
        }
    }

    fn check(&self, context: &str) {
        let mut room = [0; 4096];
        match rustix::io::read(&self.watch, &mut room) {
            Err(rustix::io::Errno::AGAIN) => {}
            read => panic!("something happened outside: {read:?} {room:?}\n{context}"),
        }
    }
}

/// Everything in a folder, with what tells a change.
fn tree(path: &Path) -> String {
    tool(
        "find",
        &[path.to_str().unwrap(), "-printf", "%p %y %m %U %s %C@ %l\n"],
    )
}

both! {
    fn a_root_that_changes_meanwhile_leads_nowhere(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = folder.path();
        let outside = who.folder();
        let volume = who.folder();
        let path = outside.path().join("canary");
        fs::create_dir(&path).unwrap();
        // The links that each name is exchanged with, one kind after the other.
        let canary = path.display().to_string();
        let up = "../".repeat(12);
        let kinds = [
            ("absolute", canary.clone()),
            ("upwards", format!("{up}{canary}")),
            ("magic", format!("/proc/self/root{canary}")),
            ("another's magic", format!("/proc/{}/root{canary}", std::process::id())),
            ("dangling", format!("{canary}/absent")),
        ];
        let pairs: Vec<_> = NAMES.iter().map(|name| (root.join(name), root.join(format!(".{name}")))).collect();
        for (real, _) in &pairs {
            fs::create_dir(real).unwrap();
            who.own(real);
        }
        let watched = Canary::new(path.clone());
        for name in NAMES {
            who.own(&path.join(name));
        }
        who.own(&path);
        // The changes of owner were ours.
        let mut room = [0; 4096];
        while rustix::io::read(&watched.watch, &mut room).is_ok() {}
        let watched = Canary { before: tree(&path), ..watched };

        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let option = format!("--rootfs={}", root.display());
        let volume = format!("{}:/volume/deep/inside", volume.path().display());
        let args = ["--net=none", &option, "-v", &volume, "--tmpfs=/tmp/x", "-w", "/etc/y", "--security-opt=mask=/etc/hosts:/run", "--", "cat", "/proc/self/mountinfo"];
        let run = who.crun(&args);
        for (kind, target) in kinds {
            for ((_, link), name) in pairs.iter().zip(NAMES) {
                let _ = fs::remove_file(link);
                let _ = fs::remove_dir_all(link);
                symlink(format!("{target}/{name}"), link).unwrap();
            }
            let mut outcomes = BTreeMap::<_, u64>::new();
            let swaps = race(&run, &pairs, |start| {
                let all = format!("{kind}: {:?} {}{}", start.code, start.stdout, start.stderr);
                match start.code {
                    // The fourth field is what of its file system is mounted; where,
                    // is beneath the root in any case.
                    Some(0) => {
                        let roots = start.stdout.lines().filter_map(|line| line.split(' ').nth(3));
                        assert_eq!(roots.filter(|root| root.contains("canary")).count(), 0, "{all}");
                    }
                    // cat(1) may find /proc exchanged, too.
                    Some(1 | 125..=127) => {}
                    _ => panic!("{all}"),
                }
                assert!(!start.stderr.contains("panicked"), "{all}");
                watched.check(&all);
                *outcomes.entry(start.code).or_default() += 1;
            });
            report(&format!("T3, {who:?}, {kind}: {} starts, {swaps} exchanges: {outcomes:?}", races()));
            // An odd number of exchanges leaves the link at the name.
            for (real, link) in &pairs {
                if real.is_symlink() {
                    fs::rename(real, root.join(".spare")).unwrap();
                    fs::rename(link, real).unwrap();
                    fs::rename(root.join(".spare"), link).unwrap();
                }
            }
        }
        watched.check("at the end");
        assert_eq!(tree(&watched.path), watched.before);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
        // What the container was made of was none of the outside's.
        who.run(&args).success();
    }
}
