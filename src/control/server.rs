//! The side that answers, on the parent's loop.
//!
//! Clients are few and of the same user; each has its turn when its socket is
//! ready, and none is waited for. One more than there is room for takes the place
//! of the one that has been there longest.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Uid, geteuid};

use super::{Answer, Envelope, MAX_REQUEST, Request, VERSION, socket_name};
use crate::errno::PAUSE;
use crate::error::Error;

/// Clients at a time.
const CLIENTS: usize = 8;
/// Clients accepted at a time.
const ACCEPTS: usize = CLIENTS;

/// The socket of one container. Tokens from the first one it was given on are its
/// own, [`Server::TOKENS`] in all.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Whose it is.
    owner: Uid,
    clients: [Option<Client>; CLIENTS],
    /// The place that the next client takes.
    next: usize,
    first_token: usize,
    /// Clients wait that could not be accepted, which no event tells of again.
    waiting: bool,
}

#[derive(Debug)]
struct Client {
    stream: OwnedFd,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
}

impl Server {
    /// Tokens of the event loop that it needs.
    pub const TOKENS: usize = 1 + CLIENTS;

    /// Takes the container's name.
    ///
    /// # Errors
    /// The name is taken.
    pub fn bind(container: &str) -> Result<Self, Error> {
        let bind = || -> io::Result<UnixListener> {
            let name = socket_name(geteuid().as_raw(), container);
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::NameInUse(container.to_owned()),
            _ => Error::host("listen on the control socket", error),
        })?;
        Ok(Self {
            listener,
            owner: geteuid(),
            clients: [const { None }; CLIENTS],
            next: 0,
            first_token: 0,
            waiting: false,
        })
    }

    /// Begins to listen for clients.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> Result<(), Error> {
        self.first_token = first_token;
        registry
            .register(
                &mut SourceFd(&self.listener.as_raw_fd()),
                Token(first_token),
                Interest::READABLE,
            )
            .map_err(|error| Error::host("watch the control socket", error))
    }

    /// An event with one of its tokens; `answer` is what is done about a request.
    pub fn ready(
        &mut self,
        event: &Event,
        registry: &Registry,
        answer: impl FnMut(Request) -> Answer,
    ) {
        let place = event.token().0 - self.first_token;
        match place.checked_sub(1) {
            None => self.accept(registry),
            Some(place) => self.turn(place, answer),
        }
    }

    /// How long the loop may sleep before [`Server::resume`]; `None` until there is an
    /// event.
    pub fn timeout(&self) -> Option<Duration> {
        self.waiting.then_some(PAUSE)
    }

    /// Tries again what could not be done before.
    pub fn resume(&mut self, registry: &Registry) {
        if self.waiting {
            self.accept(registry);
        }
    }

    fn accept(&mut self, registry: &Registry) {
        // Until there are none: whoever may not talk to us may come all the time.
        self.waiting = true;
        for _ in 0..ACCEPTS {
            match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stream) => {
                    if let Err(error) = self.admit(stream, registry) {
                        tracing::debug!("control socket: {error}");
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.waiting = false;
                    return;
                }
                Err(error) => {
                    tracing::debug!("control socket: {error}");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: OwnedFd, registry: &Registry) -> io::Result<()> {
        if socket_peercred(&stream)?.uid != self.owner {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let place = self.next;
        self.next = (self.next + 1) % CLIENTS;
        let token = Token(self.first_token + 1 + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&stream.as_raw_fd()), token, interest)?;
        self.clients[place] = Some(Client {
            stream,
            request: Vec::new(),
            answer: Vec::new(),
            sent: 0,
        });
        Ok(())
    }

    fn turn(&mut self, place: usize, answer: impl FnMut(Request) -> Answer) {
        let Some(slot) = self.clients.get_mut(place) else {
            return;
        };
        let done = slot.as_mut().is_none_or(|client| client.turn(answer));
        if done {
            *slot = None;
        }
    }
}

impl Client {
    /// Goes on as far as it can; whether that was all.
    fn turn(&mut self, mut answer: impl FnMut(Request) -> Answer) -> bool {
        if self.answer.is_empty() {
            match self.read() {
                Ok(Some(request)) => {
                    let reply = request.map_or_else(Answer::Error, &mut answer);
                    match serde_json::to_vec(&reply) {
                        Ok(bytes) => self.answer = bytes,
                        Err(error) => tracing::debug!("control socket: {error}"),
                    }
                    self.answer.push(b'\n');
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::debug!("control socket: {error}");
                    return true;
                }
            }
        }
        loop {
            let rest = self.answer.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                return true;
            }
            match rustix::io::write(&self.stream, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(error) => {
                    tracing::debug!("control socket: {error}");
                    return true;
                }
            }
        }
    }

    /// The request, or what is wrong with it, once it is complete.
    fn read(&mut self) -> io::Result<Option<Result<Request, String>>> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.stream, &mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if self.request.ends_with(b"\n") {
                return Ok(Some(parse(&self.request)));
            }
            if self.request.len() > MAX_REQUEST {
                return Ok(Some(Err("the request is too long".to_owned())));
            }
        }
    }
}

/// Reads a request as it comes from a client.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let told = |error: serde_json::Error| format!("not a request: {error}");
    let Version { version } = serde_json::from_slice(line).map_err(told)?;
    if version != VERSION {
        return Err(format!(
            "the container speaks version {VERSION} of the protocol, not {version}: it was started \
             by another version of crun-lite"
        ));
    }
    let envelope: Envelope = serde_json::from_slice(line).map_err(told)?;
    Ok(envelope.request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let ok = |line: &str| parse(line.as_bytes()).unwrap();
        assert_eq!(
            ok(r#"{"version":1,"execute":"port-list"}"#),
            Request::PortList
        );
        assert_eq!(
            ok(r#"{"version":1,"execute":"port-add","arguments":[]}"#),
            Request::PortAdd(Vec::new())
        );
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"version":2,"execute":"port-list"}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"execute":"no-such"}"#,
            r#"{"version":1,"execute":"port-add","arguments":[{"count":1}]}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// Whoever connects all the time does not keep the loop from its work.
    #[test]
    fn a_few_at_a_time() {
        use std::os::unix::net::UnixStream;
        let poll = mio::Poll::new().unwrap();
        let id = format!("test-{}", std::process::id());
        let mut server = Server::bind(&id).unwrap();
        let at = SocketAddr::from_abstract_name(socket_name(geteuid().as_raw(), &id)).unwrap();
        let connect = |_| UnixStream::connect_addr(&at).unwrap();
        let clients: Vec<_> = (0..=ACCEPTS).map(connect).collect();
        server.accept(poll.registry());
        assert_eq!(server.timeout(), Some(PAUSE));
        server.resume(poll.registry());
        assert_eq!(server.timeout(), None);
        drop(clients);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&line);
        }
    }
}
