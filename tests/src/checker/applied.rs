//! What members apply is one sequence, and makes one state.

use std::collections::BTreeMap;

/// What was applied by anybody, entry by entry.
///
/// State machine safety (Ongaro and Ousterhout 2014, §5.4.3): where two members apply an entry of one
/// index, it is the same entry. And none is skipped or applied twice: a process goes on behind what its
/// store held when it began.
#[derive(Debug, Default)]
pub struct Applied {
    /// By index: the term, the payload's checksum, and who applied it first.
    entries: BTreeMap<u64, (u64, u32, String)>,
    /// By index: the leases behind that entry, and who was asked first.
    leases: BTreeMap<u64, (Vec<LeaseEntry>, String)>,
    /// By index: the alarms behind that entry, and who was asked first.
    alarms: BTreeMap<u64, (Vec<AlarmEntry>, String)>,
    contradictions: Vec<String>,
}

/// A lease as a member has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEntry {
    /// Its id.
    pub id: i64,
    /// Seconds that were granted.
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 where there was none.
    pub remaining: i64,
    /// Its keys, in their order.
    pub keys: Vec<Vec<u8>>,
}

/// An alarm as a member has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmEntry {
    /// The kind's number.
    pub kind: i32,
    /// The member that raised it, or is named in it.
    pub member: u64,
}

/// Up to where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nobody knows.
    Unknown,
    /// It has no state yet.
    Empty,
    /// It has applied the entries up to this one.
    At(u64),
}

impl Applied {
    /// A member applies an entry of a term, with this checksum, behind what it has.
    pub fn entry(&mut self, member: &str, behind: Position, index: u64, term: u64, checksum: u32) {
        let expected = match behind {
            Position::Unknown => index,
            Position::Empty => 0,
            Position::At(before) => before + 1,
        };
        if index != expected {
            self.contradictions.push(format!("{member} applies entry {index}, and {expected} comes next"));
        }
        match self.entries.get(&index) {
            None => drop(self.entries.insert(index, (term, checksum, member.to_owned()))),
            Some((known, known_sum, first)) if (term, checksum) != (*known, *known_sum) => {
                let text = format!("{member} applies entry {index} of term {term}, {first} one of term {known}");
                self.contradictions.push(text);
            }
            Some(_) => {}
        }
    }

    /// A member has these leases behind an entry.
    pub fn leases(&mut self, member: &str, index: u64, leases: Vec<LeaseEntry>) {
        match self.leases.get(&index) {
            None => drop(self.leases.insert(index, (leases, member.to_owned()))),
            Some((known, first)) if *known != leases => {
                let text = format!("behind entry {index} {member} has leases {leases:?}, {first} has {known:?}");
                self.contradictions.push(text);
            }
            Some(_) => {}
        }
    }

    /// A member has these alarms behind an entry.
    pub fn alarms(&mut self, member: &str, index: u64, alarms: Vec<AlarmEntry>) {
        match self.alarms.get(&index) {
            None => drop(self.alarms.insert(index, (alarms, member.to_owned()))),
            Some((known, first)) if *known != alarms => {
                let text = format!("behind entry {index} {member} has alarms {alarms:?}, {first} has {known:?}");
                self.contradictions.push(text);
            }
            Some(_) => {}
        }
    }

    /// What did not fit together, the first found first.
    pub fn contradictions(&self) -> &[String] {
        &self.contradictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(act: impl FnOnce(&mut Applied)) -> Vec<String> {
        let mut applied = Applied::default();
        for index in 0..5u64 {
            let behind = index.checked_sub(1).map_or(Position::Empty, Position::At);
            applied.entry("m1", behind, index, 1, index as u32);
            applied.leases("m1", index, vec![lease(7)]);
            applied.alarms("m1", index, vec![ALARM]);
        }
        act(&mut applied);
        applied.contradictions().to_vec()
    }

    const ALARM: AlarmEntry = AlarmEntry { kind: 1, member: 9 };

    fn lease(id: i64) -> LeaseEntry {
        LeaseEntry { id, ttl: 5, remaining: 0, keys: vec![b"a".to_vec()] }
    }

    #[test]
    fn the_same_entries_pass() {
        let none: [String; 0] = [];
        assert_eq!(found(|_| {}), none);
        assert_eq!(found(|applied| applied.entry("m2", Position::Unknown, 3, 1, 3)), none);
        // After a restart entries come again, behind what was stored.
        assert_eq!(found(|applied| applied.entry("m1", Position::At(1), 2, 1, 2)), none);
        assert_eq!(found(|applied| applied.leases("m2", 3, vec![lease(7)])), none);
        assert_eq!(found(|applied| applied.alarms("m2", 3, vec![ALARM])), none);
    }

    #[test]
    fn another_entry_is_found() {
        for (term, checksum) in [(2, 3), (1, 4)] {
            let found = found(|applied| applied.entry("m2", Position::At(2), 3, term, checksum));
            assert_eq!(found, [format!("m2 applies entry 3 of term {term}, m1 one of term 1")]);
        }
    }

    #[test]
    fn what_is_skipped_or_repeated_is_found() {
        let of = |behind, index| found(|applied| applied.entry("m2", behind, index, 1, index as u32));
        assert_eq!(of(Position::At(1), 3), ["m2 applies entry 3, and 2 comes next"]);
        assert_eq!(of(Position::At(3), 3), ["m2 applies entry 3, and 4 comes next"]);
        assert_eq!(of(Position::Empty, 1), ["m2 applies entry 1, and 0 comes next"]);
    }

    #[test]
    fn other_leases_are_found() {
        let wrong: [fn(&mut LeaseEntry); 4] =
            [|lease| lease.id = 8, |lease| lease.ttl = 6, |lease| lease.remaining = 1, |lease| lease.keys.clear()];
        for wrong in wrong {
            let mut other = lease(7);
            wrong(&mut other);
            assert!(found(|applied| applied.leases("m2", 3, vec![other]))[0].contains("behind entry 3 m2 has"));
        }
        assert_eq!(found(|applied| applied.leases("m2", 3, Vec::new())).len(), 1);
    }

    #[test]
    fn other_alarms_are_found() {
        for other in [vec![], vec![ALARM, ALARM], vec![AlarmEntry { kind: 2, ..ALARM }]] {
            let found = found(|applied| applied.alarms("m2", 3, other));
            assert!(found[0].contains("behind entry 3 m2 has alarms"), "{found:?}");
        }
    }
}
