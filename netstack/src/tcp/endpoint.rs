//! Our end of a TCP connection with the container (RFC 9293).
//!
//! # Theory of operation
//!
//! An endpoint is made from the container's SYN once the host connection stands,
//! so its life begins in SYN-RECEIVED. Its state is what has happened, not a
//! name: the handshake is complete or not, our FIN was sent and acknowledged or
//! not ([`Sender`]), the container's was received or not ([`Receiver`]). The eleven
//! states of RFC 9293 are combinations of these, and no transition can be missed.
//!
//! A segment is shown to the endpoint with [`Endpoint::segment`]; what there is to
//! say afterwards goes out with [`Endpoint::output`]: repetitions first, then new
//! data, then an acknowledgement if none of these has carried it.

use std::io::IoSlice;
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpControl;

use super::receiver::{Receiver, SCALE};
use super::rings::Rings;
use super::segment::{self, Segment, SynOptions};
use super::sender::Sender;
use super::seq::Seq;
use crate::flow::FlowKey;
use crate::host::Host;
use crate::link::Link;

/// How long an acknowledgement may wait for data to go with it (RFC 9293,
/// 3.8.6.3: less than 500 ms; Linux: `TCP_DELACK_MIN`).
const ACK_DELAY: Duration = Duration::from_millis(40);

/// Least time between two answers to segments without data that do not fit.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(10);

/// What an endpoint makes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was taken, or not; [`Endpoint::output`] says so.
    Looked,
    /// The container has reset the connection.
    Reset,
    /// It acknowledges what was never sent in a handshake: to be answered with a
    /// reset.
    Refused,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    sender: Sender,
    receiver: Receiver,
    /// The container has acknowledged our SYN.
    established: bool,
    scaled: bool,
    sack_permitted: bool,
    /// A SYN has to be sent, for the first time or again.
    syn_due: bool,
    ack_due: bool,
    /// When an acknowledgement is due that waits for data to go with it.
    ack_at: Option<Instant>,
    /// When data came last.
    received_at: Instant,
    /// When the next segment without data that does not fit is answered.
    challenge_at: Instant,
    /// The container asks and the host answers: an acknowledgement of a question
    /// can wait. Not before that was seen, or a container that sends the second
    /// half of a question only when the first is acknowledged would wait, too.
    answers: bool,
}

impl Endpoint {
    /// Answers `syn` with the next [`Endpoint::output`].
    pub(super) fn new(
        now: Instant,
        syn: &Segment<'_>,
        options: &SynOptions,
        iss: Seq,
        container: IpAddr,
        link: &Link,
        rings: &Rings,
    ) -> Self {
        let scaled = options.scale.is_some();
        Self {
            sender: Sender::new(iss, syn, options, container, link.config),
            receiver: Receiver::new(syn, rings.size(), scaled, options.sack_permitted),
            established: false,
            scaled,
            sack_permitted: options.sack_permitted,
            syn_due: true,
            ack_due: false,
            ack_at: None,
            received_at: now,
            challenge_at: now,
            answers: false,
        }
    }

    /// Completes a handshake that we have begun: `answer` is the container's SYN-ACK.
    pub(super) fn invited(
        now: Instant,
        answer: &Segment<'_>,
        options: &SynOptions,
        iss: Seq,
        container: IpAddr,
        link: &Link,
        rings: &Rings,
    ) -> Self {
        let mut endpoint = Self::new(now, answer, options, iss, container, link, rings);
        endpoint.sender.invited();
        // What our SYN has said.
        endpoint.receiver.advertise(true);
        endpoint.established = true;
        endpoint.syn_due = false;
        endpoint.ack_due = true;
        endpoint
    }

