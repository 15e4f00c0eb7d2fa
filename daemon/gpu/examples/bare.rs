//! The yardstick of `cargo xtask bench gpu`: the least that a Vulkan program does, without zed.
//!
//! Reads commands from standard input and answers each with one line of nanoseconds: `add COUNT` (upload two arrays of 128
//! f32, dispatch, wait, read 128 back, COUNT times), `copy BYTES COUNT` (memory to a buffer, a copy on the device, and back),
//! `matmul N COUNT` and `sum N COUNT` (a plain multithreaded CPU version, no device). Uses the device with the rank 0 in
//! the driver's own order. Never more than one submit at a time.

use ash::vk;
use std::io::BufRead;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// Elements of the arrays of `add`: with two inputs of 512 bytes, a job of 1 kB.
const ELEMENTS: usize = 128;

const ADD: &str = "
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@compute @workgroup_size(128) fn main(@builtin(global_invocation_id) id: vec3<u32>) { c[id.x] = a[id.x] + b[id.x]; }
";

fn main() -> Result<(), Failure> {
    let mut device = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
        let samples = match (words.first().copied(), number(1), number(2)) {
            (Some("add"), Some(count), _) => bare(&mut device)?.add(count)?,
            (Some("copy"), Some(bytes), Some(count)) => bare(&mut device)?.copy(bytes, count)?,
            (Some("matmul"), Some(n), Some(count)) => (0..count).map(|_| matmul(n)).collect(),
            (Some("sum"), Some(n), Some(count)) => (0..count).map(|_| sum(n)).collect(),
            _ => return Err(format!("`{line}` is no command").into()),
        };
        let text: Vec<String> = samples.iter().map(|sample| sample.as_nanos().to_string()).collect();
        let mut out = std::io::stdout();
        writeln!(out, "{}", text.join(" "))?;
        out.flush()?;
    }
    Ok(())
}

fn bare(device: &mut Option<Bare>) -> Result<&mut Bare, Failure> {
    if device.is_none() {
        *device = Some(Bare::open()?);
    }
    device.as_mut().ok_or_else(|| "no device".into())
}

/// A device, and what `add` needs.
struct Bare {
    device: ash::Device,
    queue: vk::Queue,
    commands: vk::CommandBuffer,
    other: vk::CommandBuffer,
    fence: vk::Fence,
    memory_type: u32,
    buffers: [Buffer; 3],
    // The loader stays as long as what came from it.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

#[derive(Clone, Copy)]
struct Buffer {
    handle: vk::Buffer,
    at: *mut u8,
    memory: vk::DeviceMemory,
}

impl Bare {
    fn open() -> Result<Self, Failure> {
        // SAFETY: the loader is a Vulkan loader; every handle below is made by the one before it and used on this thread only.
        unsafe {
            let entry = ash::Entry::load()?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
            let instance =
                entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
            let physical =
                instance.enumerate_physical_devices()?.first().copied().ok_or("there is no device")?;
            let families = instance.get_physical_device_queue_family_properties(physical);
            let family = families
                .iter()
                .position(|family| family.queue_flags.contains(vk::QueueFlags::COMPUTE))
                .ok_or("no queue computes")?;
            let family = u32::try_from(family)?;
            let queues =
                [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
            let device = instance.create_device(
                physical,
                &vk::DeviceCreateInfo::default().queue_create_infos(&queues),
                None,
            )?;
            let queue = device.get_device_queue(family, 0);
            let pool = device.create_command_pool(
                &vk::CommandPoolCreateInfo::default()
                    .queue_family_index(family)
                    .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER),
                None,
            )?;
            let made = device.allocate_command_buffers(
                &vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(2),
            )?;
            let fence = device.create_fence(&vk::FenceCreateInfo::default(), None)?;
            let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let types = instance.get_physical_device_memory_properties(physical);
            let memory_type = types
                .memory_types_as_slice()
                .iter()
                .position(|kind| kind.property_flags.contains(wanted))
                .ok_or("no memory is visible")?;
            let memory_type = u32::try_from(memory_type)?;
            let bytes = ELEMENTS * 4;
            let mut buffers = [Buffer {
                handle: vk::Buffer::null(),
                at: std::ptr::null_mut(),
                memory: vk::DeviceMemory::null(),
            }; 3];
            for buffer in &mut buffers {
                *buffer = make_buffer(&device, memory_type, bytes)?;
            }
            let commands = *made.first().ok_or("no command buffer")?;
            let other = *made.get(1).ok_or("no command buffer")?;
            record_add(&device, commands, &buffers)?;
            Ok(Self {
                device,
                queue,
                commands,
                other,
                fence,
                memory_type,
                buffers,
                _instance: instance,
                _entry: entry,
            })
        }
    }

