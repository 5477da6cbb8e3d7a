//! For how long what was done to a member accounts for what it does.

use std::time::Duration;

/// How long a process that a fault has met may go on before it dies of it, or complains: what was written
/// or read is missed at the next use at the latest.
const LINGERS: Duration = Duration::from_secs(10);

/// What was done to one member that a process may die of.
///
/// A fault accounts for everything while it lasts. When it is over it accounts for the process that it
/// has met, for a while; the next process finds whole disks, and what it does is its own.
#[derive(Clone, Debug, Default)]
pub struct Excuses {
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Fault {
    from: Duration,
    /// When it was over.
    over: Option<Duration>,
    /// When the first process that it has not met began.
    forgotten: Option<Duration>,
    /// What it did stays.
    lasting: bool,
}

impl Excuses {
    /// A fault begins; returns its place.
    pub fn begin(&mut self, at: Duration) -> usize {
        self.faults.push(Fault { from: at, over: None, forgotten: None, lasting: false });
        self.faults.len() - 1
    }

    /// A fault is over.
    pub fn end(&mut self, place: usize, at: Duration) {
        self.faults[place].over = Some(at);
    }

    /// Something is done that is found out at any later time: data are lost.
    pub fn lasting(&mut self, at: Duration) {
        self.faults.push(Fault { from: at, over: None, forgotten: None, lasting: true });
    }

    /// The member has new disks: what was lost is made good.
    pub fn renewed(&mut self, at: Duration) {
        for fault in self.faults.iter_mut().filter(|fault| fault.lasting) {
            (fault.lasting, fault.over, fault.forgotten) = (false, Some(at), Some(at));
        }
    }

    /// The member is started.
    pub fn started(&mut self, at: Duration) {
        for fault in self.faults.iter_mut().filter(|fault| fault.over.is_some() && !fault.lasting) {
            fault.forgotten.get_or_insert(at);
        }
    }

    /// Whether something accounts for what the member does at a time.
    pub fn cover(&self, at: Duration) -> bool {
        self.faults.iter().any(|fault| {
            let lingers = fault.over.is_none_or(|over| at <= over + LINGERS);
            fault.from <= at && (fault.lasting || (lingers && fault.forgotten.is_none_or(|forgotten| at < forgotten)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_fault_accounts_for_all_while_it_lasts() {
        let mut excuses = Excuses::default();
        assert!(!excuses.cover(second(5)));
        let fault = excuses.begin(second(5));
        excuses.started(second(6));
        assert!(!excuses.cover(second(4)) && excuses.cover(second(5)) && excuses.cover(second(60)));
        excuses.end(fault, second(70));
        assert!(excuses.cover(second(70)) && excuses.cover(second(80)));
        assert!(!excuses.cover(second(81)), "a process that goes on for so long has got over it");
    }

    #[test]
    fn the_process_after_it_is_on_its_own() {
        let mut excuses = Excuses::default();
        let fault = excuses.begin(second(5));
        excuses.end(fault, second(6));
        excuses.started(second(7));
        excuses.started(second(9));
        assert!(excuses.cover(second(6)) && !excuses.cover(second(7)) && !excuses.cover(second(8)));
        let another = excuses.begin(second(8));
        assert!(excuses.cover(second(8)));
        excuses.end(another, second(8));
        assert!(excuses.cover(second(9)));
        excuses.started(second(9));
        assert!(!excuses.cover(second(9)));
    }

    #[test]
    fn what_is_lost_stays_lost() {
        let mut excuses = Excuses::default();
        excuses.lasting(second(5));
        excuses.started(second(6));
        assert!(!excuses.cover(second(4)) && excuses.cover(second(600)));
        excuses.renewed(second(7));
        assert!(excuses.cover(second(6)) && !excuses.cover(second(7)), "what came with new disks is whole");
    }
}
