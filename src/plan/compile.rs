//! Options to steps.

use std::path::{Path, PathBuf};

use super::cgroup::CgroupPlan;
use super::etc_files::EtcFiles;
use super::step::{ExecStep, LandlockStep, LinkStep, Plan, Step};
use crate::config::{
    BuiltinNetwork, EgressRules, IdMapEntry, LinkChoice, MountFlags, MountKind, MountSpec, Network,
    Outbound, Propagation, Rules, RunSpec,
};
use crate::security::landlock;
use crate::security::sandbox::Features;

/// What podman hides, and `/proc/asound`, which it only makes read-only.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// What podman makes read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The largest id that a sysctl takes (net/ipv4/sysctl_net_ipv4.c).
const MAX_SYSCTL_ID: u32 = u32::MAX >> 1;

/// Where the root of the plan comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A tmpfs, filled by these steps.
    Recipe(Vec<Step>),
    /// A directory of the host, with what is mounted below it.
    Bind(PathBuf),
}

/// Compiles a run to the steps that make it. `maps` are the user and group id
/// maps that the namespace will have, empty where it is the host's; `cgroup` is where
/// its limits are set, if it has any.
///
/// The order is the point:
/// 1. nothing propagates before anything is mounted, and what is to propagate later is
///    taken hold of before that;
/// 2. the link, while `/dev/net/tun` can be opened by its name;
/// 3. the root, then the kernel's file systems, then volumes in the order
///    given, so that a volume can be in `/dev` or in another volume;
/// 4. private files, which a volume may replace;
/// 5. sysctls, before `/proc/sys` is read-only;
/// 6. masks and the rest that takes away, when all is in place;
/// 7. volumes with shared propagation, in which a mount of ours would reach the host;
/// 8. the pivot, after which no host path is left, and the command.
pub fn compile(
    spec: &RunSpec,
    root: &RootSource,
    maps: (Vec<IdMapEntry>, Vec<IdMapEntry>),
    files: &EtcFiles,
    cgroup: Option<CgroupPlan>,
) -> Plan {
    let (uid_map, gid_map) = maps;
    let mut steps: Vec<Step> = spec.mounts.iter().filter_map(held).collect();
    steps.push(Step::PrivateMounts);
    match &spec.network {
        Network::Builtin(network) => steps.push(Step::Network {
            link: Some(link(network)),
        }),
        Network::None => steps.push(Step::Network { link: None }),
        Network::Host => {}
    }
    if spec.namespaces.uts {
        steps.push(Step::Hostname {
            name: spec.hostname.clone(),
        });
    }
    match root {
        RootSource::Recipe(recipe) => {
            steps.push(Step::RootTmpfs);
            steps.extend(recipe.iter().cloned());
        }
        RootSource::Bind(source) => {
            steps.push(Step::RootBind {
                source: source.clone(),
                nosuid: spec.no_new_privileges,
                read_only: spec.read_only,
            });
        }
    }
    steps.extend(kernel_file_systems(spec));
    let shared = |mount: &&MountSpec| mount.is_shared();
    steps.extend(spec.mounts.iter().filter(|mount| !shared(mount)).map(mount));
    steps.extend(etc_files(spec, files));
    steps.extend(spec.account.clone().map(Step::Account));
    if spec.namespaces.net
        && let Some((low, high)) = ping_group_range(&gid_map, spec.namespaces.user)
    {
        steps.push(Step::Sysctl {
            key: "net.ipv4.ping_group_range".to_owned(),
            value: format!("{low} {high}"),
            required: false,
        });
    }
    steps.extend(spec.sysctls.iter().map(|sysctl| Step::Sysctl {
        key: sysctl.key.clone(),
        value: sysctl.value.clone(),
        required: true,
    }));
    steps.extend(taken_away(spec));
    steps.extend(spec.mounts.iter().filter(shared).map(mount));
    if spec.read_only {
        steps.push(Step::ReadOnlyRoot);
    }
    steps.push(Step::PivotRoot);
    steps.push(Step::Exec(Box::new(ExecStep {
        argv: spec.command.clone(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        groups: spec.groups.clone(),
        capabilities: spec.capabilities,
        ambient: spec.ambient,
        seccomp: spec.seccomp.clone(),
        landlock: domain(spec),
        no_new_privileges: spec.no_new_privileges,
        tty: spec.tty,
        init: spec.init,
        ulimits: spec.limits.ulimits.clone(),
    })));
    Plan {
        publish: spec.publish.clone(),
        egress: egress(spec),
        cgroup,
        sandbox: sandbox(spec),
        namespaces: spec.namespaces,
        uid_map,
        gid_map,
        oom_score_adj: spec.limits.oom_score_adj,
        steps,
    }
}

/// What has to be taken hold of before all mounts are made private.
fn held(mount: &MountSpec) -> Option<Step> {
    match &mount.kind {
        MountKind::Bind {
            source,
            propagation: Propagation::Slave | Propagation::Shared,
            ..
        } => Some(Step::Hold {
            source: source.clone(),
            target: mount.target.clone(),
        }),
        _ => None,
    }
}

fn mount(mount: &MountSpec) -> Step {
    let MountSpec {
        target,
        kind,
        flags,
    } = mount.clone();
    match kind {
        MountKind::Bind {
            source,
            propagation,
            idmap,
        } => Step::Bind {
            source,
            target,
            flags,
            propagation,
            idmap,
        },
        MountKind::Tmpfs(options) => Step::Tmpfs {
            target,
            options,
            flags,
        },
        MountKind::Device { source, node } => Step::Device {
            source,
            target,
            node,
            flags,
        },
    }
}

fn link(network: &BuiltinNetwork) -> LinkStep {
    match (network.link, &network.no_tap) {
        (LinkChoice::Tap, _) => LinkStep::Tap,
        (LinkChoice::Veth, _) => LinkStep::Veth,
        (LinkChoice::Auto, None) => LinkStep::TapOrVeth,
        (LinkChoice::Auto, Some(why)) => LinkStep::NoTap(why.clone()),
    }
}

/// The rules about what the container reaches, if there are any.
/// What the network's process needs of its sandbox, if it is to have one.
fn sandbox(spec: &RunSpec) -> Option<Features> {
    let Network::Builtin(network) = &spec.network else {
        return None;
    };
    let is_address = |outbound: &Option<Outbound>| matches!(outbound, Some(Outbound::Address(_)));
    network.sandbox.then(|| Features {
        terminal: spec.tty,
        outbound_address: is_address(&network.outbound) || is_address(&network.outbound6),
    })
}

fn egress(spec: &RunSpec) -> Option<EgressRules> {
    match &spec.network {
        Network::Builtin(network) if *network.rules != Rules::default() => {
            Some(EgressRules::from(&*network.rules))
        }
        _ => None,
    }
}

/// What the command is held to besides the mounts.
fn domain(spec: &RunSpec) -> Option<LandlockStep> {
    if !spec.landlock || !landlock::wanted(spec.capabilities, &spec.seccomp) {
        return None;
    }
    let writable = if spec.read_only {
        let mounts = spec.mounts.iter().filter(|mount| !mount.flags.read_only);
        ["/dev".into(), "/proc".into()]
            .into_iter()
            .chain(mounts.map(|mount| mount.target.clone()))
            .collect()
    } else {
        vec!["/".into()]
    };
    Some(LandlockStep {
        writable,
        scope_sockets: spec.namespaces.net,
    })
}

fn kernel_file_systems(spec: &RunSpec) -> Vec<Step> {
    let mut steps = vec![
        Step::Proc {
            target: "/proc".into(),
        },
        Step::Sysfs {
            target: "/sys".into(),
        },
        Step::Dev {
            target: "/dev".into(),
            console: spec.tty,
            shm_size: spec.shm_size,
        },
    ];
    if !spec.namespaces.ipc {
        steps.push(Step::Bind {
            source: "/dev/shm".into(),
            target: "/dev/shm".into(),
            flags: MountFlags {
                nosuid: true,
                nodev: true,
                noexec: true,
                ..MountFlags::default()
            },
            propagation: Propagation::Private,
            idmap: false,
        });
    }
    steps.push(Step::Cgroup {
        target: "/sys/fs/cgroup".into(),
    });
    steps
}

fn etc_files<'a>(spec: &'a RunSpec, files: &'a EtcFiles) -> impl Iterator<Item = Step> + 'a {
    [
        ("/etc/resolv.conf", &files.resolv_conf),
        ("/etc/hosts", &files.hosts),
        ("/etc/hostname", &files.hostname),
    ]
    .into_iter()
    .filter(|(target, _)| {
        !spec
            .mounts
            .iter()
            .any(|mount| mount.target == Path::new(target))
    })
    .map(|(target, content)| Step::File {
        target: target.into(),
        content: content.clone(),
    })
}

/// Masks and read-only paths: the default ones but for what is unmasked or
/// replaced by a volume, and those that were asked for.
fn taken_away(spec: &RunSpec) -> Vec<Step> {
    let wanted = |path: &Path| {
        !spec.unmask.iter().any(|pattern| lifts(pattern, path))
            && !spec.mounts.iter().any(|mount| {
                // A device is no reason to show what is hidden.
                !matches!(mount.kind, MountKind::Device { .. }) && path.starts_with(&mount.target)
            })
    };
    let defaults = |paths: &'static [&'static str]| paths.iter().map(Path::new);
    let masked = defaults(&MASKED).filter(|path| wanted(path));
    let asked = spec.mask.iter().map(PathBuf::as_path);
    let mut steps: Vec<Step> = masked
        .chain(asked)
        .map(|path| Step::Mask {
            target: path.to_owned(),
        })
        .collect();
    steps.extend(
        defaults(&READ_ONLY)
            .filter(|path| wanted(path))
            .map(|path| Step::ReadOnlyPath {
                target: path.to_owned(),
            }),
    );
    steps
}

