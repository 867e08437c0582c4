//! Packet sockets with a receive ring: packet(7) and the kernel's
//! `Documentation/networking/packet_mmap.rst`.
//!
//! # Theory of operation
//! The kernel writes each frame into the next slot of a ring of memory that it
//! shares with us, and then sets the slot's status word to "user's". We read the
//! frame where it lies and set the word back to "kernel's". At any time a slot
//! belongs to one side alone, and it changes hands by that word, which is written
//! with release and read with acquire order. Where the next slot is not the
//! kernel's, it drops the frame.
//!
//! Version 2 of the layout: each frame is there as soon as it has come. In version
//! 3 frames are packed, but a block of them is handed over only when it is full
//! or after a millisecond or more, and whoever waits for an answer would wait
//! that long.
//!
//! In version 2 a slot holds one frame, whatever its length, so slots for the
//! longest frames would be few: there are three rings, each of a socket of its own
//! with a filter by length. What they hold is taken in the order of the kernel's
//! time stamps, which each frame gets when it comes.

// C sizes in the integer types that the kernel's structures have.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ip::set_option;

/// Bytes of `struct virtio_net_hdr`, which the kernel writes right before the frame.
const VNET_HEADER: usize = 10;
/// Memory that the kernel allocates in one piece, where it finds that; bytes.
const BLOCK: usize = 2 << 20;
/// What the kernel's header and the virtio header take of a slot, at most.
const HEAD: usize = 80;

/// A ring's measures.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// Bytes of a slot.
    slot: usize,
    /// Pieces of memory.
    blocks: usize,
}

impl Class {
    const fn slots_per_block(self) -> usize {
        BLOCK / self.slot
    }

    const fn slots(self) -> usize {
        self.blocks * self.slots_per_block()
    }

    const fn memory(self) -> usize {
        self.blocks * BLOCK
    }

    /// The longest frame, without a virtio header.
    const fn longest(self) -> usize {
        self.slot - HEAD
    }

    /// Where a slot begins.
    const fn offset(self, slot: usize) -> usize {
        (slot / self.slots_per_block()) * BLOCK + (slot % self.slots_per_block()) * self.slot
    }
}

/// How many rings there are.
pub const RINGS: usize = 3;
/// 1024 slots for acknowledgements, first segments, and all that fits in an Ethernet
/// frame; 512 for what a program writes at a time; 62 for the longest frames, 64 KiB of
/// IP and an Ethernet header with the usual `gso_max_size`. 10 MiB together.
const CLASSES: [Class; RINGS] = [
    Class {
        slot: 2048,
        blocks: 1,
    },
    Class {
        slot: 8192,
        blocks: 2,
    },
    Class {
        slot: 65_664,
        blocks: 2,
    },
];
/// Most frames that are ours at a time.
pub const MOST_TAKEN: usize = 32;

/// Makes a packet socket that hears of nothing yet. Frames in both directions carry
/// a virtio header, and those that the socket sends do not come back to it.
///
/// # Errors
/// EPERM without CAP_NET_RAW; otherwise as setsockopt(2).
pub fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just put this descriptor here for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let fd = borrow(&socket);
    set_option(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set_option(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // A wish: there is no queue to pass by, but code.
    let _ = set_option(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1);
    Ok(socket)
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

/// Gives a packet socket the ring `n` of [`RINGS`], and the filter for what belongs
/// there. The ring is there as long as the socket is, whoever maps it.
///
/// # Errors
/// ENOMEM; otherwise as setsockopt(2).
pub fn make_ring(socket: BorrowedFd<'_>, n: usize) -> io::Result<()> {
    let class = *CLASSES.get(n).ok_or(io::ErrorKind::InvalidInput)?;
    let above = n.checked_sub(1).and_then(|n| CLASSES.get(n));
    let most = if n + 1 < RINGS {
        class.longest()
    } else {
        // To be taken, and seen to be too long.
        u32::MAX as usize
    };
    filter_by_length(socket, above.map_or(0, |class| class.longest()), most)?;
    let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
    set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, version)?;
    let request = libc::tpacket_req {
        tp_block_size: BLOCK as libc::c_uint,
        tp_block_nr: class.blocks as libc::c_uint,
        tp_frame_size: class.slot as libc::c_uint,
        tp_frame_nr: class.slots() as libc::c_uint,
    };
    // SAFETY: the option value is a live tpacket_req of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_RX_RING,
            std::ptr::from_ref(&request).cast(),
            size_of::<libc::tpacket_req>() as libc::socklen_t,
        )
    };
    check(result)
}

/// Has a socket hear of frames of more than `above` bytes and at most `most` alone.
fn filter_by_length(socket: BorrowedFd<'_>, above: usize, most: usize) -> io::Result<()> {
    let instruction = |code: u32, jt, jf, k: usize| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k: k as u32,
    };
    let longer = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0, 0),
        instruction(longer, 2, 0, most),
        instruction(longer, 0, 1, above),
        instruction(end, 0, 0, u32::MAX as usize),
        instruction(end, 0, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option value is a live sock_fprog of the length given, whose pointer and
    // length are those of a live array.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}

/// Binds a packet socket to an interface: from now on it hears of every frame that
/// the interface receives.
///
/// # Errors
/// As bind(2).
pub fn bind(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain old data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address is a live sockaddr_ll of the length given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result)
}

/// Frames that were lost since the last call because the ring was full.
///
/// # Errors
/// As getsockopt(2).
pub fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: tpacket_stats is plain old data for which all zeroes is a valid value.
    let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: both pointers are to live objects, and `length` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut stats).cast(),
            &raw mut length,
        )
    };
    check(result)?;
    Ok(stats.tp_drops)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Where a frame lies, with its virtio header.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    ring: usize,
    offset: usize,
    length: usize,
}

