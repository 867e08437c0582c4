//! The decision itself, without a stack.

use std::iter;

use super::rule::Target;
use super::*;
use proptest::prelude::*;

const OWN: Addresses = Addresses {
    gateway: Ipv4Addr::new(10, 0, 2, 2),
    dns: Ipv4Addr::new(10, 0, 2, 3),
    network: 0x0a00_0200,
    mask: 0xffff_ff00,
    ipv6: Some(Ipv6Config {
        container: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64),
        gateway: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        dns: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
    }),
};

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn with_rules(default: Action, allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    Policy {
        rules: Rules::new(default, rules(allow), rules(deny)),
        ..Policy::default()
    }
}

fn decide(policy: &Policy, protocol: Protocol, to: &str, local: bool) -> Verdict {
    policy.decide(&OWN, protocol, to.parse().unwrap(), iter::empty(), |_| {
        local
    })
}

#[test]
fn default_reach() {
    let p = Policy::default();
    let denied = [
        ("10.0.2.2:80", Reason::HostLoopback),
        ("127.0.0.1:80", Reason::HostLoopback),
        ("127.8.9.1:80", Reason::HostLoopback),
        ("169.254.169.254:80", Reason::LinkLocal),
        ("0.0.0.0:80", Reason::NotUnicast),
        ("0.1.2.3:80", Reason::NotUnicast),
        ("224.0.0.1:80", Reason::NotUnicast),
        ("255.255.255.255:80", Reason::NotUnicast),
        ("240.1.1.1:80", Reason::NotUnicast),
        ("192.0.2.1:0", Reason::NotUnicast),
        ("10.0.2.77:80", Reason::NoSuchNeighbor),
        ("10.0.2.255:80", Reason::NoSuchNeighbor),
        ("[fd00::2]:80", Reason::HostLoopback),
        ("[::1]:80", Reason::HostLoopback),
        ("[::]:80", Reason::NotUnicast),
        ("[::127.0.0.1]:80", Reason::NotUnicast),
        ("[::ffff:127.0.0.1]:80", Reason::NotUnicast),
        ("[::ffff:198.51.100.1]:80", Reason::NotUnicast),
        ("[ff02::1]:80", Reason::NotUnicast),
        ("[fe80::1]:80", Reason::LinkLocal),
        ("[febf::1]:80", Reason::LinkLocal),
        ("[fd00:ec2::254]:80", Reason::LinkLocal),
        ("[fd20:ce::254]:80", Reason::LinkLocal),
        ("[64:ff9b::127.0.0.1]:80", Reason::HostLoopback),
        ("[64:ff9b::169.254.169.254]:80", Reason::LinkLocal),
        ("[fd00::77]:80", Reason::NoSuchNeighbor),
        ("[2001:db8::1]:0", Reason::NotUnicast),
    ];
    for (to, reason) in denied {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(
                decide(&p, protocol, to, false),
                Verdict::Denied(reason),
                "{to}"
            );
        }
    }
    assert_eq!(
        decide(&p, Protocol::Tcp, "192.0.2.1:80", true),
        Verdict::Denied(Reason::HostAddress)
    );
    assert_eq!(
        decide(&p, Protocol::Tcp, "192.0.2.1:80", false),
        Verdict::Host("192.0.2.1:80".parse().unwrap())
    );
    assert_eq!(
        decide(&p, Protocol::Tcp, "[2001:db8::1]:80", true),
        Verdict::Denied(Reason::HostAddress)
    );
    for to in [
        "[2001:db8::1]:80",
        "[64:ff9b::198.51.100.1]:80",
        "[fd00:0:0:1::2]:80",
    ] {
        assert_eq!(
            decide(&p, Protocol::Tcp, to, false),
            Verdict::Host(to.parse().unwrap())
        );
    }
    assert_eq!(
        decide(&p, Protocol::Udp, "10.0.2.3:53", false),
        Verdict::Dns
    );
    assert_eq!(
        decide(&p, Protocol::Udp, "[fd00::3]:53", false),
        Verdict::Dns
    );
    assert_eq!(
        decide(&p, Protocol::Tcp, "10.0.2.3:53", false),
        Verdict::Dns
    );
    assert_eq!(
        decide(&p, Protocol::Tcp, "10.0.2.3:54", false),
        Verdict::Closed
    );
}

