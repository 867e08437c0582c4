//! What a packet costs inside of `netstack`, without any system call: the host
//! sockets and the link are memory.
//!
//! Each figure is one frame from the container or one event of a host socket,
//! with everything that the stack does about it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented items; a bench may stop at any error"
)]

use std::hint::black_box;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use netstack::{
    Close, Config, Duration, FlowId, Host, HostError, Instant, Io, IpFields, Limits, LinkConfig,
    Policy, Readiness, Stack,
};

const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const STACK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NOW: Instant = Instant::from_micros_const(1_000_000_000);

const OFFLOADS: LinkConfig = LinkConfig {
    mtu: 1500,
    vnet_header: true,
    tso: true,
    uso: true,
};
const PLAIN: LinkConfig = LinkConfig {
    mtu: 1500,
    vnet_header: false,
    tso: false,
    uso: false,
};

/// A host that takes everything and has as many bytes as it is told.
struct Memory {
    /// The headers of the frame sent last.
    frame: Vec<u8>,
    frames: u64,
    tcp: Option<FlowId>,
    udp: Option<FlowId>,
    to_receive: usize,
    sent: usize,
}

impl Memory {
    fn new() -> Self {
        Self {
            frame: Vec::with_capacity(256),
            frames: 0,
            tcp: None,
            udp: None,
            to_receive: 0,
            sent: 0,
        }
    }
}

impl Host for Memory {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        self.frames += 1;
        self.frame.clear();
        self.frame.extend_from_slice(&frame[0]);
        black_box(frame);
    }

    fn is_local(&mut self, _: IpAddr) -> bool {
        false
    }

    fn tcp_connect(&mut self, flow: FlowId, _: SocketAddr) -> Result<(), HostError> {
        self.tcp = Some(flow);
        Ok(())
    }

    fn tcp_send(&mut self, _: FlowId, data: &[IoSlice<'_>]) -> Io {
        let len = black_box(data).iter().map(|part| part.len()).sum();
        self.sent += len;
        Io::Done(len)
    }

    fn tcp_receive(&mut self, _: FlowId, buffer: &mut [u8]) -> Io {
        let n = self.to_receive.min(black_box(buffer).len());
        self.to_receive -= n;
        if n == 0 { Io::WouldBlock } else { Io::Done(n) }
    }

    fn tcp_shutdown(&mut self, _: FlowId) {}

    fn tcp_keepalive(&mut self, _: FlowId, _: Duration, _: Duration) {}

    fn udp_open(&mut self, flow: FlowId, _: IpAddr) -> Result<(), HostError> {
        self.udp = Some(flow);
        Ok(())
    }

    fn udp_send(
        &mut self,
        _: FlowId,
        _: SocketAddr,
        payload: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        self.sent += black_box(payload).len();
        Ok(())
    }

    fn echo_open(&mut self, _: FlowId, _: IpAddr) -> Result<(), HostError> {
        Ok(())
    }

    fn echo_send(
        &mut self,
        _: FlowId,
        _: IpAddr,
        _: u16,
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        Ok(())
    }

    fn close(&mut self, _: FlowId, _: Close) {}
}

