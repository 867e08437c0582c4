//! What the tests share.
//!
//! * `cgroup`: cgroups of a test's own, in which the program runs.
//! * `command`: runs the program and keeps what it printed.
//! * `family`: the IP versions, and who has which address in them.
//! * `host`: a private host side, with an outside world, for network tests.
//! * `servers`, `http`, `dns`: what the container talks to; `service`: a program
//!   that it talks to.
//! * `pty`: a terminal for `-t`.
//! * `traces`: what a run has left behind.
//! * `whoami`: a server that tells clients their address.
//! * `zone`: a name server with names of the test's own.
//! * `who`: as whom a test runs, and what that user can do.

macro_rules! need {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return $crate::util::skip(&format!($($reason)+));
        }
    };
}

/// A host with a machine behind a router, and these programs on it; returns from
/// the test where the machine cannot have it.
macro_rules! routed_host {
    ($who:ident $(, $program:literal)*) => {{
        need!($who.has_tun(), "{:?} may not open /dev/net/tun", $who);
        need!($crate::util::Who::tests_run_as_root(), "a world of the test's own needs root");
        $(need!($crate::util::has_program($program), "no {}", $program);)*
        $crate::util::Host::routed()
    }};
}

/// The same test as root and as an ordinary user.
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident($who:ident) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports, reason = "not every test needs all of it")]
                use super::*;

                fn check($who: Who) $body

                #[test]
                fn as_root() {
                    if Who::tests_run_as_root() {
                        check(Who::Root);
                    }
                }

                #[test]
                fn as_user() {
                    need!(Who::User.has_user_namespaces(), "{}", "an ordinary user may not make user namespaces");
                    check(Who::User);
                }
            }
        )+
    };
}

pub(crate) mod captured;
pub(crate) mod cgroup;
pub(crate) mod command;
pub(crate) mod dns;
pub(crate) mod family;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod places;
pub(crate) mod pty;
pub(crate) mod rootfs;
pub(crate) mod servers;
pub(crate) mod service;
pub(crate) mod streams;
pub(crate) mod times;
pub(crate) mod traces;
pub(crate) mod who;
pub(crate) mod whoami;
pub(crate) mod zone;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use command::{CrunLite, Output};
pub(crate) use family::Family;
pub(crate) use host::{Host, Side};
pub(crate) use times::Times;
pub(crate) use who::Who;

/// How long anything may take that ought to take no time at all.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Reports that a test cannot run here. With `CI=true` that is a failure.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "cannot be skipped in CI: {reason}"
    );
    report(&format!("SKIP {reason}"));
}

/// Prints a line even where the test passes: the test library holds back what
/// `eprintln!` prints.
pub(crate) fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether the host has a program.
pub(crate) fn has_program(name: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(name).exists())
}

/// A number from the environment, for longer runs than the usual.
pub(crate) fn number_from_env(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text:?}: {error}"))
    })
}

/// Waits until a condition holds; panics with `what` when it does not in time.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a program of the host prints, which must succeed.
#[track_caller]
pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
