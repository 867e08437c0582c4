//! Keeping the program itself out of the container's reach.
//!
//! # Theory of operation
//!
//! A process of the container whose executable is the host's crun-lite could open
//! it for writing through `/proc/self/exe`, where the file's permissions let it: it
//! is the user's own, or the container's root is the host's (CVE-2019-5736). The
//! way there is a command that is a script with `#!/proc/self/exe`, changed to that
//! after init has looked at it. By default the kernel refuses that execve(2), for the
//! file is outside the Landlock domain (`security::landlock`).
//!
//! Where the command is not in a domain, the program puts itself into a memory
//! file that nothing can change, and starts once more from there: then that is
//! what `/proc/self/exe` leads to. This costs a copy of the program, so it is only
//! done where the container has an id that could change the file, and not where the
//! host's own tree is the root, in which the file is anyway.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::config::{IdMapEntry, RootFs, RunSpec};
use crate::ns::idmap;
use crate::plan::{Plan, Step};
use crate::security::landlock;
use crate::sys;
use crate::sys::exec::CStringArray;

/// This process's program.
const OWN: &str = "/proc/self/exe";
/// What it is called in the memory file, and as a process.
const NAME: &std::ffi::CStr = c"crun-lite";
/// Nothing about the file can change any more.
const ALL: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Starts the program once more from a sealed copy where `plan` needs that; returns
/// where it does not, or where this is the copy.
///
/// # Errors
/// No copy could be made or started.
pub(super) fn ensure(spec: &RunSpec, plan: &Plan) -> io::Result<()> {
    let in_domain = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Exec(exec) if exec.landlock.is_some()));
    if in_domain && landlock::is_available() || is_host_tree(&spec.rootfs) {
        return Ok(());
    }
    let own = File::open(OWN)?;
    if rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(ALL)) {
        rustix::thread::set_name(NAME)?;
        return Ok(());
    }
    if !can_change(plan, &own.metadata()?) {
        return Ok(());
    }
    let copy = copy(&own)?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    let strings = |words: Vec<Vec<u8>>| -> io::Result<CStringArray> {
        let strings: Result<Vec<_>, _> = words.into_iter().map(CString::new).collect();
        Ok(CStringArray::new(strings?))
    };
    let args = std::env::args_os().map(OsStringExt::into_vec).collect();
    let env = std::env::vars_os()
        .map(|(key, value)| [key.into_vec(), value.into_vec()].join(&b'='))
        .collect();
    Err(sys::exec::execve(&path, &strings(args)?, &strings(env)?))
}

fn is_host_tree(root: &RootFs) -> bool {
    matches!(root, RootFs::Dir(dir) if dir == Path::new("/"))
}

/// Whether a user of the container could change the file.
fn can_change(plan: &Plan, file: &Metadata) -> bool {
    let maps = |map: &[IdMapEntry], id: u32| !plan.namespaces.user || idmap::covers_host(map, id);
    maps(&plan.uid_map, file.uid())
        || file.mode() & 0o020 != 0 && maps(&plan.gid_map, file.gid())
        || file.mode() & 0o002 != 0
}

fn copy(own: &File) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Where files in memory are not to be executed unless it is said (vm.memfd_noexec).
    let made = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // A kernel before 6.3.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags),
        made => made,
    }?;
    let mut copy = File::from(made);
    io::copy(&mut &*own, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, ALL)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_copy_is_whole_and_cannot_be_changed() {
        let own = File::open(OWN).unwrap();
        let copy = copy(&own).unwrap();
        assert_eq!(
            copy.metadata().unwrap().len(),
            own.metadata().unwrap().len()
        );
        let seals = rustix::fs::fcntl_get_seals(&copy).unwrap();
        assert!(seals.contains(ALL));
        assert!((&copy).write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
        assert!(rustix::fs::fcntl_get_seals(&own).is_err());
    }
}
