//! The corpora of the fuzz targets, played once each: what was found there stays found,
//! without a fuzzer.

use std::path::Path;

use netmodel::source::{Rng, Source};
use netmodel::targets::ALL;

#[test]
fn every_seed_is_played() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in ALL {
        let mut played = 0;
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let ended = std::panic::catch_unwind(|| target(&bytes));
            assert!(ended.is_ok(), "{}", path.display());
            played += 1;
        }
        assert!(played > 0, "no seeds of {name}");
    }
}

/// Bytes that are nobody's choice reach far enough to find what is obvious.
#[test]
fn every_target_plays_noise() {
    for (name, target) in ALL {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut bytes = vec![0; 1 + rng.below(4000)];
            rng.fill(&mut bytes);
            let ended = std::panic::catch_unwind(|| target(&bytes));
            assert!(ended.is_ok(), "{name} {seed}");
        }
    }
}

#[test]
fn a_short_blast() {
    let seen = netmodel::blast::hostile_frames();
    let mut connects = 0;
    for seed in 0..6 {
        let round = netmodel::blast::round(seed, 20_000, &seen, |_| ());
        assert!(round.frames_in >= 20_000);
        // Rules or limits may leave none in one or another.
        connects += round.connects;
    }
    assert!(connects > 1000, "{connects}");
}

/// Between the ends of a connection of which the host is still owed something another begins,
/// and both are watched.
#[test]
fn a_connection_that_follows_one_that_drains() {
    let seen = netmodel::blast::hostile_frames();
    for seed in [20_010_014, 20_030_000, 20_040_002] {
        netmodel::blast::round(seed, 200_000, &seen, |_| ());
    }
}
