//! Every shader in every variant through naga: to SPIR-V, MSL and HLSL. The variants are those that plans choose, over
//! graphs that use every operation, on adapters that differ in what they offer.

use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities as Allowed, ModuleInfo, ValidationFlags, Validator},
};
use shaderlm::{
    gpu::{Capabilities, Ceilings, Cooperative, Kernel, Scalar},
    graph::{Graph, PlanOptions, decisions, gradients, kernels},
    models::{
        Dropout, Gpt2Config, Mode,
        gpt2::{Context, Gpt2, parameters},
    },
    ops::{
        self, AdamW, AdamWTensor, Format, Gelu, Lamb, Layout, Mask, Packing, Precision, Recorder, Sample, Sgd, StopTokens,
        Tensor, TensorType,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
};

/// Adapters: software and hardware, with and without subgroups, with WebGPU's limits and with small bindings.
fn adapters() -> Vec<Capabilities> {
    let mut all = Vec::new();
    for software in [false, true] {
        for subgroup in [None, Some(8), Some(32), Some(64)] {
            for small in [false, true] {
                let mut caps = Capabilities::portable();
                (caps.software, caps.subgroup) = (software, subgroup);
                // In all of one kind on each side, since there are twice as many plans.
                caps.max_bindings = if small { 8 } else { 64 };
                caps.f16 = subgroup == if software { Some(8) } else { Some(32) };
                if subgroup == Some(32) {
                    caps.workgroup_memory = 48 << 10;
                }
                if small {
                    caps.max_binding = 1 << 16;
                }
                all.push(caps.clone());
                if software && subgroup != Some(64) {
                    caps.images = true;
                    all.push(caps);
                }
            }
        }
    }
    all
}

/// Real GPUs with cooperative matrices: 16x16 as NVIDIA's, 8x8 as Apple's, and those of Mesa's software adapter.
fn adapters_with_matrices() -> Vec<Capabilities> {
    [(false, 32, 16, 48 << 10), (false, 32, 8, 32 << 10), (true, 8, 8, 64 << 10)]
        .map(|(software, lanes, size, workgroup_memory)| Capabilities {
            software,
            subgroup: Some(lanes),
            f16: true,
            max_invocations: 1024,
            workgroup_memory,
            backend: "vulkan".into(),
            cooperative: vec![Cooperative { size, operands: Scalar::F16, sums: Scalar::F32 }],
            ..Capabilities::portable()
        })
        .to_vec()
}

/// A loss and its gradients with respect to every variable.
fn trained(g: &mut Graph, config: &Gpt2Config, rows: usize, dropout: f32) -> Vec<Tensor> {
    let shape = [rows, config.n_positions];
    let (ids, targets) = (g.input("ids", TensorType::u32(shape)), g.input("targets", TensorType::u32(shape)));
    let keys = (rows > 1).then(|| g.input("keys", TensorType::u32(shape)));
    let rng = g.input("rng", TensorType::u32([2]));
    let model =
        Gpt2 { config, mode: Mode { dropout: Some(Dropout { rate: dropout, rng }), recompute: rows > 2, ..Mode::default() } };
    let loss = model.loss(g, ids, targets, keys).unwrap();
    let list: Vec<_> = parameters(config).into_iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape)).unwrap()).collect();
    let grads: Vec<_> = gradients(g, loss, &list).unwrap().into_iter().flatten().collect();
    let norm = ops::global_norm(g, &grads).unwrap();
    let clipped = ops::clip_factor(g, norm, 1.0).unwrap();
    let scaling = g.variable("scaling", TensorType::f32([3])).unwrap();
    let [factor, _] = ops::loss_scale(g, clipped, scaling, (rows == 2).then_some(1.0)).unwrap();
    let hyper = g.input("hyper", TensorType::f32([3]));
    let mut all = Vec::new();
    for (i, (&x, &grad)) in list.iter().zip(&grads).enumerate() {
        let ty = g.ty(x).clone();
        let m = g.variable(&format!("m{i}"), ty.clone()).unwrap();
        let v = g.variable(&format!("v{i}"), ty).unwrap();
        let clip = (i % 2 == 0).then_some(factor);
        if rows == 1 {
            let rule = Sgd { momentum: 0.9, weight_decay: 0.1, rate_scale: 1.0 };
            ops::sgd(g, x, grad, (i % 3 == 0).then_some(m), hyper, clip, rule).unwrap();
        } else if rows == 3 {
            let rule = Lamb { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, adapt: i % 3 == 0, rate_scale: 1.0 };
            ops::lamb(g, x, grad, m, v, hyper, clip, rule).unwrap();
        } else {
            let rule = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
            ops::adamw(g, x, grad, m, v, hyper, clip, rule).unwrap();
            all.push(AdamWTensor { parameter: x, grad, m, v, weight_decay: 0.1, rate_scale: 1.0 });
        }
    }
    if !all.is_empty() {
        let rule = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
        ops::adamw_all(g, &all, hyper, Some(factor), rule).unwrap();
    }
    vec![loss]
}

