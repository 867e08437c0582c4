//! Writes the seeds of the corpora that are made of known frames: `seeds fuzz/corpus`.
//!
//! The other targets' seeds are what fuzzing has found to reach something new, in as few
//! bytes as that takes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a tool for tests"
)]

use std::fs;
use std::path::Path;

/// Longest seed, bytes.
const MOST: usize = 2048;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or("fuzz/corpus".to_owned());
    let folder = Path::new(&folder).join("frames");
    fs::create_dir_all(&folder).unwrap();
    for (number, make) in hostile::ALL {
        let case = make();
        // One of each link, and then the frames as the target reads them.
        let mut seed = vec![number & 3];
        for step in case.steps {
            let frame = match step {
                hostile::Step::Frame(frame) => frame,
                hostile::Step::Virtio(_, frame) => frame,
                hostile::Step::Open(segment) | hostile::Step::On(segment) => segment.frame(),
                hostile::Step::Pause(_) => {
                    // Some time.
                    seed.extend([255, 6]);
                    continue;
                }
            };
            if frame.len() > 1500 || seed.len() + frame.len() > MOST {
                continue;
            }
            match u8::try_from(frame.len()) {
                Ok(length @ ..=250) => seed.push(length),
                _ => {
                    seed.push(251);
                    seed.extend((frame.len() as u16).to_le_bytes());
                }
            }
            seed.extend(&frame);
            // As it is.
            seed.push(3);
        }
        fs::write(folder.join(format!("n{number:02}")), seed).unwrap();
    }
}
