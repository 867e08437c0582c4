//! What an answer says about the name that was asked for: its aliases and addresses.
//!
//! Aliases are followed from that name on, so that an answer cannot speak for a name
//! that was not asked for.

use std::net::IpAddr;

use super::message::{CLASS_IN, HEADER_LEN, OPCODE, QR, RCODE, u16_at};
use crate::policy::Name;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// Bytes of a question behind its name, and of a record without its data.
const QUESTION_TAIL: usize = 4;
const RECORD_TAIL: usize = 10;
/// Records that are looked at, and aliases that are followed: more than real answers
/// have.
const MAX_RECORDS: usize = 512;
const MAX_ALIASES: usize = 16;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// The name that was asked for.
    pub(crate) name: Name,
    /// What it is an alias for, one after the other.
    pub(crate) aliases: Vec<Name>,
    /// Its addresses, and for how many seconds.
    pub(crate) addresses: Vec<(IpAddr, u32)>,
}

enum Data {
    Address(IpAddr),
    Alias(Name),
}

struct Record {
    owner: Name,
    ttl: u32,
    data: Data,
}

/// Reads an answer; `None`: it says nothing about one name.
pub(crate) fn told(message: &[u8]) -> Option<Told> {
    let (a, b) = (*message.get(2)?, *message.get(3)?);
    if a & QR == 0 || a & OPCODE != 0 || b & RCODE != 0 || u16_at(message, 4)? != 1 {
        return None;
    }
    let (name, end) = Name::read(message, HEADER_LEN)?;
    if u16_at(message, end + 2)? != CLASS_IN {
        return None;
    }
    let records = records(message, end + QUESTION_TAIL, u16_at(message, 6)?);
    let mut told = Told {
        name: name.clone(),
        aliases: Vec::new(),
        addresses: Vec::new(),
    };
    let (mut current, mut least) = (name, u32::MAX);
    loop {
        let own = || records.iter().filter(|record| record.owner == current);
        told.addresses
            .extend(own().filter_map(|record| match record.data {
                Data::Address(address) => Some((address, record.ttl.min(least))),
                Data::Alias(_) => None,
            }));
        let alias = own().find_map(|record| match &record.data {
            Data::Alias(alias) => Some((alias.clone(), record.ttl)),
            Data::Address(_) => None,
        });
        match alias {
            Some((alias, ttl)) if told.aliases.len() < MAX_ALIASES => {
                least = least.min(ttl);
                told.aliases.push(alias.clone());
                current = alias;
            }
            _ => return Some(told),
        }
    }
}

/// The records that matter of an answer section, as far as it can be read.
fn records(message: &[u8], mut at: usize, count: u16) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..usize::from(count).min(MAX_RECORDS) {
        let Some((record, next)) = record(message, at) else {
            break;
        };
        records.extend(record);
        at = next;
    }
    records
}

/// The record at a place, if it matters, and where it ends.
fn record(message: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (owner, tail) = Name::read(message, at)?;
    let (kind, class) = (u16_at(message, tail)?, u16_at(message, tail + 2)?);
    let ttl = u32::from_be_bytes(*message.get(tail + 4..)?.first_chunk()?);
    let start = tail + RECORD_TAIL;
    let end = start + usize::from(u16_at(message, tail + 8)?);
    let data = message.get(start..end)?;
    let data = match kind {
        TYPE_A => <[u8; 4]>::try_from(data)
            .ok()
            .map(|octets| Data::Address(octets.into())),
        TYPE_AAAA => <[u8; 16]>::try_from(data)
            .ok()
            .map(|octets| Data::Address(octets.into())),
        TYPE_CNAME => Name::read(message, start)
            .filter(|(_, after)| *after == end)
            .map(|(name, _)| Data::Alias(name)),
        _ => None,
    };
    let record = data.filter(|_| class == CLASS_IN).map(|data| Record {
        owner,
        // The upper half means 0 (RFC 2181, 8).
        ttl: if ttl > u32::MAX >> 1 { 0 } else { ttl },
        data,
    });
    Some((record, end))
}
