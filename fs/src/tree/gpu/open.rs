//! Open files below `gpu`: the queue, buffers, and `wait`.

use super::GpuFile;
use super::GpuNode;
use super::JobFile;
use super::show;
use crate::BufferContent;
use crate::Caller;
use crate::Fault;
use crate::Gpus;
use crate::JobKey;
use crate::Side;
use crate::gpu::LONGEST;
use crate::gpu::QueueHandle;
use crate::tree::Access;
use crate::tree::Caching;
use crate::tree::Errors;
use crate::tree::Node;
use crate::tree::SetAttr;
use crate::wait::Chunk;
use crate::wait::Finish;
use crate::wait::Late;
use crate::wait::Step;
use crate::wait::Verdict;
use crate::wait::Waiting;
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// One open file below `gpu` that is more than a text.
pub(in crate::tree) enum GpuHandle {
    /// `queue`, for writing.
    Queue(QueueHandle),
    /// `in/NAME`, `out/NAME`
    Buffer(Buffer),
    /// `wait`
    Wait(Arc<dyn Gpus>, JobKey, Verdict),
}

/// An open array.
pub(in crate::tree) struct Buffer {
    content: BufferContent,
    bytes: u64,
    side: Side,
    write: bool,
    errors: Arc<Errors>,
    error_file: Node,
}

impl GpuNode {
    /// Opens what is no plain text; nothing for other files.
    ///
    /// # Errors
    /// ENOENT; EBUSY for an input of a job that has been started; EACCES for writing an output.
    pub(in crate::tree) fn open(
        &self,
        gpus: &Arc<dyn Gpus>,
        errors: &Arc<Errors>,
        access: Access,
    ) -> Result<Option<GpuHandle>, Fault> {
        Ok(match self {
            GpuNode::File(gpu, GpuFile::Queue) if access.write => {
                let (gpus, errors) = (Arc::clone(gpus), Arc::clone(errors));
                let queue = QueueHandle::new(gpus, *gpu, errors, self.error_file(), access.read);
                Some(GpuHandle::Queue(queue))
            }
            GpuNode::JobFile(key, JobFile::Wait) if !access.write => {
                Some(GpuHandle::Wait(Arc::clone(gpus), *key, Verdict::default()))
            }
            GpuNode::Buffer(_, Side::Out, _) if access.write => return Err(Errno::EACCES.into()),
            GpuNode::Buffer(key, side, name) => {
                let place = show::buffer(&**gpus, *key, *side, name).ok_or(Errno::ENOENT)?;
                let content = gpus.open_buffer(*key, *side, name, access.write).map_err(|error| {
                    errors.set(&self.error_file(), &error.render());
                    Fault::from(error)
                })?;
                Some(GpuHandle::Buffer(Buffer {
                    content,
                    bytes: place.bytes,
                    side: *side,
                    write: access.write,
                    errors: Arc::clone(errors),
                    error_file: self.error_file(),
                }))
            }
            _ => None,
        })
    }

    /// Changes of attributes: `>`, `cp` and `dd` cut and touch what keeps its size and its owner.
    ///
    /// # Errors
    /// EFBIG for an array that would be longer than it is; EPERM.
    pub(in crate::tree) fn set_attr(&self, gpus: &dyn Gpus, set: SetAttr) -> Result<(), Fault> {
        if set.mode.or(set.uid).or(set.gid).is_some() {
            return Err(Errno::EPERM.into());
        }
        match self {
            GpuNode::File(_, GpuFile::Queue) => Ok(()),
            GpuNode::Buffer(key, Side::In, name) => {
                let place = show::buffer(gpus, *key, Side::In, name).ok_or(Errno::ENOENT)?;
                match set.size {
                    Some(size) if size > place.bytes => Err(Errno::EFBIG.into()),
                    _ => Ok(()),
                }
            }
            _ => Err(Errno::EPERM.into()),
        }
    }
}

impl GpuHandle {
    /// True when a close has nothing to do.
    pub(in crate::tree) fn is_read_only(&self) -> bool {
        match self {
            GpuHandle::Queue(_) => false,
            GpuHandle::Buffer(buffer) => !buffer.write,
            GpuHandle::Wait(..) => true,
        }
    }

