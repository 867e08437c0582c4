//! Real kernels on both ends of a network that loses, delays, repeats, reorders and alters
//! packets (tc-netem(8)): every byte of a stream arrives, in order and as it was.
//!
//! The kernel must have `sch_netem`, which Debian's own has. `CRUN_LITE_NETEM_MIB` says how
//! much goes each way in each weather.

use std::time::Duration;

use crate::util::command::{CrunLite, Output};
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::streams::client;
use crate::util::{Family, Host, Side, Who, number_from_env, report};

/// Flows at once.
const FLOWS: u64 = 8;
/// How long one transfer may take: a minute and half a minute for each MiB, as
/// retransmission timers that back off have it.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_A_MIB: Duration = Duration::from_secs(30);

/// What befalls the packets of one direction.
const WEATHERS: &[&str] = &[
    "loss 2%",
    "delay 4ms reorder 25% 50%",
    "duplicate 5%",
    "corrupt 2%",
    "delay 3ms 2ms loss 1% duplicate 1% corrupt 1%",
];

fn mib() -> u64 {
    number_from_env("CRUN_LITE_NETEM_MIB", 8)
}

fn patience() -> Duration {
    PATIENCE + PATIENCE_A_MIB * u32::try_from(mib()).unwrap()
}

/// Puts a weather, fine so far, between the router of a host and the machine behind it.
fn under_weather(host: Host) -> Option<Host> {
    let add = "tc qdisc add dev world1 root netem 2>/dev/null && echo yes || echo no";
    if host.tool_on(Side::World, &["sh", "-c", add]) == "yes\n" {
        host.tool_on(
            Side::Far,
            &["tc", "qdisc", "add", "dev", "far0", "root", "netem"],
        );
        return Some(host);
    }
    // Not `need!`: CI runs on whatever kernel there is.
    report("SKIP this kernel has no sch_netem");
    None
}

/// Lets a weather befall the packets of both directions between the router and the machine.
fn change(host: &Host, weather: &str) {
    for (side, device) in [(Side::World, "world1"), (Side::Far, "far0")] {
        let change = format!("tc qdisc change dev {device} root netem limit 10000 {weather}");
        host.tool_on(side, &["sh", "-ec", &change]);
    }
}

/// What the weather has done to packets so far, for the record.
fn told(host: &Host) -> String {
    let told = host.tool_on(Side::World, &["tc", "-s", "qdisc", "show", "dev", "world1"]);
    let sent = told.lines().find(|line| line.contains("Sent"));
    sent.unwrap_or_default().trim().to_owned()
}

/// Holds a client to having had its streams whole.
#[track_caller]
fn whole(what: &str, output: Output) {
    let took = output.took;
    let output = output.exit(0);
    assert_eq!(output.stdout, "ready\nwhole\n", "{what}{output}");
    report(&format!(
        "netem, {what}: {} MiB each way in {took:?}",
        mib()
    ));
}

/// A client in a container.
fn in_container(who: Who, host: &Host, options: &[&str], script: &str) -> CrunLite {
    let command = ["--rootfs=/", "--", "python3", "-c", script];
    who.crun(&[&["-i", "--net=builtin"], options, &command].concat())
        .on(host)
        .stdin("go\n")
        .limit(patience())
}

both! {
    fn streams_from_a_container_are_whole(who) {
        let Some(host) = under_weather(routed_host!(who, "python3", "tc")) else { return };
        for &family in Family::ALL {
            let server = TcpServer::echo(&host, Side::Far, family.far());
            let far = family.far().to_string();
            let script = client(&far, server.port(), FLOWS, (mib() << 20) / FLOWS, "");
            for weather in WEATHERS {
                change(&host, weather);
                let output = in_container(who, &host, &[], &script).run();
                whole(&format!("{weather}, out, {family:?}, {who:?}"), output);
            }
            report(&told(&host));
        }
    }

    /// Both ends of the host's connections are far away in the other direction, too.
    fn streams_to_a_published_port_are_whole(who) {
        let Some(host) = under_weather(routed_host!(who, "python3", "tc")) else { return };
        let server = "
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(65536):
            self.request.sendall(piece)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
server = Server(('', 7000), Echo)
print('up', flush=True)
server.serve_forever()";
        let args = [
            "--net=builtin", "-p", "7000:7000", "--rootfs=/", "--", "python3", "-c", server,
        ];
        let run = who.crun(&args).on(&host).limit(patience() * 5).spawn();
        run.expect("up\n");
        let at = Family::V4.host().to_string();
        let script = client(&at, 7000, FLOWS, (mib() << 20) / FLOWS, "");
        for weather in WEATHERS {
            change(&host, weather);
            let command = "echo go | python3 -c \"$1\"";
            let said = host.tool_on(Side::Far, &["sh", "-ec", command, "sh", &script]);
            assert_eq!(said, "ready\nwhole\n", "{weather}");
        }
        report(&format!("netem, published, {who:?}: {}", told(&host)));
    }

    /// Also the container's own link: here its kernel is one end and the stack the other.
    fn streams_over_a_bad_link_are_whole(who) {
        let Some(host) = under_weather(routed_host!(who, "python3", "tc")) else { return };
        let far = Family::V4.far().to_string();
        let server = TcpServer::echo(&host, Side::Far, Family::V4.far());
        let script = client(&far, server.port(), FLOWS, (mib() << 20) / FLOWS, "");
        for weather in WEATHERS {
            for mtu in ["1500", "65520"] {
                let net = format!("--net=builtin:mtu={mtu}");
                let bad = format!(
                    "tc qdisc add dev tap0 root netem limit 10000 {weather} && exec python3 -c \"$1\""
                );
                let args = [
                    "-i", &net, "--cap-add=NET_ADMIN", "--rootfs=/", "--", "sh", "-c", &bad, "sh",
                    &script,
                ];
                let run = who.crun(&args).on(&host).stdin("go\n").limit(patience());
                whole(&format!("{weather}, on the TAP, MTU {mtu}, {who:?}"), run.run());
            }
        }
    }

    /// None is altered, and most of those arrive that can.
    fn datagrams_are_lost_but_never_altered(who) {
        let Some(host) = under_weather(routed_host!(who, "python3", "tc")) else { return };
        let server = UdpServer::echo(&host, Side::Far, Family::V4.far());
        let script = format!("
import hashlib, select, socket
assert input() == 'go'
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('{}', {}))
COUNT = 2000
def text(number):
    body = b'%d ' % number + bytes(number % 1200)
    return hashlib.sha256(body).digest() + body
sent, seen = {{text(number) for number in range(COUNT)}}, set()
def take(patience):
    while select.select([s], [], [], patience)[0]:
        datagram = s.recv(65536)
        assert datagram in sent, 'altered: %r' % datagram[:80]
        seen.add(datagram)
lost = 0
for number in range(COUNT):
    s.send(text(number))
    take(0)
    # No more under way than buffers of sockets hold: they would lose some, too.
    if number - len(seen) - lost > 32:
        take(0.1)
        lost = number - len(seen)
take(2)
print(len(seen))", Family::V4.far(), server.port());
        for weather in WEATHERS {
            change(&host, weather);
            let output = in_container(who, &host, &[], &script).run();
            let seen: u32 = output.success().trim().parse().unwrap();
            report(&format!("netem, {weather}, datagrams, {who:?}: {seen} of 2000"));
            assert!(seen > 1500, "{weather}: {seen} of 2000 have been answered");
        }
    }
}
