//! Memory of a device: which types are used, slabs and the pieces that are cut from them.
//!
//! Where host and device share their memory, pieces are mapped and both use them directly. Elsewhere there are two pools:
//! the device's own memory, and the host's, through which copies go. Never holds more than its bound.

use super::Driver;
use super::VkError;
use super::core::Core;
use super::core::DeviceOptions;
use super::driver::Found;
use super::failed;
use super::pool::Pool;
use super::pool::PoolStats;
use super::pool::Slot;
use super::pool::TakeError;
use crate::device::DeviceKind;
use ash::vk;
use serde::Deserialize;
use serde::Serialize;
use std::ptr::NonNull;
use std::sync::Arc;

/// What the memory of a device is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Host and device share their memory: nothing is copied.
    pub unified: bool,
    /// The most bytes that [`MemoryStats::device`] may hold.
    pub bound: u64,
    /// What kernels work on.
    pub device: PoolStats,
    /// What copies go through; unused where memory is shared.
    pub staging: PoolStats,
}

/// Which pool a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// What kernels work on.
    Device,
    /// What the host writes and reads when it cannot reach the other.
    Staging,
}

/// An allocation with the buffer that spans it.
#[derive(Debug)]
struct Slab {
    memory: vk::DeviceMemory,
    buffer: vk::Buffer,
    /// Where it is mapped, as long as it exists.
    map: Option<NonNull<u8>>,
}

// SAFETY: the pointer is only a number here; who may follow it is decided by `Piece`.
unsafe impl Send for Slab {}

/// The pools of a device.
pub(super) struct Memory {
    unified: bool,
    bound: u64,
    device_type: u32,
    staging_type: u32,
    device: Pool<Slab>,
    staging: Pool<Slab>,
}

/// A piece of memory that belongs to one buffer of one recorded program.
pub(super) struct Piece {
    slot: Option<Slot>,
    place: Place,
    core: Arc<Core>,
    pub(super) buffer: vk::Buffer,
    pub(super) offset: u64,
    /// As many as were asked for, rounded up to words.
    pub(super) bytes: u64,
    map: Option<NonNull<u8>>,
}

// SAFETY: the mapped bytes belong to this piece alone, and threads may take turns with it.
unsafe impl Send for Piece {}

/// The types of memory in the order in which they are preferred.
fn choose(types: &[vk::MemoryType], wanted: &[vk::MemoryPropertyFlags]) -> Option<u32> {
    let has = |flags: vk::MemoryPropertyFlags| {
        (0_u32..).zip(types).find(|(_, one)| one.property_flags.contains(flags)).map(|(number, _)| number)
    };
    wanted.iter().find_map(|flags| has(*flags))
}

