//! Artifacts: what each is, the release folder that it is unpacked into, and which folders stay.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Node;
use super::build::Draft;
use super::select::note;
use crate::naming::release_folder;
use crate::plan::Severity;
use crate::plan::Step;
use crate::plan::Unpack;
use crate::release::asked_digest;
use crate::release::bare;
use crate::release::kind_and_path;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::App;
use zed_spec::DatasetPath;

impl<'a> Deploy<'a> {
    /// What the app's artifact is. One that changed under a spec that nobody saved is drift, and one that is gone
    /// after it was unpacked is no change.
    pub(super) fn digest(&self, node: &Node<'a>, app: &App) -> Option<String> {
        let artifact = app.artifact.as_ref()?;
        if let Some(asked) = asked_digest(artifact) {
            return Some(asked.to_owned());
        }
        let (_, path) = kind_and_path(artifact);
        let stamp = node.located.map(|found| &found.stamp);
        let unpacked = stamp.and_then(|stamp| stamp.artifact.as_deref());
        let Some(seen) = self.input.observed.artifacts.get(path).map(|digest| bare(digest)) else {
            return unpacked.map(str::to_owned);
        };
        let saved = stamp.is_none_or(|stamp| stamp.generation != self.input.declared.generation);
        match unpacked {
            Some(unpacked) if unpacked != seen && !saved && !self.input.heal => {
                let text = format!(
                    "its artifact {path} has changed since it was unpacked: save the spec again to deploy it"
                );
                node.say(Severity::Warning, "drift", text);
                Some(unpacked.to_owned())
            }
            _ => Some(seen.to_owned()),
        }
    }

    /// The release folder that each app runs in: that of its release as long as its process goes on, else one for
    /// its artifact, or that of the app beside it which is unpacked there and has the same version.
    pub(super) fn place_folders(&mut self) {
        let (with, without): (Vec<usize>, Vec<usize>) =
            (0..self.nodes.len()).filter(|index| self.nodes[*index].effective.is_some()).partition(|index| {
                self.nodes[*index].effective.as_ref().is_some_and(|e| e.app.artifact.is_some())
            });
        for index in with.into_iter().chain(without) {
            let folder = self.nodes[index].effective.as_ref().and_then(|e| self.place_folder(index, e));
            if let Some(effective) = &mut self.nodes[index].effective {
                effective.folder = folder;
            }
        }
    }

    fn place_folder(&self, index: usize, effective: &Effective<'_>) -> Option<String> {
        let node = &self.nodes[index];
        let (app, dataset) = (effective.app, &effective.app.dataset);
        let same_home = node.located.filter(|found| found.dataset == dataset);
        let before = same_home.and_then(|found| self.input.releases.get(&found.stamp.spec));
        let unpacked = app.artifact.is_some()
            && effective.digest.is_some()
            && before.is_some_and(|release| {
                release.artifact == effective.digest && release.definition.version == app.version
            });
        if let Some(before) = before.filter(|_| node.action != Action::Deploy || unpacked) {
            return before.folder.clone();
        }
        if app.artifact.is_none() {
            let beside = self.nodes.iter().filter_map(|other| other.effective.as_ref());
            let mut beside =
                beside.filter(|other| other.app.artifact.is_some() && other.app.dataset == *dataset);
            return beside.find(|other| other.app.version == app.version)?.folder.clone();
        }
        let folder = release_folder(&app.version);
        // Another artifact with the same version stays where it is: what runs there goes on, and a snapshot of it
        // is what it says.
        let taken = self.world.stamps_on(dataset).iter().any(|stamp| {
            let release = self.input.releases.get(&stamp.spec);
            release.is_some_and(|r| r.folder.as_ref() == Some(&folder) && r.artifact != effective.digest)
        });
        match (&effective.digest, taken) {
            (Some(digest), true) => Some(format!("{folder}+{}", digest.get(..12).unwrap_or(digest))),
            _ => Some(folder),
        }
    }

