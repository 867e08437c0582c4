//! Many containers: one after another, beside each other, and fifty that end in different
//! ways.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::util::cgroup::Cell;
use crate::util::host::WORLD_ADDRESS;
use crate::util::places::Places;
use crate::util::servers::TcpServer;
use crate::util::traces::{self, Traces};
use crate::util::{Host, SOON, Side, Who, eventually, has_program, number_from_env};

/// Nothing of a dead run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);
/// How many.
const CONTAINERS: u16 = 50;
/// The first of the host's ports that are published.
const FIRST_PORT: u16 = 21_000;

/// How a container is ended, and the exit codes that this may have; none where the
/// parent is killed.
const ENDS: [(&str, Signal, &[i32]); 6] = [
    ("parent", Signal::TERM, &[143]),
    ("parent", Signal::KILL, &[]),
    ("crun-lite-init", Signal::KILL, &[137]),
    ("crun-lite-keep", Signal::KILL, &[125]),
    ("bash", Signal::KILL, &[137]),
    ("parent", Signal::INT, &[130]),
];

both! {
    fn many_runs_in_a_row_leave_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let mounts = host.mounts();
        let places = Places::new(who);
        let marker = format!("row-{who:?}-{}", std::process::id());
        for round in 0..number_from_env("CRUN_LITE_RUNS", 100) {
            let run = who
                .crun(&["--net=builtin", "--", "true", &marker])
                .on(&host);
            let output = places.of(run).run();
            assert_eq!(output.code(), Some(0), "round {round}{output}");
            assert_eq!(output.stderr, "", "round {round}{output}");
        }
        eventually("no process is left", A_SECOND, || {
            traces::marked(&marker).is_empty()
        });
        assert_eq!(host.mounts(), mounts);
        places.assert_empty();
        if host.is_own() {
            let links = host.tool(&["ip", "-oneline", "link"]);
            assert!(!links.contains("tap"), "{links}");
        }
    }

    fn runs_side_by_side_do_not_meet(who) {
        let runs: Vec<_> = (0..8)
            .map(|number| {
                who.crun(&[
                    "--net=none",
                    "--",
                    "sh",
                    "-c",
                    &format!("echo {number} > /tmp/f; sleep 0.2; cat /tmp/f"),
                ])
                .spawn()
            })
            .collect();
        for (number, run) in runs.into_iter().enumerate() {
            assert_eq!(run.finish().success(), format!("{number}\n"));
        }
    }

    fn fifty_containers_at_once_leave_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "a world of the test's own needs root");
        need!(has_program("bash"), "no bash");
        let host = Host::new();
        let cell = match Cell::new(who, &["memory"], false) {
            Ok(cell) => cell,
            Err(why) => return crate::util::skip(&why),
        };
        let mounts = host.mounts();
        let links = host.tool(&["ip", "-oneline", "link"]);
        let places = Places::new(who);
        let server = TcpServer::echo(&host, Side::World, WORLD_ADDRESS);
        let marker = format!("many-{who:?}-{}-", std::process::id());
        let script = format!(
            "exec 3<>/dev/tcp/{WORLD_ADDRESS}/{} && echo hello >&3 && read line <&3 && \
             echo $line && trap 'exit 143' TERM && trap 'exit 130' INT && echo ready && \
             while :; do read line <&3; done; exit 9",
            server.port()
        );
        let runs: Vec<_> = (0..CONTAINERS)
            .map(|number| {
                let port = format!("127.0.0.1:{}:80", FIRST_PORT + number);
                let mut args = vec!["--net=builtin", "--rootfs=/", "--publish", &port];
                if number % 2 == 0 {
                    args.push("--memory=256m");
                }
                args.extend(["--", "bash", "-c", &script, &marker]);
                let crun = cell.crun(&args).on(&host);
                places.of(crun.env("CRUN_LITE_TEST_MARKER", &marker)).spawn()
            })
            .collect();
        for run in &runs {
            run.expect("hello\nready\n");
        }
        let traces: Vec<_> = runs.iter().map(|run| Traces::of(run.pid())).collect();
        let networks: BTreeSet<_> = traces
            .iter()
            .flat_map(|traces| &traces.namespaces)
            .filter(|name| name.starts_with("net:"))
            .collect();
        assert!(networks.len() >= usize::from(CONTAINERS), "{} networks", networks.len());
        assert!(cell.made().len() >= usize::from(CONTAINERS) / 2, "{:?}", cell.made());
        let listening = host.tool(&["ss", "-Hltn"]);
        let port = |line: &str| -> Option<u16> {
            line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok()
        };
        let ours = |port: &u16| (FIRST_PORT..FIRST_PORT + CONTAINERS).contains(port);
        let published = listening.lines().filter_map(port).filter(ours).count();
        assert_eq!(published, usize::from(CONTAINERS), "{listening}");

        let ends = || ENDS.iter().cycle();
        for ((run, traces), (victim, signal, _)) in runs.iter().zip(&traces).zip(ends()) {
            let is_it = |process: &&traces::Process| traces::name(process.pid) == *victim;
            let pid = match traces.processes.iter().find(is_it) {
                Some(process) => Pid::from_raw(process.pid).unwrap(),
                None => run.pid(),
            };
            kill_process(pid, *signal).unwrap();
        }
        for (run, (victim, _, codes)) in runs.into_iter().zip(ends()) {
            let output = run.finish();
            match output.code() {
                Some(code) => assert!(codes.contains(&code), "{victim}{output}"),
                None => assert_eq!(output.killed_by(), Some(9), "{victim}{output}"),
            }
        }
        for traces in &traces {
            traces.assert_gone(SOON);
        }
        eventually("no process is left", SOON, || traces::marked(&marker).is_empty());
        eventually("no cgroup is left", SOON, || cell.made().is_empty());
        assert_eq!(host.mounts(), mounts);
        assert_eq!(host.tool(&["ip", "-oneline", "link"]), links);
        places.assert_empty();
        let listening = host.tool(&["ss", "-Hltn"]);
        assert_eq!(listening.lines().filter_map(port).filter(ours).count(), 0, "{listening}");
    }
}
