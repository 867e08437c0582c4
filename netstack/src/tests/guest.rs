//! The container's kernel: a smoltcp interface on the link.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::frames::{self, ETHERNET, GATEWAY, GUEST, GUEST_MAC};
use crate::LinkConfig;

/// First local port of the guest's sockets; frames made by hand use those below.
pub(super) const FIRST_PORT: u16 = 40_000;

/// What a read on the guest's socket gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Data(Vec<u8>),
    Nothing,
    End,
    /// Reset, or never connected.
    Gone,
}

pub(super) struct Guest {
    iface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    arrived: VecDeque<Vec<u8>>,
    next_port: u16,
    /// The window last shown to a socket that has no more use for one.
    odd_window: u16,
    /// The last acknowledgement that each port was sent.
    last_ack: HashMap<u16, Vec<u8>>,
}

impl Guest {
    pub(super) fn new(link: LinkConfig, now: Instant) -> Self {
        let mut wire = Wire::new(link);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        config.random_seed = 7;
        let mut iface = Interface::new(config, &mut wire, now);
        iface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(GUEST), 24))
                .unwrap();
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Self {
            iface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            arrived: VecDeque::new(),
            next_port: FIRST_PORT,
            odd_window: 0,
            last_ack: HashMap::new(),
        }
    }

    /// Begins to connect from the next port.
    pub(super) fn connect(&mut self, to: SocketAddrV4, buffer: usize) -> SocketHandle {
        let port = self.next_port;
        self.next_port = if port == u16::MAX {
            FIRST_PORT
        } else {
            port + 1
        };
        self.connect_from(port, to, buffer)
    }

    pub(super) fn connect_from(
        &mut self,
        port: u16,
        to: SocketAddrV4,
        buffer: usize,
    ) -> SocketHandle {
        let ring = || SocketBuffer::new(vec![0; buffer]);
        let mut socket = Socket::new(ring(), ring());
        socket.set_nagle_enabled(false);
        socket
            .connect(
                self.iface.context(),
                (IpAddress::Ipv4(*to.ip()), to.port()),
                (IpAddress::Ipv4(GUEST), port),
            )
            .unwrap();
        self.sockets.add(socket)
    }

    /// Waits for a connection.
    pub(super) fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let ring = || SocketBuffer::new(vec![0; buffer]);
        let mut socket = Socket::new(ring(), ring());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(super) fn state(&self, handle: SocketHandle) -> State {
        self.sockets.get::<Socket<'_>>(handle).state()
    }

    /// Data or a FIN of this socket is not acknowledged.
    pub(super) fn owes(&self, handle: SocketHandle) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(handle);
        let fin = matches!(
            socket.state(),
            State::FinWait1 | State::Closing | State::LastAck
        );
        fin || socket.send_queue() > 0
    }

    pub(super) fn port(&self, handle: SocketHandle) -> u16 {
        self.sockets
            .get::<Socket<'_>>(handle)
            .local_endpoint()
            .map_or(0, |endpoint| endpoint.port)
    }

    pub(super) fn write(&mut self, handle: SocketHandle, data: &[u8]) -> usize {
        self.tcp(handle).send_slice(data).unwrap_or(0)
    }

    pub(super) fn read(&mut self, handle: SocketHandle) -> Read {
        let mut data = Vec::new();
        loop {
            let got = self.tcp(handle).recv(|bytes| {
                data.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            match got {
                Ok(0) if data.is_empty() => return Read::Nothing,
                Ok(0) => return Read::Data(data),
                Ok(_) => {}
                Err(_) if !data.is_empty() => return Read::Data(data),
                Err(RecvError::Finished) => return Read::End,
                Err(RecvError::InvalidState) => {
                    // Not yet connected is nothing to read either.
                    return match self.state(handle) {
                        State::SynSent | State::SynReceived => Read::Nothing,
                        _ => Read::Gone,
                    };
                }
            }
        }
    }

    /// Forgets a socket without a word, as a container that is killed does.
    pub(super) fn forget(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// A frame for the container.
    pub(super) fn receive(&mut self, frame: Vec<u8>) {
        self.arrived.push_back(frame);
    }

    /// Gives smoltcp a frame, around what it does and no kernel would.
    fn accept(&mut self, mut frame: Vec<u8>) {
        if let Some(segment) = frames::intact_tcp(&frame)
            && segment.flags == frames::ACK
            && segment.payload.is_empty()
        {
            self.last_ack.insert(segment.to.port(), frame.clone());
        }
        if self.acknowledges_fin(&frame) {
            // A window that changes makes it no repetition.
            self.odd_window = self.odd_window % 2 + 1;
            frames::set_window(&mut frame, self.odd_window);
        }
        // A FIN is taken even where data before it is cut off at the window.
        match frames::split_fin(&frame) {
            Some((data, fin)) => self.wire.incoming.extend([data, fin]),
            None => self.wire.incoming.push_back(frame),
        }
    }

    /// Whether this is a bare acknowledgement for a socket that has but its FIN
    /// outstanding: the third that repeats itself makes smoltcp 0.14 forget the
    /// FIN, which no kernel does.
    fn acknowledges_fin(&self, frame: &[u8]) -> bool {
        let Some(segment) = frames::intact_tcp(frame) else {
            return false;
        };
        let only_fin = self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(tcp) => {
                tcp.local_endpoint()
                    .is_some_and(|at| at.port == segment.to.port())
                    && matches!(
                        tcp.state(),
                        State::FinWait1 | State::Closing | State::LastAck
                    )
                    && tcp.send_queue() == 0
            }
        });
        segment.flags == frames::ACK && segment.payload.is_empty() && only_fin
    }

    /// Runs the interface; frames that it sends, with the size of the segments
    /// that a super-segment is to be cut into.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(Vec<u8>, Option<u16>)> {
        while let Some(frame) = self.arrived.pop_front() {
            self.accept(frame);
            self.iface.poll(now, &mut self.wire, &mut self.sockets);
        }
        self.iface.poll(now, &mut self.wire, &mut self.sockets);
        self.restart_timers(now);
        self.wire.outgoing.drain(..).collect()
    }

    /// A window that was shut over data in flight leaves smoltcp without a timer:
    /// the last acknowledgement, three times more, makes it send again.
    fn restart_timers(&mut self, now: Instant) {
        if self.iface.poll_at(now, &self.sockets).is_some() {
            return;
        }
        let stalled: Vec<u16> = self
            .sockets
            .iter()
            .filter_map(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(tcp) if tcp.send_queue() > 0 => tcp.local_endpoint(),
                smoltcp::socket::Socket::Tcp(_) => None,
            })
            .map(|at| at.port)
            .collect();
        for port in stalled {
            if let Some(frame) = self.last_ack.get(&port).cloned() {
                for _ in 0..3 {
                    self.wire.incoming.push_back(frame.clone());
                }
                self.iface.poll(now, &mut self.wire, &mut self.sockets);
            }
        }
    }

    pub(super) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        self.iface.poll_at(now, &self.sockets)
    }
}

struct Wire {
    capabilities: DeviceCapabilities,
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<(Vec<u8>, Option<u16>)>,
}

impl Wire {
    fn new(link: LinkConfig) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + usize::from(link.mtu);
        if link.vnet_header {
            // Left to the link when sending, verified when receiving.
            capabilities.checksum.tcp = Checksum::Rx;
            if link.tso {
                capabilities.segmentation.tcpv4 = NonZeroUsize::new(65_535);
            }
        }
        Self {
            capabilities,
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
        }
    }
}

struct Incoming(Vec<u8>);

struct Outgoing<'a> {
    frames: &'a mut Vec<(Vec<u8>, Option<u16>)>,
    segment: Option<u16>,
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((
            Incoming(frame),
            Outgoing {
                frames: &mut self.outgoing,
                segment: None,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing {
            frames: &mut self.outgoing,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.frames.push((frame, self.segment));
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(|size| size.get());
    }
}

/// The address of a remote in documentation networks (RFC 5737).
pub(super) fn remote(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, last), port)
}
