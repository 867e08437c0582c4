//! Batches of UDP datagrams: sendmmsg(2) with `UDP_SEGMENT` and recvmmsg(2)
//! with `UDP_GRO` (udp(7)).

// C constants and sizes in the integer types that the kernel's structures have.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ip::set_option;

// `linux/udp.h`; the libc crate does not have them for glibc.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Room for control messages with an int and with an address, aligned as `cmsghdr` is.
type Control = [u64; 10];

/// One datagram, or several of `segment` bytes in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Destination.
    pub to: SocketAddr,
    /// Payload.
    pub payload: &'a [u8],
    /// Payload bytes per datagram (the last may be shorter); 0 for one datagram.
    pub segment: u16,
    /// Where it is to come from; `None` leaves that to the routes.
    pub source: Option<IpAddr>,
}

/// Most messages that one [`send`] takes.
pub const SEND_BATCH: usize = 32;

fn encode(address: SocketAddr, storage: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr type.
            unsafe {
                std::ptr::from_mut(storage)
                    .cast::<libc::sockaddr_in>()
                    .write(raw)
            };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe {
                std::ptr::from_mut(storage)
                    .cast::<libc::sockaddr_in6>()
                    .write(raw)
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

fn decode(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let raw = unsafe {
                std::ptr::from_ref(storage)
                    .cast::<libc::sockaddr_in>()
                    .read()
            };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::from((ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let raw = unsafe {
                std::ptr::from_ref(storage)
                    .cast::<libc::sockaddr_in6>()
                    .read()
            };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends up to [`SEND_BATCH`] messages in order, without waiting; returns how
/// many were taken. An error is about the first message.
///
/// # Errors
/// As sendmmsg(2).
pub fn send(fd: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> io::Result<usize> {
    if let [
        Outgoing {
            to,
            payload,
            segment: 0,
            source: None,
        },
    ] = messages
    {
        return send_one(fd, *to, payload).map(|()| 1);
    }
    let count = messages.len().min(SEND_BATCH);
    // SAFETY: these are plain old data for which all zeroes is a valid value.
    let mut addresses: [libc::sockaddr_storage; SEND_BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; SEND_BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; SEND_BATCH] = unsafe { std::mem::zeroed() };
    let mut controls: [Control; SEND_BATCH] = [[0; 10]; SEND_BATCH];
    for (i, message) in messages.iter().take(count).enumerate() {
        let header = &mut headers[i].msg_hdr;
        header.msg_namelen = encode(message.to, &mut addresses[i]);
        header.msg_name = std::ptr::from_mut(&mut addresses[i]).cast();
        // sendmmsg(2) only reads through iov_base.
        vectors[i].iov_base = message.payload.as_ptr().cast_mut().cast();
        vectors[i].iov_len = message.payload.len();
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        let used = write_controls(&mut controls[i], message);
        if used > 0 {
            header.msg_control = std::ptr::from_mut(&mut controls[i]).cast();
            header.msg_controllen = used as _;
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers point to live addresses, vectors, payloads and control
    // buffers, none of which moves before the call returns.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            flags as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes what a message needs; how many bytes that takes.
fn write_controls(controls: &mut Control, message: &Outgoing<'_>) -> usize {
    let mut used = 0;
    if message.segment != 0 {
        used += append(
            controls,
            used,
            (libc::SOL_UDP, UDP_SEGMENT),
            message.segment,
        );
    }
    match message.source {
        Some(IpAddr::V4(source)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(source.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += append(controls, used, (libc::SOL_IP, libc::IP_PKTINFO), info);
        }
        Some(IpAddr::V6(source)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: source.octets(),
                },
                ipi6_ifindex: 0,
            };
            used += append(controls, used, (libc::SOL_IPV6, libc::IPV6_PKTINFO), info);
        }
        None => {}
    }
    used
}

/// Appends a control message behind the first `used` bytes; how many it takes.
fn append<T: Copy>(
    controls: &mut Control,
    used: usize,
    (level, kind): (libc::c_int, libc::c_int),
    data: T,
) -> usize {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe {
        (
            libc::CMSG_SPACE(size_of::<T>() as u32) as usize,
            libc::CMSG_LEN(size_of::<T>() as u32),
        )
    };
    assert!(
        used + space <= size_of::<Control>(),
        "there is room for all"
    );
    // SAFETY: the message lies within the buffer, as was just checked; `used` is a sum of
    // CMSG_SPACEs, so that it is aligned as the buffer is.
    unsafe {
        let control = std::ptr::from_mut(controls)
            .cast::<u8>()
            .add(used)
            .cast::<libc::cmsghdr>();
        (*control).cmsg_level = level;
        (*control).cmsg_type = kind;
        (*control).cmsg_len = len as _;
        libc::CMSG_DATA(control).cast::<T>().write_unaligned(data);
    }
    space
}

fn send_one(fd: BorrowedFd<'_>, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    // SAFETY: these are plain old data for which all zeroes is a valid value.
    let (mut address, mut header) = unsafe {
        (
            std::mem::zeroed::<libc::sockaddr_storage>(),
            std::mem::zeroed::<libc::msghdr>(),
        )
    };
    header.msg_namelen = encode(to, &mut address);
    header.msg_name = std::ptr::from_mut(&mut address).cast();
    let mut vector = libc::iovec {
        // sendmsg(2) only reads through it.
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to a live address, vector and payload of the lengths given.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `UDP_GRO`: lets the kernel hand over several datagrams of one sender in one piece.
///
/// # Errors
/// As setsockopt(2).
pub fn enable_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_UDP, UDP_GRO, 1)
}

/// `IP_PKTINFO` or `IPV6_RECVPKTINFO`: tells which address a datagram was sent to.
///
/// # Errors
/// As setsockopt(2).
pub fn enable_destinations(fd: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set_option(fd, libc::SOL_IP, libc::IP_PKTINFO, 1)
    } else {
        set_option(fd, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// `IP_RECVERR` or `IPV6_RECVERR`: queues the errors of datagrams sent (ip(7)).
///
/// # Errors
/// As setsockopt(2).
pub fn enable_errors(fd: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set_option(fd, libc::SOL_IP, libc::IP_RECVERR, 1)
    } else {
        set_option(fd, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// A queued error (ip(7), `IP_RECVERR`): what became of a datagram.
#[derive(Debug)]
pub struct QueuedError {
    /// Where the datagram went.
    pub to: SocketAddr,
    /// What is wrong, as an OS error.
    pub error: io::Error,
    /// Type and code of the ICMP or ICMPv6 error; `None` when the host's own
    /// kernel has found it.
    pub icmp: Option<(u8, u8)>,
    /// MTU of the path, where the datagram is too long for it (`ee_info`).
    pub info: u32,
    /// Who has sent the ICMP error.
    pub offender: Option<SocketAddr>,
    /// Bytes of the datagram's payload that are in `buffer`.
    pub quoted: usize,
}

/// Takes one queued error; the front of the datagram's payload goes to `buffer`.
///
/// # Errors
/// As recvmsg(2); EAGAIN when there is none.
pub fn receive_error(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<QueuedError>> {
    // SAFETY: these are plain old data for which all zeroes is a valid value.
    let (mut address, mut header) = unsafe {
        (
            std::mem::zeroed::<libc::sockaddr_storage>(),
            std::mem::zeroed::<libc::msghdr>(),
        )
    };
    let mut control = [0_u64; 32];
    header.msg_name = std::ptr::from_mut(&mut address).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header points to live buffers of the lengths given.
    let quoted = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let quoted = usize::try_from(quoted).map_err(|_| io::Error::last_os_error())?;
    let found = find_control(&header, |level, kind, data| {
        matches!(
            (level, kind),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
        )
        // SAFETY: this control message carries a struct sock_extended_err and, behind it, the
        // offender's address, for which the kernel makes room as for the largest of its family.
        .then(|| unsafe {
            let error = data.cast::<libc::sock_extended_err>().read_unaligned();
            let behind = data.add(size_of::<libc::sock_extended_err>());
            let family = behind.cast::<libc::sa_family_t>().read_unaligned();
            let mut offender = std::mem::zeroed::<libc::sockaddr_storage>();
            let len = match libc::c_int::from(family) {
                libc::AF_INET => size_of::<libc::sockaddr_in>(),
                libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
                _ => 0,
            };
            std::ptr::copy_nonoverlapping(behind, (&raw mut offender).cast(), len);
            (error, decode(&offender))
        })
    });
    let (Some(to), Some((error, offender))) = (decode(&address), found) else {
        return Ok(None);
    };
    let from_icmp = matches!(
        error.ee_origin,
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
    );
    Ok(Some(QueuedError {
        to,
        error: io::Error::from_raw_os_error(error.ee_errno.cast_signed()),
        icmp: from_icmp.then_some((error.ee_type, error.ee_code)),
        info: error.ee_info,
        offender: offender.filter(|_| from_icmp),
        quoted,
    }))
}

/// Most messages that one [`Inbox::receive`] takes.
pub const RECEIVE_BATCH: usize = 32;
const SLOT: usize = 1 << 16;

/// Buffers for a batch of datagrams, made once.
///
/// The headers point into the other fields, whose heap memory never moves and
/// is touched by nobody else while the kernel has it.
pub struct Inbox {
    bytes: Vec<u8>,
    addresses: Vec<libc::sockaddr_storage>,
    _controls: Vec<Control>,
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// A datagram, or several of `segment` bytes in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// Payload.
    pub payload: &'a [u8],
    /// Payload bytes per datagram (the last may be shorter); 0 for one datagram.
    pub segment: u16,
    /// The address that it was sent to, where [`enable_destinations`] asks for it.
    pub to: Option<IpAddr>,
}

impl Default for Inbox {
    fn default() -> Self {
        let mut bytes = vec![0; RECEIVE_BATCH * SLOT];
        // SAFETY: these are plain old data for which all zeroes is a valid value.
        let (address, vector, header) = unsafe {
            (
                std::mem::zeroed::<libc::sockaddr_storage>(),
                std::mem::zeroed::<libc::iovec>(),
                std::mem::zeroed::<libc::mmsghdr>(),
            )
        };
        let mut addresses = vec![address; RECEIVE_BATCH];
        let mut controls = vec![[0; 10]; RECEIVE_BATCH];
        let mut vectors = vec![vector; RECEIVE_BATCH];
        let mut headers = vec![header; RECEIVE_BATCH];
        for (i, slot) in bytes.chunks_exact_mut(SLOT).enumerate() {
            vectors[i].iov_base = slot.as_mut_ptr().cast();
            vectors[i].iov_len = slot.len();
            let header = &mut headers[i].msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut addresses[i]).cast();
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::from_mut::<Control>(&mut controls[i]).cast();
        }
        Self {
            bytes,
            addresses,
            _controls: controls,
            _vectors: vectors,
            headers,
            received: RECEIVE_BATCH,
        }
    }
}

impl Inbox {
    /// Takes what is there, up to [`RECEIVE_BATCH`] messages, without waiting;
    /// returns how many (fewer than that: there was no more).
    ///
    /// # Errors
    /// As recvmmsg(2); EAGAIN when there is nothing.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // The kernel has overwritten the lengths of those that it used.
        for header in self.headers.iter_mut().take(self.received) {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        self.received = 0;
        // SAFETY: every header points to buffers of the lengths given, which this object owns
        // and which do not move; a null time-out is allowed.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                RECEIVE_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// What the last [`Inbox::receive`] took.
    pub fn messages(&self) -> impl Iterator<Item = Incoming<'_>> {
        let slots = self.bytes.chunks_exact(SLOT).zip(&self.addresses);
        self.headers
            .iter()
            .take(self.received)
            .zip(slots)
            .map(|(header, (slot, address))| Incoming {
                // An address of no known family can not be answered; it matches no flow.
                from: decode(address).unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()),
                payload: slot.get(..header.msg_len as usize).unwrap_or_default(),
                segment: gro_segment(&header.msg_hdr),
                to: destination(&header.msg_hdr),
            })
    }
}

/// The `UDP_GRO` control message of a received header, 0 when there is none.
fn gro_segment(header: &libc::msghdr) -> u16 {
    let size = find_control(header, |level, kind, data| {
        (level == libc::SOL_UDP && kind == UDP_GRO)
            // SAFETY: this control message carries an int.
            .then(|| unsafe { data.cast::<libc::c_int>().read_unaligned() })
    });
    size.and_then(|size| u16::try_from(size).ok()).unwrap_or(0)
}

/// The address that a received datagram was sent to, if it is told.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    find_control(header, |level, kind, data| match (level, kind) {
        (libc::SOL_IP, libc::IP_PKTINFO) => {
            // SAFETY: this control message carries a struct in_pktinfo.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            let address = info.ipi_spec_dst.s_addr.to_ne_bytes();
            Some(IpAddr::from(address))
        }
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: this control message carries a struct in6_pktinfo.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(IpAddr::from(info.ipi6_addr.s6_addr)).filter(|address| !address.is_multicast())
        }
        _ => None,
    })
}

/// The first control message (level, type, data) that `pick` takes.
fn find_control<T>(
    header: &libc::msghdr,
    pick: impl Fn(libc::c_int, libc::c_int, *const libc::c_uchar) -> Option<T>,
) -> Option<T> {
    // SAFETY: msg_control and msg_controllen describe a live buffer that the kernel filled in;
    // the CMSG macros stay within it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            if let Some(found) = pick((*control).cmsg_level, (*control).cmsg_type, data) {
                return Some(found);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}