    fn submit(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        let list = [commands];
        // SAFETY: the command buffer is recorded and not in use: each submit is waited for before the next.
        unsafe {
            self.device.queue_submit(
                self.queue,
                &[vk::SubmitInfo::default().command_buffers(&list)],
                self.fence,
            )?;
            self.device.wait_for_fences(&[self.fence], true, u64::MAX)?;
            self.device.reset_fences(&[self.fence])?;
        }
        Ok(())
    }

    fn add(&mut self, count: usize) -> Result<Vec<Duration>, Failure> {
        let (a, b) = ([1.5_f32; ELEMENTS], [2.25_f32; ELEMENTS]);
        let mut c = [0.0_f32; ELEMENTS];
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            // SAFETY: all three are mapped, of ELEMENTS f32, and the device is idle before and after the submit.
            unsafe {
                std::ptr::copy_nonoverlapping(a.as_ptr(), self.buffers[0].at.cast(), ELEMENTS);
                std::ptr::copy_nonoverlapping(b.as_ptr(), self.buffers[1].at.cast(), ELEMENTS);
                self.submit(self.commands)?;
                std::ptr::copy_nonoverlapping(self.buffers[2].at.cast(), c.as_mut_ptr(), ELEMENTS);
            }
            samples.push(begun.elapsed());
        }
        if c.iter().any(|c| c.to_bits() != 3.75_f32.to_bits()) {
            return Err("the device adds wrongly".into());
        }
        Ok(samples)
    }

    fn copy(&mut self, bytes: usize, count: usize) -> Result<Vec<Duration>, Failure> {
        let from = vec![7_u8; bytes];
        let mut to = vec![0_u8; bytes];
        let mut samples = Vec::with_capacity(count);
        // SAFETY: both buffers are mapped and of `bytes`; the device is idle except in the submit that is waited for.
        unsafe {
            let one = make_buffer(&self.device, self.memory_type, bytes)?;
            let two = make_buffer(&self.device, self.memory_type, bytes)?;
            self.device.begin_command_buffer(self.other, &vk::CommandBufferBeginInfo::default())?;
            let region = [vk::BufferCopy::default().size(bytes as u64)];
            self.device.cmd_copy_buffer(self.other, one.handle, two.handle, &region);
            self.device.end_command_buffer(self.other)?;
            for _ in 0..count {
                let begun = Instant::now();
                std::ptr::copy_nonoverlapping(from.as_ptr(), one.at, bytes);
                self.submit(self.other)?;
                std::ptr::copy_nonoverlapping(two.at, to.as_mut_ptr(), bytes);
                samples.push(begun.elapsed());
            }
            for buffer in [one, two] {
                self.device.destroy_buffer(buffer.handle, None);
                self.device.free_memory(buffer.memory, None);
            }
        }
        if to != from {
            return Err("the device copies wrongly".into());
        }
        Ok(samples)
    }
}

/// A storage buffer in mapped memory.
///
/// # Safety
/// `memory_type` must be a host-visible type of the device.
unsafe fn make_buffer(device: &ash::Device, memory_type: u32, bytes: usize) -> Result<Buffer, Failure> {
    let usage = vk::BufferUsageFlags::STORAGE_BUFFER
        | vk::BufferUsageFlags::TRANSFER_SRC
        | vk::BufferUsageFlags::TRANSFER_DST;
    // SAFETY: the caller vouches for the memory type; the handles are new.
    unsafe {
        let info = vk::BufferCreateInfo::default().size(bytes as u64).usage(usage);
        let handle = device.create_buffer(&info, None)?;
        let size = device.get_buffer_memory_requirements(handle).size;
        let info = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(memory_type);
        let memory = device.allocate_memory(&info, None)?;
        device.bind_buffer_memory(handle, memory, 0)?;
        let at = device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
        Ok(Buffer { handle, at: at.cast(), memory })
    }
}

