//! Which GPUs a host has: what Vulkan, PCI and nvidia-smi say, put together to one list.
//!
//! Owns the list, its order and its two text forms: properties of the host's dataset and facts. Starts no program
//! itself and asks no driver; a GPU that cannot be used is in the list, with the reason.

mod observe;
mod pci;
mod text;

pub use observe::Answer;
pub use observe::Programs;
pub use observe::System;
pub use observe::observe_nvidia;
pub use observe::observe_pci;
pub use pci::PciAddress;
pub use pci::PciGpu;
pub use pci::vendor_name;
pub use text::SmiGpu;

use crate::device::DeviceInfo;
use crate::device::DeviceKind;
use crate::device::DeviceUuid;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Beginning of the names of all properties and facts of single GPUs, after the namespace.
const NAME: &str = "gpu.";
/// Longest text that is taken from a driver, in characters.
const LONGEST: usize = 200;
/// Drivers of kernels that keep a device for a virtual machine.
const FOR_GUESTS: [&str; 4] = ["vfio-pci", "pci-stub", "ppt", "xen-pciback"];

/// Who shows a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A driver of Vulkan.
    Vulkan,
    /// The bus.
    Pci,
    /// NVIDIA's program.
    NvidiaSmi,
}

impl Source {
    /// As files say it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Vulkan => "vulkan",
            Source::Pci => "pci",
            Source::NvidiaSmi => "nvidia-smi",
        }
    }
}

/// What each source showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// All devices of Vulkan by rank, also those that no node takes; `None` until it has been asked.
    pub vulkan: Option<Vec<DeviceInfo>>,
    /// GPUs on PCI.
    pub pci: Vec<PciGpu>,
    /// GPUs of NVIDIA.
    pub smi: Vec<SmiGpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDevice {
    /// `NVIDIA`.
    pub vendor: String,
    /// `NVIDIA H200`; the ids `10de:2335` when nobody has a name for it.
    pub model: String,
    /// `0000:01:00.0`.
    pub pci_address: Option<String>,
    /// Memory in MiB; of a GPU without memory of its own what it may use of the host's.
    pub vram_mb: Option<u64>,
    /// The driver with its version.
    pub driver: Option<String>,
    /// Its name for ever.
    pub uuid: Option<DeviceUuid>,
    /// What kind Vulkan says it is.
    pub kind: Option<DeviceKind>,
    /// The firmware showed its console on it.
    pub console: bool,
    /// Who shows it.
    pub sources: BTreeSet<Source>,
    /// Why no node can use it, and what to do.
    pub problem: Option<String>,
}

/// The GPUs of a host: those that Vulkan shows by rank, then the others by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuInventory {
    /// The GPUs.
    pub devices: Vec<GpuDevice>,
}

impl GpuInventory {
    /// Puts together what was seen. A driver that computes on the CPU is no GPU, unless `cpu` says that it is to
    /// count. Devices are the same when their address is; those without an address, when their ids are.
    pub fn new(seen: &Seen, cpu: bool) -> Self {
        let mut pci: Vec<Option<&PciGpu>> = seen.pci.iter().map(Some).collect();
        let mut smi: Vec<Option<&SmiGpu>> = seen.smi.iter().map(Some).collect();
        let vulkan: Vec<&DeviceInfo> =
            seen.vulkan.iter().flatten().filter(|info| cpu || info.kind != DeviceKind::Cpu).collect();
        // Addresses first: of two equal GPUs, only one of which has an address, each must find its own.
        let mut places: Vec<Option<&PciGpu>> = vulkan
            .iter()
            .map(|info| {
                let address = address_of(info)?;
                take(&mut pci, |gpu| gpu.address == Some(address))
            })
            .collect();
        for (info, place) in vulkan.iter().zip(&mut places) {
            if place.is_none() && address_of(info).is_none() {
                *place =
                    take(&mut pci, |gpu| (gpu.vendor_id, gpu.device_id) == (info.vendor_id, info.device_id));
            }
        }
        let mut devices = Vec::new();
        for (info, place) in vulkan.into_iter().zip(places) {
            let address = address_of(info).or(place.and_then(|gpu| gpu.address));
            let more = take(&mut smi, |gpu| {
                address.is_some() && gpu.address == address || gpu.uuid == Some(info.uuid)
            });
            devices.push(GpuDevice::of_vulkan(info, place, more));
        }
        let asked = seen.vulkan.is_some();
        for gpu in pci.into_iter().flatten() {
            let more = take(&mut smi, |other| gpu.address.is_some() && other.address == gpu.address);
            devices.push(GpuDevice::of_pci(gpu, more, asked));
        }
        devices.extend(smi.into_iter().flatten().map(|gpu| GpuDevice::of_smi(gpu, asked)));
        Self { devices }
    }

