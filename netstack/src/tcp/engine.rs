//! The TCP endpoint of one flow, behind a small seam.
//!
//! # Theory of operation
//!
//! Each flow has a smoltcp socket in a `SocketSet` of its own, so that no
//! operation walks other flows; one shared `Interface` serves them all (it
//! accepts any destination: `any_ip` and a default route through itself). A
//! packet is shown to it through a device with a single slot, and what it
//! emits is written straight into the owner's transmit buffer.
//!
//! Rings are cut from large zeroed blocks, of which the system provides a page
//! only when it is first written: an idle flow holds two pages, whatever its
//! rings could take. Rings can not be taken out of a smoltcp socket, so whole
//! endpoints are pooled by ring size: a short connection costs neither an
//! allocation nor a page fault, and the blocks are bounded by the most flows
//! that were ever open at once.
//!
//! Everything that the rest of the crate may know of TCP's inside is the set of
//! methods of [`Endpoint`]; another engine could take smoltcp's place here.

use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetProtocol, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use crate::config::LinkConfig;
use crate::host::Host;
use crate::link::{Link, TxOffload};

/// Ring sizes in bytes, largest first. 1 MiB is where throughput stops growing.
const RING_SIZES: [usize; 4] = [1 << 20, 256 << 10, 64 << 10, 16 << 10];
/// Bytes of one block of rings.
const BLOCK: usize = 16 << 20;
/// IPv4 and TCP headers without options, bytes.
const HEADERS: usize = 40;

/// What is shared by all TCP flows of a stack.
pub(crate) struct Engine {
    interface: Interface,
    nobody: SocketSet<'static>,
    pool: [Vec<Endpoint>; RING_SIZES.len()],
    /// What is left of the current block.
    block: &'static mut [u8],
    ring_budget: usize,
    rings_in_use: usize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("rings_in_use", &self.rings_in_use)
            .finish_non_exhaustive()
    }
}

/// One end of a TCP connection with the container.
pub(crate) struct Endpoint {
    set: SocketSet<'static>,
    handle: SocketHandle,
    class: usize,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket = self.socket();
        f.debug_struct("Endpoint")
            .field("state", &socket.state())
            .field("to_host", &socket.recv_queue())
            .field("to_container", &socket.send_queue())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(
        link: LinkConfig,
        own: Ipv4Address,
        seed: u64,
        ring_budget: usize,
        now: Instant,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut device = Capabilities(capabilities(link));
        let mut interface = Interface::new(config, &mut device, now);
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            // The list is empty and holds at least one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(own), 32));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(own);
        Self {
            interface,
            nobody: SocketSet::new(Vec::new()),
            pool: Default::default(),
            block: &mut [],
            ring_budget,
            rings_in_use: 0,
        }
    }

    /// The ring size for one more flow: a flow may have at most a 64th of what
    /// is left of the budget, so that many flows share it and few are not held back.
    fn ring_class(&self) -> usize {
        let share = self.ring_budget.saturating_sub(self.rings_in_use) / 64;
        RING_SIZES
            .iter()
            .position(|size| 2 * size <= share)
            .unwrap_or(RING_SIZES.len() - 1)
    }

    /// A ring that nobody has used yet.
    fn ring(&mut self, class: usize) -> SocketBuffer<'static> {
        let size = RING_SIZES[class];
        if self.block.len() < size {
            // The rest of a block is at most one ring of the next larger size: it stays unused.
            self.block = vec![0; BLOCK].leak();
        }
        let (ring, rest) = std::mem::take(&mut self.block).split_at_mut(size);
        self.block = rest;
        SocketBuffer::new(ring)
    }

    /// An endpoint that waits for the SYN to `port`.
    pub(crate) fn listen(&mut self, port: u16) -> Option<Endpoint> {
        let class = self.ring_class();
        let mut endpoint = match self.pool[class].pop() {
            Some(endpoint) => endpoint,
            None => Endpoint::new(class, self.ring(class), self.ring(class)),
        };
        let socket = endpoint.socket_mut();
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_keep_alive(None);
        socket.listen(port).ok()?;
        self.rings_in_use += endpoint.ring_bytes();
        Some(endpoint)
    }

    /// Takes an endpoint back.
    pub(crate) fn release(&mut self, mut endpoint: Endpoint) {
        self.rings_in_use -= endpoint.ring_bytes();
        endpoint.socket_mut().abort();
        self.pool[endpoint.class].push(endpoint);
    }

    /// Shows a packet to an endpoint. What it answers at once is sent.
    pub(crate) fn segment(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        packet: &[u8],
        link: &Link,
        host: &mut impl Host,
    ) {
        let mut slot = Slot {
            packet: Some(packet),
            link,
            host,
        };
        self.interface
            .poll_ingress_single(now, &mut slot, &mut endpoint.set);
    }

    /// Answers a packet that belongs to no flow with a reset (RFC 9293, 3.10.7.1).
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        packet: &[u8],
        link: &Link,
        host: &mut impl Host,
    ) {
        let mut slot = Slot {
            packet: Some(packet),
            link,
            host,
        };
        self.interface
            .poll_ingress_single(now, &mut slot, &mut self.nobody);
    }

    /// Sends what the endpoint has to send.
    pub(crate) fn egress(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        link: &Link,
        host: &mut impl Host,
    ) {
        let mut slot = Slot {
            packet: None,
            link,
            host,
        };
        while self
            .interface
            .poll_egress(now, &mut slot, &mut endpoint.set)
            == PollResult::SocketStateChanged
        {}
    }

    /// When the endpoint must be given another [`Engine::egress`].
    pub(crate) fn deadline(&mut self, endpoint: &Endpoint, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &endpoint.set)
    }
}

