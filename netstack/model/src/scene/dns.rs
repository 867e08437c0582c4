//! The DNS forwarder: queries and answers, over UDP and over TCP.

use hostile::frames::{ACK, DNS, DNS6, PSH, TCP, UDP};
use netstack::FlowId;

use super::{NAMES, RESOLVERS, Scene};
use crate::conn::Said;
use crate::source::Source;

const FIRST_PORT: u16 = 30_000;

const LABELS: [&[u8]; 12] = [
    b"a",
    b"b",
    b"example",
    b"c",
    b"x",
    b"A",
    b"EXAMPLE",
    b"in-addr",
    b"ip6",
    b"arpa",
    b"www",
    b"\x00\xff.",
];
const KINDS: [u16; 12] = [1, 28, 12, 5, 16, 33, 65, 255, 252, 41, 0, 0xffff];

/// A name in wire format, or something like one.
fn name(source: &mut impl Source, out: &mut Vec<u8>) {
    match source.below(8) {
        0 => {
            for label in source.pick(&NAMES).split('.') {
                out.push(label.len() as u8);
                out.extend_from_slice(label.as_bytes());
            }
            out.push(0);
        }
        1 => out.extend([0xc0, source.byte()]),
        2..=4 => {
            let first = source.pick(&[&b"a"[..], b"b", b"c", b"x"]);
            if source.one_in(4) {
                out.extend(b"\x03www");
            }
            out.push(1);
            out.extend_from_slice(first);
            out.extend_from_slice(b"\x07example\0");
        }
        _ => {
            for _ in 0..source.below(6) {
                let label = source.pick(&LABELS);
                out.push(label.len() as u8);
                out.extend_from_slice(label);
            }
            if source.one_in(8) {
                out.extend([63; 64]);
            }
            if source.one_in(8) {
                out.push(source.byte());
            }
            out.push(0);
        }
    }
}

fn message(source: &mut impl Source, out: &mut Vec<u8>) {
    out.clear();
    let bits = if source.one_in(8) {
        source.u16()
    } else {
        0x0001
    };
    let [a, b] = bits.to_le_bytes();
    out.extend([0, source.below(4) as u8, a, b, 0, 1, 0, 0, 0, 0, 0, 0]);
    if source.one_in(16) {
        out[5] = source.byte();
    }
    name(source, out);
    let kind = source.pick(&KINDS);
    out.extend(kind.to_be_bytes());
    out.extend([0, if source.one_in(16) { source.byte() } else { 1 }]);
    if source.one_in(4) {
        // EDNS (RFC 6891), with an option or what looks like one.
        out[11] = 1;
        out.extend([0, 0, 41, 16, 0, 0, 0, 0, 0]);
        let length = source.below(12);
        out.extend([0, length as u8]);
        out.extend((0..length).map(|_| source.byte()));
    }
    if source.one_in(16) {
        let length = source.below(out.len() + 1);
        out.truncate(length);
    }
    if source.one_in(32) {
        out.resize(source.below(5000), 0);
    }
}

fn answer(source: &mut impl Source, query: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(query);
    if out.len() < 12 {
        return;
    }
    out[2] |= 0x80;
    out[3] = 0x80 | source.pick(&[0_u8, 0, 0, 0, 0, 2, 3, 4, 5, 15]);
    for section in [7, 9, 11] {
        out[section] = 0;
    }
    for _ in 0..source.below(5) {
        out[7] = out[7].wrapping_add(1);
        if source.one_in(4) {
            name(source, out);
        } else {
            out.extend([0xc0, 12]);
        }
        let kind = source.pick(&[1_u16, 28, 5, 1, 65, 39]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, source.byte(), source.byte()]);
        let data = match kind {
            1 => 4,
            28 => 16,
            _ => source.below(40),
        };
        let data = if source.one_in(16) {
            source.below(300)
        } else {
            data
        };
        out.extend((data as u16).to_be_bytes());
        let start = out.len();
        out.resize(start + data, source.byte());
        if kind == 1 && data == 4 {
            out[start..].copy_from_slice(&[198, 51, 100, source.byte()]);
        }
    }
    for _ in 0..source.below(3) {
        let at = source.below(out.len());
        out[at] = source.byte();
    }
    if source.one_in(16) {
        let length = source.below(out.len() + 1);
        out.truncate(length);
    }
}

