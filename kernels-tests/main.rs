//! The tests that decide: every operation against its f64 reference on the adapter at hand, every backward rule by
//! finite differences, and whole models against their reference implementation.

mod harness;

mod elementwise;
mod matmul;
mod reduce;
mod view;
