//! What a seed does: a script of steps, made without asking any server.
//!
//! - `mix`: how often a seed does what; each seed leaves some things out and does others more often.
//! - `keys`: keys and ranges, few enough that steps meet. `numbers`: revisions and other numbers.
//! - `kv`, `txn`, `lease`, `watch`, `service`, `session`, `auth`: requests of each kind.
//! - `crashes`: inputs that kill etcd, which are not made.
//!
//! Does not: look at what was answered. A step that fits to what came before is likely, not certain.

mod auth;
mod crashes;
mod keys;
mod kv;
mod lease;
mod mix;
mod numbers;
mod service;
mod session;
mod txn;
mod watch;

use std::collections::BTreeSet;

use mainstay_tests::dice::Dice;

use self::keys::Keys;
use self::mix::Mix;
use crate::step::{CLIENTS, Step};

/// How many steps a seed with authentication does without it.
const BEFORE_AUTH: usize = 60;

/// Makes the steps of a seed.
struct Planner {
    dice: Dice,
    keys: Keys,
    mix: Mix,
    /// Counts the values that were written, so that each can be told from the others.
    values: usize,
    /// Which members may have the alarm NOSPACE.
    full_members: BTreeSet<u64>,
    /// Counts the leases whose ids were left to the server.
    picked_leases: i64,
    /// Counts how often two wanted the same.
    contentions: usize,
}

/// The script of a seed.
pub(crate) fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let keys = Keys::new(&mut dice);
    let mix = Mix::new(&mut dice);
    let keys = if mix.has_auth { keys.for_users() } else { keys };
    let mut planner =
        Planner { dice, keys, mix, values: 0, full_members: BTreeSet::new(), picked_leases: 0, contentions: 0 };
    let mut script = Vec::new();
    while script.len() < steps {
        if planner.mix.has_auth && script.len() == BEFORE_AUTH {
            script.extend(planner.prepare_auth());
        }
        script.push(planner.step());
    }
    script.truncate(steps);
    script
}

impl Planner {
    fn step(&mut self) -> Step {
        let client = self.dice.below(CLIENTS);
        let make = self.mix.choose(&mut self.dice);
        make(self, client)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::step::parse;

    #[test]
    fn a_seed_is_one_script() {
        assert_eq!(script(7, 300), script(7, 300));
        assert_ne!(script(7, 300), script(8, 300));
        assert_eq!(script(7, 300)[..100], script(7, 100));
    }

    #[test]
    fn every_script_can_be_written_down() {
        for seed in 0..20 {
            let steps = script(seed, 500);
            let text: Vec<String> = steps.iter().map(Step::to_string).collect();
            let read: Vec<String> = parse(&text.join("\n")).unwrap().iter().map(Step::to_string).collect();
            assert_eq!(read, text, "seed {seed}");
        }
    }

    #[test]
    fn together_seeds_do_everything() {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for seed in 0..40 {
            names.extend(script(seed, 500).iter().map(Step::name));
        }
        for name in ["KV.Range", "KV.RangeStream", "KV.Put", "KV.DeleteRange", "KV.Txn", "KV.Compact"] {
            assert!(names.contains(name), "{name}");
        }
        assert!(names.len() >= 25, "{names:?}");
    }
}
