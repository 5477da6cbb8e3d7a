use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::history::{Comparison, KeyValue, Operation, Outcome, Relation, Reply, Step, StepReply, Txn, Within};

/// A value, by number; a key that is not there is [`ABSENT`].
pub(super) type State = u32;

/// The state of a key that is not there, as every key is at first.
pub(super) const ABSENT: State = 0;

/// The value of every unanswered put that no answer names; see [`Register::without_unseen`].
const UNSEEN: State = 1;

/// The calls on one key.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// Those that were answered, and unanswered ones that surely happened; by their begin.
    pub(super) required: Vec<Action>,
    /// Unanswered ones that may have happened, in groups of the same effect, each by its begin.
    pub(super) possible: Vec<Vec<Action>>,
    values: Vec<String>,
}

/// One call on a register.
#[derive(Clone, Debug)]
pub(super) struct Action {
    /// Its place in the history.
    pub(super) call: usize,
    pub(super) began: Duration,
    /// `Duration::MAX` where it may happen at any time after its begin.
    pub(super) ended: Duration,
    /// What the value is compared with: all must be equal to it.
    guards: Vec<State>,
    /// Whether the comparison was told to hold.
    told: Option<bool>,
    then: Vec<Micro>,
    otherwise: Vec<Micro>,
}

/// What a call did to the register, or saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Micro {
    Set(State),
    Is(State),
    IsThere(bool),
}

impl Action {
    /// The state behind this call, or `None` where its answer contradicts the state before it.
    pub(super) fn step(&self, mut state: State) -> Option<State> {
        let holds = self.guards.iter().all(|guard| *guard == state);
        if self.told.is_some_and(|told| told != holds) {
            return None;
        }
        for micro in if holds { &self.then } else { &self.otherwise } {
            match micro {
                Micro::Set(value) => state = *value,
                Micro::Is(value) if *value == state => {}
                Micro::IsThere(is_there) if *is_there == (state != ABSENT) => {}
                Micro::Is(_) | Micro::IsThere(_) => return None,
            }
        }
        Some(state)
    }

    /// Whether its effect depends on what was there before.
    pub(super) fn compares(&self) -> bool {
        !self.guards.is_empty()
    }

    fn micros(&self) -> impl Iterator<Item = Micro> + '_ {
        self.then.iter().chain(&self.otherwise).copied()
    }

    /// Whether it puts a value whatever was there before.
    fn is_plain_put(&self) -> Option<State> {
        match (self.guards.is_empty(), self.then.as_slice()) {
            (true, [Micro::Set(value)]) if *value != ABSENT => Some(*value),
            _ => None,
        }
    }
}

/// Makes a register of the calls of one key; `None` where one of them is more than a register's.
pub(super) fn register_of(operations: &[Operation], calls: &[usize]) -> Option<Register> {
    let mut values = Values::default();
    let mut required = Vec::new();
    let mut possible = Vec::new();
    for call in calls {
        let action = values.action(*call, &operations[*call])?;
        if matches!(operations[*call].outcome, Outcome::Done(_)) {
            required.push(action);
        } else if action.micros().next().is_some() {
            possible.push(action);
        }
    }
    let mut register = Register { required, possible: Vec::new(), values: values.texts };
    let possible = register.with_deadlines(possible);
    register.possible = register.without_unseen(possible);
    register.required.sort_by_key(|action| action.began);
    Some(register)
}

impl Register {
    /// The text of a state.
    pub(super) fn value(&self, state: State) -> Option<&str> {
        state.checked_sub(UNSEEN + 1).map(|place| self.values[place as usize].as_str())
    }

    /// An unanswered call whose value was seen has happened, before the end of whoever saw it first:
    /// values are unique, so nobody else wrote it. With a deadline it is like an answered call, of
    /// which the search need not guess whether it happened. Returns the others.
    fn with_deadlines(&mut self, possible: Vec<Action>) -> Vec<Action> {
        let mut seen: HashMap<State, Duration> = HashMap::new();
        for action in &self.required {
            for value in seen_by(action) {
                let first = seen.entry(value).or_insert(action.ended);
                *first = action.ended.min(*first);
            }
        }
        let mut others = Vec::new();
        for mut action in possible {
            let first_seen = |micros: &[Micro]| {
                let sets = micros.iter().filter_map(|micro| match micro {
                    Micro::Set(value) => seen.get(value).copied(),
                    _ => None,
                });
                sets.min()
            };
            let branches = (first_seen(&action.then), first_seen(&action.otherwise));
            let (deadline, told) = match branches {
                (None, None) => {
                    others.push(action);
                    continue;
                }
                (Some(deadline), None) => (deadline, Some(true)),
                (None, Some(deadline)) => (deadline, Some(false)),
                // The same value whatever was compared.
                (Some(one), Some(other)) => (one.min(other), None),
            };
            // Seen by an answer from before it began: no order will do, and the search says so.
            action.ended = deadline.max(action.began);
            // And it is known how its comparison went.
            action.told = told;
            self.required.push(action);
        }
        others
    }

