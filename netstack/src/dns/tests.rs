//! Properties: whatever the servers do, and whatever bytes come.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};

use super::exchange::{Accepted, Exchange, LIFETIME, Sides};
use super::message::{Answer, Match, Query, rcode};
use super::names::Names;
use crate::icmp::{Problem, Unreachable};
use crate::tests::cases;
use crate::tests::dns::{answer, query};

/// What a server makes of each query that it gets, in turn.
#[derive(Debug, Clone, Copy)]
enum Conduct {
    /// The right answer, after so many milliseconds.
    Answers(u16),
    /// A failure.
    Fails(u16),
    /// An answer to something else, then the right one.
    Confused(u16),
    /// An ICMP error.
    Refuses(u16),
    /// Nothing is heard of it again.
    Silent,
    /// It cannot be sent to.
    NoRoute,
}

impl Conduct {
    fn is_good(self) -> bool {
        matches!(self, Self::Answers(_) | Self::Confused(_))
    }

    fn fails(self) -> bool {
        !self.is_good() && !matches!(self, Self::Silent)
    }
}

fn conduct() -> impl Strategy<Value = Conduct> {
    // The first answer wins, and within the time of three servers all have been asked.
    let late = 0..2500_u16;
    prop_oneof![
        3 => late.clone().prop_map(Conduct::Answers),
        2 => late.clone().prop_map(Conduct::Fails),
        1 => late.clone().prop_map(Conduct::Confused),
        2 => late.prop_map(Conduct::Refuses),
        2 => Just(Conduct::Silent),
        1 => Just(Conduct::NoRoute),
    ]
}

/// What arrives from a server.
#[derive(Debug)]
enum Arrival {
    Answer(Vec<u8>),
    Refusal,
}

/// What the client has been told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Answer(Vec<u8>),
    Unreachable,
}

/// Servers and a client under virtual time.
#[derive(Debug)]
struct Net {
    now: Instant,
    /// By server, the same for each of its queries.
    conducts: Vec<Conduct>,
    under_way: BTreeMap<(Instant, usize), (usize, Arrival)>,
    arrivals: usize,
    sent: Vec<usize>,
    told: Vec<Told>,
}

fn servers(count: usize) -> Arc<[SocketAddr]> {
    let port = |n| u16::try_from(n).unwrap();
    (0..count)
        .map(|n| SocketAddr::from(([192, 0, 2, 53], port(n))))
        .collect()
}

fn good(query: &[u8]) -> Vec<u8> {
    answer(query, 0, b"good")
}

impl Net {
    fn new(conducts: &[Conduct]) -> Self {
        Self {
            now: Instant::ZERO,
            conducts: conducts.to_vec(),
            under_way: BTreeMap::new(),
            arrivals: 0,
            sent: Vec::new(),
            told: Vec::new(),
        }
    }

    fn arrives(&mut self, server: usize, after: u16, arrival: Arrival) {
        let at = self.now + Duration::from_millis(after.into());
        self.arrivals += 1;
        self.under_way
            .insert((at, self.arrivals), (server, arrival));
    }

    /// Runs until all is quiet.
    fn run(&mut self, exchange: &mut Exchange) {
        let servers = servers(self.conducts.len());
        loop {
            let arrival = self.under_way.keys().next().map(|(at, _)| *at);
            let deadline = exchange.deadline();
            match (arrival, deadline) {
                (Some(at), deadline) if deadline.is_none_or(|due| at <= due) => {
                    self.now = self.now.max(at);
                    let Some((_, (server, arrival))) = self.under_way.pop_first() else {
                        return;
                    };
                    let (now, from) = (self.now, servers[server]);
                    match arrival {
                        Arrival::Answer(bytes) => {
                            if let Some(answer) = Answer::parse(&bytes) {
                                exchange.answer(now, from, &answer, self);
                            }
                        }
                        Arrival::Refusal => {
                            let problem = Problem::Unreachable(Unreachable::Port);
                            exchange.failed(now, from, Some(problem), self);
                        }
                    }
                }
                (_, Some(due)) => {
                    self.now = self.now.max(due);
                    exchange.due(self.now, self);
                    assert!(exchange.deadline().is_none_or(|next| next > self.now));
                }
                (_, None) => return,
            }
        }
    }
}

