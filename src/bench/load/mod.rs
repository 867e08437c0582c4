//! The load generator: one server for all cases, and one client per sample.
//!
//! # Protocol
//! Both are processes of this program. Their standard output carries one
//! [`Said`] per line, as JSON; their standard input is read for the words of
//! whoever started them, and its end is their end: a benchmark that is killed
//! leaves none of them behind.
//!
//! ```text
//!   server   -> Listening { tcp, udp }
//!   client   -> Started              it runs; its network need not be there yet
//!            <- connect              it is there now
//!            -> Ready                the server has answered over it
//!            <- go                   the measurement begins
//!            -> Done(Outcome)        ... and is over; connections stay open
//! ```
//!
//! On a connection to the server the first byte says what it is for (`mode`);
//! numbers are 8 bytes, little endian.

mod churn;
mod client;
mod exchange;
pub mod histogram;
mod hold;
mod latency;
mod mix;
mod names;
mod pattern;
mod server;
mod tally;
mod tcp;
mod udp;
mod work;

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::cases::Case;

pub use client::run;
pub use names::resolve;
pub use server::serve;
pub use tally::{Kind, Progress};
pub use work::{Job, Mix, Target, Work, work};

/// First byte of a connection.
mod mode {
    /// Every further byte is sent back.
    pub(super) const ECHO: u8 = b'E';
    /// One byte is sent back, then the server closes.
    pub(super) const ONCE: u8 = b'C';
    /// Everything is read; the answer is the count, and when the first and the last
    /// of it came, on the server's clock in nanoseconds.
    pub(super) const UP: u8 = b'U';
    /// Request: nanoseconds to send for. Then the server closes.
    pub(super) const DOWN: u8 = b'D';
    /// Request: bytes per datagram. Answer: the UDP port; when any byte has come
    /// and no more datagrams do, their count and the nanoseconds between the
    /// first and the last.
    pub(super) const UDP_UP: u8 = b'u';
    /// Request: bytes per datagram, nanoseconds to send for. Answer: the UDP
    /// port; at the end the count of datagrams sent.
    pub(super) const UDP_DOWN: u8 = b'd';
    /// A stream each way, both of which are checked: [`super::exchange`].
    pub(super) const EXCHANGE: u8 = b'X';
    /// The connection is reset.
    pub(super) const RESET: u8 = b'R';
}

/// Bytes per read(2) and write(2) of a stream: enough for the cost of a call not
/// to matter, and little enough to stay in the cache of a core.
const CHUNK: usize = 128 * 1024;
/// How long an answer may take that ought to take no time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where everything is at work at once.
const PATIENCE_UNDER_LOAD: Duration = Duration::from_secs(60);

/// A line on the standard output of a server or client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The server's ports.
    Listening {
        /// All modes.
        tcp: u16,
        /// Echo.
        udp: u16,
    },
    /// The client runs.
    Started,
    /// The server has answered.
    Ready,
    /// What was measured.
    Done(Outcome),
    /// Why nothing could be.
    Failed(String),
    /// What has been done so far.
    Progress(Progress),
}

/// What a client has measured. A field that says nothing about the case is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// From the first to the last of it, as the receiver saw it.
    pub seconds: f64,
    /// Payload that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Transactions completed, or datagrams that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// Datagrams sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Median of the time per transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99 % of the transactions took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// Connections held open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
    /// Seconds that it took to open them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening_seconds: Option<f64>,
}

/// What a client is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What to measure.
    pub case: Case,
    /// The server's TCP port, as it is reached from here.
    pub tcp: SocketAddr,
    /// Its UDP port.
    pub udp: SocketAddr,
    /// How long.
    pub duration: Duration,
    /// `TCP_CONGESTION` of every connection; `None` leaves the system's default.
    pub congestion_control: Option<String>,
}

/// Why a load process could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A system call, or the peer.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Everything worked, but there is no figure.
    #[error("{0}")]
    Nothing(&'static str),
    /// Other bytes have come than were sent.
    #[error("{way}, byte {offset} is wrong")]
    Wrong {
        /// In which direction.
        way: &'static str,
        /// The first such byte's place.
        offset: u64,
    },
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Io { step, source }
}

/// Writes a line for whoever started this process.
fn say(out: &mut dyn Write, what: &Said) -> Result<(), LoadError> {
    let step = "write to standard output";
    let line = serde_json::to_string(what).map_err(|error| failed(step)(error.into()))?;
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(failed(step))
}

/// The lines of standard input. At its end this process ends, whatever it does.
fn orders() -> Result<Receiver<String>, LoadError> {
    // The pipe says the same, but not while somebody else holds its other end.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| failed("ask for a signal at the parent's end")(error.into()))?;
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
        // Also where the main thread is stuck in a system call.
        std::process::exit(0)
    };
    std::thread::Builder::new()
        .spawn(read)
        .map_err(failed("start a thread"))?;
    Ok(receiver)
}

/// A TCP socket as all ends of the benchmark have it.
fn tcp_socket(congestion_control: Option<&str>) -> Result<Socket, LoadError> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed("make a socket"))?;
    socket
        .set_tcp_nodelay(true)
        .map_err(failed("set TCP_NODELAY"))?;
    if let Some(name) = congestion_control {
        socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(failed("set TCP_CONGESTION"))?;
    }
    Ok(socket)
}

/// A connection to a server of ours that may have much to do.
fn connect(to: SocketAddr) -> Result<TcpStream, LoadError> {
    let socket = tcp_socket(None)?;
    socket
        .connect_timeout(&to.into(), PATIENCE_UNDER_LOAD)
        .map_err(failed("connect"))?;
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(PATIENCE_UNDER_LOAD))
        .map_err(failed("set a time-out"))?;
    Ok(stream)
}

/// A stream that has been read to its end.
#[derive(Debug, Clone, Copy)]
struct Received {
    bytes: u64,
    first: Instant,
    last: Instant,
}

/// Reads a stream to its end.
fn receive(stream: &mut TcpStream) -> io::Result<Received> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    let mut first = None;
    loop {
        let length = stream.read(&mut buffer)?;
        let first = *first.get_or_insert_with(Instant::now);
        if length == 0 {
            let last = Instant::now();
            return Ok(Received { bytes, first, last });
        }
        bytes += length as u64;
    }
}

fn read_number(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
