//! Connections: what a container's TCP would say, what it would not, and what the far end
//! and the host's kernel do.

use hostile::frames::{ACK, FIN, PSH, RST, SYN, TCP};
use netstack::{FlowId, HostError, Readiness};

use super::{ERRORS, Scene};
use crate::conn::Said;
use crate::source::Source;

const LENGTHS: [usize; 16] = [
    0, 0, 1, 1, 2, 7, 33, 100, 100, 10, 64, 20, 300, 535, 536, 1460,
];
const WINDOWS: [u16; 16] = [
    0, 1, 2, 100, 535, 536, 1460, 4096, 8192, 16_384, 32_768, 65_535, 65_535, 65_535, 65_535, 512,
];
const AWAY: [u32; 16] = [
    0,
    0,
    0,
    1,
    u32::MAX,
    2,
    100,
    0u32.wrapping_sub(100),
    1460,
    0u32.wrapping_sub(1460),
    16_384,
    65_535,
    1 << 20,
    0u32.wrapping_sub(1 << 20),
    1 << 31,
    3000,
];

/// The options of a SYN with this number: the same each time that it is sent.
fn syn_options(iss: u32, options: &mut Vec<u8>) -> (Option<u16>, Option<u8>) {
    options.clear();
    let mut mss = None;
    let mut scale = None;
    if iss & 3 != 0 {
        let value = [1460_u16, 536, 65_535, 1, 1460, 9000, 88, 1400][(iss >> 2 & 7) as usize];
        options.extend([2, 4]);
        options.extend(value.to_be_bytes());
        mss = Some(value);
    }
    if iss & 0x60 != 0 {
        let shift = [7_u8, 0, 14, 2, 7, 7, 3, 200][(iss >> 7 & 7) as usize];
        options.extend([1, 3, 3, shift]);
        scale = Some(shift);
    }
    if iss & 0x400 != 0 {
        options.extend([1, 1, 4, 2]);
    }
    (mss, scale)
}

impl Scene {
    fn conn_of(&mut self, source: &mut impl Source) -> usize {
        source.below(self.world.host.watch.conns.len())
    }

    /// Something to do with a connection.
    pub fn tcp(&mut self, source: &mut impl Source) {
        let place = self.conn_of(source);
        self.tcp_at(place, source);
    }

    /// Something to do with a connection to the DNS forwarder.
    pub fn dns_connection(&mut self, source: &mut impl Source) {
        let count = self.world.host.watch.conns.len();
        let place = count - 1 - source.below(2);
        self.tcp_at(place, source);
    }

    fn tcp_at(&mut self, place: usize, source: &mut impl Source) {
        let conn = &self.world.host.watch.conns[place];
        if conn.flow.is_none() && !source.one_in(4) {
            return self.open(place, source);
        }
        if !conn.open {
            if conn.listens && !source.one_in(8) {
                return self.answer(place, source);
            }
            if !source.one_in(4) {
                return self.host_opens(place, source);
            }
        }
        match source.below(16) {
            0..=3 => self.data(place, source),
            4..=6 => self.acknowledge(place, source),
            7 => self.odd(place, source),
            8 => self.odd_near(place, source),
            9 => match source.below(8) {
                0 | 1 => self.fin(place, source),
                2 => self.reset(place, source),
                3 => self.open(place, source),
                4 => self.batch(place, source),
                _ => self.odd_near(place, source),
            },
            10..=13 => self.far(place, source),
            14 => self.acknowledge(place, source),
            _ => self.kernel(place, source),
        }
    }

    /// Sends a segment as it is said, or with changes.
    fn segment(&mut self, place: usize, mut said: Said, options: &[u8], source: &mut impl Source) {
        self.make(place, &mut said, options, source);
        if source.one_in(32) {
            return self.send_mutated(source);
        }
        self.send(Some((place, said)));
    }

    fn make(&mut self, place: usize, said: &mut Said, options: &[u8], source: &mut impl Source) {
        let partial = self.partial(source);
        let conn = &self.world.host.watch.conns[place];
        let remote = conn.remote;
        let most = 65_535 - 60 - 40 - options.len();
        said.length = said.length.min(most);
        self.frame.ip(remote.ip(), TCP);
        self.frame.tcp(&conn.header(said), options);
        let payload = self.frame.room(said.length);
        if conn.opaque {
            payload.fill(0);
        } else {
            conn.up.put_from(said.seq, payload);
        }
        self.frame.finish(partial);
        if partial && said.length > 1460 {
            let kind = if remote.is_ipv4() { 1 } else { 4 };
            self.frame.super_segment(kind, 1460);
        }
    }

