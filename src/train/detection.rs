//! How well replaced tokens are told from original ones.

/// Decisions about tokens, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detection {
    /// Replaced, and found so.
    hits: u64,
    /// Original, and taken for replaced.
    false_alarms: u64,
    /// Replaced, and taken for original.
    misses: u64,
    /// Original, and found so.
    rejections: u64,
    /// Scores with whether the token was replaced, for [`auc`](Self::auc).
    scores: Vec<(f32, bool)>,
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

impl Detection {
    /// Adds a token with a score, which is above `threshold` if it is taken for replaced.
    pub fn add(&mut self, score: f32, threshold: f32, replaced: bool) {
        match (score > threshold, replaced) {
            (true, true) => self.hits += 1,
            (true, false) => self.false_alarms += 1,
            (false, true) => self.misses += 1,
            (false, false) => self.rejections += 1,
        }
        self.scores.push((score, replaced));
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.hits + self.false_alarms + self.misses + self.rejections
    }

    /// Share of tokens that were replaced.
    pub fn replaced(&self) -> f64 {
        ratio(self.hits + self.misses, self.tokens())
    }

    /// Share of right decisions.
    pub fn accuracy(&self) -> f64 {
        ratio(self.hits + self.rejections, self.tokens())
    }

    /// Share of those taken for replaced that were; 0 if none was.
    pub fn precision(&self) -> f64 {
        ratio(self.hits, self.hits + self.false_alarms)
    }

    /// Share of the replaced ones that were found; 0 if there are none.
    pub fn recall(&self) -> f64 {
        ratio(self.hits, self.hits + self.misses)
    }

    /// The harmonic mean of both.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)
    }

    /// The probability that a replaced token scores higher than an original one, equal scores counting half: the area under
    /// the receiver's operating characteristic (Hanley and McNeil 1982). One half if there are none of either.
    pub fn auc(&self) -> f64 {
        let mut order: Vec<_> = self.scores.iter().collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        // For each replaced token the number of original ones below it, equals counting half.
        let (mut below, mut sum, mut replaced) = (0.0, 0.0, 0.0);
        for equals in order.chunk_by(|a, b| a.0 == b.0) {
            let here = equals.iter().filter(|token| token.1).count() as f64;
            let original = equals.len() as f64 - here;
            sum += here * (below + 0.5 * original);
            below += original;
            replaced += here;
        }
        if replaced * below > 0.0 { sum / (replaced * below) } else { 0.5 }
    }

    /// The threshold with the highest F1 among the scores seen, and that F1: what to decide by elsewhere.
    pub fn best_threshold(&self) -> (f32, f64) {
        let mut order = self.scores.clone();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let all: u64 = order.iter().map(|token| u64::from(token.1)).sum();
        let (mut best, mut hits, mut taken) = ((f32::INFINITY, 0.0), 0, 0);
        for (i, (score, replaced)) in order.iter().enumerate() {
            hits += u64::from(*replaced);
            taken += 1;
            // A threshold stands between two scores.
            let next = order.get(i + 1).map(|token| token.0);
            if next == Some(*score) {
                continue;
            }
            let f1 = ratio(2 * hits, taken + all);
            if f1 > best.1 {
                best = (next.map_or(f32::NEG_INFINITY, |next| next + (score - next) / 2.0), f1);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::Detection;

    fn of(tokens: &[(f32, bool)]) -> Detection {
        let mut all = Detection::default();
        tokens.iter().for_each(|&(score, replaced)| all.add(score, 0.0, replaced));
        all
    }

    /// By hand; the area as scikit-learn's `roc_auc_score` has it.
    #[test]
    fn figures() {
        let d = of(&[(2.0, true), (-1.0, true), (-1.0, false), (0.5, false), (-3.0, false), (-3.0, false)]);
        assert_eq!((d.tokens(), d.replaced()), (6, 2.0 / 6.0));
        assert_eq!((d.accuracy(), d.precision(), d.recall(), d.f1()), (4.0 / 6.0, 0.5, 0.5, 0.5));
        // 2.0 beats four; -1.0 beats two and equals one.
        assert_eq!(d.auc(), (4.0 + 2.5) / 8.0);
        // Above 0.5 and below 2.0: one hit, one miss.
        let (threshold, f1) = d.best_threshold();
        assert!(threshold > 0.5 && threshold < 2.0 && (f1 - 2.0 / 3.0).abs() < 1e-12, "{threshold} {f1}");
        assert_eq!(of(&[]).auc(), 0.5);
        assert_eq!(of(&[(1.0, true)]).best_threshold(), (f32::NEG_INFINITY, 1.0));
    }
}
