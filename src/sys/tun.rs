//! ioctls of tun(4) (`linux/if_tun.h`).

use std::io;
use std::os::fd::AsRawFd;

/// `TUNSETOFFLOAD`: what the holder of the queue can take
/// (`TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_USO4`, `TUN_F_USO6`).
pub mod offload {
    /// Checksums may be left undone.
    pub const CSUM: u32 = 0x01;
    /// TCP super-segments over IPv4.
    pub const TSO4: u32 = 0x02;
    /// TCP super-segments over IPv6.
    pub const TSO6: u32 = 0x04;
    /// UDP super-segments over IPv4 (Linux 6.2).
    pub const USO4: u32 = 0x20;
    /// UDP super-segments over IPv6 (Linux 6.2).
    pub const USO6: u32 = 0x40;
}

// `linux/if_tun.h`; the libc crate does not have them.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNGETFEATURES: libc::c_ulong = 0x8004_54cf;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `TUNGETFEATURES`: the `IFF_` flags that the driver knows. Needs no interface.
///
/// # Errors
/// As ioctl(2); ENOTTY for another device.
pub fn features(fd: &impl AsRawFd) -> io::Result<u32> {
    let mut features: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes an unsigned int, which `features` is.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETFEATURES, &raw mut features) })?;
    Ok(features)
}

/// `TUNSETPERSIST`: whether the interface outlives its last queue.
///
/// # Errors
/// As ioctl(2).
pub fn set_persist(fd: &impl AsRawFd, persist: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETPERSIST, libc::c_int::from(persist)) })
}

/// `TUNSETOFFLOAD`.
///
/// # Errors
/// EINVAL for a flag that the kernel does not know.
pub fn set_offload(fd: &impl AsRawFd, flags: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// `TUNSETIFF`: attaches a queue to the TAP interface `name`, with or without the
/// virtio header and without packet information.
///
/// # Errors
/// EINVAL for a name of more than 15 bytes; otherwise as ioctl(2).
pub fn attach_tap(fd: &impl AsRawFd, name: &str, vnet_header: bool) -> io::Result<()> {
    // SAFETY: ifreq is plain old data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let header = if vnet_header { IFF_VNET_HDR } else { 0 };
    let flags = IFF_TAP | IFF_NO_PI | header;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: `request` is a live ifreq with a terminated name, which TUNSETIFF reads and writes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) })
}

/// `TUNGETIFF`: whether frames of this queue carry a virtio header.
///
/// # Errors
/// As ioctl(2).
pub fn has_vnet_header(fd: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: ifreq is plain old data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: `request` is a live ifreq, which TUNGETIFF writes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF fills in ifru_flags; any bit pattern is a valid c_short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(flags & IFF_VNET_HDR != 0)
}
