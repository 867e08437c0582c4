//! Cutting datagrams that are longer than the link's MTU (RFC 791, 3.2; RFC 8200, 4.5).
//!
//! # Theory of operation
//!
//! Only what comes from a host socket whole is cut: UDP datagrams and echo replies.
//! The payload is lent, never copied; each fragment has a head of its own. The
//! transport header goes with the first one, its checksum made, since no offload
//! sees the whole.
//!
//! Identifications must neither be guessed (RFC 7739), nor come again while an older
//! datagram may be on its way (RFC 6864): they are a counter under a keyed
//! permutation, so that each comes once before any comes twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::{HOP_LIMIT, v4, v6};

/// Bytes of the IP headers of a fragment.
const V4_HEAD: usize = v4::HEADER_LEN;
const V6_HEAD: usize = v6::HEADER_LEN + v6::FRAGMENT_HEADER_LEN;
/// Bytes of a transport header: UDP, and ICMP echo.
pub(crate) const TRANSPORT_LEN: usize = 8;

/// A datagram that is to be cut. Both addresses are of one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: IpProtocol,
    /// The transport header, its checksum included.
    pub(crate) transport: [u8; TRANSPORT_LEN],
    pub(crate) payload: &'a [u8],
}

/// The identifications of what we cut.
#[derive(Debug)]
pub(crate) struct Identifications {
    seed: u64,
    next: u32,
}

impl Identifications {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: 0 }
    }

    /// The next one; IPv4 has room for `bits` = 16, IPv6 for 32.
    fn next(&mut self, bits: u32) -> u32 {
        let counter = self.next;
        self.next = counter.wrapping_add(1);
        permute(self.seed, counter, bits)
    }
}

/// A keyed permutation of the numbers of `bits` bits: a Feistel network of four
/// rounds (Luby and Rackoff).
fn permute(key: u64, number: u32, bits: u32) -> u32 {
    let half = bits / 2;
    let mask = (1 << half) - 1;
    let (mut left, mut right) = (number >> half & mask, number & mask);
    for round in 0..4_u8 {
        let mut hasher = DefaultHasher::new();
        (key, bits, round, right).hash(&mut hasher);
        let word = hasher.finish().to_le_bytes();
        let [a, b, ..] = word;
        let mixed = left ^ (u32::from(u16::from_le_bytes([a, b])) & mask);
        (left, right) = (right, mixed);
    }
    left << half | right
}

/// One fragment.
#[derive(Debug)]
pub(crate) struct Fragment<'a> {
    head: [u8; V6_HEAD + TRANSPORT_LEN],
    head_len: usize,
    pub(crate) payload: &'a [u8],
}

impl Fragment<'_> {
    /// The headers: IP, and the transport's in the first fragment.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default()
    }
}

/// The fragments of one datagram, in order.
#[derive(Debug)]
pub(crate) struct Fragments<'a> {
    datagram: Datagram<'a>,
    id: u32,
    /// Bytes behind the IP headers of one fragment, at most.
    room: usize,
    /// Where the next fragment begins; `None`: there is none.
    offset: Option<usize>,
}

/// Cuts `datagram` for a link with this MTU; `None` when no IP packet can be that
/// long, or the MTU is too small to hold a fragment.
pub(crate) fn cut<'a>(
    datagram: Datagram<'a>,
    mtu: u16,
    ids: &mut Identifications,
) -> Option<Fragments<'a>> {
    let (head, counted, bits) = match datagram.source {
        IpAddr::V4(_) => (V4_HEAD, V4_HEAD, 16),
        IpAddr::V6(_) => (V6_HEAD, 0, 32),
    };
    u16::try_from(counted + TRANSPORT_LEN + datagram.payload.len()).ok()?;
    let room = usize::from(mtu).checked_sub(head)?;
    (room >= TRANSPORT_LEN).then(|| Fragments {
        datagram,
        id: ids.next(bits),
        room,
        offset: Some(0),
    })
}

impl<'a> Iterator for Fragments<'a> {
    type Item = Fragment<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset?;
        let left = TRANSPORT_LEN + self.datagram.payload.len() - offset;
        let more = left > self.room;
        // Offsets count in units of 8 bytes.
        let length = if more { self.room & !7 } else { left };
        self.offset = more.then_some(offset + length);
        let mut head = [0; V6_HEAD + TRANSPORT_LEN];
        let ip = self.emit(&mut head, offset, length, more)?;
        let end = offset + length - TRANSPORT_LEN;
        let (head_len, start) = match offset.checked_sub(TRANSPORT_LEN) {
            Some(start) => (ip, start),
            None => {
                head.get_mut(ip..ip + TRANSPORT_LEN)?
                    .copy_from_slice(&self.datagram.transport);
                (ip + TRANSPORT_LEN, 0)
            }
        };
        Some(Fragment {
            head,
            head_len,
            payload: self.datagram.payload.get(start..end)?,
        })
    }
}

