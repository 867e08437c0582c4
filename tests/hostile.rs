//! A container that does the worst: every case of bad input through the real link, and
//! floods beyond every budget. Whatever it does, the network works, and others do not
//! notice.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hostile::frames::{ECHO, FAR, FAR6, STACK_MAC};
use hostile::{Case, Step};
use rustix::process::Pid;
use serde_json::Value;

use crate::util::command::{CrunLite, Running};
use crate::util::dns::DnsServer;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::traces::memory;
use crate::util::{Host, Side, Times, Who, number_from_env, report};

/// What containers run. The player's functions are those of the others, too.
const PLAYER: &str = include_str!("hostile/player.py");
const FLOOD: &str = include_str!("hostile/flood.py");
const PORTS: &str = include_str!("hostile/ports.py");
const BUDGETS: &str = include_str!("hostile/budgets.py");
const CONNECT: &str = include_str!("hostile/connect.py");
/// Ports of services that other stacks emulate.
const EMULATED: [u16; 5] = [21, 113, 514, 6667, 7070];
/// The kernel inside does not answer for connections that it does not know.
const SILENCE: &str = "ip rule add sport 1-20000 ipproto tcp blackhole";

/// How often a container is looked at: that costs time, too.
const LOOK: Duration = Duration::from_millis(100);
/// SYNs of the flood, unless `CRUN_LITE_SYN_FLOOD` says otherwise.
const SYNS: u64 = 50_000;

/// Everybody whom a container talks to.
struct World {
    host: Host,
    _dns: DnsServer,
    _tcp: Vec<TcpServer>,
    _udp: Vec<UdpServer>,
}

impl World {
    fn on(host: Host) -> Self {
        let far: [IpAddr; 2] = [FAR.into(), FAR6.into()];
        let at = |address, port| SocketAddr::new(address, port);
        let ports = EMULATED.into_iter().chain([ECHO]);
        let echo = |mut stream: std::net::TcpStream| {
            let mut writer = stream.try_clone()?;
            std::io::copy(&mut stream, &mut writer).map(drop)
        };
        let tcp = ports.map(|port| TcpServer::start_at(&host, Side::Far, at(far[0], port), echo));
        let udp = far.map(|address| {
            UdpServer::start_at(&host, Side::Far, at(address, ECHO), |data| {
                Some(data.to_vec())
            })
        });
        Self {
            _dns: DnsServer::start(&host),
            _tcp: tcp.collect(),
            _udp: udp.into(),
            host,
        }
    }

    /// A container with these keys of the network, that may send frames of its own and
    /// runs this script behind the player's.
    fn container(&self, who: Who, name: &str, keys: &str, script: &str) -> CrunLite {
        let net = format!("--net=builtin:cidr6=fd00::/64{keys}");
        let name = format!("--name={name}");
        let run = format!("{SILENCE}\nexec /usr/bin/python3 -c \"$PLAYER$SCRIPT\"");
        let args = [
            &net,
            &name,
            "--mac-address=02:00:00:00:00:64",
            "--cap-add=NET_RAW",
            "--cap-add=NET_ADMIN",
            "--env=PLAYER",
            "--env=SCRIPT",
            "--env=COUNT",
            "-i",
            "--rootfs=/",
            "--",
            "sh",
            "-ec",
            &run,
        ];
        who.crun(&args)
            .on(&self.host)
            .env("PLAYER", PLAYER)
            .env("SCRIPT", script)
    }

    /// What `crun-lite net stats` says of a container.
    fn stats(&self, who: Who, name: &str) -> Value {
        let args = ["net", "stats", "--json", name];
        let told = CrunLite::new(who, &args).on(&self.host).run().success();
        serde_json::from_str(&told).unwrap()
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, content].concat()
}

