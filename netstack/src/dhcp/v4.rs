//! DHCPv4 server (RFC 2131, RFC 2132) of the container's one address.
//!
//! # Theory of operation
//!
//! A request for the address is acknowledged, one for another is refused at once,
//! so that a client which remembers an older network asks anew. With rapid commit
//! (RFC 4039) a discover is acknowledged, too. What a client gives up or complains
//! about changes nothing. Relays and plain BOOTP have no place on this link.

use std::net::Ipv4Addr;
use std::ops::Range;

use smoltcp::wire::{ArpHardware as Hardware, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket};

use super::search_list;

/// Where clients send to, and where they are answered.
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;

/// Bytes up to the options.
const FIXED_LEN: usize = 240;
/// Where the flags and the client's hardware address are.
const FLAGS: usize = 10;
const CHADDR: Range<usize> = 28..44;
const MAGIC: u32 = 0x6382_5363;
/// Least length of a message: some clients want that of BOOTP (RFC 951).
const MIN_LEN: usize = 300;
/// Longest message that every client takes (RFC 2131, 2): an IP packet of 576 bytes.
const MAX_LEN: usize = 576 - 28;
/// "Infinity" (RFC 2131, 3.3): the address will never be anybody else's.
const LEASE_TIME: u32 = u32::MAX;
const BROADCAST_FLAG: u8 = 0x80;

/// Codes of options (RFC 2132, RFC 3397, RFC 4039).
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const RAPID_COMMIT: u8 = 80;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const END: u8 = 255;
}

/// What a client is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// The container's address.
    pub(crate) container: Ipv4Addr,
    /// The router, and the server.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) dns: &'a [Ipv4Addr],
    pub(crate) mtu: u16,
    pub(crate) search: &'a [String],
}

/// An answer, for [`CLIENT_PORT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The container's address, or the broadcast address.
    pub(crate) to: Ipv4Addr,
    pub(crate) message: Vec<u8>,
}

/// What we look at in a request.
#[derive(Debug)]
struct Request<'a> {
    message: DhcpMessageType,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<&'a [u8]>,
    rapid_commit: bool,
}

impl<'a> Request<'a> {
    fn parse(view: &'a DhcpPacket<&[u8]>) -> Option<Self> {
        if view.opcode() != DhcpOpCode::Request
            || view.hardware_type() != Hardware::Ethernet
            || view.hardware_len() != 6
            || view.magic_number() != MAGIC
            || !view.relay_agent_ip().is_unspecified()
        {
            return None;
        }
        let (mut message, mut requested, mut server) = (None, None, None);
        let (mut client, mut rapid_commit) = (None, false);
        for DhcpOption { kind, data } in view.options() {
            let address = || <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
            match kind {
                option::MESSAGE_TYPE => message = message.or(data.first().copied()),
                option::REQUESTED => requested = requested.or_else(address),
                option::SERVER => server = server.or_else(address),
                option::CLIENT => client = client.or(Some(data)),
                option::RAPID_COMMIT => rapid_commit = true,
                _ => {}
            }
        }
        Some(Self {
            message: message?.into(),
            requested,
            server,
            client,
            rapid_commit,
        })
    }
}

