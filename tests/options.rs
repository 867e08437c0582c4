//! The command line: what is refused, and that nothing happens before.

use std::fs;

use crate::util::{CrunLite, Who};

/// Options that are wrong, and what the message must name.
const WRONG: &[(&[&str], &[&str])] = &[
    (&["--no-such-option"], &["--no-such-option"]),
    (&["--net=slirp"], &["slirp"]),
    (&["--net=builtin:mtu=70000"], &["70000"]),
    (&["--net=builtin:mtu=100"], &["100"]),
    (&["--net=builtin:speed=fast"], &["speed"]),
    (&["--net=builtin:cidr=10.0.2.0/33"], &["10.0.2.0/33"]),
    (&["--net=builtin:cidr=somewhere"], &["somewhere"]),
    (&["--net=builtin:allow_host_loopback=maybe"], &["maybe"]),
    (&["--net=none", "--mtu=1500"], &["mtu"]),
    (
        &["--net-allow=example.org:0"],
        &["--net-allow", "example.org:0"],
    ),
    (&["--net-allow=tcp:443"], &["tcp:443", "*:PORT"]),
    (&["--net-allow=2001:db8:::443"], &["brackets"]),
    (&["--net-deny=10.0.0.1/8"], &["--net-deny", "10.0.0.0/8"]),
    (&["--net-deny=example.org:443"], &["example.org"]),
    (&["--net-default=drop"], &["--net-default", "drop"]),
    (&["--net=host", "--net-allow=*"], &["--net-allow"]),
    (&["--net-log=/no/such/folder/log"], &["--net-log"]),
    (
        &["--rootfs=/no/such/folder"],
        &["--rootfs", "/no/such/folder"],
    ),
    (&["--rootfs=/etc/passwd"], &["--rootfs", "/etc/passwd"]),
    (&["-v", "/no/such/source:/data"], &["/no/such/source"]),
    (&["-v", "/etc"], &["/etc"]),
    (&["-v", "/etc:relative"], &["relative"]),
    (&["-v", "/etc:/data:sideways"], &["sideways"]),
    (&["--mount=type=bind,source=/etc"], &["mount"]),
    (&["--mount=type=nothing,destination=/data"], &["nothing"]),
    (&["--tmpfs=relative"], &["relative"]),
    (&["--tmpfs=/data:size=much"], &["much"]),
    (&["--workdir=relative"], &["relative"]),
    (&["--cap-add=NO_SUCH_CAP"], &["NO_SUCH_CAP"]),
    (&["--security-opt=no-such-option"], &["no-such-option"]),
    (&["--memory=much"], &["--memory", "much"]),
    (&["--memory=1m"], &["--memory", "6m"]),
    (&["--memory-swap=64m"], &["--memory-swap", "--memory"]),
    (
        &["--memory=64m", "--memory-swap=32m"],
        &["--memory-swap", "less"],
    ),
    (&["--cpus=100000"], &["--cpus", "100000"]),
    (&["--cpus=1", "--cpu-quota=1000"], &["--cpu-quota"]),
    (&["--cpuset-cpus=1-0"], &["--cpuset-cpus", "1-0"]),
    (&["--pids-limit=many"], &["--pids-limit", "many"]),
    (&["--blkio-weight=5"], &["--blkio-weight", "10"]),
    (&["--ulimit=files=1"], &["--ulimit", "files", "nofile"]),
    (&["--oom-score-adj=1001"], &["--oom-score-adj", "1001"]),
    (&["--dns=not-an-address"], &["not-an-address"]),
    (&["--add-host=nameonly"], &["nameonly"]),
    (&["--env-file=/no/such/file"], &["/no/such/file"]),
    (&["-e", "=value"], &["value"]),
    (&["--uidmap=0:0"], &["0:0"]),
    (&["--user=root:root:root"], &["root:root:root"]),
    (&["--log-format=xml"], &["xml"]),
];

