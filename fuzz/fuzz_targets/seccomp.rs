#![no_main]

#[path = "../program/seccomp.rs"]
mod seccomp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| seccomp::play(bytes));
