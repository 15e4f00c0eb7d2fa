//! A failed operation on a file, and which refusal of the store it is.

use crate::StoreError;
use crate::StoreErrorKind;
use std::io;
use std::path::Path;

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing}")]
pub(super) struct Failure {
    doing: String,
    #[source]
    pub(super) source: io::Error,
}

impl Failure {
    pub(super) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// For `map_err`: `verb` and the path it was done to.
    pub(super) fn at<E: Into<io::Error>>(verb: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let doing = format!("{verb} `{}`", path.display());
        move |source| Self::new(doing, source)
    }

    /// The store's refusal of `operation` on `object` that this failure means.
    pub(super) fn into_store_error(self, operation: &'static str, object: impl ToString) -> StoreError {
        let object = object.to_string();
        let failed = format!("failed to {}", self.doing);
        let (kind, source): (_, Box<dyn std::error::Error + Send + Sync>) = match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (StoreErrorKind::NoSpace, Box::new(self))
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                (StoreErrorKind::Permission(failed), Box::new(self.source))
            }
            _ => (StoreErrorKind::Io(failed), Box::new(self.source)),
        };
        StoreError { operation, object, kind, source: Some(source) }
    }
}
