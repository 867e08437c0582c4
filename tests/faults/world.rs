//! Who a container talks to, and what it and others do that meets the sites.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tracer::{self, Tracer};
use crate::util::command::{CrunLite, Running};
use crate::util::dns::DnsServer;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::{Family, Host, SOON, Side, Who};

const WORK: &str = include_str!("work.py");
/// What somebody outside waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The port that the container serves and one that it does not.
const SERVED: u16 = 7000;
const CLOSED: u16 = 7009;
/// One whose server reads late.
const LATE: u16 = 7010;
/// After this what was done is on its way, if nobody answers.
const A_MOMENT: Duration = Duration::from_millis(30);
/// Receive buffer of who takes little at a time, bytes.
const NARROW: usize = 8 << 10;
/// UDP sockets of the ports that are published from the start, one for each version of IP.
const PUBLISHED: u64 = 2;

/// Connections at a time that need pipes.
const HELD: usize = 24;

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    /// Whoever acted was told.
    Error(String),
    /// Nobody was told anything.
    Hang,
}

/// Everybody around the container.
pub(super) struct World {
    pub(super) host: Host,
    pub(super) who: Who,
    tcp: TcpServer,
    sink: TcpServer,
    late: TcpServer,
    _udp: [UdpServer; 2],
    _dns: DnsServer,
    pub(super) folder: TempDir,
    tracer: PathBuf,
}

impl World {
    pub(super) fn new(host: Host, who: Who) -> Self {
        let far: [IpAddr; 2] = [Family::V4, Family::V6].map(Family::far);
        // Less than is sent to who reads late. How much a kernel would hold itself is a matter of
        // luck: once it has seen segments come in another order, and remembers that of their
        // destination (ip-tcp_metrics(8)), it is more than a megabyte from the start.
        let most = "echo 4096 16384 131072 > /proc/sys/net/ipv4/tcp_wmem";
        host.tool(&["sh", "-c", most]);
        let tcp = TcpServer::echo(&host, Side::Far, far[0]);
        let sink = TcpServer::start(&host, Side::Far, far[0], |mut stream| {
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        let late = TcpServer::start(&host, Side::Far, far[0], |mut stream| {
            stream.shutdown(Shutdown::Write)?;
            thread::sleep(A_MOMENT);
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        // Before it runs, or a busy machine's kernel would have taken everything by then.
        let late = late.narrow(NARROW);
        let port = tcp.port();
        let udp = far.map(|address| {
            let at = SocketAddr::new(address, port);
            UdpServer::start_at(&host, Side::Far, at, |data| Some(data.to_vec()))
        });
        let folder = who.folder();
        let tracer = tracer::compile(folder.path());
        Self {
            _dns: DnsServer::start(&host),
            tcp,
            sink,
            late,
            _udp: udp,
            host,
            who,
            folder,
            tracer,
        }
    }

    /// A container with these options as well.
    pub(super) fn container(&self, options: &[&str]) -> Container<'_> {
        // Each look is two stops of the tracer's.
        self.container_in("busy_poll=0", options)
    }

    /// With these keys of the network.
    pub(super) fn container_in(&self, keys: &str, options: &[&str]) -> Container<'_> {
        let net = format!("--net=builtin:{keys}");
        let name = format!("faults-{:?}-{}", self.who, fastrand::u32(..));
        let servers = [&self.tcp, &self.sink, &self.late];
        let [echo, sink, late] = servers.map(|server| server.port().to_string());
        let named = format!("--name={name}");
        let mut args = vec![
            &*named,
            &*net,
            "--cap-add=NET_RAW",
            "--net-deny=192.0.2.0/24",
            "-p",
            "7000:7000",
            "-p",
            "7000:7000/udp",
            "-p",
            "7009:7009",
            "-p",
            "7010:7010",
            "--env=WORK",
            "-i",
            "--rootfs=/",
        ];
        args.extend(options);
        let far = [Family::V4, Family::V6].map(|family| family.far().to_string());
        let script = "exec /usr/bin/python3 -c \"$WORK\" \"$@\"";
        args.extend([
            "--", "sh", "-c", script, "sh", &far[0], &far[1], &echo, &sink, &late,
        ]);
        let run = self
            .who
            .crun(&args)
            .on(&self.host)
            .env("WORK", WORK)
            .stdin_open()
            .limit(Duration::from_secs(600))
            .spawn();
        run.expect("ready\n");
        Container {
            world: self,
            tracer: Tracer::start(&self.tracer, run.pid()),
            run,
            name,
            number: 0,
        }
    }
}

/// One that runs and is looked at.
pub(super) struct Container<'w> {
    world: &'w World,
    pub(super) tracer: Tracer,
    pub(super) run: Running,
    pub(super) name: String,
    number: u32,
}

impl Container<'_> {
    /// Does something with the network.
    pub(super) fn act(&mut self, action: &str) -> Outcome {
        let outside = |side: Side, act: fn(SocketAddr) -> io::Result<()>, port| {
            let at = SocketAddr::new(Family::V4.host(), port);
            told(self.world.host.inside(side, || act(at)))
        };
        match action {
            "far client" => outside(Side::Far, exchange, SERVED),
            "far small" => outside(Side::Far, small, SERVED),
            "far bulk" => outside(Side::Far, bulk, SERVED),
            "far refused" => outside(Side::Far, refused, CLOSED),
            "far datagram" => outside(Side::Far, datagram, SERVED),
            "far slow" => outside(Side::Far, slow, SERVED),
            "far gone" => outside(Side::Far, gone, SERVED),
            "own client" => outside(Side::Host, exchange, SERVED),
            "own bulk" => outside(Side::Host, bulk, SERVED),
            "own held" => outside(Side::Host, held, LATE),
            "own many" => outside(Side::Host, many, SERVED),
            "own urgent" => outside(Side::Host, urgent, SERVED),
            "own reset" => outside(Side::Host, reset, SERVED),
            "own refused" => outside(Side::Host, refused, CLOSED),
            "stats" => self.ask(&["net", "stats", "--json"], &[]),
            "flows" => self.ask(&["net", "flows", "--json"], &[]),
            "ports" => match self.ask(&["port", "add"], &["7001:7000", "7002:7000/udp"]) {
                Outcome::Ok => self.ask(&["port", "rm"], &["7001:7000", "7002:7000/udp"]),
                outcome => {
                    // What was added without an answer is not to be in the way.
                    self.ask(&["port", "rm"], &["7001:7000", "7002:7000/udp"]);
                    outcome
                }
            },
            "address" => {
                for change in ["add", "del"] {
                    self.world
                        .host
                        .tool(&["ip", "addr", change, "203.0.113.1/32", "dev", "lo"]);
                }
                self.inside("tcp")
            }
            _ => self.inside(action),
        }
    }

