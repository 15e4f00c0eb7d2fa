//! The list that comes of what the sources show.

use super::*;
use crate::device::Limits;

fn vulkan(model: &str, vendor_id: u32, address: Option<&str>) -> DeviceInfo {
    DeviceInfo {
        uuid: DeviceUuid([7; 16]),
        kind: DeviceKind::Discrete,
        model: model.to_owned(),
        vendor_id,
        device_id: 0x2335,
        driver: "NVIDIA".to_owned(),
        driver_version: "570.86".to_owned(),
        driver_number: 1,
        driver_uuid: [0; 16],
        api_version: "1.4.303".to_owned(),
        pci_address: address.map(str::to_owned),
        memory: 140 << 30,
        limits: Limits {
            push_bytes: 128,
            workgroup_threads: 1024,
            groups: [65_535; 3],
            shared_bytes: 32_768,
            buffer_bytes: 1 << 32,
            bindings: 16,
            f64: true,
        },
    }
}

fn cpu() -> DeviceInfo {
    let model = "llvmpipe (LLVM 15.0.6, 256 bits)";
    DeviceInfo { kind: DeviceKind::Cpu, device_id: 0, ..vulkan(model, 0x10005, None) }
}

fn pci(address: &str, driver: Option<&str>) -> PciGpu {
    PciGpu {
        address: PciAddress::parse(address),
        vendor_id: pci::NVIDIA,
        device_id: 0x2335,
        model: None,
        driver: driver.map(str::to_owned),
        console: false,
    }
}

fn smi(address: &str, uuid: Option<[u8; 16]>) -> SmiGpu {
    SmiGpu {
        model: Some("NVIDIA H200".to_owned()),
        vram_mb: Some(143_771),
        driver: Some("570.86.15".to_owned()),
        uuid: uuid.map(DeviceUuid),
        address: PciAddress::parse(address),
    }
}

/// Address, model and sources of each device.
fn shown(seen: &Seen) -> Vec<(String, String, String)> {
    let devices = GpuInventory::new(seen, false).devices.into_iter();
    devices
        .map(|gpu| {
            let sources: Vec<&str> = gpu.sources.iter().map(|source| source.name()).collect();
            (gpu.pci_address.unwrap_or_default(), gpu.model, sources.join(" "))
        })
        .collect()
}

fn row(address: &str, model: &str, sources: &str) -> (String, String, String) {
    (address.to_owned(), model.to_owned(), sources.to_owned())
}

#[test]
fn one_gpu_that_all_show_is_listed_once_with_what_each_knows_best() {
    let seen = Seen {
        vulkan: Some(vec![vulkan("NVIDIA H200", pci::NVIDIA, Some("0000:c1:00.0"))]),
        pci: vec![PciGpu { console: true, ..pci("0000:c1:00.0", Some("nvidia")) }],
        smi: vec![smi("00000000:C1:00.0", None)],
    };
    assert_eq!(shown(&seen), [row("0000:c1:00.0", "NVIDIA H200", "vulkan pci nvidia-smi")]);
    let inventory = GpuInventory::new(&seen, false);
    let gpu = &inventory.devices[0];
    // nvidia-smi knows the whole memory; the driver of Vulkan keeps some of it to itself.
    assert_eq!((gpu.vendor.as_str(), gpu.vram_mb, gpu.console), ("NVIDIA", Some(143_771), true));
    assert_eq!((gpu.driver.as_deref(), gpu.problem.as_ref()), (Some("NVIDIA 570.86"), None));
}

#[test]
fn equal_gpus_find_their_own_place() {
    let model = |name: &str, address| vulkan(name, pci::NVIDIA, address);
    // The one without an address is first, and must not take the place of the other.
    let seen = Seen {
        vulkan: Some(vec![model("a", None), model("b", Some("0000:01:00.0"))]),
        pci: vec![pci("0000:01:00.0", None), pci("0000:02:00.0", None)],
        smi: vec![],
    };
    assert_eq!(
        shown(&seen),
        [row("0000:02:00.0", "a", "vulkan pci"), row("0000:01:00.0", "b", "vulkan pci")]
    );
    // An address that PCI does not show is not traded for another.
    let seen = Seen { vulkan: Some(vec![model("a", Some("0000:05:00.0"))]), ..seen };
    let rows = shown(&seen);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0], row("0000:05:00.0", "a", "vulkan"));
}

