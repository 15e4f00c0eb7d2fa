//! Reads what the systems' own programs print about GPUs: pciconf(8), prtconf(8) and nvidia-smi.
//!
//! Pure. A line that is not as expected is left out: a newer version of a program must not hide the GPUs that can
//! still be read.

use super::pci::PciAddress;
use super::pci::PciGpu;
use super::pci::is_gpu;
use crate::device::DeviceUuid;
use std::collections::BTreeMap;

/// What nvidia-smi is asked for, in the order of its answer.
pub(super) const SMI_FIELDS: &str = "name,memory.total,driver_version,uuid,pci.bus_id";

/// A GPU as nvidia-smi shows it. What it does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmiGpu {
    /// `NVIDIA H200`.
    pub model: Option<String>,
    /// MiB.
    pub vram_mb: Option<u64>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// The same as Vulkan's.
    pub uuid: Option<DeviceUuid>,
    /// Where it is.
    pub address: Option<PciAddress>,
}

/// Reads the answer of `nvidia-smi --query-gpu=FIELDS --format=csv,noheader,nounits` for [`SMI_FIELDS`].
pub(super) fn parse_nvidia_smi(text: &str) -> Vec<SmiGpu> {
    text.lines().filter_map(smi_line).collect()
}

fn smi_line(line: &str) -> Option<SmiGpu> {
    let mut fields = line.split(',').map(str::trim);
    // `[N/A]`, `[Not Supported]`, `[Unknown Error]`.
    let mut next = || fields.next().map(|field| (!field.starts_with('[') && field != "N/A").then_some(field));
    let (model, vram, driver, uuid, address) = (next()?, next()?, next()?, next()?, next()?);
    fields.next().is_none().then(|| SmiGpu {
        model: model.map(str::to_owned),
        vram_mb: vram.and_then(|mib| mib.parse().ok()),
        driver: driver.map(str::to_owned),
        uuid: uuid.and_then(parse_uuid),
        address: address.and_then(PciAddress::parse),
    })
}

/// `GPU-` and an UUID as RFC 9562 writes it.
fn parse_uuid(text: &str) -> Option<DeviceUuid> {
    let digits: String = text.strip_prefix("GPU-")?.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then(|| DeviceUuid(number.to_be_bytes()))
}

/// Reads FreeBSD's `pciconf -lv`.
pub(super) fn parse_pciconf(text: &str) -> Vec<PciGpu> {
    let mut gpus: Vec<PciGpu> = Vec::new();
    // The lines after a device that is no GPU are not of the GPU before it.
    let mut current = None;
    for line in text.lines() {
        if !line.starts_with([' ', '\t']) {
            current = pciconf_device(line).map(|gpu| {
                gpus.push(gpu);
                gpus.len() - 1
            });
        } else if let Some((key, value)) = line.split_once('=')
            && key.trim() == "device"
            && let Some(gpu) = current.and_then(|at| gpus.get_mut(at))
        {
            gpu.model = Some(value.trim().trim_matches('\'').to_owned()).filter(|name| !name.is_empty());
        }
    }
    gpus
}

/// `vgapci0@pci0:1:0:0: class=0x030000 rev=0xa1 hdr=0x00 vendor=0x10de device=0x1b80 ..`; before FreeBSD 13 the ids
/// were `chip=0x1b8010de`.
fn pciconf_device(line: &str) -> Option<PciGpu> {
    let (name, rest) = line.split_once('@')?;
    let (selector, fields) = rest.split_once(char::is_whitespace)?;
    let number = |key: &str| {
        let value = fields.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='))?;
        u32::from_str_radix(value.strip_prefix("0x")?, 16).ok()
    };
    let chip = number("chip");
    let vendor_id = number("vendor").or(chip.map(|chip| chip & 0xffff))?;
    let device_id = number("device").or(chip.map(|chip| chip >> 16))?;
    if !is_gpu(number("class")?, vendor_id) {
        return None;
    }
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
    Some(PciGpu {
        address: pciconf_address(selector),
        vendor_id,
        device_id,
        model: None,
        // `none` has no driver. What has a driver of its own is below `vgapci`, which every display controller gets.
        driver: (driver != "none").then(|| driver.to_owned()),
        console: false,
    })
}

/// `pci0:1:0:0:`, in decimal digits.
fn pciconf_address(selector: &str) -> Option<PciAddress> {
    let mut parts = selector.trim_end_matches(':').strip_prefix("pci")?.split(':');
    Some(PciAddress {
        domain: parts.next()?.parse().ok()?,
        bus: parts.next()?.parse().ok()?,
        device: parts.next()?.parse().ok()?,
        function: parts.next()?.parse().ok()?,
    })
}

/// Reads illumos' `prtconf -pv`, and the names of drivers from its `prtconf -D`.
pub(super) fn parse_prtconf(properties: &str, drivers: &str) -> Vec<PciGpu> {
    let drivers = prtconf_drivers(drivers);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut gpus = Vec::new();
    for node in prtconf_nodes(properties) {
        let Some(name) = node.get("name").map(|name| name.trim_matches('\'')) else { continue };
        // Both lists have the nodes in the same order: the second `display` of one is that of the other.
        let count = seen.entry(name.to_owned()).or_default();
        let driver = drivers.get(name).and_then(|list| list.get(*count)).cloned().flatten();
        *count += 1;
        gpus.extend(prtconf_gpu(&node, driver));
    }
    gpus
}

