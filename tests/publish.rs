//! Published ports without the programs of others: how they are bound, and what
//! passes through them. Who is seen inside is in `published`.

use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::OwnedFd;
use std::thread;

use crate::util::command::Running;
use crate::util::{Family, Host, SOON, Side, Who};

/// A transfer, bytes.
const LARGE: usize = 64 << 20;
/// Where a client of the host asks.
const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Says where the client comes from, then sends back what comes; to the end of it.
const ECHO: &str = r#"
import socket, threading
listener = socket.create_server(("0.0.0.0", 7000), backlog=4096)
only_loopback = socket.create_server(("127.0.0.1", 7001))
def serve(connection, client):
    with connection:
        connection.sendall((client[0] + "\n").encode())
        while data := connection.recv(1 << 16):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
"#;

/// Says what it got, in bytes and as a sum, after the end of it; then as much as was
/// asked for in the first line.
const ASKED: &str = r#"
import hashlib, socket
listener = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as incoming:
        count = int(incoming.readline())
        got = incoming.read()
        connection.sendall(f"{len(got)} {hashlib.sha256(got).hexdigest()}\n".encode())
        connection.sendall(bytes(i % 251 for i in range(251)) * (count // 251))
"#;

fn python(who: Who, host: &Host, options: &[&str], program: &str) -> Running {
    let mut args = vec!["--rootfs=/"];
    args.extend(options);
    args.extend(["--", "python3", "-c", program]);
    let run = who.crun(&args).on(host).spawn();
    run.expect("ready\n");
    run
}

/// A client on the host's loopback, and the address that the server has said.
#[track_caller]
fn client(host: &Host, at: IpAddr, port: u16) -> (TcpStream, IpAddr) {
    let connect = || TcpStream::connect((at, port));
    let stream = host.inside(Side::Host, connect).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let seen = line(&stream).parse().unwrap();
    (stream, seen)
}

#[track_caller]
fn line(mut stream: &TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Bytes of which no two places are alike.
fn data(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    fastrand::Rng::with_seed(7).fill(&mut data);
    data
}

both! {
    fn clients_of_the_host_come_from_the_containers_own_address(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = python(who, &host, &["-p", "7000"], ECHO);
        let port = published_port(&host, who, &run, 7000);
        for at in LOOPBACKS {
            let (mut stream, seen) = client(&host, at, port);
            assert_eq!(seen, IpAddr::from([10, 0, 2, 100]), "to {at}");
            stream.write_all(b"one\n").unwrap();
            assert_eq!(line(&stream), "one");
        }
    }

    fn large_transfers_arrive_whole_and_directions_end_apart(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = python(who, &host, &["-p", "127.0.0.1::7000"], ASKED);
        let port = published_port(&host, who, &run, 7000);
        let stream = host.inside(Side::Host, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let up = data(LARGE);
        writeln!(stream, "{LARGE}").unwrap();
        stream.write_all(&up).unwrap();
        // The server answers only after the end: it must come, and go alone.
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(line(&stream), format!("{LARGE} {}", crate::util::http::sha256_of(&up)));
        let mut down = Vec::new();
        stream.read_to_end(&mut down).unwrap();
        assert_eq!(down.len(), LARGE / 251 * 251);
        assert!(down.iter().enumerate().all(|(place, byte)| place % 251 == usize::from(*byte)));
    }

    fn a_transfer_in_both_directions_at_once_arrives_whole(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = python(who, &host, &["-p", "7000"], ECHO);
        let port = published_port(&host, who, &run, 7000);
        let (stream, _) = client(&host, LOOPBACKS[0], port);
        let sent = data(LARGE);
        let received = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut received = Vec::new();
                (&stream).read_to_end(&mut received).unwrap();
                received
            });
            (&stream).write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            reader.join().unwrap()
        });
        assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    }

    fn many_clients_of_the_host_are_served_at_once(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = python(who, &host, &["-p", "7000"], ECHO);
        let port = published_port(&host, who, &run, 7000);
        // More at a stroke than init has sockets ready.
        let streams: Vec<TcpStream> = host.inside(Side::Host, || {
            (0..300)
                .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
                .collect()
        });
        for (number, mut stream) in streams.iter().enumerate() {
            stream.set_read_timeout(Some(SOON)).unwrap();
            writeln!(stream, "{number}").unwrap();
        }
        for (number, stream) in streams.iter().enumerate() {
            assert_eq!(line(stream), "10.0.2.100");
            assert_eq!(line(stream), number.to_string());
        }
    }

    fn nobody_inside_is_a_reset(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        // 7001 listens on the container's own loopback alone.
        let run = python(who, &host, &["-p", "7001", "-p", "7002"], ECHO);
        for container_port in [7001, 7002] {
            let port = published_port(&host, who, &run, container_port);
            for at in LOOPBACKS {
                let stream = host.inside(Side::Host, || TcpStream::connect((at, port)));
                let outcome = stream.and_then(|mut stream| {
                    stream.set_read_timeout(Some(SOON))?;
                    stream.read(&mut [0])
                });
                let error = outcome.expect_err("somebody answered").kind();
                assert_eq!(error, ErrorKind::ConnectionReset, "{at}, {container_port}");
            }
        }
    }

    fn a_client_that_resets_is_reset_inside(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let program = r#"
import socket
listener = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
connection, _ = listener.accept()
connection.sendall(b"hello\n")
try:
    print("end", connection.recv(1))
except ConnectionResetError:
    print("reset")
"#;
        let run = python(who, &host, &["-p", "7000"], program);
        let port = published_port(&host, who, &run, 7000);
        let stream = host.inside(Side::Host, || TcpStream::connect((LOOPBACKS[0], port))).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(line(&stream), "hello");
        let socket = OwnedFd::from(stream);
        rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).unwrap();
        drop(socket);
        assert!(run.finish().success().ends_with("reset\n"));
    }

    fn datagrams_of_the_host_come_from_the_gateway(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let program = r#"
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    data, client = server.recvfrom(65536)
    server.sendto(f"{client[0]} {client[1]} ".encode() + data, client)
"#;
        let run = python(who, &host, &["-p", "127.0.0.1::7000/udp"], program);
        let port = published_port(&host, who, &run, 7000);
        let sockets: Vec<UdpSocket> = host.inside(Side::Host, || {
            (0..3).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect()
        });
        for (number, socket) in sockets.iter().enumerate() {
            socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send(number.to_string().as_bytes()).unwrap();
        }
        for (number, socket) in sockets.iter().enumerate() {
            let mut answer = [0; 64];
            let count = socket.recv(&mut answer).unwrap();
            let own = socket.local_addr().unwrap().port();
            let expected = format!("10.0.2.2 {own} {number}");
            assert_eq!(String::from_utf8_lossy(&answer[..count]), expected);
        }
    }

    fn answers_come_from_the_address_that_was_asked(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "a world of the test's own needs root");
        let host = Host::routed();
        // The routes would have answers leave from the first of each version.
        let second: [IpAddr; 2] = ["198.18.0.77".parse().unwrap(), "2001:db8::77".parse().unwrap()];
        for (address, bits) in second.iter().zip(["24", "64 nodad preferred_lft 0"]) {
            let add = format!("ip addr add {address}/{bits} dev host0");
            host.tool(&["sh", "-ec", &add]);
        }
        let program = r#"
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 7000))
print("ready", flush=True)
while True:
    data, client = server.recvfrom(65536)
    server.sendto(data, client)
