//! Runs jobs on a device that is open in this process.
//!
//! Keeps what it has prepared: plans by the text of a job without its data, shapes (pipelines and buffers) that plans with
//! other numbers share, and recorded programs with their buffers. All three are bounded. Never waits with a deadline: a
//! kernel that spins is ended with its process.

use super::error::JobError;
use super::error::OpenError;
use super::keeper::Keeper;
use super::layout::Layout;
use super::layout::OutputFrom;
use super::layout::layout;
use crate::device::DeviceInfo;
use crate::device::Selection;
use crate::device::choose;
use crate::ops;
use crate::program::Kernel;
use crate::program::KernelId;
use crate::program::Program;
use crate::vk::Device;
use crate::vk::DeviceOptions;
use crate::vk::DispatchPlan;
use crate::vk::Driver;
use crate::vk::MemoryStats;
use crate::vk::Pipeline;
use crate::vk::Recorded;
use crate::vk::VkError;
use crate::wgsl;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::Job;
use zed_spec::job::Step;

/// How many plans are kept.
const PLANS: usize = 512;

/// How many pipelines are kept.
const PIPELINES: usize = 1024;

/// How many recorded programs of one shape are kept: as many as one submit holds.
const INSTANCES: usize = 64;

/// How an engine is opened.
#[derive(Debug, Clone)]
pub struct EngineOptions<'a> {
    /// Which device.
    pub selection: Selection,
    /// A driver that computes on the CPU will do.
    pub allow_cpu: bool,
    /// How the device is opened.
    pub device: DeviceOptions<'a>,
}

impl Default for EngineOptions<'_> {
    fn default() -> Self {
        Self { selection: Selection::Rank(0), allow_cpu: false, device: DeviceOptions::default() }
    }
}

/// What of a job decides its program.
#[derive(Serialize)]
struct PlanKey<'a> {
    arrays: &'a [Array],
    inputs: usize,
    steps: &'a [Step],
    outputs: &'a [ArrayId],
}

/// What recorded programs have in common when only their push constants differ.
#[derive(PartialEq, Eq, Hash)]
struct ShapeKey {
    buffers: Vec<crate::vk::BufferPlan>,
    dispatches: Vec<(KernelId, Vec<usize>, [u32; 3])>,
}

/// Recorded programs that wait for their next run.
#[derive(Default)]
struct Shape {
    idle: Mutex<Vec<Instance>>,
}

impl Shape {
    fn idle(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recorded program, and the plan whose push constants it has.
struct Instance {
    recorded: Recorded,
    plan: Weak<Plan>,
}

/// What was prepared for jobs that differ in their data only.
struct Plan {
    layout: Layout,
    program: Program,
    pipelines: Vec<Arc<Pipeline>>,
    shape: Arc<Shape>,
}

impl Plan {
    fn dispatches(&self) -> Vec<DispatchPlan<'_>> {
        let parts = self.program.dispatches.iter().zip(&self.layout.bindings).zip(&self.pipelines);
        parts
            .map(|((dispatch, buffers), pipeline)| DispatchPlan {
                pipeline,
                buffers,
                push: &dispatch.push,
                groups: dispatch.groups,
            })
            .collect()
    }
}

/// Something kept, and when it was last used.
struct Kept<T> {
    value: T,
    used: u64,
}

/// A kernel and its pipeline.
struct Compiled {
    kernel: Arc<Kernel>,
    pipeline: Arc<Pipeline>,
}

/// What preparing a job took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Microseconds for compiling shaders and making pipelines.
    pub compile: u64,
    /// Pipelines that the driver found in its cache.
    pub cache_hits: u32,
    /// Pipelines that had to be made.
    pub pipelines: u32,
    /// Shaders of them whose SPIR-V was on disk.
    pub shader_hits: u32,
    /// Its plan is new.
    pub planned: bool,
}

/// A job with its memory: its inputs are written, it is run, its outputs are read, and it is ended.
pub struct Running {
    plan: Arc<Plan>,
    recorded: Recorded,
    /// What preparing it took.
    pub prepared: Prepared,
}

/// Where an output is.
pub enum Output<'a> {
    /// Here.
    Bytes(&'a [u8]),
    /// It is this input, as it came.
    Input(usize),
}

impl Running {
    /// A user wrote one of its kernels.
    pub fn user(&self) -> bool {
        self.plan.layout.user
    }

