//! OCI image layouts: which image is meant, layers with whiteouts, and what is refused.

use crate::common::Ground;
use crate::common::Item;
use crate::common::archive;
use crate::common::file;
use crate::common::folder;
use crate::common::gzip;
use crate::common::hard_link;
use crate::common::link;
use crate::common::look;
use crate::common::other;
use crate::common::text;
use crate::common::tree;
use crate::common::zstd;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use zed_artifact::Found;
use zed_spec::Artifact;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A layout that is written piece by piece.
struct Layout(PathBuf);

impl Layout {
    fn new(ground: &Ground) -> Self {
        let path = ground.top.path().join("artifacts/image");
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(path)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        std::fs::write(self.0.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn image(&self, layers: &[Vec<u8>], config: &Value) -> Value {
        let config = json!({
            "architecture": arch(), "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": []}
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|bytes| self.blob("application/vnd.oci.image.layer.v1.tar+gzip", bytes))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        std::fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    fn artifact(&self, digest: Option<&Value>) -> Artifact {
        let digest = digest.map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
        Artifact::Oci { path: text(&self.0), digest }
    }
}

fn with(descriptor: &Value, os: &str, architecture: &str) -> Value {
    let mut descriptor = descriptor.clone();
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

#[test]
fn layers_are_applied_with_their_whiteouts() {
    let ground = Ground::default();
    let layout = Layout::new(&ground);
    let lower = archive(&[
        folder("etc/"),
        file("etc/kept", "kept"),
        file("etc/gone", "gone"),
        folder("opaque"),
        file("opaque/lower", "x"),
        folder("opaque/both"),
        file("opaque/both/lower", "x"),
        folder("usr/lib"),
        link("lib", "/usr/lib"),
        link("up", "../../../../outside"),
        folder("was-folder"),
        file("was-folder/x", "x"),
        file("was-file", "x"),
        hard_link("absolute", "/etc/kept"),
        other(b'3', "dev/console"),
        file("same", "lower"),
    ]);
    let upper = archive(&[
        file("etc/.wh.gone", ""),
        file("opaque/upper", "upper"),
        file("opaque/both/upper", "upper"),
        file("opaque/.wh..wh..opq", ""),
        file("lib/library", "in usr"),
        file("up/inside", "in the image"),
        file("was-folder", "a file now"),
        folder("was-file"),
        file(".wh.nothing", ""),
        file(".wh..wh.plnk", ""),
        file("same", "upper"),
        file(".wh.same", ""),
    ]);
    let config = json!({
        "Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Env": ["A=b=c", "broken"], "WorkingDir": "/srv", "User": "1000:1000"
    });
    // A builder that leaves out the closing blocks is no reason to refuse what its digest proves whole.
    let image = layout.image(&[gzip(&lower), zstd(&upper[..upper.len() - 1024])], &config);
    layout.index(&[image]);
    ground.try_unpack(&layout.artifact(None), "1", "run1").unwrap();

    let release = ground.release("1");
    let found = tree(&release.join(zed_artifact::ROOTFS));
    let expected: BTreeMap<String, String> = [
        ("etc/", ""),
        ("etc/kept", "kept"),
        ("opaque/", ""),
        ("opaque/upper", "upper"),
        ("opaque/both/", ""),
        ("opaque/both/upper", "upper"),
        ("usr/", ""),
        ("usr/lib/", ""),
        ("usr/lib/library", "in usr"),
        ("lib", "-> /usr/lib"),
        ("up", "-> ../../../../outside"),
        ("outside/", ""),
        ("outside/inside", "in the image"),
        ("was-folder", "a file now"),
        ("was-file/", ""),
        ("absolute", "kept"),
        ("same", "upper"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    assert_eq!(found, expected);
    assert_eq!(tree(&ground.top.path().join("outside")).len(), 1);

    let image = zed_artifact::read_image(&release).unwrap().unwrap();
    assert_eq!((image.entrypoint, image.cmd), (vec!["/bin/app".to_owned()], vec!["serve".to_owned()]));
    assert_eq!(image.env, BTreeMap::from([("A".to_owned(), "b=c".to_owned())]));
    assert_eq!((image.workdir.as_deref(), image.user.as_deref()), (Some("/srv"), Some("1000:1000")));
    assert_eq!(zed_artifact::read_image(&ground.dataset()).unwrap(), None);
}

#[test]
fn ids_of_an_image_are_kept_and_closed_off() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: only root may give files away");
        return;
    }
    let ground = Ground::default();
    let layout = Layout::new(&ground);
    let mut bytes = crate::common::header(&file("private", ""), 0);
    let mut header = tar::Header::from_byte_slice(&bytes).clone();
    header.set_uid(101);
    header.set_gid(102);
    header.set_cksum();
    bytes.copy_from_slice(header.as_bytes());
    bytes.extend(archive(&[Item { mode: 0o6755, ..file("su", "x") }]));
    let image = layout.image(&[gzip(&bytes)], &json!({}));
    layout.index(&[image]);
    ground.try_unpack(&layout.artifact(None), "1", "run1").unwrap();
    let release = ground.release("1");
    let private = release.join("rootfs/private").metadata().unwrap();
    assert_eq!((private.uid(), private.gid()), (101, 102));
    assert_eq!((crate::common::mode(&release), crate::common::mode(&release.join("rootfs"))), (0o700, 0o755));
    assert_eq!(crate::common::mode(&release.join("rootfs/su")), 0o755);
}

#[test]
fn the_image_for_this_host_is_found() {
    let ground = Ground::default();
    let layout = Layout::new(&ground);
    let one = layout.image(&[gzip(&archive(&[file("word", "one")]))], &json!({}));
    let two = layout.image(&[gzip(&archive(&[file("word", "two")]))], &json!({}));
    let nested =
        json!({"schemaVersion": 2, "manifests": [with(&one, "linux", arch()), with(&two, "linux", "s390x")]});
    let nested = layout.blob(INDEX, nested.to_string().as_bytes());
    let digest = |image: &Value| image["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let gone = json!({"digest": format!("sha256:{}", "0".repeat(64))});
    let found = |image: &Value| Ok(digest(image));
    let fails = |text: &str| Err(text.to_owned());
    let provenance = with(&two, "unknown", "unknown");
    for (name, manifests, wanted, expected) in [
        ("only one", vec![one.clone()], None, found(&one)),
        ("by platform", vec![with(&one, "linux", arch()), with(&two, "windows", arch())], None, found(&one)),
        ("beside its provenance", vec![one.clone(), provenance], None, found(&one)),
        ("nested", vec![nested.clone()], None, found(&one)),
        ("by digest", vec![one.clone(), two.clone()], Some(&two), found(&two)),
        ("by digest of an index", vec![two.clone(), nested.clone()], Some(&nested), found(&one)),
        ("nested, by digest", vec![nested.clone()], Some(&two), found(&two)),
        ("no platform", vec![one.clone(), two.clone()], None, fails("none of its images is for linux")),
        (
            "several",
            vec![with(&one, "linux", arch()), with(&two, "linux", arch())],
            None,
            fails("so give a `digest`: sha256:"),
        ),
        ("unknown digest", vec![one.clone()], Some(&gone), fails("it has no image sha256:000")),
        ("nothing", vec![], None, fails("names no image")),
    ] {
        layout.index(&manifests);
        match (look(&layout.artifact(wanted)), expected) {
            (Found::Digest(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
            (Found::Unusable(text), Err(expected)) => assert!(text.contains(&expected), "{name}: {text}"),
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_layout_that_is_not_whole_is_refused() {
    let layer = || gzip(&archive(&[file("word", "one")]));
    type Harm = fn(&Layout, &Value);
    let harms: [(&str, Harm, &str); 8] = [
        (
            "changed layer",
            |l, _| {
                std::fs::write(
                    l.0.join("blobs/sha256").join(sha256(&gzip(&archive(&[file("word", "one")])))),
                    "x",
                )
                .unwrap()
            },
            "has the digest sha256:2d711642",
        ),
        (
            "layer gone",
            |l, _| {
                std::fs::remove_file(
                    l.0.join("blobs/sha256").join(sha256(&gzip(&archive(&[file("word", "one")])))),
                )
                .unwrap()
            },
            "is not there",
        ),
        (
            "index gone",
            |l, _| std::fs::remove_file(l.0.join("index.json")).unwrap(),
            "it has no `index.json`",
        ),
        (
            "index is no JSON",
            |l, _| std::fs::write(l.0.join("index.json"), "{").unwrap(),
            "`index.json` is not what it should be",
        ),
        (
            "index is huge",
            |l, _| std::fs::write(l.0.join("index.json"), " ".repeat(5 << 20)).unwrap(),
            "is longer than 4194304 bytes",
        ),
        (
            "a digest that leads out",
            |l, image| {
                let mut bad = image.clone();
                bad["digest"] = json!("sha512:../../../outside/file");
                l.index(&[bad]);
            },
            "index.json",
        ),
        (
            "other architecture",
            |l, _| {
                let config = json!({"architecture": "s390x", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
                let config =
                    l.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
                let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
                let manifest = l.blob(MANIFEST, manifest.to_string().as_bytes());
                l.index(&[manifest]);
            },
            "its image is for linux/s390x, this host is linux/",
        ),
        (
            "device outside dev",
            |l, _| {
                let image = l.image(&[archive(&[other(b'3', "srv/null")])], &json!({}));
                l.index(&[image]);
            },
            "holds `srv/null`, which is refused: it is a character device",
        ),
    ];
    for (name, harm, expected) in harms {
        let ground = Ground::default();
        let layout = Layout::new(&ground);
        let image = layout.image(&[layer()], &json!({}));
        layout.index(std::slice::from_ref(&image));
        harm(&layout, &image);
        let error = match look(&layout.artifact(None)) {
            Found::Digest(_) => ground.refused(&layout.artifact(None)),
            Found::Unusable(text) => text,
            Found::Missing => "missing".into(),
        };
        assert!(error.contains(expected), "{name}: {error}");
    }
}
