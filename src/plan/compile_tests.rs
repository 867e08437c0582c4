use super::*;
use crate::config::{
    BuiltinNetwork, DEFAULT_SHM_SIZE, Groups, Limits, LinkChoice, MountSpec, NameOrId, Namespaces,
    RootFs, SeccompProfile, Tmpfs, UserNamespace, UserSpec,
};
use crate::plan::FileKind;
use crate::security::caps;

fn spec() -> RunSpec {
    RunSpec {
        command: vec!["sh".into(), "-c".into(), "echo it's \u{1b}".into()],
        rootfs: RootFs::Default,
        read_only: false,
        hostname: "container".into(),
        workdir: None,
        env: Vec::new(),
        user: UserSpec::default(),
        groups: Groups::default(),
        account: None,
        mounts: Vec::new(),
        tty: false,
        init: true,
        interactive: false,
        namespaces: Namespaces::PRIVATE,
        userns: UserNamespace::Private,
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        capabilities: caps::DEFAULT,
        ambient: 0,
        seccomp: SeccompProfile::Default,
        landlock: true,
        no_new_privileges: true,
        mask: Vec::new(),
        unmask: Vec::new(),
        shm_size: DEFAULT_SHM_SIZE,
        sysctls: Vec::new(),
        network: Network::Builtin(BuiltinNetwork::default()),
        dns: Vec::new(),
        dns_search: None,
        dns_options: None,
        add_host: Vec::new(),
        pcap: None,
        net_log: None,
        publish: Vec::new(),
        name: None,
        limits: Limits::default(),
    }
}

const ONE_ID: IdMapEntry = IdMapEntry {
    container: 0,
    host: 1000,
    size: 1,
};

fn maps() -> (Vec<IdMapEntry>, Vec<IdMapEntry>) {
    (vec![ONE_ID], vec![ONE_ID])
}

fn plan_of(spec: &RunSpec, root: &RootSource) -> Plan {
    compile(spec, root, maps(), &EtcFiles::new(spec, "", ""), None)
}

const VOLUME: MountFlags = MountFlags {
    read_only: false,
    nosuid: true,
    nodev: true,
    noexec: false,
    noatime: false,
};

fn volume(source: &str, target: &str) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::Bind {
            source: source.into(),
            propagation: Propagation::Private,
            idmap: false,
        },
        flags: VOLUME,
    }
}

fn targets(plan: &Plan, pick: impl Fn(&Step) -> Option<&PathBuf>) -> Vec<String> {
    plan.steps
        .iter()
        .filter_map(pick)
        .map(|path| path.display().to_string())
        .collect()
}

fn masked(plan: &Plan) -> Vec<String> {
    targets(plan, |step| match step {
        Step::Mask { target } => Some(target),
        _ => None,
    })
}

#[test]
fn the_link_is_told_as_far_as_it_is_known() {
    let line = |link, no_tap: Option<&str>| {
        let mut spec = spec();
        spec.network = Network::Builtin(BuiltinNetwork {
            link,
            no_tap: no_tap.map(str::to_owned),
            ..BuiltinNetwork::default()
        });
        let plan = plan_of(&spec, &RootSource::Bind("/".into())).to_string();
        let line = plan.lines().find(|line| line.contains("bring up lo"));
        line.unwrap().to_owned()
    };
    for (link, no_tap, wanted) in [
        (
            LinkChoice::Tap,
            None,
            "5. bring up lo and tap0, a TAP device",
        ),
        (
            LinkChoice::Tap,
            Some("x"),
            "5. bring up lo and tap0, a TAP device",
        ),
        (
            LinkChoice::Veth,
            None,
            "5. bring up lo and tap0, one end of a veth pair",
        ),
        (
            LinkChoice::Auto,
            Some("open: /dev/net/tun: refused"),
            "5. bring up lo and tap0, one end of a veth pair (open: /dev/net/tun: refused)",
        ),
    ] {
        assert_eq!(line(link, no_tap), wanted);
    }
}

