//! Copies from one variable into another, on the device.

use super::{Engine, GraphError, engine::Stored};
use crate::ops::OpError;
use std::ops::Range;

impl Engine {
    /// Copies the elements `range` of the variable `from` into the variable `to`, once from each element in `places` on, in order with
    /// what else the device is given. Both are floats in 32 bits, and not the same.
    ///
    /// # Errors
    /// There is no such variable, a range is beyond one, or a fault of the device.
    pub fn copy(&mut self, (from, range): (&str, Range<usize>), (to, places): (&str, &[usize])) -> Result<(), GraphError> {
        let fits = |name: &str, end: Option<usize>| {
            self.variables.get(name).is_some_and(|v| v.packing.is_none() && end.is_some_and(|end| end <= v.ty.elements()))
        };
        let furthest = places.iter().max().map_or(Some(0), |place| place.checked_add(range.len()));
        if from == to || range.start > range.end || !fits(from, Some(range.end)) || !fits(to, furthest) {
            return Err(OpError::new(format!("{range:?} of variable {from} cannot be copied to {places:?} of {to}")).into());
        }
        if let Some(gpu) = &self.gpu {
            let buffer = |name| match self.variables.get(name).map(|v| &v.data) {
                Some(Stored::Gpu(buffer)) => Some(buffer),
                _ => None,
            };
            let (Some(source), Some(target)) = (buffer(from), buffer(to)) else { return Ok(()) };
            let mut encoder = gpu.encoder();
            for &place in places {
                let bytes = 4 * range.start as u64..4 * range.end as u64;
                gpu.copy(&mut encoder, (source, bytes), (target, 4 * place as u64));
            }
            gpu.submit(encoder)?;
            return Ok(());
        }
        let values = match self.variables.get(from).map(|v| &v.data) {
            Some(Stored::Cpu(tensor)) => tensor.f()[range].to_vec(),
            _ => return Ok(()),
        };
        if let Some(Stored::Cpu(tensor)) = self.variables.get_mut(to).map(|v| &mut v.data) {
            places.iter().for_each(|&place| tensor.f_mut()[place..place + values.len()].copy_from_slice(&values));
        }
        Ok(())
    }
}
