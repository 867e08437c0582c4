//! The policy at work: flows and names are judged, refusals are told, and flows
//! that are no longer allowed end.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

use super::pins::Pins;
use super::{Action, Name, Policy, Reason, Rule, Rules, Verdict, judged_as};
use crate::dns::{Query, Told, told};
use crate::flow::{FlowKey, Protocol};
use crate::host::Host;
use crate::stack::Stack;

/// What the container has tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// A flow.
    Flow(Protocol),
    /// To ask the DNS forwarder for a name.
    Query,
}

/// Something that the policy has refused.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// What the container has tried.
    pub attempt: Attempt,
    /// The container's side; the "port" of an echo request is its identifier.
    pub container: SocketAddr,
    /// The remote side, as addressed by the container; port 0 where there is none.
    pub remote: SocketAddr,
    /// The name that was asked for; of an address the one that the container was last
    /// told it for, if that is known.
    pub name: Option<&'a Name>,
    /// Why.
    pub reason: Reason,
    /// The rule that denies it.
    pub rule: Option<&'a Rule>,
    /// The flow stood, and was ended by a change of the rules.
    pub ended: bool,
}

/// The policy of one container, and what it has to remember.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    pub(crate) policy: Policy,
    pub(crate) pins: Pins,
    /// Refusals so far.
    pub(crate) denied: u64,
}

/// What is done about a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryVerdict {
    Pass,
    /// It is answered that there is no such name.
    NoName,
    /// It is refused as a message (REFUSED).
    Refuse,
}

impl Egress {
    pub(crate) fn new(policy: Policy, names: &[(String, Vec<IpAddr>)]) -> Self {
        let mut egress = Self {
            policy,
            pins: Pins::default(),
            denied: 0,
        };
        egress.pins.fix(names);
        egress
    }

    /// Whether queries are judged. Where they are not, the DNS forwarder passes what
    /// comes.
    pub(crate) fn judges_names(&self) -> bool {
        self.policy.rules.judge_names()
    }

    fn refusal(
        &self,
        attempt: Attempt,
        key: (SocketAddr, SocketAddr),
        reason: Reason,
    ) -> Refusal<'_> {
        let (container, remote) = key;
        Refusal {
            attempt,
            container,
            remote,
            name: self.pins.latest(judged_as(remote.ip())),
            reason,
            rule: self.policy.rules.rule(reason),
            ended: false,
        }
    }

    /// Judges a query of the container; a refusal is told.
    pub(crate) fn judge_query<H: Host>(
        &mut self,
        query: &Query<'_>,
        key: (SocketAddr, SocketAddr),
        host: &mut H,
    ) -> QueryVerdict {
        if !self.judges_names() {
            return QueryVerdict::Pass;
        }
        let name = query.plain_name();
        let reason = match &name {
            Some(name) => self.policy.decide_name(name),
            None => Some(Reason::OddQuery),
        };
        let Some(reason) = reason else {
            return QueryVerdict::Pass;
        };
        self.denied += 1;
        host.refused(&Refusal {
            name: name.as_ref(),
            ..self.refusal(Attempt::Query, key, reason)
        });
        if name.is_some() {
            QueryVerdict::NoName
        } else {
            QueryVerdict::Refuse
        }
    }

    /// A query that passes without what could carry anything out, if it has it.
    pub(crate) fn without_options(&self, query: &Query<'_>) -> Option<Vec<u8>> {
        let strict = self.policy.rules.default_action() == Action::Deny;
        strict.then(|| query.without_options())?
    }

    /// An answer is about to pass to the container: its addresses are remembered by the
    /// name that was asked for. False: it leads by a name that may not be asked for, and
    /// must not pass.
    pub(crate) fn answered<H: Host>(
        &mut self,
        now: Instant,
        message: &[u8],
        key: (SocketAddr, SocketAddr),
        host: &mut H,
    ) -> bool {
        if self.policy.rules.is_open() {
            return true;
        }
        let Some(Told {
            name,
            aliases,
            addresses,
        }) = told(message)
        else {
            return true;
        };
        // Rules may have changed since the query passed. Of aliases only those count
        // that are denied: nobody lists all that a name is an alias for.
        let denied = |alias: &Name| match self.policy.decide_name(alias) {
            Some(Reason::NoRule) | None => None,
            reason => reason,
        };
        let reason = self.policy.decide_name(&name);
        let refused = reason.map(|reason| (&name, reason)).or_else(|| {
            let mut aliases = aliases.iter();
            aliases.find_map(|alias| Some((alias, denied(alias)?)))
        });
        if let Some((name, reason)) = refused {
            self.denied += 1;
            host.refused(&Refusal {
                name: Some(name),
                ..self.refusal(Attempt::Query, key, reason)
            });
            return false;
        }
        if self.policy.rules.remembers(&name) {
            for (address, ttl) in addresses {
                self.pins.add(now, judged_as(address), &name, ttl);
            }
        }
        true
    }
}

impl Stack {
    /// Puts a destination to the policy.
    pub(crate) fn judge<H: Host>(&mut self, now: Instant, key: &FlowKey, host: &mut H) -> Verdict {
        let Some(remote) = key.remote else {
            return Verdict::Closed;
        };
        let Egress { policy, pins, .. } = &self.egress;
        let names = pins.names(judged_as(remote.ip()), Some(now));
        let is_local = |address: IpAddr| host.is_local(address);
        let verdict = policy.decide(&self.own, key.protocol, remote, names, is_local);
        if let Verdict::Denied(reason) = verdict {
            self.egress.denied += 1;
            let attempt = Attempt::Flow(key.protocol);
            host.refused(
                &self
                    .egress
                    .refusal(attempt, (key.container, remote), reason),
            );
        }
        verdict
    }

    /// What the container may reach at present.
    pub fn rules(&self) -> &Rules {
        &self.egress.policy.rules
    }

    /// Replaces the rules. Flows that the old ones allowed and the new ones do not are
    /// ended, but for those that began on the host's side. All others go on, also where
    /// the answer that they were opened for has expired.
    pub fn set_rules<H: Host>(&mut self, rules: Rules, host: &mut H) {
        let before = std::mem::replace(&mut self.egress.policy.rules, rules);
        let Egress { policy, pins, .. } = &self.egress;
        let watched_now = !before.judge_names() && self.egress.judges_names();
        let judge = |key: &FlowKey| {
            let remote = key.remote?;
            if Some(remote.ip()) == self.own.dns_for(remote.ip()) {
                // Nobody looks at what passes on a connection to the DNS forwarder that
                // began before there were rules.
                return (key.protocol == Protocol::Tcp && watched_now).then_some(None);
            }
            let names = || pins.names(judged_as(remote.ip()), None);
            let reason = policy.rules.judge(key.protocol, remote, names())?;
            let told = matches!(reason, Reason::Rule(_))
                || before.judge(key.protocol, remote, names()).is_none();
            told.then_some(Some(reason))
        };
        let gone: Vec<_> = self
            .flows
            .begun_inside()
            .filter_map(|(id, key)| Some((id, key, judge(&key)?)))
            .collect();
        for (id, key, reason) in gone {
            if let (Some(reason), Some(remote)) = (reason, key.remote) {
                self.egress.denied += 1;
                let attempt = Attempt::Flow(key.protocol);
                host.refused(&Refusal {
                    ended: true,
                    ..self
                        .egress
                        .refusal(attempt, (key.container, remote), reason)
                });
            }
            match key.protocol {
                Protocol::Tcp => self.abort(id, host),
                Protocol::Udp => self.udp_unwanted(&key, host),
                Protocol::Echo => self.echo_remove(id, host),
            }
        }
    }
}