    /// Ends it; what it has printed.
    pub(super) fn end(self) -> String {
        drop(self.tracer);
        self.run.signal(rustix::process::Signal::KILL);
        self.run.finish().stderr
    }

    /// Has the container do something.
    fn inside(&mut self, action: &str) -> Outcome {
        self.number += 1;
        self.run
            .write(format!("{} {action}\n", self.number).as_bytes());
        let begin = format!("<{} ", self.number);
        let what = |missing: String| panic!("{action}: {missing}");
        self.run.stdout.wait_for(&begin, SOON).unwrap_or_else(what);
        self.run.stdout.wait_for(">\n", SOON).unwrap_or_else(what);
        let text = self.run.stdout.text();
        let outcome = text.rsplit_once(&begin).unwrap().1;
        let outcome = outcome.split_once(">\n").unwrap().0;
        match outcome.split_once(' ') {
            None if outcome == "ok" => Outcome::Ok,
            Some(("error", why)) => Outcome::Error(why.to_owned()),
            _ => Outcome::Hang,
        }
    }

    /// What `crun-lite` says to a question about it.
    fn ask(&self, verb: &[&str], more: &[&str]) -> Outcome {
        let begin = Instant::now();
        let args = [verb, &[&self.name], more].concat();
        let output = CrunLite::new(self.world.who, &args)
            .on(&self.world.host)
            .run();
        match output.code() {
            _ if begin.elapsed() > PATIENCE * 2 => Outcome::Hang,
            Some(0) => Outcome::Ok,
            _ => Outcome::Error(output.stderr),
        }
    }

    /// How many UDP and echo sockets its flows have: these are counted with others, of which some
    /// may end meanwhile.
    pub(super) fn sockets(&self) -> [RangeInclusive<u64>; 2] {
        let before = self.figure("flows");
        let told = self.json("flows");
        let after = self.figure("flows");
        let flows = told.as_array().unwrap();
        let ends = flows.iter().map(|flow| flow["container"].as_str().unwrap());
        let ends = ends.filter(|end| !end.ends_with(&format!(":{SERVED}")));
        // One for each port of the container; those of published ports are older.
        let ports = ends.collect::<BTreeSet<_>>().len() as u64;
        // The figure counts the sockets of UDP, too.
        let listed = flows.len() as u64 + ports + PUBLISHED;
        let echoes = [after, before].map(|figure| figure.saturating_sub(listed));
        [ports..=ports, echoes[0]..=echoes[1]]
    }

    /// What `crun-lite net` tells of it.
    fn json(&self, verb: &str) -> serde_json::Value {
        let args = ["net", verb, "--json", &self.name];
        let told = CrunLite::new(self.world.who, &args)
            .on(&self.world.host)
            .run()
            .success();
        serde_json::from_str(&told).unwrap()
    }

