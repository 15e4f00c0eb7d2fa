//! What the files below `gpu` say, how big they are, and whose.

use super::GpuFile;
use super::GpuNode;
use super::JobFile;
use crate::BufferPlace;
use crate::Fault;
use crate::Gpus;
use crate::JobKey;
use crate::Side;
use crate::tree::Attr;
use crate::tree::Errors;
use crate::tree::Lasts;
use crate::wait::text_of;
use nix::errno::Errno;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;
use zed_ctl::FileKind;

/// What reading the queue gives to somebody who has written nothing.
const QUEUE_USAGE: &str = "\
Write a job here; reading the same open file gives its id, or its result with `reply: Text` or `reply: Raw`.
    cat job.ron > queue                                      # its id is the newest in jobs/
    exec 3<>queue; cat job.ron >&3; read id <&3; cat jobs/$id/wait jobs/$id/result
";

/// What the files of a device said when somebody looked, and since when: mtime is the last change of a value.
#[derive(Debug, Default)]
pub(in crate::tree) struct Seen(Mutex<HashMap<GpuNode, Dated>>);

/// A text, and since when it is that.
type Dated = (Arc<[u8]>, SystemTime);

/// So many texts are remembered: those of many devices, and of many shaders.
const MAX_SEEN: usize = 4096;

impl Seen {
    fn since(&self, node: &GpuNode, text: &Arc<[u8]>) -> SystemTime {
        let mut seen = self.0.lock();
        if let Some((old, at)) = seen.get(node)
            && old == text
        {
            return *at;
        }
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        let now = SystemTime::now();
        seen.insert(node.clone(), (Arc::clone(text), now));
        now
    }
}

/// A file of `in/` or `out/`, when it is there.
pub(super) fn buffer(gpus: &dyn Gpus, key: JobKey, side: Side, name: &str) -> Option<BufferPlace> {
    gpus.buffers(key, side)?.into_iter().find(|place| place.name == name)
}

fn known(text: Option<String>) -> Result<Arc<[u8]>, Fault> {
    text.map(|text| text.into_bytes().into()).ok_or_else(|| Errno::ENOENT.into())
}

