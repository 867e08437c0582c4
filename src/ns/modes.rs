//! `--userns`: which ids a container has.

use std::fs;

use super::idmap::{self, Maps};
use super::lease::{Ids, Lease};
use crate::config::{IdMapEntry, UserNamespace};
use crate::error::Error;

/// How many ids `--userns=auto` gives unless more are asked for. The ids of services
/// are below 1000 everywhere; podman's least is the same.
const AUTO_SIZE: u32 = 1024;
/// Whose subordinate ids root gives away (podman's, and Docker's `userns-remap`).
const ROOTS_RANGES: &str = "containers";
/// The most lines of a map (user_namespaces(7)).
const MOST_LINES: usize = 340;

/// The maps of a container, and what keeps others from having the same ids.
#[derive(Debug)]
pub struct Choice {
    /// Empty in the host's user namespace.
    pub maps: Maps,
    /// To be kept until the container has ended.
    pub lease: Option<Lease>,
}

/// The maps for `mode`; `given` are those of `--uidmap` and `--gidmap`, and `highest`
/// is the highest id that is known to be needed.
///
/// # Errors
/// There are no subordinate ids, or not enough that are free.
pub fn choose(mode: UserNamespace, given: Maps, highest: u32) -> Result<Choice, Error> {
    let maps = |maps| Choice { maps, lease: None };
    Ok(match mode {
        UserNamespace::Host => maps(given),
        UserNamespace::Private if given.uid.is_empty() => maps(idmap::default_maps()),
        UserNamespace::Private => maps(given),
        UserNamespace::KeepId { uid, gid } => {
            let (own_uid, own_gid) = idmap::own_ids();
            // Without subordinate ids there is nothing else in the container.
            let (uids, gids) = idmap::usable_ranges().unwrap_or_default();
            maps(Maps {
                uid: around(own_uid, uid.unwrap_or(own_uid), &uids),
                gid: around(own_gid, gid.unwrap_or(own_gid), &gids),
            })
        }
        UserNamespace::NoMap => {
            let (uids, gids) = idmap::usable_ranges().ok_or_else(|| none("nomap"))?;
            maps(Maps {
                uid: idmap::append(Vec::new(), &uids),
                gid: idmap::append(Vec::new(), &gids),
            })
        }
        UserNamespace::Auto { size } => {
            let size = size.unwrap_or(AUTO_SIZE.max(highest.saturating_add(1)));
            auto(size)?
        }
    })
}

/// `own` as `id`, and the ids below and above it from `ranges` in their order.
fn around(own: u32, id: u32, ranges: &[(u32, u32)]) -> Vec<IdMapEntry> {
    let mut map = Vec::new();
    let mut next = 0;
    let mut is_placed = false;
    let place = |map: &mut Vec<IdMapEntry>, host: u32, size: u32, next: &mut u32| {
        let size = size.min(u32::MAX - *next);
        if size > 0 {
            map.push(IdMapEntry {
                container: *next,
                host,
                size,
            });
            *next += size;
        }
    };
    // A line is cut in two where `own` falls into it.
    for &(host, count) in ranges.iter().take(MOST_LINES - 2) {
        let below = if is_placed { 0 } else { count.min(id - next) };
        place(&mut map, host, below, &mut next);
        if !is_placed && next == id {
            place(&mut map, own, 1, &mut next);
            is_placed = true;
        }
        place(&mut map, host + below, count - below, &mut next);
    }
    if !is_placed {
        next = id;
        place(&mut map, own, 1, &mut next);
    }
    map
}

fn none(mode: &str) -> Error {
    Error::Usage(format!(
        "--userns={mode}: there are no subordinate ids for you, or newuidmap and newgidmap \
         are not installed ('crun-lite doctor' says what is missing)"
    ))
}

