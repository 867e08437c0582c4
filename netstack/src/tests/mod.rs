//! The stack as a whole, under virtual time.
//!
//! [`world::World`] joins a [`crate::Stack`], a host whose sockets are in memory
//! ([`host::FakeHost`]), a link that behaves as a kernel's ([`shim`]) or worse,
//! and a container: a smoltcp interface ([`guest::Guest`]) next to frames made
//! by hand ([`frames`]). Everything that the stack sends is checked on its way
//! (checksums, lengths, virtio header), and after each call into the stack the
//! open host sockets are compared with its flow table.

mod frames;
mod guest;
mod host;
mod shim;
mod world;

mod dns;
mod hostile;
mod hostile_tcp;
mod icmp;
mod limits;
mod link;
mod liveness;
mod random;
mod tcp_close;
mod tcp_data;
mod tcp_open;
mod udp;
