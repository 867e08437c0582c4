//! How a plan is printed by `--dry-run`: one numbered line per step.

use std::fmt::{self, Display, Formatter};

use super::step::{ExecStep, FileKind, LinkStep, Plan, Step};
use crate::config::{
    Account, Action, DEFAULT_SHM_SIZE, EgressRules, Groups, IdMapEntry, MountFlags, NameOrId,
    Namespaces, Propagation, Publish, SeccompProfile, Tmpfs,
};
use crate::security::caps;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut number = 1..;
        let mut line = |f: &mut Formatter<'_>, text: &dyn Display| {
            writeln!(f, "{}. {text}", number.next().unwrap_or_default())
        };
        for publish in &self.publish {
            line(f, &format_args!("listen for {}", Listen(publish)))?;
        }
        if let Some(EgressRules {
            default,
            allow,
            deny,
        }) = &self.egress
        {
            for (action, rules) in [(Action::Deny, deny), (Action::Allow, allow)] {
                for rule in rules {
                    line(
                        f,
                        &format_args!("{action} the container's traffic to {rule}"),
                    )?;
                }
            }
            line(f, &format_args!("{default} its traffic to all else"))?;
        }
        for dir in self.cgroup.iter().flat_map(|cgroup| &cgroup.dirs) {
            line(f, dir)?;
        }
        let names = Names(&self.namespaces);
        let there = if self.cgroup.is_some() {
            "the cgroup and "
        } else {
            ""
        };
        line(
            f,
            &format_args!("clone into {there}new namespaces: {names}"),
        )?;
        if let Some(score) = self.oom_score_adj {
            line(f, &format_args!("set oom_score_adj to {score}"))?;
        }
        if self.namespaces.user {
            line(f, &format_args!("map user ids: {}", Map(&self.uid_map)))?;
            line(f, &format_args!("map group ids: {}", Map(&self.gid_map)))?;
        }
        for step in &self.steps {
            if let (Step::Exec(_), Some(features)) = (step, &self.sandbox) {
                let calls = features.calls().len();
                line(
                    f,
                    &format_args!(
                        "lock in the process that runs the network: no capability, no file, \
                         {calls} system calls"
                    ),
                )?;
            }
            line(f, step)?;
        }
        Ok(())
    }
}

struct Listen<'a>(&'a Publish);

impl Display for Listen<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Publish {
            address,
            host_port,
            container_port,
            count,
            transport,
        } = *self.0;
        let last = |first: u16| u32::from(first) + u32::from(count).saturating_sub(1);
        let range = |first: u16| match count {
            0 | 1 => format!("port {first}"),
            _ => format!("ports {first} to {}", last(first)),
        };
        write!(f, "{} {transport} on ", range(container_port))?;
        match host_port {
            Some(first) => f.write_str(&range(first))?,
            None if count > 1 => f.write_str("free ports")?,
            None => f.write_str("a free port")?,
        }
        match address {
            Some(address) => write!(f, " of {address}"),
            None => f.write_str(" of all the host's addresses"),
        }
    }
}

struct Names<'a>(&'a Namespaces);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Namespaces {
            user,
            mount,
            pid,
            uts,
            ipc,
            net,
            cgroup,
        } = *self.0;
        let names = [
            (user, "user"),
            (mount, "mount"),
            (pid, "pid"),
            (uts, "uts"),
            (ipc, "ipc"),
            (net, "net"),
            (cgroup, "cgroup"),
        ];
        let new: Vec<_> = names
            .iter()
            .filter(|(new, _)| *new)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&new.join(", "))
    }
}

struct Map<'a>(&'a [IdMapEntry]);

impl Display for Map<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (
            index,
            IdMapEntry {
                container,
                host,
                size,
            },
        ) in self.0.iter().enumerate()
        {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{container} is {host} of the host")?;
            if *size != 1 {
                write!(f, " ({size} ids)")?;
            }
        }
        Ok(())
    }
}

impl MountFlags {
    fn names(self) -> Vec<String> {
        let Self {
            read_only,
            nosuid,
            nodev,
            noexec,
            noatime,
        } = self;
        [
            (read_only, "ro"),
            (nosuid, "nosuid"),
            (nodev, "nodev"),
            (noexec, "noexec"),
            (noatime, "noatime"),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| name.to_owned())
        .collect()
    }
}

