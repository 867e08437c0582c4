#![no_main]

#[path = "../program/control.rs"]
mod control;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| control::play(bytes));
