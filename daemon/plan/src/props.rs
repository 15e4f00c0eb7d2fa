//! The property schema: what zed writes into `com.zed:*`, and what it makes of what it finds there.
//!
//! Owns the names and the text form of every property. Reading is tolerant: an odd value is a note, never a dead
//! end. Must never write to a dataset that a newer schema wrote.

use crate::plan::Note;
use crate::plan::RunId;
use crate::plan::Severity;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use zed_spec::AppName;
use zed_spec::DatasetPath;
use zed_spec::DeployName;

/// Namespace of every property that zed writes.
pub const PREFIX: &str = "com.zed:";
/// Version of the schema that this build writes.
pub const SCHEMA: u32 = 1;
/// Longest value that ZFS takes, in bytes.
pub const MAX_VALUE: usize = 8191;
/// Parent of every branch.
pub const BRANCHES: &str = "zed/branches";

/// Full property names.
pub mod name {
    /// `yes` on what zed created.
    pub const MANAGED: &str = "com.zed:managed";
    /// [`super::SCHEMA`] of the writer.
    pub const SCHEMA: &str = "com.zed:schema";
    /// The deploy it belongs to.
    pub const DEPLOY: &str = "com.zed:deploy";
    /// [`super::Role`].
    pub const ROLE: &str = "com.zed:role";
    /// The run that created it, or deployed the release in it.
    pub const RUN: &str = "com.zed:run";
    /// The app whose stamp has the plain names.
    pub const APP: &str = "com.zed:app";
    /// Its version.
    pub const VERSION: &str = "com.zed:version";
    /// Generation of the spec.
    pub const GENERATION: &str = "com.zed:generation";
    /// sha256 of the resolved app.
    pub const SPEC: &str = "com.zed:spec";
    /// Digest of the artifact.
    pub const ARTIFACT: &str = "com.zed:artifact";
    /// `healthy` at commit.
    pub const HEALTH: &str = "com.zed:health";
    /// RFC 3339, UTC.
    pub const DEPLOYED_AT: &str = "com.zed:deployed_at";
    /// [`super::RunState`].
    pub const STATE: &str = "com.zed:state";
    /// Which of its two processes serves, for a blue-green app.
    pub const LIVE: &str = "com.zed:live";
    /// How many processes an operator wants.
    pub const SCALE: &str = "com.zed:scale";
    /// The generation that a rollback holds against.
    pub const HELD: &str = "com.zed:held";
    /// The snapshot that a rollback went to.
    pub const ROLLED_BACK_TO: &str = "com.zed:rolled_back_to";
    /// The branch that a rollback left.
    pub const ROLLED_BACK_FROM: &str = "com.zed:rolled_back_from";
    /// What a branch was.
    pub const BRANCH_OF: &str = "com.zed:branch_of";
    /// On a snapshot: the guest whose root it keeps, `jail:shop`.
    pub const GUEST: &str = "com.zed:guest";
    /// [`super::BranchKind`].
    pub const BRANCH_KIND: &str = "com.zed:branch_kind";
    /// On zed's own dataset, before the properties of the host's GPUs: `com.zed:gpu.vendor`, `com.zed:gpu.1.vendor`.
    pub const GPU: &str = "com.zed:gpu.";
    /// Before the name of an app that shares its dataset with the one that has the plain names.
    pub const OTHER_APP: &str = "com.zed:app.";
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// The text of the property.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The value for a text, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(
    /// What a dataset is for.
    Role {
        /// Holds an app and its stamp.
        App = "app",
        /// Holds data that goes with apps.
        Data = "data",
        /// Was created only to be the parent of another.
        Container = "container",
        /// What a rollback or a failed deploy left.
        Branch = "branch",
        /// zed's own.
        Own = "own",
    }
);

words!(
    /// Why a branch is there.
    BranchKind {
        /// A rollback left it.
        Undone = "undone",
        /// A failed deploy left it.
        Failed = "failed",
    }
);

words!(
    /// What an operator wants of an app.
    RunState {
        /// It is to run.
        Running = "running",
        /// An operator stopped it: nothing starts it but an operator.
        Stopped = "stopped",
    }
);

