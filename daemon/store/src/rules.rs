//! The rules that OpenZFS has for names and values, for the stores that have no ZFS below them to enforce them.
//!
//! Pure checks. Never looks at what exists.

use crate::BRANCHES;
use crate::MANAGED;
use crate::MAX_VALUE;
use crate::Restore;
use crate::SnapshotRef;
use crate::StoreError;
use crate::StoreErrorKind;
use crate::TakeSnapshot;
use crate::UserProps;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::DatasetPath;

/// Longest name of a user property in bytes: `ZAP_MAXNAMELEN` without its NUL.
const MAX_NAME: usize = 255;
/// Longest `dataset@snapshot` in bytes: ZFS's 255 less room for a pool's name.
const MAX_SNAPSHOT: usize = 240;

/// Which values a native property takes.
enum Values {
    OnOff,
    /// A number of bytes (or of things) without upper limit; 0 means none, which is the same as not set.
    Limit,
    /// A power of two of bytes within these bounds.
    PowerOfTwo(u64, u64),
    OneOf(&'static [&'static str]),
    /// An absolute path, `none` or `legacy`.
    Mountpoint,
    /// Text that ZFS itself hands on (share options, labels).
    Text,
}

const COMPRESSION: &[&str] = &["on", "off", "lz4", "lzjb", "zle", "gzip", "zstd", "zstd-fast"];
const CHECKSUM: &[&str] =
    &["on", "off", "fletcher2", "fletcher4", "sha256", "noparity", "sha512", "skein", "edonr", "blake3"];
const CACHE: &[&str] = &["all", "none", "metadata"];

/// The native properties of a filesystem that may be set at any time, as of OpenZFS 2.3.
const NATIVE: &[(&str, Values)] = &[
    ("aclinherit", Values::OneOf(&["discard", "noallow", "restricted", "passthrough", "passthrough-x"])),
    ("aclmode", Values::OneOf(&["discard", "groupmask", "passthrough", "restricted"])),
    ("acltype", Values::OneOf(&["off", "nfsv4", "posix"])),
    ("atime", Values::OnOff),
    ("canmount", Values::OneOf(&["on", "off", "noauto"])),
    ("checksum", Values::OneOf(CHECKSUM)),
    ("compression", Values::OneOf(COMPRESSION)),
    ("copies", Values::OneOf(&["1", "2", "3"])),
    ("dedup", Values::Text),
    ("devices", Values::OnOff),
    ("direct", Values::OneOf(&["disabled", "standard", "always"])),
    ("dnodesize", Values::OneOf(&["legacy", "auto", "1k", "2k", "4k", "8k", "16k"])),
    ("exec", Values::OnOff),
    ("filesystem_limit", Values::Limit),
    ("jailed", Values::OnOff),
    ("logbias", Values::OneOf(&["latency", "throughput"])),
    ("longname", Values::OnOff),
    ("mountpoint", Values::Mountpoint),
    ("nbmand", Values::OnOff),
    ("overlay", Values::OnOff),
    ("prefetch", Values::OneOf(CACHE)),
    ("primarycache", Values::OneOf(CACHE)),
    ("quota", Values::Limit),
    ("readonly", Values::OnOff),
    ("recordsize", Values::PowerOfTwo(512, 16 << 20)),
    ("redundant_metadata", Values::OneOf(&["all", "most", "some", "none"])),
    ("refquota", Values::Limit),
    ("refreservation", Values::Limit),
    ("relatime", Values::OnOff),
    ("reservation", Values::Limit),
    ("secondarycache", Values::OneOf(CACHE)),
    ("setuid", Values::OnOff),
    ("sharenfs", Values::Text),
    ("sharesmb", Values::Text),
    ("snapdev", Values::OneOf(&["hidden", "visible"])),
    ("snapdir", Values::OneOf(&["disabled", "hidden", "visible"])),
    ("snapshot_limit", Values::Limit),
    ("special_small_blocks", Values::Text),
    ("sync", Values::OneOf(&["standard", "always", "disabled"])),
    ("vscan", Values::OnOff),
    ("xattr", Values::OneOf(&["on", "off", "dir", "sa"])),
    ("zoned", Values::OnOff),
];

