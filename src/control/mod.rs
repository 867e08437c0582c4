//! Talking to a running container: what is asked, what is answered, and how.
//!
//! # Theory of operation
//!
//! The parent listens on a Unix socket in the abstract namespace (unix(7)), whose
//! name is made of the user's id and the container's name: it ends with the
//! process, however that dies, and nothing is left behind. Anybody of the network
//! namespace could make a socket of that name or connect to it, so each side asks
//! the kernel who the other is (`SO_PEERCRED`) and talks to nobody else than the
//! same user.
//!
//! A connection carries one request and one answer, each a line of JSON, and ends.

mod client;
mod server;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Action, EgressRules, Publish, Transport};

pub use client::ask;
pub use server::{Server, parse};

/// Version of the messages; what has another is refused.
const VERSION: u32 = 1;
/// Longest request, bytes: as many rules as there may be, with long names.
const MAX_REQUEST: usize = 512 << 10;

/// What is asked of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "kebab-case")]
pub enum Request {
    /// Its published ports.
    PortList,
    /// Publish these; all or none.
    PortAdd(Vec<Publish>),
    /// Publish these no longer; all or none. Connections go on.
    PortRemove(Vec<Publish>),
    /// Its flows.
    NetFlows(
        /// 0, then where the answer before says to go on.
        usize,
    ),
    /// Its counters.
    NetStats,
    /// The rules about what it reaches.
    NetRules,
    /// Add these rules; all or none.
    NetRulesAdd(Action, Vec<String>),
    /// Take these rules back; all or none.
    NetRulesRemove(Action, Vec<String>),
    /// Set what is done where no rule says anything.
    NetDefault(Action),
}

#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    version: u32,
    #[serde(flatten)]
    request: Request,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::PortList`], and what is published after a change.
    Ports(Vec<Port>),
    /// To [`Request::NetFlows`].
    Flows {
        /// Some of them.
        flows: Vec<Flow>,
        /// Where to go on, unless these were the last.
        next: Option<usize>,
    },
    /// To [`Request::NetStats`].
    Stats(Vec<Counter>),
    /// To [`Request::NetRules`], and what they are after a change.
    Rules(EgressRules),
    /// It could not be done; nothing has changed.
    Error(String),
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What it speaks.
    pub protocol: Transport,
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port of the container.
    pub container_port: u16,
}

/// A flow of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp`, `dns` or `icmp`.
    pub protocol: String,
    /// The container's end.
    pub container: SocketAddr,
    /// The far end, as the container knows it.
    pub remote: SocketAddr,
    /// The state of the container's connection (RFC 9293, 3.3.2), or whether a
    /// datagram flow has been answered.
    pub state: String,
    /// Since it was opened, seconds.
    pub age: f64,
    /// Payload from the container, bytes.
    pub bytes_up: u64,
    /// Payload to the container, bytes.
    pub bytes_down: u64,
}

/// A counter or a gauge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub help: String,
    /// It can go down.
    pub gauge: bool,
    /// Its value.
    pub value: u64,
}

/// The name of a container's socket.
fn socket_name(user: u32, container: &str) -> Vec<u8> {
    format!("crun-lite/{user}/{container}").into_bytes()
}
