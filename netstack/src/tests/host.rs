//! A host whose sockets are in memory, with a kernel's bounds and edges.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use hostile::Call;
use smoltcp::time::{Duration, Instant};

use crate::{Attempt, Close, FlowId, Host, HostError, Io, IpFields, Readiness, Reason, Refusal};

/// What becomes of an attempt to connect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Accept(Duration),
    Fail(Duration, HostError),
    /// `connect` itself fails.
    Immediate(HostError),
    /// Nothing is heard of it again.
    Never,
}

/// News of the host for the stack.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Connected(FlowId),
    Failed(FlowId, HostError),
    Ready(FlowId, Readiness),
}

/// A TCP socket and the far end of its connection.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) to: SocketAddr,
    pub(super) connecting: bool,
    /// The kernel's send buffer; the far end takes from it.
    outgoing: VecDeque<u8>,
    outgoing_cap: usize,
    /// The kernel's receive buffer; the far end puts into it.
    incoming: VecDeque<u8>,
    incoming_cap: usize,
    /// Everything that the far end has read.
    pub(super) received: Vec<u8>,
    /// The far end reads by itself.
    pub(super) reads: bool,
    /// The far end has ended its direction.
    ended: bool,
    /// The connection is broken (`sk_err`).
    error: Option<HostError>,
    /// A call has told the error, and none will again.
    told: bool,
    /// Our direction was shut down.
    pub(super) shut: bool,
    /// A write found no room: its end is announced.
    wants_room: bool,
    pub(super) keepalive: Option<(Duration, Duration)>,
    /// Most bytes moved by one call.
    pub(super) chop: usize,
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(Box<Tcp>),
    Udp,
    Echo(IpAddr),
}

/// A socket that the stack has closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) at: Instant,
    pub(super) how: Close,
    pub(super) socket: Socket,
}

#[derive(Debug)]
pub(super) struct FakeHost {
    pub(super) now: Instant,
    /// What the stack has sent, not yet on the link.
    pub(super) frames: VecDeque<Vec<u8>>,
    pub(super) open: BTreeMap<FlowId, Socket>,
    pub(super) closed: BTreeMap<FlowId, Closed>,
    pub(super) outcomes: HashMap<SocketAddr, Outcome>,
    pub(super) default_outcome: Outcome,
    pub(super) local: HashSet<IpAddr>,
    /// Other resolvers, not yet asked for.
    pub(super) resolvers: Option<Vec<SocketAddr>>,
    pub(super) events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// How many more of these calls succeed before one fails.
    pub(super) faults: HashMap<Call, (u32, HostError)>,
    /// Every destination that a TCP socket was aimed at.
    pub(super) connects: Vec<SocketAddr>,
    pub(super) datagrams: Vec<(FlowId, SocketAddr, Vec<u8>)>,
    pub(super) echoes: Vec<(FlowId, IpAddr, u16, Vec<u8>)>,
    /// Those of the datagram or echo request that was sent last.
    pub(super) fields: IpFields,
    /// Sizes of new TCP sockets' buffers, out and in.
    pub(super) buffers: (usize, usize),
    pub(super) chop: usize,
    /// New far ends read by themselves.
    pub(super) reads: bool,
    /// What the policy has refused.
    pub(super) refused: Vec<Refused>,
}

/// A refusal, as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) attempt: Attempt,
    pub(super) remote: SocketAddr,
    pub(super) name: Option<String>,
    pub(super) reason: Reason,
    pub(super) ended: bool,
}

