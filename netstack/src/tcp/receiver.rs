//! The container's direction: what it has sent, in order or not, that the host
//! has not taken (RFC 9293, 3.10.7.4; RFC 2018).
//!
//! # Theory of operation
//!
//! As a rule nothing waits here: a segment in order goes from its frame straight
//! to the host's socket. Only what the socket does not take, and what comes ahead
//! of a missing segment, is kept in a ring, the *stash*. The window is what the
//! stash would hold, so nothing is promised that could not be kept, and nothing
//! acknowledged that is not either with the host or in the stash.

use std::io::IoSlice;

use smoltcp::storage::Assembler;

use super::rings::{Ring, Rings};
use super::segment::Segment;
use super::seq::Seq;
use crate::fault::{Fault, is_planted};

/// Our window scale (RFC 7323, 2): 8 MiB at most, in units of 128 bytes.
pub(super) const SCALE: u8 = 7;

#[derive(Debug)]
pub(super) struct Receiver {
    /// RCV.NXT
    nxt: Seq,
    /// Right edge of the widest window that the container was told, and of the
    /// last: the same as long as the stash is as large as the window promised.
    edge: Seq,
    told: Seq,
    /// The last was that of our SYN, which cannot say more than 64 KiB: nobody
    /// waits for more before the first acknowledgement says it.
    told_by_syn: bool,
    /// Largest window.
    capacity: usize,
    shift: u8,
    stash: Option<Ring>,
    gaps: Option<Box<Gaps>>,
    /// Where the stream ends.
    fin: Option<Seq>,
    finished: bool,
    /// The container understands selective acknowledgements.
    sack: bool,
}

/// What lies in the stash behind a gap, as offsets from RCV.NXT.
#[derive(Debug)]
struct Gaps {
    held: Assembler,
    /// Somewhere in the stretch that came last.
    latest: usize,
}

impl Receiver {
    pub(super) fn new(syn: &Segment<'_>, capacity: usize, scaled: bool, sack: bool) -> Self {
        let nxt = syn.seq + 1;
        let (shift, most) = if scaled {
            (SCALE, usize::from(u16::MAX) << SCALE)
        } else {
            (0, usize::from(u16::MAX))
        };
        Self {
            nxt,
            edge: nxt,
            told: nxt,
            told_by_syn: true,
            capacity: capacity.min(most),
            shift,
            stash: None,
            gaps: None,
            fin: None,
            finished: false,
            sack,
        }
    }

    pub(super) fn nxt(&self) -> Seq {
        self.nxt
    }

    /// Bytes in order that wait for the host.
    pub(super) fn queued(&self) -> usize {
        self.stash.as_ref().map_or(0, Ring::len)
    }

