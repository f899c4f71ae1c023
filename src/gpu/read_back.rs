//! Reading back while the device goes on: what was copied in one submission is read when the next is queued already.

use super::{Buffer, Gpu, GpuError, Timestamps};
use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// A place on the host for a range of a buffer as it is at the end of a submission. It is made once and used again and again.
pub struct ReadBack {
    staging: wgpu::Buffer,
    bytes: u64,
    watch: Option<Watch>,
    pending: Option<(wgpu::SubmissionIndex, Receiver<Result<(), wgpu::BufferAsyncError>>)>,
}

/// Where the begin and the end of a submission are written down.
struct Watch {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

/// Two timestamps.
const TIMES: u64 = 16;

impl ReadBack {
    /// For the first pass of the submission, and for the last.
    pub fn timestamps(&self, first: bool, last: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        self.watch.as_ref().filter(|_| first || last).map(|watch| wgpu::ComputePassTimestampWrites {
            query_set: &watch.set,
            beginning_of_pass_write_index: first.then_some(0),
            end_of_pass_write_index: last.then_some(1),
        })
    }

    /// Records the copy from `buffer`, from `offset` bytes on (a multiple of 4), at the end of a submission.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, buffer: &Buffer, offset: u64) {
        let bytes = self.bytes.min(buffer.bytes - offset);
        encoder.copy_buffer_to_buffer(&buffer.raw, offset, &self.staging, 0, bytes);
        if let Some(watch) = &self.watch {
            encoder.resolve_query_set(&watch.set, 0..2, &watch.resolved, 0);
            encoder.copy_buffer_to_buffer(&watch.resolved, 0, &self.staging, self.bytes, TIMES);
        }
    }

    /// The submission with the copy is this one.
    pub fn submitted(&mut self, index: wgpu::SubmissionIndex) {
        let (sender, receiver) = channel();
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody receives it where nobody took what was read.
            let _ = sender.send(result);
        });
        self.pending = Some((index, receiver));
    }

    /// Waits for that submission, and for no later one: the bytes, and how long the device took for it by its own clock.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn take(&mut self, gpu: &Gpu) -> Result<(Vec<u8>, Option<Duration>), GpuError> {
        let lost = |reason: String| GpuError::Lost { adapter: gpu.caps.name.clone(), reason };
        let Some((index, receiver)) = self.pending.take() else { return Err(lost("nothing was submitted to be read".into())) };
        gpu.wait_for(index)?;
        receiver.recv().map_err(|e| lost(e.to_string()))?.map_err(|e| lost(e.to_string()))?;
        let view = self.staging.slice(..).get_mapped_range().map_err(|e| lost(e.to_string()))?;
        let (bytes, times) = view.split_at(self.bytes as usize);
        let time = self.watch.is_some().then(|| {
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(times);
            let ticks = ticks[1].saturating_sub(ticks[0]);
            Duration::from_nanos((ticks as f64 * f64::from(gpu.queue.get_timestamp_period())) as u64)
        });
        let bytes = bytes.to_vec();
        drop(view);
        self.staging.unmap();
        Ok((bytes, time))
    }
}

impl Gpu {
    /// A place for `bytes` bytes (a multiple of 4, rounded up to it); `timed`: and for what the device took, where it has a clock.
    ///
    /// # Errors
    /// No memory left.
    pub fn read_back(&self, bytes: u64, timed: bool) -> Result<ReadBack, GpuError> {
        // Queries are resolved to whole words of eight bytes.
        let bytes = bytes.max(8).next_multiple_of(8);
        let timed = timed && self.caps.timestamps != Timestamps::None;
        let (staging, watch) = self.guarded("read-back", bytes + TIMES, || {
            let buffer = |size, usage| {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("read-back"),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let staging = buffer(bytes + TIMES, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            let watch = timed.then(|| Watch {
                set: self.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("read-back"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: buffer(256, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            });
            (staging, watch)
        })?;
        Ok(ReadBack { staging, bytes, watch, pending: None })
    }
}
