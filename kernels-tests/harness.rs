//! Runs a graph on the adapter and compares it with the same graph evaluated in f64.

use shaderlm::{
    gpu::{DeviceChoice, Gpu, GpuOptions},
    graph::{Engine, Graph, PlanOptions, evaluate, gradients},
    ops::{self, HostData, HostTensor, OpError, Packed, Precision, Recorder, Tensor, TensorType, random::threefry},
    train::{Optimizer, Schedule, ScheduleShape, Settings},
};
use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, LazyLock},
};

/// The adapter under test, opened once. No adapter is a failure: these tests are about adapters.
static GPU: LazyLock<Arc<Gpu>> = LazyLock::new(|| {
    let wanted = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into());
    let choice: DeviceChoice = wanted.parse().expect("SHADERLM_DEVICE names a device");
    let gpu = Gpu::open(&GpuOptions::new(choice)).expect("a GPU adapter is needed for the kernel tests");
    // Straight to standard error, which the test runner does not keep to itself.
    let _ = writeln!(std::io::stderr(), "adapter: {} ({}, {})", gpu.caps.name, gpu.caps.backend, gpu.caps.driver);
    Arc::new(gpu)
});

/// A fresh engine on the adapter under test.
pub fn engine() -> Engine {
    Engine::on(GPU.clone())
}

/// The adapter under test without something.
fn held_back(without: &str) -> Arc<Gpu> {
    let wanted = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into());
    let mut options = GpuOptions::new(wanted.parse().expect("SHADERLM_DEVICE names a device"));
    options.without.push(without.into());
    Arc::new(Gpu::open(&options).expect("a GPU adapter is needed for the kernel tests"))
}
static AS_HARDWARE: LazyLock<Arc<Gpu>> = LazyLock::new(|| held_back("software"));
static WITHOUT_IMAGES: LazyLock<Arc<Gpu>> = LazyLock::new(|| held_back("images"));

/// A fresh engine there, with kernels chosen as on a real GPU.
pub fn engine_as_hardware() -> Engine {
    Engine::on(AS_HARDWARE.clone())
}

/// A fresh engine that reads nothing from images.
pub fn engine_without_images() -> Engine {
    Engine::on(WITHOUT_IMAGES.clone())
}

/// Settings of a training step in tests: AdamW with clipping, in 32 bits.
pub fn settings(batch: usize, context: usize, peak: f32) -> Settings {
    Settings {
        batch,
        accumulate: 1,
        context,
        optimizer: Optimizer::Adamw,
        schedule: Schedule { shape: ScheduleShape::Constant, peak, min: 0.0, warmup: 0, steps: 10 },
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        bias_correction: true,
        clip: 1.0,
        precision: Precision::F32,
        seed: 1,
    }
}

/// Bytes of known pattern on each side of every planned tensor.
const SENTINEL: u64 = 4096;

/// How close the adapter must come to the f64 reference.
#[derive(Clone, Copy)]
pub enum Bound {
    /// |error| <= 1e-5 + 1e-5 |reference| for every element.
    Elementwise,
    /// The same bounds with another tolerance.
    Within(f64),
    /// Normalised mean squared error <= 1e-10: contractions, whose elements may cancel.
    Nmse,
    /// Every bit.
    Exact,
}

/// A graph under construction with the values it will be fed.
#[derive(Default)]
pub struct Case {
    pub g: Graph,
    feeds: Vec<(Tensor, HostTensor<f32>)>,
    variables: Vec<(String, Tensor, HostTensor<f32>)>,
    packed: Vec<(String, Packed)>,
    seed: u32,
}

impl Case {
    pub fn new() -> Self {
        Self::default()
    }

