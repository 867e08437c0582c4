//! Frames of the container, made in one buffer that is used again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostile::frames::{GUEST, GUEST_MAC, GUEST6, ICMP, STACK_MAC, TCP, UDP};

pub const ICMPV6: u8 = 58;
/// Bytes of the virtio header, which is kept before the frame.
pub const VNET: usize = netstack::VNET_HEADER_LEN;
/// Where the network header begins.
pub const IP: usize = VNET + 14;

/// The one's complement sum of `bytes`, which begin at an even place, not folded.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of a pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1) whose addresses these are.
pub fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    sum(addresses) + u64::from(protocol) + length as u64
}

/// What a TCP segment says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp {
    pub port: u16,
    pub remote: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
}

/// A frame that is being made.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Where the transport header begins.
    transport: usize,
    protocol: u8,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            bytes: vec![0; IP],
            transport: IP,
            protocol: 0,
        }
    }
}

impl Frame {
    /// As the link carries it.
    pub fn on(&self, vnet: bool) -> &[u8] {
        &self.bytes[if vnet { 0 } else { VNET }..]
    }

    /// From the network header on.
    pub fn packet(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Begins another with these bytes, an Ethernet header first.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.truncate(VNET);
        self.bytes[..VNET].fill(0);
        self.bytes.extend_from_slice(bytes);
    }

    fn begin(&mut self, ethertype: u16) {
        self.bytes.truncate(IP);
        self.bytes.resize(IP, 0);
        self.bytes[..VNET].fill(0);
        self.bytes[VNET..VNET + 6].copy_from_slice(&STACK_MAC);
        self.bytes[VNET + 6..VNET + 12].copy_from_slice(&GUEST_MAC);
        self.bytes[VNET + 12..IP].copy_from_slice(&ethertype.to_be_bytes());
    }

    /// Begins a packet of the container to `to`.
    pub fn ip(&mut self, to: IpAddr, protocol: u8) {
        match to {
            IpAddr::V4(to) => self.v4(GUEST, to, protocol),
            IpAddr::V6(to) => self.v6(GUEST6, to, protocol),
        }
    }

    pub fn v4(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8) {
        self.begin(0x0800);
        let [a, b, c, d] = from.octets();
        let [e, f, g, h] = to.octets();
        self.bytes.extend_from_slice(&[
            0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, a, b, c, d, e, f, g, h,
        ]);
        (self.transport, self.protocol) = (self.bytes.len(), protocol);
    }

    pub fn v6(&mut self, from: Ipv6Addr, to: Ipv6Addr, protocol: u8) {
        self.begin(0x86dd);
        self.bytes
            .extend_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
        self.bytes.extend_from_slice(&from.octets());
        self.bytes.extend_from_slice(&to.octets());
        (self.transport, self.protocol) = (self.bytes.len(), protocol);
    }

    /// Goes on with a TCP header; the payload comes behind it.
    pub fn tcp(&mut self, tcp: &Tcp, options: &[u8]) {
        let length = 20 + options.len().min(40) / 4 * 4;
        let mut head = [0; 20];
        head[..2].copy_from_slice(&tcp.port.to_be_bytes());
        head[2..4].copy_from_slice(&tcp.remote.to_be_bytes());
        head[4..8].copy_from_slice(&tcp.seq.to_be_bytes());
        head[8..12].copy_from_slice(&tcp.ack.to_be_bytes());
        head[12] = (length / 4 * 16) as u8;
        head[13] = tcp.flags;
        head[14..16].copy_from_slice(&tcp.window.to_be_bytes());
        head[18..].copy_from_slice(&tcp.urgent.to_be_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(&options[..length - 20]);
    }

    pub fn udp(&mut self, port: u16, remote: u16, length: usize) {
        let [a, b] = port.to_be_bytes();
        let [c, d] = remote.to_be_bytes();
        let [e, f] = ((8 + length) as u16).to_be_bytes();
        self.bytes.extend_from_slice(&[a, b, c, d, e, f, 0, 0]);
    }

    pub fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
    }

