//! The host's sockets: what [`netstack::Host`] asks for, as system calls.
//!
//! # Theory of operation
//!
//! Sockets sit in a table with the stack's own dense flow index; the flow's
//! generation is part of the event token, so that an event for a socket that
//! was closed in the same turn finds nothing. Every socket is registered once,
//! edge-triggered, and leaves epoll by being closed. Outgoing datagrams are
//! gathered for the length of one turn and sent with one call per socket;
//! runs of equal size to one destination go as one super-segment (`UDP_SEGMENT`).

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use netstack::{Close, Failure, FlowId, Host, HostError, Io, IpFields, Refusal};
use rustix::io::Errno;
use rustix::net::Shutdown;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::audit::Audit;
use super::datagrams::Datagrams;
use super::errors::{host_error, send_error};
use super::link::Sender;
use super::local::LocalAddresses;
use super::outbound::Outbounds;
use super::outbox::Outbox;
use super::pcap::Capture;
use super::publish::reset;
use super::resolvers::Ask;
use crate::errno::{Remedy, remedy};
use crate::sys::udp::{self, Outgoing};

/// Longest frame: virtio and Ethernet headers and 64 KiB of IP.
pub(crate) const MAX_FRAME: usize = 64 + (1 << 16);
/// Probes that may go unanswered (`TCP_KEEPCNT`).
const KEEPALIVE_PROBES: u32 = 4;
/// Receive buffer asked for per UDP socket, bytes; the kernel grants what it allows.
const UDP_RECEIVE_BUFFER: usize = 1 << 20;

/// A flow's socket.
#[derive(Debug)]
pub(crate) enum FlowSocket {
    /// TCP; true while connecting.
    Tcp(Socket, bool),
    /// UDP, not connected.
    Udp(Datagrams),
    /// ICMP echo.
    Echo(Datagrams),
}

impl FlowSocket {
    fn socket(&self) -> &Socket {
        match self {
            Self::Tcp(socket, _) => socket,
            Self::Udp(datagrams) | Self::Echo(datagrams) => datagrams.socket(),
        }
    }
}

/// Who is asked for the host's resolvers.
struct Asked(Option<Ask>);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Asked").field(&self.0.is_some()).finish()
    }
}

/// All host-side resources of one network.
#[derive(Debug)]
pub(crate) struct HostSide {
    pub(crate) link: Sender,
    table: Vec<Option<(u32, FlowSocket)>>,
    registry: Registry,
    first_token: usize,
    local: LocalAddresses,
    resolvers: Asked,
    outbox: Outbox,
    outbounds: Outbounds,
    failures: Vec<(FlowId, SocketAddr, Failure)>,
    /// Flows with a call that is to be made again later, which no event tells.
    stalled: Vec<FlowId>,
    /// Flows that cannot go on, which their ends do not know yet.
    broken: Vec<FlowId>,
    echo_refused: bool,
    /// Tells what the policy has refused.
    pub(crate) audit: Audit,
    /// `--pcap`.
    pub(crate) capture: Option<Capture>,
    /// Frames that the link did not take.
    pub(crate) frames_lost: u64,
    /// Frames of the container for which there was no room.
    pub(crate) frames_missed: u64,
}

impl HostSide {
    pub(crate) fn new(
        link: Sender,
        registry: Registry,
        first_token: usize,
        local: LocalAddresses,
        outbounds: Outbounds,
    ) -> Self {
        Self {
            link,
            table: Vec::new(),
            registry,
            first_token,
            local,
            resolvers: Asked(None),
            outbox: Outbox::default(),
            outbounds,
            failures: Vec::new(),
            stalled: Vec::new(),
            broken: Vec::new(),
            echo_refused: false,
            audit: Audit::default(),
            capture: None,
            frames_lost: 0,
            frames_missed: 0,
        }
    }

    pub(crate) fn addresses_changed(&mut self) {
        self.local.changed();
    }

    /// Whether that is to be called without an event.
    pub(crate) fn has_address_changes(&self) -> bool {
        self.local.is_unread()
    }

    /// Asks for the host's resolvers, before each query, from now on.
    pub(crate) fn follow_resolvers(&mut self, ask: Ask) {
        self.resolvers = Asked(Some(ask));
    }

