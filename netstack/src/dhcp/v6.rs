//! DHCPv6 server (RFC 8415) of the container's one address.
//!
//! # Theory of operation
//!
//! The router advertisement says all that a host needs. A client that asks for
//! information gets the name servers and the search list, one that asks for an
//! address the container's, for good; temporary addresses and prefixes there are
//! none. Relays have no place on this link.

use std::net::Ipv6Addr;

use super::search_list;

/// Where clients send to, and where they are answered.
pub(crate) const SERVER_PORT: u16 = 547;
pub(crate) const CLIENT_PORT: u16 = 546;

/// Longest answer: what passes any link of IPv6.
const MAX_LEN: usize = 1280 - 48;
/// "Infinity" (RFC 8415, 7.7).
const FOREVER: u32 = u32::MAX;

/// Message types (RFC 8415, 7.3).
mod message {
    pub(super) const SOLICIT: u8 = 1;
    pub(super) const ADVERTISE: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const CONFIRM: u8 = 4;
    pub(super) const RENEW: u8 = 5;
    pub(super) const REBIND: u8 = 6;
    pub(super) const REPLY: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const DECLINE: u8 = 9;
    pub(super) const INFORMATION_REQUEST: u8 = 11;
}

/// Codes of options (RFC 8415, 21; RFC 3646).
mod option {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_TA: u16 = 4;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const DNS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
    pub(super) const IA_PD: u16 = 25;
}

/// Status codes (RFC 8415, 21.13).
mod status {
    pub(super) const SUCCESS: u16 = 0;
    pub(super) const NO_ADDRESSES: u16 = 2;
    pub(super) const NOT_ON_LINK: u16 = 4;
    pub(super) const NO_PREFIX: u16 = 6;
}

/// What a client is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// The container's address.
    pub(crate) container: Ipv6Addr,
    /// The server's link-layer address, which its DUID is made of.
    pub(crate) mac: [u8; 6],
    pub(crate) dns: &'a [Ipv6Addr],
    pub(crate) search: &'a [String],
}

/// What we look at in a request.
#[derive(Debug, Default)]
struct Request<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    rapid_commit: bool,
    /// Identity associations: kind and content.
    associations: Vec<(u16, &'a [u8])>,
}

impl<'a> Request<'a> {
    fn parse(options: &'a [u8]) -> Option<Self> {
        let mut request = Self::default();
        for option in Options(options) {
            let (code, data) = option?;
            match code {
                option::CLIENT => request.client = request.client.or(Some(data)),
                option::SERVER => request.server = request.server.or(Some(data)),
                option::RAPID_COMMIT => request.rapid_commit = true,
                option::IA_NA | option::IA_TA | option::IA_PD => {
                    request.associations.push((code, data));
                }
                _ => {}
            }
        }
        Some(request)
    }
}

/// The options in `0`; `None` when one leads out of it.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = split_option(self.0);
        self.0 = option.map_or(&[], |(_, _, rest)| rest);
        Some(option.map(|(code, data, _)| (code, data)))
    }
}

