//! What goes to the container: every frame is looked at as its kernel would, and what a
//! kernel would drop is a find.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use hostile::frames::{ACK, FIN, ICMP, PSH, RST, STACK_MAC, SYN, TCP, UDP};
use netstack::{Config, LinkConfig};

use crate::conn::{Conn, Said};
use crate::frame::{ICMPV6, VNET, fold, pseudo, sum};

/// Ports of the container from which the connections come that are watched.
pub const FIRST_PORT: u16 = 10_000;

/// The watcher, and the connections.
#[derive(Debug)]
pub struct Watch {
    link: LinkConfig,
    addresses: [IpAddr; 4],
    network6: [u8; 8],
    pub conns: Vec<Conn>,
    /// Frames, all and in this call.
    pub frames: u64,
    pub in_call: usize,
    /// TCP segments among those in this call.
    pub segments: usize,
    /// Resets in this call.
    pub resets: usize,
    /// Payload of UDP datagrams in this call, if it is to be kept.
    pub keep: bool,
    pub datagrams: Vec<u8>,
    /// Length of the longest echo reply in this call.
    pub echo: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The parts of a packet.
struct Packet<'a> {
    head: &'a [u8],
    parts: [&'a [u8]; 2],
    source: IpAddr,
    destination: IpAddr,
    /// The pseudo-header's addresses.
    addresses: &'a [u8],
    protocol: u8,
    /// Where the transport header begins, and how long it is with its payload.
    transport: usize,
    length: usize,
    /// The sum of the pseudo-header is all that stands for the checksum.
    partial: bool,
    gso: u8,
    gso_size: u16,
}

impl Packet<'_> {
    /// The sum of the transport header and the payload.
    fn sum(&self) -> u64 {
        let head = &self.head[self.transport..];
        let mut total = 0;
        let mut odd = false;
        for part in [head, self.parts[0], self.parts[1]] {
            let one = sum(part);
            total += if odd {
                u64::from(fold(one).swap_bytes())
            } else {
                one
            };
            odd ^= part.len() % 2 == 1;
        }
        total
    }

    /// The transport header, wherever it lies.
    fn message(&self) -> &[u8] {
        match &self.head[self.transport..] {
            [] => self.parts[0],
            head => head,
        }
    }

    fn check_sum(&self, at: usize) {
        let pseudo = match self.protocol {
            ICMP => 0,
            protocol => pseudo(self.addresses, protocol, self.length),
        };
        let field = u16_at(self.message(), at);
        if self.partial {
            assert_eq!(field, fold(pseudo), "the sum of the pseudo-header");
            return;
        }
        assert!(
            self.protocol != UDP || field != 0,
            "a datagram without a checksum"
        );
        assert_eq!(
            fold(pseudo + self.sum()),
            0xffff,
            "checksum of protocol {}",
            self.protocol
        );
    }

    fn payload(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }
}

impl Watch {
    pub fn new(config: &Config, conns: Vec<Conn>) -> Self {
        let v6 = config.ipv6.map_or([IpAddr::from([0; 16]); 2], |own| {
            [own.gateway.into(), own.dns.into()]
        });
        let network6 = config
            .ipv6
            .map_or([0; 8], |own| own.gateway.octets()[..8].try_into().unwrap());
        Self {
            link: config.link,
            addresses: [config.container.into(), config.gateway.into(), v6[0], v6[1]],
            network6,
            conns,
            frames: 0,
            in_call: 0,
            segments: 0,
            resets: 0,
            keep: false,
            datagrams: Vec::new(),
            echo: 0,
        }
    }

    /// A call into the stack begins.
    pub fn begin(&mut self) {
        self.in_call = 0;
        self.segments = 0;
        self.resets = 0;
        self.echo = 0;
    }

    /// The connection between these two, if it is one of those that are watched.
    pub fn place(&self, container: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let place = usize::from(container.port().checked_sub(FIRST_PORT)?);
        let conn = self.conns.get(place)?;
        (conn.container == container && conn.remote == remote).then_some(place)
    }

