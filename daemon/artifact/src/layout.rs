//! An OCI image layout on disk: which manifest is meant, its layers and its configuration.
//!
//! Owns the way from `index.json` to verified blobs. The types are the oci-spec crate's. Every blob is opened once,
//! hashed through that descriptor, and read again through it. Places nothing.

use crate::digest::hash_file;
use crate::digest::open;
use crate::error::UnpackError;
use oci_spec::image::Descriptor;
use oci_spec::image::ImageConfiguration;
use oci_spec::image::ImageIndex;
use oci_spec::image::ImageManifest;
use oci_spec::image::MediaType;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// The file that every layout begins with.
pub(crate) const INDEX: &str = "index.json";
/// The image's file system in a release folder.
pub const ROOTFS: &str = "rootfs";
/// The image's configuration in a release folder.
pub const IMAGE_FILE: &str = "image.json";
/// Longest index, manifest or configuration. Registries stop at 4 MiB.
const MAX_JSON: u64 = 4 << 20;
/// An index in an index in an index.
const MAX_NESTING: usize = 3;
/// Kept open at once while an image is unpacked; overlay file systems stop at 500.
const MAX_LAYERS: usize = 256;
/// Version of the format of [`IMAGE_FILE`].
const IMAGE_FORMAT: u32 = 1;

/// What an image says about how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Version of the format, 1.
    pub format: u32,
    /// The program and its first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The configuration beside an unpacked image; nothing when the release is no image.
///
/// # Errors
///
/// When the file is there and cannot be read.
pub fn read_image(release: &Path) -> io::Result<Option<ImageConfig>> {
    let path = release.join(IMAGE_FILE);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut text)?;
    let image: ImageConfig = serde_json::from_slice(&text)?;
    if image.format > IMAGE_FORMAT {
        return Err(io::Error::other(format!("it has format {}, written by a newer zed", image.format)));
    }
    Ok(Some(image))
}

/// An image whose blobs are open and verified.
pub(crate) struct Image {
    pub(crate) config: ImageConfig,
    /// In the order in which they are applied: path, digest, descriptor.
    pub(crate) layers: Vec<(PathBuf, String, File)>,
    /// Bytes of all layers, as they are packed.
    pub(crate) size: u64,
}

fn unusable(layout: &Path, why: impl Into<String>) -> UnpackError {
    UnpackError::Unusable { artifact: layout.to_owned(), why: why.into() }
}

/// A file of JSON, of bounded size.
fn read_json<T: DeserializeOwned>(layout: &Path, name: &str, file: File) -> Result<T, UnpackError> {
    let mut text = Vec::new();
    let path = layout.join(name);
    file.take(MAX_JSON + 1).read_to_end(&mut text).map_err(UnpackError::io("read", &path))?;
    if text.len() as u64 > MAX_JSON {
        return Err(unusable(layout, format!("`{name}` is longer than {MAX_JSON} bytes")));
    }
    serde_json::from_slice(&text)
        .map_err(|e| unusable(layout, format!("`{name}` is not what it should be: {e}")))
}

/// Name of a blob's file in the layout.
fn blob_name(layout: &Path, descriptor: &Descriptor) -> Result<String, UnpackError> {
    let digest = descriptor.digest().to_string();
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    match hex {
        Some(hex) => Ok(format!("blobs/sha256/{hex}")),
        None => {
            Err(unusable(layout, format!("`{digest}` is no digest that zed can verify; it must be sha256")))
        }
    }
}

/// Opens a blob and verifies it through the descriptor that is handed out, wound back.
fn verified(
    layout: &Path,
    descriptor: &Descriptor,
    cancel: &AtomicBool,
) -> Result<(PathBuf, File), UnpackError> {
    let path = layout.join(blob_name(layout, descriptor)?);
    let mut file = open(&path)?;
    let found = format!("sha256:{}", hash_file(&path, &mut file, cancel)?);
    let wanted = descriptor.digest().to_string();
    if found != wanted {
        return Err(UnpackError::Digest { artifact: path, wanted, found });
    }
    io::Seek::rewind(&mut file).map_err(UnpackError::io("read", &path))?;
    Ok((path, file))
}

fn blob_json<T: DeserializeOwned>(
    layout: &Path,
    descriptor: &Descriptor,
    cancel: &AtomicBool,
) -> Result<T, UnpackError> {
    let (_, file) = verified(layout, descriptor, cancel)?;
    read_json(layout, &blob_name(layout, descriptor)?, file)
}

fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex
        || media_type.to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest
        || media_type.to_string() == "application/vnd.docker.distribution.manifest.v2+json"
}

/// All manifests below an index. With `wanted`, only that one, or those below the index of that digest.
fn manifests(
    layout: &Path,
    index: &ImageIndex,
    wanted: Option<&str>,
    depth: usize,
    found: &mut BTreeMap<String, Descriptor>,
) -> Result<(), UnpackError> {
    if depth > MAX_NESTING {
        return Err(unusable(layout, "its indexes are nested too deeply"));
    }
    for descriptor in index.manifests() {
        let digest = descriptor.digest().to_string();
        let meant = wanted.is_none_or(|wanted| wanted == digest);
        if is_index(descriptor.media_type()) {
            let below: ImageIndex = blob_json(layout, descriptor, &AtomicBool::new(false))?;
            let wanted = if meant { None } else { wanted };
            manifests(layout, &below, wanted, depth + 1, found)?;
        } else if meant && is_manifest(descriptor.media_type()) && !is_attestation(descriptor) {
            found.insert(digest, descriptor.clone());
        }
    }
    Ok(())
}

