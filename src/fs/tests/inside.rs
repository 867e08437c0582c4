//! Whole trees. These tests run in namespaces of their own, as root there.

use super::*;

pub(super) fn run(executor: &mut Executor, steps: &[Step]) {
    for step in steps {
        executor
            .step(step)
            .unwrap_or_else(|failure| panic!("{step}: {failure}"));
    }
}

pub(super) fn errno(executor: &mut Executor, step: &Step) -> i32 {
    executor.step(step).expect_err("to be refused").errno
}

pub(super) fn dir(target: &str) -> Step {
    Step::Create {
        target: target.into(),
        kind: FileKind::Directory { mode: 0o750 },
    }
}

pub(super) fn bind(source: PathBuf, target: &str, read_only: bool) -> Step {
    let flags = MountFlags {
        read_only,
        nosuid: true,
        nodev: true,
        ..MountFlags::default()
    };
    Step::Bind {
        source,
        target: target.into(),
        flags,
        propagation: Propagation::Private,
        idmap: false,
    }
}

pub(super) fn file(target: &str, content: &str) -> Step {
    Step::File {
        target: target.into(),
        content: content.into(),
    }
}

pub(super) fn kernel_steps(console: bool) -> Vec<Step> {
    vec![
        Step::Proc {
            target: "/proc".into(),
        },
        Step::Sysfs {
            target: "/sys".into(),
        },
        Step::Dev {
            target: "/dev".into(),
            console,
            shm_size: DEFAULT_SHM_SIZE,
        },
        Step::Cgroup {
            target: "/sys/fs/cgroup".into(),
        },
    ]
}

fn covers() -> Vec<Step> {
    let mask = |target: &str| Step::Mask {
        target: target.into(),
    };
    let read_only = |target: &str| Step::ReadOnlyPath {
        target: target.into(),
    };
    vec![
        mask("/proc/cmdline"),
        mask("/proc/acpi"),
        mask("/proc/bus"),
        mask("/proc/not-there"),
        mask("/sys/firmware"),
        read_only("/proc/sys"),
        read_only("/proc/not-there"),
    ]
}

fn check_common() {
    let table = mount_table();
    for mount in &table {
        assert_eq!(mount.optional, [] as [&str; 0], "not private: {mount:?}");
        for trace in ["/host", "/root/", "/empty", "/null"] {
            assert!(!mount.target.starts_with(trace), "of the stage: {mount:?}");
        }
    }
    let last = |target: &str| {
        table
            .iter()
            .rfind(|mount| mount.target == target)
            .unwrap_or_else(|| {
                panic!("nothing on {target}: {table:#?}");
            })
    };
    for (target, kind, flags) in [
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/null", "devtmpfs", "rw,nosuid,noexec,relatime"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
        ("/proc/bus", "tmpfs", "ro,nosuid,nodev,noexec,relatime"),
    ] {
        let mount = last(target);
        assert_eq!(
            (mount.kind.as_str(), mount.flags.as_str()),
            (kind, flags),
            "{mount:?}"
        );
    }
    assert_eq!(last("/proc/cmdline").root, "/null");
    assert!(last("/sys/fs/cgroup").flags.starts_with("ro,"));
    assert!(last("/proc/bus").options.starts_with("ro"));
    assert!(last("/dev/pts").options.contains("ptmxmode=666"));

    assert_eq!(fs::read("/proc/cmdline").unwrap(), b"");
    assert_eq!(fs::read_dir("/proc/bus").unwrap().count(), 0);
    // Only opened, and one of the network namespace's.
    let sysctl = fs::OpenOptions::new()
        .write(true)
        .open("/proc/sys/net/ipv4/ip_forward");
    let refused = sysctl.unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(
        fs::read_dir("/proc/1/task").unwrap().count(),
        task_count(),
        "own procfs"
    );
    for (name, device) in [
        ("null", 0x103),
        ("zero", 0x105),
        ("full", 0x107),
        ("random", 0x108),
        ("tty", 0x500),
    ] {
        let metadata = fs::metadata(Path::new("/dev").join(name)).unwrap();
        assert!(metadata.file_type().is_char_device());
        assert_eq!(metadata.rdev(), device, "{name}");
    }
    fs::write("/dev/null", "x").unwrap();
    assert_eq!(
        fs::read_link("/dev/fd").unwrap(),
        Path::new("/proc/self/fd")
    );
    fs::File::open("/dev/ptmx").unwrap();
    let devices: Vec<_> = fs::read_dir("/dev")
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let known = "null zero full random urandom tty console ptmx pts shm mqueue \
                 fd stdin stdout stderr";
    for device in devices {
        assert!(known.split(' ').any(|name| device == name), "{device:?}");
    }

    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
    let (here, above) = (fs::metadata("/").unwrap(), fs::metadata("/..").unwrap());
    assert_eq!((here.dev(), here.ino()), (above.dev(), above.ino()));
}

