//! The stack: frames and host events in, [`Host`] calls out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol};

use crate::arp;
use crate::config::Config;
use crate::dns::Forwarder;
use crate::flow::{Flow, FlowId, FlowInfo, FlowTable, TimerQueue};
use crate::host::{Failure, Host, HostError, Readiness};
use crate::icmp::{Problem, Unreachable};
use crate::ip;
use crate::ip::fragmentation::{self, Datagram, Identifications, TRANSPORT_LEN};
use crate::ip::reassembly::{Outcome, Reassembly};
use crate::link::{Link, RxChecksum, RxFrame, TxOffload};
use crate::ndp;
use crate::pace::Pace;
use crate::policy::{Addresses, Egress};
use crate::stats::{Stats, Usage};
use crate::tcp::{Bursts, Rings, TcpFlow};

/// The NAT of one container. See the crate's documentation for its contract.
#[derive(Debug)]
pub struct Stack {
    pub(crate) config: Config,
    pub(crate) link: Link,
    pub(crate) flows: FlowTable,
    pub(crate) timers: TimerQueue,
    pub(crate) rings: Rings,
    pub(crate) forwarder: Forwarder,
    pub(crate) stats: Stats,
    /// TCP flows that are half-open.
    pub(crate) half_open: usize,
    /// The same in the order in which they were opened, and others.
    pub(crate) half_open_queue: VecDeque<(Instant, FlowId)>,
    pace: Option<Pace>,
    /// Flows that have more to move but had their turn.
    pub(crate) again: Vec<FlowId>,
    turn: Vec<FlowId>,
    pub(crate) own: Addresses,
    pub(crate) egress: Egress,
    /// Our link-local address.
    pub(crate) router: Ipv6Addr,
    reassembly: Reassembly,
    identifications: Identifications,
    /// Search domains that DHCP tells.
    pub(crate) search: Vec<String>,
}

impl Stack {
    /// A stack without flows.
    pub fn new(mut config: Config) -> Self {
        let resolvers = std::mem::take(&mut config.resolvers);
        let policy = std::mem::take(&mut config.policy);
        let mask = u32::MAX
            .checked_shl(32 - u32::from(config.prefix_len.min(32)))
            .unwrap_or(0);
        Self {
            link: Link::new(config.link, config.mac),
            flows: FlowTable::new(config.limits.max_flows),
            timers: TimerQueue::default(),
            rings: Rings::new(config.limits.max_buffered),
            forwarder: Forwarder::new(resolvers, &config.names),
            stats: Stats::default(),
            half_open: 0,
            half_open_queue: VecDeque::new(),
            pace: config.limits.max_pps.map(Pace::new),
            again: Vec::new(),
            turn: Vec::new(),
            own: Addresses {
                gateway: config.gateway,
                dns: config.dns,
                network: u32::from(config.container) & mask,
                mask,
                ipv6: config.ipv6,
            },
            egress: Egress::new(policy, &config.names),
            router: ndp::link_local(config.mac),
            reassembly: Reassembly::default(),
            identifications: Identifications::new(config.seed),
            search: Vec::new(),
            config,
        }
    }

    /// What has been counted so far.
    pub fn stats(&self) -> Stats {
        Stats {
            frames_out: self.link.transmitted(),
            fragments_dropped: self.reassembly.discarded(),
            denied: self.egress.denied,
            ..self.stats
        }
    }

    /// What the container makes use of at present.
    pub fn usage(&self) -> Usage {
        Usage {
            flows: self.flows.counted(),
            half_open: self.half_open,
            buffered: self.rings.lent(),
        }
    }

    /// Flows at present, all protocols (a UDP socket counts as one, too, but not
    /// towards the limit).
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// What there is to tell about up to `most` TCP and UDP flows, and where to go on
    /// if there may be more: `from` is 0, then what the call before returned. A flow
    /// that lives from the first call to the last is told once.
    pub fn flows(&self, now: Instant, from: usize, most: usize) -> (Vec<FlowInfo>, Option<usize>) {
        self.flows.infos(now, from, most)
    }

    /// The flows that have a host socket, in no order: the sockets that the owner must
    /// have open, and no others. Walks all flows.
    pub fn sockets(&self) -> impl Iterator<Item = FlowId> {
        self.flows.sockets()
    }

    /// Whether a connection of the container still has something on its way to
    /// the host, or has not ended its direction. Walks all flows.
    pub fn is_sending(&self) -> bool {
        self.flows.tcp().any(TcpFlow::is_sending)
    }

