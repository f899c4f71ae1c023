//! A variable or an output as it is after a run, read while later runs are under way.

use super::{
    Engine, GraphError,
    engine::{Stored, from_device_bytes},
};
use crate::{
    gpu::{Buffer, ReadBack},
    ops::{HostTensor, Tensor, TensorType},
};
use std::time::Duration;

/// What a variable, or a plan's output, was after a run. Made once, it takes one run's value at a time.
pub struct Reader {
    pub(super) of: Of,
    pub(super) ty: TensorType,
    pub(super) place: Place,
}

/// What is read.
pub(super) enum Of {
    Variable(String),
    Output(Tensor),
}

/// Where it comes from, from that byte on, and where it goes.
pub(super) enum Place {
    Gpu(Buffer, u64, ReadBack),
    Cpu(Option<HostTensor<f32>>),
}

impl Engine {
    /// A reader for the variable `name`, which is made, zeroed, if there is none. `timed`: it tells what a run took, too.
    ///
    /// # Errors
    /// The variable has another type, or there is no memory.
    pub fn reader(&mut self, name: &str, ty: &TensorType, timed: bool) -> Result<Reader, GraphError> {
        self.ensure(name, ty)?;
        let place = match (&self.gpu, self.variables.get(name).map(|v| &v.data)) {
            (Some(gpu), Some(Stored::Gpu(buffer))) => Place::Gpu(buffer.clone(), 0, gpu.read_back(ty.bytes(), timed)?),
            _ => Place::Cpu(None),
        };
        Ok(Reader { of: Of::Variable(name.into()), ty: ty.clone(), place })
    }
}

impl Reader {
    /// Waits for the run that the reader was given to, and for no later one: the variable after it, and how long the device took,
    /// where it has a clock and that was wanted.
    ///
    /// # Errors
    /// No run was given this reader, or a fault of the device.
    pub fn take(&mut self, engine: &Engine) -> Result<(HostTensor<f32>, Option<Duration>), GraphError> {
        match (&mut self.place, &engine.gpu) {
            (Place::Gpu(_, _, read), Some(gpu)) => {
                let (bytes, time) = read.take(gpu)?;
                Ok((from_device_bytes(&self.ty, &bytes[..self.ty.bytes() as usize]), time))
            }
            (Place::Cpu(value), _) => value.take().map(|value| (value, None)).ok_or(GraphError::NotPlanned(0, "read")),
            (Place::Gpu(..), None) => Err(GraphError::NotPlanned(0, "read")),
        }
    }
}
