//! What the network says when it does not deliver: errors, hops, path MTU.
//!
//! Behind the router, where a host has only the errors that routers send.

use std::time::Duration;

use crate::util::servers::UdpServer;
use crate::util::{Family, Host, Output, Side, Who, http};

/// A container's link can carry more than any link behind it, or the usual.
const MTUS: [u32; 2] = [65520, 1500];

#[track_caller]
fn inside(who: Who, host: &Host, mtu: u32, script: &str) -> Output {
    let mtu = format!("--mtu={mtu}");
    let options = ["--rootfs=/", "--tmpfs=/tmp", &mtu];
    let command = ["--", "sh", "-ec", script];
    who.crun(&[&options[..], &command].concat())
        .on(host)
        .limit(Duration::from_secs(60))
        .run()
}

/// Python with what its socket module lacks: the options of ip(7) and ipv6(7).
fn python(family: Family, lines: &str) -> String {
    let constants = match family {
        Family::V4 => {
            "import errno, os, socket
FAMILY, LEVEL, MTU_DISCOVER, MTU, RECVERR = socket.AF_INET, socket.IPPROTO_IP, 10, 14, 11"
        }
        Family::V6 => {
            "import errno, os, socket
FAMILY, LEVEL, MTU_DISCOVER, MTU, RECVERR = socket.AF_INET6, socket.IPPROTO_IPV6, 23, 24, 25"
        }
    };
    format!("/usr/bin/python3 - <<'END'\n{constants}\n{lines}\nEND")
}

