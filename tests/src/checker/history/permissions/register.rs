use std::time::Duration;

/// Something that calls set: which values it may have had, though nobody looked.
#[derive(Clone, Debug, Default)]
pub(super) struct Register<T> {
    sets: Vec<Set<T>>,
}

#[derive(Clone, Debug)]
struct Set<T> {
    began: Duration,
    /// By when it had happened; `None` where it may happen at any time, or never.
    ended: Option<Duration>,
    value: T,
}

impl<T: Copy + Default> Register<T> {
    /// A call that sets it; one that has no end may never do so.
    pub(super) fn set(&mut self, began: Duration, ended: Option<Duration>, value: T) {
        self.sets.push(Set { began, ended, value });
    }

    /// The values that it may have had at some moment of a time. In the beginning it has the default.
    pub(super) fn values(&self, from: Duration, until: Duration) -> Vec<T> {
        // Whatever was over when another call began that was over before this time is no more.
        let over = self.sets.iter().filter(|set| set.ended.is_some_and(|ended| ended <= from));
        let last = over.map(|set| set.began).max();
        let mut values: Vec<T> = match last {
            None => vec![T::default()],
            Some(_) => Vec::new(),
        };
        let gone = |set: &Set<T>| set.ended.is_some_and(|ended| last.is_some_and(|last| ended <= last));
        let possible = self.sets.iter().filter(|set| set.began <= until && !gone(set));
        values.extend(possible.map(|set| set.value));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::millis;
    use super::*;

    #[test]
    fn values_last_until_others_are_set() {
        let mut register = Register::default();
        register.set(millis(10), Some(millis(20)), 1);
        register.set(millis(30), Some(millis(40)), 2);
        let values = |from, until| register.values(millis(from), millis(until));
        assert_eq!(values(0, 5), [0]);
        assert_eq!(values(0, 15), [0, 1]);
        assert_eq!(values(20, 25), [1]);
        assert_eq!(values(20, 30), [1, 2]);
        assert_eq!(values(39, 39), [1, 2]);
        assert_eq!(values(40, 50), [2]);
        assert_eq!(values(0, 50), [0, 1, 2]);
    }

    #[test]
    fn what_nobody_was_told_may_come_late() {
        let mut register = Register::default();
        register.set(millis(10), None, 1);
        register.set(millis(30), Some(millis(40)), 2);
        assert_eq!(register.values(millis(15), millis(15)), [0, 1]);
        assert_eq!(register.values(millis(90), millis(99)), [1, 2]);
    }
}
