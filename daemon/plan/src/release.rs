//! What makes one release different from another: the hashes, and the run that a release means.
//!
//! Owns both hashes. A field of [`App`] counts in exactly one of the two parts below; a new field does not
//! compile until somebody has decided which. Secret values never enter a hash.

use crate::observed::Observed;
use crate::plan::PLAN_FORMAT;
use crate::plan::Release;
use crate::plan::RunSpec;
use crate::shape;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::io;
use zed_spec::App;
use zed_spec::AppName;
use zed_spec::Artifact;
use zed_spec::Condition;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::Health;
use zed_spec::Hooks;
use zed_spec::HostName;
use zed_spec::Limits;
use zed_spec::Listen;
use zed_spec::Placement;
use zed_spec::Restart;
use zed_spec::Runtime;
use zed_spec::Strategy;
use zed_spec::ValueFrom;

/// Variables that a BEAM release's start script reads.
const BEAM_NODE: &str = "RELEASE_NODE";
/// The same for the cookie.
const BEAM_COOKIE: &str = "RELEASE_COOKIE";

/// A value that a spec takes from elsewhere and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingValue {
    /// What it is for: a variable of the app, or `cookie`.
    pub wanted_for: String,
    /// Where it should have come from.
    pub from: ValueFrom,
}

/// An app's identity on this host, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// sha256 over everything that makes a process different.
    pub run_hash: String,
    /// sha256 over the whole app: `com.zed:spec`.
    pub spec_hash: String,
    /// What is not there. Hashes are not to be used for a start while this is not empty.
    pub missing: Vec<MissingValue>,
}

/// Parts that a process is started from. A change means a restart.
#[derive(Serialize)]
struct RunPart<'a> {
    app: &'a AppName,
    deploy: &'a DeployName,
    dataset: &'a DatasetPath,
    version: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    command: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<ArtifactPart<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_from: &'a BTreeMap<String, ValueFrom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "no_limits")]
    limits: &'a Limits,
    runtime: &'a Runtime,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<&'a ValueFrom>,
    restart: &'a Restart,
    /// A blue-green process listens on one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<(u16, u16)>,
}

/// What an artifact is: its digest where that is known, else its place. A file that only moved is no change.
#[derive(Serialize)]
struct ArtifactPart<'a> {
    kind: &'static str,
    is: &'a str,
}

/// The rest: a change is probed and recorded, and restarts nothing.
#[derive(Serialize)]
struct AroundPart<'a> {
    #[serde(skip_serializing_if = "<[DatasetPath]>::is_empty")]
    data: &'a [DatasetPath],
    health: &'a Health,
    stop_grace_ms: u128,
    #[serde(skip_serializing_if = "<[AppName]>::is_empty")]
    depends_on: &'a [AppName],
    #[serde(skip_serializing_if = "no_hooks")]
    hooks: &'a Hooks,
    strategy: &'a Strategy,
    instances: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<Listen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<&'a Condition>,
    on: &'a Placement,
}

// serde hands the field's reference on: the field is itself a reference.
fn no_limits(limits: &&Limits) -> bool {
    **limits == Limits::default()
}

fn no_hooks(hooks: &&Hooks) -> bool {
    **hooks == Hooks::default()
}