/// The properties of each node: lines `KEY:  VALUE` after one with `Node 0x..`.
fn prtconf_nodes(text: &str) -> Vec<BTreeMap<&str, &str>> {
    let mut nodes = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Node ") {
            nodes.push(BTreeMap::new());
        } else if let (Some(node), Some((key, value))) = (nodes.last_mut(), line.split_once(": ")) {
            node.insert(key, value.trim());
        }
    }
    nodes
}

fn prtconf_gpu(node: &BTreeMap<&str, &str>, driver: Option<String>) -> Option<PciGpu> {
    let number = |key: &str| u32::from_str_radix(node.get(key)?, 16).ok();
    let vendor_id = number("vendor-id")?;
    if !is_gpu(number("class-code")?, vendor_id) {
        return None;
    }
    // The first cell of `reg` in IEEE 1275's binding to PCI: bits 16 to 23 are the bus, 11 to 15 the device, 8 to 10
    // the function.
    let reg = node.get("reg").and_then(|reg| u32::from_str_radix(reg.split('.').next()?, 16).ok());
    let part = |value: u32, shift: u32, mask: u32| u8::try_from(value >> shift & mask).unwrap_or_default();
    Some(PciGpu {
        address: reg.map(|reg| PciAddress {
            domain: 0,
            bus: part(reg, 16, 0xff),
            device: part(reg, 11, 0x1f),
            function: part(reg, 8, 7),
        }),
        vendor_id,
        device_id: number("device-id")?,
        // `model` is the name of the class.
        model: None,
        driver,
        console: false,
    })
}

/// The drivers of the nodes of each name, in order: `display, instance #0 (driver name: nvidia)`.
fn prtconf_drivers(text: &str) -> BTreeMap<&str, Vec<Option<String>>> {
    let mut drivers: BTreeMap<&str, Vec<Option<String>>> = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let (node, driver) = match line.split_once(" (driver name: ") {
            Some((node, rest)) => (node, rest.strip_suffix(')')),
            None => (line.trim_end_matches(" (driver not attached)"), None),
        };
        let name = node.split_once(", instance #").map_or(node, |(name, _)| name);
        drivers.entry(name).or_default().push(driver.map(str::to_owned));
    }
    drivers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvidia_smi_is_read_with_what_it_does_not_tell_left_out() {
        let text = "NVIDIA H200, 143771, 570.86.15, GPU-0a1b2c3d-0001-0203-0405-060708090a0b, 00000000:C1:00.0\n\
             NVIDIA GeForce GT 710, [N/A], 470.256.02, [Not Supported], 00000000:01:00.0\n\
             Tesla K80, [Unknown Error], N/A, GPU-short, [N/A]\n\
             No devices were found\n\n";
        let gpus = parse_nvidia_smi(text);
        assert_eq!(gpus.len(), 3);
        let h200 = &gpus[0];
        assert_eq!((h200.model.as_deref(), h200.vram_mb), (Some("NVIDIA H200"), Some(143_771)));
        assert_eq!(h200.driver.as_deref(), Some("570.86.15"));
        assert_eq!(h200.uuid.unwrap().to_string(), "0a1b2c3d000102030405060708090a0b");
        assert_eq!(h200.address.unwrap().to_string(), "0000:c1:00.0");
        let old = &gpus[1];
        assert_eq!((old.vram_mb, old.uuid, old.driver.as_deref()), (None, None, Some("470.256.02")));
        let nothing = SmiGpu {
            model: Some("Tesla K80".into()),
            vram_mb: None,
            driver: None,
            uuid: None,
            address: None,
        };
        assert_eq!(gpus[2], nothing);
    }

    #[test]
    fn a_failing_nvidia_smi_shows_no_gpu() {
        let text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that \
                    the latest NVIDIA driver is installed and running.\n";
        assert!(parse_nvidia_smi(text).is_empty());
        assert!(parse_nvidia_smi("").is_empty());
    }

    /// In the form of pciconf(8) of FreeBSD 13 and later, one device in that of FreeBSD 12.
    const PCICONF: &str = "\
hostb0@pci0:0:0:0:\tclass=0x060000 rev=0x06 hdr=0x00 vendor=0x8086 device=0x0c08 subvendor=0x1043 subdevice=0x85f5
    vendor     = 'Intel Corporation'
    device     = 'Xeon E3-1200 v3 Processor DRAM Controller'
    class      = bridge
    subclass   = HOST-PCI
vgapci0@pci0:1:0:0:\tclass=0x030000 rev=0xa1 hdr=0x00 vendor=0x10de device=0x1b80 subvendor=0x1043 subdevice=0x8591
    vendor     = 'NVIDIA Corporation'
    device     = 'GP104 [GeForce GTX 1080]'
    class      = display
    subclass   = VGA
