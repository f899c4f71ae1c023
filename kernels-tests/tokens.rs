//! Corrupted tokens and their labels.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    ops::{self, HostTensor, IGNORE, Tensor, TensorType, random::threefry},
};

/// Slots of rows: some used, some not, some with the same place (one in four repeats its neighbour's).
fn slots(rows: usize, width: usize, n: usize) -> (Vec<u32>, Vec<u32>) {
    let mut places: Vec<u32> = Vec::with_capacity(rows * n);
    let mut used = Vec::with_capacity(rows * n);
    for slot in 0..rows * n {
        let words = threefry([3, width as u32], [slot as u32, 0]);
        let row = (slot / n * width) as u32;
        let place = row + words[0] % width as u32;
        let again = slot % n > 0 && words[1] % 4 == 0;
        places.push(if again { places[slot - 1] } else { place });
        used.push(if words[1] % 5 == 3 { IGNORE } else { words[1] % 97 });
    }
    (places, used)
}

/// All four operations on random rows.
fn check(rows: usize, width: usize, n: usize) {
    let mut c = Case::new();
    let ids = c.random_ids([rows, width], 50);
    let mask = c.random_ids([rows, width], 3);
    let (places, used) = slots(rows, width, n);
    let (places, used) = (c.ids([rows * n], places), c.ids([rows * n], used));
    let tokens = c.random_ids([rows * n], 50);
    let placed = ops::place_tokens(&mut c.g, ids, places, used, tokens).unwrap();
    let replaced = ops::replaced_labels(&mut c.g, ids, placed, mask).unwrap();
    let only = ops::only_places(&mut c.g, replaced, places, used).unwrap();
    let hidden = ops::hide_labels(&mut c.g, ids, mask).unwrap();
    c.check(&format!("[{rows},{width}] with {n} slots a row"), &[placed, replaced, only, hidden], Bound::Exact);
}

#[test]
fn against_the_reference() {
    for (width, n) in AWKWARD.into_iter().zip([1, 3, 2, 7, 1, 20, 64, 5, 65, 300, 31, 2]) {
        for rows in [1, 2, 5, 63] {
            check(rows, width, n);
        }
    }
    for (rows, width, n) in [(3, 4, 2), (1, 8, 9), (7, 12, 1), (128, 128, 20), (2, 16, 16_384)] {
        check(rows, width, n);
    }
}

#[test]
fn larger_than_a_binding() {
    // More than 128 MiB of ids, of rows that 4 divides and of rows that it does not; then of slots.
    for (rows, width, n) in [(33_100, 1024, 2), (33_100, 1023, 2), (3400, 3, 10_007)] {
        check(rows, width, n);
    }
}

/// Evaluates on the adapter and on the CPU, which must agree.
fn evaluate(inputs: &[(TensorType, Vec<u32>)], record: impl Fn(&mut Graph, &[Tensor]) -> Tensor) -> Vec<u32> {
    let mut results = [engine(), Engine::cpu()].map(|mut engine| {
        let mut g = Graph::new();
        let tensors: Vec<_> = inputs.iter().map(|(ty, _)| g.input("x", ty.clone())).collect();
        let y = record(&mut g, &tensors);
        let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
        for (&tensor, (ty, data)) in tensors.iter().zip(inputs) {
            plan.set(tensor, HostTensor::uints(ty.shape.clone(), data.clone())).unwrap();
        }
        plan.run(&mut engine).unwrap();
        plan.get(y).unwrap().u().to_vec()
    });
    assert_eq!(results[0], results[1], "the adapter and the CPU");
    std::mem::take(&mut results[0])
}

fn row(shape: [usize; 2], data: &[u32]) -> (TensorType, Vec<u32>) {
    (TensorType::u32(shape), data.to_vec())
}
fn list(data: &[u32]) -> (TensorType, Vec<u32>) {
    (TensorType::u32([data.len()]), data.to_vec())
}

/// Written out by hand: duplicates, unused slots, and slots whose place is in another row or in none.
#[test]
fn placing_by_hand() {
    for width in [4, 5] {
        let w = width as u32;
        let ids: Vec<u32> = (0..2 * w).map(|i| 10 + i).collect();
        // Row 0: place 2 twice, place 3 unused, and a place of row 1. Row 1: its first, unused then used, a place of row 0,
        // and one beyond all.
        let places = list(&[2, 2, 3, w + 1, w, w, 1, 9 * w]);
        let used = list(&[0, 5, IGNORE, 1, IGNORE, 1, 1, 1]);
        let tokens = list(&[90, 91, 92, 93, 94, 95, 96, 97]);
        let ids_row = row([2, width], &ids);
        let inputs = [ids_row.clone(), places.clone(), used.clone(), tokens];
        let mut expected = ids.clone();
        expected[2] = 90;
        expected[width] = 95;
        let placed = evaluate(&inputs, |g, t| ops::place_tokens(g, t[0], t[1], t[2], t[3]).unwrap());
        assert_eq!(placed, expected);

        let only = evaluate(&[ids_row, places, used], |g, t| ops::only_places(g, t[0], t[1], t[2]).unwrap());
        let mut expected = vec![IGNORE; 2 * width];
        expected[2] = ids[2];
        expected[width] = ids[width];
        assert_eq!(only, expected);
    }
}

#[test]
fn labels_by_hand() {
    let (original, corrupted) = (list(&[1, 2, 3, 4, 5]), list(&[1, 9, 3, 8, 7]));
    let mask = list(&[1, 1, 0, 0, 7]);
    let replaced =
        evaluate(&[original.clone(), corrupted, mask.clone()], |g, t| ops::replaced_labels(g, t[0], t[1], t[2]).unwrap());
    assert_eq!(replaced, [0, 1, IGNORE, IGNORE, 1]);
    let hidden = evaluate(&[original, mask], |g, t| ops::hide_labels(g, t[0], t[1]).unwrap());
    assert_eq!(hidden, [1, 2, IGNORE, IGNORE, 5]);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let ids = g.input("ids", TensorType::u32([2, 5]));
    let [three, four, many] = [3, 4, 2 * 16_385].map(|n| g.input("slots", TensorType::u32([n])));
    let mut refused = |ids, places, used, part: &str| {
        let error = ops::only_places(&mut g, ids, places, used).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(ids, three, three, "3 slots are not as many for each of 2 rows");
    refused(ids, four, three, "slots are [4] everywhere, not [3]");
    refused(ids, many, many, "a row has 16385 slots; at most 16384");
    refused(four, four, four, "rows of tokens are [B,T], not [4]");
    let error = ops::hide_labels(&mut g, ids, four).unwrap_err().to_string();
    assert!(error.contains("input 1 is [4], and the first [2,5]"), "{error}");
    let error = ops::replaced_labels(&mut g, ids, ids, four).unwrap_err().to_string();
    assert!(error.contains("input 2 is [4], and the first [2,5]"), "{error}");
}
