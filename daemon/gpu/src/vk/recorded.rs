//! Programs that are recorded with their buffers, and can be run again and again.
//!
//! Owns the memory, the descriptor sets and the command buffer of one program. Copies to and from memory that only the
//! device reaches are part of what is recorded, so that a run is one submit.

use super::Device;
use super::Pipeline;
use super::VkError;
use super::core::Core;
use super::failed;
use super::memory::Piece;
use super::memory::Place;
use ash::vk;
use std::sync::Arc;

/// A buffer of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferPlan {
    /// Its size.
    pub bytes: u64,
    /// The host writes it before each run.
    pub upload: bool,
    /// The host reads it after each run.
    pub download: bool,
    /// It is zeroed at the beginning of each run: what others left there is not for everybody.
    pub clear: bool,
}

/// One kernel on some buffers.
pub struct DispatchPlan<'a> {
    /// What runs.
    pub pipeline: &'a Arc<Pipeline>,
    /// Its bindings: places in the list of buffers.
    pub buffers: &'a [usize],
    /// Its push constants.
    pub push: &'a [u8],
    /// Workgroups.
    pub groups: [u32; 3],
}

/// A program with its buffers.
pub struct Recorded {
    pub(super) core: Arc<Core>,
    pub(super) commands: vk::CommandBuffer,
    descriptors: vk::DescriptorPool,
    sets: Vec<vk::DescriptorSet>,
    buffers: Vec<Held>,
    /// What the command buffer refers to.
    pipelines: Vec<Arc<Pipeline>>,
}

struct Held {
    plan: BufferPlan,
    device: Piece,
    staging: Option<Piece>,
}

impl Held {
    /// What the host reads and writes.
    fn host(&self) -> &Piece {
        self.staging.as_ref().unwrap_or(&self.device)
    }

    fn host_mut(&mut self) -> &mut Piece {
        self.staging.as_mut().unwrap_or(&mut self.device)
    }
}

/// A program that does not fit what it is recorded for.
fn misfit() -> VkError {
    VkError::Call { call: "recording a program", result: vk::Result::ERROR_VALIDATION_FAILED_EXT }
}

