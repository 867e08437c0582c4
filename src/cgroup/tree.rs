//! Removes a cgroup with all that a container has made below it.
//!
//! # Theory of operation
//! rmdir(2) takes a cgroup only when nothing is below it, and how deep a container that may
//! make cgroups nests them is its own choice. So the way down is kept as names, not as
//! descriptors or stack frames: one directory is open at a time, and its parent is opened
//! from it by `..`. No cgroup can be moved to another parent, so the way up is the way down.
//! A new name for one, which v1 allows, shows when its old name is gone: the parent is
//! read again after each step up.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::handle::open_dir;

/// What rmdir(2) has come to.
enum Removal {
    Gone,
    /// With processes in it, or others below it.
    InUse,
}

/// Removes the cgroup `name` of `parent` and those below it, deepest first.
///
/// # Errors
/// [`Errno::BUSY`] where there are processes in one of them, or where others are made for
/// longer than until `end`; else those of the kernel.
pub(super) fn remove(parent: &OwnedFd, name: &str, end: Instant) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    if let Removal::Gone = remove_one(parent, &name)? {
        return Ok(());
    }
    let mut dir = open_dir(parent, &*name)?;
    let mut way: Vec<CString> = Vec::new();
    loop {
        if let Some(child) = remove_children(&dir)? {
            match open_dir(&dir, &*child) {
                Ok(below) => {
                    dir = below;
                    way.push(child);
                }
                // It has got another name, or none, and is looked for again.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        } else if let Some(emptied) = way.pop() {
            dir = open_dir(&dir, c"..")?;
            if let Removal::InUse = remove_one(&dir, &emptied)? {
                return Err(Errno::BUSY);
            }
        } else {
            return match remove_one(parent, &name)? {
                Removal::Gone => Ok(()),
                Removal::InUse => Err(Errno::BUSY),
            };
        }
        if Instant::now() >= end {
            return Err(Errno::BUSY);
        }
    }
}

/// Removes those right below a directory up to one that is in use, which is the answer.
fn remove_children(dir: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        if let Removal::InUse = remove_one(dir, name)? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn remove_one(parent: &OwnedFd, name: &CStr) -> Result<Removal, Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Gone),
        // The second is what other file systems say, those of the tests.
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(Removal::InUse),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{CWD, Mode, mkdirat};

    use super::*;

    /// More than a process may have open by default, and than fits the stack below.
    const DEEP: u32 = 3000;
    /// Bytes.
    const STACK: usize = 64 << 10;

    fn nest(top: &OwnedFd, depth: u32) {
        let mut dir = rustix::io::fcntl_dupfd_cloexec(top, 0).unwrap();
        for level in 0..depth {
            let name = format!("level-{level}");
            mkdirat(&dir, &name, Mode::RWXU).unwrap();
            dir = open_dir(&dir, &name).unwrap();
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn however_deep_it_takes_no_stack_and_no_descriptors() {
        // In memory where that is to be had: some disks take seconds for it.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let folder = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
        let parent = open_dir(CWD, folder.path()).unwrap();
        mkdirat(&parent, "top", Mode::RWXU).unwrap();
        let top = open_dir(&parent, "top").unwrap();
        nest(&top, DEEP);
        // Others beside the way down.
        for name in ["a", "b", "level-0/z"] {
            mkdirat(&top, name, Mode::RWXU).unwrap();
        }
        let small = std::thread::Builder::new().stack_size(STACK);
        let removed = small.spawn(move || remove(&parent, "top", soon()));
        removed.unwrap().join().unwrap().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_in_use_is_said_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("top/a/b")).unwrap();
        std::fs::create_dir_all(folder.path().join("top/c")).unwrap();
        // As a process would, a file keeps a directory.
        std::fs::write(folder.path().join("top/a/b/file"), "").unwrap();
        let parent = open_dir(CWD, folder.path()).unwrap();
        assert_eq!(remove(&parent, "top", soon()), Err(Errno::BUSY));
        assert!(folder.path().join("top/a/b/file").exists());
    }

    #[test]
    fn it_ends_in_time_and_what_is_gone_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("top/a/b/c")).unwrap();
        let parent = open_dir(CWD, folder.path()).unwrap();
        assert_eq!(remove(&parent, "top", Instant::now()), Err(Errno::BUSY));
        assert_eq!(remove(&parent, "no-such", soon()), Ok(()));
        assert_eq!(remove(&parent, "top", soon()), Ok(()));
    }
}
