//! Tensors in host memory, for the CPU reference: generic over f32 (the fallback) and f64 (the oracle).

use super::tensor::{DType, Shape, TensorType};
use std::{fmt::Debug, ops, sync::Arc};

/// A float type that the reference computes in.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + ops::Add<Output = Self>
    + ops::Sub<Output = Self>
    + ops::Mul<Output = Self>
    + ops::Div<Output = Self>
    + ops::Neg<Output = Self>
    + ops::AddAssign
    + ops::SubAssign
    + ops::MulAssign
    + std::iter::Sum
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The nearest value.
    fn from_f64(x: f64) -> Self;
    /// The value in double precision.
    fn to_f64(self) -> f64;
    /// e to the power of self.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Natural logarithm of 1 + self, accurate for small ones.
    fn ln_1p(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Self to the power of `exponent`.
    fn powf(self, exponent: Self) -> Self;
    /// The larger of two.
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn ln_1p(self) -> Self {
                <$t>::ln_1p(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn powf(self, exponent: Self) -> Self {
                <$t>::powf(self, exponent)
            }
        }
    };
}
real!(f32);
real!(f64);

/// The elements of a tensor in host memory. Shared until somebody writes.
#[derive(Debug, Clone)]
pub enum HostData<T> {
    /// Floats.
    Float(Arc<Vec<T>>),
    /// Unsigned integers.
    Uint(Arc<Vec<u32>>),
}

/// A tensor in host memory.
#[derive(Debug, Clone)]
pub struct HostTensor<T> {
    /// Its shape.
    pub shape: Shape,
    /// Its elements, row-major.
    pub data: HostData<T>,
}

impl<T: Real> HostTensor<T> {
    /// A float tensor.
    pub fn floats(shape: impl Into<Shape>, data: Vec<T>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.elements(), data.len());
        Self { shape, data: HostData::Float(Arc::new(data)) }
    }
    /// An integer tensor.
    pub fn uints(shape: impl Into<Shape>, data: Vec<u32>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.elements(), data.len());
        Self { shape, data: HostData::Uint(Arc::new(data)) }
    }
    /// All zeros.
    pub fn zeros(ty: &TensorType) -> Self {
        match ty.dtype {
            DType::F32 => Self::floats(ty.shape.clone(), vec![T::ZERO; ty.elements()]),
            DType::U32 => Self::uints(ty.shape.clone(), vec![0; ty.elements()]),
        }
    }
    /// The floats. A graph never hands an operation the wrong element type: `infer` has checked it.
    pub fn f(&self) -> &[T] {
        match &self.data {
            HostData::Float(data) => data,
            HostData::Uint(_) => unreachable!("the operation's shape rule admits only floats here"),
        }
    }
    /// The integers, likewise.
    pub fn u(&self) -> &[u32] {
        match &self.data {
            HostData::Uint(data) => data,
            HostData::Float(_) => unreachable!("the operation's shape rule admits only integers here"),
        }
    }
    /// The floats, to be changed in place (copied first if anybody else holds them).
    pub fn f_mut(&mut self) -> &mut Vec<T> {
        match &mut self.data {
            HostData::Float(data) => Arc::make_mut(data),
            HostData::Uint(_) => unreachable!("the operation's shape rule admits only floats here"),
        }
    }
    /// The integers, to be changed in place.
    pub fn u_mut(&mut self) -> &mut Vec<u32> {
        match &mut self.data {
            HostData::Uint(data) => Arc::make_mut(data),
            HostData::Float(_) => unreachable!("the operation's shape rule admits only integers here"),
        }
    }
    /// Its type, as a graph has it.
    pub fn ty(&self) -> TensorType {
        match self.data {
            HostData::Float(_) => TensorType::f32(self.shape.clone()),
            HostData::Uint(_) => TensorType::u32(self.shape.clone()),
        }
    }
    /// The same elements in another shape.
    #[must_use]
    pub fn reshaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }
}

/// The plain Rust reference of an operation, written for reading.
pub trait Reference {
    /// Computes the outputs, then the new values of the inputs that the operation updates in place
    /// (in the order of [`Operation::updates`](super::Operation::updates)).
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>>;
}

/// Forwards the two object-safe methods of [`Operation`](super::Operation) to [`Reference::run`].
#[macro_export]
macro_rules! host_reference {
    () => {
        fn reference_f32(
            &self,
            inputs: Vec<$crate::ops::HostTensor<f32>>,
            outputs: &[$crate::ops::TensorType],
        ) -> Vec<$crate::ops::HostTensor<f32>> {
            $crate::ops::Reference::run(self, inputs, outputs)
        }
        fn reference_f64(
            &self,
            inputs: Vec<$crate::ops::HostTensor<f64>>,
            outputs: &[$crate::ops::TensorType],
        ) -> Vec<$crate::ops::HostTensor<f64>> {
            $crate::ops::Reference::run(self, inputs, outputs)
        }
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    };
}