/// The state of one app's release, as stamped on its dataset and on snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppStamp {
    /// The app.
    pub app: AppName,
    /// Its deploy.
    pub deploy: DeployName,
    /// Its version.
    pub version: String,
    /// Generation of the spec it was deployed from.
    pub generation: u64,
    /// The run that deployed it.
    pub run: RunId,
    /// sha256 of the resolved app: names the [`crate::Release`].
    pub spec: String,
    /// Digest of its artifact.
    pub artifact: Option<String>,
    /// `healthy`.
    pub health: String,
    /// RFC 3339, UTC.
    pub deployed_at: String,
    /// What an operator wants of it.
    pub state: RunState,
    /// Which of its two processes serves; the first when absent. Only of blue-green apps.
    pub live: Option<u32>,
    /// How many processes an operator wants; as many as the spec says when absent.
    pub scale: Option<u32>,
    /// A rollback holds it: specs up to this generation do not move it.
    pub held: Option<u64>,
    /// The snapshot that the rollback went to.
    pub rolled_back_to: Option<String>,
    /// The branch that the rollback left.
    pub rolled_back_from: Option<DatasetPath>,
}

/// What the properties of one dataset or snapshot say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps {
    /// One for each app, the one with the plain names first.
    pub apps: Vec<AppStamp>,
    /// What is odd. A fatal one forbids writing.
    pub notes: Vec<Note>,
}

/// Reads the stamps of a dataset or of a snapshot; `object` names it in notes (`dataset apps/hello`).
pub fn parse_stamps(object: &dyn fmt::Display, user: &BTreeMap<String, String>) -> Stamps {
    let mut stamps = Stamps::default();
    if let Some(text) = user.get(name::SCHEMA).filter(|text| text.parse() != Ok(SCHEMA)) {
        match text.parse::<u32>() {
            Ok(found) if found > SCHEMA => {
                stamps.notes.push(Note {
                    severity: Severity::Fatal,
                    kind: "schema".into(),
                    object: object.to_string(),
                    text: format!(
                        "its properties were written in schema {found}, this zed knows {SCHEMA}: upgrade zed on this host"
                    ),
                });
                return stamps;
            }
            Ok(_) => {}
            Err(_) => odd(&mut stamps.notes, object, name::SCHEMA, text, "a number"),
        }
    }
    // Most datasets carry no stamp at all: one look tells.
    let stamped = user.range::<str, _>((Bound::Included(name::APP), Bound::Unbounded)).next();
    if stamped.is_none_or(|(key, _)| !key.starts_with(name::APP)) {
        return stamps;
    }
    // A data dataset's snapshots say whose data it is, which is not a release of their own.
    if user.contains_key(name::SPEC)
        && let Some(app) = user.get(name::APP)
    {
        match AppName::parse(app) {
            Ok(app) => stamps.read(object, user, app, Cow::Borrowed),
            Err(error) => odd(&mut stamps.notes, object, name::APP, app, &error.reason),
        }
    }
    let mut last = "";
    for key in user.range::<str, _>((Bound::Included(name::OTHER_APP), Bound::Unbounded)) {
        let Some(rest) = key.0.strip_prefix(name::OTHER_APP) else { break };
        let app = rest.split('.').next().unwrap_or(rest);
        if app == last {
            continue;
        }
        last = app;
        match AppName::parse(app) {
            Ok(parsed) => {
                let others =
                    |key: &'static str| Cow::Owned(format!("{}{app}.{}", name::OTHER_APP, field(key)));
                stamps.read(object, user, parsed, others);
            }
            Err(error) => odd(&mut stamps.notes, object, key.0, key.1, &error.reason),
        }
    }
    stamps
}

