//! The graph runtime: autodiff, recomputation, fusion, the arena, plans.

use crate::harness::{engine, nmse, settings};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, PlanStats, gradients, kernels},
    models::{
        Dropout, Gpt2Config, Mode, Parameter,
        gpt2::{Gpt2, parameters},
        initialise,
    },
    ops::{self, HostTensor, Tensor, TensorType},
    train::{Objective, Schedule, ScheduleShape, Settings, TokenBatch, Trainer},
};

fn config() -> Gpt2Config {
    Gpt2Config { n_embd: 32, n_head: 2, vocab_size: 50, n_layer: 4, n_positions: 16, ..Gpt2Config::default() }
}

/// Loss and gradients of a small GPT-2 with dropout, and the plan's sizes.
fn run(engine: &mut Engine, recompute: bool, options: &PlanOptions) -> (Vec<Vec<f32>>, PlanStats) {
    let config = config();
    initialise(&parameters(&config), engine, 3).unwrap();
    let shape = [16, 16];
    let mut g = Graph::new();
    let (ids, targets) = (g.input("ids", TensorType::u32(shape)), g.input("targets", TensorType::u32(shape)));
    let rng = g.input("rng", TensorType::u32([2]));
    let model = Gpt2 { config: &config, mode: Mode { dropout: Some(Dropout { rate: 0.2, rng }), recompute, ..Mode::default() } };
    let loss = model.loss(&mut g, ids, targets, None).unwrap();
    let list: Vec<_> = parameters(&config).into_iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape)).unwrap()).collect();
    let mut wanted = vec![loss];
    wanted.extend(gradients(&mut g, loss, &list).unwrap().into_iter().map(Option::unwrap));
    if let Some(caps) = engine.capabilities() {
        // The loss and its gradient are one kernel, or two.
        let labels: Vec<_> = kernels(&g, &wanted, caps, options).unwrap().iter().map(|kernel| kernel.label()).collect();
        let found = ["cross_entropy_gradient", "cross_entropy", "cross_entropy_backward"]
            .map(|name| labels.iter().filter(|label| label.split('{').next() == Some(name)).count());
        assert_eq!(found, if options.no_fusion { [0, 1, 1] } else { [1, 0, 0] });
    }
    let mut plan = engine.compile(g, &wanted, options).unwrap();
    plan.set(ids, HostTensor::uints(shape, (0..256).map(|i| i * 7 % 50).collect())).unwrap();
    plan.set(targets, HostTensor::uints(shape, (0..256).map(|i| (i * 11 + 3) % 50).collect())).unwrap();
    plan.set(rng, HostTensor::uints([2], vec![4, 5])).unwrap();
    plan.run(engine).unwrap();
    (wanted.iter().map(|&t| plan.get(t).unwrap().f().to_vec()).collect(), plan.stats())
}

#[test]
fn recomputation_saves_memory_and_changes_nothing() {
    let (kept, much) = run(&mut engine(), false, &PlanOptions::default());
    let (again, little) = run(&mut engine(), true, &PlanOptions::default());
    assert_eq!(kept, again, "dropout's masks too are the same the second time");
    assert!(little.peak_bytes < much.peak_bytes * 3 / 4, "{} bytes, not much less than {}", little.peak_bytes, much.peak_bytes);
    assert!(little.flops > much.flops, "it has to compute more");
}

