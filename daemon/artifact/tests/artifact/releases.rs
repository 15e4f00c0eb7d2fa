//! Release folders: accepted, exchanged, taken back, cleared up; the link to the current one; and the disk that is
//! full in the middle.

use crate::common::Ground;
use crate::common::archive;
use crate::common::chain;
use crate::common::content;
use crate::common::file;
use crate::common::link;
use crate::common::text;
use crate::common::tree;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zed_artifact::Marker;
use zed_artifact::Owner;
use zed_artifact::UnpackError;
use zed_spec::Artifact;

/// Names in `releases`, sorted.
fn releases(ground: &Ground) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(ground.dataset().join("releases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn version(ground: &Ground, word: &str) -> Artifact {
    ground.tar(&archive(&[file("word", word)]))
}

fn word(ground: &Ground, folder: &str) -> String {
    content(&ground.release(folder))["word"].clone()
}

fn marker(ground: &Ground, folder: &str) -> Marker {
    serde_json::from_slice(&std::fs::read(ground.release(folder).join(zed_artifact::MARKER)).unwrap())
        .unwrap()
}

#[test]
fn a_release_says_what_it_is_and_is_accepted_again() {
    let ground = Ground::default();
    let artifact = version(&ground, "one");
    ground.try_unpack(&artifact, "1", "run1").unwrap();
    let digest = crate::common::digest(&artifact);
    let expected =
        Marker { format: 1, digest: digest.clone(), version: "1".into(), run: "run1".into(), owner: None };
    assert_eq!(marker(&ground, "1"), expected);
    let before = ground.release("1").metadata().unwrap().ino();
    ground.try_unpack(&artifact, "1", "run2").unwrap();
    assert_eq!((marker(&ground, "1"), ground.release("1").metadata().unwrap().ino()), (expected, before));
    // What is unpacked already does not need its artifact any more.
    let Artifact::Tar { path, .. } = &artifact else { unreachable!() };
    std::fs::remove_file(path).unwrap();
    ground.unpack_as(&artifact, &digest, "1", "run3").unwrap();
}

#[test]
fn another_artifact_of_the_same_version_is_exchanged_and_can_be_put_back() {
    let ground = Ground::default();
    ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap();
    let two = version(&ground, "two");
    ground.try_unpack(&two, "1", "run2").unwrap();
    assert_eq!(
        (word(&ground, "1").as_str(), releases(&ground)),
        ("two", vec![".old-run2-1".into(), "1".into()])
    );
    ground.try_unpack(&two, "1", "run2").unwrap();
    for _ in 0..2 {
        zed_artifact::discard(&ground.dataset(), "1", "run2").unwrap();
        assert_eq!((word(&ground, "1").as_str(), releases(&ground)), ("one", vec!["1".into()]));
    }
}

#[test]
fn a_run_that_was_killed_anywhere_is_completed_or_taken_back() {
    type Kill = fn(&Ground);
    let kills: [(&str, Kill); 4] = [
        ("while it unpacked", |ground| {
            let new = ground.dataset().join("releases/.new-run2/part");
            std::fs::create_dir_all(new).unwrap();
        }),
        ("after moving aside", |ground| {
            std::fs::rename(ground.release("1"), ground.release(".old-run2-1")).unwrap();
        }),
        ("when it was done", |ground| ground.try_unpack(&version(ground, "two"), "1", "run2").unwrap()),
        ("while it was taken back", |ground| {
            ground.try_unpack(&version(ground, "two"), "1", "run2").unwrap();
            std::fs::rename(ground.release("1"), ground.release(".new-run2")).unwrap();
        }),
    ];
    for (name, kill) in kills {
        for completed in [true, false] {
            let ground = Ground::default();
            ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap();
            kill(&ground);
            let expected = if completed {
                ground.try_unpack(&version(&ground, "two"), "1", "run2").unwrap();
                "two"
            } else {
                zed_artifact::discard(&ground.dataset(), "1", "run2").unwrap();
                "one"
            };
            assert_eq!(word(&ground, "1"), expected, "{name}");
            zed_artifact::prune(&ground.dataset(), &["1"]).unwrap();
            assert_eq!(releases(&ground), ["1"], "{name}");
        }
    }
}

#[test]
fn there_may_be_nothing_to_take_back() {
    let ground = Ground::default();
    zed_artifact::discard(&ground.dataset(), "1", "run1").unwrap();
    zed_artifact::discard(Path::new("/nowhere/at/all"), "1", "run1").unwrap();
    ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap();
    zed_artifact::discard(&ground.dataset(), "1", "run2").unwrap();
    assert_eq!(word(&ground, "1"), "one");
    zed_artifact::discard(&ground.dataset(), "1", "run1").unwrap();
    assert_eq!(releases(&ground), [""; 0]);
}

#[test]
fn what_is_not_zeds_is_left_alone() {
    let ground = Ground::default();
    let by_hand = ground.release("1");
    std::fs::create_dir_all(&by_hand).unwrap();
    let error = ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap_err();
    assert!(chain(&error).contains("is there, and zed has not unpacked it: move it away"), "{error}");
    zed_artifact::discard(&ground.dataset(), "1", "run1").unwrap();
    zed_artifact::prune(&ground.dataset(), &[]).unwrap();
    assert_eq!(releases(&ground), ["1"]);

    for (name, make) in [
        ("file", (|path| std::fs::write(path, "x").unwrap()) as fn(&Path)),
        ("link", |path| std::os::unix::fs::symlink("../outside", path).unwrap()),
    ] {
        let ground = Ground::default();
        make(&ground.dataset().join("releases"));
        let error = ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap_err();
        assert!(error.to_string().contains("is there, and no folder"), "{name}: {error}");
        assert_eq!(tree(&ground.top.path().join("outside")).len(), 1);
    }
}

#[test]
fn names_of_folders_and_runs_cannot_lead_elsewhere() {
    let ground = Ground::default();
    let artifact = version(&ground, "one");
    for bad in ["", ".", "..", ".new-x", "a/b", "/", "a\0b"] {
        for (folder, run) in [(bad, "run1"), ("1", bad)] {
            let error = ground.try_unpack(&artifact, folder, run).unwrap_err();
            assert!(error.to_string().contains("cannot be the name of a release folder"), "{bad:?}: {error}");
            zed_artifact::discard(&ground.dataset(), folder, run).unwrap_err();
        }
        zed_artifact::switch(&ground.dataset(), Some(bad)).unwrap_err();
    }
    assert!(tree(&ground.dataset()).is_empty());
}

#[test]
fn the_wrong_content_changes_nothing() {
    let ground = Ground::default();
    let one = version(&ground, "one");
    let digest = crate::common::digest(&one);
    let Artifact::Tar { path, .. } = &one else { unreachable!() };
    let promised = Artifact::Tar { path: path.clone(), sha256: Some("ab".repeat(32)) };
    let error = ground.unpack_as(&promised, &digest, "1", "run1").unwrap_err();
    assert!(matches!(&error, UnpackError::Digest { wanted, .. } if *wanted == "ab".repeat(32)), "{error}");
    version(&ground, "changed since");
    let error = ground.unpack_as(&one, &digest, "1", "run1").unwrap_err();
    assert!(matches!(&error, UnpackError::Digest { wanted, .. } if *wanted == digest), "{error}");
    std::fs::remove_file(path).unwrap();
    let error = ground.unpack_as(&one, &digest, "1", "run1").unwrap_err();
    assert!(error.to_string().contains("is not there: put it there"), "{error}");
    assert!(tree(&ground.dataset()).is_empty());
}

#[test]
fn pruning_keeps_what_is_asked_for_and_what_is_current() {
    let ground = Ground::default();
    for name in ["1", "2", "3", "4"] {
        ground.try_unpack(&version(&ground, name), name, &format!("run{name}")).unwrap();
    }
    ground.try_unpack(&version(&ground, "other"), "4", "run5").unwrap();
    zed_artifact::switch(&ground.dataset(), Some("2")).unwrap();
    for _ in 0..2 {
        zed_artifact::prune(&ground.dataset(), &["4"]).unwrap();
        assert_eq!(releases(&ground), ["2", "4"]);
    }
    zed_artifact::prune(Path::new("/nowhere/at/all"), &[]).unwrap();
}

#[test]
fn the_link_leads_to_a_release_or_is_not_there() {
    let ground = Ground::default();
    let current = ground.dataset().join("current");
    let error = zed_artifact::switch(&ground.dataset(), Some("1")).unwrap_err();
    assert!(error.to_string().contains("deploy the version again"), "{error}");
    for name in ["1", "2"] {
        ground.try_unpack(&version(&ground, name), name, "run1").unwrap();
        std::os::unix::fs::symlink("left by a killed zedd", ground.dataset().join(".current-next")).unwrap();
        zed_artifact::switch(&ground.dataset(), Some(name)).unwrap();
        assert_eq!(std::fs::read_link(&current).unwrap(), Path::new("releases").join(name));
        assert_eq!(std::fs::read_to_string(current.join("word")).unwrap(), name);
    }
    for _ in 0..2 {
        zed_artifact::switch(&ground.dataset(), None).unwrap();
        assert!(current.symlink_metadata().is_err());
    }
    std::fs::create_dir(&current).unwrap();
    for folder in [Some("1"), None] {
        let error = zed_artifact::switch(&ground.dataset(), folder).unwrap_err();
        assert!(error.to_string().contains("is there, and no link: move it away"), "{error}");
    }
}

#[test]
fn a_folder_is_copied_as_it_is_and_counts_by_its_content() {
    let ground = Ground::default();
    let source = ground.top.path().join("artifacts/app");
    std::fs::create_dir_all(source.join("bin")).unwrap();
    std::fs::write(source.join("bin/app"), "program").unwrap();
    std::os::unix::fs::symlink("/outside", source.join("link")).unwrap();
    let artifact = Artifact::Dir { path: text(&source) };
    let first = crate::common::digest(&artifact);
    ground.try_unpack(&artifact, "1", "run1").unwrap();
    assert_eq!(content(&ground.release("1")), tree(&source));

    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("content", |top| std::fs::write(top.join("bin/app"), "PROGRAM").unwrap()),
        ("name", |top| std::fs::rename(top.join("bin/app"), top.join("bin/APP")).unwrap()),
        ("mode", |top| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(top.join("bin/APP"), mode).unwrap();
        }),
        ("target", |top| {
            std::fs::remove_file(top.join("link")).unwrap();
            std::os::unix::fs::symlink("/elsewhere", top.join("link")).unwrap();
        }),
        ("addition", |top| std::fs::create_dir(top.join("empty")).unwrap()),
    ];
    let mut seen = vec![first];
    for (name, change) in changes {
        change(&source);
        let digest = crate::common::digest(&artifact);
        assert!(!seen.contains(&digest), "{name}");
        seen.push(digest);
    }
    // A socket is nothing that can be deployed.
    std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let error = ground.refused_later(&artifact);
    assert!(error.contains("holds `socket`, which is refused: it is a socket"), "{error}");
}

