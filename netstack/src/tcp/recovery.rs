//! Which segments are sent again (RFC 2018, 6582, 6675).
//!
//! # Theory of operation
//!
//! The scoreboard exists from the first sign of a loss until everything that was
//! outstanding then is acknowledged. It holds the stretches that the container
//! has acknowledged selectively; what lies between is *lost* once three segments'
//! worth beyond it has arrived, or after three duplicate acknowledgements, or
//! when the timer has run out. Lost stretches are sent again from front to back,
//! each once: `next` moves through them up to `limit`. A partial acknowledgement
//! (RFC 6582, 3.2) makes the first unacknowledged segment lost. When data that was
//! sent after the front was repeated arrives while the front does not, its
//! repetition was lost, too, and the pass begins anew.
//!
//! There is no congestion window: the link is a queue in the same kernel, which
//! does not congest, and what the container's window lets through fits it.

use super::seq::Seq;

/// Duplicate acknowledgements, or segments beyond a gap, that make it a loss.
pub(super) const DUPLICATES: u8 = 3;
/// Most stretches that are remembered; more only cost a repetition.
const MOST: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Selectively acknowledged, ascending, apart from each other.
    ranges: Vec<(Seq, Seq)>,
    recovery: Option<Recovery>,
}

#[derive(Debug)]
struct Recovery {
    /// What was outstanding when the loss was noticed ends here.
    point: Seq,
    /// Where the next repetition begins, at the earliest.
    next: Seq,
    /// Nothing at or beyond this is known to be lost.
    limit: Seq,
    /// What had been sent when the front was last repeated ends here.
    mark: Seq,
    /// The timer ran out: after the front, everything is repeated.
    timed_out: bool,
}

impl Scoreboard {
    /// Takes the blocks of an acknowledgement; whether they said anything new.
    pub(super) fn sack(&mut self, una: Seq, nxt: Seq, blocks: &[Option<(Seq, Seq)>]) -> bool {
        let mut news = false;
        for (left, right) in blocks.iter().flatten() {
            let outside = left.is_before(una) || nxt.is_before(*right) || !left.is_before(*right);
            if !outside {
                news |= self.insert(*left, *right);
            }
        }
        news
    }

    fn insert(&mut self, left: Seq, right: Seq) -> bool {
        let from = self.ranges.partition_point(|(_, end)| end.is_before(left));
        let to = self
            .ranges
            .partition_point(|(start, _)| !right.is_before(*start));
        match self.ranges.get(from..to) {
            Some([(start, end)]) if !left.is_before(*start) && !end.is_before(right) => false,
            Some([first, .., last]) => {
                let merged = (first.0.min(left), last.1.max(right));
                self.ranges.splice(from..to, [merged]);
                true
            }
            Some([one]) => {
                let merged = (one.0.min(left), one.1.max(right));
                self.ranges.splice(from..to, [merged]);
                true
            }
            _ if self.ranges.len() < MOST => {
                self.ranges.insert(from, (left, right));
                true
            }
            _ => false,
        }
    }

    fn highest(&self) -> Option<Seq> {
        self.ranges.last().map(|(_, end)| *end)
    }

    /// Where the first gap ends, as far as is known.
    fn first_gap_end(&self, una: Seq, mss: usize) -> Seq {
        self.ranges.first().map_or(una + mss, |(start, _)| *start)
    }

    /// `una` has moved; whether the scoreboard has no more use.
    pub(super) fn acknowledged(&mut self, una: Seq, mss: usize) -> bool {
        let gone = self.ranges.partition_point(|(_, end)| !una.is_before(*end));
        self.ranges.drain(..gone);
        if let Some((start, _)) = self.ranges.first_mut() {
            *start = (*start).max(una);
        }
        let gap_end = self.first_gap_end(una, mss);
        if let Some(recovery) = &mut self.recovery {
            if !una.is_before(recovery.point) {
                self.recovery = None;
            } else {
                recovery.next = recovery.next.max(una);
                recovery.limit = recovery.limit.max(if recovery.timed_out {
                    recovery.point
                } else {
                    gap_end.min(recovery.point)
                });
            }
        }
        self.recovery.is_none() && self.ranges.is_empty()
    }

