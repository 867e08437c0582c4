//! The default root filesystem of crun-lite, described as data.
//!
//! Without `--rootfs`, a container still needs a tree to run in. This crate
//! looks at the host and answers with a [`Recipe`]: an ordered list of
//! directories, files, links and read-only binds. It mounts and writes nothing;
//! the runtime carries the recipe out on an empty tmpfs.
//!
//! There are two recipes, tried in this order:
//!
//! * **busybox**: the host's static BusyBox with a link for each of its applets.
//!   Nothing of the host is mounted, so the container sees only private files.
//! * **host-usr**: the host's own `/usr` (and the folders that belong to it),
//!   read-only, with everything else private. It works on any host that has a
//!   shell, at the price of showing the host's programs.
//!
//! Host files are only ever taken when everyone may read them: a recipe made as
//! root must not show a container what an ordinary user could not see.
#![forbid(unsafe_code)]

mod busybox;
mod etc;
mod host_usr;
mod probe;
mod skeleton;

use std::path::{Path, PathBuf};

pub use probe::HostProbe;

/// A root filesystem, as a list of things to make on an empty tmpfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// `"busybox"` or `"host-usr"`.
    pub name: &'static str,
    /// What was chosen and why, in one line for the log.
    pub summary: String,
    /// What to make, in order: a parent comes before what is in it.
    pub entries: Vec<Entry>,
}

/// One thing to make. Every `path` is absolute in the container, every `source`
/// absolute on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A regular file with this content.
    File {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Its content.
        content: Vec<u8>,
    },
    /// A copy of a host file, so that no host path shows in the mount table.
    CopyOf {
        /// Where.
        path: PathBuf,
        /// Permission bits of the copy.
        mode: u32,
        /// The host file.
        source: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        path: PathBuf,
        /// What it says.
        to: PathBuf,
    },
    /// A host directory with what is mounted below it, read-only.
    BindReadOnly {
        /// Where.
        path: PathBuf,
        /// The host directory.
        source: PathBuf,
    },
}

impl Entry {
    /// Where in the container it is made.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. }
            | Self::File { path, .. }
            | Self::CopyOf { path, .. }
            | Self::Symlink { path, .. }
            | Self::BindReadOnly { path, .. } => path,
        }
    }

    fn directory(path: impl Into<PathBuf>, mode: u32) -> Self {
        Self::Directory {
            path: path.into(),
            mode,
        }
    }

    fn file(path: impl Into<PathBuf>, mode: u32, content: &str) -> Self {
        Self::File {
            path: path.into(),
            mode,
            content: content.as_bytes().to_vec(),
        }
    }

    fn symlink(path: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self::Symlink {
            path: path.into(),
            to: to.into(),
        }
    }

    fn copy(path: impl Into<PathBuf>, mode: u32, source: impl Into<PathBuf>) -> Self {
        Self::CopyOf {
            path: path.into(),
            mode,
            source: source.into(),
        }
    }

    fn bind(path: impl Into<PathBuf>, source: impl Into<PathBuf>) -> Self {
        Self::BindReadOnly {
            path: path.into(),
            source: source.into(),
        }
    }
}

/// The host offers nothing to make a root filesystem of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither recipe fits this host.
    #[error("no default root filesystem: {busybox}, and {host_usr}; give one with --rootfs DIR")]
    NoRoot {
        /// Why there is no BusyBox root.
        busybox: String,
        /// Why the host's `/usr` does not serve.
        host_usr: String,
    },
}

/// Chooses the recipe that fits the host.
pub fn choose(host: &HostProbe) -> Result<Recipe, Error> {
    let no_busybox = match busybox::recipe(host) {
        Ok(recipe) => return Ok(recipe),
        Err(reason) => reason,
    };
    host_usr::recipe(host, &no_busybox).map_err(|host_usr| Error::NoRoot {
        busybox: no_busybox,
        host_usr,
    })
}

#[cfg(test)]
mod tests;
