//! Many connections that stay open, each of which echoes in every round.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::tally::{Kind, Tally};
use super::tcp::dial;
use super::{LoadError, failed, mode};

/// Connections that are asked at a time: fewer than a listener lets wait.
const BATCH: usize = 256;
/// Longest time in which nothing of a batch gets on.
const STALL: Duration = Duration::from_secs(60);
/// From the beginning of a round to that of the next, at least.
const ROUND: Duration = Duration::from_secs(1);
/// What goes there and back: the connection's number and that of the round.
const REQUEST: usize = 16;

/// A connection, and how far its request is.
struct Flow {
    /// None when it has failed, which has been counted.
    stream: Option<TcpStream>,
    request: Vec<u8>,
    began: Instant,
    /// Bytes of the request that are sent, and of the answer that are there.
    sent: usize,
    answered: usize,
    answer: [u8; REQUEST],
    /// The mode comes first, once.
    head: usize,
}

impl Flow {
    /// Goes on as far as it can; whether the answer is there.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(true);
        };
        while self.sent < self.request.len() {
            match stream.write(self.request.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(error) if super::tcp::is_pending(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        while self.answered < REQUEST {
            match stream.read(self.answer.get_mut(self.answered..).unwrap_or_default()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answered += count,
                Err(error) if super::tcp::is_pending(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.request.get(self.head..) != Some(self.answer.as_slice()) {
            return Err(io::Error::other("the answer is wrong"));
        }
        Ok(true)
    }

    fn ask(&mut self, number: usize, round: u64, first: bool) {
        self.request.clear();
        if first {
            self.request.push(mode::ECHO);
        }
        self.head = usize::from(first);
        self.request.extend((number as u64).to_le_bytes());
        self.request.extend(round.to_le_bytes());
        (self.sent, self.answered) = (0, 0);
        self.began = Instant::now();
    }
}

/// Opens `count` connections to `to` in turn, and has each answer in every round
/// until it is told to stop.
pub(super) fn hold(to: &[SocketAddr], count: usize, tally: &Tally) -> Result<(), LoadError> {
    let mut poll = Poll::new().map_err(failed("make an event loop"))?;
    let mut flows = Vec::with_capacity(count);
    while flows.len() < count && !tally.is_stopped() {
        let first = flows.len();
        for (number, &to) in (first..count.min(first + BATCH)).zip(to.iter().cycle().skip(first)) {
            flows.push(open(to, number, &poll, tally));
        }
        turn(&mut poll, &mut flows, first, tally)?;
    }
    let mut round = 0;
    loop {
        round += 1;
        let began = Instant::now();
        for first in (0..flows.len()).step_by(BATCH) {
            for number in first..flows.len().min(first + BATCH) {
                if let Some(flow) = flows.get_mut(number) {
                    flow.ask(number, round, false);
                }
            }
            turn(&mut poll, &mut flows, first, tally)?;
        }
        if !tally.sleep_until(began + ROUND) {
            return Ok(());
        }
    }
}

fn open(to: SocketAddr, number: usize, poll: &Poll, tally: &Tally) -> Flow {
    let mut flow = Flow {
        stream: None,
        request: Vec::new(),
        began: Instant::now(),
        sent: 0,
        answered: 0,
        answer: [0; REQUEST],
        head: 0,
    };
    flow.ask(number, 0, true);
    let both = Interest::READABLE | Interest::WRITABLE;
    let stream = dial(to, None).and_then(|mut stream| {
        poll.registry()
            .register(&mut stream, Token(number), both)
            .map_err(failed("watch a connection"))?;
        Ok(stream)
    });
    match stream {
        Ok(stream) => {
            tally.opened();
            flow.stream = Some(stream);
        }
        Err(error) => tally.error(Kind::Flows, &error),
    }
    flow
}

/// Waits until the batch that begins with `first` has been answered.
fn turn(poll: &mut Poll, flows: &mut [Flow], first: usize, tally: &Tally) -> Result<(), LoadError> {
    let mut events = Events::with_capacity(BATCH);
    let batch = first..flows.len().min(first + BATCH);
    let mut left = Vec::new();
    left.resize(batch.len(), true);
    let mut waiting = batch.len();
    let mut advance = |flows: &mut [Flow], number: usize| {
        let Some((flow, left)) = flows.get_mut(number).zip(
            number
                .checked_sub(first)
                .and_then(|place| left.get_mut(place)),
        ) else {
            return 0;
        };
        let answered = match flow.advance() {
            Ok(answered) => {
                if answered && *left && flow.stream.is_some() {
                    tally.timed(Kind::Flows, flow.began.elapsed());
                }
                answered
            }
            Err(error) => {
                tally.error(Kind::Flows, &failed("echo")(error));
                tally.closed();
                flow.stream = None;
                true
            }
        };
        usize::from(std::mem::replace(left, *left && !answered) && answered)
    };
    // An event tells only of what has changed since the last.
    for number in batch.clone() {
        waiting -= advance(flows, number);
    }
    while waiting > 0 {
        match poll.poll(&mut events, Some(STALL)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.map_err(failed("wait for events"))?,
        }
        if events.is_empty() {
            for flow in flows.get_mut(batch).unwrap_or_default() {
                if flow.stream.is_some() && flow.answered < REQUEST {
                    tally.error(Kind::Flows, &LoadError::Nothing("no answer came"));
                    tally.closed();
                    flow.stream = None;
                }
            }
            return Ok(());
        }
        for event in &events {
            waiting -= advance(flows, event.token().0);
        }
    }
    Ok(())
}
