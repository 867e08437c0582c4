//! What the command may do.

pub mod caps;