/// Answers a message; `None` when there is nothing to say to it.
pub(crate) fn answer(offer: &Offer<'_>, bytes: &[u8]) -> Option<Reply> {
    let view = DhcpPacket::new_checked(bytes).ok()?;
    let request = Request::parse(&view)?;
    let ciaddr = view.client_ip();
    let kind = match request.message {
        DhcpMessageType::Discover if request.rapid_commit => DhcpMessageType::Ack,
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            if request.server.is_some_and(|server| server != offer.gateway) {
                return None;
            }
            // Selecting or rebooting, a client names the address in an option,
            // renewing it uses it (RFC 2131, 4.3.2).
            let wanted = match request.requested {
                Some(requested) => requested,
                None if ciaddr.is_unspecified() => return None,
                None => ciaddr,
            };
            if wanted == offer.container {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            }
        }
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let informs = request.message == DhcpMessageType::Inform;
    let refuses = kind == DhcpMessageType::Nak;
    let broadcast = bytes.get(FLAGS).is_some_and(|f| f & BROADCAST_FLAG != 0);
    // A client that has no address but ours cannot be reached by another.
    let unicast = !refuses
        && (ciaddr == offer.container || ciaddr.is_unspecified() && !broadcast && !informs);

    let mut message = vec![0; FIXED_LEN];
    let mut reply = DhcpPacket::new_unchecked(&mut message);
    reply.set_opcode(DhcpOpCode::Reply);
    reply.set_hardware_type(Hardware::Ethernet);
    reply.set_hardware_len(6);
    reply.set_transaction_id(view.transaction_id());
    reply.set_flags(view.flags());
    reply.set_magic_number(MAGIC);
    if kind == DhcpMessageType::Ack {
        reply.set_client_ip(ciaddr);
    }
    if !refuses && !informs {
        reply.set_your_ip(offer.container);
    }
    message.get_mut(CHADDR)?.copy_from_slice(bytes.get(CHADDR)?);

    let mut put = |code: u8, data: &[u8]| {
        if let Ok(length) = u8::try_from(data.len())
            && message.len() + 2 + data.len() < MAX_LEN
        {
            message.extend([code, length]);
            message.extend_from_slice(data);
        }
    };
    put(option::MESSAGE_TYPE, &[kind.into()]);
    put(option::SERVER, &offer.gateway.octets());
    if let Some(client) = request.client {
        // As it was sent, also in a refusal (RFC 6842).
        put(option::CLIENT, client);
    }
    if !refuses {
        if !informs {
            put(option::LEASE_TIME, &LEASE_TIME.to_be_bytes());
        }
        if request.rapid_commit && request.message == DhcpMessageType::Discover {
            put(option::RAPID_COMMIT, &[]);
        }
        let host_bits = 32 - u32::from(offer.prefix_len.min(32));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        put(option::SUBNET_MASK, &mask.to_be_bytes());
        put(option::ROUTER, &offer.gateway.octets());
        let dns: Vec<u8> = offer.dns.iter().flat_map(Ipv4Addr::octets).collect();
        if !dns.is_empty() {
            put(option::DNS, &dns);
        }
        put(option::MTU, &offer.mtu.to_be_bytes());
        // A longer one goes into several options (RFC 3396).
        for part in search_list(offer.search).chunks(255) {
            put(option::SEARCH, part);
        }
    }
    message.push(option::END);
    message.resize(message.len().max(MIN_LEN), 0);
    Some(Reply {
        to: if unicast {
            offer.container
        } else {
            Ipv4Addr::BROADCAST
        },
        message,
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tests::cases;

    const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);
    const CLIENT: &[u8] = &[1, 2, 3, 4, 5, 6, 7];

    const DISCOVER: u8 = 1;
    const REQUEST: u8 = 3;
    const INFORM: u8 = 8;

    fn offer(search: &[String]) -> Offer<'_> {
        Offer {
            container: CONTAINER,
            gateway: GATEWAY,
            prefix_len: 24,
            dns: &[DNS],
            mtu: 1500,
            search,
        }
    }

    /// A message as a client sends it.
    struct Message {
        flags: u8,
        ciaddr: Ipv4Addr,
        options: Vec<u8>,
    }

    impl Message {
        fn new(kind: u8) -> Self {
            Self {
                flags: 0,
                ciaddr: Ipv4Addr::UNSPECIFIED,
                options: vec![53, 1, kind],
            }
        }

        fn with(mut self, code: u8, data: &[u8]) -> Self {
            self.options.extend([code, data.len().try_into().unwrap()]);
            self.options.extend_from_slice(data);
            self
        }

        fn broadcast(self) -> Self {
            Self {
                flags: 0x80,
                ..self
            }
        }

        fn uses(self, ciaddr: Ipv4Addr) -> Self {
            Self { ciaddr, ..self }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 3, self.flags, 0];
            bytes.extend(self.ciaddr.octets());
            bytes.extend([0; 12]);
            bytes.extend([0x52, 0x55, 10, 0, 2, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend([0; 192]);
            bytes.extend([0x63, 0x82, 0x53, 0x63]);
            bytes.extend_from_slice(&self.options);
            bytes.push(255);
            bytes.resize(bytes.len().max(300), 0);
            bytes
        }

        fn answer(&self) -> Option<Seen> {
            answer(&offer(&[]), &self.bytes()).map(|reply| Seen::new(&reply))
        }
    }

    /// A reply, taken apart.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        to: Ipv4Addr,
        kind: u8,
        yiaddr: Ipv4Addr,
        options: Vec<(u8, Vec<u8>)>,
    }

    impl Seen {
        fn new(reply: &Reply) -> Self {
            let view = DhcpPacket::new_checked(&reply.message[..]).unwrap();
            assert!((300..=548).contains(&reply.message.len()));
            assert_eq!(view.opcode(), DhcpOpCode::Reply);
            assert_eq!(view.transaction_id(), 0xdead_beef);
            assert_eq!(reply.message[28..34], [0x52, 0x55, 10, 0, 2, 100]);
            let options: Vec<_> = view
                .options()
                .map(|option| (option.kind, option.data.to_vec()))
                .collect();
            Self {
                to: reply.to,
                kind: options[0].1[0],
                yiaddr: view.your_ip(),
                options,
            }
        }

        fn option(&self, code: u8) -> Option<&[u8]> {
            let mut found = self.options.iter().filter(|(kind, _)| *kind == code);
            let option = found.next();
            assert!(found.next().is_none());
            option.map(|(_, data)| &data[..])
        }

        fn assert_tells_all(&self) {
            assert_eq!(self.option(1), Some(&[255, 255, 255, 0][..]));
            assert_eq!(self.option(3), Some(&GATEWAY.octets()[..]));
            assert_eq!(self.option(6), Some(&DNS.octets()[..]));
            assert_eq!(self.option(26), Some(&1500_u16.to_be_bytes()[..]));
            assert_eq!(self.option(54), Some(&GATEWAY.octets()[..]));
        }
    }

    /// What udhcpc, dhclient, dhcpcd and systemd-networkd begin with.
    fn discovers() -> [Message; 4] {
        let discover = || Message::new(DISCOVER);
        let mac = [1, 0x52, 0x55, 10, 0, 2, 100];
        [
            discover()
                .with(61, &mac)
                .with(57, &576_u16.to_be_bytes())
                .with(55, &[1, 3, 6, 12, 15, 28, 42])
                .with(60, b"udhcp 1.37.0"),
            discover()
                .with(50, &OTHER.octets())
                .with(12, b"container")
                .with(55, &[1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42]),
            discover()
                .with(61, &[&[255, 1, 2, 3, 4][..], &[0; 14]].concat())
                .with(57, &1472_u16.to_be_bytes())
                .with(60, b"dhcpcd-10.1.0:Linux")
                .with(145, &[1])
                .with(
                    55,
                    &[1, 121, 33, 3, 6, 12, 15, 26, 28, 42, 51, 54, 58, 59, 119],
                ),
            discover()
                .with(61, &[&[255, 9, 9, 9, 9, 0, 2][..], &[7; 12]].concat())
                .with(55, &[1, 3, 6, 12, 15, 26, 33, 42, 119, 120, 121])
                .with(57, &1472_u16.to_be_bytes())
                .with(12, b"container"),
        ]
    }

    #[test]
    fn discover_and_offer() {
        for message in discovers() {
            let seen = message.answer().unwrap();
            assert_eq!((seen.kind, seen.yiaddr, seen.to), (2, CONTAINER, CONTAINER));
            assert_eq!(seen.option(51), Some(&[255; 4][..]));
            assert_eq!(seen.option(80), None);
            seen.assert_tells_all();
            let seen = message.broadcast().answer().unwrap();
            assert_eq!(seen.to, Ipv4Addr::BROADCAST);
        }
    }

    #[test]
    fn the_client_is_named_as_it_names_itself() {
        for kind in [DISCOVER, REQUEST, INFORM] {
            let message = Message::new(kind).with(50, &OTHER.octets());
            assert_eq!(message.answer().unwrap().option(61), None);
            let seen = message.with(61, CLIENT).answer().unwrap();
            assert_eq!(seen.option(61), Some(CLIENT));
        }
    }

    #[test]
    fn rapid_commit() {
        let seen = Message::new(DISCOVER).with(80, &[]).answer().unwrap();
        assert_eq!((seen.kind, seen.yiaddr), (5, CONTAINER));
        assert_eq!(seen.option(80), Some(&[][..]));
        seen.assert_tells_all();
    }

    #[test]
    fn requests() {
        let request = || Message::new(REQUEST);
        let selecting = |server: Ipv4Addr, wanted: Ipv4Addr| {
            let message = request().with(54, &server.octets());
            message.with(50, &wanted.octets()).answer()
        };
        let kind = |seen: Option<Seen>| seen.map(|seen| (seen.kind, seen.yiaddr, seen.to));
        let ack = Some((5, CONTAINER, CONTAINER));
        let nak = Some((6, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
        assert_eq!(kind(selecting(GATEWAY, CONTAINER)), ack);
        assert_eq!(kind(selecting(GATEWAY, OTHER)), nak);
        // Another server was chosen.
        assert_eq!(kind(selecting(OTHER, CONTAINER)), None);
        let rebooting = |wanted: Ipv4Addr| request().with(50, &wanted.octets());
        assert_eq!(kind(rebooting(CONTAINER).answer()), ack);
        assert_eq!(kind(rebooting(OTHER).answer()), nak);
        assert_eq!(kind(request().uses(CONTAINER).answer()), ack);
        assert_eq!(kind(request().uses(CONTAINER).broadcast().answer()), ack);
        assert_eq!(kind(request().uses(OTHER).answer()), nak);
        assert_eq!(kind(request().answer()), None);
        let seen = rebooting(OTHER).answer().unwrap();
        assert_eq!(seen.option(51), None);
        assert_eq!(seen.option(54), Some(&GATEWAY.octets()[..]));
        rebooting(CONTAINER).answer().unwrap().assert_tells_all();
    }

    #[test]
    fn inform() {
        let seen = Message::new(INFORM).uses(CONTAINER).answer().unwrap();
        assert_eq!(
            (seen.kind, seen.yiaddr, seen.to),
            (5, Ipv4Addr::UNSPECIFIED, CONTAINER)
        );
        assert_eq!(seen.option(51), None);
        seen.assert_tells_all();
        let seen = Message::new(INFORM).uses(OTHER).answer().unwrap();
        assert_eq!(seen.to, Ipv4Addr::BROADCAST);
    }

    #[test]
    fn what_is_not_answered() {
        // Offer, decline, ack, nak, release, unknown.
        for kind in [0, 2, 4, 5, 6, 7, 9, 255] {
            assert_eq!(Message::new(kind).uses(CONTAINER).answer(), None);
        }
        let bytes = Message::new(DISCOVER).bytes();
        assert!(answer(&offer(&[]), &bytes).is_some());
        // A reply, token ring, a longer address, a relay, another magic number.
        for (at, value) in [(0, 2), (1, 6), (2, 16), (24, 10), (239, 0x62)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            assert_eq!(answer(&offer(&[]), &bytes), None);
        }
        // N2: every prefix. The message type is the first option.
        for len in 0..bytes.len() {
            assert_eq!(answer(&offer(&[]), &bytes[..len]).is_some(), len >= 243);
        }
        let mut no_type = Message::new(DISCOVER);
        no_type.options.clear();
        assert_eq!(no_type.answer(), None);
    }

    /// N15: each code, with lengths that are wrong for it or lead out of the packet.
    #[test]
    fn odd_options() {
        for code in 0..=255 {
            for tail in [&[][..], &[0], &[1], &[1, 0], &[255], &[9, 1, 2]] {
                let mut message = Message::new(DISCOVER);
                message.options.extend([0, 0, code]);
                message.options.extend_from_slice(tail);
                let mut bytes = message.bytes();
                bytes.truncate(240 + message.options.len());
                assert!(answer(&offer(&[]), &bytes).is_some());
                // In front of the message type it may hide it.
                message.options.rotate_left(3);
                answer(&offer(&[]), &message.bytes());
            }
        }
        // Pad does not stop the scan, the end does.
        let mut message = Message::new(DISCOVER);
        message.options = vec![0, 0, 53, 1, 1];
        assert!(message.answer().is_some());
        message.options = vec![255, 1, 53, 1, 1];
        assert_eq!(message.answer(), None);
    }

    #[test]
    fn search_domains() {
        let search = |count: usize| vec!["corp.example".to_owned(); count];
        let domains = |count| {
            let search = search(count);
            let reply = answer(&offer(&search), &Message::new(DISCOVER).bytes()).unwrap();
            Seen::new(&reply)
        };
        assert_eq!(domains(1).option(119), Some(&b"\x04corp\x07example\0"[..]));
        // What has no room is left out; the rest is there.
        domains(1000).assert_tells_all();
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn any_bytes(mut bytes in vec(any::<u8>(), 0..600), valid in any::<bool>()) {
            if valid && bytes.len() > 240 {
                bytes[..3].copy_from_slice(&[1, 1, 6]);
                bytes[24..28].fill(0);
                bytes[236..240].copy_from_slice(&MAGIC.to_be_bytes());
            }
            if let Some(reply) = answer(&offer(&[]), &bytes) {
                prop_assert!(reply.message.len() <= MAX_LEN);
            }
        }

        #[test]
        fn any_options(options in vec(any::<u8>(), 0..300), kind in 1_u8..9) {
            let mut message = Message::new(kind);
            message.options.extend(options);
            if let Some(reply) = answer(&offer(&[]), &message.bytes()) {
                prop_assert!(reply.message.len() <= MAX_LEN);
            }
        }
    }
}
