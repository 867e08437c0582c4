//! The one table of all flows.

use std::collections::HashMap;

use slab::Slab;
use smoltcp::time::Instant;

use super::lru::{Lru, Place, Places};
use super::{FlowId, FlowInfo, FlowKey};
use crate::dns::DnsFlow;
use crate::icmp::EchoFlow;
use crate::tcp::TcpFlow;
use crate::udp::{UdpFlow, UdpMapping};

/// The state of a flow, by protocol.
#[derive(Debug)]
pub(crate) enum Flow {
    Tcp(Box<TcpFlow>),
    UdpMapping(UdpMapping),
    Udp(UdpFlow),
    Dns(Box<DnsFlow>),
    Echo(EchoFlow),
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    key: FlowKey,
    /// When this flow's entry in the timer queue is due; `None` when it has none.
    armed: Option<Instant>,
    /// Among the datagram flows, in order of use.
    place: Place,
    flow: Flow,
}

impl Places for Slab<Entry> {
    fn place(&mut self, index: u32) -> Option<&mut Place> {
        self.get_mut(index as usize).map(|entry| &mut entry.place)
    }
}

/// Finds flows by what the container put on the wire (keyed hash, since the
/// container chooses the keys) and by id. Every operation is O(1).
#[derive(Debug)]
pub(crate) struct FlowTable {
    entries: Slab<Entry>,
    by_key: HashMap<FlowKey, FlowId>,
    next_generation: u32,
    capacity: usize,
    mappings: usize,
    lru: Lru,
}

