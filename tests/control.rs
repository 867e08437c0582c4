//! A running container is asked and changed: `crun-lite port`, `crun-lite net`.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::Value;

use crate::util::command::{CrunLite, Output, Running};
use crate::util::{Family, Host, SOON, Side, Who, eventually, whoami};

/// `crun-lite ARGS` on the host.
fn ask(who: Who, host: &Host, args: &[&str]) -> Output {
    CrunLite::new(who, args).on(host).run()
}

fn json(who: Who, host: &Host, args: &[&str]) -> Value {
    serde_json::from_str(&ask(who, host, args).success()).unwrap()
}

/// A container with a server at port 7001 that tells who asks.
fn serve(who: Who, host: &Host, options: &[&str]) -> Running {
    let script = "for any in 0.0.0.0 ::; do /usr/bin/python3 -c \"$1\" $any 7001 & done; wait";
    let mut args = vec!["--rootfs=/"];
    args.extend(options);
    args.extend(["--", "sh", "-ec", script, "sh", whoami::SCRIPT]);
    let run = who.crun(&args).on(host).spawn();
    run.expect("ready\n");
    run.expect("ready\n");
    run
}

/// What the server answers a client on `side`, over TCP and over UDP.
fn answers(host: &Host, side: Side, target: IpAddr, port: &str) -> String {
    let target = target.to_string();
    let words = ["/usr/bin/python3", "-c", whoami::CLIENT, &target, port];
    host.tool_on(side, &words)
}

fn refuses(host: &Host, target: IpAddr, port: u16) -> bool {
    let script = format!("import socket; socket.create_connection(('{target}', {port}), 5)");
    let mut argv = host.prefix_on(Side::Far);
    argv.extend(["/usr/bin/python3", "-c", &script].map(str::to_owned));
    let output = std::process::Command::new(&argv[0])
        .args(&argv[1..])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).contains("ConnectionRefusedError")
}