    /// Sets the names that the DNS forwarder answers for itself.
    pub fn set_names(&mut self, names: Vec<(String, Vec<IpAddr>)>) {
        self.forwarder.set_names(&names);
        self.egress.pins.fix(&names);
        self.config.names = names;
    }

    /// Names that the container has the addresses of from elsewhere (hosts(5)): a rule
    /// with one of them opens these. To be called after [`Stack::set_names`].
    pub fn know_names(&mut self, names: &[(String, Vec<IpAddr>)]) {
        self.egress.pins.fix_more(names);
    }

    /// Sets the domains that DHCP tells the container to look for names in.
    pub fn set_search(&mut self, search: Vec<String>) {
        self.search = search;
    }

    /// A frame from the container, virtio header included when the link has one.
    pub fn input<H: Host>(&mut self, now: Instant, frame: &[u8], host: &mut H) {
        self.input_batch(now, [frame], host);
    }

    /// Frames from the container in the order in which they were sent. Payload of
    /// TCP segments that follow one another goes to the host in one call, out of
    /// the frames.
    pub fn input_batch<'f, H: Host>(
        &mut self,
        now: Instant,
        frames: impl IntoIterator<Item = &'f [u8]>,
        host: &mut H,
    ) {
        let mut bursts = Bursts::default();
        for frame in frames {
            self.frame(now, frame, &mut bursts, host);
        }
        while let Some(burst) = bursts.next() {
            self.tcp_burst(now, &burst, host);
        }
    }

    fn frame<'f, H: Host>(
        &mut self,
        now: Instant,
        frame: &'f [u8],
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        self.stats.frames_in += 1;
        if let Some(pace) = &mut self.pace
            && !pace.admits(now)
        {
            self.stats.over_pps += 1;
            return;
        }
        let Some(frame) = self.link.parse(frame) else {
            self.stats.dropped += 1;
            return;
        };
        match frame.ethertype {
            EthernetProtocol::Arp => arp::input(&self.config, &mut self.link, &frame, host),
            EthernetProtocol::Ipv4 => self.packet(now, &frame, ip::v4::parse, bursts, host),
            EthernetProtocol::Ipv6 if self.own.ipv6.is_some() => {
                self.packet(now, &frame, ip::v6::parse, bursts, host);
            }
            _ => self.stats.dropped += 1,
        }
    }

    fn packet<'f, H: Host>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'f>,
        parse: impl FnOnce(&'f [u8]) -> Result<ip::Packet<'f>, ip::Unusable>,
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        match parse(frame.payload) {
            Ok(packet) => self.whole_packet(now, frame, &packet, bursts, host),
            Err(ip::Unusable::Fragment) => self.fragment(now, frame, bursts, host),
            Err(ip::Unusable::Malformed) => self.stats.dropped += 1,
        }
    }

    fn whole_packet<'f, H: Host>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'f>,
        packet: &ip::Packet<'f>,
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        if !frame.unicast || !self.is_container(packet.source) {
            return self.link_local_input(now, frame, packet, host);
        }
        self.link.learn(frame.source);
        match packet.protocol {
            IpProtocol::Tcp => self.tcp_input(now, packet, frame.checksum, bursts, host),
            IpProtocol::Udp if self.is_for_dhcp(packet) => {
                self.dhcp_input(packet, frame.checksum, host);
            }
            IpProtocol::Udp => {
                self.udp_input(now, packet, frame.checksum, frame.udp_segment, host);
            }
            IpProtocol::Icmp if packet.source.is_ipv4() => self.icmp_input(now, packet, host),
            IpProtocol::Icmpv6 if packet.source.is_ipv6() => self.icmp_input(now, packet, host),
            // There is nothing in it (RFC 8200, 4.7).
            IpProtocol::Ipv6NoNxt if packet.source.is_ipv6() => self.stats.dropped += 1,
            _ => self.unreachable(packet.whole, Unreachable::Protocol, host),
        }
    }

    /// A fragment. What it completes is treated like any other packet, behind the
    /// frames that came before it.
    fn fragment<'f, H: Host>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'f>,
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        self.stats.fragments_in += 1;
        let known = ip::ends(frame.payload).is_some_and(|(source, ..)| self.is_known(source));
        if !frame.unicast || !known {
            self.stats.dropped += 1;
            return;
        }
        let Outcome::Complete(whole) = self.reassembly.insert(now, frame.payload) else {
            return;
        };
        self.stats.reassembled += 1;
        while let Some(burst) = bursts.next() {
            self.tcp_burst(now, &burst, host);
        }
        let frame = RxFrame {
            source: frame.source,
            unicast: frame.unicast,
            ethertype: frame.ethertype,
            payload: whole.packet(),
            // No offload has seen the whole.
            checksum: RxChecksum::Present,
            udp_segment: 0,
        };
        match ip::parse(frame.payload) {
            // Neighbour discovery is never fragmented (RFC 6980).
            Ok(packet) if ndp::is_message(&packet) => self.stats.dropped += 1,
            Ok(packet) => {
                let packet = ip::Packet {
                    // It was.
                    dont_fragment: false,
                    ..packet
                };
                let mut bursts = Bursts::default();
                self.whole_packet(now, &frame, &packet, &mut bursts, host);
                while let Some(burst) = bursts.next() {
                    self.tcp_burst(now, &burst, host);
                }
            }
            Err(_) => self.stats.dropped += 1,
        }
        self.reassembly.recycle(whole);
    }

    /// Sends a datagram whose checksum is made, in fragments if it must be; `false`
    /// when no IP packet can be that long.
    pub(crate) fn transmit_complete<H: Host>(
        &mut self,
        datagram: Datagram<'_>,
        host: &mut H,
    ) -> bool {
        let mtu = self.link.config.mtu;
        let start = ip::header_len(datagram.source);
        let total = start + TRANSPORT_LEN + datagram.payload.len();
        if total <= usize::from(mtu) {
            let mut head = [0; ip::MAX_HEADER_LEN + TRANSPORT_LEN];
            let (source, destination) = (datagram.source, datagram.destination);
            ip::emit(&mut head, total, source, destination, datagram.protocol);
            let Some(head) = head.get_mut(..start + TRANSPORT_LEN) else {
                return false;
            };
            head[start..].copy_from_slice(&datagram.transport);
            let parts = [datagram.payload, &[]];
            self.link.transmit(host, TxOffload::Complete, head, parts);
            return true;
        }
        let Some(fragments) = fragmentation::cut(datagram, mtu, &mut self.identifications) else {
            return false;
        };
        for fragment in fragments {
            self.stats.fragments_out += 1;
            let parts = [fragment.payload, &[]];
            self.link
                .transmit(host, TxOffload::Complete, fragment.head(), parts);
        }
        true
    }

    /// A packet that does not leave the link: for a group, or of a sender that has
    /// no address of the network (yet).
    fn link_local_input<H: Host>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        packet: &ip::Packet<'_>,
        host: &mut H,
    ) {
        let known = self.is_known(packet.source) || packet.source.is_unspecified();
        match packet.protocol {
            IpProtocol::Icmpv6 if known && packet.source.is_ipv6() => {
                self.link.learn(frame.source);
                self.icmp_input(now, packet, host);
            }
            IpProtocol::Udp if known && self.is_for_dhcp(packet) => {
                self.link.learn(frame.source);
                self.dhcp_input(packet, frame.checksum, host);
            }
            _ => self.stats.dropped += 1,
        }
    }

    /// Whether `address` is one that the container may use, be it only on the link.
    fn is_known(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => self.own.ipv6.is_some() && address.is_unicast_link_local(),
        };
        link_local || self.is_container(address)
    }

    /// Whether `address` is one that the container may use.
    pub(crate) fn is_container(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.config.container,
            IpAddr::V6(address) => self.own.ipv6.is_some_and(|own| {
                own.has(address) && address != own.gateway && address != own.dns
            }),
        }
    }

    /// Says what the container's link-layer address is, before it has sent anything. A
    /// kernel takes no TCP segment that is sent to everybody, and a server that has
    /// nothing to say of its own accord is not heard before its first client.
    pub fn expect_mac(&mut self, mac: [u8; 6]) {
        self.link.learn(EthernetAddress(mac));
    }

    /// Whether `address` is one at which we answer ourselves.
    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        Some(address) == self.own.gateway_for(address)
            || Some(address) == self.own.dns_for(address)
            || address == IpAddr::V6(self.router)
    }

    /// Whether a packet can come from `address`: it is one machine's, and neither the
    /// container's own nor one that never leaves its machine (RFC 1122, 3.2.1.3).
    pub(crate) fn is_somebody(&self, address: IpAddr) -> bool {
        let never = match address {
            IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(address) => {
                address.is_unspecified() || address.is_loopback() || address.is_multicast()
            }
        };
        !never && !self.is_group(address) && !self.is_container(address)
    }

    /// What a container that uses `container` as its address knows a host-side
    /// address as; `None` when it cannot be shown at all.
    pub(crate) fn shown(&self, address: IpAddr, container: IpAddr) -> Option<IpAddr> {
        let same = address.is_ipv4() == container.is_ipv4();
        let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let ambiguous = address.is_loopback() || local || self.own.is_inside(address);
        if same && !ambiguous {
            Some(address)
        } else {
            self.own.gateway_for(container)
        }
    }

    /// The flow's host socket is connected (and writable).
    pub fn connected<H: Host>(&mut self, now: Instant, flow: FlowId, host: &mut H) {
        self.tcp_connected(now, flow, host);
    }

    /// The flow's host socket could not be connected and is closed.
    pub fn connect_failed<H: Host>(&mut self, flow: FlowId, error: HostError, host: &mut H) {
        self.tcp_connect_failed(flow, error, host);
    }

    /// The flow's TCP socket has become ready (edge-triggered).
    pub fn ready<H: Host>(&mut self, now: Instant, flow: FlowId, ready: Readiness, host: &mut H) {
        self.tcp_ready(now, flow, ready, host);
    }

    /// A datagram arrived on the flow's UDP socket. With `segment` not 0 the
    /// payload holds several datagrams of that many bytes, the last may be
    /// shorter (`UDP_GRO`, udp(7)).
    pub fn datagram<H: Host>(
        &mut self,
        now: Instant,
        flow: FlowId,
        from: SocketAddr,
        payload: &[u8],
        segment: u16,
        host: &mut H,
    ) {
        self.udp_datagram(now, flow, from, payload, segment, host);
    }

    /// A datagram that the flow's UDP socket sent to `to` came to nothing (an
    /// ICMP error arrived, or the kernel had no way to send it).
    pub fn datagram_failed<H: Host>(
        &mut self,
        now: Instant,
        flow: FlowId,
        to: SocketAddr,
        failure: Failure,
        host: &mut H,
    ) {
        self.udp_failed(now, flow, to, failure, host);
    }

    /// An echo request that the flow's ping socket sent came to nothing.
    pub fn echo_failed<H: Host>(&mut self, flow: FlowId, seq: u16, failure: Failure, host: &mut H) {
        self.echo_request_failed(flow, seq, failure, host);
    }

    /// An echo reply arrived on the flow's ping socket.
    pub fn echo_reply<H: Host>(
        &mut self,
        now: Instant,
        flow: FlowId,
        seq: u16,
        payload: &[u8],
        host: &mut H,
    ) {
        self.echo_reply_input(now, flow, seq, payload, host);
    }

    /// When [`Stack::tick`] must be called; `Instant::ZERO` when there is work
    /// left that should be done as soon as other input has been looked at.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.again.is_empty() {
            return Some(Instant::ZERO);
        }
        let deadlines = [self.timers.next(), self.reassembly.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick<H: Host>(&mut self, now: Instant, host: &mut H) {
        let mut turn = std::mem::take(&mut self.turn);
        std::mem::swap(&mut turn, &mut self.again);
        for id in turn.drain(..) {
            if let Some((_, flow)) = self.flows.tcp_mut(id) {
                flow.dequeued();
            }
            self.tcp_ready(now, id, Readiness::default(), host);
        }
        self.turn = turn;
        while let Some(first) = self.reassembly.expire(now) {
            self.problem(first.packet(), Problem::Incomplete, None, host);
            self.reassembly.recycle(first);
        }
        while let Some(id) = self.timers.pop_due(&mut self.flows, now) {
            match self.flows.get_mut(id) {
                Some(Flow::Tcp(_)) => self.tcp_due(now, id, host),
                Some(Flow::Udp(_)) => self.udp_due(now, id, host),
                Some(Flow::Dns(_)) => self.dns_due(now, id, host),
                Some(Flow::Echo(_)) => self.echo_due(now, id, host),
                Some(Flow::UdpMapping(_)) | None => {}
            }
        }
    }

    /// A flow is to be opened: one more has room, if a datagram flow that nobody has
    /// answered of late can be given up for it.
    pub(crate) fn make_room<H: Host>(&mut self, now: Instant, host: &mut H) {
        if self.flows.is_full() {
            self.give_up_one(now, host);
        }
    }

    /// Gives up the datagram flow that is missed least; whether there was one.
    pub(crate) fn give_up_one<H: Host>(&mut self, now: Instant, host: &mut H) -> bool {
        let Some(id) = self.flows.least_used(now) else {
            return false;
        };
        self.stats.given_up += 1;
        match self.flows.get_mut(id) {
            Some(Flow::Udp(_)) => self.udp_remove(id, host),
            Some(Flow::Echo(_)) => self.echo_remove(id, host),
            Some(Flow::Tcp(_) | Flow::Dns(_) | Flow::UdpMapping(_)) | None => return false,
        }
        true
    }
}
