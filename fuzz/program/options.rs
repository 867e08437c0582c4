//! The options of `crun-lite run`, one word a line: what they mean is told, or what is
//! wrong with them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

pub(crate) fn play(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n' || *byte == 0);
    let words: Vec<OsString> = words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    if let Err(error) = crun_lite::cli::meaning(&words) {
        assert!(!error.is_empty());
    }
}
