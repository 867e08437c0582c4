//! The host's kernel refuses: every system call that the network makes fails, each in
//! every way that there is.
//!
//! A tracer (`tracer.c`) makes calls of the running, sandboxed process fail; nothing in
//! the product knows of it. `sites.rs` lists the calls, and what meets them.
//!
//! Each case is tried in one of two ways, once or for a while, and for the other user in
//! the other. `CRUN_LITE_FAULTS` is a number of rounds in which all are tried in both;
//! `CRUN_LITE_FAULTS_ONLY` is a part of the names of those that are to be tried alone.

mod pressure;
mod sites;
mod tracer;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sites::{OTHERS, RARE, Site};
use tracer::What;
use world::{Container, Outcome, World};

use crate::util::{Times, Who, number_from_env, report};

/// Within this whoever acts is told, and the same work goes well again.
const BOUND: Duration = Duration::from_secs(1);
/// How long calls fail, once the first has.
const A_WHILE: Duration = Duration::from_millis(25);
/// How often a call says "try again": for ever would be no kernel's answer.
const AGAIN: u64 = 3;
/// System calls in 60 ms of a process that sleeps: a timer or two. One that is busy makes
/// thousands.
const QUIET: u64 = 30;
/// How often a case is tried whose site is not met.
const TRIES: usize = 5;

#[rustfmt::skip] // One a line.
const ERRORS: &[(&str, i32)] = &[
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("ENOBUFS", libc::ENOBUFS),
    ("ENOMEM", libc::ENOMEM),
    ("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
    ("ECONNREFUSED", libc::ECONNREFUSED),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ("ENETUNREACH", libc::ENETUNREACH),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("ECONNRESET", libc::ECONNRESET),
    ("EPIPE", libc::EPIPE),
    ("EACCES", libc::EACCES),
    ("EPERM", libc::EPERM),
    ("EINTR", libc::EINTR),
    ("EAGAIN", libc::EAGAIN),
];
/// Calls that may take less than they were given.
const SHORT: [&str; 10] = [
    "write tcp",
    "writev tcp",
    "write accepted",
    "writev accepted",
    "splice from accepted",
    "splice to inside",
    "splice from inside",
    "splice to accepted",
    "sendmmsg udp",
    "write control client",
];

/// How long after a call has failed whoever acts was told, or had what it wanted, and how
/// long after the last failure the same work had gone well.
#[derive(Debug, Default)]
struct Spans {
    told: Times,
    well: Times,
}

/// One way in which the calls of a site fail.
#[derive(Debug, Clone, Copy)]
struct Case {
    site: Site,
    what: What,
}

impl Case {
    /// All of a table, or those that are asked for.
    fn all(table: &'static [Site]) -> Vec<Self> {
        let only = std::env::var("CRUN_LITE_FAULTS_ONLY").unwrap_or_default();
        let cases = table.iter().flat_map(|&site| {
            let errors = ERRORS.iter().map(|&(name, errno)| What::Error(name, errno));
            let short = SHORT.contains(&site.name).then_some(What::Short);
            errors.chain(short).map(move |what| Self { site, what })
        });
        cases
            .filter(|case| case.to_string().contains(&only))
            .collect()
    }

    /// Once, or for a while.
    fn try_on(
        self,
        container: &mut Container<'_>,
        once: bool,
        spans: &RefCell<Spans>,
    ) -> Result<(), String> {
        let again = matches!(self.what, What::Error("EINTR" | "EAGAIN", _));
        let times = match (once, again) {
            (true, _) => 1,
            (false, true) => AGAIN,
            (false, false) => u64::MAX >> 1,
        };
        let action = self.site.action;
        for _ in 0..TRIES {
            container
                .tracer
                .fail(self.site.name, self.what, times, A_WHILE);
            let outcome = container.act(action);
            let met = container.tracer.stop();
            if met.count == 0 {
                if outcome != Outcome::Ok {
                    return Err(format!("not met, and {outcome:?}"));
                }
                continue;
            }
            if outcome == Outcome::Hang {
                return Err(format!("nobody was told: {met:?}"));
            }
            if met.first > BOUND {
                return Err(format!("{outcome:?} only after {:?}", met.first));
            }
            let begin = Instant::now();
            let mut again = container.act(action);
            while again != Outcome::Ok {
                let took = met.last + begin.elapsed();
                if took > BOUND {
                    return Err(format!("not well after {took:?}, but {again:?}"));
                }
                again = container.act(action);
            }
            let took = met.last + begin.elapsed();
            if took > BOUND {
                return Err(format!("well only after {took:?}"));
            }
            let mut spans = spans.borrow_mut();
            spans.told.add(met.first);
            spans.well.add(took);
            return Ok(());
        }
        Err("the site was not met".to_owned())
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.site.name, self.what)
    }
}

