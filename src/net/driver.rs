//! Drives the stack from the parent's loop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

mod datagrams;
mod egress;
mod inbound;
mod insight;
mod retry;

use inbound::UdpPort;
pub use insight::Figure;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use netstack::{Config, FlowId, Ipv6Config, Limits, LinkConfig, Policy, Readiness, Stack};
use rustix::rand::{GetRandomFlags, getrandom};

use super::alarm::Alarm;
use super::busy_poll::BusyPoll;
use super::link::{Link, Receiver, Sender};
use super::local::LocalAddresses;
use super::namespace::{CONTAINER_MAC, GATEWAY_MAC};
use super::outbound::Outbounds;
use super::pcap::Capture;
use super::publish::{self, Published};
use super::resolvers::Ask;
use super::sockets::{FlowSocket, HostSide};
use crate::config::{BuiltinNetwork, Rules};
use crate::error::Error;
use crate::sys::heap;
use crate::sys::udp::Inbox;

/// Frames and bytes read from the link in one turn, so that the host's side
/// gets its turn, too.
const TURN_FRAMES: usize = 64;
const TURN_BYTES: usize = 1 << 20;
/// Descriptors left to everything but flows.
const RESERVED_FDS: u64 = 64;
/// Most flows, whatever the limit on descriptors.
const MAX_FLOWS: u64 = 131_072;

/// The container's addresses.
#[derive(Debug)]
struct Container {
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
}

/// The network of one container. Tokens from the first one it was given on are
/// its own; it lives on the caller's event loop.
#[derive(Debug)]
pub struct Driver {
    stack: Stack,
    host: HostSide,
    /// Frames begin with a virtio header.
    vnet_header: bool,
    began: Instant,
    /// When the turn began, or the last batch of frames.
    now: netstack::Instant,
    link_token: Token,
    monitor_token: Token,
    alarm_token: Token,
    alarm: Alarm,
    link_readable: bool,
    /// It could not be read and is to be tried again.
    link_stalled: bool,
    /// When to make the calls again that no event announces.
    retry: Option<netstack::Instant>,
    frames: Receiver,
    busy_poll: BusyPoll,
    inbox: Inbox,
    echo: Vec<u8>,
    /// Datagram sockets that had their turn and may hold more.
    again: Vec<FlowId>,
    published: Published,
    /// Clients of the host itself are joined to sockets inside.
    joins: bool,
    udp_ports: Vec<UdpPort>,
    /// Where clients of the host are led to, the preferred first.
    container: Container,
}