/// The two parts of an app. Exhaustive on purpose.
fn parts<'a>(
    name: &'a AppName,
    deploy: &'a DeployName,
    app: &'a App,
    digest: Option<&'a str>,
) -> (RunPart<'a>, AroundPart<'a>) {
    let App {
        dataset,
        data,
        version,
        command,
        artifact,
        env,
        env_from,
        user,
        group,
        limits,
        runtime,
        node_name,
        cookie,
        health,
        restart,
        stop_grace,
        depends_on,
        hooks,
        strategy,
        instances,
        listen,
        when,
        on,
    } = app;
    let run = RunPart {
        app: name,
        deploy,
        dataset,
        version,
        command,
        artifact: artifact.as_ref().map(|artifact| {
            let (kind, path) = kind_and_path(artifact);
            ArtifactPart { kind, is: digest.unwrap_or(path) }
        }),
        env,
        env_from,
        user: user.as_deref(),
        group: group.as_deref(),
        limits,
        runtime,
        node_name: node_name.as_deref(),
        cookie: cookie.as_ref(),
        restart,
        ports: match strategy {
            Strategy::BlueGreen { ports, .. } => Some(*ports),
            _ => None,
        },
    };
    let around = AroundPart {
        data,
        health,
        stop_grace_ms: stop_grace.as_millis(),
        depends_on,
        hooks,
        strategy,
        instances: *instances,
        listen: *listen,
        when: when.as_ref(),
        on,
    };
    (run, around)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// sha256 of some bytes, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Feeds a hash with the JSON of values, each ended by a newline, in few large pieces.
fn hash_json<T: Serialize>(hash: &mut Sha256, value: &T) {
    struct Feed<'a>(&'a mut Sha256);
    impl io::Write for Feed<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut feed = io::BufWriter::with_capacity(1024, Feed(hash));
    // Writing to a hash cannot fail, and every map of a spec has text for keys: what remains would be a defect
    // of the types above, which the tests of this module would show as an equal hash of unequal apps.
    let written = serde_json::to_writer(&mut feed, value).map_err(io::Error::other);
    let flushed = io::Write::write_all(&mut feed, b"\n").and_then(|()| io::Write::flush(&mut feed));
    debug_assert!(written.is_ok() && flushed.is_ok());
}

/// Every value that an app takes from elsewhere, with what it is for.
pub(crate) fn values_from(app: &App) -> impl Iterator<Item = (&str, &ValueFrom)> {
    let env = app.env_from.iter().map(|(variable, from)| (variable.as_str(), from));
    env.chain(app.cookie.iter().map(|from| ("cookie", from)))
}

/// Hashes an app as it would run here and now. Values from elsewhere count by their sha256, so that a changed
/// variable is a changed app; an artifact counts by its `digest` where one is known.
pub fn resolve(
    name: &AppName,
    deploy: &DeployName,
    app: &App,
    digest: Option<&str>,
    observed: &Observed,
) -> Resolved {
    let (run, around) = parts(name, deploy, app, digest);
    let mut hash = Sha256::new();
    hash.update(b"zed app 1\n");
    hash_json(&mut hash, &run);
    let mut missing = Vec::new();
    for (wanted_for, from) in values_from(app) {
        let fingerprint: Option<String> = match from {
            ValueFrom::Env(variable) => {
                observed.env.get(variable).filter(|value| !value.is_empty()).map(|v| sha256_hex(v.as_bytes()))
            }
            ValueFrom::File(path) => observed.files.get(path).cloned(),
            ValueFrom::Secret(slot) => Some(format!("slot {slot}")),
        };
        match fingerprint {
            Some(fingerprint) => {
                hash.update(wanted_for.as_bytes());
                hash.update(b"=");
                hash.update(fingerprint.as_bytes());
                hash.update(b"\n");
            }
            None => missing.push(MissingValue { wanted_for: wanted_for.to_owned(), from: from.clone() }),
        }
    }
    let run_hash = hex(&hash.clone().finalize());
    hash_json(&mut hash, &around);
    Resolved { run_hash, spec_hash: hex(&hash.finalize()), missing }
}

/// True when an app has a process of its own. One without a command, an artifact and a runtime of its own is a
/// release that something else runs: zed keeps its data and its state.
pub fn has_process(app: &App) -> bool {
    !(app.command.is_empty() && app.artifact.is_none() && app.runtime == Runtime::Process)
}

/// What a process of an app is started from, besides its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) name: &'a AppName,
    pub(crate) deploy: &'a DeployName,
    pub(crate) host: &'a HostName,
    pub(crate) app: &'a App,
    /// Computed before.
    pub(crate) run_hash: &'a str,
    /// The release folder.
    pub(crate) folder: Option<&'a str>,
}

