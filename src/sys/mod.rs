//! The only module with `unsafe`: system calls that `rustix` does not cover.
//!
//! Each block carries a `SAFETY:` note; everything exported is safe to call.
#![allow(unsafe_code)]

pub mod args;
pub mod auxv;
pub mod child;
pub mod exec;
pub mod fd;
pub mod heap;
pub mod helper;
pub mod ip;
pub mod keyring;
pub mod landlock;
pub mod listen_fds;
pub mod lock;
pub mod mount;
pub(crate) mod netlink;
pub mod netns;
pub mod packet;
pub mod pidfd;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod tun;
pub mod udp;
