//! The two IP versions, with the addresses that a routed host has in each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::host::{HOST_ADDRESS, WORLD_ADDRESS};

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Those that the network has.
    pub(crate) const ALL: &[Self] = &[Self::V4, Self::V6];

    /// As command lines have it: `ping -4`.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// The gateway that a container sees.
    pub(crate) fn gateway(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 2, 2).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
        }
    }

    /// The host's address on its uplink.
    pub(crate) fn host(self) -> IpAddr {
        match self {
            Self::V4 => HOST_ADDRESS.into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The router that the host sees.
    pub(crate) fn router(self) -> IpAddr {
        match self {
            Self::V4 => WORLD_ADDRESS.into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe).into(),
        }
    }

    /// The machine behind the router.
    pub(crate) fn far(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, 1, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
        }
    }

    /// A second address of that machine.
    pub(crate) fn far_second(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, 1, 2).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into(),
        }
    }

    /// The server there as it is written in a URL.
    pub(crate) fn far_in_url(self, port: u16) -> String {
        SocketAddr::new(self.far(), port).to_string()
    }
}
