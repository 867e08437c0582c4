//! Runs the steps for real, each test in new namespaces of its own.
//!
//! A driver starts this same test program through unshare(1), as root and as
//! an ordinary user, with a test of `inside` or `hostile`, which does the work.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::config::DEFAULT_SHM_SIZE;
use crate::plan::FileKind;
use crate::testing::{Outside, in_namespaces, in_namespaces_of, scratch};

mod hostile;
mod inside;

#[test]
fn a_tmpfs_root_is_what_the_plan_says() {
    in_namespaces("fs::tests::inside::tmpfs_root", |scratch| {
        fs::create_dir(scratch.join("volume")).unwrap();
        fs::write(scratch.join("volume/file"), "volume").unwrap();
    });
}

#[test]
fn the_hosts_tree_can_be_the_root() {
    in_namespaces("fs::tests::inside::host_root", |scratch| {
        fs::create_dir(scratch.join("volume")).unwrap()
    });
}

#[test]
fn a_read_only_directory_is_so_all_through() {
    in_namespaces("fs::tests::inside::read_only_directory", |scratch| {
        for dir in ["tree", "tree/below", "tree/etc", "volume"] {
            fs::create_dir(scratch.join(dir)).unwrap();
        }
        fs::write(scratch.join("tree/etc/hosts"), "of the tree").unwrap();
        fs::create_dir(scratch.join("tree/proc")).unwrap();
    });
}

/// A root filesystem full of links, and a canary next to it.
fn hostile_files(scratch: &Path) {
    for dir in ["canary", "volume", "tree", "tree/etc", "tree/real"] {
        fs::create_dir(scratch.join(dir)).unwrap();
    }
    fs::write(scratch.join("canary/file"), "canary").unwrap();
    let canary = scratch.join("canary");
    let up = "../".repeat(20);
    let outside = format!("{up}{}", canary.display());
    for (name, to) in [
        ("proc", canary.as_os_str()),
        ("sys", OsStr::new(&outside)),
        ("dev", canary.as_os_str()),
        ("absolute", canary.as_os_str()),
        ("relative", OsStr::new(&outside)),
        ("dangling", OsStr::new("/nowhere/at/all")),
        ("dangling-up", OsStr::new("../../not/here")),
        ("loop", OsStr::new("loop")),
        ("into-proc", OsStr::new("/kernel/self")),
        ("magic", OsStr::new("/kernel/self/root")),
        ("etc/hosts", OsStr::new("/kernel/sys/kernel/core_pattern")),
        ("etc/hostname", OsStr::new("../made")),
    ] {
        symlink(to, scratch.join("tree").join(name)).unwrap();
    }
}

#[test]
fn links_lead_nowhere_outside() {
    in_namespaces("fs::tests::hostile::hostile_tree", hostile_files);
}

#[test]
fn kernel_file_systems_follow_no_link() {
    for name in ["hostile_proc", "hostile_sys", "hostile_dev"] {
        in_namespaces(&format!("fs::tests::hostile::{name}"), hostile_files);
    }
}

#[test]
fn a_tree_that_changes_meanwhile_leads_nowhere_outside() {
    in_namespaces("fs::tests::hostile::race", hostile_files);
}

#[test]
fn a_device_must_be_the_device() {
    in_namespaces("fs::tests::hostile::false_device", |_| {});
}

#[test]
fn outer_file_systems_are_shown_where_new_ones_are_refused() {
    let name = "fs::tests::inside::nested";
    in_namespaces_of(Outside::Container, name, |_| {});
}

#[test]
fn steps_out_of_order_fail() {
    let mut executor = Executor::new(Vec::new());
    let umask = executor.umask;
    let step = Step::Mask {
        target: "/proc/kcore".into(),
    };
    let failure = executor.step(&step).unwrap_err();
    rustix::process::umask(umask);
    assert_eq!(
        failure.to_string(),
        "mask: /proc/kcore: Invalid argument (os error 22)"
    );
}

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct MountLine {
    root: String,
    target: String,
    flags: String,
    optional: Vec<String>,
    kind: String,
    options: String,
}

fn mount_table() -> Vec<MountLine> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let dash = words.iter().position(|word| word == "-").unwrap();
            MountLine {
                root: words[3].clone(),
                target: words[4].clone(),
                flags: words[5].clone(),
                optional: words[6..dash].to_vec(),
                kind: words[dash + 1].clone(),
                options: words[dash + 3].clone(),
            }
        })
        .collect()
}
