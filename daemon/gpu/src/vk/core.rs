//! A device that is open, its queue, and the wait for what was submitted.
//!
//! One queue, one submit at a time: whoever submits waits. After a loss nothing is destroyed any more, because the driver
//! may still be using it; the process is to end.

use super::Driver;
use super::MemoryStats;
use super::Recorded;
use super::VkError;
use super::failed;
use super::memory::Memory;
use super::recorded::record_tail;
use crate::device::DeviceInfo;
use ash::vk;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a device is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceOptions<'a> {
    /// What [`Device::pipeline_cache`] gave before; empty when there is none.
    pub pipeline_cache: &'a [u8],
    /// Copies through staging memory, also where the host could write the device's memory: for tests.
    pub staging: bool,
    /// Bytes of memory that may be held; without it a share of the device's.
    pub memory: Option<u64>,
}

/// What everything on a device keeps alive.
pub(super) struct Core {
    pub(super) device: ash::Device,
    pub(super) memory: Mutex<Memory>,
    /// Recording and freeing command buffers of one pool must not happen at the same time.
    pub(super) commands: Mutex<vk::CommandPool>,
    pub(super) cache: vk::PipelineCache,
    pub(super) feedback: bool,
    /// The most threads of a workgroup along each axis.
    pub(super) workgroup: [u32; 3],
    semaphore: vk::Semaphore,
    lost: AtomicBool,
    /// Outlives every device.
    _driver: Arc<Driver>,
}

impl Core {
    /// Locks. What a panicking thread left behind is bookkeeping that is whole between two calls.
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver may still be using what was submitted.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.lost() {
            return;
        }
        Core::lock(&self.memory).trim(&self.device);
        let commands = *Core::lock(&self.commands);
        // SAFETY: everything that was made of this device holds the core and is gone; nothing is submitted, because
        // every submit was waited for.
        unsafe {
            self.device.destroy_semaphore(self.semaphore, None);
            self.device.destroy_pipeline_cache(self.cache, None);
            self.device.destroy_command_pool(commands, None);
            self.device.destroy_device(None);
        }
    }
}

/// An open device with its queue.
pub struct Device {
    pub(super) core: Arc<Core>,
    queue: vk::Queue,
    info: DeviceInfo,
    /// What the semaphore counts to when the last submit is done.
    submits: u64,
    batch: Vec<vk::CommandBuffer>,
    /// Ends every submit: makes what was written visible to the host.
    tail: vk::CommandBuffer,
}

impl Device {
    /// Opens the device in that place of [`Driver::devices`].
    ///
    /// # Errors
    /// What it lacks; what the driver answers.
    pub fn open(driver: &Arc<Driver>, place: usize, options: &DeviceOptions<'_>) -> Result<Self, VkError> {
        let missing = VkError::Call { call: "choosing a device", result: vk::Result::ERROR_UNKNOWN };
        let found = driver.found(place).ok_or(missing)?;
        let family = compute_family(driver, found.physical).ok_or_else(|| VkError::Lacks {
            device: found.info.model.clone(),
            needs: "a queue for compute shaders",
        })?;
        let wanted = [ash::ext::memory_budget::NAME, ash::ext::pipeline_creation_feedback::NAME];
        let has = |name: &CStr| name.to_str().is_ok_and(|name| found.extensions.contains(name));
        let extensions: Vec<_> = wanted.iter().filter(|name| has(name)).map(|name| name.as_ptr()).collect();
        let device = create(driver, found.physical, family, &extensions, &found.info.model)?;
        // From here on an error leaks the device; the process ends then.
        let commands = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        let mut timeline = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let semaphore = vk::SemaphoreCreateInfo::default().push_next(&mut timeline);
        // SAFETY: the device is alive, the structures live until each call is over, the family has a queue 0.
        let (commands, semaphore, queue) = unsafe {
            (
                device.create_command_pool(&commands, None).map_err(failed("vkCreateCommandPool"))?,
                device.create_semaphore(&semaphore, None).map_err(failed("vkCreateSemaphore"))?,
                device.get_device_queue(family, 0),
            )
        };
        let cache = create_cache(&device, options.pipeline_cache)?;
        let core = Core {
            memory: Mutex::new(Memory::new(driver, found, options)),
            commands: Mutex::new(commands),
            cache,
            feedback: has(ash::ext::pipeline_creation_feedback::NAME),
            workgroup: found.workgroup,
            semaphore,
            lost: AtomicBool::new(false),
            device,
            _driver: Arc::clone(driver),
        };
        let (core, info) = (Arc::new(core), found.info.clone());
        let tail = record_tail(&core)?;
        Ok(Self { core, queue, info, submits: 0, batch: Vec::new(), tail })
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// What its memory is used for.
    pub fn memory(&self) -> MemoryStats {
        Core::lock(&self.core.memory).stats()
    }

    /// Gives up the memory that nothing uses now.
    pub fn trim(&self) {
        Core::lock(&self.core.memory).trim(&self.core.device);
    }

    /// The driver's pipeline cache as bytes, to be given to [`DeviceOptions::pipeline_cache`] at the next start.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn pipeline_cache(&self) -> Result<Vec<u8>, VkError> {
        // SAFETY: the cache is of this device.
        unsafe { self.core.device.get_pipeline_cache_data(self.core.cache) }
            .map_err(failed("vkGetPipelineCacheData"))
    }

