//! Outgoing datagrams of one turn, gathered so that a burst costs few system calls.
//!
//! Order within a flow is the order of arrival: the gathered datagrams are
//! walked once, and only neighbours are merged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use netstack::{FlowId, IpFields};

use crate::sys::udp::{self, Outgoing, SEND_BATCH};

/// Payload bytes gathered at most.
const CAPACITY: usize = 256 << 10;
/// Datagrams in one super-segment at most (`UDP_MAX_SEGMENTS` of older kernels).
const MAX_SEGMENTS: usize = 64;
/// Payload of one super-segment at most: it is one IP packet until it is cut.
const MAX_SUPER: usize = 65_507;

#[derive(Debug, Clone, Copy)]
struct Run {
    flow: FlowId,
    to: SocketAddr,
    fields: IpFields,
    source: Option<IpAddr>,
    start: usize,
    len: usize,
    /// Size of all datagrams but the last.
    segment: usize,
    count: usize,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// The kernel has refused super-segments.
    single: bool,
}

impl Outbox {
    /// Adds a datagram; false when there is no room.
    pub(crate) fn push(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        fields: IpFields,
        source: Option<IpAddr>,
    ) -> bool {
        if !self.bytes.is_empty() && self.bytes.len() + payload.len() > CAPACITY {
            return false;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        if let Some(run) = self.runs.last_mut() {
            let whole = run.len == run.segment * run.count;
            let fits = run.count < MAX_SEGMENTS && run.len + payload.len() <= MAX_SUPER;
            let same =
                run.flow == flow && run.to == to && run.fields == fields && run.source == source;
            if !self.single
                && same
                && whole
                && fits
                && !payload.is_empty()
                && payload.len() <= run.segment
            {
                run.len += payload.len();
                run.count += 1;
                return true;
            }
        }
        self.runs.push(Run {
            flow,
            to,
            fields,
            source,
            start,
            len: payload.len(),
            segment: payload.len(),
            count: 1,
        });
        true
    }

    /// Sends everything. What a socket does not take is lost, as datagrams may
    /// be; `failed` hears of it.
    pub(crate) fn flush<'a>(
        &mut self,
        socket: impl Fn(FlowId, IpFields) -> Option<BorrowedFd<'a>>,
        mut failed: impl FnMut(FlowId, SocketAddr, io::Error),
    ) {
        let mut rest = self.runs.as_slice();
        while let Some(first) = rest.first() {
            let same = rest
                .iter()
                .take(SEND_BATCH)
                .take_while(|run| run.flow == first.flow && run.fields == first.fields)
                .count();
            let (batch, more) = rest.split_at(same);
            if let Some(fd) = socket(first.flow, first.fields) {
                let mut lost = |to, error| failed(first.flow, to, error);
                self.single |= !send(fd, &self.bytes, batch, &mut lost);
            }
            rest = more;
        }
        self.runs.clear();
        self.bytes.clear();
    }
}

/// Sends runs of one socket; false when the kernel does not do super-segments.
fn send(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    runs: &[Run],
    lost: &mut impl FnMut(SocketAddr, io::Error),
) -> bool {
    let mut segmentation = true;
    let mut messages = [Outgoing {
        to: (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        payload: &[],
        segment: 0,
        source: None,
    }; SEND_BATCH];
    let mut rest = runs;
    while !rest.is_empty() {
        let mut count = 0;
        for (message, run) in messages.iter_mut().zip(rest) {
            let segment = if run.count > 1 {
                u16::try_from(run.segment).unwrap_or(0)
            } else {
                0
            };
            let payload = bytes
                .get(run.start..run.start + run.len)
                .unwrap_or_default();
            *message = Outgoing {
                to: run.to,
                payload,
                segment,
                source: run.source,
            };
            count += 1;
        }
        // The first error may be the socket's pending one, about an earlier
        // datagram (ip(7), IP_RECVERR); asking takes it away.
        let sent = udp::send(fd, &messages[..count]).or_else(|error| {
            if error.raw_os_error() == Some(libc::EMSGSIZE) {
                return Err(error);
            }
            udp::send(fd, &messages[..count])
        });
        let done = match sent {
            Ok(sent) => sent.max(1),
            Err(error) => {
                let first = &messages[0];
                let errno = error.raw_os_error();
                if first.segment != 0
                    && matches!(errno, Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE))
                {
                    // Larger than the path's MTU, or no such feature: one by one.
                    segmentation = errno == Some(libc::EMSGSIZE);
                    for payload in first.payload.chunks(usize::from(first.segment)) {
                        let one = Outgoing {
                            to: first.to,
                            payload,
                            segment: 0,
                            source: first.source,
                        };
                        if let Err(error) = udp::send(fd, &[one]) {
                            lost(first.to, error);
                        }
                    }
                } else {
                    lost(first.to, error);
                }
                1
            }
        };
        rest = rest.get(done..).unwrap_or_default();
    }
    segmentation
}