"#;
        let _run = python(who, &host, &["-p", "7000:7000/udp"], program);
        for (&family, second) in Family::ALL.iter().zip(second) {
            for at in [family.host(), second] {
                let any: IpAddr = match family {
                    Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                    Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
                };
                // Connected, it hears nobody else.
                let socket = host.inside(Side::World, || UdpSocket::bind((any, 0)).unwrap());
                socket.connect((at, 7000)).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send(b"question").unwrap();
                let mut answer = [0; 64];
                let count = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{at}: {error}"));
                assert_eq!(&answer[..count], b"question", "{at}");
            }
        }
    }

    fn a_busy_port_is_an_error_before_anything_is_changed(who) {
        let host = Host::new();
        let taken = host.inside(Side::Host, || TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = taken.local_addr().unwrap().port();
        let publish = format!("127.0.0.1:{port}:80");
        let output = who.crun(&["-p", &publish, "--", "true"]).on(&host).run();
        let at = format!("127.0.0.1:{port}/tcp");
        output.refused(&["--publish", &at, "Address already in use", "hint:", "ss -lnp"]);
    }

    fn ports_need_a_network_of_ours(who) {
        for net in ["none", "host"] {
            let output = who.run(&[&format!("--net={net}"), "-p", "8080:80", "--", "true"]);
            output.refused(&["--publish", &format!("--net={net}")]);
        }
    }
}

