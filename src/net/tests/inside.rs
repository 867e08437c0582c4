//! What runs in namespaces of its own.
//!
//! ```text
//! streams -- lo -- Driver -- socketpair -- BadLink -- tap0 -- kernel TCP -- streams
//! '------ this network namespace ------------------'  '-- the container's ------'
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use netstack::LinkConfig;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::bad_link::{BadLink, Count, Weather};
use super::streams;
use crate::config::BuiltinNetwork;
use crate::net::driver::Driver;
use crate::net::link::{NAME, Receiver, Sender, tap};
use crate::net::namespace::{GATEWAY_MAC, set_up};
use crate::sys::tun;
use crate::testing::{report, scratch, skip};

/// What the streams are in all, both directions, unless `CRUN_LITE_LOSSY_MIB`
/// says otherwise.
const MIB: u64 = 64;
const CONNECTIONS: u64 = 8;
/// Bytes asked for between the driver and the bad link, each way.
const QUEUE: usize = 4 << 20;

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

/// A network namespace with a TAP, kept by a shell that ends with its input.
struct Container(Child);

impl Container {
    fn new(network: &BuiltinNetwork, vnet_header: bool) -> Self {
        let more = format!(
            "ip addr add {address}/{prefix} dev {tap}
             ip route add default via {gateway}
             ip neigh replace {gateway} lladdr {mac} dev {tap} nud permanent",
            tap = NAME,
            address = network.container(),
            prefix = network.prefix_len,
            gateway = network.gateway(),
            mac = gateway_mac(),
        );
        Self::with_tap(network, vnet_header, &more)
    }

    /// A kernel's TCP where the driver would be.
    fn gateway(network: &BuiltinNetwork, vnet_header: bool) -> Self {
        let more = format!(
            "ip link set {tap} address {mac}
             ip addr add {address}/{prefix} dev {tap}",
            tap = NAME,
            mac = gateway_mac(),
            address = network.gateway(),
            prefix = network.prefix_len,
        );
        Self::with_tap(network, vnet_header, &more)
    }