impl Ground {
    /// Refused, with a release there already, which stays.
    fn refused_later(&self, artifact: &Artifact) -> String {
        let before = tree(&self.dataset());
        let error = self.unpack_as(artifact, &"0".repeat(64), "1", "run9").unwrap_err();
        assert_eq!(tree(&self.dataset()), before);
        chain(&error)
    }
}

#[test]
fn files_belong_to_whom_the_request_names() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: only root may give files away");
        return;
    }
    let mut ground = Ground::default();
    let owner = Owner { uid: 4321, gid: 8765 };
    ground.owner = Some(owner);
    let bytes = archive(&[file("made/up/file", "x"), link("l", "x")]);
    ground.try_unpack(&ground.tar(&bytes), "1", "run1").unwrap();
    let release = ground.release("1");
    for name in ["", "made", "made/up", "made/up/file", "l"] {
        let meta = release.join(name).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4321, 8765), "{name}");
    }
    assert_eq!(ground.dataset().join("releases").metadata().unwrap().uid(), 0);
    assert_eq!(marker(&ground, "1").owner, Some(owner));
    // For somebody else it is unpacked anew.
    ground.owner = None;
    ground.try_unpack(&ground.tar(&bytes), "1", "run2").unwrap();
    assert_eq!(release.join("l").symlink_metadata().unwrap().uid(), 0);
}

