//! Frames of the container, made by hand.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// The container's MAC.
pub const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x64];
/// The gateway's MAC.
pub const STACK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub const BROADCAST_MAC: [u8; 6] = [0xff; 6];
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// A machine that answers to everything at [`ECHO`], over TCP and UDP.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// Nobody is there.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 77);
/// The port of echo servers (RFC 862).
pub const ECHO: u16 = 7;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

/// The Internet checksum (RFC 1071) of `parts`, each of even length but the last.
pub fn checksum(parts: &[&[u8]]) -> u16 {
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

pub fn pseudo_header(
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
pub fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// Fills in the checksum of an IPv4 header, which is all of `header` (RFC 791, 3.1).
pub fn fill_header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Sets the checksum of a TCP or UDP segment.
pub fn fill_checksum(segment: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) {
    let at = checksum_offset(protocol);
    segment[at..at + 2].fill(0);
    let pseudo = pseudo_header(source, destination, protocol, segment.len());
    let mut sum = checksum(&[&pseudo, segment]);
    if protocol == UDP && sum == 0 {
        sum = 0xffff;
    }
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend_from_slice(&STACK_MAC);
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet with all that a header can say.
#[derive(Debug, Clone)]
pub struct Ip {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    pub ident: u16,
    /// Flags and fragment offset as on the wire.
    pub fragment: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Ip {
    pub fn new(destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
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

    pub fn packet(&self) -> Vec<u8> {
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
        fill_header_checksum(&mut packet);
        packet.extend_from_slice(&self.payload);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(0x0800, &self.packet())
    }
}

/// A TCP segment of the container.
#[derive(Debug, Clone)]
pub struct Segment {
    pub source: Ipv4Addr,
    pub port: u16,
    pub to: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Segment {
    pub fn new(port: u16, to: SocketAddrV4, flags: u8, seq: u32, ack: u32) -> Self {
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

    pub fn syn(port: u16, to: SocketAddrV4) -> Self {
        Self {
            options: vec![2, 4, 0x05, 0xb4],
            ..Self::new(port, to, SYN, 1000, 0)
        }
    }

    pub fn with(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn segment(&self) -> Vec<u8> {
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

    pub fn frame(&self) -> Vec<u8> {
        Ip {
            source: self.source,
            ..Ip::new(*self.to.ip(), TCP, self.segment())
        }
        .frame()
    }
}

pub fn udp_segment(source: Ipv4Addr, port: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
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

pub fn udp(port: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    Ip::new(*to.ip(), UDP, udp_segment(GUEST, port, to, payload)).frame()
}

pub fn icmp_message(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(payload);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

pub fn echo(to: Ipv4Addr, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = ident.to_be_bytes();
    let [c, d] = seq.to_be_bytes();
    Ip::new(to, ICMP, icmp_message(8, 0, [a, b, c, d], payload)).frame()
}

/// An ARP packet of the container in a frame.
pub fn arp(operation: u16, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
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
