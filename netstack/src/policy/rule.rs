//! One rule of the owner, and how it is written.
//!
//! ```text
//! RULE   = [PROTO ":"] TARGET [":" PORT ["-" PORT]]
//! PROTO  = "tcp" | "udp" | "icmp" | "dns"
//! TARGET = "*" | "any"
//!        | IPv4 ["/" LENGTH]
//!        | IPv6 ["/" LENGTH]                 where no port follows
//!        | "[" IPv6 ["/" LENGTH] "]"
//!        | NAME | "*." NAME                  the name itself | all that is below it
//! ```
//!
//! Without PROTO a rule is about TCP, UDP and echo requests (`icmp`), with a port
//! about TCP and UDP. `dns` is about asking for a name, and opens no address.
//! A word before a colon is a PROTO if it is one of these four. What is all
//! digits in its last label is no NAME, so that a mistyped address is not one.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::name::Name;
use super::translated;
use crate::flow::Protocol;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// All traffic, and asking for the name.
    All,
    Tcp,
    Udp,
    Icmp,
    /// Asking for names alone.
    Dns,
}

/// How they are written.
const WORDS: [(&str, Scope); 4] = [
    ("tcp", Scope::Tcp),
    ("udp", Scope::Udp),
    ("icmp", Scope::Icmp),
    ("dns", Scope::Dns),
];

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Any,
    Net(Net),
    Name(Name),
    /// All names below this one.
    Below(Name),
}

/// An address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Net {
    address: IpAddr,
    length: u8,
}

impl Net {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ & mask_v4(self.length) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ & mask_v6(self.length) == 0
            }
            _ => false,
        }
    }

    /// IPv6 networks that stand for IPv4 ones are these.
    fn new(address: IpAddr, length: u8) -> Result<Self, String> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(format!(
                "the prefix length is not a number from 0 to {most}"
            ));
        }
        let network = match address {
            IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from(u32::from(v4) & mask_v4(length))),
            IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from(u128::from(v6) & mask_v6(length))),
        };
        if network != address {
            return Err(format!(
                "not a network address: the network is {network}/{length}"
            ));
        }
        let embedded = match address {
            IpAddr::V6(v6) if length >= 96 => v6.to_ipv4_mapped().or_else(|| translated(v6)),
            _ => None,
        };
        Ok(match embedded {
            Some(v4) => Self {
                address: v4.into(),
                length: length - 96,
            },
            None => Self { address, length },
        })
    }
}

/// A number whose upper `length` bits are set.
fn mask_v4(length: u8) -> u32 {
    let rest = 32_u32.saturating_sub(length.into());
    u32::MAX.checked_shl(rest).unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    let rest = 128_u32.saturating_sub(length.into());
    u128::MAX.checked_shl(rest).unwrap_or(0)
}

impl Display for Net {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let most = if self.address.is_ipv4() { 32 } else { 128 };
        write!(f, "{}", self.address)?;
        if self.length < most {
            write!(f, "/{}", self.length)?;
        }
        Ok(())
    }
}

/// One rule. [`FromStr`] reads it, [`Display`] writes it in its shortest form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    pub(super) scope: Scope,
    pub(super) target: Target,
    /// First and last.
    pub(super) ports: Option<(u16, u16)>,
}

impl Rule {
    /// Whether a flow of this protocol to this port is of the kind that it is about,
    /// wherever it goes.
    pub(super) fn covers(&self, protocol: Protocol, port: u16) -> bool {
        let scope = match protocol {
            Protocol::Tcp => Scope::Tcp,
            Protocol::Udp => Scope::Udp,
            Protocol::Echo => Scope::Icmp,
        };
        let in_range = |(first, last): (u16, u16)| {
            protocol != Protocol::Echo && (first..=last).contains(&port)
        };
        (self.scope == Scope::All || self.scope == scope) && self.ports.is_none_or(in_range)
    }

    /// Whether it is about asking for a name of its target.
    pub(super) fn covers_queries(&self) -> bool {
        self.ports.is_none() && matches!(self.scope, Scope::All | Scope::Dns)
    }

    /// Whether it is about a name, or all names below one.
    pub fn is_named(&self) -> bool {
        matches!(self.target, Target::Name(_) | Target::Below(_))
    }

    pub(super) fn is_net(&self) -> bool {
        matches!(self.target, Target::Net(_))
    }

