//! What a stack is built with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use crate::policy::Policy;

/// Addresses, link and limits of one container's network.
#[derive(Debug, Clone)]
pub struct Config {
    /// The container's address; frames from any other source are dropped.
    pub container: Ipv4Addr,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The DNS forwarder's address.
    pub dns: Ipv4Addr,
    /// Prefix length of the container's network.
    pub prefix_len: u8,
    /// The IPv6 side; `None`: IPv6 frames are dropped.
    pub ipv6: Option<Ipv6Config>,
    /// MAC address of the gateway and the DNS forwarder.
    pub mac: [u8; 6],
    /// The link.
    pub link: LinkConfig,
    /// What the container may reach.
    pub policy: Policy,
    /// Where DNS queries go, in order of preference.
    pub resolvers: Vec<SocketAddr>,
    /// Names that the DNS forwarder answers itself, lower case and without the dot at
    /// the end, with their addresses; an address leads back to the first of its names.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// Bounds.
    pub limits: Limits,
    /// Seed of initial sequence numbers and IP identifications; from a CSPRNG
    /// (RFC 6528).
    pub seed: u64,
}

/// Addresses of one container's IPv6 network. All are in one /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Config {
    /// The container's address, where published ports lead. It may use others of
    /// the prefix as well (RFC 4862, RFC 8981).
    pub container: Ipv6Addr,
    /// The gateway's address.
    pub gateway: Ipv6Addr,
    /// The DNS forwarder's address.
    pub dns: Ipv6Addr,
}

impl Ipv6Config {
    /// Whether `address` is in the container's network.
    pub(crate) fn has(&self, address: Ipv6Addr) -> bool {
        address.segments()[..4] == self.gateway.segments()[..4]
    }
}

/// What the link can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkConfig {
    /// IP MTU, bytes.
    pub mtu: u16,
    /// Frames carry a `struct virtio_net_hdr` (10 bytes, `linux/virtio_net.h`):
    /// checksums may be left to the receiver, both ways.
    pub vnet_header: bool,
    /// The link takes TCP super-segments (`TUN_F_TSO4`); needs `vnet_header`.
    pub tso: bool,
    /// The link takes UDP super-segments (`TUN_F_USO4`); needs `vnet_header`.
    pub uso: bool,
}

/// Budgets of one container: what it can make us hold and do. Beyond them it is
/// refused, with a reset or an ICMP error; nothing else comes to harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flows of all protocols at once. Beyond it new ones take the place of datagram
    /// flows that nobody has answered of late, or are refused. None needs more than
    /// one host socket, but that of a DNS client whose resolvers are of both IP
    /// versions.
    pub max_flows: usize,
    /// TCP connections whose host side is still being opened, or whose handshake with
    /// the container is not complete.
    pub max_half_open: usize,
    /// Bytes of TCP payload that may wait in all, either way; ring sizes shrink as it
    /// is used up, and a flow that can have none is reset.
    pub max_buffered: usize,
    /// Frames of the container a second, and at most as many at once; those beyond it
    /// are lost, as on a slow link. `None`: no such bound.
    pub max_pps: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 65_536,
            max_half_open: 1024,
            max_buffered: 512 << 20,
            max_pps: None,
        }
    }
}