impl Endpoint {
    fn new(class: usize, rx: SocketBuffer<'static>, tx: SocketBuffer<'static>) -> Self {
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(Socket::new(rx, tx));
        Self { set, handle, class }
    }

    fn socket(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    fn ring_bytes(&self) -> usize {
        2 * RING_SIZES[self.class]
    }

    /// The connection was never made, or the container reset it, or it ended.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.socket().state(), State::Closed | State::Listen)
    }

    /// The handshake with the container is complete.
    pub(crate) fn is_established(&self) -> bool {
        !matches!(
            self.socket().state(),
            State::Closed | State::Listen | State::SynReceived
        )
    }

    /// Both directions have ended; only late retransmissions are left.
    pub(crate) fn is_finished(&self) -> bool {
        self.socket().state() == State::TimeWait
    }

    /// The container has ended its direction; data may still be in the ring.
    pub(crate) fn container_finished(&self) -> bool {
        matches!(
            self.socket().state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        )
    }

    /// Our FIN, and no data, is what the container has to acknowledge.
    pub(crate) fn owes_only_fin(&self) -> bool {
        let socket = self.socket();
        socket.send_queue() == 0
            && matches!(
                socket.state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    }

    /// Bytes from the container that wait for the host.
    pub(crate) fn to_host(&self) -> usize {
        self.socket().recv_queue()
    }

    /// Bytes for the container, sent and not acknowledged or not sent.
    pub(crate) fn to_container(&self) -> usize {
        self.socket().send_queue()
    }

    /// Room for bytes from the host.
    pub(crate) fn can_fill(&self) -> bool {
        self.socket().can_send()
    }

    /// Lends the contiguous front of what the container sent; `take` says how
    /// much of it is done with.
    pub(crate) fn drain<R>(&mut self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Option<R> {
        self.socket_mut().recv(|data| take(data)).ok()
    }

    /// Lends contiguous free space; `put` says how much of it was filled.
    pub(crate) fn fill<R>(&mut self, put: impl FnOnce(&mut [u8]) -> (usize, R)) -> Option<R> {
        self.socket_mut().send(put).ok()
    }

    /// Ends our direction after everything in the ring.
    pub(crate) fn close(&mut self) {
        self.socket_mut().close();
    }

    /// Resets the connection; the next [`Engine::egress`] sends the RST.
    pub(crate) fn abort(&mut self) {
        self.socket_mut().abort();
    }

    /// Probes an idle container (RFC 9293, 3.8.4).
    pub(crate) fn set_keep_alive(&mut self, interval: Option<Duration>) {
        self.socket_mut().set_keep_alive(interval);
    }
}

/// What the link can do, in smoltcp's terms.
fn capabilities(link: LinkConfig) -> DeviceCapabilities {
    let mut caps = DeviceCapabilities::default();
    caps.medium = Medium::Ip;
    caps.max_transmission_unit = usize::from(link.mtu);
    // The IPv4 header was verified when the frame was taken apart.
    caps.checksum.ipv4 = Checksum::Tx;
    caps.checksum.tcp = if link.vnet_header {
        Checksum::None
    } else {
        Checksum::Tx
    };
    if link.vnet_header && link.tso {
        let mss = usize::from(link.mtu) - HEADERS;
        // Whole segments only, or each super-segment would end in a small one.
        let segments = (usize::from(u16::MAX) - HEADERS) / mss;
        if segments > 1 {
            caps.segmentation.tcpv4 = NonZeroUsize::new(segments * mss + HEADERS);
        }
    }
    caps
}

/// Only says what the link can do.
struct Capabilities(DeviceCapabilities);

impl Device for Capabilities {
    type RxToken<'a> = NoToken;
    type TxToken<'a> = NoToken;

    fn receive(&mut self, _: Instant) -> Option<(NoToken, NoToken)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<NoToken> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.0.clone()
    }
}

struct NoToken;

impl RxToken for NoToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&[])
    }
}

impl TxToken for NoToken {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(&mut vec![0; len])
    }
}

/// A device with at most one packet to receive, whose transmissions go to the host.
struct Slot<'a, H> {
    packet: Option<&'a [u8]>,
    link: &'a Link,
    host: &'a mut H,
}

struct RxSlot<'a>(&'a [u8]);

struct TxSlot<'a, H> {
    link: &'a Link,
    host: &'a mut H,
    mss: u16,
}

impl<H: Host> Device for Slot<'_, H> {
    type RxToken<'b>
        = RxSlot<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = TxSlot<'b, H>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(RxSlot<'_>, TxSlot<'_, H>)> {
        let packet = self.packet.take()?;
        Some((
            RxSlot(packet),
            TxSlot {
                link: self.link,
                host: self.host,
                mss: 0,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxSlot<'_, H>> {
        Some(TxSlot {
            link: self.link,
            host: self.host,
            mss: 0,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::default()
    }
}

impl RxToken for RxSlot<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<H: Host> TxToken for TxSlot<'_, H> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.link.transmit(
            self.host,
            EthernetProtocol::Ipv4,
            len,
            TxOffload::Tcp { mss: self.mss },
            f,
        )
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.mss = meta.segmentation_offload_size.map_or(0, |size| size.get());
    }
}
