//! The Internet checksum (RFC 1071), over data that lies in several pieces.

use std::net::IpAddr;

/// A one's complement sum that is being built.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    sum: u64,
    /// An odd number of bytes was added: the next one is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The sum over the pseudo-header of RFC 9293, 3.1, RFC 768 and RFC 8200, 8.1.
    pub(crate) fn pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        length: usize,
    ) -> Self {
        let mut sum = Self::default();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.sum += u64::from(protocol) + length as u64;
        sum
    }

    /// Adds bytes behind those added before.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // A sum of 32-bit words folds to that of their halves, and a 64-bit
        // accumulator holds 2^32 of them.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_be_bytes(*word)))
            .sum();
        let (halves, rest) = rest.as_chunks::<2>();
        for half in halves {
            sum += u64::from(u16::from_be_bytes(*half));
        }
        if let [last] = rest {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
        // The byte order of all words is exchanged at an odd offset (RFC 1071, 2 (B)).
        self.sum += if self.odd {
            u64::from(fold(sum).swap_bytes())
        } else {
            sum
        };
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum itself, as `VIRTIO_NET_HDR_F_NEEDS_CSUM` expects that of the pseudo-header.
    pub(crate) fn partial(self) -> u16 {
        fold(self.sum)
    }

    /// The checksum.
    pub(crate) fn finish(self) -> u16 {
        !fold(self.sum)
    }

    /// Whether what was added, its checksum included, is as it was sent.
    pub(crate) fn is_valid(self) -> bool {
        self.finish() == 0
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the loop leaves 16 bits")]
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::Sum;

    /// RFC 1071, 3.
    #[test]
    fn example() {
        let mut sum = Sum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), 0xddf2);
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            cuts in proptest::collection::vec(0_usize..300, 0..5),
        ) {
            let plain = bytes
                .chunks(2)
                .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
                .sum::<u64>();
            let mut folded = plain;
            while folded > 0xffff {
                folded = (folded & 0xffff) + (folded >> 16);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut sum = Sum::default();
            let mut from = 0;
            for cut in cuts {
                sum.add(&bytes[from..cut]);
                from = cut;
            }
            sum.add(&bytes[from..]);
            proptest::prop_assert_eq!(u64::from(sum.partial()), folded);
        }
    }
}
