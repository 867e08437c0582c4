//! `--init=false`: the command itself is PID 1 of the container.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::util::pty::Pty;
use crate::util::traces::Traces;
use crate::util::{Host, SOON, Side, Who, eventually};

/// A server that tells its client's address, once for each line that it prints.
const SERVER: &str = "
import socket
server = socket.create_server(('', 7000))
print('ready', flush=True)
while True:
    client, address = server.accept()
    client.sendall(address[0].encode() + b' ' + client.recv(100))
    client.close()
";

fn children(pid: Pid) -> Vec<i32> {
    let pid = pid.as_raw_nonzero();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect()
}

both! {
    fn the_command_is_pid_1(who) {
        let script = "echo $$; cat /proc/1/comm; ls /proc/self/fd | wc -l; grep -e CapEff -e Seccomp: -e NoNewPrivs /proc/self/status";
        let with = who.sh(&[], script);
        let without = who.sh(&["--init=false"], script);
        assert!(without.starts_with("1\nsh\n"), "{without}");
        assert!(with.starts_with("2\ncrun-lite-init\n"), "{with}");
        let rest = |text: &str| text.splitn(3, '\n').last().unwrap().to_owned();
        assert_eq!(rest(&with), rest(&without));
        assert_eq!(who.sh(&["--init"], "echo $$"), "2\n");
        assert_eq!(who.sh(&["--init=true"], "echo $$"), "2\n");
        let printed = who.sh(&["--init=false", "--user=0:0", "-w", "/new"], "pwd; cut -d ' ' -f 6 /proc/self/stat");
        assert_eq!(printed, "/new\n1\n");
    }

    fn its_exit_code_is_the_runs(who) {
        let run = |words: &[&str]| {
            let mut args = vec!["--net=none", "--init=false", "--"];
            args.extend(words);
            who.run(&args)
        };
        run(&["sh", "-c", "exit 7"]).exit(7);
        run(&["no-such-command"]).exit(127);
        run(&["/etc/passwd"]).exit(126);
        run(&["/proc/self/exe"]).exit(126);
        // A signal from within does nothing to PID 1 that does not handle it.
        assert_eq!(run(&["sh", "-c", "kill -TERM $$; kill -KILL $$; echo still here"]).success(), "still here\n");
    }

    fn signals_reach_it_when_it_handles_them(who) {
        need!(who.has_tun(), "{:?} may not open /dev/net/tun", who);
        let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
        // With a network the keeper sends them: the process that runs it may not. Not even
        // root may signal another user without a capability.
        for options in [&["--net=none"][..], &["--net=builtin"], &["--net=builtin", "--user=nobody"]] {
            if options.len() > 1 && !who.has_subordinate_ids() {
                continue;
            }
            let mut args = options.to_vec();
            args.extend(["--init=false", "--", "sh", "-c", script]);
            let running = who.crun(&args).spawn();
            running.expect("ready\n");
            running.signal(Signal::TERM);
            assert_eq!(running.finish().exit(9).stdout, "ready\ncaught\n", "{options:?}");
        }
        // What it does not handle is lost, as with podman; SIGKILL ends the run.
        let args = ["--net=none", "--init=false", "-i", "--", "sh", "-c", "echo ready; read line; echo $line"];
        let mut running = who.crun(&args).stdin_open().spawn();
        running.expect("ready\n");
        running.signal(Signal::TERM);
        running.signal(Signal::HUP);
        running.write(b"still here\n");
        assert_eq!(running.finish().success(), "ready\nstill here\n");
    }

    fn it_ends_with_the_runtime(who) {
        let args = ["--net=none", "--init=false", "--", "sh", "-c", "sleep 1000 & echo ready; sleep 1000"];
        let running = who.crun(&args).spawn();
        running.expect("ready\n");
        // The command, and the keeper after it.
        let init = children(running.pid());
        assert_eq!(init.len(), 2, "{init:?}");
        let pidfd = rustix::process::pidfd_open(
            Pid::from_raw(init[0]).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        running.signal(Signal::KILL);
        assert_eq!(running.finish().killed_by(), Some(9));
        let gone = || {
            let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut fds, Some(&now)).unwrap() > 0
        };
        eventually("the command is gone", SOON, gone);
    }

    fn a_published_port_leads_to_it(who) {
        need!(who.has_tun(), "{:?} may not open /dev/net/tun", who);
        let host = Host::new();
        need!(host.is_own(), "a host of the test's own needs root");
        let args = ["--rootfs=/", "--init=false", "-p", "127.0.0.1:7070:7000", "--", "/usr/bin/python3", "-c", SERVER];
        let running = who.crun(&args).on(&host).spawn();
        running.expect("ready\n");
        for client in ["one", "two", "three"] {
            let mut answer = String::new();
            host.inside(Side::Host, || {
                let mut stream = TcpStream::connect(("127.0.0.1", 7070)).unwrap();
                stream.set_read_timeout(Some(SOON)).unwrap();
                stream.write_all(client.as_bytes()).unwrap();
                stream.read_to_string(&mut answer).unwrap();
            });
            // Over the link, so as the gateway; never as 127.0.0.1.
            assert_eq!(answer, format!("10.0.2.2 {client}"));
        }
    }

    fn it_can_have_a_terminal(who) {
        let pty = Pty::new(who);
        let script = "tty; test -t 0 && test -t 2 && echo all; ( : > /dev/tty ) && echo controls; trap 'exit 3' INT; echo ready; while :; do sleep 0.1; done";
        let args = ["--net=none", "-it", "--init=false", "--", "sh", "-c", script];
        let run = pty.spawn(who.crun(&args));
        for text in ["/dev/pts/0", "all", "controls", "ready"] {
            pty.expect(text);
        }
        pty.type_keys("\u{3}");
        assert_eq!(run.finish(SOON).code(), Some(3), "{:?}", pty.screen.text());
    }

    fn it_ends_with_its_parent_whatever_it_has_asked_for(who) {
        let host = Host::new();
        for network in ["--net=none", "--net=builtin"] {
            need!(network == "--net=none" || who.has_tun(), "{who:?} may not open /dev/net/tun");
            // Clears the request to be killed with the parent.
            let clear = ["setpriv", "--pdeathsig", "clear", "--"];
            let script = ["sh", "-c", "echo ready; exec sleep 1000"];
            let options = [network, "--init=false", "--rootfs=/", "--"];
            let run = who.crun(&[&options[..], &clear, &script].concat()).on(&host).spawn();
            run.expect("ready\n");
            let traces = Traces::of(run.pid());
            run.signal(Signal::KILL);
            drop(run);
            traces.assert_gone(Duration::from_secs(1));
        }
    }

    fn it_cannot_do_without_a_pid_namespace(who) {
        who.run(&["--init=false", "--pid=host", "--", "true"]).refused(&["--init=false", "--pid=host"]);
        let plan = who.run(&["--dry-run", "--init=false", "true"]).success();
        assert!(plan.contains("no new privileges, as PID 1"), "{plan}");
    }
}
