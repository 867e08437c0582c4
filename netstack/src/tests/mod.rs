//! The stack as a whole, under virtual time.
//!
//! [`world::World`] joins a [`crate::Stack`], a host whose sockets are in memory
//! ([`host::FakeHost`]), a link that behaves as a kernel's ([`shim`]) or worse,
//! and a container: a smoltcp interface ([`guest::Guest`]) next to frames made
//! by hand ([`frames`]). Everything that the stack sends is checked on its way
//! (checksums, lengths, virtio header), and after each call into the stack the
//! open host sockets are compared with its flow table.
//!
//! [`line::Line`] is for what TCP does about a bad link: the container is a
//! [`peer::Peer`], a TCP by the book that keeps no bytes but knows each of them,
//! every frame has a fate, and nothing but the crate's public surface is used.

mod fates;
mod frames;
mod guest;
mod host;
mod line;
mod peer;
mod shim;
mod stream;
mod world;

pub(crate) mod dns;
mod dns_names;
mod dns_race;
mod hostile;
mod icmp;
mod ipv6;
mod limits;
mod link;
mod liveness;
mod policy;
mod policy_dns;
mod random;
mod tcp_close;
mod tcp_data;
mod tcp_invite;
mod tcp_model;
mod tcp_open;
mod tcp_reassembly;
mod tcp_recovery;
mod tcp_weather;
mod tcp_window;
mod tcp_wrap;
mod udp;

pub(crate) use random::cases;