    /// Bytes of each input.
    pub fn input_bytes(&self) -> &[u64] {
        &self.plan.layout.input_bytes
    }

    /// Bytes of each output.
    pub fn output_bytes(&self) -> &[u64] {
        &self.plan.layout.output_bytes
    }

    /// Where an input is to be written; nothing when no kernel reads it.
    pub fn input(&mut self, input: usize) -> Option<&mut [u8]> {
        let place = self.plan.layout.inputs.get(input).copied().flatten()?;
        self.recorded.input(place)
    }

    /// An output, after the run.
    pub fn output(&self, output: usize) -> Option<Output<'_>> {
        match self.plan.layout.outputs.get(output)? {
            OutputFrom::Buffer(place) => self.recorded.output(*place).map(Output::Bytes),
            OutputFrom::Input(input) => Some(Output::Input(*input)),
        }
    }
}

/// An open device, and what was prepared for it.
pub struct Engine {
    device: Device,
    plans: HashMap<Vec<u8>, Kept<Arc<Plan>>>,
    shapes: HashMap<Arc<ShapeKey>, Weak<Shape>>,
    pipelines: HashMap<KernelId, Kept<Compiled>>,
    clock: u64,
    key: Vec<u8>,
    keeper: Option<Keeper>,
    /// Pipelines that were made since the cache was last written.
    unsaved: u32,
}

impl Engine {
    /// Loads Vulkan and opens a device.
    ///
    /// # Errors
    /// No loader, no such device, a device that cannot be used.
    pub fn open(options: &EngineOptions<'_>) -> Result<Self, OpenError> {
        let driver = Arc::new(Driver::load()?);
        let place = choose(&driver.devices(), &options.selection, options.allow_cpu)?;
        Ok(Self::on(Device::open(&driver, place, &options.device)?, None))
    }

    /// On a device that is open; what is compiled is kept on disk by `keeper`.
    pub(super) fn on(device: Device, keeper: Option<Keeper>) -> Self {
        Self {
            device,
            plans: HashMap::new(),
            shapes: HashMap::new(),
            pipelines: HashMap::new(),
            clock: 0,
            key: Vec::new(),
            keeper,
            unsaved: 0,
        }
    }

    /// What it runs on.
    pub fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the device's memory is used for.
    pub fn memory(&self) -> MemoryStats {
        self.device.memory()
    }

