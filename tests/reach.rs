//! Whom a container reaches: the outside world, and nothing of the host unless an
//! option says so.

use std::net::{Ipv4Addr, SocketAddr};

use crate::util::host::{HOST_ADDRESS, METADATA_ADDRESS, WORLD_ADDRESS};
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::{Host, Side, Who};

/// The gateway, which stands for the host's loopback when that is allowed.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const LOOPBACK_ALIAS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Everything that listens, in one port number on both transports.
struct Servers {
    tcp: Vec<(Side, TcpServer)>,
    udp: Vec<(Side, UdpServer)>,
}

impl Servers {
    fn start(host: &Host) -> Self {
        let any = Ipv4Addr::UNSPECIFIED;
        let sides: &[Side] = if host.is_own() {
            &[Side::Host, Side::World]
        } else {
            &[Side::Host]
        };
        // As an ordinary user the machine's own loopback is all there is.
        // A datagram socket of all addresses answers from the first of them, so
        // the second of the world has one of its own, with the same port.
        let address = |side| {
            if host.is_own() || side == Side::World {
                any
            } else {
                Ipv4Addr::LOCALHOST
            }
        };
        let udp_address = |side| {
            if side == Side::World {
                WORLD_ADDRESS
            } else {
                address(side)
            }
        };
        let mut udp: Vec<_> = sides
            .iter()
            .map(|&side| (side, UdpServer::echo(host, side, udp_address(side))))
            .collect();
        if let Some((side, server)) = udp.iter().find(|entry| entry.0 == Side::World) {
            let second = SocketAddr::from((METADATA_ADDRESS, server.port()));
            let second = UdpServer::start_at(host, *side, second, |data| Some(data.to_vec()));
            udp.push((Side::World, second));
        }
        Self {
            tcp: sides
                .iter()
                .map(|&side| (side, TcpServer::echo(host, side, address(side))))
                .collect(),
            udp,
        }
    }

    fn tcp_port(&self, side: Side) -> u16 {
        self.tcp
            .iter()
            .find(|entry| entry.0 == side)
            .unwrap()
            .1
            .port()
    }

    fn udp_port(&self, side: Side) -> u16 {
        self.udp
            .iter()
            .find(|entry| entry.0 == side)
            .unwrap()
            .1
            .port()
    }

    /// How often each transport of a side has been reached.
    fn reached(&self, host: &Host, side: Side) -> (usize, usize) {
        let tcp = self
            .tcp
            .iter()
            .find(|entry| entry.0 == side)
            .unwrap()
            .1
            .accepted(host, side);
        (
            tcp,
            self.udp
                .iter()
                .filter(|entry| entry.0 == side)
                .map(|entry| entry.1.received(host, side))
                .sum(),
        )
    }
}

/// A client that says of each address whether its echo came back over TCP and
/// over UDP. An answer that is not there within a second does not come: a
/// connection that is not allowed is refused, not dropped.
fn probe(targets: &[(Ipv4Addr, Side)], servers: &Servers) -> String {
    let list: Vec<_> = targets
        .iter()
        .map(|(address, side)| {
            format!(
                "('{address}', {}, {})",
                servers.tcp_port(*side),
                servers.udp_port(*side)
            )
        })
        .collect();
    format!(
        "python3 - <<'END'
import socket
for address, tcp, udp in [{}]:
    for kind, port in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        s = socket.socket(socket.AF_INET, kind)
        s.settimeout(1)
        try:
            s.connect((address, port))
            s.send(b'hello')
            reached = s.recv(100) == b'hello'
        except OSError:
            reached = False
        print(address, 'TCP' if kind == socket.SOCK_STREAM else 'UDP', reached)
END",
        list.join(", ")
    )
}