impl Driver {
    /// Takes the link over and registers it.
    ///
    /// # Errors
    /// The host-side step that failed.
    pub fn new(
        link: Link,
        network: &BuiltinNetwork,
        resolvers: Vec<SocketAddr>,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, Error> {
        let link = link.open(network.mtu)?;
        Self::on_link(link, network, resolvers, registry, first_token)
    }

    /// [`Driver::new`] for a link that is ready.
    pub(super) fn on_link(
        (link_config, receiver, link): (LinkConfig, Receiver, Sender),
        network: &BuiltinNetwork,
        resolvers: Vec<SocketAddr>,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, Error> {
        let failed = |step| move |error: io::Error| Error::host(step, error);
        heap::give_back_large_blocks();
        let began = Instant::now();
        let [link_token, monitor_token, alarm_token] =
            [first_token, first_token + 1, first_token + 2].map(Token);
        let more = receiver.more_descriptors().iter().map(AsFd::as_fd);
        for fd in more.chain([link.as_fd()]) {
            let interest = Interest::READABLE;
            registry
                .register(&mut SourceFd(&fd.as_raw_fd()), link_token, interest)
                .map_err(failed("watch the container's network link"))?;
        }
        let local = LocalAddresses::new(registry, monitor_token)
            .map_err(failed("watch the host's addresses"))?;
        let alarm = Alarm::new(registry, alarm_token).map_err(failed("make a timer"))?;
        let registry = registry
            .try_clone()
            .map_err(failed("share the event loop"))?;
        let published = registry
            .try_clone()
            .map(Published::new)
            .map_err(failed("share the event loop"))?;
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty())
            .map_err(|error| Error::host("get random numbers", error))?;
        let config = Config {
            container: network.container(),
            gateway: network.gateway(),
            dns: network.dns(),
            prefix_len: network.prefix_len,
            ipv6: ipv6_config(network),
            mac: GATEWAY_MAC,
            link: link_config,
            policy: Policy {
                allow_host_loopback: network.allow_host_loopback,
                allow_host_addresses: network.allow_host_addresses,
                allow_link_local: network.allow_link_local,
                rules: (*network.rules).clone(),
            },
            resolvers,
            names: Vec::new(),
            limits: limits(network),
            seed: u64::from_ne_bytes(seed),
        };
        tracing::debug!(?link_config, "network is up");
        let outbounds = Outbounds::new(network);
        let mut host = HostSide::new(link, registry, first_token + 3, local, outbounds);
        host.audit.set_strict(*network.rules != Rules::default());
        let mut stack = Stack::new(config);
        stack.expect_mac(network.mac.unwrap_or(CONTAINER_MAC));
        Ok(Self {
            stack,
            vnet_header: link_config.vnet_header,
            host,
            began,
            now: netstack::Instant::ZERO,
            link_token,
            monitor_token,
            alarm_token,
            alarm,
            // What came before it was registered has made no edge.
            link_readable: true,
            link_stalled: false,
            retry: None,
            frames: receiver,
            busy_poll: BusyPoll::new(network.busy_poll),
            inbox: Inbox::default(),
            echo: Vec::new(),
            again: Vec::new(),
            published,
            joins: true,
            udp_ports: Vec::new(),
            container: Container {
                v4: network.container(),
                v6: network.container6(),
            },
        })
    }

    /// Sets the names that the DNS forwarder answers for itself: lower case,
    /// without a dot at the end.
    pub fn set_names(&mut self, names: Vec<(String, Vec<IpAddr>)>) {
        self.stack.set_names(names);
    }

    /// Sets the domains that DHCP tells the container to look for names in.
    pub fn set_search(&mut self, search: Vec<String>) {
        self.stack.set_search(search);
    }

    /// Asks for the host's resolvers, before each query, from now on; until then they
    /// are what they were.
    pub fn follow_resolvers(&mut self, ask: Ask) {
        self.host.follow_resolvers(ask);
    }

    /// Captures what passes the link from now on.
    pub fn capture(&mut self, mut capture: Capture) {
        capture.set_vnet_header(self.vnet_header);
        self.host.capture = Some(capture);
    }

    /// Looks at the clock, once in a turn: a look costs as much as a lookup of a flow.
    fn look_at_clock(&mut self) {
        let micros = self.began.elapsed().as_micros();
        self.now = netstack::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
    }

    /// How long the loop may sleep; `None` until there is an event.
    pub fn timeout(&mut self) -> Option<Duration> {
        if self.link_readable
            || !self.again.is_empty()
            || self.published.has_work()
            || self.host.has_address_changes()
        {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.stack.next_deadline(),
            self.published.deadline(),
            self.retry,
        ];
        let deadline = deadlines.into_iter().flatten().min()?;
        let now = self.now;
        if deadline <= now {
            return Some(Duration::ZERO);
        }
        if let Err(error) = self.alarm.set(now, deadline) {
            tracing::debug!("timer: {error}");
            // One more microsecond: epoll rounds to milliseconds, up since Linux 5.11 or so.
            return Some(Duration::from_micros((deadline - now).total_micros() + 1));
        }
        None
    }

    /// How long the loop should look for events before it sleeps; `None`: never,
    /// and nobody needs to know how long it slept.
    pub fn busy_poll(&mut self) -> Option<Duration> {
        let mut stats = self.stack.stats();
        let [up, down] = self.published.moved();
        stats.tcp_bytes_up += up;
        stats.tcp_bytes_down += down;
        self.busy_poll.window(&stats)
    }

    /// The loop has waited this long for an event.
    pub fn waited(&mut self, took: Duration) {
        self.busy_poll.waited(took);
    }

    /// A turn begins: the loop has waited, and events may follow.
    pub fn begin_turn(&mut self) {
        self.look_at_clock();
    }

    /// The container has ended: what it has left on its link is read whether an event has
    /// told of it or not.
    pub fn drain(&mut self) {
        self.link_readable = true;
    }

    /// Whether the container still has something on its way out.
    pub fn is_sending(&self) -> bool {
        self.link_readable || self.stack.is_sending() || self.published.is_sending()
    }

    /// Writes what is left to be written to logs. To be called at the end, while full
    /// files can be followed by others.
    pub fn finish(&mut self) {
        self.host.audit.finish();
        if let Some(capture) = &mut self.host.capture {
            capture.flush();
        }
    }

    /// An event with one of our tokens.
    pub fn ready(&mut self, event: &Event) {
        self.frames.relieve();
        let token = event.token();
        if token == self.link_token {
            self.link_readable = true;
            self.host.link.note(event);
        } else if token == self.alarm_token {
            self.alarm.rang();
        } else if token == self.monitor_token {
            self.host.addresses_changed();
        } else if publish::owns(token) {
            self.published.note(event);
        } else if let Some(flow) = self.host.flow_of(token) {
            self.flow_ready(flow, event);
        }
    }

    fn flow_ready(&mut self, flow: FlowId, event: &Event) {
        let now = self.now;
        match self.host.get(flow) {
            Some(FlowSocket::Tcp(_, connecting)) => {
                if *connecting {
                    let failed = event.is_error() || event.is_write_closed();
                    if !failed && !event.is_writable() {
                        return;
                    }
                    match self.host.connect_outcome(flow, failed) {
                        Some(Ok(())) => self.stack.connected(now, flow, &mut self.host),
                        Some(Err(error)) => {
                            self.stack.connect_failed(flow, error, &mut self.host);
                            return;
                        }
                        None => return,
                    }
                    if !event.is_readable() && !event.is_read_closed() {
                        return;
                    }
                }
                // A read ends before urgent data, too, and no event tells of the rest.
                let closed = event.is_read_closed() || event.is_error() || event.is_priority();
                let ready = Readiness {
                    readable: event.is_readable() || closed,
                    writable: event.is_writable() || event.is_error(),
                    read_closed: closed,
                    failed: event.is_error(),
                };
                self.stack.ready(now, flow, ready, &mut self.host);
            }
            Some(FlowSocket::Udp(_)) => {
                if event.is_error() {
                    self.udp_errors(flow);
                }
                self.udp_ready(now, flow);
            }
            Some(FlowSocket::Echo(_)) => {
                if event.is_error() {
                    self.echo_errors(flow);
                }
                self.echo_ready(now, flow);
            }
            None => {}
        }
    }

    /// Does what is to be done after the events of one wake-up: reads the link,
    /// runs what is due, sends what was gathered.
    ///
    /// # Errors
    /// The link is gone.
    pub fn turn(&mut self) -> Result<(), Error> {
        for flow in std::mem::take(&mut self.again) {
            self.udp_ready(self.now, flow);
        }
        if self.host.has_address_changes() {
            self.host.addresses_changed();
        }
        self.retry_turn();
        self.published.turn(self.now);
        self.accept_turn();
        let (mut frames, mut bytes) = (0, 0);
        while self.link_readable && frames < TURN_FRAMES && bytes < TURN_BYTES {
            let link = self.host.link.as_fd();
            self.link_readable = match self.frames.read(link) {
                Ok(more) => more,
                Err(error) => {
                    self.link_failed(error)?;
                    break;
                }
            };
            let batch = self.frames.size();
            (frames, bytes) = (frames + batch.0, bytes + batch.1);
            if bytes > batch.1 {
                self.look_at_clock();
            }
            self.host.capture(self.frames.iter());
            self.stack
                .input_batch(self.now, self.frames.iter(), &mut self.host);
            self.host.frames_missed += self.frames.release(self.host.link.as_fd());
        }
        if !self.link_readable {
            self.host.link.check().map_err(link_gone)?;
        }
        let now = self.now;
        if self
            .stack
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.stack.tick(now, &mut self.host);
        }
        self.host.flush();
        while let Some((flow, to, failure)) = self.host.failure() {
            self.stack
                .datagram_failed(now, flow, to, failure, &mut self.host);
            // A DNS query may have gone to another server for it.
            self.host.flush();
        }
        while let Some(flow) = self.host.take_broken() {
            self.stack.abort(flow, &mut self.host);
        }
        if self.host.has_stalled() {
            self.retry_soon();
        }
        if let Some(capture) = &mut self.host.capture {
            capture.flush();
        }
        self.host.audit.turn();
        Ok(())
    }
}

