//! Streams of which every byte is known by its place.

/// A stream's content: no two places of it, and no two streams, are alike by
/// more than chance, so that a byte that is lost, repeated, out of place or of
/// another stream shows.
#[derive(Debug)]
pub(super) struct Pattern {
    key: u64,
    scratch: Vec<u8>,
}

const WORD: usize = size_of::<u64>();

impl Pattern {
    pub(super) fn new(key: u64) -> Self {
        Self {
            key,
            scratch: Vec::new(),
        }
    }

    /// The `length` bytes from `offset` on.
    pub(super) fn at(&mut self, offset: u64, length: usize) -> &[u8] {
        let first = offset / WORD as u64;
        // Less than a word.
        let skip = usize::try_from(offset % WORD as u64).unwrap_or_default();
        let words = (skip + length).div_ceil(WORD);
        self.scratch.resize(words * WORD, 0);
        for (index, place) in (first..).zip(self.scratch.chunks_exact_mut(WORD)) {
            place.copy_from_slice(&word(self.key, index).to_le_bytes());
        }
        self.scratch.get(skip..skip + length).unwrap_or_default()
    }

    /// Where `bytes`, which came at `offset`, are wrong first.
    pub(super) fn wrong(&mut self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let expected = self.at(offset, bytes.len());
        if expected == bytes {
            return None;
        }
        let differs = expected.iter().zip(bytes).position(|(a, b)| a != b);
        differs.map(|place| offset + place as u64)
    }
}

/// SplitMix64's output function over a counter.
fn word(key: u64, index: u64) -> u64 {
    let state = key.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_whole() {
        let whole = Pattern::new(7).at(0, 1000).to_vec();
        let mut pattern = Pattern::new(7);
        for (from, to) in [(0, 1), (1, 9), (8, 16), (3, 1000), (999, 1000), (5, 5)] {
            assert_eq!(pattern.at(from as u64, to - from), &whole[from..to]);
        }
    }

    #[test]
    fn what_is_wrong_is_found_where_it_is() {
        let mut pattern = Pattern::new(1);
        let mut bytes = pattern.at(100, 500).to_vec();
        assert_eq!(pattern.wrong(100, &bytes), None);
        assert_eq!(pattern.wrong(108, &bytes), Some(108), "out of place");
        assert_eq!(Pattern::new(2).wrong(100, &bytes), Some(100), "another's");
        bytes[401] ^= 0x10;
        assert_eq!(pattern.wrong(100, &bytes), Some(501));
    }
}