#[test]
fn each_option_opens_only_its_own() {
    let loopback = Policy {
        allow_host_loopback: true,
        ..Policy::default()
    };
    assert_eq!(
        decide(&loopback, Protocol::Tcp, "10.0.2.2:80", false),
        Verdict::Host("127.0.0.1:80".parse().unwrap())
    );
    assert_eq!(
        decide(&loopback, Protocol::Tcp, "[fd00::2]:80", false),
        Verdict::Host("[::1]:80".parse().unwrap())
    );
    assert_eq!(
        decide(&loopback, Protocol::Tcp, "127.0.0.1:80", false),
        Verdict::Denied(Reason::HostLoopback)
    );
    assert_eq!(
        decide(&loopback, Protocol::Tcp, "192.0.2.1:80", true),
        Verdict::Denied(Reason::HostAddress)
    );
    let link_local = Policy {
        allow_link_local: true,
        ..Policy::default()
    };
    assert_eq!(
        decide(&link_local, Protocol::Tcp, "169.254.169.254:80", false),
        Verdict::Host("169.254.169.254:80".parse().unwrap())
    );
    assert_eq!(
        decide(&link_local, Protocol::Tcp, "169.254.169.254:80", true),
        Verdict::Denied(Reason::HostAddress)
    );
}

proptest! {
    /// Whatever the destination, a host socket is never aimed at loopback or a local
    /// address by default.
    #[test]
    fn never_at_the_host(
        address in prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
            any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
            any::<u32>().prop_map(|bits| {
                IpAddr::from(Ipv6Addr::from(0x64_ff9b_u128 << 96 | u128::from(bits)))
            }),
        ],
        port: u16,
        local: bool,
    ) {
        let to = SocketAddr::new(address, port);
        let verdict = Policy::default().decide(&OWN, Protocol::Tcp, to, iter::empty(), |_| local);
        if let Verdict::Host(at) = verdict {
            prop_assert_eq!(at, to);
            prop_assert!(!local && !at.ip().to_canonical().is_loopback() && port != 0);
        }
    }
}

