//! A stream that is read as it comes, and can be waited for.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What has come from a stream so far.
#[derive(Clone)]
pub(crate) struct Captured {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// How much of `bytes` earlier waits have passed.
    passed: usize,
    ended: bool,
}

impl Captured {
    /// Reads a stream to its end on a thread of its own.
    pub(crate) fn start(mut stream: impl Read + Send + 'static) -> Self {
        let captured = Self {
            shared: Arc::default(),
        };
        let shared = Arc::clone(&captured.shared);
        thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            loop {
                // A terminal whose last user is gone gives EIO: its end.
                let count = stream.read(&mut chunk).unwrap_or(0);
                let mut state = shared.0.lock().unwrap();
                state.bytes.extend_from_slice(&chunk[..count]);
                state.ended = count == 0;
                shared.1.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        captured
    }

    /// All that has come, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits for a text that no earlier wait has passed. The error is what came
    /// instead.
    pub(crate) fn wait_for(&self, text: &str, limit: Duration) -> Result<(), String> {
        let found = self.wait(limit, |state| {
            let new = &state.bytes[state.passed..];
            let at = new
                .windows(text.len())
                .position(|window| window == text.as_bytes())?;
            state.passed += at + text.len();
            Some(())
        });
        found.ok_or_else(|| format!("no {text:?} within {limit:?} in {:?}", self.text()))
    }

    /// Waits for the end of the stream.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        self.wait(limit, |state| state.ended.then_some(()))
            .is_some()
    }

    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.0.lock().unwrap();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return None;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap().0;
        }
    }
}
