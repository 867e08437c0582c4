//! Every target, with bytes of a seed: what is found in a moment is found here.

use netmodel::source::{Rng, Source};
use netmodel::targets::ALL;

#[test]
fn every_target_plays_noise() {
    for (name, target) in ALL {
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            let mut bytes = vec![0; 1 + rng.below(4000)];
            rng.fill(&mut bytes);
            if seed == 0 {
                eprintln!("{name}");
            }
            let played = std::panic::catch_unwind(|| target(&bytes));
            assert!(played.is_ok(), "{name} {seed}");
        }
    }
}