#[test]
fn rules_are_written_in_one_way() {
    for (text, canonical) in [
        ("*", "*"),
        ("any", "*"),
        ("ANY", "*"),
        ("any.", "any."),
        ("tcp:any.", "tcp:any."),
        ("tcp.:80", "tcp.:80"),
        ("udp:tcp.:80", "udp:tcp:80"),
        ("tcp:any:443", "tcp:*:443"),
        ("TCP:*:1-65535", "tcp:*:1-65535"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/32:53", "10.1.2.3:53"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("udp:192.0.2.1:80-90", "udp:192.0.2.1:80-90"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::1:443", "2001:db8::1:443"),
        ("icmp:2001:db8::/32", "icmp:2001:db8::/32"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ("64:ff9b::192.0.2.0/120", "192.0.2.0/24"),
        ("::/0", "::/0"),
        ("Example.ORG.", "example.org"),
        ("*.example.org:443", "*.example.org:443"),
        ("dns:*.example.org", "dns:*.example.org"),
        ("dns:*", "dns:*"),
        ("tcp", "tcp"),
        ("_x.a-b.1a", "_x.a-b.1a"),
    ] {
        assert_eq!(rule(text).to_string(), canonical, "{text}");
        assert_eq!(rule(canonical), rule(text));
    }
}

#[test]
fn what_is_wrong_with_a_rule_is_said() {
    for (text, why) in [
        ("", "a target is missing"),
        (":443", "a target is missing"),
        ("tcp:", "a target is missing"),
        ("tcp:443", "*:PORT"),
        ("443", "*:PORT"),
        ("10.0.0.256", "*:PORT"),
        ("10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("10.0.0.0/33", "prefix length"),
        ("10.0.0.0/+8", "prefix length"),
        ("example.org/8", "ADDRESS/LENGTH"),
        ("2001:db8::1/32", "the network is 2001:db8::/32"),
        ("2001:db8::/129", "prefix length"),
        ("2001:db8::/32:443", "brackets"),
        ("2001:db8:::443", "brackets"),
        ("[2001:db8::1", "not closed"),
        ("[2001:db8::1]443", "only a port"),
        ("[2001:db8::]/32:443", "only a port"),
        ("[10.0.0.1]:80", "IPv6 address is needed"),
        ("[example.org]:80", "IPv6 address is needed"),
        ("example.org:", "the port is not"),
        ("example.org:0", "the port is not"),
        ("example.org:65536", "the port is not"),
        ("example.org:https", "the port is not"),
        ("example.org:2-1", "ends before it begins"),
        ("example.org:1-", "the port is not"),
        ("icmp:10.0.0.1:1", "have no ports"),
        ("dns:example.org:53", "have no ports"),
        ("dns:10.0.0.1", "about names"),
        ("b\u{fc}cher.example", "ASCII form"),
        ("a..b", "a part of the name is empty"),
        ("a.b..", "a part of the name is empty"),
        ("192.0.2.1..", "a part of the name is empty"),
        ("*.", "a part of the name is empty"),
        (".", "a part of the name is empty"),
        ("a.*.b", "neither an address"),
        ("**.b", "neither an address"),
        ("a b", "neither an address"),
        ("http://example.org", "a URL is no target"),
        ("sctp:example.org:80", "not an address"),
    ] {
        let message = text.parse::<Rule>().unwrap_err().to_string();
        assert!(message.contains(why), "{text}: {message}");
    }
    assert!(rule("example.org:25").check_denial().is_err());
    assert!(rule("tcp:*.example.org").check_denial().is_err());
    for good in ["example.org", "dns:*.example.org", "*:25", "10.0.0.0/8:25"] {
        rule(good).check_denial().unwrap();
    }
}

#[test]
fn names_that_may_be_asked_for() {
    let asked = |policy: &Policy, name: &str| policy.decide_name(&Name::new(name).unwrap());
    let p = with_rules(
        Action::Deny,
        &[
            "example.org:443",
            "*.wild.example",
            "dns:only.example",
            "10.0.0.0/8",
        ],
        &["bad.wild.example"],
    );
    for name in [
        "example.org",
        "EXAMPLE.org.",
        "a.wild.example",
        "b.a.wild.example",
        "only.example",
    ] {
        assert_eq!(asked(&p, name), None, "{name}");
    }
    for name in [
        "www.example.org",
        "org",
        "wild.example",
        "awild.example",
        "x.only.example",
    ] {
        assert_eq!(asked(&p, name), Some(Reason::NoRule), "{name}");
    }
    assert_eq!(asked(&p, "bad.wild.example"), Some(Reason::Rule(0)));
    // Who may reach any address may ask for any name, unless that is denied.
    for allow in ["*:443", "icmp:*", "dns:*"] {
        assert_eq!(
            asked(&with_rules(Action::Deny, &[allow], &[]), "a.example"),
            None
        );
    }
    for deny in ["dns:*", "*"] {
        let p = with_rules(Action::Allow, &["a.example"], &[deny]);
        assert_eq!(asked(&p, "a.example"), Some(Reason::Rule(0)));
    }
    let p = with_rules(Action::Allow, &[], &["tcp:*", "*:80"]);
    assert_eq!(asked(&p, "a.example"), None);
}

/// Rules, some of them about the destinations below.
fn a_rule() -> impl Strategy<Value = Rule> {
    let scopes = prop::sample::select(vec!["", "", "tcp:", "udp:", "icmp:"]);
    let targets = prop::sample::select(vec![
        "*",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "192.0.2.1",
        "192.0.2.1/32",
        "198.51.100.0/24",
        "::/0",
        "2001:db8::/32",
        "2001:db8::1",
        "64:ff9b::/64",
        "127.0.0.0/8",
        "10.0.2.0/24",
        "169.254.169.254",
        "0.0.0.0",
        "a.example",
        "*.example",
        "b.example",
        "*.b.example",
    ]);
    let ports = prop::sample::select(vec![None, None, Some("80"), Some("443"), Some("1-100")]);
    (scopes, targets, ports).prop_map(|(scope, target, port)| {
        let target = match port {
            Some(_) if target.contains(':') => format!("[{target}]"),
            _ => target.to_owned(),
        };
        let port = port
            .filter(|_| scope != "icmp:")
            .map(|port| format!(":{port}"));
        rule(&format!("{scope}{target}{}", port.unwrap_or_default()))
    })
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(a_rule(), 0..6)
}

fn denials() -> impl Strategy<Value = Vec<Rule>> {
    some_rules().prop_map(|mut rules| {
        rules.retain(|rule| rule.check_denial().is_ok());
        rules
    })
}

fn an_action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![Action::Allow, Action::Deny])
}

