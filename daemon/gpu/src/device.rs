//! What a device is and what it can do, as its node says it.
//!
//! Plain values, the same on both sides of the process boundary. Never asks a driver anything.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// Names a device for ever: what Vulkan calls `deviceUUID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceUuid(pub [u8; 16]);

/// 32 hexadecimal digits.
impl fmt::Display for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What kind of device it is, best first: the order in which devices are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// With memory of its own.
    Discrete,
    /// Shares the host's memory.
    Integrated,
    /// Of a virtual machine.
    Virtual,
    /// What the driver does not name.
    Other,
    /// A driver that computes on the CPU. Never taken unless asked for.
    Cpu,
}

impl DeviceKind {
    /// As files say it: `discrete`.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Discrete => "discrete",
            DeviceKind::Integrated => "integrated",
            DeviceKind::Virtual => "virtual",
            DeviceKind::Other => "other",
            DeviceKind::Cpu => "cpu",
        }
    }
}

/// What programs for a device must keep to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of push constants, at least 128.
    pub push_bytes: u32,
    /// Threads of a workgroup.
    pub workgroup_threads: u32,
    /// Workgroups along each axis.
    pub groups: [u32; 3],
    /// Bytes of memory that a workgroup shares.
    pub shared_bytes: u32,
    /// Bytes of one storage buffer.
    pub buffer_bytes: u64,
    /// Storage buffers that one kernel may bind.
    pub bindings: u32,
    /// Double precision.
    pub f64: bool,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name for ever.
    pub uuid: DeviceUuid,
    /// What kind.
    pub kind: DeviceKind,
    /// `NVIDIA H200`, `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub model: String,
    /// PCI's id of the vendor; Khronos' for what is not on PCI.
    pub vendor_id: u32,
    /// The vendor's id of the device.
    pub device_id: u32,
    /// `NVIDIA`, `llvmpipe`.
    pub driver: String,
    /// The driver's own words for its version: `Mesa 25.0.7`.
    pub driver_version: String,
    /// The driver's version as a number.
    pub driver_number: u32,
    /// Names the build of the driver: what Vulkan calls `driverUUID`.
    pub driver_uuid: [u8; 16],
    /// Of Vulkan: `1.4.305`.
    pub api_version: String,
    /// `0000:01:00.0`, where the driver says it.
    pub pci_address: Option<String>,
    /// Bytes of the largest device-local heap.
    pub memory: u64,
    /// What programs must keep to.
    pub limits: Limits,
}
