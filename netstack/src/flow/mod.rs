//! Flows: what they are called, where they are kept, when they are due.

mod lru;
mod table;
mod timer;

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;

pub(crate) use table::{Flow, FlowTable};
pub(crate) use timer::TimerQueue;

/// Names a flow and its host socket. `index` is dense and reused; `generation`
/// tells users of the same index apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// Dense index, for the owner's own table of sockets.
    pub index: u32,
    /// Which user of the index.
    pub generation: u32,
}

/// What a flow speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP echo; the "port" of the container's side is the identifier.
    Echo,
}

/// What makes a flow unique, as the container sees it. A UDP mapping (one
/// container address and port, whatever the remote) has no remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's side.
    pub container: SocketAddr,
    /// The remote side, as addressed by the container.
    pub remote: Option<SocketAddr>,
}

impl FlowKey {
    pub(crate) fn new(protocol: Protocol, container: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            protocol,
            container,
            remote: Some(remote),
        }
    }

    /// The key of the UDP socket that serves `container`.
    pub(crate) fn mapping(container: SocketAddr) -> Self {
        Self {
            protocol: Protocol::Udp,
            container,
            remote: None,
        }
    }
}

/// What there is to tell about a flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowInfo {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's side; the "port" of an echo flow is its identifier.
    pub container: SocketAddr,
    /// The remote side, as addressed by the container.
    pub remote: SocketAddr,
    /// A state of RFC 9293, 3.3.2; `CONNECTING` while the host's side is opened.
    /// Without connections whether the remote has answered.
    pub state: &'static str,
    /// Since it was opened.
    pub age: Duration,
    /// Payload from the container, bytes.
    pub bytes_up: u64,
    /// Payload to the container, bytes.
    pub bytes_down: u64,
}

/// A remote that is an address without a port.
pub(crate) fn portless(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
