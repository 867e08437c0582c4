//! `-t` on a real terminal.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::util::pty::Pty;
use crate::util::traces::Traces;
use crate::util::{SOON, Who, eventually};

both! {
    fn the_command_gets_a_terminal_of_its_own(who) {
        let pty = Pty::new(who);
        let run = pty.spawn(who.crun(&["--net=none", "-it", "--", "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all; stty size; ls /dev/pts; ( : > /dev/tty ) && echo controls"]));
        for text in ["/dev/pts/0", "all", "24 80", "controls"] {
            pty.expect(text);
        }
        assert!(run.finish(SOON).success());
    }

    fn its_size_follows(who) {
        let pty = Pty::new(who);
        let script = "trap 'echo changed' WINCH; echo ready; while sleep 0.1; do stty size; done";
        let run = pty.spawn(who.crun(&["--net=none", "-it", "--", "sh", "-c", script]));
        pty.expect("ready");
        for (rows, columns) in [(50, 132), (7, 39)] {
            pty.resize(rows, columns);
            pty.expect("changed");
            pty.expect(&format!("{rows} {columns}"));
        }
        pty.type_keys("\u{3}");
        assert_eq!(run.finish(SOON).code(), Some(130), "{:?}", pty.screen.text());
    }

    fn keys_reach_the_command_and_are_echoed_once(who) {
        let pty = Pty::new(who);
        let run = pty.spawn(who.crun(&[
            "--net=none",
            "-it",
            "--",
            "sh",
            "-c",
            "echo ready; read line; echo \"got <$line>\"",
        ]));
        pty.expect("ready");
        pty.type_keys("some words\n");
        pty.expect("got <some words>");
        assert!(run.finish(SOON).success());
        assert_eq!(
            pty.screen.text().matches("some words").count(),
            2,
            "{:?}",
            pty.screen.text()
        );
    }

    fn an_interrupt_key_interrupts_the_command_only(who) {
        let pty = Pty::new(who);
        let run = pty.spawn(who.crun(&[
            "--net=none",
            "-it",
            "--",
            "sh",
            "-c",
            "trap 'echo trapped' INT; echo ready; sleep 100; echo \"sleep: $?\"; exit 3",
        ]));
        pty.expect("ready");
        // The shell has started its sleep when that is in the foreground; a key
        // that comes earlier is trapped just the same.
        eventually("the sleep is interrupted", SOON, || {
            pty.type_keys("\x03");
            pty.screen
                .wait_for("sleep: 130", Duration::from_millis(300))
                .is_ok()
        });
        let status = run.finish(SOON);
        assert_eq!(status.code(), Some(3), "{:?}", pty.screen.text());
    }

    fn an_end_of_file_key_ends_the_input(who) {
        let pty = Pty::new(who);
        let run = pty.spawn(who.crun(&[
            "--net=none",
            "-it",
            "--",
            "sh",
            "-c",
            "echo ready; cat; echo end of input",
        ]));
        pty.expect("ready");
        pty.type_keys("line\n\x04");
        pty.expect("end of input");
        assert!(run.finish(SOON).success());
    }

    fn the_terminal_is_restored(who) {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 5", 5),
            ("kill -KILL $$", 137),
            ("stty raw -echo; exit 0", 0),
        ] {
            let pty = Pty::new(who);
            let before = pty.modes();
            let run = pty.spawn(who.crun(&["--net=none", "-it", "--", "sh", "-c", script]));
            let status = run.finish(SOON);
            assert_eq!(status.code(), Some(code), "{:?}", pty.screen.text());
            assert_eq!(pty.modes(), before, "after {script:?}");
        }
        let pty = Pty::new(who);
        let before = pty.modes();
        let status = pty
            .spawn(who.crun(&["--net=none", "-it", "--", "no-such-command"]))
            .finish(SOON);
        assert_eq!(
            (status.code(), pty.modes()),
            (Some(127), before),
            "{:?}",
            pty.screen.text()
        );
    }

    fn the_terminal_is_restored_when_a_signal_ends_the_run(who) {
        for signal in [Signal::TERM, Signal::HUP] {
            let pty = Pty::new(who);
            let before = pty.modes();
            let run = pty.spawn(who.crun(&[
                "--net=none",
                "-it",
                "--",
                "sh",
                "-c",
                "echo ready; exec sleep 100",
            ]));
            pty.expect("ready");
            assert_ne!(
                pty.modes(),
                before,
                "the terminal is raw while the command has its own"
            );
            run.signal(signal);
            let status = run.finish(SOON);
            assert_eq!(
                status.code(),
                Some(128 + signal.as_raw()),
                "{:?}",
                pty.screen.text()
            );
            assert_eq!(pty.modes(), before);
        }
    }

    fn the_terminal_is_restored_when_the_run_is_killed(who) {
        let pty = Pty::new(who);
        let before = pty.modes();
        let run = pty.spawn(who.crun(&[
            "--net=none",
            "-it",
            "--",
            "sh",
            "-c",
            "echo ready; sleep 100",
        ]));
        pty.expect("ready");
        let traces = Traces::of(run.pid());
        run.signal(Signal::KILL);
        let status = run.finish(SOON);
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        traces.assert_gone(Duration::from_secs(1));
        eventually("the modes of before", Duration::from_secs(1), || {
            pty.modes() == before
        });
    }

    fn a_lot_of_output_comes_whole(who) {
        let pty = Pty::new(who);
        let run = pty.spawn(who.crun(&[
            "--net=none",
            "-t",
            "--",
            "sh",
            "-c",
            "stty -opost; seq 1 60000; echo the end",
        ]));
        pty.expect("the end");
        assert!(run.finish(SOON).success());
        let text = pty.screen.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 60_001);
        let wrong = lines
            .iter()
            .zip(1_u32..)
            .take(60_000)
            .find(|(line, number)| line.trim() != number.to_string());
        assert_eq!(wrong, None);
    }
}

#[test]
fn a_terminal_without_one_outside_still_is_one() {
    let printed = Who::User
        .run(&["--net=none", "-t", "--", "sh", "-c", "tty"])
        .success();
    assert!(printed.starts_with("/dev/pts/"), "{printed}");
}
