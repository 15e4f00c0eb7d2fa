//! The trait between the tree and the GPUs of this host: `/zed/gpu`.
//!
//! Apart from [`crate::Control`], because the world is a snapshot and a queue moves thousands of times a second. No
//! method blocks on a device; what takes as long as a job calls back.

mod queue;
mod scan;

pub(crate) use queue::LONGEST;
pub(crate) use queue::QueueHandle;

use crate::Caller;
use crate::Outcome;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;
use zed_ctl::CtlError;
use zed_ctl::GpuJobView;
use zed_ctl::GpuStats;
use zed_ctl::GpuSuspects;
use zed_ctl::GpuVerb;
use zed_ctl::GpuView;
use zed_ctl::ShaderView;

/// Names a job: its device's number and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// `gpu/N`.
    pub gpu: u32,
    /// `jobs/ID`. Ids grow and are never used again on a host.
    pub id: u64,
}

/// Which side of a job a buffer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// `in/`: what the job reads.
    In,
    /// `out/`: what it gives; empty until it is done.
    Out,
}

/// What a listing says of a job: whose it is, and when it last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPlace {
    /// Who submitted it. Only this user and root read what goes in and out.
    pub uid: u32,
    /// The submitter's group.
    pub gid: u32,
    /// Its last change of state.
    pub changed: SystemTime,
}

/// One file of `in/` or `out/`: raw little-endian elements, the last axis varies fastest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferPlace {
    /// The array's name.
    pub name: String,
    /// Bytes that the array has.
    pub bytes: u64,
    /// It can be written now: an `Upload` of a job that has not been started.
    pub writable: bool,
}

/// The content of a buffer.
#[derive(Debug)]
pub enum BufferContent {
    /// Small, in memory.
    Memory(Arc<[u8]>),
    /// Large, or written by a client: a real file of exactly the array's size.
    File(File),
}

/// What a read of the submitting handle gives.
pub type ReplyDone = Box<dyn FnOnce(Result<Arc<[u8]>, CtlError>) + Send>;

/// Called once, from any thread, when a job has ended: the verdict that `wait` gives. Must be quick.
pub type EndDone = Box<dyn FnOnce(Outcome) + Send>;

/// The GPUs of this host as the tree sees them.
pub trait Gpus: Send + Sync + 'static {
    /// The numbers of the devices, in order.
    fn gpus(&self) -> Vec<u32>;

    /// `gpu/N/info`; nothing for a device that is not there.
    fn info(&self, gpu: u32) -> Option<GpuView>;

    /// `gpu/N/stats`, as of now.
    fn stats(&self, gpu: u32) -> Option<GpuStats>;

    /// `gpu/N/suspects`.
    fn suspects(&self, gpu: u32) -> Option<GpuSuspects>;

    /// `gpu/N/shaders/`: one file a kernel that the node has seen, by name.
    fn shaders(&self, gpu: u32) -> Vec<String>;

    /// `gpu/N/shaders/NAME`.
    fn shader(&self, gpu: u32, name: &str) -> Option<ShaderView>;

    /// The ids of all jobs that are kept, in order.
    fn jobs(&self, gpu: u32) -> Vec<u64>;

    /// Whose a job is; nothing when it is not kept (any more).
    fn job_place(&self, key: JobKey) -> Option<JobPlace>;

    /// `jobs/ID/status`.
    fn job(&self, key: JobKey) -> Option<GpuJobView>;

    /// `jobs/ID/result`: the outputs as text; empty until it is done.
    fn result(&self, key: JobKey) -> Option<Arc<[u8]>>;

    /// The files of `in/` or `out/`.
    fn buffers(&self, key: JobKey, side: Side) -> Option<Vec<BufferPlace>>;

    /// Opens a buffer. For writing only what is [`BufferPlace::writable`]; never made longer or shorter.
    ///
    /// # Errors
    /// Not found; busy, when the job has been started; not there yet.
    fn open_buffer(
        &self,
        key: JobKey,
        side: Side,
        name: &str,
        write: bool,
    ) -> Result<BufferContent, CtlError>;

    /// How many raw bytes have to follow this text and its NUL: those of its `Raw` inputs. Asked only when the text is
    /// complete and has one.
    ///
    /// # Errors
    /// A text that is no job, as [`Gpus::submit`] would refuse it.
    fn raw_bytes(&self, gpu: u32, text: &[u8]) -> Result<u64, CtlError>;

    /// Judges and takes one job: what was written to `gpu/N/queue` in one piece, the bytes of raw inputs included. When
    /// this returns, the job survives the death of zedd.
    ///
    /// # Errors
    /// A text that is no job, with line and column; [`zed_ctl::Code::Full`] when the queue takes no more now.
    fn submit(&self, caller: Caller, gpu: u32, bytes: &[u8]) -> Result<u64, CtlError>;

    /// Makes jobs that were taken survive the loss of power: `fsync` of the handle that submitted them.
    ///
    /// # Errors
    /// When the disk refuses.
    fn commit(&self, gpu: u32) -> Result<(), CtlError>;

    /// Calls `done` with what the submitting handle gives to read: the id and a newline at once, or what
    /// `zed_spec::job::Reply` asks for when the job has ended. Asked once a job, by the first reader.
    fn reply(&self, key: JobKey, done: ReplyDone);

    /// Calls `done` when the job has ended; at once when it has, or is not kept.
    fn when_ended(&self, key: JobKey, done: EndDone);

    /// Carries out one verb that was written to `gpu/N/ctl`, or to `jobs/ID/ctl` when `job` is there. Who may is judged here.
    ///
    /// # Errors
    /// Bad argument, not found, not permitted.
    fn verb(&self, caller: Caller, gpu: u32, job: Option<u64>, verb: GpuVerb) -> Result<(), CtlError>;
}
