//! What PCI shows: its addresses, the ids of vendors, and which devices are GPUs.
//!
//! Values only, and Linux' files of them. Says nothing about whether a GPU can be used.

use std::fmt;
use std::path::Path;

/// The id that PCI-SIG, or Khronos for what is not on PCI, gave to NVIDIA.
pub(super) const NVIDIA: u32 = 0x10de;
/// That of AMD.
pub(super) const AMD: u32 = 0x1002;

/// Names of vendors by their ids; above 0xffff they are Khronos'.
const VENDORS: [(u32, &str); 11] = [
    (NVIDIA, "NVIDIA"),
    (AMD, "AMD"),
    (0x8086, "Intel"),
    (0x106b, "Apple"),
    (0x1af4, "virtio"),
    (0x15ad, "VMware"),
    (0x13b5, "Arm"),
    (0x5143, "Qualcomm"),
    (0x1010, "Imagination"),
    (0x14e4, "Broadcom"),
    (0x10005, "Mesa"),
];

/// Vendors whose display controllers only show a console: ASPEED, Matrox, QEMU, Cirrus Logic, Red Hat (QXL), Microsoft
/// (Hyper-V), VirtualBox. No Vulkan driver is made for them, so they are no GPUs.
const CONSOLES: [u32; 7] = [0x1a03, 0x102b, 0x1234, 0x1013, 0x1b36, 0x1414, 0x80ee];

/// Where a device is: `0000:01:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Group of buses.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Slot.
    pub device: u8,
    /// Part of the device.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl PciAddress {
    /// Reads `0000:01:00.0`, `00000000:01:00.0` and `01:00.0`, in hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, function) = text.trim().rsplit_once('.')?;
        let mut parts = place.rsplit(':');
        let device = u8::from_str_radix(parts.next()?, 16).ok()?;
        let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
        let domain = parts.next().map_or(Some(0), |domain| u32::from_str_radix(domain, 16).ok())?;
        let function = u8::from_str_radix(function, 16).ok()?;
        parts.next().is_none().then_some(Self { domain, bus, device, function })
    }
}

/// A GPU that PCI shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciGpu {
    /// Where it is; unknown where the system does not tell.
    pub address: Option<PciAddress>,
    /// PCI's id of the vendor.
    pub vendor_id: u32,
    /// The vendor's id of the device.
    pub device_id: u32,
    /// What the system's own list of ids calls it.
    pub model: Option<String>,
    /// The driver of the kernel that has it.
    pub driver: Option<String>,
    /// The firmware showed its console on it.
    pub console: bool,
}

/// Whether a device of this class and vendor is a GPU. `class` has class, subclass and interface: 0x030000.
pub(super) fn is_gpu(class: u32, vendor_id: u32) -> bool {
    // VGA, 3D and other display controllers; AMD's newer accelerators for servers are of a class of their own.
    let display = matches!(class >> 8, 0x0300 | 0x0302 | 0x0380);
    let accelerator = class >> 8 == 0x1200 && vendor_id == AMD;
    (display || accelerator) && !CONSOLES.contains(&vendor_id)
}

/// The name of a vendor: `NVIDIA`, and the id for one without a name here.
pub fn vendor_name(id: u32) -> String {
    let known = VENDORS.iter().find(|(known, _)| *known == id);
    known.map_or_else(|| format!("{id:#06x}"), |(_, name)| (*name).to_owned())
}

/// Reads the GPUs in Linux' `sys` (usually `/sys`), by address. What vanishes or cannot be read is left out.
pub(super) fn observe_sysfs(sys: &Path) -> Vec<PciGpu> {
    let Ok(devices) = std::fs::read_dir(sys.join("bus/pci/devices")) else { return Vec::new() };
    let mut gpus: Vec<PciGpu> = devices.flatten().filter_map(|device| sysfs_gpu(&device.path())).collect();
    gpus.sort_by_key(|gpu| gpu.address);
    gpus
}

