//! What `-p` means.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a published port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Display for Transport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One `-p`: `count` ports of the host that lead to as many of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address; `None` is all of them, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The first port of the host; `None` is any that is free.
    pub host_port: Option<u16>,
    /// The first port of the container.
    pub container_port: u16,
    /// How many ports, at least one.
    pub count: u16,
    /// What they speak.
    pub transport: Transport,
}

impl Publish {
    /// The addresses to listen on.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.address {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }

    /// The ports of the container.
    pub fn container_ports(&self) -> impl Iterator<Item = u16> {
        // In range where the constructor was ours; else it ends early.
        let first = self.container_port;
        (0..self.count).map_while(move |n| first.checked_add(n))
    }

    /// Whether a port of the host that leads to one of the container is one of these,
    /// whatever it speaks.
    pub fn covers(&self, host: SocketAddr, container_port: u16) -> bool {
        let Some(nth) = container_port.checked_sub(self.container_port) else {
            return false;
        };
        let host_port = |first: u16| first.checked_add(nth) == Some(host.port());
        nth < self.count
            && self.address.is_none_or(|address| address == host.ip())
            && self.host_port.is_none_or(host_port)
    }

    /// Whether both ask for one port of the host.
    pub fn collides_with(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (self.host_port, other.host_port) else {
            return false;
        };
        let ends = |first: u16, count: u16| u32::from(first) + u32::from(count);
        let ports = u32::from(ours) < ends(theirs, other.count)
            && u32::from(theirs) < ends(ours, self.count);
        let same = |a: &IpAddr, b: &IpAddr| {
            a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
        };
        let (ours, theirs) = (self.addresses(), other.addresses());
        let addresses = ours.iter().any(|a| theirs.iter().any(|b| same(a, b)));
        self.transport == other.transport && ports && addresses
    }
}

/// As it is typed.
impl Display for Publish {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        let range = |f: &mut Formatter<'_>, first: u16| match self.count {
            0 | 1 => write!(f, "{first}"),
            count => write!(f, "{first}-{}", u32::from(first) + u32::from(count) - 1),
        };
        if let Some(first) = self.host_port {
            range(f, first)?;
            f.write_str(":")?;
        } else if self.address.is_some() {
            f.write_str(":")?;
        }
        range(f, self.container_port)?;
        write!(f, "/{}", self.transport)
    }
}
