//! The client's TCP cases.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream as Polled;
use mio::{Events, Interest, Poll, Registry, Token};

use super::latency::Latencies;
use super::{
    CHUNK, LoadError, Outcome, PATIENCE, Task, failed, mode, nanoseconds, read_number, receive,
    tcp_socket,
};

/// How long round trips are made before they count.
const WARM_UP: Duration = Duration::from_millis(50);

/// A connection for `mode`.
pub(super) fn connect(task: &Task, mode: u8) -> Result<TcpStream, LoadError> {
    let socket = tcp_socket(task.congestion_control.as_deref())?;
    socket
        .connect_timeout(&task.tcp.into(), PATIENCE)
        .map_err(failed("connect"))?;
    let mut stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(&[mode]))
        .map_err(failed("send"))?;
    Ok(stream)
}

/// One byte there and back.
fn round_trip(stream: &mut TcpStream) -> Result<(), LoadError> {
    stream.write_all(b"x").map_err(failed("send"))?;
    stream
        .read_exact(&mut [0])
        .map_err(failed("wait for the answer"))
}

/// Waits until the server answers.
pub(super) fn reach(task: &Task) -> Result<(), LoadError> {
    round_trip(&mut connect(task, mode::ECHO)?)
}

/// What one stream has carried, and from when to when, on the receiver's clock.
struct Carried {
    bytes: u64,
    first: Duration,
    last: Duration,
}

/// Calls `one` in `streams` threads. What counts is the time from the first byte
/// of any stream to the last of any: they need not run side by side.
fn in_parallel(
    streams: u32,
    one: impl Fn() -> Result<Carried, LoadError> + Sync,
) -> Result<Outcome, LoadError> {
    let carried = thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(&one)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or(Err(LoadError::Nothing("a stream's thread ended"))))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let bytes: u64 = carried.iter().map(|stream| stream.bytes).sum();
    let first = carried.iter().map(|stream| stream.first).min();
    let last = carried.iter().map(|stream| stream.last).max();
    let time = last
        .unwrap_or_default()
        .saturating_sub(first.unwrap_or_default());
    if bytes == 0 || time.is_zero() {
        return Err(LoadError::Nothing("no byte arrived"));
    }
    Ok(Outcome {
        seconds: time.as_secs_f64(),
        bytes: Some(bytes),
        ..Outcome::default()
    })
}

/// Streams to the server; it says what has arrived.
pub(super) fn up(task: &Task, streams: u32) -> Result<Outcome, LoadError> {
    in_parallel(streams, || {
        let mut stream = connect(task, mode::UP)?;
        let buffer = vec![0; CHUNK];
        let started = Instant::now();
        while started.elapsed() < task.duration {
            stream.write_all(&buffer).map_err(failed("send"))?;
        }
        stream
            .shutdown(Shutdown::Write)
            .map_err(failed("shut down"))?;
        let mut number = || read_number(&mut stream).map_err(failed("wait for the server's count"));
        Ok(Carried {
            bytes: number()?,
            first: Duration::from_nanos(number()?),
            last: Duration::from_nanos(number()?),
        })
    })
}

/// Streams from the server.
pub(super) fn down(task: &Task, streams: u32) -> Result<Outcome, LoadError> {
    let epoch = Instant::now();
    in_parallel(streams, || {
        let mut stream = connect(task, mode::DOWN)?;
        stream
            .write_all(&nanoseconds(task.duration).to_le_bytes())
            .map_err(failed("send"))?;
        let received = receive(&mut stream).map_err(failed("receive"))?;
        Ok(Carried {
            bytes: received.bytes,
            first: received.first.saturating_duration_since(epoch),
            last: received.last.saturating_duration_since(epoch),
        })
    })
}

/// Round trips on one connection, one after the other.
pub(super) fn round_trips(task: &Task) -> Result<Outcome, LoadError> {
    round_trips_on(&mut connect(task, mode::ECHO)?, task.duration)
}

fn round_trips_on(stream: &mut TcpStream, duration: Duration) -> Result<Outcome, LoadError> {
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        round_trip(stream)?;
    }
    let mut latencies = Latencies::default();
    let started = Instant::now();
    let mut before = started;
    while before.duration_since(started) < duration {
        round_trip(stream)?;
        let now = Instant::now();
        latencies.add(now.duration_since(before));
        before = now;
    }
    Ok(transactions(before.duration_since(started), latencies))
}

