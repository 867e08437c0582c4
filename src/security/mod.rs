//! What the command may do: capabilities, `no_new_privs`, system-call filter.

pub mod caps;
