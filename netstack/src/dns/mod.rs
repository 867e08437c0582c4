//! The DNS forwarder over UDP (RFC 1035; RFC 5452 on what an answer is told by).
//! Over TCP it is a connection like any other (`tcp_open`), with a [`Gate`] where there
//! are rules.
//!
//! # Theory of operation
//!
//! Each client port has a [`DnsFlow`]: its open queries (an [`Exchange`]) and a host
//! socket for each IP version of the servers. The kernel chooses the sockets' ports,
//! so whoever wants to forge an answer has to guess a port besides the client's query
//! id; both end as soon as nothing is open.
//!
//! ```text
//! client port --- DnsFlow --- exchange: query, query, ...
//!                    |------ mapping (IPv4 socket) --- servers
//!                    '------ mapping (IPv6 socket) --- servers
//! ```
//!
//! - **Queries** pass as they are, with the client's id. What is no query is dropped.
//! - **Answers** pass byte for byte. One counts if it comes from a server that was
//!   asked, has the id of an open query and repeats its question section. The case of
//!   letters is the client's to judge: not all servers keep it. All else is dropped and
//!   counted, and the exchange goes on.
//! - **Servers are raced.** The first is asked at once. The next is asked when the last
//!   one has been silent for a second; at once when it cannot be reached, or says
//!   SERVFAIL, NOTIMP or REFUSED, or returns a bare header with an error. Those that
//!   were asked before stay valid: the first good answer wins. A failure is passed on
//!   when every server has failed, or the rest has been silent for 2 s after the last
//!   was asked. When no server can be reached, the client gets the ICMP error.
//! - **A repetition** (same id, question and port) goes to all servers that have been
//!   asked; it is not another query.
//! - **Not raced**: queries longer than [`exchange::MAX_KEPT`] bytes, since they would
//!   have to be kept, and operations other than QUERY (RFC 6895, 2.2), which may change
//!   something. Each repetition takes these to one server more.
//! - **The servers may change** ([`Host::resolvers`]) at any time. Open queries go
//!   on with the servers that they began with; a repetition starts over with the new.
//! - **The policy** judges each query by its name where some are denied
//!   ([`crate::policy`]). One that is refused is answered NXDOMAIN, with the reason as
//!   an extended error (RFC 8914); one that is not plain, REFUSED. What is denied by
//!   default loses the options of EDNS. Answers are looked at for addresses. Over TCP a
//!   [`Gate`] does the same.
//! - **Names of our own** ([`crate::Config::names`]) are answered here, with authority,
//!   and so are their addresses (PTR). Nothing else ever is, but that there is no
//!   server: SERVFAIL.
//!
//! What a container can make us hold is bounded: open queries per port, bytes per
//! query, and bytes in all ([`MAX_HELD`]).

mod exchange;
mod gate;
mod message;
mod names;
mod records;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smoltcp::time::Instant;
use smoltcp::wire::IpProtocol;

use crate::flow::{Flow, FlowId, FlowKey};
use crate::host::{Host, IpFields};
use crate::icmp::{Problem, Unreachable, udp_header};
use crate::policy::QueryVerdict;
use crate::stack::Stack;
use exchange::{Accepted, Exchange, Sides};
pub(crate) use gate::Gate;
#[cfg(test)]
pub(crate) use gate::MAX_GATES;
use message::{Answer, rcode};
pub(crate) use message::{Query, emptied};
use names::Names;
pub(crate) use records::{Told, told};

/// Bytes that all open queries may hold together.
const MAX_HELD: usize = 64 << 20;

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Forwarder {
    servers: Arc<[SocketAddr]>,
    names: Names,
    /// Counts connections that are looked into.
    pub(crate) gates: Arc<()>,
    /// Bytes that open queries may come to hold.
    held: usize,
}

impl Forwarder {
    pub(crate) fn new(servers: Vec<SocketAddr>, names: &[(String, Vec<IpAddr>)]) -> Self {
        let mut forwarder = Self {
            servers: Arc::default(),
            names: Names::new(names),
            gates: Arc::default(),
            held: 0,
        };
        forwarder.set_servers(servers);
        forwarder
    }

