//! All cases on every kind of link: whatever a container has sent, a TCP, a UDP and a
//! DNS exchange work within a second.

use std::collections::HashMap;

use hostile::{Case, Step};
use smoltcp::time::Duration;

use super::super::frames::{self, ACK, SYN, Seen, Segment};
use super::super::host::Outcome;
use super::super::world::{World, links};
use crate::LinkConfig;

/// What a case has done to the world.
struct Played {
    world: World,
    /// Connections that were opened, and the stack's sequence number of each.
    opened: HashMap<u16, u32>,
}

impl Played {
    fn step(&mut self, link: LinkConfig, step: Step) {
        let w = &mut self.world;
        match step {
            Step::Frame(frame) => w.send_raw(&behind(link, [0; 10], &frame)),
            Step::Virtio(header, frame) if link.vnet_header => {
                w.send_raw(&behind(link, header, &frame));
            }
            Step::Virtio(..) => {}
            Step::Open(syn) => {
                // The host answers after a millisecond.
                w.send_raw(&behind(link, [0; 10], &syn.frame()));
                w.run(Duration::from_millis(2));
                let answer = w.take().into_iter().find_map(|seen| match seen {
                    Seen::Tcp(tcp) if tcp.to.port() == syn.port && tcp.flags & SYN != 0 => {
                        Some(tcp)
                    }
                    _ => None,
                });
                let isn = answer.unwrap().seq;
                self.opened.insert(syn.port, isn);
                let mut ack = Segment::new(
                    syn.port,
                    syn.to,
                    ACK,
                    syn.seq.wrapping_add(1),
                    isn.wrapping_add(1),
                );
                ack.window = syn.window;
                w.send_raw(&behind(link, [0; 10], &ack.frame()));
            }
            Step::On(mut segment) => {
                let isn = self.opened[&segment.port];
                segment.ack = segment.ack.wrapping_add(isn).wrapping_add(1);
                w.send_raw(&behind(link, [0; 10], &segment.frame()));
            }
            Step::Pause(millis) => w.run(Duration::from_millis(millis.into())),
        }
        self.world.take();
        self.world.take6();
        // They are not looked at here, and some are long.
        self.world.host.datagrams.clear();
    }
}

fn behind(link: LinkConfig, header: [u8; 10], frame: &[u8]) -> Vec<u8> {
    let header: &[u8] = if link.vnet_header { &header } else { &[] };
    [header, frame].concat()
}

fn play(case: Case, link: LinkConfig) -> Played {
    let mut played = Played {
        world: World::new(link),
        opened: HashMap::new(),
    };
    let nobody = (80..1080).map(|port| std::net::SocketAddr::from((frames::NOBODY, port)));
    let outcomes = nobody.map(|at| (at, Outcome::Never));
    played.world.host.outcomes.extend(outcomes);
    for step in case.steps {
        played.step(link, step);
    }
    played
}

/// Plays a case on every link.
fn survives(number: u8) {
    for link in links() {
        let case = hostile::case(number).unwrap();
        let Played { mut world, .. } = play(case, link);
        // At once, but for what a flood of SYNs has left behind.
        let budget = world.stack.config.limits.max_half_open;
        if world.stack.half_open == budget {
            world.run(Duration::from_millis(500));
        }
        world.take();
        world.assert_works();
        // Nothing is left of it in the end.
        world.run(Duration::from_secs(200));
        world.take();
        world.take6();
        world.assert_works();
    }
}

macro_rules! cases {
    ($($name:ident: $number:literal;)+) => {
        $(
            #[test]
            fn $name() {
                survives($number);
            }
        )+

        /// None is left out.
        #[test]
        fn all_cases_are_played() {
            let here = [$($number),+];
            let all = hostile::ALL.map(|(number, _)| number);
            assert_eq!(here, all);
            // Those of the host's side are elsewhere.
            assert!((1..=34).all(|number| all.contains(&number) || [17, 18].contains(&number)));
            for (number, make) in hostile::ALL {
                let case = make();
                assert_eq!(case.number, number);
                assert!(!case.steps.is_empty() && !case.name.is_empty());
            }
        }
    };
}

