//! The loader, the instance, and the devices that it lists.
//!
//! Says what there is, in an order that does not change from start to start; never decides.

use super::VkError;
use super::failed;
use crate::device::DeviceInfo;
use crate::device::DeviceKind;
use crate::device::DeviceUuid;
use crate::device::Limits;
use ash::vk;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;

/// A loaded loader with its instance.
pub struct Driver {
    /// Keeps the library loaded.
    _entry: ash::Entry,
    pub(super) instance: ash::Instance,
    found: Vec<Found>,
}

/// A device that an instance lists.
pub(super) struct Found {
    pub(super) physical: vk::PhysicalDevice,
    pub(super) extensions: BTreeSet<String>,
    pub(super) info: DeviceInfo,
    /// The most threads of a workgroup along each axis.
    pub(super) workgroup: [u32; 3],
    cache_uuid: [u8; 16],
}

/// What is asked of a device when it is listed.
#[derive(Default)]
struct Asked<'a> {
    ids: vk::PhysicalDeviceIDProperties<'a>,
    driver: vk::PhysicalDeviceDriverProperties<'a>,
    sizes: vk::PhysicalDeviceMaintenance3Properties<'a>,
    pci: vk::PhysicalDevicePCIBusInfoPropertiesEXT<'a>,
}

/// Makes drivers that keep compiled shaders on disk keep them below `folder`: Mesa's and NVIDIA's.
///
/// Belongs before [`Driver::load`], at the start of a process: where there is another thread already, it does nothing.
pub fn shader_caches_below(folder: &Path) {
    if !alone() {
        return;
    }
    for (name, below) in [("MESA_SHADER_CACHE_DIR", "mesa"), ("__GL_SHADER_DISK_CACHE_PATH", "nvidia")] {
        // SAFETY: no other thread runs, so nobody reads the environment now.
        unsafe { std::env::set_var(name, folder.join(below)) };
    }
}

/// Whether this process has one thread, where that can be told.
fn alone() -> bool {
    if cfg!(target_os = "linux") {
        std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
    } else {
        // A node calls this first of all.
        true
    }
}

impl Driver {
    /// Loads the loader, makes an instance and lists its devices.
    ///
    /// # Errors
    /// No loader; no driver that can be used.
    pub fn load() -> Result<Self, VkError> {
        // SAFETY: libvulkan runs no code at load time that asks something of the process that loads it.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| VkError::Loader(error.to_string()))?;
        let application = vk::ApplicationInfo::default()
            .application_name(c"zed")
            .engine_name(c"zed")
            .api_version(vk::API_VERSION_1_2);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live until the call is over; the entry outlives the instance in `Driver`.
        let instance = unsafe { entry.create_instance(&create, None) }.map_err(|result| match result {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => VkError::NoDriver,
            _ => VkError::of("vkCreateInstance", result),
        })?;
        let mut driver = Self { _entry: entry, instance, found: Vec::new() };
        driver.found = driver.list()?;
        Ok(driver)
    }

