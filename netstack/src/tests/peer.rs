//! The container's end of a connection, by the book: RFC 9293 with window scales
//! (RFC 7323), selective acknowledgements (RFC 2018, 6675) and NewReno's
//! recovery (RFC 6582), as plain as can be.
//!
//! It keeps no payload. What it sends and what it must get are functions of the
//! position, so gigabytes cost a comparison, and a byte that is wrong is noticed
//! when it comes. What no stack may do makes it panic: data beyond the window or
//! longer than the MSS, acknowledgements of what was never sent, options that
//! were not offered.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use smoltcp::time::{Duration, Instant};

use super::frames::{ACK, FIN, RST, SYN, TcpSeen};
use super::stream::{LONGEST, Stream, down, low, up, wide};
use crate::LinkConfig;

mod send;

/// How a [`Peer`] connects, and what it can do.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    pub(super) isn: u32,
    /// The MSS option; none means 536 (RFC 9293, 3.7.1).
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
    /// Receive buffer, bytes.
    pub(super) buffer: u64,
    /// Longest payload of a frame: more than an MSS makes a super-segment.
    pub(super) burst: usize,
    /// Bytes that it sends, and whether it ends its direction after them.
    pub(super) goal: u64,
    pub(super) ends: bool,
}

impl Habits {
    /// As a Linux kernel on this link.
    pub(super) fn kernel(link: LinkConfig) -> Self {
        let mss = link.mtu - 40;
        Self {
            isn: 0x1234_5678,
            mss: Some(mss),
            scale: Some(7),
            sack: true,
            buffer: 1 << 20,
            burst: if link.tso { 65_000 } else { usize::from(mss) },
            goal: 0,
            ends: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// The stack has reset the connection.
    Reset,
}

/// Retransmission timeouts: the first, and the longest.
const RTO: Duration = Duration::from_millis(200);
const LONGEST_RTO: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) port: u16,
    to: SocketAddrV4,
    link: LinkConfig,
    pub(super) habits: Habits,
    pub(super) phase: Phase,
    /// Sends nothing at all, and hears nothing.
    pub(super) silent: bool,

    // What it sends, as offsets from the first byte; the end is one more.
    up: Stream,
    pub(super) una: u64,
    next: u64,
    most: u64,
    /// Up to where the stack's window allows.
    pub(super) edge: u64,
    scale: u8,
    mss: usize,
    syn_due: bool,
    timer: Option<Instant>,
    rto: Duration,
    repeats: u32,
    /// Recovery ends with the acknowledgement of this.
    recover: Option<u64>,
    resend: bool,
    probe: bool,
    sacked: Ranges,

    // What it gets, likewise.
    down: Stream,
    pub(super) irs: u32,
    pub(super) got: u64,
    ranges: Ranges,
    /// The range that came last, which is named first.
    latest: u64,
    end: Option<u64>,
    pub(super) finished: bool,
    read: u64,
    pub(super) reads: bool,
    own_scale: u8,
    advertised: u64,
    acks: u32,
    ack_due: bool,
    with_sack: bool,
    /// When a segment came, and how many bytes of payload it had.
    pub(super) heard: Vec<(Instant, usize)>,
    /// Longest payload that came.
    pub(super) longest: usize,
}

/// Half-open ranges that do not touch.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn add(&mut self, mut from: u64, mut upto: u64) {
        let touching: Vec<u64> = self
            .0
            .range(..=upto)
            .filter(|range| *range.1 >= from)
            .map(|range| *range.0)
            .collect();
        for start in touching {
            let end = self.0.remove(&start).unwrap();
            (from, upto) = (from.min(start), upto.max(end));
        }
        self.0.insert(from, upto);
    }

    /// The end of the range that this is in.
    fn end_of(&self, at: u64) -> Option<u64> {
        let (_, end) = self.0.range(..=at).next_back()?;
        (*end > at).then_some(*end)
    }

    fn forget_below(&mut self, at: u64) {
        while let Some(first) = self.0.first_entry()
            && *first.get() <= at
        {
            first.remove();
        }
    }
}