    /// Room for so many bytes of payload, to be filled in.
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        &mut self.bytes[start..]
    }

    /// Fills in the lengths and the checksum of the network header.
    pub fn lengths(&mut self) {
        let total = self.bytes.len() - IP;
        if self.bytes[IP] >> 4 == 4 {
            self.bytes[IP + 2..IP + 4].copy_from_slice(&(total as u16).to_be_bytes());
            header_checksum(&mut self.bytes[IP..IP + 20]);
        } else {
            self.bytes[IP + 4..IP + 6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        }
    }

    /// Where in `length` bytes of this protocol the checksum is, and what it sums up
    /// besides them; `None` where there is none.
    fn checksum(&self, protocol: u8, length: usize) -> Option<(usize, u64)> {
        let at = match protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            _ => return None,
        };
        if length < at + 2 {
            return None;
        }
        let addresses = if self.bytes[IP] >> 4 == 4 {
            IP + 12..IP + 20
        } else {
            IP + 8..IP + 40
        };
        let pseudo = match protocol {
            ICMP => 0,
            _ => pseudo(&self.bytes[addresses], protocol, length),
        };
        Some((at, pseudo))
    }

    /// Fills in lengths and checksums; the transport checksum is left undone where
    /// `partial` (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    pub fn finish(&mut self, partial: bool) {
        let (transport, protocol) = (self.transport, self.protocol);
        self.lengths();
        let Some((at, pseudo)) = self.checksum(protocol, self.bytes.len() - transport) else {
            return;
        };
        let (header, segment) = self.bytes.split_at_mut(transport);
        segment[at..at + 2].fill(0);
        let field = if partial && at != 2 {
            header[0] = 1;
            header[6..8].copy_from_slice(&((transport - VNET) as u16).to_ne_bytes());
            header[8..10].copy_from_slice(&(at as u16).to_ne_bytes());
            fold(pseudo)
        } else {
            match !fold(pseudo + sum(segment)) {
                0 if protocol == UDP => 0xffff,
                sum => sum,
            }
        };
        segment[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }

    /// Says that this is a super-segment: `kind` is that of virtio.
    pub fn super_segment(&mut self, kind: u8, size: u16) {
        self.bytes[1] = kind;
        self.bytes[4..6].copy_from_slice(&size.to_ne_bytes());
    }

    /// Makes the checksums right again, as far as there is something to sum up.
    pub fn mend(&mut self) {
        let Some(view) = View::of(&self.bytes[VNET..]) else {
            return;
        };
        let (v4, protocol) = (view.v4, view.protocol);
        let range = VNET + view.transport.start..VNET + view.transport.end;
        if v4 {
            let header = usize::from(self.bytes[IP] & 15) * 4;
            header_checksum(&mut self.bytes[IP..IP + header]);
        }
        let Some((at, pseudo)) = self.checksum(protocol, range.len()) else {
            return;
        };
        if view.fragment {
            return;
        }
        let segment = &mut self.bytes[range];
        segment[at..at + 2].fill(0);
        let field = !fold(pseudo + sum(segment));
        segment[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }
}

fn header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let field = !fold(sum(header));
    header[10..12].copy_from_slice(&field.to_be_bytes());
}

/// Where the parts of a frame are that somebody else has made.
#[derive(Debug, Clone)]
pub struct View {
    pub v4: bool,
    pub protocol: u8,
    /// It is a fragment.
    pub fragment: bool,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Offsets from the Ethernet header.
    pub transport: std::ops::Range<usize>,
}

impl View {
    /// Looks at a frame from its Ethernet header on, without extension headers.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        match (frame.get(12..14)?, packet.first()? >> 4) {
            ([8, 0], 4) => {
                let header = usize::from(packet[0] & 15) * 4;
                let fixed = packet.first_chunk::<20>()?;
                let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
                if header < 20 || total < header || total > packet.len() {
                    return None;
                }
                let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&fixed[at..at + 4]).unwrap());
                Some(Self {
                    v4: true,
                    protocol: fixed[9],
                    fragment: fixed[6] & 0x3f != 0 || fixed[7] != 0,
                    source: at(12),
                    destination: at(16),
                    transport: 14 + header..14 + total,
                })
            }
            ([0x86, 0xdd], 6) => {
                let fixed = packet.first_chunk::<40>()?;
                let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                if total > packet.len() {
                    return None;
                }
                let at =
                    |at: usize| IpAddr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).unwrap());
                Some(Self {
                    v4: false,
                    protocol: fixed[6],
                    fragment: fixed[6] == 44,
                    source: at(8),
                    destination: at(24),
                    transport: 54..14 + total,
                })
            }
            _ => None,
        }
    }
}
