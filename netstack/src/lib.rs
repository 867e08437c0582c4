//! Sans-IO user-space NAT.
#![forbid(unsafe_code)]