/// A prompt or a decoding step with a sampling rule.
fn generated(g: &mut Graph, config: &Gpt2Config, rule: Sample, prompt: bool) -> Vec<Tensor> {
    let (batch, capacity) = (2, config.n_positions);
    let positions = g.variable("positions", TensorType::u32([batch])).unwrap();
    let tokens = g.variable("tokens", TensorType::u32([batch])).unwrap();
    let history = g.variable("history", TensorType::u32([batch, 9])).unwrap();
    let rng = g.variable("rng", TensorType::u32([2])).unwrap();
    let (ids, context) = if prompt {
        (g.input("ids", TensorType::u32([batch, 5])), Context::Prompt { positions, capacity })
    } else {
        let places = ops::reshape(g, positions, [batch, 1]).unwrap();
        (ops::reshape(g, tokens, [batch, 1]).unwrap(), Context::Cached { positions, places, capacity })
    };
    let model = Gpt2::new(config);
    let states = model.residual_stream(g, ids, context).unwrap();
    let last = *states.last().unwrap();
    let rows = g.ty(last).shape.rows();
    let flat = ops::reshape(g, last, [rows, config.n_embd]).unwrap();
    let flat = ops::embedding(g, flat, positions).unwrap();
    let hidden = model.last_norm(g, flat).unwrap();
    let logits = model.head(g, hidden).unwrap();
    let seen = (rule.repetition_penalty != 1.0).then(|| g.variable("seen", TensorType::u32([batch, config.vocab_size])).unwrap());
    let steps = g.variable("steps", TensorType::u32([batch])).unwrap();
    // Prompts do not stop.
    let stops = if prompt { StopTokens::none() } else { StopTokens::of(&[3]) };
    let decoding = ops::Decoding { rng, steps, text_rows: 1, seen, state: Some([tokens, positions, history]), stops };
    vec![ops::choose(g, logits, &decoding, rule).unwrap()]
}