/// A refusal without a cause below it.
pub(crate) fn refuse(operation: &'static str, object: impl ToString, kind: StoreErrorKind) -> StoreError {
    StoreError { operation, object: object.to_string(), kind, source: None }
}

/// A refusal because the request itself is wrong.
pub(crate) fn invalid(operation: &'static str, object: impl ToString, why: impl Into<String>) -> StoreError {
    refuse(operation, object, StoreErrorKind::Invalid(why.into()))
}

/// Checks one user property.
fn check_user_prop(name: &str, value: Option<&str>) -> Result<(), String> {
    if !name.contains(':') {
        return Err(format!("the user property name `{name}` has no `:`"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the user property name `{name}` is longer than {MAX_NAME} bytes"));
    }
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | ':');
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        let c = c.escape_default();
        let name = name.escape_default();
        return Err(format!(
            "`{c}` in the user property name `{name}` is not one of a-z, 0-9, `-`, `_`, `.`, `:`"
        ));
    }
    let Some(value) = value else { return Ok(()) };
    if value.len() > MAX_VALUE {
        return Err(format!("the value of `{name}` is {} bytes long; at most {MAX_VALUE} fit", value.len()));
    }
    if value.contains('\0') {
        return Err(format!("the value of `{name}` contains a NUL"));
    }
    Ok(())
}

/// Checks a map of user properties.
pub(crate) fn check_user(
    operation: &'static str,
    object: impl ToString,
    user: &UserProps,
) -> Result<(), StoreError> {
    user.iter()
        .try_for_each(|(name, value)| check_user_prop(name, Some(value)))
        .map_err(|why| invalid(operation, object, why))
}

/// Checks changes of user properties.
pub(crate) fn check_user_changes(
    operation: &'static str,
    object: impl ToString,
    user: &BTreeMap<String, Option<String>>,
) -> Result<(), StoreError> {
    user.iter()
        .try_for_each(|(name, value)| check_user_prop(name, value.as_deref()))
        .map_err(|why| invalid(operation, object, why))
}

/// Checks a native property; gives what is recorded, `None` when the value means "not set".
fn native_value(name: &str, value: &str) -> Result<Option<String>, String> {
    let Some((_, values)) = NATIVE.iter().find(|(known, _)| *known == name) else {
        return Err(format!("`{name}` is no native property that can be set"));
    };
    let number = || value.parse::<u64>().map_err(|_| format!("`{name}` takes a number, not `{value}`"));
    match values {
        Values::OnOff if matches!(value, "on" | "off") => Ok(Some(value.to_owned())),
        Values::OnOff => Err(format!("`{name}` takes `on` or `off`, not `{value}`")),
        Values::Limit if value == "none" || number()? == 0 => Ok(None),
        Values::Limit => Ok(Some(number()?.to_string())),
        Values::PowerOfTwo(least, most) => match number()? {
            n if n.is_power_of_two() && (*least..=*most).contains(&n) => Ok(Some(n.to_string())),
            n => Err(format!("`{name}` takes a power of two from {least} to {most}, not {n}")),
        },
        Values::OneOf(words) if words.contains(&value) => Ok(Some(value.to_owned())),
        // Levels: gzip-9, zstd-19, zstd-fast-100.
        Values::OneOf(words) if name == "compression" => match value.rsplit_once('-') {
            Some((word, level)) if words.contains(&word) && level.parse::<u16>().is_ok() => {
                Ok(Some(value.to_owned()))
            }
            _ => Err(format!("`{name}` does not take `{value}`")),
        },
        Values::OneOf(words) => Err(format!("`{name}` takes one of {}, not `{value}`", words.join(", "))),
        Values::Mountpoint if matches!(value, "none" | "legacy") => Ok(Some(value.to_owned())),
        Values::Mountpoint => mountpoint_value(value).map(Some),
        Values::Text if value.len() <= MAX_VALUE && !value.contains('\0') => Ok(Some(value.to_owned())),
        Values::Text => Err(format!("the value of `{name}` is too long or contains a NUL")),
    }
}