impl GpuNode {
    /// The text of a file that is no buffer.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub(in crate::tree) fn text(&self, gpus: &dyn Gpus, errors: &Errors) -> Result<Arc<[u8]>, Fault> {
        match self {
            GpuNode::File(gpu, file) => file_text(gpus, errors, *gpu, *file),
            GpuNode::Shader(gpu, name) => {
                known(gpus.shader(*gpu, name).map(|shader| zed_ctl::render_shader(&shader)))
            }
            GpuNode::JobFile(key, file) => job_text(gpus, errors, *key, *file),
            _ => Err(Errno::ENOENT.into()),
        }
    }

    /// Mode, owner, size and time.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub(in crate::tree) fn fill(
        &self,
        gpus: Option<&dyn Gpus>,
        (errors, seen): (&Errors, &Seen),
        attr: &mut Attr,
    ) -> Result<(), Fault> {
        let Some(gpus) = gpus else {
            // The folder is there, and empty.
            attr.lasts = Lasts::Run;
            return if *self == GpuNode::All { Ok(()) } else { Err(Errno::ENOENT.into()) };
        };
        match self {
            GpuNode::All => attr.lasts = Lasts::Run,
            GpuNode::Gpu(_) | GpuNode::Jobs(_) | GpuNode::Shaders(_) if self.exists(gpus) => {
                attr.lasts = Lasts::Run;
            }
            GpuNode::Gpu(_) | GpuNode::Jobs(_) | GpuNode::Shaders(_) => return Err(Errno::ENOENT.into()),
            GpuNode::File(_, file) => {
                let text = self.text(gpus, errors)?;
                attr.size = text.len() as u64;
                match file {
                    GpuFile::Queue => {
                        attr.mode = 0o666;
                        attr.lasts = Lasts::Run;
                    }
                    // Not everybody's: a program with the rights of root may be made to write a verb into what its caller opened.
                    GpuFile::Ctl => {
                        attr.mode = 0o644;
                        attr.lasts = Lasts::Run;
                    }
                    GpuFile::Error => {
                        if let Some((_, at)) = errors.get(&self.error_file()) {
                            attr.mtime = at;
                        }
                    }
                    _ => attr.mtime = seen.since(self, &text),
                }
            }
            GpuNode::Shader(..) => {
                let text = self.text(gpus, errors)?;
                (attr.size, attr.mtime) = (text.len() as u64, seen.since(self, &text));
            }
            GpuNode::Job(key)
            | GpuNode::JobFile(key, _)
            | GpuNode::Side(key, _)
            | GpuNode::Buffer(key, ..) => {
                let place = gpus.job_place(*key).ok_or(Errno::ENOENT)?;
                (attr.uid, attr.gid, attr.mtime) = (place.uid, place.gid, place.changed);
                self.fill_of_job(gpus, errors, attr)?;
            }
        }
        Ok(())
    }

    /// Everybody sees how a job is doing; what goes in and comes out is its submitter's.
    fn fill_of_job(&self, gpus: &dyn Gpus, errors: &Errors, attr: &mut Attr) -> Result<(), Fault> {
        match self {
            GpuNode::Side(..) => attr.mode = 0o700,
            GpuNode::Buffer(key, side, name) => {
                let place = buffer(gpus, *key, *side, name).ok_or(Errno::ENOENT)?;
                attr.mode = if place.writable { 0o600 } else { 0o400 };
                attr.size = place.bytes;
                if *side == Side::Out {
                    attr.lasts = Lasts::Run;
                }
            }
            GpuNode::JobFile(_, file) => {
                attr.mode = match file {
                    JobFile::Ctl => 0o644,
                    JobFile::Result => 0o400,
                    _ => 0o444,
                };
                attr.size = self.text(gpus, errors)?.len() as u64;
                if let (JobFile::Error, Some((text, at))) = (file, errors.get(&self.error_file()))
                    && !text.is_empty()
                {
                    attr.mtime = at;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn file_text(gpus: &dyn Gpus, errors: &Errors, gpu: u32, file: GpuFile) -> Result<Arc<[u8]>, Fault> {
    known(match file {
        GpuFile::Info => gpus.info(gpu).map(|info| zed_ctl::render_gpu_info(&info)),
        GpuFile::InfoJson => gpus.info(gpu).map(|info| zed_ctl::to_json(&info)),
        GpuFile::Stats => gpus.stats(gpu).map(|stats| zed_ctl::render_gpu_stats(&stats)),
        GpuFile::StatsJson => gpus.stats(gpu).map(|stats| zed_ctl::to_json(&stats)),
        GpuFile::Suspects => gpus.suspects(gpu).map(|suspects| zed_ctl::render_gpu_suspects(&suspects)),
        GpuFile::SuspectsJson => gpus.suspects(gpu).map(|suspects| zed_ctl::to_json(&suspects)),
        GpuFile::Ctl => Some(zed_ctl::usage(FileKind::GpuCtl)),
        GpuFile::Queue => Some(QUEUE_USAGE.to_owned()),
        GpuFile::Error => {
            let node = GpuNode::File(gpu, file).error_file();
            return Ok(errors.get(&node).map_or_else(|| Arc::new([]) as Arc<[u8]>, |(text, _)| text));
        }
    })
}

fn job_text(gpus: &dyn Gpus, errors: &Errors, key: JobKey, file: JobFile) -> Result<Arc<[u8]>, Fault> {
    known(match file {
        JobFile::Status => gpus.job(key).map(|job| zed_ctl::render_gpu_job(&job)),
        JobFile::StatusJson => gpus.job(key).map(|job| zed_ctl::to_json(&job)),
        JobFile::Ctl => Some(zed_ctl::usage(FileKind::GpuJobCtl)),
        JobFile::Result => return gpus.result(key).ok_or_else(|| Errno::ENOENT.into()),
        JobFile::Wait => return verdict(gpus, key),
        JobFile::Error => {
            let refused = errors.get(&GpuNode::JobFile(key, file).error_file());
            if let Some((text, _)) = refused.filter(|(text, _)| !text.is_empty()) {
                return Ok(text);
            }
            gpus.job(key).map(|job| crate::tree::render::terminated(&job.error))
        }
    })
}

/// What `wait` gives to somebody who does not wait: nothing before the end.
pub(super) fn verdict(gpus: &dyn Gpus, key: JobKey) -> Result<Arc<[u8]>, Fault> {
    if gpus.job(key).ok_or(Errno::ENOENT)?.ended_at == 0 {
        return Ok(Arc::new([]));
    }
    // It has ended, so this calls back before it returns.
    let told: Arc<Mutex<Arc<[u8]>>> = Arc::new(Mutex::new(Arc::new([])));
    let teller = Arc::clone(&told);
    gpus.when_ended(key, Box::new(move |outcome| *teller.lock() = text_of(outcome)));
    let text = Arc::clone(&told.lock());
    Ok(text)
}
