//! The host: sockets of which only positions are kept, and what a kernel would say.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use hostile::{CALLS, Call};
use netstack::{Close, Duration, FlowId, Host, HostError, Io, IpFields, Readiness, Refusal};

use crate::conn::Rest;
use crate::watch::Watch;

/// Messages of one connection that are kept for an answer.
const KEPT: usize = 8;

#[derive(Debug)]
pub struct Tcp {
    pub to: SocketAddr,
    /// The connection that is watched, if it is one.
    pub conn: Option<usize>,
    /// What it was owed when another took its place there.
    rest: Option<Rest>,
    pub connecting: bool,
    /// Bytes that a write can still take.
    pub room: usize,
    wants_room: bool,
    /// Bytes that have come and were not read.
    pub waiting: usize,
    /// The far end has ended its direction.
    pub ended: bool,
    pub error: Option<HostError>,
    /// A call has told the error, and none will again.
    told: bool,
    pub shut: bool,
    read: u64,
    /// What a resolver has to say, in place of a stream.
    pub answers: VecDeque<u8>,
    pub asked: Vec<u8>,
}

#[derive(Debug)]
pub enum Socket {
    Tcp(Box<Tcp>),
    Udp,
    Echo(IpAddr),
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    /// Its socket was closed.
    closed: bool,
    socket: Option<Socket>,
    /// Where it is among those that are open.
    among: usize,
}

/// The host.
#[derive(Debug)]
pub struct Sockets {
    places: Vec<Place>,
    pub open: Vec<FlowId>,
    pub watch: Watch,
    /// The connection that the frame belongs to that the stack is given.
    pub current: Option<usize>,
    pub calls: u64,
    pub faults: [Option<HostError>; CALLS.len()],
    pub local: Option<IpAddr>,
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Datagrams that were sent, the latest last.
    pub datagrams: VecDeque<(FlowId, SocketAddr)>,
    pub echoes: VecDeque<(FlowId, u16)>,
    pub queries: VecDeque<(FlowId, SocketAddr, Vec<u8>)>,
    /// What a UDP datagram of this call must be made of, one after the other.
    pub expected: Option<&'static [u8]>,
    /// Size of the buffer of new sockets.
    pub buffer: usize,
    pub refused: u64,
    /// Connections that were begun.
    pub connects: u64,
}

impl Sockets {
    pub fn new(watch: Watch) -> Self {
        Self {
            places: Vec::new(),
            open: Vec::new(),
            watch,
            current: None,
            calls: 0,
            faults: [None; CALLS.len()],
            local: None,
            resolvers: None,
            datagrams: VecDeque::new(),
            echoes: VecDeque::new(),
            queries: VecDeque::new(),
            expected: None,
            buffer: 64 << 10,
            refused: 0,
            connects: 0,
        }
    }

    pub fn get(&self, flow: FlowId) -> Option<&Socket> {
        let place = self.places.get(flow.index as usize)?;
        place
            .socket
            .as_ref()
            .filter(|_| place.generation == flow.generation)
    }

    pub fn tcp(&mut self, flow: FlowId) -> Option<&mut Tcp> {
        let place = self.places.get_mut(flow.index as usize)?;
        if place.generation != flow.generation {
            return None;
        }
        match &mut place.socket {
            Some(Socket::Tcp(tcp)) => Some(tcp),
            _ => None,
        }
    }

    #[track_caller]
    fn used(&mut self, flow: FlowId) -> &mut Tcp {
        self.tcp(flow)
            .unwrap_or_else(|| panic!("{flow:?} is no open TCP socket"))
    }

    fn fault(&mut self, call: Call) -> Option<HostError> {
        self.calls += 1;
        self.faults[call as usize].take()
    }

