//! The only module with `unsafe`: system calls that `rustix` does not cover.
//!
//! Each block carries a `SAFETY:` note; everything exported is safe to call.
#![allow(unsafe_code)]

pub mod auxv;
pub mod mount;
pub mod seccomp;
pub mod tun;
pub mod udp;
