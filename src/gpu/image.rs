//! Images: memory that kernels read by texels of sixteen bytes.
//!
//! Where a driver loads a storage buffer lane by lane it may still load a storage texture by vectors: Mesa's software adapter up to
//! version 23 does, and products that read their operands so are almost twice as fast there. A row of an image goes on in the
//! next, so that a texel has a number, as an element of a buffer has.

use super::{Buffer, BufferSlice, Gpu, GpuError};

/// Texels of an image's row; shaders/shared/image.wgsl has the same.
const WIDTH: u32 = 4096;
/// Bytes of a texel.
const TEXEL: u64 = 16;

/// An image on the device.
#[derive(Debug, Clone)]
pub struct Image {
    raw: wgpu::Texture,
    pub(super) view: wgpu::TextureView,
}

/// Whole rows that hold so many bytes.
fn rows(bytes: u64) -> u64 {
    bytes.max(TEXEL).div_ceil(TEXEL * u64::from(WIDTH))
}

/// How large an image of that many bytes is.
fn extent(bytes: u64) -> wgpu::Extent3d {
    wgpu::Extent3d { width: WIDTH, height: u32::try_from(rows(bytes)).unwrap_or(u32::MAX), depth_or_array_layers: 1 }
}

/// The largest image, bytes, on a device whose textures have at most `side` texels a side.
pub(super) fn largest(side: u32) -> u64 {
    if side < WIDTH { 0 } else { u64::from(side) * u64::from(WIDTH) * TEXEL }
}

impl Gpu {
    /// An image of at least `bytes` bytes for `what`.
    ///
    /// # Errors
    /// Larger than the adapter's largest image, or no memory left.
    pub fn image(&self, what: &str, bytes: u64) -> Result<Image, GpuError> {
        if bytes > self.caps.max_image {
            return Err(GpuError::OutOfMemory {
                what: what.into(),
                bytes,
                adapter: self.caps.name.clone(),
                reason: format!("makes no image larger than {} bytes", self.caps.max_image),
            });
        }
        self.guarded(what, bytes, || {
            let raw = self.device.create_texture(&wgpu::TextureDescriptor {
                label: Some(what),
                size: extent(bytes),
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: wgpu::TextureFormat::Rgba32Uint,
                usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            });
            let view = raw.create_view(&wgpu::TextureViewDescriptor::default());
            Image { raw, view }
        })
    }

    /// Copies the first `bytes` bytes of `buffer`, a multiple of a texel's, into `image`, now.
    ///
    /// # Errors
    /// The image is smaller, or a fault of the device.
    pub fn copy_to_image(&self, buffer: &Buffer, bytes: u64, image: &Image) -> Result<(), GpuError> {
        let from = BufferSlice { buffer: buffer.clone(), offset: 0, bytes };
        let index = self.guarded("a copy to an image", 0, || {
            let mut encoder = self.encoder();
            ImageCopy { from, image: image.clone() }.record(&mut encoder);
            self.submit(encoder)
        })?;
        index.map(|_| ())
    }
}

/// A copy of part of a buffer, whole texels that begin on a multiple of a texel's bytes, to the beginning of an image.
#[derive(Debug, Clone)]
pub struct ImageCopy {
    /// The part.
    pub from: BufferSlice,
    /// The image, which is as large at least.
    pub image: Image,
}

impl ImageCopy {
    /// Records it.
    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let row = u64::from(WIDTH) * TEXEL;
        let (whole, rest) = (self.from.bytes / row, self.from.bytes % row);
        let mut copy = |first: u64, width: u64, height: u64| {
            let offset = self.from.offset + first * row;
            let layout = wgpu::TexelCopyBufferLayout { offset, bytes_per_row: Some(row as u32), rows_per_image: None };
            let origin = wgpu::Origin3d { x: 0, y: first as u32, z: 0 };
            let to = wgpu::TexelCopyTextureInfo { origin, ..self.image.raw.as_image_copy() };
            let size = wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 };
            if width * height > 0 {
                encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer: &self.from.buffer.raw, layout }, to, size);
            }
        };
        copy(0, u64::from(WIDTH), whole);
        copy(whole, rest / TEXEL, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{largest, rows};

    #[test]
    fn an_image_is_whole_rows() {
        assert_eq!([0, 16, 65_536, 65_537].map(rows), [1, 1, 1, 2]);
        assert_eq!((largest(2048), largest(8192)), (0, 1 << 29));
    }
}
