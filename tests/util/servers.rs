//! Servers that the container talks to, on threads of the test.

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::host::{Host, Side};

/// A connection's thread needs no more.
const STACK: usize = 128 * 1024;

/// Many connections at once need more than the usual 1,024 descriptors.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
}

/// A TCP server with a thread per connection.
pub(crate) struct TcpServer {
    listener: TcpListener,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    bells: AtomicUsize,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens on a port of its own choice.
    pub(crate) fn start<F>(host: &Host, side: Side, address: impl Into<IpAddr>, serve: F) -> Self
    where
        F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::start_at(host, side, SocketAddr::new(address.into(), 0), serve)
    }

    pub(crate) fn start_at<F>(host: &Host, side: Side, address: SocketAddr, serve: F) -> Self
    where
        F: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    {
        raise_descriptor_limit();
        let listener = host
            .inside(side, || TcpListener::bind(address))
            .unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        // std listens with 128; many clients at once would wait for a second try.
        rustix::net::listen(&listener, 4096).unwrap();
        let peers = Arc::<Mutex<Vec<_>>>::default();
        let accepted = Arc::clone(&peers);
        let acceptor = listener.try_clone().unwrap();
        let serve = Arc::new(serve);
        let thread = thread::spawn(move || {
            while let Ok((stream, peer)) = acceptor.accept() {
                accepted.lock().unwrap().push(peer);
                let serve = Arc::clone(&serve);
                // The client judges what it gets; an error here is its doing or shows there.
                let spawned = thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(move || drop(serve(stream)));
                spawned.expect("a thread for a connection");
            }
        });
        Self {
            listener,
            peers,
            bells: AtomicUsize::new(0),
            thread: Some(thread),
        }
    }

    /// Sends back what comes, to the end of it.
    pub(crate) fn echo(host: &Host, side: Side, address: impl Into<IpAddr>) -> Self {
        Self::start(host, side, address, echo)
    }

    /// Has connections that come from now on offer a window of no more than this, in bytes.
    pub(crate) fn narrow(self, size: usize) -> Self {
        socket2::SockRef::from(&self.listener)
            .set_recv_buffer_size(size)
            .unwrap();
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// How many connections have come, those included that stand in its queue:
    /// one of our own comes after them, and is not counted.
    pub(crate) fn accepted(&self, host: &Host, side: Side) -> usize {
        let to = reachable(self.listener.local_addr().unwrap());
        let bell = host.inside(side, || self.bell(to)).unwrap();
        let bell = bell.local_addr().unwrap().as_socket().unwrap();
        let bells = self.bells.fetch_add(1, Ordering::SeqCst) + 1;
        super::eventually("the server accepts the bell", super::SOON, || {
            self.peers.lock().unwrap().contains(&bell)
        });
        self.peers.lock().unwrap().len() - bells
    }

    /// A connection from a port that none has come from before: ports are used again,
    /// and the bell would be taken for one that came long ago.
    fn bell(&self, to: SocketAddr) -> io::Result<Socket> {
        loop {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(unspecified(to), 0).into())?;
            let port = socket.local_addr()?.as_socket().unwrap().port();
            let peers = self.peers.lock().unwrap();
            if peers.iter().all(|peer| peer.port() != port) {
                drop(peers);
                socket.connect(&to.into())?;
                return Ok(socket);
            }
        }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        // accept(2) of a listener that is shut down returns EINVAL.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&chunk[..count])?;
    }
}

/// An address of the same IP version that stands for all.
fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The address by which a server's own side reaches it.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

/// What a test sends itself to know that everything before it has been counted.
const BELL: &[u8] = b"bell of the test itself";

/// A UDP server that answers each datagram.
pub(crate) struct UdpServer {
    socket: UdpSocket,
    received: Arc<AtomicUsize>,
    bells: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    /// Binds a port of its own choice.
    pub(crate) fn start<F>(host: &Host, side: Side, address: impl Into<IpAddr>, answer: F) -> Self
    where
        F: Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    {
        Self::start_at(host, side, SocketAddr::new(address.into(), 0), answer)
    }

    pub(crate) fn start_at<F>(host: &Host, side: Side, address: SocketAddr, answer: F) -> Self
    where
        F: Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    {
        Self::start_with(host, side, address, move |socket, datagram, from| {
            if let Some(answer) = answer(datagram) {
                // Like any datagram, it may get lost.
                let _ = socket.send_to(&answer, from);
            }
        })
    }

    /// A server that does what it likes with a datagram and who has sent it.
    pub(crate) fn start_with<F>(host: &Host, side: Side, address: SocketAddr, serve: F) -> Self
    where
        F: Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    {
        let socket = host
            .inside(side, || UdpSocket::bind(address))
            .unwrap_or_else(|error| panic!("bind {address}: {error}"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let (received, bells, stop) = (Arc::default(), Arc::default(), Arc::default());
        let mut server = Self {
            socket,
            received,
            bells,
            stop,
            thread: None,
        };
        let thread = thread::spawn({
            let socket = server.socket.try_clone().unwrap();
            let (received, bells) = (Arc::clone(&server.received), Arc::clone(&server.bells));
            let stop = Arc::clone(&server.stop);
            move || {
                let mut datagram = vec![0; 65536];
                while !stop.load(Ordering::SeqCst) {
                    let Ok((count, from)) = socket.recv_from(&mut datagram) else {
                        continue;
                    };
                    if &datagram[..count] == BELL {
                        bells.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    received.fetch_add(1, Ordering::SeqCst);
                    serve(&socket, &datagram[..count], from);
                }
            }
        });
        server.thread = Some(thread);
        server
    }

    /// Sends back what comes.
    pub(crate) fn echo(host: &Host, side: Side, address: impl Into<IpAddr>) -> Self {
        Self::start(host, side, address, |datagram| Some(datagram.to_vec()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// How many datagrams have come, those included that stand in its queue.
    pub(crate) fn received(&self, host: &Host, side: Side) -> usize {
        let before = self.bells.load(Ordering::SeqCst);
        let to = reachable(self.socket.local_addr().unwrap());
        let bell = host
            .inside(side, || UdpSocket::bind((unspecified(to), 0)))
            .unwrap();
        bell.send_to(BELL, to).unwrap();
        super::eventually("the server hears the bell", super::SOON, || {
            self.bells.load(Ordering::SeqCst) > before
        });
        self.received.load(Ordering::SeqCst)
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
