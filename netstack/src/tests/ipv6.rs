//! IPv6: neighbour discovery, advertisement, echo, errors, TCP and UDP, with
//! smoltcp's wire formats on the other side.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hostile::Call;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet, IpAddress,
    IpProtocol, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::frames::{DNS6, GATEWAY6, GUEST_MAC, GUEST6, STACK_MAC};
use super::host::{Event, FakeHost};
use super::world::{config, links};
use crate::{Close, Config, Failure, FlowId, HostError, Protocol, Stack};

const REMOTE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The container's own link-local address, and the router's (RFC 4291, appendix A).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x64);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A packet, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: IpProtocol,
    hop_limit: u8,
    payload: Vec<u8>,
}

impl Packet {
    fn new(destination: Ipv6Addr, protocol: IpProtocol, payload: Vec<u8>) -> Self {
        Self {
            source: GUEST6,
            destination,
            protocol,
            hop_limit: 64,
            payload,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        let mut view = Ipv6Packet::new_unchecked(&mut bytes);
        view.set_version(6);
        view.set_payload_len(u16::try_from(self.payload.len()).unwrap());
        view.set_next_header(self.protocol);
        view.set_hop_limit(self.hop_limit);
        view.set_src_addr(self.source);
        view.set_dst_addr(self.destination);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn frame(&self) -> Vec<u8> {
        let to = if self.destination.is_multicast() {
            let [.., a, b, c, d] = self.destination.octets();
            [0x33, 0x33, a, b, c, d]
        } else {
            STACK_MAC
        };
        let packet = self.bytes();
        let mut frame = vec![0; 14];
        let mut view = EthernetFrame::new_unchecked(&mut frame);
        view.set_dst_addr(EthernetAddress(to));
        view.set_src_addr(EthernetAddress(GUEST_MAC));
        view.set_ethertype(EthernetProtocol::Ipv6);
        frame.extend_from_slice(&packet);
        frame
    }

    fn read(frame: &[u8]) -> Self {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv6);
        assert_eq!(ethernet.src_addr().0, STACK_MAC);
        let view = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
        assert_eq!(view.total_len(), ethernet.payload().len());
        Self {
            source: view.src_addr(),
            destination: view.dst_addr(),
            protocol: view.next_header(),
            hop_limit: view.hop_limit(),
            payload: view.payload().to_vec(),
        }
    }

    fn icmp(&self) -> Icmpv6Packet<&[u8]> {
        assert_eq!(self.protocol, IpProtocol::Icmpv6);
        let view = Icmpv6Packet::new_checked(&self.payload[..]).unwrap();
        assert!(view.verify_checksum(&self.source, &self.destination));
        view
    }
}

struct Net {
    now: Instant,
    stack: Stack,
    host: FakeHost,
}

impl Net {
    fn with(config: Config) -> Self {
        let now = Instant::from_secs(100);
        Self {
            now,
            stack: Stack::new(config),
            host: FakeHost::new(now),
        }
    }

    fn new() -> Self {
        Self::with(config(links()[0]))
    }

    /// Gives the stack a packet; what it sends at once.
    fn send(&mut self, packet: &Packet) -> Vec<Packet> {
        self.stack.input(self.now, &packet.frame(), &mut self.host);
        self.sent()
    }

    fn sent(&mut self) -> Vec<Packet> {
        self.host
            .frames
            .drain(..)
            .map(|f| Packet::read(&f))
            .collect()
    }

    /// The news that the host has for the stack.
    fn host_events(&mut self) {
        while let Some(((at, _), event)) = self.host.events.pop_first() {
            self.now = self.now.max(at);
            self.host.now = self.now;
            let (now, host) = (self.now, &mut self.host);
            match event {
                Event::Connected(flow) => {
                    host.tcp(flow).connecting = false;
                    self.stack.connected(now, flow, host);
                }
                Event::Failed(flow, error) => {
                    host.open.remove(&flow);
                    self.stack.connect_failed(flow, error, host);
                }
                Event::Ready(flow, ready) => self.stack.ready(now, flow, ready, host),
            }
        }
    }
}

/// An ICMPv6 message with its checksum.
fn icmp(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, rest: &[u8]) -> Packet {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(rest);
    Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&source, &destination);
    Packet {
        source,
        hop_limit: 255,
        ..Packet::new(destination, IpProtocol::Icmpv6, message)
    }
}

