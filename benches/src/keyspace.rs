//! The keys and values of a run, the same for the same seed.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// What every key begins with, so that a run disturbs nothing else and can be removed.
pub const PREFIX: &str = "/mainstay-bench/";

/// The key with a number: all are of one length, and sort as their numbers do.
pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("{PREFIX}{number:016}"))
}

/// One client's choice of keys.
#[derive(Debug)]
pub struct Chooser {
    random: StdRng,
    keys: u64,
    /// The next number, where they are taken in order, and the step from it to the one after.
    sequence: Option<(u64, u64)>,
}

impl Chooser {
    /// The choice of the client number `client` of `clients`: at random, or in order, so that the
    /// clients together go through all the keys.
    pub fn new(seed: u64, client: u64, clients: u64, keys: u64, sequential: bool) -> Self {
        assert!(keys > 0);
        Self { random: random(seed, client), keys, sequence: sequential.then_some((client, clients)) }
    }

    /// The number of the next key.
    pub fn next_number(&mut self) -> u64 {
        match &mut self.sequence {
            Some((next, step)) => {
                let number = *next % self.keys;
                *next += *step;
                number
            }
            None => self.random.random_range(0..self.keys),
        }
    }

    /// The next key.
    pub fn next_key(&mut self) -> Bytes {
        key(self.next_number())
    }
}

/// A source of random numbers for one purpose of one run.
pub fn random(seed: u64, purpose: u64) -> StdRng {
    // Multiplied, so that neighbouring seeds do not share a client's numbers.
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(purpose))
}

/// A value of random bytes.
pub fn value(seed: u64, purpose: u64, size: usize) -> Bytes {
    let mut value = vec![0; size];
    random(seed, !purpose).fill_bytes(&mut value);
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do() {
        assert!(key(9) < key(10) && key(99_999) < key(100_000));
        assert_eq!(key(0).len(), key(u64::from(u32::MAX)).len());
    }

    #[test]
    fn clients_in_order_cover_the_keys_together() {
        let mut seen: Vec<u64> = (0..4)
            .flat_map(|client| {
                let mut chooser = Chooser::new(1, client, 4, 10, true);
                (0..5).map(move |_| chooser.next_number()).collect::<Vec<_>>()
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).map(|number| number / 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_seed_repeats_itself_and_differs_from_the_next() {
        let draw = |seed, client| {
            let mut chooser = Chooser::new(seed, client, 2, 1_000_000, false);
            (0..8).map(|_| chooser.next_number()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 1), draw(2, 0));
        assert_eq!(value(1, 0, 64), value(1, 0, 64));
        assert_ne!(value(1, 0, 64), value(1, 1, 64));
        assert_eq!(value(1, 0, 0).len(), 0);
    }
}
