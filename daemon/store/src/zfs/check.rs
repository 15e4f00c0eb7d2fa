//! What is checked before libzfs or the kernel is asked, so that a request is refused whole and in plain words.

use super::errors::fail;
use crate::BRANCHES;
use crate::MAX_VALUE;
use crate::StoreError;
use crate::StoreErrorKind;
use zed_spec::DatasetPath;

/// Longest name of a property, one byte less than ZFS's buffer (`ZAP_MAXNAMELEN`).
const MAX_PROPERTY: usize = 255;
/// Longest full name of a snapshot or dataset, one byte less than `ZFS_MAX_DATASET_NAME_LEN`.
pub(super) const MAX_NAME: usize = 255;

fn invalid(operation: &'static str, object: &str, text: String) -> StoreError {
    fail(operation, object, StoreErrorKind::Invalid(text))
}

/// A user property's name: lower case, with a colon.
pub(super) fn property(operation: &'static str, object: &str, name: &str) -> Result<(), StoreError> {
    let fine =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '+' | '-' | '.' | '_');
    if !name.contains(':') || !name.chars().all(fine) || name.starts_with('-') || name.len() > MAX_PROPERTY {
        let text = format!(
            "`{}` is no name of a user property: a-z, 0-9, `-`, `.`, `_`, `+` and at least one `:`, \
             at most {MAX_PROPERTY} bytes",
            name.escape_debug()
        );
        return Err(invalid(operation, object, text));
    }
    if name.starts_with(super::read::NOTE) {
        let text = format!("`{name}` is reserved for the store's own notes");
        return Err(invalid(operation, object, text));
    }
    Ok(())
}

/// A user property's value.
pub(super) fn value(
    operation: &'static str,
    object: &str,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE {
        let text = format!("the value of `{name}` has {} bytes; ZFS takes at most {MAX_VALUE}", value.len());
        return Err(invalid(operation, object, text));
    }
    if value.contains('\0') {
        return Err(invalid(operation, object, format!("the value of `{name}` contains a NUL byte")));
    }
    Ok(())
}

/// All of a request's user properties.
pub(super) fn user<'a>(
    operation: &'static str,
    object: &str,
    props: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), StoreError> {
    props.into_iter().try_for_each(|(name, text)| {
        property(operation, object, name)?;
        value(operation, object, name, text)
    })
}

/// The name of a snapshot, given in full.
pub(super) fn snapshot_name(operation: &'static str, full: &str) -> Result<(), StoreError> {
    let name = full.split_once('@').map_or("", |(_, name)| name);
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '.' | '_');
    if name.is_empty() || !name.chars().all(fine) {
        let text =
            format!("`{}` is no name of a snapshot: A-Z, a-z, 0-9, `-`, `.`, `_`, `:`", name.escape_debug());
        return Err(invalid(operation, full, text));
    }
    if full.len() > MAX_NAME {
        let text = format!("the full name has {} bytes; ZFS takes at most {MAX_NAME}", full.len());
        return Err(invalid(operation, full, text));
    }
    Ok(())
}

/// A branch must be below `zed/branches`.
pub(super) fn branch(operation: &'static str, path: &DatasetPath) -> Result<(), StoreError> {
    if path.as_str().strip_prefix(BRANCHES).is_some_and(|rest| rest.starts_with('/')) {
        return Ok(());
    }
    Err(invalid(operation, path.as_str(), format!("a branch must be below `{BRANCHES}`")))
}

/// The version of the ZFS in the kernel, `zfs-2.3.2`; `zfs` where it cannot be told.
pub(super) fn kernel_version() -> String {
    let text = module_version().unwrap_or_default();
    let number = text.trim().trim_start_matches("zfs-").trim_start_matches("kmod-");
    let number = number.split(['-', '~']).next().unwrap_or_default();
    if number.is_empty() { "zfs".to_owned() } else { format!("zfs-{number}") }
}

#[cfg(target_os = "linux")]
fn module_version() -> Option<String> {
    std::fs::read_to_string("/sys/module/zfs/version").ok()
}

#[cfg(target_os = "freebsd")]
fn module_version() -> Option<String> {
    let mut buffer = [0u8; 128];
    let mut len = buffer.len();
    // SAFETY: the name is NUL-terminated; at most `len` bytes are written; nothing is set.
    let rc = unsafe {
        libc::sysctlbyname(
            c"vfs.zfs.version.module".as_ptr(),
            buffer.as_mut_ptr().cast(),
            &mut len,
            std::ptr::null(),
            0,
        )
    };
    if rc != 0 {
        return None;
    }
    std::ffi::CStr::from_bytes_until_nul(&buffer).ok()?.to_str().ok().map(str::to_owned)
}

/// illumos ships ZFS with the kernel and gives it no version of its own.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn module_version() -> Option<String> {
    None
}
