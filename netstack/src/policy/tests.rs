//! The decision itself, without a stack.

use std::iter;

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
