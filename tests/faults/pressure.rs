//! What there is too little of for a while: descriptors, room on a disk, readers that
//! read.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::tracer::What;
use super::world::{Container, Outcome, World};
use super::{A_WHILE, BOUND, ERRORS, settled};
use crate::util::servers::TcpServer;
use crate::util::traces::memory;
use crate::util::{Family, Side, Who, report, tool};

/// How long nobody reads.
const STALL: Duration = Duration::from_millis(1500);
/// What one connection moves.
const SIZE: usize = 8 << 20;
/// Connections whose readers do not read.
const SLOW: usize = 8;

/// Sets the soft limit on open files; `None`: to the hard one.
fn limit(who: Who, pid: Pid, descriptors: Option<u64>) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.unwrap().split_whitespace().nth(4).unwrap();
    let soft = descriptors.map_or_else(|| hard.to_owned(), |count| count.to_string());
    let new = format!("--nofile={soft}:{hard}");
    // As the same user: who runs the tests may not have the capability to do it as another.
    let mut words = who.prefix();
    words.extend(["prlimit", "--pid", &pid.to_string(), &new].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    tool(words[0], &words[1..]);
}

/// The lowest number of a descriptor that is free: with that as the limit there is none.
fn free(pid: Pid) -> u64 {
    let numbers = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let taken: BTreeSet<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    (0..).find(|number| !taken.contains(number)).unwrap()
}

/// Bytes that tell their places.
fn pattern() -> Vec<u8> {
    (0..SIZE / 4)
        .flat_map(|place| u32::try_from(place).unwrap().to_be_bytes())
        .collect()
}

/// The container's work is to go well within the bound.
fn recovers(container: &mut Container<'_>, actions: &[&str]) {
    let begin = Instant::now();
    for action in actions {
        while container.act(action) != Outcome::Ok {
            assert!(begin.elapsed() < BOUND, "{action} does not recover");
        }
    }
}

fn echoes(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(b"still there?").unwrap();
    stream
        .read_exact(&mut [0; 12])
        .expect("a connection that stands goes on");
}