impl Scene {
    /// A query over UDP.
    pub fn dns(&mut self, source: &mut impl Source) {
        if source.one_in(2) {
            return self.dns_answer(source);
        }
        let mut query = std::mem::take(&mut self.bytes);
        message(source, &mut query);
        let port = FIRST_PORT + source.below(self.ports) as u16;
        let to = if source.one_in(2) {
            DNS6.into()
        } else {
            DNS.into()
        };
        let partial = self.partial(source);
        self.frame.ip(to, UDP);
        self.frame.udp(port, 53, query.len());
        self.frame.push(&query);
        self.frame.finish(partial);
        self.bytes = query;
        if source.one_in(16) {
            self.send_mutated(source);
        } else {
            self.send(None);
        }
    }

    /// A resolver answers, or somebody else does.
    fn dns_answer(&mut self, source: &mut impl Source) {
        let known = self.world.host.queries.len();
        if known == 0 {
            return;
        }
        let place = source.below(known);
        let (flow, server, query) = self.world.host.queries[place].clone();
        let from = if source.one_in(16) {
            source.pick(&RESOLVERS).parse().unwrap()
        } else {
            server
        };
        if source.one_in(8) {
            let failure = netstack::Failure {
                error: source.pick(&super::ERRORS),
                from: None,
            };
            return self.world.call(|stack, now, host| {
                stack.datagram_failed(now, flow, from, failure, host);
            });
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        answer(source, &query, &mut bytes);
        let segment = if source.one_in(16) { source.u16() } else { 0 };
        self.world.call(|stack, now, host| {
            stack.datagram(now, flow, from, &bytes, segment, host);
        });
        self.bytes = bytes;
    }

    /// A query over a connection to the forwarder, in one piece or in several.
    pub(super) fn question(&mut self, place: usize, source: &mut impl Source) {
        let mut query = std::mem::take(&mut self.bytes);
        message(source, &mut query);
        let length = if source.one_in(16) {
            source.u16()
        } else {
            query.len() as u16
        };
        query.splice(0..0, length.to_be_bytes());
        let cut = if source.one_in(4) {
            source.below(query.len())
        } else {
            0
        };
        let (first, second) = query.split_at(cut);
        for piece in [first, second] {
            if piece.is_empty() {
                continue;
            }
            let conn = &self.world.host.watch.conns[place];
            if conn.finished {
                break;
            }
            let said = Said {
                seq: conn.next,
                ack: conn.heard(),
                flags: ACK | PSH,
                window: 65_535,
                length: piece.len(),
                ..Said::default()
            };
            self.frame.ip(conn.remote.ip(), TCP);
            self.frame.tcp(&conn.header(&said), &[]);
            self.frame.push(piece);
            self.frame.finish(false);
            let conn = &mut self.world.host.watch.conns[place];
            conn.next = said.seq.wrapping_add(piece.len() as u32);
            self.send(Some((place, said)));
        }
        self.bytes = query;
    }

    /// The resolver at the other end of a connection has something to say.
    pub(super) fn resolver_answers(&mut self, flow: FlowId, source: &mut impl Source) {
        let mut reply = std::mem::take(&mut self.bytes);
        let Some(tcp) = self.world.host.tcp(flow) else {
            return;
        };
        let asked = std::mem::take(&mut tcp.asked);
        let query = asked.get(2..).unwrap_or_default();
        let query = &query[..query.len().min(512)];
        answer(source, query, &mut reply);
        let length = if source.one_in(16) {
            source.u16()
        } else {
            reply.len() as u16
        };
        let end = source.one_in(16);
        let room = usize::from(source.u16());
        let ready = self.world.host.far(flow, |tcp| {
            if !tcp.ended && tcp.error.is_none() && tcp.answers.len() < 1 << 16 {
                tcp.answers.extend(length.to_be_bytes());
                tcp.answers.extend(&reply);
                tcp.waiting = tcp.answers.len();
                tcp.ended = end;
            }
            tcp.room = (tcp.room + room).min(1 << 16);
        });
        self.bytes = reply;
        if let Some(ready) = ready {
            self.world.ready(flow, ready);
        }
    }
}