    /// `n` reproducible numbers, roughly normal with standard deviation 1.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        self.seed += 1;
        let seed = self.seed;
        (0..n as u32)
            .map(|i| {
                let words = threefry([seed, 77], [i, 0]);
                let bytes = words.iter().flat_map(|w| w.to_le_bytes());
                // The sum of eight uniform bytes, centred.
                (bytes.map(f32::from).sum::<f32>() - 1020.0) / 209.0
            })
            .collect()
    }

    /// An input of normal numbers.
    pub fn input<const N: usize>(&mut self, shape: [usize; N]) -> Tensor {
        let data = self.normal(shape.iter().product());
        self.feed(shape, data)
    }

    /// An input of given numbers.
    pub fn feed<const N: usize>(&mut self, shape: [usize; N], data: Vec<f32>) -> Tensor {
        let tensor = self.g.input("x", TensorType::f32(shape));
        self.feeds.push((tensor, HostTensor::floats(shape, data)));
        tensor
    }

    /// An input of given integers.
    pub fn ids<const N: usize>(&mut self, shape: [usize; N], data: Vec<u32>) -> Tensor {
        let tensor = self.g.input("ids", TensorType::u32(shape));
        self.feeds.push((tensor, HostTensor::uints(shape, data)));
        tensor
    }

    /// An input of reproducible integers below `limit`.
    pub fn random_ids<const N: usize>(&mut self, shape: [usize; N], limit: u32) -> Tensor {
        self.seed += 1;
        let seed = self.seed;
        let data = (0..shape.iter().product::<usize>() as u32).map(|i| threefry([seed, 5], [i, 1])[0] % limit);
        self.ids(shape, data.collect())
    }

    /// A variable with a starting value; its value after the run is compared too.
    pub fn variable(&mut self, name: &str, value: HostTensor<f32>) -> Tensor {
        let ty = match value.data {
            HostData::Float(_) => TensorType::f32(value.shape.clone()),
            HostData::Uint(_) => TensorType::u32(value.shape.clone()),
        };
        let tensor = self.g.variable(name, ty).expect("a variable of one type");
        self.variables.push((name.into(), tensor, value));
        tensor
    }

    /// A variable in narrow storage; what it stands for counts in the reference.
    pub fn packed(&mut self, name: &str, value: Packed) -> Tensor {
        let tensor = self.variable(name, HostTensor::floats(value.packing().shape(), value.unpack()));
        self.packed.push((name.into(), value));
        tensor
    }

    /// Runs on the adapter and in f64, and compares `outputs` and all variables. `what` is for the message.
    pub fn check(self, what: &str, outputs: &[Tensor], bound: Bound) {
        self.check_on(engine(), None, what, outputs, bound);
    }

    /// The same on another engine, with another kernel wherever there is a choice.
    pub fn check_on(self, engine: Engine, choice: Option<usize>, what: &str, outputs: &[Tensor], bound: Bound) {
        self.check_with(
            engine,
            PlanOptions { choices: choice.into_iter().collect(), ..PlanOptions::default() },
            what,
            outputs,
            bound,
        );
    }

    /// The same, planned by `options`, with sentinels.
    pub fn check_with(self, mut engine: Engine, options: PlanOptions, what: &str, outputs: &[Tensor], bound: Bound) {
        let (feeds, mut variables) = self.in_f64();
        let expected = evaluate(&self.g, &feeds, &mut variables, outputs);

        for (name, _, value) in &self.variables {
            engine.set(name, value).expect("the variable fits");
        }
        for (name, value) in &self.packed {
            engine.set_packed(name, value).expect("the variable fits");
        }
        let fed = self.feeds;
        let options = PlanOptions { sentinel: SENTINEL, ..options };
        let mut plan = engine.compile(self.g, outputs, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (tensor, value) in fed {
            plan.set(tensor, value).expect("the input fits");
        }
        plan.run(&mut engine).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (i, output) in outputs.iter().enumerate() {
            let found = plan.get(*output).unwrap_or_else(|e| panic!("{what}: {e}"));
            compare(&format!("{what}, output {i}"), &found, &expected[output], bound);
        }
        for (name, _, _) in &self.variables {
            let found = engine.get(name).expect("the variable can be read").expect("it exists");
            compare(&format!("{what}, variable {name}"), &found, &variables[name], bound);
        }
        assert!(plan.sentinels_hold().expect("sentinels can be read"), "{what}: a kernel wrote beyond its tensor");
    }

    /// The fed values in f64.
    #[allow(clippy::type_complexity)]
    pub fn in_f64(&self) -> (HashMap<Tensor, HostTensor<f64>>, HashMap<String, HostTensor<f64>>) {
        let feeds = self.feeds.iter().map(|(t, v)| (*t, widen(v))).collect();
        let variables = self.variables.iter().map(|(n, _, v)| (n.clone(), widen(v))).collect();
        (feeds, variables)
    }

    /// Records loss = sum(y * w) for fixed random `w`, and the gradients with respect to `wrt`; returns both.
    pub fn backward(&mut self, y: Tensor, wrt: &[Tensor]) -> (Tensor, Vec<Tensor>) {
        let shape = self.g.ty(y).shape.clone();
        let weights = self.normal(shape.elements());
        let w = self.g.input("w", TensorType::f32(shape.clone()));
        self.feeds.push((w, HostTensor::floats(shape, weights)));
        let loss = weighted_sum(&mut self.g, y, w).expect("a loss");
        let grads = gradients(&mut self.g, loss, wrt).expect("all operations have gradients");
        (loss, grads.into_iter().map(|g| g.expect("the loss depends on it")).collect())
    }

    /// The same; then checks the gradients on the adapter against f64, and in f64 against central differences.
    pub fn check_backward(mut self, what: &str, y: Tensor, wrt: &[Tensor], bound: Bound) {
        let (loss, grads) = self.backward(y, wrt);
        self.finite_differences(what, loss, wrt, &grads);
        self.check(what, &grads, bound);
    }

    /// Central differences in f64: eps 1e-6, rtol 1e-3, atol 1e-5, on at most 24 elements of each input.
    pub fn finite_differences(&self, what: &str, loss: Tensor, wrt: &[Tensor], grads: &[Tensor]) {
        const EPSILON: f64 = 1e-6;
        let (feeds, variables) = self.in_f64();
        let loss_of = |feeds: &HashMap<Tensor, HostTensor<f64>>, variables: &HashMap<String, HostTensor<f64>>| {
            evaluate(&self.g, feeds, &mut variables.clone(), &[loss])[&loss].f()[0]
        };
        let analytic = evaluate(&self.g, &feeds, &mut variables.clone(), grads);
        for (i, (&x, grad)) in wrt.iter().zip(grads).enumerate() {
            let n = self.g.ty(x).elements();
            let name = self.variables.iter().find(|v| v.1 == x).map(|v| v.0.clone());
            for pick in 0..n.min(24) {
                let at = if n <= 24 { pick } else { threefry([9, i as u32], [pick as u32, 0])[0] as usize % n };
                let moved = |by: f64| {
                    let (mut feeds, mut variables) = (feeds.clone(), variables.clone());
                    let target = match &name {
                        Some(name) => variables.get_mut(name),
                        None => feeds.get_mut(&x),
                    };
                    target.expect("the tensor is fed").f_mut()[at] += by;
                    loss_of(&feeds, &variables)
                };
                let numeric = (moved(EPSILON) - moved(-EPSILON)) / (2.0 * EPSILON);
                let exact = analytic[grad].f()[at];
                assert!(
                    (numeric - exact).abs() <= 1e-5 + 1e-3 * exact.abs(),
                    "{what}: gradient {i} at {at}: {exact} by the backward rule, {numeric} by differences"
                );
            }
        }
    }
}

