//! Where the choices of a generator come from: the bytes of a fuzzer, or a seed.

/// A source of choices.
pub trait Source {
    /// Nothing is left; what is asked for from now on is zero.
    fn is_empty(&self) -> bool;

    fn byte(&mut self) -> u8;

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// A number below `bound`, which is at most 65,536.
    fn below(&mut self, bound: usize) -> usize {
        let number = if bound <= 256 {
            u32::from(self.byte())
        } else {
            u32::from(self.u16())
        };
        number as usize % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True once in so many times.
    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == bound - 1
    }

    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.byte());
    }
}

/// The bytes of a fuzzer.
#[derive(Debug, Clone)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Source for Bytes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }
}

/// A small deterministic generator (splitmix64), which has no end.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
    /// Bits of the last number that are left.
    word: u64,
    left: u32,
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            word: 0,
            left: 0,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bits(&mut self, count: u32) -> u64 {
        if self.left < count {
            self.word = self.number();
            self.left = 64;
        }
        let bits = self.word & ((1 << count) - 1);
        self.word >>= count;
        self.left -= count;
        bits
    }
}

impl Source for Rng {
    fn is_empty(&self) -> bool {
        false
    }

    fn byte(&mut self) -> u8 {
        self.bits(8) as u8
    }

    fn u16(&mut self) -> u16 {
        self.bits(16) as u16
    }

    fn u32(&mut self) -> u32 {
        self.bits(32) as u32
    }
}