/// Operations that no model uses yet, and products of every layout and size.
fn others(g: &mut Graph, n: usize) -> Vec<Tensor> {
    let x = g.input("x", TensorType::f32([3, n, n]));
    let mut wanted = vec![
        ops::softmax(g, x).unwrap(),
        ops::gelu(g, x, Gelu::Erf).unwrap(),
        ops::gelu(g, x, Gelu::Tanh).unwrap(),
        ops::tanh(g, x).unwrap(),
        ops::relu(g, x).unwrap(),
        ops::mean(g, x).unwrap(),
        ops::sum_leading(g, x, 2).unwrap(),
        ops::concat(g, &[x, x], 2).unwrap(),
        ops::mul(g, x, x).unwrap(),
        ops::scale(g, x, 2.0).unwrap(),
    ];
    for rows in [1, 3, 8, n] {
        for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = g.input("a", TensorType::f32(if transpose_a { [n, rows] } else { [rows, n] }));
            let b = g.input("b", TensorType::f32([n, n]));
            let bias = g.input("bias", TensorType::f32([n]));
            let layout = Layout { transpose_a, transpose_b, alpha: 0.5 };
            let plain = ops::matmul_with(g, a, b, None, layout).unwrap();
            let y = ops::matmul_with(g, a, b, Some(bias), layout).unwrap();
            let active = ops::gelu(g, y, Gelu::Erf).unwrap();
            let residual = ops::add(g, plain, active).unwrap();
            wanted.extend([plain, active, residual]);
        }
    }
    for causal in [false, true] {
        // Software adapters have other kernels for long sequences.
        for (heads, rows) in [(1, 9), (2, 9), (1, 64), (2, 64)] {
            let qkv = g.input("qkv", TensorType::f32([2, rows, 6 * n * heads]));
            let keys = (heads == 1).then(|| g.input("keys", TensorType::u32([2, rows])));
            let band = (causal && heads == 1).then_some(4);
            let y = ops::attention(g, qkv, 2 * heads, Mask { causal, keys, band }).unwrap();
            let sum = ops::sum(g, y).unwrap();
            wanted.extend([Some(y)].into_iter().chain(gradients(g, sum, &[qkv]).unwrap()).flatten());
        }
    }
    for (t, capacity) in [(1, 600), (2, 40), (9, 600)] {
        let qkv = g.input("qkv", TensorType::f32([2, t, 3 * 2 * 20]));
        let cache = g.variable(&format!("cache {t}"), TensorType::f32([2, capacity, 2 * 2 * 20])).unwrap();
        let positions = g.input("positions", TensorType::u32([2]));
        wanted.push(ops::attention_cached(g, qkv, cache, positions, 2).unwrap());
    }
    // Rows of a table with others, which are in 16 bits in a mixed plan.
    let ids = g.input("ids", TensorType::u32([3, n]));
    let table = g.input("table", TensorType::f32([9, n]));
    let picked = ops::embedding(g, table, ids).unwrap();
    let square = ops::mul(g, x, x).unwrap();
    wanted.push(ops::add(g, square, picked).unwrap());
    let labels = g.input("labels", TensorType::u32([3, n]));
    let rows = ops::cross_entropy_rows(g, x, labels, ops::IGNORE).unwrap();
    wanted.push(rows);
    let logits = ops::mean_last(g, x).unwrap();
    wanted.push(ops::binary_cross_entropy(g, logits, labels).unwrap());
    wanted.push(ops::copy_mixture(g, rows, logits, labels).unwrap());
    let mut loss = None;
    for &y in &wanted.clone() {
        let part = ops::sum(g, y).unwrap();
        loss = Some(match loss {
            Some(sum) => ops::add(g, sum, part).unwrap(),
            None => part,
        });
    }
    let grads = gradients(g, loss.unwrap(), &[x]).unwrap();
    wanted.extend(grads.into_iter().flatten());
    // Long enough for k to be taken in parts.
    let (a, b) = (g.input("a", TensorType::f32([n, 1024])), g.input("b", TensorType::f32([1024, n])));
    wanted.push(ops::matmul(g, a, b).unwrap());
    let slots = ["places", "used", "tokens"].map(|name| g.input(name, TensorType::u32([6])));
    let placed = ops::place_tokens(g, labels, slots[0], slots[1], slots[2]).unwrap();
    let replaced = ops::replaced_labels(g, labels, placed, labels).unwrap();
    let only = ops::only_places(g, replaced, slots[0], slots[1]).unwrap();
    wanted.push(ops::hide_labels(g, only, labels).unwrap());
    wanted
}

