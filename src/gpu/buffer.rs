//! Buffers, uploads and read-back.

use super::{Gpu, GpuError};
use std::ops::Range;

/// A storage buffer on the device.
#[derive(Debug, Clone)]
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    /// Its size, bytes; a multiple of 256.
    pub bytes: u64,
}

/// A range of a buffer, as a binding sees it.
#[derive(Debug, Clone)]
pub struct BufferSlice {
    /// The buffer.
    pub buffer: Buffer,
    /// Start, bytes; a multiple of the device's storage alignment.
    pub offset: u64,
    /// Length, bytes.
    pub bytes: u64,
}

/// Bytes are staged in pieces of this size, so that a large table needs no equally large staging buffer.
const PIECE: usize = 32 << 20;

impl Gpu {
    /// A zeroed storage buffer of at least `bytes` bytes for `what`.
    ///
    /// # Errors
    /// Larger than the adapter's largest buffer, or no memory left.
    pub fn buffer(&self, what: &str, bytes: u64) -> Result<Buffer, GpuError> {
        let bytes = bytes.max(4).next_multiple_of(256);
        if bytes > self.caps.max_buffer {
            return Err(GpuError::OutOfMemory {
                what: what.into(),
                bytes,
                adapter: self.caps.name.clone(),
                reason: format!("makes no buffer larger than {} bytes", self.caps.max_buffer),
            });
        }
        let raw = self.guarded(what, bytes, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        Ok(Buffer { raw, bytes })
    }

    /// A uniform buffer holding `bytes`.
    ///
    /// # Errors
    /// No memory left.
    pub fn uniform(&self, bytes: &[u8]) -> Result<Buffer, GpuError> {
        let size = (bytes.len() as u64).max(16).next_multiple_of(256);
        let raw = self.guarded("kernel parameters", size, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("kernel parameters"),
                size,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        let buffer = Buffer { raw, bytes: size };
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// Copies `data` into `buffer` at `offset` bytes (a multiple of 4; so is the length).
    ///
    /// # Errors
    /// A fault of the device.
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) -> Result<(), GpuError> {
        for (i, piece) in data.chunks(PIECE).enumerate() {
            self.queue.write_buffer(&buffer.raw, offset + (i * PIECE) as u64, piece);
            if data.len() > PIECE {
                // Staging memory is only given back once a submission has run.
                self.queue.submit([]);
                self.wait()?;
            }
        }
        self.check()
    }

    /// Copies `bytes` bytes of `buffer` from `offset` back to the host, waiting for all that was submitted before.
    ///
    /// # Errors
    /// No memory for staging, or a fault of the device.
    pub fn read(&self, buffer: &Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>, GpuError> {
        let mut out = Vec::with_capacity(bytes as usize);
        let mut at = 0;
        while at < bytes {
            let piece = (bytes - at).min(PIECE as u64);
            let size = piece.next_multiple_of(4);
            let staging = self.guarded("read-back", size, || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("read-back"),
                    size,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })?;
            let mut encoder = self.encoder();
            encoder.copy_buffer_to_buffer(&buffer.raw, offset + at, &staging, 0, size);
            self.submit(encoder)?;
            let (sender, receiver) = std::sync::mpsc::channel();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver lives until the wait below is over.
                let _ = sender.send(result);
            });
            self.wait()?;
            let lost = |reason: String| GpuError::Lost { adapter: self.caps.name.clone(), reason };
            receiver.recv().map_err(|e| lost(e.to_string()))?.map_err(|e| lost(e.to_string()))?;
            let view = staging.slice(..).get_mapped_range().map_err(|e| lost(e.to_string()))?;
            out.extend_from_slice(&view[..piece as usize]);
            drop(view);
            staging.unmap();
            at += piece;
        }
        Ok(out)
    }

    /// Copies a range of bytes of one buffer into another, from a byte of it on, as a command; all are multiples of 4.
    pub fn copy(&self, encoder: &mut wgpu::CommandEncoder, (from, range): (&Buffer, Range<u64>), (to, at): (&Buffer, u64)) {
        encoder.copy_buffer_to_buffer(&from.raw, range.start, &to.raw, at, range.end - range.start);
    }

    /// Fills a range of `buffer` with zeros, as a command.
    pub fn clear(&self, encoder: &mut wgpu::CommandEncoder, buffer: &Buffer, offset: u64, bytes: u64) {
        encoder.clear_buffer(&buffer.raw, offset, Some(bytes));
    }
}
