//! A kernel: one WGSL source, and the defines that make a variant of it.

use super::GpuError;
use minijinja::{Environment, UndefinedBehavior, Value, syntax::SyntaxConfig};
use std::collections::BTreeMap;

/// The value of a define in a kernel's source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Define {
    /// A number: a tile's side, a workgroup's size.
    Int(u32),
    /// A switch.
    Flag(bool),
    /// A word, such as a type's name.
    Text(&'static str),
}

impl From<u32> for Define {
    fn from(value: u32) -> Self {
        Self::Int(value)
    }
}
impl From<bool> for Define {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}
impl From<&'static str> for Define {
    fn from(value: &'static str) -> Self {
        Self::Text(value)
    }
}

/// A kernel in one variant. Its source is a minijinja template over WGSL: loops that must be unrolled and
/// registers that must be named (naga keeps arrays in memory) are written once and expanded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The file's name without `.wgsl`.
    pub name: &'static str,
    source: &'static str,
    defines: BTreeMap<&'static str, Define>,
}

/// Makes a [`Kernel`] from `shaders/NAME.wgsl`.
#[macro_export]
macro_rules! kernel {
    ($name:literal) => {
        $crate::gpu::Kernel::new($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")))
    };
}

/// Defines that name the element types of bindings 1, 2, ...: `f32`, unless the variant says `f16`. Kernels that know them
/// compute in f32 and convert where they load and store.
pub const ELEMENT_TYPES: [&str; 10] = ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10"];

/// Files that kernels include.
const SHARED: &[(&str, &str)] = &[
    ("advance.wgsl", include_str!("../../shaders/shared/advance.wgsl")),
    ("draw.wgsl", include_str!("../../shaders/shared/draw.wgsl")),
    ("attention_bindings.wgsl", include_str!("../../shaders/shared/attention_bindings.wgsl")),
    ("attention_backward_bindings.wgsl", include_str!("../../shaders/shared/attention_backward_bindings.wgsl")),
    ("attention_images.wgsl", include_str!("../../shaders/shared/attention_images.wgsl")),
    ("columns.wgsl", include_str!("../../shaders/shared/columns.wgsl")),
    ("attention_matrices.wgsl", include_str!("../../shaders/shared/attention_matrices.wgsl")),
    ("attention_tile.wgsl", include_str!("../../shaders/shared/attention_tile.wgsl")),
    ("epilogue.wgsl", include_str!("../../shaders/shared/epilogue.wgsl")),
    ("halves.wgsl", include_str!("../../shaders/shared/halves.wgsl")),
    ("image.wgsl", include_str!("../../shaders/shared/image.wgsl")),
    ("gelu.wgsl", include_str!("../../shaders/shared/gelu.wgsl")),
    ("matmul_bindings.wgsl", include_str!("../../shaders/shared/matmul_bindings.wgsl")),
    ("packed_vector.wgsl", include_str!("../../shaders/shared/packed_vector.wgsl")),
    ("packed.wgsl", include_str!("../../shaders/shared/packed.wgsl")),
    ("log_sum_exp.wgsl", include_str!("../../shaders/shared/log_sum_exp.wgsl")),
    ("group.wgsl", include_str!("../../shaders/shared/group.wgsl")),
    ("reduce.wgsl", include_str!("../../shaders/shared/reduce.wgsl")),
    ("logistic.wgsl", include_str!("../../shaders/shared/logistic.wgsl")),
    ("random.wgsl", include_str!("../../shaders/shared/random.wgsl")),
];

impl Kernel {
    /// A kernel from its template. Use [`kernel!`](crate::kernel) instead.
    pub fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, defines: BTreeMap::new() }
    }

    /// The variant in which `key` is `value`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Define>) -> Self {
        self.defines.insert(key, value.into());
        self
    }

    /// Name and defines, as one readable word: `matmul_direct{ROWS=12,VEC}`.
    pub fn label(&self) -> String {
        let parts: Vec<_> = self
            .defines
            .iter()
            .filter_map(|(key, value)| match value {
                Define::Int(n) => Some(format!("{key}={n}")),
                Define::Flag(on) => on.then(|| (*key).to_owned()),
                Define::Text(word) => Some(format!("{key}={word}")),
            })
            .collect();
        if parts.is_empty() { self.name.to_owned() } else { format!("{}{{{}}}", self.name, parts.join(",")) }
    }

    /// The WGSL of this variant.
    ///
    /// # Errors
    /// The template is wrong, or uses a define that the variant does not give.
    pub fn wgsl(&self) -> Result<String, GpuError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let fail = |e: minijinja::Error| GpuError::Shader { shader: self.label(), reason: format!("{e:#}") };
        // Lines that hold only a tag vanish, so that the WGSL that errors and debuggers show is readable.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fail)?);
        for (name, source) in SHARED {
            environment.add_template(name, source).map_err(fail)?;
        }
        let mut context: BTreeMap<&str, Value> = ELEMENT_TYPES.into_iter().map(|key| (key, Value::from("f32"))).collect();
        context.extend(self.defines.iter().map(|(key, value)| {
            (
                *key,
                match value {
                    Define::Int(n) => Value::from(*n),
                    Define::Flag(on) => Value::from(*on),
                    Define::Text(word) => Value::from(*word),
                },
            )
        }));
        let wgsl = environment.render_str(self.source, context).map_err(fail)?;
        let half = ELEMENT_TYPES.iter().any(|key| self.defines.contains_key(key));
        Ok(if half && !wgsl.contains("enable f16;") { format!("enable f16;\n{wgsl}") } else { wgsl })
    }
}
