//! A plan in words, for `--dry-run`: what is new, how ids are mapped, and a
//! numbered line per step. Paths are quoted, so that a line stays a line.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use super::{ExecStep, FileKind, MountFlags, Plan, Step};
use crate::config::{IdMapEntry, NameOrId, Namespaces, SeccompProfile, UserSpec};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "new namespaces:{}", NamespaceList(&self.namespaces))?;
        for (what, map) in [("uid", &self.uid_map), ("gid", &self.gid_map)] {
            writeln!(f, "{what} map:{}", IdMap(map))?;
        }
        let width = self.steps.len().to_string().len();
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:>width$}. {step}")?;
        }
        Ok(())
    }
}

struct NamespaceList<'a>(&'a Namespaces);

impl Display for NamespaceList<'_> {
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
        let all = [
            ("user", user),
            ("mount", mount),
            ("pid", pid),
            ("uts", uts),
            ("ipc", ipc),
            ("net", net),
            ("cgroup", cgroup),
        ];
        all.iter()
            .filter(|(_, new)| *new)
            .try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

struct IdMap<'a>(&'a [IdMapEntry]);

impl Display for IdMap<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" none");
        }
        self.0
            .iter()
            .try_for_each(|entry| write!(f, " {}:{}:{}", entry.container, entry.host, entry.size))
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivateMounts => f.write_str("make every mount private"),
            Self::Hostname { name } => write!(f, "set the host name to {name:?}"),
            Self::Network { link: true } => {
                f.write_str("bring up lo, make the link and hand it to the network stack")
            }
            Self::Network { link: false } => f.write_str("bring up lo"),
            Self::RootTmpfs => f.write_str("start the new root as an empty tmpfs"),
            Self::RootBind { source } => write!(f, "take {source:?} as the new root"),
            Self::Create { target, kind } => create(f, target, kind),
            Self::Bind {
                source,
                target,
                flags,
            } => {
                write!(f, "bind {source:?} to {target:?}{flags}")
            }
            Self::Tmpfs {
                target,
                mode,
                size,
                flags,
            } => {
                write!(f, "mount tmpfs on {target:?} with mode {mode:04o}")?;
                if let Some(size) = size {
                    write!(f, ", {size} bytes")?;
                }
                write!(f, "{flags}")
            }
            Self::Proc { target } => write!(f, "mount proc on {target:?}"),
            Self::Sysfs { target } => write!(f, "mount sysfs on {target:?}, read-only"),
            Self::Dev { target, console } => {
                write!(f, "populate {target:?}")?;
                f.write_str(if *console { ", with a console" } else { "" })
            }
            Self::Cgroup { target } => write!(f, "mount cgroup on {target:?}, read-only"),
            Self::File { target, content } => {
                write!(
                    f,
                    "put a private file of {} bytes over {target:?}",
                    content.len()
                )
            }
            Self::Mask { target } => write!(f, "hide {target:?}"),
            Self::ReadOnlyPath { target } => write!(f, "make {target:?} read-only"),
            Self::ReadOnlyRoot => f.write_str("make the root read-only"),
            Self::PivotRoot => f.write_str("pivot to the new root and drop the old one"),
            Self::Sysctl { key, value } => write!(f, "set the sysctl {key} to {value:?}"),
            Self::Exec(exec) => write!(f, "{exec}"),
        }
    }
}

fn create(f: &mut Formatter<'_>, target: &Path, kind: &FileKind) -> fmt::Result {
    match kind {
        FileKind::Directory { mode } => {
            write!(f, "create the directory {target:?} with mode {mode:04o}")
        }
        FileKind::Regular { mode, content } => {
            write!(
                f,
                "create the file {target:?} of {} bytes with mode {mode:04o}",
                content.len()
            )
        }
        FileKind::CopyOf { mode, source } => {
            write!(f, "copy {source:?} to {target:?} with mode {mode:04o}")
        }
        FileKind::Symlink { to } => write!(f, "create the link {target:?} to {to:?}"),
    }
}

impl Display for MountFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            read_only,
            nosuid,
            nodev,
            noexec,
        } = *self;
        let all = [
            ("read-only", read_only),
            ("nosuid", nosuid),
            ("nodev", nodev),
            ("noexec", noexec),
        ];
        all.iter()
            .filter(|(_, set)| *set)
            .try_for_each(|(name, _)| write!(f, ", {name}"))
    }
}

impl Display for ExecStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("execute")?;
        for word in &self.argv {
            write!(f, " {word:?}")?;
        }
        write!(
            f,
            " as {}, capabilities {:#018x}",
            User(&self.user),
            self.capabilities
        )?;
        if let Some(dir) = &self.workdir {
            write!(f, ", in {dir:?}")?;
        }
        // Names only: values can be secrets, and plans end up in bug reports.
        write!(f, ", environment")?;
        for (name, _) in &self.env {
            write!(f, " {}", name.display().to_string().escape_debug())?;
        }
        f.write_str(match self.seccomp {
            SeccompProfile::Default => ", default system-call filter",
            SeccompProfile::Unconfined => ", no system-call filter",
        })?;
        f.write_str(if self.no_new_privileges {
            ", no new privileges"
        } else {
            ""
        })?;
        f.write_str(if self.tty {
            ", on a terminal of its own"
        } else {
            ""
        })
    }
}

/// `USER[:GROUP]`, as `--user` has it.
struct User<'a>(&'a UserSpec);

impl Display for User<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let part = |f: &mut Formatter<'_>, part: &NameOrId| match part {
            NameOrId::Id(id) => write!(f, "{id}"),
            NameOrId::Name(name) => f.write_str(name),
        };
        part(f, self.0.user.as_ref().unwrap_or(&NameOrId::Id(0)))?;
        if let Some(group) = &self.0.group {
            f.write_str(":")?;
            part(f, group)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_step_and_no_secret() {
        let exec = ExecStep {
            argv: vec!["ls".into(), "a\nb".into()],
            env: vec![("TOKEN".into(), "hunter2".into())],
            workdir: Some("/w".into()),
            user: UserSpec {
                user: Some(NameOrId::Id(1)),
                group: None,
            },
            capabilities: 1,
            seccomp: SeccompProfile::Default,
            no_new_privileges: true,
            tty: false,
        };
        let flags = MountFlags {
            read_only: true,
            nosuid: true,
            ..MountFlags::default()
        };
        let tmpfs = Step::Tmpfs {
            target: "/t".into(),
            mode: 0o1777,
            size: Some(5),
            flags,
        };
        let plan = Plan {
            namespaces: Namespaces {
                user: true,
                mount: true,
                pid: false,
                uts: false,
                ipc: false,
                net: true,
                cgroup: false,
            },
            uid_map: vec![IdMapEntry {
                container: 0,
                host: 1000,
                size: 1,
            }],
            gid_map: Vec::new(),
            steps: vec![Step::PrivateMounts, tmpfs, Step::Exec(Box::new(exec))],
        };
        assert_eq!(
            plan.to_string(),
            "new namespaces: user mount net\n\
             uid map: 0:1000:1\n\
             gid map: none\n\
             1. make every mount private\n\
             2. mount tmpfs on \"/t\" with mode 1777, 5 bytes, read-only, nosuid\n\
             3. execute \"ls\" \"a\\nb\" as 1, capabilities 0x0000000000000001, in \"/w\", \
             environment TOKEN, default system-call filter, no new privileges\n"
        );
    }
}
