//! The link's virtio-net header, as a Linux kernel makes and takes it
//! (`include/linux/virtio_net.h`), and what a bad link does to frames.

use std::net::Ipv4Addr;

use super::frames::{self, ETHERNET, TCP, UDP};
use crate::{LinkConfig, VNET_HEADER_LEN};

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_UDP_L4: u8 = 5;
/// Where the transport header begins: no IPv4 options are involved.
const TRANSPORT: usize = ETHERNET + 20;

fn ip_addresses(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let at = |at: usize| {
        let octets: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        Ipv4Addr::from(octets)
    };
    (at(ETHERNET + 12), at(ETHERNET + 16))
}

/// A frame of the container's kernel for the link: with a virtio header, if
/// there is one, and the checksum left undone as a kernel does.
pub(super) fn to_stack(link: LinkConfig, frame: &[u8], gso_size: Option<u16>) -> Vec<u8> {
    if !link.vnet_header {
        assert_eq!(gso_size, None);
        return frame.to_vec();
    }
    let mut out = vec![0; VNET_HEADER_LEN];
    out.extend_from_slice(frame);
    let (header, frame) = out.split_at_mut(VNET_HEADER_LEN);
    let offloadable = frame.len() > TRANSPORT
        && frame[12..15] == [8, 0, 0x45]
        && matches!(frame[ETHERNET + 9], TCP | UDP)
        && frame.len() >= TRANSPORT + if frame[ETHERNET + 9] == TCP { 20 } else { 8 }
        && frame.len()
            == ETHERNET
                + usize::from(u16::from_be_bytes([
                    frame[ETHERNET + 2],
                    frame[ETHERNET + 3],
                ]));
    if !offloadable {
        return out;
    }
    let protocol = frame[ETHERNET + 9];
    let (source, destination) = ip_addresses(frame);
    let offset = frames::checksum_offset(protocol);
    let pseudo = frames::pseudo_header(source, destination, protocol, frame.len() - TRANSPORT);
    let partial = !frames::checksum(&[&pseudo]);
    frame[TRANSPORT + offset..TRANSPORT + offset + 2].copy_from_slice(&partial.to_be_bytes());
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&u16::try_from(TRANSPORT).unwrap().to_ne_bytes());
    header[8..10].copy_from_slice(&u16::try_from(offset).unwrap().to_ne_bytes());
    if let Some(size) = gso_size {
        let transport = if protocol == TCP {
            usize::from(frame[TRANSPORT + 12] >> 4) * 4
        } else {
            8
        };
        header[1] = if protocol == TCP {
            GSO_TCPV4
        } else {
            GSO_UDP_L4
        };
        header[2..4].copy_from_slice(&u16::try_from(TRANSPORT + transport).unwrap().to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    out
}

/// What the container's kernel makes of a frame from the stack: checks the
/// virtio header, completes the checksum, cuts super-segments.
pub(super) fn to_guest(link: LinkConfig, frame: &[u8]) -> Vec<Vec<u8>> {
    let mtu = usize::from(link.mtu);
    if !link.vnet_header {
        assert!(frame.len() <= ETHERNET + mtu, "longer than the MTU");
        return vec![frame.to_vec()];
    }
    let (header, frame) = frame.split_at(VNET_HEADER_LEN);
    let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (flags, gso, header_len, gso_size) = (header[0], header[1], field(2), field(4));
    let (start, offset) = (field(6), field(8));
    if flags == 0 {
        assert_eq!(header, [0; VNET_HEADER_LEN], "no offload, so no fields");
        assert!(frame.len() <= ETHERNET + mtu, "longer than the MTU");
        return vec![frame.to_vec()];
    }
    assert_eq!(flags, NEEDS_CSUM);
    if frame[12..14] == [0x86, 0xdd] {
        assert_eq!((gso, start), (0, ETHERNET + 40));
        let mut whole = frame.to_vec();
        complete(&mut whole, start, offset);
        return vec![whole];
    }
    assert_eq!(frame[12..15], [8, 0, 0x45]);
    let protocol = frame[ETHERNET + 9];
    assert_eq!(start, TRANSPORT);
    assert_eq!(offset, frames::checksum_offset(protocol));
    let (source, destination) = ip_addresses(frame);
    let pseudo = frames::pseudo_header(source, destination, protocol, frame.len() - TRANSPORT);
    assert_eq!(
        frame[start + offset..start + offset + 2],
        (!frames::checksum(&[&pseudo])).to_be_bytes(),
        "the field holds the sum of the pseudo-header"
    );
    if gso == 0 {
        assert_eq!((header_len, gso_size), (0, 0));
        assert!(frame.len() <= ETHERNET + mtu, "longer than the MTU");
        let mut whole = frame.to_vec();
        complete(&mut whole, start, offset);
        return vec![whole];
    }
    let transport = match (gso, protocol) {
        (GSO_TCPV4, TCP) => {
            assert!(link.tso);
            usize::from(frame[TRANSPORT + 12] >> 4) * 4
        }
        (GSO_UDP_L4, UDP) => {
            assert!(link.uso);
            8
        }
        other => panic!("gso type and protocol {other:?}"),
    };
    let headers = TRANSPORT + transport;
    assert_eq!(header_len, headers);
    assert!(gso_size > 0);
    assert!(
        headers + gso_size <= ETHERNET + mtu,
        "gso_size fits the MTU"
    );
    let payload = &frame[headers..];
    assert!(payload.len() > gso_size, "more than one segment");
    let total = payload.chunks(gso_size).count();
    payload
        .chunks(gso_size)
        .enumerate()
        .map(|(i, chunk)| {
            let mut one = frame[..headers].to_vec();
            one.extend_from_slice(chunk);
            let length = u16::try_from(one.len() - ETHERNET).unwrap();
            one[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
            frames::fill_header_checksum(&mut one[ETHERNET..TRANSPORT]);
            if protocol == TCP {
                let at = TRANSPORT + 4;
                let seq = u32::from_be_bytes(one[at..at + 4].try_into().unwrap())
                    .wrapping_add(u32::try_from(i * gso_size).unwrap());
                one[at..at + 4].copy_from_slice(&seq.to_be_bytes());
                if i + 1 < total {
                    one[TRANSPORT + 13] &= !(frames::FIN | frames::PSH);
                }
            } else {
                let length = u16::try_from(8 + chunk.len()).unwrap();
                one[TRANSPORT + 4..TRANSPORT + 6].copy_from_slice(&length.to_be_bytes());
            }
            frames::fill_checksum(&mut one[TRANSPORT..], source, destination, protocol);
            one
        })
        .collect()
}

/// Completes a partial checksum: the one's complement sum from `start` on,
/// whatever is in the field included (`skb_checksum_help`: never 0).
fn complete(frame: &mut [u8], start: usize, offset: usize) {
    let sum = match frames::checksum(&[&frame[start..]]) {
        0 => 0xffff,
        sum => sum,
    };
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A small deterministic generator (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    pub(super) fn percent(&mut self, chance: u8) -> bool {
        self.below(100) < usize::from(chance)
    }
}

/// What the link does to frames, in per cent of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) lose: u8,
    pub(super) duplicate: u8,
    pub(super) reorder: u8,
    /// Flips one bit behind the Ethernet header (which has a checksum of its
    /// own); only on a link without virtio header, which promises to lose none.
    pub(super) corrupt: u8,
}

impl Weather {
    /// Frames do not all arrive in order.
    pub(super) fn is_bad(&self) -> bool {
        self.lose > 0 || self.corrupt > 0 || self.reorder > 0
    }

    /// The frames that come out for one that goes in, each with its delay in
    /// microseconds.
    pub(super) fn pass(&self, rng: &mut Rng, frame: Vec<u8>) -> Vec<(i64, Vec<u8>)> {
        let copies = if rng.percent(self.lose) {
            0
        } else {
            1 + usize::from(rng.percent(self.duplicate))
        };
        (0..copies)
            .map(|_| {
                let mut frame = frame.clone();
                if rng.percent(self.corrupt) && frame.len() > ETHERNET && frame[12..14] == [8, 0] {
                    let at = ETHERNET + rng.below(frame.len() - ETHERNET);
                    frame[at] ^= 1 << rng.below(8);
                }
                let late = if rng.percent(self.reorder) {
                    i64::try_from(rng.below(2000)).unwrap()
                } else {
                    0
                };
                (LATENCY + late, frame)
            })
            .collect()
    }
}

/// Time that a frame takes, microseconds.
pub(super) const LATENCY: i64 = 20;
