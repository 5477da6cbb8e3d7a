//! What was sent, and how it was answered.

use std::collections::BTreeMap;

/// How an input was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// With a gRPC status.
    Code(u32),
    /// With an HTTP status.
    Http(u16),
    /// The stream was reset.
    Reset,
    /// The connection was closed.
    Closed,
    /// It goes on for as long as the client likes.
    Lasts,
    /// Not at all, where it had to be.
    None(String),
}

impl Answer {
    fn name(&self) -> String {
        match self {
            Self::Code(code) => CODES
                .get(usize::try_from(*code).unwrap_or(usize::MAX))
                .map_or_else(|| format!("code {code}"), |name| (*name).to_owned()),
            Self::Http(status) => format!("HTTP {status}"),
            Self::Reset => "reset".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Lasts => "lasts".to_owned(),
            Self::None(_) => "NO ANSWER".to_owned(),
        }
    }
}

/// gRPC's statuses in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Counts by kind of input.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answers: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// What was not answered, in words.
    pub(crate) unanswered: Vec<String>,
}

impl Tally {
    pub(crate) fn count(&mut self, kind: &'static str, answer: Answer) {
        *self.answers.entry(kind).or_default().entry(answer.name()).or_default() += 1;
        if let Answer::None(what) = answer {
            self.unanswered.push(format!("{kind}: {what}"));
        }
    }

    /// A line for each kind of input.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(kind, answers): (&&str, &BTreeMap<String, usize>)| {
            let sum: usize = answers.values().sum();
            let mut answers: Vec<_> = answers.iter().collect();
            answers.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let answers: Vec<_> = answers.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
            format!("  {kind:<11} {sum:>7}  {}", answers.join(", "))
        };
        self.answers.iter().map(line).collect()
    }

    /// How many inputs were tried.
    pub(crate) fn sum(&self) -> usize {
        self.answers.values().flat_map(BTreeMap::values).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_most_frequent_first() {
        let mut tally = Tally::default();
        for answer in [Answer::Reset, Answer::Code(3), Answer::Code(3), Answer::None("Put".to_owned())] {
            tally.count("calls", answer);
        }
        assert_eq!(tally.lines(), ["  calls             4  InvalidArgument 2, NO ANSWER 1, reset 1"]);
        assert_eq!((tally.sum(), tally.unanswered), (4, vec!["calls: Put".to_owned()]));
    }
}