/// Loss and gradients of a GPT-2 with more tokens than a block makes of a row, and how often the head's loss is computed. Of every five
/// targets one is ignored, or all are.
fn wide(engine: &mut Engine, recompute: bool, all_ignored: bool) -> (Vec<Vec<f32>>, usize) {
    let config = Gpt2Config { vocab_size: 1_001, n_layer: 1, n_positions: 75, ..config() };
    initialise(&parameters(&config), engine, 3).unwrap();
    let shape = [10, 75];
    let mut g = Graph::new();
    let (ids, targets) = (g.input("ids", TensorType::u32(shape)), g.input("targets", TensorType::u32(shape)));
    let model = Gpt2 { config: &config, mode: Mode { recompute, ..Mode::default() } };
    let loss = model.loss(&mut g, ids, targets, None).unwrap();
    let list: Vec<_> = parameters(&config).into_iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape)).unwrap()).collect();
    let mut wanted = vec![loss];
    wanted.extend(gradients(&mut g, loss, &list).unwrap().into_iter().map(Option::unwrap));
    let losses = g.nodes().iter().filter(|node| node.op.name().starts_with("cross_entropy_rows")).count();
    let mut plan = engine.compile(g, &wanted, &PlanOptions::default()).unwrap();
    plan.set(ids, HostTensor::uints(shape, (0..750).map(|i| i * 7 % 1_001).collect())).unwrap();
    let target = |i: u32| if all_ignored || i % 5 == 3 { ops::IGNORE } else { (i * 11 + 3) % 1_001 };
    plan.set(targets, HostTensor::uints(shape, (0..750).map(target).collect())).unwrap();
    plan.run(engine).unwrap();
    (wanted.iter().map(|&t| plan.get(t).unwrap().f().to_vec()).collect(), losses)
}

#[test]
fn a_head_that_is_recomputed_goes_by_parts_of_the_rows() {
    for make in [engine as fn() -> Engine, Engine::cpu] {
        let (whole, none) = wide(&mut make(), false, false);
        let (parts, losses) = wide(&mut make(), true, false);
        // 384 rows and the other 366, each again in the backward pass.
        assert_eq!((none, losses), (0, 4));
        for (i, (parts, whole)) in parts.iter().zip(&whole).enumerate() {
            let whole: Vec<_> = whole.iter().map(|&x| f64::from(x)).collect();
            assert!(nmse(parts, &whole) < 1e-11, "output {i}: {}", nmse(parts, &whole));
        }
        let (nothing, _) = wide(&mut make(), true, true);
        assert!(nothing[0][0].is_nan() && nothing[1..].iter().flatten().all(|&x| x == 0.0), "nothing counts");
    }
}

#[test]
fn fusion_and_the_arena_change_nothing_but_the_cost() {
    let (fused, stats) = run(&mut engine(), false, &PlanOptions::default());
    let (plain, more) = run(&mut engine(), false, &PlanOptions { no_fusion: true, ..PlanOptions::default() });
    assert!(stats.dispatches < more.dispatches, "{} and {}", stats.dispatches, more.dispatches);
    assert!(stats.peak_bytes < stats.planned_bytes, "{} of {}", stats.peak_bytes, stats.planned_bytes);
    let (apart, separate) = run(&mut engine(), false, &PlanOptions { sentinel: 4096, ..PlanOptions::default() });
    assert_eq!(fused, apart, "memory that is shared or not");
    assert!(separate.peak_bytes > stats.peak_bytes);
    let (cpu, _) = run(&mut Engine::cpu(), false, &PlanOptions::default());
    for (i, ((fused, plain), cpu)) in fused.iter().zip(&plain).zip(&cpu).enumerate() {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        assert!(nmse(fused, &wide(plain)) < 1e-10, "output {i}, fused or not");
        assert!(nmse(fused, &wide(cpu)) < 1e-10, "output {i}, GPU or CPU");
    }
}

/// The losses of some steps with micro-batches.
fn trained(batch: usize, accumulate: usize, ids: &[u32]) -> Vec<f32> {
    let config = config();
    let mut engine = engine();
    initialise(&parameters(&config), &mut engine, 3).unwrap();
    let types: Vec<_> = parameters(&config).iter().map(Parameter::trained).collect();
    let schedule = Schedule { shape: ScheduleShape::Linear, peak: 1e-2, min: 1e-3, warmup: 2, steps: 6 };
    let settings = Settings { accumulate, schedule, ..settings(batch, 16, 0.0) };
    let loss = |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| Ok(Gpt2::new(&config).loss(g, i[0], i[1], None)?.into());
    let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32([batch, 16]))).to_vec();
    let mut trainer = Trainer::new(&mut engine, &types, &Objective { inputs, loss: &loss }, settings).unwrap();
    let rows = batch * 16;
    (0..6)
        .map(|step| {
            let batches: Vec<_> = (0..accumulate)
                .map(|m| {
                    let ids: Vec<u32> = ids[m * rows..][..rows].iter().map(|id| (id + step as u32) % 50).collect();
                    let targets = ids.iter().map(|id| (id * 3 + 1) % 50).collect();
                    TokenBatch { ids, targets }.feed(16)
                })
                .collect();
            trainer.step(&mut engine, step, &batches).unwrap().loss
        })
        .collect()
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let ids: Vec<u32> = (0..64).map(|i| i * 13 % 50).collect();
    let (whole, parts) = (trained(4, 1, &ids), trained(1, 4, &ids));
    assert!(whole[5] < whole[0] - 0.3, "it learns: {whole:?}");
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() < 2e-4, "{whole:?} and {parts:?}");
    }
}

