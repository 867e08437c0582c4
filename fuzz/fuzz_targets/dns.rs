#![no_main]

libfuzzer_sys::fuzz_target!(
    init: netmodel::plant(),
    |bytes: &[u8]| netmodel::targets::dns(bytes)
);
