//! From the text after `--store` to a store. Owns that syntax; never guesses a store that was not named.

use crate::Store;
use crate::StoreError;
use crate::embedded::EmbeddedStore;
use crate::rules::invalid;
use std::path::Path;
use std::sync::Arc;

/// Opens `embedded:DIR` or `zfs:POOL[/PATH]`.
///
/// `Invalid` when the text is neither, `Unsupported` for ZFS in a build without it, and what opening gives.
pub fn open(spec: &str) -> Result<Arc<dyn Store>, StoreError> {
    match spec.split_once(':') {
        Some(("embedded", dir)) if !dir.is_empty() => Ok(Arc::new(EmbeddedStore::open(Path::new(dir))?)),
        Some(("zfs", root)) if !root.is_empty() => open_zfs(root),
        _ => Err(invalid("open", spec, "a store is `embedded:DIR` or `zfs:POOL[/PATH]`")),
    }
}

#[cfg(feature = "zfs")]
fn open_zfs(root: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(crate::zfs::ZfsStore::open(root)?))
}

#[cfg(not(feature = "zfs"))]
fn open_zfs(root: &str) -> Result<Arc<dyn Store>, StoreError> {
    let why = "this zedd was built without OpenZFS; build with `cargo build --release --features zfs` \
               (needs libzfs headers; `cargo xtask zfs` fetches them)";
    let kind = crate::StoreErrorKind::Unsupported(why.to_owned());
    Err(crate::rules::refuse("open", format!("zfs:{root}"), kind))
}

#[cfg(test)]
mod tests;
