use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Result<Network, Error> {
    parse(&[text.to_owned()], None, None)
}

#[test]
fn modes() {
    assert_eq!(
        parse(&[], None, None).unwrap(),
        Network::Builtin(BuiltinNetwork::default())
    );
    assert_eq!(net("builtin").unwrap(), net("builtin:").unwrap());
    assert_eq!(net("none").unwrap(), Network::None);
    assert_eq!(net("host").unwrap(), Network::Host);
    for bad in [
        "",
        "bridge",
        "slirp4netns",
        "Builtin",
        "host:",
        "none:mtu=1500",
        " none",
    ] {
        assert!(net(bad).is_err(), "{bad}");
    }
    assert!(parse(&["none".into(), "none".into()], None, None).is_err());
    assert!(parse(&["none".into()], Some("1500"), None).is_err());
    assert!(parse(&["host".into()], Some("1500"), None).is_err());
    assert!(parse(&["builtin:mtu=1500".into()], Some("1500"), None).is_err());
}

#[test]
fn ipv6_outbound_and_mac() {
    let builtin = |text: &str| match net(text) {
        Ok(Network::Builtin(network)) => network,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(builtin("builtin:enable_ipv6=false").ipv6, Ipv6Mode::Off);
    assert_eq!(builtin("builtin:enable_ipv6=1").ipv6, Ipv6Mode::On);
    let network = builtin("builtin:cidr6=fd12:3456::/64");
    assert_eq!(network.ipv6, Ipv6Mode::On);
    assert_eq!(
        network.container6(),
        Some("fd12:3456::100".parse().unwrap())
    );
    assert_eq!(
        builtin("builtin:outbound_addr=198.51.100.1,outbound_addr6=eth0").outbound6,
        Some(Outbound::Interface("eth0".to_owned()))
    );
    for bad in [
        "cidr6=fd00::/63",
        "cidr6=fd00::",
        "cidr6=fd00::1/64",
        "cidr6=fe80::/64",
        "cidr6=ff05::/64",
        "cidr6=::/64",
        "cidr6=10.0.2.0/24",
        "enable_ipv6=false,cidr6=fd00::/64",
        "outbound_addr=",
        "outbound_addr=fd00::1",
        "outbound_addr=0.0.0.0",
        "outbound_addr=127.0.0.1",
        "outbound_addr=224.0.0.1",
        "outbound_addr=255.255.255.255",
        "outbound_addr6=::1",
        "outbound_addr6=ff02::1",
        "outbound_addr=a/b",
        "outbound_addr=a-name-that-is-too-long",
        "outbound_addr6=1.2.3.4",
    ] {
        let text = format!("builtin:{bad}");
        assert!(matches!(net(&text), Err(Error::Usage(_))), "{bad}");
    }
    assert_eq!(
        parse_mac("52:55:0a:00:02:FF"),
        Ok([0x52, 0x55, 10, 0, 2, 255])
    );
    for bad in [
        "",
        "52:55:0a:00:02",
        "52:55:0a:00:02:64:00",
        "53:55:0a:00:02:64",
        "0:0:0:0:0:0",
        "00:00:00:00:00:00",
        "52:55:0a:00:02:+4",
        "52:55:0a:00:02:02",
    ] {
        assert!(parse_mac(bad).is_err(), "{bad}");
    }
    let none = net("none");
    assert!(none.is_ok() && parse(&["none".into()], None, Some("52:55:0a:00:02:64")).is_err());
}

#[test]
fn resolver_options() {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(dns_search(&[], &Network::Host).unwrap(), None);
    assert_eq!(
        dns_search(&words(&["."]), &Network::Host).unwrap(),
        Some(Vec::new())
    );
    assert_eq!(
        dns_search(&words(&["a.example", "b.example."]), &Network::Host).unwrap(),
        Some(words(&["a.example", "b.example"]))
    );
    assert!(dns_search(&words(&[".", "a.example"]), &Network::Host).is_err());
    assert!(dns_search(&words(&["a example"]), &Network::Host).is_err());
    assert_eq!(dns_options(&[], &Network::Host).unwrap(), None);
    assert_eq!(
        dns_options(&words(&["ndots:2"]), &Network::Host).unwrap(),
        Some(words(&["ndots:2"]))
    );
    assert!(dns_options(&words(&["a\nnameserver 1.1.1.1"]), &Network::Host).is_err());
    let message = dns_search(&words(&["a example"]), &Network::Host).unwrap_err();
    assert!(message.to_string().contains("--dns-search"), "{message}");
    assert!(dns_search(&words(&["a.example"]), &Network::None).is_err());
    assert!(dns_options(&words(&["ndots:2"]), &Network::None).is_err());
    assert_eq!(dns_options(&[], &Network::None).unwrap(), None);
}

#[test]
fn keys_of_builtin() {
    let all = "builtin:mtu=1500,cidr=192.168.4.0/22,allow_host_loopback=true,\
               allow_host_addresses=1,allow_link_local=false,max_flows=7,busy_poll=0,\
               sandbox=false";
    assert_eq!(
        net(all).unwrap(),
        Network::Builtin(BuiltinNetwork {
            mtu: 1500,
            network: Ipv4Addr::new(192, 168, 4, 0),
            prefix_len: 22,
            allow_host_loopback: true,
            allow_host_addresses: true,
            allow_link_local: false,
            max_flows: Some(7),
            busy_poll: Duration::ZERO,
            sandbox: false,
            ..BuiltinNetwork::default()
        })
    );
    for bad in [
        "mtu",
        "mtu=",
        "mtu=575",
        "mtu=65521",
        "mtu=+1500",
        "mtu=0x5dc",
        "mtu=1500,mtu=1500",
        "cidr=10.0.2.1/24",
        "cidr=10.0.2.0",
        "cidr=10.0.2.0/0",
        "cidr=10.0.2.0/26",
        "cidr=10.0.2/24",
        "cidr=0.0.0.0/1",
        "cidr=64.0.0.0/2",
        "cidr=127.0.0.0/24",
        "cidr=224.0.0.0/8",
        "cidr=fd00::/64",
        "cidr=10.0.2.0/+24",
        "allow_host_loopback",
        "allow_host_loopback=yes",
        "max_flows=0",
        "busy_poll=",
        "busy_poll=1001",
        "busy_poll=1ms",
        "sandbox",
        "sandbox=maybe",
        "link",
        "link=",
        "link=TAP",
        "link=tap,link=veth",
        ",",
        "mtu=1500,",
        "port_handler=slirp4netns",
        "MTU=1500",
    ] {
        assert!(net(&format!("builtin:{bad}")).is_err(), "{bad}");
    }
    let message = net("builtin:bogus=1").unwrap_err().to_string();
    assert!(
        message.contains("bogus") && message.contains("max_flows"),
        "{message}"
    );
    for good in [
        "cidr=10.0.0.0/8",
        "cidr=128.0.0.0/2",
        "cidr=10.0.2.128/25",
        "mtu=576",
        "link=auto",
    ] {
        assert!(net(&format!("builtin:{good}")).is_ok(), "{good}");
    }
    for (value, wanted) in [("tap", LinkChoice::Tap), ("veth", LinkChoice::Veth)] {
        let parsed = net(&format!("builtin:link={value}")).unwrap();
        assert!(matches!(parsed, Network::Builtin(network) if network.link == wanted));
    }
    let Network::Builtin(short) = parse(&[], Some("9000"), None).unwrap() else {
        panic!()
    };
    assert_eq!(short.mtu, 9000);
    assert!(parse(&[], Some("1"), None).is_err());
}

#[test]
fn servers_and_hosts() {
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    assert_eq!(dns(&text(&["1.1.1.1", "::1"])).unwrap().len(), 2);
    for bad in [
        "",
        "none",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "1.1.1.1:53",
        "fe80::1%eth0",
    ] {
        assert!(dns(&text(&[bad])).is_err(), "{bad}");
    }
    let builtin = Network::Builtin(BuiltinNetwork::default());
    let hosts = add_host(
        &text(&["a;b:10.0.0.1", "c:::1", "d:[fd00::1]", "e:host-gateway"]),
        &builtin,
    );
    let wanted = [
        ("a", "10.0.0.1"),
        ("b", "10.0.0.1"),
        ("c", "::1"),
        ("d", "fd00::1"),
        ("e", "10.0.2.2"),
    ]
    .map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
    assert_eq!(hosts.unwrap(), wanted);
    for bad in [
        "a",
        "a:",
        ":1.1.1.1",
        "a b:1.1.1.1",
        "a:1.1.1",
        "a:[1.1.1.1]",
        "a\nb:1.1.1.1",
    ] {
        assert!(add_host(&text(&[bad]), &builtin).is_err(), "{bad}");
    }
    assert!(add_host(&text(&["a:host-gateway"]), &Network::None).is_err());
    let host = add_host(&text(&["a:host-gateway"]), &Network::Host).unwrap();
    assert!(host[0].1.is_loopback());
}

proptest! {
    #[test]
    fn parsing_is_total(text in "(builtin:)?[a-z_=0-9.,/:]{0,60}", mtu in "[0-9]{0,6}") {
        let _ = parse(&[text], Some(&mtu), None);
    }

    #[test]
    fn networks_round_trip(address: u32, prefix in 1..=25_u8, mtu in MTU_LEAST..=MTU_MOST) {
        let address = Ipv4Addr::from(address & !(u32::MAX >> prefix));
        let parsed = net(&format!("builtin:cidr={address}/{prefix},mtu={mtu}"));
        if let Ok(Network::Builtin(parsed)) = parsed {
            prop_assert_eq!((parsed.network, parsed.prefix_len, parsed.mtu), (address, prefix, mtu));
            for one in [parsed.gateway(), parsed.dns(), parsed.container()] {
                prop_assert!(!one.is_loopback() && !one.is_multicast() && !one.is_broadcast());
                prop_assert_eq!(u32::from(one) & !(u32::MAX >> prefix), u32::from(address));
            }
        }
    }
}
