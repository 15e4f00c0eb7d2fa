//! Drift of data and of its marks: what somebody else did to datasets while the spec stayed the same.
//!
//! Owns how it is recognised and the words for it; makes no steps. As long as nobody asks for a repair, what is found
//! here is said and left as it is. Data that is gone is never begun anew without a word that asks for just that.

use super::Action;
use super::Deploy;
use super::Effective;
use super::Node;
use super::build::Draft;
use super::datasets_of;
use super::select::note;
use crate::naming::is_own;
use crate::observed::Observed;
use crate::plan::Note;
use crate::plan::PropEdit;
use crate::plan::Severity;
use crate::plan::Step;
use crate::props::AppStamp;
use crate::props::PREFIX;
use crate::props::name;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_spec::App;
use zed_spec::DatasetPath;
use zed_spec::DeploySpec;

/// The kind of note about data that is gone. A save that meets it fails; a deploy at rest shows it as drift.
pub const LOST: &str = "lost";
/// The kind of note about anything else that somebody changed.
pub const DRIFT: &str = "drift";

/// The datasets that a deploy has now: those that its spec declares and that are there, and those that carry its mark.
pub fn datasets_of_deploy(spec: &DeploySpec, observed: &Observed) -> BTreeSet<DatasetPath> {
    let declared = spec.datasets.keys().filter(|path| observed.datasets.contains_key(*path));
    let marked = observed.datasets.iter().filter(|(path, dataset)| {
        !is_own(path.as_str())
            && dataset.user.get(name::DEPLOY).map(String::as_str) == Some(spec.name.as_str())
    });
    declared.chain(marked.map(|(path, _)| path)).cloned().collect()
}

impl<'a> Deploy<'a> {
    /// True for a dataset that this deploy had when it was last at rest and that is not there any more.
    pub(super) fn is_lost(&self, path: &DatasetPath) -> bool {
        !self.input.recreate
            && self.input.known.is_some_and(|known| known.contains(path))
            && !self.world.exists(path)
    }

    /// The lost dataset at or above a path that is not there.
    pub(super) fn lost_above(&self, path: &DatasetPath) -> Option<DatasetPath> {
        let mut at = Some(path.clone());
        while let Some(current) = at {
            if self.is_lost(&current) {
                return Some(current);
            }
            at = current.parent();
        }
        None
    }

    /// Nothing is put in the place of a lost dataset.
    pub(super) fn say_lost(&mut self, path: &DatasetPath, lost: &DatasetPath) {
        let deploy = self.spec.name.as_str();
        let object = format!("dataset {path}");
        if path != lost {
            let text = format!("it is not created, because {lost} above it is gone");
            self.notes.push(note(Severity::Warning, LOST, object, text));
            return;
        }
        let marked = self.no_longer_declared().into_iter().filter(|path| self.is_stranger(path));
        let marked: Vec<String> = marked.map(|path| format!("`{path}`")).collect();
        let found = match marked.as_slice() {
            [] => String::new(),
            some => {
                format!(" ({} carries the mark of this deploy: is it that one, renamed?)", some.join(" or "))
            }
        };
        let text = format!(
            "it is gone: somebody else destroyed or renamed it{found}. Nothing is put in its place and its apps are left \
             alone: bring it back, or begin with an empty one by `echo heal {deploy} > ctl`"
        );
        self.notes.push(note(Severity::Warning, LOST, object, text));
    }

    /// True for a dataset that carries this deploy's mark, and that this deploy never had.
    pub(super) fn is_stranger(&self, path: &DatasetPath) -> bool {
        self.input.known.is_some_and(|known| !known.contains(path))
    }

    /// Marked datasets that the spec does not have are released, but not those that somebody else marked or moved.
    pub(super) fn say_strangers(&mut self) {
        if self.input.heal {
            return;
        }
        let strangers: Vec<_> =
            self.no_longer_declared().into_iter().filter(|path| self.is_stranger(path)).collect();
        for path in strangers {
            let text = format!(
                "it carries the mark of this deploy, which never had it: a renamed dataset, or a copy. Rename it back, or \
                 take the mark away (`zfs inherit {}`)",
                name::DEPLOY
            );
            self.notes.push(note(Severity::Warning, DRIFT, format!("dataset {path}"), text));
        }
    }

    /// An edit that nobody asked for is drift: what was found, and what is wanted.
    pub(super) fn drifted(&self, edit: &PropEdit, undo: &PropEdit) -> Note {
        let mut found = Vec::new();
        for (wanted, present) in [(&edit.native, &undo.native), (&edit.user, &undo.user)] {
            for (key, value) in wanted {
                let is = match present.get(key).and_then(Option::as_deref) {
                    Some(text) => format!("is `{text}`"),
                    None => "is not set".to_owned(),
                };
                let expected = value.as_deref().unwrap_or("nothing");
                let who = if key.starts_with(PREFIX) { "zed wrote" } else { "the spec says" };
                found.push(format!("{key} {is}, {who} `{expected}`"));
            }
        }
        let text = format!("{}: {}", found.join("; "), self.repairs());
        note(Severity::Warning, DRIFT, format!("dataset {}", edit.path), text)
    }

    /// What is said when the release folder of an app that did not change is not there any more.
    pub(super) fn lost_folder(&self, stamp: &AppStamp, app: &App) -> Option<String> {
        let folder = self.input.releases.get(&stamp.spec)?.folder.as_ref()?;
        let there = self.input.observed.folders.get(&app.dataset)?;
        let text = || format!("its release folder {folder} in {} is gone", app.dataset);
        (!there.releases.contains(folder)).then(text)
    }