    fn insert(&mut self, flow: FlowId, socket: Socket) {
        let index = flow.index as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, Place::default);
        }
        let place = &mut self.places[index];
        assert!(place.socket.is_none(), "one socket for each flow");
        let fresh = !place.closed || flow.generation != place.generation;
        assert!(fresh, "the id of a closed flow is used again");
        (place.generation, place.closed) = (flow.generation, false);
        place.socket = Some(socket);
        place.among = self.open.len();
        self.open.push(flow);
    }

    fn take(&mut self, flow: FlowId) -> Option<Socket> {
        let place = self.places.get_mut(flow.index as usize)?;
        if place.generation != flow.generation {
            return None;
        }
        let socket = place.socket.take()?;
        let among = place.among;
        self.open.swap_remove(among);
        if let Some(moved) = self.open.get(among) {
            self.places[moved.index as usize].among = among;
        }
        Some(socket)
    }

    fn insert_tcp(&mut self, flow: FlowId, to: SocketAddr, conn: Option<usize>, connecting: bool) {
        if let Some(conn) = conn {
            self.leave(conn);
            self.watch.conns[conn].opened(flow, !connecting);
        }
        let tcp = Tcp {
            to,
            conn,
            rest: None,
            connecting,
            room: self.buffer,
            wants_room: false,
            waiting: 0,
            ended: false,
            error: None,
            told: false,
            shut: false,
            read: 0,
            answers: VecDeque::new(),
            asked: Vec::new(),
        };
        self.insert(flow, Socket::Tcp(Box::new(tcp)));
    }

    /// Another flow takes the place of the one that a connection has, if it has any.
    fn leave(&mut self, conn: usize) {
        if let Some((flow, rest)) = self.watch.conns[conn].leave() {
            let tcp = self.used(flow);
            (tcp.conn, tcp.rest) = (None, rest);
        }
    }

    /// A client has connected to a published port.
    pub fn accepted(&mut self, flow: FlowId, client: SocketAddr, conn: usize) {
        self.insert_tcp(flow, client, Some(conn), false);
    }

    /// A published UDP port has its socket.
    pub fn bound(&mut self, flow: FlowId) {
        self.insert(flow, Socket::Udp);
    }

    /// The kernel has closed a socket that could not be connected.
    pub fn failed(&mut self, flow: FlowId) -> bool {
        if !self.tcp(flow).is_some_and(|tcp| tcp.connecting) {
            return false;
        }
        self.forget(flow);
        true
    }

    fn forget(&mut self, flow: FlowId) -> Option<Socket> {
        let socket = self.take(flow)?;
        if let Socket::Tcp(tcp) = &socket
            && let Some(conn) = tcp.conn
        {
            let conn = &mut self.watch.conns[conn];
            if conn.flow == Some(flow) {
                (conn.flow, conn.open) = (None, false);
            }
        }
        Some(socket)
    }

    /// The far end does so much; what the stack is to be told.
    pub fn far(&mut self, flow: FlowId, act: impl FnOnce(&mut Tcp)) -> Option<Readiness> {
        let tcp = self.tcp(flow)?;
        if tcp.connecting {
            return None;
        }
        let before = (tcp.waiting, tcp.ended, tcp.error.is_some());
        act(tcp);
        let mut ready = Readiness {
            readable: tcp.waiting > before.0,
            writable: tcp.wants_room && tcp.room > 0,
            read_closed: tcp.ended && !before.1,
            failed: false,
        };
        if ready.writable {
            tcp.wants_room = false;
        }
        if tcp.error.is_some() && !before.2 {
            // EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | EPOLLERR
            tcp.room = 0;
            ready = Readiness {
                readable: true,
                writable: true,
                read_closed: true,
                failed: true,
            };
        }
        ready.readable |= ready.read_closed;
        (ready != Readiness::default()).then_some(ready)
    }

    fn note<T>(queue: &mut VecDeque<T>, item: T) {
        if queue.len() == KEPT {
            queue.pop_front();
        }
        queue.push_back(item);
    }
}