impl Sides for Net {
    fn send(&mut self, server: SocketAddr, query: &[u8]) -> Result<(), Option<Problem>> {
        let server = usize::from(server.port());
        self.sent.push(server);
        let query = query.to_vec();
        match self.conducts[server] {
            Conduct::Answers(after) => self.arrives(server, after, Arrival::Answer(good(&query))),
            Conduct::Fails(after) => {
                let failure = answer(&query, rcode::SERVFAIL, b"");
                self.arrives(server, after, Arrival::Answer(failure));
            }
            Conduct::Confused(after) => {
                let mut wrong = good(&query);
                wrong[14] ^= 0x20;
                self.arrives(server, after, Arrival::Answer(wrong));
                self.arrives(server, after, Arrival::Answer(good(&query)));
            }
            Conduct::Refuses(after) => self.arrives(server, after, Arrival::Refusal),
            Conduct::Silent => {}
            Conduct::NoRoute => return Err(Some(Problem::Unreachable(Unreachable::Network))),
        }
        Ok(())
    }

    fn answer(&mut self, message: &[u8]) {
        self.told.push(Told::Answer(message.to_vec()));
    }

    fn unreachable(&mut self, _: Problem) {
        self.told.push(Told::Unreachable);
    }
}

fn begin(exchange: &mut Exchange, net: &mut Net, message: &[u8]) {
    let servers = servers(net.conducts.len());
    let query = Query::parse(message).unwrap();
    let accepted = exchange.query(net.now, &query, &servers, usize::MAX / 2, net);
    assert_eq!(accepted, Accepted::Yes);
}

proptest! {
    #![proptest_config(cases(2000))]

    /// A query gets the right answer if a server gives it in time, and a failure when
    /// every server has failed; one of them, once, and then nothing is left.
    #[test]
    fn every_query_has_its_end(conducts in vec(conduct(), 1..4)) {
        let mut net = Net::new(&conducts);
        let mut exchange = Exchange::default();
        let message = query(7, "a.example", 1);
        begin(&mut exchange, &mut net, &message);
        net.run(&mut exchange);
        prop_assert!(exchange.deadline().is_none());
        prop_assert_eq!(exchange.size(), 0);
        prop_assert!(net.now <= Instant::ZERO + LIFETIME + Duration::from_secs(3));
        // In order, and none twice.
        prop_assert!(net.sent.iter().copied().eq(0..net.sent.len()));
        prop_assert!(net.told.len() <= 1);
        let told = net.told.first();
        let right = Told::Answer(good(&message));
        if conducts.iter().all(|conduct| conduct.fails()) {
            prop_assert!(told.is_some() && told != Some(&right), "{:?}", told);
            let all_icmp = conducts.iter().all(|conduct| !matches!(conduct, Conduct::Fails(_)));
            prop_assert_eq!(told == Some(&Told::Unreachable), all_icmp);
        } else if conducts.iter().all(|conduct| !matches!(conduct, Conduct::Fails(_)))
            && conducts.iter().any(|conduct| conduct.is_good())
        {
            prop_assert_eq!(told, Some(&right));
        }
        // Whoever is fast wins, whatever the others do.
        if matches!(conducts[0], Conduct::Answers(0..1000) | Conduct::Confused(0..1000)) {
            prop_assert_eq!(told, Some(&right));
            prop_assert_eq!(&net.sent, &[0]);
        }
    }

    /// Queries of one port, some of them repeated, do not get in each other's way.
    #[test]
    fn each_query_gets_its_own_answer(
        conducts in vec(conduct(), 0..3),
        good_at in 0..3_usize,
        late in 0..900_u16,
        times in vec((0..64_u16, 0..400_u16), 1..100),
    ) {
        let mut conducts = conducts;
        conducts.retain(|conduct| !matches!(conduct, Conduct::Fails(_)));
        conducts.insert(good_at.min(conducts.len()), Conduct::Answers(late));
        let mut net = Net::new(&conducts);
        let mut exchange = Exchange::default();
        let mut asked = Vec::new();
        for (id, wait) in times {
            let message = query(id, &format!("n{id}.example"), 1);
            begin(&mut exchange, &mut net, &message);
            asked.push(message);
            // Some of them meet.
            if wait < 100 {
                net.run(&mut exchange);
            } else {
                net.now += Duration::from_millis(u64::from(wait) / 100);
            }
        }
        net.run(&mut exchange);
        prop_assert!(exchange.deadline().is_none());
        asked.sort();
        asked.dedup();
        for message in &asked {
            prop_assert!(net.told.contains(&Told::Answer(good(message))));
        }
        let own = |told: &Told| matches!(told, Told::Answer(bytes)
            if asked.iter().any(|message| *bytes == good(message)));
        prop_assert!(net.told.iter().all(own));
    }

    /// Any bytes are a query or not, an answer or not, and nothing breaks.
    #[test]
    fn any_bytes(
        start in prop_oneof![Just(Vec::new()), Just(query(7, "a.internal", 1))],
        rest in vec(any::<u8>(), 0..64),
        changes in vec((0..40_usize, any::<u8>()), 0..4),
        replies in vec(vec(any::<u8>(), 0..64), 0..8),
    ) {
        let mut message = [start, rest].concat();
        for (at, value) in changes {
            if let Some(byte) = message.get_mut(at) {
                *byte = value;
            }
        }
        let names = Names::new(&[("a.internal".into(), vec![[10, 0, 0, 1].into()])]);
        let mut net = Net::new(&[Conduct::Silent; 2]);
        let mut exchange = Exchange::default();
        if let Some(query) = Query::parse(&message) {
            prop_assert!(query.head().len() <= message.len());
            prop_assert!(message[2] & 0x80 == 0);
            let own = query.answer(false, rcode::SERVFAIL, []);
            let answer = Answer::parse(&own).unwrap();
            prop_assert!(answer.is_failure() && answer.matches(query.head()).is_some());
            if let Some(own) = names.answer(&query) {
                prop_assert!(own.len() <= message.len().max(512));
            }
            exchange.query(net.now, &query, &servers(2), usize::MAX / 2, &mut net);
        }
        for mut reply in replies {
            // As often as not with the id and the question of the query.
            if let Some(byte) = reply.first().copied()
                && byte & 1 == 0
            {
                let kept = message.len().min(usize::from(byte) / 4);
                reply.splice(..kept.min(reply.len()), message[..kept].iter().copied());
                if let Some(flags) = reply.get_mut(2) {
                    *flags |= 0x80;
                }
            }
            if let Some(answer) = Answer::parse(&reply) {
                exchange.answer(net.now, servers(2)[0], &answer, &mut net);
            }
        }
        net.run(&mut exchange);
        prop_assert!(exchange.deadline().is_none());
    }
}