    /// The container connects, or a client does.
    fn open(&mut self, place: usize, source: &mut impl Source) {
        let conn = &self.world.host.watch.conns[place];
        if conn.listens {
            let (client, to) = (conn.remote, conn.container);
            self.world.host.watch.begin();
            let flow = self
                .world
                .stack
                .accept(self.world.now, client, to, &mut self.world.host);
            if let Some(flow) = flow {
                self.world.host.accepted(flow, client, place);
            }
            return self.world.call(|_, _, _| ());
        }
        let iss = if source.one_in(4) {
            0u32.wrapping_sub(source.byte().into())
        } else {
            source.u32()
        };
        let mut options = std::mem::take(&mut self.bytes);
        let (mss, scale) = syn_options(iss, &mut options);
        let said = Said {
            seq: iss,
            ack: 0,
            flags: SYN,
            window: source.pick(&WINDOWS),
            length: if source.one_in(16) { 10 } else { 0 },
            mss,
            scale,
        };
        self.segment(place, said, &options, source);
        self.bytes = options;
    }

    /// The container answers the stack's SYN.
    fn answer(&mut self, place: usize, source: &mut impl Source) {
        let conn = &self.world.host.watch.conns[place];
        let iss = source.u32();
        let mut options = std::mem::take(&mut self.bytes);
        let (mss, scale) = syn_options(iss, &mut options);
        let said = Said {
            seq: iss,
            ack: conn.irs.wrapping_add(1),
            flags: SYN | ACK,
            window: source.pick(&WINDOWS),
            length: 0,
            mss,
            scale,
        };
        self.segment(place, said, &options, source);
        self.bytes = options;
    }

    /// The host's side of a connection stands, or does not.
    fn host_opens(&mut self, place: usize, source: &mut impl Source) {
        let Some(flow) = self.world.host.watch.conns[place].flow else {
            return;
        };
        self.connects(flow, source);
    }

    fn connects(&mut self, flow: FlowId, source: &mut impl Source) {
        if !self.world.host.tcp(flow).is_some_and(|tcp| tcp.connecting) {
            return;
        }
        if source.one_in(8) {
            let error = source.pick(&ERRORS);
            self.world.host.failed(flow);
            return self
                .world
                .call(|stack, _, host| stack.connect_failed(flow, error, host));
        }
        if let Some(tcp) = self.world.host.tcp(flow) {
            tcp.connecting = false;
        }
        self.world
            .call(|stack, now, host| stack.connected(now, flow, host));
    }

    fn said(&self, place: usize, flags: u8, source: &mut impl Source) -> Said {
        let conn = &self.world.host.watch.conns[place];
        Said {
            seq: conn.next,
            ack: conn.heard(),
            flags: flags | ACK,
            window: source.pick(&WINDOWS),
            ..Said::default()
        }
    }

    fn moves(&mut self, place: usize, said: &Said) {
        let conn = &mut self.world.host.watch.conns[place];
        let fin = u32::from(said.flags & FIN != 0);
        if conn.finished {
            return;
        }
        conn.next = said.seq.wrapping_add(said.length as u32 + fin);
        conn.finished = fin == 1;
    }

    fn data(&mut self, place: usize, source: &mut impl Source) {
        let mut said = self.said(place, PSH, source);
        said.length = source.pick(&LENGTHS);
        if source.one_in(64) {
            said.length = source.below(40_000);
        }
        if !self.world.vnet {
            said.length = said.length.min(1460);
        }
        let conn = &self.world.host.watch.conns[place];
        if conn.opaque {
            return self.question(place, source);
        }
        if conn.finished {
            said.length = 0;
        }
        self.moves(place, &said);
        self.segment(place, said, &[], source);
    }