hdac0@pci0:1:0:1:\tclass=0x040300 rev=0xa1 hdr=0x00 vendor=0x10de device=0x10f0 subvendor=0x1043 subdevice=0x8591
    vendor     = 'NVIDIA Corporation'
    device     = 'GP104 High Definition Audio Controller'
vgapci1@pci0:0:2:0:\tclass=0x038000 card=0x21f617aa chip=0x01668086 rev=0x09 hdr=0x00
    vendor     = 'Intel Corporation'
    device     = '3rd Gen Core processor Graphics Controller'
none3@pci1:193:0:0:\tclass=0x030200 rev=0xa1 hdr=0x00 vendor=0x10de device=0x2335 subvendor=0x10de subdevice=0x18be
    vendor     = 'NVIDIA Corporation'
vgapci2@pci0:3:0:0:\tclass=0x030000 rev=0x41 hdr=0x00 vendor=0x1a03 device=0x2000 subvendor=0x1a03 subdevice=0x2000
    device     = 'ASPEED Graphics Family'
";

    #[test]
    fn pciconf_shows_gpus_with_model_address_and_driver() {
        let gpus = parse_pciconf(PCICONF);
        let shown: Vec<_> = gpus
            .iter()
            .map(|gpu| {
                let address = gpu.address.unwrap().to_string();
                (address, gpu.vendor_id, gpu.device_id, gpu.model.as_deref(), gpu.driver.as_deref())
            })
            .collect();
        let gtx = Some("GP104 [GeForce GTX 1080]");
        let intel = Some("3rd Gen Core processor Graphics Controller");
        assert_eq!(
            shown,
            [
                ("0000:01:00.0".to_owned(), 0x10de, 0x1b80, gtx, Some("vgapci")),
                ("0000:00:02.0".to_owned(), 0x8086, 0x0166, intel, Some("vgapci")),
                ("0001:c1:00.0".to_owned(), 0x10de, 0x2335, None, None),
            ]
        );
        assert!(parse_pciconf("pciconf: /dev/pci: Permission denied\n").is_empty());
    }

    const PRTCONF_PV: &str = "\
System Configuration:  Oracle Corporation  i86pc
Memory size: 32768 Megabytes
System Peripherals (PROM Nodes):

Node 0x000001
    bios-boot-device:  '80'
    name:  'i86pc'

    Node 0x00002a
        reg:  00000000.00000000.00000000.00000000.00000000
        compatible:  'pciex8086,c08.1043.85f5.6' + 'pciexclass,060000'
        model:  'Host bridge'
        class-code:  00060000
        device-id:  00000c08
        vendor-id:  00008086
        name:  'pci1043,85f5'
    Node 0x00002c
        assigned-addresses:  82010010.00000000.f6000000.00000000.01000000
        reg:  00010000.00000000.00000000.00000000.00000000.02010010.00000000.00000000.00000000.01000000
        compatible:  'pciex10de,1b80.1043.8591.a1' + 'pciexclass,030000' + 'pciexclass,0300'
        model:  'VGA compatible controller'
        class-code:  00030000
        device-id:  00001b80
        vendor-id:  000010de
        unit-address:  '0'
        name:  'display'
    Node 0x00002d
        reg:  00c10100.00000000.00000000.00000000.00000000
        class-code:  00030200
        device-id:  00002335
        vendor-id:  000010de
        name:  'pci10de,18be'
    Node 0x00002e
        reg:  00031000.00000000.00000000.00000000.00000000
        class-code:  00030000
        device-id:  0000164e
        vendor-id:  00001002
        name:  'display'
";

    const PRTCONF_D: &str = "\
System Configuration:  Oracle Corporation  i86pc
Memory size: 32768 Megabytes
System Peripherals (Software Nodes):

i86pc (driver name: rootnex)
    pci, instance #0 (driver name: npe)
        pci1043,85f5 (driver not attached)
        pci8086,c01, instance #0 (driver name: pcieb)
            display, instance #0 (driver name: nvidia)
            pci10de,18be (driver not attached)
        display, instance #1 (driver name: vgatext)
";

    #[test]
    fn prtconf_shows_gpus_with_address_and_driver() {
        let shown = |properties: &str, drivers: &str| -> Vec<_> {
            let gpus = parse_prtconf(properties, drivers).into_iter();
            gpus.map(|gpu| (gpu.address.unwrap().to_string(), gpu.device_id, gpu.driver)).collect()
        };
        assert_eq!(
            shown(PRTCONF_PV, PRTCONF_D),
            [
                ("0000:01:00.0".to_owned(), 0x1b80, Some("nvidia".to_owned())),
                ("0000:c1:00.1".to_owned(), 0x2335, None),
                ("0000:03:02.0".to_owned(), 0x164e, Some("vgatext".to_owned())),
            ]
        );
        assert!(shown(PRTCONF_PV, "").iter().all(|gpu| gpu.2.is_none()));
        assert!(shown("prtconf: openprom facility not available\n", PRTCONF_D).is_empty());
    }
}
