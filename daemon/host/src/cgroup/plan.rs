//! Which cgroups an app gets, and what is written into which of their files. Pure: looks at the host only through
//! the function it is given. [`Plan::check`] alone asks the host whether a plan could be carried out.

use super::layout::Hierarchy;
use super::layout::Layout;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::Limits;
use zed_spec::render_size;

/// Microseconds in which an app may use its share of the CPUs: the kernel's default ...
const PERIOD: u64 = 100_000;
/// ... and the longest there is, for shares so small that the kernel refuses them in the default one.
const LONGEST_PERIOD: u64 = 1_000_000;
/// The smallest share of a period that the kernel accepts.
const SMALLEST_QUOTA: u64 = 1_000;
/// The cgroup of version 2 that the program is in: limits are on the one above it, so that a container runtime
/// can make another beside it (a cgroup with processes has no children with controllers there).
const LEAF: &str = "run";

/// Why a limit of a spec cannot be kept on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit {limit} cannot be enforced on this host: {reason}; {remedy}, or take the limit out of the spec"
)]
pub(crate) struct Unenforceable {
    /// `memory 64M`.
    pub(crate) limit: String,
    /// What is missing.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// A reason and what to do, not yet about a limit.
pub(super) struct Missing {
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Missing {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    pub(super) fn of(self, limit: impl Into<String>) -> Unenforceable {
        Unenforceable { limit: limit.into(), reason: self.reason, remedy: self.remedy }
    }
}

/// One file and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// The limit that it is for.
    pub(super) limit: String,
    /// Passed over when there is no such file: a kernel without accounting of swap.
    pub(super) if_present: bool,
}

/// One cgroup of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Its folder.
    pub(super) path: PathBuf,
    /// The folder that the program is put into: the same, or one below.
    pub(super) leaf: PathBuf,
    /// Empty for a group that only counts: then it is no failure that it cannot be made.
    pub(super) settings: Vec<Setting>,
}

/// A controller of version 2 that is passed on to the children of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enable {
    pub(super) folder: PathBuf,
    /// `+memory`.
    pub(super) word: String,
    /// Nothing when no limit depends on it.
    pub(super) limit: Option<String>,
}

/// Everything to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) enable: Vec<Enable>,
    pub(super) groups: Vec<Group>,
}

/// A limit that a controller keeps.
struct Wanted {
    controller: &'static str,
    /// `memory 64M`, or nothing when the spec does not limit it.
    limit: Option<String>,
    v1: Vec<(&'static str, String, bool)>,
    v2: Vec<(&'static str, String, bool)>,
}

fn wanted(limits: &Limits) -> Result<[Wanted; 3], Unenforceable> {
    let Limits { memory, cpus, pids, nofile: _ } = limits;
    let mut of_memory = Wanted { controller: "memory", limit: None, v1: Vec::new(), v2: Vec::new() };
    if let Some(bytes) = memory {
        of_memory.limit = Some(format!("memory {}", render_size(*bytes)));
        // Version 1 limits memory and swap together; version 2 limits them apart, and gets no swap at all.
        of_memory.v1.push(("memory.limit_in_bytes", bytes.to_string(), false));
        of_memory.v1.push(("memory.memsw.limit_in_bytes", bytes.to_string(), true));
        of_memory.v2.push(("memory.max", bytes.to_string(), false));
        of_memory.v2.push(("memory.swap.max", "0".to_owned(), true));
    }
    let mut of_cpu = Wanted { controller: "cpu", limit: None, v1: Vec::new(), v2: Vec::new() };
    if let Some(cpus) = cpus {
        let limit = format!("cpus {cpus}");
        let (quota, period) = quota(*cpus).ok_or_else(|| {
            Missing::new("the kernel shares CPUs out in thousandths", "use at least 0.001").of(limit.clone())
        })?;
        of_cpu.limit = Some(limit);
        of_cpu.v1.push(("cpu.cfs_period_us", period.to_string(), false));
        of_cpu.v1.push(("cpu.cfs_quota_us", quota.to_string(), false));
        of_cpu.v2.push(("cpu.max", format!("{quota} {period}"), false));
    }
    let mut of_pids = Wanted { controller: "pids", limit: None, v1: Vec::new(), v2: Vec::new() };
    if let Some(pids) = pids {
        of_pids.limit = Some(format!("pids {pids}"));
        of_pids.v1.push(("pids.max", pids.to_string(), false));
        of_pids.v2.push(("pids.max", pids.to_string(), false));
    }
    Ok([of_memory, of_cpu, of_pids])
}

/// Microseconds of so many, or nothing when the share is too small.
fn quota(cpus: f64) -> Option<(u64, u64)> {
    [PERIOD, LONGEST_PERIOD].into_iter().find_map(|period| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a spec's number of CPUs is positive, and `as` ends at the largest number"
        )]
        let quota = (cpus * period as f64).round() as u64;
        (quota >= SMALLEST_QUOTA).then_some((quota, period))
    })
}

