//! As many ports and flows of one container as its descriptors allow, and what
//! is left of them afterwards.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::util::command::Running;
use crate::util::service::{Port, Service};
use crate::util::{Family, Host, SOON, Side, Who, http, number_from_env, report};

/// UDP ports, and as many TCP flows, that are open at once unless
/// `CRUN_LITE_OPEN_PORTS` says otherwise; TCP flows alone, unless
/// `CRUN_LITE_OPEN_FLOWS` does.
const PORTS: u64 = 1000;
const FLOWS: u64 = 2000;
/// A UDP port that was answered is given back after this (RFC 4787, REQ-5);
/// waited for only where the number of ports is not the usual one.
const UDP_IDLE: Duration = Duration::from_secs(120);
/// What a second container moves, alone and meanwhile, unless
/// `CRUN_LITE_MEANWHILE_MIB` says otherwise.
const MEANWHILE_MIB: u64 = 64;
/// Descriptors that come and go besides.
const FEW: usize = 8;
/// How long the parent is watched when nothing is to be done; with other numbers
/// than the usual ones for longer, so that one tick of the clock is 0.1 %.
const IDLE: Duration = Duration::from_secs(2);
const IDLE_IN_FULL: Duration = Duration::from_secs(10);
/// How often it may wake up in a second: the container's own kernel talks.
const WAKE_UPS: u64 = 20;

/// UDP comes to this port, TCP to this one and three more: a kernel looks long for
/// a port of its own when most of them are in use for one of a peer's.
const PORT: u16 = 7000;

/// Sends back what comes over TCP and over UDP.
const SERVER: &str = "
import resource, selectors, socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
listeners = [socket.create_server((sys.argv[1], int(sys.argv[2]) + i), family=family, backlog=4096)
             for i in range(4)]
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], int(sys.argv[2])))
wait = selectors.DefaultSelector()
for listener in listeners:
    wait.register(listener, selectors.EVENT_READ)
wait.register(udp, selectors.EVENT_READ)
while True:
    for key, _ in wait.select():
        s = key.fileobj
        if s in listeners:
            wait.register(s.accept()[0], selectors.EVENT_READ)
        elif s is udp:
            data, peer = udp.recvfrom(100)
            udp.sendto(data, peer)
        else:
            try:
                data = s.recv(100)
            except ConnectionError:
                data = b''
            if data:
                s.send(data)
            else:
                wait.unregister(s)
                s.close()
";

/// Opens, uses and closes its sockets as it is told. A datagram may get lost, and
/// is sent again; what does not come back within the time is an error.
const CLIENT: &str = "
import resource, selectors, socket, sys, time
address, port, ports, flows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert hard > ports + flows + 20, 'too few descriptors: %d' % hard
BATCH = 200
sockets = []

def in_batches(all):
    return (all[i:i + BATCH] for i in range(0, len(all), BATCH))

def exchange(batch, word):
    left = dict(batch)
    wait = selectors.DefaultSelector()
    for number, s in left.items():
        wait.register(s, selectors.EVENT_READ, number)
        s.send(b'%s %d' % (word, number))
    patience = time.monotonic() + 20
    while left:
        ready = wait.select(0.5)
        for key, _ in ready:
            number, s = key.data, key.fileobj
            answer = s.recv(100)
            if s.type == socket.SOCK_DGRAM and not answer.startswith(word):
                continue  # to a datagram of before that was sent twice
            assert answer == b'%s %d' % (word, number), (number, answer)
            if number in left:
                wait.unregister(s)
                del left[number]
        if not ready:
            assert time.monotonic() < patience, '%d of a batch do not answer' % len(left)
            for number, s in left.items():
                if s.type == socket.SOCK_DGRAM:
                    s.send(b'%s %d' % (word, number))

def open_all():
    kinds = [socket.SOCK_DGRAM] * ports + [socket.SOCK_STREAM] * flows
    for batch in in_batches(list(enumerate(kinds))):
        opened = []
        for number, kind in batch:
            s = socket.socket(family, kind)
            s.setblocking(False)
            s.connect_ex((address, port + (number % 4 if kind == socket.SOCK_STREAM else 0)))
            opened.append((number, s))
        wait = selectors.DefaultSelector()
        for _, s in opened:
            wait.register(s, selectors.EVENT_WRITE)
        connecting = len(opened)
        while connecting:
            ready = wait.select(30)
            assert ready, '%d of a batch do not connect' % connecting
            for key, _ in ready:
                error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert error == 0, (error, len(sockets))
                wait.unregister(key.fileobj)
                connecting -= 1
        exchange(opened, b'open')
        sockets.extend(opened)

for line in sys.stdin:
    if line == 'open\\n':
        open_all()
    elif line == 'again\\n':
        for batch in in_batches(sockets):
            exchange(batch, b'again')
    elif line == 'close\\n':
        for _, s in sockets:
            s.close()
    print('done', line, end='', flush=True)
";

/// The client's run, and the one thing at a time that it is told.
struct Client {
    run: Running,
}