/// Products of all layouts and epilogues, of whole tiles, and not, and attention, for the kernels with cooperative matrices; and their
/// operands.
fn products(g: &mut Graph) -> (Vec<Tensor>, Vec<Tensor>) {
    let (mut wanted, mut operands) = (Vec::new(), Vec::new());
    for [m, n, k] in [[256, 256, 1024], [129, 130, 36]] {
        for (transpose_a, transpose_b) in [(false, false), (true, true)] {
            let a = g.input("a", TensorType::f32(if transpose_a { [k, m] } else { [m, k] }));
            let b = g.input("b", TensorType::f32(if transpose_b { [n, k] } else { [k, n] }));
            let bias = g.input("bias", TensorType::f32([n]));
            let layout = Layout { transpose_a, transpose_b, alpha: 0.5 };
            let plain = ops::matmul_with(g, a, b, None, layout).unwrap();
            let y = ops::matmul_with(g, a, b, Some(bias), layout).unwrap();
            let active = ops::gelu(g, y, Gelu::Erf).unwrap();
            let residual = ops::matmul_with(g, a, b, Some(bias), layout).unwrap();
            let residual = ops::add(g, plain, residual).unwrap();
            wanted.extend([plain, y, active, residual]);
            operands.extend([a, b]);
        }
    }
    for (d, causal) in [(64, true), (80, false), (128, true)] {
        let qkv = g.input("qkv", TensorType::f32([2, 70, 3 * d]));
        let keys = (d < 128).then(|| g.input("keys", TensorType::u32([2, 70])));
        let y = ops::attention(g, qkv, 1, Mask { causal, keys, band: (d == 128).then_some(9) }).unwrap();
        let loss = ops::sum(g, y).unwrap();
        wanted.extend(gradients(g, loss, &[qkv]).unwrap().into_iter().flatten());
        operands.push(qkv);
    }
    (wanted, operands)
}

/// Products with weights in narrow storage, look-ups in them, and their copies; and how they are stored.
fn narrow(g: &mut Graph, format: Format) -> (Vec<Tensor>, HashMap<String, Packing>) {
    let (mut wanted, mut packed) = (Vec::new(), HashMap::new());
    for (name, n, k) in [("small", 9, 64), ("odd", 13, 33), ("long", 12, 4096)] {
        let Ok(packing) = Packing::new(format, &[n, k].into(), 1) else { continue };
        packed.insert(name.to_owned(), packing);
        let w = g.variable(name, TensorType::f32([n, k])).unwrap();
        let ids = g.input("ids", TensorType::u32([3]));
        wanted.push(ops::embedding(g, w, ids).unwrap());
        let (other, more) = (g.input("other", TensorType::f32([9, k])), g.input("more", TensorType::f32([3, k])));
        let places = ops::embedding(g, other, ids).unwrap();
        for more in [places, more] {
            let rows = ops::embedding(g, w, ids).unwrap();
            wanted.push(ops::add(g, rows, more).unwrap());
        }
        for rows in [1, 3, 16, 17] {
            let layout = Layout { transpose_b: true, ..Layout::default() };
            let (x, bias) = (g.input("x", TensorType::f32([rows, k])), g.input("bias", TensorType::f32([n])));
            let plain = ops::matmul_with(g, x, w, None, layout).unwrap();
            let y = ops::matmul_with(g, x, w, Some(bias), layout).unwrap();
            let active = ops::gelu(g, y, Gelu::Erf).unwrap();
            let residual = ops::add(g, plain, active).unwrap();
            wanted.extend([y, active, residual]);
            // With a norm before, and a draw after.
            let [gamma, beta] = [0, 1].map(|_| g.input("norm", TensorType::f32([k])));
            let h = ops::layer_norm(g, x, gamma, beta, 1e-5).unwrap();
            wanted.push(ops::matmul_with(g, h, w, Some(bias), layout).unwrap());
            for temperature in [0.0, 1.0] {
                let h = ops::layer_norm(g, x, gamma, beta, 1e-5).unwrap();
                let logits = ops::matmul_with(g, h, w, None, layout).unwrap();
                let (rng, steps) = (g.input("rng", TensorType::u32([2])), g.input("steps", TensorType::u32([rows])));
                let decoding = ops::Decoding { rng, steps, text_rows: 1, seen: None, state: None, stops: StopTokens::none() };
                wanted.push(ops::choose(g, logits, &decoding, Sample::plain(temperature)).unwrap());
                let logits = ops::matmul_with(g, x, w, None, layout).unwrap();
                wanted.push(ops::sample(g, logits, None, rng, Sample::plain(temperature)).unwrap());
                for stops in [StopTokens::none(), StopTokens::of(&[2, 5])] {
                    let [tokens, positions] = ["tokens", "positions"]
                        .map(|name| g.variable(&format!("{name} {rows}"), TensorType::u32([rows])).unwrap());
                    let history = g.variable(&format!("history {rows}"), TensorType::u32([rows, 9])).unwrap();
                    let logits = ops::matmul_with(g, x, w, None, layout).unwrap();
                    let decoding =
                        ops::Decoding { rng, steps, text_rows: 1, seen: None, state: Some([tokens, positions, history]), stops };
                    wanted.push(ops::choose(g, logits, &decoding, Sample::plain(temperature)).unwrap());
                }
            }
        }
    }
    (wanted, packed)
}

