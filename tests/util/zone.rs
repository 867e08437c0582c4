//! A name server with names of the test's own, on the host's loopback resolver
//! address, that remembers what it was asked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::host::{Host, RESOLVER_ADDRESS, Side};
use super::servers::{TcpServer, UdpServer};

/// RFC 1035, 4.2.1.
const DATAGRAM: usize = 512;
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What a name has.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Address(IpAddr),
    Alias(&'static str),
}

type Records = Vec<(&'static str, Data)>;

/// The server, over both transports.
pub(crate) struct Zone {
    asked: Arc<Mutex<Vec<String>>>,
    _udp: UdpServer,
    _tcp: TcpServer,
}

impl Zone {
    pub(crate) fn start(host: &Host, records: Records) -> Self {
        let at = SocketAddr::new(RESOLVER_ADDRESS.into(), 53);
        let records = Arc::new(records);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let answer = {
            let (records, asked) = (Arc::clone(&records), Arc::clone(&asked));
            move |query: &[u8], most: usize| answer(query, &records, &asked, most)
        };
        let over_udp = answer.clone();
        Self {
            asked,
            _udp: UdpServer::start_at(host, Side::Host, at, move |query| over_udp(query, DATAGRAM)),
            _tcp: TcpServer::start_at(host, Side::Host, at, move |stream| serve(stream, &answer)),
        }
    }

    /// The names it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &impl Fn(&[u8], usize) -> Option<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let answer = answer(&query, usize::MAX).ok_or(io::ErrorKind::InvalidData)?;
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

fn answer(
    query: &[u8],
    records: &Records,
    asked: &Mutex<Vec<String>>,
    most: usize,
) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while query.get(at).is_some_and(|length| *length > 0) {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let question = query.get(12..at + 5)?;
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let mut name = labels.join(".");
    asked.lock().unwrap().push(name.clone());
    let known = records.iter().any(|(owner, _)| *owner == name);
    let mut found = Vec::new();
    loop {
        let own = || records.iter().filter(|(owner, _)| *owner == name);
        for (_, data) in own() {
            let (of, data) = match data {
                Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Data::Alias(alias) => (CNAME, wire(alias)),
            };
            if of == kind || of == CNAME {
                let mut record = wire(&name);
                record.extend([of, 1].map(u16::to_be_bytes).concat());
                record.extend(60_u32.to_be_bytes());
                record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
                record.extend(data);
                found.push(record);
            }
        }
        let alias = own().find_map(|(_, data)| match data {
            Data::Alias(alias) => Some((*alias).to_owned()),
            Data::Address(_) => None,
        });
        match alias {
            Some(alias) => name = alias,
            None => break,
        }
    }
    let size = 12 + question.len() + found.iter().map(Vec::len).sum::<usize>();
    let truncated = size > most;
    if truncated {
        found.clear();
    }
    // QR, RD and RA; plus TC, or the code of a name that does not exist.
    let flags = 0x8180_u16 | if truncated { 0x0200 } else { 0 } | if known { 0 } else { 3 };
    let mut message = query.get(..2)?.to_vec();
    for word in [flags, 1, u16::try_from(found.len()).unwrap(), 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(question);
    message.extend(found.concat());
    Some(message)
}
