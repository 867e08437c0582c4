//! `--pcap`: what passes the link, as a file that tcpdump and Wireshark read.
//!
//! # Theory of operation
//!
//! The classic format (draft-ietf-opsawg-pcap), with nanoseconds. Frames are
//! gathered and written at the end of each turn of the loop, or when a buffer is
//! full, and the last of them when the capture is dropped. A super-segment is one
//! frame, and a checksum that is left to the receiver is shown as it is: undone.
//!
//! A file that is full becomes `FILE.1`, that one `FILE.2` and so on; beyond the
//! number of files the oldest goes. With one file the capture ends when it is full.
//! An error ends the capture, never the network.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netstack::VNET_HEADER_LEN;

use super::files::{Files, Folder, NextFile};
use crate::config::LogFile;
use crate::error::Error;

/// Magic number of a file with nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// More than the longest frame; what tcpdump writes.
const SNAPLEN: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
/// Bytes that are gathered before they are written, whatever the turn.
const BUFFER: usize = 256 << 10;

/// A capture of the link.
#[derive(Debug)]
pub struct Capture {
    files: Files,
    /// The file that is written; `None`: the capture has ended.
    file: Option<File>,
    /// Bytes of the file, those in the buffer included.
    length: u64,
    buffer: Vec<u8>,
    /// Bytes in front of the Ethernet header.
    skip: usize,
}

impl Capture {
    /// Makes the file. The capture ends when it is full, unless
    /// [`Capture::set_next`] has been given what the folder makes next.
    ///
    /// # Errors
    /// It cannot be made, or something that is no file has its name.
    pub fn create(pcap: &LogFile) -> Result<(Self, Folder), Error> {
        let failed = |source: io::Error| Error::Path {
            option: "--pcap",
            path: pcap.path.clone(),
            source,
        };
        let folder = Folder::open(pcap).map_err(failed)?;
        let file = folder.create().map_err(failed)?;
        let mut capture = Self {
            files: Files::new(&folder, pcap),
            file: Some(file),
            length: 0,
            buffer: Vec::with_capacity(BUFFER),
            skip: 0,
        };
        capture.begin_file();
        if let Err(error) = capture.write() {
            // Told as the error that it is, and no empty file stays.
            capture.file = None;
            if let Err(error) = folder.take_back() {
                tracing::warn!("--pcap: remove {:?}: {error}", capture.files.name());
            }
            return Err(failed(error));
        }
        Ok((capture, folder))
    }

    /// Where the next file comes from.
    pub fn set_next(&mut self, next: NextFile) {
        self.files.set_next(next);
    }

    /// Says whether frames begin with a virtio header, which is not captured.
    pub(super) fn set_vnet_header(&mut self, vnet_header: bool) {
        self.skip = if vnet_header { VNET_HEADER_LEN } else { 0 };
    }