    /// A datagram socket to reach `to`.
    fn datagrams(&self, to: IpAddr, protocol: Option<socket2::Protocol>) -> io::Result<Datagrams> {
        let datagrams = Datagrams::new(to, protocol)?;
        self.outbounds.apply(datagrams.socket(), to)?;
        Ok(datagrams)
    }

    fn token(&self, flow: FlowId) -> Token {
        Token(((flow.generation as usize) << 32) | (flow.index as usize + self.first_token))
    }

    /// The flow whose token this is, if its socket is still open.
    pub(crate) fn flow_of(&self, token: Token) -> Option<FlowId> {
        let index = (token.0 & 0xffff_ffff).checked_sub(self.first_token)?;
        let flow = FlowId {
            index: u32::try_from(index).ok()?,
            generation: u32::try_from(token.0 >> 32).ok()?,
        };
        self.get(flow).map(|_| flow)
    }

    pub(crate) fn get(&self, flow: FlowId) -> Option<&FlowSocket> {
        match self.table.get(flow.index as usize) {
            Some(Some((generation, socket))) if *generation == flow.generation => Some(socket),
            _ => None,
        }
    }

    fn add(
        &mut self,
        flow: FlowId,
        socket: FlowSocket,
        interest: Interest,
    ) -> Result<(), HostError> {
        let fd = socket.socket().as_raw_fd();
        self.registry
            .register(&mut SourceFd(&fd), self.token(flow), interest)
            .map_err(|error| {
                tracing::debug!("watch a socket: {error}");
                host_error(&error)
            })?;
        let index = flow.index as usize;
        if index >= self.table.len() {
            self.table.resize_with(index + 1, || None);
        }
        self.table[index] = Some((flow.generation, socket));
        Ok(())
    }

    /// Takes the socket of a client that a published port has accepted.
    pub(crate) fn add_accepted(&mut self, flow: FlowId, socket: Socket) -> Result<(), HostError> {
        self.add_tcp(flow, socket, false)
    }

    fn add_tcp(&mut self, flow: FlowId, socket: Socket, connecting: bool) -> Result<(), HostError> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.add(flow, FlowSocket::Tcp(socket, connecting), interest)
    }

    /// Takes the socket of a published UDP port.
    pub(crate) fn add_published(
        &mut self,
        flow: FlowId,
        socket: Socket,
        at: SocketAddr,
    ) -> Result<(), HostError> {
        let datagrams = Datagrams::published(socket, at).map_err(|error| host_error(&error))?;
        self.add_udp(flow, datagrams)
    }

    /// A client of a published port has sent to this address of the host.
    pub(crate) fn note_source(&mut self, flow: FlowId, client: SocketAddr, address: IpAddr) {
        if let Some(Some((generation, FlowSocket::Udp(datagrams)))) =
            self.table.get_mut(flow.index as usize)
            && *generation == flow.generation
        {
            datagrams.note_source(client, address);
        }
    }

    fn add_udp(&mut self, flow: FlowId, datagrams: Datagrams) -> Result<(), HostError> {
        // Wishes: without them bursts are cut sooner, and batches smaller.
        let wishes = [
            datagrams.socket().set_recv_buffer_size(UDP_RECEIVE_BUFFER),
            udp::enable_gro(datagrams.as_fd()),
        ];
        for error in wishes.into_iter().filter_map(Result::err) {
            tracing::debug!("datagram socket: {error}");
        }
        self.add(flow, FlowSocket::Udp(datagrams), Interest::READABLE)
    }

    fn remove(&mut self, flow: FlowId) -> Option<FlowSocket> {
        self.get(flow)?;
        self.table
            .get_mut(flow.index as usize)?
            .take()
            .map(|(_, socket)| socket)
    }

    /// The outcome of a connect that has become ready: `None` when it is not
    /// known yet.
    pub(crate) fn connect_outcome(
        &mut self,
        flow: FlowId,
        failed: bool,
    ) -> Option<Result<(), HostError>> {
        let Some(Some((generation, FlowSocket::Tcp(socket, connecting)))) =
            self.table.get_mut(flow.index as usize)
        else {
            return None;
        };
        if *generation != flow.generation || !*connecting {
            return None;
        }
        if failed && let Ok(Some(error)) | Err(error) = socket.take_error() {
            self.remove(flow);
            return Some(Err(host_error(&error)));
        }
        *connecting = false;
        Some(Ok(()))
    }

    /// Sends the datagrams gathered so far.
    pub(crate) fn flush(&mut self) {
        let (table, failures) = (&self.table, &mut self.failures);
        let socket = |flow: FlowId, fields: IpFields| match table.get(flow.index as usize) {
            Some(Some((generation, FlowSocket::Udp(socket)))) if *generation == flow.generation => {
                socket.set(fields);
                Some(socket.as_fd())
            }
            _ => None,
        };
        self.outbox.flush(socket, |flow, to, error| {
            let error = send_error(&error, to);
            failures.push((flow, to, Failure { error, from: None }));
        });
    }

    /// Frames that were read from the link.
    pub(crate) fn capture<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) {
        if let Some(capture) = &mut self.capture {
            for frame in frames {
                capture.frame(&[IoSlice::new(frame)]);
            }
        }
    }

    /// What became of a read or a write that has failed; `None`: it is to be made again.
    fn judge(&mut self, flow: FlowId, error: Errno) -> Option<Io> {
        match remedy(error) {
            Remedy::Now => None,
            Remedy::Event => Some(Io::WouldBlock),
            Remedy::Later => {
                tracing::debug!("connection: {error}");
                self.stall(flow);
                Some(Io::WouldBlock)
            }
            Remedy::None => Some(Io::Failed(host_error(&error.into()))),
        }
    }

    /// A call of this flow's has failed and is to be made again later.
    pub(crate) fn stall(&mut self, flow: FlowId) {
        self.stalled.push(flow);
    }

    /// Takes the flows with a call that is to be made again later.
    pub(crate) fn take_stalled(&mut self) -> Vec<FlowId> {
        let mut flows = std::mem::take(&mut self.stalled);
        flows.sort_unstable();
        flows.dedup();
        flows
    }

    /// Whether there are flows with a call that is to be made again later.
    pub(crate) fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Takes a flow that cannot go on.
    pub(crate) fn take_broken(&mut self) -> Option<FlowId> {
        self.broken.pop()
    }

    /// Takes a datagram that came to nothing.
    pub(crate) fn failure(&mut self) -> Option<(FlowId, SocketAddr, Failure)> {
        self.failures.pop()
    }
}

