//! Integration tests: real namespaces, real clients. The process model through the library
//! is a binary of its own, which has no harness (`process.rs`).
//!
//! Each test runs as root and as an ordinary user where it can (see
//! `util::who`). What a machine lacks makes a test print `SKIP` and its reason;
//! with `CI=true` in the environment it fails instead, so that nothing is left
//! out unseen. Two things are left out there, too, and say so: the audit, whose script
//! is not part of this repository, and the peers of `bench net` that are not installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so and fails"
)]

#[macro_use]
mod util;

mod addresses;
mod audit;
mod bench;
mod capacity;
mod cli;
mod control;
mod corpora;
mod death;
mod devices;
mod dhcp;
mod doctor;
mod endings;
mod escape;
// The tracer is of the one architecture.
#[cfg(target_arch = "x86_64")]
mod faults;
mod fragments;
mod gone;
mod harness;
mod hostile;
mod icmp;
mod init;
mod isolation;
mod lifecycle;
mod limits;
mod many;
mod mounts;
mod netem;
mod network;
mod options;
mod pcap;
mod policy;
mod programs;
mod publish;
mod published;
mod reach;
mod resolving;
mod roots;
mod sandbox;
mod scale;
mod scripts;
mod soak;
mod sysctl;
mod terminal;
mod userns;
mod veth;
