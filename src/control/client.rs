//! The side that asks.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::{Answer, Envelope, Request, VERSION, socket_name};
use crate::error::Error;

/// How long a container may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a container of this user.
///
/// # Errors
/// There is no such container, it does not answer, or the answer is an error.
pub fn ask(container: &str, request: Request) -> Result<Answer, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            Error::NoContainer(container.to_owned())
        }
        _ => Error::host("talk to the container", error),
    };
    let answer = exchange(container, request).map_err(failed)?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Error(reason)) => Err(Error::Refused {
            name: container.to_owned(),
            reason,
        }),
        Ok(answer) => Ok(answer),
        Err(error) => Err(Error::host("understand the container", error)),
    }
}

fn exchange(container: &str, request: Request) -> io::Result<Vec<u8>> {
    let name = socket_name(geteuid().as_raw(), container);
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    if socket_peercred(&stream)?.uid != geteuid() {
        // The name is anybody's to take.
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let envelope = Envelope {
        version: VERSION,
        request,
    };
    let mut line = serde_json::to_vec(&envelope)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A request that was too long has not been read to its end, and is answered.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset || answer.is_empty() => {
            Err(error)
        }
        _ => Ok(answer),
    }
}
