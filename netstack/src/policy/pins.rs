//! Which names the container has been told the addresses of.
//!
//! # Theory of operation
//!
//! A rule with a name opens the addresses that our DNS forwarder has answered *this*
//! container for that name, for as long as the answer may be kept (its TTL, held
//! between [`MIN_TTL`] and [`MAX_TTL`]). Clients keep answers longer than they
//! ought to, which is what the lower bound is for. A flow that stands is not asked
//! again.
//!
//! What is remembered is the *name*, with each address: which rules it opens is
//! looked up for each new flow, so that rules can change at any time. What has
//! expired is kept, but opens nothing: a change of rules has to know what a
//! flow was opened for.
//!
//! There are at most [`MOST`] pairs of address and name, and [`NAMES`] names to an
//! address. Beyond it the one goes that has been answered the longest time ago.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::judged_as;
use super::name::Name;

/// Pairs of address and name.
pub(crate) const MOST: usize = 4096;
/// Names of one address.
pub(crate) const NAMES: usize = 16;
/// How long an answer counts at least, and at most.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(300);
pub(crate) const MAX_TTL: Duration = Duration::from_secs(86_400);

/// One name of an address.
#[derive(Debug)]
struct Pin {
    name: Name,
    expires: Instant,
    /// When it was last answered, in order.
    sequence: u64,
}

/// Names by address.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    by_address: HashMap<IpAddr, Vec<Pin>>,
    /// Whose pin has which place in the order of answers.
    order: BTreeMap<u64, IpAddr>,
    next: u64,
    /// Names that the owner has given addresses; they do not expire.
    fixed: HashMap<IpAddr, Vec<Name>>,
}

impl Pins {
    /// Replaces the names that the owner has given addresses.
    pub(crate) fn fix(&mut self, names: &[(String, Vec<IpAddr>)]) {
        self.fixed.clear();
        self.fix_more(names);
    }

    /// Adds to them.
    pub(crate) fn fix_more(&mut self, names: &[(String, Vec<IpAddr>)]) {
        for (name, addresses) in names {
            let Some(name) = Name::new(name) else {
                continue;
            };
            for address in addresses {
                let address = judged_as(*address);
                self.fixed.entry(address).or_default().push(name.clone());
            }
        }
    }

    /// The container is told that `name` has this address, for `ttl` seconds.
    pub(crate) fn add(&mut self, now: Instant, address: IpAddr, name: &Name, ttl: u32) {
        let ttl = Duration::from_secs(ttl.into()).clamp(MIN_TTL, MAX_TTL);
        let sequence = self.next;
        self.next += 1;
        let pins = self.by_address.entry(address).or_default();
        let at = pins.iter().position(|pin| pin.name == *name);
        let oldest = || {
            let oldest = pins.iter().enumerate().min_by_key(|(_, pin)| pin.sequence);
            oldest.map(|(at, _)| at).filter(|_| pins.len() >= NAMES)
        };
        let mut expires = now + ttl;
        if let Some(replaced) = at.or_else(oldest).map(|at| pins.swap_remove(at)) {
            self.order.remove(&replaced.sequence);
            if at.is_some() {
                expires = expires.max(replaced.expires);
            }
        }
        pins.push(Pin {
            name: name.clone(),
            expires,
            sequence,
        });
        self.order.insert(sequence, address);
        if self.order.len() > MOST
            && let Some((oldest, address)) = self.order.pop_first()
            && let Some(pins) = self.by_address.get_mut(&address)
        {
            pins.retain(|pin| pin.sequence != oldest);
            if pins.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// The names of an address: those that count at a time, or all that are known.
    pub(crate) fn names(
        &self,
        address: IpAddr,
        at: Option<Instant>,
    ) -> impl Iterator<Item = &Name> {
        let counts = move |pin: &&Pin| at.is_none_or(|at| at < pin.expires);
        let pins = self.by_address.get(&address).into_iter().flatten();
        let fixed = self.fixed.get(&address).into_iter().flatten();
        fixed.chain(pins.filter(counts).map(|pin| &pin.name))
    }

    /// The name of an address that was answered last, for people to read.
    pub(crate) fn latest(&self, address: IpAddr) -> Option<&Name> {
        let pins = self.by_address.get(&address).into_iter().flatten();
        let latest = pins.max_by_key(|pin| pin.sequence).map(|pin| &pin.name);
        latest.or_else(|| self.fixed.get(&address)?.first())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(
            self.order.len(),
            self.by_address.values().map(Vec::len).sum::<usize>()
        );
        self.order.len()
    }
}