impl Client {
    fn start(who: Who, host: &Host, family: Family, ports: u64, flows: u64) -> Self {
        let args = [
            "-i",
            "--log-level=debug",
            "--rootfs=/",
            "--",
            "/usr/bin/python3",
            "-c",
            CLIENT,
        ];
        let (address, port) = (family.far().to_string(), PORT.to_string());
        let numbers = [ports.to_string(), flows.to_string()];
        let words = [&address, &port, &numbers[0], &numbers[1]];
        let all: Vec<&str> = args.into_iter().chain(words.map(String::as_str)).collect();
        let run = who.crun(&all).on(host).stdin_open();
        Self {
            run: run.limit(Duration::from_secs(120)).spawn(),
        }
    }

    #[track_caller]
    fn tell(&mut self, word: &str) -> Duration {
        let begin = Instant::now();
        self.run.write(format!("{word}\n").as_bytes());
        self.run.expect(&format!("done {word}\n"));
        begin.elapsed()
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.run.pid().as_raw_nonzero());
        std::fs::read_dir(path).unwrap().count()
    }
}

/// Clock ticks that a process has used, and how often it has slept.
fn usage(pid: Pid) -> (u64, u64) {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(format!("{folder}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    // proc_pid_stat(5): utime and stime are fields 14 and 15.
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|text| text.parse::<u64>().unwrap());
    let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
    let switches = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .unwrap();
    (ticks.sum(), switches.trim().parse().unwrap())
}

/// Waits until a process has nothing to do, for deadlines that passed unused may
/// wake it a little longer; gives how long that took, and what it used then.
#[track_caller]
fn come_to_rest(pid: Pid, idle: Duration) -> (Duration, u64, u64) {
    let begin = Instant::now();
    loop {
        let before = usage(pid);
        std::thread::sleep(idle);
        let after = usage(pid);
        let (ticks, wake_ups) = (after.0 - before.0, after.1 - before.1);
        if wake_ups <= WAKE_UPS * idle.as_secs() {
            return (begin.elapsed() - idle, ticks, wake_ups);
        }
        assert!(
            begin.elapsed() < SOON + 2 * idle,
            "{wake_ups} wake-ups in {idle:?} without anything to do"
        );
    }
}

/// Opens, uses and closes so many ports and flows, with a second container at
/// work meanwhile.
#[track_caller]
fn open_and_close(who: Who, family: Family, ports: u64, flows: u64, in_full: bool) {
    let host = Host::routed();
    let address = family.far().to_string();
    let words = [
        "/usr/bin/python3",
        "-c",
        SERVER,
        &address,
        &PORT.to_string(),
    ];
    let _server = Service::start(
        &host,
        Side::Far,
        &words,
        &[Port::Tcp(PORT + 3), Port::Udp(PORT)],
    );
    let web = http::start_at(&host, Side::Far, family.far());
    let bytes = number_from_env("CRUN_LITE_MEANWHILE_MIB", MEANWHILE_MIB) << 20;
    let url = format!("http://{}/bytes/{bytes}", family.far_in_url(web.port()));
    // A second container's transfers, and the speed of the first in bytes per second.
    let script = format!(
        "curl -sS -o /dev/null -w '%{{stderr}}%{{speed_download}}' {url}; curl -sS {url} | sha256sum"
    );
    let second = || {
        let args = ["--rootfs=/", "--", "sh", "-c", &script];
        who.crun(&args).on(&host).spawn()
    };
    let whole = format!("{}  -\n", http::sha256_of_bytes(bytes));
    let speed = |run: Running| {
        let output = run.finish().exit(0);
        assert_eq!(output.stdout, whole, "{output}");
        output.stderr.trim().parse::<f64>().unwrap()
    };

    let mut client = Client::start(who, &host, family, ports, flows);
    client.tell("hello");
    let alone = speed(second());
    let before = client.descriptors();
    let opened = client.tell("open");
    let open = client.descriptors();
    let beside = speed(second());
    let working = second();
    let again = client.tell("again");
    let busy = speed(working);
    client.tell("close");
    let kept = if in_full {
        0
    } else {
        usize::try_from(ports).unwrap()
    };
    let most = before + kept + FEW;
    let limit = if in_full { UDP_IDLE + SOON } else { SOON };
    crate::util::eventually("the host's sockets are closed", limit, || {
        client.descriptors() <= most
    });
    let idle = if in_full { IDLE_IN_FULL } else { IDLE };
    let (rest, ticks, wake_ups) = come_to_rest(client.run.pid(), idle);
    report(&format!(
        "{ports} UDP ports and {flows} TCP flows, {family:?}, {who:?}: open in {opened:?}, again \
         in {again:?}; {before} descriptors before, {open} then; at rest {rest:?} later, with \
         {ticks} ticks and {wake_ups} wake-ups in {idle:?}; a second container moves {:.0} MB/s \
         alone, {:.0} beside these, {:.0} while all of them answer",
        alone / 1e6,
        beside / 1e6,
        busy / 1e6
    ));
    client.run.close_stdin();
    client.run.finish().exit(0);
}

both! {
    fn many_ports_and_flows_at_once_are_answered_and_given_back(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "a world of the test's own needs root");
        let ports = number_from_env("CRUN_LITE_OPEN_PORTS", PORTS);
        for &family in Family::ALL {
            open_and_close(who, family, ports, ports, ports != PORTS);
        }
    }

    fn many_tcp_flows_at_once_are_answered_and_given_back(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "a world of the test's own needs root");
        let flows = number_from_env("CRUN_LITE_OPEN_FLOWS", FLOWS);
        for &family in Family::ALL {
            open_and_close(who, family, 0, flows, flows != FLOWS);
        }
    }
}
