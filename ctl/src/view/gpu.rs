//! What `/zed/gpu` shows: devices, jobs, statistics, suspects.

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// `gpu/N/info.json`: a device and its node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuView {
    /// Its number here: by kind, discrete first.
    pub gpu: u32,
    /// Names it for ever: 32 hexadecimal digits.
    pub uuid: String,
    /// `discrete`, `integrated`, `virtual`, `cpu`.
    pub kind: String,
    /// `NVIDIA`.
    pub vendor: String,
    /// `NVIDIA H200`.
    pub model: String,
    /// Memory in MiB.
    pub vram_mb: u64,
    /// Driver and its version.
    pub driver: String,
    /// Of Vulkan.
    pub api: String,
    /// `0000:01:00.0`, or empty.
    pub pci: String,
    /// It computes in double precision.
    pub f64: bool,
    /// `starting`, `ready`, `busy`, `lost`, `restarting`, `unusable`, `paused`.
    pub state: String,
    /// Why it is lost or unusable, or empty.
    pub error: String,
    /// Process id of its node, 0 when there is none.
    pub pid: u32,
    /// Seconds since 1970 at which the node came up, 0 when it is not up.
    pub since: i64,
    /// How often the node was started again.
    pub restarts: u64,
    /// How the last start found the pipeline cache: `loaded 36864`, `absent`, `rejected: ...`.
    pub cache: String,
    /// Microseconds of the last start's parts: `instance`, `device`, `cache`, `canary`, `total`.
    pub start_us: BTreeMap<String, u64>,
}

/// `gpu/N/jobs/ID/status.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuJobView {
    /// Its id.
    pub id: u64,
    /// `waiting` (for inputs), `queued`, `running`, `done`, `failed`, `cancelled`.
    pub state: String,
    /// Why it failed, or empty.
    pub error: String,
    /// Who submitted it: a user id.
    pub uid: u32,
    /// Higher ones of the same user are first.
    pub priority: i8,
    /// Operations in order: `Add Sum`.
    pub ops: String,
    /// `gpu`, `cpu`; empty until it runs.
    pub ran_on: String,
    /// Why it was run on the CPU, or empty.
    pub fallback: String,
    /// The device's uuid that computed it, or empty.
    pub device: String,
    /// Seconds since 1970 of its submission.
    pub submitted_at: i64,
    /// Seconds since 1970 of its end, 0 before.
    pub ended_at: i64,
    /// Microseconds in the queue.
    pub queued_us: u64,
    /// Microseconds of compiling.
    pub compile_us: u64,
    /// Microseconds on the device.
    pub device_us: u64,
    /// How often it was begun.
    pub attempts: u32,
    /// Its arrays that are inputs.
    pub inputs: Vec<GpuArrayView>,
    /// Its arrays that are outputs.
    pub outputs: Vec<GpuArrayView>,
}

/// One array of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuArrayView {
    /// Its name.
    pub name: String,
    /// `f32`, `f64`, `u32`.
    pub dtype: String,
    /// Length of each axis.
    pub shape: Vec<u32>,
    /// Bytes of the file.
    pub bytes: u64,
    /// For inputs: `text`, `raw`, `upload`.
    pub source: String,
}

/// `gpu/N/stats.json`. Counters are since the device was first seen by this zedd, unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuStats {
    /// Jobs that wait for inputs.
    pub waiting: u64,
    /// Jobs in the queue.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Bytes that jobs in the queue hold in memory.
    pub queued_bytes: u64,
    /// Ended jobs that are kept.
    pub kept: u64,
    /// Taken.
    pub submitted: u64,
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Refused because the queue was full.
    pub refused: u64,
    /// Past their deadline.
    pub timeouts: u64,
    /// Run on the CPU instead.
    pub fallbacks: u64,
    /// Submits to the device.
    pub batches: u64,
    /// Jobs done by user id, with their weight and the device's time.
    pub users: BTreeMap<String, GpuUserStats>,
    /// How long jobs waited in the queue: upper bound in microseconds to count, the last is `inf`.
    pub queue_us: Vec<(String, u64)>,
    /// How long jobs took on the device.
    pub device_us: Vec<(String, u64)>,
    /// From submission to end.
    pub total_us: Vec<(String, u64)>,
}

/// One user's share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuUserStats {
    /// Share of the device relative to others, 1 unless set.
    pub weight: u32,
    /// Jobs in the queue.
    pub queued: u64,
    /// Jobs that ended.
    pub ended: u64,
    /// Microseconds of the device.
    pub device_us: u64,
}

/// `gpu/N/suspects.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSuspects {
    /// Too many timeouts of any kernels in the last minute: only jobs that allow the CPU run.
    pub brake: bool,
    /// Timeouts in the window.
    pub window: u32,
    /// Kernels with timeouts.
    pub kernels: Vec<SuspectView>,
}

/// One kernel that did not end in time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuspectView {
    /// Its name.
    pub kernel: String,
    /// Timeouts in a row.
    pub timeouts: u32,
    /// It is not run any more until `forgive`.
    pub evicted: bool,
    /// Seconds since 1970 of the last timeout.
    pub last_at: i64,
}

/// `gpu/N/shaders/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShaderView {
    /// Its name.
    pub name: String,
    /// `ok`, `suspect`, `evicted`.
    pub state: String,
    /// `catalogue`, `user`.
    pub author: String,
    /// Jobs that used it.
    pub jobs: u64,
    /// Timeouts in a row.
    pub timeouts: u32,
}
