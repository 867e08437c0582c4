//! Frames out of a packet socket's rings, several at a time.
//!
//! # Theory of operation
//!
//! Frames are looked at where the kernel has put them, and their slots given back
//! when the batch has been dealt with. A slot holds one frame, whatever its length,
//! and the container is not made to wait when there is none left, as a TAP would
//! make it: the frame is lost. A thousand connections that are opened at once would
//! lose most of their first segments, and again when their timers expire together.
//! So when half of the slots of a ring are full, all are emptied into memory of our own, which
//! takes less time than it takes the container to fill them, and from there frames
//! are taken first. That costs the copy that a read from a TAP costs, and only then.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::frames::{LONG, MOST, Size};
use crate::sys::packet::{self, RINGS, Rings};

/// Most bytes, and most frames, that are held beside the ring; what comes then stays
/// in the ring until there is room.
const MOST_BYTES: usize = 8 << 20;
const MOST_FRAMES: usize = 8192;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Queue {
    ring: Rings,
    /// All but the sender's: they belong to nobody else.
    sockets: [OwnedFd; RINGS - 1],
    spilled: Spilled,
    /// The batch is of what was spilled; else of the ring.
    from_spilled: bool,
    size: Size,
}

impl Queue {
    pub(super) fn new(ring: Rings, sockets: [OwnedFd; RINGS - 1]) -> Self {
        Self {
            ring,
            sockets,
            spilled: Spilled::default(),
            from_spilled: false,
            size: (0, 0),
        }
    }

    /// Takes a batch; false when there is nothing more.
    pub(super) fn read(&mut self) -> bool {
        self.end_batch();
        self.relieve();
        self.from_spilled = !self.spilled.is_empty();
        let (mut frames, mut bytes) = (0, 0);
        let mut more = true;
        while frames < MOST {
            let length = if self.from_spilled {
                self.spilled.take()
            } else {
                self.ring.take()
            };
            let Some(length) = length else {
                // Behind what was spilled there is the ring.
                more = self.from_spilled;
                break;
            };
            (frames, bytes) = (frames + 1, bytes + length);
            if length < LONG {
                break;
            }
        }
        self.size = (frames, bytes);
        more
    }

    /// Makes room in a ring that fills up, between two batches.
    pub(super) fn relieve(&mut self) {
        if !self.ring.is_filling() {
            return;
        }
        while self.spilled.has_room() && self.ring.take().is_some() {
            while self.ring.take().is_some() {}
            for frame in self.ring.taken() {
                self.spilled.push(frame);
            }
            self.ring.give_back();
        }
    }

    fn end_batch(&mut self) {
        self.ring.give_back();
        self.spilled.end_batch();
        self.size = (0, 0);
    }

    /// The batch has been dealt with; how many frames were lost meanwhile.
    pub(super) fn release(&mut self, socket: BorrowedFd<'_>) -> u64 {
        self.end_batch();
        if !self.ring.is_losing() {
            return 0;
        }
        let others = self.sockets.iter().map(AsFd::as_fd);
        let lost = others.chain([socket]).map(packet::lost);
        lost.map(|lost| u64::from(lost.unwrap_or(0))).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (spilled, ring) = if self.from_spilled {
            (Some(self.spilled.batch()), None)
        } else {
            (None, Some(self.ring.taken()))
        };
        let spilled = spilled.into_iter().flatten();
        spilled.chain(ring.into_iter().flatten())
    }

    /// The descriptors besides the sender's.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }
}

/// Frames in the order in which they came.
#[derive(Debug, Default)]
struct Spilled {
    bytes: Vec<u8>,
    /// Where each ends; each begins where the one before it ends.
    ends: VecDeque<usize>,
    /// Where the first begins.
    begin: usize,
    /// How many of the first are the batch.
    taken: usize,
}

impl Spilled {
    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn has_room(&self) -> bool {
        self.bytes.len() < MOST_BYTES && self.ends.len() < MOST_FRAMES
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push_back(self.bytes.len());
    }

    fn place(&self, n: usize) -> Option<(usize, usize)> {
        let end = *self.ends.get(n)?;
        let begin = n
            .checked_sub(1)
            .map_or(Some(&self.begin), |n| self.ends.get(n));
        Some((*begin?, end))
    }

    /// Makes the next frame part of the batch; its length.
    fn take(&mut self) -> Option<usize> {
        let (begin, end) = self.place(self.taken)?;
        self.taken += 1;
        Some(end - begin)
    }

    fn batch(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.taken).filter_map(|n| {
            let (begin, end) = self.place(n)?;
            self.bytes.get(begin..end)
        })
    }

    fn end_batch(&mut self) {
        for end in self.ends.drain(..self.taken) {
            self.begin = end;
        }
        self.taken = 0;
        if self.ends.is_empty() && !self.bytes.is_empty() {
            // Its memory is given back: it may never be needed again.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spilled_comes_in_order_and_its_memory_is_given_back() {
        let mut spilled = Spilled::default();
        let frames: Vec<Vec<u8>> = (1..=100_u8).map(|n| vec![n; usize::from(n)]).collect();
        let mut seen = Vec::new();
        for (n, frame) in frames.iter().enumerate() {
            spilled.push(frame);
            if n % 3 == 0 {
                assert_eq!(spilled.take(), Some(seen.len() + 1));
                assert_eq!(spilled.batch().count(), 1);
                seen.extend(spilled.batch().map(<[u8]>::to_vec));
                spilled.end_batch();
            }
        }
        while spilled.take().is_some() {}
        assert_eq!(spilled.batch().count(), 100 - seen.len());
        seen.extend(spilled.batch().map(<[u8]>::to_vec));
        assert_eq!(seen, frames);
        spilled.end_batch();
        assert!(spilled.is_empty() && spilled.take().is_none());
        assert_eq!((spilled.bytes.capacity(), spilled.begin), (0, 0));
    }

    #[test]
    fn there_is_an_end_to_what_is_spilled() {
        let mut spilled = Spilled::default();
        while spilled.has_room() {
            spilled.push(&[0; 65_000]);
        }
        assert!(spilled.bytes.len() < MOST_BYTES + 65_000);
        let mut spilled = Spilled::default();
        while spilled.has_room() {
            spilled.push(&[0; 1]);
        }
        assert_eq!(spilled.ends.len(), MOST_FRAMES);
    }
}
