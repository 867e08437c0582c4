//! TCP: N1, N9, N12, N16, N19, N26, N27, N28, N34.

use std::net::SocketAddrV4;

use crate::frames::{
    ACK, ECHO, FAR, FIN, GUEST, Ip, NOBODY, PSH, RST, SYN, Segment, TCP, URG, fill_checksum,
};
use crate::{Case, Noise, Step};

const SERVER: SocketAddrV4 = SocketAddrV4::new(FAR, ECHO);
/// The first byte of a connection that was opened with [`Segment::syn`].
const FIRST: u32 = 1001;

fn open(port: u16) -> Step {
    Step::Open(Segment::syn(port, SERVER))
}

/// A segment behind the `sent` bytes that went before, which has seen nothing.
fn segment(port: u16, flags: u8, sent: u32) -> Segment {
    Segment::new(port, SERVER, flags, FIRST.wrapping_add(sent), 0)
}

fn on(port: u16, flags: u8, sent: u32, data: &[u8]) -> Step {
    Step::On(segment(port, flags, sent).with(data))
}

/// Ends a connection of which so much was sent.
fn reset(port: u16, sent: u32) -> Step {
    on(port, RST | ACK, sent, b"")
}

/// The urgent pointer anywhere, in order and not, without payload.
pub(crate) fn n01() -> Case {
    let mut steps = Vec::new();
    let data = Noise::new(1).bytes(28);
    let mut port = 1000;
    for urgent in [0, 1, 7, 8, 0xffff] {
        for flags in [URG | ACK, URG | ACK | PSH] {
            port += 1;
            steps.push(open(port));
            for range in [7..14, 0..0, 0..7, 21..28, 14..14, 14..21] {
                let sent = u32::try_from(range.start).unwrap();
                let mut segment = segment(port, flags, sent).with(&data[range]);
                segment.urgent = urgent;
                steps.push(Step::On(segment));
            }
            steps.push(reset(port, 28));
        }
    }
    Case {
        number: 1,
        name: "urgent pointers",
        steps,
    }
}

/// What makes other stacks emulate an application.
pub(crate) fn n09() -> Case {
    let mut steps = Vec::new();
    let data = b"PORT 10,0,2,100,7,138\r\n\x01DCC SEND f 167772772 1930\x01\r\n40000, 21\r\n";
    let len = u32::try_from(data.len()).unwrap();
    for (port, service) in (1100..).zip([21, 113, 514, 6667, 7070]) {
        let to = SocketAddrV4::new(FAR, service);
        steps.push(Step::Open(Segment::syn(port, to)));
        steps.push(Step::On(
            Segment::new(port, to, ACK | PSH, FIRST, 0).with(data),
        ));
        // Of an ident query not even half.
        steps.push(Step::On(
            Segment::new(port, to, ACK, FIRST + len, 0).with(b"4"),
        ));
        steps.push(Step::On(Segment::new(
            port,
            to,
            RST | ACK,
            FIRST + len + 1,
            0,
        )));
    }
    Case {
        number: 9,
        name: "ports of FTP, ident, shell, IRC and RealAudio",
        steps,
    }
}

/// Flows whose container ends its direction and falls silent.
pub fn half_closed(count: u16) -> Vec<Step> {
    let ports = 1200..1200 + count;
    ports
        .flat_map(|port| [open(port), on(port, FIN | ACK, 0, b"")])
        .collect()
}

/// Half-closed flows of a container that says nothing more.
pub(crate) fn n12() -> Case {
    Case {
        number: 12,
        name: "half-closed flows of a silent peer",
        steps: half_closed(200),
    }
}

/// Options of every kind and length, header lengths, scales, sizes, SACK blocks.
pub(crate) fn n16() -> Case {
    let live = 1500;
    let mut steps = vec![open(live)];
    let mut port = 2000;
    let mut syn = |steps: &mut Vec<Step>, options: Vec<u8>| {
        port += 1;
        let mut syn = Segment::syn(port, SERVER);
        syn.options = options;
        steps.push(Step::Frame(syn.frame()));
        // Its answer is not waited for.
        let flags = RST;
        steps.push(Step::Frame(
            Segment::new(port, SERVER, flags, FIRST, 0).frame(),
        ));
    };
    for kind in 0..=u8::MAX {
        for len in [0, 1, 2, 40, 255] {
            let options = vec![kind, len, 0xff, 0xff, 0xff, 0xff, kind, len];
            let mut ack = segment(live, ACK, 0);
            ack.options = options.clone();
            steps.push(Step::On(ack));
            syn(&mut steps, options);
        }
        // Window scale.
        syn(&mut steps, vec![2, 4, 5, 0xb4, 3, 3, kind, 0]);
    }
    for mss in [0, 1, 87, 65_535_u16] {
        let [a, b] = mss.to_be_bytes();
        syn(&mut steps, vec![2, 4, a, b]);
    }
    // Blocks whose edges wrap, cross, touch, or lie nowhere.
    for (left, right) in [(u32::MAX, 1), (1, u32::MAX), (7, 7), (9, 2), (0, 1 << 31)] {
        let mut ack = segment(live, ACK, 0);
        ack.options = vec![1, 1, 5, 10];
        ack.options.extend_from_slice(&u32::to_be_bytes(left));
        ack.options.extend_from_slice(&u32::to_be_bytes(right));
        steps.push(Step::On(ack));
    }
    for words in (0..5).chain([15]) {
        for flags in [SYN, ACK, RST] {
            let mut bytes = segment(1501, flags, 0).with(b"payload").segment();
            bytes[12] = words << 4;
            fill_checksum(&mut bytes, GUEST, FAR, TCP);
            steps.push(Step::Frame(Ip::new(FAR, TCP, bytes).frame()));
        }
    }
    steps.push(reset(live, 0));
    Case {
        number: 16,
        name: "TCP options and header lengths",
        steps,
    }
}

