use std::collections::HashMap;
use std::time::Duration;

use super::register::{ABSENT, Action, Register, State};

/// How many calls a guess weighs: about as many as may overlap with each other. It decides how long a
/// search takes, not what it finds.
const GUESS: usize = 16;

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none.
    Violated {
        /// How many answered calls the longest order has that explains them.
        longest: usize,
        /// The state at its end.
        state: State,
        /// The calls of which one should be next, by their places in the history.
        left: Vec<usize>,
    },
    /// It took too many steps.
    Undecided,
}

/// Looks for an order in which each call happens between its begin and its end and all answers are
/// explained.
///
/// Whether an unanswered call happened is a guess. What is tried first is the order that has most calls
/// and fewest guesses, where a guess weighs as much as [`GUESS`] calls: so a contradiction is answered
/// by other orders of the calls around it, then by a guess there, and only then further back. An order
/// is given up where another one has done the same calls, has the same state and has guessed no more:
/// what follows the one follows the other.
///
/// A guess is made only right before a call that contradicts the state without it. Wherever it
/// stands in an order that explains all, it may be moved behind a call that fits without it too: such
/// a call either does not change the state, or sets it to the same, and then the guess is not needed
/// at all. (Of a required call it is known how its comparison went.)
pub(super) fn search(register: &Register, steps: usize) -> Verdict {
    let first = Order { full: 0, words: Vec::new(), count: 0, used: vec![0; register.possible.len()], state: ABSENT };
    let mut longest = (0, ABSENT, Vec::new());
    let mut seen: HashMap<(usize, Vec<u64>, State), Vec<Vec<u16>>> = HashMap::new();
    let mut open = Open::default();
    open.put(register, first, 0);
    for _ in 0..steps {
        let Some((order, guesses)) = open.take() else {
            let (longest, state, left) = longest;
            return Verdict::Violated { longest, state, left };
        };
        if order.count == register.required.len() {
            return Verdict::Linearizable;
        }
        let done = (order.full, order.words.clone(), order.state);
        let same = seen.entry(done).or_default();
        let is_no_more = |other: &Vec<u16>| other.iter().zip(&order.used).all(|(other, own)| other <= own);
        if same.iter().any(is_no_more) {
            continue;
        }
        same.push(order.used.clone());
        let (mut next, deadline) = order.next(register);
        if order.count >= longest.0 {
            let calls = next.iter().map(|place| register.required[*place].call).collect();
            longest = (order.count, order.state, calls);
        }
        // What ends first is tried first, so it is put down last.
        next.sort_by_key(|place| std::cmp::Reverse(register.required[*place].ended));
        for place in next {
            let action = &register.required[place];
            if let Some(state) = action.step(order.state) {
                open.put(register, order.with(place, state), guesses);
            } else {
                order.guess(register, deadline, action, 1, &mut |guessed, state, more| {
                    open.put(register, guessed.with(place, state), guesses + more);
                });
            }
        }
    }
    Verdict::Undecided
}

/// The orders that are not extended yet.
#[derive(Default)]
struct Open {
    /// By how little they promise, with the number of their guesses; of equals the last one is first.
    orders: Vec<Vec<(Order, usize)>>,
    /// None is below.
    lowest: usize,
}

impl Open {
    fn put(&mut self, register: &Register, order: Order, guesses: usize) {
        let place = register.required.len() - order.count + guesses * GUESS;
        if self.orders.len() <= place {
            self.orders.resize_with(place + 1, Vec::new);
        }
        self.orders[place].push((order, guesses));
        self.lowest = self.lowest.min(place);
    }

    fn take(&mut self) -> Option<(Order, usize)> {
        while self.orders.get(self.lowest)?.is_empty() {
            self.lowest += 1;
        }
        self.orders[self.lowest].pop()
    }
}

/// The calls that have an order so far, and what they come to.
#[derive(Clone)]
struct Order {
    /// How many times 64 required calls are done, from the first one on.
    full: usize,
    /// Behind them, a bit for each that is done; the last word is not zero.
    words: Vec<u64>,
    /// How many required calls are done.
    count: usize,
    /// Of each group of possible calls, how many.
    used: Vec<u16>,
    state: State,
}

impl Order {
    fn is_done(&self, place: usize) -> bool {
        let word = place / 64;
        word < self.full || self.words.get(word - self.full).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// This order with a required call more.
    fn with(&self, place: usize, state: State) -> Self {
        let mut order = self.clone();
        let word = place / 64 - order.full;
        if order.words.len() <= word {
            order.words.resize(word + 1, 0);
        }
        order.words[word] |= 1 << (place % 64);
        let full = order.words.iter().take_while(|word| **word == u64::MAX).count();
        order.words.drain(..full);
        order.full += full;
        order.count += 1;
        order.state = state;
        order
    }

    /// The required calls that no other one that is left precedes, and when the first of those ends.
    fn next(&self, register: &Register) -> (Vec<usize>, Duration) {
        let mut places = Vec::new();
        let mut deadline = Duration::MAX;
        for (place, action) in register.required.iter().enumerate().skip(self.full * 64) {
            // They are in the order of their begins: the rest begins later still.
            if action.began > deadline {
                break;
            }
            if !self.is_done(place) {
                places.push(place);
                deadline = deadline.min(action.ended);
            }
        }
        (places, deadline)
    }

    /// Finds the guesses that let a call follow which contradicts the state: one, or one and then
    /// others that depend on a comparison with what it puts.
    fn guess(
        &self,
        register: &Register,
        deadline: Duration,
        action: &Action,
        depth: usize,
        found: &mut dyn FnMut(&Self, State, usize),
    ) {
        for (group, actions) in register.possible.iter().enumerate() {
            // Of calls with the same effect the earliest is as good as any.
            let next = actions.get(usize::from(self.used[group])).filter(|next| next.began <= deadline);
            let Some(next) = next.filter(|next| depth == 1 || next.compares()) else { continue };
            let Some(state) = next.step(self.state).filter(|state| *state != self.state) else { continue };
            let mut guessed = self.clone();
            guessed.used[group] += 1;
            guessed.state = state;
            match action.step(state) {
                Some(state) => found(&guessed, state, depth),
                None => guessed.guess(register, deadline, action, depth + 1, found),
            }
        }
    }
}
