//! Steps on release folders, and what a release is started with: the way from plans to zed-artifact.
//!
//! Owns what a plan leaves to the host: where a dataset is mounted, which ids a user has. Decides nothing. Every step
//! may be repeated.

use crate::steps::StepError;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use zed_artifact::Digests;
use zed_artifact::Found;
use zed_artifact::Limits;
use zed_artifact::Owner;
use zed_artifact::RELEASES;
use zed_artifact::ROOTFS;
use zed_artifact::ReleaseError;
use zed_host::ContainerRequest;
use zed_host::ImageDefaults;
use zed_plan::RunSpec;
use zed_plan::Step;
use zed_plan::Unpack;
use zed_spec::DatasetPath;
use zed_spec::Network;
use zed_spec::Runtime;
use zed_store::Store;

/// Carries out a step on release folders. `cancel` ends an unpacking early and clean.
pub(crate) fn run(store: &dyn Store, step: &Step, cancel: &AtomicBool) -> Result<(), StepError> {
    match step {
        Step::Unpack { unpack } => unpack_into(&mounted(store, &unpack.dataset)?, unpack, cancel),
        Step::DiscardRelease { dataset, folder, run } => match mounted_if_there(store, dataset)? {
            Some(at) => Ok(zed_artifact::discard(&at, bare(folder)?, &run.0)?),
            // Never created, or taken back already.
            None => Ok(()),
        },
        Step::SwitchRelease { dataset, folder: Some(folder) } => {
            Ok(zed_artifact::switch(&mounted(store, dataset)?, Some(bare(folder)?))?)
        }
        Step::SwitchRelease { dataset, folder: None } => match mounted_if_there(store, dataset)? {
            Some(at) => Ok(zed_artifact::switch(&at, None)?),
            None => Ok(()),
        },
        Step::PruneReleases { dataset, keep } => match mounted_if_there(store, dataset)? {
            Some(at) => {
                let keep: Vec<&str> = keep.iter().map(|folder| bare(folder)).collect::<Result<_, _>>()?;
                Ok(zed_artifact::prune(&at, &keep)?)
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What makes a run a container: its root, an unpacked image or a release folder that is a root itself, what its
/// image says, and its folders. Nothing for a run that is none.
pub(crate) fn container(
    store: &dyn Store,
    run: &RunSpec,
    directory: &Path,
    data: &Path,
) -> Result<Option<ContainerRequest>, StepError> {
    let Runtime::Container { network } = run.runtime else { return Ok(None) };
    let image = zed_artifact::read_image(directory)
        .map_err(|source| StepError::Image { app: run.app.to_string(), source })?;
    // A runtime takes no root that a link leads to; the embedded store's datasets are links.
    let directory = std::fs::canonicalize(directory)
        .map_err(|source| StepError::Image { app: run.app.to_string(), source })?;
    let root = if image.is_some() { directory.join(ROOTFS) } else { directory };
    let image = image.unwrap_or_default();
    let command = image.entrypoint.into_iter().chain(image.cmd).collect();
    let mounts = run.data.iter().map(|dataset| mounted(store, dataset)).collect::<Result<_, _>>()?;
    Ok(Some(ContainerRequest {
        root,
        image: ImageDefaults { command, env: image.env, workdir: image.workdir, user: image.user },
        data: data.to_owned(),
        mounts,
        private_network: network == Network::Private,
        limits: run.limits.clone(),
    }))
}

/// A folder as plans name it, `releases/1.0.0`, without the part that is always the same.
fn bare(folder: &str) -> Result<&str, ReleaseError> {
    let name = folder.strip_prefix(RELEASES).and_then(|rest| rest.strip_prefix('/'));
    name.ok_or_else(|| ReleaseError::Name { name: folder.to_owned() })
}

fn mounted(store: &dyn Store, dataset: &DatasetPath) -> Result<PathBuf, StepError> {
    mounted_if_there(store, dataset)?.ok_or_else(|| StepError::NoPlace { dataset: dataset.clone() })
}

/// Where a dataset is mounted; nothing when it does not exist or has no mountpoint.
fn mounted_if_there(store: &dyn Store, dataset: &DatasetPath) -> Result<Option<PathBuf>, StepError> {
    let Some(found) = store.get(dataset)? else { return Ok(None) };
    let Some(mountpoint) = found.mountpoint.clone() else { return Ok(None) };
    store.mount(dataset)?;
    Ok(Some(mountpoint))
}

fn unpack_into(at: &Path, unpack: &Unpack, cancel: &AtomicBool) -> Result<(), StepError> {
    let owner = zed_host::ids_of(unpack.user.as_deref(), unpack.group.as_deref())?;
    let digest = match &unpack.digest {
        // Image digests are written `sha256:...` in specs.
        Some(digest) => digest.rsplit(':').next().unwrap_or(digest).to_owned(),
        None => digest_now(unpack)?,
    };
    Ok(zed_artifact::unpack(&zed_artifact::Unpack {
        artifact: &unpack.artifact,
        digest: &digest,
        dataset: at,
        folder: bare(&unpack.folder)?,
        version: &unpack.version,
        run: &unpack.run.0,
        owner: owner.map(|(uid, gid)| Owner { uid, gid }),
        limits: Limits::default(),
        cancel,
    })?)
}

/// What the artifact is, for a plan that was made without having seen it.
fn digest_now(unpack: &Unpack) -> Result<String, StepError> {
    let found = Digests::default().look([&unpack.artifact]).into_iter().next();
    match found {
        Some((_, Found::Digest(digest))) => Ok(digest),
        Some((path, Found::Missing)) => {
            Err(zed_artifact::UnpackError::Missing { artifact: path.into() }.into())
        }
        Some((_, Found::Unusable(why))) => Err(StepError::Artifact { why }),
        None => Err(StepError::Artifact { why: "it could not be looked at".to_owned() }),
    }
}