fn a_protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Echo])
}

fn a_destination() -> impl Strategy<Value = SocketAddr> {
    let addresses = prop::sample::select(vec![
        "192.0.2.1",
        "192.0.2.9",
        "198.51.100.7",
        "203.0.113.1",
        "2001:db8::1",
        "2001:db9::1",
        "64:ff9b::192.0.2.1",
        "64:ff9b::203.0.113.1",
        "::ffff:192.0.2.1",
        "10.0.2.2",
        "10.0.2.3",
        "10.0.2.77",
        "127.0.0.1",
        "169.254.169.254",
        "64:ff9b::169.254.169.254",
        "0.0.0.0",
        "fd00:ec2::254",
        "ff02::1",
        "fd00::2",
        "::1",
    ]);
    let ports = prop::sample::select(vec![53, 80, 443, 8080]);
    (addresses, ports)
        .prop_map(|(address, port): (&str, u16)| SocketAddr::new(address.parse().unwrap(), port))
}

fn some_names() -> impl Strategy<Value = Vec<Name>> {
    let names = vec!["a.example", "b.example", "x.b.example", "c.test"];
    prop::sample::subsequence(names, 0..=2).prop_map(|names| {
        names
            .into_iter()
            .map(|name| Name::new(name).unwrap())
            .collect()
    })
}

/// Whether a rule is about a flow, said in another way than in the code.
fn is_about(rule: &Rule, protocol: Protocol, to: SocketAddr, names: &[Name]) -> bool {
    let text = rule.to_string();
    let (scope, rest) = ["tcp:", "udp:", "icmp:"]
        .iter()
        .find_map(|scope| Some((*scope, text.strip_prefix(scope)?)))
        .unwrap_or(("", &text));
    let of_scope = match protocol {
        Protocol::Tcp => "tcp:",
        Protocol::Udp => "udp:",
        Protocol::Echo => "icmp:",
    };
    let port_of = |target: &str| {
        rest.strip_prefix(target)
            .map(|port| port.trim_start_matches(':').to_owned())
    };
    let target = match &rule.target {
        Target::Any => "*".to_owned(),
        Target::Net(net) => net.to_string(),
        Target::Name(name) => name.to_string(),
        Target::Below(name) => format!("*.{name}"),
    };
    let port = port_of(&target)
        .or_else(|| port_of(&format!("[{target}]")))
        .unwrap();
    let port_fits = port.is_empty()
        || protocol != Protocol::Echo
            && match port.split_once('-') {
                Some((first, last)) => {
                    (first.parse().unwrap()..=last.parse().unwrap()).contains(&to.port())
                }
                None => port == to.port().to_string(),
            };
    let named = |name: &Name| match target.strip_prefix("*.") {
        Some(parent) => name.to_string().ends_with(&format!(".{parent}")),
        None => name.to_string() == target,
    };
    let target_fits = match &rule.target {
        Target::Any => true,
        Target::Net(net) => net.has(to.ip()),
        _ => names.iter().any(named),
    };
    (scope.is_empty() || scope == of_scope) && port_fits && target_fits
}