    /// Looks for losses after an acknowledgement that left `una` where it was or
    /// told of stretches beyond; `nxt` is what is sent next.
    pub(super) fn look(&mut self, una: Seq, nxt: Seq, mss: usize, duplicates: u8) {
        let reach = usize::from(DUPLICATES) * mss;
        let gap_end = self.first_gap_end(una, mss).min(nxt);
        let beyond = self.highest().map(|highest| highest.minus(reach));
        let gap_is_lost =
            duplicates >= DUPLICATES || beyond.is_some_and(|beyond| !beyond.is_before(gap_end));
        match &mut self.recovery {
            None if gap_is_lost => {
                self.recovery = Some(Recovery {
                    point: nxt,
                    next: una,
                    limit: gap_end.max(beyond.unwrap_or(gap_end)),
                    mark: nxt,
                    timed_out: false,
                });
            }
            None => {}
            Some(recovery) => {
                if let Some(beyond) = beyond {
                    recovery.limit = recovery.limit.max(beyond);
                    if !beyond.is_before(recovery.mark) {
                        recovery.next = una;
                        recovery.mark = nxt;
                    }
                }
            }
        }
    }

    /// The timer has run out. What was acknowledged selectively counts no more
    /// when that happens again, or when the front is part of it (the container has
    /// changed its mind: RFC 2018, 8).
    pub(super) fn timed_out(&mut self, una: Seq, nxt: Seq, mss: usize, again: bool) {
        let begins_at_front = |(start, _): &(Seq, Seq)| !una.is_before(*start);
        if again || self.ranges.first().is_some_and(begins_at_front) {
            self.ranges.clear();
        }
        self.recovery = Some(Recovery {
            point: nxt,
            next: una,
            limit: (una + mss).min(nxt),
            mark: nxt,
            timed_out: true,
        });
    }

