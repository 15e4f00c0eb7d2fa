//! From open handles to the values of the store: datasets, snapshots, their properties. Changes nothing.

use super::errors::Refusal;
use super::handle::Handle;
use super::handle::is_settable;
use super::handle::number_text;
use super::mounts::Mounts;
use super::nvlist::Value;
use super::nvlist::View;
use super::nvlist::rust_text;
use crate::Dataset;
use crate::Snapshot;
use crate::SnapshotRef;
use crate::UserProps;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;
use zed_spec::DatasetPath;

/// User properties of this prefix are the store's own notes on a branch (see `branch`); not shown to callers.
pub(super) const NOTE: &str = "com.zed.store:";
/// Noted value of a property that had no local value.
pub(super) const NOT_SET: &str = "-";
/// How the kernel marks a value that came with `zfs receive`.
const RECEIVED: &CStr = c"$recvd";

/// Properties whose zero means "no limit" and is written `none`.
const ZERO_IS_NONE: [&str; 4] = ["quota", "refquota", "reservation", "refreservation"];
/// Properties whose largest value means "no limit" and is written `none`.
const MAX_IS_NONE: [&str; 2] = ["filesystem_limit", "snapshot_limit"];

/// `xattr=sa`; newer releases call it `on`, which older ones use for something else.
const XATTR_SA: u64 = 2;

/// One property: its value and where it was set.
pub(super) struct Prop<'a> {
    pub(super) name: &'a CStr,
    pub(super) value: Value<'a>,
    pub(super) source: &'a CStr,
}

/// All properties that have a source, of a handle.
pub(super) fn sourced<'a>(props: View<'a>) -> impl Iterator<Item = Prop<'a>> {
    props.pairs().filter_map(|(name, entry)| {
        let entry = entry.as_list()?;
        let source = entry.find(c"source")?.as_text()?;
        Some(Prop { name, value: entry.find(c"value")?, source })
    })
}

fn number(props: View<'_>, name: &CStr) -> Option<u64> {
    props.find(name)?.as_list()?.find(c"value")?.as_number()
}

fn text(props: View<'_>, name: &CStr) -> Option<String> {
    Some(rust_text(props.find(name)?.as_list()?.find(c"value")?.as_text()?))
}

fn is_user(name: &CStr) -> bool {
    name.to_bytes().contains(&b':')
}

/// Local and received user properties; the store's notes are left out.
fn user_props(handle: &Handle<'_>, full: &str) -> (UserProps, UserProps) {
    let (mut local, mut received) = (UserProps::new(), UserProps::new());
    for prop in sourced(handle.props()).filter(|p| is_user(p.name)) {
        let Some(value) = prop.value.as_text() else { continue };
        let name = rust_text(prop.name);
        if name.starts_with(NOTE) {
            continue;
        }
        if prop.source.to_bytes() == full.as_bytes() {
            local.insert(name, rust_text(value));
        } else if prop.source == RECEIVED {
            received.insert(name, rust_text(value));
        }
    }
    (local, received)
}

/// The store's notes on a dataset, by property they are about.
pub(super) fn notes(handle: &Handle<'_>, full: &str) -> BTreeMap<String, String> {
    sourced(handle.props())
        .filter(|p| p.source.to_bytes() == full.as_bytes())
        .filter_map(|p| {
            let about = rust_text(p.name).strip_prefix(NOTE)?.to_owned();
            Some((about, rust_text(p.value.as_text()?)))
        })
        .collect()
}

/// Native properties with source `local` that a user can set, as canonical text.
pub(super) fn native_props(handle: &Handle<'_>, full: &str) -> BTreeMap<String, String> {
    sourced(handle.props())
        .filter(|p| p.source.to_bytes() == full.as_bytes() && !is_user(p.name) && is_settable(p.name))
        .filter_map(|p| {
            let name = rust_text(p.name);
            let value = match (p.value.as_text(), p.value.as_number()) {
                // Paths come without the pool's altroot this way, as they were set.
                (Some(text), _) => rust_text(text),
                (None, Some(XATTR_SA)) if name == "xattr" => "sa".to_owned(),
                (None, Some(number)) => canonical(&name, number_text(p.name, number)?),
                (None, None) => return None,
            };
            Some((name, value))
        })
        .collect()
}

fn canonical(name: &str, value: String) -> String {
    let none = (ZERO_IS_NONE.contains(&name) && value == "0")
        || (MAX_IS_NONE.contains(&name) && value == u64::MAX.to_string());
    if none { "none".to_owned() } else { value }
}