fn solicitation(source: Ipv6Addr, target: Ipv6Addr) -> Packet {
    let [.., a, b, c] = target.octets();
    let word = |high, low| u16::from_be_bytes([high, low]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, word(0xff, a), word(b, c));
    let mut rest = vec![0; 4];
    rest.extend_from_slice(&target.octets());
    icmp(source, group, 135, &rest)
}

fn echo(source: Ipv6Addr, to: Ipv6Addr) -> Packet {
    Packet {
        hop_limit: 64,
        ..icmp(source, to, 128, &[0, 7, 0, 9, b'x'])
    }
}

fn udp(port: u16, to: Ipv6Addr, at: u16, payload: &[u8]) -> Packet {
    let repr = UdpRepr {
        src_port: port,
        dst_port: at,
    };
    let mut bytes = vec![0; 8 + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &IpAddress::Ipv6(GUEST6),
        &IpAddress::Ipv6(to),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    Packet::new(to, IpProtocol::Udp, bytes)
}

fn tcp(
    to: Ipv6Addr,
    control: TcpControl,
    seq: i32,
    ack: Option<TcpSeqNumber>,
    payload: &[u8],
) -> Packet {
    let syn = control == TcpControl::Syn;
    let repr = TcpRepr {
        src_port: 1234,
        dst_port: 80,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack,
        window_len: 65535,
        window_scale: syn.then_some(7),
        max_seg_size: syn.then_some(1440),
        sack_permitted: syn,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &IpAddress::Ipv6(GUEST6),
        &IpAddress::Ipv6(to),
        &ChecksumCapabilities::default(),
    );
    Packet::new(to, IpProtocol::Tcp, bytes)
}

fn read_tcp(packet: &Packet) -> TcpRepr<'_> {
    let view = TcpPacket::new_checked(&packet.payload[..]).unwrap();
    TcpRepr::parse(
        &view,
        &IpAddress::Ipv6(packet.source),
        &IpAddress::Ipv6(packet.destination),
        &ChecksumCapabilities::default(),
    )
    .unwrap()
}

fn router() -> Ipv6Addr {
    crate::ndp::link_local(STACK_MAC)
}

#[test]
fn neighbours() {
    let mut net = Net::new();
    for target in [GATEWAY6, DNS6, router()] {
        let answer = net.send(&solicitation(GUEST6, target));
        assert_eq!(answer.len(), 1);
        let (packet, message) = (&answer[0], answer[0].icmp());
        assert_eq!(
            (packet.source, packet.destination, packet.hop_limit),
            (target, GUEST6, 255)
        );
        assert_eq!(message.msg_type(), Icmpv6Message::NeighborAdvert);
        // Router, solicited, override; the target; its MAC.
        assert_eq!(packet.payload[4], 0xe0);
        assert_eq!(packet.payload[8..24], target.octets());
        assert_eq!(packet.payload[24..], [&[2, 1], &STACK_MAC[..]].concat());
        // Somebody who tries the address for itself: all are told.
        let answer = net.send(&solicitation(Ipv6Addr::UNSPECIFIED, target));
        assert_eq!(
            (answer[0].destination, answer[0].payload[4]),
            (ALL_NODES, 0xa0)
        );
    }
    // Nobody has these; the container tries its own.
    for target in [
        GUEST6,
        LINK_LOCAL,
        REMOTE,
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9),
    ] {
        for source in [GUEST6, Ipv6Addr::UNSPECIFIED] {
            assert_eq!(net.send(&solicitation(source, target)), []);
        }
    }
    // One that a router has passed on (RFC 4861, 7.1.1), one that is damaged.
    let far = Packet {
        hop_limit: 254,
        ..solicitation(GUEST6, GATEWAY6)
    };
    assert_eq!(net.send(&far), []);
    let mut bad = solicitation(GUEST6, GATEWAY6);
    bad.payload[23] ^= 1;
    assert_eq!(net.send(&bad), []);
}