#[test]
fn plan_of_the_default_run() {
    let recipe = RootSource::Recipe(vec![
        Step::Create {
            target: "/bin".into(),
            kind: FileKind::Directory { mode: 0o755 },
        },
        Step::Create {
            target: "/bin/busybox".into(),
            kind: FileKind::CopyOf {
                mode: 0o755,
                source: "/usr/bin/busybox".into(),
            },
        },
        Step::Create {
            target: "/bin/sh".into(),
            kind: FileKind::Symlink {
                to: "busybox".into(),
            },
        },
    ]);
    let expected = "\
1. clone into new namespaces: user, mount, pid, uts, ipc, net, cgroup
2. map user ids: 0 is 1000 of the host
3. map group ids: 0 is 1000 of the host
4. make all mounts private
5. bring up lo and tap0, a TAP device (or a veth pair where that is refused)
6. set the host name to container
7. start from an empty tmpfs as root
8. create directory /bin (mode 755)
9. copy /usr/bin/busybox to /bin/busybox (mode 755)
10. create link /bin/sh to busybox
11. mount proc on /proc (nosuid, nodev, noexec)
12. mount sysfs on /sys (ro, nosuid, nodev, noexec)
13. populate /dev with the standard devices
14. mount cgroup2 on /sys/fs/cgroup (ro, nosuid, nodev, noexec)
15. put a private file at /etc/resolv.conf (20 bytes)
16. put a private file at /etc/hosts (140 bytes)
17. put a private file at /etc/hostname (10 bytes)
18. set sysctl net.ipv4.ping_group_range to 0 0
19. mask /proc/acpi
20. mask /proc/asound
21. mask /proc/interrupts
22. mask /proc/kcore
23. mask /proc/keys
24. mask /proc/latency_stats
25. mask /proc/sched_debug
26. mask /proc/scsi
27. mask /proc/timer_list
28. mask /proc/timer_stats
29. mask /sys/dev/block
30. mask /sys/devices/virtual/powercap
31. mask /sys/firmware
32. mask /sys/fs/selinux
33. make /proc/bus read-only
34. make /proc/fs read-only
35. make /proc/irq read-only
36. make /proc/sys read-only
37. make /proc/sysrq-trigger read-only
38. pivot into the new root and detach the old one
39. lock in the process that runs the network: no capability, no file, 31 system calls
40. execute sh -c 'echo it'\\''s \\u{1b}' as root in / (capabilities: CHOWN DAC_OVERRIDE FOWNER \
FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP; default filter, \
no new privileges; Landlock: writes beneath /)
";
    assert_eq!(plan_of(&spec(), &recipe).to_string(), expected);
}

#[test]
fn plan_of_the_hosts_tree_with_everything_shared() {
    let mut spec = spec();
    spec.read_only = true;
    spec.tty = true;
    spec.network = Network::Host;
    spec.namespaces = Namespaces {
        user: false,
        mount: true,
        pid: false,
        uts: false,
        ipc: false,
        net: false,
        cgroup: false,
    };
    spec.unmask = vec!["ALL".into()];
    spec.mask = vec!["/etc/shadow".into()];
    spec.capabilities = 0;
    spec.seccomp = SeccompProfile::Unconfined;
    spec.no_new_privileges = false;
    spec.workdir = Some("/srv".into());
    spec.user = UserSpec {
        user: Some(NameOrId::Id(7)),
        group: Some(NameOrId::Name("adm".to_owned())),
    };
    spec.mounts = vec![
        volume("/srv/hosts", "/etc/hosts"),
        MountSpec {
            flags: MountFlags {
                read_only: true,
                ..VOLUME
            },
            ..volume("/srv", "/srv")
        },
        MountSpec {
            target: "/srv/tmp".into(),
            kind: MountKind::Tmpfs(Tmpfs {
                size: Some(4096),
                ..Tmpfs::default()
            }),
            flags: MountFlags {
                noexec: true,
                ..VOLUME
            },
        },
    ];
    let expected = "\
1. clone into new namespaces: mount
2. make all mounts private
3. bind / as root (nodev, mounts below it ro)
4. mount proc on /proc (nosuid, nodev, noexec)
5. mount sysfs on /sys (ro, nosuid, nodev, noexec)
6. populate /dev with the standard devices and a terminal
7. bind /dev/shm on /dev/shm (nosuid, nodev, noexec)
8. mount cgroup2 on /sys/fs/cgroup (ro, nosuid, nodev, noexec)
9. bind /srv/hosts on /etc/hosts (nosuid, nodev)
10. bind /srv on /srv (ro, nosuid, nodev)
11. mount tmpfs on /srv/tmp (nosuid, nodev, noexec, mode 1777, at most 4096 bytes)
12. put a private file at /etc/resolv.conf (0 bytes)
13. put a private file at /etc/hostname (10 bytes)
14. mask /etc/shadow
15. make the root read-only
16. pivot into the new root and detach the old one
17. execute sh -c 'echo it'\\''s \\u{1b}' as 7:adm in /srv (capabilities: none; no filter, own terminal)
";
    assert_eq!(
        plan_of(&spec, &RootSource::Bind("/".into())).to_string(),
        expected
    );
}