    fn with_tap(network: &BuiltinNetwork, vnet_header: bool, more: &str) -> Self {
        let script = format!(
            "ip link set lo up
             ip tuntap add dev {tap} mode tap {header}
             ip link set {tap} mtu {mtu} txqueuelen 1000 up
             {more}
             echo ready
             exec cat >/dev/null",
            tap = NAME,
            header = if vnet_header { "vnet_hdr" } else { "" },
            mtu = network.mtu,
        );
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "its stderr is with the test's");
        Self(child)
    }

    /// Calls a function whose sockets belong to it.
    fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        // Its number in /proc is another one.
        let pidfd = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::NETWORK).unwrap();
                make()
            });
            thread.join().unwrap()
        })
    }

    /// The TAP's queue, and what it can do.
    fn attach(&self, network: &BuiltinNetwork, vnet_header: bool) -> (OwnedFd, LinkConfig) {
        self.inside(|| {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let queue = open("/dev/net/tun", flags, Mode::empty()).unwrap();
            tun::attach_tap(&queue, NAME, vnet_header).unwrap();
            let link = tap::configure(&queue, network.mtu).unwrap();
            assert_eq!(link.vnet_header, vnet_header);
            (queue, link)
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn gateway_mac() -> String {
    GATEWAY_MAC.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs a driver until its link is closed.
fn drive(link: OwnedFd, config: LinkConfig, network: &BuiltinNetwork) {
    let mut poll = Poll::new().unwrap();
    let link = (config, Receiver::reading(), Sender::new(link));
    let mut driver = Driver::on_link(link, network, Vec::new(), poll.registry(), 0).unwrap();
    let mut events = Events::with_capacity(256);
    loop {
        let polled = poll.poll(&mut events, driver.timeout());
        driver.begin_turn();
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("poll: {error}"),
        }
        for event in &events {
            driver.ready(event);
        }
        if driver.turn().is_err() {
            return;
        }
    }
}

/// What all tests of this file begin with: the bytes to move, and a seed.
/// `None` where the user may not open the TAP's device.
fn begin() -> Option<(u64, u64)> {
    scratch();
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    if tun.is_err() {
        skip("this user may not open /dev/net/tun");
        return None;
    }
    let total = from_env("CRUN_LITE_LOSSY_MIB").unwrap_or(MIB) << 20;
    let seed = from_env("CRUN_LITE_LOSSY_SEED").unwrap_or_else(|| fastrand::u64(..));
    report(&format!("CRUN_LITE_LOSSY_SEED={seed}"));
    set_up(None).unwrap();
    Some((total, seed))
}

fn report_counts(counts: [Count; 2]) {
    for (way, count) in ["down", "up"].iter().zip(counts) {
        report(&format!("{way}: {count:?}"));
    }
}

fn run(mtu: u16, vnet_header: bool, weather: Weather) {
    let Some((total, seed)) = begin() else { return };
    let network = BuiltinNetwork {
        mtu,
        allow_host_loopback: true,
        ..BuiltinNetwork::default()
    };
    let container = Container::new(&network, vnet_header);
    let (tap, config) = container.attach(&network, vnet_header);
    let (near, far) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    for end in [&near, &far] {
        sockopt::set_socket_send_buffer_size(end, QUEUE).unwrap();
    }
    let link = BadLink::start(&far, &tap, weather, seed);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::from((network.gateway(), listener.local_addr().unwrap().port()));
    let each = total / CONNECTIONS;
    let begin = Instant::now();
    let failed = thread::scope(|scope| {
        let network = &network;
        let driver = scope.spawn(move || drive(near, config, network));
        let server = scope.spawn(|| streams::serve(&listener, CONNECTIONS, each));
        let mut failed = container.inside(|| streams::connect(to, CONNECTIONS, each));
        failed.extend(server.join().unwrap());
        let took = begin.elapsed();
        let counts = link.end();
        // The last descriptor of the pair's far end: the driver's link ends.
        drop(far);
        driver.join().unwrap();
        report_counts(counts);
        report(&format!(
            "MTU {mtu}, {config:?}: {} MiB over {CONNECTIONS} connections in {took:?}",
            total >> 20
        ));
        failed
    });
    assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
}

/// The link between two kernels: what it does to frames is within what a TCP can
/// make up for, and this is how fast one does.
fn run_control(mtu: u16, vnet_header: bool, weather: Weather) {
    let Some((total, seed)) = begin() else { return };
    let network = BuiltinNetwork {
        mtu,
        ..BuiltinNetwork::default()
    };
    let container = Container::new(&network, vnet_header);
    let gateway = Container::gateway(&network, vnet_header);
    let (far, _) = container.attach(&network, vnet_header);
    let (near, _) = gateway.attach(&network, vnet_header);
    let link = BadLink::start(&near, &far, weather, seed);
    let to = SocketAddr::from((network.gateway(), 80));
    let listener = gateway.inside(|| TcpListener::bind(to).unwrap());
    let each = total / CONNECTIONS;
    let begin = Instant::now();
    let mut failed = thread::scope(|scope| {
        let server = scope.spawn(|| streams::serve(&listener, CONNECTIONS, each));
        let mut failed = container.inside(|| streams::connect(to, CONNECTIONS, each));
        failed.extend(server.join().unwrap());
        failed
    });
    let took = begin.elapsed();
    report_counts(link.end());
    report(&format!(
        "MTU {mtu}, two kernels: {} MiB over {CONNECTIONS} connections in {took:?}",
        total >> 20
    ));
    failed.sort();
    assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
}

/// A far end sends urgent data and nothing behind it.
#[test]
#[ignore = "started by urgent_data_is_passed_on_in_its_place"]
fn urgent_data() {
    if begin().is_none() {
        return;
    }
    let network = &BuiltinNetwork {
        allow_host_loopback: true,
        ..BuiltinNetwork::default()
    };
    let container = Container::new(network, true);
    let (tap, config) = container.attach(network, true);
    let (near, far) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let calm = Weather {
        lose: 0,
        delay_some: 0,
        repeat: 0,
        ..SUPER
    };
    let link = BadLink::start(&far, &tap, calm, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::from((network.gateway(), listener.local_addr().unwrap().port()));
    let got = thread::scope(|scope| {
        let driver = scope.spawn(move || drive(near, config, network));
        let client = container.inside(|| TcpStream::connect(to)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(send(&server, b"interrupt", SendFlags::OOB), Ok(9));
        let mut got = [0; 9];
        let whole = (&client).read_exact(&mut got).map(|()| got);
        link.end();
        drop(far);
        driver.join().unwrap();
        whole
    });
    assert_eq!(&got.unwrap(), b"interrupt");
}

const SINGLE: Weather = Weather {
    lose: 20,
    delay_some: 50,
    repeat: 10,
    alter: 5,
    delay: Duration::from_millis(1),
};
/// Checksums are left undone, so nothing may be altered.
const SUPER: Weather = Weather { alter: 0, ..SINGLE };

/// Frames with whole checksums, so that one altered on the way is noticed.
#[test]
#[ignore = "started by streams_are_whole_over_a_link_that_loses_and_alters_frames"]
fn single_segments() {
    run(1500, false, SINGLE);
}

/// A frame is up to 64 KiB.
#[test]
#[ignore = "started by streams_are_whole_over_a_link_that_loses_super_segments"]
fn super_segments() {
    run(65_520, true, SUPER);
}

#[test]
#[ignore = "started by two_kernels_get_along_over_the_same_link"]
fn control_single_segments() {
    run_control(1500, false, SINGLE);
}

#[test]
#[ignore = "started by two_kernels_get_along_over_the_same_link"]
fn control_super_segments() {
    run_control(65_520, true, SUPER);
}
