//! What a container may reach where there are rules: `--net-allow`, `--net-deny`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::util::command::{CrunLite, Output, Running};
use crate::util::host::{HOST_ADDRESS, METADATA_ADDRESS};
use crate::util::service::Service;
use crate::util::zone::{Data, Zone};
use crate::util::{Family, Host, SOON, Side, Who, eventually, whoami};

/// The port that rules name, and one that they do not.
const PORT: u16 = 7001;
const OTHER_PORT: u16 = 7002;

/// Tries one thing a line of its standard input and prints what came of it:
/// `tcp ADDRESS PORT`, `udp ADDRESS PORT [BYTES]`, `ping ADDRESS`, `ask NAME`.
/// What is refused is refused at once: silence is told apart.
const CLIENT: &str = r#"
import errno, socket, sys
REFUSED = {errno.EHOSTUNREACH, errno.EACCES, errno.EPERM}
def attempt(words):
    kind, target = words[0], words[1]
    if kind == 'ask':
        try:
            found = socket.getaddrinfo(target, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return 'no name' if error.errno == socket.EAI_NONAME else 'error %s' % error
        return ' '.join(sorted(entry[4][0] for entry in found))
    family = socket.AF_INET6 if ':' in target else socket.AF_INET
    types = {'tcp': socket.SOCK_STREAM, 'udp': socket.SOCK_DGRAM, 'ping': socket.SOCK_DGRAM}
    protocol = 0
    if kind == 'ping':
        protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    with socket.socket(family, types[kind], protocol) as s:
        s.settimeout(5)
        try:
            s.connect((target, int(words[2]) if kind != 'ping' else 0))
            if kind == 'ping':
                s.send(bytes([128 if family == socket.AF_INET6 else 8]) + bytes(7))
            else:
                s.send(b'x' * int(words[3]) if len(words) > 3 else b'hello')
            return 'reached' if s.recv(65536) else 'nothing'
        except TimeoutError:
            return 'silence'
        except OSError as error:
            return 'refused' if error.errno in REFUSED else errno.errorcode[error.errno]
for line in sys.stdin:
    print(line.strip(), '->', attempt(line.split()), flush=True)
"#;

/// A world with servers at both ports of both addresses of the far side, and a zone.
struct World {
    host: Host,
    zone: Zone,
    _servers: Vec<Service>,
}

/// The names of the zone, the far side's first.
fn names() -> Vec<(&'static str, Data)> {
    let mut records = Vec::new();
    for &family in Family::ALL {
        for name in ["allowed.test", "other.test", "sub.wild.test"] {
            records.push((name, Data::Address(family.far())));
        }
        records.push(("rebind.test", Data::Address(family.host())));
    }
    for address in [
        HOST_ADDRESS.into(),
        METADATA_ADDRESS.into(),
        IpAddr::from([127, 0, 0, 1]),
    ] {
        records.push(("rebind.test", Data::Address(address)));
    }
    records.push(("alias.test", Data::Alias("other.test")));
    // More than a datagram of 512 bytes holds.
    for n in 0..40 {
        records.push(("big.test", Data::Address([192, 0, 2, n].into())));
    }
    records.push(("big.test", Data::Address(Family::V4.far())));
    records
}

impl World {
    fn new(host: Host) -> Self {
        let zone = Zone::start(&host, names());
        let mut servers = Vec::new();
        for &family in Family::ALL {
            for port in [PORT, OTHER_PORT] {
                servers.push(whoami::start(&host, Side::Far, family.far(), port));
            }
            servers.push(whoami::start(&host, Side::Far, family.far_second(), PORT));
            servers.push(whoami::start(&host, Side::Host, family.host(), PORT));
        }
        Self {
            host,
            zone,
            _servers: servers,
        }
    }

    /// A client that tries what it is told.
    fn client(&self, who: Who, options: &[&str]) -> Client {
        let command = ["--rootfs=/", "--", "/usr/bin/python3", "-c", CLIENT];
        let run = who
            .crun(&[&["-i"], options, &command].concat())
            .on(&self.host)
            .stdin_open()
            .spawn();
        Client(run)
    }
}

struct Client(Running);

impl Client {
    /// Tries it; it must come to this.
    #[track_caller]
    fn tries(&mut self, what: &str, outcome: &str) {
        self.0.write(format!("{what}\n").as_bytes());
        self.0.expect(&format!("{what} -> "));
        self.0.expect("\n");
        let text = self.0.stdout.text();
        let line = text.lines().rev().find(|line| line.starts_with(what));
        assert_eq!(line, Some(&*format!("{what} -> {outcome}")), "{text}");
    }

    fn finish(mut self) -> Output {
        self.0.close_stdin();
        self.0.finish().exit(0)
    }
}

fn log_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// There is a line of such a refusal.
#[track_caller]
fn assert_logged(log: &[Value], protocol: &str, destination: &str, reason: &str) {
    let is_it = |line: &&Value| {
        line["protocol"] == protocol
            && line["reason"] == reason
            && (line["destination"] == destination || line["name"] == destination)
    };
    assert!(
        log.iter().any(|line| is_it(&line)),
        "{protocol} {destination} {reason} is not in {log:#?}"
    );
}

fn ask(who: Who, host: &Host, args: &[&str]) -> Output {
    CrunLite::new(who, args).on(host).run()
}

both! {
    fn a_name_and_a_port_and_nothing_else(who) {
        let world = World::new(routed_host!(who, "python3"));
        let folder = who.folder();
        let log = folder.path().join("log");
        let mut client = world.client(who, &[
            "--mtu=1500",
            "--net-allow=allowed.test:7001,rebind.test",
            &format!("--net-log={}", log.display()),
        ]);
        let (far, second) = (Family::V4.far(), Family::V4.far_second());
        let mut refused = Vec::new();
        // The address alone does not get through, nor with another name.
        for name in ["", "other.test", "alias.test"] {
            if !name.is_empty() {
                client.tries(&format!("ask {name}"), "no name");
                refused.push(("dns", name.to_owned(), "default"));
            }
            for &family in Family::ALL {
                for protocol in ["tcp", "udp"] {
                    let to = family.far();
                    client.tries(&format!("{protocol} {to} {PORT}"), "refused");
                    refused.push((protocol, format!("{}", std::net::SocketAddr::new(to, PORT)), "default"));
                }
            }
        }
        let mut both: Vec<_> = Family::ALL.iter().map(|family| family.far().to_string()).collect();
        both.sort();
        client.tries("ask allowed.test", &both.join(" "));
        for &family in Family::ALL {
            let to = family.far();
            for protocol in ["tcp", "udp"] {
                client.tries(&format!("{protocol} {to} {PORT}"), "reached");
                client.tries(&format!("{protocol} {to} {OTHER_PORT}"), "refused");
                client.tries(&format!("{protocol} {} {PORT}", family.far_second()), "refused");
                client.tries(&format!("{protocol} {} {PORT}", family.gateway()), "refused");
                client.tries(&format!("{protocol} {} {PORT}", family.host()), "refused");
                refused.push((protocol, std::net::SocketAddr::new(to, OTHER_PORT).to_string(), "default"));
                for (at, why) in [
                    (family.far_second(), "default"),
                    (family.gateway(), "host-loopback"),
                    (family.host(), "host-address"),
                ] {
                    refused.push((protocol, std::net::SocketAddr::new(at, PORT).to_string(), why));
                }
            }
            client.tries(&format!("ping {to}"), "refused");
        }
        // Fragments, and a name server of one's own.
        client.tries(&format!("udp {far} {PORT} 8000"), "reached");
        client.tries(&format!("udp {second} {PORT} 8000"), "refused");
        client.tries(&format!("udp {second} 53"), "refused");
        client.tries(&format!("tcp {second} 53"), "refused");
        // An IPv6 socket.
        client.tries(&format!("tcp ::ffff:{far} {PORT}"), "reached");
        client.tries(&format!("tcp ::ffff:{second} {PORT}"), "refused");
        client.tries(&format!("tcp ::ffff:{METADATA_ADDRESS} {PORT}"), "refused");
        client.tries(&format!("tcp 64:ff9b::{METADATA_ADDRESS} {PORT}"), "refused");
        // A name that is allowed, with addresses that never are.
        client.0.write(b"ask rebind.test\n");
        client.0.expect("ask rebind.test -> ");
        client.0.expect("\n");
        for (address, reason) in [
            (HOST_ADDRESS.to_string(), "host-address"),
            (METADATA_ADDRESS.to_string(), "link-local"),
        ] {
            for protocol in ["tcp", "udp"] {
                client.tries(&format!("{protocol} {address} {PORT}"), "refused");
                refused.push((protocol, format!("{address}:{PORT}"), reason));
            }
        }
        refused.push(("icmp", format!("{far}:0"), "default"));
        refused.push(("udp", format!("{second}:53"), "default"));
        client.finish();
        let log = log_of(&log);
        for (protocol, to, reason) in refused {
            assert_logged(&log, protocol, &to, reason);
        }
        let to = format!("{far}:{OTHER_PORT}");
        let line = log.iter().find(|line| line["destination"] == to).unwrap();
        assert_eq!(line["name"], "allowed.test", "{line}");
        assert!(line["source"].as_str().unwrap().starts_with("10.0.2.100:"), "{line}");
        // No query of a name that is not allowed has left the container.
        let asked = world.zone.asked();
        assert!(asked.iter().all(|name| name == "allowed.test" || name == "rebind.test"), "{asked:?}");
    }

    fn networks_protocols_and_denials(who) {
        let world = World::new(routed_host!(who, "python3"));
        let (far, second) = (Family::V4.far(), Family::V4.far_second());
        let mut client = world.client(who, &[
            "--net-allow=tcp:198.18.0.0/15:7001",
            "--net-allow=[2001:db8::/32]:7001",
            "--net-allow=*.wild.test:7002,icmp:*",
            &format!("--net-deny={second}"),
        ]);
        client.tries(&format!("tcp {far} {PORT}"), "reached");
        client.tries(&format!("udp {far} {PORT}"), "refused");
        client.tries(&format!("tcp {second} {PORT}"), "refused");
        client.tries(&format!("tcp {HOST_ADDRESS} {PORT}"), "refused");
        client.tries(&format!("ping {far}"), "reached");
        client.tries(&format!("ping {second}"), "refused");
        client.tries(&format!("udp {} {PORT}", Family::V6.far()), "reached");
        client.tries(&format!("tcp {far} {OTHER_PORT}"), "refused");
        client.0.write(b"ask sub.wild.test\n");
        client.0.expect("ask sub.wild.test -> 198.18.1.1 2001:db8:1::1\n");
        client.tries(&format!("tcp {far} {OTHER_PORT}"), "reached");
        let output = client.finish();
        // Without a file they are messages.
        assert!(output.stderr.contains("refused by the network policy"), "{output}");
        // What is denied alone leaves the rest open.
        let mut client = world.client(who, &[&format!("--net-deny=tcp:{far}:7001,other.test")]);
        client.tries("ask other.test", "no name");
        client.tries("ask alias.test", "no name");
        client.tries(&format!("tcp {far} {PORT}"), "refused");
        client.tries(&format!("tcp {far} {OTHER_PORT}"), "reached");
        client.tries(&format!("udp {far} {PORT}"), "reached");
        client.finish();
    }

    /// Whoever asks by TCP is judged likewise, and told why.
    fn dns_over_tcp(who) {
        let world = World::new(routed_host!(who, "python3", "dig"));
        let far = Family::V4.far();
        let script = format!("
            dig +tcp +short @10.0.2.3 allowed.test
            dig +tcp +short @10.0.2.3 big.test | wc -l
            dig +short @10.0.2.3 big.test | grep {far}
            dig +tcp @10.0.2.3 other.test | grep -e status -e EDE
            dig +notcp @10.0.2.3 other.test | grep -e status -e EDE
            dig +tcp +keepopen @10.0.2.3 other.test allowed.test other.test allowed.test | grep -c 198.18
            dig +tcp @10.0.2.3 -x {far} | grep status
            printf 'tcp {far} 7001\\nudp {far} 7001\\n' | /usr/bin/python3 -c \"$1\"");
        let printed = who.crun(&[
            "--net-allow=allowed.test:7001,dns:big.test", "--rootfs=/", "--",
            "sh", "-c", &script, "sh", CLIENT,
        ]).on(&world.host).run().success();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[..3], ["198.18.1.1", "41", "198.18.1.1"], "{printed}");
        for pair in [&lines[3..5], &lines[5..7]] {
            assert!(pair[0].contains("status: NXDOMAIN"), "{printed}");
            assert!(pair[1].contains("EDE: 15 (Blocked)"), "{printed}");
        }
        assert_eq!(lines[7], "2", "{printed}");
        assert!(lines[8].contains("NXDOMAIN"), "{printed}");
        assert_eq!(lines[9..], ["tcp 198.18.1.1 7001 -> reached", "udp 198.18.1.1 7001 -> reached"]);
        let asked = world.zone.asked();
        assert!(asked.iter().all(|name| name == "allowed.test" || name == "big.test"), "{asked:?}");
    }

    /// They are ours to answer, whatever the rules, and lead nowhere by themselves.
    fn names_of_our_own_are_answered(who) {
        let world = World::new(routed_host!(who, "python3", "dig"));
        let script = "dig +short @10.0.2.3 host.containers.internal box
            dig +short @10.0.2.3 -x 10.0.2.2
            printf 'tcp 10.0.2.2 7001\\ntcp 198.18.1.1 7001\\n' | /usr/bin/python3 -c \"$1\"";
        let printed = who.crun(&[
            "--net-allow=host.containers.internal,given.test", "--hostname=box",
            "--add-host=given.test:198.18.1.1", "--rootfs=/", "--", "sh", "-c", script, "sh", CLIENT,
        ]).on(&world.host).run().success();
        assert_eq!(
            printed,
            "10.0.2.2\n10.0.2.100\nhost.containers.internal.\ntcp 10.0.2.2 7001 -> refused\n\
             tcp 198.18.1.1 7001 -> reached\n"
        );
        assert_eq!(world.zone.asked(), [""; 0]);
    }

    fn rules_change_while_it_runs(who) {
        let world = World::new(routed_host!(who, "python3"));
        let host = &world.host;
        let (far, second) = (Family::V4.far(), Family::V4.far_second());
        let name = format!("rules-{who:?}");
        let mut client = world.client(who, &["--net-allow=icmp:192.0.2.0/24", &format!("--name={name}")]);
        client.tries(&format!("tcp {far} {PORT}"), "refused");
        ask(who, host, &["net", "allow", &name, "198.18.1.0/24:7001,allowed.test"]).success();
        client.tries(&format!("tcp {far} {PORT}"), "reached");
        client.tries(&format!("tcp {far} {OTHER_PORT}"), "refused");
        client.0.write(b"ask allowed.test\n");
        client.0.expect("ask allowed.test -> 198.18.1.1 2001:db8:1::1\n");
        client.tries(&format!("tcp {far} {OTHER_PORT}"), "reached");
        ask(who, host, &["net", "deny", &name, &format!("{far}:7001")]).success();
        client.tries(&format!("tcp {far} {PORT}"), "refused");
        client.tries(&format!("tcp {second} {PORT}"), "reached");
        let told = ask(who, host, &["net", "rules", &name]).success();
        assert_eq!(
            told,
            "deny 198.18.1.1:7001\nallow icmp:192.0.2.0/24\nallow 198.18.1.0/24:7001\n\
             allow allowed.test\ndefault deny\n"
        );
        let json: Value = serde_json::from_str(&ask(who, host, &["net", "rules", "--json", &name]).success()).unwrap();
        assert_eq!(json["deny"][0], "198.18.1.1:7001");
        // All or none.
        for words in [
            &["net", "allow", &name, "198.18.2.1", "a b"][..],
            &["net", "allow", "--remove", &name, "allowed.test", "198.18.9.9"],
            &["net", "deny", &name, "allowed.test:80"],
        ] {
            ask(who, host, words).exit(125);
        }
        assert_eq!(ask(who, host, &["net", "rules", &name]).success(), told);
        ask(who, host, &["net", "deny", "--remove", &name, &format!("{far}:7001")]).success();
        client.tries(&format!("tcp {far} {PORT}"), "reached");
        ask(who, host, &["net", "default", &name, "allow"]).success();
        client.tries(&format!("udp {second} {PORT}"), "reached");
        client.tries("ask other.test", "198.18.1.1 2001:db8:1::1");
        client.finish();
    }

    /// As many rules as there may be, with long names, are one request.
    fn many_rules_with_long_names(who) {
        let world = World::new(routed_host!(who, "python3"));
        let name = format!("many-{who:?}");
        let client = world.client(who, &["--net-allow=198.18.1.1", &format!("--name={name}")]);
        let label = "x".repeat(60);
        let names: Vec<_> = (0..999).map(|n| format!("n{n}.{label}.{label}.{label}.test")).collect();
        let mut words = vec!["net", "allow", &name];
        words.extend(names.iter().map(String::as_str));
        ask(who, &world.host, &words).success();
        let told = ask(who, &world.host, &["net", "rules", &name]).success();
        assert_eq!(told.lines().filter(|line| line.contains(&label)).count(), 999);
        // One more than that.
        let refused = ask(who, &world.host, &["net", "allow", &name, "more.test"]).exit(125);
        assert!(refused.stderr.contains("1000"), "{refused}");
        client.finish();
    }

    /// A connection ends when its destination is denied, and only then.
    fn a_denial_ends_what_stands(who) {
        let world = World::new(routed_host!(who, "python3"));
        let host = &world.host;
        let server = crate::util::servers::TcpServer::echo(host, Side::Far, Family::V4.far());
        let name = format!("ends-{who:?}");
        let script = format!("
import socket, sys
socket.getaddrinfo('allowed.test', None)
s = socket.create_connection(('{}', {}))
for line in sys.stdin:
    try:
        s.sendall(line.encode())
        print('echo' if s.recv(100) else 'end', flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
", Family::V4.far(), server.port());
        let log = who.folder();
        let log_option = format!("--net-log={}", log.path().join("log").display());
        let args = ["-i", "--net-allow=allowed.test", &format!("--name={name}"), &log_option, "--rootfs=/", "--", "/usr/bin/python3", "-c", &script];
        let mut run = who.crun(&args).on(host).stdin_open().spawn();
        run.write(b"one\n");
        run.expect("echo\n");
        // What has nothing to do with it, in both directions.
        ask(who, host, &["net", "allow", &name, "other.test"]).success();
        ask(who, host, &["net", "deny", &name, "198.18.1.2"]).success();
        run.write(b"two\n");
        run.expect("echo\n");
        ask(who, host, &["net", "allow", "--remove", &name, "allowed.test"]).success();
        run.write(b"three\n");
        run.expect("ConnectionResetError\n");
        run.close_stdin();
        run.finish().exit(0);
        let log = log_of(&log.path().join("log"));
        let line = log.iter().find(|line| line["ended"] == true);
        let line = line.unwrap_or_else(|| panic!("{log:?}"));
        assert_eq!((&line["name"], &line["reason"]), (&"allowed.test".into(), &"default".into()));
    }

    /// A container that does nothing but be refused costs little, and all is accounted for.
    fn a_flood_of_refusals_is_bounded(who) {
        let world = World::new(routed_host!(who, "python3"));
        let host = &world.host;
        let folder = who.folder();
        let log = folder.path().join("log");
        let name = format!("flood-{who:?}");
        let script = format!("
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(1, 30001):
    try:
        s.sendto(b'x', ('{}', port))
    except OSError:
        pass
print('done', flush=True)
sys.stdin.read()", Family::V4.far());
        let args = ["-i", "--net-default=deny", &format!("--name={name}"),
            &format!("--net-log={},size=128k", log.display()),
            "--rootfs=/", "--", "/usr/bin/python3", "-c", &script];
        let mut run = who.crun(&args).on(host).stdin_open().spawn();
        run.expect("done\n");
        let denied = || {
            let stats = ask(who, host, &["net", "stats", "--json", &name]).success();
            serde_json::from_str::<Value>(&stats).unwrap()["denied_total"].as_u64().unwrap()
        };
        let mut last = 0;
        eventually("all has been judged", SOON, || {
            let before = std::mem::replace(&mut last, denied());
            last > 0 && before == last
        });
        run.close_stdin();
        run.finish().exit(0);
        let mut lines = log_of(&log);
        if let Ok(older) = fs::read_to_string(folder.path().join("log.1")) {
            lines.extend(older.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
        assert_eq!(sum("count") + sum("suppressed"), last, "{lines:?}");
        assert!(lines.len() < 1000, "{} lines", lines.len());
    }

    /// A published port is open to clients, whatever the rules, and so are its answers.
    fn published_ports_are_the_owners(who) {
        let host = routed_host!(who, "python3");
        let script = "/usr/bin/python3 -c \"$1\" 0.0.0.0 7001";
        let run = who.crun(&[
            "--net-default=deny", "-p", "7000:7001", "-p", "7000:7001/udp",
            "--rootfs=/", "--", "sh", "-ec", script, "sh", whoami::SCRIPT,
        ]).on(&host).spawn();
        run.expect("ready\n");
        let target = Family::V4.host().to_string();
        let words = ["/usr/bin/python3", "-c", whoami::CLIENT, &target, "7000"];
        let told = host.tool_on(Side::Far, &words);
        assert_eq!(told.matches(&Family::V4.far().to_string()).count(), 2, "{told}");
    }

    fn the_plan_tells_the_rules(who) {
        let args = ["--dry-run", "--net-allow=Example.ORG.:443,tcp:[::ffff:10.0.0.0/104]:1-2", "--net-deny=any:25"];
        let printed = who.run(&args).success();
        for line in [
            "deny the container's traffic to *:25",
            "allow the container's traffic to example.org:443",
            "allow the container's traffic to tcp:10.0.0.0/8:1-2",
            "deny its traffic to all else",
        ] {
            assert!(printed.contains(line), "{printed}");
        }
        let json = CrunLite::new(who, &["--log-format=json", "run", "--dry-run", "--net-default=deny"]);
        let json: Value = serde_json::from_str(&json.run().success()).unwrap();
        assert_eq!(json["egress"]["default"], "deny");
    }
}
