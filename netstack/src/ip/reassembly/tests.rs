use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::tests::cases;

mod model;

const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 2, 100), Ipv4Addr::new(198, 51, 100, 1)];
const UDP: u8 = 17;

/// One fragment, to be made a packet of either version.
#[derive(Debug, Clone)]
struct Piece {
    id: u16,
    protocol: u8,
    offset: usize,
    more: bool,
    payload: Vec<u8>,
}

impl Piece {
    fn new(offset: usize, more: bool, payload: &[u8]) -> Self {
        Self {
            id: 7,
            protocol: UDP,
            offset,
            more,
            payload: payload.to_vec(),
        }
    }

    fn packet(&self, v6: bool) -> Vec<u8> {
        if v6 { self.v6() } else { self.v4() }
    }

    fn v4(&self) -> Vec<u8> {
        let header = v4_header(self.payload.len(), self.protocol, |view| {
            view.set_ident(self.id);
            view.set_frag_offset(u16::try_from(self.offset).unwrap());
            view.set_more_frags(self.more);
        });
        [&header[..], &self.payload].concat()
    }

    fn v6(&self) -> Vec<u8> {
        let field = u16::try_from(self.offset).unwrap() | u16::from(self.more);
        let fragment = [
            &[self.protocol, 0][..],
            &field.to_be_bytes(),
            &u32::from(self.id).to_be_bytes(),
        ]
        .concat();
        v6_packet(44, &[&fragment, &self.payload])
    }
}

fn v4_header(
    payload: usize,
    protocol: u8,
    set: impl FnOnce(&mut Ipv4Packet<&mut [u8]>),
) -> [u8; 20] {
    let mut header = [0; 20];
    let mut view = Ipv4Packet::new_unchecked(&mut header[..]);
    view.set_version(4);
    view.set_header_len(20);
    view.set_total_len(u16::try_from(20 + payload).unwrap());
    view.set_hop_limit(64);
    view.set_next_header(protocol.into());
    view.set_src_addr(V4[0]);
    view.set_dst_addr(V4[1]);
    set(&mut view);
    view.fill_checksum();
    header
}

fn v6_packet(next: u8, parts: &[&[u8]]) -> Vec<u8> {
    let payload = parts.concat();
    let mut header = [0; 40];
    let mut view = Ipv6Packet::new_unchecked(&mut header[..]);
    view.set_version(6);
    view.set_payload_len(u16::try_from(payload.len()).unwrap());
    view.set_next_header(next.into());
    view.set_hop_limit(64);
    view.set_src_addr(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64));
    view.set_dst_addr(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    [&header[..], &payload].concat()
}

/// The packet that was never cut.
fn whole(v6: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    if v6 {
        v6_packet(UDP, &[payload])
    } else {
        let header = v4_header(payload.len(), UDP, |view| view.set_ident(id));
        [&header[..], payload].concat()
    }
}

/// `payload` in fragments of `size` bytes, a multiple of 8.
fn cut(payload: &[u8], size: usize) -> Vec<Piece> {
    let count = payload.len().div_ceil(size);
    payload
        .chunks(size)
        .enumerate()
        .map(|(n, chunk)| Piece::new(n * size, n + 1 < count, chunk))
        .collect()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n * 7 + n / 256) % 251).unwrap())
        .collect()
}