impl Stamps {
    /// Reads one app's stamp, whose property names `key` gives.
    fn read(
        &mut self,
        object: &dyn fmt::Display,
        user: &BTreeMap<String, String>,
        app: AppName,
        key: impl Fn(&'static str) -> Cow<'static, str>,
    ) {
        let notes = &mut self.notes;
        let get = |name: &'static str| user.get(&*key(name));
        let deploy = get(name::DEPLOY).and_then(|text| DeployName::parse(text).ok());
        let (Some(deploy), Some(version), Some(spec)) = (deploy, get(name::VERSION), get(name::SPEC)) else {
            let missing = [name::DEPLOY, name::VERSION, name::SPEC]
                .into_iter()
                .find(|f| get(f).is_none())
                .unwrap_or(name::DEPLOY);
            let text = format!(
                "the stamp of app {app} has no valid `{}`: the app counts as not deployed; the next deploy stamps it again",
                key(missing)
            );
            notes.push(Note {
                severity: Severity::Warning,
                kind: "property".into(),
                object: object.to_string(),
                text,
            });
            return;
        };
        let number = |name: &'static str, notes: &mut Vec<Note>| {
            let text = get(name)?;
            text.parse::<u64>().map_err(|_| odd(notes, object, &key(name), text, "a number")).ok()
        };
        let generation = number(name::GENERATION, notes).unwrap_or(0);
        let held = number(name::HELD, notes);
        let small = |name, notes: &mut Vec<Note>| number(name, notes).and_then(|n| u32::try_from(n).ok());
        let live = small(name::LIVE, notes);
        let scale = small(name::SCALE, notes);
        let state = get(name::STATE).map_or(RunState::Running, |text| {
            RunState::parse(text).unwrap_or_else(|| {
                odd(notes, object, &key(name::STATE), text, "`running` or `stopped`");
                RunState::Running
            })
        });
        let rolled_back_from = get(name::ROLLED_BACK_FROM).and_then(|text| {
            DatasetPath::parse(text)
                .map_err(|error| odd(notes, object, &key(name::ROLLED_BACK_FROM), text, &error.reason))
                .ok()
        });
        let text = |name: &'static str| get(name).cloned().unwrap_or_default();
        self.apps.push(AppStamp {
            app,
            deploy,
            version: version.clone(),
            generation,
            run: RunId(text(name::RUN)),
            spec: spec.clone(),
            artifact: get(name::ARTIFACT).cloned(),
            health: text(name::HEALTH),
            deployed_at: text(name::DEPLOYED_AT),
            state,
            live,
            scale,
            held,
            rolled_back_to: get(name::ROLLED_BACK_TO).cloned(),
            rolled_back_from,
        });
    }
}

