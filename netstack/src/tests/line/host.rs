//! The host of a [`super::Line`] and the far ends of its connections, which count and
//! compare.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use smoltcp::time::{Duration, Instant};

use super::super::host::joined;
use super::super::stream::{LONGEST, Stream, down, up, wide};
use super::HOST_DELAY;
use crate::{Close, FlowId, Host, HostError, Io, IpFields};

/// What the far end of a connection does.
#[derive(Debug, Clone, Copy)]
pub(in crate::tests) struct Far {
    /// Bytes that it sends, and whether it ends its direction after them.
    pub(in crate::tests) goal: u64,
    pub(in crate::tests) ends: bool,
    pub(in crate::tests) reads: bool,
    /// The host socket's buffers, out and in.
    pub(in crate::tests) buffers: (u64, u64),
}

impl Far {
    /// Sends when it is told to.
    pub(in crate::tests) fn waits() -> Self {
        Self {
            ends: false,
            ..Self::sends(0)
        }
    }

    pub(in crate::tests) fn sends(goal: u64) -> Self {
        Self {
            goal,
            ends: true,
            reads: true,
            buffers: (256 << 10, 256 << 10),
        }
    }
}

/// A host socket and its far end.
#[derive(Debug)]
pub(in crate::tests) struct Conn {
    pub(in crate::tests) to: SocketAddr,
    pub(in crate::tests) far: Far,
    pub(super) connecting: bool,
    up: Stream,
    /// Bytes that the stack has written, and how many of them are in the buffer.
    pub(in crate::tests) taken: u64,
    pub(super) queued: u64,
    pub(super) wants_room: bool,
    down: Stream,
    /// Bytes that have come from the far end, and those that the stack has read.
    pub(super) arrived: u64,
    pub(in crate::tests) read: u64,
    pub(super) end_arrived: bool,
    pub(in crate::tests) shut: bool,
    pub(in crate::tests) closed: Option<Close>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Connected,
    /// The far end has read what was in the buffer.
    Drained,
    /// More has come from the far end, or its end.
    Arrived,
}

#[derive(Debug)]
pub(in crate::tests) struct CountingHost {
    pub(super) now: Instant,
    pub(in crate::tests) conns: BTreeMap<FlowId, Conn>,
    pub(super) plans: HashMap<SocketAddr, Far>,
    pub(super) events: BTreeSet<(Instant, u64, FlowId, u8)>,
    sequence: u64,
    pub(super) frames: Vec<Vec<u8>>,
    /// Frames that fit in the TAP's queue; what is sent beyond it is lost.
    pub(in crate::tests) queue: usize,
    pub(in crate::tests) overrun: usize,
}

impl CountingHost {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            conns: BTreeMap::new(),
            plans: HashMap::new(),
            events: BTreeSet::new(),
            sequence: 0,
            frames: Vec::new(),
            queue: usize::MAX,
            overrun: 0,
        }
    }

    pub(super) fn schedule(&mut self, after: Duration, flow: FlowId, event: Event) {
        let kind = match event {
            Event::Connected => 0,
            Event::Drained => 1,
            Event::Arrived => 2,
        };
        self.sequence += 1;
        self.events
            .insert((self.now + after, self.sequence, flow, kind));
    }

    fn conn(&mut self, flow: FlowId) -> &mut Conn {
        let conn = self.conns.get_mut(&flow).unwrap();
        assert_eq!(conn.closed, None, "{flow:?} is closed");
        assert!(!conn.connecting);
        conn
    }
}

impl Host for CountingHost {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        assert!(self.frames.len() < 100_000, "the stack sends without end");
        if self.frames.len() < self.queue {
            self.frames.push(joined(frame));
        } else {
            self.overrun += 1;
        }
    }

    fn is_local(&mut self, _: IpAddr) -> bool {
        false
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError> {
        let far = self.plans[&to];
        let SocketAddr::V4(v4) = to else {
            panic!("{to}")
        };
        let conn = Conn {
            to,
            far,
            connecting: true,
            up: up(v4),
            taken: 0,
            queued: 0,
            wants_room: false,
            down: down(v4),
            arrived: 0,
            read: 0,
            end_arrived: false,
            shut: false,
            closed: None,
        };
        assert!(self.conns.insert(flow, conn).is_none(), "an id used again");
        self.schedule(HOST_DELAY, flow, Event::Connected);
        self.schedule(HOST_DELAY * 2, flow, Event::Arrived);
        Ok(())
    }

    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io {
        let data = joined(data);
        assert!(!data.is_empty(), "an empty write is a wasted call");
        let conn = self.conn(flow);
        assert!(!conn.shut);
        let room = usize::try_from(conn.far.buffers.0 - conn.queued).unwrap();
        let n = data.len().min(room);
        for (start, piece) in (conn.taken..)
            .step_by(LONGEST)
            .zip(data[..n].chunks(LONGEST))
        {
            assert!(
                conn.up.at(start, piece.len()) == piece,
                "wrong bytes for the host among {n} at {}",
                conn.taken
            );
        }
        let idle = conn.queued == 0;
        conn.taken += wide(n);
        conn.queued += wide(n);
        conn.wants_room |= n < data.len();
        if idle && conn.far.reads {
            self.schedule(HOST_DELAY, flow, Event::Drained);
        }
        if n == 0 { Io::WouldBlock } else { Io::Done(n) }
    }

    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io {
        assert!(!buffer.is_empty(), "an empty read is taken for the end");
        let conn = self.conn(flow);
        let n = usize::try_from(conn.arrived - conn.read)
            .unwrap()
            .min(buffer.len());
        if n == 0 {
            return if conn.end_arrived {
                Io::Closed
            } else {
                Io::WouldBlock
            };
        }
        for (start, piece) in (conn.read..)
            .step_by(LONGEST)
            .zip(buffer[..n].chunks_mut(LONGEST))
        {
            piece.copy_from_slice(conn.down.at(start, piece.len()));
        }
        let full = conn.arrived - conn.read == conn.far.buffers.1;
        conn.read += wide(n);
        if full && !conn.end_arrived {
            self.schedule(HOST_DELAY, flow, Event::Arrived);
        }
        Io::Done(n)
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let conn = self.conn(flow);
        assert!(!conn.shut);
        conn.shut = true;
    }

    fn tcp_keepalive(&mut self, flow: FlowId, _: Duration, _: Duration) {
        self.conn(flow);
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let conn = self.conns.get_mut(&flow).unwrap();
        assert_eq!(conn.closed.replace(how), None, "closed twice");
        if how == Close::Orderly {
            let ended = conn.end_arrived && conn.read == conn.arrived;
            assert!(ended && conn.shut, "in order is when both have ended");
        }
    }

    fn udp_open(&mut self, _: FlowId, _: IpAddr) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn udp_send(
        &mut self,
        _: FlowId,
        _: SocketAddr,
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn echo_open(&mut self, _: FlowId, _: IpAddr) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn echo_send(
        &mut self,
        _: FlowId,
        _: IpAddr,
        _: u16,
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }
}
