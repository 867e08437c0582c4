//! What befalls frames, one by one.

use super::shim::Rng;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrive,
    Lose,
    Repeat,
    /// Microseconds later than the others.
    Delay(u16),
    /// A bit behind the Ethernet header is changed; as `Arrive` on a link whose
    /// frames have no whole checksums.
    Alter(u16, u8),
}

/// Chances in thousandths; what is left arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chances {
    pub(super) lose: usize,
    pub(super) repeat: usize,
    pub(super) delay: usize,
    pub(super) alter: usize,
}

/// The fates of one direction's frames: first a script, then chance.
#[derive(Debug, Clone)]
pub(super) struct Fates {
    pub(super) script: Vec<Fate>,
    pub(super) chances: Chances,
    rng: Rng,
    pub(super) frames: usize,
}

impl Default for Fates {
    fn default() -> Self {
        Self::by_chance(Chances::default(), 0)
    }
}

impl Fates {
    pub(super) fn by_chance(chances: Chances, seed: u64) -> Self {
        Self {
            script: Vec::new(),
            chances,
            rng: Rng(seed),
            frames: 0,
        }
    }

    /// These, for the frames from now on; after them all arrive.
    pub(super) fn script(&mut self, script: Vec<Fate>) {
        (self.script, self.frames) = (script, 0);
    }

    pub(super) fn next(&mut self) -> Fate {
        self.frames += 1;
        if let Some(fate) = self.script.get(self.frames - 1) {
            return *fate;
        }
        let mut dice = self.rng.below(1000);
        let Chances {
            lose,
            repeat,
            delay,
            alter,
        } = self.chances;
        let mut happens = |chance: usize| {
            let happens = dice < chance;
            dice = dice.wrapping_sub(chance);
            happens
        };
        if happens(lose) {
            Fate::Lose
        } else if happens(repeat) {
            Fate::Repeat
        } else if happens(delay) {
            Fate::Delay(u16::try_from(self.rng.below(3000)).unwrap())
        } else if happens(alter) {
            let at = u16::try_from(self.rng.below(2000)).unwrap();
            Fate::Alter(at, u8::try_from(self.rng.below(8)).unwrap())
        } else {
            Fate::Arrive
        }
    }
}
