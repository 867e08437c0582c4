//! Published ports: the host's sockets that lead into the container.
//!
//! # Theory of operation
//!
//! Listeners are bound before there is a container ([`bind()`]). A TCP client from
//! elsewhere becomes a flow of the stack, with its own address. One from the host
//! itself has an address that means nothing inside or that the container could not
//! answer (127.0.0.1), so it is joined to a socket that is connected to the
//! container's own address, within its network namespace: a [`Pair`]. A socket
//! belongs to the namespace that it was made in, so init makes these sockets, ahead
//! of need; this side says how many it wants ([`Published::wanted`]) and is handed
//! them.
//!
//! ```text
//! client on the host ── accepted │ pair, splice(2) │ made by init ── lo ── server
//! client elsewhere   ── accepted │ flow of the stack ── frames ── tap0 ── server
//! ```
//!
//! A server that listens on the container's 127.0.0.1 only is not reached either
//! way, as with any network: the client sees a reset.

mod listen;
mod pair;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use netstack::{Duration, FlowInfo, Instant};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use slab::Slab;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::Transport;
pub use listen::{Listener, bind};
pub(crate) use pair::reset;
use pair::{CLIENT, Ends, Pair, Pipes, SERVER, Turn};

/// Tokens of listeners and of the sockets of pairs, by their lower half; the upper
/// half tells users of the same place apart.
const LISTENERS: usize = 1 << 31;
const PAIRS: usize = 3 << 30;
const LOWER: usize = 0xffff_ffff;
/// Sockets inside that are kept ready, and how many init is asked for at a time.
const READY: usize = 64;
const BATCH: usize = 32;
/// Most that init may be busy with.
const MOST_ASKED: usize = 256;
/// Clients that wait for a socket inside; further ones stay in the kernel's queue.
const MOST_WAITING: usize = 1024;
/// How long to leave clients in the kernel's queue, and connections as they are, when
/// descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// A client that has been accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) client: SocketAddr,
    pub(crate) container_port: u16,
}

/// A client of the host that has no socket inside yet.
#[derive(Debug)]
struct Waiting {
    client: Socket,
    address: SocketAddr,
    since: Instant,
    /// Where to connect to, the last first.
    targets: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Place {
    listener: Listener,
    generation: u32,
    /// It stands in the queue of those that may have clients.
    queued: bool,
}

#[derive(Debug)]
enum State {
    Connecting {
        server: Socket,
        waiting: Waiting,
        target: SocketAddr,
    },
    Joined(Pair),
}

/// All published ports of one container.
#[derive(Debug)]
pub(crate) struct Published {
    registry: Registry,
    listeners: Slab<Place>,
    /// Listeners that may have clients.
    ready: VecDeque<Token>,
    waiting: VecDeque<Waiting>,
    /// Sockets of the container's network namespace.
    inside: Vec<Socket>,
    asked: usize,
    pairs: Slab<(u32, State)>,
    pipes: Pipes,
    /// Pairs that had their turn and have more to do.
    again: Vec<(usize, u32)>,
    /// Pairs that have more to do as soon as there is what they lack.
    later: Vec<(usize, u32)>,
    /// Some have come to `later` in this turn.
    stalled: bool,
    generation: u32,
    /// When to try again what failed for want of descriptors.
    retry: Option<Instant>,
    /// Bytes of pairs that are over.
    moved: [u64; 2],
}

fn lower(base: usize, place: usize, generation: u32) -> Token {
    Token(((generation as usize) << 32) | (base + place))
}

/// Whether a token of the loop belongs to a published port.
pub(crate) fn owns(token: Token) -> bool {
    token.0 & LOWER >= LISTENERS
}

impl Published {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            listeners: Slab::new(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            inside: Vec::new(),
            asked: 0,
            pairs: Slab::new(),
            pipes: Pipes::default(),
            again: Vec::new(),
            later: Vec::new(),
            stalled: false,
            generation: 0,
            retry: None,
            moved: [0; 2],
        }
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Begins to accept clients of a TCP listener.
    pub(crate) fn add(&mut self, listener: Listener) -> io::Result<()> {
        // Accepted sockets inherit both (tcp(7) does not say so, the kernel does).
        listener.socket.set_tcp_nodelay(true)?;
        listener.socket.set_out_of_band_inline(true)?;
        let generation = self.next_generation();
        let fd = listener.socket.as_raw_fd();
        let place = self.listeners.insert(Place {
            listener,
            generation,
            queued: false,
        });
        if let Err(error) = self.pipes.reserve() {
            tracing::debug!("pipes in reserve: {error}");
        }
        let token = lower(LISTENERS, place, generation);
        let registered = self
            .registry
            .register(&mut SourceFd(&fd), token, Interest::READABLE);
        if registered.is_err() {
            self.listeners.remove(place);
        }
        registered
    }