/// BuildKit puts provenance beside the images, as manifests for a platform that does not exist.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.platform().as_ref().is_some_and(|platform| platform.os().to_string() == "unknown")
}

/// This host's platform in the words of OCI.
fn host_platform() -> (&'static str, &'static str) {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let os = if std::env::consts::OS == "illumos" { "solaris" } else { std::env::consts::OS };
    (os, arch)
}

/// The manifest that is meant.
fn find_manifest(layout: &Path, wanted: Option<&str>) -> Result<Descriptor, UnpackError> {
    let index = match open(&layout.join(INDEX)) {
        Ok(file) => read_json(layout, INDEX, file)?,
        Err(UnpackError::Missing { .. }) if layout.exists() => {
            return Err(unusable(
                layout,
                "it has no `index.json`: it must be an OCI image layout, as `skopeo copy` to `oci:` writes it",
            ));
        }
        Err(UnpackError::Missing { .. }) => return Err(UnpackError::Missing { artifact: layout.to_owned() }),
        Err(e) => return Err(e),
    };
    let mut found = BTreeMap::new();
    manifests(layout, &index, wanted, 1, &mut found)?;
    if found.is_empty() {
        return Err(match wanted {
            Some(wanted) => unusable(layout, format!("it has no image {wanted}")),
            None => unusable(layout, "its `index.json` names no image"),
        });
    }
    let (os, arch) = host_platform();
    let shown = |found: &BTreeMap<String, Descriptor>| {
        let list: Vec<String> = found.values().map(describe).collect();
        list.join(", ")
    };
    if found.len() == 1
        && let Some(only) = found.values().next()
    {
        return Ok(only.clone());
    }
    let all = shown(&found);
    found.retain(|_, descriptor| {
        let platform = descriptor.platform().as_ref();
        platform.is_some_and(|p| p.os().to_string() == os && p.architecture().to_string() == arch)
    });
    match (found.len(), found.values().next()) {
        (1, Some(only)) => Ok(only.clone()),
        (0, _) => Err(unusable(layout, format!("none of its images is for {os}/{arch}: {all}"))),
        _ => {
            let all = shown(&found);
            Err(unusable(
                layout,
                format!("several of its images are for {os}/{arch}, so give a `digest`: {all}"),
            ))
        }
    }
}

fn describe(descriptor: &Descriptor) -> String {
    match descriptor.platform() {
        Some(platform) => format!("{} ({}/{})", descriptor.digest(), platform.os(), platform.architecture()),
        None => descriptor.digest().to_string(),
    }
}

/// Digest of the manifest that is meant, without `sha256:`.
pub(crate) fn manifest_digest(layout: &Path, wanted: Option<&str>) -> Result<String, UnpackError> {
    Ok(find_manifest(layout, wanted)?.digest().digest().to_owned())
}

/// The image of a manifest's digest, with every blob verified.
pub(crate) fn open_image(
    layout: &Path,
    wanted: Option<&str>,
    digest: &str,
    cancel: &AtomicBool,
) -> Result<Image, UnpackError> {
    let descriptor = find_manifest(layout, wanted)?;
    let found = descriptor.digest().digest().to_owned();
    if found != digest {
        return Err(UnpackError::Digest { artifact: layout.to_owned(), wanted: digest.to_owned(), found });
    }
    let manifest: ImageManifest = blob_json(layout, &descriptor, cancel)?;
    let config: ImageConfiguration = blob_json(layout, manifest.config(), cancel)?;
    let (os, arch) = host_platform();
    let platform = (config.os().to_string(), config.architecture().to_string());
    if platform != (os.to_owned(), arch.to_owned()) {
        return Err(unusable(
            layout,
            format!("its image is for {}/{}, this host is {os}/{arch}", platform.0, platform.1),
        ));
    }
    if manifest.layers().len() > MAX_LAYERS {
        return Err(unusable(layout, format!("it has more than {MAX_LAYERS} layers")));
    }
    let mut image = Image { config: image_config(&config), layers: Vec::new(), size: 0 };
    for layer in manifest.layers() {
        let (path, file) = verified(layout, layer, cancel)?;
        image.size = image.size.saturating_add(layer.size());
        let hex = layer.digest().digest().to_owned();
        image.layers.push((path, hex, file));
    }
    Ok(image)
}

fn image_config(config: &ImageConfiguration) -> ImageConfig {
    let mut image = ImageConfig { format: IMAGE_FORMAT, ..ImageConfig::default() };
    let Some(run) = config.config() else { return image };
    image.entrypoint = run.entrypoint().clone().unwrap_or_default();
    image.cmd = run.cmd().clone().unwrap_or_default();
    let env = run.env().iter().flatten().filter_map(|line| line.split_once('='));
    image.env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    image.workdir = run.working_dir().clone().filter(|text| !text.is_empty());
    image.user = run.user().clone().filter(|text| !text.is_empty());
    image
}
