#![no_main]

#[path = "../program/options.rs"]
mod options;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| options::play(bytes));
