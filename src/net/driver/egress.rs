//! What the container may reach, as it runs.

use std::net::IpAddr;

use netstack::Rule;

use super::Driver;
use crate::config::{Action, EgressRules, Rules, rule};
use crate::net::audit::NetLog;

impl Driver {
    /// Names of hosts(5), and their addresses.
    pub fn know_names(&mut self, names: Vec<(String, Vec<IpAddr>)>) {
        self.stack.know_names(&names);
    }

    /// Has refusals written to a file from now on.
    pub fn log_refusals_to(&mut self, log: NetLog) {
        self.host.audit.write_to(log);
    }

    /// The rules.
    pub fn rules(&self) -> EgressRules {
        EgressRules::from(self.stack.rules())
    }

    /// Adds rules, all or none; those that are there stay as they are. The rules there
    /// are then.
    ///
    /// # Errors
    /// One is no rule, or there are too many.
    pub fn add_rules(&mut self, action: Action, texts: &[String]) -> Result<EgressRules, String> {
        let (mut allow, mut deny) = self.lists();
        for wanted in parse(action, texts)? {
            let list = of(action, &mut allow, &mut deny);
            if !list.contains(&wanted) {
                list.push(wanted);
            }
        }
        if allow.len() + deny.len() > Rules::MOST {
            return Err(format!("{} rules are the most", Rules::MOST));
        }
        Ok(self.set_rules(self.rules().default, allow, deny))
    }

    /// Takes rules back, all or none. The rules there are then.
    ///
    /// # Errors
    /// One is not there.
    pub fn remove_rules(
        &mut self,
        action: Action,
        texts: &[String],
    ) -> Result<EgressRules, String> {
        let (mut allow, mut deny) = self.lists();
        for unwanted in parse(action, texts)? {
            let list = of(action, &mut allow, &mut deny);
            let place = list.iter().position(|rule| *rule == unwanted);
            let place = place.ok_or_else(|| format!("there is no rule {action} {unwanted}"))?;
            list.remove(place);
        }
        Ok(self.set_rules(self.rules().default, allow, deny))
    }

    /// Sets what is done where no rule says anything. The rules there are then.
    pub fn set_default(&mut self, default: Action) -> EgressRules {
        let (allow, deny) = self.lists();
        self.set_rules(default, allow, deny)
    }

    fn lists(&self) -> (Vec<Rule>, Vec<Rule>) {
        let rules = self.stack.rules();
        (rules.allowed().to_vec(), rules.denied().to_vec())
    }

    fn set_rules(&mut self, default: Action, allow: Vec<Rule>, deny: Vec<Rule>) -> EgressRules {
        let rules = Rules::new(default.into(), allow, deny);
        self.host.audit.set_strict(rules != Rules::default());
        self.stack.set_rules(rules, &mut self.host);
        self.rules()
    }
}

fn of<'l>(action: Action, allow: &'l mut Vec<Rule>, deny: &'l mut Vec<Rule>) -> &'l mut Vec<Rule> {
    match action {
        Action::Allow => allow,
        Action::Deny => deny,
    }
}

fn parse(action: Action, texts: &[String]) -> Result<Vec<Rule>, String> {
    let one = |text: &String| rule(action, text).map_err(|why| format!("{text}: {why}"));
    texts.iter().map(one).collect()
}
