//! The caller's terminal, and the relay between it and the command's pty.

mod endpoint;
mod relay;
mod terminal;

pub use relay::{Relay, Tokens};
pub use terminal::RawTerminal;
