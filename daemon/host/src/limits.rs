//! Which limits of a spec this host can keep, and how: cgroups for memory, CPUs and processes, `setrlimit` for open
//! files. Only says so; what is done is in [`crate::cgroup`] and in the start of a program.
//!
//! Only limits that mean the same everywhere are taken: `RLIMIT_AS` is no limit of memory, and `RLIMIT_NPROC`
//! counts a user's processes and not an app's. So without cgroups (FreeBSD, illumos) a plain process can have
//! `nofile` only; there, jails and zones have the others.

use crate::cgroup;
use crate::cgroup::Unenforceable;
use crate::types::HostErrorKind;
use std::collections::BTreeSet;
use std::path::Path;
use zed_spec::Limits;

impl From<Unenforceable> for HostErrorKind {
    fn from(error: Unenforceable) -> Self {
        HostErrorKind::Limit(error.to_string())
    }
}

/// Refuses what cannot be kept, before anything changes.
pub(crate) fn check_limits(app_folder: &Path, limits: &Limits) -> Result<(), HostErrorKind> {
    if let Some(most) = limits.nofile {
        check_nofile(most)?;
    }
    cgroup::plan_here(app_folder, limits)?.check()?;
    Ok(())
}

fn check_nofile(most: u64) -> Result<(), Unenforceable> {
    let refused = |reason: String, remedy: &str| Unenforceable {
        limit: format!("nofile {most}"),
        reason,
        remedy: remedy.to_owned(),
    };
    let ceiling =
        std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    if let Some(ceiling) = ceiling.filter(|ceiling: &u64| most > *ceiling) {
        return Err(refused(format!("the kernel allows {ceiling}"), "raise fs.nr_open with sysctl"));
    }
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    if let Ok((_, hard)) = hard
        && !nix::unistd::geteuid().is_root()
        && i128::from(most) > i128::from(hard)
    {
        return Err(refused(format!("zedd itself may have {hard}"), "run zedd as root, or raise its limit"));
    }
    Ok(())
}

/// The limits that can be kept on this host for the apps of this state folder: of `memory`, `cpus`, `pids` and
/// `nofile`.
pub fn observe_limits(state_dir: &Path) -> BTreeSet<&'static str> {
    let folder = state_dir.join("apps").join("any");
    let one = [
        ("memory", Limits { memory: Some(1 << 30), ..Limits::default() }),
        ("cpus", Limits { cpus: Some(1.0), ..Limits::default() }),
        ("pids", Limits { pids: Some(100), ..Limits::default() }),
        ("nofile", Limits { nofile: Some(64), ..Limits::default() }),
    ];
    one.into_iter()
        .filter(|(_, limits)| check_limits(&folder, limits).is_ok())
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_the_kernels_is_refused_by_name() {
        let limits = Limits { nofile: Some(u64::MAX), ..Limits::default() };
        match check_limits(Path::new("/nowhere/apps/api"), &limits) {
            Err(HostErrorKind::Limit(text)) => {
                assert!(
                    text.starts_with("the limit nofile 18446744073709551615 cannot be enforced"),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(observe_limits(Path::new("/nowhere")).contains("nofile"));
    }
}