    /// The container's end of stream was received.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// RFC 9293, 3.4 (table 6), more lenient at the edges: what begins exactly at
    /// RCV.NXT is looked at whatever the window.
    pub(super) fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        let offset = segment.seq.since(self.nxt);
        let window = self.edge.since(self.nxt);
        let len = i32::try_from(segment.len()).unwrap_or(i32::MAX);
        if offset == 0 {
            true
        } else if len == 0 {
            (0..=window).contains(&offset)
        } else {
            offset < window && offset.saturating_add(len) > 0
        }
    }

    /// Whether a segment of only data, `ahead` bytes behind RCV.NXT, can go
    /// straight to the host.
    pub(super) fn is_next(&self, segment: &Segment<'_>, ahead: usize) -> bool {
        let end = segment.seq + segment.payload.len();
        self.stash.is_none()
            && self.fin.is_none()
            && segment.seq == self.nxt + ahead
            && !self.edge.is_before(end)
    }

    /// The host has taken `taken` of the bytes in `parts`, which follow RCV.NXT;
    /// the rest is kept.
    pub(super) fn passed(&mut self, mut taken: usize, parts: &[IoSlice<'_>], rings: &mut Rings) {
        for part in parts {
            let now = taken.min(part.len());
            taken -= now;
            self.nxt += now;
            let Some(rest) = part.get(now..).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            if self.append(rest, rings) < rest.len() {
                // Not acknowledged, so it comes again.
                return;
            }
        }
    }

    fn append(&mut self, data: &[u8], rings: &mut Rings) -> usize {
        let size = self.capacity.next_power_of_two();
        if self.stash.is_none() {
            self.stash = rings.take(size);
        }
        let Some(stash) = &mut self.stash else {
            return 0;
        };
        let taken = stash.enqueue_slice(data);
        self.nxt += taken;
        taken
    }

    /// Takes what is new of an acceptable segment.
    pub(super) fn accept(&mut self, segment: &Segment<'_>, rings: &mut Rings) {
        if self.finished {
            return;
        }
        let end = segment.seq + segment.payload.len();
        let limit = self.fin.unwrap_or(self.edge).min(self.edge);
        if segment.fin && self.fin.is_none() && !self.edge.is_before(end) {
            self.fin = Some(end);
        }
        let skip = self.nxt.after(segment.seq).min(segment.payload.len());
        let keep = segment.payload.len() - end.after(limit).min(segment.payload.len());
        if let Some(data) = segment.payload.get(skip..keep).filter(|d| !d.is_empty()) {
            let offset = segment.seq.after(self.nxt);
            if offset == 0 && self.gaps.is_none() {
                self.append(data, rings);
            } else {
                self.insert(offset, data, rings);
            }
        }
        if keep < segment.payload.len() && is_planted(Fault::Edge) {
            self.nxt += 1;
        }
        if self.fin == Some(self.nxt) {
            self.nxt += 1;
            self.finished = true;
        }
    }

    /// Keeps data that may lie behind a gap, or fill one.
    fn insert(&mut self, offset: usize, data: &[u8], rings: &mut Rings) {
        let size = self.capacity.next_power_of_two();
        if self.stash.is_none() {
            self.stash = rings.take(size);
        }
        let Some(stash) = &mut self.stash else {
            return;
        };
        let gaps = self.gaps.get_or_insert_with(|| {
            Box::new(Gaps {
                held: Assembler::new(),
                latest: 0,
            })
        });
        let room = stash.window().saturating_sub(offset);
        let data = data.get(..data.len().min(room)).unwrap_or_default();
        // Too many gaps: as if it had been lost.
        let Ok(front) = gaps.held.add_then_remove_front(offset, data.len()) else {
            return;
        };
        gaps.latest = offset.saturating_sub(front);
        let written = stash.write_unallocated(offset, data);
        debug_assert_eq!(written, data.len());
        stash.enqueue_unallocated(front);
        self.nxt += front;
        if gaps.held.is_empty() {
            self.gaps = None;
        }
    }

    /// Something has arrived ahead of what is missing.
    pub(super) fn has_gaps(&self) -> bool {
        self.gaps.is_some()
    }

    /// Lends the contiguous front of what waits; `take` says how much of it is
    /// done with.
    pub(super) fn drain<R>(&mut self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Option<R> {
        let stash = self.stash.as_mut()?;
        let (_, result) = stash.dequeue_many_with(|data| take(data));
        Some(result)
    }

    /// Gives the stash back when there is nothing in it.
    pub(super) fn tidy(&mut self, rings: &mut Rings) {
        if self.gaps.is_none()
            && let Some(stash) = self.stash.take_if(|stash| stash.is_empty())
        {
            rings.give(stash);
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self, rings: &mut Rings) {
        self.gaps = None;
        if let Some(stash) = self.stash.take() {
            rings.give(stash);
        }
    }

    /// What could still be kept.
    fn room(&self) -> usize {
        match &self.stash {
            Some(stash) if self.gaps.is_some() || !stash.is_empty() => {
                stash.window().min(self.capacity)
            }
            // It is given back, and may be larger next time.
            _ => self.capacity,
        }
    }

    /// The window has opened so far that the container should be told (RFC 9293,
    /// 3.8.6.2.2): by a quarter, while it knows of less than half.
    pub(super) fn has_opened(&self) -> bool {
        let known = self.told.after(self.nxt);
        let stash = self.stash.as_ref().map_or(self.capacity, Ring::capacity);
        let most = stash.min(self.capacity);
        !self.finished && !self.told_by_syn && known < most / 2 && self.room() >= known + most / 4
    }

    /// The window as a header field; the container is told now. That of a SYN is
    /// never scaled (RFC 7323, 2.2).
    pub(super) fn advertise(&mut self, syn: bool) -> u16 {
        let shift = if syn { 0 } else { self.shift };
        let field = u16::try_from(self.room() >> shift).unwrap_or(u16::MAX);
        self.told = self.nxt + (usize::from(field) << shift);
        self.told_by_syn = syn;
        self.edge = self.edge.max(self.told);
        field
    }

    /// The blocks of a selective acknowledgement, the latest first (RFC 2018, 4).
    pub(super) fn blocks(&self) -> [Option<(u32, u32)>; 3] {
        let mut blocks = [None; 3];
        let Some(gaps) = self.gaps.as_ref().filter(|_| self.sack) else {
            return blocks;
        };
        let range = |(from, to)| ((self.nxt + from).value(), (self.nxt + to).value());
        let is_latest = |(from, to): &(usize, usize)| (*from..*to).contains(&gaps.latest);
        let latest = gaps.held.iter_data().filter(is_latest);
        let others = gaps.held.iter_data().filter(|data| !is_latest(data));
        for (block, data) in blocks.iter_mut().zip(latest.chain(others)) {
            *block = Some(range(data));
        }
        blocks
    }
}
