//! Names that are answered here, and the way back from their addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use super::message::{CLASS_IN, Query, rcode};
use crate::policy::Name;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
/// In a query: of any type, or class.
const ANY: u16 = 255;

/// What is known of a name, which is in wire format and lower case.
#[derive(Debug)]
enum Known {
    Addresses(Vec<Octets>),
    /// The name that an address belongs to, in wire format.
    Name(Vec<u8>),
}

/// An address as the data of a record.
#[derive(Debug)]
enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Octets {
    fn record(&self) -> (u16, &[u8]) {
        match self {
            Self::V4(octets) => (TYPE_A, octets),
            Self::V6(octets) => (TYPE_AAAA, octets),
        }
    }
}

impl From<IpAddr> for Octets {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(address.octets()),
        }
    }
}

/// The names, found in one look-up whatever their number.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Vec<u8>, Known>);

impl Names {
    /// A name that no message can hold is never asked for, and left out.
    pub(super) fn new(names: &[(String, Vec<IpAddr>)]) -> Self {
        let mut known = HashMap::new();
        for (name, addresses) in names {
            let Some(wire) = Name::new(name).map(|name| name.wire().to_vec()) else {
                continue;
            };
            for address in addresses {
                if let Some(reverse) = Name::new(&reverse(*address)) {
                    known
                        .entry(reverse.wire().to_vec())
                        .or_insert_with(|| Known::Name(wire.clone()));
                }
            }
            let none = || Known::Addresses(Vec::new());
            if let Known::Addresses(list) = known.entry(wire).or_insert_with(none) {
                list.extend(addresses.iter().map(|address| Octets::from(*address)));
            }
        }
        Self(known)
    }

    /// The answer to a query for one of the names.
    pub(super) fn answer(&self, query: &Query<'_>) -> Option<Vec<u8>> {
        if self.0.is_empty() || !query.is_standard() {
            return None;
        }
        let (name, kind, class) = query.question()?;
        // Lengths of labels are no letters.
        let known = self.0.get(&name.to_ascii_lowercase())?;
        if class != CLASS_IN && class != ANY {
            return None;
        }
        let wanted = |(of, _): &(u16, &[u8])| kind == *of || kind == ANY;
        Some(match known {
            Known::Addresses(addresses) => {
                let records = addresses.iter().map(Octets::record).filter(wanted);
                query.answer(true, rcode::NO_ERROR, records)
            }
            Known::Name(name) => {
                let records = [(TYPE_PTR, name.as_slice())].into_iter().filter(wanted);
                query.answer(true, rcode::NO_ERROR, records)
            }
        })
    }
}

/// The name under which an address is looked up (RFC 1035, 3.5; RFC 3596, 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            let labels = nibbles.map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            labels.collect::<String>() + "ip6.arpa"
        }
    }
}
