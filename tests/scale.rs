//! Many flows at once: that their bytes are whole, and what they cost.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::util::command::Running;
use crate::util::servers::TcpServer;
use crate::util::streams::client;
use crate::util::traces::memory;
use crate::util::{Host, SOON, Side, Who, number_from_env, report};

/// The host's loopback, as the container sees it.
const GATEWAY: &str = "10.0.2.2";
/// Flows of the large transfer, and what it moves each way unless
/// `CRUN_LITE_FLOWS_MIB` says otherwise.
const FLOWS: u64 = 64;
const FLOWS_MIB: u64 = 256;

/// Flows that are open and idle after each has moved this much each way, unless
/// `CRUN_LITE_IDLE_FLOW_MIB` says otherwise: more than any buffer holds.
const IDLE_FLOWS: u64 = 1000;
const IDLE_FLOW_MIB: u64 = 1;
/// What an idle flow may cost the parent, bytes of resident memory.
const IDLE_FLOW_COST: u64 = 16 << 10;
/// What may stay resident besides: buffers that all flows share and have touched
/// for the first time, tables that have grown, and what the allocator keeps of
/// what was freed. It does not grow with the flows.
const SHARED_COST: u64 = 8 << 20;

fn start(who: Who, host: &Host, mtu: u32, limit: Duration, client: &str) -> Running {
    let net = format!("--net=builtin:allow_host_loopback=true,mtu={mtu}");
    who.crun(&[&net, "-i", "--rootfs=/", "--", "python3", "-c", client])
        .on(host)
        .stdin_open()
        .limit(limit)
        .spawn()
}

both! {
    fn many_streams_at_once_are_whole(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let mib = number_from_env("CRUN_LITE_FLOWS_MIB", FLOWS_MIB);
        let script = client(GATEWAY, server.port(), FLOWS, (mib << 20) / FLOWS, "");
        for mtu in [65520, 1500] {
            let limit = Duration::from_secs(120 + mib / 10);
            let mut run = start(who, &host, mtu, limit, &script);
            run.expect("ready\n");
            run.write(b"go\n");
            let output = run.finish().exit(0);
            assert_eq!(output.stdout, "ready\nwhole\n", "MTU {mtu}{output}");
            report(&format!(
                "{FLOWS} flows, MTU {mtu}, {who:?}: {mib} MiB each way in {:?}",
                output.took
            ));
        }
    }

    fn idle_flows_hold_little_memory(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let server = TcpServer::echo(&host, Side::Host, Ipv4Addr::LOCALHOST);
        let at_end = "assert sys.stdin.readline() == 'go\\n'
for flow in flows:
    flow.socket.setblocking(True)
    flow.socket.send(b'x')
assert all(flow.socket.recv(100) == b'x' for flow in flows)
print('alive')";
        let bytes = number_from_env("CRUN_LITE_IDLE_FLOW_MIB", IDLE_FLOW_MIB) << 20;
        let script = client(GATEWAY, server.port(), IDLE_FLOWS, bytes, at_end);
        let mut run = start(who, &host, 65520, Duration::from_secs(120), &script);
        run.expect("ready\n");
        let before = memory(run.pid(), "VmRSS") << 10;
        run.write(b"go\n");
        run.expect("whole\n");
        let most = SHARED_COST + IDLE_FLOWS * IDLE_FLOW_COST;
        // The last acknowledgements are on their way, and memory is given back in its own time.
        let mut after = u64::MAX;
        let deadline = Instant::now() + SOON / 4;
        while after > before + most && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            after = after.min(memory(run.pid(), "VmRSS") << 10);
        }
        report(&format!(
            "{IDLE_FLOWS} idle flows, {who:?}: {} KiB before, {} KiB after, {} bytes a flow",
            before >> 10,
            after >> 10,
            after.saturating_sub(before) / IDLE_FLOWS
        ));
        run.write(b"go\n");
        let output = run.finish().exit(0);
        assert!(output.stdout.ends_with("alive\n"), "{output}");
        assert!(
            after <= before + most,
            "{IDLE_FLOWS} idle flows hold {} KiB, which is more than {} KiB",
            (after - before) >> 10,
            most >> 10
        );
    }
}
