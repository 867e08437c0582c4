//! UDP, fragments, echo and the errors of ICMP, DHCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hostile::frames::{DNS, DNS6, GATEWAY, GATEWAY6, GUEST, GUEST6, ICMP, TCP, UDP};
use netstack::Failure;

use super::{ERRORS, Scene};
use crate::frame::{Frame, ICMPV6};
use crate::source::Source;
use crate::stream::Stream;

/// First port of the container that datagrams come from.
const FIRST_PORT: u16 = 20_000;
const LENGTHS: [usize; 16] = [
    0, 1, 2, 8, 20, 64, 100, 100, 30, 12, 40, 512, 1472, 1473, 4000, 30_000,
];

fn far(n: usize, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, n as u16 + 1).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n as u8 + 1).into()
    }
}

/// Our own addresses, groups, and what else is not far away.
fn near(source: &mut impl Source, v6: bool) -> IpAddr {
    if v6 {
        source
            .pick(&[
                GATEWAY6,
                DNS6,
                GUEST6,
                Ipv6Addr::LOCALHOST,
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
            ])
            .into()
    } else {
        source
            .pick(&[
                GATEWAY,
                DNS,
                GUEST,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(224, 0, 0, 1),
                Ipv4Addr::new(10, 0, 2, 255),
            ])
            .into()
    }
}

impl Scene {
    fn any_far(&mut self, source: &mut impl Source) -> IpAddr {
        let v6 = source.one_in(2);
        if source.one_in(16) {
            near(source, v6)
        } else {
            far(source.below(16), v6)
        }
    }

    /// A datagram of the container.
    pub fn udp(&mut self, source: &mut impl Source) {
        let to = self.any_far(source);
        let port = FIRST_PORT + source.below(self.ports) as u16;
        let remote = source.pick(&[7_u16, 7, 7, 123, 443, 69, 0, 1]);
        let mut length = source.pick(&LENGTHS);
        if !self.world.vnet {
            length = length.min(1472);
        }
        let partial = self.partial(source);
        let stream = Stream(u32::from(port) * 16);
        self.frame.ip(to, UDP);
        self.frame.udp(port, remote, length);
        self.frame
            .room(length)
            .copy_from_slice(stream.at(0, length));
        self.frame.finish(partial);
        if source.one_in(32) {
            return self.send_mutated(source);
        }
        if partial && length > 1 && source.one_in(2) {
            let size = source.pick(&[1_u16, 100, 512, 1200, 1472]);
            self.frame.super_segment(5, size);
        }
        self.world.host.expected = Some(stream.at(0, length));
        self.send(None);
        self.world.host.expected = None;
    }

    /// Something comes for a UDP socket.
    pub fn udp_answer(&mut self, source: &mut impl Source) {
        if source.one_in(32) {
            return self.publish(source);
        }
        let known = self.world.host.datagrams.len();
        let published = self.published.len();
        let (flow, mut from) = if published > 0 && source.one_in(4) {
            let client = far(source.below(16), source.one_in(2));
            let flow = self.published[source.below(published)];
            (flow, SocketAddr::new(client, 4000))
        } else if known > 0 {
            self.world.host.datagrams[source.below(known)]
        } else {
            return;
        };
        if source.one_in(16) {
            from.set_port(source.u16());
        }
        if source.one_in(8) {
            let error = source.pick(&ERRORS);
            let router = far(source.below(16), from.is_ipv6());
            let failure = Failure {
                error,
                from: source.one_in(2).then_some(router),
            };
            return self.world.call(|stack, now, host| {
                stack.datagram_failed(now, flow, from, failure, host);
            });
        }
        let mut length = source.pick(&LENGTHS);
        if source.one_in(128) {
            // The longest that there is.
            length = if from.is_ipv4() { 65_507 } else { 65_527 };
        }
        let segment = if source.one_in(4) {
            source.pick(&[1_u16, 100, 512, 1200, 1472, 9000])
        } else {
            0
        };
        // As many as a kernel puts together (UDP_MAX_SEGMENTS).
        let length = match segment {
            0 => length,
            size => length.min(128 * usize::from(size)).max(1),
        };
        let payload = Stream(9).at(0, length);
        self.world.host.watch.keep = true;
        self.world.host.watch.datagrams.clear();
        self.world.call(|stack, now, host| {
            stack.datagram(now, flow, from, payload, segment, host);
        });
        self.world.host.watch.keep = false;
        let got = &self.world.host.watch.datagrams;
        // A super-segment may lose pieces; as one it may be refused.
        assert!(
            got.is_empty() || got == payload,
            "{} bytes of {length} in segments of {segment}",
            got.len()
        );
    }

