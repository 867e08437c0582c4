//! rtnetlink(7), as little of it as we need: requests with attributes, and the
//! answer or acknowledgement to each.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

// `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`,
// `linux/neighbour.h`
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_NET_NS_FD: u16 = 28;
// `linux/veth.h`
const VETH_INFO_PEER: u16 = 1;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_F_NODAD: u8 = 0x02;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER_LEN: usize = 16;

/// What the routing tables say about an address (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteType {
    /// `RTN_UNICAST`, or no route at all: somewhere else.
    Elsewhere,
    /// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_ANYCAST`, `RTN_MULTICAST`: the host itself.
    Host,
}

/// What to change about a link; only what is given changes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LinkChange {
    pub(crate) up: bool,
    /// Neither asks nor answers who has an address.
    pub(crate) no_arp: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) address: Option<[u8; 6]>,
    pub(crate) queue_len: Option<u32>,
}

/// A rtnetlink socket of the current network namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

/// One request under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

impl Netlink {
    /// Opens a socket.
    pub(crate) fn open() -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is protocol 0
        )?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Opens a non-blocking socket that hears of changes of addresses and routes.
    pub(crate) fn monitor() -> io::Result<OwnedFd> {
        // RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
        const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None, // NETLINK_ROUTE is protocol 0
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(fd)
    }

    /// Sends a request and returns the first answer; an acknowledgement is `None`.
    fn call(&mut self, mut request: Request, answer: &mut [u8]) -> io::Result<Option<usize>> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence.to_ne_bytes();
        let length = u32::try_from(request.0.len()).unwrap_or(u32::MAX);
        request.0[..4].copy_from_slice(&length.to_ne_bytes());
        request.0[8..12].copy_from_slice(&sequence);
        rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, &request.0))?;
        loop {
            let n = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *answer))?;
            let truncated = || io::Error::from_raw_os_error(libc::EBADMSG);
            let header = answer.get(..HEADER_LEN.min(n)).ok_or_else(truncated)?;
            if header.len() < HEADER_LEN {
                return Err(truncated());
            }
            if header[8..12] != sequence {
                continue;
            }
            if u16::from_ne_bytes([header[4], header[5]]) != NLMSG_ERROR {
                return Ok(Some(n));
            }
            let code = answer
                .get(HEADER_LEN..HEADER_LEN + 4)
                .ok_or_else(truncated)?;
            return match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
                0 => Ok(None),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
        }
    }

    fn execute(&mut self, request: Request) -> io::Result<()> {
        let mut answer = [0; 1024];
        self.call(request, &mut answer).map(|_| ())
    }

    /// The index of a link.
    pub(crate) fn link_index(&mut self, name: &str) -> io::Result<u32> {
        let request = Request::new(RTM_GETLINK, 0, &[0; 16])
            .attribute(IFLA_IFNAME, format!("{name}\0").as_bytes());
        let mut answer = [0; 8192];
        let n = self.call(request, &mut answer)?.unwrap_or(0);
        // struct ifinfomsg: family, pad, type (2), index (4), ...
        let index = answer
            .get(HEADER_LEN + 4..HEADER_LEN + 8)
            .filter(|_| n >= HEADER_LEN + 8);
        let index = index.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
        Ok(u32::from_ne_bytes([index[0], index[1], index[2], index[3]]))
    }

    /// Changes a link.
    pub(crate) fn change_link(&mut self, index: u32, change: LinkChange) -> io::Result<()> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let flag = |on, flag| if on { flag } else { 0 };
        let flags = flag(change.up, IFF_UP) | flag(change.no_arp, IFF_NOARP);
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&flags.to_ne_bytes());
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &body);
        if let Some(mtu) = change.mtu {
            request = request.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(address) = change.address {
            request = request.attribute(IFLA_ADDRESS, &address);
        }
        if let Some(len) = change.queue_len {
            request = request.attribute(IFLA_TXQLEN, &len.to_ne_bytes());
        }
        self.execute(request)
    }

    /// Makes a veth pair: one end here, its peer in another network namespace.
    /// Neither is up.
    pub(crate) fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> io::Result<()> {
        let name_of = |name: &str| format!("{name}\0").into_bytes();
        let namespace = peer_namespace.as_raw_fd().to_ne_bytes();
        // struct ifinfomsg, and attributes as of a link of its own.
        let peer = Request(vec![0; 16])
            .attribute(IFLA_IFNAME, &name_of(peer))
            .attribute(IFLA_MTU, &mtu.to_ne_bytes())
            .attribute(IFLA_NET_NS_FD, &namespace)
            .0;
        let data = Request(Vec::new()).attribute(VETH_INFO_PEER, &peer).0;
        let info = Request(Vec::new())
            .attribute(IFLA_INFO_KIND, b"veth")
            .attribute(IFLA_INFO_DATA, &data)
            .0;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let request = Request::new(RTM_NEWLINK, flags, &[0; 16])
            .attribute(IFLA_IFNAME, &name_of(name))
            .attribute(IFLA_MTU, &mtu.to_ne_bytes())
            .attribute(IFLA_LINKINFO, &info);
        self.execute(request)
    }

    /// Gives a link an address.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let (family, octets) = family_and_octets(address);
        // Nobody else can have the address: it need not be tried first.
        let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut body = [family, prefix, flags, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        body[4..].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body)
            .attribute(IFA_LOCAL, &octets)
            .attribute(IFA_ADDRESS, &octets);
        self.execute(request)
    }

    /// Keeps the kernel from giving a link an IPv6 address of its own making.
    pub(crate) fn no_ipv6_address(&mut self, index: u32) -> io::Result<()> {
        let nested = |kind: u16, value: &[u8]| Request(Vec::new()).attribute(kind, value).0;
        let mode = nested(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        let family = nested(AF_INET6.into(), &mode);
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, &body).attribute(IFLA_AF_SPEC, &family);
        self.execute(request)
    }

    /// Adds the default route.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let (family, octets) = family_and_octets(gateway);
        let body = [
            family,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            RT_SCOPE_UNIVERSE,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let request = Request::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body)
            .attribute(RTA_GATEWAY, &octets)
            .attribute(RTA_OIF, &index.to_ne_bytes());
        self.execute(request)
    }

    /// Says once and for all which MAC a neighbour has.
    pub(crate) fn add_neighbor(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> io::Result<()> {
        let (family, octets) = family_and_octets(address);
        // struct ndmsg
        let mut body = [0; 12];
        body[0] = family;
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let request = Request::new(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body)
            .attribute(NDA_DST, &octets)
            .attribute(NDA_LLADDR, &mac);
        self.execute(request)
    }

    /// Asks the routing tables about an address.
    pub(crate) fn route_type(&mut self, address: IpAddr) -> io::Result<RouteType> {
        let (family, octets) = family_and_octets(address);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let body = [family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let request = Request::new(RTM_GETROUTE, 0, &body).attribute(RTA_DST, &octets);
        let mut answer = [0; 1024];
        match self.call(request, &mut answer) {
            // struct rtmsg: ..., rtm_type is its eighth byte.
            Ok(Some(_)) if answer[HEADER_LEN + 7] > RTN_UNICAST && answer[HEADER_LEN + 7] <= 5 => {
                Ok(RouteType::Host)
            }
            Ok(_) => Ok(RouteType::Elsewhere),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(RouteType::Elsewhere)
            }
            Err(error) => Err(error),
        }
    }
}

fn family_and_octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