    /// The handshake with the container is complete.
    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// Its state in the terms of RFC 9293, 3.3.2.
    pub(super) fn state(&self) -> &'static str {
        let (received, sent) = (self.receiver.is_finished(), self.sender.has_sent_fin());
        match (received, sent, self.sender.is_finished()) {
            _ if !self.established => "SYN-RECEIVED",
            (false, false, _) => "ESTABLISHED",
            (true, false, _) => "CLOSE-WAIT",
            (false, true, false) => "FIN-WAIT-1",
            (false, true, true) => "FIN-WAIT-2",
            (true, true, false) => "LAST-ACK",
            (true, true, true) => "CLOSED",
        }
    }

    /// Both directions have ended; only late repetitions are left (TIME-WAIT, or
    /// CLOSED after LAST-ACK).
    pub(super) fn is_finished(&self) -> bool {
        self.receiver.is_finished() && self.sender.is_finished()
    }

    /// The container has ended its direction; data may still wait for the host.
    pub(super) fn container_finished(&self) -> bool {
        self.receiver.is_finished()
    }

    /// The container owes an acknowledgement.
    pub(super) fn owed(&self) -> bool {
        !self.established || self.sender.owed()
    }

    /// Our FIN, and no data, is what it has to acknowledge.
    pub(super) fn owed_only_fin(&self) -> bool {
        self.sender.owed() && self.sender.queued() == 0
    }

    /// Bytes from the container that wait for the host.
    pub(super) fn to_host(&self) -> usize {
        self.receiver.queued()
    }

    /// Room for bytes from the host.
    pub(super) fn can_fill(&self) -> bool {
        self.established && self.sender.has_room()
    }

    /// Lends the contiguous front of what the container sent; `take` says how
    /// much of it is done with.
    pub(super) fn drain<R>(&mut self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Option<R> {
        self.receiver.drain(take)
    }

    /// Lends contiguous free space; `put` says how much of it was filled. `None`
    /// when there is none after all.
    pub(super) fn fill<R>(
        &mut self,
        rings: &mut Rings,
        put: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<R> {
        self.sender.fill(rings, put)
    }

    /// Ends our direction after everything that was filled in.
    pub(super) fn close(&mut self) {
        self.sender.end();
    }

    /// Probes an idle container (RFC 9293, 3.8.4) with the next output.
    pub(super) fn probe(&mut self) {
        self.sender.set_probe();
    }

    /// Gives back memory that is not in use.
    pub(super) fn tidy(&mut self, rings: &mut Rings) {
        self.sender.tidy(rings);
        self.receiver.tidy(rings);
    }

    /// Gives back all memory.
    pub(super) fn release(&mut self, rings: &mut Rings) {
        self.sender.release(rings);
        self.receiver.release(rings);
    }

    /// Whether a segment, `ahead` bytes behind what has arrived, says nothing but
    /// the next data: then its payload may go to the host and [`Endpoint::passed`]
    /// be told. Its acknowledgement is looked at here.
    pub(super) fn is_next(&mut self, now: Instant, segment: &Segment<'_>, ahead: usize) -> bool {
        let Some(ack) = segment.ack else { return false };
        let control = segment.syn || segment.fin || segment.rst;
        let plain = self.established
            && !control
            && !segment.payload.is_empty()
            && !self.sender.nxt().is_before(ack)
            && self.receiver.is_next(segment, ahead);
        if plain {
            self.sender.acknowledged(now, ack, segment);
        }
        plain
    }

    /// The host has taken the first `taken` bytes of `parts`.
    pub(super) fn passed(
        &mut self,
        now: Instant,
        taken: usize,
        parts: &[IoSlice<'_>],
        rings: &mut Rings,
    ) {
        let before = self.receiver.nxt();
        self.receiver.passed(taken, parts, rings);
        self.received_at = now;
        let question = self.receiver.nxt().after(before) < usize::from(self.sender.mss);
        if self.answers && question && self.ack_at.is_none() {
            self.ack_at = Some(now + ACK_DELAY);
        } else {
            self.ack_due = true;
        }
    }

    /// A segment from the container (RFC 9293, 3.10.7.4).
    pub(super) fn segment(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        rings: &mut Rings,
    ) -> Arrival {
        let first = segment.seq == self.receiver.nxt();
        if !self.receiver.is_acceptable(segment) {
            // The container has not seen our SYN, or sends what we have.
            self.syn_due |= segment.syn && !self.established;
            if !segment.rst {
                self.challenge(now, segment);
            }
            return Arrival::Looked;
        }
        // Neither an inexact reset nor a SYN ends a connection (RFC 5961, 3 and 4).
        if segment.rst && first {
            return Arrival::Reset;
        }
        if segment.rst || segment.syn {
            self.challenge(now, segment);
            return Arrival::Looked;
        }
        let Some(ack) = segment.ack else {
            return Arrival::Looked;
        };
        if !self.established {
            if ack != self.sender.nxt() {
                return Arrival::Refused;
            }
            self.established = true;
            self.syn_due = false;
            self.sender.established(now, segment);
        } else if self.sender.nxt().is_before(ack) {
            self.challenge(now, segment);
            return Arrival::Looked;
        } else {
            self.sender.acknowledged(now, ack, segment);
        }
        if segment.len() > 0 {
            self.receiver.accept(segment, rings);
            self.received_at = now;
            // A FIN is the last word: ours, if it is to come, can bring the acknowledgement.
            let last = segment.payload.is_empty() && self.receiver.is_finished();
            if first && last && !self.sender.is_ending() {
                self.ack_at = Some(now + ACK_DELAY);
            } else {
                self.ack_due = true;
            }
        }
        Arrival::Looked
    }

    /// Answers a segment that does not fit with how things stand. Without data it
    /// may itself be such an answer, which would go on for ever (RFC 5961, 7;
    /// Linux: `tcp_invalid_ratelimit`).
    fn challenge(&mut self, now: Instant, segment: &Segment<'_>) {
        let bare = segment.len() == 0;
        if bare && now < self.challenge_at {
            return;
        }
        if bare {
            self.challenge_at = now + CHALLENGE_INTERVAL;
        }
        self.ack_due = true;
    }

    /// When [`Endpoint::timer_due`] must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.sender.deadline(), self.ack_at) {
            (Some(timer), Some(ack)) => Some(timer.min(ack)),
            (timer, ack) => timer.or(ack),
        }
    }

    /// A timer may have run out; the next output does what is due.
    pub(super) fn timer_due(&mut self, now: Instant) {
        if self.ack_at.take_if(|at| *at <= now).is_some() {
            self.ack_due = true;
            self.answers = false;
        }
        if self.established {
            self.sender.timer_due(now);
        } else {
            self.syn_due |= self.sender.syn_due(now);
        }
    }

    /// Sends everything that there is to say.
    pub(super) fn output(
        &mut self,
        now: Instant,
        key: &FlowKey,
        link: &mut Link,
        host: &mut impl Host,
    ) {
        if !self.established {
            if std::mem::take(&mut self.syn_due) {
                self.send_syn(now, key, link, host);
            }
            return;
        }
        let super_segment = |len: usize, mss: u16| if len > usize::from(mss) { mss } else { 0 };
        while let Some(next) = self.sender.next(now) {
            let window = self.receiver.advertise(false);
            let ack = Some(self.receiver.nxt());
            let mut header = segment::header(key, next.seq, ack, window);
            header.control = match (next.fin, next.push) {
                (true, _) => TcpControl::Fin,
                (false, true) => TcpControl::Psh,
                (false, false) => TcpControl::None,
            };
            let payload = self.sender.payload(&next);
            let mss = super_segment(next.len, self.sender.mss);
            segment::transmit(link, host, key, &header, payload, mss);
            // Blocks of a selective acknowledgement go without data.
            self.ack_due &= self.receiver.has_gaps();
            self.ack_at = None;
            self.answers |= now < self.received_at + ACK_DELAY;
        }
        if self.sender.take_probe() {
            self.send_ack(self.sender.una().minus(1), key, link, host);
        } else if self.ack_due || self.receiver.has_opened() {
            self.send_ack(self.sender.nxt(), key, link, host);
            self.ack_due = false;
        }
        self.sender.keep_time(now);
    }

    fn send_ack(&mut self, seq: Seq, key: &FlowKey, link: &mut Link, host: &mut impl Host) {
        let window = self.receiver.advertise(false);
        let mut header = segment::header(key, seq, Some(self.receiver.nxt()), window);
        header.sack_ranges = self.receiver.blocks();
        self.ack_at = None;
        segment::transmit(link, host, key, &header, [&[], &[]], 0);
    }

    fn send_syn(&mut self, now: Instant, key: &FlowKey, link: &mut Link, host: &mut impl Host) {
        self.sender.syn_sent(now);
        let window = self.receiver.advertise(true);
        let ack = Some(self.receiver.nxt());
        let mut header = segment::header(key, self.sender.una(), ack, window);
        header.control = TcpControl::Syn;
        header.max_seg_size = Some(segment::room(link.config, key.container.ip()));
        header.window_scale = self.scaled.then_some(SCALE);
        header.sack_permitted = self.sack_permitted;
        segment::transmit(link, host, key, &header, [&[], &[]], 0);
    }

    /// Tells the container that the connection is gone (RFC 9293, 3.10.5).
    pub(super) fn abort(&mut self, key: &FlowKey, link: &mut Link, host: &mut impl Host) {
        let ack = Some(self.receiver.nxt());
        let mut header = segment::header(key, self.sender.nxt(), ack, 0);
        header.control = TcpControl::Rst;
        segment::transmit(link, host, key, &header, [&[], &[]], 0);
    }
}