fn weighted_sum(g: &mut Graph, y: Tensor, w: Tensor) -> Result<Tensor, OpError> {
    let product = ops::mul(g, y, w)?;
    ops::sum(g, product)
}

fn widen(value: &HostTensor<f32>) -> HostTensor<f64> {
    match &value.data {
        HostData::Float(data) => HostTensor::floats(value.shape.clone(), data.iter().map(|&x| f64::from(x)).collect()),
        HostData::Uint(data) => HostTensor::uints(value.shape.clone(), data.to_vec()),
    }
}

/// Normalised mean squared error of `found` against `expected`.
pub fn nmse(found: &[f32], expected: &[f64]) -> f64 {
    let error: f64 = found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - e).powi(2)).sum();
    let power: f64 = expected.iter().map(|e| e * e).sum();
    if power == 0.0 { error } else { error / power }
}

pub fn compare(what: &str, found: &HostTensor<f32>, expected: &HostTensor<f64>, bound: Bound) {
    assert_eq!(found.shape, expected.shape, "{what}: another shape");
    if let HostData::Uint(expected) = &expected.data {
        assert_eq!(found.u(), expected.as_slice(), "{what}");
        return;
    }
    let (found, expected) = (found.f(), expected.f());
    let tolerance = match bound {
        Bound::Elementwise => 1e-5,
        Bound::Within(tolerance) => tolerance,
        Bound::Exact => 0.0,
        Bound::Nmse => {
            let error = nmse(found, expected);
            assert!(error <= 1e-10, "{what}: NMSE {error:e}");
            return;
        }
    };
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        // Written so that NaN fails.
        let close = (f64::from(f) - e).abs() <= tolerance + tolerance * e.abs();
        assert!(close || (f64::from(f) == e), "{what}: element {i} of {}: {f} instead of {e}", expected.len());
    }
}

/// Sizes that kernels get wrong: 1, primes, a tile and its neighbours.
pub const AWKWARD: [usize; 12] = [1, 2, 3, 5, 31, 63, 64, 65, 127, 256, 257, 1021];
