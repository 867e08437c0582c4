//! Frames read from the link, several at a time.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::sockets::MAX_FRAME;

/// Most frames that are read before any is looked at. They are long ones, whose
/// payload goes to the host in one call for each flow, and which are acknowledged
/// once. With 8 four flows at once were a quarter slower; 64 gained nothing.
const MOST: usize = 32;
/// A frame that is shorter is looked at before another is read: it is an
/// acknowledgement or a question, and somebody waits for the answer.
const LONG: usize = 4096;

/// A batch of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    lengths: [usize; MOST],
    count: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn read(&mut self, link: BorrowedFd<'_>) -> io::Result<bool> {
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer
            .chunks_exact(MAX_FRAME)
            .zip(&self.lengths[..self.count])
            .filter_map(|(slot, length)| slot.get(..*length))
    }

    /// How many frames the last batch has, and how many bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let lengths = &self.lengths[..self.count];
        (lengths.len(), lengths.iter().sum())
    }
}