/// The value of one native property in canonical text, wherever it was set.
pub(super) fn effective(handle: &Handle<'_>, name: &str) -> Option<String> {
    let c_name = super::nvlist::c_text(name).ok()?;
    Some(canonical(name, handle.text_of(&c_name)?))
}

/// `canmount` as the kernel numbers it: 0 off, 1 on, 2 noauto. One that was never set is not among the
/// properties, and volumes are kept apart by the caller.
fn canmount(props: View<'_>) -> u64 {
    number(props, c"canmount").unwrap_or(1)
}

/// True when `zfs mount -a` would mount it, or would once the store's note on `canmount` is carried out.
pub(super) fn mounts_by_itself(handle: &Handle<'_>) -> bool {
    let on = match notes(handle, &handle.name()).get("canmount") {
        Some(noted) => noted == "on" || noted == NOT_SET,
        None => canmount(handle.props()) == 1,
    };
    on && mountpoint(handle).is_some()
}

/// Where it is or would be mounted; `None` for `none`, `legacy`, `canmount=off` and volumes.
pub(super) fn mountpoint(handle: &Handle<'_>) -> Option<PathBuf> {
    if !matches!(canmount(handle.props()), 1 | 2) {
        return None;
    }
    // Fails for volumes, which have no such property.
    let text = handle.text_of(c"mountpoint")?;
    text.starts_with('/').then(|| PathBuf::from(text))
}

/// Splits `tank/zed/a@b` below `tank/zed` into its parts; `None` for what is not below or not nameable in zed.
pub(super) fn reference(root: &str, full: &str) -> Option<SnapshotRef> {
    let (dataset, name) = full.split_once('@')?;
    Some(SnapshotRef { dataset: below(root, dataset)?, name: name.to_owned() })
}

/// The path below the root; `None` for what is not below or has a name that zed does not allow (a blank).
pub(super) fn below(root: &str, full: &str) -> Option<DatasetPath> {
    DatasetPath::parse(full.strip_prefix(root)?.strip_prefix('/')?).ok()
}

/// The dataset behind an open handle; `None` when zed cannot name it.
pub(super) fn dataset(root: &str, handle: &Handle<'_>, mounts: &Mounts) -> Option<Arc<Dataset>> {
    let full = handle.name();
    let path = below(root, &full)?;
    let props = handle.props();
    let (user, received) = user_props(handle, &full);
    let here = mounts.of(&full).last();
    Some(Arc::new(Dataset {
        path,
        guid: number(props, c"guid").unwrap_or(0),
        mountpoint: here.cloned().or_else(|| mountpoint(handle)),
        mounted: here.is_some(),
        native: native_props(handle, &full),
        user,
        received,
        origin: text(props, c"origin").and_then(|origin| reference(root, &origin)),
        referenced: number(props, c"referenced").unwrap_or(0),
    }))
}

/// The snapshot behind an open handle; `None` when zed cannot name its dataset.
pub(super) fn snapshot(root: &str, handle: &Handle<'_>) -> Option<Arc<Snapshot>> {
    let full = handle.name();
    let props = handle.props();
    let clones = props.find(c"clones").and_then(Value::as_list).and_then(|c| c.find(c"value"));
    let clones = clones.and_then(Value::as_list).map_or_else(Vec::new, |list| {
        list.pairs().filter_map(|(name, _)| below(root, &rust_text(name))).collect()
    });
    Some(Arc::new(Snapshot {
        id: reference(root, &full)?,
        guid: number(props, c"guid")?,
        txg: number(props, c"createtxg")?,
        created: number(props, c"creation").and_then(|c| i64::try_from(c).ok()).unwrap_or(0),
        user: user_props(handle, &full).0,
        clones,
        used: number(props, c"used").unwrap_or(0),
    }))
}

/// Full names of a snapshot's clones, those outside the store's root too.
pub(super) fn clone_names(handle: &Handle<'_>) -> Vec<String> {
    let clones = handle.props().find(c"clones").and_then(Value::as_list).and_then(|c| c.find(c"value"));
    clones
        .and_then(Value::as_list)
        .map_or_else(Vec::new, |list| list.pairs().map(|(name, _)| rust_text(name)).collect())
}

/// Visits a dataset's descendants, parents before children.
pub(super) fn descend<'a>(
    handle: &Handle<'a>,
    each: &mut dyn FnMut(&Handle<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    handle.children(&mut |child| {
        each(&child)?;
        descend(&child, each)
    })
}
