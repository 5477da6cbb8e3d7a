//! What chance alone hardly ever brings about, as several things have to come together in a moment: it is brought about
//! in a few of the worlds, beside their other faults, with dice of its own, so that all others are what they would be
//! without.

use std::time::Duration;

use madsim::rand::prelude::*;

use super::{Dice, Fault, FaultKind, Plan, TINY_LOG};

/// In how many of the worlds of several members, who stay, much of what is forwarded is damaged. Elsewhere so little is that
/// it hardly ever happens while something else is under way on the same stream.
const MUCH_IS_DAMAGED: f64 = 0.15;
/// What that is drawn with, beside the seed.
const DAMAGE: u64 = 0x6461_6d61_6765;
/// The longest pause of a client there.
const QUICK: Duration = Duration::from_millis(60);

/// In how many of them a leader's entries are lost on their way while its heartbeats get through.
const THE_LARGE_IS_LOST: f64 = 0.1;
/// What that is drawn with, beside the seed.
const LOSSES: u64 = 0x6c6f_7373;
/// What still arrives then. Heartbeats have some sixty bytes, most entries a hundred and more.
const ARRIVES: std::ops::Range<usize> = 80..300;

/// In how many of them, where the log is tiny, snapshots are slow and cut short. Even slow ones take a tenth of a second or
/// so, in which a process hardly ever ends by chance.
const SNAPSHOTS_ARE_CUT_SHORT: f64 = 0.6;
/// What that is drawn with, beside the seed.
const CUTS: u64 = 0x6375_7473;

impl Plan {
    /// Adds what is rare, where the seed says so.
    pub(super) fn add_the_rare(&mut self, seed: u64) {
        if self.places() > self.members || self.members == 1 {
            return;
        }
        self.damage_what_is_forwarded(&mut Dice::new(seed ^ DAMAGE));
        self.lose_what_is_large(&mut Dice::new(seed ^ LOSSES));
        if self.snapshot_count == TINY_LOG {
            self.cut_snapshots_short(&mut Dice::new(seed ^ CUTS));
        }
        self.faults.sort_by_key(|fault| fault.at);
    }

    fn damage_what_is_forwarded(&mut self, dice: &mut Dice) {
        if !dice.gen_bool(MUCH_IS_DAMAGED) {
            return;
        }
        self.pace = self.pace.min(QUICK);
        let mut at = millis(dice, 3_000..10_000);
        for _ in 0..dice.gen_range(1..=2) {
            let kind = FaultKind::DamagedForwards {
                millis: dice.gen_range(20..120),
                flips_per_mille: dice.gen_range(100..400),
            };
            let lasts = millis(dice, 3_000..6_000);
            self.faults.push(Fault { at, lasts, kind });
            at += lasts + millis(dice, 500..5_000);
        }
    }

    fn lose_what_is_large(&mut self, dice: &mut Dice) {
        if !dice.gen_bool(THE_LARGE_IS_LOST) {
            return;
        }
        let mut at = millis(dice, 3_000..10_000);
        for _ in 0..dice.gen_range(1..=2) {
            let lasts = millis(dice, 2_000..8_000);
            self.faults.push(Fault { at, lasts, kind: FaultKind::LargeLost { bytes: dice.gen_range(ARRIVES) } });
            at += lasts + millis(dice, 500..5_000);
        }
    }

    fn cut_snapshots_short(&mut self, dice: &mut Dice) {
        if !dice.gen_bool(SNAPSHOTS_ARE_CUT_SHORT) {
            return;
        }
        self.snapshot_send_rate = self.slow_snapshots();
        let mut at = millis(dice, 3_000..8_000);
        for _ in 0..dice.gen_range(1..=2) {
            let (member, sender) = (dice.gen_range(0..self.members), dice.gen_bool(0.5));
            // What tells one leader's files from another's is in the last but one.
            let missing = if sender { 1 } else { dice.gen_range(1..4) };
            let kind = FaultKind::SnapshotCutShort { member, sender, missing };
            let lasts = millis(dice, 8_000..12_000);
            self.faults.push(Fault { at, lasts, kind });
            at += lasts + millis(dice, 500..3_000);
        }
    }
}

fn millis(dice: &mut Dice, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(dice.gen_range(range))
}
