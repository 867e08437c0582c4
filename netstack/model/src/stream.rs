//! Bytes that are told by their position, so that nobody has to keep them.

use std::sync::OnceLock;

use crate::source::Rng;

/// Bytes after which a stream repeats: a prime, so that no span of sequence numbers or
/// rings that is taken for another goes unnoticed.
const PERIOD: usize = 65_521;
/// The longest piece that is looked at as one.
const LONGEST: usize = 1 << 16;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut rng = Rng::new(5);
        let mut noise: Vec<u8> = (0..PERIOD.div_ceil(8))
            .flat_map(|_| rng.number().to_le_bytes())
            .collect();
        noise.truncate(PERIOD);
        noise.extend_from_within(..);
        noise.extend_from_within(..LONGEST.min(PERIOD));
        noise
    })
}

/// Bytes that are told by their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(pub u32);

impl Stream {
    /// At most 64 KiB from `position` on.
    pub fn at(self, position: u64, length: usize) -> &'static [u8] {
        let start = (position + u64::from(self.0) * 4099) % PERIOD as u64;
        &noise()[start as usize..start as usize + length]
    }

    /// Whether `data` is what stands at `position`.
    pub fn is(self, position: u64, data: &[u8]) -> bool {
        (position..)
            .step_by(LONGEST)
            .zip(data.chunks(LONGEST))
            .all(|(at, piece)| self.at(at, piece.len()) == piece)
    }

    pub fn put(self, position: u64, out: &mut [u8]) {
        for (at, piece) in (position..).step_by(LONGEST).zip(out.chunks_mut(LONGEST)) {
            piece.copy_from_slice(self.at(at, piece.len()));
        }
    }

    /// As [`Stream::is`]; the position is a sequence number, behind whose largest comes 0.
    pub fn is_from(self, sequence: u32, data: &[u8]) -> bool {
        let (before, behind) = data.split_at(wrap(sequence, data.len()));
        self.is(sequence.into(), before) && self.is(0, behind)
    }

    /// As [`Stream::put`], likewise.
    pub fn put_from(self, sequence: u32, out: &mut [u8]) {
        let (before, behind) = out.split_at_mut(wrap(sequence, out.len()));
        self.put(sequence.into(), before);
        self.put(0, behind);
    }
}

/// Bytes before sequence numbers begin again.
fn wrap(sequence: u32, length: usize) -> usize {
    ((1 << 32) - u64::from(sequence)).min(length as u64) as usize
}
