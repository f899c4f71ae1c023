//! How well predictions do: the metrics of GLUE (Wang et al. 2019), which are scikit-learn's and scipy's, and of SQuAD
//! (Rajpurkar et al. 2016). Predictions come in pairs of what was found and what was expected.

use std::collections::HashMap;

/// The share of pairs that agree; 0 of none.
pub fn accuracy(pairs: &[(usize, usize)]) -> f64 {
    let right = pairs.iter().filter(|(found, expected)| found == expected).count();
    ratio(right as f64, pairs.len() as f64)
}

/// F1 of one class against the rest, the harmonic mean of precision and recall: 2 tp / (2 tp + fp + fn). 0 where the class
/// occurs on neither side, as scikit-learn has it. GLUE's is that of class 1.
pub fn f1(pairs: &[(usize, usize)], class: usize) -> f64 {
    f1_of(pairs, &[class])
}

/// The mean of the F1 of each class that occurs on either side: scikit-learn's `f1_score(average="macro")`. 0 of none.
pub fn f1_macro(pairs: &[(usize, usize)]) -> f64 {
    let mut classes: Vec<usize> = pairs.iter().flat_map(|&(found, expected)| [found, expected]).collect();
    classes.sort_unstable();
    classes.dedup();
    ratio(classes.iter().map(|&class| f1(pairs, class)).sum(), classes.len() as f64)
}

/// F1 over words of which most are `outside` of what is looked for: hits and misses of all other classes are added up
/// before the quotient, scikit-learn's `f1_score(average="micro", labels=all but outside)`. It counts words, not entities.
pub fn f1_tokens(pairs: &[(usize, usize)], outside: usize) -> f64 {
    let mut classes: Vec<usize> =
        pairs.iter().flat_map(|&(found, expected)| [found, expected]).filter(|&class| class != outside).collect();
    classes.sort_unstable();
    classes.dedup();
    f1_of(pairs, &classes)
}

/// 2 tp / (2 tp + fp + fn), summed over `classes`, which are sorted.
fn f1_of(pairs: &[(usize, usize)], classes: &[usize]) -> f64 {
    let counted = |class: &usize| classes.binary_search(class).is_ok();
    let hits = pairs.iter().filter(|(found, expected)| found == expected && counted(found)).count();
    // tp + fp and tp + fn.
    let found = pairs.iter().filter(|(found, _)| counted(found)).count();
    let expected = pairs.iter().filter(|(_, expected)| counted(expected)).count();
    ratio(2.0 * hits as f64, (found + expected) as f64)
}

/// Matthews' correlation coefficient, for any number of classes (Gorodkin 2004), as scikit-learn's `matthews_corrcoef`:
/// 0 where all of one side are of one class.
pub fn matthews(pairs: &[(usize, usize)]) -> f64 {
    let n = pairs.len() as f64;
    let (mut found, mut expected) = (HashMap::new(), HashMap::new());
    for &(f, e) in pairs {
        *found.entry(f).or_insert(0.0) += 1.0;
        *expected.entry(e).or_insert(0.0) += 1.0;
    }
    let right = pairs.iter().filter(|(f, e)| f == e).count() as f64;
    let both: f64 = found.iter().map(|(class, count)| count * expected.get(class).unwrap_or(&0.0)).sum();
    let spread = |counts: &HashMap<usize, f64>| n * n - counts.values().map(|count| count * count).sum::<f64>();
    ratio(right * n - both, (spread(&found) * spread(&expected)).sqrt())
}

/// Pearson's correlation coefficient. None where it is not defined (scipy: NaN): fewer than two pairs, all of one side
/// equal, or a value that is not finite.
pub fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let constant = |values: &[f64]| values.iter().all(|v| *v == values[0]);
    if pairs.len() < 2 || x.iter().chain(&y).any(|v| !v.is_finite()) || constant(&x) || constant(&y) {
        return None;
    }
    let (x, y) = (centred(&x), centred(&y));
    let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may lead a little beyond.
    Some(product.clamp(-1.0, 1.0))
}

/// `values` less their mean, scaled to length 1.
fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let length = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>().sqrt();
    values.iter().map(|v| (v - mean) / length).collect()
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs. None as for
/// [`pearson`].
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    pearson(&ranks(&x).into_iter().zip(ranks(&y)).collect::<Vec<_>>())
}

/// Ranks from 1 on; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        first += group.len();
    }
    ranks
}

/// SQuAD's normalisation, `normalize_answer` of its `evaluate-v2.0.py`: small letters, no ASCII punctuation, no articles,
/// single spaces.
fn normalised(text: &str) -> String {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // Articles between word boundaries, as Python's `\b(a|an|the)\b`: runs of letters and digits.
    let mut kept = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let inside = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != inside).unwrap_or(rest.len());
        kept.push_str(if matches!(&rest[..end], "a" | "an" | "the") { " " } else { &rest[..end] });
        rest = &rest[end..];
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The best of `score(found, answer)` over the right answers, normalised. Answers that normalise to nothing do not count;
/// without any the right answer is the empty one.
fn best<T: Copy + PartialOrd>(answers: &[&str], least: T, score: impl Fn(&str) -> T) -> T {
    let answers: Vec<String> = answers.iter().map(|a| normalised(a)).filter(|a| !a.is_empty()).collect();
    if answers.is_empty() {
        return score("");
    }
    answers.iter().map(|a| score(a)).fold(least, |best, score| if score > best { score } else { best })
}

/// SQuAD's exact match: whether `found`, normalised, is one of `answers`. An unanswerable question has none, and to find
/// the empty text is right.
pub fn exact_match(found: &str, answers: &[&str]) -> bool {
    let found = normalised(found);
    best(answers, false, |answer| found == answer)
}

/// SQuAD's F1: the overlap of the words of `found` with those of the answer that it fits best, after normalisation. If one
/// of them is empty, 1 if both are.
pub fn answer_f1(found: &str, answers: &[&str]) -> f64 {
    let found = normalised(found);
    best(answers, 0.0, |answer| {
        let (found, expected): (Vec<_>, Vec<_>) = (found.split(' ').collect(), answer.split(' ').collect());
        if found == [""] || expected == [""] {
            return f64::from(u8::from(found == expected));
        }
        let mut left: HashMap<&str, usize> = HashMap::new();
        expected.iter().for_each(|word| *left.entry(word).or_insert(0) += 1);
        let mut common = 0.0;
        for word in &found {
            if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
                *count -= 1;
                common += 1.0;
            }
        }
        2.0 * common / (found.len() + expected.len()) as f64
    })
}

/// A quotient, 0 where there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}
