//! The only module with `unsafe`: system calls that `rustix` does not cover.
//!
//! Each block carries a `SAFETY:` note; everything exported is safe to call.
#![allow(unsafe_code)]

pub mod args;
pub mod exec;
pub mod fd;
pub mod keyring;
pub mod process;
pub mod signal;