impl Fragments<'_> {
    /// Writes the IP headers of a fragment; their length.
    fn emit(&self, head: &mut [u8], offset: usize, length: usize, more: bool) -> Option<usize> {
        let offset = u16::try_from(offset).ok()?;
        match (self.datagram.source, self.datagram.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = V4_HEAD + length;
                v4::emit(head, total, source, destination, self.datagram.protocol);
                let mut view = Ipv4Packet::new_unchecked(head);
                view.set_ident(u16::try_from(self.id).ok()?);
                view.clear_flags();
                view.set_more_frags(more);
                view.set_frag_offset(offset);
                view.fill_checksum();
                Some(V4_HEAD)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let total = V6_HEAD + length;
                let protocol = IpProtocol::Ipv6Frag;
                v6::emit(head, total, source, destination, protocol, HOP_LIMIT);
                let (_, rest) = head.split_at_mut_checked(v6::HEADER_LEN)?;
                let (fragment, _) = rest.split_first_chunk_mut::<8>()?;
                fragment[0] = self.datagram.protocol.into();
                fragment[2..4].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
                fragment[4..].copy_from_slice(&self.id.to_be_bytes());
                Some(V6_HEAD)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use smoltcp::time::Instant;

    use super::*;
    use crate::ip::reassembly::{Outcome, Reassembly};
    use crate::tests::cases;

    fn datagram(v6: bool, payload: &[u8]) -> Datagram<'_> {
        let [source, destination] = if v6 {
            ["2001:db8::1", "fd00::64"]
        } else {
            ["198.51.100.1", "10.0.2.100"]
        };
        Datagram {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: IpProtocol::Udp,
            transport: *b"transprt",
            payload,
        }
    }

    fn packets(datagram: Datagram<'_>, mtu: u16) -> Option<Vec<Vec<u8>>> {
        let fragments = cut(datagram, mtu, &mut Identifications::new(1))?;
        Some(fragments.map(|f| [f.head(), f.payload].concat()).collect())
    }

    #[test]
    fn the_payload_is_lent() {
        let payload = vec![7; 5000];
        let mut at = 0;
        for fragment in cut(
            datagram(false, &payload),
            1500,
            &mut Identifications::new(1),
        )
        .unwrap()
        {
            assert_eq!(fragment.payload.as_ptr(), payload[at..].as_ptr());
            at += fragment.payload.len();
        }
        assert_eq!(at, payload.len());
    }

    #[test]
    fn lengths() {
        let lengths = |v6, len, mtu| {
            let payload = vec![0; len];
            packets(datagram(v6, &payload), mtu)
                .map(|packets| packets.iter().map(Vec::len).collect::<Vec<_>>())
        };
        assert_eq!(lengths(false, 3000, 1500).unwrap(), [1500, 1500, 68]);
        // The last one may be filled up with what is no multiple of 8.
        assert_eq!(lengths(false, 2951, 1499).unwrap(), [1492, 1492, 35]);
        assert_eq!(lengths(false, 2943, 1499).unwrap(), [1492, 1499]);
        assert_eq!(lengths(true, 3000, 1500).unwrap(), [1496, 1496, 160]);
        assert_eq!(lengths(false, 65_507, 65_535).unwrap(), [65_535]);
        assert_eq!(lengths(false, 65_508, 1500), None);
        assert_eq!(lengths(true, 65_528, 1500), None);
        assert_eq!(lengths(true, 65_527, 1500).unwrap().len(), 46);
        // A transport header and nothing else, and not even that.
        assert_eq!(lengths(false, 9, 28).unwrap(), [28, 28, 21]);
        assert_eq!(lengths(false, 9, 27), None);
        assert_eq!(lengths(true, 9, 55), None);
        assert_eq!(lengths(true, 9, 0), None);
    }

    #[test]
    fn identifications_come_once_and_in_no_order() {
        for seed in [0, 1, u64::MAX] {
            let mut ids = Identifications::new(seed);
            let all: Vec<_> = (0..65_536).map(|_| ids.next(16)).collect();
            assert_eq!(all.iter().collect::<HashSet<_>>().len(), 65_536);
            assert!(all.iter().all(|id| *id < 65_536));
            let mut ids = Identifications::new(seed);
            let all: Vec<_> = (0..65_536).map(|_| ids.next(32)).collect();
            assert_eq!(all.iter().collect::<HashSet<_>>().len(), 65_536);
            assert!(
                all.windows(2)
                    .filter(|w| w[0].abs_diff(w[1]) < 1000)
                    .count()
                    < 10
            );
        }
        let first = |seed| Identifications::new(seed).next(32);
        assert_ne!(first(1), first(2));
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn mended_by_the_other_side(
            v6 in any::<bool>(),
            len in prop_oneof![0_usize..5000, 60_000_usize..65_536],
            mtu in prop_oneof![68_u16..2000, 1280_u16..=65_535],
        ) {
            let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let Some(packets) = packets(datagram(v6, &payload), mtu) else {
                let counted = if v6 { 8 } else { 28 };
                prop_assert!(len + counted > 65_535);
                return Ok(());
            };
            let mut table = Reassembly::default();
            let count = packets.len();
            for (n, packet) in packets.iter().enumerate() {
                prop_assert!(packet.len() <= usize::from(mtu));
                if count == 1 && !v6 {
                    prop_assert_eq!(&packet[20..], [&b"transprt"[..], &payload].concat());
                    break;
                }
                match table.insert(Instant::ZERO, packet) {
                    Outcome::Complete(whole) if n + 1 == count => {
                        let head = if v6 { 40 } else { 20 };
                        let found = &whole.packet()[head..];
                        prop_assert_eq!(found, [&b"transprt"[..], &payload].concat());
                    }
                    Outcome::Waiting if n + 1 < count => {}
                    other => prop_assert!(false, "{}: {:?}", n, other),
                }
            }
        }
    }
}