#[test]
fn order_holds_whatever_is_asked() {
    let position = |plan: &Plan, wanted: &dyn Fn(&Step) -> bool| {
        plan.steps
            .iter()
            .position(wanted)
            .unwrap_or_else(|| panic!("missing in {plan}"))
    };
    for read_only in [false, true] {
        for network in [
            Network::None,
            Network::Host,
            Network::Builtin(BuiltinNetwork::default()),
        ] {
            let mut spec = spec();
            spec.read_only = read_only;
            spec.network = network;
            spec.mounts = vec![volume("/a", "/dev/a"), volume("/b", "/dev/a/b")];
            let plan = plan_of(&spec, &RootSource::Recipe(Vec::new()));
            assert_eq!(plan.steps.first(), Some(&Step::PrivateMounts));
            let root = position(&plan, &|step| matches!(step, Step::RootTmpfs));
            let dev = position(&plan, &|step| matches!(step, Step::Dev { .. }));
            let bind = |name: &'static str| {
                position(
                    &plan,
                    &|step| matches!(step, Step::Bind { source, .. } if source == Path::new(name)),
                )
            };
            let sysctl = position(&plan, &|step| matches!(step, Step::Sysctl { .. }));
            let mask = position(&plan, &|step| matches!(step, Step::Mask { .. }));
            let ro = position(&plan, &|step| matches!(step, Step::ReadOnlyPath { .. }));
            let pivot = position(&plan, &|step| matches!(step, Step::PivotRoot));
            for (index, step) in plan.steps.iter().enumerate() {
                match step {
                    Step::Network { .. } => assert!(index < root, "{plan}"),
                    Step::ReadOnlyRoot => assert_eq!(index + 1, pivot, "{plan}"),
                    _ => {}
                }
            }
            let order = [root, dev, bind("/a"), bind("/b"), sysctl, mask, ro, pivot];
            assert!(order.is_sorted(), "{order:?} of {plan}");
            assert!(
                matches!(plan.steps.get(pivot + 1..), Some([Step::Exec(_)])),
                "{plan}"
            );
            let made_read_only = plan.steps.contains(&Step::ReadOnlyRoot);
            assert_eq!(made_read_only, read_only, "{plan}");
        }
    }
}

#[test]
fn unmask_lifts_what_it_names() {
    let mut spec = spec();
    spec.unmask = vec!["/proc/a*i".into(), "/sys/*".into()];
    let plan = plan_of(&spec, &RootSource::Recipe(Vec::new()));
    let masked = masked(&plan);
    assert!(!masked.contains(&"/proc/acpi".to_owned()), "{masked:?}");
    assert!(masked.contains(&"/proc/asound".to_owned()), "{masked:?}");
    assert!(!masked.contains(&"/sys/firmware".to_owned()), "{masked:?}");
    assert!(
        masked.contains(&"/sys/dev/block".to_owned()),
        "* does not match a slash: {masked:?}"
    );
    assert!(!lifts(Path::new("/proc"), Path::new("/proc/acpi")));
    assert!(lifts(Path::new("/proc/*"), Path::new("/proc/acpi")));
    assert!(!lifts(Path::new("/proc/acpi/x"), Path::new("/proc/acpi")));
}