/// A compressed name ends with its pointer, and one without end is no name.
#[test]
fn names_in_questions() {
    let with_name = |name: &[u8]| [&query(1, "a", 1)[..12], name, &[0, 1, 0, 1]].concat();
    let longest = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
    assert_eq!(longest.len(), 255);
    let too_long = [&[63; 64][..], &[63; 64], &[63; 64], &[62; 63], &[0]].concat();
    for (name, is_name) in [
        (&[0][..], true),
        (&[1, b'a', 0], true),
        (&[0xc0, 12], true),
        (&[1, b'a', 0xc0, 12], true),
        (&[0x40, 0], false),
        (&[0x80, 0], false),
        (&longest, true),
        (&too_long, false),
    ] {
        let message = with_name(name);
        let query = Query::parse(&message);
        assert_eq!(query.is_some(), is_name, "{name:?}");
        if let Some(query) = query {
            assert_eq!(query.head(), message);
            assert_eq!(query.question(), Some((name, 1, 1)));
        }
    }
}

/// Names have letters, and types have none: 65 is not 97.
#[test]
fn only_names_have_a_case() {
    let message = query(1, "a.example", 65);
    let head = Query::parse(&message).unwrap().head();
    for (name, kind, expected) in [
        ("a.example", 65, Some(Match::Whole)),
        ("A.eXample", 65, Some(Match::Whole)),
        ("b.example", 65, None),
        ("a.example", 97, None),
    ] {
        let bytes = good(&query(1, name, kind));
        let answer = Answer::parse(&bytes).unwrap();
        assert_eq!(answer.matches(head), expected, "{name} {kind}");
    }
}

/// What may be held is bounded in all, too: first no query is kept whole, then none
/// is taken.
#[test]
fn bytes_that_are_held_are_bounded() {
    let mut message = query(1, "a.example", 1);
    message.resize(4096, 0);
    let query = Query::parse(&message).unwrap();
    let whole = {
        let mut net = Net::new(&[Conduct::Silent; 2]);
        let mut exchange = Exchange::default();
        begin(&mut exchange, &mut net, &message);
        exchange.size()
    };
    for (room, sent, accepted) in [
        (whole, vec![0, 1], Accepted::Yes),
        (whole - 1, vec![0], Accepted::Yes),
        (100, vec![], Accepted::OverLimit),
    ] {
        let mut net = Net::new(&[Conduct::Silent; 2]);
        let mut exchange = Exchange::default();
        let got = exchange.query(net.now, &query, &servers(2), room, &mut net);
        assert_eq!(got, accepted);
        assert!(exchange.size() <= room);
        net.run(&mut exchange);
        assert_eq!(net.sent, sent);
    }
}
