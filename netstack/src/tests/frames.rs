//! Frames made and read by hand, with no code of the stack or of smoltcp.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

pub(super) const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x64];
pub(super) const STACK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub(super) const BROADCAST_MAC: [u8; 6] = [0xff; 6];
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(super) const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);
pub(super) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(super) const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

pub(super) const ETHERNET: usize = 14;
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;
pub(super) const URG: u8 = 32;

/// The Internet checksum (RFC 1071) of `parts`, each of even length but the last.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

pub(super) fn pseudo_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    length: usize,
) -> [u8; 12] {
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&source.octets());
    pseudo[4..8].copy_from_slice(&destination.octets());
    pseudo[9] = protocol;
    pseudo[10..].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    pseudo
}

/// Where the checksum is in a TCP or UDP header.
pub(super) fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// Sets the checksum of a TCP or UDP segment.
pub(super) fn fill_checksum(
    segment: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
) {
    let at = checksum_offset(protocol);
    segment[at..at + 2].fill(0);
    let pseudo = pseudo_header(source, destination, protocol, segment.len());
    let mut sum = checksum(&[&pseudo, segment]);
    if protocol == UDP && sum == 0 {
        sum = 0xffff;
    }
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend_from_slice(&STACK_MAC);
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet with all that a header can say.
#[derive(Debug, Clone)]
pub(super) struct Ip {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) ident: u16,
    /// Flags and fragment offset as on the wire.
    pub(super) fragment: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Ip {
    pub(super) fn new(destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source: GUEST,
            destination,
            protocol,
            ttl: 64,
            tos: 0,
            ident: 1,
            fragment: 0x4000,
            options: Vec::new(),
            payload,
        }
    }

    pub(super) fn packet(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        assert!(header.is_multiple_of(4) && header <= 60);
        let mut packet = vec![0; header];
        packet[0] = 0x40 | u8::try_from(header / 4).unwrap();
        packet[1] = self.tos;
        let total = u16::try_from(header + self.payload.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].copy_from_slice(&self.ident.to_be_bytes());
        packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = self.protocol;
        packet[12..16].copy_from_slice(&self.source.octets());
        packet[16..20].copy_from_slice(&self.destination.octets());
        packet[20..].copy_from_slice(&self.options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(&self.payload);
        packet
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        ethernet(0x0800, &self.packet())
    }
}

/// A TCP segment of the container.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) source: Ipv4Addr,
    pub(super) port: u16,
    pub(super) to: SocketAddrV4,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Segment {
    pub(super) fn new(port: u16, to: SocketAddrV4, flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            source: GUEST,
            port,
            to,
            seq,
            ack,
            flags,
            window: 65535,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn syn(port: u16, to: SocketAddrV4) -> Self {
        Self {
            options: vec![2, 4, 0x05, 0xb4],
            ..Self::new(port, to, SYN, 1000, 0)
        }
    }

    pub(super) fn with(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub(super) fn segment(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        assert!(header.is_multiple_of(4) && header <= 60);
        let mut segment = vec![0; header];
        segment[..2].copy_from_slice(&self.port.to_be_bytes());
        segment[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = u8::try_from(header / 4).unwrap() << 4;
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        segment[20..].copy_from_slice(&self.options);
        segment.extend_from_slice(&self.payload);
        fill_checksum(&mut segment, self.source, *self.to.ip(), TCP);
        segment
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        Ip {
            source: self.source,
            ..Ip::new(*self.to.ip(), TCP, self.segment())
        }
        .frame()
    }
}

pub(super) fn udp_segment(
    source: Ipv4Addr,
    port: u16,
    to: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::with_capacity(8 + payload.len());
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&to.port().to_be_bytes());
    let length = u16::try_from(8 + payload.len()).unwrap();
    segment.extend_from_slice(&length.to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    fill_checksum(&mut segment, source, *to.ip(), UDP);
    segment
}

pub(super) fn udp(port: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    Ip::new(*to.ip(), UDP, udp_segment(GUEST, port, to, payload)).frame()
}

pub(super) fn icmp_message(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(payload);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

pub(super) fn echo(to: Ipv4Addr, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = ident.to_be_bytes();
    let [c, d] = seq.to_be_bytes();
    Ip::new(to, ICMP, icmp_message(8, 0, [a, b, c, d], payload)).frame()
}

/// An ARP packet of the container in a frame.
pub(super) fn arp(
    operation: u16,
    sender_mac: [u8; 6],
    sender: Ipv4Addr,
    target: Ipv4Addr,
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend_from_slice(&operation.to_be_bytes());
    packet.extend_from_slice(&sender_mac);
    packet.extend_from_slice(&sender.octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target.octets());
    let mut frame = ethernet(0x0806, &packet);
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&sender_mac);
    frame
}

/// The TCP segment in a frame, if its checksums are right.
pub(super) fn intact_tcp(frame: &[u8]) -> Option<TcpSeen> {
    const SEGMENT: usize = ETHERNET + 20;
    if frame.len() < SEGMENT + 20 || frame[12..15] != [8, 0, 0x45] || frame[ETHERNET + 9] != TCP {
        return None;
    }
    let (source, destination) = (address_at(frame, 26), address_at(frame, 30));
    let pseudo = pseudo_header(source, destination, TCP, frame.len() - SEGMENT);
    let right =
        checksum(&[&pseudo, &frame[SEGMENT..]]) == 0 && checksum(&[&frame[ETHERNET..SEGMENT]]) == 0;
    match read_ip(frame.get(ETHERNET..).filter(|_| right)?) {
        Seen::Tcp(segment) => Some(segment),
        _ => None,
    }
}

/// A TCP segment of the stack, whatever its checksums.
pub(super) fn tcp_unverified(frame: &[u8]) -> TcpSeen {
    assert_eq!(frame[12..15], [8, 0, 0x45]);
    tcp_parts(
        address_at(frame, 26),
        address_at(frame, 30),
        &frame[ETHERNET + 20..],
    )
}

fn tcp_parts(source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> TcpSeen {
    let header = usize::from(body[12] >> 4) * 4;
    TcpSeen {
        from: SocketAddrV4::new(source, u16_at(body, 0)),
        to: SocketAddrV4::new(destination, u16_at(body, 2)),
        seq: u32_at(body, 4),
        ack: u32_at(body, 8),
        flags: body[13],
        window: u16_at(body, 14),
        options: body[20..header].to_vec(),
        payload: body[header..].to_vec(),
    }
}

/// Changes the window that a TCP segment offers.
pub(super) fn set_window(frame: &mut [u8], window: u16) {
    let (source, destination) = (address_at(frame, 26), address_at(frame, 30));
    let segment = &mut frame[ETHERNET + 20..];
    segment[14..16].copy_from_slice(&window.to_be_bytes());
    fill_checksum(segment, source, destination, TCP);
}

/// A TCP segment with data and a FIN as two: the data, then the FIN.
pub(super) fn split_fin(frame: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const SEGMENT: usize = ETHERNET + 20;
    let segment = intact_tcp(frame)?;
    if segment.payload.is_empty() || segment.flags & FIN == 0 {
        return None;
    }
    let (source, destination) = (*segment.from.ip(), *segment.to.ip());
    let headers = frame.len() - segment.payload.len();
    let mut data = frame.to_vec();
    data[SEGMENT + 13] &= !FIN;
    fill_checksum(&mut data[SEGMENT..], source, destination, TCP);
    let mut fin = frame[..headers].to_vec();
    let seq = segment
        .seq
        .wrapping_add(u32::try_from(segment.payload.len()).unwrap());
    fin[SEGMENT + 4..SEGMENT + 8].copy_from_slice(&seq.to_be_bytes());
    let total = u16::try_from(headers - ETHERNET).unwrap();
    fin[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
    fin[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = checksum(&[&fin[ETHERNET..SEGMENT]]);
    fin[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    fill_checksum(&mut fin[SEGMENT..], source, destination, TCP);
    Some((data, fin))
}

/// What the stack sent, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    ArpReply {
        mac: [u8; 6],
        address: Ipv4Addr,
        to_mac: [u8; 6],
        to: Ipv4Addr,
    },
    Tcp(TcpSeen),
    Udp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: Vec<u8>,
    },
    EchoReply {
        from: Ipv4Addr,
        ident: u16,
        seq: u16,
        payload: Vec<u8>,
    },
    Unreachable {
        code: u8,
        quote: Vec<u8>,
    },
    TimeExceeded {
        from: Ipv4Addr,
        code: u8,
        quote: Vec<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TcpSeen {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn address_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32_at(bytes, at))
}

/// Mends the fragments of the stack, which come in order.
#[derive(Debug, Default)]
pub(super) struct Mender {
    /// Ethernet and IP header of the first fragment, then the payload so far.
    so_far: Vec<u8>,
}

impl Mender {
    /// The frame if it is whole, or the one that it completes.
    pub(super) fn add(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        const PAYLOAD: usize = ETHERNET + 20;
        if frame[12..14] != [8, 0] || u16_at(&frame, 20) & 0xbfff == 0 {
            return Some(frame);
        }
        assert_eq!(checksum(&[&frame[ETHERNET..PAYLOAD]]), 0);
        let (more, offset) = (
            frame[20] & 0x20 != 0,
            usize::from(u16_at(&frame, 20) & 0x1fff) * 8,
        );
        assert_eq!(
            frame[20] & 0xc0,
            0,
            "no reserved bit, and it may be cut again"
        );
        if offset == 0 {
            assert!(self.so_far.is_empty());
            self.so_far = frame;
        } else {
            assert_eq!(self.so_far.len(), PAYLOAD + offset);
            assert_eq!(self.so_far[18..20], frame[18..20], "identification");
            self.so_far.extend_from_slice(&frame[PAYLOAD..]);
        }
        if more {
            return None;
        }
        let mut whole = std::mem::take(&mut self.so_far);
        let total = u16::try_from(whole.len() - ETHERNET).unwrap();
        whole[16..18].copy_from_slice(&total.to_be_bytes());
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = checksum(&[&whole[ETHERNET..PAYLOAD]]);
        whole[24..26].copy_from_slice(&sum.to_be_bytes());
        Some(whole)
    }
}

/// Takes apart a frame that the stack sent; panics on anything that a receiver
/// would not accept.
pub(super) fn read(frame: &[u8]) -> Seen {
    assert_eq!(
        frame[6..12],
        STACK_MAC,
        "frames come from the stack's address"
    );
    let payload = &frame[ETHERNET..];
    match u16_at(frame, 12) {
        0x0806 => {
            assert_eq!(payload[..8], [0, 1, 8, 0, 6, 4, 0, 2], "an ARP reply");
            Seen::ArpReply {
                mac: payload[8..14].try_into().unwrap(),
                address: address_at(payload, 14),
                to_mac: payload[18..24].try_into().unwrap(),
                to: address_at(payload, 24),
            }
        }
        0x0800 => read_ip(payload),
        other => panic!("unexpected ethertype {other:#x}"),
    }
}

fn read_ip(packet: &[u8]) -> Seen {
    assert_eq!(packet[0], 0x45);
    assert_eq!(checksum(&[&packet[..20]]), 0, "IPv4 header checksum");
    assert_eq!(usize::from(u16_at(packet, 2)), packet.len(), "total length");
    assert_eq!(u16_at(packet, 6) & 0xbfff, 0, "never a fragment");
    assert!(packet[8] > 0);
    let (source, destination) = (address_at(packet, 12), address_at(packet, 16));
    assert_eq!(destination, GUEST, "only the container is spoken to");
    let body = &packet[20..];
    let protocol = packet[9];
    if protocol == TCP || protocol == UDP {
        let pseudo = pseudo_header(source, destination, protocol, body.len());
        assert!(
            protocol == UDP && u16_at(body, 6) == 0 || checksum(&[&pseudo, body]) == 0,
            "transport checksum"
        );
    }
    match protocol {
        TCP => Seen::Tcp(tcp_parts(source, destination, body)),
        UDP => {
            assert_eq!(usize::from(u16_at(body, 4)), body.len(), "UDP length");
            Seen::Udp {
                from: SocketAddrV4::new(source, u16_at(body, 0)),
                to: SocketAddrV4::new(destination, u16_at(body, 2)),
                payload: body[8..].to_vec(),
            }
        }
        ICMP => {
            assert_eq!(checksum(&[body]), 0, "ICMP checksum");
            match (body[0], body[1]) {
                (0, 0) => Seen::EchoReply {
                    from: source,
                    ident: u16_at(body, 4),
                    seq: u16_at(body, 6),
                    payload: body[8..].to_vec(),
                },
                (11, code) => Seen::TimeExceeded {
                    from: source,
                    code,
                    quote: body[8..].to_vec(),
                },
                (3, code) => {
                    assert!(packet.len() <= 576, "RFC 1812, 4.3.2.3");
                    Seen::Unreachable {
                        code,
                        quote: body[8..].to_vec(),
                    }
                }
                other => panic!("unexpected ICMP {other:?}"),
            }
        }
        other => panic!("unexpected protocol {other}"),
    }
}