/// The bytes of a datagram's headers.
fn headers(family: Family) -> u32 {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

both! {
    fn a_closed_port_of_another_machine_is_refused(who) {
        let host = routed_host!(who, "python3");
        for &family in Family::ALL {
            // Bound, but not to what the datagram is for.
            let server = UdpServer::echo(&host, Side::Far, family.far_second());
            let script = python(family, &format!(
                "for recverr in (0, 1):
    s = socket.socket(FAMILY, socket.SOCK_DGRAM)
    s.setsockopt(LEVEL, RECVERR, recverr)
    s.connect(('{}', {}))
    s.settimeout(10)
    s.send(b'anybody?')
    try:
        s.recv(100)
    except OSError as error:
        print(errno.errorcode[error.errno])",
                family.far(),
                server.port()
            ));
            let output = inside(who, &host, 65520, &script).exit(0);
            assert_eq!(output.stdout, "ECONNREFUSED\nECONNREFUSED\n", "{family:?}{output}");
        }
    }

    fn an_unreachable_network_is_told_apart_from_a_refusal(who) {
        let host = routed_host!(who, "python3");
        for &family in Family::ALL {
            // The same route gives another error in each version (RFC 792, RFC 4443).
            let (network, one, error) = match family {
                Family::V4 => ("198.19.1.0/24", "198.19.1.1", "EHOSTUNREACH"),
                Family::V6 => ("2001:db8:99::/64", "2001:db8:99::1", "ENETUNREACH"),
            };
            host.tool_on(Side::World, &["ip", "route", "add", "unreachable", network]);
            let script = python(family, &format!(
                "t = socket.socket(FAMILY, socket.SOCK_STREAM)
t.settimeout(10)
u = socket.socket(FAMILY, socket.SOCK_DGRAM)
u.setsockopt(LEVEL, RECVERR, 1)
u.settimeout(10)
for s in (t, u):
    try:
        s.connect(('{one}', 80))
        s.send(b'anybody?')
        s.recv(100)
    except OSError as error:
        print(errno.errorcode[error.errno])"
            ));
            let output = inside(who, &host, 65520, &script).exit(0);
            assert_eq!(output.stdout, format!("{error}\n{error}\n"), "{family:?}{output}");
        }
    }

    fn ping_names_who_did_not_deliver(who) {
        let host = routed_host!(who, "ping");
        for &family in Family::ALL {
            let (network, one, nothing, hops) = match family {
                Family::V4 => (
                    "198.19.1.0/24", "198.19.1.1", "Destination Host Unreachable",
                    "Time to live exceeded",
                ),
                Family::V6 => (
                    "2001:db8:99::/64", "2001:db8:99::1", "Destination unreachable: No route",
                    "Time exceeded: Hop limit",
                ),
            };
            host.tool_on(Side::World, &["ip", "route", "add", "unreachable", network]);
            let (router, gateway) = (family.router(), family.gateway());
            for (options, target, from, what) in [
                ("", one.to_owned(), router, nothing),
                ("-t 2", family.far().to_string(), router, hops),
                ("-t 1", family.far().to_string(), gateway, hops),
            ] {
                let script = format!("ping {} -c 1 -W 5 {options} {target}", family.flag());
                let output = inside(who, &host, 65520, &script).exit(1);
                let line = format!("From {from} icmp_seq=1 {what}");
                assert!(output.stdout.contains(&line), "no {line:?}{output}");
            }
        }
    }

    fn ping_reaches_a_machine_behind_a_router(who) {
        let host = routed_host!(who, "ping");
        for &family in Family::ALL {
            for (size, mtu) in [(56, 65520), (0, 1500), (1400, 1500)] {
                let (flag, far) = (family.flag(), family.far());
                // All at once: after the last it waits for one more interval, a second.
                let script = format!("ping {flag} -c 3 -l 3 -W 5 -s {size} {far}");
                let output = inside(who, &host, mtu, &script).exit(0);
                assert!(output.stdout.contains(" 0% packet loss"), "{family:?}{output}");
                // A time is printed where the bytes that came back are those that went.
                assert!(!output.stdout.contains("wrong data"), "{family:?}{output}");
            }
        }
    }

    fn traceroute_lists_every_hop(who) {
        let host = routed_host!(who, "traceroute", "tracepath");
        for &family in Family::ALL {
            let (flag, far) = (family.flag(), family.far());
            let hops = [family.gateway(), family.router(), far].map(|hop| hop.to_string());
            for command in [
                format!("traceroute {flag} -n -q 1 -w 5 {far}"),
                // One at a time: a kernel refuses to send on while an error of an
                // echo request before has not been taken.
                format!("traceroute {flag} -n -q 1 -N 1 -w 5 -I {far}"),
                format!("traceroute {flag} -n -q 3 -N 16 -w 5 -m 5 {far}"),
            ] {
                let output = inside(who, &host, 1500, &command).exit(0);
                // " 1  10.0.2.2  0.050 ms", below a line that says what it does.
                let seen: Vec<_> = output
                    .stdout
                    .lines()
                    .skip(1)
                    .map(|line| line.split_whitespace().nth(1).unwrap_or_default())
                    .collect();
                assert_eq!(seen, hops, "{command}{output}");
            }
        }
    }

    fn tracepath_finds_the_path_and_its_mtu(who) {
        let host = routed_host!(who, "tracepath");
        host.set_far_mtu(1400);
        for &family in Family::ALL {
            let (flag, far) = (family.flag(), family.far());
            let output = inside(who, &host, 1500, &format!("tracepath {flag} -n {far}")).exit(0);
            for part in [
                format!(" 1:  {} ", family.gateway()),
                format!(" 2:  {} ", family.router()),
                format!(" 3:  {far} "),
                "pmtu 1400 hops 3".to_owned(),
                "reached".to_owned(),
            ] {
                assert!(output.stdout.contains(&part), "no {part:?}{output}");
            }
        }
    }

    fn a_datagram_that_does_not_fit_teaches_its_sender_the_path_mtu(who) {
        let host = routed_host!(who, "python3");
        host.set_far_mtu(1300);
        for &family in Family::ALL {
            let server = UdpServer::echo(&host, Side::Far, family.far());
            for mtu in MTUS {
                // One error is for the host's own link, one for the link behind the router.
                let script = python(family, &format!(
                    "s = socket.socket(FAMILY, socket.SOCK_DGRAM)
s.setsockopt(LEVEL, MTU_DISCOVER, 2)
s.connect(('{far}', {port}))
s.settimeout(1)
size = {mtu} - {headers}
mtus = []
for _ in range(10):
    try:
        s.send(b'x' * size)
        s.recv(65536)
        break
    except TimeoutError:
        pass
    except OSError as error:
        assert error.errno == errno.EMSGSIZE, error
        mtus.append(s.getsockopt(LEVEL, MTU))
        size = mtus[-1] - {headers}
print(mtus[-1], size + {headers})
try:
    s.send(b'x' * (size + 1))
except OSError as error:
    print(errno.errorcode[error.errno])",
                    far = family.far(),
                    port = server.port(),
                    headers = headers(family),
                ));
                let output = inside(who, &host, mtu, &script).exit(0);
                assert_eq!(
                    output.stdout, "1300 1300\nEMSGSIZE\n",
                    "{family:?}, MTU {mtu}{output}"
                );
            }
        }
    }

    fn ping_learns_the_path_mtu(who) {
        let host = routed_host!(who, "ping");
        host.set_far_mtu(1300);
        for &family in Family::ALL {
            let (flag, far) = (family.flag(), family.far());
            let largest = 1300 - headers(family);
            let script = format!("ping {flag} -M do -c 1 -W 2 -s 9000 {far}");
            let output = inside(who, &host, 65520, &script).exit(1);
            let told = format!("From {} icmp_seq=1 ", family.gateway());
            assert!(output.stdout.contains(&told), "no {told:?}{output}");
            assert!(output.stdout.replace(' ', "").contains("mtu=1500"), "{output}");
            let script = format!(
                "ping {flag} -M do -c 3 -i 0.2 -W 2 -s {} {far} || true
                 ping {flag} -M do -c 1 -W 5 -s {largest} {far}",
                largest + 1
            );
            let output = inside(who, &host, 1500, &script).exit(0);
            let told = match family {
                Family::V4 => format!("From {} icmp_seq=1 Frag needed", family.router()),
                Family::V6 => format!("From {} icmp_seq=1 Packet too big", family.router()),
            };
            assert!(output.stdout.contains(&told), "no {told:?}{output}");
            assert!(output.stdout.replace(' ', "").contains("mtu=1300"), "{output}");
            assert!(output.stdout.contains(", 100% packet loss"), "{output}");
            assert!(output.stdout.contains(" 0% packet loss"), "{output}");
        }
    }

    fn tcp_fits_a_narrow_path(who) {
        let host = routed_host!(who, "curl");
        host.set_far_mtu(1280);
        let bytes = 8 << 20;
        let data = format!("seq 1 400000000 | head -c {bytes}");
        let sum = crate::util::tool("sh", &["-c", &format!("{data} | sha256sum")]);
        let expected = format!("{}  -\n{}", http::sha256_of_bytes(bytes), &sum[..64]);
        for &family in Family::ALL {
            let server = http::start_at(&host, Side::Far, family.far());
            let url = format!("http://{}", family.far_in_url(server.port()));
            for mtu in MTUS {
                let script = format!(
                    "curl -sS {url}/bytes/{bytes} | sha256sum; {data} | curl -sS -T - {url}/up"
                );
                let output = inside(who, &host, mtu, &script).exit(0);
                assert_eq!(output.stdout, expected, "{family:?}, MTU {mtu}{output}");
            }
        }
    }
}
