//! Whose ids the container has, and whom the command runs as.

use std::path::PathBuf;

use serde::Serialize;

/// `--userns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum UserNamespace {
    /// The host's.
    Host,
    /// New: 0 is our own id, unless a map is given.
    #[default]
    Private,
    /// New: our own id is the same inside, or the one given.
    KeepId {
        /// Our user in the container.
        uid: Option<u32>,
        /// Our group in the container.
        gid: Option<u32>,
    },
    /// New: ids that no other such container has.
    Auto {
        /// How many.
        size: Option<u32>,
    },
    /// New: subordinate ids alone; our own is none of the container's.
    NoMap,
}

/// `--user USER[:GROUP]`, names or numbers; names are looked up in the
/// container's `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UserSpec {
    /// Name or number; `None` is root.
    pub user: Option<NameOrId>,
    /// Name or number; `None` is the user's primary group.
    pub group: Option<NameOrId>,
}

/// A user or group, by number or by name. A string of digits is a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum NameOrId {
    /// A number.
    Id(u32),
    /// A name to look up.
    Name(String),
}

/// `--group-add`: the command's groups besides those of its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Groups {
    /// These; names are looked up in the container's `/etc/group`.
    Added(Vec<NameOrId>),
    /// Those that we have ourselves, and no others.
    Kept,
}

impl Default for Groups {
    fn default() -> Self {
        Self::Added(Vec::new())
    }
}

/// A user whom `/etc/passwd` and `/etc/group` of the container are to know. No field
/// has a colon or a line feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Name.
    pub name: String,
    /// Number in the container.
    pub uid: u32,
    /// Number of its group in the container.
    pub gid: u32,
    /// The comment field, which has the full name.
    pub comment: String,
    /// Home directory; UTF-8.
    pub home: PathBuf,
    /// Name of its group.
    pub group: String,
}
