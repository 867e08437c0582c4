//! Real kernels on both ends of a network that loses, delays, repeats, reorders and alters
//! packets (tc-netem(8)): every byte of a stream arrives, in order and as it was.
//!
//! Where the kernel has no `sch_netem`, which Debian's own has, packets are only lost, by
//! nft(8). `CRUN_LITE_NETEM_MIB` says how much goes each way in each weather.

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

/// What befalls the packets of each direction.
const LOSS: &str = "loss 2%";
const WEATHERS: &[&str] = &[
    LOSS,
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

/// A host with a machine behind a router, and a bad network between these.
struct Outdoors {
    host: Host,
    has_netem: bool,
}

impl Outdoors {
    /// The weather is fine so far.
    fn new(host: Host) -> Self {
        let add = "tc qdisc add dev world1 root netem 2>/dev/null && echo yes || echo no";
        let has_netem = host.tool_on(Side::World, &["sh", "-c", add]) == "yes\n";
        if has_netem {
            let add = "tc qdisc add dev far0 root netem";
            host.tool_on(Side::Far, &["sh", "-ec", add]);
        } else {
            report("this kernel has no sch_netem: packets are only lost");
            let table = "nft add table inet weather
                nft add chain inet weather between '{ type filter hook forward priority 0; }'";
            host.tool_on(Side::World, &["sh", "-ec", table]);
        }
        Self { host, has_netem }
    }

    /// Those that can be had here.
    fn weathers(&self) -> &'static [&'static str] {
        if self.has_netem { WEATHERS } else { &[LOSS] }
    }

    /// Lets a weather befall the packets of both directions between the router and the
    /// machine.
    fn change(&self, weather: &str) {
        if !self.has_netem {
            assert_eq!(weather, LOSS);
            let change = "nft flush chain inet weather between
                nft add rule inet weather between numgen random mod 1000 '< 20' counter drop";
            self.host.tool_on(Side::World, &["sh", "-ec", change]);
            return;
        }
        for (side, device) in [(Side::World, "world1"), (Side::Far, "far0")] {
            let change = self.befalls(device, weather).replace(" add ", " replace ");
            self.host.tool_on(side, &["sh", "-ec", &change]);
        }
    }

    /// A command after which a weather befalls what a link carries: where only nft(8) can
    /// do it, in both directions, else in that of the kernel.
    fn befalls(&self, device: &str, weather: &str) -> String {
        if self.has_netem {
            return format!("tc qdisc add dev {device} root netem limit 10000 {weather}");
        }
        let chain = |hook: &str| {
            format!(
                "chain at_{hook} {{ type filter hook {hook} device {device} priority 0; \
                 numgen random mod 1000 < 20 drop; }}"
            )
        };
        let (to, from) = (chain("ingress"), chain("egress"));
        format!("nft 'table netdev weather {{ {to}; {from}; }}'")
    }

    /// What the weather has done to packets so far; it must have done something.
    fn told(&self) -> String {
        let (ask, key) = if self.has_netem {
            ("tc -s qdisc show dev world1", "dropped ")
        } else {
            ("nft list chain inet weather between", "packets ")
        };
        let told = self.host.tool_on(Side::World, &["sh", "-ec", ask]);
        let line = told.lines().find(|line| line.contains(key));
        let line = line.unwrap_or_default().trim();
        assert!(
            !line.contains(&format!("{key}0 ")) && !line.contains(&format!("{key}0,")),
            "{line}"
        );
        line.to_owned()
    }
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
        let outdoors = Outdoors::new(routed_host!(who, "python3", "tc", "nft"));
        let host = &outdoors.host;
        for &family in Family::ALL {
            let server = TcpServer::echo(host, Side::Far, family.far());
            let far = family.far().to_string();
            let script = client(&far, server.port(), FLOWS, (mib() << 20) / FLOWS, "");
            for weather in outdoors.weathers() {
                outdoors.change(weather);
                let output = in_container(who, host, &[], &script).run();
                whole(&format!("{weather}, out, {family:?}, {who:?}"), output);
            }
            report(&outdoors.told());
        }
    }

    /// Both ends of the host's connections are far away in the other direction, too.
    fn streams_to_a_published_port_are_whole(who) {
        let outdoors = Outdoors::new(routed_host!(who, "python3", "tc", "nft"));
        let host = &outdoors.host;
        let server = "
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(65536):
            self.request.sendall(piece)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    # With less room a kernel answers by SYN cookies, and resets a client whose first segment
    # it has dropped for want of it when the second comes.
    request_queue_size = 128
server = Server(('', 7000), Echo)
print('up', flush=True)
server.serve_forever()";
        let args = [
            "--net=builtin", "-p", "7000:7000", "--rootfs=/", "--", "python3", "-c", server,
        ];
        let run = who.crun(&args).on(host).limit(patience() * 5).spawn();
        run.expect("up\n");
        let at = Family::V4.host().to_string();
        let script = client(&at, 7000, FLOWS, (mib() << 20) / FLOWS, "");
        for weather in outdoors.weathers() {
            outdoors.change(weather);
            let command = "echo go | python3 -c \"$1\"";
            let said = host.tool_on(Side::Far, &["sh", "-ec", command, "sh", &script]);
            assert_eq!(said, "ready\nwhole\n", "{weather}");
        }
        report(&format!("netem, published, {who:?}: {}", outdoors.told()));
    }

    /// Also the container's own link: here its kernel is one end and the stack the other.
    fn streams_over_a_bad_link_are_whole(who) {
        let outdoors = Outdoors::new(routed_host!(who, "python3", "tc", "nft"));
        let host = &outdoors.host;
        let far = Family::V4.far().to_string();
        let server = TcpServer::echo(host, Side::Far, Family::V4.far());
        let script = client(&far, server.port(), FLOWS, (mib() << 20) / FLOWS, "");
        for weather in outdoors.weathers() {
            for mtu in ["1500", "65520"] {
                let net = format!("--net=builtin:mtu={mtu}");
                let bad = outdoors.befalls("tap0", weather);
                let bad = format!("{bad} && exec python3 -c \"$1\"");
                let args = [
                    "-i", &net, "--cap-add=NET_ADMIN", "--rootfs=/", "--", "sh", "-c", &bad, "sh",
                    &script,
                ];
                let run = who.crun(&args).on(host).stdin("go\n").limit(patience());
                whole(&format!("{weather}, on the TAP, MTU {mtu}, {who:?}"), run.run());
            }
        }
    }

    /// None is altered, and most of those arrive that can.
    fn datagrams_are_lost_but_never_altered(who) {
        let outdoors = Outdoors::new(routed_host!(who, "python3", "tc", "nft"));
        let host = &outdoors.host;
        let server = UdpServer::echo(host, Side::Far, Family::V4.far());
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
        for weather in outdoors.weathers() {
            outdoors.change(weather);
            let output = in_container(who, host, &[], &script).run();
            let seen: u32 = output.success().trim().parse().unwrap();
            report(&format!("netem, {weather}, datagrams, {who:?}: {seen} of 2000"));
            assert!(seen > 1500, "{weather}: {seen} of 2000 have been answered");
        }
    }
}
