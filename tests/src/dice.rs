//! Random choices that a seed decides, now and in years: the algorithm is part of the seed's meaning.

/// Steele, Lea and Flood's SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("addresses have 64 bits at most");
        usize::try_from(self.number() % bound).expect("it is below a usize")
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.abs_diff(low).wrapping_add(1);
        let offset = if span == 0 { self.number() } else { self.number() % span };
        low.wrapping_add_unsigned(offset)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<'a, T>(&mut self, of: &'a [(usize, T)]) -> &'a T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        let (_, one) = of
            .iter()
            .find(|(weight, _)| {
                let found = left < *weight;
                left = left.saturating_sub(*weight);
                found
            })
            .expect("the weights add up to the bound");
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_keeps_its_meaning() {
        let mut dice = Dice::new(1);
        assert_eq!([dice.number(), dice.number()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn choices_stay_within_their_bounds() {
        let mut dice = Dice::new(7);
        let mut seen = [0; 3];
        for _ in 0..1000 {
            assert!((-2..=3).contains(&dice.between(-2, 3)));
            seen[*dice.weighted(&[(1, 0), (0, 1), (3, 2)])] += 1;
        }
        dice.between(i64::MIN, i64::MAX);
        assert!(seen[0] > 150 && seen[1] == 0 && seen[2] > 600, "{seen:?}");
        assert!(!dice.chance(0) && dice.chance(100));
    }
}
