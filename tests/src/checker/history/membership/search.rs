use std::collections::HashSet;
use std::time::Duration;

use super::register::{Action, Register, State};

/// What the search came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// There is an order.
    Explained,
    /// There is none.
    Violated {
        /// Who the members were at the end of the longest one.
        state: State,
        /// The calls of which one should come next, by their places in the history.
        left: Vec<usize>,
    },
    /// It took too many steps.
    Undecided,
}

/// What is done of the calls, and what that came to.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Order {
    done: Vec<bool>,
    used: Vec<bool>,
    state: State,
}

/// Looks for an order in which each call happens within its time (Wing and Gong 1993, with the states that were seen
/// remembered). There are few changes, and few calls at a time.
pub(super) fn search(register: &Register, steps: usize) -> Verdict {
    let first = Order {
        done: vec![false; register.required.len()],
        used: vec![false; register.possible.len()],
        state: register.first.clone(),
    };
    let mut longest = (0, first.state.clone(), Vec::new());
    let mut seen = HashSet::new();
    let mut open = vec![first];
    for _ in 0..steps {
        let Some(order) = open.pop() else {
            let (_, state, left) = longest;
            return Verdict::Violated { state, left };
        };
        let left = || register.required.iter().enumerate().filter(|(place, _)| !order.done[*place]);
        let Some(deadline) = left().map(|(_, action)| action.ended).min() else { return Verdict::Explained };
        let next: Vec<(usize, &Action)> = left().filter(|(_, action)| action.began <= deadline).collect();
        let count = order.done.iter().filter(|done| **done).count();
        if count >= longest.0 {
            longest = (count, order.state.clone(), next.iter().map(|(_, action)| action.call).collect());
        }
        // What is put down last is tried first: what surely happened, the earliest first.
        guess(register, &order, deadline, &mut |order| put(&mut open, &mut seen, order));
        for (place, action) in next.into_iter().rev() {
            if let Some(state) = action.step(&order.state) {
                let mut order = Order { state, ..order.clone() };
                order.done[place] = true;
                put(&mut open, &mut seen, order);
            }
        }
    }
    Verdict::Undecided
}

/// Tries what may have happened.
fn guess(register: &Register, order: &Order, deadline: Duration, put: &mut impl FnMut(Order)) {
    let unused = register.possible.iter().enumerate().filter(|(place, _)| !order.used[*place]);
    for (place, action) in unused.filter(|(_, action)| action.began <= deadline) {
        if let Some(state) = action.step(&order.state) {
            let mut order = Order { state, ..order.clone() };
            order.used[place] = true;
            put(order);
        }
    }
}

fn put(open: &mut Vec<Order>, seen: &mut HashSet<Order>, order: Order) {
    if seen.insert(order.clone()) {
        open.push(order);
    }
}
