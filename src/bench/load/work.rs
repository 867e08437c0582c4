//! A client that works in several threads until it is told to stop, or done.
//!
//! # Protocol
//! ```text
//!   client   -> Started              it runs, and serves if it is to
//!            <- go
//!            <- report
//!            -> Progress             so far; as often as asked
//!            <- stop
//!            -> Progress             all threads have come to their end
//! ```
//! Then it only serves, until its standard input ends.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::exchange::Exchange;
use super::tally::{Kind, Tally};
use super::{LoadError, Said, churn, connect, failed, hold, mix, orders, say, server};

/// Where the servers are, as they are reached from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// TCP servers of ours.
    pub tcp: Vec<SocketAddr>,
    /// A UDP echo server.
    pub udp: Option<SocketAddr>,
    /// A resolver of ours, or who forwards to it.
    pub names: Option<SocketAddr>,
}

/// The shape of a mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// Streams at once, of each direction.
    pub streams: u32,
    /// Bytes per second of each.
    pub rate: u64,
    /// Connect to nobody as well.
    pub refused: bool,
}

/// What a client is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Everything at once, until it is told to stop.
    Mix(Mix),
    /// Hold connections that echo, until it is told to stop.
    Hold {
        /// How many.
        flows: usize,
    },
    /// Open, use and close connections.
    Churn {
        /// How many in all.
        cycles: u64,
        /// How many at a time.
        workers: u32,
    },
    /// Move bytes each way at once, and check them.
    Integrity {
        /// In all, each way.
        bytes: u64,
        /// Connections at once.
        flows: u32,
    },
}

/// Everything about a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// To whom.
    pub target: Target,
    /// What.
    pub job: Job,
    /// Serves TCP and UDP here as well.
    pub serve: Option<SocketAddr>,
}

impl std::str::FromStr for Work {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

type Part<'a> = Box<dyn Fn() + Send + 'a>;

/// Carries `work` out as it is told.
///
/// # Errors
/// It cannot talk with whoever started it, or not start.
pub fn work(work: &Work, out: &mut dyn Write) -> Result<(), LoadError> {
    let orders = orders()?;
    if let Some(at) = work.serve {
        server::serve_beside(at)?;
    }
    say(out, &Said::Started)?;
    let ended = || LoadError::Nothing("standard input has ended");
    orders.recv().map_err(|_| ended())?;
    let tally = Tally::new();
    let left = AtomicU64::new(0);
    thread::scope(|scope| {
        for part in parts(work, &left, &tally) {
            let tally = &tally;
            tally.begins();
            let started = thread::Builder::new().spawn_scoped(scope, move || {
                part();
                tally.ends();
            });
            if let Err(error) = started {
                tally.stop();
                return Err(failed("start a thread")(error));
            }
        }
        loop {
            match orders.recv().as_deref() {
                Ok("stop") => break,
                Ok(_) => say(out, &Said::Progress(tally.report()))?,
                Err(_) => return Err(ended()),
            }
        }
        tally.stop();
        Ok(())
    })?;
    say(out, &Said::Progress(tally.report()))?;
    while orders.recv().is_ok() {}
    Ok(())
}

/// The threads of a client.
fn parts<'a>(work: &'a Work, left: &'a AtomicU64, tally: &'a Tally) -> Vec<Part<'a>> {
    let to = &work.target.tcp;
    match &work.job {
        Job::Mix(mix) => mix::parts(mix, &work.target, tally),
        Job::Hold { flows } => {
            vec![Box::new(|| {
                if let Err(error) = hold::hold(to, *flows, tally) {
                    tally.error(Kind::Flows, &error);
                }
            })]
        }
        Job::Churn { cycles, workers } => {
            left.store(*cycles, std::sync::atomic::Ordering::Relaxed);
            let part = || -> Part<'a> { Box::new(|| churn::cycles(to, left, tally)) };
            (0..*workers).map(|_| part()).collect()
        }
        Job::Integrity { bytes, flows } => {
            let each = bytes.div_ceil(u64::from(*flows).max(1));
            let part = |(number, to): (u32, &'a SocketAddr)| -> Part<'a> {
                Box::new(move || {
                    let exchange = Exchange {
                        key: u64::from(number),
                        up: each,
                        down: each,
                        rate: 0,
                    };
                    let began = Instant::now();
                    let result = connect(*to)
                        .and_then(|stream| exchange.run(stream, &|up, down| tally.moved(up, down)));
                    tally.outcome(Kind::Streams, began, result);
                })
            };
            (0..*flows).zip(to.iter().cycle()).map(part).collect()
        }
    }
}