    /// Runs everything that is recorded in `batch` in one submit, and waits for its end, however long that takes. The
    /// members of a batch are not ordered among each other. `slow` is called once if it takes longer than `patience`.
    ///
    /// # Errors
    /// The device was lost, or could not take it.
    pub fn run(
        &mut self,
        batch: &mut [&mut Recorded],
        patience: Duration,
        slow: impl FnOnce(),
    ) -> Result<(), VkError> {
        if self.core.lost() {
            return Err(VkError::Lost("an earlier submit"));
        }
        self.batch.clear();
        for recorded in batch.iter() {
            if !Arc::ptr_eq(&recorded.core, &self.core) {
                return Err(VkError::Call {
                    call: "another device's run",
                    result: vk::Result::ERROR_UNKNOWN,
                });
            }
            self.batch.push(recorded.commands);
        }
        self.batch.push(self.tail);
        let value = self.submits + 1;
        let (values, semaphores) = ([value], [self.core.semaphore]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let submit = vk::SubmitInfo::default()
            .command_buffers(&self.batch)
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline);
        // SAFETY: `&mut self` is the only user of the queue; the command buffers are recorded, of this device, and each
        // is lent to this call alone, which returns only when none is in use any more, or marks the device as lost.
        let submitted = unsafe { self.core.device.queue_submit(self.queue, &[submit], vk::Fence::null()) };
        submitted.map_err(|result| self.failure("vkQueueSubmit", result))?;
        self.submits = value;
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        if self.wait(value, patience)? {
            return Ok(());
        }
        slow();
        while !self.wait(value, u64::MAX)? {}
        Ok(())
    }

    /// Waits until the semaphore has that value, or so many nanoseconds.
    fn wait(&self, value: u64, time: u64) -> Result<bool, VkError> {
        let (values, semaphores) = ([value], [self.core.semaphore]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is of this device and counts up to `value` when the submit is done.
        match unsafe { self.core.device.wait_semaphores(&wait, time) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => {
                // Whatever it says: the work may still be running.
                self.core.lost.store(true, Ordering::Release);
                Err(self.failure("vkWaitSemaphores", result))
            }
        }
    }

    fn failure(&self, call: &'static str, result: vk::Result) -> VkError {
        let error = VkError::of(call, result);
        if matches!(error, VkError::Lost(_)) {
            self.core.lost.store(true, Ordering::Release);
        }
        // What cannot be said to have ended is lost.
        if self.core.lost() { VkError::Lost(call) } else { error }
    }
}

/// The family to take a queue of: one for compute alone runs beside graphics.
fn compute_family(driver: &Driver, physical: vk::PhysicalDevice) -> Option<u32> {
    // SAFETY: the handle is of this instance.
    let families = unsafe { driver.instance.get_physical_device_queue_family_properties(physical) };
    (0_u32..)
        .zip(families)
        .filter(|(_, family)| family.queue_count > 0 && family.queue_flags.contains(vk::QueueFlags::COMPUTE))
        .min_by_key(|(_, family)| family.queue_flags.contains(vk::QueueFlags::GRAPHICS))
        .map(|(number, _)| number)
}

fn create(
    driver: &Driver,
    physical: vk::PhysicalDevice,
    family: u32,
    extensions: &[*const std::ffi::c_char],
    model: &str,
) -> Result<ash::Device, VkError> {
    let mut there12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut there = vk::PhysicalDeviceFeatures2::default().push_next(&mut there12);
    // SAFETY: the handle is of this instance; a device of Vulkan 1.2 knows both structures.
    unsafe { driver.instance.get_physical_device_features2(physical, &mut there) };
    let features = vk::PhysicalDeviceFeatures {
        shader_float64: there.features.shader_float64,
        shader_int64: there.features.shader_int64,
        robust_buffer_access: there.features.robust_buffer_access,
        ..Default::default()
    };
    if there12.timeline_semaphore == vk::FALSE {
        return Err(VkError::Lacks { device: model.to_owned(), needs: "timeline semaphores" });
    }
    let mut features12 = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
    let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0]);
    let queues = [queue];
    let create = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(extensions)
        .enabled_features(&features)
        .push_next(&mut features12);
    // SAFETY: only features and extensions that the device has are asked for; all structures live until the call is over.
    unsafe { driver.instance.create_device(physical, &create, None) }.map_err(failed("vkCreateDevice"))
}

/// With what an earlier start left; a driver that refuses it gets an empty one.
fn create_cache(device: &ash::Device, data: &[u8]) -> Result<vk::PipelineCache, VkError> {
    let filled = vk::PipelineCacheCreateInfo::default().initial_data(data);
    // SAFETY: the data lives until the call is over. Its header and checksum were checked by whoever read it.
    match unsafe { device.create_pipeline_cache(&filled, None) } {
        Ok(cache) => Ok(cache),
        Err(_) if !data.is_empty() => create_cache(device, &[]),
        Err(result) => Err(VkError::of("vkCreatePipelineCache", result)),
    }
}