    /// Why it cannot be one that denies.
    ///
    /// # Errors
    /// What to do in its place.
    pub fn check_denial(&self) -> Result<(), InvalidRule> {
        if self.is_named() && !self.covers_queries() {
            return Err(InvalidRule(format!(
                "a name is denied as a whole, without a protocol and a port: \
                 its addresses may be other names', too (write {})",
                Self {
                    scope: Scope::All,
                    ports: None,
                    ..self.clone()
                }
            )));
        }
        Ok(())
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(_, scope)| *scope == self.scope);
        if let Some((word, _)) = word {
            write!(f, "{word}:")?;
        }
        match &self.target {
            Target::Any => f.write_str("*")?,
            Target::Net(net) if net.address.is_ipv6() && self.ports.is_some() => {
                write!(f, "[{net}]")?;
            }
            Target::Net(net) => net.fmt(f)?,
            Target::Name(name) => {
                name.fmt(f)?;
                // A name that would be read as something else.
                let before_port = self.scope == Scope::All && self.ports.is_some();
                let is_word = || WORDS.iter().any(|(word, _)| name.is_label(word));
                if name.is_label("any") || before_port && is_word() {
                    f.write_str(".")?;
                }
            }
            Target::Below(name) => write!(f, "*.{name}")?,
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        parse(text).map_err(InvalidRule)
    }
}

fn parse(text: &str) -> Result<Rule, String> {
    if text.contains("://") {
        return Err("a URL is no target: a name and a port are, as in example.org:443".to_owned());
    }
    let (scope, rest) = match text.split_once(':') {
        Some((word, rest)) => match scope(word) {
            Some(scope) => (scope, rest),
            None => (Scope::All, text),
        },
        None => (Scope::All, text),
    };
    let (target, ports) = target_and_ports(rest)?;
    if ports.is_some() && matches!(scope, Scope::Icmp | Scope::Dns) {
        return Err("icmp and dns have no ports".to_owned());
    }
    if scope == Scope::Dns && matches!(target, Target::Net(_)) {
        return Err("dns is about names: a name, *.NAME or * is needed".to_owned());
    }
    Ok(Rule {
        scope,
        target,
        ports,
    })
}

fn scope(word: &str) -> Option<Scope> {
    let known = WORDS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(word));
    known.map(|(_, scope)| *scope)
}

fn target_and_ports(text: &str) -> Result<(Target, Option<(u16, u16)>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest
            .split_once(']')
            .ok_or("the bracket is not closed, as in [2001:db8::1]:443")?;
        let net = net(inside)?.filter(|net| inside.contains(':') || net.address.is_ipv6());
        let net = net.ok_or("an IPv6 address is needed in the brackets")?;
        let ports = match after.strip_prefix(':') {
            Some(word) => Some(ports(word)?),
            None if after.is_empty() => None,
            None => {
                return Err(
                    "only a port may follow the bracket, as in [2001:db8::/32]:443".to_owned(),
                );
            }
        };
        return Ok((Target::Net(net), ports));
    }
    if let Some(net) = net(text)? {
        return Ok((Target::Net(net), None));
    }
    let (word, ports) = match text.rsplit_once(':') {
        Some((word, _)) if word.contains(':') => {
            return Err(
                "not an address; an IPv6 address that a port follows is written in brackets, \
                 as in [2001:db8::1]:443"
                    .to_owned(),
            );
        }
        Some((word, port)) => (word, Some(ports(port)?)),
        None => (text, None),
    };
    if let Some(net) = net(word)? {
        return Ok((Target::Net(net), ports));
    }
    Ok((name(word)?, ports))
}

/// An address or a network; `None` when it is neither, and not meant as one.
fn net(text: &str) -> Result<Option<Net>, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return if length.is_some() && !address.contains(':') {
            Err("ADDRESS/LENGTH is needed, such as 10.0.0.0/8".to_owned())
        } else {
            Ok(None)
        };
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => whole,
        // Of a port behind the length there is more to say.
        Some(word) if word.contains(':') => return Ok(None),
        Some(word) => number(word)
            .and_then(|length| u8::try_from(length).ok())
            .ok_or_else(|| format!("the prefix length is not a number from 0 to {whole}"))?,
    };
    Net::new(address, length).map(Some)
}

fn name(text: &str) -> Result<Target, String> {
    if text == "*" || text.eq_ignore_ascii_case("any") {
        return Ok(Target::Any);
    }
    if text.is_empty() {
        return Err("a target is missing: an address, a network, a name, or * for any".to_owned());
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.is_ascii() {
        return Err("a name is written in its ASCII form (xn--...)".to_owned());
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let digits = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    if !name.split('.').all(|label| label.bytes().all(inner)) {
        return Err(
            "neither an address, nor a network, nor a name (letters, digits, - and _ in parts \
             joined by dots; *.NAME for all below it)"
                .to_owned(),
        );
    }
    if name.rsplit('.').next().is_some_and(digits) {
        return Err(
            "neither an address nor a name; a port of any address is written *:PORT".to_owned(),
        );
    }
    // One dot may stand at the end, not two.
    let written = Some(name).filter(|name| !name.ends_with('.'));
    let name = written
        .and_then(Name::new)
        .ok_or("a part of the name is empty, or it is too long")?;
    Ok(if below {
        Target::Below(name)
    } else {
        Target::Name(name)
    })
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |word: &str| number(word).filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        (Some(_), Some(_)) => Err("the range of ports ends before it begins".to_owned()),
        _ => Err("the port is not a number from 1 to 65535, nor two with - between".to_owned()),
    }
}

/// Digits and nothing else: `from_str` takes a sign too.
fn number(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}