fn task_count() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let threads = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))
        .unwrap();
    threads.trim().parse().unwrap()
}

#[test]
#[ignore = "started by a_tmpfs_root_is_what_the_plan_says"]
fn tmpfs_root() {
    let scratch = scratch();
    let umask = rustix::process::umask(Mode::from_raw_mode(0o027));
    let mut executor = Executor::new(Vec::new());
    run(
        &mut executor,
        &[
            Step::PrivateMounts,
            Step::RootTmpfs,
            dir("/home/me"),
            dir("/home/me"),
            Step::Create {
                target: "/etc/passwd".into(),
                kind: FileKind::Regular {
                    mode: 0o644,
                    content: b"root".to_vec(),
                },
            },
            Step::Create {
                target: "/bin/program".into(),
                kind: FileKind::CopyOf {
                    mode: 0o755,
                    source: scratch.join("program"),
                },
            },
            Step::Create {
                target: "/bin/link".into(),
                kind: FileKind::Symlink {
                    to: "program".into(),
                },
            },
            Step::Create {
                target: "/run/deep/er".into(),
                kind: FileKind::Symlink { to: "/".into() },
            },
        ],
    );
    let clash = Step::Create {
        target: "/bin".into(),
        kind: FileKind::Symlink { to: "x".into() },
    };
    assert_eq!(errno(&mut executor, &clash), libc::EEXIST);
    assert_eq!(errno(&mut executor, &Step::RootTmpfs), libc::EBUSY);
    run(&mut executor, &kernel_steps(true));
    run(
        &mut executor,
        &[
            bind(scratch.join("volume"), "/data", false),
            bind(scratch.join("volume/file"), "/data-ro/file", true),
            Step::Tmpfs {
                target: "/data/../tmp".into(),
                options: Tmpfs {
                    size: Some(1 << 20),
                    ..Tmpfs::default()
                },
                flags: MountFlags {
                    noexec: true,
                    ..MountFlags::default()
                },
            },
            file("/etc/hosts", "127.0.0.1 localhost\n"),
            // In a volume, nothing is created or written.
            file("/data/hosts", "must not be seen"),
            file("/data/file", "private"),
        ],
    );
    let warnings = executor.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("/data/hosts: ")),
        "{warnings:?}"
    );
    let sysctl = |key: &str| Step::Sysctl {
        key: key.to_owned(),
        value: "0 0".to_owned(),
        required: true,
    };
    run(&mut executor, &[sysctl("net.ipv4.ping_group_range")]);
    for key in [
        "",
        "net..x",
        "/net",
        "net/ipv4",
        "vm.swappiness",
        "net.ipv4.ip_forward\n",
        "..net",
        "a+b",
    ] {
        assert_eq!(errno(&mut executor, &sysctl(key)), libc::EINVAL, "{key}");
    }
    run(&mut executor, &covers());
    let pty = executor.take_pty().expect("a terminal");
    assert!(executor.take_pty().is_none());
    run(&mut executor, &[Step::ReadOnlyRoot, Step::PivotRoot]);
    assert_eq!(executor.take_warnings(), [] as [&str; 0]);
    drop(executor);

    check_common();
    let mut names: Vec<_> = fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let expected = [
        "bin", "data", "data-ro", "dev", "etc", "home", "proc", "run", "sys", "tmp",
    ];
    assert_eq!(names, expected);
    let table = mount_table();
    for mount in &table {
        let inherent = [
            "/", "/null", "/zero", "/full", "/random", "/urandom", "/tty", "/sys",
        ];
        let expected = mount.target.starts_with("/data") || mount.target == "/dev/console";
        assert!(
            inherent.contains(&mount.root.as_str()) || expected,
            "host path: {mount:?}"
        );
    }
    assert!(
        table[0].target == "/" && table[0].flags == "ro,nodev,relatime",
        "{table:#?}"
    );
    let mode = |path: &str| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(
        [mode("/"), mode("/home/me"), mode("/home")],
        [0o755, 0o750, 0o755]
    );
    assert_eq!(
        [mode("/tmp"), mode("/dev/shm"), mode("/etc/hosts")],
        [0o1777, 0o1777, 0o644]
    );
    assert_eq!(fs::read_link("/bin/link").unwrap(), Path::new("program"));
    let copied = fs::metadata("/bin/program").unwrap();
    assert!(copied.len() > 100_000 && copied.mode() & 0o777 == 0o755);
    assert_eq!(
        fs::read_to_string("/etc/hosts").unwrap(),
        "127.0.0.1 localhost\n"
    );
    assert!(
        !table.iter().any(|mount| mount.target == "/etc/hosts"),
        "no mount needed"
    );
    assert_eq!(fs::read_to_string("/data/file").unwrap(), "private");
    assert_eq!(fs::read_to_string("/data-ro/file").unwrap(), "volume");
    let refused = fs::write("/data-ro/file", "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    fs::write("/data/new", "x").unwrap();
    fs::write("/tmp/new", "x").unwrap();
    assert_eq!(
        fs::write("/new", "x").unwrap_err().raw_os_error(),
        Some(libc::EROFS)
    );
    let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
    assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);

    // The terminal is in our own devpts, and is what /dev/console is.
    let slave = rustix::fs::fstat(&pty.slave).unwrap().st_rdev;
    assert_eq!(fs::metadata("/dev/console").unwrap().rdev(), slave);
    assert_eq!(fs::metadata("/dev/pts/0").unwrap().rdev(), slave);
    rustix::io::write(&pty.slave, b"out").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(rustix::io::read(&pty.master, &mut buffer).unwrap(), 3);

    let now = rustix::process::umask(umask);
    assert_eq!(now, Mode::from_raw_mode(0o027), "umask restored");
}