/// Every kernel variant that the graphs above take on any of the adapters.
fn variants() -> BTreeMap<String, Kernel> {
    let plain = Sample { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };
    let rules = [
        plain,
        Sample { temperature: 0.0, ..plain },
        Sample { top_k: 4, top_p: 0.9, repetition_penalty: 1.2, ..plain },
        Sample { temperature: 0.0, repetition_penalty: 1.2, ..plain },
    ];
    let mut graphs = Vec::new();
    for (width, heads, vocab) in [(16, 4, 64), (15, 3, 61), (64, 1, 40_000)] {
        let base = Gpt2Config::default();
        let config = Gpt2Config { n_embd: width, n_head: heads, vocab_size: vocab, n_layer: 2, n_positions: 12, ..base };
        for rows in [1, 2, 3] {
            let mut g = Graph::new();
            let wanted = trained(&mut g, &config, rows, 0.1);
            graphs.push((g, wanted));
        }
        for rule in rules {
            for prompt in [false, true] {
                let mut g = Graph::new();
                let wanted = generated(&mut g, &config, rule, prompt);
                graphs.push((g, wanted));
            }
        }
    }
    for n in [16, 17, 64, 65] {
        let mut g = Graph::new();
        let wanted = others(&mut g, n);
        graphs.push((g, wanted));
    }
    // No plan takes the kernels that measure what a device can reach.
    let mut found: BTreeMap<_, _> = Ceilings::kernels().into_iter().map(|kernel| (kernel.label(), kernel)).collect();
    for caps in adapters() {
        for (g, wanted) in &graphs {
            let most = decisions(g, wanted, &caps, &PlanOptions::default())
                .map_or(0, |found| found.iter().map(|d| d.kernels.len()).max().unwrap_or(0));
            let plans = [(false, None), (true, None)].into_iter().chain((0..most).map(|choice| (false, Some(choice))));
            let precisions = if caps.f16 { vec![Precision::F32, Precision::Mixed] } else { vec![Precision::F32] };
            for ((no_fusion, choice), &precision) in plans.flat_map(|plan| precisions.iter().map(move |p| (plan, p))) {
                let options =
                    PlanOptions { no_fusion, choices: choice.into_iter().collect(), precision, ..PlanOptions::default() };
                let Ok(list) = kernels(g, wanted, &caps, &options) else {
                    assert!(caps.max_binding < 1 << 20, "a graph fits every adapter but those with tiny bindings");
                    continue;
                };
                found.extend(list.into_iter().map(|kernel| (kernel.label(), kernel)));
            }
        }
    }
    for word in ["f32", "f16", "bf16", "q8", "q4"] {
        for group in if word.starts_with('q') { vec![32, 64] } else { vec![1] } {
            let mut g = Graph::new();
            let (wanted, packed) = narrow(&mut g, Format::parse(word, group).unwrap());
            for caps in adapters().into_iter().filter(|caps| caps.max_binding > 1 << 20) {
                for choice in [None].into_iter().chain((0..12).map(Some)) {
                    let options =
                        PlanOptions { choices: choice.into_iter().collect(), packed: packed.clone(), ..PlanOptions::default() };
                    let list = kernels(&g, &wanted, &caps, &options).unwrap();
                    found.extend(list.into_iter().map(|kernel| (kernel.label(), kernel)));
                }
            }
        }
    }
    let mut g = Graph::new();
    let (wanted, operands) = products(&mut g);
    for caps in adapters_with_matrices() {
        for halves in [Vec::new(), operands.clone()] {
            let mixed = PlanOptions { precision: Precision::Mixed, halves, ..PlanOptions::default() };
            let most = decisions(&g, &wanted, &caps, &mixed).unwrap().into_iter().map(|d| d.kernels.len()).max().unwrap();
            for choice in 0..most {
                let options = PlanOptions { choices: vec![choice], ..mixed.clone() };
                found.extend(kernels(&g, &wanted, &caps, &options).unwrap().into_iter().map(|kernel| (kernel.label(), kernel)));
            }
        }
    }
    found
}

