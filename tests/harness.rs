//! The harness itself: a test that trusts a broken server proves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::util::captured::Captured;
use crate::util::dns::DnsServer;
use crate::util::host::{HOST_ADDRESS, METADATA_ADDRESS, WORLD_ADDRESS};
use crate::util::pty::Pty;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::{Host, Side, Who, has_program, http, report, traces};

#[test]
fn a_host_of_its_own_reaches_its_world_and_is_not_the_machine() {
    need!(
        Who::tests_run_as_root(),
        "a host of the test's own needs root"
    );
    let host = Host::new();
    for address in [WORLD_ADDRESS, METADATA_ADDRESS] {
        let server = TcpServer::echo(&host, Side::World, address);
        let port = server.port();
        host.inside(Side::Host, || TcpStream::connect((address, port)))
            .unwrap();
        assert_eq!(server.accepted(&host, Side::World), 1, "{address}");
    }
    let addresses = host.tool(&["ip", "-4", "-oneline", "addr"]);
    assert!(addresses.contains(&HOST_ADDRESS.to_string()), "{addresses}");
    assert_eq!(addresses.lines().count(), 2, "lo and host0: {addresses}");
    assert_eq!(
        host.tool(&["cat", "/etc/resolv.conf"]),
        "nameserver 127.0.0.53\n"
    );
}

#[test]
fn the_http_server_and_curl_agree_on_sums() {
    need!(has_program("curl"), "no curl(1)");
    let host = Host::new();
    let server = http::start(&host);
    let url = format!("http://127.0.0.1:{}", server.port());
    let expected = http::sha256_of_bytes(1_000_003);
    let script = format!(
        "curl -sS {url}/bytes/1000003 | sha256sum; curl -sS {url}/bytes/1000003 | curl -sS -T - {url}/up"
    );
    let printed = host.tool(&["sh", "-c", &script]);
    assert_eq!(printed, format!("{expected}  -\n{expected}"));
}

#[test]
fn the_name_server_and_dig_agree() {
    need!(
        Who::tests_run_as_root(),
        "a resolver of the test's own needs root"
    );
    need!(has_program("dig"), "no dig(1)");
    let host = Host::new();
    let server = DnsServer::start(&host);
    let dig = |args: &[&str]| host.tool(&[&["dig", "@127.0.0.53"], args].concat());
    assert_eq!(dig(&["+short", "host.test"]), "192.0.2.53\n");
    assert_eq!(dig(&["+short", "+tcp", "host.test"]), "192.0.2.53\n");
    assert!(dig(&["absent.test"]).contains("NXDOMAIN"));
    let over_tcp = server.tcp.accepted(&host, Side::Host);
    assert!(dig(&["+short", "long.test", "TXT"]).len() > 1200);
    assert_eq!(
        server.tcp.accepted(&host, Side::Host),
        over_tcp + 1,
        "a long answer is fetched over TCP"
    );
}

#[test]
fn a_server_counts_what_stands_in_its_queue() {
    let host = Host::new();
    let server = UdpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
    let port = server.port();
    let client = host
        .inside(Side::Host, || UdpSocket::bind("127.0.0.1:0"))
        .unwrap();
    for count in 1..=20 {
        client
            .send_to(b"datagram", (Ipv4Addr::LOCALHOST, port))
            .unwrap();
        assert_eq!(server.received(&host, Side::Host), count);
    }
}

#[test]
fn a_stream_is_waited_for_in_order() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let captured = Captured::start(reader);
    writer.write_all(b"one two one").unwrap();
    for text in ["one", "two", "one"] {
        captured.wait_for(text, Duration::from_secs(5)).unwrap();
    }
    captured
        .wait_for("one", Duration::from_millis(20))
        .unwrap_err();
    assert!(!captured.wait_for_end(Duration::from_millis(20)));
    drop(writer);
    assert!(captured.wait_for_end(Duration::from_secs(5)));
}

#[test]
fn the_modes_of_a_terminal_can_be_told_apart() {
    let pty = Pty::new(Who::User);
    let before = pty.modes();
    assert_eq!(pty.modes(), before);
    assert!(before.contains(':'), "{before}");
}

#[test]
fn a_process_is_found_by_its_mark_until_it_ends() {
    let marker = "mark-of-the-harness-test";
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read line", marker])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::util::eventually("it is found", crate::util::SOON, || {
        traces::marked(marker).len() == 1
    });
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(traces::marked(marker), []);
}

#[test]
fn the_ordinary_user_is_no_root() {
    let identity = Who::User.identity();
    assert_ne!(identity.uid, 0);
    assert!(
        Who::User.can(&["sh", "-c", "test $(id -u) != 0"]),
        "{identity:?}"
    );
    report(&format!(
        "the ordinary user is {} ({})",
        identity.name, identity.uid
    ));
}

/// A test without its program is skipped, and CI takes no skipped test: whatever the
/// tests ask for must be in the list of what is installed for them.
#[test]
fn what_the_tests_need_is_installed_by_the_setup() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let setup = fs::read_to_string(here.join(".ci/setup")).unwrap();
    // On every Debian, but for scp and tc, which come with ssh and ip.
    let installed: BTreeSet<&str> = setup
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0))
        .chain(["apt-get", "bash", "dpkg-deb", "prlimit", "scp", "tc"])
        .collect();
    let mut asked = BTreeSet::new();
    let mut folders = vec![here.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|name| name == "rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                asked.extend(programs(&text).map(str::to_owned));
            }
        }
    }
    assert!(asked.contains("curl") && asked.contains("nft"), "{asked:?}");
    for program in asked {
        assert!(installed.contains(&*program), "{program}");
    }
}

/// The programs that a text of tests says it needs.
fn programs(text: &str) -> impl Iterator<Item = &str> {
    let lists = text.split("routed_host!(who, \"").skip(1);
    let alone = text.split("need!(has_program(\"").skip(1);
    let lists = lists.filter_map(|list| Some(list.split_once("\")")?.0));
    let alone = alone.filter_map(|name| Some(name.split_once("\")")?.0));
    lists.flat_map(|list| list.split("\", \"")).chain(alone)
}
