//! What parent and keeper tell each other.
//!
//! # Theory of operation
//! The parent asks, one thing at a time, and the keeper answers each: there is no
//! message that is not acknowledged. Both carry the number of the question, so that
//! an answer that came too late is not taken for that to the next question.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Bound, Log};
use crate::config::{Publish, Transport};
use crate::ipc::{MAX_FDS, Message, shorten};

/// Version of the messages below.
const VERSION: u8 = 1;
/// Most sockets in one answer.
pub(super) const MOST_BOUND: usize = MAX_FDS;
/// Most process ids in one message.
pub(super) const MOST_PIDS: usize = 256;

/// A question or an answer, and the number of the question.
#[derive(Debug)]
pub(super) struct Numbered<M> {
    pub(super) number: u32,
    pub(super) message: M,
}

/// From the parent to the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToKeeper {
    /// Have the host's resolvers changed since this was last asked?
    Resolvers,
    /// Bind this; answered by [`FromKeeper::Bound`].
    Bind(Publish),
    /// The rest of what was bound.
    MoreBound,
    /// The next file of a log, its file being full.
    NextFile(Log),
    /// Kill the parent's children but these, and all below them.
    EndChildren(Vec<Pid>),
    /// Send a signal to the command that has taken init's place.
    Signal {
        /// Which (signal(7)).
        signal: i32,
        /// To its process group instead of it alone.
        group: bool,
    },
    /// The value of a setting of the kernel's, by its place in
    /// [`crate::error::hint::SETTINGS`].
    Setting(u8),
    /// The parent is about to end.
    Finish,
}

/// From the keeper to the parent.
#[derive(Debug)]
pub(super) enum FromKeeper {
    /// They are these now; `None`: as before.
    Resolvers(Option<Vec<SocketAddr>>),
    /// Sockets, bound.
    Bound {
        /// They.
        sockets: Vec<Bound>,
        /// There are more, to be asked for.
        more: bool,
    },
    /// The file; `None`: there is to be no other.
    File(Option<OwnedFd>),
    /// These children have been killed, and wait to be reaped.
    Killed(Vec<Pid>),
    /// The signal has been sent.
    Signaled,
    /// The value; `None`: the kernel has no such setting.
    Setting(Option<String>),
    /// It could not be done, and nothing has come of it.
    Failed(String),
    /// What was to be cleaned up has been; the keeper exits next.
    Finished,
}

const RESOLVERS: u8 = 1;
const BIND: u8 = 2;
const MORE_BOUND: u8 = 3;
const NEXT_FILE: u8 = 4;
const END_CHILDREN: u8 = 5;
const FINISH: u8 = 6;
const SETTING: u8 = 7;
const SIGNAL: u8 = 8;
const FAILED: u8 = 64;

/// Kind, body and descriptors.
type Parts<'m> = (u8, Vec<u8>, Vec<BorrowedFd<'m>>);

/// What [`Numbered`] carries.
pub(super) trait Content: Sized {
    fn parts(&self) -> io::Result<Parts<'_>>;
    fn from_parts(kind: u8, body: &[u8], fds: Vec<OwnedFd>) -> Option<Self>;
}

impl<M: Content> Message for Numbered<M> {
    const VERSION: u8 = VERSION;

    fn encode(&self) -> io::Result<Parts<'_>> {
        let (kind, body, fds) = self.message.parts()?;
        let body = [&self.number.to_le_bytes()[..], &body].concat();
        Ok((kind, body, fds))
    }

    fn decode(kind: u8, body: &[u8], fds: Vec<OwnedFd>) -> Option<Self> {
        let (number, body) = body.split_first_chunk()?;
        Some(Self {
            number: u32::from_le_bytes(*number),
            message: M::from_parts(kind, body, fds)?,
        })
    }
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

fn raw(pids: &[Pid]) -> Vec<i32> {
    let pids = pids.iter().take(MOST_PIDS);
    pids.map(|pid| pid.as_raw_nonzero().get()).collect()
}

fn pids(body: &[u8]) -> Option<Vec<Pid>> {
    let raw: Vec<i32> = read(body)?;
    let one = |raw: i32| if raw > 0 { Pid::from_raw(raw) } else { None };
    raw.into_iter().map(one).collect()
}

impl Content for ToKeeper {
    fn parts(&self) -> io::Result<Parts<'_>> {
        let (kind, body) = match self {
            Self::Resolvers => (RESOLVERS, Vec::new()),
            Self::Bind(publish) => (BIND, json(publish)?),
            Self::MoreBound => (MORE_BOUND, Vec::new()),
            Self::NextFile(log) => (NEXT_FILE, vec![*log as u8]),
            Self::EndChildren(but) => (END_CHILDREN, json(&raw(but))?),
            Self::Signal { signal, group } => {
                let number = u8::try_from(*signal).map_err(|_| io::ErrorKind::InvalidInput)?;
                (SIGNAL, vec![number, u8::from(*group)])
            }
            Self::Setting(place) => (SETTING, vec![*place]),
            Self::Finish => (FINISH, Vec::new()),
        };
        Ok((kind, body, Vec::new()))
    }

    fn from_parts(kind: u8, body: &[u8], _fds: Vec<OwnedFd>) -> Option<Self> {
        match (kind, body) {
            (RESOLVERS, []) => Some(Self::Resolvers),
            (BIND, publish) => read(publish).map(Self::Bind),
            (MORE_BOUND, []) => Some(Self::MoreBound),
            (NEXT_FILE, [log]) => Log::of(*log).map(Self::NextFile),
            (END_CHILDREN, but) => pids(but).map(Self::EndChildren),
            (SIGNAL, [signal @ 1..=64, group @ 0..=1]) => Some(Self::Signal {
                signal: i32::from(*signal),
                group: *group == 1,
            }),
            (SETTING, [place]) => Some(Self::Setting(*place)),
            (FINISH, []) => Some(Self::Finish),
            _ => None,
        }
    }
}