    /// A link `current` that somebody else changed is said, or put right with the unit.
    pub(super) fn check_links(&mut self) {
        for node in &mut self.nodes {
            let Some(effective) = node.effective.as_ref().filter(|e| e.app.artifact.is_some()) else {
                continue;
            };
            let stays =
                matches!(node.action, Action::Leave | Action::Start | Action::Record | Action::Bounce);
            let found = self.input.observed.folders.get(&effective.app.dataset).filter(|_| stays);
            let (Some(found), Some(folder)) = (found, &effective.folder) else { continue };
            if found.current.as_ref() == Some(folder) || !found.releases.contains(folder) {
                continue;
            }
            node.relink = self.input.heal;
            if !self.input.heal {
                let is = found
                    .current
                    .as_ref()
                    .map_or_else(|| "is not there".to_owned(), |current| format!("points to `{current}`"));
                let text = format!(
                    "its link `current` in {} {is}, zed made it point to `{folder}`: `echo heal {} > ctl`, saving the spec \
                     again or `drift: Heal` repairs it",
                    effective.app.dataset, self.spec.name
                );
                node.say(Severity::Warning, DRIFT, text);
            }
        }
    }

    /// Puts links right.
    pub(super) fn relink(&self, unit: &[usize], draft: &mut Draft) {
        for node in unit.iter().map(|index| &self.nodes[*index]).filter(|node| node.relink) {
            let Some(effective) = &node.effective else { continue };
            let dataset = &effective.app.dataset;
            let before = self.input.observed.folders.get(dataset).and_then(|found| found.current.clone());
            let link = |folder| Step::SwitchRelease { dataset: dataset.clone(), folder };
            let why = "somebody else changed `current`";
            draft.push(link(effective.folder.clone()), vec![link(before)], why);
        }
    }

    /// What repairs drift of data and marks.
    pub(super) fn repairs(&self) -> String {
        format!("`echo heal {} > ctl`, saving the spec again or `drift: Heal` repairs it", self.spec.name)
    }

    /// True when an app that is or will be on the dataset changes: then its marks change with it.
    pub(super) fn changes_hands(&self, path: &DatasetPath) -> bool {
        self.nodes.iter().filter(|node| node.action != Action::Leave).any(|node| {
            node.located.is_some_and(|found| found.dataset == path)
                || node.app.is_some_and(|app| datasets_of(app).any(|own| own == path))
        })
    }

    /// An app whose data is gone is left alone.
    pub(super) fn lost_data(&self, app: &'a App) -> Option<&'a DatasetPath> {
        datasets_of(app).find(|path| self.is_lost(path))
    }

    /// What somebody else did to the stamp of an app, if nobody asked to repair it.
    pub(super) fn tampered(
        &self,
        node: &Node<'a>,
        stamp: Option<&AppStamp>,
        effective: &Effective<'_>,
    ) -> Option<String> {
        if self.input.heal || self.input.known.is_none() {
            return None;
        }
        let dataset = &effective.app.dataset;
        let Some(stamp) = stamp else {
            // One that never was here is new.
            let was_here = self.input.observed.processes_of(node.name).next().is_some()
                || leaves_of_stamp(self.world.user(dataset), node.name.as_str());
            return was_here.then(|| {
                format!(
                    "it was deployed here, and the properties that say so on {dataset} are gone or damaged: {}",
                    self.repairs()
                )
            });
        };
        let known = self.input.releases.get(&stamp.spec);
        let text = match known {
            None => format!("`{}` on {dataset} names a release that zed has no record of", name::SPEC),
            Some(release) if release.definition.version != stamp.version => format!(
                "`{}` on {dataset} is `{}`, zed wrote `{}`",
                name::VERSION,
                stamp.version,
                release.definition.version
            ),
            Some(_) if node.located.is_some_and(|found| found.dataset != dataset) => {
                let found = node.located.map(|found| found.dataset.as_str()).unwrap_or_default();
                format!("it is stamped on {found}, and the spec has it on {dataset}")
            }
            Some(_) => return None,
        };
        Some(format!("{text}: {}", self.repairs()))
    }
}

/// True when something is left of a stamp of this app that does not count any more.
fn leaves_of_stamp(user: &BTreeMap<String, String>, app: &str) -> bool {
    let others = format!("{}{app}.", name::OTHER_APP);
    match user.get(name::APP) {
        Some(found) if found == app => true,
        Some(_) => user.keys().any(|key| key.starts_with(&others)),
        None => {
            [name::SPEC, name::VERSION].iter().any(|key| user.contains_key(*key))
                || user.keys().any(|key| key.starts_with(&others))
        }
    }
}

/// The marks of a dataset that zed created, as far as somebody took them away or changed them.
pub(super) fn marks(
    found: &crate::world::Seen<'_>,
    deploy: &str,
    role: crate::props::Role,
) -> BTreeMap<String, String> {
    let mut user = BTreeMap::new();
    // What zed did not create is used as it is, without a mark; only what zed creates has a role.
    if !found.managed && found.role.is_none() {
        return user;
    }
    if !found.managed {
        user.insert(name::MANAGED.to_owned(), "yes".to_owned());
    }
    for (key, value, present) in
        [(name::DEPLOY, deploy, found.deploy), (name::ROLE, role.as_str(), found.role)]
    {
        if present != Some(value) {
            user.insert(key.to_owned(), value.to_owned());
        }
    }
    user
}

#[cfg(test)]
mod tests;