fn now(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

/// Inserts all; what was completed.
fn feed(table: &mut Reassembly, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut complete = Vec::new();
    for packet in packets {
        if let Outcome::Complete(whole) = table.insert(now(0), packet) {
            complete.push(whole.packet().to_vec());
            table.recycle(whole);
        }
    }
    complete
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Dropped(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_order() {
    for v6 in [false, true] {
        let payload = bytes(3000);
        let mut packets: Vec<_> = cut(&payload, 1000).iter().map(|p| p.packet(v6)).collect();
        for turn in 0..6 {
            packets.swap(turn % 2, turn % 2 + 1);
            let mut table = Reassembly::default();
            assert_eq!(feed(&mut table, &packets), [whole(v6, 7, &payload)]);
            assert!(table.datagrams.is_empty());
            assert_eq!(table.discarded(), 0);
        }
    }
}

#[test]
fn tiny_fragments_backwards_at_full_length() {
    for (v6, len) in [(false, 65_515), (true, 65_535)] {
        let payload = bytes(len);
        let mut packets: Vec<_> = cut(&payload, 8).iter().map(|p| p.packet(v6)).collect();
        if v6 {
            assert!(feed(&mut Reassembly::default(), &packets).len() == 1);
        }
        packets.reverse();
        let mut table = Reassembly::default();
        assert_eq!(feed(&mut table, &packets), [whole(v6, 7, &payload)]);
    }
}

#[test]
fn too_long() {
    let mut table = Reassembly::default();
    let far = Piece::new(65_528, false, &bytes(8));
    for v6 in [false, true] {
        let outcome = table.insert(now(0), &far.packet(v6));
        assert_eq!(refusal(outcome), Refusal::TooLong);
    }
    // The last byte that there can be, and the one behind it.
    let last = Piece::new(65_528, false, &bytes(7));
    let outcome = table.insert(now(0), &last.packet(true));
    assert!(matches!(outcome, Outcome::Waiting));
    assert_eq!(
        refusal(table.insert(now(0), &last.packet(false))),
        Refusal::TooLong
    );
    // N8: a jumbo first fragment, and a sum that no packet can have.
    let jumbo = Piece::new(0, true, &bytes(65_504));
    let outcome = table.insert(now(0), &jumbo.packet(false));
    assert!(matches!(outcome, Outcome::Waiting));
    for size in [32, 40, 1480, 65_000] {
        let rest = Piece::new(65_504, false, &bytes(size));
        assert_eq!(
            refusal(table.insert(now(0), &rest.packet(false))),
            Refusal::TooLong
        );
    }
    // The rest that fits completes it even now.
    let rest = Piece::new(65_504, false, &bytes(11)).packet(false);
    assert_eq!(feed(&mut table, &[rest])[0].len(), 65_535);
}

#[test]
fn a_longer_first_header_makes_the_packet_too_long() {
    let payload = bytes(65_515);
    let pieces = cut(&payload, 32_000);
    let mut first = pieces[0].packet(false);
    // One word of options that say nothing.
    first.splice(20..20, [1; 4]);
    let mut view = Ipv4Packet::new_unchecked(&mut first);
    view.set_header_len(24);
    view.set_total_len(32_024);
    view.fill_checksum();
    let mut table = Reassembly::default();
    for piece in &pieces[1..] {
        let outcome = table.insert(now(0), &piece.packet(false));
        assert!(matches!(outcome, Outcome::Waiting));
    }
    assert_eq!(refusal(table.insert(now(0), &first)), Refusal::TooLong);
    assert!(table.datagrams.is_empty());
}

#[test]
fn malformed_fragments_do_no_harm_to_the_datagram() {
    for v6 in [false, true] {
        let payload = bytes(32);
        let mut table = Reassembly::default();
        let [first, last] = &cut(&payload, 24)[..] else {
            panic!()
        };
        assert!(feed(&mut table, &[first.packet(v6)]).is_empty());
        for piece in [
            Piece::new(24, true, &bytes(7)),
            Piece::new(24, true, &[]),
            Piece::new(24, false, &[]),
        ] {
            let outcome = table.insert(now(0), &piece.packet(v6));
            assert_eq!(refusal(outcome), Refusal::Malformed);
        }
        assert_eq!(
            feed(&mut table, &[last.packet(v6)]),
            [whole(v6, 7, &payload)]
        );
    }
}

#[test]
fn what_is_no_fragment_is_refused() {
    let mut table = Reassembly::default();
    let mut wrong_sum = Piece::new(8, false, &bytes(8)).v4();
    wrong_sum[10] ^= 1;
    for packet in [
        vec![],
        whole(false, 1, &[1]),
        whole(true, 1, &[1]),
        wrong_sum,
    ] {
        assert_eq!(refusal(table.insert(now(0), &packet)), Refusal::Malformed);
    }
}

#[test]
fn overlaps_end_the_datagram_and_its_rest() {
    for v6 in [false, true] {
        for (offset, more, size) in [
            (8, true, 16),
            (24, true, 16),
            (0, true, 16),
            (16, true, 24),
            (8, false, 8),
            (40, false, 8),
        ] {
            let payload = bytes(48);
            let mut table = Reassembly::default();
            let [a, b, c] = &cut(&payload, 16)[..] else {
                panic!()
            };
            // The last one is there, then the first.
            assert!(feed(&mut table, &[c.packet(v6), a.packet(v6), b.packet(v6)]).len() == 1);
            assert!(feed(&mut table, &[c.packet(v6), a.packet(v6)]).is_empty());
            let bad = Piece::new(offset, more, &vec![0xee; size]);
            assert_eq!(
                refusal(table.insert(now(0), &bad.packet(v6))),
                Refusal::Overlap,
                "{bad:?}"
            );
            for piece in [a, b, c] {
                let outcome = table.insert(now(0), &piece.packet(v6));
                assert_eq!(refusal(outcome), Refusal::Overlap);
            }
            assert!(table.expire(now(100)).is_none());
            assert!(table.datagrams.is_empty());
        }
    }
}

#[test]
fn two_ends() {
    for sizes in [[8, 16], [16, 8]] {
        let mut table = Reassembly::default();
        let [one, other] = sizes.map(|size| Piece::new(64, false, &bytes(size)).v4());
        assert!(feed(&mut table, &[one]).is_empty());
        assert_eq!(refusal(table.insert(now(0), &other)), Refusal::Overlap);
    }
    // An end where another fragment says that more follows.
    let mut table = Reassembly::default();
    assert!(feed(&mut table, &[Piece::new(8, true, &bytes(8)).v4()]).is_empty());
    let end = Piece::new(8, false, &bytes(8)).v4();
    assert_eq!(refusal(table.insert(now(0), &end)), Refusal::Overlap);
}

#[test]
fn a_duplicate_is_one_with_the_same_content() {
    let payload = bytes(24);
    let pieces = cut(&payload, 8);
    let mut table = Reassembly::default();
    let twice: Vec<_> = pieces[..2]
        .iter()
        .flat_map(|p| [p.v4(), p.v4()])
        .chain([pieces[2].v4()])
        .collect();
    assert_eq!(feed(&mut table, &twice), [whole(false, 7, &payload)]);
    assert!(feed(&mut table, &[pieces[0].v4()]).is_empty());
    let other = Piece::new(0, true, &[0xee; 8]).v4();
    assert_eq!(refusal(table.insert(now(0), &other)), Refusal::Overlap);
}

#[test]
fn an_identification_is_apart_for_each_protocol_of_v4() {
    let payload = bytes(16);
    let [a, b] = &cut(&payload, 8)[..] else {
        panic!()
    };
    let icmp = Piece {
        protocol: 1,
        payload: vec![0xee; 8],
        ..a.clone()
    };
    let mut table = Reassembly::default();
    let packets = [a.v4(), icmp.v4(), b.v4()];
    assert_eq!(feed(&mut table, &packets), [whole(false, 7, &payload)]);
    assert_eq!(table.datagrams.len(), 1);
    // The next header of a later IPv6 fragment means nothing.
    let later = Piece {
        protocol: 1,
        ..b.clone()
    };
    let mut table = Reassembly::default();
    assert_eq!(
        feed(&mut table, &[later.v6(), a.v6()]),
        [whole(true, 7, &payload)]
    );
}

#[test]
fn atomic_fragments_meet_no_others() {
    let payload = bytes(24);
    let pieces = cut(&payload, 8);
    let mut table = Reassembly::default();
    let atomic = Piece::new(0, false, &[0xee; 13]).v6();
    let packets = [pieces[0].v6(), atomic, pieces[1].v6(), pieces[2].v6()];
    assert_eq!(
        feed(&mut table, &packets),
        [whole(true, 7, &[0xee; 13]), whole(true, 7, &payload)]
    );
}

#[test]
fn extension_headers_in_front_stay() {
    let options = [44, 0, 1, 4, 0, 0, 0, 0];
    let kept = [UDP, 0, 1, 4, 0, 0, 0, 0];
    let payload = bytes(24);
    let packets: Vec<_> = cut(&payload, 16)
        .iter()
        .map(|piece| v6_packet(60, &[&options, &piece.v6()[40..]]))
        .collect();
    let mut table = Reassembly::default();
    assert_eq!(
        feed(&mut table, &packets),
        [v6_packet(60, &[&kept, &payload])]
    );
    // More of them than there is room for.
    let long = [&[44, 30][..], &[0; 246]].concat();
    let packet = v6_packet(60, &[&long, &Piece::new(8, false, &[1]).v6()[40..]]);
    assert_eq!(refusal(table.insert(now(0), &packet)), Refusal::Malformed);
}

#[test]
fn the_first_fragment_holds_all_headers() {
    let mut table = Reassembly::default();
    let first = |protocol, payload: &[u8]| {
        Piece {
            protocol,
            ..Piece::new(0, true, payload)
        }
        .v6()
    };
    let destination_options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    for cut in [
        first(6, &bytes(16)),
        first(60, &destination_options(UDP)),
        first(60, &[UDP, 1, 1, 4, 0, 0, 0, 0]),
        first(60, &destination_options(60).repeat(10)),
    ] {
        assert_eq!(refusal(table.insert(now(0), &cut)), Refusal::HeadersCut);
    }
    let enough = [&destination_options(UDP)[..], &bytes(8)].concat();
    for whole in [
        first(60, &enough),
        first(6, &bytes(24)),
        first(99, &bytes(8)),
    ] {
        let mut table = Reassembly::default();
        assert!(matches!(table.insert(now(0), &whole), Outcome::Waiting));
    }
}

#[test]
fn time_runs_out() {
    let mut table = Reassembly::default();
    assert_eq!(table.next_deadline(), None);
    let first = Piece::new(0, true, &bytes(16));
    let later = Piece {
        id: 8,
        ..Piece::new(16, true, &bytes(8))
    };
    for (v6, at) in [(true, 0), (false, 5)] {
        for piece in [&first, &later] {
            let outcome = table.insert(now(at), &piece.packet(v6));
            assert!(matches!(outcome, Outcome::Waiting));
        }
    }
    assert_eq!(table.next_deadline(), Some(now(35)));
    assert!(table.expire(now(34)).is_none());
    let quote = table.expire(now(35)).unwrap();
    assert_eq!(quote.packet(), first.v4());
    assert!(table.expire(now(35)).is_none());
    assert_eq!(table.next_deadline(), Some(now(60)));
    let quote = table.expire(now(61)).unwrap();
    assert_eq!(quote.packet(), first.v6());
    assert!(table.expire(now(61)).is_none());
    assert_eq!(table.next_deadline(), None);
    assert_eq!(table.discarded(), 4);
}

/// N20, and the flood of it.
#[test]
fn incomplete_datagrams_are_in_nobodys_way() {
    let mut table = Reassembly::default();
    let incomplete = |id| Piece {
        id,
        ..Piece::new(65_000, false, &bytes(8))
    };
    let mut complete = 0;
    for id in 0..1000 {
        for junk in 0..if id == 0 { 1 } else { 5 } {
            table.insert(now(0), &incomplete(10_000 + id * 5 + junk).v4());
        }
        let pieces = cut(&bytes(3000), 1480);
        let packets: Vec<_> = pieces
            .into_iter()
            .map(|piece| Piece { id, ..piece }.v4())
            .collect();
        complete += feed(&mut table, &packets).len();
    }
    assert_eq!(complete, 1000);
    assert!(table.datagrams.len() <= MAX_DATAGRAMS);
    assert!(table.spare.len() <= SPARE);
}
