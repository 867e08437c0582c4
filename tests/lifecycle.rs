//! A run from its start to its end, whatever the end is.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::util::command::Running;
use crate::util::traces::{self, Traces};
use crate::util::{Host, SOON, Who, eventually};

/// Nothing of a dead run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);

both! {
    fn the_exit_code_is_the_commands(who) {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("exit 255", 255),
            ("kill -KILL $$", 137),
            ("kill -TERM $$", 143),
        ] {
            who.run(&["--net=none", "--", "sh", "-c", script])
                .exit(code);
        }
    }

    fn a_command_that_cannot_start_has_a_code_of_its_own(who) {
        for (command, code) in [
            ("no-such-command", 127),
            ("/no/such/command", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
        ] {
            let output = who.run(&["--net=none", "--", command]).exit(code);
            assert!(
                output.stderr.contains(command),
                "the message names it{output}"
            );
            assert_eq!(output.stdout, "", "{output}");
        }
        who.run(&["--no-such-option", "--", "true"]).exit(125);
    }

    fn signals_are_forwarded(who) {
        let forwarded = [
            ("TERM", Signal::TERM),
            ("INT", Signal::INT),
            ("HUP", Signal::HUP),
            ("USR1", Signal::USR1),
            ("USR2", Signal::USR2),
        ];
        for (name, signal) in forwarded {
            let script = format!(
                "trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 30 & wait $!; done"
            );
            let run = who.crun(&["--net=none", "--", "sh", "-c", &script]).spawn();
            run.expect("ready\n");
            run.signal(signal);
            let output = run.finish().exit(9);
            assert!(
                output.stdout.ends_with(&format!("got {name}\n")),
                "{output}"
            );
        }
    }

    fn a_signal_that_is_not_handled_ends_the_command(who) {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            let run = who
                .crun(&["--net=none", "--", "sh", "-c", "echo ready; exec sleep 100"])
                .spawn();
            run.expect("ready\n");
            run.signal(signal);
            run.finish().exit(code);
        }
    }

    fn a_stopped_command_goes_on(who) {
        let run = who
            .crun(&[
                "--net=none",
                "--",
                "sh",
                "-c",
                "echo ready; kill -STOP $$; echo on",
            ])
            .spawn();
        run.expect("ready\n");
        let stopped = |process: &traces::Process| {
            fs::read_to_string(format!("/proc/{}/stat", process.pid))
                .is_ok_and(|stat| stat.contains(") T "))
        };
        eventually("the command stops", SOON, || {
            traces::below(run.pid()).iter().any(stopped)
        });
        let command = traces::below(run.pid()).into_iter().find(stopped).unwrap();
        let pid = Pid::from_raw(command.pid).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(run.finish().success(), "ready\non\n");
    }

    fn standard_input_reaches_the_command_to_its_end(who) {
        let data = (0..200_000).map(|n| format!("{n}\n")).collect::<String>();
        let output = who
            .crun(&["--net=none", "-i", "--", "cat"])
            .stdin(data.clone())
            .run();
        assert!(
            output.success() == data,
            "what came back is not what went in"
        );
    }

    fn without_i_standard_input_is_empty(who) {
        let mut run = who.crun(&["--net=none", "--", "cat"]).stdin_open().spawn();
        // It may be gone before we write; the point is that it reads nothing of it.
        run.close_stdin();
        assert_eq!(run.finish().success(), "");
        let run = who
            .crun(&["--net=none", "--", "sh", "-c", "cat; echo end"])
            .stdin_open()
            .spawn();
        run.expect("end\n");
        assert_eq!(run.finish().success(), "end\n");
    }

    /// The program may have been something else before, and have children of that.
    fn children_of_the_caller_are_not_the_containers(who) {
        // More than a message to the keeper has room for.
        const COUNT: usize = 300;
        let script = format!(
            "for i in $(seq {COUNT}); do sleep 1000 > /dev/null 2>&1 & done; jobs -p; exec \"$0\" \"$@\""
        );
        let host = Host::new();
        let network = if who.has_tun() { "--net=builtin" } else { "--net=none" };
        for options in [["--net=none", "--pid=host"], [network, "--pid=host"], [network, "--pid=private"]] {
            let args = [&options[..], &["--rootfs=/", "--", "echo", "done"]].concat();
            let run = who.crun(&args).on(&host).through(&["bash", "-c", &script]).run();
            let printed = run.success();
            let mut lines: Vec<_> = printed.lines().collect();
            assert_eq!(lines.pop(), Some("done"));
            let alive = lines.into_iter().filter(|child| {
                let child = Pid::from_raw(child.parse().unwrap()).unwrap();
                kill_process(child, Signal::KILL).is_ok()
            });
            assert_eq!(alive.count(), COUNT, "{options:?}");
        }
    }

    fn the_streams_stay_apart(who) {
        let output = who
            .run(&["--net=none", "--", "sh", "-c", "echo out; echo err >&2"])
            .exit(0);
        assert_eq!((&*output.stdout, &*output.stderr), ("out\n", "err\n"));
    }

    fn a_closed_standard_output_is_the_commands_problem(who) {
        let output = who
            .crun(&[
                "--net=none",
                "--",
                "sh",
                "-c",
                "yes; echo yes ended with $? >&2",
            ])
            .through(&[
                "bash",
                "-c",
                "\"$@\" | head -n 1; exit ${PIPESTATUS[0]}",
                "bash",
            ])
            .run()
            .exit(0);
        assert_eq!(output.stdout, "y\n", "{output}");
        assert!(output.stderr.contains("yes ended with"), "{output}");
    }

    fn orphans_are_reaped(who) {
        // 10,000 children of subshells that are gone at once.
        let script = "
            i=0; while [ $i -lt 10000 ]; do (true &); i=$((i+1)); done
            n=0; while [ $n -lt 200 ]; do
                left=$(grep -l '^PPid:.1$' /proc/[0-9]*/status 2>/dev/null | wc -l)
                [ $left -le 1 ] && break
                sleep 0.05; n=$((n+1))
            done
            grep -lE '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        let run = who
            .crun(&["--net=none", "--", "sh", "-c", script])
            .limit(Duration::from_secs(180));
        assert_eq!(run.run().success(), "0\n", "zombies are left");
    }

    fn the_end_of_the_command_ends_everything(who) {
        let marker = format!("daemon-{who:?}-{}", std::process::id());
        let script = format!(
            "setsid sh -c 'sleep 1000; : {marker}' </dev/null >/dev/null 2>&1 & echo started"
        );
        let output = who.run(&["--net=none", "--", "sh", "-c", &script]);
        assert_eq!(output.success(), "started\n");
        eventually("daemons end with the command", A_SECOND, || {
            traces::marked(&marker).is_empty()
        });
    }

    fn a_killed_parent_leaves_nothing(who) {
        let host = Host::new();
        let mounts = host.mounts();
        let network = if who.has_tun() {
            "--net=builtin"
        } else {
            "--net=none"
        };
        let run = sleeper(who, &host, network, "killed-parent");
        let traces = Traces::of(run.pid());
        assert!(
            traces.processes.len() >= 3 && traces.namespaces.len() >= 6,
            "{traces:?}"
        );
        run.signal(Signal::KILL);
        assert_killed(run, &traces);
        assert_eq!(host.mounts(), mounts);
    }

    fn each_process_may_be_killed(who) {
        let host = Host::new();
        let network = if who.has_tun() {
            "--net=builtin"
        } else {
            "--net=none"
        };
        let count = Traces::of(sleeper(who, &host, network, "count").pid())
            .processes
            .len();
        for victim in 0..count {
            let run = sleeper(who, &host, network, "each");
            let traces = Traces::of(run.pid());
            let Some(process) = traces.processes.get(victim) else {
                continue;
            };
            let pid = Pid::from_raw(process.pid).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            // Some may be spared (a keeper); then the run goes on and is ended here.
            let ended = run.stdout.wait_for_end(Duration::from_secs(2));
            if !ended {
                run.signal(Signal::KILL);
            }
            drop(run);
            traces.assert_gone(A_SECOND);
        }
    }

    fn a_killed_init_is_137_and_leaves_nothing(who) {
        let host = Host::new();
        let run = sleeper(who, &host, "--net=none", "killed-init");
        let traces = Traces::of(run.pid());
        let init = Pid::from_raw(traces::init_below(run.pid()).pid).unwrap();
        kill_process(init, Signal::KILL).unwrap();
        run.finish().exit(137);
        traces.assert_gone(A_SECOND);
    }
}

/// A run that has started and would sleep.
#[track_caller]
fn sleeper(who: Who, host: &Host, network: &str, name: &str) -> Running {
    let marker = format!("{name}-{who:?}-{}", std::process::id());
    let run = who
        .crun(&[network, "--", "sh", "-c", "echo ready; sleep 1000", &marker])
        .on(host)
        .spawn();
    run.expect("ready\n");
    run
}

/// It was killed by us, and nothing of it is left within a second.
#[track_caller]
fn assert_killed(run: Running, traces: &Traces) {
    traces.assert_gone(A_SECOND);
    let output = run.finish();
    assert_eq!(output.killed_by(), Some(Signal::KILL.as_raw()), "{output}");
}
