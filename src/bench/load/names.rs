//! A resolver that knows the address of every name `nNUMBER.…`, and who asks it.
//!
//! The address follows from the number, so that an answer to another query shows.
//! RFC 1035; one question, one A record, over UDP and over TCP.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::tally::Tally;
use super::{LoadError, Said, failed, orders, say};

const HEADER: usize = 12;
const LONGEST: usize = 512;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// QR, RD and RA.
const ANSWER_FLAGS: u16 = 0x8180;
const RD: u16 = 0x0100;
const TTL: u32 = 1;
/// How long before a query over UDP is sent again, and how often it is sent.
const AGAIN: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 4;
/// How long an answer over TCP may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers at `at` until standard input ends.
///
/// # Errors
/// The sockets cannot be made.
pub fn resolve(at: SocketAddr, out: &mut dyn Write) -> Result<(), LoadError> {
    let udp = UdpSocket::bind(at).map_err(failed("bind a UDP socket"))?;
    let tcp = TcpListener::bind(at).map_err(failed("listen"))?;
    let orders = orders()?;
    let port = at.port();
    thread::Builder::new()
        .spawn(move || over_udp(&udp))
        .map_err(failed("start a thread"))?;
    thread::Builder::new()
        .spawn(move || over_tcp(&tcp))
        .map_err(failed("start a thread"))?;
    say(
        out,
        &Said::Listening {
            tcp: port,
            udp: port,
        },
    )?;
    while orders.recv().is_ok() {}
    Ok(())
}

/// An error is about an earlier datagram, whose sender is gone.
fn over_udp(socket: &UdpSocket) {
    let mut buffer = [0; LONGEST];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(answer) = answer(buffer.get(..length).unwrap_or_default())
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn over_tcp(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // Whoever asks notices that there is no answer.
        let _ = thread::Builder::new().spawn(move || while answer_one(&stream).is_ok() {});
    }
}

fn answer_one(mut stream: &TcpStream) -> io::Result<()> {
    let query = read_message(stream)?;
    let answer = answer(&query).ok_or(io::ErrorKind::InvalidData)?;
    stream.write_all(&with_length(&answer)?)
}

fn read_message(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn with_length(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], message].concat())
}

/// The address of a name.
fn address(number: u32) -> Ipv4Addr {
    // An odd factor: no two numbers have the same.
    number.wrapping_mul(0x9e37_79b1).into()
}

/// The answer to a query of [`query`]'s form; none to another.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let length = usize::from(*query.get(HEADER)?);
    let label = query.get(HEADER + 1..HEADER + 1 + length)?;
    let digits = std::str::from_utf8(label.strip_prefix(b"n")?).ok()?;
    let number: u32 = digits.parse().ok()?;
    let mut end = HEADER;
    while *query.get(end)? > 0 {
        end += 1 + usize::from(*query.get(end)?);
    }
    let question = query.get(HEADER..end + 5)?;
    let mut message = id.to_vec();
    message.extend([ANSWER_FLAGS, 1, 1, 0, 0].map(u16::to_be_bytes).concat());
    message.extend(question);
    // The name is that of the question (4.1.4).
    message.extend([0xc00c, TYPE_A, CLASS_IN].map(u16::to_be_bytes).concat());
    message.extend(TTL.to_be_bytes());
    message.extend(4_u16.to_be_bytes());
    message.extend(address(number).octets());
    Some(message)
}

fn query(id: u16, number: u32) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([RD, 1, 0, 0, 0].map(u16::to_be_bytes).concat());
    for label in [format!("n{number}").as_bytes(), b"soak", b"test"] {
        // No label has more than 63 bytes.
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label);
    }
    message.push(0);
    message.extend([TYPE_A, CLASS_IN].map(u16::to_be_bytes).concat());
    message
}

/// Whether an answer has this number's address.
fn is_right(answer: &[u8], id: u16, number: u32) -> bool {
    answer.starts_with(&id.to_be_bytes()) && answer.ends_with(&address(number).octets())
}

/// Asks over UDP, on a socket of its own as the C library does.
pub(super) fn ask(server: SocketAddr, number: u32, tally: &Tally) -> Result<(), LoadError> {
    let id = u16::try_from(number % (1 << 16)).unwrap_or_default();
    let prepare = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(AGAIN))?;
        Ok(socket)
    };
    let socket = prepare().map_err(failed("make a UDP socket"))?;
    let query = query(id, number);
    let mut buffer = [0; LONGEST];
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tally.sent_again();
        }
        socket.send(&query).map_err(failed("ask"))?;
        match socket.recv(&mut buffer) {
            Ok(length) if is_right(buffer.get(..length).unwrap_or_default(), id, number) => {
                return Ok(());
            }
            Ok(_) => return Err(LoadError::Nothing("the answer is wrong")),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(failed("wait for the answer")(error)),
        }
    }
    Err(LoadError::Nothing("no answer came"))
}

/// Asks over TCP.
pub(super) fn ask_over_tcp(server: SocketAddr, number: u32) -> Result<(), LoadError> {
    let id = u16::try_from(number % (1 << 16)).unwrap_or_default();
    let exchange = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&with_length(&query(id, number))?)?;
        read_message(&stream)
    };
    let answer = exchange().map_err(failed("ask over TCP"))?;
    if is_right(&answer, id, number) {
        return Ok(());
    }
    Err(LoadError::Nothing("the answer over TCP is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_with_the_address_of_its_number() {
        let answer = answer(&query(0x1234, 77)).unwrap();
        assert!(is_right(&answer, 0x1234, 77));
        assert!(!is_right(&answer, 0x1235, 77));
        assert!(!is_right(&answer, 0x1234, 78));
    }

    #[test]
    fn others_are_not_answered() {
        assert_eq!(answer(b""), None);
        let mut other = query(1, 2);
        other[HEADER + 1] = b'x';
        assert_eq!(answer(&other), None);
        let whole = query(1, 2);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length]), None, "{length}");
        }
    }
}
