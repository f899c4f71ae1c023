//! Tensors as a graph knows them: an identity, an element type and a shape; no data.

use std::fmt;

/// Element types that kernels know. Half precision is a matter of storage, not of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit unsigned integer: token ids, positions, random state.
    U32,
}

/// The sizes of a tensor's dimensions, row-major, outermost first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
    /// Size of the last dimension; 1 for a scalar.
    pub fn width(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }
    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.0[..self.0.len().saturating_sub(1)].iter().product()
    }
    /// The same dimensions with another last one.
    #[must_use]
    pub fn with_width(&self, width: usize) -> Self {
        let mut sizes = self.0.clone();
        sizes.pop();
        sizes.push(width);
        Self(sizes)
    }
    /// Whether `self` is the trailing part of `other`, so that it can be broadcast over `other`'s leading dimensions.
    pub fn is_suffix_of(&self, other: &Self) -> bool {
        other.0.ends_with(&self.0)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Self(sizes.to_vec())
    }
}
impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Self(sizes.to_vec())
    }
}
impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Self(sizes)
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", sizes.join(","))
    }
}
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Element type and shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor of 32-bit floats.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Self { dtype: DType::F32, shape: shape.into() }
    }
    /// A tensor of 32-bit unsigned integers.
    pub fn u32(shape: impl Into<Shape>) -> Self {
        Self { dtype: DType::U32, shape: shape.into() }
    }
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }
    /// A matrix of floats with its rows made up to a multiple of [`ROW_UNIT`](super::ROW_UNIT), or a vector with its elements, as a
    /// variable's memory has them; anything else as it is.
    pub fn whole(&self) -> Self {
        match (self.dtype, &self.shape.0[..]) {
            (DType::F32, &[rows, width]) => Self::f32([rows.next_multiple_of(super::ROW_UNIT), width]),
            (DType::F32, &[elements]) => Self::f32([elements.next_multiple_of(super::ROW_UNIT)]),
            _ => self.clone(),
        }
    }
    /// Size in memory, bytes. Both element types have four.
    pub fn bytes(&self) -> u64 {
        self.elements() as u64 * 4
    }
}

/// A tensor of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub u32);