impl Tmpfs {
    fn words(&self) -> Vec<String> {
        let Self {
            mode,
            size,
            inodes,
            uid,
            gid,
            copy_up,
        } = self;
        let mode = match mode {
            None if *copy_up => None,
            mode => Some(mode.unwrap_or(Self::MODE)),
        };
        [
            mode.map(|mode| format!("mode {mode:o}")),
            uid.map(|uid| format!("of user {uid}")),
            gid.map(|gid| format!("of group {gid}")),
            size.map(|bytes| format!("at most {bytes} bytes")),
            inodes.map(|inodes| format!("at most {inodes} files")),
            copy_up.then(|| "with a copy of what is there".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Display for LinkStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap => f.write_str("a TAP device"),
            Self::Veth => f.write_str("one end of a veth pair"),
            Self::TapOrVeth => f.write_str("a TAP device (or a veth pair where that is refused)"),
            Self::NoTap(why) => write!(f, "one end of a veth pair ({why})"),
        }
    }
}

struct InBrackets(Vec<String>);

impl Display for InBrackets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.0.join(", "))
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivateMounts => write!(f, "make all mounts private"),
            Self::Hostname { name } => write!(f, "set the host name to {name}"),
            Self::Network { link: None } => write!(f, "bring up lo"),
            Self::Network { link: Some(link) } => write!(f, "bring up lo and tap0, {link}"),
            Self::RootTmpfs => write!(f, "start from an empty tmpfs as root"),
            Self::RootBind {
                source,
                nosuid,
                read_only,
            } => {
                let suid = if *nosuid { "nosuid, " } else { "" };
                let below = if *read_only {
                    ", mounts below it ro"
                } else {
                    ""
                };
                write!(f, "bind {} as root ({suid}nodev{below})", source.display())
            }
            Self::Create { target, kind } => match kind {
                FileKind::Directory { mode } => {
                    write!(f, "create directory {} (mode {mode:o})", target.display())
                }
                FileKind::Regular { mode, content } => {
                    let (target, size) = (target.display(), content.len());
                    write!(f, "create file {target} (mode {mode:o}, {size} bytes)")
                }
                FileKind::CopyOf { mode, source } => {
                    let (source, target) = (source.display(), target.display());
                    write!(f, "copy {source} to {target} (mode {mode:o})")
                }
                FileKind::Symlink { to } => {
                    write!(f, "create link {} to {}", target.display(), to.display())
                }
            },
            Self::Hold { source, target } => {
                let (source, target) = (source.display(), target.display());
                write!(f, "take hold of {source} for {target}, with its peers")
            }
            Self::Bind {
                source,
                target,
                flags,
                propagation,
                idmap,
            } => {
                let (source, target) = (source.display(), target.display());
                let mut words = flags.names();
                match propagation {
                    Propagation::Private => {}
                    Propagation::Slave => words.push("slave".to_owned()),
                    Propagation::Shared => words.push("shared".to_owned()),
                }
                words.extend(idmap.then(|| "ids mapped".to_owned()));
                write!(f, "bind {source} on {target}{}", InBrackets(words))
            }
            Self::Device {
                source,
                target,
                node,
                flags,
            } => {
                let kind = if node.block { "block" } else { "character" };
                let (major, minor) = (node.major, node.minor);
                let mut words = vec![format!("{kind} {major}:{minor}")];
                words.extend(flags.names());
                let (source, target) = (source.display(), target.display());
                write!(f, "bind device {source} on {target}{}", InBrackets(words))
            }
            Self::Tmpfs {
                target,
                options,
                flags,
            } => {
                let mut words = flags.names();
                words.extend(options.words());
                let target = target.display();
                write!(f, "mount tmpfs on {target}{}", InBrackets(words))
            }
            Self::Proc { target } => {
                write!(
                    f,
                    "mount proc on {} (nosuid, nodev, noexec)",
                    target.display()
                )
            }
            Self::Sysfs { target } => {
                write!(
                    f,
                    "mount sysfs on {} (ro, nosuid, nodev, noexec)",
                    target.display()
                )
            }
            Self::Dev {
                target,
                console,
                shm_size,
            } => {
                let with = if *console { " and a terminal" } else { "" };
                let target = target.display();
                write!(f, "populate {target} with the standard devices{with}")?;
                match *shm_size {
                    DEFAULT_SHM_SIZE => Ok(()),
                    0 => write!(f, ", {target}/shm without a limit"),
                    bytes => write!(f, ", {target}/shm of at most {bytes} bytes"),
                }
            }
            Self::Cgroup { target } => {
                write!(
                    f,
                    "mount cgroup2 on {} (ro, nosuid, nodev, noexec)",
                    target.display()
                )
            }
            Self::File { target, content } => {
                let (target, size) = (target.display(), content.len());
                write!(f, "put a private file at {target} ({size} bytes)")
            }
            Self::Account(account) => {
                let Account {
                    name,
                    uid,
                    gid,
                    home,
                    ..
                } = account;
                let home = home.display();
                write!(
                    f,
                    "make user {name} ({uid}:{gid}, home {home}) known in /etc/passwd and /etc/group"
                )
            }
            Self::Mask { target } => write!(f, "mask {}", target.display()),
            Self::ReadOnlyPath { target } => write!(f, "make {} read-only", target.display()),
            Self::ReadOnlyRoot => write!(f, "make the root read-only"),
            Self::PivotRoot => write!(f, "pivot into the new root and detach the old one"),
            Self::Sysctl { key, value, .. } => write!(f, "set sysctl {key} to {value}"),
            Self::Exec(exec) => exec.fmt(f),
        }
    }
}

