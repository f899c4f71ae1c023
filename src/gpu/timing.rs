//! Timestamps around dispatches, in the very stream that they run in.

use super::{Bound, Buffer, Gpu, GpuError, recording::Recording};
use std::ops::Range;

/// Where a device can write down the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// Nowhere: only the wall clock is left.
    None,
    /// Where passes begin and end (Apple's GPUs).
    Passes,
    /// Between the dispatches of a pass.
    Inside,
}

impl Timestamps {
    /// What it takes between the dispatches of a pass, besides [`wgpu::Features::TIMESTAMP_QUERY`].
    const INSIDE: wgpu::Features =
        wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

    /// What a device is asked for: all, or what is left without `timestamps` or `timestamps-inside`.
    pub(super) fn features(allowed: impl Fn(&str) -> bool) -> wgpu::Features {
        match (allowed("timestamps"), allowed("timestamps-inside")) {
            (false, _) => wgpu::Features::empty(),
            (true, false) => wgpu::Features::TIMESTAMP_QUERY,
            (true, true) => wgpu::Features::TIMESTAMP_QUERY | Self::INSIDE,
        }
    }

    /// What a device with these features can do.
    pub(super) fn of(features: wgpu::Features) -> Self {
        if features.contains(wgpu::Features::TIMESTAMP_QUERY | Self::INSIDE) {
            Self::Inside
        } else if features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            Self::Passes
        } else {
            Self::None
        }
    }
}

/// Ranges of dispatches that end with the submissions that end at `cuts`, none too long for a [`Stopwatch`].
pub fn pieces(cuts: &[usize]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for &end in cuts {
        while start < end {
            let next = end.min(start + Stopwatch::MOST);
            pieces.push(start..next);
            start = next;
        }
    }
    pieces
}

/// Takes the times of the dispatches that are recorded through it, once.
pub struct Stopwatch {
    set: wgpu::QuerySet,
    resolved: Buffer,
    inside: bool,
    dispatches: usize,
}

impl Stopwatch {
    /// The most dispatches that one takes the times of: a query set has 4096 places.
    pub const MOST: usize = 2047;

    /// Records `bounds`, as many as the stopwatch was made for, in order, and the times around them.
    pub fn record<'a>(&self, encoder: &mut wgpu::CommandEncoder, bounds: impl Iterator<Item = &'a Bound>) {
        if self.inside {
            // One timestamp serves as the end of one and the beginning of the next.
            let mut recording = Recording::new(encoder, None);
            recording.write_timestamp(&self.set, 0);
            for (place, bound) in bounds.enumerate() {
                recording.dispatch(bound);
                recording.write_timestamp(&self.set, place as u32 + 1);
            }
        } else {
            for (place, bound) in bounds.enumerate() {
                bound.prepare(encoder);
                let place = place as u32 * 2;
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &self.set,
                        beginning_of_pass_write_index: Some(place),
                        end_of_pass_write_index: Some(place + 1),
                    }),
                });
                bound.dispatch(&mut pass);
            }
        }
        encoder.resolve_query_set(&self.set, 0..self.places() as u32, &self.resolved.raw, 0);
    }

    /// Begin and end of each dispatch, nanoseconds of the device's own clock, once the recorded commands have been submitted;
    /// waits for them. In order, none before the end of the one before it.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn times(&self, gpu: &Gpu) -> Result<Vec<(u64, u64)>, GpuError> {
        let bytes = gpu.read(&self.resolved, 0, self.places() as u64 * 8)?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        // A clock that counts nanoseconds stays exact: after years it has more digits than a float.
        let nanoseconds = |ticks: u64| if period == 1.0 { ticks } else { (ticks as f64 * period) as u64 };
        let at: Vec<u64> = bytemuck::pod_collect_to_vec::<u8, u64>(&bytes).into_iter().map(nanoseconds).collect();
        let mut last = 0;
        let times = (0..self.dispatches).map(|i| {
            let (begin, end) = if self.inside { (at[i], at[i + 1]) } else { (at[2 * i], at[2 * i + 1]) };
            let begin = begin.max(last);
            last = end.max(begin);
            (begin, last)
        });
        Ok(times.collect())
    }

    fn places(&self) -> usize {
        if self.inside { self.dispatches + 1 } else { 2 * self.dispatches }
    }
}

impl Gpu {
    /// A stopwatch for each of the [`pieces`] of a plan; `None` where the device has no timestamps.
    ///
    /// # Errors
    /// No memory left.
    pub fn stopwatches(&self, pieces: &[Range<usize>]) -> Result<Option<Vec<Stopwatch>>, GpuError> {
        pieces.iter().map(|piece| self.stopwatch(piece.len())).collect()
    }

    /// A stopwatch for `dispatches` dispatches, at most [`Stopwatch::MOST`]; `None` where the device has no timestamps.
    ///
    /// # Errors
    /// No memory left.
    pub fn stopwatch(&self, dispatches: usize) -> Result<Option<Stopwatch>, GpuError> {
        if self.caps.timestamps == Timestamps::None {
            return Ok(None);
        }
        let inside = self.caps.timestamps == Timestamps::Inside;
        let places = if inside { dispatches + 1 } else { 2 * dispatches };
        let bytes = (places as u64 * 8).next_multiple_of(256);
        let (set, raw) = self.guarded("timestamps", bytes, || {
            let set = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: places as u32,
            });
            let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (set, raw)
        })?;
        Ok(Some(Stopwatch { set, resolved: Buffer { raw, bytes }, inside, dispatches }))
    }
}
