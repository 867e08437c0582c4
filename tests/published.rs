//! Real servers in a container, and who can use them by published ports.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::util::command::Running;
use crate::util::{Family, Host, SOON, Side, Who, eventually, tool, whoami};

/// What a file has that clients fetch.
const LARGE: u64 = 16 << 20;

/// Who asks, whom, and as whom the server in the container sees it. A client on
/// the host's own loopback is any but a loopback address there.
fn clients(family: Family) -> [(Side, IpAddr, Option<IpAddr>); 3] {
    let loopback = match family {
        Family::V4 => IpAddr::from([127, 0, 0, 1]),
        Family::V6 => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]),
    };
    [
        (Side::Far, family.host(), Some(family.far())),
        (Side::World, family.host(), Some(family.router())),
        (Side::Host, loopback, None),
    ]
}

#[track_caller]
fn assert_seen(seen: &str, expected: Option<IpAddr>) {
    let seen: IpAddr = seen.trim().parse().unwrap();
    match expected {
        Some(expected) => assert_eq!(seen, expected),
        None => assert!(!seen.is_loopback(), "{seen}"),
    }
}

fn serve(who: Who, host: &Host, data: &Path, ports: &[&str], script: &str) -> Running {
    let volume = format!("{}:/data", data.display());
    let mut args = vec!["--rootfs=/", "--tmpfs=/tmp", "-v", &volume];
    args.extend(ports.iter().flat_map(|port| ["-p", port]));
    args.extend(["--", "sh", "-ec", script, "sh", whoami::SCRIPT]);
    who.crun(&args).on(host).spawn()
}