/// The outcome of a case that is about transactions.
pub(super) fn transactions(time: Duration, latencies: Latencies) -> Outcome {
    let operations = latencies.len();
    let percentiles = latencies.percentiles();
    Outcome {
        seconds: time.as_secs_f64(),
        operations: Some(operations),
        p50_us: percentiles.map(|(p50, _)| p50),
        p99_us: percentiles.map(|(_, p99)| p99),
        ..Outcome::default()
    }
}

/// Opens `count` connections and makes round trips on the last of them; the
/// connections stay open as long as what is returned.
pub(super) fn flows(task: &Task, count: u32) -> Result<(Outcome, Vec<TcpStream>), LoadError> {
    let started = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(task, mode::ECHO)?;
        // A helper may answer a SYN before it has a connection of its own.
        round_trip(&mut stream)?;
        streams.push(stream);
    }
    let opening = started.elapsed().as_secs_f64();
    let last = streams
        .last_mut()
        .ok_or(LoadError::Nothing("no connection was asked for"))?;
    let outcome = Outcome {
        flows: Some(u64::from(count)),
        opening_seconds: Some(opening),
        ..round_trips_on(last, task.duration)?
    };
    Ok((outcome, streams))
}

/// A connection on its way: opened, answered, closed by the server.
struct Attempt {
    stream: Polled,
    began: Instant,
    asked: bool,
    answered: bool,
}

impl Attempt {
    /// Goes on as far as it can; whether it has come to its end.
    fn advance(&mut self) -> io::Result<bool> {
        if !self.asked {
            // Not connected yet: there will be another event, or an error.
            match self.stream.write(&[mode::ONCE]) {
                Err(error) if is_pending(&error) => return Ok(false),
                written => written.map(|_| self.asked = true)?,
            }
        }
        loop {
            match self.stream.read(&mut [0]) {
                Ok(0) if self.answered => return Ok(true),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.answered = true,
                Err(error) if is_pending(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn is_pending(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}

/// Connections one after the other, `at_once` at a time: opened, one byte there
/// and back, closed.
pub(super) fn connections(task: &Task, at_once: u32) -> Result<Outcome, LoadError> {
    let mut poll = Poll::new().map_err(failed("make an event loop"))?;
    let mut events = Events::with_capacity(256);
    let mut attempts = HashMap::new();
    let mut latencies = Latencies::default();
    let mut next_token = 0;
    let started = Instant::now();
    let mut last = started;
    for _ in 0..at_once {
        begin(task, poll.registry(), &mut attempts, &mut next_token)?;
    }
    while !attempts.is_empty() {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.map_err(failed("wait for events"))?,
        }
        if events.is_empty() {
            return Err(LoadError::Nothing("no connection got on for 10 s"));
        }
        for event in &events {
            let Some(attempt) = attempts.get_mut(&event.token()) else {
                continue;
            };
            if !attempt.advance().map_err(failed("open a connection"))? {
                continue;
            }
            last = Instant::now();
            latencies.add(last.duration_since(attempt.began));
            attempts.remove(&event.token());
            if last.duration_since(started) < task.duration {
                begin(task, poll.registry(), &mut attempts, &mut next_token)?;
            }
        }
    }
    Ok(transactions(last.duration_since(started), latencies))
}

fn begin(
    task: &Task,
    registry: &Registry,
    attempts: &mut HashMap<Token, Attempt>,
    next_token: &mut usize,
) -> Result<(), LoadError> {
    let began = Instant::now();
    let mut stream = dial(task.tcp, task.congestion_control.as_deref())?;
    let token = Token(*next_token);
    *next_token += 1;
    registry
        .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        .map_err(failed("watch a connection"))?;
    let attempt = Attempt {
        stream,
        began,
        asked: false,
        answered: false,
    };
    attempts.insert(token, attempt);
    Ok(())
}

/// Begins to connect.
pub(super) fn dial(to: SocketAddr, congestion_control: Option<&str>) -> Result<Polled, LoadError> {
    let socket = tcp_socket(congestion_control)?;
    socket
        .set_nonblocking(true)
        .map_err(failed("make a socket non-blocking"))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(failed("connect")(error))
        }
        _ => Ok(Polled::from(OwnedFd::from(socket))),
    }
}