    /// One of its counters.
    fn figure(&self, name: &str) -> u64 {
        let told = self.json("stats");
        told[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} in {told}"))
    }
}

fn told(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok,
        // What a time-out of ours gives; the kernel's own has another number.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Outcome::Hang,
        Err(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() => {
            Outcome::Hang
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}

fn client(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// As [`exchange`], of what comes in one piece.
fn small(at: SocketAddr) -> io::Result<()> {
    let mut stream = client(at)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    end(stream)
}

/// Sends a piece and has it back, twice, and ends.
fn exchange(at: SocketAddr) -> io::Result<()> {
    let mut stream = client(at)?;
    let piece: Vec<u8> = (0..1 << 16)
        .map(|place: u32| place.to_le_bytes()[1])
        .collect();
    for _ in 0..2 {
        stream.write_all(&piece)?;
        let mut back = vec![0; piece.len()];
        stream.read_exact(&mut back)?;
        if back != piece {
            return Err(io::Error::other("other data"));
        }
    }
    end(stream)
}

fn end(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more data")),
    }
}

/// More than fits, sent while it is read.
fn bulk(at: SocketAddr) -> io::Result<()> {
    const SIZE: usize = 4 << 20;
    let mut stream = client(at)?;
    let mut writer = stream.try_clone()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            writer.write_all(&vec![7; SIZE])?;
            writer.shutdown(Shutdown::Write)
        });
        let mut back = Vec::new();
        let read = stream.read_to_end(&mut back);
        sender.join().unwrap()?;
        read?;
        if back == vec![7; SIZE] {
            Ok(())
        } else {
            Err(io::Error::other(format!("{} of {SIZE} bytes", back.len())))
        }
    })
}

/// More connections than there are pipes in reserve, to a server that reads late: each holds
/// data meanwhile.
fn held(at: SocketAddr) -> io::Result<()> {
    const SIZE: usize = 3 << 20;
    let streams: Vec<_> = (0..HELD).map(|_| client(at)).collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        let work = |mut stream: TcpStream| -> io::Result<()> {
            stream.write_all(&vec![7; SIZE])?;
            stream.shutdown(Shutdown::Write)?;
            let mut count = [0; 10];
            stream.read_exact(&mut count)?;
            if count == *format!("{SIZE:010}").as_bytes() {
                Ok(())
            } else {
                Err(io::Error::other("bytes are missing"))
            }
        };
        let works: Vec<_> = streams
            .into_iter()
            .map(|stream| scope.spawn(move || work(stream)))
            .collect();
        works.into_iter().try_for_each(|work| work.join().unwrap())
    })
}

/// Has its end while there is more for it than it has room for.
fn slow(at: SocketAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(NARROW)?;
    socket.connect_timeout(&at.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = TcpStream::from(socket);
    let data: Vec<u8> = (0..512 << 10)
        .map(|place: u32| place.to_le_bytes()[1])
        .collect();
    stream.write_all(&data)?;
    stream.shutdown(Shutdown::Write)?;
    thread::sleep(A_MOMENT);
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    if back == data {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} bytes", back.len())))
    }
}

/// More than there are sockets inside in reserve, one after the other.
fn many(at: SocketAddr) -> io::Result<()> {
    for _ in 0..40 {
        let mut stream = client(at)?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

/// With a byte of urgent data.
fn urgent(at: SocketAddr) -> io::Result<()> {
    let mut stream = client(at)?;

    stream.write_all(b"before")?;
    socket2::SockRef::from(&stream).send_out_of_band(b"!")?;
    stream.write_all(b"after")?;
    let mut back = [0; 12];
    stream.read_exact(&mut back)?;
    end(stream)
}

/// As [`small`], but ends with a reset.
fn reset(at: SocketAddr) -> io::Result<()> {
    let mut stream = client(at)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    thread::sleep(A_MOMENT);
    Ok(())
}

/// Asks, and is not there any more for the answer.
fn gone(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.send_to(b"x", at)?;
    drop(socket);
    thread::sleep(A_MOMENT);
    Ok(())
}

/// Nobody is there.
fn refused(at: SocketAddr) -> io::Result<()> {
    let error = match client(at).and_then(|mut stream| stream.read(&mut [0])) {
        Ok(_) => return Err(io::Error::other("not refused")),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(error),
    }
}

/// Datagrams may be lost: whoever sends them tries again.
fn datagram(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(PATIENCE / 10))?;
    let mut outcome = Ok(());
    for _ in 0..10 {
        socket.send(b"x")?;
        outcome = socket.recv(&mut [0; 100]).map(drop);
        if !matches!(&outcome, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
            break;
        }
    }
    outcome
}
