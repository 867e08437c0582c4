//! A name server with three names, on the host's loopback resolver address.
//!
//! `host.test` has the address 192.0.2.53; `long.test` has a text of 1,200 bytes and
//! `huge.test` one of 6,000. What does not fit the datagram that a client says it
//! takes (RFC 6891; 512 bytes if it says nothing) is answered over UDP with the
//! truncation bit, so that a resolver comes again over TCP (RFC 1035, 4.2).
//!
//! A lying one ([`liar`]) sends forged answers before the true one.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use super::host::{Host, RESOLVER_ADDRESS, Side};
use super::servers::{TcpServer, UdpServer};

/// The address of `host.test`.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// What forged answers say.
const FORGED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const STRING: usize = 200;
const LONG_STRINGS: usize = 6;
const HUGE_STRINGS: usize = 30;
/// RFC 1035, 4.2.1.
const DATAGRAM: usize = 512;

/// The server, over both transports.
pub(crate) struct DnsServer {
    pub(crate) udp: UdpServer,
    pub(crate) tcp: TcpServer,
}

impl DnsServer {
    pub(crate) fn start(host: &Host) -> Self {
        Self::start_at(host, Side::Host, RESOLVER_ADDRESS)
    }

    /// A server at an address of one side.
    pub(crate) fn start_at(host: &Host, side: Side, address: impl Into<IpAddr>) -> Self {
        let address = SocketAddr::new(address.into(), 53);
        let udp = UdpServer::start_at(host, side, address, |query| {
            let whole = answer(query)?;
            if whole.len() <= datagram_size(query)? {
                Some(whole)
            } else {
                truncated(query)
            }
        });
        Self {
            udp,
            tcp: TcpServer::start_at(host, side, address, serve),
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let answer = answer(&query).ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

/// The question section, and the name in it.
fn question(query: &[u8]) -> Option<(&[u8], String)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    Some((query.get(12..at + 4)?, labels.join(".")))
}

fn header(query: &[u8], flags: u16, answers: u16) -> Option<Vec<u8>> {
    let mut message = query.get(..2)?.to_vec();
    for word in [flags, 1, answers, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    Some(message)
}

/// QR, RD and RA; plus TC, or the code of a name that does not exist.
const ANSWER: u16 = 0x8180;
const TRUNCATED: u16 = ANSWER | 0x0200;
const NO_SUCH_NAME: u16 = ANSWER | 3;

fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let (question, _) = question(query)?;
    let mut message = header(query, TRUNCATED, 0)?;
    message.extend(question);
    Some(message)
}

/// What the client takes in one datagram: it says so in an OPT record, which stands
/// right behind the question (RFC 6891, 6.1.2).
fn datagram_size(query: &[u8]) -> Option<usize> {
    let (question, _) = question(query)?;
    Some(match query.get(12 + question.len()..) {
        Some(&[0, 0, 41, high, low, ..]) => {
            usize::from(u16::from_be_bytes([high, low])).max(DATAGRAM)
        }
        _ => DATAGRAM,
    })
}

fn text(strings: usize) -> Vec<u8> {
    let string = [b'x'; STRING];
    let length = u8::try_from(STRING).unwrap();
    [&[length][..], &string].concat().repeat(strings)
}

/// A server that answers with forgeries first: with another id, from another port,
/// to another question.
pub(crate) fn liar(host: &Host) -> UdpServer {
    let elsewhere = host
        .inside(Side::Host, || UdpSocket::bind((RESOLVER_ADDRESS, 0)))
        .unwrap();
    let at = SocketAddr::from((RESOLVER_ADDRESS, 53));
    UdpServer::start_with(host, Side::Host, at, move |socket, query, from| {
        let Some(truth) = answer(query) else { return };
        let mut forged = truth.clone();
        let address = forged.len() - 4;
        forged[address..].copy_from_slice(&FORGED.octets());
        let mut other_id = forged.clone();
        other_id[1] ^= 1;
        let mut other_question = forged.clone();
        other_question[13] ^= 1;
        let send = |socket: &UdpSocket, answer: &[u8]| {
            assert_eq!(socket.send_to(answer, from).unwrap(), answer.len());
        };
        send(socket, &other_id);
        send(&elsewhere, &forged);
        send(socket, &other_question);
        send(socket, &truth);
    })
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (question, name) = question(query)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let data = match (name.as_str(), kind) {
        ("host.test", 1) => Some(ADDRESS.octets().to_vec()),
        ("long.test", 16) => Some(text(LONG_STRINGS)),
        ("huge.test", 16) => Some(text(HUGE_STRINGS)),
        ("host.test" | "long.test" | "huge.test", _) => None,
        _ => {
            let mut message = header(query, NO_SUCH_NAME, 0)?;
            message.extend(question);
            return Some(message);
        }
    };
    let mut message = header(query, ANSWER, data.is_some().into())?;
    message.extend(question);
    if let Some(data) = data {
        // A pointer to the name in the question, type, class IN, 60 s.
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        message.extend(data);
    }
    Some(message)
}