/// A case as the player reads it.
fn records(case: Case) -> Vec<u8> {
    let mut all = record(5, format!("N{:02} {}", case.number, case.name).as_bytes());
    for step in case.steps {
        all.extend(match step {
            Step::Frame(frame) => record(0, &frame),
            Step::Virtio(header, frame) => record(1, &[&header[..], &frame].concat()),
            Step::Open(syn) => record(2, &syn.frame()),
            Step::On(segment) => record(3, &segment.frame()),
            Step::Pause(millis) => record(4, &millis.to_be_bytes()),
        });
    }
    all.extend(record(6, b""));
    all
}

fn descriptors(pid: Pid) -> usize {
    let path = format!("/proc/{}/fd", pid.as_raw_nonzero());
    std::fs::read_dir(path).unwrap().count()
}

/// Calls `look` until the run has printed `text`.
fn watch(run: &Running, text: &str, limit: Duration, mut look: impl FnMut()) {
    let deadline = Instant::now() + limit;
    while !run.stdout.text().contains(text) {
        assert!(Instant::now() < deadline, "not within {limit:?}: {text}");
        look();
        std::thread::sleep(LOOK);
    }
}

both! {
    /// N1 to N34, but N17 and N18, which are the host's side.
    fn bad_input_on_the_real_link(who) {
        let host = routed_host!(who, "python3", "ip");
        let world = World::on(host);
        let name = format!("bad-{who:?}");
        let mut input = Vec::new();
        for (_, make) in hostile::ALL {
            input.extend(records(make()));
        }
        let limit = Duration::from_secs(600);
        let run = world.container(who, &name, "", "play()").stdin(input).limit(limit).spawn();
        let pid = run.pid();
        run.expect("N01 ");
        let mut seen = Vec::new();
        watch(&run, "done\n", limit, || seen.push((memory(pid, "VmRSS"), descriptors(pid))));
        let output = run.finish().exit(0);
        let lines: Vec<Vec<&str>> = output
            .stdout
            .lines()
            .map(|line| line.split('|').collect())
            .filter(|line: &Vec<&str>| line.len() == 5)
            .collect();
        assert_eq!(lines.len(), hostile::ALL.len(), "{output}");
        for line in &lines {
            let [name, sent, unsent, unopened, millis] = line[..] else { unreachable!() };
            report(&format!(
                "{who:?} {name}: {sent} frames, {unsent} not taken by the link, {unopened} \
                 connections not opened; then TCP, UDP and DNS within {millis} ms"
            ));
            assert_ne!(sent, "0", "{output}");
            assert_eq!(unopened, "0", "{name}{output}");
        }
        let most = |of: fn(&(u64, usize)) -> u64| seen.iter().map(of).max();
        report(&format!(
            "{who:?}: KiB resident and descriptors {:?} at first, {:?} at last; at most {:?} and {:?}",
            seen.first(),
            seen.last(),
            most(|now| now.0),
            most(|now| now.1 as u64),
        ));
        assert!(!output.stderr.contains("panicked"), "{output}");
    }

    /// A flood of SYNs stays within its budget, and another container's connections
    /// all succeed meanwhile.
    fn a_syn_flood_is_no_others_trouble(who) {
        let host = routed_host!(who, "python3", "ip");
        let world = World::on(host);
        let count = number_from_env("CRUN_LITE_SYN_FLOOD", SYNS);
        let limit = Duration::from_secs(60 + count / 2000);
        let name = format!("flood-{who:?}");
        let connector = || {
            let args = ["-i", "--rootfs=/", "--", "/usr/bin/python3", "-c", CONNECT];
            let run = who.crun(&args).on(&world.host).stdin_open().limit(limit).spawn();
            run.expect("ready\n");
            run
        };
        let end = |mut run: Running| {
            run.close_stdin();
            let output = run.finish().exit(0);
            let numbers = output.stdout.split_ascii_whitespace().filter_map(|word| word.parse().ok());
            let mut times = Times::default();
            numbers.for_each(|millis: f64| times.add(Duration::from_secs_f64(millis / 1e3)));
            times.told()
        };
        // How it is without a flood.
        let alone = connector();
        std::thread::sleep(Duration::from_secs(2));
        let alone = end(alone);
        let other = connector();
        let flood = world.container(who, &name, "", FLOOD).env("COUNT", &count.to_string());
        let mut run = flood.stdin_open().limit(limit).spawn();
        run.expect("flood ");
        let mut most = 0;
        watch(&run, "over\n", limit, || {
            let stats = world.stats(who, &name);
            most = most.max(stats["half_open_flows"].as_u64().unwrap());
        });
        let stats = world.stats(who, &name);
        let meanwhile = end(other);
        run.close_stdin();
        let output = run.finish().exit(0);
        report(&format!(
            "{who:?}: {count} SYNs, {}; half-open at most {most}; another container: alone {alone}; \
             meanwhile {meanwhile}; {stats}",
            output.stdout.replace('\n', ", ")
        ));
        assert!((1..=1024).contains(&most), "{most}");
        assert!(stats["over_half_open_total"].as_u64().unwrap() > 0, "{stats}");
        assert!(stats["frames_up_total"].as_u64().unwrap() >= count, "{stats}");
    }

    /// Datagrams to 64 k ports, and from thousands: no descriptors run out, new flows
    /// find room.
    fn datagrams_to_every_port_leave_room(who) {
        let host = routed_host!(who, "python3", "ip");
        let world = World::on(host);
        let name = format!("ports-{who:?}");
        let mut run = world
            .container(who, &name, ",max_flows=2000", PORTS)
            .stdin_open()
            .spawn();
        let pid = run.pid();
        let mut most = 0;
        watch(&run, "over\n", Duration::from_secs(60), || most = most.max(descriptors(pid)));
        most = most.max(descriptors(pid));
        let stats = world.stats(who, &name);
        run.close_stdin();
        let output = run.finish().exit(0);
        report(&format!("{who:?}: at most {most} descriptors; {}; {stats}", output.stdout));
        assert!(most <= 2000 + 100, "{most} descriptors");
        assert!(stats["given_up_total"].as_u64().unwrap() > 60_000, "{stats}");
        assert_eq!(stats["over_limit_total"], 0, "{stats}");
    }

    /// Each budget as an option, and how often it has been reached.
    fn budgets_are_what_the_options_say(who) {
        let host = routed_host!(who, "python3", "ip");
        let world = World::on(host);
        let name = format!("budgets-{who:?}");
        let keys = ",max_half_open=4,max_pps=500,max_buffered=1m,max_flows=1000";
        let mut run = world.container(who, &name, keys, BUDGETS).stdin_open().spawn();
        let mut most = 0;
        watch(&run, "over\n", Duration::from_secs(60), || {
            let stats = world.stats(who, &name);
            most = most.max(stats["buffered_bytes"].as_u64().unwrap());
        });
        let stats = world.stats(who, &name);
        run.close_stdin();
        let output = run.finish().exit(0);
        report(&format!("{who:?}: at most {most} bytes waited; {stats}"));
        assert!(output.stdout.starts_with("16 refused\n"), "{output}");
        assert!(stats["over_half_open_total"].as_u64().unwrap() >= 16, "{stats}");
        assert!(stats["over_pps_total"].as_u64().unwrap() > 300, "{stats}");
        assert!(stats["over_buffered_total"].as_u64().unwrap() > 0, "{stats}");
        assert!(most <= 1 << 20, "{most} bytes");
    }
}

/// The frames are for the real gateway when they are sent.
#[test]
fn addresses_are_those_of_the_network() {
    let family = crate::util::Family::ALL;
    assert_eq!(family[0].far(), IpAddr::from(FAR));
    assert_eq!(family[1].far(), IpAddr::from(FAR6));
    assert_eq!(
        family[1].gateway(),
        IpAddr::from(Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]))
    );
    assert!(PLAYER.contains(&STACK_MAC.map(|byte| format!("{byte:02x}")).concat()));
}
