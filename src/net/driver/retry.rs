//! Calls that have failed for reasons that pass, and are made again without an event.

use std::io;

use netstack::{Duration, Readiness};
use rustix::io::Errno;

use super::{Driver, link_gone};
use crate::errno::{PAUSE, is_broken};
use crate::error::Error;
use crate::net::sockets::FlowSocket;

impl Driver {
    /// Something is to be tried again.
    pub(super) fn retry_soon(&mut self) {
        let pause = Duration::from_micros(PAUSE.as_micros().try_into().unwrap_or(u64::MAX));
        self.retry.get_or_insert(self.now + pause);
    }

    /// The link could not be read. Frames wait in it meanwhile.
    ///
    /// # Errors
    /// The link is gone.
    pub(super) fn link_failed(&mut self, error: io::Error) -> Result<(), Error> {
        if Errno::from_io_error(&error).is_none_or(is_broken) {
            return Err(link_gone(error));
        }
        tracing::debug!("read the container's network link: {error}");
        self.link_readable = false;
        self.link_stalled = true;
        self.retry_soon();
        Ok(())
    }

    /// Tries again what is due.
    pub(super) fn retry_turn(&mut self) {
        if self.retry.is_none_or(|at| at > self.now) {
            return;
        }
        self.retry = None;
        self.link_readable |= std::mem::take(&mut self.link_stalled);
        for flow in self.host.take_stalled() {
            match self.host.get(flow) {
                Some(FlowSocket::Tcp(..)) => {
                    let ready = Readiness {
                        readable: true,
                        writable: true,
                        ..Readiness::default()
                    };
                    self.stack.ready(self.now, flow, ready, &mut self.host);
                }
                Some(FlowSocket::Udp(_)) => {
                    self.udp_errors(flow);
                    self.udp_ready(self.now, flow);
                }
                Some(FlowSocket::Echo(_)) => {
                    self.echo_errors(flow);
                    self.echo_ready(self.now, flow);
                }
                None => {}
            }
        }
    }
}
