//! Errors as values: one variant per failing step, and the exit code each maps to.
//!
//! Message style: lower case, no full stop, names the step and its object, never
//! repeats its `#[source]`. A known cause adds a hint (see [`Hint`]).

pub mod hint;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use hint::Hint;

use crate::config::Transport;

/// crun-lite itself failed (as `podman run` and `docker run` define it).
pub const EXIT_RUNTIME: u8 = 125;
/// The command was found but could not be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// Why a tool for id maps did not run.
pub const NOT_INSTALLED: &str = "not installed";

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A step of the plan that failed in the container's init. It crosses the
/// process boundary as data, so that the parent prints it like its own errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {object}: {}", io::Error::from_raw_os_error(*.errno))]
pub struct StepFailure {
    /// What was being done, as an infinitive: "mount tmpfs".
    pub step: String,
    /// The path or object that it was done to.
    pub object: String,
    /// The OS error (errno(3)).
    pub errno: i32,
}

impl StepFailure {
    /// Describes a failed system call.
    pub fn new(step: &str, object: impl Into<String>, error: &io::Error) -> Self {
        Self {
            step: step.to_owned(),
            object: object.into(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Everything that can end `crun-lite` itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options are wrong; nothing has been changed.
    #[error("{0}")]
    Usage(String),
    /// A path that an option names cannot be used; nothing has been changed.
    #[error("{option}: {path}")]
    Path {
        /// The option, as typed.
        option: &'static str,
        /// The path given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A host-side step failed.
    #[error("{step}")]
    Host {
        /// What was being done, as an infinitive.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A port of the host cannot be listened on; nothing has been changed.
    #[error("--publish: listen on {address}/{transport}")]
    Publish {
        /// Where on the host.
        address: SocketAddr,
        /// What it was to speak.
        transport: Transport,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit needs a cgroup that cannot be made; nothing has been changed.
    #[error("{option}: {cause}")]
    Limit {
        /// The option.
        option: &'static str,
        /// What is missing.
        cause: String,
        /// How to get it.
        remedy: String,
    },
    /// The container's cgroup could not be made or filled.
    #[error("{step}: {path}")]
    Cgroup {
        /// What was being done, or the option that it was done for.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another container of this user has the name; nothing has been changed.
    #[error("--name: there is a container named {0} already")]
    NameInUse(String),
    /// No container of this user has the name.
    #[error("there is no running container named {0}")]
    NoContainer(String),
    /// A running container has refused what it was asked to do.
    #[error("container {name}: {reason}")]
    Refused {
        /// Its name.
        name: String,
        /// What it said.
        reason: String,
    },
    /// The process that runs the network could not be locked in.
    #[error("lock the network's process in: {step}")]
    Sandbox {
        /// What was being done, as an infinitive.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The keeper ended before the container.
    #[error("the keeper of the container has died, so the container has been ended")]
    KeeperDied,
    /// A step inside the container's init failed.
    #[error(transparent)]
    Step(#[from] StepFailure),
    /// There is nothing to make a root filesystem of.
    #[error(transparent)]
    Rootfs(#[from] crun_lite_rootfs::Error),
    /// The command was not found in the container.
    #[error("{0}: command not found in the container")]
    NotFound(String),
    /// The command could not be executed.
    #[error("{command}: cannot be executed")]
    NotExecutable {
        /// The command, as typed.
        command: String,
        /// Why execve(2) refused it.
        #[source]
        source: io::Error,
    },
    /// Init ended before the command was started.
    #[error("the container's init ended during set-up ({0})")]
    InitDied(String),
    /// newuidmap(1) or newgidmap(1) did not write the container's id map.
    #[error("{tool}: {reason}")]
    IdMapTool {
        /// Which of them.
        tool: &'static str,
        /// What it said.
        reason: String,
    },
    /// The benchmark could not begin.
    #[error(transparent)]
    Bench(#[from] crate::bench::Error),
    /// A process of the benchmark's load could not go on.
    #[error(transparent)]
    Load(crate::bench::load::LoadError),
    /// A signal asked for the end before the command was started.
    #[error("ended by signal {0} during set-up")]
    Interrupted(u8),
}

impl Error {
    /// A host-side step that failed.
    pub fn host(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Host {
            step,
            source: source.into(),
        }
    }

    /// The exit code that `crun-lite` ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => EXIT_NOT_FOUND,
            Self::NotExecutable { .. } => EXIT_NOT_EXECUTABLE,
            Self::Interrupted(signal) => 128 | signal,
            _ => EXIT_RUNTIME,
        }
    }
}
