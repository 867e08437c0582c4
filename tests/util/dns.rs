//! A name server with two names, on the host's loopback resolver address.
//!
//! `host.test` has the address 192.0.2.53; `long.test` has a text of 1,200 bytes,
//! which does not fit a datagram of 512 bytes: over UDP it is answered with the
//! truncation bit, so that a resolver comes again over TCP (RFC 1035, 4.2).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use super::host::{Host, RESOLVER_ADDRESS, Side};
use super::servers::{TcpServer, UdpServer};

/// The address of `host.test`.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const STRINGS: usize = 6;
const STRING: usize = 200;
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
            if whole.len() <= DATAGRAM {
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

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (question, name) = question(query)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let data = match (name.as_str(), kind) {
        ("host.test", 1) => Some(ADDRESS.octets().to_vec()),
        ("long.test", 16) => {
            let length = u8::try_from(STRING).ok()?;
            Some([&[length][..], &[b'x'; STRING]].concat().repeat(STRINGS))
        }
        ("host.test" | "long.test", _) => None,
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
