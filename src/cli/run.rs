//! `crun-lite run`: where container and network meet.
