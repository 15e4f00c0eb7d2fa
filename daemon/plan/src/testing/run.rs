//! For tests: what the host in memory does with release folders, probes and traffic.

use super::TestWorld;
use crate::instance::Instance;
use crate::observed::ObservedProcess;
use crate::observed::ProcessStatus;
use crate::plan::Route;
use crate::plan::RunSpec;
use crate::plan::Step;
use crate::release::asked_digest;
use crate::release::kind_and_path;
use zed_spec::DeploySpec;

impl TestWorld {
    /// Puts the artifacts of a spec where it looks for them.
    pub(crate) fn provide_artifacts(&mut self, spec: &DeploySpec) {
        for artifact in spec.apps.values().filter_map(|app| app.artifact.as_ref()) {
            let digest = asked_digest(artifact).map_or_else(|| "ab".repeat(32), str::to_owned);
            self.observed.artifacts.insert(kind_and_path(artifact).1.to_owned(), digest);
        }
    }

    /// Release folders are lines of a dataset's content.
    pub(super) fn folders(&mut self, step: &Step) {
        match step {
            Step::Unpack { unpack } => {
                let home = self.content.get_mut(unpack.dataset.as_str()).expect("a dataset to unpack into");
                let digest = unpack.digest.as_deref().unwrap_or_default();
                let line = format!("folder {} {digest}", unpack.folder);
                if home.contains(&line) {
                    return;
                }
                let folder = format!("folder {} ", unpack.folder);
                for old in home.iter_mut().filter(|old| old.starts_with(&folder)) {
                    *old = format!("aside {} {old}", unpack.run);
                }
                home.push(format!("unpacked {} {}", unpack.run, unpack.folder));
                home.push(line);
            }
            Step::DiscardRelease { dataset, folder, run } => {
                let Some(home) = self.content.get_mut(dataset.as_str()) else { return };
                let unpacked = format!("unpacked {run} {folder}");
                let Some(at) = home.iter().position(|line| *line == unpacked) else { return };
                home.drain(at..at + 2);
                let aside = format!("aside {run} ");
                for old in home.iter_mut().filter(|old| old.starts_with(&aside)) {
                    *old = old[aside.len()..].to_owned();
                }
            }
            Step::SwitchRelease { dataset, folder } => {
                let home = self.content.get_mut(dataset.as_str()).expect("a dataset with a link");
                home.retain(|line| !line.starts_with("current "));
                home.extend(folder.as_ref().map(|folder| format!("current {folder}")));
            }
            Step::PruneReleases { dataset, keep } => {
                let home = self.content.get_mut(dataset.as_str()).expect("a dataset to prune");
                let name = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
                home.retain(|line| {
                    !line.starts_with("aside ")
                        && !line.starts_with("unpacked ")
                        && (!line.starts_with("folder ") || keep.contains(&name(line)))
                });
            }
            other => panic!("{other:?} is about no folder"),
        }
    }

    pub(super) fn probed(&self, run: &RunSpec) {
        let instance = run.instance();
        let status = self.observed.processes.get(&instance).map(|process| &process.status);
        assert!(
            run.command.is_empty()
                || matches!(status, Some(ProcessStatus::Running { .. } | ProcessStatus::Completed)),
            "{instance} is probed and does not run"
        );
    }

    /// Traffic never goes where nobody listens.
    pub(super) fn route(&mut self, route: &Route) {
        let front = Instance::front(&route.app);
        if route.backends.is_empty() {
            self.routes.remove(&route.app);
            self.observed.processes.remove(&front);
            return;
        }
        for instance in route.backends.keys() {
            let status = self.observed.processes.get(instance).map(|process| &process.status);
            let runs = matches!(status, Some(ProcessStatus::Running { .. }));
            assert!(runs, "{instance} gets connections and is {status:?}");
        }
        self.routes.insert(route.app.clone(), route.clone());
        let status = ProcessStatus::Running { pid: 99 };
        self.observed.processes.insert(front, ObservedProcess { run_hash: route.listen.to_string(), status });
    }
}
