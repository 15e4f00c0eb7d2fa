//! `/zed/gpu`: which folders and files there are.
//!
//! Owns names, no state: devices and jobs are asked of [`Gpus`] each time.

mod open;
mod show;

pub(super) use open::GpuHandle;
pub(super) use show::Seen;

use super::Entry;
use super::node::Node;
use super::node::files;
use crate::Gpus;
use crate::JobKey;
use crate::Side;
use crate::VerbFile;
use std::fmt;
use std::sync::Arc;

files! {
    /// Files of a device.
    GpuFile {
        /// The device and its node: flat-keyed.
        Info = "info",
        /// The same as JSON.
        InfoJson = "info.json",
        /// Verbs.
        Ctl = "ctl",
        /// Jobs are written here.
        Queue = "queue",
        /// Counters, shares, histograms.
        Stats = "stats",
        /// The same as JSON.
        StatsJson = "stats.json",
        /// Kernels that did not end in time.
        Suspects = "suspects",
        /// The same as JSON.
        SuspectsJson = "suspects.json",
        /// Why the last write to `queue` or `ctl` was refused.
        Error = "error",
    }
}

files! {
    /// Files of a job.
    JobFile {
        /// Flat-keyed.
        Status = "status",
        /// The same as JSON.
        StatusJson = "status.json",
        /// Verbs.
        Ctl = "ctl",
        /// Why the last write to `ctl` or `in/` was refused; else why the job failed.
        Error = "error",
        /// The outputs as text.
        Result = "result",
        /// Reading it waits for the end.
        Wait = "wait",
    }
}

/// One place below `gpu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GpuNode {
    /// `gpu`
    All,
    /// `gpu/N`
    Gpu(u32),
    /// A file of a device.
    File(u32, GpuFile),
    /// `gpu/N/shaders`
    Shaders(u32),
    /// `gpu/N/shaders/NAME`
    Shader(u32, Arc<str>),
    /// `gpu/N/jobs`
    Jobs(u32),
    /// `gpu/N/jobs/ID`
    Job(JobKey),
    /// A file of a job.
    JobFile(JobKey, JobFile),
    /// `in`, `out`
    Side(JobKey, Side),
    /// `in/NAME`, `out/NAME`
    Buffer(JobKey, Side, Arc<str>),
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::In => "in",
        Side::Out => "out",
    }
}

/// A number as it is shown: `07` and `+7` name nothing.
fn number<T: std::str::FromStr + ToString>(name: &str) -> Option<T> {
    name.parse().ok().filter(|number: &T| number.to_string() == name)
}

impl GpuNode {
    /// True for folders.
    pub fn is_dir(&self) -> bool {
        match self {
            GpuNode::All
            | GpuNode::Gpu(_)
            | GpuNode::Shaders(_)
            | GpuNode::Jobs(_)
            | GpuNode::Job(_)
            | GpuNode::Side(..) => true,
            GpuNode::File(..) | GpuNode::Shader(..) | GpuNode::JobFile(..) | GpuNode::Buffer(..) => false,
        }
    }

    /// A name that stays as long as the daemon runs. Devices do not go away: one that is lost says so.
    pub(super) fn has_fixed_name(&self) -> bool {
        matches!(
            self,
            GpuNode::All | GpuNode::Gpu(_) | GpuNode::File(..) | GpuNode::Shaders(_) | GpuNode::Jobs(_)
        )
    }

    /// The verb file that it is.
    pub(super) fn verb_file(&self) -> Option<VerbFile> {
        match self {
            GpuNode::File(gpu, GpuFile::Ctl) => Some(VerbFile::Gpu(*gpu)),
            GpuNode::JobFile(key, JobFile::Ctl) => Some(VerbFile::GpuJob(*key)),
            _ => None,
        }
    }

    /// The `error` file that speaks for it.
    pub(super) fn error_file(&self) -> Node {
        Node::Gpu(match self {
            GpuNode::Job(key)
            | GpuNode::JobFile(key, _)
            | GpuNode::Side(key, _)
            | GpuNode::Buffer(key, ..) => GpuNode::JobFile(*key, JobFile::Error),
            GpuNode::Gpu(gpu)
            | GpuNode::File(gpu, _)
            | GpuNode::Shaders(gpu)
            | GpuNode::Shader(gpu, _)
            | GpuNode::Jobs(gpu) => GpuNode::File(*gpu, GpuFile::Error),
            GpuNode::All => GpuNode::All,
        })
    }

    /// True as long as what it belongs to is there.
    pub(super) fn exists(&self, gpus: &dyn Gpus) -> bool {
        match self {
            GpuNode::All => true,
            GpuNode::Gpu(gpu) | GpuNode::File(gpu, _) | GpuNode::Shaders(gpu) | GpuNode::Jobs(gpu) => {
                gpus.gpus().contains(gpu)
            }
            GpuNode::Shader(gpu, name) => gpus.shader(*gpu, name).is_some(),
            GpuNode::Job(key) | GpuNode::JobFile(key, _) | GpuNode::Side(key, _) => {
                gpus.job_place(*key).is_some()
            }
            GpuNode::Buffer(key, side, name) => show::buffer(gpus, *key, *side, name).is_some(),
        }
    }