    /// In order of preference; what is there twice would fail only once.
    pub(crate) fn set_servers(&mut self, mut servers: Vec<SocketAddr>) {
        let mut seen = HashSet::new();
        servers.retain(|server| seen.insert(*server));
        servers.truncate(exchange::MAX_SERVERS);
        if *servers != *self.servers {
            self.servers = servers.into();
        }
    }

    pub(crate) fn set_names(&mut self, names: &[(String, Vec<IpAddr>)]) {
        self.names = Names::new(names);
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }
}

/// One client port's use of the forwarder.
#[derive(Debug, Default)]
pub(crate) struct DnsFlow {
    exchange: Exchange,
    /// The sockets for servers of IPv4 and IPv6.
    mappings: [Option<FlowId>; 2],
}

/// A flow's ways to its client and to the servers.
struct FlowSides<'a, H> {
    now: Instant,
    stack: &'a mut Stack,
    host: &'a mut H,
    id: FlowId,
    client: SocketAddr,
    forwarder: SocketAddr,
}

impl<H: Host> Sides for FlowSides<'_, H> {
    fn send(&mut self, server: SocketAddr, query: &[u8]) -> Result<(), Option<Problem>> {
        let mapping = self
            .stack
            .dns_mapping(self.id, self.client, server.ip(), self.host)
            .ok_or(Some(Problem::Unreachable(Unreachable::Prohibited)))?;
        self.host
            .udp_send(mapping, server, query, IpFields::default())
            .map_err(Problem::of)?;
        self.stack.stats.udp_up += 1;
        Ok(())
    }

    fn answer(&mut self, message: &[u8]) {
        let key = (self.client, self.forwarder);
        let egress = &mut self.stack.egress;
        let emptied =
            (!egress.answered(self.now, message, key, self.host)).then(|| emptied(message));
        let message = emptied.as_deref().unwrap_or(message);
        self.stack
            .udp_deliver(self.forwarder, self.client, message, 0, self.host);
    }

    fn unreachable(&mut self, problem: Problem) {
        self.stack
            .dns_problem(self.client, self.forwarder, problem, self.host);
    }
}

impl Stack {
    /// Asks the host for other resolvers than those that are known.
    pub(crate) fn look_for_resolvers<H: Host>(&mut self, host: &mut H) {
        if let Some(resolvers) = host.resolvers() {
            self.forwarder.set_servers(resolvers);
        }
    }

