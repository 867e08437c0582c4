//! The open queries of one client port, and the servers that were asked.

use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use super::message::{Answer, Match, Query};
use crate::icmp::Problem;

/// Open queries of one port: the port's packets cost no more than a look at these.
pub(super) const MAX_QUERIES: usize = 64;
/// Longest query that is kept to be sent again, bytes.
pub(super) const MAX_KEPT: usize = 4096;
/// Servers of one query; the marks of those that failed are bits.
pub(super) const MAX_SERVERS: usize = 32;
/// How long a server may be silent before the next is asked as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long servers may be silent before another one's failure is the answer: less
/// than a client waits (5 s, resolv.conf(5)).
const SILENCE: Duration = Duration::from_secs(2);
/// Longest failure that is held back, bytes (RFC 1035, 4.2.1).
const MAX_HELD: usize = 512;
/// How long a query may stay unanswered, after the client has last asked.
pub(super) const LIFETIME: Duration = Duration::from_secs(15);

/// Both sides of an exchange.
pub(super) trait Sides {
    /// Sends a query to a server.
    ///
    /// # Errors
    /// It was not sent; with what the client would be told if it is to be told.
    fn send(&mut self, server: SocketAddr, query: &[u8]) -> Result<(), Option<Problem>>;

    /// Sends an answer to the client.
    fn answer(&mut self, message: &[u8]);

    /// Tells the client that no server can be reached.
    fn unreachable(&mut self, problem: Problem);
}

/// What became of a query of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    Yes,
    /// Too much is open.
    OverLimit,
}

/// The open queries of one client port.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    open: Vec<Open>,
}

/// One open query.
#[derive(Debug)]
struct Open {
    /// The query, or its header and question section when it is not raced.
    kept: Box<[u8]>,
    /// Length of header and question section.
    head: usize,
    /// Whether all of it is kept, so that it can be sent to another server.
    raced: bool,
    servers: Arc<[SocketAddr]>,
    /// How many of the servers have been asked, from the front.
    asked: usize,
    /// Which of these have failed since, a bit each.
    failed: u32,
    /// A failure that a server has answered.
    held: Option<Box<[u8]>>,
    /// The last failure that was no answer.
    problem: Option<Problem>,
    /// When a server was first asked, of those asked last.
    asked_at: Instant,
    /// When the client last asked.
    since: Instant,
}

/// What is left of an open query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// A server that may answer.
    Hope,
    Nothing,
}

impl Exchange {
    /// Most bytes that it may come to hold.
    pub(super) fn size(&self) -> usize {
        self.open.iter().map(|open| size(open.kept.len())).sum()
    }

    /// When something has to be done if nothing is heard; `None`: no query is open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.iter().map(Open::deadline).min()
    }

    /// A query of the client; `room` is how many more bytes it may hold.
    pub(super) fn query(
        &mut self,
        now: Instant,
        query: &Query<'_>,
        servers: &Arc<[SocketAddr]>,
        room: usize,
        sides: &mut impl Sides,
    ) -> Accepted {
        let mut room = room;
        if let Some(at) = self.open.iter().position(|open| open.is_same(query))
            && let Some(open) = self.open.get_mut(at)
        {
            room += size(open.kept.len());
            if Arc::ptr_eq(&open.servers, servers) {
                if open.repeat(now, query, room, sides) == Left::Nothing {
                    self.give_up(at, sides);
                }
                return Accepted::Yes;
            }
            // It starts over, with the servers there are now.
            self.open.swap_remove(at);
        }
        if self.open.len() >= MAX_QUERIES || size(query.head().len()) > room {
            return Accepted::OverLimit;
        }
        let mut open = Open::new(now, query, servers, room);
        let left = open.ask_next(now, Some(query.whole()), sides);
        self.open.push(open);
        if left == Left::Nothing {
            self.give_up(self.open.len() - 1, sides);
        }
        Accepted::Yes
    }

    /// A datagram of `from` for the client. False: it answers no open query.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        answer: &Answer<'_>,
        sides: &mut impl Sides,
    ) -> bool {
        let matching = |(at, open): (usize, &Open)| {
            let matched = answer.matches(open.kept.get(..open.head)?)?;
            Some((at, open.server(from)?, matched))
        };
        let Some((at, server, matched)) = self.open.iter().enumerate().find_map(matching) else {
            return false;
        };
        if (matched == Match::Bare || answer.is_failure())
            && let Some(open) = self.open.get_mut(at)
            && open.fail(now, server, sides) == Left::Hope
        {
            if open.held.is_none() && answer.whole().len() <= MAX_HELD {
                open.held = Some(answer.whole().into());
            }
            return true;
        }
        self.open.swap_remove(at);
        sides.answer(answer.whole());
        true
    }

    /// Something that was sent to a server came to nothing. One failure is as good as
    /// many: all that the server has not answered is asked elsewhere.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        to: SocketAddr,
        problem: Option<Problem>,
        sides: &mut impl Sides,
    ) {
        for at in (0..self.open.len()).rev() {
            if let Some(open) = self.open.get_mut(at)
                && let Some(server) = open.server(to)
            {
                open.problem = problem.or(open.problem);
                if open.fail(now, server, sides) == Left::Nothing {
                    self.give_up(at, sides);
                }
            }
        }
    }

    /// Does what is due.
    pub(super) fn due(&mut self, now: Instant, sides: &mut impl Sides) {
        for at in (0..self.open.len()).rev() {
            if let Some(open) = self.open.get_mut(at)
                && now >= open.deadline()
            {
                let over = now >= open.expires() || !open.has_next();
                if over || open.ask_next(now, None, sides) == Left::Nothing {
                    self.give_up(at, sides);
                }
            }
        }
    }

    /// No server has answered: the client is told what they have said instead.
    fn give_up(&mut self, at: usize, sides: &mut impl Sides) {
        let open = self.open.swap_remove(at);
        if let Some(held) = &open.held {
            sides.answer(held);
        } else if let Some(problem) = open.problem
            && open.left() == Left::Nothing
        {
            sides.unreachable(problem);
        }
    }
}