impl FakeHost {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            frames: VecDeque::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            outcomes: HashMap::new(),
            default_outcome: Outcome::Accept(Duration::from_millis(1)),
            local: HashSet::new(),
            resolvers: None,
            events: BTreeMap::new(),
            sequence: 0,
            faults: HashMap::new(),
            connects: Vec::new(),
            datagrams: Vec::new(),
            echoes: Vec::new(),
            fields: IpFields::default(),
            buffers: (256 << 10, 256 << 10),
            chop: usize::MAX,
            reads: true,
            refused: Vec::new(),
        }
    }

    /// News for the stack; readiness that it has not been told of yet is told
    /// at once, as by epoll(7).
    pub(super) fn event(&mut self, after: Duration, event: Event) {
        if let Event::Ready(flow, new) = event {
            for pending in self.events.values_mut() {
                if let Event::Ready(other, ready) = pending
                    && *other == flow
                {
                    ready.readable |= new.readable;
                    ready.writable |= new.writable;
                    ready.read_closed |= new.read_closed;
                    ready.failed |= new.failed;
                    return;
                }
            }
        }
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    fn fault(&mut self, call: Call) -> Option<HostError> {
        let (left, error) = self.faults.get_mut(&call)?;
        let error = *error;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        self.faults.remove(&call);
        Some(error)
    }

    pub(super) fn tcp(&mut self, flow: FlowId) -> &mut Tcp {
        match self.open.get_mut(&flow) {
            Some(Socket::Tcp(tcp)) => tcp,
            other => panic!("{flow:?} is not an open TCP socket but {other:?}"),
        }
    }

    /// The open TCP socket aimed at `to`, if there is one.
    pub(super) fn flow_to(&self, to: SocketAddr) -> Option<FlowId> {
        self.open
            .iter()
            .find(|(_, socket)| matches!(socket, Socket::Tcp(tcp) if tcp.to == to))
            .map(|(id, _)| *id)
    }

    /// The far end sends; how much the kernel took.
    pub(super) fn far_write(&mut self, flow: FlowId, data: &[u8]) -> usize {
        let Some(Socket::Tcp(tcp)) = self.open.get_mut(&flow) else {
            return 0;
        };
        if tcp.ended || tcp.error.is_some() {
            return 0;
        }
        let n = data.len().min(tcp.incoming_cap - tcp.incoming.len());
        tcp.incoming.extend(&data[..n]);
        if n > 0 {
            let readable = Readiness {
                readable: true,
                ..Readiness::default()
            };
            self.event(Duration::ZERO, Event::Ready(flow, readable));
        }
        n
    }

    /// The far end reads everything there is.
    pub(super) fn far_read(&mut self, flow: FlowId) {
        let Some(Socket::Tcp(tcp)) = self.open.get_mut(&flow) else {
            return;
        };
        tcp.received.extend(tcp.outgoing.drain(..));
        if std::mem::take(&mut tcp.wants_room) {
            let writable = Readiness {
                writable: true,
                ..Readiness::default()
            };
            self.event(Duration::ZERO, Event::Ready(flow, writable));
        }
    }

    /// The far end ends its direction.
    pub(super) fn far_close(&mut self, flow: FlowId) {
        if let Some(Socket::Tcp(tcp)) = self.open.get_mut(&flow)
            && !tcp.ended
        {
            tcp.ended = true;
            let closed = Readiness {
                readable: true,
                read_closed: true,
                ..Readiness::default()
            };
            self.event(Duration::ZERO, Event::Ready(flow, closed));
        }
    }

    /// As [`FakeHost::far_reset`]; the next call finds it before it is announced.
    pub(super) fn far_reset_silently(&mut self, flow: FlowId, error: HostError) {
        if let Some(Socket::Tcp(tcp)) = self.open.get_mut(&flow) {
            tcp.error = Some(error);
            tcp.outgoing.clear();
        }
    }

    /// The far end resets the connection, or it breaks on its way.
    pub(super) fn far_reset(&mut self, flow: FlowId, error: HostError) {
        self.far_reset_silently(flow, error);
        if let Some(Socket::Tcp(_)) = self.open.get_mut(&flow) {
            // EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | EPOLLERR
            let broken = Readiness {
                readable: true,
                writable: true,
                read_closed: true,
                failed: true,
            };
            self.event(Duration::ZERO, Event::Ready(flow, broken));
        }
    }

    /// A published UDP port has its socket.
    pub(super) fn bound(&mut self, flow: FlowId) {
        self.insert(flow, Socket::Udp);
    }

    /// A client has connected to a published port.
    pub(super) fn accepted(&mut self, flow: FlowId, client: SocketAddr) {
        self.insert_tcp(flow, client, false);
    }

    fn insert_tcp(&mut self, flow: FlowId, to: SocketAddr, connecting: bool) {
        let (outgoing_cap, incoming_cap) = self.buffers;
        let tcp = Tcp {
            to,
            connecting,
            outgoing: VecDeque::new(),
            outgoing_cap,
            incoming: VecDeque::new(),
            incoming_cap,
            received: Vec::new(),
            reads: self.reads,
            ended: false,
            error: None,
            told: false,
            shut: false,
            wants_room: false,
            keepalive: None,
            chop: self.chop,
        };
        self.insert(flow, Socket::Tcp(Box::new(tcp)));
    }

    fn insert(&mut self, flow: FlowId, socket: Socket) {
        assert!(
            !self.closed.contains_key(&flow),
            "the id of a closed flow is not used again"
        );
        assert!(
            self.open.insert(flow, socket).is_none(),
            "one socket per flow"
        );
    }
}

pub(super) fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}

