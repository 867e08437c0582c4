//! Bytes that are told by their position, so that nobody has to keep them.

use std::net::SocketAddrV4;
use std::sync::OnceLock;

use super::shim::Rng;

/// Bytes after which a stream repeats: a prime, so that no span of sequence
/// numbers or rings that is taken for another goes unnoticed.
const PERIOD: usize = 1_048_573;
/// The longest piece that is looked at as one.
pub(super) const LONGEST: usize = 1 << 17;

/// Bytes that are told by their position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream(pub(super) u64);

impl Stream {
    pub(super) fn at(self, position: u64, length: usize) -> &'static [u8] {
        static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
        let noise = NOISE.get_or_init(|| {
            let mut rng = Rng(5);
            let mut noise: Vec<u8> = (0..PERIOD.div_ceil(8))
                .flat_map(|_| rng.next().to_le_bytes())
                .collect();
            noise.truncate(PERIOD);
            noise.extend_from_within(..LONGEST);
            noise
        });
        let start = (position + self.0 * 4099) % u64::try_from(PERIOD).unwrap();
        let start = usize::try_from(start).unwrap();
        &noise[start..start + length]
    }
}

/// The streams of a connection.
pub(super) fn up(to: SocketAddrV4) -> Stream {
    Stream(2 * u64::from(to.ip().octets()[3]))
}

pub(super) fn down(to: SocketAddrV4) -> Stream {
    Stream(2 * u64::from(to.ip().octets()[3]) + 1)
}

/// The part of an offset that a sequence number shows.
pub(super) fn low(offset: u64) -> u32 {
    u32::try_from(offset & u64::from(u32::MAX)).unwrap()
}

pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}
