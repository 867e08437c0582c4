//! Payload of consecutive segments of one flow, on its way to the host in one call.

use std::io::IoSlice;

use crate::flow::FlowId;

/// Most segments of one burst: few enough that the container is answered while
/// it still sends, and their frames are still in the cache.
const MOST: usize = 16;

/// In-order payload that lies in the frames it came in.
#[derive(Debug)]
pub(crate) struct Burst<'f> {
    flow: Option<FlowId>,
    parts: [IoSlice<'f>; MOST],
    count: usize,
    len: usize,
}

impl<'f> Burst<'f> {
    pub(crate) fn new() -> Self {
        Self {
            flow: None,
            parts: [IoSlice::new(&[]); MOST],
            count: 0,
            len: 0,
        }
    }

    /// The flow that it belongs to, unless it is empty.
    pub(crate) fn flow(&self) -> Option<FlowId> {
        self.flow
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// There is no place for more.
    pub(crate) fn is_full(&self) -> bool {
        self.count == MOST
    }

    /// Adds a segment; `false` when there is no place.
    pub(crate) fn push(&mut self, flow: FlowId, payload: &'f [u8]) -> bool {
        let Some(part) = self.parts.get_mut(self.count) else {
            return false;
        };
        *part = IoSlice::new(payload);
        self.flow = Some(flow);
        self.count += 1;
        self.len += payload.len();
        true
    }

    pub(crate) fn parts(&self) -> &[IoSlice<'f>] {
        &self.parts[..self.count]
    }

    pub(crate) fn clear(&mut self) {
        self.flow = None;
        self.count = 0;
        self.len = 0;
    }
}
