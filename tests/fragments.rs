//! Datagrams that are longer than the link's MTU, both ways.

use std::time::Duration;

use crate::util::servers::UdpServer;
use crate::util::{Family, Host, Output, Side, Who};

#[track_caller]
fn inside(who: Who, host: &Host, options: &[&str], script: &str) -> Output {
    let command = ["--rootfs=/", "--", "sh", "-ec", script];
    who.crun(&[&["--mtu=1500"], options, &command].concat())
        .on(host)
        .limit(Duration::from_secs(120))
        .run()
}

/// A client that sends datagrams of these sizes to an echo server.
fn client(family: Family, port: u16, sizes: &str) -> String {
    format!(
        "/usr/bin/python3 - <<'END'
import os, socket
family = socket.AF_INET6 if ':' in '{far}' else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(('{far}', {port}))
for size in {sizes}:
    data = os.urandom(size)
    for attempt in range(5):
        s.send(data)
        try:
            assert s.recv(65536) == data, size
            break
        except TimeoutError:
            print('lost', size)
    else:
        raise SystemExit('no answer for %d' % size)
print('done')
END",
        far = family.far()
    )
}

both! {
    fn datagrams_longer_than_the_mtu_come_back(who) {
        let host = routed_host!(who, "python3");
        for &family in Family::ALL {
            let server = UdpServer::echo(&host, Side::Far, family.far());
            let sizes = "(1452, 1453, 1472, 1473, 2960, 2961, 8000, 60000, 65507)";
            let script = client(family, server.port(), sizes);
            assert_eq!(inside(who, &host, &[], &script).success(), "done\n", "{family:?}");
        }
    }

    fn ping_longer_than_the_mtu_comes_back(who) {
        let host = routed_host!(who, "ping");
        for &family in Family::ALL {
            for target in [family.gateway(), family.far()] {
                for size in [1473, 3000, 60_000] {
                    let flag = family.flag();
                    // ping waits for the last answer no longer than the interval, or twice
                    // as long as any other has taken.
                    let script = format!("ping {flag} -c 3 -i 0.5 -W 5 -s {size} {target}");
                    let output = inside(who, &host, &[], &script).exit(0);
                    assert!(output.stdout.contains(" 0% packet loss"), "{output}");
                    assert!(!output.stdout.contains("wrong data"), "{output}");
                }
            }
        }
    }

    /// The fragment that ends slirp4netns 1.2.0, and its like, on the real link.
    fn fragments_without_the_rest_do_no_harm(who) {
        let host = routed_host!(who, "python3");
        let far = Family::V4.far();
        let server = UdpServer::echo(&host, Side::Far, far);
        let script = format!(
            "/usr/bin/python3 - <<'END'
import os, random, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for n in range(2000):
    data = os.urandom(random.choice((1, 8, 440, 1400)))
    field = random.choice((0, 1, 87, 174, 8191)) | random.choice((0, 0x2000))
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(data), random.randrange(4), field,
                       64, random.choice((1, 6, 17)), 0,
                       socket.inet_aton('10.0.2.100'), socket.inet_aton('{far}'))
    s.sendto(head + data, ('{far}', 0))
END
{}",
            client(Family::V4, server.port(), "(100, 8000)")
        );
        let printed = inside(who, &host, &["--cap-add=NET_RAW"], &script).success();
        // The queue of the link may still be full when the first datagram comes.
        assert!(printed.ends_with("done\n"), "{printed}");
    }
}
