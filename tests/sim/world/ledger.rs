//! What every member applied, entry by entry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mainstay_server::raft::AppliedObserver;

/// The entries that were applied by anybody. Clones are the same ledger.
///
/// State machine safety (Ongaro and Ousterhout 2014, §5.4.3): where two members apply an entry of one
/// index, it is the same entry.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    /// By index: the term, the payload's checksum, and who applied it first.
    entries: BTreeMap<u64, (u64, u32, String)>,
    contradictions: Vec<String>,
}

impl Ledger {
    /// The view of one life of a member.
    pub(crate) fn of(&self, member: String) -> Arc<dyn AppliedObserver> {
        Arc::new(Life { ledger: self.clone(), member, last: Mutex::new(None) })
    }

    /// What did not fit together.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        self.pages().contradictions.clone()
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Life {
    ledger: Ledger,
    member: String,
    last: Mutex<Option<u64>>,
}

impl AppliedObserver for Life {
    fn applying(&self, index: u64, term: u64, payload: &[u8]) {
        let checksum = crc32fast::hash(payload);
        let before = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(index);
        let mut pages = self.ledger.pages();
        if let Some(before) = before
            && before + 1 != index
        {
            let text = format!("{} applies entry {index} after {before}", self.member);
            pages.contradictions.push(text);
        }
        let mine = (term, checksum);
        match pages.entries.get(&index) {
            None => drop(pages.entries.insert(index, (term, checksum, self.member.clone()))),
            Some((term, checksum, first)) if mine != (*term, *checksum) => {
                let text =
                    format!("{} applies entry {index} of term {}, {first} one of term {term}", self.member, mine.0);
                pages.contradictions.push(text);
            }
            Some(_) => {}
        }
    }

    fn restored(&self, index: u64, _term: u64) {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(index);
    }
}
