//! Everything at once, at a pace that leaves the machine usable.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::tally::{Kind, Pace, Tally};
use super::work::{Mix, Target};
use super::{LoadError, churn, connect, failed, mode, names};

/// A stream is over after about so long, and another begins.
const STREAM_SECONDS: u64 = 2;
/// Requests in a second, of one kind.
const REQUESTS: u32 = 100;
/// Names asked for in a second, and one of so many over TCP.
const NAMES: u32 = 50;
const OVER_TCP: u32 = 10;
/// Connections in a second.
const CONNECTIONS: u32 = 50;
/// UDP flows in a second, each of which stays for minutes.
const UDP_FLOWS: u32 = 5;
/// How long before a datagram is sent again, and how often it is sent.
const AGAIN: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 4;
/// Payload of datagrams, bytes: the number, and more in turn.
const SIZES: [usize; 4] = [8, 100, 512, 1400];

/// A thread of the mix.
type Part<'a> = Box<dyn Fn() + Send + 'a>;

/// The threads of the mix; each works until it is told to stop.
pub(super) fn parts<'a>(mix: &'a Mix, target: &'a Target, tally: &'a Tally) -> Vec<Part<'a>> {
    let Some(&to) = target.tcp.first() else {
        return Vec::new();
    };
    let mut parts: Vec<Part<'a>> = Vec::new();
    for number in 0..mix.streams {
        for up in [true, false] {
            parts.push(Box::new(move || {
                streams(to, u64::from(number), up, mix.rate, tally);
            }));
        }
    }
    parts.push(Box::new(move || tcp_requests(to, tally)));
    parts.push(Box::new(move || {
        connections(&target.tcp, mix.refused, tally)
    }));
    if let Some(udp) = target.udp {
        parts.push(Box::new(move || udp_requests(udp, tally)));
        parts.push(Box::new(move || udp_flows(udp, tally)));
    }
    if let Some(names) = target.names {
        parts.push(Box::new(move || ask_names(names, tally)));
    }
    parts
}

fn streams(to: SocketAddr, number: u64, up: bool, rate: u64, tally: &Tally) {
    let length = rate.saturating_mul(STREAM_SECONDS);
    let mut key = number << 32;
    while !tally.is_stopped() {
        key += 1;
        let exchange = Exchange {
            key,
            up: if up { length } else { 0 },
            down: if up { 0 } else { length },
            rate,
        };
        let began = Instant::now();
        let result =
            connect(to).and_then(|stream| exchange.run(stream, &|up, down| tally.moved(up, down)));
        tally.outcome(Kind::Streams, began, result);
    }
}

/// Numbers there and back, over one connection as long as it goes.
fn tcp_requests(to: SocketAddr, tally: &Tally) {
    let mut pace = Pace::per_second(REQUESTS, 1);
    let mut number: u64 = 0;
    let mut stream = None;
    while pace.wait(tally) {
        number += 1;
        let began = Instant::now();
        let mut request = || {
            let stream = match &mut stream {
                Some(stream) => stream,
                none => {
                    let mut fresh = connect(to)?;
                    fresh
                        .write_all(&[mode::ECHO])
                        .map_err(failed("send the mode"))?;
                    none.insert(fresh)
                }
            };
            let mut answer = [0; 8];
            stream
                .write_all(&number.to_le_bytes())
                .and_then(|()| stream.read_exact(&mut answer))
                .map_err(failed("wait for the answer"))?;
            right(answer == number.to_le_bytes())
        };
        let result = request();
        if result.is_err() {
            stream = None;
        }
        tally.outcome(Kind::TcpRr, began, result);
    }
}

fn right(is: bool) -> Result<(), LoadError> {
    if is {
        return Ok(());
    }
    Err(LoadError::Nothing("the answer is wrong"))
}

fn connections(to: &[SocketAddr], refused: bool, tally: &Tally) {
    let mut pace = Pace::per_second(CONNECTIONS, 2);
    for (to, ending) in to.iter().cycle().zip(churn::endings(refused).cycle()) {
        if !pace.wait(tally) {
            return;
        }
        let began = Instant::now();
        tally.outcome(Kind::Connections, began, churn::cycle(*to, ending));
    }
}

fn udp_socket(to: SocketAddr) -> Result<UdpSocket, LoadError> {
    let make = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(AGAIN))?;
        Ok(socket)
    };
    make().map_err(failed("make a UDP socket"))
}

/// One datagram there and back; sent again when it gets lost.
fn udp_request(socket: &UdpSocket, number: u64, tally: &Tally) -> Result<(), LoadError> {
    let turn = usize::try_from(number % SIZES.len() as u64).unwrap_or_default();
    let mut request = number.to_le_bytes().to_vec();
    request.resize(SIZES.get(turn).copied().unwrap_or_default(), b'u');
    let mut answer = [0; 2048];
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tally.sent_again();
        }
        socket.send(&request).map_err(failed("send"))?;
        loop {
            match socket.recv(&mut answer) {
                // To a datagram of before that was sent twice.
                Ok(length) if length >= 8 && answer.get(..8) != request.get(..8) => {}
                Ok(length) => return right(answer.get(..length) == Some(request.as_slice())),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break;
                }
                Err(error) => return Err(failed("wait for the answer")(error)),
            }
        }
    }
    Err(LoadError::Nothing("no answer came"))
}

fn udp_requests(to: SocketAddr, tally: &Tally) {
    let mut pace = Pace::per_second(REQUESTS, 3);
    let mut number = 0;
    let mut socket = None;
    while pace.wait(tally) {
        number += 1;
        let began = Instant::now();
        let mut request = || {
            let socket = match &mut socket {
                Some(socket) => socket,
                none => none.insert(udp_socket(to)?),
            };
            udp_request(socket, number, tally)
        };
        let result = request();
        tally.outcome(Kind::UdpRr, began, result);
    }
}

/// A flow for each request, which nobody uses again.
fn udp_flows(to: SocketAddr, tally: &Tally) {
    let mut pace = Pace::per_second(UDP_FLOWS, 4);
    let mut number = 0;
    while pace.wait(tally) {
        number += 1;
        let began = Instant::now();
        let result = udp_socket(to).and_then(|socket| udp_request(&socket, number, tally));
        tally.outcome(Kind::UdpFlow, began, result);
    }
}

fn ask_names(server: SocketAddr, tally: &Tally) {
    let mut pace = Pace::per_second(NAMES, 5);
    let mut number: u32 = 0;
    while pace.wait(tally) {
        number = number.wrapping_add(1);
        let began = Instant::now();
        let result = if number.is_multiple_of(OVER_TCP) {
            names::ask_over_tcp(server, number)
        } else {
            names::ask(server, number, tally)
        };
        tally.outcome(Kind::Names, began, result);
    }
}