/// Translates a validated module to the three languages of the backends.
fn translate(label: &str, module: &naga::Module, info: &ModuleInfo) {
    let fail = |what: &str, reason: String| -> ! { panic!("{label} to {what}: {reason}") };
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    let words = spv::write_vec(module, info, &options, None).unwrap_or_else(|e| fail("SPIR-V", e.to_string()));
    assert!(words.len() > 50, "{label}: SPIR-V of {} words", words.len());
    let matrices = label.contains("_cooperative");
    if matrices && !label.contains("SIDE=8") {
        // Metal has 8 x 8 only.
        return;
    }
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..msl::Options::default() };
    let (text, _) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| fail("MSL", e.to_string()));
    assert!(text.contains("kernel void"), "{label}: no kernel in the MSL");
    if matrices {
        // wgpu has none through HLSL.
        return;
    }
    let options =
        hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, fake_missing_bindings: true, ..hlsl::Options::default() };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).unwrap_or_else(|e| fail("HLSL", e.to_string()));
    assert!(text.contains("numthreads"), "{label}: no entry point in the HLSL");
}

/// What a variant may use.
fn allowed(label: &str) -> Allowed {
    // Halves as halves of words: every Vulkan, Metal and DX12 has that.
    let usual = Allowed::SUBGROUP | Allowed::SHADER_FLOAT16 | Allowed::SHADER_FLOAT16_IN_FLOAT32;
    if label.starts_with("bench_") || label.contains("_cooperative") { usual | Allowed::COOPERATIVE_MATRIX } else { usual }
}

#[test]
fn every_variant_translates() {
    let variants = variants();
    assert!(variants.len() > 150, "{} variants", variants.len());
    for shader in ["attention_tiled", "attention_backward_tiled", "matmul_direct"] {
        for lanes in [8, 32, 64] {
            let words = if shader == "matmul_direct" { format!("LANES={lanes},") } else { format!("SUBGROUP={lanes},") };
            let found = variants.keys().any(|label| label.starts_with(&format!("{shader}{{")) && label.contains(&words));
            assert!(found, "no {shader} for subgroups of {lanes}");
        }
    }
    for (label, kernel) in &variants {
        let source = kernel.wgsl().unwrap_or_else(|e| panic!("{e}"));
        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{label}:\n{}", e.emit_to_string(&source)));
        let info = Validator::new(ValidationFlags::all(), allowed(label))
            .validate(&module)
            .unwrap_or_else(|e| panic!("{label}:\n{}", e.emit_to_string(&source)));
        translate(label, &module, &info);
    }
    eprintln!("{} variants of {} shaders", variants.len(), names(&variants).len());
}

fn names(variants: &BTreeMap<String, Kernel>) -> BTreeSet<String> {
    variants.values().map(|kernel| kernel.name.to_owned()).collect()
}