    /// The stretch to repeat next, of at most `most` bytes.
    pub(super) fn next(&mut self, most: usize) -> Option<(Seq, usize)> {
        let recovery = self.recovery.as_mut()?;
        loop {
            if !recovery.next.is_before(recovery.limit) {
                return None;
            }
            let from = recovery.next;
            let behind = self
                .ranges
                .iter()
                .find(|(_, end)| from.is_before(*end))
                .copied();
            let end = match behind {
                Some((start, end)) if !from.is_before(start) => {
                    recovery.next = end;
                    continue;
                }
                Some((start, _)) => start.min(recovery.limit),
                None => recovery.limit,
            };
            let len = end.after(from).min(most);
            recovery.next = from + len;
            return Some((from, len));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 100;

    fn at(offset: usize) -> Seq {
        Seq::new(u32::MAX - 250) + offset
    }

    fn block(from: usize, to: usize) -> Option<(Seq, Seq)> {
        Some((at(from), at(to)))
    }

    fn repeated(board: &mut Scoreboard) -> Vec<(i32, usize)> {
        std::iter::from_fn(|| board.next(MSS))
            .map(|(seq, len)| (seq.since(at(0)), len))
            .collect()
    }

    #[test]
    fn ranges_merge_in_any_order() {
        let mut board = Scoreboard::default();
        assert!(board.sack(at(0), at(1000), &[block(100, 200), block(300, 400)]));
        assert!(!board.sack(at(0), at(1000), &[block(100, 200), block(150, 180)]));
        assert!(board.sack(at(0), at(1000), &[block(200, 300)]));
        assert_eq!(board.ranges, [(at(100), at(400))]);
        assert!(board.sack(at(0), at(1000), &[block(500, 600), block(700, 800)]));
        assert!(board.sack(at(0), at(1000), &[block(50, 900)]));
        assert_eq!(board.ranges, [(at(50), at(900))]);
        // Beyond what was sent, before what is outstanding, the wrong way round.
        for bad in [block(900, 1001), block(0, 60), block(60, 60), block(80, 60)] {
            assert!(!board.sack(at(10), at(1000), &[bad]));
        }
    }

    #[test]
    fn a_gap_is_repeated_once_three_segments_lie_beyond_it() {
        let mut board = Scoreboard::default();
        board.sack(at(0), at(1000), &[block(100, 300)]);
        board.look(at(0), at(1000), MSS, 1);
        assert_eq!(repeated(&mut board), []);
        board.sack(at(0), at(1000), &[block(100, 400), block(500, 600)]);
        board.look(at(0), at(1000), MSS, 2);
        assert_eq!(repeated(&mut board), [(0, 100)]);
        board.sack(at(0), at(1000), &[block(500, 900)]);
        board.look(at(0), at(1000), MSS, 3);
        assert_eq!(repeated(&mut board), [(400, 100)]);
        // The first repetition arrives: the second gap is the first now, and not
        // repeated again.
        assert!(!board.acknowledged(at(400), MSS));
        assert_eq!(repeated(&mut board), []);
        assert!(board.acknowledged(at(1000), MSS));
    }

    #[test]
    fn without_sack_partial_acknowledgements_lead() {
        let mut board = Scoreboard::default();
        board.look(at(0), at(1000), MSS, DUPLICATES);
        assert_eq!(repeated(&mut board), [(0, 100)]);
        assert!(!board.acknowledged(at(300), MSS));
        assert_eq!(repeated(&mut board), [(300, 100)]);
        assert!(board.acknowledged(at(1000), MSS));
    }

    #[test]
    fn a_lost_repetition_is_noticed_by_what_was_sent_after_it() {
        let mut board = Scoreboard::default();
        board.sack(at(0), at(500), &[block(100, 500)]);
        board.look(at(0), at(500), MSS, 1);
        assert_eq!(repeated(&mut board), [(0, 100)]);
        board.sack(at(0), at(900), &[block(100, 700)]);
        board.look(at(0), at(900), MSS, 2);
        assert_eq!(repeated(&mut board), []);
        board.sack(at(0), at(900), &[block(100, 800)]);
        board.look(at(0), at(900), MSS, 3);
        assert_eq!(repeated(&mut board), [(0, 100)]);
    }

    #[test]
    fn after_a_time_out_everything_unacknowledged_follows_the_front() {
        let mut board = Scoreboard::default();
        board.sack(at(0), at(500), &[block(200, 300)]);
        board.timed_out(at(0), at(500), MSS, false);
        assert_eq!(repeated(&mut board), [(0, 100)]);
        assert!(!board.acknowledged(at(100), MSS));
        assert_eq!(repeated(&mut board), [(100, 100), (300, 100), (400, 100)]);
        board.timed_out(at(100), at(500), MSS, true);
        assert!(board.ranges.is_empty());
    }

    /// The container has thrown away what it had acknowledged selectively: it
    /// would otherwise have acknowledged that, too.
    #[test]
    fn what_was_taken_back_is_repeated_at_the_first_time_out() {
        let mut board = Scoreboard::default();
        board.sack(at(0), at(500), &[block(100, 500)]);
        board.look(at(0), at(500), MSS, 1);
        assert_eq!(repeated(&mut board), [(0, 100)]);
        assert!(!board.acknowledged(at(100), MSS));
        board.timed_out(at(100), at(500), MSS, false);
        assert_eq!(repeated(&mut board), [(100, 100)]);
    }

    #[test]
    fn nothing_is_repeated_that_was_never_sent() {
        let mut board = Scoreboard::default();
        board.look(at(0), at(50), MSS, DUPLICATES);
        assert_eq!(repeated(&mut board), [(0, 50)]);
        assert!(!board.acknowledged(at(10), MSS));
        assert_eq!(repeated(&mut board), []);
    }
}
