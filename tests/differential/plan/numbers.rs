//! Revisions and other numbers: mostly those that mean something, now and then any.

use super::Planner;
use crate::symbols::Symbol;

impl Planner {
    /// A revision to read or watch at.
    pub(super) fn revision(&mut self) -> i64 {
        let dice = &mut self.dice;
        match dice.below(20) {
            0..=9 => Symbol::Now(-dice.between(0, 12)).number(),
            10 | 11 => Symbol::Now(-dice.between(0, 200)).number(),
            12..=14 => Symbol::Compacted(dice.between(-1, 2)).number(),
            15 => Symbol::Now(dice.between(1, 3)).number(),
            16 => dice.between(1, 20),
            17 => 0,
            _ => self.odd_number(),
        }
    }

    /// A number that nobody should send.
    pub(super) fn odd_number(&mut self) -> i64 {
        *self.dice.pick(&[-1, -2, i64::MIN, i64::MAX, i64::MAX - 1, 1 << 32, 1 << 53])
    }

    /// The number of an enum's value; hardly ever one that it does not have.
    pub(super) fn enum_number(&mut self, known: i32) -> i32 {
        if self.dice.chance(2) {
            return *self.dice.pick(&[known, -1, 99, i32::MAX, i32::MIN]);
        }
        i32::try_from(self.dice.below(usize::try_from(known).expect("enums have values"))).expect("below an i32")
    }
}
