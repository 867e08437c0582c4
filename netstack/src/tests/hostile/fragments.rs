//! Effects of N7, N8, N20 and N29.

use std::net::SocketAddrV4;

use hostile::{fragment, fragments};
use smoltcp::time::Duration;

use super::super::frames::{self, ACK, GATEWAY, GUEST, ICMP, Seen, Segment, TCP, UDP};
use super::super::guest::remote;
use super::super::world::{World, links, pattern};

/// Where fragments go.
const FAR_ECHO: SocketAddrV4 = SocketAddrV4::new(frames::FAR, frames::ECHO);

#[test]
fn n07_odd_fragments() {
    let mut w = World::plain();
    let data = pattern(7, 1400);
    for protocol in [UDP, TCP, ICMP, 0] {
        for (i, at) in [0, 1, 87, 174, 8191].into_iter().enumerate() {
            for len in [0, 1, 8, 440, 1400] {
                let ident = u16::try_from(i).unwrap();
                // The last first, twice, overlapping, and two that claim to be the last.
                w.send(&fragment(ident, protocol, at, at == 0, &data[..len]));
                w.send(&fragment(ident, protocol, at, at == 0, &data[..len]));
                w.send(&fragment(
                    ident,
                    protocol,
                    at.saturating_sub(1),
                    true,
                    &data[..len],
                ));
                w.send(&fragment(
                    ident,
                    protocol,
                    at.max(1),
                    false,
                    &data[..len / 2],
                ));
            }
        }
    }
    // The single frame that ends slirp4netns 1.2.0.
    w.send(&fragment(9, UDP, 87, false, &data[..440]));
    // Pieces of protocols that we know made no valid packet; those of the one that we
    // do not know, one that is whole.
    for seen in w.take() {
        assert!(
            matches!(seen, Seen::Unreachable { code: 2, .. }),
            "{seen:?}"
        );
    }
    assert!(w.stack.stats().fragments_dropped > 0);
    assert!(w.host.open.is_empty() && w.host.datagrams.is_empty());
    fragments_are_served(&mut w);
    w.assert_works();
}

#[test]
fn n08_huge_fragments() {
    let mut w = World::new(links()[1]);
    let data = pattern(8, 65_496);
    for at in [0, 1, 8187, 8191] {
        for more in [true, false] {
            if at != 0 || more {
                w.send(&fragment(1, UDP, at, more, &data));
            }
        }
    }
    assert_eq!(w.take(), []);
    assert!(w.host.open.is_empty());
    // Sums of 65,536 to 131,072.
    for len in [40, 48, 1480, 65_496] {
        w.send(&fragment(2, UDP, 0, true, &data));
        w.send(&fragment(2, UDP, 8187, false, &data[..len]));
    }
    assert_eq!(w.take(), []);
    assert!(w.host.open.is_empty());
    fragments_are_served(&mut w);
    w.assert_works();
}

/// Datagrams in fragments reach the host, and its answers the container.
fn fragments_are_served(w: &mut World) {
    let before = w.host.datagrams.len();
    for (n, (len, size)) in [(3000, 1480), (8000, 8), (60_000, 1480), (65_507, 65_504)]
        .into_iter()
        .enumerate()
    {
        let data = pattern(77, len);
        let mut frames = fragments(60_000 + u16::try_from(n).unwrap(), &data, size);
        frames.rotate_left(n % 2);
        for frame in frames {
            w.send(&frame);
        }
        let (flow, to, sent) = w.host.datagrams[before + n].clone();
        assert_eq!(sent, data);
        assert!(!w.host.fields.dont_fragment);
        w.datagram(flow, to, &data, 0);
        let answer = Seen::Udp {
            from: FAR_ECHO,
            to: SocketAddrV4::new(GUEST, 1234),
            payload: data,
        };
        assert_eq!(w.take(), [answer]);
    }
}