impl Plan {
    /// The cgroups of an app whose limits are these. `place` is the path of its cgroup below the folder that is
    /// zedd's to use; `look` reads a file of a cgroup, or says that there is none.
    pub(crate) fn make(
        layout: &Layout,
        place: &Path,
        limits: &Limits,
        look: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<Self, Unenforceable> {
        let mut plan = Self::default();
        for wanted in wanted(limits)? {
            if let Some(hierarchy) = layout.v1.get(wanted.controller) {
                plan.add_v1(hierarchy, place, wanted)?;
            } else {
                plan.add_v2(layout.v2.as_ref(), place, wanted, look)?;
            }
        }
        Ok(plan)
    }

    /// Says whether it could be done here, without doing anything: whether zedd may write where it would have to.
    pub(crate) fn check(&self) -> Result<(), Unenforceable> {
        for group in &self.groups {
            let Some(setting) = group.settings.first() else { continue };
            let there = group.path.ancestors().find(|folder| folder.exists()).unwrap_or(&group.path);
            nix::unistd::access(there, nix::unistd::AccessFlags::W_OK)
                .map_err(|errno| super::group::refused(there, &errno.into()).of(&setting.limit))?;
        }
        Ok(())
    }

    /// The same cgroups without limits: they only count, since a container has the limits in its own cgroup below,
    /// and the runtime that watches it is not to be limited with it.
    pub(crate) fn only_counting(mut self) -> Self {
        for group in &mut self.groups {
            group.settings.clear();
        }
        self
    }

    fn add_v1(&mut self, hierarchy: &Hierarchy, place: &Path, wanted: Wanted) -> Result<(), Unenforceable> {
        let path = hierarchy.own.join(place);
        let Some(limit) = wanted.limit else {
            // Of the memory's, also without a limit: it counts, and it knows all processes of the app.
            if wanted.controller == "memory" && !hierarchy.read_only {
                self.group(path.clone(), path);
            }
            return Ok(());
        };
        if hierarchy.read_only {
            return Err(read_only(hierarchy).of(limit));
        }
        self.group(path.clone(), path).settings.extend(settings(wanted.v1, &limit));
        Ok(())
    }

    fn add_v2(
        &mut self,
        hierarchy: Option<&Hierarchy>,
        place: &Path,
        wanted: Wanted,
        look: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<(), Unenforceable> {
        let has = |folder: &Path, file: &str| {
            let text = look(&folder.join(file)).unwrap_or_default();
            text.split_whitespace().any(|name| name == wanted.controller)
        };
        let found = hierarchy
            .filter(|hierarchy| has(&hierarchy.top, "cgroup.controllers"))
            .ok_or_else(|| no_controller(wanted.controller))
            .and_then(|hierarchy| base(hierarchy, look).map(|base| (hierarchy, base)));
        let (hierarchy, base) = match (found, &wanted.limit) {
            (Ok(found), _) => found,
            (Err(missing), Some(limit)) => return Err(missing.of(limit)),
            (Err(_), None) => return Ok(()),
        };
        // What no limit needs is used where it is on already, and is not turned on in folders of others.
        if wanted.limit.is_none() && !has(&base, "cgroup.subtree_control") {
            return Ok(());
        }
        let path = base.join(place);
        let mut folders: Vec<PathBuf> = base
            .ancestors()
            .take_while(|folder| folder.starts_with(&hierarchy.top))
            .filter(|folder| !has(folder, "cgroup.subtree_control"))
            .map(Path::to_owned)
            .collect();
        folders.reverse();
        folders.extend(path.parent().filter(|folder| *folder != base).map(Path::to_owned));
        // For a container runtime, which makes its own cgroup below.
        folders.push(path.clone());
        let enable =
            |folder| Enable { folder, word: format!("+{}", wanted.controller), limit: wanted.limit.clone() };
        self.enable.extend(folders.into_iter().map(enable));
        let group = self.group(path.clone(), path.join(LEAF));
        if let Some(limit) = &wanted.limit {
            group.settings.extend(settings(wanted.v2, limit));
        }
        Ok(())
    }

    fn group(&mut self, path: PathBuf, leaf: PathBuf) -> &mut Group {
        let at = self.groups.iter().position(|group| group.path == path).unwrap_or_else(|| {
            self.groups.push(Group { path, leaf, settings: Vec::new() });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

fn settings(list: Vec<(&'static str, String, bool)>, limit: &str) -> impl Iterator<Item = Setting> {
    list.into_iter().map(|(file, value, if_present)| Setting {
        file,
        value,
        limit: limit.to_owned(),
        if_present,
    })
}

/// The folder of version 2 below which zedd makes cgroups. Its own holds zedd itself, and a cgroup that passes
/// controllers on must hold no process (the top of all is exempt); nothing of others is moved, and zedd stays
/// where its service manager put it. So it is the one above.
fn base(hierarchy: &Hierarchy, look: &dyn Fn(&Path) -> Option<String>) -> Result<PathBuf, Missing> {
    if hierarchy.read_only {
        return Err(read_only(hierarchy));
    }
    // Only the real top has no type; that of a namespace has one.
    let is_top = |folder: &Path| look(&folder.join("cgroup.type")).is_none();
    if is_top(&hierarchy.own) {
        return Ok(hierarchy.own.clone());
    }
    let above = hierarchy.own.parent().filter(|_| hierarchy.own != hierarchy.top).ok_or_else(|| {
        Missing::new(
            format!("zedd is in the uppermost cgroup that it may see, `{}`", hierarchy.own.display()),
            "start it in a cgroup below that",
        )
    })?;
    let holds = look(&above.join("cgroup.procs")).unwrap_or_default();
    if is_top(above) || holds.trim().is_empty() {
        return Ok(above.to_owned());
    }
    Err(Missing::new(
        format!("the cgroup above zedd's own, `{}`, holds processes", above.display()),
        "run zedd as a service (systemd: Delegate=yes, DelegateSubgroup=daemon)",
    ))
}

fn read_only(hierarchy: &Hierarchy) -> Missing {
    let reason = format!("`{}` is mounted read-only, as in a container", hierarchy.top.display());
    Missing::new(reason, "give zedd a cgroup that it can write")
}

fn no_controller(name: &str) -> Missing {
    if cfg!(target_os = "linux") {
        let reason = format!("there is no cgroup controller `{name}`, neither of version 1 nor of version 2");
        return Missing::new(reason, "mount it, or boot a kernel that has it");
    }
    let reason = "this system has no such limit for a plain process and what it starts";
    Missing::new(reason, "run the app in a jail or zone, which can have it")
}

#[cfg(test)]
mod tests;
