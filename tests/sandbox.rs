//! The walls around the process that runs the network, and its keeper: what they hold,
//! what is said when they did, and that the work goes on within them.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::util::command::{CrunLite, Running};
use crate::util::pty::Pty;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::traces::{self, Traces};
use crate::util::{Host, SOON, Side, Who, eventually, has_program, http, report, tool};

/// Nothing of a dead run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);

fn status(pid: Pid, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
        .trim()
        .to_owned()
}

fn sleeper(who: Who, host: &Host, options: &[&str]) -> Running {
    let mut args = options.to_vec();
    args.extend(["--", "sh", "-c", "echo ready; sleep 1000"]);
    let run = who.crun(&args).on(host).spawn();
    run.expect("ready\n");
    run
}

/// The keeper of a run.
#[track_caller]
fn keeper_of(run: Pid) -> Pid {
    let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let all = traces::below(run);
    let keeper = all
        .iter()
        .find(|process| comm(process.pid) == "crun-lite-keep\n");
    let keeper = keeper.unwrap_or_else(|| panic!("no keeper among {all:?}"));
    Pid::from_raw(keeper.pid).unwrap()
}

/// The program itself below the shell that has started it.
#[track_caller]
fn program_below(shell: Pid) -> Pid {
    let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let all = traces::below(shell);
    let program = all
        .iter()
        .find(|process| comm(process.pid) == "crun-lite\n");
    let program = program.unwrap_or_else(|| panic!("no crun-lite among {all:?}"));
    Pid::from_raw(program.pid).unwrap()
}

/// A shell with job control: what it starts can be stopped, and goes on when a line
/// has been typed.
const JOB_CONTROL: [&str; 4] = [
    "bash",
    "-mc",
    "\"$@\"; echo the shell has it; read line; fg >/dev/null; echo code $?",
    "bash",
];

/// The system calls that a run with these options may make.
fn list(who: Who, host: &Host, options: &[&str]) -> BTreeSet<String> {
    let mut args = vec!["--log-format=json", "--dry-run"];
    args.extend(options);
    args.extend(["--", "true"]);
    let plan: serde_json::Value =
        serde_json::from_str(&who.crun(&args).on(host).run().success()).unwrap();
    let calls = plan["sandbox"].as_array().unwrap();
    let name = |call: &serde_json::Value| call.as_str().unwrap().to_owned();
    calls.iter().map(name).collect()
}

/// The program that makes a process make a system call.
fn injector(folder: &Path) -> String {
    let (source, program) = (folder.join("inject.c"), folder.join("inject"));
    fs::write(&source, include_str!("util/inject.c")).unwrap();
    let paths = [&source, &program].map(|path| path.to_str().unwrap().to_owned());
    tool(
        "gcc",
        &["-O2", "-Wall", "-Werror", "-o", &paths[1], &paths[0]],
    );
    paths[1].clone()
}

