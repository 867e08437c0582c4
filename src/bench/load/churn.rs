//! Connections that are opened, used once, and closed, in every order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::tally::{Kind, Tally};
use super::{LoadError, PATIENCE_UNDER_LOAD, connect, failed, mode, tcp_socket};

/// A port that nobody listens on (discard).
const NOBODY: u16 = 9;

/// Who closes, when, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client, after the answer.
    Client,
    /// The server; the client when it has seen that.
    Server,
    /// Both, at nearly the same time.
    Both,
    /// The client its half, before it reads.
    Half,
    /// The client resets.
    ClientResets,
    /// The server resets in place of an answer.
    ServerResets,
    /// There is no connection: nobody listens.
    Refused,
}

/// Those that any server of ours takes part in.
pub(super) const SERVED: [Ending; 6] = [
    Ending::Client,
    Ending::Server,
    Ending::Both,
    Ending::Half,
    Ending::ClientResets,
    Ending::ServerResets,
];

/// Those, and where `refused` the one where there is no server at all.
pub(super) fn endings(refused: bool) -> impl Iterator<Item = Ending> + Clone {
    SERVED.into_iter().chain(refused.then_some(Ending::Refused))
}

/// One connection from its beginning to its end.
pub(super) fn cycle(to: SocketAddr, ending: Ending) -> Result<(), LoadError> {
    if ending == Ending::Refused {
        let nobody = SocketAddr::new(to.ip(), NOBODY);
        return match tcp_socket(None)?.connect_timeout(&nobody.into(), PATIENCE_UNDER_LOAD) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(failed("be refused")(error)),
            Ok(()) => Err(LoadError::Nothing("there is a connection to nobody")),
        };
    }
    use_and_close(connect(to)?, ending).map_err(failed(step(ending)))
}

/// What is said to have failed.
fn step(ending: Ending) -> &'static str {
    match ending {
        Ending::Client => "closed by the client",
        Ending::Server => "closed by the server",
        Ending::Both => "closed by both",
        Ending::Half => "half-closed",
        Ending::ClientResets => "reset by the client",
        Ending::ServerResets => "reset by the server",
        Ending::Refused => "refused",
    }
}

fn use_and_close(mut stream: TcpStream, ending: Ending) -> io::Result<()> {
    match ending {
        Ending::Client | Ending::ClientResets | Ending::Half => {
            stream.write_all(&[mode::ECHO, b'x'])?;
            if ending == Ending::Half {
                stream.shutdown(Shutdown::Write)?;
            }
            answer(&mut stream, b'x')?;
            match ending {
                Ending::Half => end(&mut stream),
                Ending::ClientResets => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
                _ => Ok(()),
            }
        }
        Ending::Server | Ending::Both => {
            stream.write_all(&[mode::ONCE])?;
            answer(&mut stream, mode::ONCE)?;
            match ending {
                Ending::Server => end(&mut stream),
                _ => Ok(()),
            }
        }
        Ending::ServerResets => {
            stream.write_all(&[mode::RESET])?;
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Err(io::Error::other("no reset came")),
            }
        }
        Ending::Refused => Ok(()),
    }
}

fn answer(stream: &mut TcpStream, expected: u8) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    if byte == [expected] {
        return Ok(());
    }
    Err(io::Error::other("the answer is wrong"))
}

fn end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("no end came")),
    }
}

/// One after the other, as long as `left` has any, over all of `to`.
pub(super) fn cycles(to: &[SocketAddr], left: &AtomicU64, tally: &Tally) {
    let take = |left: u64| left.checked_sub(1);
    while let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        let turn = usize::try_from(before).unwrap_or_default();
        // Each address has all endings in turn.
        let (Some(to), Some(&ending)) = (
            to.get(turn / SERVED.len() % to.len().max(1)),
            SERVED.get(turn % SERVED.len()),
        ) else {
            return;
        };
        let began = Instant::now();
        tally.outcome(Kind::Connections, began, cycle(*to, ending));
        if tally.is_stopped() {
            return;
        }
    }
}
