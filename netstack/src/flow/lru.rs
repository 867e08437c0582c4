//! The order in which datagram flows were used.
//!
//! # Theory of operation
//!
//! Two doubly linked lists through the flow table: flows that were answered of late,
//! and the others. A flow moves to the new end of its list when it is used, at most once
//! in [`GRAIN`], so a packet costs a comparison. Who needs a place takes that of the
//! oldest flow without an answer.

use smoltcp::time::{Duration, Instant};

/// How exact the order is.
const GRAIN: Duration = Duration::from_millis(100);
/// How long an answer counts.
const ANSWERED: Duration = Duration::from_secs(30);
/// No flow.
const NONE: u32 = u32::MAX;

/// A flow's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    older: u32,
    newer: u32,
    /// The list that it is in.
    list: Option<usize>,
    /// When it was put there.
    since: Instant,
    /// When it was answered last.
    answered: Option<Instant>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            older: NONE,
            newer: NONE,
            list: None,
            since: Instant::ZERO,
            answered: None,
        }
    }
}

/// Where the places are: by index of their flow.
pub(crate) trait Places {
    fn place(&mut self, index: u32) -> Option<&mut Place>;
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
}

/// Flows without an answer of late, and those with one.
const WITHOUT: usize = 0;
const WITH: usize = 1;

/// Both lists.
#[derive(Debug)]
pub(crate) struct Lru {
    lists: [Ends; 2],
}

impl Default for Lru {
    fn default() -> Self {
        let empty = Ends {
            oldest: NONE,
            newest: NONE,
        };
        Self { lists: [empty; 2] }
    }
}

impl Lru {
    /// The flow is used; `answer`: by its remote.
    pub(crate) fn used(
        &mut self,
        places: &mut impl Places,
        index: u32,
        now: Instant,
        answer: bool,
    ) {
        let Some(place) = places.place(index) else {
            return;
        };
        if answer {
            place.answered = Some(now);
        }
        let recent = place.answered.is_some_and(|at| now < at + ANSWERED);
        let list = if recent { WITH } else { WITHOUT };
        if place.list == Some(list) && now < place.since + GRAIN {
            return;
        }
        self.remove(places, index);
        let newest = std::mem::replace(&mut self.lists[list].newest, index);
        if let Some(place) = places.place(index) {
            place.list = Some(list);
            place.since = now;
            place.older = newest;
        }
        match places.place(newest) {
            Some(before) => before.newer = index,
            None => self.lists[list].oldest = index,
        }
    }

    /// The flow is in no list from now on.
    pub(crate) fn remove(&mut self, places: &mut impl Places, index: u32) {
        let Some(place) = places.place(index) else {
            return;
        };
        let Some(list) = place.list.take() else {
            return;
        };
        let older = std::mem::replace(&mut place.older, NONE);
        let newer = std::mem::replace(&mut place.newer, NONE);
        match places.place(older) {
            Some(older) => older.newer = newer,
            None => self.lists[list].oldest = newer,
        }
        match places.place(newer) {
            Some(newer) => newer.older = older,
            None => self.lists[list].newest = older,
        }
    }

    /// The flow that has gone unused for the longest of those that nobody has answered
    /// of late.
    pub(crate) fn oldest(&self, places: &mut impl Places, now: Instant) -> Option<u32> {
        let [without, with] = self.lists.map(|ends| ends.oldest);
        if without != NONE {
            return Some(without);
        }
        let answered = places.place(with)?.answered?;
        (now >= answered + ANSWERED).then_some(with)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    impl Places for Vec<Place> {
        fn place(&mut self, index: u32) -> Option<&mut Place> {
            self.get_mut(usize::try_from(index).unwrap())
        }
    }

    proptest! {
        /// As a list that is sorted anew each time.
        #[test]
        fn the_oldest_goes_first(
            uses in vec((0..8_u32, 0..5_000_u64, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut places = vec![Place::default(); 8];
            let mut lru = Lru::default();
            let mut now = Instant::from_secs(1);
            // Index, when it was moved, its list, when it was answered.
            let mut model: Vec<(u32, usize, Instant, Option<Instant>)> = Vec::new();
            for (index, pause, answer, take) in uses {
                now += Duration::from_millis(pause);
                lru.used(&mut places, index, now, answer);
                let known = model.iter().position(|entry| entry.0 == index);
                let mut entry = match known {
                    Some(at) => model[at],
                    None => (index, 9, now, None),
                };
                if answer {
                    entry.3 = Some(now);
                }
                let list = usize::from(entry.3.is_some_and(|at| now < at + ANSWERED));
                if list != entry.1 || now >= entry.2 + GRAIN {
                    (entry.1, entry.2) = (list, now);
                    model.retain(|other| other.0 != index);
                    model.push(entry);
                } else if let Some(at) = known {
                    model[at] = entry;
                }
                if !take {
                    continue;
                }
                let without = model.iter().find(|entry| entry.1 == WITHOUT);
                let with = model.iter().find(|entry| entry.1 == WITH);
                let with = with.filter(|entry| now >= entry.3.unwrap() + ANSWERED);
                let oldest = without.or(with).map(|entry| entry.0);
                prop_assert_eq!(lru.oldest(&mut places, now), oldest);
                if let Some(oldest) = oldest {
                    lru.remove(&mut places, oldest);
                    places[usize::try_from(oldest).unwrap()] = Place::default();
                    model.retain(|entry| entry.0 != oldest);
                }
            }
        }
    }
}