fn ipv6_config(network: &BuiltinNetwork) -> Option<Ipv6Config> {
    Some(Ipv6Config {
        container: network.container6()?,
        gateway: network.gateway6()?,
        dns: network.dns6()?,
    })
}

fn link_gone(source: io::Error) -> Error {
    Error::host("read the container's network link", source)
}

/// Raises the soft limit on open files to the hard one, where it can be; the limit.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    }
}

fn limits(network: &BuiltinNetwork) -> Limits {
    let usual = Limits::default();
    Limits {
        max_flows: max_flows(network.max_flows),
        max_half_open: network
            .max_half_open
            .map_or(usual.max_half_open, NonZeroUsize::get),
        max_buffered: network.max_buffered.unwrap_or(usual.max_buffered),
        max_pps: network.max_pps.or(usual.max_pps),
    }
}

/// As many flows as descriptors allow.
fn max_flows(wanted: Option<usize>) -> usize {
    let fds = flows_within(raise_descriptor_limit());
    wanted.map_or(fds, |wanted| wanted.min(fds))
}

/// As many flows as this limit on descriptors allows; `None`: there is none.
pub fn flows_within(limit: Option<u64>) -> usize {
    let fds = limit
        .unwrap_or(MAX_FLOWS)
        .min(MAX_FLOWS)
        .saturating_sub(RESERVED_FDS);
    usize::try_from(fds).unwrap_or(usize::MAX)
}
