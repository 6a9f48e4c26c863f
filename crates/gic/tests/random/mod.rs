//! Random numbers, the same for the same seed.

/// A generator (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut this = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        this.bits();
        this
    }

    /// 56 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    pub fn below(&mut self, end: u32) -> u32 {
        (((self.bits() >> 24) * u64::from(end)) >> 32) as u32
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}
