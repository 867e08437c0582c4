//! The default root filesystem.
#![forbid(unsafe_code)]
