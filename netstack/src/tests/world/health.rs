//! What must hold at any time, and what works whatever has happened.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};

use smoltcp::time::Duration;

use super::super::frames::Seen;
use super::super::guest::{Read, remote};
use super::super::host::{FakeHost, Socket};
use super::super::{dns, frames};
use super::{World, pattern};
use crate::{Close, FlowId, FlowKey, Protocol};

impl World {
    /// The open sockets are exactly those of the flow table.
    pub(in crate::tests) fn check(&self) {
        let with_socket: BTreeSet<FlowId> = self
            .stack
            .flows
            .ids()
            .into_iter()
            .filter(|(_, key)| {
                // A UDP flow shares the socket of its mapping.
                key.protocol != Protocol::Udp || key.remote.is_none_or(|remote| remote.port() == 0)
            })
            .map(|(id, _)| id)
            .collect();
        let open: BTreeSet<FlowId> = self.host.open.keys().copied().collect();
        assert_eq!(with_socket, open, "flow table and sockets");
        assert_eq!(self.stack.flows.ids().len(), self.stack.flow_count());
        let limits = self.stack.config.limits;
        let connecting = self
            .host
            .open
            .values()
            .filter(|socket| matches!(socket, Socket::Tcp(tcp) if tcp.connecting))
            .count();
        let half_open = self.stack.flows.tcp().filter(|flow| flow.is_half_open());
        assert_eq!(self.stack.half_open, half_open.count(), "half-open count");
        assert!(self.stack.half_open >= connecting);
        let queued = self.stack.half_open_queue.len();
        assert!(
            queued <= 2 * self.stack.config.limits.max_half_open + 65,
            "{queued}"
        );
        assert!(self.stack.usage().buffered <= limits.max_buffered);
        assert!(self.stack.half_open <= limits.max_half_open);
        assert!(self.stack.flow_count() <= 2 * limits.max_flows);
        let timed = |key: &FlowKey| key.protocol != Protocol::Tcp && key.remote.is_some();
        if self.stack.flows.ids().iter().any(|(_, key)| timed(key)) {
            assert!(self.stack.next_deadline().is_some(), "no end of a UDP flow");
        }
    }

    // ---- Time ----

    /// Whatever has happened before: a TCP connection, a UDP exchange and a DNS
    /// query work within a second.
    pub(in crate::tests) fn assert_works(&mut self) {
        // A host in good health, for as long as this takes.
        let healthy = FakeHost::new(self.now);
        let faults = std::mem::take(&mut self.host.faults);
        let reads = std::mem::replace(&mut self.host.reads, healthy.reads);
        let chop = std::mem::replace(&mut self.host.chop, healthy.chop);
        let buffers = std::mem::replace(&mut self.host.buffers, healthy.buffers);
        let outcome = std::mem::replace(&mut self.host.default_outcome, healthy.default_outcome);
        let begin = self.now;
        self.assert_tcp_works();
        let far = remote(251, 7);
        self.assert_udp_works(far, far.into(), b"question", b"answer");
        let question = dns::query(1, "works.example", dns::A);
        self.stack.look_for_resolvers(&mut self.host);
        self.assert_udp_works(
            SocketAddrV4::new(frames::DNS, 53),
            self.stack.forwarder.servers()[0],
            &question,
            &dns::answer(&question, 0, b"answer"),
        );
        assert!(self.now - begin <= Duration::from_secs(1));
        self.check();
        self.host.faults = faults;
        self.host.reads = reads;
        self.host.chop = chop;
        self.host.buffers = buffers;
        self.host.default_outcome = outcome;
    }

    fn assert_tcp_works(&mut self) {
        let fresh = remote(250, self.port());
        let pair = self.connect(fresh);
        let (up, down) = (pattern(1, 3000), pattern(2, 3000));
        assert_eq!(self.guest.write(pair.guest, &up), up.len());
        assert_eq!(self.host.far_write(pair.flow, &down), down.len());
        let mut got = Vec::new();
        let done = self.run_until(Duration::from_millis(500), |w| {
            if let Read::Data(data) = w.guest.read(pair.guest) {
                got.extend(data);
            }
            got.len() >= down.len() && w.far_received(pair.flow).len() >= up.len()
        });
        assert!(done && got == down && self.far_received(pair.flow) == up);
        self.guest.tcp(pair.guest).close();
        self.host.far_close(pair.flow);
        let closed = self.run_until(Duration::from_millis(300), |w| {
            w.closed(pair.flow).is_some()
        });
        assert!(closed);
        assert_eq!(self.closed(pair.flow), Some(Close::Orderly));
        self.guest.forget(pair.guest);
    }

    /// A datagram to `at`, which is `target` for the host, and one back.
    fn assert_udp_works(
        &mut self,
        at: SocketAddrV4,
        target: SocketAddr,
        question: &[u8],
        answer: &[u8],
    ) {
        let port = self.port();
        let sent = self.host.datagrams.len();
        self.send(&frames::udp(port, at, question));
        let (flow, to, payload) = self.host.datagrams[sent].clone();
        assert_eq!((to, payload.as_slice()), (target, question));
        self.take();
        self.datagram(flow, to, answer, 0);
        let answer = Seen::Udp {
            from: at,
            to: SocketAddrV4::new(frames::GUEST, port),
            payload: answer.to_vec(),
        };
        assert_eq!(self.take(), [answer]);
    }

    /// Nothing is left of any flow once `limit` has passed.
    pub(in crate::tests) fn assert_empties(&mut self, limit: Duration) {
        let empty = self.run_until(limit, |w| w.stack.flow_count() == 0);
        assert!(empty, "{} flows left", self.stack.flow_count());
        self.check();
        assert_eq!(self.stack.half_open, 0);
    }
}
