//! Our direction towards the container: what is sent, what is outstanding, and
//! the timer (RFC 9293, 3.8; RFC 6298).

use std::net::IpAddr;

use smoltcp::time::Instant;

use super::recovery::{DUPLICATES, Scoreboard};
use super::rings::{Ring, Rings};
use super::rtt::Rtt;
use super::segment::{self, HEADER_LEN, Segment, SynOptions};
use super::seq::Seq;
use crate::config::LinkConfig;
use crate::ip;

/// Least MSS that is respected: the default (RFC 9293, 3.7.1), which every IPv4
/// host can take. Less would turn a full ring into a flood of tiny frames.
const MIN_MSS: u16 = 536;
/// Most bytes that wait for the container's acknowledgement.
const QUEUE: usize = 1 << 20;

/// Something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transmission {
    pub(super) seq: Seq,
    /// Where its payload is in the queue.
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) fin: bool,
    /// Nothing follows for now.
    pub(super) push: bool,
}

#[derive(Debug)]
pub(super) struct Sender {
    /// SND.UNA and SND.NXT.
    una: Seq,
    nxt: Seq,
    /// Everything from SND.UNA on, sent or not.
    queue: Option<Ring>,
    /// The size that the queue is given; it grows when the host has more to say.
    size: usize,
    /// A FIN comes behind the queue; and it was sent.
    ending: bool,
    fin_sent: bool,
    /// SND.WND, SND.WL1, SND.WL2 and Snd.Wind.Shift.
    window: usize,
    wl1: Seq,
    wl2: Seq,
    shift: u8,
    /// The largest window that the container has told.
    max_window: usize,
    /// What it takes in a segment, and what is sent in one.
    max_mss: u16,
    pub(super) mss: u16,
    /// Most payload of one frame: segments that the kernel there takes apart, or one.
    most: usize,
    /// Payload of one frame.
    chunk: usize,
    rtt: Rtt,
    /// What is being timed: an acknowledgement up to here, sent then.
    timed: Option<(Seq, Instant)>,
    /// When the retransmission or the persist timer runs out.
    timer: Option<Instant>,
    probe: bool,
    duplicates: u8,
    scoreboard: Option<Box<Scoreboard>>,
}

impl Sender {
    /// The SYN with `iss` is sent next.
    pub(super) fn new(
        iss: Seq,
        syn: &Segment<'_>,
        options: &SynOptions,
        container: IpAddr,
        link: LinkConfig,
    ) -> Self {
        let room = segment::room(link, container);
        let mss = options.mss.unwrap_or(MIN_MSS).max(MIN_MSS).min(room);
        let most = if link.vnet_header && link.tso {
            usize::from(u16::MAX) - ip::header_len(container) - HEADER_LEN
        } else {
            0
        };
        let mut sender = Self {
            una: iss,
            nxt: iss + 1,
            queue: None,
            size: 0,
            ending: false,
            fin_sent: false,
            window: usize::from(syn.window),
            wl1: syn.seq,
            wl2: iss,
            shift: options.scale.unwrap_or(0),
            max_window: usize::from(syn.window),
            max_mss: mss,
            mss,
            most,
            chunk: 0,
            rtt: Rtt::default(),
            timed: None,
            timer: None,
            probe: false,
            duplicates: 0,
            scoreboard: None,
        };
        sender.fit_segments();
        sender
    }

    /// The container has told its window.
    fn set_window(&mut self, window: usize) {
        self.window = window;
        if window > self.max_window {
            self.max_window = window;
            self.fit_segments();
        }
    }

    /// A segment is at most half of the largest window (Linux: `tcp_bound_to_half_wnd`): a
    /// receiver that avoids the silly window syndrome may not open its window again before a
    /// segment like the last fits in (RFC 9293, 3.8.6.2.2), which that of a small buffer
    /// would never do.
    fn fit_segments(&mut self) {
        let half = u16::try_from(self.max_window / 2).unwrap_or(u16::MAX);
        self.mss = self.max_mss.min(half.max(MIN_MSS));
        // Whole segments only, or each super-segment would end in a small one.
        let mss = usize::from(self.mss);
        self.chunk = mss * (self.most / mss).max(1);
    }

