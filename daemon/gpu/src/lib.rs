//! GPU nodes: Vulkan devices as processes with dispatch queues, and the operations that they know.
//!
//! A job (`zed_spec::job`) becomes a [`program::Program`] of kernels in `ops`; the node, a process of its own, compiles
//! and runs them; zedd's side keeps the queue. Only `vk/` imports ash; nothing that hangs or dies in a driver may
//! reach zedd.

pub mod device;
pub mod inventory;
pub mod node;
pub mod ops;
pub mod program;
pub mod queue;
pub mod result;
pub mod vk;
pub mod wgsl;
pub mod wire;

/// An error with its causes: naga says the interesting part last.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
