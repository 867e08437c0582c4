//! What parent and init tell each other.
//!
//! # Theory of operation
//! A [`Channel`] carries them. A message from init is data from a process that has
//! the container's files mounted: it is decoded with every length checked, and no
//! more is believed than what it costs the container itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::NetLink;
use crate::error::StepFailure;
pub(super) use crate::ipc::{Channel, Received};
use crate::ipc::{Message, shorten};

/// Version of the messages below.
const VERSION: u8 = 1;

/// From the parent to init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToInit {
    /// Init is in the container's cgroup.
    Placed,
    /// The id maps are in place.
    MapsWritten,
    /// Start the command.
    Go,
    /// Open this many TCP sockets in the container's network namespace.
    OpenSockets(u8),
    /// Pass a signal on.
    Signal {
        /// Which (signal(7)).
        signal: i32,
        /// To the command's process group instead of the command alone.
        group: bool,
    },
}

/// From init, or from its child until that has become the command.
#[derive(Debug)]
pub(super) enum FromInit {
    /// The container's end of the network link.
    Link(NetLink),
    /// The master of the command's pty.
    Terminal(OwnedFd),
    /// A notice for the log.
    Warning(String),
    /// A step failed; init exits next.
    Failed(StepFailure),
    /// Every step has been carried out; init waits for [`ToInit::Go`].
    SetUp,
    /// The command could not be executed.
    ExecFailed {
        /// Why (errno(3)).
        errno: i32,
        /// As typed.
        command: String,
    },
    /// What became of [`ToInit::OpenSockets`].
    Sockets {
        /// How many there were to be.
        asked: u8,
        /// Why there are fewer (errno(3)); 0 where there are not.
        errno: i32,
        /// They, not connected.
        sockets: Vec<OwnedFd>,
    },
    /// The command has ended: its exit code, or 128 + the signal that ended it.
    Exited(u8),
}

const MAPS_WRITTEN: u8 = 1;
const GO: u8 = 2;
const SIGNAL: u8 = 3;
const OPEN_SOCKETS: u8 = 4;
const PLACED: u8 = 5;
const LINK: u8 = 64;
const TERMINAL: u8 = 65;
const WARNING: u8 = 66;
const FAILED: u8 = 67;
const SET_UP: u8 = 68;
const EXEC_FAILED: u8 = 69;
const EXITED: u8 = 70;
const SOCKETS: u8 = 71;

impl Message for ToInit {
    const VERSION: u8 = VERSION;

    fn encode(&self) -> io::Result<(u8, Vec<u8>, Vec<BorrowedFd<'_>>)> {
        Ok(match self {
            Self::Placed => (PLACED, Vec::new(), Vec::new()),
            Self::MapsWritten => (MAPS_WRITTEN, Vec::new(), Vec::new()),
            Self::Go => (GO, Vec::new(), Vec::new()),
            Self::OpenSockets(count) => (OPEN_SOCKETS, vec![*count], Vec::new()),
            Self::Signal { signal, group } => {
                let number = u8::try_from(*signal).map_err(|_| io::ErrorKind::InvalidInput)?;
                (SIGNAL, vec![number, u8::from(*group)], Vec::new())
            }
        })
    }

    fn decode(kind: u8, body: &[u8], _fds: Vec<OwnedFd>) -> Option<Self> {
        match (kind, body) {
            (PLACED, []) => Some(Self::Placed),
            (MAPS_WRITTEN, []) => Some(Self::MapsWritten),
            (GO, []) => Some(Self::Go),
            (OPEN_SOCKETS, [count]) => Some(Self::OpenSockets(*count)),
            (SIGNAL, [signal @ 1..=64, group @ 0..=1]) => Some(Self::Signal {
                signal: i32::from(*signal),
                group: *group == 1,
            }),
            _ => None,
        }
    }
}

impl Message for FromInit {
    const VERSION: u8 = VERSION;

    fn encode(&self) -> io::Result<(u8, Vec<u8>, Vec<BorrowedFd<'_>>)> {
        Ok(match self {
            Self::Link(link) => (
                LINK,
                shorten(&link.about).as_bytes().to_vec(),
                link.fds.iter().map(AsFd::as_fd).collect(),
            ),
            Self::Terminal(fd) => (TERMINAL, Vec::new(), vec![fd.as_fd()]),
            Self::Warning(text) => (WARNING, shorten(text).as_bytes().to_vec(), Vec::new()),
            Self::Failed(failure) => {
                let failure = StepFailure {
                    step: shorten(&failure.step).to_owned(),
                    object: shorten(&failure.object).to_owned(),
                    errno: failure.errno,
                };
                (FAILED, serde_json::to_vec(&failure)?, Vec::new())
            }
            Self::SetUp => (SET_UP, Vec::new(), Vec::new()),
            Self::ExecFailed { errno, command } => (
                EXEC_FAILED,
                [&errno.to_le_bytes(), shorten(command).as_bytes()].concat(),
                Vec::new(),
            ),
            Self::Sockets {
                asked,
                errno,
                sockets,
            } => (
                SOCKETS,
                [&[*asked][..], &errno.to_le_bytes()].concat(),
                sockets.iter().map(AsFd::as_fd).collect(),
            ),
            Self::Exited(code) => (EXITED, vec![*code], Vec::new()),
        })
    }