/// `size` user ids and `size` group ids that no other container of `--userns=auto` has.
fn auto(size: u32) -> Result<Choice, Error> {
    let (uids, gids) = if idmap::may_map_anything() {
        let ranges = |file| {
            fs::read(file)
                .map(|text| idmap::subordinate_ranges(&text, ROOTS_RANGES.as_bytes(), u32::MAX))
                .unwrap_or_default()
        };
        let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
        if uids.is_empty() || gids.is_empty() {
            return Err(Error::Usage(format!(
                "--userns=auto: as root it takes ids of the user {ROOTS_RANGES} of /etc/subuid and \
                 /etc/subgid, which has none there (a line such as \
                 '{ROOTS_RANGES}:2147483647:2147483648' in both)"
            )));
        }
        (uids, gids)
    } else {
        idmap::usable_ranges().ok_or_else(|| none("auto"))?
    };
    let lease = Lease::new().map_err(|error| Error::host("open /dev/null", error))?;
    let take = |ids, ranges: &[(u32, u32)]| {
        let host = lease
            .take(ids, ranges, size)
            .map_err(|error| Error::host("lock ids of --userns=auto", error))?
            .ok_or_else(|| {
                Error::Usage(format!(
                    "--userns=auto: of the subordinate ids, {size} in a row are not free"
                ))
            })?;
        Ok::<_, Error>(vec![IdMapEntry {
            container: 0,
            host,
            size,
        }])
    };
    let maps = Maps {
        uid: take(Ids::Users, &uids)?,
        gid: take(Ids::Groups, &gids)?,
    };
    Ok(Choice {
        maps,
        lease: Some(lease),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(map: &[IdMapEntry]) -> Vec<(u32, u32, u32)> {
        map.iter()
            .map(|entry| (entry.container, entry.host, entry.size))
            .collect()
    }

    #[test]
    fn own_id_is_put_among_the_others() {
        let map = around(1001, 1001, &[(100_000, 65536)]);
        assert_eq!(
            lines(&map),
            [(0, 100_000, 1001), (1001, 1001, 1), (1002, 101_001, 64535)]
        );
        assert_eq!(lines(&around(7, 7, &[])), [(7, 7, 1)]);
        assert_eq!(lines(&around(7, 0, &[(50, 3)])), [(0, 7, 1), (1, 50, 3)]);
        // Beyond all others, and right between two ranges.
        assert_eq!(lines(&around(9, 9, &[(50, 3)])), [(0, 50, 3), (9, 9, 1)]);
        assert_eq!(
            lines(&around(9, 3, &[(50, 3), (90, 2)])),
            [(0, 50, 3), (3, 9, 1), (4, 90, 2)]
        );
        assert_eq!(
            lines(&around(9, 4, &[(50, 3), (90, 2)])),
            [(0, 50, 3), (3, 90, 1), (4, 9, 1), (5, 91, 1)]
        );
        assert!(around(1, 400, &vec![(10, 1); 1000]).len() <= MOST_LINES);
    }

    proptest! {
        #[test]
        fn maps_are_one_to_one(
            id in prop_oneof![0..2000_u32, any::<u32>().prop_filter("an id", |id| *id != u32::MAX)],
            counts in prop::collection::vec(1..1000_u32, 0..6),
        ) {
            let mut first = 100_000;
            let ranges: Vec<(u32, u32)> = counts
                .iter()
                .map(|count| {
                    first += 2000;
                    (first, *count)
                })
                .collect();
            let map = around(1, id, &ranges);
            let own: Vec<_> = map.iter().filter(|entry| entry.host == 1).collect();
            let own: Vec<_> = own.iter().map(|entry| (entry.container, entry.size)).collect();
            prop_assert_eq!(own, [(id, 1)]);
            let end = |entry: &IdMapEntry| u64::from(entry.container) + u64::from(entry.size);
            let in_order = map.is_sorted_by(|a, b| end(a) <= u64::from(b.container));
            prop_assert!(in_order, "{:?}", map);
            let mapped: u32 = map.iter().map(|entry| entry.size).sum();
            prop_assert_eq!(mapped, counts.iter().sum::<u32>() + 1);
        }
    }
}