both! {
    fn wrong_options_are_refused_by_name(who) {
        for (options, names) in WRONG {
            let marker = who.folder();
            let volume = format!("{}:/marker", marker.path().display());
            let mut args = vec!["-v", &volume];
            args.extend(*options);
            args.extend(["--", "touch", "/marker/started"]);
            who.run(&args).refused(names);
            assert_eq!(
                fs::read_dir(marker.path()).unwrap().count(),
                0,
                "{options:?}: it was started"
            );
        }
    }

    fn a_long_hostname_is_refused(who) {
        let name = "x".repeat(65);
        who.run(&["--net=none", "--hostname", &name, "--", "true"])
            .refused(&["hostname"]);
        let name = format!("{}.{}", "x".repeat(32), "y".repeat(31));
        assert_eq!(
            who.sh(&["--hostname", &name], "hostname"),
            format!("{name}\n")
        );
        who.run(&[
            "--net=none",
            "--hostname",
            &"x".repeat(100_000),
            "--",
            "true",
        ])
        .refused(&["hostname"]);
    }

    fn a_dry_run_prints_the_plan_and_does_nothing(who) {
        let marker = who.folder();
        let volume = format!("{}:/marker", marker.path().display());
        let output = who.run(&[
            "--dry-run",
            "--net=none",
            "-v",
            &volume,
            "--",
            "touch",
            "/marker/started",
        ]);
        let plan = output.success();
        for word in ["/marker", "/proc", "pivot"] {
            assert!(
                plan.to_lowercase().contains(word),
                "{word:?} is not in the plan:\n{plan}"
            );
        }
        assert_eq!(fs::read_dir(marker.path()).unwrap().count(), 0);
    }

    fn the_log_says_which_root_was_chosen(who) {
        let output = who
            .run(&["--log-level=info", "--net=none", "--", "true"])
            .exit(0);
        let named = ["busybox", "/usr"]
            .iter()
            .any(|name| output.stderr.to_lowercase().contains(name));
        assert!(named, "{output}");
        assert_eq!(output.stdout, "", "{output}");
        let quiet = who.run(&["--net=none", "--", "true"]).exit(0);
        assert_eq!(quiet.stderr, "", "{quiet}");
    }

    fn a_log_in_json_is_json(who) {
        let output = who
            .run(&[
                "--log-level=info",
                "--log-format=json",
                "--net=none",
                "--",
                "true",
            ])
            .exit(0);
        assert!(!output.stderr.is_empty(), "{output}");
        for line in output.stderr.lines() {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
            assert!(
                parsed.is_ok_and(|value| value.is_object()),
                "{line:?} is no JSON object{output}"
            );
        }
    }

    fn options_end_where_the_command_begins(who) {
        let output = who.run(&["--net=none", "--rm", "sh", "-c", "echo $0 $1", "--rm", "-t"]);
        assert_eq!(output.success(), "--rm -t\n");
        let output = who.run(&["--net=none", "--", "echo", "--", "--net=none"]);
        assert_eq!(output.success(), "-- --net=none\n");
    }
}

#[test]
fn a_shell_is_run_without_a_command_and_nothing_without_a_verb() {
    Who::User.run(&["--net=none"]).success();
    CrunLite::new(Who::User, &[]).run().refused(&[]);
    CrunLite::new(Who::User, &["no-such-verb"])
        .run()
        .refused(&["no-such-verb"]);
}

#[test]
fn help_and_version_are_answers() {
    let help = CrunLite::new(Who::User, &["run", "--help"]).run().success();
    for option in [
        "--net",
        "--rootfs",
        "--volume",
        "--cap-add",
        "--security-opt",
        "--memory",
        "--pids-limit",
        "--ulimit",
        "--dry-run",
        "--log-level",
    ] {
        assert!(
            help.contains(option),
            "{option} is not in the help:\n{help}"
        );
    }
    let version = CrunLite::new(Who::User, &["--version"]).run().success();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}