#[test]
#[ignore = "started by the_hosts_tree_can_be_the_root"]
fn host_root() {
    let scratch = scratch();
    let mut executor = Executor::new(Vec::new());
    let before = fs::metadata("/usr").unwrap();
    run(
        &mut executor,
        &[
            Step::PrivateMounts,
            Step::RootBind {
                source: "/".into(),
                nosuid: true,
                read_only: true,
            },
        ],
    );
    run(&mut executor, &kernel_steps(false));
    // The mount point is on the host; the mount is not.
    let volume = scratch.join("volume");
    let target = volume.to_str().unwrap();
    run(
        &mut executor,
        &[
            bind(scratch.clone(), target, true),
            file("/etc/hostname", "box\n"),
        ],
    );
    run(&mut executor, &[file("/etc/crun-lite-not-there", "x")]);
    let warnings = executor.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("not-there")),
        "{warnings:?}"
    );
    run(&mut executor, &covers());
    run(&mut executor, &[Step::ReadOnlyRoot, Step::PivotRoot]);
    check_common();
    let after = fs::metadata("/usr").unwrap();
    assert_eq!((before.dev(), before.ino()), (after.dev(), after.ino()));
    assert_eq!(fs::read_to_string("/etc/hostname").unwrap(), "box\n");
    assert!(!Path::new("/etc/crun-lite-not-there").exists());
    let refused = fs::write(scratch.join("x"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let ours = ["/proc", "/sys", "/dev"];
    for mount in mount_table() {
        let below = ours
            .iter()
            .any(|dir| Path::new(&mount.target).starts_with(dir));
        let devices = below || mount.target == "/etc/hostname";
        assert!(devices || mount.flags.contains("nodev"), "{mount:?}");
        assert!(
            below || mount.flags.starts_with("ro") || mount.target == "/etc/hostname",
            "{mount:?}"
        );
    }
}

#[test]
#[ignore = "started by a_read_only_directory_is_so_all_through"]
fn read_only_directory() {
    let scratch = scratch();
    let mut executor = Executor::new(Vec::new());
    run(&mut executor, &[Step::PrivateMounts]);
    // Something mounted below the tree, as on a host with several disks.
    let below = scratch.join("tree/below");
    let disk = new_mount("tmpfs", &[], MountAttrFlags::empty()).unwrap();
    let place = rustix::fs::open(&below, OFlags::PATH, Mode::empty()).unwrap();
    attach(&disk, place).unwrap();
    let tree = Step::RootBind {
        source: scratch.join("tree"),
        nosuid: true,
        read_only: true,
    };
    run(&mut executor, &[tree]);
    run(&mut executor, &kernel_steps(false));
    run(
        &mut executor,
        &[
            bind(scratch.join("volume"), "/made/for/it", false),
            file("/etc/hosts", "private"),
            file("/etc/hostname", "made"),
        ],
    );
    run(&mut executor, &covers());
    run(&mut executor, &[Step::ReadOnlyRoot, Step::PivotRoot]);
    assert_eq!(executor.take_warnings(), [] as [&str; 0]);
    check_common();
    for path in ["/x", "/below/x", "/etc/x", "/made/x"] {
        let refused = fs::write(path, "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{path}");
    }
    fs::write("/made/for/it/x", "x").unwrap();
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), "private");
    assert_eq!(fs::read_to_string("/etc/hostname").unwrap(), "made");
    for mount in mount_table() {
        assert!(
            !mount.root.contains("/host/"),
            "a name that tells: {mount:?}"
        );
    }
}

