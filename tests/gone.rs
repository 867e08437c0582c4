//! A container that loses its link: the run ends with a message and exit code 125, and
//! nothing is left.
//!
//! `CRUN_LITE_KILLS` says how many times each link is taken away. That nothing is left a
//! second after the end is asserted; how soon all was over is printed.

use std::time::{Duration, Instant};

use crate::util::traces::{self, Traces};
use crate::util::{Host, Times, Who, eventually, has_program, number_from_env};

/// Nothing of a run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);

/// Has a container that may do so delete its own link, over and over.
fn take_away(who: Who, options: &[&str]) {
    let host = Host::new();
    let mounts = host.mounts();
    let mut times = Times::default();
    for round in 0..number_from_env("CRUN_LITE_KILLS", 10) {
        let what = format!("{options:?} as {who:?}, round {round}");
        let marker = format!("gone-{options:?}-{who:?}-{}-{round}-", std::process::id());
        let script = "echo ready; read -r _; ip link del tap0; echo gone; sleep 1000; exit 9";
        let args = [
            "--cap-add=NET_ADMIN",
            "--rootfs=/",
            "--",
            "sh",
            "-c",
            script,
            &marker,
        ];
        let args = [&["-i"], options, &args].concat();
        let mut run = who.crun(&args).on(&host).stdin_open().spawn();
        run.expect("ready\n");
        let traces = Traces::of(run.pid());
        let begin = Instant::now();
        run.write(b"\n");
        let output = run.finish();
        times.add(begin.elapsed());
        assert_eq!(output.code(), Some(125), "{what}: {output}");
        let message = "read the container's network link";
        assert!(output.stderr.contains(message), "{what}: {output}");
        let gone = || traces::marked(&marker).is_empty();
        eventually(&format!("{what}: no process is left"), A_SECOND, gone);
        traces.assert_gone(A_SECOND);
    }
    assert_eq!(host.mounts(), mounts);
    times.report(&format!("{options:?} gone as {who:?}: all over"));
}

both! {
    fn a_tap(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("ip"), "no ip");
        take_away(who, &["--net=builtin:link=tap"]);
    }

    fn a_tap_of_a_command_without_init(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("ip"), "no ip");
        take_away(who, &["--init=false", "--net=builtin:link=tap"]);
    }

    fn a_veth(who) {
        need!(has_program("ip"), "no ip");
        take_away(who, &["--net=builtin:link=veth"]);
    }

    fn a_veth_of_a_command_without_init(who) {
        need!(has_program("ip"), "no ip");
        take_away(who, &["--init=false", "--net=builtin:link=veth"]);
    }
}
