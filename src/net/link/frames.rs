//! Frames read from the link, several at a time.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::super::sockets::MAX_FRAME;
use super::ring::Queue;
use crate::sys::packet;

/// Most frames that are read before any is looked at. They are long ones, whose
/// payload goes to the host in one call for each flow, and which are acknowledged
/// once. With 8 four flows at once were a quarter slower; 64 gained nothing.
pub(super) const MOST: usize = packet::MOST_TAKEN;
/// A frame that is shorter is looked at before another is read: it is an
/// acknowledgement or a question, and somebody waits for the answer.
pub(super) const LONG: usize = 4096;

/// The receiving half of a link: takes frames in batches.
#[derive(Debug)]
pub(in super::super) struct Receiver(Source);

#[derive(Debug)]
enum Source {
    /// A system call for each frame.
    Read(Box<Frames>),
    /// Frames are looked at where the kernel has put them.
    Ring(Box<Queue>),
}

/// How many frames a batch has, and how many bytes.
pub(super) type Size = (usize, usize);

impl Receiver {
    /// For any descriptor that gives a frame a call and does not block.
    pub(in super::super) fn reading() -> Self {
        Self(Source::Read(Box::new(Frames::new())))
    }

    /// For packet sockets with rings.
    pub(super) fn rings(queue: Queue) -> Self {
        Self(Source::Ring(Box::new(queue)))
    }

    /// Takes what is there, up to a batch, the one before being dealt with; `false`
    /// when the link is empty now.
    ///
    /// # Errors
    /// The link is gone. (Of one with a ring, [`super::Sender::check`] says so.)
    pub(in super::super) fn read(&mut self, link: BorrowedFd<'_>) -> io::Result<bool> {
        match &mut self.0 {
            Source::Read(frames) => frames.read(link),
            Source::Ring(queue) => Ok(queue.read()),
        }
    }

    /// The batch has been dealt with; how many frames were lost before it.
    pub(in super::super) fn release(&mut self, link: BorrowedFd<'_>) -> u64 {
        match &mut self.0 {
            Source::Read(_) => 0,
            Source::Ring(queue) => queue.release(link),
        }
    }

    /// To be called now and then while frames are not read: there is little room in a
    /// ring. Not within a batch.
    pub(in super::super) fn relieve(&mut self) {
        if let Source::Ring(queue) = &mut self.0 {
            queue.relieve();
        }
    }

    /// The frames of the last batch.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (read, ring) = match &self.0 {
            Source::Read(frames) => (Some(frames.iter()), None),
            Source::Ring(queue) => (None, Some(queue.iter())),
        };
        let read = read.into_iter().flatten();
        read.chain(ring.into_iter().flatten())
    }

    /// Descriptors that frames come by, besides the link's own.
    pub(in super::super) fn more_descriptors(&self) -> &[OwnedFd] {
        match &self.0 {
            Source::Read(_) => &[],
            Source::Ring(queue) => queue.sockets(),
        }
    }

    /// How many frames the last batch has, and how many bytes.
    pub(in super::super) fn size(&self) -> Size {
        match &self.0 {
            Source::Read(frames) => frames.size(),
            Source::Ring(queue) => queue.size(),
        }
    }
}

/// A batch of frames.
#[derive(Debug)]
struct Frames {
    buffer: Vec<u8>,
    lengths: [usize; MOST],
    count: usize,
}

impl Frames {
    fn new() -> Self {
        Self {
            // Zeroed by the system, page by page, when they are first written.
            buffer: vec![0; MOST * MAX_FRAME],
            lengths: [0; MOST],
            count: 0,
        }
    }

    /// Reads what is there, up to a batch; `false` when the link is empty now.
    ///
    /// # Errors
    /// The link is gone.
    fn read(&mut self, link: BorrowedFd<'_>) -> io::Result<bool> {
        self.count = 0;
        for slot in self.buffer.chunks_exact_mut(MAX_FRAME) {
            let length = loop {
                match rustix::io::read(link, &mut *slot) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => break n,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(false),
                    // It will be met again, when what came before it is through.
                    Err(_) if self.count > 0 => return Ok(true),
                    Err(error) => return Err(error.into()),
                }
            };
            self.lengths[self.count] = length;
            self.count += 1;
            if length < LONG {
                break;
            }
        }
        Ok(true)
    }

    /// The frames of the last batch.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer
            .chunks_exact(MAX_FRAME)
            .zip(&self.lengths[..self.count])
            .filter_map(|(slot, length)| slot.get(..*length))
    }

    /// How many frames the last batch has, and how many bytes.
    fn size(&self) -> Size {
        let lengths = &self.lengths[..self.count];
        (lengths.len(), lengths.iter().sum())
    }
}