both! {
    /// Descriptors run out, stay out for a while, and are there again.
    fn no_more_descriptors(who) {
        let host = routed_host!(who, "python3", "ip", "gcc", "prlimit");
        let world = World::new(host, who);
        let mut container = world.container(&[]);
        let pid = container.run.pid();
        let at = SocketAddr::new(Family::V4.host(), 7000);
        let standing = [Side::Far, Side::Host]
            .map(|side| world.host.inside(side, || TcpStream::connect(at).unwrap()));
        standing.iter().for_each(echoes);
        let actions = ["tcp", "udp", "ping", "dns", "far client", "own client", "far datagram", "stats"];
        // Nothing can be given up yet for what is new.
        limit(who, pid, Some(free(pid)));
        let outcome = container.act("tcp");
        assert!(matches!(outcome, Outcome::Error(_)), "{outcome:?}");
        limit(who, pid, None);
        recovers(&mut container, &actions);
        for round in 0..3 {
            limit(who, pid, Some(free(pid)));
            for action in ["tcp", "udp", "ping", "dns"] {
                let outcome = container.act(action);
                report(&format!("{who:?} without descriptors, {action}: {outcome:?}"));
                assert_ne!(outcome, Outcome::Hang, "{action}");
            }
            standing.iter().for_each(echoes);
            // Clients from outside stand in the kernel's queue meanwhile.
            let late: Vec<_> = [Side::Far, Side::Host].into_iter().flat_map(|side| [side; 40])
                .map(|side| world.host.inside(side, || TcpStream::connect(at).unwrap()))
                .collect();
            thread::sleep(Duration::from_millis(100));
            let calls = container.tracer.calls();
            thread::sleep(Duration::from_millis(500));
            let calls = container.tracer.calls() - calls;
            report(&format!("{who:?} without descriptors: {calls} system calls in 0.5 s"));
            assert!(calls < 1000, "{calls} system calls while there is nothing to be done");
            standing.iter().for_each(echoes);
            limit(who, pid, None);
            let begin = Instant::now();
            late.iter().for_each(echoes);
            drop(late);
            recovers(&mut container, &actions);
            report(&format!("{who:?} round {round}: all is well after {:?}", begin.elapsed()));
        }
        drop(standing);
        settled(&mut container).unwrap();
    }

    /// Files that are written to: whatever fails ends them, never the network.
    fn files_that_take_nothing(who) {
        let host = routed_host!(who, "python3", "ip", "gcc");
        let world = World::new(host, who);
        let folder = world.folder.path().join("full");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.to_str().unwrap().to_owned();
        let size = "size=64k,mode=777";
        world.host.tool(&["mount", "-t", "tmpfs", "-o", size, "tmpfs", &path]);
        let files = [format!("--pcap={path}/capture"), format!("--net-log={path}/refusals")];
        let options = [&*files[0], &files[1]];
        let mut container = world.container(&options);
        for action in ["bulk", "denied", "tcp", "far client", "own client"] {
            assert_eq!(container.act(action), Outcome::Ok, "{action}");
        }
        let said = container.end();
        assert!(said.contains("capture") && said.contains("No space left"), "{said}");
        let clear = format!("rm {path}/*");
        let errors = ERRORS.iter().map(|&(name, errno)| What::Error(name, errno));
        for what in errors.chain([What::Error("ENOSPC", libc::ENOSPC), What::Short]) {
            world.host.tool(&["sh", "-c", &clear]);
            let mut container = world.container(&options);
            for (site, action) in [("write capture", "tcp"), ("write log", "denied")] {
                container.tracer.fail(site, what, 1 << 20, A_WHILE);
                let outcome = container.act(action);
                // Lines of the log wait for others for a while.
                let begin = Instant::now();
                let mut met = container.tracer.stop();
                while met.count == 0 && begin.elapsed() < BOUND * 2 {
                    container.tracer.fail(site, what, 1, A_WHILE);
                    container.act(action);
                    met = container.tracer.stop();
                }
                assert_ne!(met.count, 0, "{site}: {what}: not met");
                assert_eq!(outcome, Outcome::Ok, "{site}: {what}");
                assert_eq!(container.act("tcp"), Outcome::Ok, "{site}: {what}");
                assert_eq!(container.act(action), Outcome::Ok, "{site}: {what}");
            }
        }
    }

    /// Readers on either side that do not read: what waits is within the budget, others go
    /// on, and all of it is there in the end.
    fn readers_that_do_not_read(who) {
        let host = routed_host!(who, "python3", "ip", "gcc");
        let world = World::new(host, who);
        let far: IpAddr = Family::V4.far();
        let reader = TcpServer::start(&world.host, Side::Far, far, |mut stream| {
            thread::sleep(STALL);
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            stream.write_all(if all == pattern() { b"intact" } else { b"broken" })
        });
        let writer = TcpServer::start(&world.host, Side::Far, far, |mut stream| {
            stream.write_all(&pattern())?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        let budget: u64 = 16 << 10;
        let mut container = world.container_in("max_buffered=16m", &[]);
        let pid = container.run.pid();
        recovers(&mut container, &["tcp", "far client", "own client"]);
        let before = memory(pid, "VmRSS");
        for (side, port) in [("outside", reader.port()), ("inside", writer.port())] {
            let begin = Instant::now();
            let slow = format!("slow_{side}:{port}:{SLOW}:{SIZE}:{}", STALL.as_millis());
            assert_eq!(container.act(&slow), Outcome::Ok, "{side}");
            let mut others = 0;
            while begin.elapsed() < STALL - Duration::from_millis(200) {
                for action in ["tcp", "far client", "own client", "udp"] {
                    assert_eq!(container.act(action), Outcome::Ok, "{action} beside {slow}");
                    others += 1;
                }
            }
            assert!(others > 3, "{others} others meanwhile");
            assert_eq!(container.act("slow_end"), Outcome::Ok, "{side}");
            report(&format!(
                "{who:?}: readers {side} did not read for {STALL:?}: {others} others went well; \
                 {before} KiB before, at most {} KiB", memory(pid, "VmHWM")
            ));
        }
        let most = memory(pid, "VmHWM").saturating_sub(before);
        // And what is not payload.
        assert!(most < budget + (16 << 10), "{most} KiB more");
        settled(&mut container).unwrap();
    }
}
