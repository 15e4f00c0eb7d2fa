//! Programs: what a node dispatches for one job.
//!
//! Made from the shape of a job and never from its data, so that a node keeps what it has prepared for jobs of the same
//! shape. Plain values: nothing here touches a device.

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use zed_spec::job::ArrayId;

/// Names a kernel: its label, and the first 16 hexadecimal digits of the sha256 of its source. What suspects, shader
/// files and caches go by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KernelId(pub Arc<str>);

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who wrote a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// It is ours: trusted to stay within its buffers and to end.
    Catalogue,
    /// It came with a job: compiled with every check, and dispatched alone.
    User,
}

/// A compute shader in WGSL with one entry point `main`; its storage buffers are bindings 0, 1, ... of group 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub id: KernelId,
    /// The whole source, prelude included.
    pub source: String,
    /// Who wrote it.
    pub author: Author,
    /// How many buffers it binds.
    pub bindings: u32,
    /// Bytes of its push constants (`var<immediate>`), 0 when it has none.
    pub push_bytes: u32,
}

impl Kernel {
    /// Names it by its label (`add-f32`) and its source.
    pub fn new(label: &str, source: String, author: Author, bindings: u32, push_bytes: u32) -> Self {
        let hash = Sha256::digest(source.as_bytes());
        let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { id: KernelId(format!("{label}-{hex}").into()), source, author, bindings, push_bytes }
    }
}

/// A buffer of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// An array of the job.
    Array(ArrayId),
    /// One of [`Program::temporaries`].
    Temporary(u32),
}

/// One kernel on some buffers. Each sees all writes of those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Arc<Kernel>,
    /// Its bindings.
    pub buffers: Vec<Buffer>,
    /// Its push constants.
    pub push: Vec<u8>,
    /// Workgroups.
    pub groups: [u32; 3],
}

/// What is dispatched for one job: one submit, one wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// Bytes of each buffer that is no array.
    pub temporaries: Vec<u64>,
    /// In this order. An array that none of them binds (because it was fused away) needs no buffer, unless it is an input
    /// that is an output too.
    pub dispatches: Vec<Dispatch>,
}
