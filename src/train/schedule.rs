//! Learning-rate schedules: linear warm-up, then cosine, linear or no decay.

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Half a cosine down to the minimum (Loshchilov and Hutter 2017).
    Cosine,
    /// A straight line down to the minimum.
    Linear,
    /// No decay.
    Constant,
}

/// A learning rate for each step.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// What follows the warm-up.
    pub shape: Shape,
    /// The highest rate.
    pub peak: f32,
    /// The last rate.
    pub min: f32,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// All steps.
    pub steps: usize,
}

impl Schedule {
    /// The rate at `step`, which counts from 0, as in nanoGPT.
    pub fn rate(&self, step: usize) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / (self.warmup + 1) as f32;
        }
        let way = (step - self.warmup) as f32 / self.steps.saturating_sub(self.warmup).max(1) as f32;
        let way = way.min(1.0);
        match self.shape {
            Shape::Cosine => self.min + 0.5 * (1.0 + (std::f32::consts::PI * way).cos()) * (self.peak - self.min),
            Shape::Linear => self.min + (1.0 - way) * (self.peak - self.min),
            Shape::Constant => self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_decays() {
        let s = Schedule { shape: Shape::Cosine, peak: 1e-3, min: 1e-4, warmup: 100, steps: 2000 };
        assert!((s.rate(0) - 1e-3 / 101.0).abs() < 1e-9);
        assert!((s.rate(100) - 1e-3).abs() < 1e-9);
        assert!((s.rate(1050) - 5.5e-4).abs() < 1e-6);
        assert!((s.rate(2000) - 1e-4).abs() < 1e-9 && s.rate(9000) >= 0.99e-4);
        assert!((Schedule { shape: Shape::Linear, ..s }.rate(1050) - 5.5e-4).abs() < 1e-6);
        assert_eq!(Schedule { shape: Shape::Constant, ..s }.rate(1999), 1e-3);
    }
}