/// What the largest heap of the device has left for this process, where the driver says it: others use it too.
fn available(driver: &Driver, found: &Found) -> u64 {
    if !found.extensions.contains("VK_EXT_memory_budget") {
        return u64::MAX;
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: the handle is of this instance, and the device knows the structure of the chain.
    unsafe { driver.instance.get_physical_device_memory_properties2(found.physical, &mut properties) };
    let heaps = properties.memory_properties;
    let local = |heap: &vk::MemoryHeap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let budgets = heaps.memory_heaps_as_slice().iter().zip(&budget.heap_budget);
    let largest = budgets.filter(|(heap, _)| local(heap)).max_by_key(|(heap, _)| heap.size);
    largest.map_or(u64::MAX, |(_, budget)| *budget)
}

impl Memory {
    /// Decides where things are kept.
    pub(super) fn new(driver: &Driver, found: &Found, options: &DeviceOptions<'_>) -> Self {
        use vk::MemoryPropertyFlags as Flags;
        // SAFETY: the handle is of this instance.
        let properties = unsafe { driver.instance.get_physical_device_memory_properties(found.physical) };
        let types = properties.memory_types_as_slice();
        let host = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
        let shared = choose(types, &[Flags::DEVICE_LOCAL | host | Flags::HOST_CACHED]);
        // A discrete device may let the host see its memory, but across a bus: copies by the device are faster.
        let shared = shared.filter(|_| !options.staging && found.info.kind != DeviceKind::Discrete);
        // Every device has memory that is visible and coherent; type 0 is never what this ends with.
        let staging_type = choose(types, &[host | Flags::HOST_CACHED, host]).unwrap_or(0);
        let own = choose(types, &[Flags::DEVICE_LOCAL]).unwrap_or(staging_type);
        // Shared memory is the host's, which needs some for others.
        let share = if shared.is_some() { found.info.memory / 2 } else { found.info.memory / 4 * 3 };
        let bound = options.memory.unwrap_or_else(|| share.min(available(driver, found)));
        Self {
            unified: shared.is_some(),
            bound,
            device_type: shared.unwrap_or(own),
            staging_type,
            device: Pool::new(bound),
            staging: Pool::new(bound),
        }
    }

    /// What the device's own pieces are: mapped or not.
    pub(super) fn unified(&self) -> bool {
        self.unified
    }

    pub(super) fn stats(&self) -> MemoryStats {
        MemoryStats {
            unified: self.unified,
            bound: self.bound,
            device: self.device.stats(),
            staging: self.staging.stats(),
        }
    }

    /// Gives up what nothing uses.
    pub(super) fn trim(&mut self, device: &ash::Device) {
        self.device.trim(|slab| destroy(device, &slab));
        self.staging.trim(|slab| destroy(device, &slab));
    }
}

impl Piece {
    /// A piece of at least so many bytes.
    ///
    /// # Errors
    /// The bound does not allow it, or the device has no memory left.
    pub(super) fn take(core: &Arc<Core>, place: Place, bytes: u64) -> Result<Self, VkError> {
        let bytes = bytes.max(4).next_multiple_of(4);
        let mut memory = Core::lock(&core.memory);
        let memory = &mut *memory;
        let (pool, kind, mapped) = match place {
            Place::Device => (&mut memory.device, memory.device_type, memory.unified),
            Place::Staging => (&mut memory.staging, memory.staging_type, true),
        };
        let device = &core.device;
        let mut refused = false;
        for _ in 0..2 {
            let make = |size| create(device, kind, size, mapped);
            match pool.take(bytes, make, |slab| destroy(device, &slab)) {
                Ok((slot, slab, offset)) => {
                    let map = slab.map.and_then(|map| usize::try_from(offset).ok().map(|at| (map, at)));
                    // SAFETY: the offset is within the slab, and so within its mapping.
                    let map = map.map(|(map, at)| unsafe { map.add(at) });
                    let (buffer, core) = (slab.buffer, Arc::clone(core));
                    return Ok(Self { slot: Some(slot), place, core, buffer, offset, bytes, map });
                }
                // The device may have room when we give up what we only keep.
                Err(TakeError::Make(VkError::Memory { .. })) if !refused => {
                    refused = true;
                    pool.trim(|slab| destroy(device, &slab));
                }
                Err(TakeError::Make(VkError::Memory { .. }) | TakeError::Bound) => break,
                Err(TakeError::Make(error)) => return Err(error),
            }
        }
        Err(VkError::Memory { bytes })
    }

    /// Its bytes, where the host reaches them.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let (map, length) = (self.map?, usize::try_from(self.bytes).ok()?);
        // SAFETY: the mapping lasts as long as the slab, which is kept while this piece is taken; no other piece overlaps
        // it; the device does not write, because a run borrows the recorded program that owns this piece.
        Some(unsafe { std::slice::from_raw_parts(map.as_ptr(), length) })
    }

    /// Its bytes, to be written.
    pub(super) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let (map, length) = (self.map?, usize::try_from(self.bytes).ok()?);
        // SAFETY: as in `bytes`, and `&mut self` makes this the only access.
        Some(unsafe { std::slice::from_raw_parts_mut(map.as_ptr(), length) })
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.core.lost() {
            return;
        }
        let Some(slot) = self.slot.take() else { return };
        let mut memory = Core::lock(&self.core.memory);
        match self.place {
            Place::Device => memory.device.give(slot),
            Place::Staging => memory.staging.give(slot),
        }
    }
}

fn create(device: &ash::Device, kind: u32, size: u64, mapped: bool) -> Result<Slab, VkError> {
    let usage = vk::BufferUsageFlags::STORAGE_BUFFER
        | vk::BufferUsageFlags::TRANSFER_SRC
        | vk::BufferUsageFlags::TRANSFER_DST;
    let create = vk::BufferCreateInfo::default().size(size).usage(usage);
    // SAFETY: the device is alive, the structure lives until the call is over.
    let buffer = unsafe { device.create_buffer(&create, None) }.map_err(failed("vkCreateBuffer"))?;
    let slab = Slab { memory: vk::DeviceMemory::null(), buffer, map: None };
    fill(device, kind, mapped, slab)
}

/// Gives a buffer its memory; undoes everything when that fails.
fn fill(device: &ash::Device, kind: u32, mapped: bool, mut slab: Slab) -> Result<Slab, VkError> {
    let result = (|| {
        // SAFETY: the buffer is of this device.
        let needs = unsafe { device.get_buffer_memory_requirements(slab.buffer) };
        if needs.memory_type_bits & (1 << kind) == 0 {
            return Err(VkError::Call {
                call: "choosing memory for a storage buffer",
                result: vk::Result::ERROR_FEATURE_NOT_PRESENT,
            });
        }
        let allocate = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(kind);
        // SAFETY: the type is one of this device's.
        slab.memory =
            unsafe { device.allocate_memory(&allocate, None) }.map_err(failed("vkAllocateMemory"))?;
        // SAFETY: both are of this device, the memory is as large as the buffer needs, and neither is bound yet.
        unsafe { device.bind_buffer_memory(slab.buffer, slab.memory, 0) }
            .map_err(failed("vkBindBufferMemory"))?;
        if mapped {
            // SAFETY: the memory is visible to the host and not mapped yet.
            let map =
                unsafe { device.map_memory(slab.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) }
                    .map_err(failed("vkMapMemory"))?;
            slab.map = NonNull::new(map.cast());
        }
        Ok(())
    })();
    match result {
        Ok(()) => Ok(slab),
        Err(error) => {
            destroy(device, &slab);
            Err(error)
        }
    }
}

/// Ends a slab of which no piece is taken.
fn destroy(device: &ash::Device, slab: &Slab) {
    // SAFETY: no piece of it is taken, so nothing recorded refers to it; freeing memory unmaps it.
    unsafe {
        device.destroy_buffer(slab.buffer, None);
        device.free_memory(slab.memory, None);
    }
}
