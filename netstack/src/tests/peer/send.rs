//! What goes.

use smoltcp::time::Instant;

use super::super::frames::{ACK, ETHERNET, FIN, PSH, RST, SYN, Segment, checksum};
use super::super::stream::{low, wide};
use super::{LONGEST_RTO, Peer, Phase};

impl Peer {
    fn header(&mut self, offset: u64, flags: u8) -> Segment {
        let seq = self.habits.isn.wrapping_add(1).wrapping_add(low(offset));
        let ack = self
            .irs
            .wrapping_add(1)
            .wrapping_add(low(self.got))
            .wrapping_add(u32::from(self.finished));
        let mut segment = Segment::new(self.port, self.to, flags | ACK, seq, ack);
        let free = (self.read + self.habits.buffer - self.got) >> self.own_scale;
        segment.window = u16::try_from(free).unwrap_or(u16::MAX);
        let edge = self.got + (u64::from(segment.window) << self.own_scale);
        self.advertised = self.advertised.max(edge);
        if self.with_sack && !self.ranges.0.is_empty() {
            let mut blocks: Vec<(u64, u64)> = self.ranges.0.iter().map(|(a, b)| (*a, *b)).collect();
            // The one that came last is the first.
            blocks.sort_by_key(|(from, upto)| !(*from..*upto).contains(&self.latest));
            blocks.truncate(3);
            segment.options = vec![1, 1, 5, u8::try_from(2 + 8 * blocks.len()).unwrap()];
            for edge in blocks.iter().flat_map(|(from, upto)| [from, upto]) {
                let number = self.irs.wrapping_add(1).wrapping_add(low(*edge));
                segment.options.extend(number.to_be_bytes());
            }
        }
        self.ack_due = false;
        segment
    }

    fn syn(&self) -> Segment {
        let mut syn = Segment::new(self.port, self.to, SYN, self.habits.isn, 0);
        syn.window = u16::try_from(self.habits.buffer).unwrap_or(u16::MAX);
        if let Some(mss) = self.habits.mss {
            syn.options.extend([2, 4]);
            syn.options.extend(mss.to_be_bytes());
        }
        if let Some(scale) = self.habits.scale {
            syn.options.extend([1, 3, 3, scale]);
        }
        if self.habits.sack {
            syn.options.extend([1, 1, 4, 2]);
        }
        syn
    }

    /// A frame, and the size that a super-segment is to be cut into.
    fn frame(&self, segment: &Segment, payload: &[u8]) -> (Vec<u8>, Option<u16>) {
        let cut = (payload.len() > self.mss).then(|| u16::try_from(self.mss).unwrap());
        if !self.link.vnet_header {
            return (segment.clone().with(payload).frame(), cut);
        }
        // The checksum over the payload is left undone.
        let mut frame = segment.frame();
        frame.extend_from_slice(payload);
        let total = u16::try_from(frame.len() - ETHERNET).unwrap();
        let ip = &mut frame[ETHERNET..ETHERNET + 20];
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[10..12].fill(0);
        let sum = checksum(&[ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        (frame, cut)
    }

    /// What it sends now.
    pub(in crate::tests) fn poll(&mut self, now: Instant) -> Vec<(Vec<u8>, Option<u16>)> {
        let mut out = Vec::new();
        if self.silent || self.phase == Phase::Reset {
            return out;
        }
        let due = self.timer.is_some_and(|at| at <= now);
        if due {
            self.timer = None;
            self.rto = (self.rto * 2).min(LONGEST_RTO);
        }
        if self.phase == Phase::Connecting {
            if due || self.syn_due {
                self.syn_due = false;
                out.push(self.frame(&self.syn(), &[]));
                self.advertised = self.habits.buffer.min(65_535);
                self.timer = Some(now + self.rto);
            }
            return out;
        }
        if due && self.most > self.una {
            // RFC 2018, 8: what was selectively acknowledged may be gone again.
            self.sacked.0.clear();
            self.next = self.una;
            self.recover = None;
            self.repeats = 0;
            self.probe = self.edge <= self.una;
        } else if due {
            self.probe = true;
        }
        if std::mem::take(&mut self.resend) && self.una < self.most {
            let next = std::mem::replace(&mut self.next, self.una);
            out.extend(self.data(true));
            self.next = next.max(self.next);
        }
        while let Some(frame) = self.data(false) {
            out.push(frame);
        }
        for _ in 0..std::mem::take(&mut self.acks) {
            let ack = self.header(self.next, 0);
            out.push(self.frame(&ack, &[]));
        }
        if self.ack_due {
            let ack = self.header(self.next, 0);
            out.push(self.frame(&ack, &[]));
        }
        if self.timer.is_none() && !self.is_acknowledged() {
            self.timer = Some(now + self.rto);
        }
        out
    }

    /// The next segment with data or the end in it, if the window allows it.
    fn data(&mut self, one: bool) -> Option<(Vec<u8>, Option<u16>)> {
        while self.next < self.most
            && let Some(end) = self.sacked.end_of(self.next)
        {
            self.next = end;
        }
        let goal = self.habits.goal;
        let last = goal + u64::from(self.habits.ends);
        if self.next >= last {
            return None;
        }
        let probe = std::mem::take(&mut self.probe);
        let room = self.edge.saturating_sub(self.next).max(u64::from(probe));
        let left = goal - self.next.min(goal);
        let most = if one || !self.link.tso {
            self.mss
        } else {
            self.habits.burst.max(self.mss)
        };
        let mut length = wide(most).min(left).min(room);
        // Up to what was selectively acknowledged.
        if let Some((start, _)) = self.sacked.0.range(self.next..).next() {
            length = length.min(start - self.next);
        }
        // RFC 9293, 3.8.6.2.1: no small segments because of a small window.
        let small = length < left && length < wide(self.mss) && self.next > self.una && !one;
        if left > 0 && (length == 0 || small && length == room) {
            return None;
        }
        let offset = self.next;
        self.next += length;
        let fin = self.habits.ends && self.next == goal;
        let mut flags = if length > 0 { PSH } else { 0 };
        if fin {
            flags |= FIN;
            self.next += 1;
        }
        self.most = self.most.max(self.next);
        let segment = self.header(offset, flags);
        let payload = self.up.at(offset, usize::try_from(length).unwrap());
        Some(self.frame(&segment, payload))
    }

    /// Gives up.
    pub(in crate::tests) fn reset(&mut self) -> Vec<u8> {
        let mut segment = self.header(self.next, RST);
        segment.options.clear();
        self.phase = Phase::Reset;
        self.timer = None;
        segment.frame()
    }
}