    /// The ports that are listened on.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (Transport, SocketAddr, u16)> {
        self.listeners.iter().map(|(_, place)| {
            let listener = &place.listener;
            (listener.transport, listener.host, listener.container_port)
        })
    }

    /// Listens at this address no longer.
    pub(crate) fn remove(&mut self, at: SocketAddr) {
        self.listeners.retain(|_, place| place.listener.host != at);
    }

    /// What there is to tell about up to `most` spliced connections, and where to go
    /// on, as [`netstack::Stack::flows`] does.
    pub(crate) fn flows(
        &self,
        now: Instant,
        from: usize,
        most: usize,
    ) -> (Vec<FlowInfo>, Option<usize>) {
        let mut infos = Vec::new();
        for place in from..self.pairs.capacity() {
            if infos.len() >= most {
                return (infos, Some(place));
            }
            if let Some((_, State::Joined(pair))) = self.pairs.get(place) {
                infos.push(pair.info(now));
            }
        }
        (infos, None)
    }

    /// Sockets that it would like to have from inside; to be called until it is 0.
    pub(crate) fn wanted(&mut self) -> usize {
        if self.listeners.is_empty() && self.waiting.is_empty() || self.retry.is_some() {
            return 0;
        }
        let have = self.inside.len() + self.asked;
        let need = self.waiting.len() + READY / 2;
        if have >= need || self.asked >= MOST_ASKED {
            return 0;
        }
        let count = (need + READY / 2 - have).min(BATCH);
        self.asked += count;
        count
    }

    /// A request for sockets could not be made.
    pub(crate) fn not_asked(&mut self, count: usize, now: Instant) {
        self.asked = self.asked.saturating_sub(count);
        self.retry = Some(now + PAUSE);
    }

