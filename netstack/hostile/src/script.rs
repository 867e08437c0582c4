//! What two applications do with a connection, and what each must see of the other.
//!
//! A [`Script`] needs nothing but a connection between a container and somebody far away,
//! so the same ones are played under virtual time and with the sockets of real kernels.
//! The [`Model`] says what a side must have seen once things have settled.

use crate::Noise;

/// An end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Container,
    Far,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Container, Self::Far];

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Container => Self::Far,
            Self::Far => Self::Container,
        }
    }

    /// Where it is in an array of both.
    pub fn place(self) -> usize {
        usize::from(self == Self::Far)
    }
}

/// What an application does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Has so many bytes more to say.
    Write(Side, usize),
    /// Reads from now on, or no longer.
    Reads(Side, bool),
    /// Ends its direction once everything is said.
    Shut(Side),
    /// Ends the connection at once (RFC 9293, 3.10.5: ABORT).
    Reset(Side),
    /// Time passes, milliseconds.
    Wait(u16),
    /// Until what was said has arrived.
    Settle,
}

/// A connection's life.
#[derive(Debug, Clone)]
pub struct Script {
    /// The far side connects to the container.
    pub inbound: bool,
    pub acts: Vec<Act>,
}

/// How a direction ends, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    None,
    InOrder,
    Reset,
}

/// What a side must have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sees {
    /// Bytes, at least and at most.
    pub least: usize,
    pub most: usize,
    /// One of these.
    pub ending: [Ending; 2],
}

impl Sees {
    pub fn is(&self, bytes: usize, ending: Ending) -> bool {
        (self.least..=self.most).contains(&bytes) && self.ending.contains(&ending)
    }
}

#[derive(Debug, Clone, Copy)]
struct End {
    wrote: usize,
    shut: bool,
    reset: bool,
    reads: bool,
    /// What it has seen when things had settled last.
    seen: usize,
    saw_end: bool,
}

/// What has been done, and so what must be seen.
#[derive(Debug, Clone)]
pub struct Model {
    ends: [End; 2],
}

impl Default for Model {
    fn default() -> Self {
        let end = End {
            wrote: 0,
            shut: false,
            reset: false,
            reads: true,
            seen: 0,
            saw_end: false,
        };
        Self { ends: [end; 2] }
    }
}

impl Model {
    /// Somebody has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.ends.iter().any(|end| end.reset)
    }

    /// Both directions have ended, or the connection as a whole.
    pub fn is_over(&self) -> bool {
        self.is_reset() || self.ends.iter().all(|end| end.shut)
    }

    /// Notes what is done; `false`: it cannot be done any more, and is to be left out.
    pub fn does(&mut self, act: &Act) -> bool {
        let (reset, over) = (self.is_reset(), self.is_over());
        match *act {
            Act::Write(side, bytes) => {
                let end = &mut self.ends[side.place()];
                let can = !reset && !end.shut;
                end.wrote += if can { bytes } else { 0 };
                can
            }
            Act::Shut(side) => {
                // Also behind a reset that it has not been told of: who has read the end is
                // told of it by the next write at the latest.
                let end = &mut self.ends[side.place()];
                let can = !end.shut && !end.reset && (!reset || end.saw_end);
                end.shut |= can;
                can
            }
            Act::Reset(side) => {
                self.ends[side.place()].reset |= !over;
                !over
            }
            Act::Reads(side, reads) => {
                self.ends[side.place()].reads = reads;
                true
            }
            Act::Wait(_) | Act::Settle => true,
        }
    }

    /// What a side must see now, or when things have settled; `None` when nobody is there
    /// to look.
    pub fn sees(&self, side: Side) -> Option<Sees> {
        let (end, other) = (self.ends[side.place()], self.ends[side.other().place()]);
        if end.reset {
            return None;
        }
        let (least, ending) = if other.reset && end.saw_end {
            (other.wrote, [Ending::InOrder, Ending::Reset])
        } else if other.reset && !end.reads {
            (end.seen, [Ending::None, Ending::Reset])
        } else if other.reset {
            let in_order = if other.shut {
                Ending::InOrder
            } else {
                Ending::Reset
            };
            (end.seen, [in_order, Ending::Reset])
        } else if end.saw_end {
            (other.wrote, [Ending::InOrder; 2])
        } else if !end.reads {
            (end.seen, [Ending::None; 2])
        } else if other.shut {
            (other.wrote, [Ending::InOrder; 2])
        } else {
            (other.wrote, [Ending::None; 2])
        };
        Some(Sees {
            least,
            most: other.wrote,
            ending,
        })
    }

    /// Things have settled, and this is what a side has seen.
    pub fn settled(&mut self, side: Side, bytes: usize, ending: Ending) {
        let end = &mut self.ends[side.place()];
        end.seen = bytes;
        end.saw_end |= ending == Ending::InOrder;
    }
}

/// Positions after which the bytes repeat.
pub const PERIOD: usize = 251 * 256;

/// The byte that a side says at a position, as any language can tell it.
pub fn byte(side: Side, position: usize) -> u8 {
    let at = (position + 1000 * side.place()) % PERIOD;
    u8::try_from((at * 31 + at / 251 * 7) & 255).unwrap()
}

/// What a side says from a position on.
pub fn bytes(side: Side, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| byte(side, at)).collect()
}

/// Scripts that are the same each time: each order of the ends first, then what comes.
pub fn some(count: usize, seed: u64) -> Vec<Script> {
    let mut noise = Noise::new(seed);
    let mut scripts: Vec<Script> = orders().collect();
    while scripts.len() < count {
        let acts = (0..3 + noise.next() % 12).map(|_| any(&mut noise));
        scripts.push(Script {
            acts: acts.collect(),
            inbound: noise.next().is_multiple_of(2),
        });
    }
    scripts.truncate(count);
    scripts
}

fn any(noise: &mut Noise) -> Act {
    let side = Side::BOTH[usize::from(noise.next().is_multiple_of(2))];
    let size = noise.next() >> (noise.next() % 18 + 14);
    match noise.next() % 20 {
        0..=7 => Act::Write(side, usize::try_from(size).unwrap()),
        8..=10 => Act::Reads(side, noise.next().is_multiple_of(2)),
        11 => Act::Shut(side),
        12 => Act::Reset(side),
        13..=15 => Act::Wait(u16::try_from(noise.next() % 20).unwrap()),
        _ => Act::Settle,
    }
}

/// Every order in which two ends can end, with data before and after, settled in between
/// or not.
fn orders() -> impl Iterator<Item = Script> {
    use Act::{Reset, Settle, Shut, Wait, Write};
    use Side::{Container, Far};
    let pairs = [(Container, Far), (Far, Container)];
    pairs.into_iter().flat_map(|(first, second)| {
        let endings = [
            vec![
                Shut(first),
                Settle,
                Write(second, 5000),
                Settle,
                Shut(second),
            ],
            vec![Shut(first), Shut(second)],
            vec![Shut(first), Settle, Write(second, 100), Reset(second)],
            vec![Shut(first), Settle, Reset(first)],
            vec![Settle, Reset(first)],
            vec![Reset(first)],
            vec![Wait(3), Write(second, 200_000), Reset(first)],
        ];
        endings.into_iter().enumerate().map(move |(n, ending)| {
            let mut acts = vec![Write(first, 300), Write(second, 70_000)];
            acts.extend(ending);
            Script {
                inbound: (n + first.place()).is_multiple_of(2),
                acts,
            }
        })
    })
}
