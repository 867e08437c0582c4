//! The built-in network with real clients.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;

use crate::util::host::WORLD_ADDRESS;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::{
    Host, Output, SOON, Side, Who, has_program, http, number_from_env, report, tool,
};

/// How much a transfer moves, unless `CRUN_LITE_TRANSFER_MIB` says otherwise.
const TRANSFER_MIB: u64 = 256;
/// How many connections are open at once.
const CONNECTIONS: usize = 1000;

/// The largest and the usual MTU.
pub(crate) const MTUS: [u32; 2] = [65520, 1500];

/// Runs a script in the host's own tree, with the host's loopback behind the
/// gateway.
#[track_caller]
fn with_loopback(who: Who, host: &Host, mtu: u32, script: &str) -> Output {
    let net = format!("--net=builtin:allow_host_loopback=true,mtu={mtu}");
    let run = who
        .crun(&[&net, "--rootfs=/", "--", "sh", "-c", script])
        .on(host);
    run.limit(Duration::from_secs(300)).run()
}

/// Python's words for a client that talks to the gateway.
fn python(lines: &str) -> String {
    format!("python3 - <<'END'\n{lines}\nEND")
}

both! {
    fn the_link_is_as_it_is_documented(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        for mtu in MTUS {
            let script = "cat /sys/class/net/$(ip route | sed -n 's/^default.* dev \\([^ ]*\\).*/\\1/p')/mtu; ip -4 -oneline addr; ip route; cat /etc/resolv.conf; ls /sys/class/net";
            let output = who
                .crun(&[
                    &format!("--net=builtin:mtu={mtu}"),
                    "--",
                    "sh",
                    "-c",
                    script,
                ])
                .on(&host)
                .run();
            let printed = output.success();
            assert!(printed.starts_with(&format!("{mtu}\n")), "{printed}");
            for part in [
                "10.0.2.100/24",
                "127.0.0.1/8",
                "default via 10.0.2.2",
                "nameserver 10.0.2.3",
            ] {
                assert!(printed.contains(part), "{part:?} is missing: {printed}");
            }
        }
        let output = who
            .crun(&["--mtu=1400", "--", "sh", "-c", "ip link"])
            .on(&host)
            .run();
        assert!(
            output.success().contains(" mtu 1400 "),
            "--mtu is a shorthand, and builtin the default"
        );
    }

    fn the_network_address_is_an_option(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let net = "--net=builtin:cidr=192.168.77.0/24,allow_host_loopback=true";
        let script = format!(
            "ip -4 -oneline addr; ip route; cat /etc/resolv.conf; echo hello | nc 192.168.77.2 {}",
            server.port()
        );
        let printed = who
            .crun(&[net, "--", "sh", "-c", &script])
            .on(&host)
            .run()
            .success();
        for part in [
            "192.168.77.100/24",
            "default via 192.168.77.2",
            "nameserver 192.168.77.3",
            "hello",
        ] {
            assert!(printed.contains(part), "{part:?} is missing: {printed}");
        }
    }

    fn a_large_download_arrives_whole(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        let bytes = number_from_env("CRUN_LITE_TRANSFER_MIB", TRANSFER_MIB) << 20;
        let expected = http::sha256_of_bytes(bytes);
        for mtu in MTUS {
            let script = format!(
                "curl -sS http://10.0.2.2:{}/bytes/{bytes} | sha256sum",
                server.port()
            );
            let output = with_loopback(who, &host, mtu, &script).exit(0);
            assert_eq!(
                output.stdout,
                format!("{expected}  -\n"),
                "MTU {mtu}{output}"
            );
            report(&format!(
                "down, MTU {mtu}, {who:?}: {bytes} bytes in {:?}",
                output.took
            ));
        }
    }

    fn a_large_upload_arrives_whole(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        let bytes = number_from_env("CRUN_LITE_TRANSFER_MIB", TRANSFER_MIB) << 20;
        // Numbers in a row: each place in the stream is unlike any other.
        let data = format!("seq 1 400000000 | head -c {bytes}");
        let expected = tool("sh", &["-c", &format!("{data} | sha256sum")]);
        for mtu in MTUS {
            let script = format!(
                "{data} | curl -sS -T - http://10.0.2.2:{}/up",
                server.port()
            );
            let output = with_loopback(who, &host, mtu, &script).exit(0);
            assert_eq!(
                Some(&*output.stdout),
                expected.split_whitespace().next(),
                "MTU {mtu}{output}"
            );
            report(&format!(
                "up, MTU {mtu}, {who:?}: {bytes} bytes in {:?}",
                output.took
            ));
        }
    }

    fn the_gateway_answers_echo_requests(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        // BusyBox's ping knows no way but a raw socket.
        for root in [&["--cap-add=NET_RAW"][..], &["--rootfs=/"]] {
            let mut args = root.to_vec();
            args.extend(["--", "ping", "-c", "3", "-W", "5", "10.0.2.2"]);
            let output = who.crun(&args).on(&host).run().exit(0);
            assert!(output.stdout.contains(" 0% packet loss"), "{output}");
        }
    }

    fn the_world_answers_echo_requests(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "a world of the test's own needs root");
        for size in ["56", "1400"] {
            let world = WORLD_ADDRESS.to_string();
            let output = who
                .crun(&["--rootfs=/", "--", "ping", "-c", "2", "-W", "5", "-s", size, &world])
                .on(&host)
                .run()
                .exit(0);
            assert!(output.stdout.contains(" 0% packet loss"), "{output}");
        }
    }

    fn a_closed_port_is_refused_at_once(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        // Bound, but not listening: nobody else takes the port meanwhile.
        let socket = host
            .inside(Side::Host, || UdpSocket::bind("127.0.0.1:0"))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = python(&format!(
            "import errno, socket, time
times = []
for _ in range(20):
    s = socket.socket()
    begin = time.monotonic()
    error = s.connect_ex(('10.0.2.2', {port}))
    times.append(time.monotonic() - begin)
    assert error == errno.ECONNREFUSED, error
print('%.2f' % (1000 * sorted(times)[len(times) // 2]))"
        ));
        let output = with_loopback(who, &host, 65520, &client).exit(0);
        let median: f64 = output.stdout.trim().parse().unwrap();
        report(&format!("a refused port answers in {median} ms ({who:?})"));
    }

    fn a_closed_udp_port_is_refused(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let socket = host
            .inside(Side::Host, || TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = python(&format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('10.0.2.2', {port}))
s.settimeout(10)
s.send(b'anybody?')
try:
    s.recv(100)
except ConnectionRefusedError:
    print('refused')"
        ));
        assert_eq!(
            with_loopback(who, &host, 65520, &client).success(),
            "refused\n"
        );
    }

    fn the_container_can_finish_first(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("nc"), "no nc(1)");
        let host = Host::new();
        let server = TcpServer::start(&host, Side::Host, Ipv4Addr::LOCALHOST, |mut stream| {
            let mut text = Vec::new();
            stream.read_to_end(&mut text)?;
            // The answer is longer than any buffer: it must flow long after the FIN.
            let count = text.len();
            stream.write_all("x".repeat(4 << 20).as_bytes())?;
            write!(stream, "\nreceived {count}\n")
        });
        for mtu in MTUS {
            let script = format!(
                "head -c 100000 /dev/zero | nc -N 10.0.2.2 {} | tail -n 1",
                server.port()
            );
            assert_eq!(
                with_loopback(who, &host, mtu, &script).success(),
                "received 100000\n",
                "MTU {mtu}"
            );
        }
    }

    fn the_host_can_finish_first(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("nc"), "no nc(1)");
        let host = Host::new();
        let (send, receive) = mpsc::channel();
        let server = TcpServer::start(&host, Side::Host, Ipv4Addr::LOCALHOST, move |mut stream| {
            stream.write_all(b"bye\n")?;
            stream.shutdown(Shutdown::Write)?;
            let mut rest = Vec::new();
            let result = stream.read_to_end(&mut rest);
            // The test is the only receiver and waits for it.
            let _ = send.send((result.is_ok(), rest));
            Ok(())
        });
        let net = "--net=builtin:allow_host_loopback=true";
        let mut run = who
            .crun(&[
                net,
                "-i",
                "--rootfs=/",
                "--",
                "nc",
                "-N",
                "10.0.2.2",
                &server.port().to_string(),
            ])
            .on(&host)
            .stdin_open()
            .spawn();
        run.expect("bye\n");
        // More than fits between: it is still on its way when the command has ended.
        let data = b"still here\n".repeat(300_000);
        run.write(&data);
        run.close_stdin();
        let (whole, rest) = receive
            .recv_timeout(SOON)
            .expect("the host reads to the end");
        assert!(
            whole && rest == data,
            "{} of {} bytes arrived",
            rest.len(),
            data.len()
        );
        run.finish().exit(0);
    }

    fn a_reset_is_passed_on_both_ways(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let (send, receive) = mpsc::channel();
        let server = TcpServer::start(&host, Side::Host, Ipv4Addr::LOCALHOST, move |mut stream| {
            let mut kind = [0];
            stream.read_exact(&mut kind)?;
            if kind == *b"r" {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            let error = stream.read(&mut [0; 100]).map_err(|error| error.kind());
            let _ = send.send(error);
            Ok(())
        });
        let client = python(&format!(
            "import socket, struct
s = socket.create_connection(('10.0.2.2', {port}))
s.send(b'r')
try:
    print('read', s.recv(100))
except ConnectionResetError:
    print('reset')
s = socket.create_connection(('10.0.2.2', {port}))
s.send(b's')
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.close()
s = socket.create_connection(('10.0.2.2', {port}))  # the reset before it has gone out
s.close()",
            port = server.port()
        ));
        assert_eq!(
            with_loopback(who, &host, 65520, &client).success(),
            "reset\n"
        );
        let seen = receive.recv_timeout(SOON).expect("the host sees an end");
        assert_eq!(seen, Err(std::io::ErrorKind::ConnectionReset));
    }

    fn a_slow_reader_loses_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        let bytes = 24 << 20;
        let expected = http::sha256_of_bytes(bytes);
        // The reader stops for a second while the sender would go on; meanwhile a
        // second connection is not held up.
        let script = format!(
            "curl -sS http://10.0.2.2:{port}/bytes/{bytes} | {{ head -c 65536; sleep 1; cat; }} | sha256sum &
             curl -sS -m 20 http://10.0.2.2:{port}/bytes/1000 | wc -c; wait",
            port = server.port()
        );
        for mtu in MTUS {
            let output = with_loopback(who, &host, mtu, &script);
            assert_eq!(
                output.success(),
                format!("1000\n{expected}  -\n"),
                "MTU {mtu}"
            );
        }
    }

    fn a_thousand_connections_at_once_keep_their_streams_apart(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let client = python(&format!(
            "import hashlib, resource, selectors, socket
N = {CONNECTIONS}
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert hard > N + 50, 'too few descriptors: %d' % hard
def pattern(i):
    return b''.join(hashlib.sha256(b'%d/%d' % (i, n)).digest() for n in range(200 + i % 100))
wait = selectors.DefaultSelector()
connections = []
for i in range(N):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(('10.0.2.2', {port}))
    connections.append(s)
    wait.register(s, selectors.EVENT_WRITE, i)
connected = 0
while connected < N:
    ready = wait.select(30)
    assert ready, 'only %d connected' % connected
    for key, _ in ready:
        error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert error == 0, (key.data, error)
        wait.unregister(key.fileobj)
        connected += 1
to_send = [pattern(i) for i in range(N)]
received = [bytearray() for _ in range(N)]
for i, s in enumerate(connections):
    wait.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, i)
done = 0
while done < N:
    ready = wait.select(30)
    assert ready, 'only %d of %d are done' % (done, N)
    for key, events in ready:
        i, s = key.data, key.fileobj
        if events & selectors.EVENT_WRITE:
            to_send[i] = to_send[i][s.send(to_send[i][:4096]):]
            if not to_send[i]:
                s.shutdown(socket.SHUT_WR)
                wait.modify(s, selectors.EVENT_READ, i)
        if events & selectors.EVENT_READ:
            data = s.recv(65536)
            received[i] += data
            if not data:
                assert received[i] == pattern(i), 'stream %d is wrong' % i
                wait.unregister(s)
                done += 1
print('all', done)",
            port = server.port()
        ));
        for mtu in MTUS {
            let output = with_loopback(who, &host, mtu, &client);
            assert_eq!(
                output.success(),
                format!("all {CONNECTIONS}\n"),
                "MTU {mtu}"
            );
        }
        assert_eq!(server.accepted(&host, Side::Host), CONNECTIONS * MTUS.len());
    }

    fn connections_in_a_row_leave_room_for_more(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let client = python(&format!(
            "import socket
for i in range(3000):
    with socket.create_connection(('10.0.2.2', {}), 20) as s:
        s.send(b'%d' % i)
        assert s.recv(100) == b'%d' % i
print('done')",
            server.port()
        ));
        assert_eq!(
            with_loopback(who, &host, 65520, &client).success(),
            "done\n"
        );
    }

    fn datagrams_of_any_size_come_back(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = UdpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        for mtu in MTUS {
            let largest = mtu - 28;
            let client = python(&format!(
                "import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(('10.0.2.2', {port}))
for size in (0, 1, 7, 512, 1471, 1472, {largest} // 2, {largest}):
    data = os.urandom(size)
    for attempt in range(5):
        s.send(data)
        try:
            assert s.recv(65536) == data, size
            break
        except TimeoutError:
            print('lost', size)
    else:
        raise SystemExit('no answer for %d' % size)
print('done')",
                port = server.port()
            ));
            assert_eq!(
                with_loopback(who, &host, mtu, &client).success(),
                "done\n",
                "MTU {mtu}"
            );
        }
    }

    fn a_udp_socket_has_one_port_for_all_peers(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "two servers of the world need root");
        // RFC 4787, REQ-1: endpoint-independent mapping.
        let (send, receive) = mpsc::channel();
        let ports = [0, 1].map(|number| {
            let socket = host
                .inside(Side::World, || UdpSocket::bind((WORLD_ADDRESS, 0)))
                .unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let port = socket.local_addr().unwrap().port();
            let send = send.clone();
            std::thread::spawn(move || {
                let heard = socket.recv_from(&mut [0; 100]).map(|(_, from)| from);
                // The test waits for it.
                let _ = send.send((number, heard.map_err(|error| error.kind())));
            });
            port
        });
        let client = python(&format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in {ports:?}:
    s.sendto(b'hello', ('{WORLD_ADDRESS}', port))"
        ));
        who.crun(&["--rootfs=/", "--", "sh", "-c", &client])
            .on(&host)
            .run()
            .exit(0);
        let heard: BTreeMap<_, _> = [receive.recv().unwrap(), receive.recv().unwrap()].into();
        assert!(heard[&0].is_ok(), "{heard:?}");
        assert_eq!(heard[&0], heard[&1]);
    }

    fn without_a_network_there_is_only_loopback(who) {
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let script = format!(
            "ls /sys/class/net | grep -vxE '(tunl|sit|gre|gretap|erspan|ip_vti|ip6_vti|ip6tnl|ip6gre)0'; ip route
             ip addr show lo | grep -q 'inet 127.0.0.1/8' && echo 'lo is up'
             nc -w 2 127.0.0.1 {} </dev/null && echo connected; true",
            server.port()
        );
        let output = who
            .crun(&["--net=none", "--", "sh", "-c", &script])
            .on(&host)
            .run();
        assert_eq!(output.success(), "lo\nlo is up\n");
        assert_eq!(server.accepted(&host, Side::Host), 0);
    }

    fn the_hosts_own_network_is_the_hosts(who) {
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let script = format!("echo hello | nc 127.0.0.1 {}", server.port());
        let output = who
            .crun(&["--net=host", "--", "sh", "-c", &script])
            .on(&host)
            .run();
        assert_eq!(output.success(), "hello\n");
    }

    fn servers_in_the_container_serve_the_container(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let client = python(
            "import socket, threading
for address in ('127.0.0.1', '10.0.2.100'):
    server = socket.create_server((address, 80))
    threading.Thread(target=lambda: server.accept()[0].sendall(b'hello')).start()
    print(socket.create_connection((address, 80), 10).recv(100).decode())",
        );
        let output = who
            .crun(&["--rootfs=/", "--", "sh", "-c", &client])
            .on(&host)
            .run();
        assert_eq!(output.success(), "hello\nhello\n");
    }

    /// What comes while the program waits for a processor waits for it, too.
    fn a_burst_is_kept_while_nobody_looks(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = UdpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let client = format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('10.0.2.2', {}))
s.send(b'first')
assert s.recv(100) == b'first'
print('ready', flush=True)
input()
for _ in range(3000): s.send(b'burst')
counters = [line.split() for line in open('/proc/net/dev') if 'tap0' in line][0]
print('%s dropped' % counters[12], flush=True)
input()",
            server.port()
        );
        let net = "--net=builtin:link=tap,allow_host_loopback=true";
        let mut run = who
            .crun(&["-i", net, "--rootfs=/", "--", "python3", "-c", &client])
            .on(&host)
            .stdin_open()
            .spawn();
        run.expect("ready\n");
        run.signal(Signal::STOP);
        run.write(b"\n");
        // Whatever else it says, in time for the test to go on.
        run.expect(" dropped\n");
        run.signal(Signal::CONT);
        run.write(b"\n");
        let output = run.finish();
        assert_eq!(output.success(), "ready\n0 dropped\n");
    }
}
