//! Chance that can be thrown again: the same seed gives the same numbers on every machine and with every compiler.

use std::time::Duration;

/// A stream of numbers from a seed and a name (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Streams of different names are independent of each other: a longer plan of one kind leaves the others as they are.
    pub fn new(seed: u64, name: &str) -> Self {
        let mixed = name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        });
        let mut dice = Self(mixed);
        dice.throw();
        dice
    }

    /// The next number.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, without it; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.throw() % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// From `least` to `most`, in milliseconds.
    pub fn pause(&mut self, least_ms: usize, most_ms: usize) -> Duration {
        Duration::from_millis(self.between(least_ms, most_ms) as u64)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these; the list must not be empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_same_seed_throws_the_same_and_names_are_streams_of_their_own() {
        let throws = |seed, name| {
            let mut dice = Dice::new(seed, name);
            (0..5).map(|_| dice.throw()).collect::<Vec<_>>()
        };
        assert_eq!(throws(7, "load"), throws(7, "load"));
        assert_ne!(throws(7, "load"), throws(7, "faults"));
        assert_ne!(throws(7, "load"), throws(8, "load"));
        // replays of old seeds depend on it
        assert_eq!(throws(7, "load")[0], 6_403_890_268_141_094_303);
    }

    #[test]
    fn throws_stay_within_their_bounds_and_reach_both() {
        let mut dice = Dice::new(1, "bounds");
        let thrown: Vec<usize> = (0..500).map(|_| dice.between(3, 6)).collect();
        assert!((3..=6).all(|n| thrown.contains(&n)) && thrown.iter().all(|n| (3..=6).contains(n)));
        assert!((0..500).filter(|_| dice.percent(20)).count() > 50);
    }
}