#[test]
fn a_tensor_used_twice_gets_the_sum_of_its_gradients() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([3]));
    let square = ops::mul(&mut g, x, x).unwrap();
    let cube = ops::mul(&mut g, square, x).unwrap();
    let both = ops::add(&mut g, cube, x).unwrap();
    let loss = ops::sum(&mut g, both).unwrap();
    let other = g.input("other", TensorType::f32([3]));
    let grads = gradients(&mut g, loss, &[x, other]).unwrap();
    assert!(grads[1].is_none(), "nothing depends on it");
    let grad = grads[0].unwrap();
    let mut engine = engine();
    let mut plan = engine.compile(g, &[grad], &PlanOptions::default()).unwrap();
    plan.set(x, HostTensor::floats([3], vec![1.0, -2.0, 0.5])).unwrap();
    plan.run(&mut engine).unwrap();
    // 3 x^2 + 1
    assert_eq!(plan.get(grad).unwrap().f(), [4.0, 13.0, 1.75]);
}

#[test]
fn errors_name_the_operation_the_shapes_and_the_layer() {
    let mut g = Graph::new();
    let (a, b) = (g.input("a", TensorType::f32([2, 3])), g.input("b", TensorType::f32([4, 5])));
    let error = g.layer("h.3", |g| g.layer("attn", |g| ops::matmul(g, a, b))).unwrap_err().to_string();
    for word in ["matmul", "[2,3]", "[4,5]", "h.3.attn"] {
        assert!(error.contains(word), "no {word} in {error}");
    }
    let y = ops::mul(&mut g, a, a).unwrap();
    assert!(gradients(&mut g, y, &[a]).unwrap_err().to_string().contains("scalar"));
    let rng = g.input("rng", TensorType::u32([2]));
    let rule = ops::Sample { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };
    ops::sample(&mut g, a, None, rng, rule).unwrap();

    let mut engine = engine();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    let error = plan.set(a, HostTensor::floats([3], vec![0.0; 3])).unwrap_err().to_string();
    assert!(error.contains("[3]") && error.contains("[2,3]"), "{error}");
    let error = plan.set(a, HostTensor::uints([2, 3], vec![0; 6])).unwrap_err().to_string();
    assert!(error.contains("U32") && error.contains("F32"), "{error}");
    assert!(plan.get(b).is_err(), "b is no output");
}

#[test]
fn variables_live_in_the_engine_and_keep_their_type() {
    let mut engine = engine();
    engine.set("x", &HostTensor::floats([2, 2], vec![1.0, 2.0, 3.0, 4.0])).unwrap();
    let mut g = Graph::new();
    let x = g.variable("x", TensorType::f32([2, 2])).unwrap();
    let y = ops::scale(&mut g, x, 2.0).unwrap();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    plan.run(&mut engine).unwrap();
    assert_eq!(plan.get(y).unwrap().f(), [2.0, 4.0, 6.0, 8.0]);
    // The plan sees what is put there later.
    engine.set("x", &HostTensor::floats([2, 2], vec![5.0; 4])).unwrap();
    plan.run(&mut engine).unwrap();
    assert_eq!(plan.get(y).unwrap().f(), [10.0; 4]);
    let mut g = Graph::new();
    let x = g.variable("x", TensorType::f32([4])).unwrap();
    assert!(g.variable("x", TensorType::f32([5])).is_err(), "one name, two types");
    let error = engine.compile(g, &[x], &PlanOptions::default()).err().unwrap().to_string();
    assert!(error.contains("variable x") && error.contains("[2,2]"), "{error}");
}