#[test]
fn a_volume_is_not_masked() {
    let mut spec = spec();
    spec.mounts = vec![volume("/a", "/proc/acpi"), volume("/b", "/sys/dev")];
    let plan = plan_of(&spec, &RootSource::Recipe(Vec::new()));
    let masked = masked(&plan);
    assert!(!masked.contains(&"/proc/acpi".to_owned()), "{masked:?}");
    assert!(!masked.contains(&"/sys/dev/block".to_owned()), "{masked:?}");
    assert!(masked.contains(&"/sys/firmware".to_owned()), "{masked:?}");
}

#[test]
fn ping_range_covers_the_mapped_groups() {
    let entry = |container, host, size| IdMapEntry {
        container,
        host,
        size,
    };
    let range = |map: &[IdMapEntry]| ping_group_range(map, true);
    assert_eq!(range(&[entry(0, 1000, 1)]), Some((0, 0)));
    assert_eq!(range(&[entry(5, 1000, 1)]), Some((5, 5)));
    assert_eq!(
        range(&[entry(0, 1000, 1), entry(1, 100_000, 65536)]),
        Some((0, 65536))
    );
    // Out of order on the outside: no range covers both.
    assert_eq!(
        range(&[entry(0, 200_000, 1), entry(1, 100_000, 65536)]),
        Some((0, 0))
    );
    assert_eq!(range(&[entry(0, 0, u32::MAX)]), Some((0, MAX_SYSCTL_ID)));
    assert_eq!(range(&[entry(0, 0, 0)]), None);
    assert_eq!(ping_group_range(&[], false), Some((0, MAX_SYSCTL_ID)));
}

#[test]
fn a_plan_is_data() {
    let plan = plan_of(&spec(), &RootSource::Recipe(Vec::new()));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["steps"][0], "PrivateMounts");
    assert_eq!(json["gid_map"][0]["host"], 1000);
}

#[test]
fn published_ports_come_first() {
    use crate::config::{Publish, Transport};
    let mut spec = spec();
    let one = Publish {
        address: None,
        host_port: Some(8000),
        container_port: 80,
        count: 3,
        transport: Transport::Tcp,
    };
    let any = Publish {
        address: Some("::1".parse().unwrap()),
        host_port: None,
        count: 1,
        transport: Transport::Udp,
        ..one
    };
    spec.publish = vec![one, any];
    let text = plan_of(&spec, &RootSource::Recipe(Vec::new())).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.get(..2).unwrap(),
        [
            "1. listen for ports 80 to 82 tcp on ports 8000 to 8002 of all the host's addresses",
            "2. listen for port 80 udp on a free port of ::1",
        ]
    );
    assert!(lines.get(2).unwrap().starts_with("3. clone into"), "{text}");
}

#[test]
fn the_second_wall_is_where_nothing_is_to_be_mounted() {
    let domain = |spec: &RunSpec| match plan_of(spec, &RootSource::Recipe(Vec::new())).steps.pop() {
        Some(Step::Exec(exec)) => exec.landlock,
        other => panic!("{other:?}"),
    };
    let usual = domain(&spec()).unwrap();
    assert_eq!(usual.writable, [PathBuf::from("/")]);
    assert!(usual.scope_sockets);
    let mut read_only = spec();
    read_only.read_only = true;
    read_only.network = Network::Host;
    read_only.namespaces.net = false;
    for (target, read_only_mount) in [("/tmp", false), ("/data", true)] {
        read_only.mounts.push(MountSpec {
            target: target.into(),
            kind: MountKind::Tmpfs(Tmpfs::default()),
            flags: MountFlags {
                read_only: read_only_mount,
                ..VOLUME
            },
        });
    }
    let strict = domain(&read_only).unwrap();
    assert_eq!(
        strict.writable,
        ["/dev", "/proc", "/tmp"].map(PathBuf::from)
    );
    assert!(
        !strict.scope_sockets,
        "the host's sockets are the host's network's"
    );
    let mut off = [spec(), spec(), spec()];
    off[0].landlock = false;
    off[1].seccomp = SeccompProfile::Unconfined;
    off[2].capabilities |= caps::SYS_ADMIN;
    assert!(off.iter().all(|spec| domain(spec).is_none()));
}