cases! {
    n01_urgent_pointers: 1;
    n02_short_dhcp_messages: 2;
    n03_udp_lengths: 3;
    n04_tftp: 4;
    n05_short_frames_of_every_type: 5;
    n06_ipv6_payload_lengths: 6;
    n07_overlapping_fragments: 7;
    n08_huge_fragments: 8;
    n09_ports_with_application_emulation: 9;
    n10_sources_and_destinations: 10;
    n11_empty_datagrams: 11;
    n12_half_closed_and_silent: 12;
    n13_the_forwarders_other_ports_and_odd_questions: 13;
    n14_port_zero: 14;
    n15_dhcp_options: 15;
    n16_tcp_options: 16;
    n19_initial_sequence_numbers: 19;
    n20_an_incomplete_datagram: 20;
    n21_arp_claims: 21;
    n22_neighbour_discovery: 22;
    n23_extension_headers: 23;
    n24_tags_and_lengths: 24;
    n25_forged_icmp_errors: 25;
    n26_syn_flood: 26;
    n27_blind_segments: 27;
    n28_shut_windows: 28;
    n29_frames_longer_than_the_link: 29;
    n30_udp_to_and_from_many_ports: 30;
    n31_broadcast_and_multicast: 31;
    n32_odd_ip_headers: 32;
    n33_wrong_checksums_and_virtio_headers: 33;
    n34_ends_in_every_state: 34;
}

/// N12 in full: 5,000 flows are gone within two minutes.
#[test]
fn n12_five_thousand_half_closed_flows() {
    let link = links()[0];
    let case = Case {
        number: 12,
        name: "half-closed flows",
        steps: hostile::half_closed(5000),
    };
    let Played { mut world, .. } = play(case, link);
    assert_eq!(world.stack.flow_count(), 5000);
    world.assert_empties(Duration::from_secs(120));
    world.assert_works();
}

/// N26 in full: a million SYNs from 19,000 ports. The budget holds throughout, the host
/// is asked no more than that, and what is refused is told so.
#[test]
fn n26_a_million_syns() {
    let mut w = World::plain();
    let nobody = (80..1080).map(|port| std::net::SocketAddr::from((frames::NOBODY, port)));
    let outcomes = nobody.map(|at| (at, Outcome::Never));
    w.host.outcomes.extend(outcomes);
    let budget = w.stack.config.limits.max_half_open;
    let mut resets = 0;
    for (n, syn) in (1..).zip(hostile::syn_flood(1_000_000)) {
        w.send(&syn);
        assert!(w.stack.half_open <= budget);
        resets += w.take().len();
        // 200,000 a second.
        if n % 2000 == 0 {
            w.run(Duration::from_millis(10));
        }
    }
    // In five seconds those that were half-open for half a second were replaced.
    assert!(
        w.host.connects.len() <= budget * 11,
        "{}",
        w.host.connects.len()
    );
    assert!(resets >= 1_000_000 - w.host.connects.len());
    assert!(w.stack.stats().over_half_open >= 900_000);
    w.run(Duration::from_millis(500));
    w.take();
    w.assert_works();
}

/// N34: both ends begin at once. We never send a SYN of our own to a port that we have
/// not been led to, so the container's answer is to nothing.
#[test]
fn n34_an_answer_to_no_question() {
    let mut w = World::plain();
    let to = super::super::guest::remote(1, 80);
    w.send(&Segment::new(1234, to, SYN | ACK, 5, 77).frame());
    let answer = w.take_tcp();
    assert_eq!((answer[0].flags, answer[0].seq), (frames::RST, 77));
    super::no_service(&mut w);
}
