//! Pushes frames through the whole stack at full speed, with the checks of the model.
//!
//! ```text
//! cargo run --profile blast -p netmodel --bin blaster -- --frames 1000000000
//! ```
//!
//! A find ends the run with exit code 1 and the command that plays it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a tool for tests"
)]

use std::io::{IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netmodel::blast::{self, ROUND, Round};

const HELP: &str = "\
Usage: blaster [OPTIONS]

  --frames N     frames of the container, at least (1000000; k, m and g are understood)
  --seconds N    end after so many seconds instead
  --seed S       seed of the first round (random, and printed)
  --round N      frames of a round, each of which begins anew with the next seed (200000)
  --pcap FILE    begin with the frames of this capture, too; may be repeated
  --json         print the report as JSON on standard output
  --keep-going   look for more finds after the first
  --help
";

/// A frame that takes longer than this is a find, if it does so twice.
const HANG: Duration = Duration::from_millis(100);
/// No progress for so long is a find.
const STUCK: Duration = Duration::from_secs(20);

struct Options {
    frames: u64,
    seconds: Option<u64>,
    seed: u64,
    round: u64,
    pcaps: Vec<String>,
    json: bool,
    keep_going: bool,
}

fn number(word: &str) -> Option<u64> {
    let (digits, factor) = match word.char_indices().next_back()? {
        (at, 'k') => (&word[..at], 1000),
        (at, 'm') => (&word[..at], 1_000_000),
        (at, 'g') => (&word[..at], 1_000_000_000),
        _ => (word, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn options() -> Result<Option<Options>, String> {
    let random = || {
        let mut bytes = [0; 4];
        let mut file = std::fs::File::open("/dev/urandom").ok()?;
        std::io::Read::read_exact(&mut file, &mut bytes).ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let mut options = Options {
        frames: 1_000_000,
        seconds: None,
        seed: random().unwrap_or(1),
        round: ROUND,
        pcaps: Vec::new(),
        json: false,
        keep_going: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let told = |text: String| number(&text).ok_or(format!("{word}: {text} is no number"));
        match word.as_str() {
            "--frames" => options.frames = told(value()?)?,
            "--seconds" => {
                options.seconds = Some(told(value()?)?);
                options.frames = u64::MAX;
            }
            "--seed" => options.seed = told(value()?)?,
            "--round" => options.round = told(value()?)?.max(1),
            "--pcap" => options.pcaps.push(value()?),
            "--json" => options.json = true,
            "--keep-going" => options.keep_going = true,
            "--help" => return Ok(None),
            _ => return Err(format!("{word} is no option; see --help")),
        }
    }
    Ok(Some(options))
}

/// Resident memory, KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_ascii_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

struct Find {
    seed: u64,
    what: String,
}

#[derive(Default)]
struct Totals {
    rounds: u64,
    frames_in: u64,
    frames_out: u64,
    connects: u64,
    bytes_up: u64,
    bytes_down: u64,
    slowest: Duration,
    slowest_seed: u64,
    memory_first: u64,
    memory_last: u64,
    finds: Vec<Find>,
}

impl Totals {
    fn add(&mut self, seed: u64, round: &Round) {
        self.rounds += 1;
        self.frames_in += round.frames_in;
        self.frames_out += round.frames_out;
        self.connects += round.connects;
        self.bytes_up += round.bytes.0;
        self.bytes_down += round.bytes.1;
        if round.slowest.0 > self.slowest {
            (self.slowest, self.slowest_seed) = (round.slowest.0, seed);
        }
    }

    fn json(&self, options: &Options, seconds: f64) -> String {
        let escape = |text: &str| {
            let plain = |c: char| match c {
                '"' | '\\' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            };
            text.chars().map(plain).collect::<String>()
        };
        let finds: Vec<String> = self
            .finds
            .iter()
            .map(|find| {
                let what = escape(&find.what);
                format!("{{\"seed\": {}, \"what\": \"{what}\"}}", find.seed)
            })
            .collect();
        format!(
            "{{\"seed\": {}, \"rounds\": {}, \"seconds\": {seconds:.3}, \"frames_in\": {}, \
             \"frames_out\": {}, \"frames_per_second\": {:.0}, \"connections\": {}, \
             \"bytes_up\": {}, \"bytes_down\": {}, \"slowest_seconds\": {:.6}, \
             \"slowest_seed\": {}, \"memory_first_kib\": {}, \"memory_last_kib\": {}, \
             \"finds\": [{}]}}",
            options.seed,
            self.rounds,
            self.frames_in,
            self.frames_out,
            self.frames_in as f64 / seconds,
            self.connects,
            self.bytes_up,
            self.bytes_down,
            self.slowest.as_secs_f64(),
            self.slowest_seed,
            self.memory_first,
            self.memory_last,
            finds.join(", ")
        )
    }
}

/// Progress that others can see.
#[derive(Default)]
struct Shared {
    /// Frames so far, and the seed that is played.
    frames: AtomicU64,
    seed: AtomicU64,
    turns: AtomicU64,
    said: Mutex<String>,
}

/// Ends the process when nothing goes on any more: a loop without an end cannot be left.
fn watch(shared: &Arc<Shared>, round: u64) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let turns = shared.turns.load(Ordering::Relaxed);
            if turns != last.0 {
                last = (turns, Instant::now());
            } else if last.1.elapsed() > STUCK {
                let seed = shared.seed.load(Ordering::Relaxed);
                let _ = writeln!(
                    std::io::stderr(),
                    "\nfind: no end; again with: blaster --seed {seed} --round {round} --frames 1"
                );
                std::process::exit(1);
            }
        }
    });
}

fn run(options: &Options, seen: &[Vec<u8>], shared: &Arc<Shared>) -> (Totals, f64) {
    let begin = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let mut totals = Totals::default();
    let mut shown = begin;
    let mut seed = options.seed;
    let over = |totals: &Totals| {
        totals.frames_in >= options.frames
            || options
                .seconds
                .is_some_and(|most| begin.elapsed().as_secs() >= most)
            || !options.keep_going && !totals.finds.is_empty()
    };
    while !over(&totals) {
        shared.seed.store(seed, Ordering::Relaxed);
        let before = totals.frames_in;
        let mut told = |frames: u64| {
            shared.turns.fetch_add(1, Ordering::Relaxed);
            shared.frames.store(frames, Ordering::Relaxed);
            if terminal && shown.elapsed() > Duration::from_millis(500) {
                shown = Instant::now();
                let all = before + frames;
                let rate = all as f64 / begin.elapsed().as_secs_f64() / 1e6;
                let _ = write!(
                    std::io::stderr(),
                    "\r{:.1} M frames, {rate:.2} M/s, seed {seed}, {} MiB ",
                    all as f64 / 1e6,
                    memory() >> 10
                );
            }
        };
        let mut play = || {
            let round = || blast::round(seed, options.round, seen, &mut told);
            panic::catch_unwind(AssertUnwindSafe(round))
        };
        match play() {
            Ok(round) => {
                totals.add(seed, &round);
                // Whoever shares the processor may have had his turn.
                if round.slowest.0 > HANG
                    && let Ok(again) = play()
                    && again.slowest.0 > HANG
                    && again.slowest.1 == round.slowest.1
                {
                    let what = format!("act {} takes {:?}", round.slowest.1, round.slowest.0);
                    totals.finds.push(Find { seed, what });
                }
            }
            Err(_) => {
                let what = std::mem::take(&mut *shared.said.lock().unwrap());
                totals.frames_in += shared.frames.load(Ordering::Relaxed);
                totals.finds.push(Find { seed, what });
            }
        }
        if totals.memory_first == 0 && totals.rounds >= 4 {
            totals.memory_first = memory();
        }
        seed = seed.wrapping_add(1);
    }
    totals.memory_last = memory();
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    (totals, begin.elapsed().as_secs_f64())
}

fn main() -> ExitCode {
    netmodel::plant();
    let mut stdout = std::io::stdout().lock();
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = write!(stdout, "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "blaster: {error}");
            return ExitCode::from(2);
        }
    };
    let mut seen = blast::hostile_frames();
    for file in &options.pcaps {
        let read = std::fs::read(file).map_err(|error| error.to_string());
        match read.and_then(|bytes| netmodel::pcap::frames(&bytes)) {
            Ok(frames) => seen.extend(frames),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "blaster: {file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    let shared = Arc::new(Shared::default());
    let sayer = Arc::clone(&shared);
    panic::set_hook(Box::new(move |info| {
        *sayer.said.lock().unwrap() = info.to_string();
    }));
    watch(&shared, options.round);
    let (totals, seconds) = run(&options, &seen, &shared);
    let mut out: Box<dyn Write> = if options.json {
        let _ = writeln!(stdout, "{}", totals.json(&options, seconds));
        Box::new(std::io::stderr())
    } else {
        Box::new(stdout)
    };
    let _ = writeln!(
        out,
        "{} frames in {} rounds from seed {}, {seconds:.1} s: {:.2} M/s; {} out; {} connections, \
         {} MiB up, {} MiB down; slowest {:.1} ms (seed {}); memory {} KiB, {} KiB at the end; \
         {} finds",
        totals.frames_in,
        totals.rounds,
        options.seed,
        totals.frames_in as f64 / seconds / 1e6,
        totals.frames_out,
        totals.connects,
        totals.bytes_up >> 20,
        totals.bytes_down >> 20,
        totals.slowest.as_secs_f64() * 1e3,
        totals.slowest_seed,
        totals.memory_first,
        totals.memory_last,
        totals.finds.len()
    );
    for find in &totals.finds {
        let _ = writeln!(
            out,
            "find: {}\n  again with: blaster --seed {} --round {} --frames 1",
            find.what, find.seed, options.round
        );
    }
    if totals.finds.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