    /// A datagram from the container to the forwarder.
    pub(crate) fn dns_input<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        message: &[u8],
        host: &mut H,
    ) {
        let (Some(query), Some(forwarder)) = (Query::parse(message), key.remote) else {
            self.stats.dropped += 1;
            return;
        };
        if let Some(answer) = self.forwarder.names.answer(&query) {
            return self.udp_deliver(forwarder, key.container, &answer, 0, host);
        }
        self.look_for_resolvers(host);
        let servers = Arc::clone(&self.forwarder.servers);
        if servers.is_empty() {
            let answer = query.answer(false, rcode::SERVFAIL, []);
            return self.udp_deliver(forwarder, key.container, &answer, 0, host);
        }
        let verdict = self
            .egress
            .judge_query(&query, (key.container, forwarder), host);
        let refusal = match verdict {
            QueryVerdict::Pass => None,
            QueryVerdict::NoName => Some(query.no_such_name()),
            QueryVerdict::Refuse => Some(query.refusal()),
        };
        if let Some(answer) = refusal {
            return self.udp_deliver(forwarder, key.container, &answer, 0, host);
        }
        let bare = self.egress.without_options(&query);
        let query = bare.as_deref().and_then(Query::parse).unwrap_or(query);
        let mut flow = self.flows.find(&key);
        if flow.is_none() {
            self.make_room(now, host);
            flow = self.flows.insert(key, Flow::Dns(Box::default()));
        }
        let Some(id) = flow else {
            self.stats.over_limit += 1;
            let problem = Problem::Unreachable(Unreachable::Prohibited);
            return self.dns_problem(key.container, forwarder, problem, host);
        };
        let room = MAX_HELD.saturating_sub(self.forwarder.held);
        let accepted = self.dns_exchange(now, id, host, |exchange, sides| {
            exchange.query(now, &query, &servers, room, sides)
        });
        if accepted == Some(Accepted::OverLimit) {
            self.stats.over_limit += 1;
        }
    }

    /// Datagrams arrived on a socket of the flow.
    pub(crate) fn dns_datagram<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        from: SocketAddr,
        message: &[u8],
        host: &mut H,
    ) {
        let counts = Answer::parse(message).is_some_and(|answer| {
            let answered = self.dns_exchange(now, id, host, |exchange, sides| {
                exchange.answer(now, from, &answer, sides)
            });
            answered == Some(true)
        });
        if !counts {
            self.stats.dns_unmatched += 1;
        }
    }

    /// A query to `server` came to nothing.
    pub(crate) fn dns_failed<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        server: SocketAddr,
        problem: Option<Problem>,
        host: &mut H,
    ) {
        self.dns_exchange(now, id, host, |exchange, sides| {
            exchange.failed(now, server, problem, sides);
        });
    }

    /// A deadline of the flow has passed.
    pub(crate) fn dns_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        self.dns_exchange(now, id, host, |exchange, sides| exchange.due(now, sides));
    }

    /// Does something to the flow's exchange; the flow ends when that has come to
    /// its end.
    fn dns_exchange<H: Host, R>(
        &mut self,
        now: Instant,
        id: FlowId,
        host: &mut H,
        act: impl FnOnce(&mut Exchange, &mut FlowSides<'_, H>) -> R,
    ) -> Option<R> {
        let (key, flow) = self.flows.dns_mut(id)?;
        let forwarder = key.remote?;
        let mut exchange = std::mem::take(&mut flow.exchange);
        let before = exchange.size();
        let mut sides = FlowSides {
            now,
            stack: self,
            host,
            id,
            client: key.container,
            forwarder,
        };
        let result = act(&mut exchange, &mut sides);
        let held = self.forwarder.held + exchange.size();
        self.forwarder.held = held.saturating_sub(before);
        let deadline = exchange.deadline();
        if let Some((_, flow)) = self.flows.dns_mut(id) {
            flow.exchange = exchange;
        }
        match deadline {
            Some(deadline) => self.timers.arm(&mut self.flows, id, deadline),
            None => self.dns_remove(id, host),
        }
        Some(result)
    }

    /// Forgets the flow and closes its sockets.
    pub(crate) fn dns_remove<H: Host>(&mut self, id: FlowId, host: &mut H) {
        if self.flows.dns_mut(id).is_some()
            && let Some(Flow::Dns(flow)) = self.flows.remove(id)
        {
            let held = self.forwarder.held.saturating_sub(flow.exchange.size());
            self.forwarder.held = held;
            for mapping in flow.mappings.into_iter().flatten() {
                self.udp_release(mapping, true, host);
            }
        }
    }

    /// The flow's socket for servers of this IP version.
    fn dns_mapping<H: Host>(
        &mut self,
        id: FlowId,
        client: SocketAddr,
        server: IpAddr,
        host: &mut H,
    ) -> Option<FlowId> {
        let (_, flow) = self.flows.dns_mut(id)?;
        let version = usize::from(server.is_ipv6());
        if let Some(mapping) = flow.mappings[version] {
            return Some(mapping);
        }
        let Some(mapping) = self.udp_mapping(client, server, true, host) else {
            self.stats.over_limit += 1;
            return None;
        };
        self.udp_join(mapping);
        let (_, flow) = self.flows.dns_mut(id)?;
        flow.mappings[version] = Some(mapping);
        Some(mapping)
    }

    /// Tells the client what is wrong with a query. A server is not to be known: the
    /// forwarder says so.
    fn dns_problem<H: Host>(
        &mut self,
        client: SocketAddr,
        forwarder: SocketAddr,
        problem: Problem,
        host: &mut H,
    ) {
        let header = udp_header(client.port(), forwarder.port());
        let (ends, from) = ((client.ip(), forwarder.ip()), Some(forwarder.ip()));
        self.quoted_problem(ends, IpProtocol::Udp, header, problem, from, host);
    }
}
