//! Metrics against scikit-learn 1.x, scipy and SQuAD's `evaluate-v2.0.py`, which the numbers here were computed with, and
//! against sums by hand.

use shaderlm::train::tasks::metrics::{accuracy, answer_f1, exact_match, f1, f1_macro, f1_tokens, matthews, pearson, spearman};

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
}

/// (found, expected)
const BINARY: [(usize, usize); 10] = [(1, 1), (0, 0), (1, 0), (0, 1), (1, 1), (1, 1), (0, 0), (1, 0), (0, 0), (1, 1)];
const FOUR: [(usize, usize); 10] = [(0, 0), (1, 2), (2, 2), (2, 1), (0, 0), (1, 1), (3, 0), (2, 2), (0, 2), (1, 1)];

#[test]
fn classes_as_scikit_learn() {
    close(accuracy(&BINARY), 0.7);
    // By hand: 4 hits, 6 found, 5 expected.
    close(f1(&BINARY, 1), 8.0 / 11.0);
    close(matthews(&BINARY), 0.408248290463863);

    close(accuracy(&FOUR), 0.6);
    for (class, expected) in [2.0 / 3.0, 2.0 / 3.0, 4.0 / 7.0, 0.0].into_iter().enumerate() {
        close(f1(&FOUR, class), expected);
    }
    close(f1_macro(&FOUR), 0.47619047619047616);
    close(matthews(&FOUR), 0.4351941398892446);
    // f1_score(average="micro", labels=[1, 2, 3])
    close(f1_tokens(&FOUR, 0), 0.5714285714285714);
    // No word is outside: the share of hits.
    close(f1_tokens(&FOUR, 9), 0.6);
}

#[test]
fn constant_predictions_as_scikit_learn() {
    let ones = [(1, 0), (1, 1), (1, 0), (1, 1)];
    close(f1(&ones, 1), 2.0 / 3.0);
    close(f1_macro(&ones), 1.0 / 3.0);
    close(matthews(&ones), 0.0);
    let zeros = [(0, 0), (0, 1), (0, 0), (0, 1)];
    close(f1(&zeros, 1), 0.0);
    close(f1_macro(&zeros), 1.0 / 3.0);
    close(matthews(&zeros), 0.0);
    let right = [(0, 0), (0, 0)];
    close(accuracy(&right), 1.0);
    close(f1(&right, 1), 0.0);
    close(f1_macro(&right), 1.0);
    close(matthews(&right), 0.0);
    close(f1_tokens(&right, 0), 0.0);
    for none in [accuracy(&[]), f1(&[], 1), f1_macro(&[]), f1_tokens(&[], 0), matthews(&[])] {
        close(none, 0.0);
    }
}

#[test]
fn the_best_and_the_worst() {
    let right: Vec<_> = (0..30).map(|i| (i % 3, i % 3)).collect();
    close(matthews(&right), 1.0);
    close(f1_macro(&right), 1.0);
    let wrong: Vec<_> = (0..30).map(|i| (i % 2, 1 - i % 2)).collect();
    close(matthews(&wrong), -1.0);
    close(f1_macro(&wrong), 0.0);
}

#[test]
fn correlations_as_scipy() {
    let x = [0.1, 2.5, 3.0, 3.0, -1.5, 4.75, 2.5, 2.5];
    let y = [0.0, 2.0, 3.5, 2.75, 0.5, 5.0, 2.0, 3.0];
    let pairs: Vec<_> = x.into_iter().zip(y).collect();
    close(pearson(&pairs).unwrap(), 0.908911218533249);
    close(spearman(&pairs).unwrap(), 0.8891599742531934);
    close(pearson(&[(1.0, 5.0), (3.0, 2.0)]).unwrap(), -1.0);
    let far: Vec<_> = [1.0, 2.0, 2.0, 4.0, 9.0].into_iter().enumerate().map(|(i, y)| (1e8 + i as f64, y)).collect();
    close(pearson(&far).unwrap(), 0.8867963503478639);
    close(spearman(&[(1.0, 1.0), (10.0, 2.0), (100.0, 3.0), (1000.0, 3.0)]).unwrap(), 0.9486832980505139);
    // 0 and -0 are equal, so they share a rank.
    close(spearman(&[(0.0, 1.0), (-0.0, 1.0), (2.0, 5.0)]).unwrap(), 1.0);
}

#[test]
fn correlations_that_are_not_defined() {
    for pairs in [
        &[][..],
        &[(1.0, 2.0)],
        &[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)],
        &[(1.0, 4.0), (2.0, 4.0)],
        &[(f64::NAN, 4.0), (2.0, 5.0)],
        &[(1.0, 4.0), (2.0, f64::INFINITY)],
    ] {
        assert_eq!((pearson(pairs), spearman(pairs)), (None, None), "{pairs:?}");
    }
}

#[test]
fn answers_as_squad() {
    let cases: [(&str, &[&str], bool, f64); 11] = [
        ("The  cat.", &["cat"], true, 1.0),
        ("a cat sat on the mat", &["The cat sat", "a mat"], false, 2.0 / 3.0),
        ("the the cat cat", &["cat dog cat bird"], false, 2.0 / 3.0),
        // Unanswerable questions.
        ("", &[], true, 1.0),
        ("something", &[], false, 0.0),
        ("", &["the"], true, 1.0),
        ("", &["cat"], false, 0.0),
        ("Saint-Étienne, the U.S.A.", &["saintétienne usa"], true, 1.0),
        ("theatre an", &["theatre"], true, 1.0),
        // Only ASCII's punctuation goes.
        ("…a… 5", &["5"], false, 0.5),
        ("dog", &["cat"], false, 0.0),
    ];
    for (found, answers, exact, f1) in cases {
        assert_eq!(exact_match(found, answers), exact, "{found:?} for {answers:?}");
        close(answer_f1(found, answers), f1);
    }
}
