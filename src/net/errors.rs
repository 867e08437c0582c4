//! Errors of the host's sockets in the stack's terms. When a call is made again is said
//! elsewhere ([`crate::errno`]).

use std::io;
use std::net::SocketAddr;

use netstack::{Failure, HostError};
use rustix::net::sockopt;
use socket2::{SockAddr, Socket, Type};

use super::sockets::domain;
use crate::sys::udp::QueuedError;

/// A queued error in the stack's terms (RFC 792, RFC 4443).
pub(crate) fn failure(queued: &QueuedError) -> Failure {
    let v4 = queued.to.is_ipv4();
    let error = match (host_error(&queued.error), queued.icmp) {
        (HostError::TooLong { .. }, _) => HostError::TooLong {
            mtu: u16::try_from(queued.info).unwrap_or(u16::MAX),
        },
        (_, Some((11, _))) if v4 => HostError::TimeExceeded,
        (_, Some((3, _))) if !v4 => HostError::TimeExceeded,
        (error, _) => error,
    };
    Failure {
        error,
        from: queued.offender.map(|offender| offender.ip()),
    }
}

/// Why a datagram could not be sent.
pub(super) fn send_error(error: &io::Error, to: SocketAddr) -> HostError {
    match host_error(error) {
        HostError::TooLong { .. } => HostError::TooLong {
            mtu: path_mtu(to).map_or(0, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
        },
        error => error,
    }
}

/// The path's MTU as the kernel knows it, bytes; it tells a connected socket.
fn path_mtu(to: SocketAddr) -> io::Result<u32> {
    let socket = Socket::new(domain(to.ip()), Type::DGRAM.nonblocking(), None)?;
    socket.connect(&SockAddr::from(to))?;
    Ok(if to.is_ipv4() {
        sockopt::ip_mtu(&socket)?
    } else {
        sockopt::ipv6_mtu(&socket)?
    })
}

/// An OS error in the stack's terms.
pub(crate) fn host_error(error: &io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => HostError::Refused,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => HostError::Reset,
        Some(libc::ENETUNREACH | libc::ENETDOWN) => HostError::NetUnreachable,
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => HostError::HostUnreachable,
        Some(libc::EACCES | libc::EPERM) => HostError::Forbidden,
        Some(libc::ETIMEDOUT) => HostError::TimedOut,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            HostError::NoResources
        }
        Some(libc::EMSGSIZE) => HostError::TooLong { mtu: 0 },
        _ => HostError::Other,
    }
}
