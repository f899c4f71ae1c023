//! A stream of random numbers, for choices on the CPU.

use crate::ops::random::threefry;

/// Random numbers by Threefry in counter mode. A stream is a function of what it is made from: making it again gives the
/// same numbers.
pub struct Stream {
    key: [u32; 2],
    drawn: u64,
}

impl Stream {
    /// The stream of (seed, epoch, index) for a purpose, which keeps streams of one seed apart.
    pub fn new(seed: u32, purpose: u32, epoch: u64, index: u64) -> Self {
        let split = |x: u64| [x as u32, (x >> 32) as u32];
        Self { key: threefry(threefry([seed, purpose], split(epoch)), split(index)), drawn: 0 }
    }

    fn draw(&mut self) -> u64 {
        let words = threefry(self.key, [self.drawn as u32, (self.drawn >> 32) as u32]);
        self.drawn += 1;
        u64::from(words[0]) << 32 | u64::from(words[1])
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform from 0 to `n - 1`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.draw()) * n as u128) >> 64) as usize
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
