//! Payload memory of all TCP flows, out of one budget.
//!
//! # Theory of operation
//!
//! A flow holds a ring only while there is something in it: one for what the
//! host has sent until the container acknowledges it, one for what the container
//! has sent while the host's socket is full or a segment is missing. An idle flow
//! holds none. Rings that come back are kept, the last one first (its pages are
//! warm), up to [`KEPT`] bytes; the rest goes back to the system.
//!
//! The size of a ring follows what is left of the budget, so that few flows are
//! not held back and many share. Where not even the smallest is left, the flow that
//! needs one is reset: without memory it would stand still.

use smoltcp::storage::RingBuffer;

/// Bytes that wait in order.
pub(super) type Ring = RingBuffer<'static, u8>;

/// Ring sizes in bytes, largest first. 1 MiB is where throughput stops growing.
const SIZES: [usize; 4] = [1 << 20, 256 << 10, 64 << 10, 16 << 10];
/// From one size to the next.
const GROWTH: usize = 4;
/// Bytes of unused rings that are kept.
const KEPT: usize = 4 << 20;
/// The part of what is left that one ring may have.
const SHARE: usize = 128;

/// The rings that are not in use, and how many bytes are.
#[derive(Debug)]
pub(crate) struct Rings {
    budget: usize,
    lent: usize,
    kept: usize,
    free: [Vec<Ring>; SIZES.len()],
    /// A flow has got nothing.
    refused: bool,
}

impl Rings {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            lent: 0,
            kept: 0,
            free: Default::default(),
            refused: false,
        }
    }

    /// Bytes that flows hold.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// The size of the ring that a flow would get now.
    pub(super) fn size(&self) -> usize {
        let share = self.budget.saturating_sub(self.lent) / SHARE;
        let fits = |size: &&usize| **size <= share;
        *SIZES.iter().find(fits).unwrap_or(&SIZES[SIZES.len() - 1])
    }

    /// An empty ring of at most `most` bytes, or of the smallest size; `None` when the
    /// budget is used up. The flow can not go on then: see [`Rings::has_refused`].
    pub(super) fn take(&mut self, most: usize) -> Option<Ring> {
        let ring = self.try_take(most);
        self.refused |= ring.is_none();
        ring
    }

    /// Whether a flow has got no ring since the last call.
    pub(super) fn has_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn try_take(&mut self, most: usize) -> Option<Ring> {
        if self.budget.saturating_sub(self.lent) < SIZES[SIZES.len() - 1] {
            return None;
        }
        let size = self.size().min(most.max(SIZES[SIZES.len() - 1]));
        let class = SIZES.iter().position(|fits| *fits <= size);
        let free = class.and_then(|class| self.free.get_mut(class)?.pop());
        let ring = match free {
            Some(ring) => {
                self.kept -= ring.capacity();
                ring
            }
            None => {
                let size = class.map_or(size, |class| SIZES[class]);
                // Zeroed by the system, page by page, when they are first written.
                Ring::new(vec![0; size])
            }
        };
        self.lent += ring.capacity();
        Some(ring)
    }

    /// Moves what is in a ring to one of the next size, if there is one to be had.
    pub(super) fn grow(&mut self, ring: &mut Ring) {
        let Some(mut larger) = self.try_take(ring.capacity() * GROWTH) else {
            return;
        };
        if larger.capacity() > ring.capacity() {
            let first = ring.get_allocated(0, ring.len());
            let rest = ring.get_allocated(first.len(), ring.len() - first.len());
            let moved = larger.enqueue_slice(first) + larger.enqueue_slice(rest);
            debug_assert_eq!(moved, ring.len());
            std::mem::swap(ring, &mut larger);
        }
        self.give(larger);
    }

    /// Takes a ring back.
    pub(super) fn give(&mut self, mut ring: Ring) {
        let size = ring.capacity();
        self.lent -= size;
        if self.kept + size > KEPT {
            return;
        }
        if let Some(class) = SIZES.iter().position(|of_class| *of_class == size) {
            ring.clear();
            self.kept += size;
            self.free[class].push(ring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Rings, SIZES};

    #[test]
    fn sizes_follow_the_budget_and_everything_comes_back() {
        let mut rings = Rings::new(256 << 20);
        let mut lent = Vec::new();
        while let Some(ring) = rings.take(usize::MAX) {
            assert!(rings.size() <= ring.capacity());
            lent.push(ring);
        }
        assert!(rings.has_refused() && !rings.has_refused());
        assert_eq!(lent[0].capacity(), SIZES[0]);
        assert_eq!(lent[lent.len() - 1].capacity(), SIZES[3]);
        assert!(lent.len() > 1000);
        let left = (256 << 20) - rings.lent();
        assert!(left < SIZES[3], "{left} bytes are left");
        for ring in lent {
            rings.give(ring);
        }
        assert_eq!(rings.lent(), 0);
        assert!(rings.kept <= KEPT);
        assert_eq!(rings.take(1).unwrap().capacity(), SIZES[3]);
        assert_eq!(rings.take(100 << 10).unwrap().capacity(), SIZES[2]);
    }

    #[test]
    fn what_is_in_a_ring_moves_to_the_larger_one() {
        let mut rings = Rings::new(256 << 20);
        let mut ring = rings.take(0).unwrap();
        let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(SIZES[3]).collect();
        // Its content wraps.
        assert_eq!(ring.enqueue_slice(&pattern[..10_000]), 10_000);
        ring.dequeue_allocated(8_000);
        assert_eq!(ring.enqueue_slice(&pattern[10_000..]), SIZES[3] - 10_000);
        assert_eq!(ring.enqueue_slice(&pattern[..100]), 100);
        let mut want = pattern[8_000..].to_vec();
        want.extend_from_slice(&pattern[..100]);
        for size in [SIZES[2], SIZES[1], SIZES[0], SIZES[0]] {
            rings.grow(&mut ring);
            assert_eq!((ring.capacity(), rings.lent()), (size, size));
            assert_eq!(ring.get_allocated(0, want.len()), want);
        }
    }
}
