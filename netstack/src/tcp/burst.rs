//! Payload of segments that follow one another, on its way to the host in one
//! call for each flow.

use std::io::IoSlice;

use crate::flow::FlowId;

/// Most segments of one flow.
const SEGMENTS: usize = 16;
/// Most flows at once.
const FLOWS: usize = 8;

/// In-order payload of one flow that lies in the frames it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst<'f> {
    flow: FlowId,
    parts: [IoSlice<'f>; SEGMENTS],
    count: usize,
    len: usize,
}

impl<'f> Burst<'f> {
    pub(crate) fn flow(&self) -> FlowId {
        self.flow
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn parts(&self) -> &[IoSlice<'f>] {
        &self.parts[..self.count]
    }
}

/// What was gathered from the frames of one call.
#[derive(Debug, Default)]
pub(crate) struct Bursts<'f> {
    bursts: [Option<Burst<'f>>; FLOWS],
}

impl<'f> Bursts<'f> {
    /// Bytes of this flow.
    pub(crate) fn len(&self, flow: FlowId) -> usize {
        let of_flow = |burst: &&Burst<'_>| burst.flow == flow;
        self.bursts
            .iter()
            .flatten()
            .find(of_flow)
            .map_or(0, Burst::len)
    }

    /// Adds a segment; gives back a burst that has to go first to make room, or
    /// goes at once because it is full.
    pub(crate) fn push(&mut self, flow: FlowId, payload: &'f [u8]) -> Option<Burst<'f>> {
        let of_flow = |slot: &&mut Option<Burst<'_>>| slot.as_ref().is_some_and(|b| b.flow == flow);
        let mut evicted = None;
        let slot = if let Some(slot) = self.bursts.iter_mut().find(of_flow) {
            slot
        } else if let Some(slot) = self.bursts.iter_mut().find(|slot| slot.is_none()) {
            slot
        } else {
            let [first, ..] = &mut self.bursts;
            evicted = first.take();
            first
        };
        let burst = slot.get_or_insert(Burst {
            flow,
            parts: [IoSlice::new(&[]); SEGMENTS],
            count: 0,
            len: 0,
        });
        burst.parts[burst.count] = IoSlice::new(payload);
        burst.count += 1;
        burst.len += payload.len();
        if burst.count == SEGMENTS {
            return slot.take();
        }
        evicted
    }

    /// Takes what there is of a flow.
    pub(crate) fn take(&mut self, flow: FlowId) -> Option<Burst<'f>> {
        self.bursts
            .iter_mut()
            .find_map(|slot| slot.take_if(|burst| burst.flow == flow))
    }

    /// Takes any.
    pub(crate) fn next(&mut self) -> Option<Burst<'f>> {
        self.bursts.iter_mut().find_map(Option::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_mixed() {
        let flow = |index| FlowId {
            index,
            generation: 0,
        };
        let data: Vec<u8> = (0..200).collect();
        let mut bursts = Bursts::default();
        let mut out: Vec<Vec<u8>> = vec![Vec::new(); 10];
        let mut note = |burst: Burst<'_>| {
            let bytes = burst.parts().iter().flat_map(|part| part.iter());
            out[burst.flow().index as usize].extend(bytes);
            assert!(burst.len() > 0);
        };
        for (i, byte) in data.chunks(1).enumerate() {
            let index = u32::try_from(i % 10).unwrap();
            if let Some(burst) = bursts.push(flow(index), byte) {
                note(burst);
            }
        }
        if let Some(burst) = bursts.take(flow(3)) {
            note(burst);
        }
        assert_eq!(bursts.len(flow(3)), 0);
        while let Some(burst) = bursts.next() {
            note(burst);
        }
        for (index, bytes) in out.iter().enumerate() {
            let want: Vec<u8> = data.iter().copied().skip(index).step_by(10).collect();
            assert_eq!(*bytes, want);
        }
    }
}