/// One ring, mapped. Nobody but the kernel writes to it: only this process has the
/// socket.
#[derive(Debug)]
struct Ring {
    memory: NonNull<u8>,
    class: Class,
    /// The slot where the next frame will be.
    next: usize,
    /// How many before it are ours.
    taken: usize,
}

impl Ring {
    fn map(socket: BorrowedFd<'_>, class: Class) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, which no other object
        // is in. The kernel refuses any length but that of the ring.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                class.memory(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            memory: NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            class,
            next: 0,
            taken: 0,
        })
    }

    /// The status word of a slot.
    fn status(&self, slot: usize) -> &AtomicU32 {
        let offset = self.class.offset(slot % self.class.slots());
        // SAFETY: every slot is within the mapping, which lives as long as `self`, and begins
        // with a 32-bit status word at an address that is a multiple of 16. Kernel and process
        // both access it as one word, we by this reference alone.
        unsafe { AtomicU32::from_ptr(self.memory.as_ptr().add(offset).cast()) }
    }

    /// The header of the next frame, and its status, if there is one.
    fn peek(&self) -> Option<(u32, libc::tpacket2_hdr)> {
        let status = self.status(self.next).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 || self.taken >= self.class.slots() {
            return None;
        }
        let offset = self.class.offset(self.next);
        // SAFETY: the slot is ours, so the kernel does not write to it, and has written the
        // header that it begins with; its address is a multiple of 16.
        let header = unsafe {
            self.memory
                .as_ptr()
                .add(offset)
                .cast::<libc::tpacket2_hdr>()
                .read()
        };
        Some((status, header))
    }

    fn give_back(&mut self) {
        let slots = self.class.slots();
        let first = self.next + slots - self.taken;
        for slot in first..first + self.taken {
            self.status(slot)
                .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.taken = 0;
    }

    fn is_filling(&self) -> bool {
        let middle = self.next + self.class.slots() / 2;
        self.status(middle).load(Ordering::Relaxed) & libc::TP_STATUS_USER != 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own, and every reference into it borrows it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.class.memory()) };
    }
}

/// The receive rings of an interface, mapped.
#[derive(Debug)]
pub struct Rings {
    rings: [Ring; RINGS],
    /// Frames that are ours, in the order in which they came.
    taken: [Place; MOST_TAKEN],
    count: usize,
    losing: bool,
}

impl Rings {
    /// Maps the rings that [`make_ring`] has made.
    ///
    /// # Errors
    /// As mmap(2); EINVAL where there is no such ring.
    pub fn map(sockets: [BorrowedFd<'_>; RINGS]) -> io::Result<Self> {
        let [a, b, c] = sockets;
        let rings = [
            Ring::map(a, CLASSES[0])?,
            Ring::map(b, CLASSES[1])?,
            Ring::map(c, CLASSES[2])?,
        ];
        Ok(Self {
            rings,
            taken: [Place::default(); MOST_TAKEN],
            count: 0,
            losing: false,
        })
    }

    /// Takes the next frame if there is one: its length with the virtio header, or 0
    /// when it can not be used. [`MOST_TAKEN`] at most until they are given back.
    pub fn take(&mut self) -> Option<usize> {
        if self.count >= MOST_TAKEN {
            return None;
        }
        let waiting = self.rings.iter().enumerate();
        let waiting = waiting.filter_map(|(n, ring)| Some((n, ring.peek()?)));
        let (n, (status, header)) =
            waiting.min_by_key(|(_, (_, header))| (header.tp_sec, header.tp_nsec))?;
        self.losing |= status & libc::TP_STATUS_LOSING != 0;
        let ring = &mut self.rings[n];
        let begin = usize::from(header.tp_mac).saturating_sub(VNET_HEADER);
        let end = usize::from(header.tp_mac) + header.tp_snaplen as usize;
        // Cut short: longer than any that we have let the interface send. With a tag: of a
        // VLAN, in which there is nobody but who has sent it.
        let usable = header.tp_snaplen == header.tp_len
            && status & libc::TP_STATUS_VLAN_VALID == 0
            && begin >= size_of::<libc::tpacket2_hdr>()
            && end <= ring.class.slot;
        let length = if usable { end - begin } else { 0 };
        self.taken[self.count] = Place {
            ring: n,
            offset: ring.class.offset(ring.next) + begin,
            length,
        };
        self.count += 1;
        ring.next = (ring.next + 1) % ring.class.slots();
        ring.taken += 1;
        Some(length)
    }

    /// The frames taken, each with its virtio header, the oldest first.
    pub fn taken(&self) -> impl Iterator<Item = &[u8]> {
        self.taken[..self.count]
            .iter()
            .filter(|place| place.length > 0)
            .map(|place| {
                let memory = self.rings[place.ring].memory;
                // SAFETY: `take` has made sure that this is within a slot that is ours, and
                // it is ours until `give_back`, which needs `self` alone. The kernel does not
                // write to it until then.
                unsafe {
                    std::slice::from_raw_parts(memory.as_ptr().add(place.offset), place.length)
                }
            })
    }

    /// Gives the taken slots back to the kernel.
    pub fn give_back(&mut self) {
        self.rings.iter_mut().for_each(Ring::give_back);
        self.count = 0;
    }

    /// Whether at least half of the slots of a ring hold frames that have not been
    /// taken.
    pub fn is_filling(&self) -> bool {
        self.rings.iter().any(Ring::is_filling)
    }

    /// Whether the kernel has said that frames were lost, since this was last asked.
    pub fn is_losing(&mut self) -> bool {
        std::mem::take(&mut self.losing)
    }
}