both! {
    fn ports_come_and_go(who) {
        let host = routed_host!(who, "python3");
        let _run = serve(who, &host, &["--name=web"]);
        assert_eq!(ask(who, &host, &["port", "ls", "web"]).success(), "");
        let added = ask(who, &host, &["port", "add", "web", "7000:7001", "7000:7001/udp"]);
        let lines = "7001/tcp -> 0.0.0.0:7000\n7001/tcp -> [::]:7000\n\
                     7001/udp -> 0.0.0.0:7000\n7001/udp -> [::]:7000\n";
        assert_eq!(added.success(), lines);
        for &family in Family::ALL {
            let told = answers(&host, Side::Far, family.host(), "7000");
            let far = family.far().to_string();
            assert_eq!(told.matches(&far).count(), 2, "{told}");
        }
        // All or none: one of these is taken.
        let taken = ask(who, &host, &["port", "add", "web", "7005:7001", "7000:7001"]);
        taken.exit(125).refused(&["7000"]);
        assert_eq!(ask(who, &host, &["port", "ls", "web"]).success(), lines);
        let listed = json(who, &host, &["port", "ls", "--json", "web"]);
        assert_eq!(listed.as_array().unwrap().len(), 4, "{listed}");
        assert_eq!(listed[0]["container_port"], 7001);
        // A connection that stands goes on when its port is gone.
        ask(who, &host, &["port", "rm", "web", "7000:7001/udp", "7000:7001"]).success();
        assert_eq!(ask(who, &host, &["port", "ls", "web"]).success(), "");
        for &family in Family::ALL {
            assert!(refuses(&host, family.host(), 7000));
        }
        ask(who, &host, &["port", "rm", "web", "7000:7001"]).exit(125).refused(&["7000:7001"]);
    }

    fn names_are_taken_once_and_given_back(who) {
        let host = routed_host!(who, "python3");
        let first = serve(who, &host, &["--name=one"]);
        let again = who.crun(&["--name=one", "--rootfs=/", "true"]).on(&host).run();
        again.exit(125).refused(&["--name", "one"]);
        ask(who, &host, &["port", "ls", "none-such"]).exit(125).refused(&["none-such"]);
        // Without a name it goes by its process id.
        let second = serve(who, &host, &[]);
        let id = second.pid().as_raw_nonzero().to_string();
        assert_eq!(ask(who, &host, &["port", "ls", &id]).success(), "");
        first.signal(Signal::KILL);
        drop(first);
        eventually("the name is free", SOON, || {
            let args = ["--name=one", "--rootfs=/", "true"];
            who.crun(&args).on(&host).run().code() == Some(0)
        });
    }

    fn another_user_is_not_answered(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(Who::tests_run_as_root(), "only root can be two users");
        let host = Host::new();
        let name = format!("--name=private-{who:?}");
        let _run = serve(who, &host, &[&name]);
        let owner = who.identity().uid;
        // Whatever the name says, who asks is known from the socket.
        let script = "
import os, socket, sys
if (uid := int(sys.argv[1])):
    os.setgroups([])
    os.setresuid(uid, uid, uid)
asks = socket.socket(socket.AF_UNIX)
asks.connect('\\0crun-lite/' + sys.argv[2])
try:
    asks.sendall(b'{\"version\": 1, \"execute\": \"net-stats\"}\\n')
    print(b'flows' in asks.makefile('rb').read())
except (BrokenPipeError, ConnectionResetError):
    print(False)
";
        let socket = format!("{owner}/private-{who:?}");
        let answered = |uid: u32| host.tool(&["/usr/bin/python3", "-c", script, &uid.to_string(), &socket]);
        assert_eq!(answered(owner), "True\n");
        // Not even root, which has other means.
        let others = [0, 65534, 4242].into_iter().filter(|uid| *uid != owner);
        others.for_each(|uid| assert_eq!(answered(uid), "False\n", "{uid}"));
    }

    fn the_hosts_own_connections_are_flows_too(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = "
import socket
listener = socket.create_server(('0.0.0.0', 7001), backlog=1000)
print('ready', flush=True)
held = []
while True:
    held.append(listener.accept()[0])
    held[-1].sendall(b'hello')
";
        let name = format!("--name=own-{who:?}");
        let args = [&name, "-p", "127.0.0.1::7001", "--rootfs=/", "--", "python3", "-c", server];
        let run = who.crun(&args).on(&host).spawn();
        run.expect("ready\n");
        let name = name.trim_start_matches("--name=");
        let ports = json(who, &host, &["port", "ls", "--json", name]);
        let at: SocketAddr = ports[0]["host"].as_str().unwrap().parse().unwrap();
        // More than one page of them.
        let streams: Vec<TcpStream> = host.inside(Side::Host, || {
            (0..700).map(|_| TcpStream::connect(at).unwrap()).collect()
        });
        for mut stream in &streams {
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
        }
        let flows = json(who, &host, &["net", "flows", "--json", name]);
        let flows = flows.as_array().unwrap();
        let mut remotes: Vec<_> = flows.iter().map(|flow| flow["remote"].as_str()).collect();
        remotes.sort_unstable();
        remotes.dedup();
        assert_eq!((flows.len(), remotes.len()), (streams.len(), streams.len()));
        for flow in flows {
            assert_eq!(flow["container"], "10.0.2.100:7001", "{flow}");
            assert_eq!((&flow["bytes_up"], &flow["bytes_down"]), (&5.into(), &0.into()), "{flow}");
            assert_eq!(flow["state"], "ESTABLISHED", "{flow}");
        }
    }

    /// Ports and flows need more open files than the container is to have.
    fn the_limit_on_open_files_is_the_callers(who) {
        let host = routed_host!(who, "prlimit");
        let args = ["-p", "7000-7009:7000-7009", "--rootfs=/", "--", "sh", "-c", "ulimit -Sn"];
        let run = who.crun(&args).on(&host).through(&["prlimit", "--nofile=500:4096"]).run();
        assert_eq!(run.success(), "500\n");
    }

    fn flows_and_counters_are_told(who) {
        let host = routed_host!(who, "python3");
        let _run = serve(who, &host, &["--name=seen", "-p", "7000:7001", "-p", "7000:7001/udp"]);
        answers(&host, Side::Far, Family::V4.host(), "7000");
        let far = Family::V4.far().to_string();
        let flows = json(who, &host, &["net", "flows", "--json", "seen"]);
        let udp = flows.as_array().unwrap().iter().find(|flow| flow["protocol"] == "udp");
        let udp = udp.unwrap_or_else(|| panic!("{flows}"));
        assert!(udp["remote"].as_str().unwrap().starts_with(&far), "{udp}");
        assert_eq!(udp["container"], "10.0.2.100:7001");
        // It was answered with its own address and port.
        assert!(udp["bytes_up"].as_u64().unwrap() >= far.len() as u64, "{udp}");
        assert!(udp["bytes_down"].as_u64().unwrap() > 0 && udp["age"].as_f64().unwrap() < 60.0);
        let table = ask(who, &host, &["net", "flows", "seen"]).success();
        assert!(table.starts_with("PROTO") && table.contains(&far), "{table}");
        let stats = json(who, &host, &["net", "stats", "--json", "seen"]);
        assert!(stats["frames_up_total"].as_u64().unwrap() > 0, "{stats}");
        assert!(stats["flows"].as_u64().unwrap() >= 1, "{stats}");
        assert_eq!(stats["udp_down_total"], 1, "{stats}");
        let text = ask(who, &host, &["net", "stats", "--prometheus", "seen"]).success();
        for line in ["# TYPE crun_lite_net_flows gauge", "# TYPE crun_lite_net_udp_up_total counter"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.lines().any(|line| line == "crun_lite_net_udp_down_total 1"), "{text}");
    }
}