    fn decode(kind: u8, body: &[u8], fds: Vec<OwnedFd>) -> Option<Self> {
        match (kind, body) {
            (LINK, about) if !fds.is_empty() => Some(Self::Link(NetLink {
                about: String::from_utf8_lossy(about).into_owned(),
                fds,
            })),
            (TERMINAL, []) => fds.into_iter().next().map(Self::Terminal),
            (WARNING, text) => Some(Self::Warning(String::from_utf8_lossy(text).into_owned())),
            (FAILED, json) => serde_json::from_slice(json).ok().map(Self::Failed),
            (SET_UP, []) => Some(Self::SetUp),
            (EXEC_FAILED, body) => {
                let (errno, command) = body.split_first_chunk()?;
                let command = String::from_utf8_lossy(command).into_owned();
                Some(Self::ExecFailed {
                    errno: i32::from_le_bytes(*errno),
                    command,
                })
            }
            (SOCKETS, [asked, errno @ ..]) => Some(Self::Sockets {
                asked: *asked,
                errno: i32::from_le_bytes(errno.try_into().ok()?),
                sockets: fds,
            }),
            (EXITED, [code]) => Some(Self::Exited(*code)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::net::SendFlags;

    use super::*;
    use crate::ipc::MAX_FDS;

    fn pass(message: &FromInit) -> FromInit {
        let (a, b) = Channel::pair().unwrap();
        a.send(message).unwrap();
        match b.try_receive().unwrap() {
            Received::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_survive_the_socket() {
        let (a, b) = Channel::pair().unwrap();
        for sent in [
            ToInit::MapsWritten,
            ToInit::Go,
            ToInit::OpenSockets(7),
            ToInit::Signal {
                signal: 64,
                group: true,
            },
        ] {
            a.send(&sent).unwrap();
            assert!(matches!(b.try_receive().unwrap(), Received::Message(got) if sent == got));
        }
        assert!(matches!(
            b.try_receive::<ToInit>().unwrap(),
            Received::Nothing
        ));
        drop(a);
        assert!(matches!(b.try_receive::<ToInit>().unwrap(), Received::End));
    }

    #[test]
    fn last_words_are_heard_though_it_was_not_listening() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&ToInit::Go).unwrap();
        b.send(&FromInit::Exited(3)).unwrap();
        drop(b);
        assert!(a.send(&ToInit::Go).is_err());
        assert!(matches!(
            a.try_receive().unwrap(),
            Received::Message(FromInit::Exited(3))
        ));
        assert!(matches!(
            a.try_receive::<FromInit>().unwrap(),
            Received::End
        ));
    }

    #[test]
    fn a_failure_arrives_as_it_was() {
        let failure = StepFailure {
            step: "mount tmpfs".into(),
            object: "/t\"\u{1}ä".into(),
            errno: libc::EPERM,
        };
        assert!(
            matches!(pass(&FromInit::Failed(failure.clone())), FromInit::Failed(got) if got == failure)
        );
        assert!(matches!(
            pass(&FromInit::Exited(137)),
            FromInit::Exited(137)
        ));
        let failed = FromInit::ExecFailed {
            errno: -2,
            command: "nö".into(),
        };
        assert!(
            matches!(pass(&failed), FromInit::ExecFailed { errno: -2, command } if command == "nö")
        );
    }

    #[test]
    fn texts_of_any_length_fit() {
        let long = "\u{1}ü".repeat(5000);
        let failure = StepFailure {
            step: long.clone(),
            object: long.clone(),
            errno: 1,
        };
        assert!(
            matches!(pass(&FromInit::Failed(failure)), FromInit::Failed(got) if long.starts_with(&got.object))
        );
        assert!(
            matches!(pass(&FromInit::Warning(long.clone())), FromInit::Warning(got) if long.starts_with(&got))
        );
    }

    #[test]
    fn descriptors_ride_along_and_close_on_exec() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let sent = FromInit::Link(NetLink {
            about: "a pipe".to_owned(),
            fds: vec![write],
        });
        let FromInit::Link(NetLink { about, mut fds }) = pass(&sent) else {
            panic!("no link")
        };
        drop(sent);
        assert_eq!(about, "a pipe");
        let got = fds.pop().unwrap();
        assert!(
            rustix::io::fcntl_getfd(&got)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        rustix::io::write(&got, b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]).unwrap(), 1);
        assert!(got.as_raw_fd() > 2);
    }

    #[test]
    fn many_descriptors_ride_along() {
        let sockets: Vec<OwnedFd> = (0..MAX_FDS)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into())
            .collect();
        let sent = FromInit::Sockets {
            asked: 200,
            errno: libc::EMFILE,
            sockets,
        };
        let FromInit::Sockets {
            asked: 200,
            errno: libc::EMFILE,
            sockets,
        } = pass(&sent)
        else {
            panic!("no sockets")
        };
        assert_eq!(sockets.len(), MAX_FDS);
        let more = (0..=MAX_FDS).map(|_| sockets[0].try_clone().unwrap());
        let (a, _b) = Channel::pair().unwrap();
        let too_many = FromInit::Sockets {
            asked: 0,
            errno: 0,
            sockets: more.collect(),
        };
        assert!(a.send(&too_many).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let (a, b) = Channel::pair().unwrap();
        for message in [
            &[VERSION + 1, GO][..],
            &[VERSION],
            &[VERSION, 99],
            &[VERSION, SIGNAL, 65, 0],
            &[VERSION, LINK],
        ] {
            rustix::net::send(&a, message, SendFlags::empty()).unwrap();
            assert!(b.try_receive::<ToInit>().is_err(), "{message:?}");
        }
        for body in [&[][..], &[1, 2, 3]] {
            assert!(FromInit::decode(EXEC_FAILED, body, Vec::new()).is_none());
        }
        assert!(FromInit::decode(LINK, &[], Vec::new()).is_none());
        assert!(FromInit::decode(FAILED, b"{", Vec::new()).is_none());
    }
}
