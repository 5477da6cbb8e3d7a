//! How often a seed does what.

use mainstay_tests::dice::Dice;

use super::Planner;
use crate::step::Step;

/// Makes a step of one kind for a client.
type Make = fn(&mut Planner, usize) -> Step;

/// Every kind of step, and how often it comes in ten thousand.
const KINDS: [(usize, Make); 26] = [
    (2200, Planner::put),
    (1800, Planner::range),
    (250, Planner::hash_kv),
    (300, Planner::range_stream),
    (700, Planner::delete),
    (1600, Planner::txn),
    (120, Planner::compact),
    (300, Planner::grant),
    (150, Planner::revoke),
    (200, Planner::renew),
    (200, Planner::time_to_live),
    (100, Planner::leases),
    (15, Planner::expire),
    (400, Planner::watch),
    (350, Planner::cancel),
    (120, Planner::progress),
    (40, Planner::hang_up),
    (20, Planner::empty_watch_request),
    (12, Planner::scan),
    (60, Planner::alarm),
    (60, Planner::status),
    (60, Planner::members),
    (10, Planner::defragment),
    (30, Planner::health),
    (40, Planner::contend),
    (60, Planner::session),
];

/// How often users and roles are worked on where authentication is turned on, and elsewhere.
const WITH_AUTH: usize = 3000;
const WITHOUT_AUTH: usize = 40;

/// A seed's own weights. Leaving something out lets the rest come together in ways that it prevents:
/// without compaction history grows, without deletions versions do.
pub(super) struct Mix {
    weighted: Vec<(usize, Make)>,
    /// Hashes are compared.
    pub(super) hashes: bool,
    /// Authentication is turned on.
    pub(super) has_auth: bool,
}

impl Mix {
    pub(super) fn new(dice: &mut Dice) -> Self {
        // What comes first is what the others work on, and is never left out.
        let weigh = |(place, (weight, make)): (usize, (usize, Make))| {
            let factor = if place < 2 { 1 } else { *dice.pick(&[0, 1, 1, 1, 1, 3]) };
            (weight * factor, make)
        };
        let mut weighted: Vec<_> = KINDS.into_iter().enumerate().map(weigh).collect();
        let hashes = weighted[2].0 > 0;
        let has_auth = dice.chance(25);
        let auth = if has_auth { WITH_AUTH } else { WITHOUT_AUTH };
        weighted.push((auth, Planner::auth));
        Self { weighted, hashes, has_auth }
    }

    pub(super) fn choose(&self, dice: &mut Dice) -> Make {
        *dice.weighted(&self.weighted)
    }
}
