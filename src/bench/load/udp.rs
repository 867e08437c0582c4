//! Floods of datagrams, on both ends, and the client's UDP cases.
//!
//! The sender hands the kernel 32 datagrams per sendmmsg(2), as fast as it takes
//! them; what the way to the receiver cannot carry is lost, so what counts is how
//! many arrive. A TCP connection beside it carries the request and the counts.
//! The server's port is known from it; the client's address, which a helper may
//! change, the server learns from a datagram of one byte that opens the flow.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::latency::Latencies;
use super::{LoadError, Outcome, PATIENCE, Task, failed, mode, nanoseconds, read_number, tcp};
use crate::sys::udp::{Inbox, Outgoing, SEND_BATCH, send};

/// Asked for as the receiver's buffer, bytes; the kernel gives what it allows.
const RECEIVE_BUFFER: usize = 4 << 20;
/// After the sender's end, no datagram for so long means that there is none left.
const QUIET: Duration = Duration::from_millis(200);
/// How long one round trip may take before it counts as lost.
const LOST: Duration = Duration::from_millis(200);
/// Between datagrams that open a flow.
const OPENING: Duration = Duration::from_millis(20);
/// The payload of those.
const OPENER: &[u8] = b"o";

fn udp_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket)
}

/// Waits for one of `fds`; which of them are ready.
fn wait<const N: usize>(mut fds: [PollFd<'_>; N], limit: Duration) -> io::Result<[bool; N]> {
    let limit = Timespec::try_from(limit).map_err(|_| ErrorKind::InvalidInput)?;
    match poll(&mut fds, Some(&limit)) {
        Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

fn readable(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}

/// Sends datagrams of `size` bytes for `duration`; their number.
fn flood(socket: &UdpSocket, to: SocketAddr, size: usize, duration: Duration) -> io::Result<u64> {
    let payload = vec![0; size];
    let message = Outgoing {
        to,
        payload: &payload,
        segment: 0,
        source: None,
    };
    let batch = [message; SEND_BATCH];
    let mut sent = 0;
    let started = Instant::now();
    while started.elapsed() < duration {
        match send(socket.as_fd(), &batch) {
            Ok(count) => sent += count as u64,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    wait([PollFd::new(socket, PollFlags::OUT)], OPENING)?;
                }
                // An answer to an earlier datagram, or a signal.
                Some(libc::ECONNREFUSED | libc::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}

/// Datagrams that have arrived.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    datagrams: u64,
    /// From the first to the last.
    time: Duration,
}

/// Counts datagrams of `size` bytes, until after the first byte of (or the end
/// of) `control` none comes for [`QUIET`].
fn count(socket: &UdpSocket, size: usize, control: &TcpStream) -> io::Result<Count> {
    let mut inbox = Inbox::default();
    let mut count = Count::default();
    let mut first = None;
    let mut over = false;
    loop {
        match inbox.receive(socket.as_fd()) {
            Ok(_) => {
                let now = Instant::now();
                let fitting = inbox
                    .messages()
                    .filter(|message| message.payload.len() == size);
                let fitting = fitting.count() as u64;
                if fitting > 0 {
                    let began = *first.get_or_insert(now);
                    count.time = now.duration_since(began);
                    count.datagrams += fitting;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let data = if over {
                    wait([readable(socket)], QUIET)?[0]
                } else {
                    let [data, control] = wait([readable(socket), readable(control)], PATIENCE)?;
                    over |= control;
                    data || control
                };
                if !data {
                    return Ok(count);
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
}

/// The server's end of a flood from the client.
pub(super) fn take(control: &mut TcpStream) -> io::Result<()> {
    let size = read_size(control)?;
    let socket = udp_socket(Ipv4Addr::LOCALHOST)?;
    accept(&socket, control)?;
    let count = count(&socket, size, control)?;
    // Closing with something unread would break the connection off.
    read_number(control)?;
    control.write_all(&count.datagrams.to_le_bytes())?;
    control.write_all(&nanoseconds(count.time).to_le_bytes())
}

/// The server's end of a flood to the client.
pub(super) fn give(control: &mut TcpStream) -> io::Result<()> {
    let size = read_size(control)?;
    let duration = Duration::from_nanos(read_number(control)?);
    let socket = udp_socket(Ipv4Addr::LOCALHOST)?;
    let client = accept(&socket, control)?;
    let sent = flood(&socket, client, size, duration)?;
    control.write_all(&sent.to_le_bytes())
}

fn read_size(control: &mut TcpStream) -> io::Result<usize> {
    usize::try_from(read_number(control)?).map_err(|_| ErrorKind::InvalidData.into())
}

/// Tells the client the port and answers the datagram that opens the flow; whose
/// it was.
fn accept(socket: &UdpSocket, control: &mut TcpStream) -> io::Result<SocketAddr> {
    let port = socket.local_addr()?.port();
    control.write_all(&u64::from(port).to_le_bytes())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (_, client) = socket.recv_from(&mut [0; 16])?;
    socket.connect(client)?;
    socket.send(OPENER)?;
    Ok(client)
}

/// The client's side of [`accept`].
fn open(task: &Task, control: &mut TcpStream) -> Result<UdpSocket, LoadError> {
    let port = read_number(control).map_err(failed("wait for the UDP port"))?;
    let port = u16::try_from(port).map_err(|_| LoadError::Nothing("this is not our server"))?;
    let open = || -> io::Result<Option<UdpSocket>> {
        let socket = udp_socket(Ipv4Addr::UNSPECIFIED)?;
        socket.connect((task.tcp.ip(), port))?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            socket.send(OPENER)?;
            if wait([readable(&socket)], OPENING)?[0] {
                return Ok(Some(socket));
            }
        }
        Ok(None)
    };
    open()
        .map_err(failed("open a flow of datagrams"))?
        .ok_or(LoadError::Nothing("no datagram was answered"))
}

/// A flood to the server.
pub(super) fn up(task: &Task, size: u16) -> Result<Outcome, LoadError> {
    let mut control = tcp::connect(task, mode::UDP_UP)?;
    request(&mut control, &[u64::from(size)])?;
    let socket = open(task, &mut control)?;
    let to = socket.peer_addr().map_err(failed("look at a socket"))?;
    let sent =
        flood(&socket, to, usize::from(size), task.duration).map_err(failed("send datagrams"))?;
    request(&mut control, &[sent])?;
    let mut number = || read_number(&mut control).map_err(failed("wait for the server's count"));
    let count = Count {
        datagrams: number()?,
        time: Duration::from_nanos(number()?),
    };
    outcome(count, sent, size)
}

/// A flood from the server.
pub(super) fn down(task: &Task, size: u16) -> Result<Outcome, LoadError> {
    let mut control = tcp::connect(task, mode::UDP_DOWN)?;
    request(&mut control, &[u64::from(size), nanoseconds(task.duration)])?;
    let socket = open(task, &mut control)?;
    let count = count(&socket, usize::from(size), &control).map_err(failed("receive datagrams"))?;
    let sent = read_number(&mut control).map_err(failed("wait for the server's count"))?;
    outcome(count, sent, size)
}

fn request(control: &mut TcpStream, numbers: &[u64]) -> Result<(), LoadError> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    control.write_all(&bytes).map_err(failed("send"))
}

fn outcome(count: Count, sent: u64, size: u16) -> Result<Outcome, LoadError> {
    if count.time.is_zero() {
        return Err(LoadError::Nothing("no datagrams arrived"));
    }
    Ok(Outcome {
        seconds: count.time.as_secs_f64(),
        bytes: Some(count.datagrams * u64::from(size)),
        operations: Some(count.datagrams),
        sent: Some(sent),
        ..Outcome::default()
    })
}

/// Round trips of one-byte datagrams, one after the other.
pub(super) fn round_trips(task: &Task) -> Result<Outcome, LoadError> {
    let ready = || -> io::Result<UdpSocket> {
        let socket = udp_socket(Ipv4Addr::UNSPECIFIED)?;
        socket.connect(task.udp)?;
        socket.set_read_timeout(Some(LOST))?;
        Ok(socket)
    };
    let socket = ready().map_err(failed("make a UDP socket"))?;
    let mut latencies = Latencies::default();
    let mut sent = 0;
    let started = Instant::now();
    let mut before = started;
    while before.duration_since(started) < task.duration {
        sent += 1;
        let answered = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 16]));
        let now = Instant::now();
        match answered {
            Ok(_) => latencies.add(now.duration_since(before)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(failed("wait for the answer")(error)),
        }
        before = now;
    }
    if latencies.len() == 0 {
        return Err(LoadError::Nothing("no datagram was answered"));
    }
    Ok(Outcome {
        sent: Some(sent),
        ..tcp::transactions(before.duration_since(started), latencies)
    })
}