fn is_denied(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Denied(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The whole of it, against a model that looks at one rule after the other.
    #[test]
    fn rules_mean_what_they_say(
        default in an_action(), allow in some_rules(), deny in denials(), protocol in a_protocol(),
        to in a_destination(), names in some_names(), local: bool,
    ) {
        let base = Policy::default();
        let p = Policy { rules: Rules::new(default, allow.clone(), deny.clone()), ..base.clone() };
        let at = |p: &Policy| p.decide(&OWN, protocol, to, names.iter(), |_| local);
        let by_itself = at(&base);
        let verdict = at(&p);
        if !matches!(by_itself, Verdict::Host(_)) {
            // Nothing opens what is denied by itself, and nothing closes our own addresses.
            prop_assert_eq!(verdict, by_itself);
            return Ok(());
        }
        let judged = SocketAddr::new(judged_as(to.ip()), to.port());
        let denied = deny.iter().any(|rule| {
            is_about(rule, protocol, judged, &[]) || is_about(rule, protocol, to, &[])
        });
        let allowed = allow.iter().any(|rule| is_about(rule, protocol, judged, &names));
        let expected = denied || default == Action::Deny && !allowed;
        prop_assert_eq!(is_denied(verdict), expected, "{:?}", verdict);
        if !expected {
            prop_assert_eq!(verdict, by_itself);
        }
    }

    /// Neither the order of rules nor how often one is there matters.
    #[test]
    fn order_does_not_matter(
        default in an_action(), allow in some_rules(), deny in denials(), protocol in a_protocol(),
        to in a_destination(), names in some_names(), turn: usize,
    ) {
        let policy = |allow, deny| Policy { rules: Rules::new(default, allow, deny), ..Policy::default() };
        let turned = |mut rules: Vec<Rule>| {
            let length = rules.len().max(1);
            if !rules.is_empty() {
                rules.rotate_left(turn % length);
            }
            rules.reverse();
            rules.extend(rules.first().cloned());
            rules
        };
        let one = policy(allow.clone(), deny.clone());
        let other = policy(turned(allow), turned(deny));
        let at = |p: &Policy| is_denied(p.decide(&OWN, protocol, to, names.iter(), |_| false));
        prop_assert_eq!(at(&one), at(&other));
        for name in &names {
            prop_assert_eq!(one.decide_name(name).is_some(), other.decide_name(name).is_some());
        }
    }

    /// One more rule that denies opens nothing, one more that allows closes nothing.
    #[test]
    fn rules_only_do_their_part(
        default in an_action(), allow in some_rules(), deny in denials(), more in a_rule(),
        protocol in a_protocol(), to in a_destination(), names in some_names(),
    ) {
        let denied = |allow: &[Rule], deny: &[Rule]| {
            let rules = Rules::new(default, allow.to_vec(), deny.to_vec());
            let p = Policy { rules, ..Policy::default() };
            let at = is_denied(p.decide(&OWN, protocol, to, names.iter(), |_| false));
            let names: Vec<_> = names.iter().map(|name| p.decide_name(name).is_some()).collect();
            [vec![at], names].concat()
        };
        let before = denied(&allow, &deny);
        let pairs = |after: Vec<bool>| before.clone().into_iter().zip(after);
        let more_allowed = [&allow[..], std::slice::from_ref(&more)].concat();
        prop_assert!(pairs(denied(&more_allowed, &deny)).all(|(before, after)| before || !after));
        if more.check_denial().is_ok() {
            let more_denied = [&deny[..], &[more]].concat();
            prop_assert!(pairs(denied(&allow, &more_denied)).all(|(before, after)| after || !before));
        }
    }

    /// An address of a NAT64 is reached only where the IPv4 one is.
    #[test]
    fn translated_is_judged_as_ipv4(
        default in an_action(), allow in some_rules(), deny in denials(), protocol in a_protocol(),
        bits in prop::sample::select(vec![0xc000_0201_u32, 0xc633_6407, 0xcb00_7101, 0x7f00_0001]),
        names in some_names(),
    ) {
        let only_v4 = deny.iter().all(|rule| !rule.to_string().contains("::"));
        let p = Policy { rules: Rules::new(default, allow, deny), ..Policy::default() };
        let v4 = Ipv4Addr::from(bits);
        let v6 = Ipv6Addr::from(0x64_ff9b_u128 << 96 | u128::from(bits));
        let at = |address: IpAddr| {
            is_denied(p.decide(&OWN, protocol, SocketAddr::new(address, 80), names.iter(), |_| false))
        };
        prop_assert!(at(v6.into()) || !at(v4.into()));
        if only_v4 {
            prop_assert_eq!(at(v6.into()), at(v4.into()));
        }
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in "(tcp:|dns:|\\[)?[a-z0-9.:/*\\[\\]-]{0,20}|.{0,20}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    #[test]
    fn any_bytes_are_a_name_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..320) {
        if let Some((name, end)) = Name::read(&bytes, at) {
            prop_assert!(end <= bytes.len() && name.wire().len() <= 255);
            let _ = (name.to_string(), name.parents().count());
        }
    }
}