impl Peer {
    pub(super) fn new(port: u16, to: SocketAddrV4, link: LinkConfig, habits: Habits) -> Self {
        Self {
            port,
            to,
            link,
            phase: Phase::Connecting,
            silent: false,
            up: up(to),
            una: 0,
            next: 0,
            most: 0,
            edge: 0,
            scale: 0,
            mss: 536,
            syn_due: true,
            timer: None,
            rto: RTO * 5,
            repeats: 0,
            recover: None,
            resend: false,
            probe: false,
            sacked: Ranges::default(),
            down: down(to),
            irs: 0,
            got: 0,
            ranges: Ranges::default(),
            latest: 0,
            end: None,
            finished: false,
            read: 0,
            reads: true,
            own_scale: 0,
            advertised: 0,
            acks: 0,
            ack_due: false,
            with_sack: false,
            heard: Vec::new(),
            longest: 0,
            habits,
        }
    }

    /// All that it has to say has been acknowledged.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.una == self.habits.goal + u64::from(self.habits.ends)
    }

    /// Both directions have ended.
    pub(super) fn is_done(&self) -> bool {
        self.finished && self.habits.ends && self.is_acknowledged()
    }

    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.timer.filter(|_| !self.silent)
    }

    pub(super) fn receive(&mut self, now: Instant, seen: &TcpSeen) {
        if self.silent || self.phase == Phase::Reset {
            return;
        }
        self.heard.push((now, seen.payload.len()));
        self.longest = self.longest.max(seen.payload.len());
        if seen.flags & RST != 0 {
            self.phase = Phase::Reset;
            self.timer = None;
            return;
        }
        if seen.flags & SYN != 0 {
            return self.receive_syn(seen);
        }
        if self.phase == Phase::Connecting {
            return;
        }
        assert_ne!(seen.flags & ACK, 0, "every segment acknowledges");
        self.receive_data(seen);
        self.receive_ack(seen);
    }

    fn receive_syn(&mut self, seen: &TcpSeen) {
        assert_eq!(seen.flags, SYN | ACK, "never a bare SYN");
        assert_eq!(seen.ack, self.habits.isn.wrapping_add(1));
        if self.phase == Phase::Open {
            // After the end, of which the last acknowledgement may have been lost, an
            // old SYN that was late may open another connection.
            assert!(
                seen.seq == self.irs || self.finished || self.is_done(),
                "not the same answer again"
            );
            self.acks += 1;
            return;
        }
        self.phase = Phase::Open;
        self.irs = seen.seq;
        let options = Options::of(&seen.options);
        let own = usize::from(self.habits.mss.unwrap_or(536));
        let fits = usize::from(self.link.mtu) - 40;
        self.mss = usize::from(options.mss.unwrap_or(536))
            .min(own.max(536))
            .min(fits);
        if let Some(own) = self.habits.scale {
            if let Some(scale) = options.scale {
                (self.scale, self.own_scale) = (scale, own);
            }
        } else {
            assert_eq!(options.scale, None, "a scale only where one is offered");
        }
        assert!(self.habits.sack || !options.sack, "SACK only where offered");
        self.with_sack = self.habits.sack && options.sack;
        // The window of a SYN is not scaled.
        self.edge = u64::from(seen.window);
        self.timer = None;
        (self.rto, self.ack_due) = (RTO, true);
    }

    /// The longest payload that the stack may send.
    fn most_payload(&self) -> usize {
        // Below the least that every host takes (RFC 9293, 3.7.1), the link's.
        let mss = usize::from(self.habits.mss.unwrap_or(536)).max(536);
        mss.min(usize::from(self.link.mtu) - 40)
    }

    fn receive_data(&mut self, seen: &TcpSeen) {
        let first = self.irs.wrapping_add(1).wrapping_add(low(self.got));
        let away = i64::from(seen.seq.wrapping_sub(first).cast_signed());
        let at = self.got.checked_add_signed(away);
        let Some(at) = at else {
            // A keep-alive probe before anything has come.
            self.acks += 1;
            return;
        };
        let length = seen.payload.len();
        let upto = at + wide(length);
        assert!(
            length <= self.most_payload() || !self.link_cuts(),
            "{length} bytes in a segment"
        );
        let fin = seen.flags & FIN != 0;
        // A keep-alive probe may have any byte in place of the last, or of the end
        // (RFC 9293, 3.8.4).
        if length == 1 && upto == self.got + u64::from(self.finished) {
            self.acks += 1;
            return;
        }
        if length > 0 {
            assert!(
                upto <= self.advertised + 1,
                "{upto} is beyond the window, which ends at {}",
                self.advertised
            );
            assert!(
                self.end.is_none_or(|end| upto <= end),
                "data behind the end"
            );
            for (start, piece) in (at..).step_by(LONGEST).zip(seen.payload.chunks(LONGEST)) {
                assert!(
                    self.down.at(start, piece.len()) == piece,
                    "wrong bytes among {length} at {at}"
                );
            }
        }
        if fin {
            assert!(self.end.is_none_or(|end| end == upto), "two ends");
            self.end = Some(upto);
        }
        let space = self.read + self.habits.buffer;
        let kept = upto.min(space);
        let old = self.got;
        if kept > self.got && length > 0 {
            self.ranges.add(at, kept);
            self.latest = at;
            self.got = self.ranges.end_of(self.got).unwrap_or(self.got);
            self.ranges.forget_below(self.got);
        }
        let was_finished = self.finished;
        self.finished |= self.end == Some(self.got);
        if self.got > old || self.finished != was_finished {
            self.ack_due = true;
        } else if length > 0 || fin || away != i64::from(self.finished) {
            // Nothing new, or a hole before it.
            self.acks += 1;
        }
        if self.reads {
            self.read = self.got;
        }
    }

    /// Super-segments are seen as they are on the link, or as they are cut.
    fn link_cuts(&self) -> bool {
        !self.link.tso
    }

    fn receive_ack(&mut self, seen: &TcpSeen) {
        let first = self.habits.isn.wrapping_add(1).wrapping_add(low(self.una));
        let away = seen.ack.wrapping_sub(first).cast_signed();
        if away < 0 {
            return;
        }
        let ack = self.una + u64::from(away.cast_unsigned());
        assert!(
            ack <= self.most,
            "{ack} is acknowledged and {} sent",
            self.most
        );
        let window = u64::from(seen.window) << self.scale;
        let edge = ack + window;
        let opened = edge > self.edge;
        self.edge = self.edge.max(edge);
        let options = Options::of(&seen.options);
        assert!(
            self.with_sack || options.sacked.is_empty(),
            "SACK was not agreed on"
        );
        for (left, right) in options.sacked {
            let place = |number: u32| {
                let away = number.wrapping_sub(first).cast_signed();
                self.una.checked_add_signed(away.into())
            };
            if let (Some(left), Some(right)) = (place(left), place(right)) {
                assert!(left < right && right <= self.most, "SACK of the unsent");
                // Below the acknowledgement it is a duplicate (RFC 2883).
                if left >= ack {
                    self.sacked.add(left, right);
                }
            }
        }
        if ack > self.una {
            self.una = ack;
            self.next = self.next.max(ack);
            self.sacked.forget_below(ack);
            (self.rto, self.repeats) = (RTO, 0);
            match self.recover {
                Some(upto) if ack < upto => self.resend = true,
                _ => self.recover = None,
            }
            self.timer = None;
        } else if seen.payload.is_empty() && !opened && self.most > self.una && self.edge > self.una
        {
            self.repeats += 1;
            if self.repeats == 3 && self.recover.is_none() {
                self.recover = Some(self.most);
                self.resend = true;
            }
        }
        // RFC 6675: three segments behind a hole tell as much as three repetitions.
        let behind: u64 = self.sacked.0.iter().map(|(from, upto)| upto - from).sum();
        if self.recover.is_none() && behind >= 3 * wide(self.mss) {
            self.recover = Some(self.most);
            self.resend = true;
        }
        if opened {
            self.timer = None;
        }
    }

    /// The application reads again, or no more.
    pub(super) fn set_reads(&mut self, reads: bool) {
        self.reads = reads;
        if reads && self.read < self.got {
            self.read = self.got;
            self.acks += 1;
        }
    }
}

/// The options of a segment of the stack.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
    pub(super) sacked: Vec<(u32, u32)>,
}

impl Options {
    /// Takes them apart; panics where they are not well formed.
    pub(super) fn of(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((kind, rest)) = bytes.split_first() {
            match kind {
                0 => break,
                1 => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let length = usize::from(rest[0]);
            let value = &bytes[2..length];
            match kind {
                2 => options.mss = Some(u16::from_be_bytes(value.try_into().unwrap())),
                3 => options.scale = Some(value[0]),
                4 => options.sack = true,
                5 => {
                    let number = |at: &[u8]| u32::from_be_bytes(at.try_into().unwrap());
                    options.sacked = value
                        .chunks(8)
                        .map(|block| (number(&block[..4]), number(&block[4..])))
                        .collect();
                }
                other => panic!("option {other} was not offered"),
            }
            bytes = &bytes[length..];
        }
        options
    }
}