impl Host for FakeHost {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        assert!(self.frames.len() < 100_000, "the stack sends without end");
        self.frames.push_back(joined(frame));
    }

    fn is_local(&mut self, addr: IpAddr) -> bool {
        self.local.contains(&addr)
    }

    fn resolvers(&mut self) -> Option<Vec<SocketAddr>> {
        self.resolvers.take()
    }

    fn refused(&mut self, refusal: &Refusal<'_>) {
        assert_eq!(
            refusal.rule.is_some(),
            matches!(refusal.reason, Reason::Rule(_))
        );
        self.refused.push(Refused {
            attempt: refusal.attempt,
            remote: refusal.remote,
            name: refusal.name.map(ToString::to_string),
            reason: refusal.reason,
            ended: refusal.ended,
        });
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError> {
        self.connects.push(to);
        if let Some(error) = self.fault(Call::Connect) {
            return Err(error);
        }
        match *self.outcomes.get(&to).unwrap_or(&self.default_outcome) {
            Outcome::Immediate(error) => return Err(error),
            Outcome::Accept(after) => self.event(after, Event::Connected(flow)),
            Outcome::Fail(after, error) => self.event(after, Event::Failed(flow, error)),
            Outcome::Never => {}
        }
        self.insert_tcp(flow, to, true);
        Ok(())
    }

    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io {
        assert!(
            !data.is_empty() && data.iter().all(|part| !part.is_empty()),
            "an empty write is a wasted call"
        );
        let data = joined(data);
        if let Some(error) = self.fault(Call::Send) {
            return Io::Failed(error);
        }
        let tcp = self.tcp(flow);
        assert!(!tcp.connecting && !tcp.shut);
        if let Some(error) = tcp.error {
            tcp.told = true;
            return Io::Failed(error);
        }
        let room = tcp.outgoing_cap - tcp.outgoing.len();
        let n = data.len().min(room).min(tcp.chop);
        if n < data.len() {
            tcp.wants_room = true;
        }
        tcp.outgoing.extend(&data[..n]);
        let chopped = n < data.len() && n < room;
        if tcp.reads {
            self.far_read(flow);
        } else if chopped {
            let writable = Readiness {
                writable: true,
                ..Readiness::default()
            };
            self.event(Duration::from_micros(5), Event::Ready(flow, writable));
        }
        if n == 0 { Io::WouldBlock } else { Io::Done(n) }
    }

    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io {
        assert!(!buffer.is_empty(), "an empty read is taken for the end");
        if let Some(error) = self.fault(Call::Receive) {
            return Io::Failed(error);
        }
        let tcp = self.tcp(flow);
        assert!(!tcp.connecting);
        if tcp.incoming.is_empty() {
            return match tcp.error {
                Some(_) if tcp.told => Io::Closed,
                Some(error) => {
                    tcp.told = true;
                    Io::Failed(error)
                }
                None if tcp.ended => Io::Closed,
                None => Io::WouldBlock,
            };
        }
        let n = buffer.len().min(tcp.incoming.len()).min(tcp.chop);
        for (to, from) in buffer.iter_mut().zip(tcp.incoming.drain(..n)) {
            *to = from;
        }
        if n < buffer.len() && !tcp.incoming.is_empty() {
            let readable = Readiness {
                readable: true,
                ..Readiness::default()
            };
            self.event(Duration::from_micros(5), Event::Ready(flow, readable));
        }
        Io::Done(n)
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let tcp = self.tcp(flow);
        assert!(!tcp.connecting && !tcp.shut);
        tcp.shut = true;
    }

    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration) {
        self.tcp(flow).keepalive = Some((idle, interval));
    }

    fn udp_open(&mut self, flow: FlowId, _: IpAddr) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::UdpOpen) {
            return Err(error);
        }
        self.insert(flow, Socket::Udp);
        Ok(())
    }

    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::UdpSend) {
            return Err(error);
        }
        assert!(matches!(self.open.get(&flow), Some(Socket::Udp)));
        self.datagrams.push((flow, to, payload.to_vec()));
        self.fields = fields;
        Ok(())
    }

    fn echo_open(&mut self, flow: FlowId, to: IpAddr) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::EchoOpen) {
            return Err(error);
        }
        self.insert(flow, Socket::Echo(to));
        Ok(())
    }

    fn echo_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        seq: u16,
        payload: &[u8],
        fields: IpFields,
    ) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::EchoSend) {
            return Err(error);
        }
        assert!(matches!(self.open.get(&flow), Some(Socket::Echo(at)) if *at == to));
        self.echoes.push((flow, to, seq, payload.to_vec()));
        self.fields = fields;
        Ok(())
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let mut socket = self
            .open
            .remove(&flow)
            .expect("only open sockets are closed");
        if let Socket::Tcp(tcp) = &mut socket {
            match how {
                Close::Orderly => {
                    assert!(
                        tcp.incoming.is_empty() && tcp.ended && tcp.shut,
                        "closed in order means that both directions have ended"
                    );
                    // What the kernel still holds is sent.
                    tcp.received.extend(tcp.outgoing.drain(..));
                }
                Close::Forgotten => {
                    assert!(tcp.shut, "all that the container has sent is the host's");
                    tcp.received.extend(tcp.outgoing.drain(..));
                }
                Close::Reset => tcp.outgoing.clear(),
            }
        }
        let at = self.now;
        self.closed.insert(flow, Closed { at, how, socket });
    }
}