    /// What may be kept of it.
    pub(in crate::tree) fn caching(&self) -> Caching {
        match self {
            GpuHandle::Queue(_) => Caching::Stream,
            // What a job gave does not change any more, and its id is never used again.
            GpuHandle::Buffer(buffer) if buffer.side == Side::Out => Caching::Kept,
            GpuHandle::Buffer(_) | GpuHandle::Wait(..) => Caching::Never,
        }
    }

    /// Reads.
    pub(in crate::tree) fn read(&self, offset: u64, size: usize, nonblock: bool) -> Step<Chunk> {
        match self {
            GpuHandle::Queue(queue) => queue.read(size, nonblock),
            GpuHandle::Buffer(buffer) => Step::Done(buffer.read(offset, size)),
            GpuHandle::Wait(gpus, key, verdict) => {
                if let Some(chunk) = verdict.known(offset, size) {
                    return Step::Done(Ok(chunk));
                }
                if nonblock {
                    return show::verdict(&**gpus, *key).map(|text| Chunk::of(&text, offset, size)).into();
                }
                let (gpus, key) = (Arc::clone(gpus), *key);
                verdict.wait((offset, size), LONGEST, move |done| gpus.when_ended(key, done))
            }
        }
    }

    /// Writes.
    ///
    /// # Errors
    /// What a job is refused with; EFBIG beyond the end of an array; EBADF.
    pub(in crate::tree) fn write(&self, caller: Caller, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        match self {
            GpuHandle::Queue(queue) => queue.write(caller, data),
            GpuHandle::Buffer(buffer) if buffer.write => buffer.write(offset, data),
            GpuHandle::Buffer(_) | GpuHandle::Wait(..) => Err(Errno::EBADF.into()),
        }
    }

    /// A close of one descriptor.
    ///
    /// # Errors
    /// EBADMSG for a job that is not complete.
    pub(in crate::tree) fn flush(&self, caller: Caller) -> Result<(), Fault> {
        match self {
            GpuHandle::Queue(queue) => queue.flush(caller),
            GpuHandle::Buffer(_) | GpuHandle::Wait(..) => Ok(()),
        }
    }

    /// `fsync`: jobs that were taken, and bytes that were written, survive the loss of power.
    pub(in crate::tree) fn fsync(&self) -> Step<()> {
        match self {
            GpuHandle::Queue(queue) => queue.fsync().into(),
            GpuHandle::Buffer(Buffer { content: BufferContent::File(file), write: true, .. }) => {
                match file.try_clone() {
                    Ok(file) => sync(file),
                    Err(error) => Step::Done(Err(error.into())),
                }
            }
            GpuHandle::Buffer(_) | GpuHandle::Wait(..) => Step::Done(Ok(())),
        }
    }

    /// The last descriptor is closed.
    pub(in crate::tree) fn release(&self) {
        if let GpuHandle::Queue(queue) = self {
            queue.release();
        }
    }
}

/// Gigabytes may have to reach the disk: that takes a thread of its own, and nobody else waits.
fn sync(file: File) -> Step<()> {
    let start = move |finish: Finish<()>| {
        std::thread::spawn(move || {
            // A client that has gone needs no answer.
            let _ = finish(file.sync_data().map_err(Fault::from));
        });
    };
    Step::Wait(Waiting { start: Box::new(start), limit: LONGEST, late: Late::Fail(Errno::ETIMEDOUT) })
}

impl Buffer {
    fn read(&self, offset: u64, size: usize) -> Result<Chunk, Fault> {
        match &self.content {
            BufferContent::Memory(bytes) => Ok(Chunk::of(bytes, offset, size)),
            BufferContent::File(file) => {
                let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
                Ok(Chunk::Own(crate::tree::files::read_real(file, offset, size.min(left))?))
            }
        }
    }

    /// What fits; beyond the end EFBIG, as on a full device.
    fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        let BufferContent::File(file) = &self.content else { return Err(Errno::EBADF.into()) };
        let room = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fits = data.get(..room.min(data.len())).unwrap_or_default();
        if fits.is_empty() && !data.is_empty() {
            let text = format!("the array has {} bytes, and byte {offset} was to be written", self.bytes);
            let fault = Fault::new(Errno::EFBIG, text);
            self.errors.set(&self.error_file, fault.text.as_deref().unwrap_or_default());
            return Err(fault);
        }
        file.write_all_at(fits, offset)?;
        self.errors.clear(&self.error_file);
        Ok(fits.len())
    }
}
