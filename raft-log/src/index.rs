//! Log index → segment and place, and the term of every index. Pure.

use std::collections::VecDeque;

/// Where each record that is on disk stands: consecutive indices, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Index {
    runs: VecDeque<Run>,
    /// The first index of each run of equal terms.
    terms: VecDeque<(u64, u64)>,
}

/// The records of one segment; never empty.
#[derive(Debug)]
struct Run {
    segment: u32,
    first: u64,
    places: VecDeque<Place>,
}

/// Where one record stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The content address of its frame; see the format.
    pub(crate) address: u32,
    /// The size of its payload.
    pub(crate) payload_bytes: u32,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }
}

impl Index {
    /// Adds the record that follows the last one; the first may have any index.
    pub(crate) fn push(&mut self, segment: u32, index: u64, term: u64, place: Place) {
        if let Some(last) = self.last() {
            assert_eq!(index, last + 1, "records are consecutive");
        }
        match self.runs.back_mut() {
            Some(run) if run.segment == segment => run.places.push_back(place),
            _ => self.runs.push_back(Run { segment, first: index, places: VecDeque::from([place]) }),
        }
        if self.terms.back().is_none_or(|(_, last)| *last != term) {
            self.terms.push_back((index, term));
        }
    }

    /// Removes the records from an index on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(run) = self.runs.back_mut() {
            if run.end() <= from {
                break;
            }
            if run.first < from {
                run.places.truncate((from - run.first) as usize);
                break;
            }
            self.runs.pop_back();
        }
        while self.terms.back().is_some_and(|(first, _)| *first >= from) {
            self.terms.pop_back();
        }
    }

    /// Removes the records up to and with an index.
    pub(crate) fn purge(&mut self, up_to: u64) {
        while let Some(run) = self.runs.front_mut() {
            if run.end() - 1 > up_to {
                if run.first <= up_to {
                    drop(run.places.drain(..(up_to + 1 - run.first) as usize));
                    run.first = up_to + 1;
                }
                break;
            }
            self.runs.pop_front();
        }
        let Some(first) = self.first() else {
            self.terms.clear();
            return;
        };
        while self.terms.get(1).is_some_and(|(next, _)| *next <= first) {
            self.terms.pop_front();
        }
        if let Some(oldest) = self.terms.front_mut() {
            oldest.0 = first;
        }
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.runs.back().map(|run| run.end() - 1)
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index < self.first()? || index > self.last()? {
            return None;
        }
        let following = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.get(following.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// The places from an index on, in order.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = (u32, u64, Place)> {
        let start = self.runs.partition_point(|run| run.end() <= index);
        self.runs.range(start..).flat_map(move |run| {
            let skipped = index.saturating_sub(run.first);
            run.places
                .range((skipped as usize).min(run.places.len())..)
                .enumerate()
                .map(move |(nth, place)| (run.segment, run.first + skipped + nth as u64, *place))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(index: u64) -> Place {
        Place { address: index as u32 * 10, payload_bytes: index as u32 }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { segment: bool, term: bool },
        Truncate(u64),
        Purge(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (prop::bool::weighted(0.1), prop::bool::weighted(0.2)).prop_map(|(segment, term)| Step::Push { segment, term }),
            1 => (0..60u64).prop_map(Step::Truncate),
            1 => (0..60u64).prop_map(Step::Purge),
        ]
    }

    proptest! {
        #[test]
        fn equals_a_plain_map(first in 0..5u64, steps in prop::collection::vec(step(), 0..200)) {
            let mut index = Index::default();
            let mut model = std::collections::BTreeMap::new();
            let (mut segment, mut term) = (1, 1);
            for step in steps {
                match step {
                    Step::Push { segment: next_segment, term: next_term } => {
                        segment += u32::from(next_segment);
                        term += u64::from(next_term);
                        let at = model.last_key_value().map_or(first, |(last, _)| last + 1);
                        index.push(segment, at, term, place(at));
                        model.insert(at, (segment, term, place(at)));
                    }
                    Step::Truncate(from) => {
                        index.truncate(from);
                        model.retain(|at, _| *at < from);
                    }
                    Step::Purge(up_to) => {
                        index.purge(up_to);
                        model.retain(|at, _| *at > up_to);
                    }
                }
                prop_assert_eq!(index.first(), model.first_key_value().map(|(at, _)| *at));
                prop_assert_eq!(index.last(), model.last_key_value().map(|(at, _)| *at));
                for at in 0..70 {
                    prop_assert_eq!(index.term_of(at), model.get(&at).map(|(_, term, _)| *term), "term of {}", at);
                }
                let from = model.first_key_value().map_or(0, |(at, _)| at + 1);
                let expected: Vec<_> = model.range(from..).map(|(at, (segment, _, place))| (*segment, *at, *place)).collect();
                prop_assert_eq!(index.from(from).collect::<Vec<_>>(), expected);
                let all: Vec<_> = model.iter().map(|(at, (segment, _, place))| (*segment, *at, *place)).collect();
                prop_assert_eq!(index.from(0).collect::<Vec<_>>(), all);
            }
        }
    }
}
