//! What must not succeed. These tests run in namespaces of their own, as root
//! there.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::inside::{bind, dir, errno, file, run};
use super::*;

fn hostile_root(executor: &mut Executor) -> PathBuf {
    let scratch = scratch();
    let tree = Step::RootBind {
        source: scratch.join("tree"),
        nosuid: true,
        read_only: false,
    };
    run(executor, &[Step::PrivateMounts, tree]);
    scratch
}

fn check_canary(scratch: &Path) {
    // From the stage, the host's tree is at /host.
    let canary = Path::new("/host")
        .join(scratch.strip_prefix("/").unwrap())
        .join("canary");
    let names: Vec<_> = fs::read_dir(&canary)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "canary");
    for mount in mount_table_of_stage() {
        assert!(
            mount.starts_with("/root") || !mount.contains("canary"),
            "{mount}"
        );
    }
}

/// Where mounts are, as seen from the stage.
fn mount_table_of_stage() -> Vec<String> {
    let text = fs::read_to_string("/host/proc/self/mountinfo").unwrap();
    text.lines()
        .map(|line| line.split(' ').nth(4).unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "started by links_lead_nowhere_outside"]
fn hostile_tree() {
    let mut executor = Executor::new(Vec::new());
    let scratch = hostile_root(&mut executor);
    let volume = scratch.join("volume");
    run(
        &mut executor,
        &[Step::Proc {
            target: "/kernel".into(),
        }],
    );
    for target in [
        "/absolute",
        "/relative",
        "/dangling",
        "/dangling-up/x",
        "/absolute/new/dir",
        "/../../real",
    ] {
        run(&mut executor, &[bind(volume.clone(), target, false)]);
    }
    for target in [
        "/loop",
        "/loop/x",
        "/into-proc",
        "/into-proc/attr",
        "/magic",
        "/magic/etc",
        "/",
        "//..",
    ] {
        let refused = errno(&mut executor, &bind(volume.clone(), target, false));
        let expected = [libc::ELOOP, libc::EINVAL];
        assert!(expected.contains(&refused), "{target}: {refused}");
    }
    run(
        &mut executor,
        &[file("/etc/hosts", "x"), file("/etc/hostname", "x")],
    );
    let warnings = executor.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("/etc/hosts: left as it is: is not")),
        "{warnings:?}"
    );
    run(
        &mut executor,
        &[
            dir("/absolute/dir"),
            Step::Mask {
                target: "/relative".into(),
            },
        ],
    );
    check_canary(&scratch);
    // All went into the tree itself, at the place that the links name there.
    let tree = Path::new("/root")
        .join(scratch.strip_prefix("/").unwrap())
        .join("canary");
    let volume = Path::new("/host").join(volume.strip_prefix("/").unwrap());
    assert!(volume.join("new/dir").is_dir() && volume.join("dir").is_dir());
    let mounts = mount_table_of_stage();
    assert!(mounts.contains(&tree.display().to_string()), "{mounts:?}");
    for made in [
        "/root/nowhere/at/all",
        "/root/not/here/x",
        "/root/real",
        "/root/made",
    ] {
        assert!(mounts.contains(&made.to_owned()), "{made}: {mounts:?}");
    }
}

fn refuses(step: &Step) {
    let mut executor = Executor::new(Vec::new());
    let scratch = hostile_root(&mut executor);
    assert_eq!(errno(&mut executor, step), libc::ELOOP);
    check_canary(&scratch);
}

#[test]
#[ignore = "started by kernel_file_systems_follow_no_link"]
fn hostile_proc() {
    refuses(&Step::Proc {
        target: "/proc".into(),
    });
}

#[test]
#[ignore = "started by kernel_file_systems_follow_no_link"]
fn hostile_sys() {
    refuses(&Step::Sysfs {
        target: "/sys".into(),
    });
}

#[test]
#[ignore = "started by kernel_file_systems_follow_no_link"]
fn hostile_dev() {
    refuses(&Step::Dev {
        target: "/dev".into(),
        console: true,
        shm_size: DEFAULT_SHM_SIZE,
    });
}

/// Another process exchanges a directory and a link to the outside, over
/// and over, while mounts and files are made beneath it.
#[test]
#[ignore = "started by a_tree_that_changes_meanwhile_leads_nowhere_outside"]
fn race() {
    const ROUNDS: u32 = 2000;
    let mut executor = Executor::new(Vec::new());
    let scratch = hostile_root(&mut executor);
    let (done, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let tree = Path::new("/host")
        .join(scratch.strip_prefix("/").unwrap())
        .join("tree");
    let mut outcomes = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cwd = rustix::fs::CWD;
            let (real, link) = (tree.join("real"), tree.join("relative"));
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(cwd, &real, cwd, &link, exchange).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut round = 0;
        while round < ROUNDS || swaps.load(Ordering::Relaxed) < ROUNDS {
            let target = format!("/real/made{}", round % 7);
            let step = match round % 3 {
                0 => dir(&target),
                // No more than the limit of mounts allows.
                1 if round < ROUNDS => bind(scratch.join("volume"), &target, false),
                _ => Step::Mask {
                    target: "/real/not-there".into(),
                },
            };
            let outcome = executor.step(&step).map_err(|failure| failure.errno);
            *outcomes.entry(outcome).or_insert(0) += 1;
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(
        outcomes.get(&Ok(())).is_some_and(|done| *done > 100),
        "{outcomes:?}"
    );
    check_canary(&scratch);
}

/// The host's /dev/null is not one (in a container of another kind).
#[test]
#[ignore = "started by a_device_must_be_the_device"]
fn false_device() {
    scratch();
    let mut executor = Executor::new(Vec::new());
    run(&mut executor, &[Step::PrivateMounts]);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let zero = rustix::fs::open("/dev/zero", flags, Mode::empty()).unwrap();
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).unwrap();
    attach(copy_mount(zero, Depth::Top).unwrap(), null).unwrap();
    run(&mut executor, &[Step::RootTmpfs]);
    let create = FileKind::Regular {
        mode: 0o644,
        content: Vec::new(),
    };
    run(
        &mut executor,
        &[Step::Create {
            target: "/secret".into(),
            kind: create,
        }],
    );
    let mask = Step::Mask {
        target: "/secret".into(),
    };
    assert_eq!(errno(&mut executor, &mask), libc::ENODEV);
    let dev = Step::Dev {
        target: "/dev".into(),
        console: false,
        shm_size: DEFAULT_SHM_SIZE,
    };
    let failure = executor.step(&dev).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "bind device: /dev/null: No such device (os error 19)"
    );
}
