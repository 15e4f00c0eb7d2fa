//! Limits through Linux's control groups, version 1 and version 2.
//!
//! Owns the cgroups `zed-ID/INSTANCE` below (version 1) or beside (version 2) zedd's own: which files get which
//! values is decided in [`plan`], pure; [`group`] does it. Never touches a cgroup that is not an app's, and moves
//! no process but the app's own.

mod group;
mod layout;
mod plan;
#[cfg(test)]
mod recorded;

pub(crate) use group::Groups;
pub(crate) use group::Usage;
pub(crate) use layout::Layout;
pub(crate) use plan::Plan;
pub(crate) use plan::Unenforceable;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::Limits;

/// The path of an app's cgroup below the folder that zedd uses, from the app's folder `STATE/apps/INSTANCE`. Two
/// daemons on one host have different state folders, so that neither takes the other's apps for its own.
pub(crate) fn place_of(app_folder: &Path) -> PathBuf {
    let apps = app_folder.parent().unwrap_or(app_folder);
    let id = std::fs::metadata(apps).map_or(0, |meta| fold(meta.dev(), meta.ino()));
    Path::new(&format!("zed-{id:08x}")).join(app_folder.file_name().unwrap_or_default())
}

/// What a container of this app has to give as `cgroupsPath`: relative, so that the runtime, started as the app's
/// program, makes the container's cgroup below the app's limits: runc takes a relative path from the cgroup
/// that it is in itself (version 1), or from the one above that (version 2). In a hierarchy where the app has no cgroup it
/// is below zedd's own, and its name is of this app only.
pub fn container_cgroup(app_folder: &Path) -> String {
    place_of(app_folder).to_string_lossy().replace('/', "-")
}

/// 32 bits of a device and an inode number: FNV-1a.
fn fold(device: u64, inode: u64) -> u32 {
    let bytes = device.to_le_bytes().into_iter().chain(inode.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Plans the cgroups of the app with this folder, where this process is.
pub(crate) fn plan_here(app_folder: &Path, limits: &Limits) -> Result<Plan, Unenforceable> {
    let look = |path: &Path| std::fs::read_to_string(path).ok();
    Plan::make(&Layout::observe(), &place_of(app_folder), limits, &look)
}
