//! A stream each way on one connection, of which both ends check every byte.
//!
//! The request names the [`Pattern`]'s key, how many bytes go each way, and how
//! many per second the server may send. When the server has had all, it answers
//! with the place of the first wrong byte, and the client closes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::pattern::Pattern;
use super::{LoadError, failed, mode, read_number};

/// Bytes per write(2), and most per read(2).
const PIECE: usize = 64 * 1024;
/// Longest time in which nothing moves.
const STALL: Duration = Duration::from_secs(120);
/// The verdict on a stream that is whole.
const WHOLE: u64 = u64::MAX;
/// What the two directions of a key differ by.
const DOWN: u64 = 1 << 63;

/// What is to go over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Which pattern.
    pub(super) key: u64,
    /// Bytes to the server.
    pub(super) up: u64,
    /// Bytes from it.
    pub(super) down: u64,
    /// Bytes per second, each way; 0: as fast as it goes.
    pub(super) rate: u64,
}

impl Exchange {
    /// Carries it out on a fresh connection; `moved` is told what has gone up and
    /// what has come down.
    pub(super) fn run(
        &self,
        stream: TcpStream,
        moved: &(impl Fn(u64, u64) + Sync),
    ) -> Result<(), LoadError> {
        let mut request = vec![mode::EXCHANGE];
        for number in [self.key, self.up, self.down, self.rate] {
            request.extend(number.to_le_bytes());
        }
        patience(&stream).map_err(failed("set a time-out"))?;
        (&stream)
            .write_all(&request)
            .map_err(failed("send the request"))?;
        let both = self.both_ways(
            &stream,
            (self.key, self.up, &|bytes| moved(bytes, 0)),
            (self.key | DOWN, self.down, &|bytes| moved(0, bytes)),
        );
        if let Some(offset) = both? {
            return Err(LoadError::Wrong {
                way: "down",
                offset,
            });
        }
        match read_number(&mut &stream).map_err(failed("wait for the verdict"))? {
            WHOLE => Ok(()),
            offset => Err(LoadError::Wrong { way: "up", offset }),
        }
    }

    /// The server's end, after the mode.
    pub(super) fn serve(stream: &TcpStream) -> Result<(), LoadError> {
        patience(stream).map_err(failed("set a time-out"))?;
        let number = || read_number(&mut &*stream).map_err(failed("read the request"));
        let exchange = Self {
            key: number()?,
            up: number()?,
            down: number()?,
            rate: number()?,
        };
        let ignored = |_| {};
        let wrong = exchange.both_ways(
            stream,
            (exchange.key | DOWN, exchange.down, &ignored),
            (exchange.key, exchange.up, &ignored),
        )?;
        let verdict = wrong.unwrap_or(WHOLE).to_le_bytes();
        let mut stream = stream;
        stream
            .write_all(&verdict)
            .and_then(|()| stream.read(&mut [0]))
            .map(drop)
            .map_err(failed("send the verdict"))
    }

    /// Sends the one and receives the other side by side; where the latter is wrong.
    fn both_ways(
        &self,
        stream: &TcpStream,
        out: Way<'_>,
        into: Way<'_>,
    ) -> Result<Option<u64>, LoadError> {
        let sending = || send(stream, out, self.rate).map_err(failed("send a stream"));
        let receiving = || receive(stream, into).map_err(failed("receive a stream"));
        if out.1 == 0 || into.1 == 0 {
            sending()?;
            return receiving();
        }
        thread::scope(|scope| {
            let sender = thread::Builder::new()
                .spawn_scoped(scope, sending)
                .map_err(failed("start a thread"))?;
            let received = receiving();
            let sent = sender
                .join()
                .unwrap_or(Err(LoadError::Nothing("a stream's thread ended")));
            sent.and(received)
        })
    }
}

/// The key of a stream, its length, and who is told of its bytes.
type Way<'a> = (u64, u64, &'a (dyn Fn(u64) + Sync));

fn patience(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))
}

fn send(mut stream: &TcpStream, (key, length, moved): Way<'_>, rate: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(key);
    let mut sent = 0;
    let started = Instant::now();
    while sent < length {
        let piece = piece(length - sent);
        stream.write_all(pattern.at(sent, piece))?;
        sent += piece as u64;
        moved(piece as u64);
        if let Some(due) = sent.saturating_mul(1_000_000).checked_div(rate) {
            thread::sleep(Duration::from_micros(due).saturating_sub(started.elapsed()));
        }
    }
    Ok(())
}

/// Where the stream is wrong first.
fn receive(mut stream: &TcpStream, (key, length, moved): Way<'_>) -> io::Result<Option<u64>> {
    let mut pattern = Pattern::new(key);
    let mut buffer = vec![0; PIECE];
    let mut wrong = None;
    let mut received = 0;
    while received < length {
        let room = piece(length - received);
        let count = stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        wrong = wrong.or_else(|| pattern.wrong(received, bytes));
        received += count as u64;
        moved(count as u64);
    }
    Ok(wrong)
}

fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::atomic::{AtomicU64, Ordering};

    const EXCHANGE: Exchange = Exchange {
        key: 3,
        up: 200_001,
        down: 100_003,
        rate: 0,
    };
    /// Mode and request.
    const HEAD: usize = 33;

    /// Copies `from` to `to`, with one bit changed at the place `flip`.
    fn relay(mut from: &TcpStream, mut to: &TcpStream, flip: Option<usize>) {
        let mut passed = 0;
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(place) = flip.and_then(|flip| flip.checked_sub(passed))
                && place < count
            {
                buffer[place] ^= 1;
            }
            passed += count;
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    }

    /// An exchange through a relay; what it came to, and the bytes that were told.
    fn through(up: Option<usize>, down: Option<usize>) -> (Result<(), LoadError>, u64) {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (server, between) = (listen(), listen());
        let to = between.local_addr().unwrap();
        let moved = AtomicU64::new(0);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = server.accept().unwrap();
                (&stream).read_exact(&mut [0]).unwrap();
                Exchange::serve(&stream).unwrap();
            });
            scope.spawn(|| {
                let (client, _) = between.accept().unwrap();
                let server = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| relay(&client, &server, up));
                    relay(&server, &client, down);
                });
            });
            let stream = TcpStream::connect(to).unwrap();
            EXCHANGE.run(stream, &|up, down| {
                moved.fetch_add(up + down, Ordering::Relaxed);
            })
        });
        (result, moved.into_inner())
    }

    #[test]
    fn a_whole_exchange_is_whole() {
        let (result, moved) = through(None, None);
        result.unwrap();
        assert_eq!(moved, EXCHANGE.up + EXCHANGE.down);
    }

    #[test]
    fn a_bit_that_changes_on_the_way_is_found_at_both_ends() {
        let error = through(Some(HEAD + 200_000), None).0.unwrap_err();
        assert_eq!(error.to_string(), "up, byte 200000 is wrong");
        let error = through(None, Some(70_000)).0.unwrap_err();
        assert_eq!(error.to_string(), "down, byte 70000 is wrong");
    }
}
