//! What is known of a connection from what was seen of it: all that the container has
//! said, and all that the stack has.
//!
//! # Theory of operation
//!
//! A container that is made of a fuzzer's bytes says anything, so what its TCP must get
//! cannot be told from what it *is*; it can from what it has *said*. Every byte of a stream
//! is told by its place ([`Stream`]): by the sequence number that the container has given
//! it on the way up, by its distance from the first on the way down. So whichever of the
//! container's segments the stack takes, the host must get the bytes of these numbers, and
//! whatever the container acknowledges, its segments must carry what the host has read.
//! Beyond that
//!
//! - nothing is acknowledged that was not sent, and what was acknowledged stays so,
//! - there is no gap between what was sent before and what is sent now,
//! - nothing is sent beyond what the container could take at the most: the furthest that it
//!   has acknowledged and the widest window that it has offered.

use std::collections::VecDeque;
use std::net::SocketAddr;

use hostile::frames::{ACK, FIN, RST, SYN, URG};
use netstack::FlowId;

use crate::frame::Tcp;
use crate::stream::Stream;

/// How many of the last SYNs of a connection are known. In a flood the stack does not see
/// most of them (`Limits::max_pps`), and answers the last one that it has.
const SYNS: usize = 1024;

/// A segment, either way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub length: usize,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
}

/// What a host is still owed of a connection that is over for the container, which may begin
/// another between the same ends.
#[derive(Debug)]
pub struct Rest {
    up: Stream,
    /// Sequence numbers of the next byte and of the container's end.
    next: u32,
    end: u32,
}

impl Rest {
    /// The host gets these bytes.
    pub fn take(&mut self, part: &[u8]) {
        assert!(self.up.is_from(self.next, part), "wrong bytes of the rest");
        self.next = self.next.wrapping_add(part.len() as u32);
    }

    /// Whether the host has all of it.
    pub fn is_taken(&self) -> bool {
        self.next == self.end
    }
}

/// Half-open stretches of sequence numbers that are kept behind a gap; more of them, and
/// what was sent is not known any more.
const STRETCHES: usize = 24;

/// A connection between a port of the container and a remote.
#[derive(Debug)]
pub struct Conn {
    pub container: SocketAddr,
    pub remote: SocketAddr,
    /// A client of a published port is at the other end, as a rule: the container may
    /// connect the other way round, too.
    pub listens: bool,
    /// The last one began on the host's side.
    inbound: bool,
    /// Its payload is no stream of ours.
    pub opaque: bool,
    pub up: Stream,
    pub down: Stream,
    /// The flow of the host's socket.
    pub flow: Option<FlowId>,
    /// The one before, which an invitation has taken the place of, before its owner knows.
    left: Option<(FlowId, Option<Rest>)>,

    /// SYNs of the container, the latest first: their sequence numbers, scales and windows.
    syns: VecDeque<Said>,
    /// The stack has answered one of them, or accepted the answer to its own.
    pub open: bool,
    /// The container's initial sequence number, and the stack's.
    pub iss: u32,
    pub irs: u32,
    /// Up to here the container has sent everything.
    pub sent: u32,
    stretches: Vec<(u32, u32)>,
    /// More was behind gaps than is kept.
    unknown: bool,
    /// The furthest that the stack has acknowledged.
    pub acknowledged: u32,
    /// Bytes that the host was given.
    pub taken: u64,
    /// The host's direction was shut down.
    pub shut: bool,

    /// What the stack has sent, as a distance from the first byte, and its end.
    pub got: u64,
    pub end: Option<u64>,
    /// Bytes that the stack has read, and whether it has read the end.
    pub read: u64,
    pub read_end: bool,
    /// The furthest acknowledgement and the widest window of the container.
    furthest: u64,
    scale: u8,
    widest: u64,

    // What the container's own TCP would do, for a generator that wants to be understood.
    /// Next sequence number.
    pub next: u32,
    pub finished: bool,
}

impl Conn {
    /// The header of a segment of the container in which it says this.
    pub fn header(&self, said: &Said) -> Tcp {
        Tcp {
            port: self.container.port(),
            remote: self.remote.port(),
            seq: said.seq,
            ack: said.ack,
            flags: said.flags,
            window: said.window,
            urgent: if said.flags & URG != 0 { 1 } else { 0 },
        }
    }

