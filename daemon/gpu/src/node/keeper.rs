//! Writes caches to disk in a thread of its own, so that no job waits for a disk.

use super::cache;
use super::cache::Identity;
use super::folder;
use super::folder::Writer;
use super::shaders;
use super::shaders::Shaders;
use crate::device::Limits;
use crate::program::Kernel;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// What is to be written.
enum Keep {
    Shader(PathBuf, Vec<u32>),
    Pipelines(Vec<u8>),
}

/// Finds what is kept, and has new things written.
pub(super) struct Keeper {
    shaders: Shaders,
    queue: Sender<Keep>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Keeps shaders, and pipelines where this node is the one that `writer` says.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn new(shaders: Shaders, writer: Option<Writer>, identity: Identity) -> io::Result<Self> {
        let (queue, from) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("gpu-keeper".to_owned())
            .spawn(move || work(&from, writer.as_ref(), &identity))?;
        Ok(Self { shaders, queue, thread })
    }

    /// A kernel's SPIR-V, if it is kept.
    pub(super) fn shader(&self, kernel: &Kernel, limits: &Limits) -> Option<Vec<u32>> {
        shaders::load(&self.shaders.path(kernel, limits))
    }

    /// Has a kernel's SPIR-V written.
    pub(super) fn keep_shader(&self, kernel: &Kernel, limits: &Limits, spirv: &[u32]) {
        self.send(Keep::Shader(self.shaders.path(kernel, limits), spirv.to_vec()));
    }

    /// Has the pipeline cache written.
    pub(super) fn keep_pipelines(&self, blob: Vec<u8>) {
        self.send(Keep::Pipelines(blob));
    }

    fn send(&self, keep: Keep) {
        // Only a keeper that panicked hears nothing; then nothing is kept, and all goes on.
        let _ = self.queue.send(keep);
    }

    /// Waits until all is written.
    pub(super) fn finish(self) {
        drop(self.queue);
        let _ = self.thread.join();
    }
}

fn work(queue: &Receiver<Keep>, writer: Option<&Writer>, identity: &Identity) {
    let mut said = false;
    while let Ok(keep) = queue.recv() {
        let written = match keep {
            Keep::Shader(path, words) => folder::write_whole(&path, &shaders::encode(&words), false),
            Keep::Pipelines(blob) => {
                writer.map_or(Ok(()), |writer| writer.write(&cache::encode(&blob, identity)))
            }
        };
        if let (Err(error), false) = (written, said) {
            said = true;
            eprintln!("zedd gpu-node: a cache cannot be written, the next start will be slower: {error}");
        }
    }
}