#[test]
fn advertisement() {
    let mut net = Net::new();
    for (source, to) in [(LINK_LOCAL, LINK_LOCAL), (Ipv6Addr::UNSPECIFIED, ALL_NODES)] {
        let answer = net.send(&icmp(source, ALL_ROUTERS, 133, &[0; 4]));
        assert_eq!(answer.len(), 1);
        let packet = &answer[0];
        assert_eq!((packet.source, packet.destination), (router(), to));
        let message = packet.icmp();
        assert_eq!(message.msg_type(), Icmpv6Message::RouterAdvert);
        assert_eq!(message.router_lifetime(), Duration::from_secs(65_535));
        let options: Vec<(u8, Vec<u8>)> = {
            let mut rest = &packet.payload[16..];
            let mut options = Vec::new();
            while let [kind, length, ..] = rest {
                let (option, more) = rest.split_at(usize::from(*length) * 8);
                options.push((*kind, option[2..].to_vec()));
                rest = more;
            }
            options
        };
        assert_eq!(options[0], (1, STACK_MAC.to_vec()));
        assert_eq!(options[1], (5, vec![0, 0, 0, 0, 0x05, 0xdc]));
        let prefix = [&[64, 0xc0], &[0xff; 8][..], &[0; 4], &[0xfd], &[0; 15]].concat();
        assert_eq!(options[2], (3, prefix));
        let dns = [&[0, 0], &[0xff; 4][..], &DNS6.octets()].concat();
        assert_eq!(options[3], (25, dns));
        assert_eq!(options.len(), 4);
    }
}

#[test]
fn echo_of_ours_and_of_others() {
    let mut net = Net::new();
    for (source, to) in [(GUEST6, GATEWAY6), (GUEST6, DNS6), (LINK_LOCAL, router())] {
        let answer = net.send(&echo(source, to));
        assert_eq!((answer[0].source, answer[0].destination), (to, source));
        assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::EchoReply);
        assert_eq!(answer[0].payload[4..], [0, 7, 0, 9, b'x']);
    }
    // A link-local source has no business outside (RFC 4291, 2.5.6).
    assert_eq!(net.send(&echo(LINK_LOCAL, REMOTE)), []);
    assert_eq!(net.stack.flow_count(), 0);
    assert_eq!(net.send(&echo(GUEST6, REMOTE)), []);
    let (flow, to, seq, payload) = net.host.echoes[0].clone();
    assert_eq!((to, seq, payload), (IpAddr::from(REMOTE), 9, b"x".to_vec()));
    net.stack.echo_reply(net.now, flow, 9, b"x", &mut net.host);
    let answer = net.sent();
    assert_eq!((answer[0].source, answer[0].destination), (REMOTE, GUEST6));
    assert_eq!(answer[0].payload[4..], [0, 7, 0, 9, b'x']);
    // A router on the way: what traceroute lives on.
    let hop = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
    let failure = Failure {
        error: HostError::TimeExceeded,
        from: Some(hop.into()),
    };
    net.stack.echo_failed(flow, 9, failure, &mut net.host);
    let answer = net.sent();
    assert_eq!(answer[0].source, hop);
    assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::TimeExceeded);
    let quote = Packet::read(
        &[
            &[0; 6],
            &STACK_MAC[..],
            &[0x86, 0xdd],
            &answer[0].payload[8..],
        ]
        .concat(),
    );
    assert_eq!((quote.source, quote.destination), (GUEST6, REMOTE));
    assert_eq!(quote.payload[4..], [0, 7, 0, 9]);
}