    /// What stands in the way of unpacking, before anything changes.
    pub(super) fn check_artifacts(&mut self) {
        let mut homes: BTreeMap<&DatasetPath, usize> = BTreeMap::new();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some((app, artifact)) = node.app.and_then(|app| Some((app, app.artifact.as_ref()?))) else {
                continue;
            };
            if let Some(other) = homes.insert(&app.dataset, index) {
                let text = format!(
                    "apps {} and {} both unpack an artifact into {}: give each a dataset of its own",
                    self.nodes[other].name, node.name, app.dataset
                );
                self.notes.push(note(Severity::Fatal, "artifact", format!("app {}", node.name), text));
                continue;
            }
            let node = &self.nodes[index];
            if !self.unpacks(node) {
                continue;
            }
            let (_, path) = kind_and_path(artifact);
            match self.input.observed.artifacts.get(path).map(|digest| bare(digest)) {
                None => {
                    let text = match self.input.observed.unusable.get(path) {
                        // Names the file, what is wrong with it and what to do.
                        Some(why) => why.clone(),
                        None => format!(
                            "its artifact {path} is not there: put it there, then save the spec again"
                        ),
                    };
                    node.say(Severity::Fatal, "artifact", text);
                }
                Some(seen) => {
                    if let Some(asked) = asked_digest(artifact).filter(|asked| *asked != seen) {
                        let text = format!(
                            "its artifact {path} is not the one that the spec asks for: it has sha256 {seen}, the spec says \
                             {asked}"
                        );
                        node.say(Severity::Fatal, "artifact", text);
                    }
                }
            }
        }
    }

    /// True when the artifact of this deploy is not unpacked yet.
    fn unpacks(&self, node: &Node<'_>) -> bool {
        let (Action::Deploy, Some(effective)) = (node.action, &node.effective) else { return false };
        if effective.app.artifact.is_none() {
            return false;
        }
        let there = node.located.is_some_and(|found| {
            let release = self.input.releases.get(&found.stamp.spec);
            *found.dataset == effective.app.dataset
                && self.lost_folder(&found.stamp, effective.app).is_none()
                && effective.digest.is_some()
                && found.stamp.artifact == effective.digest
                && release.is_some_and(|release| release.folder == effective.folder)
        });
        !there
    }

    /// Unpacks what is deployed: beside the release that runs, so that nothing has to stop for it; or, where the app
    /// is new, once what the dataset holds is kept.
    pub(super) fn unpack(&self, order: &[usize], existing: bool, draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            let Some(effective) = node.effective.as_ref().filter(|_| self.unpacks(node)) else { continue };
            let app = effective.app;
            let (Some(artifact), Some(folder)) = (&app.artifact, &effective.folder) else { continue };
            if self.is_at_home(node, app) != existing {
                continue;
            }
            let unpack = Unpack {
                app: node.name.clone(),
                dataset: app.dataset.clone(),
                artifact: artifact.clone(),
                digest: effective.digest.clone(),
                version: app.version.clone(),
                folder: folder.clone(),
                run: self.input.run.clone(),
                user: app.user.clone(),
                group: app.group.clone(),
            };
            let undo = Step::DiscardRelease {
                dataset: app.dataset.clone(),
                folder: folder.clone(),
                run: self.input.run.clone(),
            };
            draft.push(Step::Unpack { unpack: Box::new(unpack) }, vec![undo], &node.why);
        }
    }

    /// The link `current` follows what is deployed.
    pub(super) fn switch(&self, order: &[usize], draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            let (Action::Deploy, Some(effective)) = (node.action, &node.effective) else { continue };
            let dataset = &effective.app.dataset;
            let linked =
                |app: &App, folder: &Option<String>| app.artifact.as_ref().and_then(|_| folder.clone());
            // Another app may have had its artifact there; there is one at a time.
            let old = self.world.stamps_on(dataset).iter().find_map(|stamp| {
                let release = self.input.releases.get(&stamp.spec)?;
                linked(&release.definition, &release.folder)
            });
            let new = linked(effective.app, &effective.folder);
            if old == new {
                continue;
            }
            let link = |folder| Step::SwitchRelease { dataset: dataset.clone(), folder };
            draft.push(link(new), vec![link(old)], "`current` follows the release");
        }
    }

    /// Release folders that no app of the dataset runs in any more go; the snapshots keep what they hold.
    pub(super) fn prune_folders(&self, order: &[usize], draft: &mut Draft) {
        for index in order {
            let node = &self.nodes[*index];
            let (Action::Deploy, Some(effective)) = (node.action, &node.effective) else { continue };
            let dataset = &effective.app.dataset;
            let before = node.located.and_then(|found| self.input.releases.get(&found.stamp.spec));
            let had = before.is_some_and(|release| release.definition.artifact.is_some());
            if effective.app.artifact.is_none() && !had {
                continue;
            }
            let keep: BTreeSet<String> = (self.nodes.iter())
                .filter(|other| other.action != Action::Remove)
                .filter(|other| other.effective.as_ref().is_some_and(|e| e.app.dataset == *dataset))
                .filter_map(|other| other.effective.as_ref()?.folder.clone())
                .collect();
            let step = Step::PruneReleases { dataset: dataset.clone(), keep };
            draft.push(step, Vec::new(), "snapshots keep what older releases were");
        }
    }
}