    pub fn new(number: u32, container: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            container,
            remote,
            listens: false,
            inbound: false,
            opaque: false,
            up: Stream(2 * number),
            down: Stream(2 * number + 1),
            flow: None,
            left: None,
            syns: VecDeque::new(),
            open: false,
            iss: 0,
            irs: 0,
            sent: 0,
            stretches: Vec::new(),
            unknown: false,
            acknowledged: 0,
            taken: 0,
            shut: false,
            got: 0,
            end: None,
            read: 0,
            read_end: false,
            furthest: 0,
            scale: 0,
            widest: 0,
            next: 0,
            finished: false,
        }
    }

    /// The acknowledgement of all that the stack has sent.
    pub fn heard(&self) -> u32 {
        let end = u32::from(self.end == Some(self.got));
        self.irs
            .wrapping_add(1)
            .wrapping_add(self.got as u32)
            .wrapping_add(end)
    }

    /// The container sends a valid segment.
    pub fn says(&mut self, said: &Said) {
        // What a flow begins with: a SYN, or the answer to the stack's.
        if said.flags & SYN != 0 {
            self.syns.truncate(SYNS - 1);
            self.syns.push_front(*said);
        }
        if !self.open {
            return;
        }
        let control = u32::from(said.flags & SYN != 0) + u32::from(said.flags & FIN != 0);
        let end = said.seq.wrapping_add(said.length as u32 + control);
        self.stretch(said.seq, end);
        if said.flags & ACK != 0 {
            let first = self.irs.wrapping_add(1);
            let distance = u64::from(said.ack.wrapping_sub(first));
            let sent = self.got + u64::from(self.end.is_some());
            if distance <= sent {
                self.furthest = self.furthest.max(distance);
            }
        }
        self.widest = self.widest.max(u64::from(said.window) << self.scale);
    }

    fn stretch(&mut self, from: u32, upto: u32) {
        let behind = |a: u32, b: u32| a.wrapping_sub(b).cast_signed() > 0;
        if !behind(upto, self.sent) {
            return;
        }
        if behind(from, self.sent) {
            if self.stretches.len() == STRETCHES {
                self.unknown = true;
            } else if !self.unknown {
                self.stretches.push((from, upto));
            }
            return;
        }
        self.sent = upto;
        while let Some(place) = self
            .stretches
            .iter()
            .position(|(from, _)| !behind(*from, self.sent))
        {
            let (_, upto) = self.stretches.swap_remove(place);
            if behind(upto, self.sent) {
                self.sent = upto;
            }
        }
    }

    fn begin(&mut self, iss: u32, irs: u32) {
        self.open = true;
        (self.iss, self.irs) = (iss, irs);
        self.sent = iss.wrapping_add(1);
        self.acknowledged = self.sent;
        self.stretches.clear();
        self.unknown = false;
        (self.got, self.end, self.furthest) = (0, None, 0);
        self.next = self.sent;
    }

    /// Another flow takes the place of the one there is, which has no name any more, but may
    /// still have a socket.
    pub fn leave(&mut self) -> Option<(FlowId, Option<Rest>)> {
        self.left.take().or_else(|| {
            let flow = self.flow.take()?;
            Some((flow, (!self.opaque).then(|| self.rest())))
        })
    }

    fn rest(&mut self) -> Rest {
        assert!(
            self.open && !self.shut,
            "not over, or nothing is left of it"
        );
        assert!(
            self.read_end && self.end == Some(self.read) && self.furthest > self.read,
            "it is not over for the container, which has not taken everything"
        );
        self.open = false;
        Rest {
            up: self.up,
            next: self.iss.wrapping_add(1).wrapping_add(self.taken as u32),
            end: self.acknowledged.wrapping_sub(1),
        }
    }

    /// A host socket stands for it from now on, of a client or for the container.
    pub fn opened(&mut self, flow: FlowId, inbound: bool) {
        (self.flow, self.inbound) = (Some(flow), inbound);
        self.open = false;
        (self.taken, self.shut) = (0, false);
        (self.read, self.read_end) = (0, false);
        (self.got, self.end) = (0, None);
        self.finished = false;
    }

    /// The stack sends a segment that is well-formed; its payload in two parts.
    pub fn hears(&mut self, said: &Said, payload: [&[u8]; 2]) {
        if said.flags & RST != 0 {
            return;
        }
        // A flow to the resolvers may go by another id than it began with, and an
        // invitation goes out before its owner knows the id.
        let begins = said.flags == SYN;
        assert!(
            self.flow.is_some() || self.opaque || begins,
            "a segment of a connection that does not exist: {said:?}"
        );
        if said.flags & SYN != 0 {
            return self.hears_syn(said);
        }
        assert_ne!(said.flags & ACK, 0, "every segment acknowledges");
        if !self.open {
            // The answer to the container's SYN-ACK.
            assert!(self.inbound, "data before the SYN: {said:?}");
            let syn = self.syn_of(said.ack.wrapping_sub(1));
            assert_eq!(said.seq, self.irs.wrapping_add(1));
            self.scales(&syn, syn.scale.is_some());
            self.begin(syn.seq, self.irs);
        }
        // Acknowledgements.
        let ahead = said.ack.wrapping_sub(self.acknowledged).cast_signed();
        assert!(ahead >= 0, "an acknowledgement is taken back: {said:?}");
        self.acknowledged = said.ack;
        if !self.unknown {
            let beyond = said.ack.wrapping_sub(self.sent).cast_signed();
            assert!(
                beyond <= 0,
                "{beyond} bytes are acknowledged that were not sent"
            );
        }
        if self.shut && !self.opaque {
            let last = self.iss.wrapping_add(2).wrapping_add(self.taken as u32);
            assert_eq!(said.ack, last, "all is acknowledged when the end is");
        }
        // Data.
        let first = self.irs.wrapping_add(1);
        let place = said.seq.wrapping_sub(first).wrapping_sub(self.got as u32);
        let at = self.got.checked_add_signed(place.cast_signed().into());
        let Some(at) = at else {
            assert_eq!(said.length, 0, "data before the first byte");
            return;
        };
        let fin = said.flags & FIN != 0;
        if said.length == 0 && !fin {
            let end = self.got + u64::from(self.end.is_some());
            assert!(at <= end, "an acknowledgement from beyond what was sent");
            return;
        }
        assert!(at <= self.got, "a gap: {} bytes are missing", at - self.got);
        let upto = at + said.length as u64;
        if !self.opaque {
            assert!(upto <= self.read, "bytes that nobody has sent");
            assert!(
                self.down.is(at, payload[0])
                    && self.down.is(at + payload[0].len() as u64, payload[1]),
                "wrong bytes for the container among {} at {at}",
                said.length
            );
        }
        if upto > self.got {
            assert!(
                upto <= self.furthest + self.widest,
                "{upto} is beyond any window: {} and {}",
                self.furthest,
                self.widest
            );
        }
        assert!(
            self.end
                .is_none_or(|end| upto <= end && (!fin || upto == end)),
            "data behind the end, or two ends"
        );
        self.got = self.got.max(upto);
        if fin {
            if !self.opaque {
                assert!(self.read_end && upto == self.read, "an end that is none");
            }
            self.end = Some(upto);
        }
    }

    fn scales(&mut self, syn: &Said, agreed: bool) {
        self.scale = if agreed {
            syn.scale.unwrap_or(0).min(14)
        } else {
            0
        };
        self.widest = u64::from(syn.window);
    }

    fn syn_of(&self, iss: u32) -> Said {
        *self
            .syns
            .iter()
            .find(|syn| syn.seq == iss && (syn.flags & ACK != 0) == self.inbound)
            .expect("an answer to a SYN that was sent")
    }

    fn hears_syn(&mut self, said: &Said) {
        if said.flags == SYN {
            if self.open {
                self.left = self.leave();
                self.open = false;
            }
            self.irs = said.seq;
            return;
        }
        assert!(said.flags == SYN | ACK && !self.inbound);
        let iss = said.ack.wrapping_sub(1);
        if self.open {
            assert_eq!((iss, said.seq), (self.iss, self.irs), "the same again");
            return;
        }
        let syn = self.syn_of(iss);
        assert!(said.scale.is_none() || syn.scale.is_some());
        self.scales(&syn, said.scale.is_some());
        self.begin(iss, said.seq);
    }
}
