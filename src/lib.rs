//! crun-lite: a rootless container runtime with an in-process network.
//!
//! See `ARCHITECTURE.md` for the map. Dependencies point one way:
//! `cli` → {`bench`, `doctor`, `config`, `plan`, `container`, `net`} → `sys`; `container` and
//! `net` never import each other and meet in [`cli::run`].

pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod container;
pub mod control;
pub mod doctor;
mod errno;
pub mod error;
pub mod fs;
mod ipc;
pub mod keeper;
pub mod net;
pub mod ns;
pub mod plan;
pub mod security;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod tty;