impl Host for HostSide {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        if let Some(capture) = &mut self.capture {
            capture.frame(frame);
        }
        if !self.link.send(frame) {
            self.frames_lost += 1;
        }
    }

    fn is_local(&mut self, addr: IpAddr) -> bool {
        self.local.contains(addr)
    }

    fn resolvers(&mut self) -> Option<Vec<SocketAddr>> {
        self.resolvers.0.as_mut()?()
    }

    fn refused(&mut self, refusal: &Refusal<'_>) {
        self.audit.add(refusal);
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
            // The container's own TCP has done what Nagle's algorithm is for.
            socket.set_tcp_nodelay(true)?;
            // Urgent data is ordinary data (RFC 6093, 4), which would be lost otherwise.
            socket.set_out_of_band_inline(true)?;
            self.outbounds.apply(&socket, to.ip())?;
            match socket.connect(&SockAddr::from(to)) {
                Ok(()) => Ok(socket),
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
                Err(error) => Err(error),
            }
        };
        let socket = open().map_err(|error| {
            tracing::debug!("connect to {to}: {error}");
            host_error(&error)
        })?;
        self.add_tcp(flow, socket, true)
    }

    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io {
        loop {
            let Some(socket) = self.get(flow) else {
                return Io::Failed(HostError::Other);
            };
            // Not by the calls for sockets, which are two system calls more. SIGPIPE is
            // ignored, as in every Rust program.
            let sent = match data {
                [one] => rustix::io::write(socket.socket(), one),
                parts => rustix::io::writev(socket.socket(), parts),
            };
            match sent {
                Ok(n) => return Io::Done(n),
                Err(error) => match self.judge(flow, error) {
                    Some(io) => return io,
                    None => continue,
                },
            }
        }
    }

    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io {
        loop {
            let Some(socket) = self.get(flow) else {
                return Io::Failed(HostError::Other);
            };
            match rustix::io::read(socket.socket(), &mut *buffer) {
                Ok(0) => return Io::Closed,
                Ok(n) => return Io::Done(n),
                Err(error) => match self.judge(flow, error) {
                    Some(io) => return io,
                    None => continue,
                },
            }
        }
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let Some(socket) = self.get(flow) else {
            return;
        };
        let shut = || rustix::net::shutdown(socket.socket(), Shutdown::Write);
        match rustix::io::retry_on_intr(shut) {
            // The far end has reset the connection, which reading will tell.
            Ok(()) | Err(Errno::NOTCONN) => {}
            Err(error) => {
                // It would wait for an end that never comes.
                tracing::debug!("end a connection's direction: {error}");
                self.broken.push(flow);
            }
        }
    }

    fn tcp_keepalive(
        &mut self,
        flow: FlowId,
        idle: netstack::Duration,
        interval: netstack::Duration,
    ) {
        if let Some(socket) = self.get(flow) {
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_micros(idle.total_micros()))
                .with_interval(Duration::from_micros(interval.total_micros()))
                .with_retries(KEEPALIVE_PROBES);
            if let Err(error) = socket.socket().set_tcp_keepalive(&keepalive) {
                tracing::debug!("keep-alive: {error}");
            }
        }
    }

    fn udp_open(&mut self, flow: FlowId, family_of: IpAddr) -> Result<(), HostError> {
        let socket = self
            .datagrams(family_of, None)
            .inspect_err(|error| tracing::debug!("datagram socket: {error}"))
            .map_err(|error| host_error(&error))?;
        self.add_udp(flow, socket)
    }

    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError> {
        let source = match self.get(flow) {
            Some(FlowSocket::Udp(datagrams)) => datagrams.source_for(to),
            _ => None,
        };
        if !self.outbox.push(flow, to, payload, fields, source) {
            self.flush();
            self.outbox.push(flow, to, payload, fields, source);
        }
        Ok(())
    }

    fn echo_open(&mut self, flow: FlowId, family_of: IpAddr) -> Result<(), HostError> {
        let protocol = match family_of {
            IpAddr::V4(_) => socket2::Protocol::ICMPV4,
            IpAddr::V6(_) => socket2::Protocol::ICMPV6,
        };
        let socket = self.datagrams(family_of, Some(protocol)).map_err(|error| {
            if !std::mem::replace(&mut self.echo_refused, true) {
                tracing::warn!(
                    "ping is not available: {error} (net.ipv4.ping_group_range must include a group of this user)"
                );
            }
            host_error(&error)
        })?;
        self.add(flow, FlowSocket::Echo(socket), Interest::READABLE)
    }

    fn echo_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        seq: u16,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError> {
        let Some(FlowSocket::Echo(datagrams)) = self.get(flow) else {
            return Err(HostError::Other);
        };
        datagrams.set(fields);
        // The kernel fills in identifier and checksum (icmp(7)).
        let mut request = Vec::with_capacity(8 + payload.len());
        let kind = if to.is_ipv4() { 8 } else { 128 };
        request.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
        request.extend_from_slice(&seq.to_be_bytes());
        request.extend_from_slice(payload);
        let message = Outgoing {
            to: SocketAddr::new(to, 0),
            payload: &request,
            segment: 0,
            source: None,
        };
        let send = || udp::send(datagrams.as_fd(), &[message]);
        // The first error may be the socket's pending one, about an earlier request.
        match send().or_else(|_| send()) {
            Ok(_) => Ok(()),
            Err(error) => Err(send_error(&error, message.to)),
        }
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        if let Some(FlowSocket::Tcp(socket, _)) = self.remove(flow)
            && how == Close::Reset
        {
            reset(&socket);
        }
    }
}

/// Reads one echo reply: its sequence number and payload.
pub(crate) fn read_echo<'a>(
    socket: &Datagrams,
    buffer: &'a mut Vec<u8>,
) -> io::Result<Option<(u16, &'a [u8])>> {
    buffer.clear();
    buffer.reserve(MAX_FRAME);
    rustix::io::read(socket, rustix::buffer::spare_capacity(buffer))?;
    if buffer.len() < 8 || !matches!(buffer[0], 0 | 129) {
        return Ok(None);
    }
    Ok(Some((
        u16::from_be_bytes([buffer[6], buffer[7]]),
        &buffer[8..],
    )))
}

pub(super) fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    }
}