    fn acknowledge(&mut self, place: usize, source: &mut impl Source) {
        let said = self.said(place, 0, source);
        let mut options = [1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let with_sack = source.one_in(8);
        if with_sack {
            let left = said.ack.wrapping_sub(source.u16().into());
            let right = left.wrapping_add(source.u16().into());
            options[4..8].copy_from_slice(&left.to_be_bytes());
            options[8..].copy_from_slice(&right.to_be_bytes());
        }
        let mut said = said;
        if source.one_in(4) {
            // Not all of it yet.
            said.ack = said.ack.wrapping_sub(source.u16().into());
        }
        let options = if with_sack { &options[..] } else { &[] };
        self.segment(place, said, options, source);
    }

    fn fin(&mut self, place: usize, source: &mut impl Source) {
        let mut said = self.said(place, FIN, source);
        let conn = &self.world.host.watch.conns[place];
        if conn.opaque || conn.finished {
            // Again.
            said.seq = said.seq.wrapping_sub(u32::from(conn.finished));
        } else if source.one_in(2) {
            said.length = source.pick(&LENGTHS).min(1000);
        }
        self.moves(place, &said);
        self.segment(place, said, &[], source);
    }

    fn reset(&mut self, place: usize, source: &mut impl Source) {
        let mut said = self.said(place, RST, source);
        said.seq = said.seq.wrapping_add(source.pick(&AWAY[..8]));
        if source.one_in(4) {
            said.flags = RST;
        }
        self.segment(place, said, &[], source);
    }

    /// A segment from anywhere.
    fn odd(&mut self, place: usize, source: &mut impl Source) {
        let mut said = self.said(place, 0, source);
        let conn = &self.world.host.watch.conns[place];
        let base = source.pick(&[said.seq, conn.sent, conn.acknowledged, conn.iss]);
        said.seq = base.wrapping_add(source.pick(&AWAY));
        said.ack = said.ack.wrapping_add(source.pick(&AWAY));
        said.flags = source.byte();
        said.length = source.pick(&LENGTHS);
        if !self.world.vnet {
            said.length = said.length.min(1460);
        }
        self.segment(place, said, &[], source);
    }

    /// A segment that came out of order, again, or in part.
    fn odd_near(&mut self, place: usize, source: &mut impl Source) {
        let mut said = self.said(place, 0, source);
        let conn = &self.world.host.watch.conns[place];
        if conn.opaque {
            return;
        }
        let away = source.u16();
        said.seq = if source.one_in(2) {
            said.seq.wrapping_add(u32::from(away) % 6000)
        } else {
            conn.acknowledged.wrapping_sub(u32::from(away) % 300)
        };
        said.length = source.pick(&LENGTHS).min(1460);
        if source.one_in(16) {
            said.flags |= FIN;
        }
        self.segment(place, said, &[], source);
    }

    /// Segments that arrive together.
    fn batch(&mut self, place: usize, source: &mut impl Source) {
        let conn = &self.world.host.watch.conns[place];
        if conn.opaque || conn.finished || !conn.open {
            return;
        }
        let count = 2 + source.below(6);
        let mut frames = Vec::with_capacity(count);
        let vnet = self.world.vnet;
        for _ in 0..count {
            let mut said = self.said(place, PSH, source);
            said.length = source.pick(&LENGTHS).min(1460);
            self.moves(place, &said);
            self.make(place, &mut said, &[], source);
            self.world.host.watch.conns[place].says(&said);
            frames.push(self.frame.on(vnet).to_vec());
        }
        self.world.call(|stack, now, host| {
            stack.input_batch(now, frames.iter().map(Vec::as_slice), host);
        });
    }

    /// The far end of a connection does something.
    fn far(&mut self, place: usize, source: &mut impl Source) {
        let Some(flow) = self.world.host.watch.conns[place].flow else {
            return;
        };
        if self.world.host.watch.conns[place].opaque {
            return self.resolver_answers(flow, source);
        }
        let act = source.below(16);
        let amount = source.u16();
        let error = source.pick(&ERRORS);
        let ready = self.world.host.far(flow, |tcp| match act {
            0..=6 if !tcp.ended && tcp.error.is_none() => {
                let more = usize::from(amount) >> (act + 4);
                tcp.waiting = (tcp.waiting + more).min(1 << 18);
            }
            7 | 8 if !tcp.ended && tcp.error.is_none() => {
                let more = usize::from(amount) >> (amount & 15);
                tcp.waiting = (tcp.waiting + more).min(1 << 18);
            }
            9..=11 => tcp.room = (tcp.room + usize::from(amount)).min(1 << 18),
            12 => tcp.room = usize::from(amount % 64),
            13 if amount.is_multiple_of(2) => tcp.ended = true,
            14 if amount.is_multiple_of(8) => {
                tcp.error = Some(error);
                tcp.waiting = 0;
            }
            _ => {}
        });
        if let Some(ready) = ready {
            self.world.ready(flow, ready);
        }
    }

    /// What a kernel may tell at any time, needed or not.
    fn kernel(&mut self, place: usize, source: &mut impl Source) {
        let known = self.world.host.watch.conns[place].flow;
        let flow = known.unwrap_or(FlowId {
            index: source.byte().into(),
            generation: source.byte().into(),
        });
        let connecting = self.world.host.tcp(flow).map(|tcp| tcp.connecting);
        let open = connecting == Some(false);
        match source.below(8) {
            0..=3 => {
                let bits = source.byte();
                // An end of stream or a failure that was not told is none.
                let ready = Readiness {
                    readable: bits & 1 != 0,
                    writable: bits & 2 != 0,
                    read_closed: bits & 4 != 0,
                    failed: false,
                };
                if connecting != Some(true) {
                    self.world.ready(flow, ready);
                }
            }
            4 if known.is_some() => self.connects(flow, source),
            5 if (open || connecting.is_some()) && source.one_in(4) => {
                self.world.call(|stack, _, host| stack.abort(flow, host));
            }
            6 => self.any_socket(source),
            _ if connecting != Some(true) => {
                // Old news.
                self.world.call(|stack, now, host| {
                    stack.connected(now, flow, host);
                    stack.connect_failed(flow, HostError::Refused, host);
                });
            }
            _ => {}
        }
    }

    /// News of any socket: also of connections that nobody watches.
    fn any_socket(&mut self, source: &mut impl Source) {
        let open = self.world.host.open.len();
        if open == 0 {
            return;
        }
        let flow = self.world.host.open[source.below(open)];
        let connecting = self.world.host.tcp(flow).map(|tcp| tcp.connecting);
        match connecting {
            Some(true) => self.connects(flow, source),
            Some(false) => {
                let end = source.one_in(2);
                let ready = self.world.host.far(flow, |tcp| {
                    if end {
                        tcp.ended = true;
                    } else {
                        tcp.room += 1000;
                    }
                });
                if let Some(ready) = ready {
                    self.world.ready(flow, ready);
                }
            }
            None => {}
        }
    }
}
