//! Why no device is open, and why a job was not computed.
//!
//! An error says who is to blame, so that suspects are counted rightly; it never says how a job is told of it.

use crate::device::ChooseError;
use crate::ops::PlanError;
use crate::program::KernelId;
use crate::vk::VkError;
use crate::wgsl::CompileError;

/// Why a job was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// No program can be made of it for this device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A program does not fit its job or the device.
    #[error("{0}")]
    Program(String),
    /// An array is too large for one buffer.
    #[error("\"{name}\" has {bytes} bytes; a buffer of this device holds at most {most}")]
    Buffer {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
        /// The device's limit.
        most: u64,
    },
    /// A kernel does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The driver refuses a kernel.
    #[error("the driver refuses the kernel {kernel}: {error}")]
    Pipeline {
        /// Which.
        kernel: KernelId,
        /// The driver's words.
        error: VkError,
    },
    /// Inputs are not those of the job.
    #[error("{0}")]
    Input(String),
    /// The device has no memory left, or failed.
    #[error(transparent)]
    Device(#[from] VkError),
}

/// Why no device is open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// None is what was asked for.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// It cannot be used.
    #[error(transparent)]
    Device(#[from] VkError),
}