/// Whether `--security-opt unmask=PATTERN` lifts the mask of `path`. `ALL`
/// lifts all; `*` stands for anything within a component, as podman has it.
fn lifts(pattern: &Path, path: &Path) -> bool {
    if pattern == Path::new("ALL") || pattern == Path::new("all") {
        return true;
    }
    let (mut patterns, mut parts) = (pattern.components(), path.components());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                let (pattern, part) = (pattern.as_os_str(), part.as_os_str());
                if !matches(pattern.as_encoded_bytes(), part.as_encoded_bytes()) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).any(|skip| matches(rest, text.get(skip..).unwrap_or_default()))
        }
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(byte, text)| byte == first && matches(rest, text)),
    }
}

/// Lowest and highest group that may open ICMP echo sockets (icmp(7)), such
/// that every mapped group is within. The kernel wants both ends mapped, and
/// in this order both inside and outside; without an order that covers all,
/// the range is of the entry that has the container's root group.
fn ping_group_range(gid_map: &[IdMapEntry], new_namespace: bool) -> Option<(u32, u32)> {
    if !new_namespace {
        return Some((0, MAX_SYSCTL_ID));
    }
    let usable = || gid_map.iter().filter(|entry| entry.size > 0);
    let last = |entry: &IdMapEntry| entry.container.saturating_add(entry.size - 1);
    let lowest = usable().min_by_key(|entry| entry.host)?;
    let highest = usable().max_by_key(|entry| entry.host)?;
    let (low, high) = if lowest.container <= last(highest) {
        (lowest.container, last(highest))
    } else {
        let entry = usable()
            .find(|entry| entry.container == 0)
            .unwrap_or(lowest);
        (entry.container, last(entry))
    };
    (low <= MAX_SYSCTL_ID).then_some((low, high.min(MAX_SYSCTL_ID)))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