fn sysfs_gpu(device: &Path) -> Option<PciGpu> {
    let text = |name: &str| std::fs::read_to_string(device.join(name)).ok();
    let number = |name: &str| u32::from_str_radix(text(name)?.trim().strip_prefix("0x")?, 16).ok();
    let (class, vendor_id) = (number("class")?, number("vendor")?);
    // A part of a GPU that was cut out for a virtual machine is that machine's, and no further GPU.
    if !is_gpu(class, vendor_id) || device.join("physfn").exists() {
        return None;
    }
    let driver = std::fs::read_link(device.join("driver")).ok();
    Some(PciGpu {
        address: PciAddress::parse(device.file_name()?.to_str()?),
        vendor_id,
        device_id: number("device")?,
        model: None,
        driver: driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())),
        console: text("boot_vga").is_some_and(|flag| flag.trim() == "1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_source_are_the_same_value() {
        for (text, shown) in [
            ("0000:01:00.0", Some("0000:01:00.0")),
            ("00000000:0A:00.0\n", Some("0000:0a:00.0")),
            ("c1:1f.7", Some("0000:c1:1f.7")),
            ("10000:e1:00.0", Some("10000:e1:00.0")),
            ("0000:01:00", None),
            ("0:0000:01:00.0", None),
            ("0000:xx:00.0", None),
            ("0000:100:00.0", None),
            ("[N/A]", None),
            ("", None),
        ] {
            let read = PciAddress::parse(text).map(|address| address.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn what_computes_is_a_gpu_and_a_console_is_not() {
        for (class, vendor, expect) in [
            (0x03_00_00, NVIDIA, true),
            (0x03_02_00, NVIDIA, true),
            (0x03_80_00, AMD, true),
            (0x12_00_00, AMD, true),
            (0x12_00_00, 0x8086, false),
            (0x04_03_00, NVIDIA, false),
            (0x02_00_00, 0x8086, false),
            (0x03_00_00, 0x1a03, false),
            (0x03_00_00, 0x1234, false),
        ] {
            assert_eq!(is_gpu(class, vendor), expect, "{class:#08x} {vendor:#06x}");
        }
    }

    #[test]
    fn vendors_have_names_and_others_their_number() {
        let name = [0x10de, 0x1002, 0x8086, 0x106b, 0x1af4, 0x10005, 0x1d0f].map(vendor_name);
        assert_eq!(name, ["NVIDIA", "AMD", "Intel", "Apple", "virtio", "Mesa", "0x1d0f"]);
    }

    /// Address, files and driver of a device.
    type Device<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);

    /// Devices as Linux shows them: links to folders of files.
    fn sysfs(devices: &[Device<'_>]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (address, files, driver) in devices {
            let real = sys.path().join("devices/pci0000:00").join(address);
            std::fs::create_dir_all(&real).unwrap();
            for (name, text) in *files {
                std::fs::write(real.join(name), text).unwrap();
            }
            if let Some(driver) = driver {
                let driver = format!("../../../bus/pci/drivers/{driver}");
                std::os::unix::fs::symlink(driver, real.join("driver")).unwrap();
            }
            let bus = sys.path().join("bus/pci/devices");
            std::fs::create_dir_all(&bus).unwrap();
            let target = format!("../../../devices/pci0000:00/{address}");
            std::os::unix::fs::symlink(target, bus.join(address)).unwrap();
        }
        sys
    }

    #[test]
    fn sysfs_shows_gpus_with_driver_and_console_in_the_order_of_addresses() {
        let class = |class| ("class", class);
        let nvidia = ("vendor", "0x10de\n");
        let sys = sysfs(&[
            ("0000:c1:00.0", &[class("0x030200\n"), nvidia, ("device", "0x2335\n")], Some("nvidia")),
            (
                "0000:01:00.0",
                &[class("0x030000\n"), nvidia, ("device", "0x1b80\n"), ("boot_vga", "1\n")],
                None,
            ),
            ("0000:01:00.1", &[class("0x040300\n"), nvidia, ("device", "0x10f0\n")], Some("snd_hda_intel")),
            (
                "0000:02:00.0",
                &[class("0x030000\n"), ("vendor", "0x1a03\n"), ("device", "0x2000\n")],
                Some("ast"),
            ),
            (
                "0000:c1:00.4",
                &[class("0x030200\n"), nvidia, ("device", "0x2335\n"), ("physfn", "")],
                Some("vfio-pci"),
            ),
            ("0000:c2:00.0", &[class("nonsense"), nvidia, ("device", "0x2335\n")], None),
        ]);
        let gpus = observe_sysfs(sys.path());
        let shown: Vec<_> = gpus
            .iter()
            .map(|gpu| (gpu.address.unwrap().to_string(), gpu.device_id, gpu.driver.as_deref(), gpu.console))
            .collect();
        assert_eq!(
            shown,
            [
                ("0000:01:00.0".to_owned(), 0x1b80, None, true),
                ("0000:c1:00.0".to_owned(), 0x2335, Some("nvidia"), false)
            ]
        );
        assert!(observe_sysfs(&sys.path().join("elsewhere")).is_empty());
    }
}