impl Host for Sockets {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        self.calls += 1;
        self.watch.frame(frame);
    }

    fn is_local(&mut self, addr: IpAddr) -> bool {
        self.local == Some(addr)
    }

    fn resolvers(&mut self) -> Option<Vec<SocketAddr>> {
        self.resolvers.take()
    }

    fn refused(&mut self, _: &Refusal<'_>) {
        self.refused += 1;
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::Connect) {
            return Err(error);
        }
        let conn = self.current.filter(|conn| {
            let conn = &self.watch.conns[*conn];
            conn.remote == to || conn.opaque
        });
        self.connects += 1;
        self.insert_tcp(flow, to, conn, true);
        Ok(())
    }

    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io {
        assert!(
            !data.is_empty() && data.iter().all(|part| !part.is_empty()),
            "an empty write is a wasted call"
        );
        let fault = self.fault(Call::Send);
        let tcp = self.used(flow);
        assert!(
            !tcp.connecting && !tcp.shut,
            "a write before or behind its time"
        );
        if let Some(error) = fault {
            // An error ends a connection.
            tcp.error = Some(error);
        }
        if let Some(error) = tcp.error {
            tcp.told = true;
            return Io::Failed(error);
        }
        let offered: usize = data.iter().map(|part| part.len()).sum();
        let n = offered.min(tcp.room);
        tcp.room -= n;
        tcp.wants_room |= n < offered;
        let question = tcp.to.port() == 53;
        let conn = tcp.conn.map(|conn| &mut self.watch.conns[conn]);
        let mut left = n;
        match conn {
            Some(conn) if !conn.opaque => {
                assert!(conn.open, "data of a connection that does not stand");
                for part in data {
                    let part = &part[..left.min(part.len())];
                    left -= part.len();
                    let seq = conn.iss.wrapping_add(1).wrapping_add(conn.taken as u32);
                    assert!(
                        conn.up.is_from(seq, part),
                        "wrong bytes for the host among {n} at {}",
                        conn.taken
                    );
                    conn.taken += part.len() as u64;
                }
            }
            conn => {
                if let Some(conn) = conn {
                    conn.taken += n as u64;
                }
                let tcp = self.used(flow);
                for part in data {
                    let part = &part[..left.min(part.len())];
                    left -= part.len();
                    if let Some(rest) = &mut tcp.rest {
                        rest.take(part);
                    }
                    if question && tcp.asked.len() < 8192 {
                        tcp.asked.extend_from_slice(part);
                    }
                }
            }
        }
        if n == 0 { Io::WouldBlock } else { Io::Done(n) }
    }

    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io {
        assert!(!buffer.is_empty(), "an empty read is taken for the end");
        let fault = self.fault(Call::Receive);
        let tcp = self.used(flow);
        assert!(!tcp.connecting, "a read before its time");
        if let Some(error) = fault {
            tcp.error = Some(error);
            tcp.waiting = 0;
        }
        let n = buffer.len().min(tcp.waiting);
        if n == 0 {
            let io = match tcp.error {
                Some(_) if tcp.told => Io::Closed,
                Some(error) => {
                    tcp.told = true;
                    Io::Failed(error)
                }
                None if tcp.ended => Io::Closed,
                None => Io::WouldBlock,
            };
            // Behind an error that a write has told there is an end that is none.
            if let (Io::Closed, None, Some(conn)) = (io, tcp.error, tcp.conn) {
                self.watch.conns[conn].read_end = true;
            }
            return io;
        }
        tcp.waiting -= n;
        let at = tcp.read;
        tcp.read += n as u64;
        if tcp.answers.is_empty() {
            if let Some(conn) = tcp.conn {
                let conn = &mut self.watch.conns[conn];
                conn.down.put(at, &mut buffer[..n]);
                conn.read += n as u64;
            }
        } else {
            for byte in &mut buffer[..n] {
                *byte = tcp.answers.pop_front().unwrap_or_default();
            }
        }
        Io::Done(n)
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        self.calls += 1;
        let tcp = self.used(flow);
        assert!(!tcp.connecting && !tcp.shut);
        assert!(
            tcp.rest.as_ref().is_none_or(Rest::is_taken),
            "an end before the rest"
        );
        tcp.shut = true;
        if let Some(conn) = tcp.conn {
            self.watch.conns[conn].shut = true;
        }
    }

    fn tcp_keepalive(&mut self, flow: FlowId, _: Duration, _: Duration) {
        self.calls += 1;
        self.used(flow);
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
        _: IpFields,
    ) -> Result<(), HostError> {
        let fault = self.fault(Call::UdpSend);
        assert!(
            matches!(self.get(flow), Some(Socket::Udp)),
            "a datagram of {flow:?}, which has no socket"
        );
        if let Some(expected) = &mut self.expected {
            assert!(
                expected.starts_with(payload),
                "a datagram of {} bytes is not what was sent",
                payload.len()
            );
            *expected = &expected[payload.len()..];
        }
        if let Some(error) = fault {
            return Err(error);
        }
        if to.port() == 53 {
            let query = payload[..payload.len().min(512)].to_vec();
            Self::note(&mut self.queries, (flow, to, query));
        } else {
            Self::note(&mut self.datagrams, (flow, to));
        }
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
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        if let Some(error) = self.fault(Call::EchoSend) {
            return Err(error);
        }
        assert!(
            matches!(self.get(flow), Some(Socket::Echo(at)) if *at == to),
            "an echo request of {flow:?} to {to}"
        );
        Self::note(&mut self.echoes, (flow, seq));
        Ok(())
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        self.calls += 1;
        let conn = match self.get(flow) {
            Some(Socket::Tcp(tcp)) => tcp.conn,
            _ => None,
        };
        if let Some(conn) = conn
            && how == Close::Orderly
        {
            let conn = &self.watch.conns[conn];
            assert!(
                conn.shut && conn.read_end,
                "in order is when both have ended"
            );
            assert!(
                conn.opaque || conn.end == Some(conn.read),
                "the end was sent"
            );
        }
        if let Some(conn) = conn
            && how == Close::Forgotten
        {
            assert!(
                self.watch.conns[conn].shut,
                "all that the container has sent is the host's"
            );
        }
        let place = self.places.get_mut(flow.index as usize);
        if let Some(place) = place {
            place.closed = true;
        }
        let socket = self.forget(flow).expect("only open sockets are closed");
        if let (Socket::Tcp(tcp), Close::Orderly) = (&socket, how) {
            assert!(
                tcp.waiting == 0 && tcp.ended && tcp.shut,
                "closed in order means that both directions have ended"
            );
        }
    }
}
