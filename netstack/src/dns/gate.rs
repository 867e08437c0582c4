//! The policy on a connection to the DNS forwarder (RFC 1035, 4.2.2): messages with
//! their length in front, in both directions.
//!
//! # Theory of operation
//!
//! Where no name is denied such a connection is relayed like any other. Else a [`Gate`]
//! stands between the container's side and the host's socket. It takes whole messages:
//! a query passes, or is answered by ourselves; an answer passes once its addresses are
//! remembered. Our own answers go between those of the server, never into one.
//!
//! A connection that sends what is no query, or a query longer than [`MAX_QUERY`], ends.
//! One holds at most a query, [`MAX_PENDING`] bytes for each side and an answer; there
//! are at most [`MAX_GATES`] of them.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::time::Instant;

use super::message::{Query, emptied};
use crate::flow::FlowId;
use crate::host::{Host, HostError, Io};
use crate::policy::{Egress, QueryVerdict};

/// Longest query, bytes.
const MAX_QUERY: usize = 4096;
/// Bytes that may wait for the server, and of our own answers for the container.
const MAX_PENDING: usize = 16 << 10;
/// Connections to the forwarder at once.
pub(crate) const MAX_GATES: usize = 128;
/// Bytes of the length in front of a message.
const PREFIX: usize = 2;

/// What is on its way through one connection.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Counts the gates that there are.
    _one: Arc<()>,
    client: SocketAddr,
    forwarder: SocketAddr,
    /// A query that is not whole.
    query: Vec<u8>,
    /// Whole queries that the host's socket has not taken.
    to_server: Vec<u8>,
    /// An answer that is not whole; beyond `got` bytes it is room.
    answer: Vec<u8>,
    got: usize,
    /// Whole answers that the container's side has not taken.
    to_client: Vec<u8>,
}

impl Gate {
    /// One more, of those that `all` counts; `None`: there are too many.
    pub(crate) fn new(all: &Arc<()>, client: SocketAddr, forwarder: SocketAddr) -> Option<Self> {
        (Arc::strong_count(all) <= MAX_GATES).then(|| Self {
            _one: Arc::clone(all),
            client,
            forwarder,
            query: Vec::new(),
            to_server: Vec::new(),
            answer: Vec::new(),
            got: 0,
            to_client: Vec::new(),
        })
    }

    /// Whether there is something for the container that needs no event of the socket.
    pub(crate) fn has_answer(&self) -> bool {
        !self.to_client.is_empty()
    }

    /// Whether everything of the container that passes has gone to the host's socket.
    pub(crate) fn is_flushed(&self) -> bool {
        self.to_server.is_empty()
    }

    /// Takes bytes of the container; [`Io::WouldBlock`] when the host's socket has to be
    /// waited for.
    pub(crate) fn send<H: Host>(
        &mut self,
        data: &[u8],
        id: FlowId,
        egress: &mut Egress,
        host: &mut H,
    ) -> Io {
        match self.flush(id, host) {
            Io::Done(_) => {}
            other => return other,
        }
        // As much as completes one query at most, so that what waits is bounded.
        let most = wanted(&self.query).min(data.len());
        let (piece, _) = data.split_at(most);
        self.query.extend_from_slice(piece);
        if self.query.len() >= PREFIX && wanted_in_all(&self.query) - PREFIX > MAX_QUERY {
            return Io::Failed(HostError::Other);
        }
        if self.query.len() >= PREFIX && wanted(&self.query) == 0 && !self.pass(egress, host) {
            return Io::Failed(HostError::Other);
        }
        match self.flush(id, host) {
            Io::Failed(error) => Io::Failed(error),
            _ => Io::Done(piece.len()),
        }
    }

    /// A query is whole. False: the connection ends.
    fn pass<H: Host>(&mut self, egress: &mut Egress, host: &mut H) -> bool {
        let whole = std::mem::take(&mut self.query);
        let Some(query) = whole.get(PREFIX..).and_then(Query::parse) else {
            return false;
        };
        let answer = match egress.judge_query(&query, (self.client, self.forwarder), host) {
            QueryVerdict::Pass => {
                let bare = egress.without_options(&query);
                append(
                    &mut self.to_server,
                    bare.as_deref().unwrap_or(query.whole()),
                );
                return true;
            }
            QueryVerdict::NoName => query.no_such_name(),
            QueryVerdict::Refuse => query.refusal(),
        };
        append(&mut self.to_client, &answer);
        self.to_client.len() <= MAX_PENDING
    }

    /// Gives the host's socket what waits for it.
    pub(crate) fn flush<H: Host>(&mut self, id: FlowId, host: &mut H) -> Io {
        while !self.to_server.is_empty() {
            match host.tcp_send(id, &[IoSlice::new(&self.to_server)]) {
                Io::Done(0) => return Io::WouldBlock,
                Io::Done(count) => {
                    self.to_server.drain(..count.min(self.to_server.len()));
                }
                other => return other,
            }
        }
        Io::Done(0)
    }

    /// Gives the container's side what there is for it.
    pub(crate) fn receive<H: Host>(
        &mut self,
        space: &mut [u8],
        now: Instant,
        id: FlowId,
        egress: &mut Egress,
        host: &mut H,
    ) -> Io {
        while self.to_client.is_empty() {
            let all = wanted_in_all(self.answer.get(..self.got).unwrap_or_default());
            self.answer.resize(all, 0);
            let Some(room) = self.answer.get_mut(self.got..) else {
                return Io::Failed(HostError::Other);
            };
            match host.tcp_receive(id, room) {
                Io::Done(0) => return Io::WouldBlock,
                Io::Done(count) => self.got += count.min(room.len()),
                other => return other,
            }
            let all = wanted_in_all(self.answer.get(..self.got).unwrap_or_default());
            if self.got >= PREFIX && self.got == all {
                let message = self.answer.get(PREFIX..).unwrap_or_default();
                let key = (self.client, self.forwarder);
                if egress.answered(now, message, key, host) {
                    std::mem::swap(&mut self.to_client, &mut self.answer);
                } else {
                    append(&mut self.to_client, &emptied(message));
                }
                self.answer.clear();
                self.got = 0;
            }
        }
        let count = self.to_client.len().min(space.len());
        let (taken, _) = space.split_at_mut(count);
        taken.copy_from_slice(self.to_client.get(..count).unwrap_or_default());
        self.to_client.drain(..count);
        if self.to_client.is_empty() {
            // Nothing is held between messages.
            self.to_client = Vec::new();
        }
        Io::Done(count)
    }
}

/// Bytes of a message with its length, as far as that is known.
fn wanted_in_all(begin: &[u8]) -> usize {
    match *begin {
        [a, b, ..] => PREFIX + usize::from(u16::from_be_bytes([a, b])),
        _ => PREFIX,
    }
}

/// Bytes that are missing to the next thing that can be told.
fn wanted(begin: &[u8]) -> usize {
    wanted_in_all(begin).saturating_sub(begin.len())
}

fn append(to: &mut Vec<u8>, message: &[u8]) {
    // No message is longer: it came with such a length, or is one of our own.
    let Ok(length) = u16::try_from(message.len()) else {
        return;
    };
    to.extend(length.to_be_bytes());
    to.extend_from_slice(message);
}
