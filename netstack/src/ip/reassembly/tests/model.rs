//! The table beside a model that is by the book.

use super::*;

/// What a datagram is, by the book and without a thought to cost.
#[derive(Debug, Default)]
struct Model {
    pieces: Vec<Piece>,
    refused: bool,
}

impl Model {
    fn insert(&mut self, piece: &Piece) -> Option<Vec<u8>> {
        let range = |p: &Piece| p.offset..p.offset + p.payload.len();
        let new = range(piece);
        let same = |p: &Piece| range(p) == new && p.more == piece.more;
        if self.refused
            || self
                .pieces
                .iter()
                .any(|p| same(p) && p.payload == piece.payload)
        {
            return None;
        }
        self.refused = self.pieces.iter().any(|p| {
            let old = range(p);
            let overlap = old.start < new.end && new.start < old.end;
            let behind = !p.more && new.end > old.end || !piece.more && old.end > new.end;
            overlap || behind
        });
        if self.refused {
            return None;
        }
        self.pieces.push(piece.clone());
        self.pieces.sort_by_key(|p| p.offset);
        let mut payload = Vec::new();
        for piece in &self.pieces {
            if piece.offset != payload.len() {
                return None;
            }
            payload.extend_from_slice(&piece.payload);
        }
        (!self.pieces.last()?.more).then_some(payload)
    }
}

/// A datagram of `len` bytes cut in places that are drawn, plus duplicates and
/// perhaps pieces that do not fit, in an order that is drawn.
fn pieces(honest: bool) -> impl Strategy<Value = (usize, Vec<Piece>)> {
    (
        9_usize..1500,
        vec(1_usize..200, 0..12),
        vec((0_usize..64, 0_usize..64, any::<bool>()), 0..4),
    )
        .prop_map(move |(len, mut cuts, odd)| {
            let payload = bytes(len);
            for cut in &mut cuts {
                *cut *= 8;
            }
            cuts.retain(|cut| *cut < len && *cut >= 8);
            cuts.extend([0, len]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces: Vec<_> = cuts
                .windows(2)
                .map(|w| Piece::new(w[0], w[1] < len, &payload[w[0]..w[1]]))
                .collect();
            if pieces.len() == 1 {
                pieces = cut(&payload, 8);
            }
            for (at, size, more) in odd {
                if honest {
                    pieces.push(pieces[at % pieces.len()].clone());
                } else {
                    let size = if more { size.max(1) * 8 } else { size.max(1) };
                    pieces.push(Piece::new((at * 8).max(8), more, &bytes(size)));
                }
            }
            (len, pieces)
        })
        .prop_flat_map(|(len, pieces)| (Just(len), Just(pieces).prop_shuffle()))
}

proptest! {
    #![proptest_config(cases(512))]

    /// What is cut, mixed up and doubled is what it was. Duplicates that come after
    /// the end begin a datagram of their own, which is never complete unless all of
    /// it was doubled.
    #[test]
    fn cut_and_mended(v6 in any::<bool>(), (len, pieces) in pieces(true)) {
        let packets: Vec<_> = pieces.iter().map(|p| p.packet(v6)).collect();
        let complete = feed(&mut Reassembly::default(), &packets);
        prop_assert!(!complete.is_empty());
        for packet in complete {
            prop_assert_eq!(packet, whole(v6, 7, &bytes(len)));
        }
    }

    /// Whatever comes, the outcome is that of the model.
    #[test]
    fn as_the_model(v6 in any::<bool>(), (_, pieces) in pieces(false)) {
        let mut table = Reassembly::default();
        let mut model = Model::default();
        for piece in &pieces {
            let expected = model.insert(piece);
            match (table.insert(now(0), &piece.packet(v6)), expected) {
                (Outcome::Complete(found), Some(payload)) => {
                    prop_assert_eq!(found.packet(), whole(v6, 7, &payload));
                    table.recycle(found);
                    model = Model::default();
                }
                (Outcome::Waiting, None) => prop_assert!(!model.refused),
                (Outcome::Dropped(Refusal::Overlap), None) => prop_assert!(model.refused),
                (found, expected) => prop_assert!(false, "{:?} for {:?}", found, expected),
            }
        }
    }

    #[test]
    fn any_bytes(packets in vec(vec(any::<u8>(), 0..120), 0..20), v6 in any::<bool>()) {
        let mut table = Reassembly::default();
        for mut packet in packets {
            if let Some(first) = packet.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let len = packet.len();
            if v6 && len >= 40 {
                packet[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
                packet[6] = [0, 43, 44, 60][usize::from(packet[6] % 4)];
            } else if len >= 20 {
                packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
                Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
            }
            if let Outcome::Complete(whole) = table.insert(now(0), &packet) {
                prop_assert!(whole.packet().len() <= len);
                table.recycle(whole);
            }
        }
    }
}