    /// The properties of the host's dataset, by their names after `com.zed:`. The first GPU has the plain names
    /// (`gpu.vendor`), those after it their number (`gpu.1.vendor`).
    pub fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (number, device) in self.devices.iter().enumerate() {
            let name = |field: &str| match number {
                0 => format!("{NAME}{field}"),
                _ => format!("{NAME}{number}.{field}"),
            };
            properties.insert(name("vendor"), device.vendor.clone());
            properties.insert(name("model"), device.model.clone());
            properties.insert(name("driver"), device.driver.clone().unwrap_or_else(|| "none".to_owned()));
            if let Some(mib) = device.vram_mb {
                properties.insert(name("vram_mb"), mib.to_string());
            }
        }
        properties
    }

    /// Facts for people: `gpus` and for each `gpu.N.vendor`, `.model`, `.driver`, `.vram_mb`, `.pci`, `.uuid`,
    /// `.kind`, `.console`, `.seen_by` and `.problem`. What is not known is absent.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::from([("gpus".to_owned(), self.devices.len().to_string())]);
        for (number, device) in self.devices.iter().enumerate() {
            let mut put = |field: &str, value: Option<String>| {
                if let Some(value) = value {
                    facts.insert(format!("{NAME}{number}.{field}"), value);
                }
            };
            let sources: Vec<&str> = device.sources.iter().map(|source| source.name()).collect();
            put("vendor", Some(device.vendor.clone()));
            put("model", Some(device.model.clone()));
            put("driver", device.driver.clone());
            put("vram_mb", device.vram_mb.map(|mib| mib.to_string()));
            put("pci", device.pci_address.clone());
            put("uuid", device.uuid.map(|uuid| uuid.to_string()));
            put("kind", device.kind.map(|kind| kind.name().to_owned()));
            put("console", device.console.then(|| "yes".to_owned()));
            put("seen_by", Some(sources.join(" ")));
            put("problem", device.problem.clone());
        }
        facts
    }
}

impl GpuDevice {
    fn of_vulkan(info: &DeviceInfo, place: Option<&PciGpu>, more: Option<&SmiGpu>) -> Self {
        let address = address_of(info).or(place.and_then(|gpu| gpu.address));
        let sources = [Some(Source::Vulkan), place.map(|_| Source::Pci), more.map(|_| Source::NvidiaSmi)];
        Self {
            vendor: vendor_name(info.vendor_id),
            model: clean(&info.model),
            pci_address: address.map(|address| address.to_string()),
            vram_mb: more.and_then(|gpu| gpu.vram_mb).or(Some(info.memory >> 20)),
            driver: Some(clean(&format!("{} {}", info.driver, info.driver_version))),
            uuid: Some(info.uuid),
            kind: Some(info.kind),
            console: place.is_some_and(|gpu| gpu.console),
            sources: sources.into_iter().flatten().collect(),
            problem: None,
        }
    }

    fn of_pci(gpu: &PciGpu, more: Option<&SmiGpu>, asked: bool) -> Self {
        let PciGpu { address, vendor_id, device_id, model, driver, console } = gpu;
        let ids = || format!("{vendor_id:04x}:{device_id:04x}");
        let model = more.and_then(|gpu| gpu.model.as_ref()).or(model.as_ref());
        Self {
            vendor: vendor_name(*vendor_id),
            model: model.map_or_else(ids, |model| clean(model)),
            pci_address: address.map(|address| address.to_string()),
            vram_mb: more.and_then(|gpu| gpu.vram_mb),
            driver: more.and_then(smi_driver).or_else(|| driver.as_deref().map(clean)),
            uuid: more.and_then(|gpu| gpu.uuid),
            kind: None,
            console: *console,
            sources: [Source::Pci].into_iter().chain(more.map(|_| Source::NvidiaSmi)).collect(),
            problem: asked.then(|| why_unseen(driver.as_deref())),
        }
    }

    fn of_smi(gpu: &SmiGpu, asked: bool) -> Self {
        Self {
            vendor: vendor_name(pci::NVIDIA),
            model: gpu.model.as_deref().map_or_else(|| "unknown".to_owned(), clean),
            pci_address: gpu.address.map(|address| address.to_string()),
            vram_mb: gpu.vram_mb,
            driver: smi_driver(gpu),
            uuid: gpu.uuid,
            kind: None,
            console: false,
            sources: BTreeSet::from([Source::NvidiaSmi]),
            problem: asked.then(|| why_unseen(Some("nvidia"))),
        }
    }
}

/// Takes the first that fits out of what is left.
fn take<'a, T>(left: &mut [Option<&'a T>], fits: impl Fn(&T) -> bool) -> Option<&'a T> {
    left.iter_mut().find(|slot| slot.is_some_and(&fits)).and_then(Option::take)
}

fn address_of(info: &DeviceInfo) -> Option<PciAddress> {
    info.pci_address.as_deref().and_then(PciAddress::parse)
}

fn smi_driver(gpu: &SmiGpu) -> Option<String> {
    gpu.driver.as_ref().map(|version| clean(&format!("NVIDIA {version}")))
}

/// Why Vulkan does not show a GPU that the bus shows, and what to do.
fn why_unseen(driver: Option<&str>) -> String {
    match driver {
        None => "no driver: install the vendor's driver".to_owned(),
        Some(driver) if FOR_GUESTS.contains(&driver) => {
            format!("no driver of this host: {driver} keeps it for a virtual machine")
        }
        Some(driver) => format!(
            "no Vulkan driver: the kernel's driver is {driver}; install the Vulkan driver that goes with it, and let \
             zedd's user open the device"
        ),
    }
}

/// One line of limited length, whatever a driver says.
fn clean(text: &str) -> String {
    let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
