//! Which buffers a job's program works on, and what of them the host writes and reads.
//!
//! Pure. Checks everything that a device would take on trust: sizes, bindings, groups, push constants.

use super::JobError;
use crate::device::Limits;
use crate::program::Author;
use crate::program::Buffer;
use crate::program::Dispatch;
use crate::program::Program;
use crate::vk::BufferPlan;
use zed_spec::job::ArrayId;
use zed_spec::job::Job;

/// Where an output's bytes are after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputFrom {
    /// In this buffer.
    Buffer(usize),
    /// No kernel touches it: it is this input, as it came.
    Input(usize),
}

/// The buffers of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// All of them.
    pub(super) buffers: Vec<BufferPlan>,
    /// The buffer of each input; none for one that no kernel reads.
    pub(super) inputs: Vec<Option<usize>>,
    /// Bytes of each input.
    pub(super) input_bytes: Vec<u64>,
    /// Where each output is.
    pub(super) outputs: Vec<OutputFrom>,
    /// Bytes of each output.
    pub(super) output_bytes: Vec<u64>,
    /// The bindings of each dispatch, as places in `buffers`.
    pub(super) bindings: Vec<Vec<usize>>,
    /// A user wrote one of the kernels.
    pub(super) user: bool,
}

/// Gives each array that a kernel binds, and each temporary, a buffer.
///
/// # Errors
/// What does not fit the device, naming the array or the kernel.
pub(super) fn layout(job: &Job, program: &Program, limits: &Limits) -> Result<Layout, JobError> {
    let user = program.dispatches.iter().any(|dispatch| dispatch.kernel.author == Author::User);
    let mut places: Vec<Option<usize>> = vec![None; job.arrays.len()];
    let mut temporaries: Vec<Option<usize>> = vec![None; program.temporaries.len()];
    let mut buffers = Vec::new();
    let mut bindings = Vec::with_capacity(program.dispatches.len());
    for dispatch in &program.dispatches {
        check(dispatch, limits)?;
        let mut bound = Vec::with_capacity(dispatch.buffers.len());
        for buffer in &dispatch.buffers {
            let (place, bytes, name) = match buffer {
                Buffer::Array(id) => {
                    let array = job.arrays.get(id.0 as usize);
                    let array = array.ok_or_else(|| broken(dispatch, "binds an array that is not there"))?;
                    (places.get_mut(id.0 as usize), array.bytes(), array.name.as_str())
                }
                Buffer::Temporary(number) => {
                    let bytes = program.temporaries.get(*number as usize);
                    let bytes = bytes.ok_or_else(|| broken(dispatch, "binds a buffer that is not there"))?;
                    (temporaries.get_mut(*number as usize), *bytes, "an intermediate result")
                }
            };
            if bytes > limits.buffer_bytes {
                let most = limits.buffer_bytes;
                return Err(JobError::Buffer { name: name.to_owned(), bytes, most });
            }
            let Some(place) = place else { return Err(broken(dispatch, "binds a buffer that is not there")) };
            bound.push(*place.get_or_insert_with(|| {
                buffers.push(BufferPlan { bytes, upload: false, download: false, clear: user });
                buffers.len() - 1
            }));
        }
        bindings.push(bound);
    }
    let place_of = |id: &ArrayId| places.get(id.0 as usize).copied().flatten();
    let inputs: Vec<_> = job.inputs().map(|(id, ..)| place_of(&id)).collect();
    for place in inputs.iter().flatten() {
        if let Some(buffer) = buffers.get_mut(*place) {
            (buffer.upload, buffer.clear) = (true, false);
        }
    }
    let mut outputs = Vec::with_capacity(job.outputs.len());
    for id in &job.outputs {
        outputs.push(match place_of(id) {
            Some(place) => {
                if let Some(buffer) = buffers.get_mut(place) {
                    buffer.download = true;
                }
                OutputFrom::Buffer(place)
            }
            None if (id.0 as usize) < job.inputs.len() => OutputFrom::Input(id.0 as usize),
            None => {
                let name = job.arrays.get(id.0 as usize).map_or("?", |array| array.name.as_str());
                return Err(JobError::Program(format!("no kernel gives \"{name}\"")));
            }
        });
    }
    let input_bytes = job.inputs().map(|(_, array, _)| array.bytes()).collect();
    let output_bytes = job.outputs().map(|(_, array)| array.bytes()).collect();
    Ok(Layout { buffers, inputs, input_bytes, outputs, output_bytes, bindings, user })
}

fn broken(dispatch: &Dispatch, what: &str) -> JobError {
    JobError::Program(format!("the kernel {} {what}", dispatch.kernel.id))
}

/// What the device takes on trust of one dispatch.
fn check(dispatch: &Dispatch, limits: &Limits) -> Result<(), JobError> {
    let kernel = &dispatch.kernel;
    if dispatch.buffers.len() != kernel.bindings as usize {
        return Err(broken(
            dispatch,
            &format!("binds {} buffers, not its own number", dispatch.buffers.len()),
        ));
    }
    if kernel.bindings > limits.bindings {
        let most = limits.bindings;
        return Err(broken(
            dispatch,
            &format!("has {} bindings; this device allows {most}", kernel.bindings),
        ));
    }
    if dispatch.push.len() != kernel.push_bytes as usize || kernel.push_bytes > limits.push_bytes {
        let (given, most) = (dispatch.push.len(), limits.push_bytes);
        return Err(broken(
            dispatch,
            &format!("has {given} bytes of push constants; this device allows {most}"),
        ));
    }
    let fits = dispatch.groups.iter().zip(&limits.groups).all(|(count, most)| (1..=*most).contains(count));
    if !fits {
        let ([x, y, z], [a, b, c]) = (dispatch.groups, limits.groups);
        let what = format!("has ({x}, {y}, {z}) workgroups; this device allows from 1 to ({a}, {b}, {c})");
        return Err(broken(dispatch, &what));
    }
    Ok(())
}
