//! Dispatches recorded in passes that end where one of them has something copied first.

use super::Bound;

/// A compute pass, and those that go on with it after copies.
pub struct Recording<'a> {
    encoder: &'a mut wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
}

impl<'a> Recording<'a> {
    /// Begins a pass.
    pub fn new(encoder: &'a mut wgpu::CommandEncoder, timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>) -> Self {
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let pass = encoder.begin_compute_pass(&descriptor).forget_lifetime();
        Self { encoder, pass: Some(pass) }
    }

    /// Records a dispatch.
    pub fn dispatch(&mut self, bound: &Bound) {
        if bound.copies() {
            // The encoder is locked while there is a pass.
            self.pass = None;
            bound.prepare(self.encoder);
        }
        bound.dispatch(self.pass());
    }

    /// Records a timestamp between dispatches.
    pub fn write_timestamp(&mut self, set: &wgpu::QuerySet, index: u32) {
        self.pass().write_timestamp(set, index);
    }

    fn pass(&mut self) -> &mut wgpu::ComputePass<'static> {
        let encoder = &mut *self.encoder;
        self.pass.get_or_insert_with(|| encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime())
    }
}

/// Records `bounds`, with the time before the first of them and after the last.
pub fn record<'b>(
    encoder: &mut wgpu::CommandEncoder,
    bounds: impl Iterator<Item = &'b Bound> + Clone,
    times: Option<wgpu::ComputePassTimestampWrites<'_>>,
) {
    let (first, last) = match times {
        Some(times) if bounds.clone().any(Bound::copies) => (
            Some(wgpu::ComputePassTimestampWrites { end_of_pass_write_index: None, ..times.clone() }),
            Some(wgpu::ComputePassTimestampWrites { beginning_of_pass_write_index: None, ..times }),
        ),
        times => (times, None),
    };
    let written = |times: &wgpu::ComputePassTimestampWrites<'_>| {
        times.beginning_of_pass_write_index.or(times.end_of_pass_write_index).is_some()
    };
    let mut recording = Recording::new(encoder, first.filter(written));
    bounds.for_each(|bound| recording.dispatch(bound));
    drop(recording);
    if let Some(last) = last.filter(written) {
        Recording::new(encoder, Some(last));
    }
}
