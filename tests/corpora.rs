//! The corpora of the fuzz targets that are about the program (`fuzz/program`), played
//! once each: what was found there stays found, without a fuzzer. Those of the network
//! stack are played by the tests of `netmodel`.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/program/control.rs"]
mod control;
#[path = "../fuzz/program/options.rs"]
mod options;
#[path = "../fuzz/program/seccomp.rs"]
mod seccomp;

type Play = fn(&[u8]);

const TARGETS: [(&str, Play); 3] = [
    ("control", control::play),
    ("options", options::play),
    ("seccomp", seccomp::play),
];

#[test]
fn every_seed_is_played() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, play) in TARGETS {
        let mut played = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let ended = catch_unwind(|| play(&bytes));
            assert!(ended.is_ok(), "{}", path.display());
            played += 1;
        }
        assert!(played > 0, "no seeds of {name}");
    }
}

/// Profiles that are nobody's choice: all that the compiler knows is among them.
#[test]
fn profiles_of_any_bytes_do_what_they_say() {
    let mut bytes = Vec::new();
    let mut state = 1_u64;
    for round in 0..200 {
        bytes.clear();
        for _ in 0..round {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push((state >> 56) as u8);
        }
        let ended = catch_unwind(|| seccomp::play(&bytes));
        assert!(ended.is_ok(), "{bytes:?}");
    }
}
