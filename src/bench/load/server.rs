//! The server: on the host's loopback, for all modes.
//!
//! One thread answers everything that is small, so that 1,000 idle connections
//! cost nothing; a stream or a flood of datagrams has a thread of its own, which
//! blocks.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream as Polled};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::exchange::Exchange;
use super::{
    CHUNK, LoadError, PATIENCE, Said, failed, mode, nanoseconds, orders, read_number, receive, say,
    tcp_socket, udp,
};

const LISTENER: Token = Token(0);
const EVENTS: usize = 256;
/// Connections that may wait to be accepted, as far as the system lets them.
const BACKLOG: i32 = 4096;

/// Serves TCP and UDP at `at` until standard input ends; port 0 is one that the
/// kernel picks for each.
///
/// # Errors
/// The sockets cannot be made, or `congestion_control` is not allowed.
pub fn serve(
    at: SocketAddr,
    congestion_control: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), LoadError> {
    let (mut server, tcp) = Server::listen(at, congestion_control)?;
    let udp = start_echo(at)?;
    let _orders = orders()?;
    say(out, &Said::Listening { tcp, udp })?;
    server.run().map_err(failed("serve"))
}

/// Serves TCP and UDP at `at` in threads, as long as this process lasts.
pub(super) fn serve_beside(at: SocketAddr) -> Result<(), LoadError> {
    let (mut server, _) = Server::listen(at, None)?;
    start_echo(at)?;
    // Whoever is to be served notices its end.
    thread::Builder::new()
        .spawn(move || server.run())
        .map(drop)
        .map_err(failed("start a thread"))
}

/// A UDP echo in a thread of its own, and its port.
fn start_echo(at: SocketAddr) -> Result<u16, LoadError> {
    let echo = UdpSocket::bind(at).map_err(failed("bind a UDP socket"))?;
    let local = echo.local_addr().map_err(failed("look at a socket"))?;
    thread::Builder::new()
        .spawn(move || udp_echo(&echo))
        .map_err(failed("start a thread"))?;
    Ok(local.port())
}

fn listen(
    at: SocketAddr,
    congestion_control: Option<&str>,
) -> Result<(StdListener, u16), LoadError> {
    let socket = tcp_socket(congestion_control)?;
    socket
        .bind(&at.into())
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| socket.set_nonblocking(true))
        .map_err(failed("listen"))?;
    let listener = StdListener::from(socket);
    let address = listener.local_addr().map_err(failed("look at a socket"))?;
    Ok((listener, address.port()))
}

/// Answers datagrams. An error is about an earlier one, whose sender is gone.
fn udp_echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    }
}

/// What the server's clock counts from: before the first stream.
static EPOCH: OnceLock<Instant> = OnceLock::new();

struct Connection {
    stream: Polled,
    mode: Option<u8>,
}

/// What becomes of a connection after a turn.
enum Next {
    Keep,
    Close,
    /// It goes on in a thread of its own.
    Detach(u8),
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    next_token: usize,
}

impl Server {
    fn listen(at: SocketAddr, congestion_control: Option<&str>) -> Result<(Self, u16), LoadError> {
        let (listener, port) = listen(at, congestion_control)?;
        EPOCH.get_or_init(Instant::now);
        let server = Self::new(listener).map_err(failed("make an event loop"))?;
        Ok((server, port))
    }

    fn new(listener: StdListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: HashMap::new(),
            next_token: LISTENER.0 + 1,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                } else {
                    self.turn(event.token())?;
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The connection is gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let token = Token(self.next_token);
            self.next_token += 1;
            self.poll
                .registry()
                .register(&mut stream, token, Interest::READABLE)?;
            self.connections
                .insert(token, Connection { stream, mode: None });
        }
    }

    fn turn(&mut self, token: Token) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&token) else {
            return Ok(());
        };
        // Whoever has broken a connection off knows it.
        let next = connection.answer().unwrap_or(Next::Close);
        if matches!(next, Next::Keep) {
            return Ok(());
        }
        let Some(mut connection) = self.connections.remove(&token) else {
            return Ok(());
        };
        self.poll.registry().deregister(&mut connection.stream)?;
        if let Next::Detach(mode) = next {
            let stream = TcpStream::from(OwnedFd::from(connection.stream));
            stream.set_nonblocking(false)?;
            // The client waits for an answer, and reports that there was none.
            thread::Builder::new().spawn(move || drop(detached(stream, mode)))?;
        }
        Ok(())
    }
}

impl Connection {
    fn answer(&mut self) -> io::Result<Next> {
        let mut buffer = [0; 2048];
        loop {
            // The byte after the mode may be for another reader.
            let room = if self.mode.is_none() { 1 } else { buffer.len() };
            let length = match self.stream.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Ok(Next::Close),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let read = buffer.get(..length).unwrap_or_default();
            match self.mode {
                None => match read.first().copied().unwrap_or_default() {
                    mode::ECHO => self.mode = Some(mode::ECHO),
                    mode::ONCE => {
                        self.stream.write_all(b"C")?;
                        return Ok(Next::Close);
                    }
                    mode::RESET => {
                        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                        return Ok(Next::Close);
                    }
                    other => return Ok(Next::Detach(other)),
                },
                Some(_) => self.stream.write_all(read)?,
            }
        }
    }
}

/// A stream, or the control connection of datagrams.
fn detached(mut stream: TcpStream, mode: u8) -> io::Result<()> {
    match mode {
        mode::UP => take(&mut stream),
        mode::DOWN => give(&mut stream),
        mode::UDP_UP => udp::take(&mut stream),
        mode::UDP_DOWN => udp::give(&mut stream),
        mode::EXCHANGE => Exchange::serve(&stream).map_err(io::Error::other),
        _ => Ok(()),
    }
}

fn take(stream: &mut TcpStream) -> io::Result<()> {
    let received = receive(stream)?;
    let epoch = *EPOCH.get_or_init(Instant::now);
    let since = |time: Instant| nanoseconds(time.saturating_duration_since(epoch));
    for number in [received.bytes, since(received.first), since(received.last)] {
        stream.write_all(&number.to_le_bytes())?;
    }
    Ok(())
}

fn give(stream: &mut TcpStream) -> io::Result<()> {
    let duration = Duration::from_nanos(read_number(stream)?);
    let buffer = vec![0; CHUNK];
    let started = Instant::now();
    while started.elapsed() < duration {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The client closes when it has read everything.
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read(&mut [0]).map(drop)
}
