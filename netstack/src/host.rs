//! The host side, as the stack sees it.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Duration;

use crate::flow::FlowId;
use crate::policy::Refusal;

/// What became of a read or a write on a host socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// This many bytes were moved. Fewer than offered means that the socket
    /// has no more (or takes no more) for now.
    Done(usize),
    /// Nothing to read, or no room; readiness is announced with [`crate::Stack::ready`].
    WouldBlock,
    /// End of stream (reads only).
    Closed,
    /// The connection is gone.
    Failed(HostError),
}

/// Why a host call failed, as far as it matters to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// ECONNREFUSED
    #[error("connection refused")]
    Refused,
    /// ECONNRESET, EPIPE, ECONNABORTED
    #[error("connection reset")]
    Reset,
    /// ENETUNREACH
    #[error("network unreachable")]
    NetUnreachable,
    /// EHOSTUNREACH, EHOSTDOWN
    #[error("host unreachable")]
    HostUnreachable,
    /// EACCES, EPERM
    #[error("forbidden")]
    Forbidden,
    /// ETIMEDOUT
    #[error("timed out")]
    TimedOut,
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL
    #[error("out of resources")]
    NoResources,
    /// EMSGSIZE
    #[error("message too long")]
    TooLong {
        /// MTU of the path, bytes; 0 when it is not known.
        mtu: u16,
    },
    /// The hop limit ran out on the way (ICMP time exceeded).
    #[error("time exceeded")]
    TimeExceeded,
    /// Anything else.
    #[error("other error")]
    Other,
}

/// What became of a datagram that was sent earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong.
    pub error: HostError,
    /// Who has said so, when it was a router or the far end (ICMP).
    pub from: Option<IpAddr>,
}

/// What of a packet's IP header is passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IpFields {
    /// Time to live or hop limit; `None` is the host's own default.
    pub hop_limit: Option<u8>,
    /// The sender wants to hear that the datagram is too long for the path rather
    /// than have it fragmented. It does not matter for a short one.
    pub dont_fragment: bool,
}

/// How a host socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Both directions ended in order.
    Orderly,
    /// The container has ended its direction, all of which is the host's by now, and does
    /// not know of the connection any more: the far end's direction is not waited for.
    Forgotten,
    /// The far end must see a reset (RFC 9293, 3.10.5: ABORT).
    Reset,
}

/// What a host socket has become ready for; edge-triggered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The far end has ended its direction, or a read may stop early for another
    /// reason (urgent data): from now on a short read does not mean that the socket
    /// is empty.
    pub read_closed: bool,
    /// The connection is no more; a call may not tell, once the far end's direction
    /// has ended.
    pub failed: bool,
}

/// Everything that the stack asks of its owner. Calls are carried out at once
/// and never block. Sockets are named by the flow that they belong to.
pub trait Host {
    /// Sends one frame, virtio header included when the link has one; the parts
    /// follow one another. A frame that the link does not take is lost, as on any
    /// link.
    fn transmit(&mut self, frame: &[IoSlice<'_>]);

    /// Whether `addr` is one of the host's own addresses (`RTN_LOCAL`,
    /// `RTN_BROADCAST` and so on in the host's routing tables).
    fn is_local(&mut self, addr: IpAddr) -> bool;

    /// The resolvers, if they may be others than when this was last asked; asked
    /// before a query goes to them.
    fn resolvers(&mut self) -> Option<Vec<SocketAddr>> {
        None
    }

    /// The policy has refused something. A container can make this happen as often as it
    /// likes.
    fn refused(&mut self, _: &Refusal<'_>) {}

    /// Begins to connect a TCP socket for `flow`. The outcome comes as
    /// [`crate::Stack::connected`] or [`crate::Stack::connect_failed`].
    ///
    /// # Errors
    /// An immediate failure; no socket is left for the flow.
    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError>;

    /// Writes to the flow's socket; the parts follow one another, none is empty.
    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io;

    /// Reads from the flow's socket.
    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io;

    /// Ends the sending direction of the flow's socket (`SHUT_WR`).
    fn tcp_shutdown(&mut self, flow: FlowId);

    /// Starts keep-alive probes on the flow's socket: the first after `idle`,
    /// then every `interval`.
    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration);

    /// Opens a UDP socket for `flow`, not connected.
    ///
    /// # Errors
    /// No socket could be had.
    fn udp_open(&mut self, flow: FlowId, family_of: IpAddr) -> Result<(), HostError>;

    /// Sends one datagram; the owner may batch, in order. An error that is known
    /// only later comes as [`crate::Stack::datagram_failed`].
    ///
    /// # Errors
    /// The datagram was not taken.
    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError>;

    /// Opens an ICMP echo ("ping") socket for `flow`.
    ///
    /// # Errors
    /// [`HostError::Forbidden`] when `ping_group_range` excludes us.
    fn echo_open(&mut self, flow: FlowId, family_of: IpAddr) -> Result<(), HostError>;

    /// Sends an echo request with this sequence number.
    ///
    /// # Errors
    /// The request was not sent.
    fn echo_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        seq: u16,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError>;

    /// Closes the flow's socket; the flow's id is not used again.
    fn close(&mut self, flow: FlowId, how: Close);
}