#[test]
#[ignore = "started by outer_file_systems_are_shown_where_new_ones_are_refused"]
fn nested() {
    scratch();
    let mut executor = Executor::new(Vec::new());
    run(&mut executor, &[Step::PrivateMounts, Step::RootTmpfs]);
    run(&mut executor, &kernel_steps(true));
    let warnings = executor.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("/proc: the kernel refused")),
        "{warnings:?}"
    );
    let sysctl = |required| Step::Sysctl {
        key: "net.ipv4.ping_group_range".to_owned(),
        value: "0 0".to_owned(),
        required,
    };
    assert_eq!(errno(&mut executor, &sysctl(true)), libc::EXDEV);
    run(&mut executor, &[sysctl(false)]);
    let warnings = executor.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("sysctl net.ipv4.ping")),
        "{warnings:?}"
    );
    run(&mut executor, &covers());
    run(&mut executor, &[Step::PivotRoot]);
    let flags_of = |target: &str| {
        let table = mount_table();
        let last = table.iter().rfind(|mount| mount.target == target);
        last.map(|mount| (mount.kind.clone(), mount.flags.clone()))
    };
    let inert = "nosuid,nodev,noexec,relatime";
    for (target, kind, flags) in [
        ("/proc", "proc", "rw"),
        ("/sys", "sysfs", "ro"),
        ("/proc/sys", "proc", "ro"),
        ("/proc/bus", "tmpfs", "ro"),
        ("/dev/mqueue", "mqueue", "rw"),
    ] {
        let expected = (kind.to_owned(), format!("{flags},{inert}"));
        if target == "/dev/mqueue" && flags_of(target).is_none() {
            // The host shows none, and a new one would be another's.
            continue;
        }
        assert_eq!(flags_of(target), Some(expected), "{target}");
    }
    // What the outer container hides stays hidden.
    assert_eq!(fs::read_dir("/proc/irq").unwrap().count(), 0);
    for mount in mount_table() {
        let below = Path::new(&mount.target).starts_with("/sys");
        assert!(!below || mount.flags.starts_with("ro,"), "{mount:?}");
    }
}