#[cfg(target_os = "linux")]
/// A file system of its own, taken away when dropped.
struct Mounted(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_ends_clean() {
    let ground = Ground::default();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("zed-test", ground.dataset(), "tmpfs", flags, c"size=2m").is_err() {
        println!("not run: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(ground.dataset());
    ground.try_unpack(&version(&ground, "one"), "1", "run1").unwrap();
    let before = tree(&ground.dataset());
    let large = "x".repeat(1 << 20);
    let plain = archive(&[file("a", &large), file("b", &large), file("c", &large)]);
    let error = ground.try_unpack(&ground.tar(&plain), "2", "run2").unwrap_err();
    assert!(matches!(error, UnpackError::NoSpace { .. }), "known before: {error}");
    let error = ground.try_unpack(&ground.tar(&crate::common::gzip(&plain)), "2", "run2").unwrap_err();
    assert!(matches!(error, UnpackError::Full { .. }), "found in the middle: {error}");
    let source = ground.top.path().join("artifacts/folder");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("large"), "x".repeat(3 << 20)).unwrap();
    let error = ground.try_unpack(&Artifact::Dir { path: text(&source) }, "2", "run2").unwrap_err();
    assert!(matches!(error, UnpackError::NoSpace { .. }), "known before: {error}");
    assert_eq!(tree(&ground.dataset()), before);
}