/// The port of the host that leads to a port of the container.
#[track_caller]
fn published_port(host: &Host, who: Who, run: &Running, container_port: u16) -> u16 {
    let name = run.pid().as_raw_nonzero().to_string();
    let list = || {
        let listed = crate::util::CrunLite::new(who, &["port", "ls", &name, "--json"]);
        let listed = listed.on(host).run().success();
        serde_json::from_str::<Vec<serde_json::Value>>(&listed).unwrap()
    };
    let of_port = |port: &&serde_json::Value| port["container_port"] == container_port;
    let ports = list();
    let host = ports.iter().find(of_port).unwrap()["host"]
        .as_str()
        .unwrap();
    host.parse::<SocketAddr>().unwrap().port()
}

#[test]
fn a_privileged_port_is_an_error_that_says_what_to_do() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let host = Host::new();
    let first = host.tool(&["sysctl", "-n", "net.ipv4.ip_unprivileged_port_start"]);
    need!(first.trim() != "0", "no port is privileged here");
    let output = who
        .crun(&["-p", "127.0.0.1:1:80", "--", "true"])
        .on(&host)
        .run();
    output.refused(&[
        "127.0.0.1:1/tcp",
        "Permission denied",
        "net.ipv4.ip_unprivileged_port_start",
        "LISTEN_FDS",
    ]);
}

both! {
    fn a_socket_that_was_bound_before_is_used(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        // Binds, as systemd does, and becomes the program.
        let bind = r#"
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"#;
        let server = r#"
import os, socket
listener = socket.create_server(("0.0.0.0", 7000))
print(os.environ.get("LISTEN_FDS"), sorted(os.listdir("/proc/self/fd")), flush=True)
while True:
    listener.accept()[0].sendall(b"hello\n")
"#;
        let port = free_port(&host);
        let publish = format!("127.0.0.1:{port}:7000");
        let args = [
            "-e", "LISTEN_*", "-p", &publish, "--rootfs=/", "--", "python3", "-c", server,
        ];
        let run = who
            .crun(&args)
            .on(&host)
            .through(&["python3", "-c", bind, &port.to_string()])
            .spawn();
        // Three streams, the listener and the folder: none that was passed on.
        run.expect("None ['0', '1', '2', '3', '4']\n");
        let stream = host.inside(Side::Host, || TcpStream::connect((LOOPBACKS[0], port))).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(line(&stream), "hello");
    }

    fn a_range_of_thousands_of_ports_can_be_published(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "ports of a machine of the test's own are needed");
        let options = ["-p", "127.0.0.1:20000-24999:5000-9999"];
        let _run = python(who, &host, &options, ECHO);
        // 7000 is the container's 2001st.
        let (mut stream, _) = client(&host, LOOPBACKS[0], 22000);
        stream.write_all(b"here\n").unwrap();
        assert_eq!(line(&stream), "here");
    }
}

fn free_port(host: &Host) -> u16 {
    let probe = host
        .inside(Side::Host, || TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    probe.local_addr().unwrap().port()
}
