//! The host's network, as far as a container's traffic depends on it. Nothing is sent.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net;

/// Addresses of a root name server, as good as any of the world's: only the route to
/// them is looked up (connect(2) of a datagram socket).
const WORLD4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);
/// What the kernel lets nobody bind without a privilege, where it withholds any port.
const LOWEST_PORT: u16 = 1;

/// One IP version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address that traffic to the world leaves from, or errno(3).
    pub source: Result<IpAddr, i32>,
    /// Interface and gateway of the default route of the main table.
    pub by: Option<(String, IpAddr)>,
}

/// The servers for names.
pub type Resolvers = Result<(Vec<SocketAddr>, bool), String>;

/// The host's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// IPv4
    pub v4: Address,
    /// IPv6
    pub v6: Address,
    /// The host has an IPv6 address that lets a container have one.
    pub has_v6: bool,
    /// Who is asked, and whether the file names anybody; or why it cannot be read.
    pub resolvers: Resolvers,
    /// Making a socket for ICMP echo, errno(3).
    pub echo: Result<(), i32>,
    /// Our group ids.
    pub groups: Vec<u32>,
    /// Binding port 1, errno(3).
    pub lowest_port: Result<(), i32>,
}

pub(super) fn look() -> Host {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut groups = vec![rustix::process::getegid().as_raw()];
    for group in rustix::process::getgroups().unwrap_or_default() {
        if !groups.contains(&group.as_raw()) {
            groups.push(group.as_raw());
        }
    }
    Host {
        v4: Address {
            source: source(WORLD4.into()),
            by: default4(&read("/proc/net/route")),
        },
        v6: Address {
            source: source(WORLD6.into()),
            by: default6(&read("/proc/net/ipv6_route")),
        },
        has_v6: net::host_has_ipv6().unwrap_or(false),
        resolvers: match fs::read("/etc/resolv.conf") {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let named = !crate::config::nameservers(&text).is_empty();
                Ok((net::resolvers_of(&text), named))
            }
            Err(error) => Err(error.to_string()),
        },
        echo: Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))
            .map(drop)
            .map_err(code),
        groups,
        lowest_port: bind_lowest(),
    }
}

fn code(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn source(world: IpAddr) -> Result<IpAddr, i32> {
    let any: IpAddr = match world {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(code)?;
    socket.connect((world, 53)).map_err(code)?;
    socket.local_addr().map(|from| from.ip()).map_err(code)
}

/// Bound for a moment and not listened on: no client can find it.
fn bind_lowest() -> Result<(), i32> {
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, LOWEST_PORT)).into())
    });
    match bound.map_err(code) {
        // Somebody has it: that is asked after the right to it.
        Err(libc::EADDRINUSE) => Ok(()),
        result => result,
    }
}

/// The default route of `/proc/net/route` (interface, destination, gateway, flags,
/// ..., mask is the eighth; addresses in the byte order of the machine).
fn default4(table: &str) -> Option<(String, IpAddr)> {
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
        (hex(1)? == 0 && hex(7)? == 0).then_some(())?;
        let gateway = Ipv4Addr::from(hex(2)?.to_ne_bytes());
        Some(((*words.first()?).to_owned(), gateway.into()))
    })
}

/// The default route of `/proc/net/ipv6_route` (destination, length, source, length,
/// next hop, ..., interface is the tenth); not the kernel's own on `lo`.
fn default6(table: &str) -> Option<(String, IpAddr)> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |index: usize| u128::from_str_radix(words.get(index)?, 16).ok();
        let device = *words.get(9)?;
        (hex(0)? == 0 && hex(1)? == 0 && device != "lo").then_some(())?;
        Some((device.to_owned(), Ipv6Addr::from(hex(4)?).into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let gateway = u32::from_ne_bytes([198, 18, 0, 254]);
        let line = |destination: u32, gateway: u32, mask: u32| {
            format!("eth0\t{destination:08X}\t{gateway:08X}\t0003\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
        };
        let local = line(u32::from_ne_bytes([198, 18, 0, 0]), 0, u32::MAX);
        assert_eq!(default4(head), None);
        assert_eq!(default4(&format!("{head}{local}")), None);
        assert_eq!(
            default4(&format!("{head}{local}{}", line(0, gateway, 0))),
            Some(("eth0".to_owned(), [198, 18, 0, 254].into()))
        );
        let line = |next: u128, device: &str| {
            format!(
                "{:032x} 00 {:032x} 00 {next:032x} 400 1 0 3 {device}\n",
                0, 0
            )
        };
        assert_eq!(default6(&line(0, "lo")), None);
        assert_eq!(
            default6(&[line(0, "lo"), line(1, "eth0")].concat()),
            Some(("eth0".to_owned(), "::1".parse().unwrap()))
        );
    }
}
