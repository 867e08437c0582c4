//! `--net-allow`, `--net-deny` and `--net-default`.

use netstack::Rule;

use super::{shown, usage};
use crate::config::{Action, Network, Rules, rule};
use crate::error::Error;

/// Sets the rules of a network of our own; any other has none.
pub(super) fn set(
    allow: &[String],
    deny: &[String],
    default: Option<&str>,
    dns: &[String],
    network: &mut Network,
) -> Result<(), Error> {
    let given = [
        ("--net-allow", allow.is_empty()),
        ("--net-deny", deny.is_empty()),
        ("--net-default", default.is_none()),
    ];
    let Network::Builtin(builtin) = network else {
        return match given.iter().find(|(_, absent)| !absent) {
            Some((option, _)) => Err(usage(format!("{option} is only for --net=builtin"))),
            None => Ok(()),
        };
    };
    let default = match default {
        Some("allow") => Action::Allow,
        Some("deny") => Action::Deny,
        Some(other) => {
            return Err(usage(format!(
                "--net-default: allow or deny is needed, not {}",
                shown(other)
            )));
        }
        // Who lists what is allowed means that nothing else is.
        None if !allow.is_empty() => Action::Deny,
        None => Action::Allow,
    };
    let most = Rules::MOST;
    if allow.len() + deny.len() > most {
        return Err(usage(format!(
            "--net-allow and --net-deny: {most} rules are the most"
        )));
    }
    let allow = parse("--net-allow", Action::Allow, allow)?;
    let deny = parse("--net-deny", Action::Deny, deny)?;
    if let Some(named) = allow.iter().find(|rule| rule.is_named())
        && !dns.is_empty()
    {
        return Err(usage(format!(
            "--net-allow {named}: with --dns the container does not ask our resolver, which \
             is who knows the addresses of names"
        )));
    }
    *builtin.rules = Rules::new(default.into(), allow, deny);
    Ok(())
}

/// Checks rules for a container that runs, and gives them in their shortest form.
pub(in crate::cli) fn rules(action: Action, texts: &[String]) -> Result<Vec<String>, Error> {
    let rules = parse(&format!("net {action}"), action, texts)?;
    Ok(rules.iter().map(ToString::to_string).collect())
}

fn parse(option: &str, action: Action, texts: &[String]) -> Result<Vec<Rule>, Error> {
    let one = |text: &String| {
        rule(action, text).map_err(|why| usage(format!("{option} {}: {why}", shown(text))))
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BuiltinNetwork, EgressRules};

    fn parsed(allow: &[&str], deny: &[&str], default: Option<&str>) -> Result<EgressRules, String> {
        let owned = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let mut network = Network::Builtin(BuiltinNetwork::default());
        set(&owned(allow), &owned(deny), default, &[], &mut network).map_err(|e| e.to_string())?;
        match network {
            Network::Builtin(builtin) => Ok(EgressRules::from(&*builtin.rules)),
            _ => unreachable!(),
        }
    }

    #[test]
    fn what_is_allowed_is_all_that_is() {
        let default =
            |allow: &[&str], deny: &[&str], given| parsed(allow, deny, given).unwrap().default;
        assert_eq!(default(&[], &[], None), Action::Allow);
        assert_eq!(default(&[], &["10.0.0.0/8"], None), Action::Allow);
        assert_eq!(default(&["a.example"], &[], None), Action::Deny);
        assert_eq!(default(&["a.example"], &[], Some("allow")), Action::Allow);
        assert_eq!(default(&[], &[], Some("deny")), Action::Deny);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (allow, deny, default, why) in [
            (&["a b"][..], &[][..], None, "--net-allow \"a b\": neither"),
            (
                &[],
                &["10.0.0.1/8"][..],
                None,
                "--net-deny \"10.0.0.1/8\": not a network",
            ),
            (&[], &["a.example:25"], None, "denied as a whole"),
            (&[], &[], Some("drop"), "--net-default: allow or deny"),
        ] {
            let message = parsed(allow, deny, default).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
        let many = vec!["10.0.0.1"; Rules::MOST + 1];
        assert!(parsed(&many, &[], None).unwrap_err().contains("1000 rules"));
        for (option, allow, default) in [
            ("--net-allow", &["*".to_owned()][..], None),
            ("--net-default", &[], Some("deny")),
        ] {
            let error = set(allow, &[], default, &[], &mut Network::None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(option), "{error}");
        }
        set(&[], &[], None, &[], &mut Network::Host).unwrap();
        let mut network = Network::Builtin(BuiltinNetwork::default());
        let dns = ["192.0.2.53".to_owned()];
        set(&["10.0.0.0/8".to_owned()], &[], None, &dns, &mut network).unwrap();
        let error = set(&["a.example".to_owned()], &[], None, &dns, &mut network);
        assert!(error.unwrap_err().to_string().contains("--dns"));
    }
}
