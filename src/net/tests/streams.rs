//! Several connections at once, each with a stream of its own in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Longest silence of a connection before it counts as stuck: several
/// retransmissions in a row may be lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes a second that all connections together move at least; slower than that
/// is as good as stuck.
const LEAST_RATE: u64 = 1 << 20;
/// Bytes moved by one call.
const CHUNK: usize = 64 << 10;
/// Bytes after which a stream repeats: a prime, so that no span of sequence
/// numbers, segments or rings that is mixed up with another goes unnoticed.
const PERIOD: usize = 1_048_573;

/// What one direction of a connection carries.
struct Pattern {
    block: Vec<u8>,
    length: u64,
    deadline: Instant,
}

impl Pattern {
    fn new(seed: u64, length: u64, deadline: Instant) -> Self {
        let mut block = vec![0; PERIOD];
        fastrand::Rng::with_seed(seed).fill(&mut block);
        Self {
            block,
            length,
            deadline,
        }
    }

    fn in_time(&self, position: u64) -> Result<(), String> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(format!("too slow: at {position} of {}", self.length))
    }

    /// What is to be found from a position on, as far as it is in one piece.
    fn at(&self, position: u64) -> &[u8] {
        let start = usize::try_from(position % PERIOD as u64).unwrap();
        let left = usize::try_from(self.length - position).unwrap_or(usize::MAX);
        let piece = &self.block[start..];
        &piece[..piece.len().min(left)]
    }

    fn send(&self, mut to: &TcpStream) -> Result<(), String> {
        let mut position = 0;
        while position < self.length {
            let piece = self.at(position);
            let written = to.write(&piece[..piece.len().min(CHUNK)]);
            let written = written.map_err(|error| format!("write at {position}: {error}"))?;
            position += written as u64;
            self.in_time(position)?;
        }
        to.shutdown(Shutdown::Write)
            .map_err(|error| format!("end: {error}"))
    }

    /// Compares each byte that comes with what it must be, which says more than
    /// a sum.
    fn receive(&self, mut from: &TcpStream) -> Result<(), String> {
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        loop {
            let count = from.read(&mut buffer);
            let count =
                count.map_err(|error| format!("read at {position} of {}: {error}", self.length))?;
            if count == 0 {
                break;
            }
            let mut got = &buffer[..count];
            while !got.is_empty() {
                let wanted = self.at(position);
                let length = wanted.len().min(got.len());
                if length == 0 || got[..length] != wanted[..length] {
                    return Err(format!("wrong bytes within {count} at {position}"));
                }
                position += length as u64;
                got = &got[length..];
            }
            self.in_time(position)?;
        }
        if position == self.length {
            Ok(())
        } else {
            Err(format!("end of stream at {position} of {}", self.length))
        }
    }
}

/// Seeds of the two directions of a connection.
fn seeds(number: u64) -> [u64; 2] {
    [number * 2, number * 2 + 1]
}

/// Lengths of the two directions: together the same for each connection, and
/// now the one ends first, now the other.
fn lengths(number: u64, of: u64, each: u64) -> [u64; 2] {
    let up = each * (2 * number + 1) / (2 * of);
    [up, each - up]
}

fn both_ways(stream: &TcpStream, send: &Pattern, receive: &Pattern) -> Result<(), String> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send.send(stream));
        let received = receive.receive(stream);
        sender.join().unwrap().and(received)
    })
}

/// Accepts as many connections as there will be and does its part of each; what
/// went wrong.
pub(super) fn serve(listener: &TcpListener, connections: u64, each: u64) -> Vec<String> {
    let began = Instant::now();
    in_parallel(connections, |_| {
        let (stream, _) = listener.accept().map_err(|error| error.to_string())?;
        let mut number = [0; 8];
        (&stream)
            .read_exact(&mut number)
            .map_err(|error| format!("greeting: {error}"))?;
        let number = u64::from_be_bytes(number);
        let [up, down] = patterns(number, connections, each, began);
        both_ways(&stream, &down, &up).map_err(|what| format!("host, {number}: {what}"))
    })
}

/// The other part.
pub(super) fn connect(to: SocketAddr, connections: u64, each: u64) -> Vec<String> {
    let began = Instant::now();
    in_parallel(connections, |number| {
        let mut stream =
            TcpStream::connect(to).map_err(|error| format!("connect {number}: {error}"))?;
        stream
            .write_all(&number.to_be_bytes())
            .map_err(|error| format!("greeting: {error}"))?;
        let [up, down] = patterns(number, connections, each, began);
        both_ways(&stream, &up, &down).map_err(|what| format!("container, {number}: {what}"))
    })
}

fn patterns(number: u64, of: u64, each: u64, began: Instant) -> [Pattern; 2] {
    let ([up, down], [up_length, down_length]) = (seeds(number), lengths(number, of, each));
    let deadline = began + PATIENCE + Duration::from_secs(of * each / LEAST_RATE);
    [
        Pattern::new(up, up_length, deadline),
        Pattern::new(down, down_length, deadline),
    ]
}

fn in_parallel(count: u64, one: impl Fn(u64) -> Result<(), String> + Sync) -> Vec<String> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let one = &one;
                scope.spawn(move || one(number))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap().err())
            .collect()
    })
}