impl Content for FromKeeper {
    fn parts(&self) -> io::Result<Parts<'_>> {
        let mut fds = Vec::new();
        let (kind, body) = match self {
            Self::Resolvers(servers) => (RESOLVERS, json(servers)?),
            Self::Bound { sockets, more } => {
                fds.extend(sockets.iter().map(|bound| bound.socket.as_fd()));
                let places = sockets
                    .iter()
                    .map(|bound| (bound.transport, bound.host, bound.container_port));
                (BIND, json(&(more, places.collect::<Vec<_>>()))?)
            }
            Self::File(file) => {
                fds.extend(file.as_ref().map(AsFd::as_fd));
                (NEXT_FILE, vec![u8::from(file.is_some())])
            }
            Self::Killed(children) => (END_CHILDREN, json(&raw(children))?),
            Self::Signaled => (SIGNAL, Vec::new()),
            Self::Setting(value) => (SETTING, json(&value.as_deref().map(shorten))?),
            Self::Failed(why) => (FAILED, shorten(why).as_bytes().to_vec()),
            Self::Finished => (FINISH, Vec::new()),
        };
        Ok((kind, body, fds))
    }

    fn from_parts(kind: u8, body: &[u8], fds: Vec<OwnedFd>) -> Option<Self> {
        match (kind, body) {
            (RESOLVERS, servers) => read(servers).map(Self::Resolvers),
            (BIND, body) => {
                let (more, places): (bool, Vec<(Transport, SocketAddr, u16)>) = read(body)?;
                let bound = |((transport, host, container_port), socket)| Bound {
                    transport,
                    host,
                    container_port,
                    socket,
                };
                (places.len() == fds.len()).then(|| Self::Bound {
                    sockets: places.into_iter().zip(fds).map(bound).collect(),
                    more,
                })
            }
            (NEXT_FILE, [there]) => {
                let file = fds.into_iter().next();
                (file.is_some() == (*there == 1)).then_some(Self::File(file))
            }
            (END_CHILDREN, children) => pids(children).map(Self::Killed),
            (SIGNAL, []) => Some(Self::Signaled),
            (SETTING, value) => read(value).map(Self::Setting),
            (FAILED, why) => Some(Self::Failed(String::from_utf8_lossy(why).into_owned())),
            (FINISH, []) => Some(Self::Finished),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::ipc::{Channel, Received};

    fn pass<M: Content>(message: M) -> (u32, M) {
        let (a, b) = Channel::pair().unwrap();
        let number = 0x0102_0304;
        a.send(&Numbered { number, message }).unwrap();
        match b.try_receive::<Numbered<M>>().unwrap() {
            Received::Message(got) => (got.number, got.message),
            other => panic!("{:?}", std::mem::discriminant(&other)),
        }
    }

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).unwrap()
    }

    #[test]
    fn questions_survive_the_socket() {
        let publish = Publish {
            address: Some("::1".parse().unwrap()),
            host_port: Some(1),
            container_port: 2,
            count: 3,
            transport: Transport::Udp,
        };
        for sent in [
            ToKeeper::Resolvers,
            ToKeeper::Bind(publish),
            ToKeeper::MoreBound,
            ToKeeper::NextFile(Log::Capture),
            ToKeeper::NextFile(Log::Refusals),
            ToKeeper::EndChildren(vec![pid(7), pid(1 << 22)]),
            ToKeeper::Setting(3),
            ToKeeper::Finish,
        ] {
            assert_eq!(pass(sent.clone()), (0x0102_0304, sent));
        }
        // As many as ever go into one fit.
        let last = 1 << 22;
        let many: Vec<Pid> = (last - 256..last).map(pid).collect();
        assert_eq!(many.len(), MOST_PIDS);
        assert_eq!(
            pass(ToKeeper::EndChildren(many.clone())).1,
            ToKeeper::EndChildren(many)
        );
    }

    #[test]
    fn a_full_answer_fits() {
        let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let bound = |_| Bound {
            transport: Transport::Tcp,
            host: long.parse().unwrap(),
            container_port: 65535,
            socket: UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        };
        let sent = FromKeeper::Bound {
            sockets: (0..MOST_BOUND).map(bound).collect(),
            more: true,
        };
        let (_, FromKeeper::Bound { sockets, more }) = pass(sent) else {
            panic!("something else")
        };
        assert!(more && sockets.len() == MOST_BOUND);
        assert_eq!(sockets[MOST_BOUND - 1].host.to_string(), long);
    }

    #[test]
    fn nonsense_is_refused() {
        let to = |kind, body: &[u8]| ToKeeper::from_parts(kind, body, Vec::new()).is_some();
        assert!(!to(RESOLVERS, &[1]) && !to(BIND, b"{}") && !to(NEXT_FILE, &[9]));
        assert!(!to(END_CHILDREN, b"[0]") && !to(END_CHILDREN, b"[-1]") && !to(99, &[]));
        let from = |kind, body: &[u8]| FromKeeper::from_parts(kind, body, Vec::new()).is_some();
        // It says that there are descriptors, and there are none.
        assert!(!from(NEXT_FILE, &[1]) && !from(BIND, br#"[false,[["tcp","[::]:1",1]]]"#));
        assert!(from(NEXT_FILE, &[0]) && from(BIND, b"[false,[]]"));
        assert!(Numbered::<ToKeeper>::decode(RESOLVERS, &[1, 2, 3], Vec::new()).is_none());
    }
}