/// Each shader, and the test here that runs it against its reference.
const TESTED_IN: [(&str, &str); 59] = [
    ("activation", "activation"),
    ("adamw", "optimizer"),
    ("attention", "attention"),
    ("attention_backward", "attention"),
    ("attention_backward_direct", "attention"),
    ("attention_direct", "attention"),
    ("attention_backward_cooperative", "cooperative"),
    ("attention_combine", "cache"),
    ("attention_cooperative", "cooperative"),
    ("attention_decode", "cache"),
    ("attention_backward_tiled", "attention"),
    ("attention_tiled", "attention"),
    ("bench_cooperative", "profile"),
    ("bench_copy", "profile"),
    ("bench_fma", "profile"),
    ("bench_read", "profile"),
    ("binary", "elementwise"),
    ("binary_cross_entropy", "binary_cross_entropy"),
    ("cache_write", "cache"),
    ("clip_factor", "optimizer"),
    ("copy", "view"),
    ("copy_mixture", "copy_mixture"),
    ("counted_mean", "cross_entropy"),
    ("cross_entropy", "cross_entropy"),
    ("cross_entropy_backward", "cross_entropy"),
    ("cross_entropy_gradient", "cross_entropy"),
    ("dropout", "dropout"),
    ("embedding", "embedding"),
    ("embedding_backward", "embedding"),
    ("embedding_chain", "embedding"),
    ("gelu", "gelu"),
    ("lamb_apply", "lamb"),
    ("lamb_moments", "lamb"),
    ("layer_norm", "layer_norm"),
    ("layer_norm_input", "layer_norm"),
    ("layer_norm_parameters", "layer_norm"),
    ("loss_scale", "optimizer"),
    ("matmul_cooperative", "cooperative"),
    ("matmul_direct", "matmul"),
    ("matmul_dot", "matmul"),
    ("matmul_packed", "packed"),
    ("matmul_parts", "matmul"),
    ("matmul_rows", "matmul"),
    ("matmul_tiled", "matmul"),
    ("repeat", "reduce"),
    ("round_half", "mixed"),
    ("sample", "sample"),
    ("sample_best", "skinny"),
    ("scale", "elementwise"),
    ("sgd", "optimizer"),
    ("softmax", "softmax"),
    ("softmax_backward", "softmax"),
    ("square_sum", "optimizer"),
    ("sum_last", "reduce"),
    ("sum_leading", "reduce"),
    ("token_labels", "tokens"),
    ("token_slots", "tokens"),
    ("unpack", "packed"),
    ("zero", "view"),
];

#[test]
fn every_shader_is_among_them() {
    let root = env!("CARGO_MANIFEST_DIR");
    let files: BTreeSet<String> = fs::read_dir(format!("{root}/shaders"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".wgsl").map(str::to_owned))
        .collect();
    assert_eq!(files, names(&variants()), "a shader that no plan takes is dead, or the graphs above lack an operation");
    assert_eq!(files, TESTED_IN.iter().map(|(shader, _)| (*shader).to_owned()).collect(), "a shader without a test");
    let tests = fs::read_to_string(format!("{root}/kernels-tests/main.rs")).unwrap();
    for (shader, test) in TESTED_IN {
        assert!(tests.contains(&format!("mod {test};")), "{shader}: there is no test {test}");
    }
}

/// A variant that subgroups would make wrong must not ask for them.
#[test]
fn portable_adapters_get_no_subgroups() {
    let config = Gpt2Config { n_embd: 16, n_head: 4, vocab_size: 64, n_layer: 1, n_positions: 12, ..Gpt2Config::default() };
    let mut g = Graph::new();
    let wanted = trained(&mut g, &config, 2, 0.0);
    for kernel in kernels(&g, &wanted, &Capabilities::portable(), &PlanOptions::default()).unwrap() {
        assert!(!kernel.wgsl().unwrap().contains("subgroupAdd"), "{}", kernel.label());
    }
}