#[test]
fn datagrams() {
    let mut net = Net::new();
    assert_eq!(net.send(&udp(1234, REMOTE, 7, b"question")), []);
    let (flow, to, payload) = net.host.datagrams[0].clone();
    assert_eq!(
        (to, &payload[..]),
        (SocketAddr::from((REMOTE, 7)), &b"question"[..])
    );
    let from = SocketAddr::from((REMOTE, 7));
    net.stack
        .datagram(net.now, flow, from, b"answer", 0, &mut net.host);
    let answer = net.sent();
    let view = UdpPacket::new_checked(&answer[0].payload[..]).unwrap();
    assert!(view.verify_checksum(&IpAddress::Ipv6(REMOTE), &IpAddress::Ipv6(GUEST6)));
    assert_eq!(
        (view.src_port(), view.dst_port(), view.payload()),
        (7, 1234, &b"answer"[..])
    );
    // Another address of the prefix is another socket (RFC 8981).
    let mut other = udp(1234, REMOTE, 7, b"x");
    other.source = Ipv6Addr::new(0xfd00, 0, 0, 0, 5, 6, 7, 8);
    let mut view = UdpPacket::new_unchecked(&mut other.payload[..]);
    view.fill_checksum(&IpAddress::Ipv6(other.source), &IpAddress::Ipv6(REMOTE));
    net.send(&other);
    assert_ne!(net.host.datagrams[1].0, flow);
    // No checksum at all is no datagram here (RFC 8200, 8.1).
    let mut bare = udp(1235, REMOTE, 7, b"x");
    bare.payload[6..8].fill(0);
    let before = net.host.datagrams.len();
    assert_eq!(net.send(&bare), []);
    assert_eq!(net.host.datagrams.len(), before);
    // The hop limit is passed on, one less; it runs out here.
    let low = |hop_limit| Packet {
        hop_limit,
        ..udp(1236, REMOTE, 33434, b"x")
    };
    net.send(&low(3));
    assert_eq!(net.host.fields.hop_limit, Some(2));
    let answer = net.send(&low(1));
    assert_eq!(answer[0].source, GATEWAY6);
    assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::TimeExceeded);
    assert_eq!(answer[0].payload[8..], low(1).bytes());
    // A resolver, a datagram that is too long for the path.
    net.send(&udp(
        1237,
        DNS6,
        53,
        &super::dns::query(7, "example.org", 1),
    ));
    assert_eq!(net.host.datagrams.last().unwrap().1.port(), 53);
    net.send(&udp(1238, REMOTE, 7, &[0; 1400]));
    assert!(net.host.fields.dont_fragment);
    let flow = net.host.datagrams.last().unwrap().0;
    let failure = Failure {
        error: HostError::TooLong { mtu: 1300 },
        from: None,
    };
    net.stack
        .datagram_failed(net.now, flow, (REMOTE, 7).into(), failure, &mut net.host);
    let answer = net.sent();
    assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::PktTooBig);
    assert_eq!(answer[0].icmp().pkt_too_big_mtu(), 1300);
}

#[test]
fn connections() {
    let mut net = Net::new();
    assert_eq!(net.send(&tcp(REMOTE, TcpControl::Syn, 100, None, &[])), []);
    assert_eq!(net.host.connects, [SocketAddr::from((REMOTE, 80))]);
    net.host_events();
    let answer = net.sent();
    let syn = read_tcp(&answer[0]);
    assert_eq!(
        (syn.control, syn.ack_number),
        (TcpControl::Syn, Some(TcpSeqNumber(101)))
    );
    assert_eq!(syn.max_seg_size, Some(1440));
    let next = Some(syn.seq_number + 1);
    net.send(&tcp(REMOTE, TcpControl::None, 101, next, &[]));
    let flow = net.host.flow_to((REMOTE, 80).into()).unwrap();
    let answer = net.send(&tcp(REMOTE, TcpControl::Psh, 101, next, b"request"));
    assert_eq!(net.host.tcp(flow).received, b"request");
    assert_eq!(read_tcp(&answer[0]).ack_number, Some(TcpSeqNumber(108)));
    assert_eq!(net.host.far_write(flow, &[7; 3000]), 3000);
    net.host_events();
    let sent = net.sent();
    let payloads: Vec<usize> = sent.iter().map(|p| read_tcp(p).payload.len()).collect();
    assert_eq!(payloads, [1440, 1440, 120]);
    net.send(&tcp(REMOTE, TcpControl::Rst, 108, None, &[]));
    assert_eq!(net.host.closed[&flow].how, Close::Reset);
    // Refused, unreachable, forbidden.
    net.host.default_outcome = super::host::Outcome::Immediate(HostError::Refused);
    let answer = net.send(&tcp(REMOTE, TcpControl::Syn, 100, None, &[]));
    assert_eq!(read_tcp(&answer[0]).control, TcpControl::Rst);
    net.host.default_outcome = super::host::Outcome::Immediate(HostError::NetUnreachable);
    let answer = net.send(&tcp(REMOTE, TcpControl::Syn, 100, None, &[]));
    assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::DstUnreachable);
    assert_eq!(answer[0].payload[1], 0);
    let answer = net.send(&tcp(GATEWAY6, TcpControl::Syn, 100, None, &[]));
    assert_eq!((answer[0].payload[0], answer[0].payload[1]), (1, 1));
    assert_eq!(net.stack.flow_count(), 0);
}

