//! Socket options of ip(7) and ipv6(7) that rustix lacks.

// C sizes in the integer types that the kernel's structures have.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What of the IP header is set for the datagrams that follow: the hop limit, or
/// the host's own.
///
/// # Errors
/// As setsockopt(2).
pub fn set_hop_limit(fd: BorrowedFd<'_>, v4: bool, limit: Option<u8>) -> io::Result<()> {
    let value = limit.map_or(-1, libc::c_int::from);
    if v4 {
        set_option(fd, libc::SOL_IP, libc::IP_TTL, value)
    } else {
        set_option(fd, libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, value)
    }
}

/// Whether datagrams that are too long for the path are refused, or fragmented.
///
/// # Errors
/// As setsockopt(2).
pub fn set_dont_fragment(fd: BorrowedFd<'_>, v4: bool, on: bool) -> io::Result<()> {
    if v4 {
        let value = if on {
            libc::IP_PMTUDISC_DO
        } else {
            libc::IP_PMTUDISC_DONT
        };
        set_option(fd, libc::SOL_IP, libc::IP_MTU_DISCOVER, value)
    } else {
        set_option(fd, libc::SOL_IPV6, libc::IPV6_DONTFRAG, on.into())
    }
}

/// `IP_BIND_ADDRESS_NO_PORT`, for both versions: a bind(2) to port 0 leaves the port
/// to connect(2), which can share one between connections to different places.
///
/// # Errors
/// As setsockopt(2).
pub fn bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Sets an option whose value is an int.
///
/// # Errors
/// As setsockopt(2).
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option value is a live int of the length given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
