//! Sequence numbers (RFC 9293, 3.4): 32 bits, compared modulo 2^32.

use std::ops::{Add, AddAssign};

use smoltcp::wire::TcpSeqNumber;

/// A sequence number. Any two that are compared are less than 2^31 apart, or
/// the answer means nothing; segments are checked against the window first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seq(u32);

impl Seq {
    pub(super) fn new(value: u32) -> Self {
        Self(value)
    }

    /// How far this is behind `earlier`; negative when it comes before.
    pub(super) fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Bytes from `earlier` to here; 0 when this comes before.
    pub(super) fn after(self, earlier: Self) -> usize {
        usize::try_from(self.since(earlier)).unwrap_or(0)
    }

    pub(super) fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    pub(super) fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    pub(super) fn min(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }

    /// The number `bytes` earlier.
    pub(super) fn minus(self, bytes: usize) -> Self {
        Self(self.0.wrapping_sub(low32(bytes)))
    }

    /// As a header field.
    pub(super) fn value(self) -> u32 {
        self.0
    }
}

impl Add<usize> for Seq {
    type Output = Self;

    fn add(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(low32(bytes)))
    }
}

impl AddAssign<usize> for Seq {
    fn add_assign(&mut self, bytes: usize) {
        *self = *self + bytes;
    }
}

impl From<TcpSeqNumber> for Seq {
    fn from(number: TcpSeqNumber) -> Self {
        Self(number.0.cast_unsigned())
    }
}

impl From<Seq> for TcpSeqNumber {
    fn from(seq: Seq) -> Self {
        Self(seq.0.cast_signed())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is meant")]
fn low32(bytes: usize) -> u32 {
    bytes as u32
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn order_survives_the_wrap() {
        let before = Seq::new(u32::MAX - 9);
        let behind = before + 20;
        assert_eq!(behind, Seq::new(10));
        assert!(before.is_before(behind) && !behind.is_before(before));
        assert_eq!((behind.since(before), before.since(behind)), (20, -20));
        assert_eq!((behind.after(before), before.after(behind)), (20, 0));
        assert_eq!((before.max(behind), before.min(behind)), (behind, before));
        assert_eq!(behind.minus(20), before);
    }
}
