//! The driver with a kernel's TCP at the other end of a bad link.
//!
//! A driver starts this same test program through unshare(1), as root and as an
//! ordinary user, with the test of `inside` that does the work.

mod bad_link;
mod inside;
mod streams;

use crate::testing::in_namespaces;

#[test]
fn streams_are_whole_over_a_link_that_loses_and_alters_frames() {
    in_namespaces("net::tests::inside::single_segments", |_| {});
}

#[test]
fn streams_are_whole_over_a_link_that_loses_super_segments() {
    in_namespaces("net::tests::inside::super_segments", |_| {});
}

#[test]
fn urgent_data_is_passed_on_in_its_place() {
    in_namespaces("net::tests::inside::urgent_data", |_| {});
}

/// A link that a kernel's TCP could not cope with would prove nothing.
#[test]
fn two_kernels_get_along_over_the_same_link() {
    in_namespaces("net::tests::inside::control_single_segments", |_| {});
    in_namespaces("net::tests::inside::control_super_segments", |_| {});
}
