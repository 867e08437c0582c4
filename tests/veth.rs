//! The veth link: hosts without a usable `/dev/net/tun`, and what a container can
//! do to its link.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::util::command::CrunLite;
use crate::util::servers::TcpServer;
use crate::util::{Host, Side, Who, eventually, has_program, http, number_from_env, report};

/// What is wrong with `/dev/net/tun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tun {
    /// There is no such node.
    Missing,
    /// It is root's alone (mode 0600).
    Closed,
    /// It is something else.
    Other,
}

impl Tun {
    /// All that hold the user up: root opens what is closed.
    fn all(who: Who) -> &'static [Self] {
        match who {
            Who::Root => &[Self::Missing, Self::Other],
            Who::User => &[Self::Missing, Self::Closed, Self::Other],
        }
    }

    /// What the system says of it.
    fn reason(self) -> &'static str {
        match self {
            Self::Missing => "No such file or directory",
            Self::Closed => "Permission denied",
            Self::Other => "Inappropriate ioctl for device",
        }
    }

    /// Words before a program that is to meet it, in a mount namespace of its own.
    fn words(self) -> [&'static str; 6] {
        let script = match self {
            Self::Missing => "mount -t tmpfs none /dev/net && exec \"$@\"",
            Self::Closed => {
                "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200 && exec \"$@\""
            }
            Self::Other => {
                "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 1 3 && exec \"$@\""
            }
        };
        ["unshare", "--mount", "--", "sh", "-c", script]
    }
}

/// A run on a host whose `/dev/net/tun` is of no use.
fn without_tun(who: Who, tun: Tun, host: &Host, args: &[&str]) -> CrunLite {
    let run = CrunLite::new(who, args).on(host);
    run.innermost(&tun.words()).innermost(&["sh"])
}

/// Python's words for a packet that the container itself would never send, and for
/// requests to its kernel.
const HOSTILE: &str = r#"
import socket, struct, sys
IFLA_IFNAME, IFLA_TARGET_NETNSID = 3, 46
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
def attribute(kind, value):
    return struct.pack('HH', 4 + len(value), kind) + value + b'\0' * (-len(value) % 4)
def far(kind, up=None):
    """Asks something of the far end, by the number of its namespace."""
    change = 0 if up is None else 1
    body = struct.pack('BxHiII', 0, 0, 0, 1 if up else 0, change)
    body += attribute(IFLA_TARGET_NETNSID, struct.pack('i', 0)) + attribute(IFLA_IFNAME, b'far0\0')
    rtnl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    rtnl.send(struct.pack('IHHII', 16 + len(body), kind, 5, 1, 0) + body)
    answer = rtnl.recv(65536)
    if struct.unpack_from('H', answer, 4)[0] != 2:
        return 'an answer'
    error = -struct.unpack_from('i', answer, 16)[0]
    import errno
    return errno.errorcode.get(error, 'done')
"#;

fn hostile(lines: &str) -> String {
    format!("python3 - <<'END'\n{HOSTILE}\n{lines}\nEND")
}