#[test]
fn clients_of_published_ports() {
    let mut net = Net::new();
    for (client, shown) in [
        ("[2001:db8::7]:1000", "2001:db8::7"),
        ("[::1]:1000", "fd00::2"),
        ("[fe80::7]:1000", "fd00::2"),
        ("[fd00::100]:1001", "fd00::2"),
        ("198.51.100.7:1002", "fd00::2"),
    ] {
        let to = SocketAddr::from((GUEST6, 80));
        let Some(flow) = net
            .stack
            .accept(net.now, client.parse().unwrap(), to, &mut net.host)
        else {
            // The same address and port as one before.
            assert_eq!(client, "[fe80::7]:1000");
            continue;
        };
        net.host.accepted(flow, client.parse().unwrap());
        let syn = net.sent();
        assert_eq!(syn[0].source.to_string(), shown);
        assert_eq!(read_tcp(&syn[0]).control, TcpControl::Syn);
    }
}

/// Nothing of IPv6 where it is off; other sources are nobody's.
#[test]
fn off_and_strangers() {
    let mut off = config(links()[0]);
    off.ipv6 = None;
    let mut net = Net::with(off);
    for packet in [
        icmp(LINK_LOCAL, ALL_ROUTERS, 133, &[0; 4]),
        solicitation(GUEST6, GATEWAY6),
        echo(GUEST6, GATEWAY6),
        udp(1, REMOTE, 2, b"x"),
        tcp(REMOTE, TcpControl::Syn, 1, None, &[]),
    ] {
        assert_eq!(net.send(&packet), []);
    }
    assert!(net.host.open.is_empty() && net.host.connects.is_empty());
    let mut net = Net::new();
    for source in [
        GATEWAY6,
        DNS6,
        REMOTE,
        Ipv6Addr::LOCALHOST,
        Ipv6Addr::UNSPECIFIED,
    ] {
        let mut packet = udp(1, REMOTE, 2, b"x");
        packet.source = source;
        let mut view = UdpPacket::new_unchecked(&mut packet.payload[..]);
        view.fill_checksum(&IpAddress::Ipv6(source), &IpAddress::Ipv6(REMOTE));
        assert_eq!(net.send(&packet), []);
    }
    assert_eq!(net.stack.flow_count(), 0);
    // Multicast goes nowhere, and no error tells of it.
    assert_eq!(
        net.send(&udp(1, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1), 2, b"x")),
        []
    );
    let answer = net.send(&Packet::new(REMOTE, IpProtocol::Unknown(99), vec![1; 8]));
    // Parameter problem: unrecognized next header, which is at offset 6.
    assert_eq!(answer[0].payload[..2], [4, 1]);
    assert_eq!(answer[0].payload[4..8], [0, 0, 0, 6]);
}

/// Long idle flows end, and each call that can fail does.
#[test]
fn ends() {
    let mut net = Net::new();
    net.send(&udp(1, REMOTE, 2, b"x"));
    net.send(&echo(GUEST6, REMOTE));
    net.now += Duration::from_secs(31);
    net.stack.tick(net.now, &mut net.host);
    assert_eq!(net.stack.flow_count(), 0);
    net.host
        .faults
        .insert(Call::UdpSend, (0, HostError::Forbidden));
    let answer = net.send(&udp(1, REMOTE, 2, b"x"));
    assert_eq!(answer[0].payload[..2], [1, 1]);
    let ids: Vec<FlowId> = net.stack.flows.ids().iter().map(|(id, _)| *id).collect();
    assert!(!ids.is_empty());
    assert!(
        net.stack
            .flows
            .ids()
            .iter()
            .all(|(_, key)| key.protocol == Protocol::Udp)
    );
}

/// There is nothing in it, and nothing to be said about it (RFC 8200, 4.7).
#[test]
fn no_next_header() {
    let mut net = Net::new();
    let packet = |protocol| Packet::new(REMOTE, protocol, Vec::new());
    assert_eq!(net.send(&packet(IpProtocol::Ipv6NoNxt)), []);
    let answer = net.send(&packet(IpProtocol::Unknown(200)));
    assert_eq!(answer[0].icmp().msg_type(), Icmpv6Message::ParamProblem);
}
