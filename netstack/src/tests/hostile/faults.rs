//! N17: every call of the host fails, at each step.

use hostile::CALLS;
use smoltcp::time::Duration;

use super::super::dns;
use super::super::frames;
use super::super::guest::remote;
use super::super::world::World;
use crate::HostError;

const ERRORS: [HostError; 8] = [
    HostError::Refused,
    HostError::Reset,
    HostError::NetUnreachable,
    HostError::HostUnreachable,
    HostError::Forbidden,
    HostError::NoResources,
    HostError::TimedOut,
    HostError::Other,
];

/// Everything that a container does, while one call fails once. Every call into the
/// stack is followed by a comparison of flow table and sockets.
#[test]
fn n17_every_host_call_fails_at_every_step() {
    for call in CALLS {
        for error in ERRORS {
            for step in 0..4 {
                let mut w = World::plain();
                w.host.faults.insert(call, (step, error));
                for n in 0..3 {
                    let to = remote(1, 80 + n);
                    let guest = w.guest.connect(to, 8192);
                    w.run(Duration::from_millis(5));
                    w.guest.write(guest, &[1; 3000]);
                    if let Some(flow) = w.host.flow_to(to.into()) {
                        w.host.far_write(flow, &[2; 3000]);
                    }
                    w.send(&frames::udp(1000 + n, remote(1, 7), b"x"));
                    w.send(&frames::udp(1000, remote(1, 7), b"x"));
                    w.send(&frames::echo(*remote(1, 0).ip(), n, 1, b"x"));
                    let question = dns::query(n, "a.example", dns::A);
                    w.send(&frames::udp(2000 + n, dns::FORWARDER, &question));
                    w.run(Duration::from_millis(5));
                    w.guest.read(guest);
                    w.guest.tcp(guest).close();
                    if let Some(flow) = w.host.flow_to(to.into()) {
                        w.host.far_close(flow);
                    }
                    w.run(Duration::from_millis(5));
                    w.guest.forget(guest);
                }
                w.take();
                w.assert_works();
                w.take();
                w.assert_empties(Duration::from_secs(200));
            }
        }
    }
}

/// One call in ten fails, whatever it is, for a minute.
#[test]
fn n17_calls_fail_all_the_time() {
    let mut w = World::plain();
    for round in 0..3000_u16 {
        let error = ERRORS[usize::from(round) % ERRORS.len()];
        for call in CALLS {
            w.host.faults.entry(call).or_insert((9, error));
        }
        let n = round % 500;
        let to = remote(1, 1000 + n);
        let guest = w.guest.connect(to, 8192);
        w.send(&frames::udp(1000 + n, remote(1, 7), b"x"));
        w.send(&frames::echo(*remote(1, 0).ip(), n, 1, b"x"));
        let question = dns::query(n, "a.example", dns::A);
        w.send(&frames::udp(2000 + n, dns::FORWARDER, &question));
        w.run(Duration::from_millis(10));
        w.guest.write(guest, &[1; 3000]);
        if let Some(flow) = w.host.flow_to(to.into()) {
            w.host.far_write(flow, &[2; 3000]);
        }
        w.run(Duration::from_millis(10));
        w.guest.tcp(guest).abort();
        w.run(Duration::from_millis(1));
        w.guest.forget(guest);
        w.take();
    }
    w.assert_works();
    w.host.faults.clear();
    w.take();
    w.assert_empties(Duration::from_secs(200));
}
