//! Which subordinate ids are taken: `--userns=auto`.
//!
//! # Theory of operation
//! Containers that run at the same time must not share an id, no daemon hands ids
//! out, and nothing may be left behind when one is killed. So the kernel keeps the
//! list, as locks on ranges of bytes (fcntl(2), open file description locks): the
//! lock on byte N is the right to use id N. It is granted as a whole or not at all,
//! tells what is in its way, and ends with the last descriptor of its open file. The
//! parent and the container's init have that, so the lock lasts until both are gone.
//!
//! The file is `/dev/null`. Everybody may open it for writing, which an exclusive
//! lock needs; it has one inode whatever the network or mount namespace; and its
//! bytes do not have to exist to be locked. The ids are at offsets that no other
//! program has a reason to lock. Whoever does all the same can only keep others from
//! getting ids, never give two containers the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::lock;

/// Where the locks of user ids begin: "crun" in the upper half.
const USERS: i64 = 0x6372_756e << 32;
/// Where those of group ids begin: "crug".
const GROUPS: i64 = 0x6372_7567 << 32;

/// The right to use some ids, for as long as one of its descriptors is open.
#[derive(Debug)]
pub struct Lease(OwnedFd);

/// What a lease is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    Users,
    Groups,
}

impl Lease {
    /// One of no ids yet.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open("/dev/null", flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3);
        if is_null {
            Ok(Self(file))
        } else {
            Err(Errno::NODEV.into())
        }
    }

    /// Takes the first `size` ids in a row of `ranges` (first id, count) that nobody
    /// has; `None` where there are no such.
    pub(super) fn take(
        &self,
        ids: Ids,
        ranges: &[(u32, u32)],
        size: u32,
    ) -> io::Result<Option<u32>> {
        let base = match ids {
            Ids::Users => USERS,
            Ids::Groups => GROUPS,
        };
        for &(first, count) in ranges {
            let end = i64::from(first) + i64::from(count);
            let mut at = i64::from(first);
            while at + i64::from(size) <= end {
                let (start, length) = (base + at, i64::from(size));
                match lock::lock_range(self.0.as_fd(), start, length) {
                    Ok(()) => return Ok(u32::try_from(at).ok()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                // Gone meanwhile: it may be tried again.
                let Some(taken) = lock::find_lock(self.0.as_fd(), start, length)? else {
                    continue;
                };
                match taken {
                    (_, 0) => break,
                    (taken, length) => at = (taken + length - base).max(at + 1),
                }
            }
        }
        Ok(None)
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of the test's own: nobody has subordinate ones up here.
    const FIRST: u32 = 4_200_000_000;

    #[test]
    fn no_two_get_the_same_ids() {
        let ranges = [(FIRST, 10), (FIRST + 1000, 100)];
        let (one, two, three) = (
            Lease::new().unwrap(),
            Lease::new().unwrap(),
            Lease::new().unwrap(),
        );
        let take = |lease: &Lease, size| lease.take(Ids::Users, &ranges, size).unwrap();
        assert_eq!(take(&one, 6), Some(FIRST));
        assert_eq!(take(&two, 6), Some(FIRST + 1000));
        assert_eq!(take(&three, 4), Some(FIRST + 6));
        assert_eq!(take(&three, 95), None);
        assert_eq!(take(&three, 94), Some(FIRST + 1006));
        // Groups are counted by themselves.
        assert_eq!(one.take(Ids::Groups, &ranges, 6).unwrap(), Some(FIRST));
        // A copy of the descriptor keeps them.
        let copy = two.as_fd().try_clone_to_owned().unwrap();
        drop(two);
        let four = Lease::new().unwrap();
        assert_eq!(take(&four, 6), None);
        drop(copy);
        assert_eq!(take(&four, 6), Some(FIRST + 1000));
        drop(one);
        assert_eq!(take(&four, 6), Some(FIRST));
    }

    #[test]
    fn many_at_once_share_nothing() {
        let ranges = [(FIRST + 10_000, 64 * 16)];
        let threads: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..8)
                        .map(|_| {
                            let lease = Lease::new().unwrap();
                            let first = lease.take(Ids::Users, &ranges, 16).unwrap().unwrap();
                            (first, lease)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut leases: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        leases.sort_by_key(|(first, _)| *first);
        let firsts: Vec<u32> = leases.iter().map(|(first, _)| *first).collect();
        let all: Vec<u32> = (0..64).map(|block| FIRST + 10_000 + 16 * block).collect();
        assert_eq!(firsts, all);
    }
}