    /// The devices with Vulkan 1.2 or later, best first.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        self.found.iter().map(|found| found.info.clone()).collect()
    }

    /// What Vulkan calls `pipelineCacheUUID` of the device in that place of [`Driver::devices`].
    pub fn cache_uuid(&self, place: usize) -> Option<[u8; 16]> {
        self.found(place).map(|found| found.cache_uuid)
    }

    /// The one in that place of [`Driver::devices`].
    pub(super) fn found(&self, place: usize) -> Option<&Found> {
        self.found.get(place)
    }

    fn list(&self) -> Result<Vec<Found>, VkError> {
        // SAFETY: the instance is alive.
        let physical = unsafe { self.instance.enumerate_physical_devices() }
            .map_err(failed("vkEnumeratePhysicalDevices"))?;
        let mut found = Vec::new();
        for physical in physical {
            // SAFETY: this handle was just listed by this instance.
            let properties = unsafe { self.instance.get_physical_device_properties(physical) };
            if properties.api_version >= vk::API_VERSION_1_2 {
                found.push(self.look_at(physical, &properties)?);
            }
        }
        let place = |info: &DeviceInfo| (info.kind, info.pci_address.clone(), info.uuid);
        found.sort_by_key(|found| place(&found.info));
        Ok(found)
    }

    fn look_at(
        &self,
        physical: vk::PhysicalDevice,
        properties: &vk::PhysicalDeviceProperties,
    ) -> Result<Found, VkError> {
        // SAFETY: the handle is of this instance.
        let listed = unsafe { self.instance.enumerate_device_extension_properties(physical) }
            .map_err(failed("vkEnumerateDeviceExtensionProperties"))?;
        let extensions: BTreeSet<String> =
            listed.iter().map(|one| text(one.extension_name_as_c_str())).collect();
        let mut asked = Asked::default();
        let mut all = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut asked.ids)
            .push_next(&mut asked.driver)
            .push_next(&mut asked.sizes);
        let knows_pci = extensions.contains("VK_EXT_pci_bus_info");
        if knows_pci {
            all = all.push_next(&mut asked.pci);
        }
        // SAFETY: every structure of the chain is one that this device knows, and lives until the call is over.
        unsafe { self.instance.get_physical_device_properties2(physical, &mut all) };
        // SAFETY: the handle is of this instance.
        let memory = unsafe { self.instance.get_physical_device_memory_properties(physical) };
        // SAFETY: the handle is of this instance.
        let features = unsafe { self.instance.get_physical_device_features(physical) };
        let pci = &asked.pci;
        let info = DeviceInfo {
            uuid: DeviceUuid(asked.ids.device_uuid),
            kind: kind(properties.device_type),
            model: text(properties.device_name_as_c_str()),
            vendor_id: properties.vendor_id,
            device_id: properties.device_id,
            driver: text(asked.driver.driver_name_as_c_str()),
            driver_version: text(asked.driver.driver_info_as_c_str()),
            driver_number: properties.driver_version,
            driver_uuid: asked.ids.driver_uuid,
            api_version: version(properties.api_version),
            pci_address: knows_pci.then(|| {
                let (domain, bus) = (pci.pci_domain, pci.pci_bus);
                format!("{domain:04x}:{bus:02x}:{:02x}.{}", pci.pci_device, pci.pci_function)
            }),
            memory: memory
                .memory_heaps_as_slice()
                .iter()
                .filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
                .map(|heap| heap.size)
                .max()
                .unwrap_or(0),
            limits: limits(&properties.limits, &features, asked.sizes.max_memory_allocation_size),
        };
        let workgroup = properties.limits.max_compute_work_group_size;
        Ok(Found { physical, extensions, info, workgroup, cache_uuid: properties.pipeline_cache_uuid })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: whatever was made from the instance holds the driver, so nothing of it is left.
        unsafe { self.instance.destroy_instance(None) };
    }
}

fn text(found: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    found.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn version(number: u32) -> String {
    let (major, minor) = (vk::api_version_major(number), vk::api_version_minor(number));
    format!("{major}.{minor}.{}", vk::api_version_patch(number))
}

fn kind(kind: vk::PhysicalDeviceType) -> DeviceKind {
    match kind {
        vk::PhysicalDeviceType::DISCRETE_GPU => DeviceKind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => DeviceKind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::Virtual,
        vk::PhysicalDeviceType::CPU => DeviceKind::Cpu,
        _ => DeviceKind::Other,
    }
}

fn limits(
    limits: &vk::PhysicalDeviceLimits,
    features: &vk::PhysicalDeviceFeatures,
    allocation: u64,
) -> Limits {
    Limits {
        push_bytes: limits.max_push_constants_size,
        workgroup_threads: limits
            .max_compute_work_group_invocations
            .min(limits.max_compute_work_group_size[0]),
        groups: limits.max_compute_work_group_count,
        shared_bytes: limits.max_compute_shared_memory_size,
        // What is allocated is a little larger than what is asked for.
        buffer_bytes: u64::from(limits.max_storage_buffer_range).min(allocation / 8 * 7),
        bindings: limits
            .max_per_stage_descriptor_storage_buffers
            .min(limits.max_descriptor_set_storage_buffers)
            .min(limits.max_per_stage_resources),
        // Transcendental functions of doubles are made of 64-bit integers.
        f64: features.shader_float64 == vk::TRUE && features.shader_int64 == vk::TRUE,
    }
}