    /// Computes a job: its inputs' bytes in, its outputs' bytes out.
    ///
    /// # Errors
    /// Why it cannot be computed.
    pub fn compute(&mut self, job: &Job, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, JobError> {
        let running = self.begin(job)?;
        self.finish(running, inputs)
    }

    /// Computes a job by a program that the catalogue does not have.
    ///
    /// # Errors
    /// Why it cannot be computed.
    pub fn compute_by(
        &mut self,
        job: &Job,
        program: Program,
        inputs: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, JobError> {
        let (plan, prepared) = self.plan(job, program, |_, _| ())?;
        let running = self.instance(plan, prepared)?;
        self.finish(running, inputs)
    }

    fn finish(&mut self, mut running: Running, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, JobError> {
        let result = self.run_one(&mut running, inputs);
        self.end(running);
        result
    }

    fn run_one(&mut self, running: &mut Running, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, JobError> {
        let wanted = running.input_bytes();
        if wanted.len() != inputs.len() {
            return Err(JobError::Input(format!("{} inputs for a job of {}", inputs.len(), wanted.len())));
        }
        let sizes = wanted.iter().zip(inputs).position(|(bytes, input)| *bytes != input.len() as u64);
        if let Some(number) = sizes {
            return Err(JobError::Input(format!("input {number} does not have the size of its array")));
        }
        for (number, bytes) in inputs.iter().enumerate() {
            if let Some(place) = running.input(number) {
                place.copy_from_slice(bytes);
            }
        }
        self.run(&mut [running])?;
        let count = running.output_bytes().len();
        let bytes = (0..count).filter_map(|output| match running.output(output)? {
            Output::Bytes(bytes) => Some(bytes.to_vec()),
            Output::Input(input) => inputs.get(input).map(|bytes| bytes.to_vec()),
        });
        Ok(bytes.collect())
    }

    /// Prepares a job, or finds what was prepared for one that differs in its data only, and gives it memory.
    ///
    /// # Errors
    /// Why it cannot be computed.
    pub fn begin(&mut self, job: &Job) -> Result<Running, JobError> {
        self.begin_with(job, |_, _| ())
    }

    /// The same; if it has to be prepared, `planned` hears of its kernels, and whether a user wrote one of them, before any
    /// is compiled: a compiler may hang like a device.
    ///
    /// # Errors
    /// As [`Engine::begin`].
    pub fn begin_with(
        &mut self,
        job: &Job,
        planned: impl FnOnce(&[KernelId], bool),
    ) -> Result<Running, JobError> {
        let key = PlanKey {
            arrays: &job.arrays,
            inputs: job.inputs.len(),
            steps: &job.steps,
            outputs: &job.outputs,
        };
        self.key.clear();
        self.key = postcard::to_extend(&key, std::mem::take(&mut self.key))
            .map_err(|error| JobError::Program(format!("the job cannot be encoded: {error}")))?;
        self.clock += 1;
        if let Some(kept) = self.plans.get_mut(&self.key) {
            kept.used = self.clock;
            let plan = Arc::clone(&kept.value);
            return self.instance(plan, Prepared::default());
        }
        let info = self.device.info();
        let program = ops::program_on(job, &info.limits, info.kind)?;
        ops::check_users(job, &info.limits)?;
        let key = self.key.clone();
        let (plan, prepared) = self.plan(job, program, planned)?;
        make_room(&mut self.plans, PLANS);
        self.plans.insert(key, Kept { value: Arc::clone(&plan), used: self.clock });
        self.shapes.retain(|_, shape| shape.strong_count() > 0);
        self.instance(plan, prepared)
    }

    /// Runs what was begun, in one submit, and waits for its end.
    ///
    /// # Errors
    /// The device was lost, or has no memory left.
    pub fn run(&mut self, batch: &mut [&mut Running]) -> Result<(), JobError> {
        self.run_with(batch, Duration::MAX, || ())
    }

    /// The same; `slow` is called once if it takes longer than `patience`.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_with(
        &mut self,
        batch: &mut [&mut Running],
        patience: Duration,
        slow: impl FnOnce(),
    ) -> Result<(), JobError> {
        let mut recorded: Vec<&mut Recorded> =
            batch.iter_mut().map(|running| &mut running.recorded).collect();
        Ok(self.device.run(&mut recorded, patience, slow)?)
    }

    /// Keeps its memory for the next of its shape.
    pub fn end(&mut self, running: Running) {
        let mut idle = running.plan.shape.idle();
        if idle.len() < INSTANCES {
            idle.push(Instance { recorded: running.recorded, plan: Arc::downgrade(&running.plan) });
        }
    }

    /// A recorded program for a plan: an idle one, or a new one.
    fn instance(&mut self, plan: Arc<Plan>, prepared: Prepared) -> Result<Running, JobError> {
        let idle = plan.shape.idle().pop();
        let kept = match idle {
            Some(instance) if std::ptr::eq(instance.plan.as_ptr(), Arc::as_ptr(&plan)) => {
                Some(instance.recorded)
            }
            Some(mut instance) => match instance.recorded.record_again(&plan.dispatches()) {
                Ok(()) => Some(instance.recorded),
                Err(error @ VkError::Lost(_)) => return Err(error.into()),
                // Its pipelines were made anew since: it is of no use.
                Err(_) => None,
            },
            None => None,
        };
        let recorded = kept.map_or_else(|| self.record(&plan), Ok)?;
        Ok(Running { plan, recorded, prepared })
    }

    fn record(&mut self, plan: &Plan) -> Result<Recorded, JobError> {
        let dispatches = plan.dispatches();
        match self.device.record(&plan.layout.buffers, &dispatches) {
            Err(VkError::Memory { .. }) => {
                // What waits for its next run gives its memory up; what runs now keeps it.
                self.forget_idle();
                Ok(self.device.record(&plan.layout.buffers, &dispatches)?)
            }
            result => Ok(result?),
        }
    }

    /// Gives up the memory of everything that is not running.
    pub fn forget_idle(&mut self) {
        for shape in self.shapes.values().filter_map(Weak::upgrade) {
            shape.idle().clear();
        }
        self.device.trim();
    }

    fn plan(
        &mut self,
        job: &Job,
        program: Program,
        planned: impl FnOnce(&[KernelId], bool),
    ) -> Result<(Arc<Plan>, Prepared), JobError> {
        let layout = layout(job, &program, &self.device.info().limits)?;
        let mut kernels: Vec<KernelId> = Vec::new();
        for dispatch in &program.dispatches {
            if !kernels.contains(&dispatch.kernel.id) {
                kernels.push(dispatch.kernel.id.clone());
            }
        }
        planned(&kernels, layout.user);
        let mut prepared = Prepared::default();
        let mut pipelines = Vec::with_capacity(program.dispatches.len());
        for dispatch in &program.dispatches {
            pipelines.push(self.pipeline(&dispatch.kernel, &mut prepared)?);
        }
        prepared.planned = true;
        let parts = program.dispatches.iter().zip(&layout.bindings);
        let key = Arc::new(ShapeKey {
            buffers: layout.buffers.clone(),
            dispatches: parts
                .map(|(dispatch, bound)| (dispatch.kernel.id.clone(), bound.clone(), dispatch.groups))
                .collect(),
        });
        let shape = self.shapes.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        self.shapes.insert(key, Arc::downgrade(&shape));
        Ok((Arc::new(Plan { layout, program, pipelines, shape }), prepared))
    }

    fn pipeline(&mut self, kernel: &Arc<Kernel>, prepared: &mut Prepared) -> Result<Arc<Pipeline>, JobError> {
        if let Some(kept) = self.pipelines.get_mut(&kernel.id) {
            kept.used = self.clock;
            let known = &kept.value;
            if Arc::ptr_eq(&known.kernel, kernel) || known.kernel == *kernel {
                return Ok(Arc::clone(&known.pipeline));
            }
        }
        let started = Instant::now();
        let spirv = self.spirv(kernel, prepared)?;
        let made =
            self.device.pipeline(&spirv, kernel.bindings, kernel.push_bytes).map_err(
                |error| match error {
                    VkError::Call { .. } | VkError::Workgroup { .. } => {
                        JobError::Pipeline { kernel: kernel.id.clone(), error }
                    }
                    other => JobError::Device(other),
                },
            )?;
        self.unsaved += 1;
        prepared.pipelines += 1;
        prepared.cache_hits += u32::from(made.cache_hit == Some(true));
        prepared.compile += u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        make_room(&mut self.pipelines, PIPELINES);
        let value = Compiled { kernel: Arc::clone(kernel), pipeline: Arc::clone(&made.pipeline) };
        self.pipelines.insert(kernel.id.clone(), Kept { value, used: self.clock });
        Ok(made.pipeline)
    }

    fn spirv(&self, kernel: &Kernel, prepared: &mut Prepared) -> Result<Vec<u32>, JobError> {
        let limits = &self.device.info().limits;
        if let Some(kept) = self.keeper.as_ref().and_then(|keeper| keeper.shader(kernel, limits)) {
            prepared.shader_hits += 1;
            return Ok(kept);
        }
        let spirv = wgsl::compile(kernel, limits)?;
        if let Some(keeper) = &self.keeper {
            keeper.keep_shader(kernel, limits, &spirv);
        }
        Ok(spirv)
    }

    /// Whether pipelines were made that the file of the pipeline cache does not have.
    pub(super) fn unsaved(&self) -> bool {
        self.unsaved > 0 && self.keeper.is_some()
    }

    /// Has the pipeline cache written, by another thread.
    pub(super) fn save(&mut self) {
        self.unsaved = 0;
        if let (Some(keeper), Ok(blob)) = (&self.keeper, self.device.pipeline_cache()) {
            keeper.keep_pipelines(blob);
        }
    }

    /// Writes the pipeline cache if it has something new, and waits until all is on disk.
    pub(super) fn close(mut self) {
        if self.unsaved() {
            self.save();
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.finish();
        }
    }
}

/// Leaves room for one more: forgets the eighth that was not used for the longest time.
fn make_room<K: Clone + Eq + std::hash::Hash, T>(kept: &mut HashMap<K, Kept<T>>, most: usize) {
    if kept.len() < most {
        return;
    }
    let mut ages: Vec<u64> = kept.values().map(|one| one.used).collect();
    ages.sort_unstable();
    let oldest = ages.get(most / 8).copied().unwrap_or(0);
    kept.retain(|_, one| one.used > oldest);
}
