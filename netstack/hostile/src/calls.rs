//! N17 has no frames: the host's calls, each of which can fail at any time.

/// A call of the stack's host that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Connect,
    Send,
    Receive,
    UdpOpen,
    UdpSend,
    EchoOpen,
    EchoSend,
}

/// All of them.
pub const CALLS: [Call; 7] = [
    Call::Connect,
    Call::Send,
    Call::Receive,
    Call::UdpOpen,
    Call::UdpSend,
    Call::EchoOpen,
    Call::EchoSend,
];
