//! What `--net-allow` and `--net-deny` mean. The rules themselves are the stack's
//! ([`netstack::Rule`]); here they are plain texts, for plans, messages and people.

use std::fmt::{self, Display, Formatter};

use netstack::{InvalidRule, Rule};
use serde::{Deserialize, Serialize, Serializer};

pub use netstack::Rules;

/// What is done about a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is reached.
    Allow,
    /// It is refused.
    Deny,
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl From<netstack::Action> for Action {
    fn from(action: netstack::Action) -> Self {
        match action {
            netstack::Action::Allow => Self::Allow,
            netstack::Action::Deny => Self::Deny,
        }
    }
}

impl From<Action> for netstack::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
        }
    }
}

/// Rules as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRules {
    /// What is done where no rule says anything.
    pub default: Action,
    /// What is allowed.
    pub allow: Vec<String>,
    /// What is denied, whatever is allowed.
    pub deny: Vec<String>,
}

impl From<&Rules> for EgressRules {
    fn from(rules: &Rules) -> Self {
        let texts = |rules: &[Rule]| rules.iter().map(ToString::to_string).collect();
        Self {
            default: rules.default_action().into(),
            allow: texts(rules.allowed()),
            deny: texts(rules.denied()),
        }
    }
}

/// Reads one rule.
///
/// # Errors
/// What is wrong with it.
pub fn rule(action: Action, text: &str) -> Result<Rule, InvalidRule> {
    let rule: Rule = text.parse()?;
    if action == Action::Deny {
        rule.check_denial()?;
    }
    Ok(rule)
}

/// As [`EgressRules`].
pub(super) fn serialize<S: Serializer>(rules: &Rules, serializer: S) -> Result<S::Ok, S::Error> {
    EgressRules::from(rules).serialize(serializer)
}