/// The part of a name after the namespace.
fn field(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Notes a value that is not what the schema says.
fn odd(notes: &mut Vec<Note>, object: &dyn fmt::Display, key: &str, value: &str, expected: &str) {
    notes.push(Note {
        severity: Severity::Warning,
        kind: "property".into(),
        object: object.to_string(),
        text: format!(
            "`{key}` is `{value}`, expected {expected}: ignored, and written again by the next deploy"
        ),
    });
}

impl AppStamp {
    /// The properties of this stamp: with the plain names when `primary`.
    pub fn render(&self, primary: bool) -> BTreeMap<String, String> {
        // Exhaustive: a new field does not compile until it is written here.
        let Self {
            app,
            deploy,
            version,
            generation,
            run,
            spec,
            artifact,
            health,
            deployed_at,
            state,
            live,
            scale,
            held,
            rolled_back_to,
            rolled_back_from,
        } = self;
        let key = |field: &str| match primary {
            true => format!("{PREFIX}{field}"),
            false => format!("{}{app}.{field}", name::OTHER_APP),
        };
        let mut out = BTreeMap::new();
        if primary {
            out.insert(name::APP.to_owned(), app.to_string());
        }
        let mut put = |field: &str, value: Option<String>| {
            if let Some(value) = value {
                out.insert(key(field), value);
            }
        };
        put("deploy", Some(deploy.to_string()));
        put("version", Some(version.clone()));
        put("generation", Some(generation.to_string()));
        put("run", Some(run.to_string()));
        put("spec", Some(spec.clone()));
        put("artifact", artifact.clone());
        put("health", Some(health.clone()));
        put("deployed_at", Some(deployed_at.clone()));
        put("state", Some(state.as_str().to_owned()));
        put("live", live.map(|n| n.to_string()));
        put("scale", scale.map(|n| n.to_string()));
        put("held", held.map(|g| g.to_string()));
        put("rolled_back_to", rolled_back_to.clone());
        put("rolled_back_from", rolled_back_from.as_ref().map(ToString::to_string));
        out
    }
}

/// True for properties that belong to an app's stamp and to nothing else. `deploy` and `run` do not: a dataset
/// has them without an app, too.
fn is_stamp_key(key: &str) -> bool {
    key.starts_with(name::OTHER_APP)
        || matches!(
            key,
            name::APP
                | name::VERSION
                | name::GENERATION
                | name::SPEC
                | name::ARTIFACT
                | name::HEALTH
                | name::DEPLOYED_AT
                | name::STATE
                | name::LIVE
                | name::SCALE
                | name::HELD
                | name::ROLLED_BACK_TO
                | name::ROLLED_BACK_FROM
        )
}

/// The properties of all these stamps together. The app that has the plain names in `current` keeps them; when
/// it is not among the stamps, the first by name gets them.
pub fn render_stamps(current: &BTreeMap<String, String>, stamps: &[AppStamp]) -> BTreeMap<String, String> {
    let holder = current.get(name::APP).filter(|app| stamps.iter().any(|s| s.app.as_str() == app.as_str()));
    let primary = match holder {
        Some(app) => Some(app.as_str()),
        None => stamps.iter().map(|s| s.app.as_str()).min(),
    };
    let mut out = BTreeMap::new();
    for stamp in stamps {
        out.append(&mut stamp.render(Some(stamp.app.as_str()) == primary));
    }
    out
}

/// What has to change in `current` so that it carries exactly these stamps. Empty when it does.
pub fn stamp_edits(
    current: &BTreeMap<String, String>,
    stamps: &[AppStamp],
) -> BTreeMap<String, Option<String>> {
    let wanted = render_stamps(current, stamps);
    let mut edits: BTreeMap<String, Option<String>> = current
        .keys()
        .filter(|key| is_stamp_key(key) && !wanted.contains_key(*key))
        .map(|key| (key.clone(), None))
        .collect();
    if !stamps.is_empty() && current.get(name::SCHEMA).is_none_or(|found| *found != SCHEMA.to_string()) {
        edits.insert(name::SCHEMA.to_owned(), Some(SCHEMA.to_string()));
    }
    for (key, value) in wanted {
        if current.get(&key) != Some(&value) {
            edits.insert(key, Some(value));
        }
    }
    edits
}

/// `current` with its stamps replaced by those of a snapshot; everything else stays as it is, properties of
/// other programs included.
pub fn replace_stamps(current: &BTreeMap<String, String>, stamps: &[AppStamp]) -> BTreeMap<String, String> {
    let mut user = current.clone();
    for (key, value) in stamp_edits(current, stamps) {
        match value {
            Some(value) => user.insert(key, value),
            None => user.remove(&key),
        };
    }
    user
}

/// Properties of a dataset that zed creates.
pub fn created_props(role: Role, deploy: Option<&DeployName>, run: &RunId) -> BTreeMap<String, String> {
    let mut user = BTreeMap::from([
        (name::MANAGED.to_owned(), "yes".to_owned()),
        (name::SCHEMA.to_owned(), SCHEMA.to_string()),
        (name::ROLE.to_owned(), role.as_str().to_owned()),
        (name::RUN.to_owned(), run.to_string()),
    ]);
    if let Some(deploy) = deploy {
        user.insert(name::DEPLOY.to_owned(), deploy.to_string());
    }
    user
}

/// Properties that make a dataset a branch.
pub fn branch_props(of: &DatasetPath, kind: BranchKind, run: &RunId) -> BTreeMap<String, String> {
    let mut user = created_props(Role::Branch, None, run);
    user.insert(name::BRANCH_OF.to_owned(), of.to_string());
    user.insert(name::BRANCH_KIND.to_owned(), kind.as_str().to_owned());
    user
}

/// True when zed created it: stores look for the mark, whatever its value.
pub fn is_managed(user: &BTreeMap<String, String>) -> bool {
    user.contains_key(name::MANAGED)
}

/// The part of a dataset's properties that is stamped on a snapshot: all of ours, and the mark that the
/// snapshot itself is ours.
pub fn snapshot_stamp(user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut stamp: BTreeMap<String, String> =
        user.iter().filter(|(key, _)| key.starts_with(PREFIX)).map(|(k, v)| (k.clone(), v.clone())).collect();
    stamp.insert(name::MANAGED.to_owned(), "yes".to_owned());
    stamp.insert(name::SCHEMA.to_owned(), SCHEMA.to_string());
    stamp
}

#[cfg(test)]
mod tests;