fn add_shader() -> Result<Vec<u32>, Failure> {
    let module = naga::front::wgsl::parse_str(ADD)?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    let info = validator.validate(&module)?;
    Ok(naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), None)?)
}

/// # Safety
/// The command buffer must be new and of this device, as the buffers.
unsafe fn record_add(
    device: &ash::Device,
    commands: vk::CommandBuffer,
    buffers: &[Buffer; 3],
) -> Result<(), Failure> {
    let binding = |number| {
        vk::DescriptorSetLayoutBinding::default()
            .binding(number)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
    };
    let bindings = [binding(0), binding(1), binding(2)];
    let words = add_shader()?;
    // SAFETY: the words are a valid module; handles are used with the device that made them.
    unsafe {
        let layouts = [device.create_descriptor_set_layout(
            &vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings),
            None,
        )?];
        let layout = device
            .create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts), None)?;
        let module =
            device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        let pipelines = device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
        let pipeline = *pipelines.map_err(|(_, error)| error)?.first().ok_or("no pipeline")?;
        let sizes =
            [vk::DescriptorPoolSize::default().ty(vk::DescriptorType::STORAGE_BUFFER).descriptor_count(3)];
        let pool = device.create_descriptor_pool(
            &vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes),
            None,
        )?;
        let sets = device.allocate_descriptor_sets(
            &vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts),
        )?;
        let set = *sets.first().ok_or("no descriptor set")?;
        let whole = |buffer: &Buffer| {
            [vk::DescriptorBufferInfo::default().buffer(buffer.handle).range(vk::WHOLE_SIZE)]
        };
        for (number, buffer) in (0..).zip(buffers) {
            let info = whole(buffer);
            let write = vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(number)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(&info);
            device.update_descriptor_sets(&[write], &[]);
        }
        device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
        device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline);
        device.cmd_bind_descriptor_sets(commands, vk::PipelineBindPoint::COMPUTE, layout, 0, &[set], &[]);
        device.cmd_dispatch(commands, 1, 1, 1);
        device.end_command_buffer(commands)?;
    }
    Ok(())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// f32, row-major, the loop order that vectorises, rows shared out over threads.
fn matmul(n: usize) -> Duration {
    let fill = |seed: usize| (0..n * n).map(|i| ((i * 7 + seed) % 13) as f32 * 0.25).collect::<Vec<f32>>();
    let (a, b) = (fill(1), fill(2));
    let mut c = vec![0.0_f32; n * n];
    let begun = Instant::now();
    let rows = n.div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        for (c, a) in c.chunks_mut(rows * n).zip(a.chunks(rows * n)) {
            scope.spawn(|| {
                for (c, a) in c.chunks_mut(n).zip(a.chunks(n)) {
                    for (a, b) in a.iter().zip(b.chunks(n)) {
                        for (c, b) in c.iter_mut().zip(b) {
                            *c += a * b;
                        }
                    }
                }
            });
        }
    });
    let took = begun.elapsed();
    std::hint::black_box(&c);
    took
}

/// f32, eight partial sums a thread.
fn sum(n: usize) -> Duration {
    let values: Vec<f32> = (0..n).map(|i| (i % 17) as f32 * 0.5).collect();
    let begun = Instant::now();
    let part = n.div_ceil(threads()).max(1);
    let total: f32 = std::thread::scope(|scope| {
        let sums: Vec<_> = values
            .chunks(part)
            .map(|part| {
                scope.spawn(|| {
                    let mut sums = [0.0_f32; 8];
                    for eight in part.chunks(8) {
                        for (sum, value) in sums.iter_mut().zip(eight) {
                            *sum += value;
                        }
                    }
                    sums.iter().sum::<f32>()
                })
            })
            .collect();
        sums.into_iter().filter_map(|sum| sum.join().ok()).sum()
    });
    let took = begun.elapsed();
    std::hint::black_box(total);
    took
}
