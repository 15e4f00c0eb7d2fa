//! What `gpu/N/` shows of a device, read off its queue.

use super::device::Device;
use super::inner::Inner;
use super::node::Phase;
use crate::device::DeviceInfo;
use crate::program::Author;
use crate::wire::CacheState;
use std::collections::BTreeMap;
use zed_ctl::GpuStats;
use zed_ctl::GpuSuspects;
use zed_ctl::GpuUserStats;
use zed_ctl::GpuView;
use zed_ctl::ShaderView;
use zed_ctl::SuspectView;

/// The vendors that make GPUs, by PCI's and Khronos' ids.
const VENDORS: [(u32, &str); 8] = [
    (0x1002, "AMD"),
    (0x10de, "NVIDIA"),
    (0x8086, "Intel"),
    (0x106b, "Apple"),
    (0x13b5, "Arm"),
    (0x1010, "Imagination"),
    (0x5143, "Qualcomm"),
    (0x1_0005, "Mesa"),
];

/// A device without its node.
pub(super) fn device_view(gpu: u32, info: &DeviceInfo) -> GpuView {
    let vendor = VENDORS.iter().find(|(id, _)| *id == info.vendor_id);
    GpuView {
        gpu,
        uuid: info.uuid.to_string(),
        kind: info.kind.name().to_owned(),
        vendor: vendor.map_or_else(|| format!("{:#06x}", info.vendor_id), |(_, name)| (*name).to_owned()),
        model: info.model.clone(),
        vram_mb: info.memory >> 20,
        driver: format!("{} {}", info.driver, info.driver_version),
        api: info.api_version.clone(),
        pci: info.pci_address.clone().unwrap_or_default(),
        f64: info.limits.f64,
        ..GpuView::default()
    }
}

impl Inner {
    fn state_word(&self) -> &'static str {
        match self.node.phase {
            Phase::Starting => "starting",
            Phase::Lost => "lost",
            Phase::Restarting => "restarting",
            Phase::Unusable => "unusable",
            Phase::Ready if self.node.busy() => "busy",
            Phase::Ready if self.paused => "paused",
            Phase::Ready => "ready",
        }
    }

    pub(super) fn view(&self) -> GpuView {
        let node = &self.node;
        let times = node.times;
        let start_us = [
            ("instance", times.instance),
            ("device", times.device),
            ("cache", times.cache),
            ("canary", times.canary),
            ("total", node.total_us),
        ];
        GpuView {
            state: self.state_word().to_owned(),
            error: node.error.clone(),
            pid: node.pid,
            since: node.since,
            restarts: node.restarts,
            cache: match &node.cache {
                None => String::new(),
                Some(CacheState::Absent) => "absent".to_owned(),
                Some(CacheState::Loaded(bytes)) => format!("loaded {bytes}"),
                Some(CacheState::Rejected(why)) => format!("rejected: {why}"),
            },
            start_us: start_us.map(|(part, took)| (part.to_owned(), took)).into(),
            ..device_view(self.gpu, &self.info)
        }
    }

    pub(super) fn stats(&self) -> GpuStats {
        let begun = self.node.link.as_ref().map_or(&[][..], |link| &link.running);
        // Those that were cancelled have ended.
        let running = begun.iter().filter(|sent| sent.cancelled.is_none()).count();
        let waiting = self.waiting_jobs;
        let queued = self.open_jobs.saturating_sub(waiting + running);
        let mut users: BTreeMap<String, GpuUserStats> = BTreeMap::new();
        let weighted = self.schedule.weights().map(|(uid, _)| uid);
        for uid in self.users.keys().copied().chain(weighted) {
            let count = self.users.get(&uid).cloned().unwrap_or_default();
            let stats = GpuUserStats {
                weight: self.schedule.weight(uid),
                queued: count.jobs as u64,
                ended: count.ended,
                device_us: count.device_us,
            };
            users.insert(uid.to_string(), stats);
        }
        let counts = &self.counts;
        GpuStats {
            waiting: waiting as u64,
            queued: queued as u64,
            running: running as u64,
            queued_bytes: self.open_bytes,
            kept: self.ended.len() as u64,
            submitted: counts.submitted,
            done: counts.done,
            failed: counts.failed,
            cancelled: counts.cancelled,
            refused: counts.refused,
            timeouts: counts.timeouts,
            fallbacks: counts.fallbacks,
            batches: counts.batches,
            users,
            queue_us: self.queue_us.buckets(),
            device_us: self.device_us.buckets(),
            total_us: self.total_us.buckets(),
        }
    }

    pub(super) fn suspects_view(&self) -> GpuSuspects {
        let kernels = self.suspects.iter().map(|(name, suspect)| SuspectView {
            kernel: name.to_owned(),
            timeouts: suspect.timeouts,
            evicted: suspect.evicted,
            last_at: suspect.last_ms.div_euclid(1000),
        });
        GpuSuspects {
            brake: self.suspects.brake(),
            window: u32::try_from(self.suspects.window()).unwrap_or(u32::MAX),
            kernels: kernels.collect(),
        }
    }

    pub(super) fn shader(&self, name: &str) -> Option<ShaderView> {
        let seen = self.kernels.seen().get(name)?;
        let suspect = self.suspects.get(name);
        let state = match suspect {
            Some(suspect) if suspect.evicted => "evicted",
            Some(suspect) if suspect.timeouts > 0 => "suspect",
            _ => "ok",
        };
        Some(ShaderView {
            name: name.to_owned(),
            state: state.to_owned(),
            author: match seen.author {
                Author::Catalogue => "catalogue",
                Author::User => "user",
            }
            .to_owned(),
            jobs: seen.jobs,
            timeouts: suspect.map_or(0, |suspect| suspect.timeouts),
        })
    }
}

impl Device {
    /// A look without side effects.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Inner) -> R) -> R {
        look(&self.inner.lock())
    }
}
