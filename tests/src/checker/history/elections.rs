//! A term has one leader.

use std::collections::BTreeMap;

use super::text::seconds;
use crate::history::History;

/// Checks that no two members took themselves for the leader of one term.
pub fn check(history: &History) -> Result<(), String> {
    let mut leaders = BTreeMap::new();
    for leadership in &history.leaderships {
        let first = *leaders.entry(leadership.term).or_insert(leadership);
        if first.member != leadership.member {
            let (term, at) = (leadership.term, seconds(leadership.at));
            let first_at = seconds(first.at);
            let (one, other) = (first.member, leadership.member);
            return Err(format!("term {term} has two leaders: member {one} at {first_at}, member {other} at {at}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{expect, millis};
    use super::*;
    use crate::history::Leadership;

    fn found(leaders: &[(usize, u64)]) -> Result<(), String> {
        let of = |(member, term): &(usize, u64)| Leadership { member: *member, term: *term, at: millis(1) };
        check(&History { leaderships: leaders.iter().map(of).collect(), ..History::default() })
    }

    #[test]
    fn a_leader_per_term_passes() {
        assert_eq!(found(&[]), Ok(()));
        assert_eq!(found(&[(0, 1), (1, 2), (0, 4), (0, 4), (0, 1)]), Ok(()));
    }

    #[test]
    fn two_leaders_of_a_term_are_found() {
        expect(found(&[(0, 1), (1, 2), (2, 1)]), "term 1 has two leaders: member 0");
    }
}