/// One datagram that is never complete, and 1,000 that are.
#[test]
fn n20_an_incomplete_datagram_is_in_nobodys_way() {
    let mut w = World::plain();
    let data = pattern(20, 4000);
    w.send(&fragments(0, &data, 1480)[0]);
    for ident in 1..=1000 {
        for frame in fragments(ident, &data, 1480) {
            w.send(&frame);
        }
    }
    assert_eq!(w.host.datagrams.len(), 1000);
    assert!(w.host.datagrams.iter().all(|sent| sent.2 == data));
    let stats = w.stack.stats();
    assert_eq!((stats.fragments_in, stats.reassembled), (3001, 1000));
    assert_eq!(w.take(), []);
    w.run(Duration::from_secs(31));
    assert_eq!(w.stack.stats().fragments_dropped, 1);
    match &w.take()[..] {
        [
            Seen::TimeExceeded {
                from: GATEWAY,
                code: 1,
                quote,
            },
        ] => {
            assert_eq!(quote[9], UDP);
        }
        other => panic!("{other:?}"),
    }
    w.assert_empties(Duration::from_secs(200));
}

/// A connection whose segments are fragmented works, in order with those that are not.
#[test]
fn fragments_of_a_connection() {
    let mut w = World::plain();
    let to = SocketAddrV4::new(frames::FAR, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let data = pattern(5, 3000);
    for (n, chunk) in data.chunks(1000).enumerate() {
        let seq = 1001 + u32::try_from(n * 1000).unwrap();
        let segment = Segment::new(1234, to, ACK, seq, isn + 1).with(chunk);
        if n == 1 {
            let bytes = segment.segment();
            w.send(&fragment(3, TCP, 65, false, &bytes[520..]));
            w.send(&fragment(3, TCP, 0, true, &bytes[..520]));
        } else {
            w.send(&segment.frame());
        }
    }
    assert_eq!(w.far_received(flow), data);
    w.assert_works();
}

/// N20: one fragment that is never completed holds up nothing.
#[test]
fn n20_incomplete_fragment() {
    let mut w = World::plain();
    w.send(&fragment(1, UDP, 0, true, &[0; 1400]));
    for i in 0..1000 {
        let before = w.host.datagrams.len();
        w.send(&frames::udp(1234, FAR_ECHO, &[1; 1000]));
        assert_eq!(w.host.datagrams.len(), before + 1, "{i}");
    }
    w.assert_works();
}

#[test]
fn n29_frames_longer_than_the_link() {
    let mut w = World::plain();
    let to = FAR_ECHO;
    let data = pattern(29, 65_000);
    w.send(&frames::udp(1234, to, &data));
    assert_eq!(w.host.datagrams[0].2, data);
    w.send(&frames::echo(GATEWAY, 1, 1, &data));
    let answer = Seen::EchoReply {
        from: GATEWAY,
        ident: 1,
        seq: 1,
        payload: data.clone(),
    };
    assert_eq!(w.take(), [answer], "in fragments");
    let (flow, isn) = w.open_by_hand(&Segment::syn(1235, remote(1, 80)));
    w.send(
        &Segment::new(1235, remote(1, 80), ACK, 1001, isn + 1)
            .with(&data[..60_000])
            .frame(),
    );
    assert_eq!(w.far_received(flow), &data[..60_000]);
    w.assert_works();
}

/// The rest of an ICMP error never comes, and no error is made of that (RFC 1122, 3.2.2);
/// of a request it is.
#[test]
fn no_error_about_an_error() {
    for (kind, told) in [(3, 0), (11, 0), (8, 1)] {
        let mut w = World::plain();
        let message = frames::icmp_message(kind, 0, [0; 4], &[0; 100]);
        w.send(&fragment(1, ICMP, 0, true, &message[..64]));
        w.run(Duration::from_secs(31));
        assert_eq!(w.stack.stats().fragments_dropped, 1);
        assert_eq!(w.take().len(), told, "{kind}");
    }
}
