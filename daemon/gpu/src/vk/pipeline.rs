//! Compute pipelines from SPIR-V.
//!
//! Takes only SPIR-V that our own compiler wrote and checked: a driver believes what it is given.

use super::Device;
use super::VkError;
use super::core::Core;
use super::failed;
use ash::vk;
use std::sync::Arc;

/// A compute shader that is ready to be recorded.
pub struct Pipeline {
    pub(super) core: Arc<Core>,
    pub(super) handle: vk::Pipeline,
    pub(super) layout: vk::PipelineLayout,
    pub(super) set_layout: vk::DescriptorSetLayout,
    pub(super) bindings: u32,
    pub(super) push_bytes: u32,
}

/// A pipeline, and what the driver says of how it was made.
pub struct Made {
    /// It.
    pub pipeline: Arc<Pipeline>,
    /// The driver had it in the cache that it was given; nothing where it does not say.
    pub cache_hit: Option<bool>,
}

impl Device {
    /// Makes a pipeline of a shader with the entry point `main`, so many storage buffers in set 0, and push constants.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn pipeline(&self, spirv: &[u32], bindings: u32, push_bytes: u32) -> Result<Made, VkError> {
        self.check_workgroup(spirv)?;
        let device = &self.core.device;
        let slots: Vec<_> = (0..bindings)
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&slots);
        // SAFETY: the device is alive, the structures live until the call is over.
        let set_layout = unsafe { device.create_descriptor_set_layout(&set, None) }
            .map_err(failed("vkCreateDescriptorSetLayout"))?;
        // Whatever fails from here on, dropping this undoes what was made.
        let mut pipeline = Pipeline {
            core: Arc::clone(&self.core),
            handle: vk::Pipeline::null(),
            layout: vk::PipelineLayout::null(),
            set_layout,
            bindings,
            push_bytes,
        };
        let range = vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(push_bytes.next_multiple_of(4));
        let (sets, ranges) = ([set_layout], [range]);
        let mut layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        if push_bytes > 0 {
            layout = layout.push_constant_ranges(&ranges);
        }
        // SAFETY: as above; the set layout is of this device.
        pipeline.layout = unsafe { device.create_pipeline_layout(&layout, None) }
            .map_err(failed("vkCreatePipelineLayout"))?;
        let module = vk::ShaderModuleCreateInfo::default().code(spirv);
        // SAFETY: the words were written and checked by our compiler.
        let module =
            unsafe { device.create_shader_module(&module, None) }.map_err(failed("vkCreateShaderModule"))?;
        let made = self.compile(&pipeline, module);
        // SAFETY: a pipeline does not need its module once it is made.
        unsafe { device.destroy_shader_module(module, None) };
        let (handle, cache_hit) = made?;
        pipeline.handle = handle;
        Ok(Made { pipeline: Arc::new(pipeline), cache_hit })
    }

    /// A driver takes the shape of a workgroup on trust.
    fn check_workgroup(&self, spirv: &[u32]) -> Result<(), VkError> {
        let most = self.core.workgroup;
        match workgroup(spirv) {
            Some(size) if size.iter().zip(&most).all(|(length, most)| length <= most) => Ok(()),
            size => Err(VkError::Workgroup { size: size.unwrap_or_default(), most }),
        }
    }

    fn compile(
        &self,
        pipeline: &Pipeline,
        module: vk::ShaderModule,
    ) -> Result<(vk::Pipeline, Option<bool>), VkError> {
        let mut stage_feedback = [vk::PipelineCreationFeedback::default()];
        let mut whole_feedback = vk::PipelineCreationFeedback::default();
        let mut feedback = vk::PipelineCreationFeedbackCreateInfo::default()
            .pipeline_creation_feedback(&mut whole_feedback)
            .pipeline_stage_creation_feedbacks(&mut stage_feedback);
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let mut create = vk::ComputePipelineCreateInfo::default().stage(stage).layout(pipeline.layout);
        if self.core.feedback {
            create = create.push_next(&mut feedback);
        }
        // SAFETY: module, layout and cache are of this device; the structures live until the call is over.
        let made = unsafe { self.core.device.create_compute_pipelines(self.core.cache, &[create], None) };
        let handle = match made {
            Ok(handles) => handles.first().copied().unwrap_or_default(),
            Err((_, result)) => return Err(VkError::of("vkCreateComputePipelines", result)),
        };
        let flags = whole_feedback.flags;
        let hit = flags
            .contains(vk::PipelineCreationFeedbackFlags::VALID)
            .then(|| flags.contains(vk::PipelineCreationFeedbackFlags::APPLICATION_PIPELINE_CACHE_HIT));
        Ok((handle, hit))
    }
}

/// The shape of the workgroups of a shader, from its words: `OpExecutionMode ... LocalSize x y z`.
fn workgroup(spirv: &[u32]) -> Option<[u32; 3]> {
    const HEADER: usize = 5;
    const EXECUTION_MODE: u32 = 16;
    const LOCAL_SIZE: u32 = 17;
    let mut rest = spirv.get(HEADER..)?;
    while let Some(first) = rest.first() {
        let instruction = rest.get(..(first >> 16) as usize).filter(|words| !words.is_empty())?;
        if let [first, _, LOCAL_SIZE, x, y, z] = instruction
            && first & 0xffff == EXECUTION_MODE
        {
            return Some([*x, *y, *z]);
        }
        rest = rest.get(instruction.len()..)?;
    }
    None
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.core.lost() {
            return;
        }
        // SAFETY: whatever was recorded with it holds it, so nothing refers to it; null handles are ignored.
        unsafe {
            self.core.device.destroy_pipeline(self.handle, None);
            self.core.device.destroy_pipeline_layout(self.layout, None);
            self.core.device.destroy_descriptor_set_layout(self.set_layout, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_workgroup_is_found_in_spirv() {
        let header = [0x0723_0203, 0x1_0300, 0, 9, 0];
        let capability = [2 << 16 | 17, 1];
        let mode = [6 << 16 | 16, 4, 17, 8, 4, 2];
        let words = |parts: &[&[u32]]| parts.concat();
        assert_eq!(workgroup(&words(&[&header, &capability, &mode, &capability])), Some([8, 4, 2]));
        assert_eq!(workgroup(&words(&[&header, &capability])), None);
        assert_eq!(workgroup(&words(&[&header, &[0], &mode])), None, "an instruction without a length");
        assert_eq!(workgroup(&words(&[&header, &[9 << 16 | 16, 1]])), None, "cut off");
        assert_eq!(workgroup(&header[..3]), None);
    }
}