impl Display for ExecStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "execute")?;
        for argument in &self.argv {
            write!(f, " {}", Word(argument))?;
        }
        let name = |id: &Option<NameOrId>, default| match id {
            None => default,
            Some(NameOrId::Id(id)) => id.to_string(),
            Some(NameOrId::Name(name)) => name.clone(),
        };
        write!(f, " as {}", name(&self.user.user, "root".to_owned()))?;
        if self.user.group.is_some() {
            write!(f, ":{}", name(&self.user.group, String::new()))?;
        }
        match &self.groups {
            Groups::Kept => f.write_str(" with the caller's groups")?,
            Groups::Added(groups) if groups.is_empty() => {}
            Groups::Added(groups) => {
                let names = groups.iter().cloned();
                let names = names.map(|group| name(&Some(group), String::new()));
                write!(f, " with groups {}", names.collect::<Vec<_>>().join(", "))?;
            }
        }
        let workdir = self.workdir.as_deref().unwrap_or(std::path::Path::new("/"));
        write!(f, " in {}", workdir.display())?;
        let kept = caps::names(self.capabilities);
        let kept = if kept.is_empty() {
            "none".to_owned()
        } else {
            kept.join(" ")
        };
        let filter = match &self.seccomp {
            SeccompProfile::Default => "default filter".to_owned(),
            SeccompProfile::File(file) => format!("filter of {}", Word(file.path.as_os_str())),
            SeccompProfile::Unconfined => "no filter".to_owned(),
        };
        let landlock = match &self.landlock {
            None => String::new(),
            Some(step) => {
                let paths = step
                    .writable
                    .iter()
                    .map(|path| Word(path.as_os_str()).to_string());
                let paths: Vec<String> = paths.collect();
                format!("; Landlock: writes beneath {}", paths.join(" "))
            }
        };
        let privileges = if self.no_new_privileges {
            ", no new privileges"
        } else {
            ""
        };
        let terminal = if self.tty { ", own terminal" } else { "" };
        let init = if self.init { "" } else { ", as PID 1" };
        write!(
            f,
            " (capabilities: {kept}; {filter}{privileges}{terminal}{init}{landlock}"
        )?;
        for ulimit in &self.ulimits {
            write!(f, "; {ulimit}")?;
        }
        f.write_str(")")
    }
}

/// A word of a command, quoted where a shell would need it.
struct Word<'a>(&'a std::ffi::OsStr);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%^".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            f.write_str(&text)
        } else {
            write!(
                f,
                "'{}'",
                text.replace('\'', r"'\''").escape_debug_controls()
            )
        }
    }
}

/// Control characters must not reach a terminal from a printed plan.
trait EscapeControls {
    fn escape_debug_controls(&self) -> String;
}

impl EscapeControls for str {
    fn escape_debug_controls(&self) -> String {
        self.chars()
            .flat_map(|c| {
                let escaped = c.is_control().then(|| c.escape_default());
                let plain = escaped.is_none().then_some(c);
                escaped.into_iter().flatten().chain(plain)
            })
            .collect()
    }
}
