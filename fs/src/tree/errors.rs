//! The `error` files: why the last write beside them was refused, until the next one succeeds.

use super::gpu::GpuFile;
use super::gpu::GpuNode;
use super::gpu::JobFile;
use super::node::AppFile;
use super::node::HostFile;
use super::node::Node;
use super::node::RootFile;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

/// The longest text that is kept, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// A text, and when it became that.
type Kept = (Arc<[u8]>, SystemTime);

/// Texts by the node of their file. Shared with waits that end later.
#[derive(Debug, Default)]
pub struct Errors {
    texts: Mutex<HashMap<Node, Kept>>,
}

impl Errors {
    /// The `error` file beside a verb file.
    pub fn beside(file: &crate::VerbFile) -> Node {
        match file {
            crate::VerbFile::Root => Node::RootFile(RootFile::Error),
            crate::VerbFile::App(app) | crate::VerbFile::Rollback(app) => {
                Node::AppFile(app.as_str().into(), AppFile::Error)
            }
            crate::VerbFile::Host(host) => Node::HostFile(host.as_str().into(), HostFile::Error),
            crate::VerbFile::Gpu(gpu) => Node::Gpu(GpuNode::File(*gpu, GpuFile::Error)),
            crate::VerbFile::GpuJob(key) => Node::Gpu(GpuNode::JobFile(*key, JobFile::Error)),
        }
    }

    /// Keeps a text.
    pub fn set(&self, file: &Node, text: &str) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default().as_bytes();
        self.texts.lock().insert(file.clone(), (text.into(), SystemTime::now()));
    }

    /// Something succeeded.
    pub fn clear(&self, file: &Node) {
        if let Some(kept) = self.texts.lock().get_mut(file)
            && !kept.0.is_empty()
        {
            *kept = (Arc::new([]), SystemTime::now());
        }
    }

    /// The text, and when it became that; nothing when nothing was ever refused.
    pub fn get(&self, file: &Node) -> Option<Kept> {
        self.texts.lock().get(file).cloned()
    }

    /// Forgets the texts of what is gone.
    pub fn keep(&self, exists: impl Fn(&Node) -> bool) {
        self.texts.lock().retain(|node, _| exists(node));
    }
}