    pub(super) fn nxt(&self) -> Seq {
        self.nxt
    }

    pub(super) fn una(&self) -> Seq {
        self.una
    }

    /// Bytes that the container has not acknowledged, sent or not.
    pub(super) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Ring::len)
    }

    /// Bytes of the queue that were sent.
    fn sent(&self) -> usize {
        self.nxt.after(self.una).min(self.queued())
    }

    /// The container owes an acknowledgement, or will when its window opens.
    pub(super) fn owed(&self) -> bool {
        self.una != self.nxt || self.queued() > 0 || (self.ending && !self.fin_sent)
    }

    /// Our FIN was sent.
    pub(super) fn has_sent_fin(&self) -> bool {
        self.fin_sent
    }

    /// The container has acknowledged our FIN.
    pub(super) fn is_finished(&self) -> bool {
        self.fin_sent && self.una == self.nxt
    }

    /// Ends the direction after everything that is queued.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether bytes can be added.
    pub(super) fn has_room(&self) -> bool {
        let room = |queue: &Ring| !queue.is_full() || queue.capacity() < QUEUE;
        !self.ending && self.queue.as_ref().is_none_or(room)
    }

    /// Lends contiguous free space; `put` says how much of it was filled. `None`
    /// when there is none after all.
    pub(super) fn fill<R>(
        &mut self,
        rings: &mut Rings,
        put: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<R> {
        let queue = match &mut self.queue {
            Some(queue) => {
                if queue.window() < queue.capacity() / 2 && queue.capacity() < QUEUE {
                    rings.grow(queue);
                    self.size = queue.capacity();
                }
                queue
            }
            none => none.insert(rings.take(self.size)?),
        };
        if queue.is_full() {
            return None;
        }
        let (_, result) = queue.enqueue_many_with(put);
        Some(result)
    }

    /// Gives the ring back when there is nothing in it.
    pub(super) fn tidy(&mut self, rings: &mut Rings) {
        if let Some(queue) = self.queue.take_if(|queue| queue.is_empty()) {
            rings.give(queue);
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self, rings: &mut Rings) {
        if let Some(queue) = self.queue.take() {
            rings.give(queue);
        }
    }

    /// The bytes of a transmission.
    pub(super) fn payload(&self, transmission: &Transmission) -> [&[u8]; 2] {
        let Some(queue) = &self.queue else {
            return [&[], &[]];
        };
        let first = queue.get_allocated(transmission.offset, transmission.len);
        let rest = queue.get_allocated(
            transmission.offset + first.len(),
            transmission.len - first.len(),
        );
        [first, rest]
    }

    /// Our SYN was acknowledged.
    pub(super) fn established(&mut self, now: Instant, segment: &Segment<'_>) {
        self.una += 1;
        self.timer = None;
        self.take_sample(now);
        self.rtt.progress();
        self.wl1 = segment.seq;
        self.wl2 = self.una;
        self.set_window(usize::from(segment.window) << self.shift);
    }

    /// The SYN was acknowledged with the container's own, whose window is as it says.
    pub(super) fn invited(&mut self) {
        self.una += 1;
        self.wl2 = self.una;
    }

    fn take_sample(&mut self, now: Instant) {
        if let Some((_, since)) = self.timed.take_if(|(seq, _)| !self.una.is_before(*seq)) {
            self.rtt.sample(now - since);
        }
    }

    /// An acceptable acknowledgement: between SND.UNA and SND.NXT, or older.
    pub(super) fn acknowledged(&mut self, now: Instant, ack: Seq, segment: &Segment<'_>) {
        if ack.is_before(self.una) {
            return;
        }
        let advance = ack.after(self.una);
        let window = usize::from(segment.window) << self.shift;
        let opened = self.window == 0 && window > 0;
        let same_window = self.window == window;
        if self.wl1.is_before(segment.seq) || (self.wl1 == segment.seq && !ack.is_before(self.wl2))
        {
            self.set_window(window);
            self.wl1 = segment.seq;
            self.wl2 = ack;
        }
        if advance > 0 {
            let data = advance.min(self.queued());
            if let Some(queue) = &mut self.queue {
                queue.dequeue_allocated(data);
            }
            self.una = ack;
            self.duplicates = 0;
            self.take_sample(now);
            self.rtt.progress();
            self.timer = None;
        } else if segment.len() == 0 && same_window && self.una != self.nxt {
            self.duplicates = self.duplicates.saturating_add(1);
        }
        if opened {
            self.rtt.progress();
            self.timer = None;
        }
        let told = segment.sacked[0].is_some();
        if self.scoreboard.is_none() && !told && self.duplicates < DUPLICATES {
            return;
        }
        let mss = usize::from(self.mss);
        let board = self.scoreboard.get_or_insert_default();
        board.sack(self.una, self.nxt, &segment.sacked);
        let done = advance > 0 && board.acknowledged(self.una, mss);
        if done || self.una == self.nxt {
            self.scoreboard = None;
        } else {
            board.look(self.una, self.nxt, mss, self.duplicates);
        }
    }

    /// When [`Sender::timer_due`] must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer
    }

    /// The retransmission or the persist timer may have run out.
    pub(super) fn timer_due(&mut self, now: Instant) {
        if self.timer.is_none_or(|due| now < due) {
            return;
        }
        self.timer = None;
        if self.una == self.nxt {
            // RFC 9293, 3.8.6.1; as Linux does it, with an old sequence number.
            self.probe = self.queued() > 0;
        } else {
            let again = self.rtt.timeouts() > 0;
            let board = self.scoreboard.get_or_insert_default();
            board.timed_out(self.una, self.nxt, usize::from(self.mss), again);
            self.duplicates = 0;
        }
        self.rtt.back_off();
        self.timed = None;
    }

    /// Whether the container's window is to be asked for, once.
    pub(super) fn take_probe(&mut self) -> bool {
        std::mem::take(&mut self.probe)
    }

    /// Sends a probe with the next output.
    pub(super) fn set_probe(&mut self) {
        self.probe = true;
    }

    /// The timer runs while something is outstanding or waits for the window.
    pub(super) fn keep_time(&mut self, now: Instant) {
        if !self.owed() {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = Some(now + self.rtt.timeout());
        }
    }

    /// The SYN goes out, for the first time or again.
    pub(super) fn syn_sent(&mut self, now: Instant) {
        self.timed = match self.timer {
            None => Some((self.nxt, now)),
            // Karn's algorithm (RFC 6298, 3).
            Some(_) => None,
        };
        self.timer = Some(now + self.rtt.timeout());
    }

    /// The SYN is to be repeated, once the timer has run out.
    pub(super) fn syn_due(&mut self, now: Instant) -> bool {
        let due = self.timer.is_some_and(|due| due <= now);
        if due {
            self.rtt.back_off();
        }
        due
    }

    /// What is to be sent next, after the handshake.
    pub(super) fn next(&mut self, now: Instant) -> Option<Transmission> {
        let queued = self.queued();
        let sent = self.sent();
        if let Some(board) = &mut self.scoreboard
            && let Some((seq, len)) = board.next(self.chunk)
        {
            self.timed = None;
            let offset = seq.after(self.una);
            let data = len.min(sent.saturating_sub(offset));
            return Some(Transmission {
                seq,
                offset,
                len: data,
                fin: self.fin_sent && data < len,
                push: offset + data == queued,
            });
        }
        let unsent = queued - sent;
        let room = self.window.saturating_sub(sent);
        let len = unsent.min(room).min(self.chunk);
        let fin = self.ending && !self.fin_sent && len == unsent;
        // The sender's side of the silly window syndrome (RFC 9293, 3.8.6.2.1).
        let silly = len < unsent && len < usize::from(self.mss) && sent > 0;
        if !fin && (len == 0 || silly) {
            return None;
        }
        let seq = self.nxt;
        self.nxt += len + usize::from(fin);
        self.fin_sent |= fin;
        if self.timed.is_none() {
            self.timed = Some((self.nxt, now));
        }
        Some(Transmission {
            seq,
            offset: sent,
            len,
            fin,
            push: len == unsent,
        })
    }
}
