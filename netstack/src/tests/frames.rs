//! Frames made (in the crate of bad input, with no code of the stack or of smoltcp) and
//! read by hand.

use std::net::{Ipv4Addr, SocketAddrV4};

pub(super) use hostile::frames::*;

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
    fill_header_checksum(&mut fin[ETHERNET..SEGMENT]);
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
        fill_header_checksum(&mut whole[ETHERNET..PAYLOAD]);
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
    let body = &packet[20..];
    let protocol = packet[9];
    // A DHCP client may have no address yet.
    let dhcp = destination.is_broadcast() && protocol == UDP && u16_at(body, 0) == 67;
    assert!(
        destination == GUEST || dhcp,
        "only the container is spoken to"
    );
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

/// Looks at a frame of IPv6 that the stack sent, fragments included: addresses, lengths
/// and checksum.
pub(super) fn check6(frame: &[u8]) {
    assert_eq!(frame[6..12], STACK_MAC);
    let packet = &frame[ETHERNET..];
    assert_eq!(packet[0], 0x60);
    assert_eq!(usize::from(u16_at(packet, 4)), packet.len() - 40);
    let (source, destination) = (&packet[8..24], &packet[24..40]);
    assert!(source[0] != 0xff && source != [0; 16] && destination != [0; 16]);
    let protocol = packet[6];
    if [TCP, UDP, 58].contains(&protocol) {
        let length = u32::from(u16_at(packet, 4)).to_be_bytes();
        let sums = [
            source,
            destination,
            &length,
            &[0, 0, 0, protocol],
            &packet[40..],
        ];
        assert_eq!(checksum(&sums), 0, "checksum of protocol {protocol}");
    }
}