/// Whether a program succeeds on one side.
fn succeeds(host: &Host, side: Side, words: &[&str]) -> bool {
    let mut argv = host.prefix_on(side);
    argv.extend(words.iter().map(|&word| word.to_owned()));
    std::process::Command::new(&argv[0])
        .args(&argv[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}

const NGINX: &str = "
user root;
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/a;
    proxy_temp_path /tmp/b;
    fastcgi_temp_path /tmp/c;
    uwsgi_temp_path /tmp/d;
    scgi_temp_path /tmp/e;
    server {
        listen 80;
        listen [::]:80;
        root /data;
        location = /who { return 200 $remote_addr; }
    }
}
";

both! {
    fn nginx_serves_clients_that_it_can_tell_apart(who) {
        let host = routed_host!(who, "nginx", "curl");
        let folder = who.folder();
        fs::write(folder.path().join("nginx.conf"), NGINX).unwrap();
        let file = folder.path().join("file");
        let script = format!("seq 1 400000000 | head -c {LARGE} > \"$1\"; sha256sum < \"$1\"");
        let sum = tool("sh", &["-ec", &script, "sh", file.to_str().unwrap()]);
        for path in ["nginx.conf", "file"] {
            who.own(&folder.path().join(path));
        }
        let _run = serve(who, &host, folder.path(), &["8080:80"], "exec nginx -c /data/nginx.conf");
        for &family in Family::ALL {
            for (side, target, seen) in clients(family) {
                let url = format!("http://{}", std::net::SocketAddr::new(target, 8080));
                let asks = ["curl", "-sS", "-m", "20", &format!("{url}/who")];
                eventually("nginx answers", SOON, || succeeds(&host, side, &asks));
                assert_seen(&host.tool_on(side, &asks), seen);
                let fetches = format!("curl -sS -m 60 {url}/file | sha256sum");
                assert_eq!(host.tool_on(side, &["sh", "-ec", &fetches]), sum, "{side:?} {target}");
            }
        }
    }

    fn redis_keeps_what_clients_give_it(who) {
        let host = routed_host!(who, "redis-server", "redis-cli");
        let folder = who.folder();
        let script = "exec redis-server --port 6379 --bind 0.0.0.0 :: --protected-mode no \
            --save '' --dir /tmp";
        let _run = serve(who, &host, folder.path(), &["16379:6379"], script);
        let data = format!("seq 1 400000000 | head -c {LARGE}");
        let sum = tool("sh", &["-ec", &format!("{{ {data}; echo; }} | sha256sum")]);
        for &family in Family::ALL {
            for (side, target, seen) in clients(family) {
                let cli = format!("redis-cli -h {target} -p 16379");
                let sh = |script: String| ["sh".to_owned(), "-ec".to_owned(), script];
                let ask = |script: String| {
                    let words = sh(script);
                    host.tool_on(side, &words.each_ref().map(String::as_str))
                };
                let words = sh(format!("test \"$({cli} ping)\" = PONG"));
                eventually("redis answers", SOON, || {
                    succeeds(&host, side, &words.each_ref().map(String::as_str))
                });
                assert_eq!(ask(format!("{data} | {cli} -x set large")), "OK\n");
                assert_eq!(ask(format!("{cli} --raw get large | sha256sum")), sum);
                let info = ask(format!("{cli} client info"));
                // "addr=198.18.1.1:40000", with an IPv6 address in brackets.
                let address = info.split(' ').find_map(|word| word.strip_prefix("addr=")).unwrap();
                let (address, _) = address.rsplit_once(':').unwrap();
                assert_seen(address.trim_matches(['[', ']']), seen);
            }
        }
    }

    fn clients_keep_their_addresses_over_tcp_and_udp(who) {
        let host = routed_host!(who, "python3");
        let folder = who.folder();
        let ports = ["7000:7001", "7000:7001/udp"];
        let script = "for any in 0.0.0.0 ::; do /usr/bin/python3 -c \"$1\" $any 7001 & done; wait";
        let run = serve(who, &host, folder.path(), &ports, script);
        run.expect("ready\n");
        run.expect("ready\n");
        for &family in Family::ALL {
            for (side, target, seen) in clients(family) {
                let target = target.to_string();
                let words = ["/usr/bin/python3", "-c", whoami::CLIENT, &target, "7000"];
                let printed = host.tool_on(side, &words);
                for (line, transport) in printed.lines().zip(["TCP", "UDP"]) {
                    let words: Vec<_> = line.split(' ').collect();
                    assert_eq!(words[0], transport, "{printed}");
                    assert_seen(words[1], seen);
                }
                assert_eq!(printed.lines().count(), 2, "{side:?} {target}: {printed}");
            }
        }
    }

    /// A kernel whose server is slow to accept forgets the end of a handshake, and what came
    /// with it.
    fn clients_that_wait_to_be_accepted_lose_nothing(who) {
        let host = routed_host!(who, "python3");
        let server = "
import socket, threading, time
listener = socket.create_server(('', 80), backlog=1)
print('up', flush=True)
time.sleep(0.5)
def serve(client):
    while piece := client.recv(65536):
        client.sendall(piece)
threads = []
for _ in range(6):
    threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
    threads[-1].start()
for thread in threads: thread.join()";
        let client = "
import hashlib, socket, sys, threading
whole = []
def run(number):
    data = hashlib.shake_128(b'%d' % number).digest(300000)
    s = socket.create_connection((sys.argv[1], 8080), 20)
    s.settimeout(20)
    failed = []
    def send():
        try: s.sendall(data)
        except OSError as error: failed.append(error)
    sender = threading.Thread(target=send)
    sender.start()
    echo = b''
    while len(echo) < len(data):
        if not (piece := s.recv(65536)):
            # Who meets a reset first is told of it, and the other of an end.
            sender.join()
            raise failed[0] if failed else OSError('an early end')
        echo += piece
    sender.join()
    whole.append(echo == data)
def tell(number):
    try: run(number)
    # Data that comes behind a handshake which the kernel has forgotten is refused.
    except ConnectionResetError: tell(number)
    except OSError as error: whole.append(error)
threads = [threading.Thread(target=tell, args=(n,)) for n in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(whole)";
        let options = ["--net=builtin", "-p", "8080:80", "--rootfs=/"];
        let args = [&options[..], &["--", "python3", "-c", server]].concat();
        for _ in 0..3 {
            let run = who.crun(&args).on(&host).spawn();
            run.expect("up\n");
            let at = Family::V4.host().to_string();
            let told = host.tool_on(Side::Far, &["python3", "-c", client, &at]);
            assert_eq!(told, format!("[{}]\n", ["True"; 6].join(", ")));
            run.finish().exit(0);
        }
    }
}