    /// Adds a frame, whose parts follow one another.
    pub(super) fn frame(&mut self, parts: &[IoSlice<'_>]) {
        if self.file.is_none() {
            return;
        }
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let length = whole.saturating_sub(self.skip);
        let record = RECORD_HEADER_LEN + length;
        if self.length + record as u64 > self.files.size()
            && let Err(error) = self.next_file()
        {
            return self.fail(&error);
        }
        if self.buffer.len() + record > BUFFER
            && let Err(error) = self.write()
        {
            return self.fail(&error);
        }
        if self.file.is_none() {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        // The format's seconds end in 2106.
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        // No frame is nearly as long as a field can say.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        for field in [seconds, now.subsec_nanos(), length, length] {
            self.buffer.extend(field.to_ne_bytes());
        }
        let mut skip = self.skip;
        for part in parts {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            self.buffer.extend_from_slice(rest);
        }
        self.length += record as u64;
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) {
        if let Err(error) = self.write() {
            self.fail(&error);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// The file is full.
    fn next_file(&mut self) -> io::Result<()> {
        self.write()?;
        self.file = None;
        self.file = self.files.next()?;
        if self.file.is_some() {
            self.begin_file();
        } else {
            tracing::info!("{:?} is full: the capture has ended", self.files.name());
        }
        Ok(())
    }

    fn begin_file(&mut self) {
        self.buffer.extend(MAGIC.to_ne_bytes());
        for field in VERSION {
            self.buffer.extend(field.to_ne_bytes());
        }
        // Time zone and accuracy are not used.
        for field in [0, 0, SNAPLEN, LINKTYPE_ETHERNET] {
            self.buffer.extend(field.to_ne_bytes());
        }
        self.length = FILE_HEADER_LEN as u64;
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(
            "--pcap: {:?}: {error}: the capture has ended",
            self.files.name()
        );
        self.file = None;
        self.buffer = Vec::new();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use super::*;

    fn pcap(path: PathBuf, size: u64, files: u32) -> LogFile {
        LogFile { path, size, files }
    }

    /// One whose files are made by this process.
    fn written_by_us(path: PathBuf, size: u64, files: u32) -> Capture {
        let (mut capture, folder) = Capture::create(&pcap(path, size, files)).unwrap();
        capture.set_next(Box::new(move || folder.next()));
        capture
    }

    /// The frames of a file.
    fn frames(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(
            [word(0), word(16), word(20)],
            [0xa1b2_3c4d, 262_144, 1],
            "{path:?}"
        );
        assert_eq!(
            bytes[4..8],
            [2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat()
        );
        let (mut frames, mut at) = (Vec::new(), 24);
        while at < bytes.len() {
            let age = SystemTime::now()
                .duration_since(UNIX_EPOCH + Duration::new(word(at).into(), word(at + 4)))
                .unwrap();
            assert!(age < Duration::from_secs(3600));
            assert_eq!(word(at + 8), word(at + 12));
            let length = usize::try_from(word(at + 8)).unwrap();
            frames.push(bytes[at + 16..at + 16 + length].to_vec());
            at += 16 + length;
        }
        frames
    }

    #[test]
    fn frames_are_written_without_the_virtio_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a,b.pcap");
        let mut capture = written_by_us(path.clone(), 1 << 20, 2);
        assert_eq!(frames(&path), Vec::<Vec<u8>>::new());
        let long = vec![7; 300_000];
        let head: Vec<u8> = (0..24).collect();
        let write = |capture: &mut Capture, parts: &[&[u8]]| {
            let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            capture.frame(&parts);
        };
        write(&mut capture, &[b"one", b"two"]);
        capture.set_vnet_header(true);
        write(&mut capture, &[&head, &long]);
        write(&mut capture, &[&head[..4], &head[4..9], &head[9..]]);
        write(&mut capture, &[&head[..9]]);
        capture.flush();
        let expected = [
            b"onetwo".to_vec(),
            [&head[10..], &long].concat(),
            head[10..].to_vec(),
            vec![],
        ];
        assert_eq!(frames(&path), expected);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // What was not flushed is written at the end.
        write(&mut capture, &[&head]);
        drop(capture);
        assert_eq!(frames(&path).len(), 5);
    }

    #[test]
    fn full_files_are_kept_as_far_as_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump");
        let name = |age: u32| dir.path().join(format!("dump.{age}"));
        // Room for three frames of 100 bytes.
        let size = 24 + 3 * 116;
        let mut capture = written_by_us(path.clone(), size, 3);
        for n in 0..11_u8 {
            capture.frame(&[IoSlice::new(&[n; 100])]);
        }
        drop(capture);
        let first = |path: &Path| frames(path).iter().map(|f| f[0]).collect::<Vec<_>>();
        assert_eq!(first(&path), [9, 10]);
        assert_eq!(first(&name(1)), [6, 7, 8]);
        assert_eq!(first(&name(2)), [3, 4, 5]);
        assert!(!name(3).exists());
        for file in fs::read_dir(dir.path()).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= size);
        }
        // One file: the first frames.
        let mut capture = written_by_us(path.clone(), size, 1);
        for n in 0..11_u8 {
            capture.frame(&[IoSlice::new(&[n; 100])]);
        }
        drop(capture);
        assert_eq!(first(&path), [0, 1, 2]);
    }

    #[test]
    fn a_file_that_is_there_is_replaced_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("dump"), dir.path().join("other"));
        fs::write(&other, "precious").unwrap();
        fs::hard_link(&other, &path).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        drop(written_by_us(path.clone(), 1 << 20, 2));
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        Capture::create(&pcap(path, 1 << 20, 2)).unwrap_err();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        for bad in ["none/dump", "..", "", "other/dump"] {
            Capture::create(&pcap(dir.path().join(bad), 1 << 20, 2)).unwrap_err();
        }
    }

    #[test]
    fn an_error_ends_the_capture_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump");
        let mut capture = written_by_us(path, 400, 2);
        capture.file = Some(File::open("/dev/null").unwrap());
        capture.frame(&[IoSlice::new(&[1; 100])]);
        capture.flush();
        assert!(capture.file.is_none());
        for _ in 0..10 {
            capture.frame(&[IoSlice::new(&[1; 100])]);
        }
        assert!(capture.buffer.is_empty());
        // The directory is gone when the file is full.
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let mut capture = written_by_us(sub.join("dump"), 300, 2);
        fs::remove_dir_all(&sub).unwrap();
        for _ in 0..10 {
            capture.frame(&[IoSlice::new(&[1; 100])]);
        }
        assert!(capture.file.is_none());
    }
}