/// What has to hold when nothing goes on: no descriptor is left over, and the process
/// sleeps.
fn settled(container: &mut Container<'_>) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        let open = container.tracer.open();
        let flows = container.sockets();
        let left = container.tracer.open();
        let of =
            |open: &BTreeMap<String, u64>, kind: &str| open.get(kind).copied().unwrap_or_default();
        let streams = ["tcp", "accepted", "control client"].map(|kind| of(&open, kind));
        // The time of some may be over while the container is asked.
        let fits = |(kind, flows): (&str, &RangeInclusive<u64>)| {
            of(&left, kind) <= *flows.end() && *flows.start() <= of(&open, kind)
        };
        if streams == [0; 3] && ["udp", "ping"].into_iter().zip(&flows).all(fits) {
            break;
        }
        if begin.elapsed() > BOUND {
            return Err(format!(
                "{open:?} are open, {left:?} then, of {flows:?} UDP and echo"
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // What was last to be done may take a moment.
    let mut calls = 0;
    for _ in 0..5 {
        let before = container.tracer.calls();
        std::thread::sleep(Duration::from_millis(60));
        calls = container.tracer.calls() - before;
        if calls <= QUIET {
            return Ok(());
        }
    }
    Err(format!("{calls} system calls while nothing goes on"))
}

/// Something that is done with a container; the error is what is wrong.
type Step<'s> = dyn Fn(&mut Container<'_>) -> Result<(), String> + 's;

/// Tries all cases of a table; what is wrong.
fn try_all(
    world: &World,
    keys: &str,
    table: &'static [Site],
    spans: &RefCell<Spans>,
) -> Vec<String> {
    // Each case in one way, and for the other user in the other, unless more is asked for.
    let rounds = number_from_env("CRUN_LITE_FAULTS", 0);
    let turn = usize::from(world.who == Who::Root);
    let mut running = None;
    let mut failed = Vec::new();
    let cases = Case::all(table);
    for _ in 0..rounds.max(1) {
        for of_site in cases.chunk_by(|one, other| one.site.name == other.site.name) {
            let mut steps: Vec<(String, Box<Step<'_>>)> = Vec::new();
            for (number, &case) in of_site.iter().enumerate() {
                for once in [true, false] {
                    if rounds == 0 && once == ((number + turn) % 2 == 0) {
                        continue;
                    }
                    let name = format!("{case}, {}", if once { "once" } else { "for a while" });
                    steps.push((
                        name,
                        Box::new(move |container| case.try_on(container, once, spans)),
                    ));
                }
            }
            steps.push((format!("after {}", of_site[0].site.name), Box::new(settled)));
            for (name, step) in steps {
                let container = running.get_or_insert_with(|| world.container_in(keys, &[]));
                let outcome = catch_unwind(AssertUnwindSafe(|| step(container)));
                let outcome = outcome.unwrap_or_else(|_| Err("it has ended".to_owned()));
                if let Err(why) = outcome {
                    // Its ports are free before the next begins.
                    let said = running.take().map(Container::end).unwrap_or_default();
                    let last: Vec<_> = said.lines().rev().take(3).collect();
                    report(&format!(
                        "{:?} {name}: {why}; last it said {last:?}",
                        world.who
                    ));
                    failed.push(format!("{name}: {why}"));
                }
            }
        }
    }
    failed
}

both! {
    /// Without any fault the work meets the sites of the tables and no others.
    fn every_call_is_in_the_table(who) {
        let host = routed_host!(who, "python3", "ip", "gcc");
        need!(who.can(&["sh", "-c", ": <>/dev/net/tun"]), "{who:?} may not open /dev/net/tun");
        let world = World::new(host, who);
        for (keys, table) in sites::TABLES {
            let mut container = world.container_in(keys, &[]);
            for action in sites::actions() {
                assert_eq!(container.act(action), Outcome::Ok, "{action}");
            }
            // How datagrams fall into turns is a matter of luck.
            for site in *table {
                let mut tries = 0..5 * TRIES;
                while !container.tracer.sites().contains_key(site.name) && tries.next().is_some() {
                    assert_eq!(container.act(site.action), Outcome::Ok, "{}", site.name);
                }
            }
            let met = container.tracer.sites();
            let known = |name: &str| {
                let listed = RARE.iter().chain(OTHERS).any(|(other, _)| *other == name);
                listed || sites::all().any(|site| site.name == name)
            };
            let unknown: Vec<_> = met.keys().filter(|name| !known(name)).collect();
            assert!(unknown.is_empty(), "not in the table: {unknown:?}");
            let names = table.iter().map(|site| site.name);
            let unmet: Vec<_> = names.filter(|name| !met.contains_key(*name)).collect();
            assert!(unmet.is_empty(), "not met: {unmet:?}");
            settled(&mut container).unwrap();
        }
    }

    fn every_call_fails_in_every_way(who) {
        let host = routed_host!(who, "python3", "ip", "gcc");
        need!(who.can(&["sh", "-c", ": <>/dev/net/tun"]), "{who:?} may not open /dev/net/tun");
        let world = World::new(host, who);
        let begin = Instant::now();
        let tables = sites::TABLES.iter();
        let spans = RefCell::default();
        let of_table = |(keys, table): &(&str, &'static [Site])| try_all(&world, keys, table, &spans);
        let failed: Vec<_> = tables.flat_map(of_table).collect();
        let cases: usize = sites::TABLES.iter().map(|(_, table)| Case::all(table).len()).sum();
        let sites = sites::all().count();
        report(&format!("{who:?}: {cases} cases at {sites} sites in {:?}", begin.elapsed()));
        let Spans { told, well } = spans.into_inner();
        told.report(&format!("{who:?}: told of a failed call"));
        well.report(&format!("{who:?}: all well again"));
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    }
}
