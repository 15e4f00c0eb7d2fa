//! Which kernels a job needs, as far as zedd has to know: to blame them, and to keep evicted ones away.
//!
//! A node says it once for each shape of job. Where it has not, the program is made here, which needs no device.

use crate::device::Limits;
use crate::ops;
use crate::program::Author;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use zed_spec::job::Job;

/// How many shapes are remembered: more than a node does, so that none is unknown here that it will not name again.
const SHAPES: usize = 4096;

/// How many kernels are listed in `shaders/`.
const SEEN: usize = 4096;

/// One kernel of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: Arc<str>,
    pub(super) author: Author,
}

/// What `shaders/` knows of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) author: Author,
    pub(super) jobs: u64,
    used: u64,
}

/// The kernels of jobs, by shape.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    shapes: HashMap<u64, (Arc<[Known]>, u64)>,
    seen: BTreeMap<Arc<str>, Seen>,
    clock: u64,
}

/// Names what decides a job's program, the same for a run of zedd.
#[derive(Debug, Clone, Default)]
pub(super) struct ShapeHasher(RandomState);

impl ShapeHasher {
    pub(super) fn shape(&self, job: &Job) -> u64 {
        let key = (&job.arrays, job.inputs.len(), &job.steps, &job.outputs);
        // What cannot be encoded cannot be sent either; it shares a shape with nothing that runs.
        postcard::to_allocvec(&key).map_or(0, |bytes| self.0.hash_one(bytes))
    }
}

impl Kernels {
    /// The kernels of a job, made here when no node has named them. Nothing for a job that this device cannot do.
    pub(super) fn of(&mut self, shape: u64, job: &Job, limits: &Limits) -> Option<Arc<[Known]>> {
        self.clock += 1;
        if let Some((kernels, used)) = self.shapes.get_mut(&shape) {
            *used = self.clock;
            return Some(Arc::clone(kernels));
        }
        let kernels = planned(job, limits)?;
        self.keep(shape, Arc::clone(&kernels));
        Some(kernels)
    }

    /// A node names the kernels of a job.
    pub(super) fn named(&mut self, shape: u64, names: &[Arc<str>], job: &Job, limits: &Limits) {
        self.clock += 1;
        let planned = planned(job, limits).unwrap_or_default();
        let author = |name: &Arc<str>| {
            planned.iter().find(|known| known.name == *name).map_or(Author::Catalogue, |known| known.author)
        };
        let kernels: Vec<Known> =
            names.iter().map(|name| Known { name: Arc::clone(name), author: author(name) }).collect();
        self.keep(shape, kernels.into());
    }

    /// A job of this shape ended. Its kernels, when they are known.
    pub(super) fn count(&mut self, shape: u64) -> Option<Arc<[Known]>> {
        self.clock += 1;
        let (kernels, used) = self.shapes.get_mut(&shape)?;
        *used = self.clock;
        let kernels = Arc::clone(kernels);
        for known in kernels.iter() {
            if let Some(seen) = self.seen.get_mut(&known.name) {
                seen.jobs += 1;
                seen.used = self.clock;
            }
        }
        Some(kernels)
    }

    pub(super) fn seen(&self) -> &BTreeMap<Arc<str>, Seen> {
        &self.seen
    }

    fn keep(&mut self, shape: u64, kernels: Arc<[Known]>) {
        for known in kernels.iter() {
            let seen = Seen { author: known.author, jobs: 0, used: self.clock };
            self.seen.entry(Arc::clone(&known.name)).or_insert(seen);
        }
        self.shapes.insert(shape, (kernels, self.clock));
        forget_eighth(&mut self.shapes, SHAPES, |(_, used)| *used);
        if self.seen.len() > SEEN {
            let mut ages: Vec<u64> = self.seen.values().map(|seen| seen.used).collect();
            ages.sort_unstable();
            let oldest = ages.get(SEEN / 8).copied().unwrap_or(0);
            self.seen.retain(|_, seen| seen.used > oldest);
        }
    }
}

fn forget_eighth<T>(kept: &mut HashMap<u64, T>, most: usize, used: impl Fn(&T) -> u64) {
    if kept.len() <= most {
        return;
    }
    let mut ages: Vec<u64> = kept.values().map(&used).collect();
    ages.sort_unstable();
    let oldest = ages.get(most / 8).copied().unwrap_or(0);
    kept.retain(|_, one| used(one) > oldest);
}

fn planned(job: &Job, limits: &Limits) -> Option<Arc<[Known]>> {
    let program = ops::program(job, limits).ok()?;
    let mut kernels: Vec<Known> = Vec::new();
    for dispatch in &program.dispatches {
        if !kernels.iter().any(|known| known.name == dispatch.kernel.id.0) {
            let name = Arc::clone(&dispatch.kernel.id.0);
            kernels.push(Known { name, author: dispatch.kernel.author });
        }
    }
    Some(kernels.into())
}

/// Who is to blame when a job with these kernels does not end: those that its user wrote, if there are any.
pub(super) fn blamed(kernels: &[Known]) -> Vec<&str> {
    let users: Vec<&str> =
        kernels.iter().filter(|known| known.author == Author::User).map(|known| &*known.name).collect();
    if users.is_empty() { kernels.iter().map(|known| &*known.name).collect() } else { users }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, author: Author) -> Known {
        Known { name: name.into(), author }
    }

    #[test]
    fn a_users_kernel_is_blamed_before_the_catalogues() {
        let both = [known("add", Author::Catalogue), known("spin", Author::User)];
        assert_eq!(blamed(&both), ["spin"]);
        assert_eq!(blamed(&both[..1]), ["add"]);
    }
}