impl FlowTable {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Slab::new(),
            by_key: HashMap::new(),
            next_generation: 0,
            capacity,
            mappings: 0,
            lru: Lru::default(),
        }
    }

    /// Flows that count towards the limit.
    pub(crate) fn counted(&self) -> usize {
        self.entries.len() - self.mappings
    }

    /// A datagram flow is used; `answer`: by its remote.
    pub(crate) fn used(&mut self, id: FlowId, now: Instant, answer: bool) {
        if self.entry(id).is_some() {
            self.lru.used(&mut self.entries, id.index, now, answer);
        }
    }

    /// The datagram flow that is missed least: see [`Lru::oldest`].
    pub(crate) fn least_used(&mut self, now: Instant) -> Option<FlowId> {
        let index = self.lru.oldest(&mut self.entries, now)?;
        let generation = self.entries.get(index as usize)?.generation;
        Some(FlowId { index, generation })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no flow more has room. A UDP mapping is not counted: it is the one
    /// socket of the flows that share it, which are.
    pub(crate) fn is_full(&self) -> bool {
        self.counted() >= self.capacity
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    /// Adds a flow; `None` when the table is full.
    pub(crate) fn insert(&mut self, key: FlowKey, flow: Flow) -> Option<FlowId> {
        let id = self.insert_unnamed(key, flow)?;
        self.by_key.insert(key, id);
        Some(id)
    }

    /// Adds a flow that is found by its id alone, although `key` says what it is for;
    /// `None` when the table is full.
    pub(crate) fn insert_unnamed(&mut self, key: FlowKey, flow: Flow) -> Option<FlowId> {
        let mapping = matches!(flow, Flow::UdpMapping(_));
        if self.is_full() && !mapping {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.entries.vacant_entry();
        let index = u32::try_from(slot.key()).ok()?;
        self.mappings += usize::from(mapping);
        slot.insert(Entry {
            generation,
            key,
            armed: None,
            place: Place::default(),
            flow,
        });
        Some(FlowId { index, generation })
    }

    fn entry(&self, id: FlowId) -> Option<&Entry> {
        self.entries
            .get(id.index as usize)
            .filter(|e| e.generation == id.generation)
    }

    fn entry_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index as usize)
            .filter(|e| e.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.entry_mut(id).map(|e| &mut e.flow)
    }

    pub(crate) fn tcp_mut(&mut self, id: FlowId) -> Option<(FlowKey, &mut TcpFlow)> {
        match self.entry_mut(id) {
            Some(Entry {
                flow: Flow::Tcp(flow),
                key,
                ..
            }) => Some((*key, flow)),
            _ => None,
        }
    }

    /// All TCP flows.
    pub(crate) fn tcp(&self) -> impl Iterator<Item = &TcpFlow> {
        self.entries
            .iter()
            .filter_map(|(_, entry)| match &entry.flow {
                Flow::Tcp(flow) => Some(&**flow),
                _ => None,
            })
    }

    /// All flows that the container has begun, but for queries of the DNS forwarder.
    pub(crate) fn begun_inside(&self) -> impl Iterator<Item = (FlowId, FlowKey)> {
        self.entries.iter().filter_map(|(index, entry)| {
            let inside = match &entry.flow {
                Flow::Tcp(flow) => flow.begun_inside(),
                Flow::Udp(flow) => flow.begun_inside(),
                Flow::Echo(_) => true,
                Flow::UdpMapping(_) | Flow::Dns(_) => false,
            };
            let id = FlowId {
                index: u32::try_from(index).ok()?,
                generation: entry.generation,
            };
            inside.then_some((id, entry.key))
        })
    }

    /// What there is to tell about up to `most` connections and datagram flows, from
    /// place `from` on; and the place to go on at.
    pub(crate) fn infos(
        &self,
        now: Instant,
        from: usize,
        most: usize,
    ) -> (Vec<FlowInfo>, Option<usize>) {
        let mut infos = Vec::new();
        for place in from..self.entries.capacity() {
            if infos.len() >= most {
                return (infos, Some(place));
            }
            let Some(entry) = self.entries.get(place) else {
                continue;
            };
            infos.extend(match &entry.flow {
                Flow::Tcp(flow) => flow.info(&entry.key, now),
                Flow::Udp(flow) => flow.info(&entry.key, now),
                Flow::UdpMapping(_) | Flow::Dns(_) | Flow::Echo(_) => None,
            });
        }
        (infos, None)
    }

    pub(crate) fn udp_mut(&mut self, id: FlowId) -> Option<(FlowKey, &mut UdpFlow)> {
        match self.entry_mut(id) {
            Some(Entry {
                flow: Flow::Udp(flow),
                key,
                ..
            }) => Some((*key, flow)),
            _ => None,
        }
    }

    pub(crate) fn dns_mut(&mut self, id: FlowId) -> Option<(FlowKey, &mut DnsFlow)> {
        match self.entry_mut(id) {
            Some(Entry {
                flow: Flow::Dns(flow),
                key,
                ..
            }) => Some((*key, flow)),
            _ => None,
        }
    }

    pub(crate) fn mapping_mut(&mut self, id: FlowId) -> Option<(FlowKey, &mut UdpMapping)> {
        match self.entry_mut(id) {
            Some(Entry {
                flow: Flow::UdpMapping(flow),
                key,
                ..
            }) => Some((*key, flow)),
            _ => None,
        }
    }

    pub(crate) fn echo_mut(&mut self, id: FlowId) -> Option<(FlowKey, &mut EchoFlow)> {
        match self.entry_mut(id) {
            Some(Entry {
                flow: Flow::Echo(flow),
                key,
                ..
            }) => Some((*key, flow)),
            _ => None,
        }
    }

    /// From now on the flow is found by its id alone.
    pub(crate) fn unname(&mut self, id: FlowId) {
        if let Some(entry) = self.entry(id)
            && self.by_key.get(&entry.key) == Some(&id)
        {
            let key = entry.key;
            self.by_key.remove(&key);
        }
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        self.entry(id)?;
        self.unname(id);
        self.lru.remove(&mut self.entries, id.index);
        let entry = self.entries.remove(id.index as usize);
        self.mappings -= usize::from(matches!(entry.flow, Flow::UdpMapping(_)));
        Some(entry.flow)
    }

    /// All flows with a socket of their own. A UDP flow has that of its mapping.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = FlowId> {
        self.entries.iter().filter_map(|(index, entry)| {
            let own = match &entry.flow {
                Flow::Tcp(_) | Flow::UdpMapping(_) | Flow::Echo(_) => true,
                Flow::Udp(_) | Flow::Dns(_) => false,
            };
            let id = FlowId {
                index: u32::try_from(index).ok()?,
                generation: entry.generation,
            };
            own.then_some(id)
        })
    }

    /// When the flow's entry in the timer queue is due.
    pub(crate) fn armed(&mut self, id: FlowId) -> Option<&mut Option<Instant>> {
        self.entry_mut(id).map(|e| &mut e.armed)
    }

    /// Every flow, for tests of invariants.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> Vec<(FlowId, FlowKey)> {
        let named = |(index, entry): (usize, &Entry)| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let generation = entry.generation;
            (FlowId { index, generation }, entry.key)
        };
        self.entries.iter().map(named).collect()
    }
}
