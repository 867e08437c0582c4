//! All rules of one container, and what they say together.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::name::Name;
use super::rule::{Rule, Scope, Target};
use super::{Reason, judged_as};
use crate::flow::Protocol;

/// What is done about a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// It is reached.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

/// The rules of a container. What they say does not depend on their order: any rule
/// that denies comes before all that allow, and these before the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    default: Action,
    allow: List,
    deny: List,
}

/// Rules of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    rules: Vec<Rule>,
    /// Places of the rules about addresses.
    nets: Vec<usize>,
    /// Places of the rules about a name, and about all below one, by its wire format.
    names: HashMap<Box<[u8]>, Vec<usize>>,
    below: HashMap<Box<[u8]>, Vec<usize>>,
}

impl List {
    fn new(rules: Vec<Rule>) -> Self {
        let mut list = Self::default();
        for (place, rule) in rules.iter().enumerate() {
            match &rule.target {
                Target::Any | Target::Net(_) => list.nets.push(place),
                Target::Name(name) => list
                    .names
                    .entry(name.wire().into())
                    .or_default()
                    .push(place),
                Target::Below(name) => {
                    list.below
                        .entry(name.wire().into())
                        .or_default()
                        .push(place);
                }
            }
        }
        list.rules = rules;
        list
    }

    /// The first of the rules about addresses that a test says yes to.
    fn of_addresses(&self, test: impl Fn(&Rule) -> bool) -> Option<usize> {
        let mut places = self.nets.iter().copied();
        places.find(|place| self.rules.get(*place).is_some_and(&test))
    }

    /// The rules about a name.
    fn of_name<'s>(&'s self, name: &'s Name) -> impl Iterator<Item = (usize, &'s Rule)> {
        let itself = self.names.get(name.wire());
        let below = name.parents().filter_map(|parent| self.below.get(parent));
        itself
            .into_iter()
            .chain(below)
            .flatten()
            .filter_map(|place| Some((*place, self.rules.get(*place)?)))
    }
}

impl Rules {
    /// Most rules of one container.
    pub const MOST: usize = 1000;

    /// These rules, and what is done where none says anything. Of more than
    /// [`Rules::MOST`] the last are for the caller to refuse.
    pub fn new(default: Action, allow: Vec<Rule>, deny: Vec<Rule>) -> Self {
        Self {
            default,
            allow: List::new(allow),
            deny: List::new(deny),
        }
    }

    /// What is done where no rule says anything.
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// The rules that allow.
    pub fn allowed(&self) -> &[Rule] {
        &self.allow.rules
    }

    /// The rules that deny.
    pub fn denied(&self) -> &[Rule] {
        &self.deny.rules
    }

    /// Whether nothing is refused for their sake.
    pub fn is_open(&self) -> bool {
        self.default == Action::Allow && self.deny.rules.is_empty()
    }

    /// Whether there are names that may not be asked for.
    pub(crate) fn judge_names(&self) -> bool {
        let covers_queries = |rule: &Rule| rule.covers_queries() && !rule.is_net();
        self.default == Action::Deny || self.deny.rules.iter().any(covers_queries)
    }

    /// The rule that a refusal names.
    pub(crate) fn rule(&self, reason: Reason) -> Option<&Rule> {
        match reason {
            Reason::Rule(place) => self.deny.rules.get(place),
            _ => None,
        }
    }

    /// Why a flow is refused. `names` are those that the container has been told the
    /// address of.
    pub(super) fn judge<'n>(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        mut names: impl Iterator<Item = &'n Name>,
    ) -> Option<Reason> {
        let (address, port) = (to.ip(), to.port());
        let judged = judged_as(address);
        let covers = |rule: &Rule| rule.covers(protocol, port);
        let on = |rule: &Rule, address: IpAddr| match &rule.target {
            Target::Any => true,
            Target::Net(net) => net.has(address),
            Target::Name(_) | Target::Below(_) => false,
        };
        // An address that stands for another is denied as either, and allowed as that one.
        let denied = |rule: &Rule| covers(rule) && (on(rule, judged) || on(rule, address));
        if let Some(place) = self.deny.of_addresses(denied) {
            return Some(Reason::Rule(place));
        }
        if self.default == Action::Allow {
            return None;
        }
        let allowed = |rule: &Rule| covers(rule) && on(rule, judged);
        let named = |name: &Name| self.allow.of_name(name).any(|(_, rule)| covers(rule));
        let is_allowed = self.allow.of_addresses(allowed).is_some() || names.any(named);
        (!is_allowed).then_some(Reason::NoRule)
    }

    /// Why a name may not be asked for.
    pub(crate) fn judge_name(&self, name: &Name) -> Option<Reason> {
        let all = |rule: &Rule| rule.target == Target::Any && rule.covers_queries();
        let denied = self.deny.of_name(name).map(|(place, _)| place).next();
        if let Some(place) = denied.or_else(|| self.deny.of_addresses(all)) {
            return Some(Reason::Rule(place));
        }
        if self.default == Action::Allow {
            return None;
        }
        // Where any address may be reached, names are of no more harm.
        let any = |rule: &Rule| rule.target == Target::Any;
        let is_allowed =
            self.allow.of_name(name).next().is_some() || self.allow.of_addresses(any).is_some();
        (!is_allowed).then_some(Reason::NoRule)
    }

    /// Whether the addresses of a name are worth to be remembered. Names of no rule
    /// must not take the room of others.
    pub(crate) fn remembers(&self, name: &Name) -> bool {
        let mut rules = self.allow.of_name(name);
        self.default == Action::Allow || rules.any(|(_, rule)| rule.scope != Scope::Dns)
    }
}
