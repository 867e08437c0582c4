//! Which ids a container has by default.

use crate::error::{Error, Hint};
use crate::ns::idmap::{self, Subordinate};

/// What its maps are, and depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Our own user and group id.
    pub own: (u32, u32),
    /// How many user ids the default map has.
    pub uids: u64,
    /// How many group ids.
    pub gids: u64,
    /// What an ordinary user's subordinate ids depend on; `None` for one that may map
    /// any id.
    pub subordinate: Option<Subordinate>,
    /// Whether the maps could be written; `None`: there was nothing to write them of.
    pub written: Option<Result<(), (String, Option<Hint>)>>,
}

pub(super) fn look(written: Option<Result<(), Error>>) -> Ids {
    let maps = idmap::default_maps();
    let total =
        |map: &[crate::config::IdMapEntry]| map.iter().map(|entry| u64::from(entry.size)).sum();
    let said = |error: Error| {
        let hint = error.hint();
        (crate::error::chain(&error), hint)
    };
    Ids {
        own: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
        uids: total(&maps.uid),
        gids: total(&maps.gid),
        subordinate: idmap::subordinate(),
        written: written.map(|result| result.map_err(said)),
    }
}
