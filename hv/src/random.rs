//! Random numbers from a seed.

/// A sequence of random numbers (Marsaglia, "Xorshift RNGs", 2003).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        // Seeds that differ little begin far from each other; zero is the one state that there is
        // not.
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns the next number, below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The higher bits are the better ones.
        (self.0 >> 16) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_and_seeds_differ() {
        let sequence = |seed| {
            let mut random = Random::new(seed);
            core::array::from_fn::<_, 64, _>(|_| random.below(4))
        };
        assert!((0..4).all(|number| sequence(0).contains(&number)));
        assert!(sequence(1) != sequence(2) && sequence(1) == sequence(1));
    }
}