fn stack(link: LinkConfig) -> Stack {
    let config = Config {
        container: CONTAINER,
        gateway: Ipv4Addr::new(10, 0, 2, 2),
        dns: Ipv4Addr::new(10, 0, 2, 3),
        prefix_len: 24,
        ipv6: None,
        mac: STACK_MAC,
        link,
        policy: Policy::default(),
        resolvers: Vec::new(),
        names: Vec::new(),
        limits: Limits {
            max_flows: 200_000,
            ..Limits::default()
        },
        seed: 1,
    };
    Stack::new(config)
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = parts
        .iter()
        .flat_map(|part| part.chunks(2))
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// A frame of the container: complete checksums on a plain link, the virtio
/// header of a kernel that leaves them undone on the other.
fn frame(link: LinkConfig, protocol: u8, to: Ipv4Addr, segment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let offset: u16 = if protocol == 6 { 16 } else { 6 };
    if link.vnet_header {
        let super_segment = protocol == 6 && segment.len() > 1480;
        bytes.extend_from_slice(&[1, u8::from(super_segment)]);
        bytes.extend_from_slice(&54_u16.to_ne_bytes());
        bytes.extend_from_slice(&1460_u16.to_ne_bytes());
        bytes.extend_from_slice(&34_u16.to_ne_bytes());
        bytes.extend_from_slice(&offset.to_ne_bytes());
    }
    bytes.extend_from_slice(&STACK_MAC);
    bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0x64, 8, 0]);
    let mut header = [
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[2..4].copy_from_slice(&u16::try_from(20 + segment.len()).unwrap().to_be_bytes());
    header[12..16].copy_from_slice(&CONTAINER.octets());
    header[16..].copy_from_slice(&to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(&header);
    let start = bytes.len();
    bytes.extend_from_slice(segment);
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&CONTAINER.octets());
    pseudo[4..8].copy_from_slice(&to.octets());
    pseudo[9] = protocol;
    pseudo[10..].copy_from_slice(&u16::try_from(segment.len()).unwrap().to_be_bytes());
    let sum = checksum(&[&pseudo, &bytes[start..]]);
    let at = start + usize::from(offset);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn tcp(flags: u8, seq: u32, ack: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + options.len() + payload.len());
    segment.extend_from_slice(&1234_u16.to_be_bytes());
    segment.extend_from_slice(&80_u16.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    segment.extend_from_slice(&[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(options);
    segment.extend_from_slice(payload);
    segment
}

fn udp(to_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(8 + payload.len());
    segment.extend_from_slice(&1234_u16.to_be_bytes());
    segment.extend_from_slice(&to_port.to_be_bytes());
    let length = u16::try_from(8 + payload.len()).unwrap();
    segment.extend_from_slice(&length.to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    segment
}

/// An open connection.
struct Connection {
    stack: Stack,
    host: Memory,
    link: LinkConfig,
    seq: u32,
    ack: u32,
}

impl Connection {
    fn open(link: LinkConfig) -> Self {
        let (mut stack, mut host) = (stack(link), Memory::new());
        // MSS 1460, window scale 10
        let options = [2, 4, 5, 0xb4, 3, 3, 10, 0];
        let syn = frame(link, 6, REMOTE, &tcp(2, 0, 0, &options, &[]));
        stack.input(NOW, &syn, &mut host);
        stack.connected(NOW, host.tcp.unwrap(), &mut host);
        let at = if link.vnet_header { 10 } else { 0 } + 14 + 20 + 4;
        let isn = u32::from_be_bytes(host.frame[at..at + 4].try_into().unwrap());
        let mut connection = Self {
            stack,
            host,
            link,
            seq: 1,
            ack: isn.wrapping_add(1),
        };
        connection.acknowledge();
        connection
    }

    fn segment(&self, payload: &[u8]) -> Vec<u8> {
        let segment = tcp(16, self.seq, self.ack, &[], payload);
        frame(self.link, 6, REMOTE, &segment)
    }

    fn acknowledge(&mut self) {
        let ack = self.segment(&[]);
        self.stack.input(NOW, &ack, &mut self.host);
    }
}

/// Sets the sequence number of a frame of the container and mends its checksum
/// (RFC 1624), so that one frame can be sent many times.
fn advance(frame: &mut [u8], link: LinkConfig, by: u32) {
    let segment = if link.vnet_header { 10 } else { 0 } + 34;
    let (seq, sum) = (segment + 4, segment + 16);
    let old = u32::from_be_bytes(frame[seq..seq + 4].try_into().unwrap());
    let new = old.wrapping_add(by);
    frame[seq..seq + 4].copy_from_slice(&new.to_be_bytes());
    let words = |value: u32| (value >> 16) + (value & 0xffff);
    let field = u32::from(u16::from_be_bytes([frame[sum], frame[sum + 1]]));
    let mut mended = (!field & 0xffff) + (words(!old)) + words(new);
    while mended > 0xffff {
        mended = words(mended);
    }
    let mended = !u16::try_from(mended).unwrap();
    frame[sum..sum + 2].copy_from_slice(&mended.to_be_bytes());
}

fn tcp_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("tcp_up");
    for (name, link, len) in [
        ("super_segment", OFFLOADS, 44 * 1460),
        ("segment_vnet", OFFLOADS, 1460),
        ("segment_plain", PLAIN, 1460),
    ] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new(name, len), |b| {
            let mut connection = Connection::open(link);
            let mut segment = connection.segment(&vec![7; len]);
            let by = u32::try_from(len).unwrap();
            let before = connection.host.sent;
            let mut rounds = 0;
            b.iter(|| {
                connection
                    .stack
                    .input(NOW, black_box(&segment), &mut connection.host);
                advance(&mut segment, link, by);
                rounds += 1;
            });
            assert_eq!(connection.host.sent - before, rounds * len);
        });
    }
    group.finish();
}

fn tcp_down(c: &mut Criterion) {
    let mut group = c.benchmark_group("tcp_down");
    let readable = Readiness {
        readable: true,
        ..Readiness::default()
    };
    for (name, link, len, frames) in [
        ("super_segment", OFFLOADS, 44 * 1460, 1),
        ("segment_vnet", OFFLOADS, 1460, 1),
        ("segment_plain", PLAIN, 1460, 1),
    ] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new(name, len), |b| {
            let mut connection = Connection::open(link);
            let flow = connection.host.tcp.unwrap();
            b.iter(|| {
                connection.host.to_receive = len;
                let before = connection.host.frames;
                connection
                    .stack
                    .ready(NOW, flow, readable, &mut connection.host);
                assert!(connection.host.frames - before >= frames);
                connection.ack = connection.ack.wrapping_add(u32::try_from(len).unwrap());
                connection.acknowledge();
            });
        });
    }
    group.finish();
}

