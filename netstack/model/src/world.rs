//! A stack, its host and the time that passes; what must be true after each call.

use netstack::{Config, Duration, HostError, Instant, Limits, Readiness, Stack};

use crate::conn::{Conn, Said};
use crate::host::{Socket, Sockets};
use crate::watch::Watch;

/// When it begins.
const BEGIN: i64 = 1_000;
/// No deadline lies further ahead: an idle connection is probed after two hours
/// (RFC 9293, 3.8.4).
const FURTHEST: Duration = Duration::from_secs(7_300);
/// Flows up to which the table is compared with the sockets after each call.
const FEW: usize = 48;

#[derive(Debug)]
pub struct World {
    pub now: Instant,
    pub stack: Stack,
    pub host: Sockets,
    pub limits: Limits,
    pub vnet: bool,
    /// Calls into the stack.
    calls: u64,
    /// Packets made of fragments, the last time that it mattered.
    whole: u64,
}

impl World {
    pub fn new(config: Config, conns: Vec<Conn>) -> Self {
        Self {
            now: Instant::from_secs(BEGIN),
            host: Sockets::new(Watch::new(&config, conns)),
            limits: config.limits,
            vnet: config.link.vnet_header,
            stack: Stack::new(config),
            calls: 0,
            whole: 0,
        }
    }

    /// Does something to the stack, and looks at what has become of it.
    pub fn call<R>(&mut self, act: impl FnOnce(&mut Stack, Instant, &mut Sockets) -> R) -> R {
        self.host.watch.begin();
        let result = act(&mut self.stack, self.now, &mut self.host);
        self.after();
        result
    }

    /// The container sends a frame: a segment of a connection, if it is known as one.
    pub fn input(&mut self, frame: &[u8], said: Option<(usize, Said)>) {
        self.host.current = None;
        if let Some((place, said)) = said {
            self.host.watch.conns[place].says(&said);
            self.host.current = Some(place);
        }
        self.call(|stack, now, host| stack.input(now, frame, host));
        self.host.current = None;
        if let Some((_, said)) = said
            && said.flags & hostile::frames::RST != 0
        {
            let resets = self.host.watch.resets;
            assert_eq!(resets, 0, "a reset is the answer to a reset");
        }
        let watch = &self.host.watch;
        let others = watch.in_call - watch.segments;
        assert!(others <= 200, "{others} frames are the answer to one");
        if watch.echo > frame.len() {
            // The request came in pieces.
            let whole = self.stack.stats().reassembled;
            let echo = watch.echo;
            assert!(
                std::mem::replace(&mut self.whole, whole) < whole,
                "an echo reply of {echo} bytes to {}",
                frame.len()
            );
        }
    }

    fn after(&mut self) {
        self.calls += 1;
        let usage = self.stack.usage();
        assert!(usage.buffered <= self.limits.max_buffered, "{usage:?}");
        assert!(usage.half_open <= self.limits.max_half_open, "{usage:?}");
        assert!(usage.flows <= self.limits.max_flows, "{usage:?}");
        if self.host.open.len() <= FEW || self.calls.is_multiple_of(1024) {
            self.check();
        }
    }

    /// The open sockets are exactly those of the flow table.
    pub fn check(&self) {
        let mut count = 0;
        for flow in self.stack.sockets() {
            count += 1;
            assert!(
                self.host.get(flow).is_some(),
                "{flow:?} is in the table and has no socket"
            );
        }
        let open = self.host.open.len();
        assert_eq!(count, open, "flows with a socket, and open sockets");
        let usage = self.stack.usage();
        match self.stack.next_deadline() {
            Some(at) => assert!(at <= self.now + FURTHEST, "a deadline in {}", at - self.now),
            None => {
                // What the host has not taken yet of a connection that is over for the
                // container: the host's keep-alive probes end it.
                let (infos, _) = self.stack.flows(self.now, 0, usize::MAX);
                let over = infos.iter().filter(|info| info.state == "CLOSED").count();
                assert_eq!(over, usage.flows, "a flow without an end");
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let mut idle = 0;
        for turns in 0.. {
            let Some(due) = self.stack.next_deadline().filter(|due| *due <= self.now) else {
                return;
            };
            let before = self.host.calls;
            self.call(|stack, now, host| stack.tick(now, host));
            idle = if self.host.calls == before {
                idle + 1
            } else {
                0
            };
            assert!(idle < 3, "nothing comes of the deadline {due}");
            assert!(turns < 20_000, "no rest at {}", self.now);
        }
    }

    /// Lets time pass, with a stop at each deadline on the way, but not for ever.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..64 {
            self.tick();
            match self.stack.next_deadline() {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        self.tick();
    }

    /// The far end does something to the flow's socket.
    pub fn ready(&mut self, flow: netstack::FlowId, ready: Readiness) {
        self.call(|stack, now, host| stack.ready(now, flow, ready, host));
    }

    /// Everybody goes: nothing is left behind.
    pub fn end(mut self) {
        self.host.faults = Default::default();
        self.check();
        for flow in self.host.open.clone() {
            match self.host.get(flow) {
                Some(Socket::Tcp(tcp)) if tcp.connecting => {
                    self.host.failed(flow);
                    self.call(|stack, _, host| {
                        stack.connect_failed(flow, HostError::TimedOut, host);
                    });
                }
                Some(Socket::Tcp(_)) => {
                    let reset = |tcp: &mut crate::host::Tcp| {
                        tcp.error = Some(HostError::Reset);
                        tcp.waiting = 0;
                    };
                    if let Some(ready) = self.host.far(flow, reset) {
                        self.ready(flow, ready);
                    }
                }
                Some(Socket::Udp) => {
                    self.call(|stack, _, host| stack.unpublish_udp(flow, host));
                }
                Some(Socket::Echo(_)) | None => {}
            }
        }
        // Resolvers that are tried one after the other, invitations, and fragments.
        for _ in 0..4 {
            self.advance(Duration::from_secs(4_000));
        }
        self.check();
        let left = self.stack.flow_count();
        assert_eq!(left, 0, "flows are left");
        let usage = self.stack.usage();
        assert_eq!((usage.buffered, usage.half_open), (0, 0), "{usage:?}");
        assert_eq!(self.stack.next_deadline(), None, "a deadline of nothing");
    }
}
