//! What a container may use: that limits bite, are told, and leave nothing.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::util::cgroup::Cell;
use crate::util::traces::{self, Traces};
use crate::util::{SOON, Who, eventually, number_from_env};

/// A cell with these controllers; returns from the test where the machine has none.
macro_rules! cell {
    ($who:ident, $controllers:expr) => {
        cell!($who, $controllers, false)
    };
    ($who:ident, $controllers:expr, $alone:expr) => {
        match Cell::new($who, &$controllers, $alone) {
            Ok(cell) => cell,
            Err(why) => return $crate::util::skip(&why),
        }
    };
}

/// A command that needs this much memory, MiB.
fn take(mebibytes: u32) -> String {
    format!("exec dd if=/dev/zero of=/dev/null bs={mebibytes}M count=1 2>/dev/null")
}

both! {
    fn more_memory_than_allowed_is_a_kill_that_is_told(who) {
        let cell = cell!(who, ["memory"]);
        let run = |script: &str| {
            cell.crun(&["--net=none", "--memory=64m", "--", "sh", "-c", script]).run()
        };
        let output = run(&take(200)).exit(137);
        let told = ["out of memory", "67108864", "--memory"];
        for word in told {
            assert!(output.stderr.contains(word), "{word}{output}");
        }
        assert_eq!(output.stdout, "", "{output}");
        cell.assert_empty();
        // Of a process that is not the command, too.
        let output = run(&format!("({}) || echo survived", take(200)));
        assert!(output.stderr.contains("out of memory"), "{output}");
        assert_eq!(output.success(), "survived\n");
        let output = run(&take(10)).exit(0);
        assert_eq!(output.stderr, "", "{output}");
        cell.assert_empty();
    }

    fn a_fork_bomb_ends_at_the_limit(who) {
        const MOST: u32 = 40;
        let cell = cell!(who, ["pids"]);
        let limit = format!("--pids-limit={MOST}");
        let count = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); echo $i; done";
        let output = cell.crun(&["--net=none", &limit, "--", "sh", "-c", count]).run();
        assert!(output.stderr.contains("Resource temporarily unavailable"), "{output}");
        // All but init and the shell.
        let last = output.stdout.lines().last().unwrap().to_owned();
        assert_eq!(last, (MOST - 2).to_string(), "{output}");
        cell.assert_empty();

        let bomb = "b() { b | b & b; }; b & echo lit; read line";
        let mut run = cell
            .crun(&["--net=none", "-i", &limit, "--", "sh", "-c", bomb])
            .stdin_open()
            .spawn();
        run.expect("lit\n");
        let refused = || -> u64 {
            let current: u32 = cell.file("pids.current").unwrap().parse().unwrap();
            assert!(current <= MOST, "{current}");
            let events = cell.file("pids.events").unwrap();
            events.strip_prefix("max ").unwrap().parse().unwrap()
        };
        eventually("the bomb reaches the limit", SOON, || refused() > 0);
        // There is room on the host.
        who.sh(&[], "for i in $(seq 50); do true | true; done");
        run.close_stdin();
        run.finish().exit(1);
        cell.assert_empty();
    }

    fn cpu_time_is_limited(who) {
        let cell = cell!(who, ["cpu"]);
        // Ticks of 10 ms of the children that have been waited for (proc_pid_stat(5)).
        let script = "cat /proc/uptime; timeout 3 sh -c 'while :; do :; done'; \
                      cat /proc/uptime; cat /proc/$$/stat";
        let output = cell.crun(&["--net=none", "--cpus=0.2", "--", "sh", "-c", script]).run();
        let stdout = output.exit(0).stdout;
        let lines: Vec<Vec<f64>> = stdout
            .lines()
            .map(|line| line.split(' ').map(|word| word.parse().unwrap_or_default()).collect())
            .collect();
        let elapsed = lines[1][0] - lines[0][0];
        let used = (lines[2][15] + lines[2][16]) / 100.0;
        assert!(elapsed > 2.0, "{stdout}");
        let share = used / elapsed;
        assert!((0.02..0.4).contains(&share), "{share}: {stdout}");
        cell.assert_empty();
    }

    fn each_limit_is_where_the_kernel_looks(who) {
        let cell = cell!(who, ["cpu", "memory", "pids"]);
        let mut run = cell
            .crun(&[
                "--net=none", "-i", "-m", "32m", "--memory-swap=48m", "--memory-reservation=16m",
                "--cpu-period=50000", "--cpu-quota=25000", "-c", "2048", "--pids-limit=77", "--",
                "sh", "-c", "echo ready; read line",
            ])
            .stdin_open()
            .spawn();
        run.expect("ready\n");
        let expected: &[(&str, &str)] = if cell.unified {
            &[
                ("memory.max", "33554432"),
                ("memory.swap.max", "16777216"),
                ("memory.low", "16777216"),
                ("cpu.max", "25000 50000"),
                ("cpu.weight", "174"),
                ("pids.max", "77"),
            ]
        } else {
            &[
                ("memory.limit_in_bytes", "33554432"),
                ("memory.memsw.limit_in_bytes", "50331648"),
                ("memory.soft_limit_in_bytes", "16777216"),
                ("cpu.cfs_period_us", "50000"),
                ("cpu.cfs_quota_us", "25000"),
                ("cpu.shares", "2048"),
                ("pids.max", "77"),
            ]
        };
        for (file, value) in expected {
            assert_eq!(cell.file(file).as_deref(), Some(*value), "{file}");
        }
        run.close_stdin();
        run.finish();
        cell.assert_empty();
    }

    fn swap_is_twice_the_memory_or_unlimited(who) {
        let cell = cell!(who, ["memory"]);
        let file = if cell.unified { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
        let values: &[(&[&str], &str)] = if cell.unified {
            &[(&[], "33554432"), (&["--memory-swap=-1"], "max"), (&["--memory-swap=32m"], "0")]
        } else {
            // The last whole page of a signed number.
            &[
                (&[], "67108864"),
                (&["--memory-swap=-1"], "9223372036854771712"),
                (&["--memory-swap=32m"], "33554432"),
            ]
        };
        for (options, value) in values {
            let mut args = vec!["--net=none", "-i", "-m=32m"];
            args.extend(*options);
            args.extend(["--", "sh", "-c", "echo ready; read line"]);
            let mut run = cell.crun(&args).stdin_open().spawn();
            run.expect("ready\n");
            assert_eq!(cell.file(file).as_deref(), Some(*value), "{options:?}");
            run.close_stdin();
            run.finish();
        }
    }

    fn processes_run_on_the_cpus_that_are_given(who) {
        let cell = cell!(who, ["cpuset"]);
        let script = "grep -E 's_allowed_list' /proc/self/status";
        let output = cell
            .crun(&["--net=none", "--cpuset-cpus=0", "--cpuset-mems=0", "--", "sh", "-c", script])
            .run();
        assert_eq!(output.success(), "Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n");
        let output = cell.crun(&["--net=none", "--cpuset-cpus=0,4000", "--", "true"]).run();
        output.refused(&["--cpuset-cpus", "4000"]);
        cell.assert_empty();
    }

    fn disks_are_shared_by_weight(who) {
        let cell = cell!(who, ["io"]);
        let mut run = cell
            .crun(&["--net=none", "-i", "--blkio-weight=500", "--", "sh", "-c", "echo ready; read line"])
            .stdin_open()
            .spawn();
        run.expect("ready\n");
        let found: Vec<String> = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"]
            .iter()
            .filter_map(|name| cell.file(name))
            .collect();
        let set = ["500", "default 500", "default 4950"];
        assert!(found.iter().any(|value| set.contains(&value.as_str())), "{found:?}");
        run.close_stdin();
        run.finish();
        cell.assert_empty();
    }

    fn its_cgroup_is_the_root_of_its_namespace(who) {
        let cell = cell!(who, ["memory", "pids"]);
        let options = ["--net=none", "-m=32m", "--pids-limit=50"];
        let run = |more: &[&str], script: &str| {
            let args = [&options[..], more, &["--", "sh", "-c", script]].concat();
            cell.crun(&args).run().success()
        };
        let paths = run(&[], "cat /proc/self/cgroup");
        let limited = |line: &&str| ["0:", "memory", "pids"].iter().any(|part| line.contains(part));
        for line in paths.lines().filter(limited) {
            assert!(line.ends_with(":/"), "{paths}");
        }
        if cell.unified {
            let script = "cd /sys/fs/cgroup && cat memory.max pids.max && ! echo 9 >pids.max";
            assert_eq!(run(&[], script), "33554432\n50\n");
        }
        let shared = run(&["--cgroupns=host"], "cat /proc/self/cgroup");
        assert!(shared.contains("/crun-lite-"), "{shared}");
        // With the host's own user namespace there are no id maps to wait for.
        if who == Who::Root {
            let paths = run(&["--userns=host"], "cat /proc/self/cgroup");
            assert!(!paths.contains("crun-lite-"), "{paths}");
        }
        cell.assert_empty();
    }

    fn alone_in_a_cgroup_it_steps_aside_and_comes_back(who) {
        let cell = cell!(who, ["memory", "pids"], true);
        for _ in 0..2 {
            let output = cell
                .crun(&["--net=none", "-m=64m", "--pids-limit=50", "--", "sh", "-c", &take(200)])
                .run()
                .exit(137);
            assert!(output.stderr.contains("out of memory"), "{output}");
            assert_eq!(output.stderr.lines().count(), 1, "{output}");
            cell.assert_empty();
        }
        // With a terminal of its own there is one process more.
        let output = cell
            .crun(&["--net=none", "-t", "--pids-limit=50", "--", "echo", "there"])
            .run();
        assert_eq!(output.success(), "there\r\n");
        cell.assert_empty();
    }

    fn a_dry_run_says_where_and_makes_nothing(who) {
        let cell = cell!(who, ["memory", "pids"]);
        let args = [
            "--dry-run", "--net=none", "-m=64m", "--pids-limit=50", "--oom-score-adj=7",
            "--ulimit=core=0:5", "--", "true",
        ];
        let plan = cell.crun(&args).run().success();
        let first = if cell.unified { "memory.max=67108864" } else { "memory.limit_in_bytes=67108864" };
        for part in [
            "make the cgroup /sys/fs/cgroup", "/crun-lite-PID: ", first, "pids.max=50",
            "clone into the cgroup and new namespaces", "set oom_score_adj to 7", "core=0:5",
        ] {
            assert!(plan.contains(part), "{part:?} is not in the plan:\n{plan}");
        }
        cell.assert_empty();
    }

    fn killed_runs_leave_nothing_to_the_next_one(who) {
        let cell = cell!(who, ["memory", "pids"]);
        let options = ["--net=none", "-m=64m", "--pids-limit=50", "--"];
        let args = [&options[..], &["sh", "-c", "sleep 100 & sleep 100"]].concat();
        for round in 0..number_from_env("CRUN_LITE_KILLS", 40) / 4 {
            let run = cell.crun(&args).spawn();
            std::thread::sleep(Duration::from_micros(fastrand::u64(..60_000)));
            let traces = Traces::of(run.pid());
            if round % 2 == 0 {
                run.signal(Signal::KILL);
                drop(run);
            } else {
                let init = traces::below(run.pid())
                    .into_iter()
                    .find(|process| traces::inner_pid(process.pid) == Some(1));
                let Some(init) = init else {
                    run.signal(Signal::KILL);
                    continue;
                };
                let init = rustix::process::Pid::from_raw(init.pid).unwrap();
                let _ = rustix::process::kill_process(init, Signal::KILL);
                run.finish();
                cell.assert_empty();
            }
            traces.assert_gone(SOON);
            let output = cell.crun(&[&options[..], &["true"]].concat()).run().exit(0);
            assert_eq!(output.stderr, "", "{output}");
            cell.assert_empty();
        }
        // Their heirs have left nothing to do. Where the heir is killed, too, the next run does.
        let run = cell.crun(&args).spawn();
        let heir = || {
            let below = traces::below(run.pid()).into_iter();
            below.map(|process| process.pid).find(|pid| traces::name(*pid) == "crun-lite-heir")
        };
        let both = || !cell.made().is_empty() && heir().is_some();
        eventually("there are a cgroup and its heir", SOON, both);
        let traces = Traces::of(run.pid());
        let heir = rustix::process::Pid::from_raw(heir().unwrap()).unwrap();
        rustix::process::kill_process(heir, Signal::KILL).unwrap();
        run.signal(Signal::KILL);
        drop(run);
        traces.assert_gone(SOON);
        assert!(!cell.made().is_empty());
        cell.crun(&[&options[..], &["true"]].concat()).run().exit(0);
        cell.assert_empty();
    }

    fn what_runs_is_not_swept_away(who) {
        let cell = cell!(who, ["pids"]);
        let mut first = cell
            .crun(&["--net=none", "-i", "--pids-limit=50", "--", "sh", "-c", "echo ready; read line"])
            .stdin_open()
            .spawn();
        first.expect("ready\n");
        let made = cell.made();
        cell.crun(&["--net=none", "--pids-limit=50", "--", "true"]).run().exit(0);
        assert_eq!(cell.made(), made);
        assert!(!made.is_empty());
        first.close_stdin();
        first.finish();
        cell.assert_empty();
    }

    fn what_outlives_the_command_goes_with_its_cgroup(who) {
        let cell = cell!(who, ["pids"]);
        let script = "setsid sh -c 'trap : TERM HUP; sleep 100; sleep 100' & echo $!";
        for pid in ["--pid=host", "--pid=private"] {
            let args = ["--net=none", pid, "--pids-limit=50", "--", "sh", "-c", script];
            let output = cell.crun(&args).run().exit(0);
            assert!(!output.stderr.contains("cgroup"), "{output}");
            cell.assert_empty();
        }
    }

    fn without_a_limit_no_cgroup_is_touched(who) {
        let cell = cell!(who, ["pids"]);
        let mut run = cell
            .crun(&["--net=none", "-i", "--pids-limit=0", "--memory=0", "--cpus=0", "--",
                "sh", "-c", "echo ready; read line"])
            .stdin_open()
            .spawn();
        run.expect("ready\n");
        cell.assert_empty();
        let cgroup = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let init = traces::init_below(run.pid());
        assert_eq!(cgroup(init.pid), cgroup(run.pid().as_raw_nonzero().get()));
        run.close_stdin();
        run.finish();
    }

    fn a_host_without_cgroups_runs_what_has_no_limit(who) {
        need!(Who::tests_run_as_root(), "mounts can only be taken away by root");
        let hide = ["unshare", "--mount", "sh", "-c", "umount -l /sys/fs/cgroup; exec \"$@\"", "sh"];
        let run = |args: &[&str]| who.crun(args).outermost(&hide).run();
        run(&["--net=none", "--", "true"]).exit(0);
        run(&["--net=none", "-m=64m", "--", "true"])
            .refused(&["--memory", "no cgroups are mounted", "hint: as root, 'mount"]);
    }

    fn ulimits_are_the_commands(who) {
        let script = "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Sf; ulimit -Hf";
        let options = [
            "--ulimit=nofile=100:200", "--ulimit", "core=0,fsize=512:1024", "--ulimit=host",
        ];
        // Of fsize the shell shows blocks of 512 bytes.
        assert_eq!(who.sh(&options, script), "100\n200\n0\n1\n2\n");
        // Too little for the set-up, but not for the command.
        assert_eq!(who.sh(&["--ulimit=nofile=5"], "ulimit -n"), "5\n");
    }

    fn a_hard_limit_is_raised_by_root_or_not_at_all(who) {
        let own = ["prlimit", "--nofile=300:300"];
        let can_raise = who.can(&["prlimit", "--nofile=300:300", "prlimit", "--nofile=400:400", "true"]);
        assert!(who == Who::Root || !can_raise);
        let run = |ulimit: &str| {
            let args = ["--net=none", ulimit, "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"];
            who.crun(&args).through(&own).run()
        };
        assert_eq!(run("--ulimit=nofile=100:300").success(), "100\n300\n");
        let raised = run("--ulimit=nofile=100:400");
        if can_raise {
            assert_eq!(raised.success(), "100\n400\n");
        } else {
            raised.refused(&["--ulimit", "nofile=100:400", "300", "root"]);
        }
    }

    fn the_oom_score_goes_up_for_all_and_down_for_root(who) {
        let score = |value: &str| {
            let option = format!("--oom-score-adj={value}");
            who.run(&["--net=none", &option, "--", "cat", "/proc/self/oom_score_adj"])
        };
        assert_eq!(score("600").success(), "600\n");
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        let lower = (own - 10).to_string();
        let can_lower = who.can(&["sh", "-c", &format!("echo {lower} >/proc/self/oom_score_adj")]);
        assert!(who == Who::Root || !can_lower);
        let output = score(&lower).exit(0);
        if can_lower {
            assert_eq!((&*output.stdout, &*output.stderr), (&*format!("{lower}\n"), ""));
        } else {
            assert_eq!(output.stdout, format!("{own}\n"));
            assert!(output.stderr.contains("--oom-score-adj"), "{output}");
            assert!(output.stderr.contains("CAP_SYS_RESOURCE"), "{output}");
        }
    }
}

#[test]
fn what_is_not_delegated_is_named_before_anything_is_done() {
    need!(
        Who::tests_run_as_root(),
        "an ordinary user may have cgroups"
    );
    let folder = Who::User.folder();
    let volume = format!("{}:/marker", folder.path().display());
    for (option, names) in [
        ("--memory=64m", ["--memory", "controller memory"]),
        ("--cpus=0.5", ["--cpus", "controller cpu"]),
        ("--pids-limit=5", ["--pids-limit", "controller pids"]),
        ("--cpuset-cpus=0", ["--cpuset-cpus", "controller cpuset"]),
        (
            "--memory-reservation=64m",
            ["--memory-reservation", "controller memory"],
        ),
    ] {
        for dry in ["--dry-run=true", "--dry-run=false"] {
            let args = [
                "--net=none",
                "-v",
                &volume,
                option,
                dry,
                "--",
                "touch",
                "/marker/x",
            ];
            let output = Who::User.run(&args);
            assert!(output.stderr.contains("\nhint: "), "{output}");
            assert!(output.stderr.contains("/sys/fs/cgroup/"), "{output}");
            output.refused(&names);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