fn udp_both_ways(c: &mut Criterion) {
    let mut group = c.benchmark_group("udp");
    let payload = [7; 1400];
    for (name, link) in [("vnet", OFFLOADS), ("plain", PLAIN)] {
        let (mut stack, mut host) = (stack(link), Memory::new());
        let datagram = frame(link, 17, REMOTE, &udp(7, &payload));
        group.bench_function(BenchmarkId::new("up", name), |b| {
            b.iter(|| stack.input(NOW, black_box(&datagram), &mut host));
        });
        let flow = host.udp.unwrap();
        let from = SocketAddr::V4(SocketAddrV4::new(REMOTE, 7));
        group.bench_function(BenchmarkId::new("down", name), |b| {
            b.iter(|| stack.datagram(NOW, flow, from, black_box(&payload), 0, &mut host));
        });
        let many = vec![7; 40 * 1400];
        group.bench_function(BenchmarkId::new("down_40_coalesced", name), |b| {
            b.iter(|| stack.datagram(NOW, flow, from, black_box(&many), 1400, &mut host));
        });
    }
    group.finish();
}

/// A datagram of one byte on one of many flows, each in turn.
fn demux(c: &mut Criterion) {
    let mut group = c.benchmark_group("demux");
    for flows in [1_u32, 1_000, 10_000, 100_000] {
        let (mut stack, mut host) = (stack(OFFLOADS), Memory::new());
        let frames: Vec<Vec<u8>> = (0..flows)
            .map(|n| {
                let to = Ipv4Addr::from(u32::from(REMOTE) + (n >> 12));
                frame(OFFLOADS, 17, to, &udp(1024 + (n & 0xfff) as u16, &[7]))
            })
            .collect();
        for datagram in &frames {
            stack.input(NOW, datagram, &mut host);
        }
        // Each flow, and the socket that they share.
        assert_eq!(stack.flow_count(), frames.len() + 1);
        // A stride that meets all of them, far from each other.
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(flows), |b| {
            b.iter(|| {
                at = (at + 7919) % frames.len();
                stack.input(NOW, black_box(&frames[at]), &mut host);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tcp_up, tcp_down, udp_both_ways, demux);
criterion_main!(benches);