/// A thousand connections from one port: their sequence numbers are not to be guessed.
pub(crate) fn n19() -> Case {
    let steps = (0..1000).flat_map(|_| [open(1600), reset(1600, 0)]);
    Case {
        number: 19,
        name: "initial sequence numbers",
        steps: steps.collect(),
    }
}

/// SYNs to somebody who does not answer.
pub fn syn_flood(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|n| {
        let port = 1000 + u16::try_from(n % 19_000).unwrap();
        let to = SocketAddrV4::new(NOBODY, 80 + u16::try_from(n / 19_000 % 1000).unwrap());
        Segment::syn(port, to).frame()
    })
}

pub(crate) fn n26() -> Case {
    Case {
        number: 26,
        name: "SYN flood",
        steps: syn_flood(40_000).map(Step::Frame).collect(),
    }
}

/// Segments of all kinds with sequence numbers from nowhere, for an open connection.
pub(crate) fn n27() -> Case {
    let live = 1700;
    let mut steps = vec![open(live)];
    let mut noise = Noise::new(27);
    for _ in 0..1000 {
        let (seq, ack) = (noise.next(), noise.next());
        for flags in [SYN, SYN | ACK, ACK, FIN, RST, 0, SYN | FIN, SYN | RST, 0xff] {
            let blind = Segment::new(live, SERVER, flags, seq, ack);
            steps.push(Step::Frame(blind.frame()));
        }
    }
    steps.push(on(live, ACK | PSH, 0, b"still here"));
    steps.push(reset(live, 10));
    Case {
        number: 27,
        name: "blind segments",
        steps,
    }
}

/// Windows of 0, of 1, and that shrink, of a container that asks for more than fits.
pub(crate) fn n28() -> Case {
    let mut steps = Vec::new();
    let data = Noise::new(28).bytes(1400);
    for (port, windows) in (1800..).zip([&[0][..], &[1], &[1000, 0], &[2, 1, 0, 1, 0]]) {
        let mut syn = Segment::syn(port, SERVER);
        syn.window = windows[0];
        steps.push(Step::Open(syn));
        for n in 0..20 {
            let mut question = segment(port, ACK | PSH, n * 1400).with(&data);
            question.window = windows[0];
            steps.push(Step::On(question));
        }
        steps.push(Step::Pause(5));
        for &window in windows.iter().cycle().take(10) {
            let mut ack = segment(port, ACK, 20 * 1400);
            ack.window = window;
            steps.push(Step::On(ack));
        }
    }
    Case {
        number: 28,
        name: "shut, tiny and shrinking windows",
        steps,
    }
}

/// The ends of a connection: in both orders, with data, repeated, crossing, and resets
/// and worse in every state.
pub(crate) fn n34() -> Case {
    let mut steps = Vec::new();
    let mut port = 3000;
    for flags in [
        RST,
        RST | ACK,
        FIN | ACK,
        SYN | ACK,
        SYN,
        FIN | SYN | ACK,
        FIN | RST,
        0,
        URG,
    ] {
        for state in 0..5_u32 {
            port += 1;
            let mut sent = 0;
            match state {
                // Connecting: the answer is not waited for.
                0 => steps.push(Step::Frame(Segment::syn(port, SERVER).frame())),
                1 => steps.push(open(port)),
                // Data that comes back, not acknowledged.
                2 => {
                    steps.extend([open(port), on(port, ACK | PSH, 0, b"data")]);
                    sent = 4;
                }
                // Half-closed, with data and without.
                3 => {
                    steps.extend([open(port), on(port, FIN | ACK, 0, b"")]);
                    sent = 1;
                }
                _ => {
                    steps.extend([open(port), on(port, FIN | PSH | ACK, 0, b"last words")]);
                    sent = 11;
                }
            }
            let last = segment(port, flags, sent);
            if state == 0 {
                steps.extend([Step::Frame(last.frame()), Step::Frame(last.frame())]);
            } else {
                steps.extend([Step::On(last.clone()), Step::On(last), Step::Pause(2)]);
                // Ours again, then the end that everybody understands.
                steps.push(on(port, FIN | ACK, sent.saturating_sub(1), b""));
                steps.push(reset(port, sent));
            }
        }
    }
    Case {
        number: 34,
        name: "ends in every state",
        steps,
    }
}
