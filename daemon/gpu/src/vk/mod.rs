//! Vulkan: drivers, devices, memory, pipelines, and what is recorded and submitted.
//!
//! The only place that imports ash, and with `wire.rs` the only one of this crate with `unsafe`. Its public types cannot
//! be used wrongly: whoever holds one keeps alive what it needs, and memory is only seen while nothing is submitted.
//! Knows nothing of jobs or messages; never decides which device is taken.

mod core;
mod driver;
mod memory;
mod pipeline;
mod pool;
mod recorded;

pub use core::Device;
pub use core::DeviceOptions;
pub use driver::Driver;
pub use driver::shader_caches_below;
pub use memory::MemoryStats;
pub use pipeline::Made;
pub use pipeline::Pipeline;
pub use pool::PoolStats;
pub use recorded::BufferPlan;
pub use recorded::DispatchPlan;
pub use recorded::Recorded;

use ash::vk;

/// Why Vulkan did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VkError {
    /// The host has no loader.
    #[error(
        "this host has no Vulkan loader (libvulkan.so.1): install it together with the driver of its GPU: {0}"
    )]
    Loader(String),
    /// The loader found no driver.
    #[error("the Vulkan loader of this host finds no driver: install the one of its GPU")]
    NoDriver,
    /// The device lacks what every program needs.
    #[error("{device} lacks {needs}, which zed needs: install a newer driver")]
    Lacks {
        /// The device's model.
        device: String,
        /// What is missing.
        needs: &'static str,
    },
    /// Memory of the device, of the host, or of our share of them is used up.
    #[error("the device has no memory left for {bytes} bytes more")]
    Memory {
        /// How many were asked for.
        bytes: u64,
    },
    /// The device is gone; so is everything on it.
    #[error("the device was lost in {0}")]
    Lost(&'static str),
    /// Its workgroups have another shape than the device allows.
    #[error("workgroups of {size:?} threads; this device allows at most {most:?}")]
    Workgroup {
        /// The shader's.
        size: [u32; 3],
        /// The device's.
        most: [u32; 3],
    },
    /// A call failed.
    #[error("{call} failed: {result:?}")]
    Call {
        /// What was called.
        call: &'static str,
        /// What it answered.
        result: vk::Result,
    },
}

impl VkError {
    /// What `result` of `call` means.
    fn of(call: &'static str, result: vk::Result) -> Self {
        match result {
            vk::Result::ERROR_DEVICE_LOST => VkError::Lost(call),
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
            | vk::Result::ERROR_OUT_OF_HOST_MEMORY
            | vk::Result::ERROR_OUT_OF_POOL_MEMORY
            | vk::Result::ERROR_FRAGMENTED_POOL
            | vk::Result::ERROR_TOO_MANY_OBJECTS => VkError::Memory { bytes: 0 },
            _ => VkError::Call { call, result },
        }
    }
}

/// For `map_err`: what the failure of `call` means.
fn failed(call: &'static str) -> impl Fn(vk::Result) -> VkError {
    move |result| VkError::of(call, result)
}