both! {
    fn without_a_tap_there_is_a_network(who) {
        need!(Who::tests_run_as_root(), "to hide /dev/net/tun needs root");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let net = "--net=builtin:link=auto,allow_host_loopback=true";
        let script = format!(
            "echo hello | nc 10.0.2.2 {}; ls /sys/class/net; cat /sys/class/net/tap0/mtu",
            server.port()
        );
        for &tun in Tun::all(who) {
            let args = ["--log-level=info", "run", net, "--", "sh", "-c", &script];
            let output = without_tun(who, tun, &host, &args).run().exit(0);
            assert_eq!(output.stdout, "hello\nlo\ntap0\n65520\n", "{tun:?}{output}");
            let told = output.stderr.lines().find(|line| line.contains("veth"));
            let told = told.unwrap_or_else(|| panic!("{tun:?}: it is not told{output}"));
            for part in ["there is no TAP", "/dev/net/tun", tun.reason()] {
                assert!(told.contains(part), "{tun:?}: {part:?} is not in {told:?}");
            }
        }
    }

    fn a_tap_that_was_asked_for_is_a_tap_or_an_error(who) {
        need!(Who::tests_run_as_root(), "to hide /dev/net/tun needs root");
        let host = Host::new();
        for &tun in Tun::all(who) {
            let args = ["run", "--net=builtin:link=tap", "--", "true"];
            let mut names = vec!["/dev/net/tun", tun.reason()];
            if tun != Tun::Other {
                names.push("link=veth");
            }
            without_tun(who, tun, &host, &args).run().refused(&names);
        }
    }

    fn the_plan_says_what_the_link_will_be(who) {
        need!(Who::tests_run_as_root(), "to hide /dev/net/tun needs root");
        let host = Host::new();
        let plan = |tun, link: &str| {
            let net = format!("--net=builtin:link={link}");
            let args = ["run", "--dry-run", &net, "--", "true"];
            let printed = without_tun(who, tun, &host, &args).run().success();
            let line = printed.lines().find(|line| line.contains("bring up lo"));
            line.unwrap().to_owned()
        };
        for &tun in Tun::all(who) {
            let auto = plan(tun, "auto");
            assert!(auto.contains("veth") && auto.contains(tun.reason()), "{auto}");
            assert!(plan(tun, "tap").ends_with("a TAP device"));
            assert!(plan(tun, "veth").ends_with("veth pair"));
        }
    }

    fn what_it_took_is_told(who) {
        let told = |link: &str| {
            let net = format!("--net=builtin:link={link}");
            let args = ["--log-level=info", "run", &net, "--", "true"];
            let output = CrunLite::new(who, &args).run().exit(0);
            let line = output.stderr.lines().find(|line| line.contains("link is"));
            line.unwrap_or_else(|| panic!("{link}: it is not told{output}")).to_owned()
        };
        assert!(told("veth").ends_with("link is a veth pair"));
        if who.can(&["sh", "-c", ": <>/dev/net/tun"]) {
            for link in ["auto", "tap"] {
                assert!(told(link).ends_with("link is a TAP device"), "{link}");
            }
        }
    }

    fn transfers_are_whole_over_a_veth_pair(who) {
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        let bytes = number_from_env("CRUN_LITE_TRANSFER_MIB", 128) << 20;
        let expected = http::sha256_of_bytes(bytes);
        for mtu in [65520, 1500, 576] {
            let net = format!("--net=builtin:link=veth,allow_host_loopback=true,mtu={mtu}");
            let url = format!("http://10.0.2.2:{}", server.port());
            let script = format!(
                "curl -sS {url}/bytes/{bytes} | sha256sum; \
                 curl -sS {url}/bytes/{bytes} | curl -sS -T - {url}/up"
            );
            let run = who.crun(&[&net, "--rootfs=/", "--", "sh", "-c", &script]).on(&host);
            let output = run.limit(Duration::from_secs(300)).run().exit(0);
            assert_eq!(output.stdout, format!("{expected}  -\n{expected}"), "{mtu}{output}");
            report(&format!("MTU {mtu}, {who:?}: three times {bytes} bytes in {:?}", output.took));
        }
    }

    fn many_streams_at_once_are_whole_over_a_veth_pair(who) {
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        let bytes = 8 << 20;
        let expected = http::sha256_of_bytes(bytes);
        let net = "--net=builtin:link=veth,allow_host_loopback=true";
        let url = format!("http://10.0.2.2:{}", server.port());
        // Together they have more on its way than the ring holds.
        let script = format!(
            "curl -sS {url}/bytes/{bytes} > /tmp/data
             for i in $(seq 40); do curl -sS -T /tmp/data {url}/up > /tmp/$i & done; wait
             for i in $(seq 40); do cat /tmp/$i; echo; done | sort | uniq -c"
        );
        let args = [net, "--rootfs=/", "--tmpfs=/tmp", "--", "sh", "-c", &script];
        let run = who.crun(&args).on(&host).limit(Duration::from_secs(300));
        assert_eq!(run.run().success().trim(), format!("40 {expected}"));
    }

    /// The command has ended when most of it is still in the kernel of its namespace.
    fn what_was_sent_last_arrives(who) {
        need!(has_program("python3"), "no python3");
        let host = Host::new();
        let server = http::start(&host);
        let script = format!("
import socket
s = socket.create_connection(('10.0.2.2', {port}))
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
body = b'x' * 1000000
s.sendall(b'PUT /up HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
", port = server.port());
        let net = "--net=builtin:link=veth,allow_host_loopback=true";
        who.crun(&[net, "--rootfs=/", "--", "python3", "-c", &script]).on(&host).run().exit(0);
    }

    /// By the number of namespaces that the container may have: two at a time.
    fn nothing_is_left_of_a_veth_pair(who) {
        // Namespaces end in the background, so a run may have to be tried again.
        let script = "
            echo 2 > /proc/sys/user/max_net_namespaces || exit 9
            out=$(mktemp)
            for round in 1 2 3 4; do
                try=0
                until : > $out; \"$@\" > $out 2> $out.err & pid=$!
                    while ! grep -q up $out && kill -0 $pid 2> /dev/null; do sleep 0.02; done
                    grep -q up $out
                do
                    wait $pid
                    try=$((try+1))
                    [ $try -lt 200 ] || { cat $out.err; echo left; exit 1; }
                    sleep 0.05
                done
                [ $round -gt 2 ] || kill -KILL $pid
                [ $round -lt 3 ] || kill -TERM $pid
                wait $pid
            done
            rm -f $out $out.err
            ip -oneline link | grep -c -e far0 -e tap0
            echo nothing";
        let args = [
            "run", "--uidmap=0:0:1", "--net=builtin:link=veth", "--", "sh", "-c", "trap 'exit 0' TERM; echo up; sleep 1000 & wait",
        ];
        // The limit is that of a user namespace around it.
        let run = CrunLite::new(who, &args).through(&[
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "--",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        assert_eq!(run.run().success(), "0\nnothing\n");
    }

    fn the_far_end_is_out_of_reach(who) {
        need!(has_program("python3"), "no python3");
        let host = Host::new();
        let script = hostile("
print(far(RTM_GETLINK), far(RTM_NEWLINK, up=False), far(RTM_DELLINK))");
        let args = ["--net=builtin:link=veth", "--rootfs=/", "--", "sh", "-c", &script];
        assert_eq!(who.crun(&args).on(&host).run().success(), "EACCES EPERM EPERM\n");
        let script = "ip -oneline link | cut -d' ' -f2; ip link set tap0 down; ip link del tap0";
        let args = ["--net=builtin:link=veth", "--rootfs=/", "--", "sh", "-c", script];
        let output = who.crun(&args).on(&host).run();
        assert_eq!(output.stdout, "lo:\ntap0@if2:\n", "{output}");
        assert_eq!(output.stderr.matches("not permitted").count(), 2, "{output}");
    }

    /// One that may change its own network can cut itself off, and that is all.
    fn a_container_that_takes_its_link_away_is_told_so(who) {
        need!(has_program("python3"), "no python3");
        let host = Host::new();
        for lines in [
            "far(RTM_DELLINK)",
            "import os; os.system('ip link del tap0')",
        ] {
            // It may be ended before it can say anything.
            let script = format!("{HOSTILE}{lines}\nimport time; time.sleep(1000)");
            let args = [
                "-i", "--net=builtin:link=veth", "--cap-add=NET_ADMIN", "--rootfs=/", "--", "python3", "-c", &script,
            ];
            let output = who.crun(&args).on(&host).stdin_open().run();
            assert_eq!(output.code(), Some(125), "{lines}{output}");
            assert!(output.stderr.contains("network link"), "{lines}{output}");
        }
    }

    fn a_link_that_was_down_works_again(who) {
        need!(has_program("python3"), "no python3");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let script = format!(
            "ip link set tap0 down; ip link set tap0 up; ip route add default via 10.0.2.2
             python3 -c '
import socket
s = socket.create_connection((\"10.0.2.2\", {}), 20)
s.sendall(b\"hello\"); print(s.recv(5).decode())'",
            server.port()
        );
        let net = "--net=builtin:link=veth,allow_host_loopback=true";
        let args = [net, "--cap-add=NET_ADMIN", "--rootfs=/", "--", "sh", "-c", &script];
        assert_eq!(who.crun(&args).on(&host).run().success(), "hello\n");
    }

    /// Every frame that reaches the container is one that we have sent: the kernel at
    /// the far end answers nothing, whatever it is sent.
    fn nobody_answers_at_the_far_end(who) {
        need!(has_program("python3"), "no python3");
        let host = Host::new();
        let lines = "
import ipaddress, time
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(('tap0', 0))
mac = bytes.fromhex('52550a000264')
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def icmp6(source, target, to, body):
    source, target = (ipaddress.ip_address(one).packed for one in (source, target))
    pseudo = source + target + struct.pack('!IxxxB', len(body), 58)
    body = body[:2] + struct.pack('!H', checksum(pseudo + body)) + body[4:]
    head = struct.pack('!IHBB', 6 << 28, len(body), 58, 255)
    link.send(bytes.fromhex(to) + mac + b'\\x86\\xdd' + head + source + target + body)
prefix = ipaddress.ip_address('2001:db8:77::').packed
information = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 7200, 7200, 0) + prefix
advertisement = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0) + information
for _ in range(3):
    icmp6('fe80::5055:aff:fe00:264', 'ff02::1', '333300000001', advertisement)
    icmp6('2001:db8:77::5', 'ff02::1', '333300000001', struct.pack('!BBHHH', 128, 0, 0, 1, 1) + b'ping')
    query = struct.pack('!BBHHHIBBH', 130, 0, 0, 100, 0, 0, 0, 0, 0)
    icmp6('fe80::5055:aff:fe00:264', 'ff02::1', '333300000001', query[:8] + bytes(16))
arp = struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mac + bytes([10, 0, 2, 100]) + bytes(6) + bytes([127, 0, 0, 1])
link.send(b'\\xff' * 6 + mac + b'\\x08\\x06' + arp)
print('ready', flush=True)
def received():
    return int(open('/sys/class/net/tap0/statistics/rx_packets').read())
for line in sys.stdin:
    print('received', received(), 'end', flush=True)
";
        let script = HOSTILE.to_owned() + lines;
        let name = format!("far-{who:?}-{}", std::process::id());
        let named = format!("--name={name}");
        let args = [
            "-i", &named, "--net=builtin:link=veth", "--cap-add=NET_RAW", "--rootfs=/", "--", "python3", "-c", &script,
        ];
        let mut run = who.crun(&args).on(&host).stdin_open().spawn();
        run.expect("ready\n");
        let sent = || {
            let stats = CrunLite::new(who, &["net", "stats", "--json", &name]).on(&host).run();
            let stats: Value = serde_json::from_str(&stats.success()).unwrap();
            let counter = |name: &str| stats[name].as_u64().unwrap();
            // The container's frames have all been looked at: three times three, and one.
            (counter("frames_up_total") >= 10).then(|| counter("frames_down_total"))
        };
        eventually("the frames have come", Duration::from_secs(20), || sent().is_some());
        // The kernel's own (router solicitations) may pass at any time, and are answered.
        eventually("as many frames have come as were sent", Duration::from_secs(20), || {
            let before = sent().unwrap();
            run.write(b"\n");
            run.expect("end\n");
            let printed = run.stdout.text();
            let received = printed.split_whitespace().rev().nth(1).unwrap();
            received == before.to_string() && sent().unwrap() == before
        });
        run.close_stdin();
        run.finish().exit(0);
    }
}
