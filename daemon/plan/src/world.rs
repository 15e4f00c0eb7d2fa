//! What the observation means: which app is stamped where, which branch belongs to which dataset.
//!
//! Owns the one pass over the observation that every plan begins with. Decides nothing.

use crate::naming::is_branch;
use crate::naming::is_own;
use crate::naming::stem_of_branch;
use crate::observed::Observed;
use crate::observed::ObservedDataset;
use crate::plan::Note;
use crate::plan::Severity;
use crate::props::AppStamp;
use crate::props::SCHEMA;
use crate::props::name;
use crate::props::parse_stamps;
use std::collections::BTreeMap;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;

/// Where an app is stamped.
#[derive(Debug, Clone)]
pub(crate) struct Located<'a> {
    /// The dataset that carries the stamp.
    pub(crate) dataset: &'a DatasetPath,
    /// What it says.
    pub(crate) stamp: AppStamp,
}

/// A dataset with what the planner asks of nearly every one, picked out in the one pass over its properties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a DatasetPath,
    pub(crate) dataset: &'a ObservedDataset,
    /// `com.zed:deploy`.
    pub(crate) deploy: Option<&'a str>,
    /// `com.zed:role`.
    pub(crate) role: Option<&'a str>,
    /// Created by zed.
    pub(crate) managed: bool,
    /// Carries a stamp, or a schema that is not this one's.
    stamped: bool,
}

impl<'a> Seen<'a> {
    fn read(path: &'a DatasetPath, dataset: &'a ObservedDataset) -> Self {
        let mut seen = Self { path, dataset, deploy: None, role: None, managed: false, stamped: false };
        for (key, value) in &dataset.user {
            match key.as_str() {
                name::DEPLOY => seen.deploy = Some(value),
                name::ROLE => seen.role = Some(value),
                name::MANAGED => seen.managed = true,
                name::SCHEMA => seen.stamped |= value.parse() != Ok(SCHEMA),
                name::APP => seen.stamped = true,
                other => seen.stamped |= other.starts_with(name::OTHER_APP),
            }
        }
        seen
    }
}

/// The observation, indexed.
pub(crate) struct World<'a> {
    /// What was observed.
    pub(crate) observed: &'a Observed,
    /// Every dataset that is not zed's own, by path.
    pub(crate) seen: Vec<Seen<'a>>,
    /// Each app's stamp.
    pub(crate) apps: BTreeMap<AppName, Located<'a>>,
    /// Apps stamped on each dataset.
    pub(crate) by_dataset: BTreeMap<&'a str, Vec<AppName>>,
    /// Datasets whose deploy is known.
    pub(crate) by_deploy: BTreeMap<&'a str, Vec<&'a DatasetPath>>,
    /// Branches by the stem in their names.
    pub(crate) branches: BTreeMap<&'a str, Vec<&'a DatasetPath>>,
    /// Odd properties, by dataset.
    pub(crate) notes: Vec<(&'a DatasetPath, Note)>,
}

impl<'a> World<'a> {
    /// Reads every property once. Where two datasets carry a stamp of one app (a received copy beside the
    /// original), `home` says which dataset is meant.
    pub(crate) fn read(observed: &'a Observed, home: impl Fn(&AppName) -> Option<&'a DatasetPath>) -> Self {
        let mut world = World {
            observed,
            seen: Vec::with_capacity(observed.datasets.len()),
            apps: BTreeMap::new(),
            by_dataset: BTreeMap::new(),
            by_deploy: BTreeMap::new(),
            branches: BTreeMap::new(),
            notes: Vec::new(),
        };
        for (path, dataset) in &observed.datasets {
            if is_own(path.as_str()) {
                if is_branch(path.as_str())
                    && let Some(stem) = stem_of_branch(path.as_str())
                {
                    world.branches.entry(stem).or_default().push(path);
                }
                continue;
            }
            let seen = Seen::read(path, dataset);
            world.seen.push(seen);
            if let Some(deploy) = seen.deploy {
                world.by_deploy.entry(deploy).or_default().push(path);
            }
            if !seen.stamped {
                continue;
            }
            let stamps = parse_stamps(&format_args!("dataset {path}"), &dataset.user);
            world.notes.extend(stamps.notes.into_iter().map(|note| (path, note)));
            for stamp in stamps.apps {
                world.add(path, stamp, &home);
            }
        }
        world
    }

    fn add(
        &mut self,
        dataset: &'a DatasetPath,
        stamp: AppStamp,
        home: &impl Fn(&AppName) -> Option<&'a DatasetPath>,
    ) {
        if let Some(other) = self.apps.get(&stamp.app) {
            let keep_other = home(&stamp.app) != Some(dataset);
            let (kept, ignored) =
                if keep_other { (other.dataset, dataset) } else { (dataset, other.dataset) };
            let text = format!(
                "app {} is stamped here and on `{kept}`, which counts: remove `{}` from the copy with `zfs inherit`, \
                 or destroy the copy",
                stamp.app,
                name::APP
            );
            let note = Note {
                severity: Severity::Warning,
                kind: "duplicate".into(),
                object: format!("dataset {ignored}"),
                text,
            };
            self.notes.push((ignored, note));
            if keep_other {
                return;
            }
            if let Some(apps) = self.by_dataset.get_mut(other.dataset.as_str()) {
                apps.retain(|app| *app != stamp.app);
            }
        }
        self.by_dataset.entry(dataset.as_str()).or_default().push(stamp.app.clone());
        self.apps.insert(stamp.app.clone(), Located { dataset, stamp });
    }

    /// A dataset that is there, and not zed's own.
    pub(crate) fn seen(&self, path: &DatasetPath) -> Option<Seen<'a>> {
        let at = self.seen.binary_search_by(|seen| seen.path.cmp(path)).ok()?;
        self.seen.get(at).copied()
    }

    /// True when the dataset is there.
    pub(crate) fn exists(&self, path: &DatasetPath) -> bool {
        self.observed.datasets.contains_key(path)
    }

    /// User properties of a dataset; none when it is not there.
    pub(crate) fn user(&self, path: &DatasetPath) -> &'a BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.observed.datasets.get(path).map_or(&NONE, |dataset| &dataset.user)
    }

    /// Stamps of all apps on a dataset.
    pub(crate) fn stamps_on(&self, path: &DatasetPath) -> Vec<AppStamp> {
        let apps = self.by_dataset.get(path.as_str());
        apps.into_iter()
            .flatten()
            .filter_map(|app| self.apps.get(app))
            .map(|found| found.stamp.clone())
            .collect()
    }

    /// True when a process of the app is there or will be: it has to be stopped before its data is touched.
    pub(crate) fn is_alive(&self, app: &AppName) -> bool {
        !self.observed.alive(app).is_empty()
    }

    /// Apps of a deploy that are stamped here.
    pub(crate) fn apps_of(&self, deploy: &DeployName) -> impl Iterator<Item = (&AppName, &Located<'a>)> {
        self.apps.iter().filter(move |(_, found)| found.stamp.deploy == *deploy)
    }
}
