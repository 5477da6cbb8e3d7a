//! Marks in the code that a simulation reads: places that a run has reached, and places that a run
//! may break on purpose, to prove that its checkers would notice.
//!
//! Outside of a simulation both are constants and leave no code behind. In one, a process runs one
//! seed, so the process is the right owner of what is reached and of what is broken.

#[cfg(not(madsim))]
pub use real::{broken, reached};
#[cfg(madsim)]
pub use simulated::{all_reached, break_at, broken, reached};

#[cfg(not(madsim))]
mod real {
    /// Notes that a place was reached.
    #[inline(always)]
    pub const fn reached(_place: &'static str) {}

    /// Whether the code at a place shall be wrong.
    #[inline(always)]
    pub const fn broken(_place: &'static str) -> bool {
        false
    }
}

#[cfg(madsim)]
mod simulated {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    static BROKEN: OnceLock<String> = OnceLock::new();
    static REACHED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

    /// Notes that a place was reached.
    pub fn reached(place: &'static str) {
        *REACHED.lock().entry(place).or_default() += 1;
    }

    /// Whether the code at a place shall be wrong. The place counts as reached either way.
    pub fn broken(place: &'static str) -> bool {
        reached(place);
        BROKEN.get().is_some_and(|broken| broken == place)
    }

    /// Makes the code at one place wrong for the rest of the process.
    ///
    /// # Panics
    /// When another place is broken already.
    pub fn break_at(place: &str) {
        BROKEN.set(place.to_owned()).expect("one place is broken at a time");
    }

    /// How often each place was reached.
    pub fn all_reached() -> BTreeMap<&'static str, u64> {
        REACHED.lock().clone()
    }
}