both! {
    fn who_runs_the_network_has_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = sleeper(who, &host, &[]);
        let pid = run.pid();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        if who == Who::Root {
            // To empty it takes a capability.
            assert_eq!(status(pid, "CapBnd:"), "0000000000000000");
        }
        assert_eq!(status(pid, "NoNewPrivs:"), "1");
        assert_eq!(status(pid, "Seccomp:"), "2");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        for limit in ["Max core file size", "Max processes"] {
            let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
            assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limit}");
        }
        // Files of a process that is not dumpable are root's.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/maps")).unwrap());
        assert_eq!(owner, 0);
        // Nothing that it holds is a file, but its standard streams; nor can its keeper
        // be mistaken for it.
        let keeper = keeper_of(pid);
        let title = fs::read(format!("/proc/{keeper}/cmdline")).unwrap();
        assert!(title.starts_with(b"crun-lite keeper\0"), "{title:?}");
        for pid in [pid, keeper] {
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
                let Ok(link) = fs::read_link(entry.unwrap().path()) else { continue };
                let link = link.to_str().unwrap().to_owned();
                let known = ["socket:", "pipe:", "anon_inode:", "/dev/net/tun", "/net/tun", "/dev/null", "net:"];
                assert!(known.iter().any(|kind| link.starts_with(kind)), "{pid} holds {link}");
            }
        }
        // It does not keep the lifeline: only the parent has that end.
        let lifelines = |pid: Pid| {
            let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            links.filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap() > 2
                    && fs::read_link(path).is_ok_and(|link| link.to_str().unwrap().starts_with("pipe:"))
            }).count()
        };
        assert_eq!(lifelines(keeper), 0);
    }

    fn it_can_be_switched_off(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = sleeper(who, &host, &["--net=builtin:sandbox=false"]);
        assert_eq!(status(run.pid(), "Seccomp:"), "0");
        let plan = |net: &str| who.run(&["--dry-run", net, "--", "true"]).success();
        assert!(plan("--net=builtin").contains("lock in the process that runs the network"));
        for net in ["--net=builtin:sandbox=false", "--net=none", "--net=host"] {
            assert!(!plan(net).contains("lock in"), "{net}");
        }
    }

    fn without_a_network_there_is_no_keeper(who) {
        let host = Host::new();
        let run = sleeper(who, &host, &["--net=none"]);
        let all = traces::below(run.pid());
        // init, the shell, sleep
        assert!(all.len() <= 3, "{all:?}");
    }

    fn a_forbidden_call_ends_everything_and_is_reported(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(cfg!(target_arch = "x86_64"), "the injector is for x86-64");
        need!(Who::tests_run_as_root(), "only root may trace a process that is not dumpable");
        need!(has_program("gcc"), "no gcc(1)");
        let host = Host::new();
        let folder = who.folder();
        let inject = injector(folder.path());
        // openat, execve, clone, mmap of code, socket of AF_UNIX, ptrace; and one that is
        // allowed: getsockopt with a descriptor that there is not.
        let (end, on) = ("signal 31\n", "went on\n");
        for (call, said) in [
            (&["257", "-100", "0"][..], end),
            (&["59"], end),
            (&["56", "17"], end),
            (&["9", "0", "4096", "5", "34", "-1"], end),
            (&["41", "1", "1"], end),
            (&["101"], end),
            (&["55", "-1", "1", "4"], on),
        ] {
            for pid_host in [false, true] {
                let options: &[&str] = if pid_host { &["--pid=host"] } else { &[] };
                let run = sleeper(who, &host, options);
                let traces = Traces::of(run.pid());
                let mut words = vec![run.pid().to_string()];
                words.extend(call.iter().map(|&word| word.to_owned()));
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let begin = Instant::now();
                assert_eq!(tool(&inject, &words), said, "{call:?}");
                if said == on {
                    assert_eq!(status(run.pid(), "Seccomp:"), "2");
                    continue;
                }
                let output = run.finish();
                traces.assert_gone(A_SECOND);
                let took = begin.elapsed();
                report(&format!("{who:?}: call {}: all was gone within {took:?}", call[0]));
                assert_eq!(output.killed_by(), Some(Signal::SYS.as_raw()), "{output}");
                let lines: Vec<_> = output.stderr.lines().filter(|line| line.contains("SIGSYS")).collect();
                assert_eq!(lines.len(), 1, "{output}");
                assert!(lines[0].starts_with("crun-lite: error: "), "{output}");
            }
        }
    }

    fn a_dead_keeper_is_noticed_and_ends_the_run(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        for options in [&[][..], &["--pid=host"], &["--net=builtin:sandbox=false"]] {
            let run = sleeper(who, &host, options);
            let traces = Traces::of(run.pid());
            kill_process(keeper_of(run.pid()), Signal::KILL).unwrap();
            traces.assert_gone(A_SECOND);
            let output = run.finish().exit(125);
            assert!(output.stderr.contains("keeper"), "{output}");
        }
    }

    fn the_keeper_ends_what_init_leaves_behind(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let script = "sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo ready; sleep 1000";
        let run = who.crun(&["--pid=host", "--", "sh", "-c", script]).on(&host).spawn();
        run.expect("ready\n");
        let traces = Traces::of(run.pid());
        assert!(traces.processes.len() >= 6, "{traces:?}");
        let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let init = traces.processes.iter().find(|process| comm(process.pid) == "crun-lite-init\n");
        kill_process(Pid::from_raw(init.unwrap().pid).unwrap(), Signal::KILL).unwrap();
        run.finish().exit(137);
        traces.assert_gone(A_SECOND);
    }

    fn signals_do_not_end_the_keeper(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let run = sleeper(who, &host, &[]);
        let keeper = keeper_of(run.pid());
        for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1] {
            kill_process(keeper, signal).unwrap();
        }
        // What is asked of it is still done.
        let pid = run.pid().to_string();
        let added = CrunLite::new(who, &["port", "add", &pid, "127.0.0.1:0:80"]).on(&host).run();
        let added = if added.code() == Some(0) { added } else {
            CrunLite::new(who, &["port", "add", &pid, "80"]).on(&host).run()
        };
        assert!(added.success().contains("80/tcp"));
        run.signal(Signal::KILL);
    }

    fn a_terminal_works_within_the_walls(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let pty = Pty::new(who);
        let before = pty.modes();
        let script = "trap 'stty size' WINCH; echo ready; read line; echo \"got <$line>\"; \
            while :; do sleep 0.05; done";
        let shell = pty.spawn(who.crun(&["-it", "--", "sh", "-c", script]).through(&JOB_CONTROL));
        pty.expect("ready");
        let run = program_below(shell.pid());
        assert_eq!(status(run, "Seccomp:"), "2");
        pty.type_keys("some words\n");
        pty.expect("got <some words>");
        pty.resize(50, 132);
        pty.expect("50 132");
        // Stopped as a job is, and continued.
        kill_process(run, Signal::TSTP).unwrap();
        pty.expect("the shell has it");
        assert_eq!(pty.modes(), before, "the terminal is the caller's meanwhile");
        pty.type_keys("\n");
        eventually("it has the terminal again", SOON, || pty.modes() != before);
        pty.resize(7, 39);
        pty.expect("7 39");
        pty.type_keys("\u{3}");
        pty.expect("code 130");
        assert!(shell.finish(SOON).success());
        assert_eq!(pty.modes(), before);
    }

    /// Work of all kinds, under strace(1): nothing kills, and all that the list allows is
    /// made use of.
    fn the_list_is_what_the_work_takes(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "a world of the test's own needs root");
        need!(has_program("strace"), "no strace(1)");
        need!(has_program("python3") && has_program("curl"), "no python3(1) or curl(1)");
        let host = Host::new();
        let folder = who.folder();
        let mut used = BTreeSet::new();
        let traced = |name: &str, words: &mut Vec<String>| {
            let file = folder.path().join(name);
            words.extend(["strace", "-qq", "-e", "signal=none", "-o", file.to_str().unwrap(), "--"].map(str::to_owned));
            file
        };
        let web = http::start(&host);
        let udp = UdpServer::echo(&host, Side::World, Ipv4Addr::UNSPECIFIED);
        let tcp = TcpServer::echo(&host, Side::World, Ipv4Addr::UNSPECIFIED);
        let world = crate::util::host::WORLD_ADDRESS;
        let work = format!(r#"
import socket, subprocess, threading, time
def udp(to, count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.3)
    for i in range(count): s.sendto(b"x" * (i % 900), to)
    try:
        while True: s.recv(2000)
    except OSError: pass
udp(("{world}", {udp}), 400); udp(("{world}", 9), 3); udp(("10.0.2.3", 53), 3)
for ttl in (1, 64):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(0, 2, ttl)
    s.sendto(b"x", ("{world}", {udp}))
def tcp():
    s = socket.create_connection(("{world}", {tcp}))
    for i in range(50): s.sendall(b"y" * 100000); s.recv(1 << 20)
    s.shutdown(socket.SHUT_WR)
    while s.recv(1 << 20): pass
threads = [threading.Thread(target=tcp) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
subprocess.run(["ping", "-c", "2", "-i", "0.2", "{world}"], check=True, stdout=subprocess.DEVNULL)
subprocess.run(["curl", "-sS", "-o", "/dev/null", "http://10.0.2.2:{web}/bytes/8000000"], check=True)
listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
print("ready", flush=True)
end = time.time() + 60
for _ in range(2):
    connection, _ = listener.accept()
    while data := connection.recv(1 << 20): connection.sendall(data)
    connection.close()
"#, udp = udp.port(), tcp = tcp.port(), web = web.port());
        let capture = format!("{}/capture,size=1m,files=2", folder.path().display());
        let log = format!("{}/log", folder.path().display());
        let nets = ["--net=builtin:allow_host_loopback=true,link=tap",
            "--net=builtin:allow_host_loopback=true,link=veth",
            "--net=builtin:allow_host_loopback=true,outbound_addr=198.18.0.1"];
        for (number, net) in nets.iter().enumerate() {
            let mut words = Vec::new();
            let file = traced(&format!("strace.{number}"), &mut words);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let name = format!("sandbox-{who:?}-{number}-{}", std::process::id());
            let run = who.crun(&[
                net, "--pcap", &capture, "--net-log", &log, "--net-deny=192.0.2.0/24", "--name", &name,
                "-p", "7000:7000", "--rootfs=/", "--", "python3", "-c", &work,
            ]).on(&host).through(&words).spawn();
            run.expect("ready\n");
            CrunLite::new(who, &["port", "add", &name, "7001:7000", "7002:7002/udp"]).on(&host).run().success();
            for verb in ["flows", "stats"] {
                CrunLite::new(who, &["net", verb, &name]).on(&host).run().success();
            }
            let client = "import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'z' * 100000)
s.shutdown(socket.SHUT_WR)
n = 0
while d := s.recv(1 << 16): n += len(d)
print(n)";
            assert_eq!(host.tool(&["python3", "-c", client, "7000"]), "100000\n");
            assert_eq!(host.tool_on(Side::Host, &["python3", "-c", client, "7001"]), "100000\n");
            assert_eq!(run.finish().exit(0).stderr, "", "{net}");
            used.extend(calls_after_the_walls(&file));
        }
        // A terminal, stopped and continued, and input that ends.
        let mut words = Vec::new();
        let file = traced("strace.tty", &mut words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let pty = Pty::new(who);
        let command = ["-it", "--", "sh", "-c", "echo ready; read line"];
        let through = [&JOB_CONTROL[..], &words].concat();
        let shell = pty.spawn(who.crun(&command).through(&through));
        pty.expect("ready");
        let run = program_below(shell.pid());
        kill_process(run, Signal::TSTP).unwrap();
        eventually("it stops", SOON, || fs::read_to_string(&file).unwrap().contains("tgkill"));
        eventually("it goes on", SOON, || {
            kill_process(run, Signal::CONT).unwrap();
            let text = fs::read_to_string(&file).unwrap();
            text.split_once("tgkill").unwrap().1.contains("epoll_wait")
        });
        pty.resize(30, 90);
        pty.type_keys("line\n");
        pty.expect("the shell has it");
        pty.type_keys("\n");
        assert!(shell.finish(SOON).success(), "{:?}", pty.screen.text());
        used.extend(calls_after_the_walls(&file));

        let mut allowed = list(who, &host, &["-t"]);
        allowed.extend(list(who, &host, &["--net=builtin:outbound_addr=198.18.0.1"]));
        let unlisted: Vec<_> = used.difference(&allowed).collect();
        assert!(unlisted.is_empty(), "not on the list: {unlisted:?}");
        let unused: BTreeSet<_> = allowed.difference(&used).map(String::as_str).collect();
        report(&format!("{who:?}: {} calls on the list, {} used, not: {unused:?}", allowed.len(), used.len()));
        assert_eq!(unused.into_iter().filter(|call| !RARE.contains(call)).collect::<Vec<_>>(), [""; 0]);
    }
}

/// Calls that no such work is sure to make; the list says why each is there.
const RARE: &[&str] = &[
    // The vDSO answers, except with a clock source that it cannot read.
    "clock_gettime",
    // A few pipes are there before: only where many connections hold data at a time, which
    // is among the faults.
    "pipe2",
    // Only where the container has to be ended before its time.
    "pidfd_send_signal",
    // Whether the heap grows, and in which way, is the C library's business.
    "brk",
    "mremap",
];

/// The system calls in a file of strace(1), from the filter on.
fn calls_after_the_walls(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let (_, after) = text
        .split_once("seccomp(SECCOMP_SET_MODE_FILTER")
        .unwrap_or_else(|| panic!("no filter in {text}"));
    let lines = after.lines().skip(1);
    let names = lines
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| name);
    let is_name = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    names.filter(is_name).map(str::to_owned).collect()
}
