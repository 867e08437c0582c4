//! What the threads of one client have done so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::histogram::Histogram;

/// Longest time until a thread notices that it is to stop.
const NOTICE: Duration = Duration::from_millis(100);
/// After a failure, before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// Most kinds of errors that are told apart.
const MOST_ERRORS: usize = 64;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Streams that went over as a whole.
    Streams,
    /// Requests over one TCP connection.
    TcpRr,
    /// Requests over one UDP flow.
    UdpRr,
    /// Requests over a UDP flow of their own.
    UdpFlow,
    /// Names asked for.
    Names,
    /// Connections opened, used and closed.
    Connections,
    /// Requests over one of many connections that are open.
    Flows,
}

impl Kind {
    /// Its name in tables and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::TcpRr => "tcp_rr",
            Self::UdpRr => "udp_rr",
            Self::UdpFlow => "udp_flow",
            Self::Names => "names",
            Self::Connections => "connections",
            Self::Flows => "flows",
        }
    }
}

/// What has been done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Threads at work.
    pub at_work: usize,
    /// Since the beginning; where nothing is at work any more, until then.
    pub seconds: f64,
    /// Checked payload to the server, bytes.
    pub bytes_up: u64,
    /// Checked payload from it, bytes.
    pub bytes_down: u64,
    /// Completed, from the beginning.
    pub done: BTreeMap<Kind, u64>,
    /// Connections that are held open now.
    pub open: u64,
    /// Datagrams that had to be sent again.
    pub sent_again: u64,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Times, since the last report.
    pub times: BTreeMap<Kind, Histogram>,
}

/// Shared by the threads of a client.
#[derive(Debug)]
pub(super) struct Tally {
    progress: Mutex<Progress>,
    stop: AtomicBool,
    began: Instant,
}

impl Tally {
    /// Nothing has been done, from now on.
    pub(super) fn new() -> Self {
        Self {
            progress: Mutex::default(),
            stop: AtomicBool::new(false),
            began: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Counts are whole whoever has held them.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn moved(&self, up: u64, down: u64) {
        let mut progress = self.lock();
        progress.bytes_up += up;
        progress.bytes_down += down;
    }

    pub(super) fn timed(&self, kind: Kind, time: Duration) {
        let mut progress = self.lock();
        *progress.done.entry(kind).or_default() += 1;
        progress.times.entry(kind).or_default().add(time);
    }

    pub(super) fn sent_again(&self) {
        self.lock().sent_again += 1;
    }

    pub(super) fn opened(&self) {
        self.lock().open += 1;
    }

    pub(super) fn closed(&self) {
        let mut progress = self.lock();
        progress.open = progress.open.saturating_sub(1);
    }

    pub(super) fn error(&self, kind: Kind, error: &LoadError) {
        let mut key = format!("{}: {error}", kind.name());
        let mut progress = self.lock();
        if progress.errors.len() >= MOST_ERRORS && !progress.errors.contains_key(&key) {
            "others".clone_into(&mut key);
        }
        *progress.errors.entry(key).or_default() += 1;
    }

    /// Counts the outcome; after a failure the caller does not go on at once.
    pub(super) fn outcome(&self, kind: Kind, began: Instant, result: Result<(), LoadError>) {
        match result {
            Ok(()) => self.timed(kind, began.elapsed()),
            Err(error) => {
                self.error(kind, &error);
                self.sleep_until(Instant::now() + PAUSE);
            }
        }
    }

    pub(super) fn begins(&self) {
        self.lock().at_work += 1;
    }

    pub(super) fn ends(&self) {
        let mut progress = self.lock();
        progress.at_work -= 1;
        progress.seconds = self.began.elapsed().as_secs_f64();
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but no longer than until everything is to stop; whether to go on.
    pub(super) fn sleep_until(&self, until: Instant) -> bool {
        loop {
            if self.is_stopped() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NOTICE));
        }
    }

    /// What there is so far; times are given once.
    pub(super) fn report(&self) -> Progress {
        let mut progress = self.lock();
        let times = std::mem::take(&mut progress.times);
        if progress.at_work > 0 {
            progress.seconds = self.began.elapsed().as_secs_f64();
        }
        Progress {
            times,
            ..progress.clone()
        }
    }
}

/// Turns that are so far apart; one that comes late puts the others off.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    every: Duration,
}

impl Pace {
    /// `number` tells the threads of a client apart: turns that all have at the same
    /// time would wait for each other, and times be those of a crowd.
    pub(super) fn per_second(rate: u32, number: u32) -> Self {
        let every = Duration::from_secs(1) / rate.max(1);
        // The golden section: no two are close, however many there are.
        let phase = (f64::from(number) * 0.618_034).fract();
        Self {
            next: Instant::now() + every.mul_f64(phase),
            every,
        }
    }

    /// Waits for the next turn; false when there is none.
    pub(super) fn wait(&mut self, tally: &Tally) -> bool {
        let now = Instant::now();
        self.next = (self.next + self.every).max(now);
        tally.sleep_until(self.next)
    }
}