fn split_option(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
    let (data, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
    Some((u16::from_be_bytes([a, b]), data, rest))
}

/// Answers a message, to where it came from; `None` when there is nothing to say to it.
pub(crate) fn answer(offer: &Offer<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let (&[kind, a, b, c], options) = bytes.split_first_chunk()?;
    let request = Request::parse(options)?;
    // DUID-LL of an Ethernet address (RFC 8415, 11.4).
    let [m0, m1, m2, m3, m4, m5] = offer.mac;
    let duid = [0, 3, 0, 1, m0, m1, m2, m3, m4, m5];
    let for_us = request.server.map(|server| server == duid);
    // Who must be named, and who must not (RFC 8415, 16).
    let valid = match kind {
        message::SOLICIT | message::CONFIRM | message::REBIND => {
            request.client.is_some() && for_us.is_none()
        }
        message::REQUEST | message::RENEW | message::RELEASE | message::DECLINE => {
            request.client.is_some() && for_us == Some(true)
        }
        message::INFORMATION_REQUEST => for_us != Some(false) && request.associations.is_empty(),
        _ => false,
    };
    if !valid {
        return None;
    }
    let commits = request.rapid_commit && kind == message::SOLICIT;
    let reply = if kind == message::SOLICIT && !commits {
        message::ADVERTISE
    } else {
        message::REPLY
    };
    let mut answer = Answer(vec![reply, a, b, c]);
    answer.put(option::SERVER, &[&duid]);
    if let Some(client) = request.client {
        answer.put(option::CLIENT, &[client]);
    }
    match kind {
        message::CONFIRM => {
            let mut addresses = request
                .associations
                .iter()
                .flat_map(|(_, data)| Options(data.get(12..).unwrap_or_default()).flatten())
                .filter(|(code, _)| *code == option::ADDRESS)
                .peekable();
            // RFC 8415, 18.3.3.
            addresses.peek()?;
            let ours = offer.container.octets();
            let on_link = addresses.all(|(_, data)| data.get(..8) == ours.get(..8));
            answer.status(if on_link {
                status::SUCCESS
            } else {
                status::NOT_ON_LINK
            });
        }
        message::RELEASE | message::DECLINE => answer.status(status::SUCCESS),
        _ => {
            if commits {
                answer.put(option::RAPID_COMMIT, &[]);
            }
            for (code, data) in &request.associations {
                answer.association(offer, *code, data);
            }
        }
    }
    let dns: Vec<u8> = offer.dns.iter().flat_map(Ipv6Addr::octets).collect();
    if !dns.is_empty() {
        answer.put(option::DNS, &[&dns]);
    }
    let search = search_list(offer.search);
    if !search.is_empty() {
        answer.put(option::SEARCH, &[&search]);
    }
    Some(answer.0)
}

/// An answer that is being written.
struct Answer(Vec<u8>);

impl Answer {
    /// Adds an option, unless there is no room for it.
    fn put(&mut self, code: u16, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if let Ok(field) = u16::try_from(length)
            && self.0.len() + 4 + length <= MAX_LEN
        {
            self.0.extend(code.to_be_bytes());
            self.0.extend(field.to_be_bytes());
            for part in parts {
                self.0.extend_from_slice(part);
            }
        }
    }

    fn status(&mut self, code: u16) {
        self.put(option::STATUS, &[&code.to_be_bytes()]);
    }

    /// What a client gets for an identity association.
    fn association(&mut self, offer: &Offer<'_>, code: u16, data: &[u8]) {
        let Some(id) = data.first_chunk::<4>() else {
            return;
        };
        let refusal = |code: u16| {
            let [a, b] = code.to_be_bytes();
            let [c, d] = option::STATUS.to_be_bytes();
            [c, d, 0, 2, a, b]
        };
        // When to renew is left to the client; with an infinite lifetime never.
        let times = [0; 8];
        match code {
            option::IA_NA => {
                let forever = FOREVER.to_be_bytes();
                let [a, b] = option::ADDRESS.to_be_bytes();
                let address = offer.container.octets();
                let parts: [&[u8]; 6] = [id, &times, &[a, b, 0, 24], &address, &forever, &forever];
                self.put(code, &parts);
            }
            option::IA_TA => self.put(code, &[id, &refusal(status::NO_ADDRESSES)]),
            _ => self.put(code, &[id, &times, &refusal(status::NO_PREFIX)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tests::cases;

    const CONTAINER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0x64);
    const DNS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
    const DUID: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
    const CLIENT: &[u8] = &[0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    /// Codes and content of options.
    type Seen = Vec<(u16, Vec<u8>)>;

    fn offer(search: &[String]) -> Offer<'_> {
        Offer {
            container: CONTAINER,
            mac: [2, 0, 0, 0, 0, 1],
            dns: &[DNS],
            search,
        }
    }

    fn options(all: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, data) in all {
            bytes.extend(code.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    fn message(kind: u8, all: &[(u16, &[u8])]) -> Vec<u8> {
        [&[kind, 7, 8, 9][..], &options(all)].concat()
    }

    /// Message type and options of the answer.
    fn ask(kind: u8, all: &[(u16, &[u8])]) -> Option<(u8, Seen)> {
        let search = ["corp.example".to_owned()];
        let answer = answer(&offer(&search), &message(kind, all))?;
        assert_eq!(answer[1..4], [7, 8, 9]);
        let options: Vec<_> = Options(&answer[4..])
            .map(|option| option.map(|(code, data)| (code, data.to_vec())).unwrap())
            .collect();
        assert_eq!(options[0], (2, DUID.to_vec()));
        Some((answer[0], options))
    }

    fn get(all: &[(u16, Vec<u8>)], code: u16) -> Option<&[u8]> {
        let found = all.iter().find(|(kind, _)| *kind == code);
        found.map(|(_, data)| &data[..])
    }

    fn with_address(id: u8, address: Ipv6Addr) -> Vec<u8> {
        let inner = [&address.octets()[..], &[255; 8]].concat();
        [&[id; 4][..], &[0; 8], &options(&[(5, &inner)])].concat()
    }

    /// `dhclient -6 -S`, systemd-networkd, and one that does not say who it is.
    #[test]
    fn information() {
        for all in [
            &[(1, CLIENT), (6, &[0, 23, 0, 24][..]), (8, &[0, 0])][..],
            &[(6, &[0, 23, 0, 24, 0, 31]), (1, CLIENT), (2, DUID)],
            &[(8, &[0, 0])],
        ] {
            let (kind, seen) = ask(11, all).unwrap();
            assert_eq!(kind, 7);
            let client = all.iter().any(|(code, _)| *code == 1);
            assert_eq!(get(&seen, 1), client.then_some(CLIENT));
            assert_eq!(get(&seen, 23), Some(&DNS.octets()[..]));
            assert_eq!(get(&seen, 24), Some(&b"\x04corp\x07example\0"[..]));
        }
        // For another server; with an association, which it must not have.
        assert_eq!(ask(11, &[(2, CLIENT)]), None);
        assert_eq!(ask(11, &[(3, &[0; 12])]), None);
    }

    #[test]
    fn an_address() {
        let client: (u16, &[u8]) = (1, CLIENT);
        let server: (u16, &[u8]) = (2, DUID);
        let wanted: (u16, &[u8]) = (3, &[7; 12]);
        let given = with_address(7, CONTAINER);
        for (kind, all, reply) in [
            (1, &[client, wanted][..], 2),
            (1, &[client, wanted, (14, &[])], 7),
            (3, &[client, server, wanted], 7),
            (5, &[client, server, (3, &given)], 7),
            (6, &[client, (3, &given)], 7),
        ] {
            let (found, seen) = ask(kind, all).unwrap();
            assert_eq!(found, reply);
            assert_eq!(get(&seen, 1), Some(CLIENT));
            assert_eq!(get(&seen, 3), Some(&given[..]));
            assert_eq!(get(&seen, 14).is_some(), kind == 1 && reply == 7);
            assert_eq!(get(&seen, 23), Some(&DNS.octets()[..]));
        }
    }

    #[test]
    fn what_there_is_not() {
        let (_, seen) = ask(1, &[(1, CLIENT), (4, &[7; 4]), (25, &[8; 12])]).unwrap();
        assert_eq!(get(&seen, 4), Some(&[7, 7, 7, 7, 0, 13, 0, 2, 0, 2][..]));
        let delegation = [&[8; 4][..], &[0; 8], &[0, 13, 0, 2, 0, 6]].concat();
        assert_eq!(get(&seen, 25), Some(&delegation[..]));
        // Too short to have an id.
        let (_, seen) = ask(1, &[(1, CLIENT), (3, &[7; 3])]).unwrap();
        assert_eq!(get(&seen, 3), None);
    }

    #[test]
    fn confirmation_and_return() {
        let status = |kind, server: bool, address| {
            let association = with_address(7, address);
            let mut all = vec![(1, CLIENT), (3, &association[..])];
            if server {
                all.push((2, DUID));
            }
            ask(kind, &all).map(|(_, seen)| get(&seen, 13).unwrap().to_vec())
        };
        assert_eq!(status(4, false, CONTAINER), Some(vec![0, 0]));
        assert_eq!(status(4, false, OTHER), Some(vec![0, 4]));
        let neighbor = Ipv6Addr::from(u128::from(CONTAINER) ^ 0xff);
        assert_eq!(status(4, false, neighbor), Some(vec![0, 0]));
        // Nothing to confirm.
        assert_eq!(ask(4, &[(1, CLIENT), (3, &[7; 12])]), None);
        assert_eq!(status(8, true, CONTAINER), Some(vec![0, 0]));
        assert_eq!(status(9, true, CONTAINER), Some(vec![0, 0]));
    }

    #[test]
    fn what_is_not_answered() {
        let all: [(u16, &[u8]); 2] = [(1, CLIENT), (3, &[7; 12])];
        for kind in [0, 2, 7, 10, 12, 13, 14, 255] {
            assert_eq!(ask(kind, &all), None);
        }
        // A server is missing, or one that must not be named.
        for kind in [3, 5, 8, 9] {
            assert_eq!(ask(kind, &all), None);
            assert_eq!(ask(kind, &[all[0], all[1], (2, CLIENT)]), None);
        }
        for kind in [1, 4, 6] {
            assert_eq!(ask(kind, &[all[0], all[1], (2, DUID)]), None);
        }
        for kind in [1, 3, 4, 5, 6, 8, 9] {
            assert_eq!(ask(kind, &[(2, DUID)]), None);
            assert_eq!(ask(kind, &[]), None);
        }
        // An option that leads out of the packet, at every place.
        let bytes = message(11, &[(1, CLIENT), (8, &[0, 0])]);
        for len in 0..bytes.len() {
            let ends = [4, 4 + 4 + CLIENT.len()].contains(&len);
            assert_eq!(answer(&offer(&[]), &bytes[..len]).is_some(), ends);
        }
    }

    #[test]
    fn answers_are_not_long() {
        let association: (u16, &[u8]) = (3, &[7; 12]);
        let mut all = vec![(1, CLIENT)];
        all.extend([association; 1000]);
        let search = vec!["corp.example".to_owned(); 1000];
        let answer = answer(&offer(&search), &message(1, &all)).unwrap();
        assert!((1000..=MAX_LEN).contains(&answer.len()));
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
            answer(&offer(&[]), &bytes);
        }

        #[test]
        fn any_options(
            kind in 1_u8..12,
            named in any::<bool>(),
            all in vec((prop_oneof![0_u16..30, any::<u16>()], vec(any::<u8>(), 0..60)), 0..10),
        ) {
            let mut all: Vec<(u16, &[u8])> = all.iter().map(|(code, data)| (*code, &data[..])).collect();
            if named {
                all.insert(0, (2, DUID));
            }
            all.insert(0, (1, CLIENT));
            if let Some(answer) = answer(&offer(&[]), &message(kind, &all)) {
                prop_assert!(answer.len() <= MAX_LEN);
                prop_assert!(Options(&answer[4..]).all(|option| option.is_some()));
            }
        }
    }
}