    /// Groups what may have happened, and drops what cannot matter.
    ///
    /// Take an unanswered plain put of a value that nothing names, neither an answer nor any
    /// comparison. Which value it is makes no difference, so all of them put [`UNSEEN`]. In an order
    /// that explains all answers, look at the calls between such a put and the next write of the key:
    /// none of them saw a value, since it would have been this one, nor that there is none, nor did a
    /// comparison hold. If there is also no call at all that is told that a key *is* there, that a
    /// comparison did *not* hold, or whose fate depends on a comparison, then all calls in between are
    /// none, the next write is one that does not look, and the order explains all answers without the
    /// put as well. So it is dropped. Otherwise it is kept.
    ///
    /// Calls of the same effect are a group, of which the search takes the one that began first: an
    /// order that uses a later one is one with the earlier in its place, since it may happen at any
    /// time after its begin. Removals are such a group too.
    fn without_unseen(&self, possible: Vec<Action>) -> Vec<Vec<Action>> {
        let mut named: BTreeSet<State> = BTreeSet::new();
        let mut asks_for_presence = false;
        for action in self.required.iter().chain(&possible) {
            named.extend(&action.guards);
            named.extend(seen_by(action));
            let looks = action.micros().any(|micro| micro == Micro::IsThere(true));
            asks_for_presence |= looks || (!action.guards.is_empty() && action.told != Some(true));
        }
        type Effect = (Vec<State>, Vec<Micro>, Vec<Micro>);
        let mut groups: BTreeMap<Effect, Vec<Action>> = BTreeMap::new();
        for mut action in possible {
            if action.is_plain_put().is_some_and(|value| !named.contains(&value)) {
                if !asks_for_presence {
                    continue;
                }
                action.then = vec![Micro::Set(UNSEEN)];
            }
            let effect = (action.guards.clone(), action.then.clone(), action.otherwise.clone());
            groups.entry(effect).or_default().push(action);
        }
        let mut groups: Vec<Vec<Action>> = groups.into_values().collect();
        for group in &mut groups {
            group.sort_by_key(|action| action.began);
        }
        groups
    }
}

/// The values that an answer says were there before the call.
fn seen_by(action: &Action) -> impl Iterator<Item = State> + '_ {
    let guards = action.guards.iter().copied().filter(|_| action.told == Some(true));
    let seen = action.micros().take_while(|micro| !matches!(micro, Micro::Set(_))).filter_map(|micro| match micro {
        Micro::Is(value) => Some(value),
        Micro::Set(_) | Micro::IsThere(_) => None,
    });
    guards.chain(seen).filter(|value| *value != ABSENT)
}

/// Values by their numbers.
#[derive(Default)]
struct Values {
    numbers: HashMap<String, State>,
    texts: Vec<String>,
}

impl Values {
    fn number(&mut self, text: &str) -> State {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.texts.push(text.to_owned());
        let number = UNSEEN + self.texts.len() as State;
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn state(&mut self, kv: Option<&KeyValue>) -> State {
        kv.map_or(ABSENT, |kv| self.number(&kv.value))
    }

    fn action(&mut self, call: usize, operation: &Operation) -> Option<Action> {
        let crate::history::Call::Txn(txn) = &operation.call else { return None };
        let mut guards = Vec::new();
        for compare in &txn.compares {
            if compare.is != Relation::Equal || compare.until.is_some() {
                return None;
            }
            guards.push(match &compare.to {
                Comparison::Value(value) => self.number(value),
                Comparison::Version(0) | Comparison::Created(0) | Comparison::Modified(0) => ABSENT,
                _ => return None,
            });
        }
        let mut action = Action {
            call,
            began: operation.began,
            ended: Duration::MAX,
            guards,
            told: None,
            then: Vec::new(),
            otherwise: Vec::new(),
        };
        match &operation.outcome {
            Outcome::Done(Reply::Txn { succeeded, steps, .. }) => {
                (action.ended, action.told) = (operation.ended, Some(*succeeded));
                let micros = self.answered(txn, *succeeded, steps)?;
                if *succeeded { action.then = micros } else { action.otherwise = micros }
            }
            _ => {
                action.then = self.asked(&txn.then)?;
                action.otherwise = self.asked(&txn.otherwise)?;
            }
        }
        Some(action)
    }

    /// What an answer says, step by step.
    fn answered(&mut self, txn: &Txn, succeeded: bool, replies: &[StepReply]) -> Option<Vec<Micro>> {
        let mut micros = Vec::new();
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        for (step, reply) in branch.iter().zip(replies) {
            match (step, reply) {
                (Step::Put { value, lease: 0, prev_kv, .. }, StepReply::Put { prev }) => {
                    if *prev_kv {
                        micros.push(Micro::Is(self.state(prev.as_ref())));
                    }
                    micros.push(Micro::Set(self.number(value)));
                }
                (Step::Delete { prev_kv, .. }, StepReply::Delete { deleted, prevs }) => {
                    micros.push(Micro::IsThere(*deleted > 0));
                    if *prev_kv {
                        micros.push(Micro::Is(self.state(prevs.first())));
                    }
                    micros.push(Micro::Set(ABSENT));
                }
                (
                    Step::Range { revision: 0, count_only, keys_only, within: Within::ALL, .. },
                    StepReply::Range { keys, count, .. },
                ) => {
                    micros.push(if *count_only || *keys_only {
                        Micro::IsThere(*count > 0)
                    } else {
                        Micro::Is(self.state(keys.first()))
                    });
                }
                (Step::Range { .. }, _) => {}
                _ => return None,
            }
        }
        Some(micros)
    }

    /// What steps will do; what they see nobody was told.
    fn asked(&mut self, steps: &[Step]) -> Option<Vec<Micro>> {
        let mut micros = Vec::new();
        for step in steps {
            match step {
                Step::Put { value, lease: 0, .. } => micros.push(Micro::Set(self.number(value))),
                Step::Delete { .. } => micros.push(Micro::Set(ABSENT)),
                Step::Range { .. } => {}
                _ => return None,
            }
        }
        // Only the last write is left when the call is over.
        Some(micros.split_off(micros.len().saturating_sub(1)))
    }
}