/// An absolute path without detours and without a trailing `/`.
fn mountpoint_value(value: &str) -> Result<String, String> {
    let tidy = value.starts_with('/')
        && value.len() > 1
        && value.len() < 1024
        && !value.contains('\0')
        && value[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    match tidy {
        true => Ok(value.to_owned()),
        false => Err(format!(
            "`mountpoint` takes `none`, `legacy` or an absolute path without `.`, `..` and empty parts, not `{value}`"
        )),
    }
}

/// Checks native properties and gives what is recorded of them.
pub(crate) fn native(
    operation: &'static str,
    object: impl ToString,
    native: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut recorded = BTreeMap::new();
    for (name, value) in native {
        match native_value(name, value) {
            Ok(Some(value)) => drop(recorded.insert(name.clone(), value)),
            Ok(None) => {}
            Err(why) => return Err(invalid(operation, object, why)),
        }
    }
    Ok(recorded)
}

/// Checks changes of native properties and gives what is to be recorded (`None`: remove).
pub(crate) fn native_changes(
    operation: &'static str,
    object: impl ToString,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, Option<String>>, StoreError> {
    let mut recorded = BTreeMap::new();
    for (name, value) in changes {
        let known = NATIVE.iter().any(|(known, _)| known == name);
        let value = match value {
            Some(value) => {
                native_value(name, value).map_err(|why| invalid(operation, object.to_string(), why))?
            }
            None if known => None,
            None => {
                return Err(invalid(
                    operation,
                    object,
                    format!("`{name}` is no native property that can be set"),
                ));
            }
        };
        recorded.insert(name.clone(), value);
    }
    Ok(recorded)
}

/// Checks the part of a snapshot's name after `@`.
fn check_snapshot_name(id: &SnapshotRef) -> Result<(), String> {
    let name = id.name.as_str();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if name.is_empty() {
        return Err("the part after `@` is empty".to_owned());
    }
    if id.dataset.as_str().len() + 1 + name.len() > MAX_SNAPSHOT {
        return Err(format!("dataset and snapshot name together are longer than {MAX_SNAPSHOT} bytes"));
    }
    if matches!(name, "." | "..") {
        return Err(format!("a snapshot must not be named `{name}`"));
    }
    match name.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!(
            "`{}` in the snapshot name is not one of A-Z, a-z, 0-9, `-`, `_`, `.` and `:`",
            c.escape_default()
        )),
        None => Ok(()),
    }
}

/// Checks everything about a set of snapshots that does not depend on what exists.
pub(crate) fn check_take(set: &[TakeSnapshot]) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    for take in set {
        check_snapshot_name(&take.id).map_err(|why| invalid("snapshot", &take.id, why))?;
        check_user("snapshot", &take.id, &take.user)?;
        if !seen.insert(&take.id.dataset) {
            return Err(invalid("snapshot", &take.id, "a set takes at most one snapshot of a dataset"));
        }
    }
    Ok(())
}

/// Checks that a name is that of a branch.
pub(crate) fn check_branch(operation: &'static str, branch: &DatasetPath) -> Result<(), StoreError> {
    match is_branch(branch) {
        true => Ok(()),
        false => Err(invalid(operation, branch, format!("it is not below `{BRANCHES}`"))),
    }
}

/// True for what is below `zed/branches`.
pub(crate) fn is_branch(path: &DatasetPath) -> bool {
    path.as_str().strip_prefix(BRANCHES).is_some_and(|rest| rest.starts_with('/'))
}

/// Checks everything about a restore that does not depend on what exists.
pub(crate) fn check_restore(request: &Restore) -> Result<(), StoreError> {
    check_branch("restore", &request.branch)?;
    check_user("restore", &request.dataset, &request.user)?;
    check_user("restore", &request.branch, &request.branch_user)?;
    if is_branch(&request.dataset) {
        return Err(invalid("restore", &request.dataset, "it is a branch; reinstate it first"));
    }
    if request.from.dataset != request.dataset && !is_branch(&request.from.dataset) {
        let from: &SnapshotRef = &request.from;
        let why = format!("`{from}` belongs neither to it nor to a branch");
        return Err(invalid("restore", &request.dataset, why));
    }
    Ok(())
}

/// What `zed` and `zed/branches` are created with when a branch needs them.
pub(crate) fn own_dataset() -> (BTreeMap<String, String>, UserProps) {
    (
        BTreeMap::from([("canmount".to_owned(), "off".to_owned())]),
        BTreeMap::from([(MANAGED.to_owned(), "on".to_owned())]),
    )
}

#[cfg(test)]
mod tests;