impl Open {
    fn new(now: Instant, query: &Query<'_>, servers: &Arc<[SocketAddr]>, room: usize) -> Self {
        let mut open = Self {
            kept: Box::default(),
            head: 0,
            raced: false,
            servers: Arc::clone(servers),
            asked: 0,
            failed: 0,
            held: None,
            problem: None,
            asked_at: now,
            since: now,
        };
        open.keep(query, room);
        open
    }

    /// Keeps as much of the query as is allowed.
    fn keep(&mut self, query: &Query<'_>, room: usize) {
        let whole = query.whole();
        self.head = query.head().len();
        self.raced = query.is_standard() && whole.len() <= MAX_KEPT && size(whole.len()) <= room;
        self.kept = if self.raced { whole } else { query.head() }.into();
    }

    fn is_same(&self, query: &Query<'_>) -> bool {
        // Most are not, and need not be read for that.
        if self.head != query.head().len() || self.kept.get(..2) != query.head().get(..2) {
            return false;
        }
        let own = self.kept.get(..self.head).and_then(Query::parse);
        own.is_some_and(|own| own.is_same(query))
    }

    /// Which of the servers that were asked `address` is.
    fn server(&self, address: SocketAddr) -> Option<usize> {
        let mut asked = self.servers.iter().take(self.asked);
        asked.position(|server| *server == address)
    }

    fn expires(&self) -> Instant {
        self.since + LIFETIME
    }

    /// Whether another server will be asked in time.
    fn has_next(&self) -> bool {
        self.raced && self.asked < self.servers.len()
    }

    fn deadline(&self) -> Instant {
        let next = if self.has_next() {
            self.asked_at + PATIENCE
        } else if self.held.is_some() {
            self.asked_at + SILENCE
        } else {
            return self.expires();
        };
        next.min(self.expires())
    }

    fn left(&self) -> Left {
        let asked = u32::try_from(self.asked).unwrap_or(u32::MAX);
        if self.failed.count_ones() < asked {
            Left::Hope
        } else {
            Left::Nothing
        }
    }

    /// Asks servers until one takes the query, which is at hand or was kept.
    fn ask_next(&mut self, now: Instant, whole: Option<&[u8]>, sides: &mut impl Sides) -> Left {
        let kept = self.raced.then_some(&*self.kept);
        let Some(message) = whole.or(kept) else {
            return self.left();
        };
        while let Some(server) = self.servers.get(self.asked) {
            self.asked += 1;
            self.asked_at = now;
            match sides.send(*server, message) {
                Ok(()) => break,
                Err(problem) => {
                    self.failed |= 1 << (self.asked - 1);
                    self.problem = problem.or(self.problem);
                }
            }
        }
        self.left()
    }

    /// One of the servers has failed: the next is asked at once.
    fn fail(&mut self, now: Instant, server: usize, sides: &mut impl Sides) -> Left {
        let failed = self.failed | 1 << server;
        if self.failed == failed {
            return self.left();
        }
        self.failed = failed;
        self.ask_next(now, None, sides)
    }

    /// The client asks again: so do we, whoever has failed before.
    fn repeat(
        &mut self,
        now: Instant,
        query: &Query<'_>,
        room: usize,
        sides: &mut impl Sides,
    ) -> Left {
        self.keep(query, room);
        self.since = now;
        self.failed = 0;
        for (at, server) in self.servers.iter().take(self.asked).enumerate() {
            if let Err(problem) = sides.send(*server, query.whole()) {
                self.failed |= 1 << at;
                self.problem = problem.or(self.problem);
            }
        }
        // One that is not raced gets to another server in no other way.
        if self.left() == Left::Nothing || !self.raced {
            return self.ask_next(now, Some(query.whole()), sides);
        }
        Left::Hope
    }
}

/// Most bytes that a query holds of which `kept` are kept.
fn size(kept: usize) -> usize {
    kept + MAX_HELD + size_of::<Open>()
}