    /// What a folder has under that name.
    pub(super) fn child(&self, gpus: &dyn Gpus, name: &str) -> Option<GpuNode> {
        let found = match self {
            GpuNode::All => GpuNode::Gpu(number(name)?),
            GpuNode::Gpu(gpu) => match name {
                "jobs" => GpuNode::Jobs(*gpu),
                "shaders" => GpuNode::Shaders(*gpu),
                _ => GpuNode::File(*gpu, GpuFile::from_name(name)?),
            },
            GpuNode::Shaders(gpu) => GpuNode::Shader(*gpu, name.into()),
            GpuNode::Jobs(gpu) => GpuNode::Job(JobKey { gpu: *gpu, id: number(name)? }),
            GpuNode::Job(key) => match name {
                "in" => GpuNode::Side(*key, Side::In),
                "out" => GpuNode::Side(*key, Side::Out),
                _ => GpuNode::JobFile(*key, JobFile::from_name(name)?),
            },
            GpuNode::Side(key, side) => GpuNode::Buffer(*key, *side, name.into()),
            GpuNode::File(..) | GpuNode::Shader(..) | GpuNode::JobFile(..) | GpuNode::Buffer(..) => {
                return None;
            }
        };
        found.exists(gpus).then_some(found)
    }

    /// What a folder holds; nothing for one that is gone.
    pub(super) fn list(&self, gpus: &dyn Gpus) -> Option<Vec<Entry>> {
        if !self.exists(gpus) {
            return None;
        }
        let entry = |name: String, node: GpuNode| Entry { name, node: Node::Gpu(node) };
        Some(match self {
            GpuNode::All => {
                gpus.gpus().into_iter().map(|gpu| entry(gpu.to_string(), GpuNode::Gpu(gpu))).collect()
            }
            GpuNode::Gpu(gpu) => GpuFile::ALL
                .iter()
                .map(|file| entry(file.name().to_owned(), GpuNode::File(*gpu, *file)))
                .chain([
                    entry("jobs".to_owned(), GpuNode::Jobs(*gpu)),
                    entry("shaders".to_owned(), GpuNode::Shaders(*gpu)),
                ])
                .collect(),
            GpuNode::Shaders(gpu) => gpus
                .shaders(*gpu)
                .into_iter()
                .map(|name| {
                    let node = GpuNode::Shader(*gpu, name.as_str().into());
                    entry(name, node)
                })
                .collect(),
            GpuNode::Jobs(gpu) => gpus
                .jobs(*gpu)
                .into_iter()
                .map(|id| entry(id.to_string(), GpuNode::Job(JobKey { gpu: *gpu, id })))
                .collect(),
            GpuNode::Job(key) => JobFile::ALL
                .iter()
                .map(|file| entry(file.name().to_owned(), GpuNode::JobFile(*key, *file)))
                .chain(
                    [Side::In, Side::Out]
                        .map(|side| entry(side_name(side).to_owned(), GpuNode::Side(*key, side))),
                )
                .collect(),
            GpuNode::Side(key, side) => gpus
                .buffers(*key, *side)?
                .into_iter()
                .map(|place| {
                    let node = GpuNode::Buffer(*key, *side, place.name.as_str().into());
                    entry(place.name, node)
                })
                .collect(),
            GpuNode::File(..) | GpuNode::Shader(..) | GpuNode::JobFile(..) | GpuNode::Buffer(..) => {
                return None;
            }
        })
    }
}

/// The path below the top.
impl fmt::Display for GpuNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuNode::All => f.write_str("gpu"),
            GpuNode::Gpu(gpu) => write!(f, "gpu/{gpu}"),
            GpuNode::File(gpu, file) => write!(f, "gpu/{gpu}/{}", file.name()),
            GpuNode::Shaders(gpu) => write!(f, "gpu/{gpu}/shaders"),
            GpuNode::Shader(gpu, name) => write!(f, "gpu/{gpu}/shaders/{name}"),
            GpuNode::Jobs(gpu) => write!(f, "gpu/{gpu}/jobs"),
            GpuNode::Job(key) => write!(f, "gpu/{}/jobs/{}", key.gpu, key.id),
            GpuNode::JobFile(key, file) => write!(f, "gpu/{}/jobs/{}/{}", key.gpu, key.id, file.name()),
            GpuNode::Side(key, side) => write!(f, "gpu/{}/jobs/{}/{}", key.gpu, key.id, side_name(*side)),
            GpuNode::Buffer(key, side, name) => {
                write!(f, "gpu/{}/jobs/{}/{}/{name}", key.gpu, key.id, side_name(*side))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_as_it_is_shown_is_a_name() {
        assert_eq!(number::<u32>("7"), Some(7));
        assert_eq!(number::<u64>("0"), Some(0));
        for name in ["07", "+7", "-1", "", "7 ", "x", "4294967296"] {
            assert_eq!(number::<u32>(name), None, "{name:?}");
        }
    }

    #[test]
    fn paths_are_what_is_listed() {
        let key = JobKey { gpu: 0, id: 12 };
        for (node, path) in [
            (GpuNode::File(1, GpuFile::Queue), "gpu/1/queue"),
            (GpuNode::Shader(0, "add.f32".into()), "gpu/0/shaders/add.f32"),
            (GpuNode::JobFile(key, JobFile::StatusJson), "gpu/0/jobs/12/status.json"),
            (GpuNode::Buffer(key, Side::Out, "c".into()), "gpu/0/jobs/12/out/c"),
        ] {
            assert_eq!(node.to_string(), path);
        }
    }
}