    /// The stack sends a frame.
    pub fn frame(&mut self, frame: &[IoSlice<'_>]) {
        self.frames += 1;
        self.in_call += 1;
        assert!(self.in_call < 20_000, "frames without end");
        let [head, parts @ ..] = frame else {
            panic!("an empty frame")
        };
        let mut parts = parts.iter().map(|part| &**part);
        let parts = [
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        ];
        let (vnet, head) = head.split_at(if self.link.vnet_header { VNET } else { 0 });
        assert!(head.len() >= 14 + 20, "a frame that is too short");
        assert_eq!(
            head[6..12],
            STACK_MAC,
            "frames come from the stack's address"
        );
        assert_ne!(head[..6], STACK_MAC, "a frame to ourselves");
        let long = head.len() - 14 + parts[0].len() + parts[1].len();
        let gso = vnet.get(1).copied().unwrap_or(0);
        if gso == 0 {
            assert!(long <= usize::from(self.link.mtu), "longer than the MTU");
        } else {
            assert!(long <= 65_575, "longer than any packet");
        }
        match u16_at(head, 12) {
            0x0806 => self.arp(&head[14..], long),
            0x0800 => self.v4(vnet, &head[14..], parts, long),
            0x86dd => self.v6(vnet, &head[14..], parts, long),
            other => panic!("ethertype {other:#x}"),
        }
    }

    fn arp(&self, packet: &[u8], long: usize) {
        assert_eq!(long, 28, "an ARP packet");
        assert_eq!(packet[..8], [0, 1, 8, 0, 6, 4, 0, 2], "an ARP reply");
        assert_eq!(packet[8..14], STACK_MAC);
        assert_ne!(
            packet[14..18],
            packet[24..28],
            "the container is told that its address is ours"
        );
    }

    fn v4(&mut self, vnet: &[u8], packet: &[u8], parts: [&[u8]; 2], long: usize) {
        assert_eq!(packet[0], 0x45);
        assert_eq!(fold(sum(&packet[..20])), 0xffff, "IPv4 header checksum");
        let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let (source, destination) = (at(12), at(16));
        assert_eq!(usize::from(u16_at(packet, 2)), long, "total length");
        assert!(packet[8] > 0, "no hop is left");
        let fragment = u16_at(packet, 6);
        assert_eq!(fragment & 0x8000, 0, "the reserved bit");
        let packet = Packet {
            head: packet,
            parts,
            source,
            destination,
            addresses: &packet[12..20],
            protocol: packet[9],
            transport: 20,
            length: long - 20,
            partial: false,
            gso: 0,
            gso_size: 0,
        };
        let (more, offset) = (fragment & 0x2000 != 0, usize::from(fragment & 0x1fff) * 8);
        if more || offset != 0 {
            return self.fragment(&packet, more, offset);
        }
        let for_all = destination == IpAddr::from([255; 4]);
        assert!(
            destination == self.addresses[0]
                || for_all && packet.protocol == UDP && u16_at(packet.head, 20) == 67,
            "only the container is spoken to, not {destination}"
        );
        self.packet(vnet, packet);
    }

    fn v6(&mut self, vnet: &[u8], packet: &[u8], parts: [&[u8]; 2], long: usize) {
        assert_eq!(packet[0] >> 4, 6);
        assert_eq!(40 + usize::from(u16_at(packet, 4)), long, "payload length");
        assert!(packet[7] > 0, "no hop is left");
        let at = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let (source, destination) = (at(8), at(24));
        let ours = packet[24..32] == self.network6;
        // RFC 4291, section 2.4: fe80::/10, which is how Linux takes it, too.
        let link_local = packet[24] == 0xfe && packet[25] & 0xc0 == 0x80;
        let all_nodes = packet[24..26] == [0xff, 2];
        assert!(
            ours || link_local || all_nodes && packet[6] == ICMPV6,
            "only the container is spoken to, not {destination}"
        );
        let packet = Packet {
            head: packet,
            parts,
            source,
            destination,
            addresses: &packet[8..40],
            protocol: packet[6],
            transport: 40,
            length: long - 40,
            partial: false,
            gso: 0,
            gso_size: 0,
        };
        if packet.protocol == 44 {
            let (more, offset) = (packet.head[43] & 1 != 0, u16_at(packet.head, 42) & 0xfff8);
            return self.fragment(&packet, more, offset.into());
        }
        self.packet(vnet, packet);
    }

    fn fragment(&mut self, packet: &Packet<'_>, more: bool, offset: usize) {
        assert!(
            !matches!(packet.protocol, TCP),
            "TCP is cut into segments, not into fragments"
        );
        let header = if packet.protocol == 44 { 8 } else { 0 };
        let length = packet.length - header;
        assert!(!more || length.is_multiple_of(8), "fragments of eights");
        assert!(length > 0 && offset + length <= 65_535);
        if self.keep {
            let inner = [
                &packet.head[packet.transport + header..],
                packet.parts[0],
                packet.parts[1],
            ];
            let skip = if offset == 0 { 8 } else { 0 };
            let before = self.datagrams.len();
            for part in inner {
                self.datagrams.extend_from_slice(part);
            }
            self.datagrams.drain(before..before + skip);
        }
    }

    fn packet(&mut self, vnet: &[u8], mut packet: Packet<'_>) {
        for address in [packet.source, packet.destination] {
            assert!(!address.is_unspecified());
        }
        assert!(
            !packet.source.is_multicast() && !packet.source.is_loopback(),
            "protocol {} in the name of {}",
            packet.protocol,
            packet.source
        );
        assert_ne!(
            packet.source, self.addresses[0],
            "not in the container's own name"
        );
        if !vnet.is_empty() {
            Self::virtio(self.link, vnet, &mut packet);
        }
        match packet.protocol {
            TCP => self.tcp(&packet),
            UDP => {
                packet.check_sum(6);
                let length = usize::from(u16_at(packet.head, packet.transport + 4));
                assert_eq!(length, packet.length, "UDP length");
                if self.keep {
                    self.datagrams
                        .extend_from_slice(&packet.head[packet.transport + 8..]);
                    for part in packet.parts {
                        self.datagrams.extend_from_slice(part);
                    }
                }
            }
            ICMP | ICMPV6 => {
                packet.check_sum(2);
                self.icmp(&packet);
            }
            other => panic!("protocol {other}"),
        }
    }

    /// The virtio header (virtio 1.2, 5.1.6), as a Linux kernel takes it.
    fn virtio(link: LinkConfig, vnet: &[u8], packet: &mut Packet<'_>) {
        if vnet[0] == 0 {
            assert_eq!(vnet, [0; VNET], "no offload, so no fields");
            return;
        }
        assert_eq!(vnet[0], 1, "NEEDS_CSUM");
        let field = |at: usize| u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
        let start = 14 + packet.transport;
        assert_eq!(usize::from(field(6)), start, "csum_start");
        let offset = match packet.protocol {
            TCP => 16,
            UDP => 6,
            other => panic!("no offload of protocol {other}"),
        };
        assert_eq!(field(8), offset, "csum_offset");
        packet.partial = true;
        (packet.gso, packet.gso_size) = (vnet[1], field(4));
        if packet.gso == 0 {
            assert_eq!((field(2), field(4)), (0, 0));
            return;
        }
        let v4 = packet.source.is_ipv4();
        let header = match (packet.gso, packet.protocol) {
            (1, TCP) if v4 => usize::from(packet.head[packet.transport + 12] >> 4) * 4,
            (4, TCP) if !v4 => usize::from(packet.head[packet.transport + 12] >> 4) * 4,
            (5, UDP) => 8,
            other => panic!("gso type and protocol {other:?}"),
        };
        assert!(if packet.protocol == TCP {
            link.tso
        } else {
            link.uso
        });
        let headers = packet.transport + header;
        assert_eq!(usize::from(field(2)), 14 + headers, "hdr_len");
        let size = usize::from(packet.gso_size);
        assert!(
            size > 0 && headers + size <= usize::from(link.mtu),
            "gso_size"
        );
        assert!(packet.payload() > size, "more than one segment");
    }

    fn tcp(&mut self, packet: &Packet<'_>) {
        packet.check_sum(16);
        let segment = &packet.head[packet.transport..];
        let header = usize::from(segment[12] >> 4) * 4;
        assert!(header >= 20 && header <= packet.length, "data offset");
        assert_eq!(header, segment.len(), "payload lies behind the head");
        assert_eq!(segment[12] & 15, 0, "reserved bits");
        assert_eq!(segment[18..20], [0, 0], "no urgent pointer");
        let mut said = Said {
            seq: u32_at(segment, 4),
            ack: u32_at(segment, 8),
            flags: segment[13],
            window: u16_at(segment, 14),
            length: packet.payload(),
            mss: None,
            scale: None,
        };
        let flags = said.flags;
        assert_eq!(
            flags & !(FIN | SYN | RST | PSH | ACK),
            0,
            "flags {flags:#x}"
        );
        let control = (flags & (FIN | SYN | RST)).count_ones();
        assert!(control <= 1, "flags {flags:#x}");
        assert!(flags & ACK != 0 || control == 1 && flags & FIN == 0);
        if flags & ACK == 0 {
            assert_eq!(said.ack, 0, "no acknowledgement, so no number");
        }
        if flags & (SYN | RST) != 0 {
            assert_eq!(said.length, 0, "a SYN or a reset with data");
        }
        options(&segment[20..], &mut said);
        self.segments += 1;
        self.resets += usize::from(flags & RST != 0);
        let container = SocketAddr::new(packet.destination, u16_at(segment, 2));
        let remote = SocketAddr::new(packet.source, u16_at(segment, 0));
        let Some(place) = self.place(container, remote) else {
            return;
        };
        if flags & RST != 0 {
            assert_eq!(header, 20, "a reset has no options");
        }
        self.conns[place].hears(&said, packet.parts);
    }

    fn icmp(&mut self, packet: &Packet<'_>) {
        let message = packet.message();
        let (kind, code) = (message[0], message[1]);
        let v4 = packet.protocol == ICMP;
        assert_eq!(v4, packet.source.is_ipv4());
        let total = packet.transport + packet.length;
        let quoted = |most: usize| {
            assert!(total <= most, "an error of {total} bytes");
            let version = packet.parts[0].first().map(|first| first >> 4);
            assert_eq!(version, Some(if v4 { 4 } else { 6 }), "it quotes a packet");
        };
        match (v4, kind, code) {
            (true, 0, 0) | (false, 129, 0) => self.echo = self.echo.max(total),
            (true, 3, 0..=4 | 13) | (true, 11, 0 | 1) => quoted(576),
            (false, 1, 0 | 1 | 3 | 4) | (false, 2, 0) | (false, 3, 0 | 1) | (false, 4, 1) => {
                quoted(1280);
            }
            // Router and neighbour advertisements (RFC 4861, 6.1.2 and 7.1.2).
            (false, 134 | 136, 0) => {
                assert_eq!(packet.head[7], 255, "hop limit of neighbour discovery");
                let fixed = if kind == 134 { 16 } else { 24 };
                let head = &packet.head[packet.transport..];
                let mut rest = [head, packet.parts[0], packet.parts[1]].concat();
                rest.drain(..fixed);
                while let [_, length, ..] = rest[..] {
                    assert!(length > 0 && usize::from(length) * 8 <= rest.len());
                    rest.drain(..usize::from(length) * 8);
                }
                assert!(rest.is_empty());
            }
            other => panic!("ICMP {other:?}"),
        }
    }
}

/// Options that are well-formed, and none that was not agreed on.
fn options(mut bytes: &[u8], said: &mut Said) {
    let syn = said.flags & SYN != 0;
    while let Some((kind, rest)) = bytes.split_first() {
        match kind {
            0 => {
                assert!(rest.iter().all(|byte| *byte == 0), "behind the last option");
                return;
            }
            1 => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let length = usize::from(*rest.first().expect("an option has a length"));
        let value = bytes.get(2..length).expect("an option fits");
        match (kind, value) {
            (2, [a, b]) if syn => said.mss = Some(u16::from_be_bytes([*a, *b])),
            (3, [scale]) if syn && *scale <= 14 => said.scale = Some(*scale),
            (4, []) if syn => {}
            (5, blocks) if !syn && !blocks.is_empty() && blocks.len().is_multiple_of(8) => {
                for block in blocks.chunks(8) {
                    let (left, right) = (u32_at(block, 0), u32_at(block, 4));
                    let behind = left.wrapping_sub(said.ack).cast_signed();
                    let long = right.wrapping_sub(left).cast_signed();
                    assert!(behind > 0 && long > 0, "SACK of {left} to {right}");
                }
            }
            other => panic!("option {other:?}"),
        }
        bytes = &bytes[length..];
    }
}