    /// Takes sockets from inside; `asked` is how many there were to be.
    pub(crate) fn supply(&mut self, asked: usize, sockets: Vec<OwnedFd>, now: Instant) {
        if sockets.len() < asked {
            self.retry = Some(now + PAUSE);
        }
        self.asked = self.asked.saturating_sub(asked);
        // Init is our own program, but it is a process of the container.
        let of_tcp = |socket: &Socket| socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
        let sockets = sockets.into_iter().map(Socket::from).filter(of_tcp);
        self.inside.extend(sockets);
        while !self.inside.is_empty()
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.connect(waiting);
        }
    }

    /// Whether it has something to do that no event will announce.
    pub(crate) fn has_work(&self) -> bool {
        !self.again.is_empty() || !self.ready.is_empty() && self.is_accepting()
    }

    /// When it has something to do again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    fn is_accepting(&self) -> bool {
        self.retry.is_none() && self.waiting.len() < MOST_WAITING
    }

    /// Whether a spliced connection still has something to say to its client.
    pub(crate) fn is_sending(&self) -> bool {
        self.pairs
            .iter()
            .any(|(_, (_, state))| matches!(state, State::Joined(pair) if pair.is_sending()))
    }

    /// Bytes that spliced connections have moved, to the container and from it.
    pub(crate) fn moved(&self) -> [u64; 2] {
        self.moved
    }

    /// Takes the next client.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<Accepted> {
        while self.is_accepting()
            && let Some(&token) = self.ready.front()
        {
            let place = (token.0 & LOWER) - LISTENERS;
            let generation = token.0 >> 32;
            let Some(listening) = self.listeners.get_mut(place) else {
                self.ready.pop_front();
                continue;
            };
            if listening.generation as usize != generation {
                self.ready.pop_front();
                continue;
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match acceptfrom_with(&listening.listener.socket, flags) {
                Ok((fd, Some(client))) => {
                    // Each in turn.
                    self.ready.rotate_left(1);
                    let Ok(client) = SocketAddr::try_from(client) else {
                        continue;
                    };
                    return Some(Accepted {
                        socket: fd.into(),
                        client: SocketAddr::new(client.ip().to_canonical(), client.port()),
                        container_port: listening.listener.container_port,
                    });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    listening.queued = false;
                    self.ready.pop_front();
                }
                // The client has gone again.
                Ok((_, None)) | Err(Errno::CONNABORTED) => {
                    self.ready.rotate_left(1);
                    return None;
                }
                // Out of descriptors as a rule; else an error of a client's network, or
                // one that stays (accept(2)).
                Err(error) => {
                    self.ready.rotate_left(1);
                    self.retry = Some(now + PAUSE);
                    tracing::debug!("clients have to wait: {error}");
                    return None;
                }
            }
        }
        None
    }

    /// Joins a client of the host to the container, at one of `addresses`: the first
    /// that does not refuse it.
    pub(crate) fn join(&mut self, accepted: Accepted, addresses: &[IpAddr], now: Instant) {
        let port = accepted.container_port;
        // A wish, as for the socket inside: both ends are on this host.
        if let Err(error) = accepted.socket.set_tcp_congestion(b"reno") {
            tracing::debug!("congestion control: {error}");
        }
        let targets = addresses.iter().rev();
        let waiting = Waiting {
            client: accepted.socket,
            address: accepted.client,
            since: now,
            targets: targets.map(|&ip| SocketAddr::new(ip, port)).collect(),
        };
        if self.inside.is_empty() {
            self.waiting.push_back(waiting);
        } else {
            self.connect(waiting);
        }
    }

    /// Connects a socket inside, of which there is one, for a client.
    fn connect(&mut self, mut waiting: Waiting) {
        let Some(target) = waiting.targets.pop() else {
            // Refused.
            reset(&waiting.client);
            return;
        };
        let Some(server) = self.inside.pop() else {
            waiting.targets.push(target);
            self.waiting.push_back(waiting);
            return;
        };
        let address = match (target, server.domain()) {
            // One kind of socket serves both, where the host has IPv6.
            (SocketAddr::V4(v4), Ok(Domain::IPV6)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (target, _) => target,
        };
        let generation = self.next_generation();
        let mut outcome = server.connect(&SockAddr::from(address));
        if outcome
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS))
        {
            // Over the container's `lo` the answer is there when the call returns.
            outcome = server.connect(&SockAddr::from(address));
        }
        match outcome {
            Ok(()) => self.joined(generation, waiting, server, target),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINPROGRESS | libc::EALREADY)
                ) =>
            {
                let fd = server.as_raw_fd();
                let place = self.pairs.insert((
                    generation,
                    State::Connecting {
                        server,
                        waiting,
                        target,
                    },
                ));
                let token = lower(PAIRS, 2 * place + SERVER, generation);
                let interest = Interest::WRITABLE;
                if let Err(error) = self.registry.register(&mut SourceFd(&fd), token, interest) {
                    tracing::debug!("watch a socket inside: {error}");
                    self.drop_pair(place, generation);
                }
            }
            Err(error) => {
                tracing::trace!("connect to {target} inside: {error}");
                self.connect(waiting);
            }
        }
    }

    /// Both ends are connected.
    fn joined(&mut self, generation: u32, waiting: Waiting, server: Socket, target: SocketAddr) {
        let ends = Ends {
            client: waiting.address,
            container: target,
            since: waiting.since,
        };
        let pair = Pair::new(waiting.client, server, ends);
        let place = self.pairs.insert((generation, State::Joined(pair)));
        if let Err(error) = self.register(place, generation) {
            tracing::debug!("watch a connection: {error}");
            self.drop_pair(place, generation);
        }
    }

    fn register(&mut self, place: usize, generation: u32) -> io::Result<()> {
        let Some((_, State::Joined(pair))) = self.pairs.get(place) else {
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        for side in [CLIENT, SERVER] {
            let fd = pair.socket(side).as_raw_fd();
            let token = lower(PAIRS, 2 * place + side, generation);
            self.registry
                .register(&mut SourceFd(&fd), token, interest)?;
        }
        Ok(())
    }

    /// Ends a pair for which there is no other way: both sides see a reset.
    fn drop_pair(&mut self, place: usize, generation: u32) {
        if self
            .pairs
            .get(place)
            .is_none_or(|(of, _)| *of != generation)
        {
            return;
        }
        match self.pairs.remove(place).1 {
            State::Joined(pair) => pair.reset(),
            State::Connecting {
                server, waiting, ..
            } => {
                reset(&server);
                reset(&waiting.client);
            }
        }
    }

    /// An event with one of our tokens.
    pub(crate) fn note(&mut self, event: &Event) {
        let token = event.token();
        let place = token.0 & LOWER;
        let generation = u32::try_from(token.0 >> 32).unwrap_or_default();
        match place.checked_sub(PAIRS) {
            Some(place) => self.pair_ready(place / 2, place % 2, generation, event),
            None => {
                let listening = self.listeners.get_mut(place - LISTENERS);
                if let Some(listening) = listening.filter(|it| it.generation == generation)
                    && !listening.queued
                {
                    listening.queued = true;
                    self.ready.push_back(token);
                }
            }
        }
    }

    fn pair_ready(&mut self, place: usize, side: usize, generation: u32, event: &Event) {
        match self.pairs.get_mut(place) {
            Some((of, State::Joined(pair))) if *of == generation => {
                if let Err(error) = pair.note(side, event) {
                    tracing::trace!("spliced connection: {error}");
                    self.drop_pair(place, generation);
                } else {
                    self.pair_turn(place, generation);
                }
            }
            Some((of, State::Connecting { .. })) if *of == generation => {
                self.connected(place, generation);
            }
            _ => {}
        }
    }

    /// The outcome of a connect is known.
    fn connected(&mut self, place: usize, generation: u32) {
        let (
            _,
            State::Connecting {
                server,
                waiting,
                target,
            },
        ) = self.pairs.remove(place)
        else {
            return;
        };
        match server.take_error() {
            Ok(None) => {
                // It is watched under a token of its own again.
                if let Err(error) = self.registry.deregister(&mut SourceFd(&server.as_raw_fd())) {
                    tracing::debug!("stop watching a socket inside: {error}");
                }
                self.joined(generation, waiting, server, target);
            }
            Ok(Some(error)) | Err(error) => {
                tracing::trace!("connect inside: {error}");
                drop(server);
                self.connect(waiting);
            }
        }
    }

    fn pair_turn(&mut self, place: usize, generation: u32) {
        let Some((of, State::Joined(pair))) = self.pairs.get_mut(place) else {
            return;
        };
        if *of != generation {
            return;
        }
        let before = pair.moved();
        let turn = pair.turn(&mut self.pipes);
        for (sum, (after, before)) in self.moved.iter_mut().zip(pair.moved().iter().zip(before)) {
            *sum += after - before;
        }
        match turn {
            Turn::Waits => {}
            Turn::Again if pair.queued => {}
            Turn::Again => {
                pair.queued = true;
                self.again.push((place, generation));
            }
            Turn::Later if pair.queued => {}
            Turn::Later => {
                pair.queued = true;
                self.later.push((place, generation));
                self.stalled = true;
            }
            Turn::Over => {
                self.pairs.remove(place);
            }
        }
    }

    /// Does what is left of the turns before, and takes up again what was put off.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.again.append(&mut self.later);
        }
        for (place, generation) in std::mem::take(&mut self.again) {
            if let Some((of, State::Joined(pair))) = self.pairs.get_mut(place)
                && *of == generation
            {
                pair.queued = false;
                self.pair_turn(place, generation);
            }
        }
        if std::mem::take(&mut self.stalled) {
            self.retry.get_or_insert(now + PAUSE);
        }
    }
}