/// One run of an app.
pub(crate) fn run_spec(origin: Origin<'_>, number: u32) -> RunSpec {
    let Origin { name, deploy, host, app, run_hash, folder } = origin;
    let mut env = app.env.clone();
    env.extend(shape::own_env(app, number));
    let mut env_from = app.env_from.clone();
    if let Some(node) = &app.node_name
        && !env_from.contains_key(BEAM_NODE)
    {
        env.entry(BEAM_NODE.to_owned()).or_insert_with(|| node.clone());
    }
    if let Some(cookie) = &app.cookie
        && !env.contains_key(BEAM_COOKIE)
    {
        env_from.entry(BEAM_COOKIE.to_owned()).or_insert_with(|| cookie.clone());
    }
    RunSpec {
        app: name.clone(),
        number,
        deploy: deploy.clone(),
        host: host.clone(),
        version: app.version.clone(),
        run_hash: run_hash.to_owned(),
        command: app.command.clone(),
        env,
        env_from,
        dataset: app.dataset.clone(),
        release: folder.map(str::to_owned),
        data: app.data.clone(),
        runtime: app.runtime.clone(),
        limits: app.limits.clone(),
        user: app.user.clone(),
        group: app.group.clone(),
        restart: app.restart.clone(),
        stop_grace: app.stop_grace,
    }
}

/// The host's name, or `localhost` for an observation without one.
pub(crate) fn host_of(observed: &Observed) -> HostName {
    observed.host.clone().unwrap_or_else(localhost)
}

#[expect(clippy::unwrap_used, reason = "the text is a constant, and a test parses it")]
fn localhost() -> HostName {
    HostName::parse("localhost").unwrap()
}

/// The run that a release means here and now: what starts it again after a rollback or a boot.
///
/// # Errors
/// The values that it needs and that are not there.
pub fn run_spec_of(
    release: &Release,
    number: u32,
    observed: &Observed,
) -> Result<RunSpec, Vec<MissingValue>> {
    let Release { format: _, app, deploy, spec_hash: _, definition, folder, artifact } = release;
    let resolved = resolve(app, deploy, definition, artifact.as_deref(), observed);
    if !resolved.missing.is_empty() {
        return Err(resolved.missing);
    }
    let (host, run_hash, folder) = (&host_of(observed), &resolved.run_hash, folder.as_deref());
    Ok(run_spec(Origin { name: app, deploy, host, app: definition, run_hash, folder }, number))
}

/// The record of a release.
pub(crate) fn release_of(origin: Origin<'_>, spec_hash: &str, artifact: Option<String>) -> Release {
    let Origin { name, deploy, host: _, app, run_hash: _, folder } = origin;
    Release {
        format: PLAN_FORMAT,
        app: name.clone(),
        deploy: deploy.clone(),
        spec_hash: spec_hash.to_owned(),
        definition: app.clone(),
        folder: folder.map(str::to_owned),
        artifact,
    }
}

/// What kind of artifact it is, and where it lies.
pub(crate) fn kind_and_path(artifact: &Artifact) -> (&'static str, &str) {
    match artifact {
        Artifact::Tar { path, .. } => ("tar", path),
        Artifact::Dir { path } => ("dir", path),
        Artifact::Oci { path, .. } => ("oci", path),
    }
}

/// The digest that the spec asks for, as hex.
pub(crate) fn asked_digest(artifact: &Artifact) -> Option<&str> {
    let digest = match artifact {
        Artifact::Tar { sha256, .. } => sha256.as_deref(),
        Artifact::Dir { .. } => None,
        Artifact::Oci { digest, .. } => digest.as_deref(),
    };
    digest.map(bare)
}

/// A digest without the name of its algorithm.
pub(crate) fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests;