    /// A UDP port is published, or no longer.
    fn publish(&mut self, source: &mut impl Source) {
        if self.published.len() > 3 {
            let flow = self.published.swap_remove(0);
            return self
                .world
                .call(|stack, _, host| stack.unpublish_udp(flow, host));
        }
        let port = FIRST_PORT + source.below(self.ports) as u16;
        let to: IpAddr = if source.one_in(2) {
            GUEST6.into()
        } else {
            GUEST.into()
        };
        if let Some(flow) = self.world.stack.publish_udp((to, port).into()) {
            self.world.host.bound(flow);
            self.published.push(flow);
        }
        self.world.call(|_, _, _| ());
    }

    /// Pieces of a datagram, in some order, whole or not.
    pub fn fragments(&mut self, source: &mut impl Source) {
        let v6 = source.one_in(2);
        let to = if source.one_in(4) {
            near(source, v6)
        } else {
            far(source.below(4), v6)
        };
        let protocol = source.pick(&[UDP, UDP, UDP, if v6 { ICMPV6 } else { ICMP }, TCP]);
        let length = match source.below(8) {
            0 => source.below(64),
            7 => usize::from(source.u16()).min(65_000),
            _ => source.below(4000),
        };
        // The whole, to be cut.
        let mut whole = Frame::default();
        whole.ip(to, protocol);
        let port = FIRST_PORT + source.below(self.ports) as u16;
        match protocol {
            UDP => whole.udp(port, source.pick(&[7, 53, 67]), length),
            TCP => whole.udp(port, 80, length),
            _ => whole.push(&[if v6 { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, source.byte()]),
        }
        whole.room(length).copy_from_slice(Stream(3).at(0, length));
        whole.finish(false);
        let header = if v6 { 54 } else { 34 };
        let data = whole.on(false)[header..].to_vec();
        let size = source.pick(&[8_usize, 16, 512, 1448, 1480, 8000]);
        let size = size.max(data.len() / 40 / 8 * 8);
        let count = data.len().div_ceil(size);
        let ident = source.below(8) as u16;
        let (turned, odd) = (source.one_in(2), source.one_in(4));
        for n in 0..count {
            let n = if turned { count - 1 - n } else { n };
            if odd && source.one_in(8) {
                continue;
            }
            let mut at = n * size;
            let mut more = n + 1 < count;
            let mut piece = &data[at..(at + size).min(data.len())];
            if odd {
                match source.below(16) {
                    0 => at += 8,
                    1 => at = at.saturating_sub(8),
                    2 => more = !more,
                    3 => piece = &piece[..source.below(piece.len() + 1)],
                    4 => at = source.u16().into(),
                    _ => {}
                }
            }
            self.piece(to, protocol, ident, at, more, piece);
            if odd && source.one_in(16) {
                self.send_mutated(source);
            } else {
                self.send(None);
            }
        }
    }

    fn piece(&mut self, to: IpAddr, protocol: u8, ident: u16, at: usize, more: bool, piece: &[u8]) {
        let units = (at / 8) as u16 & 0x1fff;
        if to.is_ipv4() {
            self.frame.ip(to, protocol);
            self.frame.push(piece);
            let packet = self.frame.packet();
            let place = crate::frame::IP;
            packet[place + 4..place + 6].copy_from_slice(&ident.to_be_bytes());
            let field = units | if more { 0x2000 } else { 0 };
            packet[place + 6..place + 8].copy_from_slice(&field.to_be_bytes());
        } else {
            self.frame.ip(to, 44);
            let [a, b] = (units << 3 | u16::from(more)).to_be_bytes();
            let [c, d] = ident.to_be_bytes();
            self.frame.push(&[protocol, 0, a, b, 0, 0, c, d]);
            self.frame.push(piece);
        }
        self.frame.lengths();
    }

    /// Echo requests and replies, errors, neighbours.
    pub fn icmp(&mut self, source: &mut impl Source) {
        match source.below(8) {
            0..=2 => self.echo(source),
            3 | 4 => self.echo_answer(source),
            5 | 6 => self.icmp_error(source),
            _ => self.neighbours(source),
        }
    }

    fn echo(&mut self, source: &mut impl Source) {
        let v6 = source.one_in(2);
        let to = if source.one_in(4) {
            near(source, v6)
        } else {
            far(source.below(4), v6)
        };
        let mut length = source.pick(&LENGTHS);
        if !self.world.vnet {
            length = length.min(1472);
        }
        let (protocol, kind) = if v6 { (ICMPV6, 128) } else { (ICMP, 8) };
        self.frame.ip(to, protocol);
        let ident = source.below(8) as u8;
        self.frame
            .push(&[kind, 0, 0, 0, 0, ident, 0, source.byte()]);
        self.frame
            .room(length)
            .copy_from_slice(Stream(4).at(0, length));
        self.frame.finish(false);
        if source.one_in(16) {
            self.send_mutated(source);
        } else {
            self.send(None);
        }
    }

    fn echo_answer(&mut self, source: &mut impl Source) {
        let known = self.world.host.echoes.len();
        if known == 0 {
            return;
        }
        let (flow, mut seq) = self.world.host.echoes[source.below(known)];
        if source.one_in(8) {
            seq = source.u16();
        }
        if source.one_in(4) {
            let error = source.pick(&ERRORS);
            let from = far(source.below(16), source.one_in(2));
            let failure = Failure {
                error,
                from: source.one_in(2).then_some(from),
            };
            return self
                .world
                .call(|stack, _, host| stack.echo_failed(flow, seq, failure, host));
        }
        let payload = Stream(4).at(0, source.pick(&LENGTHS));
        self.world
            .call(|stack, now, host| stack.echo_reply(now, flow, seq, payload, host));
    }

    /// The container complains about a packet, one of ours or not.
    fn icmp_error(&mut self, source: &mut impl Source) {
        let v6 = source.one_in(2);
        let known = self.world.host.datagrams.len();
        let remote = match known {
            0 => SocketAddr::new(far(0, v6), 7),
            known => self.world.host.datagrams[source.below(known)].1,
        };
        let v6 = if source.one_in(8) {
            v6
        } else {
            remote.is_ipv6()
        };
        let port = FIRST_PORT + source.below(self.ports) as u16;
        let protocol = source.pick(&[UDP, UDP, UDP, TCP, ICMP, ICMPV6, 0, 44]);
        let mut inner = Frame::default();
        match (remote.ip(), source.one_in(8)) {
            (IpAddr::V4(from), false) => inner.v4(from, GUEST, protocol),
            (IpAddr::V6(from), false) => inner.v6(from, GUEST6, protocol),
            // The other way round.
            (to, true) => inner.ip(to, protocol),
        }
        inner.udp(remote.port(), port, 40);
        inner.room(40);
        inner.finish(false);
        let quote = &inner.on(false)[14..];
        let quote = &quote[..quote
            .len()
            .min(source.pick(&[8, 19, 20, 24, 28, 40, 44, 48, 88]))];
        let to = if source.one_in(2) {
            near(source, v6)
        } else {
            far(1, v6)
        };
        let (protocol, kind, code) = if v6 {
            (ICMPV6, source.pick(&[1_u8, 1, 2, 3, 4, 137]), 4)
        } else {
            (ICMP, source.pick(&[3_u8, 3, 3, 4, 5, 11, 12]), 3)
        };
        let code = if source.one_in(4) {
            source.byte()
        } else {
            code
        };
        self.frame.ip(to, protocol);
        self.frame
            .push(&[kind, code, 0, 0, 0, 0, source.byte(), source.byte()]);
        self.frame.push(quote);
        self.frame.finish(false);
        if source.one_in(4) {
            self.send_mutated(source);
        } else {
            self.send(None);
        }
    }

    /// Messages of DHCP, v4 and v6: valid to begin with, options of all kinds.
    pub fn dhcp(&mut self, source: &mut impl Source) {
        if source.one_in(2) {
            return self.dhcp6(source);
        }
        let mut options = Vec::new();
        if !source.one_in(8) {
            options.extend([53, 1, source.pick(&[1_u8, 3, 1, 3, 7, 8, 4, 0])]);
        }
        for _ in 0..source.below(12) {
            let code = source.pick(&[50_u8, 51, 54, 55, 57, 61, 52, 0, 255, 12, 82, 119]);
            match source.below(4) {
                0 => options.extend([source.byte(), source.byte()]),
                1 => options.push(code),
                2 => {
                    let address = source.pick(&[GUEST, GATEWAY, Ipv4Addr::UNSPECIFIED]);
                    options.extend([code, 4]);
                    options.extend(address.octets());
                }
                _ => {
                    let length = source.below(24);
                    options.extend([code, length as u8]);
                    options.extend((0..length).map(|_| source.byte()));
                }
            }
        }
        options.push(255);
        let mut message = hostile::dhcp(&options);
        for _ in 0..source.below(4) {
            let at = source.below(message.len());
            message[at] = source.byte();
        }
        if source.one_in(8) {
            message.truncate(source.below(300));
        }
        let from = source.pick(&[Ipv4Addr::UNSPECIFIED, GUEST, GUEST, GATEWAY]);
        let to = source.pick(&[Ipv4Addr::BROADCAST, GATEWAY, GATEWAY, DNS]);
        self.frame.v4(from, to, UDP);
        if to.is_broadcast() {
            self.frame.packet()[crate::frame::VNET..][..6].fill(0xff);
        }
        self.frame.udp(68, 67, message.len());
        self.frame.push(&message);
        self.frame.finish(false);
        self.send(None);
    }

    fn dhcp6(&mut self, source: &mut impl Source) {
        let kind = source.pick(&[1_u8, 3, 4, 5, 6, 8, 9, 11, 12, 13, 2, 0]);
        let mut message = vec![kind, 1, 2, 3];
        if kind == 12 || kind == 13 {
            message.extend([0; 30]);
        }
        if !source.one_in(8) {
            message.extend([0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 0x64]);
        }
        let duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..source.below(10) {
            let code = source.pick(&[1_u8, 2, 3, 4, 5, 6, 8, 13, 14, 23, 24, 25, 39]);
            match source.below(4) {
                0 => {
                    message.extend([0, 2, 0, 10]);
                    message.extend(duid);
                }
                1 => {
                    message.extend([0, 3, 0, 40, 0, 0, 0, source.byte(), 0, 0, 0, 0, 0, 0, 0, 0]);
                    message.extend([0, 5, 0, 24]);
                    message.extend(source.pick(&[GUEST6, GATEWAY6]).octets());
                    message.extend([0, 0, 0, 9, 0, 0, 0, 9]);
                }
                2 => message.extend([source.byte(), code, source.byte(), source.byte()]),
                _ => {
                    let length = source.below(40);
                    message.extend([0, code, 0, length as u8]);
                    message.extend((0..length).map(|_| source.byte()));
                }
            }
        }
        if source.one_in(8) {
            message.truncate(source.below(80));
        }
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x64);
        let from = source.pick(&[link_local, link_local, GUEST6, Ipv6Addr::UNSPECIFIED]);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
        let to = source.pick(&[group, group, GATEWAY6, GUEST6]);
        self.frame.v6(from, to, UDP);
        if to.is_multicast() {
            self.frame.packet()[crate::frame::VNET..][..6]
                .copy_from_slice(&[0x33, 0x33, 0, 1, 0, 2]);
        }
        self.frame.udp(546, 547, message.len());
        self.frame.push(&message);
        self.frame.finish(false);
        self.send(None);
    }
}
