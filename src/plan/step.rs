//! The steps of a plan.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use super::cgroup::CgroupPlan;
use crate::config::{
    Account, DeviceNode, EgressRules, Groups, IdMapEntry, MountFlags, Namespaces, Propagation,
    Publish, SeccompProfile, Tmpfs, Ulimit, UserSpec,
};
use crate::security::sandbox::Features;

/// Everything that a run will do, in order.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Ports of the host to listen on, before anything else.
    pub publish: Vec<Publish>,
    /// What the container may reach, if there are rules about it.
    pub egress: Option<EgressRules>,
    /// The cgroup that the container is in, where it has a limit.
    pub cgroup: Option<CgroupPlan>,
    /// The namespaces that clone3(2) makes.
    pub namespaces: Namespaces,
    /// How ids are mapped; written by the parent right after the clone.
    pub uid_map: Vec<IdMapEntry>,
    /// How group ids are mapped.
    pub gid_map: Vec<IdMapEntry>,
    /// What the parent sets init's `oom_score_adj` to.
    pub oom_score_adj: Option<i16>,
    /// How the process that runs the network locks itself in, right before the command
    /// may start; printed as the system calls that it may make from then on.
    pub sandbox: Option<Features>,
    /// Carried out by init, in order.
    pub steps: Vec<Step>,
}

/// What to create at a path beneath the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum FileKind {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file with this content.
    Regular {
        /// Permission bits.
        mode: u32,
        /// Its content.
        #[serde(skip)]
        content: Vec<u8>,
    },
    /// A copy of a host file (so that no host path shows in the mount table).
    CopyOf {
        /// Permission bits.
        mode: u32,
        /// The host file.
        source: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        to: PathBuf,
    },
}

/// What the container's link is made of, as far as that is known before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LinkStep {
    /// A TAP device.
    Tap,
    /// A veth pair.
    Veth,
    /// A TAP device where one can be made, else a veth pair.
    TapOrVeth,
    /// The same, and this is why there will be no TAP device.
    NoTap(String),
}

/// One step of init. Paths called `target` are beneath the new root and are
/// resolved by fd (openat2(2) `RESOLVE_IN_ROOT`), never by string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Step {
    /// Make every mount private, so that nothing propagates either way.
    PrivateMounts,
    /// sethostname(2)
    Hostname {
        /// The new name.
        name: String,
    },
    /// Bring up `lo`; with a built-in network also make and configure the link
    /// and hand it to the parent.
    Network {
        /// What the link is made of; `None`: there is none.
        link: Option<LinkStep>,
    },
    /// The new root is an empty tmpfs.
    RootTmpfs,
    /// The new root is this host directory, with what is mounted below it.
    RootBind {
        /// The directory.
        source: PathBuf,
        /// Set-user-id bits and file capabilities do not count. (`no_new_privs`
        /// alone makes a program with file capabilities fail to start.)
        nosuid: bool,
        /// Make what is mounted below it read-only at once; [`Step::ReadOnlyRoot`]
        /// does it to the directory itself, when the mount points are made.
        read_only: bool,
    },
    /// Create something beneath the new root; parents are made as needed.
    /// An existing object of the same kind is left alone.
    Create {
        /// Where.
        target: PathBuf,
        /// What.
        kind: FileKind,
    },
    /// Take hold of a host path, recursively, while what is mounted there still belongs
    /// to its peers: for a [`Step::Bind`] at `target`.
    Hold {
        /// Host path.
        source: PathBuf,
        /// Where it will be.
        target: PathBuf,
    },
    /// Bind a host path, recursively; the target is created when missing.
    Bind {
        /// Host path.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// Attributes.
        flags: MountFlags,
        /// Of what is mounted below it later.
        propagation: Propagation,
        /// The files belong to the container's ids of the same number; the parent has
        /// made the mount.
        idmap: bool,
    },
    /// Bind a device of the host; the target is created when missing.
    Device {
        /// Host path.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// What has to be at `source`.
        node: DeviceNode,
        /// Attributes.
        flags: MountFlags,
    },
    /// Mount a tmpfs.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// What it is like.
        options: Tmpfs,
        /// Attributes.
        flags: MountFlags,
    },
    /// Mount procfs; where a nested one is refused, bind the outer one.
    Proc {
        /// Where.
        target: PathBuf,
    },
    /// Mount sysfs read-only; where it is refused (the host's network
    /// namespace), bind the host's.
    Sysfs {
        /// Where.
        target: PathBuf,
    },
    /// Populate `/dev`: tmpfs, the standard devices, links, devpts, shm, mqueue.
    Dev {
        /// Where.
        target: PathBuf,
        /// Bind the command's terminal to `console`.
        console: bool,
        /// Most bytes in `shm`, 0 for no limit.
        shm_size: u64,
    },
    /// Mount cgroup2 (or bind what the host has) read-only.
    Cgroup {
        /// Where.
        target: PathBuf,
    },
    /// Put a private file (resolv.conf, hosts, hostname) over a path. Skipped
    /// with a warning where the path is missing and cannot be made.
    File {
        /// Where.
        target: PathBuf,
        /// Its content.
        #[serde(skip)]
        content: Vec<u8>,
    },
    /// Make a user known in `/etc/passwd` and `/etc/group`, where no line has the name
    /// or the number.
    Account(Account),
    /// Hide a path: `/dev/null` over a file, an empty read-only tmpfs over a
    /// directory; nothing where it does not exist.
    Mask {
        /// Which.
        target: PathBuf,
    },
    /// Make a path read-only; nothing where it does not exist.
    ReadOnlyPath {
        /// Which.
        target: PathBuf,
    },
    /// Make the root itself read-only.
    ReadOnlyRoot,
    /// pivot_root(2), with no trace of the old root.
    PivotRoot,
    /// Set a namespaced sysctl, through a procfs of our own.
    Sysctl {
        /// Dotted key.
        key: String,
        /// Value.
        value: String,
        /// It was asked for; where it is not, one that is refused is left as it is.
        required: bool,
    },
    /// Start the command: new session, ids, groups, capabilities,
    /// `no_new_privs`, Landlock, seccomp, fds closed, execve(2).
    Exec(Box<ExecStep>),
}

/// The second wall ([`crate::security::landlock`]): the command may read and execute
/// what is beneath its root directory, and write beneath these paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LandlockStep {
    /// Where.
    pub writable: Vec<PathBuf>,
    /// Abstract Unix sockets of others cannot be connected to.
    pub scope_sockets: bool,
}

/// How the command is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecStep {
    /// The command and its arguments.
    #[serde(skip)]
    pub argv: Vec<OsString>,
    /// Its environment; `HOME` is added from `/etc/passwd` when missing.
    #[serde(skip)]
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; made when missing; `/` unless given.
    pub workdir: Option<PathBuf>,
    /// Whom it runs as.
    pub user: UserSpec,
    /// Its groups besides those of its user.
    pub groups: Groups,
    /// Capabilities it keeps.
    pub capabilities: u64,
    /// Those of them that it has as another user than root, too.
    pub ambient: u64,
    /// System-call filter.
    pub seccomp: SeccompProfile,
    /// Landlock domain; where the kernel has it.
    pub landlock: Option<LandlockStep>,
    /// `no_new_privs`
    pub no_new_privileges: bool,
    /// It gets a pty of its own as controlling terminal.
    pub tty: bool,
    /// It runs below our init; else it takes the place of that.
    pub init: bool,
    /// Its resource limits that are not ours.
    pub ulimits: Vec<Ulimit>,
}