#[test]
fn nvidia_smi_is_matched_by_uuid_where_vulkan_has_no_address() {
    let seen = Seen {
        vulkan: Some(vec![vulkan("H200", pci::NVIDIA, None)]),
        pci: vec![],
        smi: vec![smi("0000:01:00.0", Some([8; 16])), smi("0000:02:00.0", Some([7; 16]))],
    };
    let inventory = GpuInventory::new(&seen, false);
    assert_eq!(inventory.devices.len(), 2);
    assert_eq!(inventory.devices[0].sources, BTreeSet::from([Source::Vulkan, Source::NvidiaSmi]));
    assert_eq!(inventory.devices[1].uuid, Some(DeviceUuid([8; 16])));
}

#[test]
fn a_gpu_that_vulkan_does_not_show_is_listed_with_the_reason_once_vulkan_was_asked() {
    for (driver, reason) in [
        (None, "no driver: install the vendor's driver"),
        (Some("nouveau"), "the kernel's driver is nouveau; install the Vulkan driver"),
        (Some("vfio-pci"), "vfio-pci keeps it for a virtual machine"),
    ] {
        let mut seen = Seen { vulkan: None, pci: vec![pci("0000:01:00.0", driver)], smi: vec![] };
        assert_eq!(GpuInventory::new(&seen, false).devices[0].problem, None, "{driver:?}");
        seen.vulkan = Some(vec![cpu()]);
        let inventory = GpuInventory::new(&seen, false);
        let [gpu] = inventory.devices.as_slice() else { panic!("{inventory:?}") };
        let problem = gpu.problem.clone().unwrap_or_default();
        assert!(problem.contains(reason), "{driver:?}: {problem}");
        assert_eq!((gpu.model.as_str(), gpu.driver.as_deref()), ("10de:2335", driver));
    }
}

#[test]
fn a_driver_for_cpus_counts_only_when_asked_for() {
    let seen = Seen { vulkan: Some(vec![cpu()]), ..Seen::default() };
    assert_eq!(GpuInventory::new(&seen, false), GpuInventory::default());
    assert!(GpuInventory::new(&seen, false).properties().is_empty());
    let facts = GpuInventory::new(&seen, true).facts();
    let get = |name: &str| facts.get(name).map(String::as_str);
    assert_eq!((get("gpus"), get("gpu.0.vendor"), get("gpu.0.kind")), (Some("1"), Some("Mesa"), Some("cpu")));
    assert_eq!(get("gpu.0.uuid"), Some("07070707070707070707070707070707"));
}

#[test]
fn the_first_gpu_has_the_plain_names_and_the_others_their_number() {
    let seen = Seen {
        vulkan: Some(vec![vulkan("NVIDIA H200", pci::NVIDIA, Some("0000:02:00.0"))]),
        pci: vec![pci("0000:01:00.0", None), pci("0000:02:00.0", None)],
        smi: vec![],
    };
    let properties = GpuInventory::new(&seen, false).properties();
    let expected = [
        ("gpu.1.driver", "none"),
        ("gpu.1.model", "10de:2335"),
        ("gpu.1.vendor", "NVIDIA"),
        ("gpu.driver", "NVIDIA 570.86"),
        ("gpu.model", "NVIDIA H200"),
        ("gpu.vendor", "NVIDIA"),
        ("gpu.vram_mb", "143360"),
    ];
    let lines: Vec<_> = properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(lines, expected);
}

#[test]
fn what_a_driver_calls_itself_stays_one_line_of_limited_length() {
    let long = format!("GPU\nwith a line\t{}", "x".repeat(1000));
    let seen = Seen { vulkan: Some(vec![vulkan(&long, 0x1002, None)]), ..Seen::default() };
    let model = GpuInventory::new(&seen, false).devices[0].model.clone();
    assert!(model.starts_with("GPU with a line xx"), "{model}");
    assert_eq!(model.len(), LONGEST);
}