impl Device {
    /// Takes memory for `buffers` and records `dispatches`. Each sees what those before it wrote.
    ///
    /// # Errors
    /// No memory; a plan that names a buffer which is not there, or not what the pipeline takes.
    pub fn record(
        &self,
        buffers: &[BufferPlan],
        dispatches: &[DispatchPlan<'_>],
    ) -> Result<Recorded, VkError> {
        let core = &self.core;
        let unified = Core::lock(&core.memory).unified();
        let mut held = Vec::with_capacity(buffers.len());
        for plan in buffers {
            let device = Piece::take(core, Place::Device, plan.bytes)?;
            let staged = !unified && (plan.upload || plan.download);
            let staging = staged.then(|| Piece::take(core, Place::Staging, plan.bytes)).transpose()?;
            held.push(Held { plan: *plan, device, staging });
        }
        let mut recorded = Recorded {
            core: Arc::clone(core),
            commands: vk::CommandBuffer::null(),
            descriptors: vk::DescriptorPool::null(),
            sets: Vec::new(),
            buffers: held,
            pipelines: dispatches.iter().map(|dispatch| Arc::clone(dispatch.pipeline)).collect(),
        };
        recorded.bind(dispatches)?;
        recorded.allocate()?;
        recorded.record(dispatches)?;
        Ok(recorded)
    }
}

impl Recorded {
    /// Records the same dispatches with other push constants.
    ///
    /// # Errors
    /// When they are not the same; what the driver answers.
    pub fn record_again(&mut self, dispatches: &[DispatchPlan<'_>]) -> Result<(), VkError> {
        let same = self.pipelines.len() == dispatches.len()
            && self.pipelines.iter().zip(dispatches).all(|(one, other)| Arc::ptr_eq(one, other.pipeline));
        if !same {
            return Err(misfit());
        }
        // A command buffer is recorded anew only from its pool's hand.
        self.free_commands();
        self.allocate()?;
        self.record(dispatches)
    }

    /// The bytes of a buffer that the host writes before a run.
    pub fn input(&mut self, buffer: usize) -> Option<&mut [u8]> {
        let held = self.buffers.get_mut(buffer).filter(|held| held.plan.upload)?;
        let length = usize::try_from(held.plan.bytes).ok()?;
        held.host_mut().bytes_mut()?.get_mut(..length)
    }

    /// The bytes of a buffer that the host reads after a run.
    pub fn output(&self, buffer: usize) -> Option<&[u8]> {
        let held = self.buffers.get(buffer).filter(|held| held.plan.download)?;
        let length = usize::try_from(held.plan.bytes).ok()?;
        held.host().bytes()?.get(..length)
    }

    /// Makes a descriptor set for each dispatch.
    fn bind(&mut self, dispatches: &[DispatchPlan<'_>]) -> Result<(), VkError> {
        let count: usize = dispatches.iter().map(|dispatch| dispatch.buffers.len()).sum();
        let Ok(sets) = u32::try_from(dispatches.len()) else { return Err(misfit()) };
        if sets == 0 {
            return Ok(());
        }
        let size = vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(u32::try_from(count.max(1)).map_err(|_| misfit())?);
        let sizes = [size];
        let create = vk::DescriptorPoolCreateInfo::default().max_sets(sets).pool_sizes(&sizes);
        let device = &self.core.device;
        // SAFETY: the device is alive, the structures live until the call is over.
        self.descriptors = unsafe { device.create_descriptor_pool(&create, None) }
            .map_err(failed("vkCreateDescriptorPool"))?;
        let layouts: Vec<_> = dispatches.iter().map(|dispatch| dispatch.pipeline.set_layout).collect();
        let allocate =
            vk::DescriptorSetAllocateInfo::default().descriptor_pool(self.descriptors).set_layouts(&layouts);
        // SAFETY: pool and layouts are of this device; nobody else uses the pool.
        self.sets = unsafe { device.allocate_descriptor_sets(&allocate) }
            .map_err(failed("vkAllocateDescriptorSets"))?;
        for (dispatch, set) in dispatches.iter().zip(&self.sets) {
            if dispatch.buffers.len() != dispatch.pipeline.bindings as usize {
                return Err(misfit());
            }
            let pieces: Vec<[vk::DescriptorBufferInfo; 1]> = dispatch
                .buffers
                .iter()
                .map(|place| {
                    let piece = &self.buffers.get(*place).ok_or_else(misfit)?.device;
                    let info = vk::DescriptorBufferInfo::default().buffer(piece.buffer);
                    Ok([info.offset(piece.offset).range(piece.bytes)])
                })
                .collect::<Result<_, VkError>>()?;
            let writes: Vec<_> = (0..)
                .zip(&pieces)
                .map(|(binding, piece)| {
                    vk::WriteDescriptorSet::default()
                        .dst_set(*set)
                        .dst_binding(binding)
                        .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                        .buffer_info(piece)
                })
                .collect();
            // SAFETY: the set has as many bindings as are written, and each range is within its buffer.
            unsafe { device.update_descriptor_sets(&writes, &[]) };
        }
        Ok(())
    }

    fn allocate(&mut self) -> Result<(), VkError> {
        self.commands = allocate(&self.core)?;
        Ok(())
    }

    fn free_commands(&mut self) {
        let pool = Core::lock(&self.core.commands);
        let commands = std::mem::take(&mut self.commands);
        if commands != vk::CommandBuffer::null() {
            // SAFETY: no submit is under way that uses it: a run borrows `self`.
            unsafe { self.core.device.free_command_buffers(*pool, &[commands]) };
        }
    }

    fn record(&self, dispatches: &[DispatchPlan<'_>]) -> Result<(), VkError> {
        // Recording takes memory from the pool, so nobody else may use it meanwhile.
        let _pool = Core::lock(&self.core.commands);
        let device = &self.core.device;
        let begin = vk::CommandBufferBeginInfo::default();
        // SAFETY: the command buffer is new.
        unsafe { device.begin_command_buffer(self.commands, &begin) }
            .map_err(failed("vkBeginCommandBuffer"))?;
        let mut writer = Writer { recorded: self, last: None };
        writer.uploads();
        for (dispatch, set) in dispatches.iter().zip(&self.sets) {
            let fits = dispatch.push.len() == dispatch.pipeline.push_bytes as usize
                && dispatch.push.len().is_multiple_of(4);
            if !fits {
                return Err(misfit());
            }
            writer.dispatch(dispatch, *set);
        }
        writer.downloads();
        // SAFETY: it is being recorded.
        unsafe { device.end_command_buffer(self.commands) }.map_err(failed("vkEndCommandBuffer"))
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if self.core.lost() {
            return;
        }
        self.free_commands();
        // SAFETY: no command buffer refers to its sets any more; a null handle is ignored.
        unsafe { self.core.device.destroy_descriptor_pool(self.descriptors, None) };
    }
}

/// A command buffer.
fn allocate(core: &Core) -> Result<vk::CommandBuffer, VkError> {
    let pool = Core::lock(&core.commands);
    let allocate = vk::CommandBufferAllocateInfo::default().command_pool(*pool).command_buffer_count(1);
    // SAFETY: the pool is of this device, and locked.
    let made = unsafe { core.device.allocate_command_buffers(&allocate) }
        .map_err(failed("vkAllocateCommandBuffers"))?;
    Ok(made.first().copied().unwrap_or_default())
}

/// What every submit ends with, once for all that is in it: waiting for a semaphore makes nothing visible to the host.
/// Freed with its pool.
pub(super) fn record_tail(core: &Core) -> Result<vk::CommandBuffer, VkError> {
    let commands = allocate(core)?;
    let _pool = Core::lock(&core.commands);
    let begin = vk::CommandBufferBeginInfo::default();
    let barrier = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    // SAFETY: the command buffer is new, and its pool locked.
    unsafe {
        core.device.begin_command_buffer(commands, &begin).map_err(failed("vkBeginCommandBuffer"))?;
        core.device.cmd_pipeline_barrier(
            commands,
            vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::HOST,
            vk::DependencyFlags::empty(),
            &[barrier],
            &[],
            &[],
        );
        core.device.end_command_buffer(commands).map_err(failed("vkEndCommandBuffer"))?;
    }
    Ok(commands)
}

/// A stage that wrote memory.
#[derive(Clone, Copy)]
struct Wrote(vk::PipelineStageFlags, vk::AccessFlags);

const COMPUTED: Wrote = Wrote(vk::PipelineStageFlags::COMPUTE_SHADER, vk::AccessFlags::SHADER_WRITE);
const COPIED: Wrote = Wrote(vk::PipelineStageFlags::TRANSFER, vk::AccessFlags::TRANSFER_WRITE);

/// Writes a command buffer that has been begun.
struct Writer<'a> {
    recorded: &'a Recorded,
    /// What wrote last, and is not waited for yet.
    last: Option<Wrote>,
}

impl Writer<'_> {
    /// Makes what follows in `stage` wait for what wrote last.
    fn wait_in(&mut self, stage: vk::PipelineStageFlags, access: vk::AccessFlags) {
        let Some(Wrote(before, written)) = self.last.take() else { return };
        let barrier = vk::MemoryBarrier::default().src_access_mask(written).dst_access_mask(access);
        // SAFETY: the command buffer is being recorded.
        unsafe {
            self.recorded.core.device.cmd_pipeline_barrier(
                self.recorded.commands,
                before,
                stage,
                vk::DependencyFlags::empty(),
                &[barrier],
                &[],
                &[],
            );
        }
    }

    fn copy(&mut self, from: &Piece, to: &Piece) {
        let region = vk::BufferCopy::default().src_offset(from.offset).dst_offset(to.offset).size(from.bytes);
        // SAFETY: both pieces are of the same size, within their buffers, and in different memory.
        unsafe {
            self.recorded.core.device.cmd_copy_buffer(
                self.recorded.commands,
                from.buffer,
                to.buffer,
                &[region],
            );
        }
        self.last = Some(COPIED);
    }

    fn uploads(&mut self) {
        for held in &self.recorded.buffers {
            if let (true, Some(staging)) = (held.plan.upload, &held.staging) {
                self.copy(staging, &held.device);
            } else if held.plan.clear {
                let (device, piece) = (&self.recorded.core.device, &held.device);
                // SAFETY: offset and size are multiples of 4 and within the buffer.
                unsafe {
                    device.cmd_fill_buffer(
                        self.recorded.commands,
                        piece.buffer,
                        piece.offset,
                        piece.bytes,
                        0,
                    );
                }
                self.last = Some(COPIED);
            }
        }
    }

    fn dispatch(&mut self, dispatch: &DispatchPlan<'_>, set: vk::DescriptorSet) {
        let access = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
        self.wait_in(vk::PipelineStageFlags::COMPUTE_SHADER, access);
        let (device, commands) = (&self.recorded.core.device, self.recorded.commands);
        let (pipeline, compute) = (dispatch.pipeline, vk::PipelineBindPoint::COMPUTE);
        // SAFETY: pipeline, layout and set belong together and are kept by `Recorded`; the push constants are as long as
        // the layout says.
        unsafe {
            device.cmd_bind_pipeline(commands, compute, pipeline.handle);
            device.cmd_bind_descriptor_sets(commands, compute, pipeline.layout, 0, &[set], &[]);
            if !dispatch.push.is_empty() {
                let stage = vk::ShaderStageFlags::COMPUTE;
                device.cmd_push_constants(commands, pipeline.layout, stage, 0, dispatch.push);
            }
            let [x, y, z] = dispatch.groups;
            device.cmd_dispatch(commands, x, y, z);
        }
        self.last = Some(COMPUTED);
    }

    fn downloads(&mut self) {
        let staged: Vec<&Held> = self
            .recorded
            .buffers
            .iter()
            .filter(|held| held.plan.download && held.staging.is_some())
            .collect();
        if !staged.is_empty() {
            self.wait_in(vk::PipelineStageFlags::TRANSFER, vk::AccessFlags::TRANSFER_READ);
            for held in staged {
                if let Some(staging) = &held.staging {
                    self.copy(&held.device, staging);
                }
            }
        }
    }
}
