//! The cases of bad input, N1 to N34.
//!
//! `cases` plays what the crate of bad input has, the same frames that go through a real
//! link in the integration tests; the other modules look at what each kind leads to.
//! N12 is also in `liveness`, N13 in `dns`, N18, N21 and N31 in `link`, N28 in `liveness`
//! and `tcp_data`; N17, host calls that fail, is in `faults`.

mod cases;
mod datagrams;
mod faults;
mod fragments;
mod packets;
mod tcp;

use super::world::World;

/// Nothing has come of it, and everything works.
fn no_service(w: &mut World) {
    assert!(w.host.connects.is_empty() && w.host.datagrams.is_empty());
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}
