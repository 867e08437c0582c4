//! Network namespaces by descriptor, without a procfs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `SIOCGSKNS` (`linux/sockios.h`): the network namespace that a socket belongs to.
/// The descriptor keeps it.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over it.
pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and returns a descriptor or -1.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just put this descriptor here for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// The libc crate has it for Android alone.
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// Moves this thread into a new network namespace.
///
/// # Errors
/// As unshare(2).
pub fn unshare() -> io::Result<()> {
    // SAFETY: integers only; no descriptor and no memory is shared or unshared.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process into new mount and network namespaces and, with `user`, into
/// a new user namespace that owns them and has no id mapped yet.
///
/// # Errors
/// As unshare(2): with `user` EINVAL where there is more than one thread, without
/// it EPERM for an ordinary user.
pub fn unshare_with_mounts(user: bool) -> io::Result<()> {
    let owner = if user { libc::CLONE_NEWUSER } else { 0 };
    // SAFETY: integers only; no descriptor and no memory is shared or unshared.
    match unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS | owner) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this thread into a network namespace.
///
/// # Errors
/// As setns(2).
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}
