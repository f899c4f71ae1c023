//! Cooperative matrices: small matrices that the lanes of a subgroup hold and multiply together, on tensor cores where the
//! adapter has them. wgpu's feature is called experimental.

use serde::Serialize;
use std::fmt;

/// The type of a matrix's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
}

impl Scalar {
    /// Its name in WGSL.
    pub fn word(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    fn of(ty: wgpu::CooperativeScalarType) -> Option<Self> {
        match ty {
            wgpu::CooperativeScalarType::F16 => Some(Self::F16),
            wgpu::CooperativeScalarType::F32 => Some(Self::F32),
            _ => None,
        }
    }
}

/// Matrices that an adapter multiplies and adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cooperative {
    /// Rows and columns of each: 8 or 16, the squares that WGSL has.
    pub size: u32,
    /// Elements of the two sides of a product.
    pub operands: Scalar,
    /// Elements of what products are added to.
    pub sums: Scalar,
}

impl fmt::Display for Cooperative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}x{0}x{0} {1} -> {2}", self.size, self.operands.word(), self.sums.word())
    }
}

/// Those of the adapter's that WGSL can say, each once.
pub(super) fn offered(adapter: &wgpu::Adapter) -> Vec<Cooperative> {
    let mut found: Vec<_> = adapter
        .cooperative_matrix_properties()
        .into_iter()
        .filter(|c| c.m_size == c.n_size && c.m_size == c.k_size && matches!(c.m_size, 8 | 16))
        .filter_map(|c| Some(Cooperative { size: c.m_size, operands: Scalar::of(c.ab_type)?, sums: Scalar::of(c.cr_type)? }))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
