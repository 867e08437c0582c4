//! A link that loses, delays, repeats and alters frames, as netem(8) does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::net::sockets::MAX_FRAME;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// How soon a direction notices that it is to end.
const ATTENTION: Duration = Duration::from_millis(50);

/// What befalls frames, in thousandths of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) lose: u16,
    /// Held back for up to [`Weather::delay`], so that others overtake it.
    pub(super) delay_some: u16,
    pub(super) repeat: u16,
    /// One bit or byte behind the Ethernet header is changed. Only IPv4 is:
    /// ARP has no checksum, so nobody could tell.
    pub(super) alter: u16,
    pub(super) delay: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) delayed: u64,
    pub(super) repeated: u64,
    pub(super) altered: u64,
}

/// Both directions between two descriptors, a thread each.
pub(super) struct BadLink {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<Count>; 2],
}

impl BadLink {
    /// Neither descriptor blocks.
    pub(super) fn start(near: &OwnedFd, far: &OwnedFd, weather: Weather, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [(near, far), (far, near)].map(|(from, to)| {
            let mut way = Way {
                from: from.try_clone().unwrap(),
                to: to.try_clone().unwrap(),
                weather,
                rng: fastrand::Rng::with_seed(seed ^ u64::from(std::ptr::eq(from, near))),
                held: BTreeMap::new(),
                sequence: 0,
                count: Count::default(),
                stop: Arc::clone(&stop),
            };
            thread::spawn(move || way.run())
        });
        Self { stop, threads }
    }

    /// What has befallen the frames from the near and from the far descriptor.
    pub(super) fn end(self) -> [Count; 2] {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.map(|thread| thread.join().unwrap())
    }
}

/// One direction.
struct Way {
    from: OwnedFd,
    to: OwnedFd,
    weather: Weather,
    rng: fastrand::Rng,
    held: BTreeMap<(Instant, u64), Vec<u8>>,
    sequence: u64,
    count: Count,
    stop: Arc<AtomicBool>,
}

impl Way {
    fn run(&mut self) -> Count {
        let mut buffer = vec![0; MAX_FRAME];
        while !self.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            while let Some(entry) = self.held.first_entry()
                && entry.key().0 <= now
            {
                let frame = entry.remove();
                self.pass(&frame);
            }
            match rustix::io::read(&self.from, &mut buffer[..]) {
                // Closed: what is left is for nobody.
                Ok(0) => break,
                Ok(length) => self.frame(now, &mut buffer[..length]),
                Err(Errno::AGAIN) => {
                    let due = self.held.keys().next().map(|(at, _)| *at - now);
                    wait(
                        &self.from,
                        PollFlags::IN,
                        due.unwrap_or(ATTENTION).min(ATTENTION),
                    );
                }
                Err(error) => panic!("read a frame: {error}"),
            }
        }
        self.count
    }

    fn happens(&mut self, thousandths: u16) -> bool {
        self.rng.u16(0..1000) < thousandths
    }

    fn frame(&mut self, now: Instant, frame: &mut [u8]) {
        self.count.frames += 1;
        self.count.bytes += frame.len() as u64;
        if self.happens(self.weather.lose) {
            self.count.lost += 1;
            return;
        }
        if self.happens(self.weather.repeat) {
            self.count.repeated += 1;
            self.pass(frame);
        }
        if frame.get(12..14) == Some(&[8, 0]) && self.happens(self.weather.alter) {
            self.count.altered += 1;
            let at = self.rng.usize(ETHERNET..frame.len());
            // A bit of it, or all of it at random, but never nothing.
            frame[at] ^= if self.rng.bool() {
                1 << self.rng.u8(0..8)
            } else {
                self.rng.u8(1..)
            };
        }
        if self.happens(self.weather.delay_some) {
            self.count.delayed += 1;
            let late = self.weather.delay.mul_f64(self.rng.f64());
            self.sequence += 1;
            self.held
                .insert((now + late, self.sequence), frame.to_vec());
        } else {
            self.pass(frame);
        }
    }

    /// Waits for room, so that no frame is lost but by intent.
    fn pass(&self, frame: &[u8]) {
        while !self.stop.load(Ordering::SeqCst) {
            match rustix::io::write(&self.to, frame) {
                // An altered frame may be one that the kernel will not have.
                Ok(_) | Err(Errno::INVAL | Errno::PIPE) => return,
                Err(Errno::AGAIN) => wait(&self.to, PollFlags::OUT, ATTENTION),
                Err(error) => panic!("write a frame: {error}"),
            }
        }
    }
}

fn wait(fd: &OwnedFd, what: PollFlags, limit: Duration) {
    let limit = Timespec::try_from(limit).unwrap();
    match poll(&mut [PollFd::new(&fd.as_fd(), what)], Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
}
