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

/// Which device is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The one whose UUID begins so: hexadecimal digits, at least four.
    Uuid(String),
    /// The one in that place of the list, from 0.
    Rank(usize),
}

/// No device, or not one, is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; there {there}")]
pub struct ChooseError {
    problem: String,
    there: String,
}

/// The place in `devices`, which are in order, of the one that is meant. A driver that computes on the CPU is only taken
/// when that is allowed.
///
/// # Errors
/// No device matches, or several do; the error lists what there is.
pub fn choose(devices: &[DeviceInfo], selection: &Selection, allow_cpu: bool) -> Result<usize, ChooseError> {
    let allowed = |info: &DeviceInfo| allow_cpu || info.kind != DeviceKind::Cpu;
    let places = devices.iter().enumerate().filter(|(_, info)| allowed(info));
    let matching: Vec<usize> = match selection {
        Selection::Rank(rank) => places.map(|(place, _)| place).skip(*rank).take(1).collect(),
        Selection::Uuid(prefix) if prefix.len() >= 4 => {
            let prefix = prefix.to_ascii_lowercase();
            places
                .filter(|(_, info)| info.uuid.to_string().starts_with(&prefix))
                .map(|(place, _)| place)
                .collect()
        }
        Selection::Uuid(_) => Vec::new(),
    };
    let problem = match (matching.as_slice(), selection) {
        ([one], _) => return Ok(*one),
        ([], Selection::Rank(rank)) => format!("no device has rank {rank}"),
        ([], Selection::Uuid(prefix)) if prefix.len() < 4 => {
            format!("\"{prefix}\" is too short for a UUID's beginning: give four digits or more")
        }
        ([], Selection::Uuid(prefix)) => format!("no device's UUID begins with {prefix}"),
        (several, _) => format!("{} devices match", several.len()),
    };
    let one = |info: &DeviceInfo| {
        let refused = if allowed(info) { "" } else { ", not allowed" };
        format!("{} ({}, {}{refused})", info.uuid, info.kind.name(), info.model)
    };
    let there = match devices {
        [] => "is none".to_owned(),
        _ => format!("is {}", devices.iter().map(one).collect::<Vec<_>>().join(", ")),
    };
    Err(ChooseError { problem, there })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(first: u8, kind: DeviceKind) -> DeviceInfo {
        let mut uuid = [0; 16];
        uuid[0] = first;
        DeviceInfo {
            uuid: DeviceUuid(uuid),
            kind,
            model: format!("model {first}"),
            vendor_id: 1,
            device_id: 2,
            driver: "driver".into(),
            driver_version: "1".into(),
            driver_number: 1,
            driver_uuid: [0; 16],
            api_version: "1.3.0".into(),
            pci_address: None,
            memory: 1 << 30,
            limits: Limits {
                push_bytes: 128,
                workgroup_threads: 1024,
                groups: [65535; 3],
                shared_bytes: 32 << 10,
                buffer_bytes: 1 << 27,
                bindings: 16,
                f64: true,
            },
        }
    }

    #[test]
    fn a_device_is_chosen_by_rank_or_by_the_beginning_of_its_uuid_and_never_a_cpu_by_accident() {
        use DeviceKind::Cpu;
        use DeviceKind::Discrete;
        let there = [device(0xab, Discrete), device(0xac, Discrete), device(0xad, Cpu)];
        let rank = Selection::Rank;
        let uuid = |text: &str| Selection::Uuid(text.to_owned());
        for (selection, allow_cpu, expected) in [
            (rank(0), false, Ok(0)),
            (rank(1), false, Ok(1)),
            (rank(2), true, Ok(2)),
            (rank(2), false, Err("no device has rank 2")),
            (rank(3), true, Err("no device has rank 3")),
            (uuid("ac00"), false, Ok(1)),
            (uuid("AC000000"), false, Ok(1)),
            (uuid("ad00"), true, Ok(2)),
            (uuid("ad00"), false, Err("no device's UUID begins with ad00")),
            (uuid("ac"), false, Err("too short")),
            (uuid(""), true, Err("too short")),
            (uuid("ffff"), true, Err("no device's UUID begins with ffff")),
        ] {
            let chosen = choose(&there, &selection, allow_cpu).map_err(|error| error.to_string());
            match (&chosen, expected) {
                (Ok(place), Ok(wanted)) => assert_eq!(*place, wanted, "{selection:?}"),
                (Err(error), Err(wanted)) => {
                    assert!(error.contains(wanted), "{error}");
                    assert!(error.contains("model 171") && error.contains("model 173"), "lists all: {error}");
                    assert_eq!(error.contains("not allowed"), !allow_cpu, "{error}");
                }
                _ => panic!("{selection:?}: {chosen:?}"),
            }
        }
        let twins = [device(0xab, Discrete), device(0xab, Discrete)];
        let error = choose(&twins, &uuid("ab00"), false).unwrap_err().to_string();
        assert!(error.starts_with("2 devices match; there is ab00"), "{error}");
        assert_eq!(
            choose(&[], &rank(0), true).unwrap_err().to_string(),
            "no device has rank 0; there is none"
        );
    }
}