/// Runs the probe and compares: the addresses that must be reached, and those
/// that must not.
#[track_caller]
fn assert_reach(who: Who, options: &str, open: &[(Ipv4Addr, Side)], closed: &[(Ipv4Addr, Side)]) {
    let host = Host::new();
    let keep = |targets: &[(Ipv4Addr, Side)]| -> Vec<_> {
        let own = |target: &&(Ipv4Addr, Side)| {
            host.is_own() || (target.1 == Side::Host && target.0 != HOST_ADDRESS)
        };
        targets.iter().filter(own).copied().collect()
    };
    let (open, closed) = (keep(open), keep(closed));
    let servers = Servers::start(&host);
    let net = format!("--net=builtin{options}");
    let ask = |targets: &[(Ipv4Addr, Side)]| {
        who.crun(&[
            &net,
            "--rootfs=/",
            "--",
            "sh",
            "-c",
            &probe(targets, &servers),
        ])
        .on(&host)
        .run()
        .success()
    };
    let expected = |targets: &[(Ipv4Addr, Side)], word: &str| -> String {
        targets
            .iter()
            .map(|(address, _)| format!("{address} TCP {word}\n{address} UDP {word}\n"))
            .collect()
    };
    assert_eq!(ask(&closed), expected(&closed, "False"), "{options:?}");
    for side in [Side::Host, Side::World] {
        if closed.iter().any(|target| target.1 == side) {
            assert_eq!(
                servers.reached(&host, side),
                (0, 0),
                "{side:?} was reached, though no answer came ({options:?})"
            );
        }
    }
    assert_eq!(ask(&open), expected(&open, "True"), "{options:?}");
}

/// The host by all its names.
const HOST: [(Ipv4Addr, Side); 4] = [
    (Ipv4Addr::LOCALHOST, Side::Host),
    (LOOPBACK_ALIAS, Side::Host),
    (GATEWAY, Side::Host),
    (HOST_ADDRESS, Side::Host),
];
const METADATA: (Ipv4Addr, Side) = (METADATA_ADDRESS, Side::World);
const WORLD: (Ipv4Addr, Side) = (WORLD_ADDRESS, Side::World);

both! {
    fn by_default_the_world_and_nothing_of_the_host(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        assert_reach(
            who,
            "",
            &[WORLD],
            &[HOST[0], HOST[1], HOST[2], HOST[3], METADATA],
        );
    }

    fn the_hosts_loopback_is_behind_the_gateway_when_allowed(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let options = ":allow_host_loopback=true";
        assert_reach(
            who,
            options,
            &[HOST[2], WORLD],
            &[HOST[0], HOST[1], HOST[3], METADATA],
        );
    }

    fn the_hosts_addresses_are_reached_when_allowed(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let options = ":allow_host_addresses=true";
        assert_reach(
            who,
            options,
            &[HOST[3], WORLD],
            &[HOST[0], HOST[1], HOST[2], METADATA],
        );
    }

    fn link_local_addresses_are_reached_when_allowed(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let options = ":allow_link_local=true";
        assert_reach(
            who,
            options,
            &[METADATA, WORLD],
            &[HOST[0], HOST[1], HOST[2], HOST[3]],
        );
    }

    fn addresses_that_are_no_peers_are_refused(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(
            host.is_own(),
            "only a host of the test's own may be sent such packets"
        );
        let servers = Servers::start(&host);
        let targets = [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.2.255",
            "10.0.2.7",
            "224.0.0.1",
            "240.0.0.1",
        ];
        let targets: Vec<_> = targets
            .iter()
            .map(|text| (text.parse().unwrap(), Side::Host))
            .collect();
        let script = probe(&targets, &servers);
        let output = who
            .crun(&["--rootfs=/", "--", "sh", "-c", &script])
            .on(&host)
            .run();
        let printed = output.success();
        assert!(!printed.contains("True"), "{printed}");
        assert_eq!(servers.reached(&host, Side::Host), (0, 0), "{printed}");
    }

    fn an_alias_of_the_host_is_the_host(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "an alias needs root");
        // AnyIP: a whole network that is local without an address on any link.
        host.tool(&["ip", "route", "add", "local", "203.0.113.0/24", "dev", "lo"]);
        host.tool(&["ip", "addr", "add", "198.51.100.9/32", "dev", "lo"]);
        let servers = Servers::start(&host);
        let targets = [
            Ipv4Addr::new(203, 0, 113, 5),
            Ipv4Addr::new(198, 51, 100, 9),
        ];
        let script = probe(&targets.map(|address| (address, Side::Host)), &servers);
        let printed = who
            .crun(&["--rootfs=/", "--", "sh", "-c", &script])
            .on(&host)
            .run()
            .success();
        assert!(!printed.contains("True"), "{printed}");
        assert_eq!(servers.reached(&host, Side::Host), (0, 0), "{printed}");
    }
}
