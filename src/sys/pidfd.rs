//! What a pidfd tells of a process that is gone (`PIDFD_GET_INFO`, Linux 6.13).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of its first version (`linux/pidfd.h`).
#[derive(Default)]
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Process, thread group, parent; user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(0xff, 11, struct pidfd_info)`
const GET_INFO: libc::c_ulong = 0xc000_ff0b | (size_of::<Info>() as libc::c_ulong) << 16;
/// `PIDFD_INFO_EXIT` (Linux 6.15)
const EXIT: u64 = 1 << 3;

/// How the process ended, as wait(2) has it; `None` while nobody has reaped it, or
/// where the kernel does not say.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info {
        mask: EXIT,
        ..Info::default()
    };
    // SAFETY: the kernel reads and writes a structure of the size that the request
    // names, which `info` is.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (result == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// A descriptor of this process, by which others see its end.
///
/// # Errors
/// Those of pidfd_open(2).
pub fn of_self() -> io::Result<std::os::fd::OwnedFd> {
    let own = rustix::process::getpid();
    Ok(rustix::process::pidfd_open(
        own,
        rustix::process::PidfdFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_end_is_told_once_it_is_known() {
        assert_eq!(size_of::<Info>(), 64);
        let own = of_self().unwrap();
        assert_eq!(exit_status(own.as_fd()), None);
        let mut child = Command::new("sh")
            .args(["-c", "kill -SYS $$"])
            .spawn()
            .unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        // A kernel before 6.15 does not say.
        if let Some(status) = exit_status(pidfd.as_fd()) {
            assert_eq!(status & 0x7f, libc::SIGSYS);
        }
    }
}
