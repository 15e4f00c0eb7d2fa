//! What a copy of a tree keeps.

use super::super::tree;
use super::*;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::time::Duration;

fn copied(fill: impl FnOnce(&Path)) -> (TempDir, PathBuf, tree::Copied) {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std::fs::create_dir(&from).unwrap();
    fill(&from);
    let to = dir.path().join("to");
    let copied = tree::copy(&from, &to).unwrap();
    (dir, to, copied)
}

fn meta(path: &Path) -> std::fs::Metadata {
    std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn files_and_folders_keep_mode_and_times() {
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let (_dir, to, copied) = copied(|from| {
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::write(from.join("a/b/file"), "text").unwrap();
        let file = File::options().write(true).open(from.join("a/b/file")).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o4751)).unwrap();
        file.set_modified(then).unwrap();
        File::open(from.join("a")).unwrap().set_modified(then).unwrap();
        std::fs::set_permissions(from.join("a/b"), std::fs::Permissions::from_mode(0o500)).unwrap();
        std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o1777)).unwrap();
    });
    assert_eq!((copied.bytes, copied.entries, copied.left_out), (4, 3, 0));
    assert_eq!(std::fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
    assert_eq!(meta(&to.join("a/b/file")).mode() & 0o7777, 0o4751);
    assert_eq!(meta(&to.join("a/b/file")).modified().unwrap(), then);
    assert_eq!(meta(&to.join("a")).modified().unwrap(), then);
    assert_eq!(meta(&to.join("a/b")).mode() & 0o7777, 0o500);
    assert_eq!(meta(&to).mode() & 0o7777, 0o1777);
    tree::remove(&to).unwrap();
    assert!(!to.exists());
}

#[test]
fn owners_are_kept_by_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root may give files away");
        return;
    }
    let (_dir, to, copied) = copied(|from| {
        std::fs::write(from.join("file"), "").unwrap();
        symlink("file", from.join("link")).unwrap();
        for name in ["file", "link"] {
            std::os::unix::fs::lchown(from.join(name), Some(1234), Some(4321)).unwrap();
        }
    });
    assert_eq!(copied.not_kept, 0);
    for name in ["file", "link"] {
        let meta = meta(&to.join(name));
        assert_eq!((meta.uid(), meta.gid()), (1234, 4321), "{name}");
    }
}

#[test]
fn symlinks_are_copied_and_not_followed() {
    let (_dir, to, _) = copied(|from| {
        symlink("/etc/passwd", from.join("absolute")).unwrap();
        symlink("../../nowhere", from.join("dangling")).unwrap();
        symlink("/etc", from.join("folder")).unwrap();
    });
    for (name, target) in [("absolute", "/etc/passwd"), ("dangling", "../../nowhere"), ("folder", "/etc")] {
        assert_eq!(std::fs::read_link(to.join(name)).unwrap(), Path::new(target));
    }
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let (_dir, to, _) = copied(|from| {
        std::fs::create_dir(from.join("sub")).unwrap();
        std::fs::write(from.join("a"), "text").unwrap();
        std::fs::hard_link(from.join("a"), from.join("b")).unwrap();
        std::fs::hard_link(from.join("a"), from.join("sub/c")).unwrap();
        std::fs::write(from.join("other"), "text").unwrap();
    });
    let inode = |name: &str| meta(&to.join(name)).ino();
    assert_eq!((inode("a"), inode("a")), (inode("b"), inode("sub/c")));
    assert_ne!(inode("a"), inode("other"));
    assert_eq!(meta(&to.join("a")).nlink(), 3);
}

#[test]
fn fifos_are_made_and_sockets_left_out() {
    let (_dir, to, copied) = copied(|from| {
        nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
    });
    assert!(meta(&to.join("fifo")).file_type().is_fifo());
    assert_eq!(meta(&to.join("fifo")).mode() & 0o777, 0o640);
    assert!(!to.join("socket").exists());
    assert_eq!(copied.left_out, 1);
}

#[test]
fn holes_and_their_length_are_kept() {
    let (_dir, to, _) = copied(|from| {
        let mut file = File::create(from.join("sparse")).unwrap();
        file.write_all(b"start").unwrap();
        file.seek(SeekFrom::Start(4 << 20)).unwrap();
        file.write_all(b"middle").unwrap();
        file.set_len(64 << 20).unwrap();
        File::create(from.join("empty")).unwrap().set_len(1 << 20).unwrap();
        File::create(from.join("nothing")).unwrap();
    });
    let content = std::fs::read(to.join("sparse")).unwrap();
    assert_eq!(content.len(), 64 << 20);
    assert_eq!((&content[..5], &content[4 << 20..][..6]), (&b"start"[..], &b"middle"[..]));
    assert!(content[(4 << 20) + 6..].iter().all(|b| *b == 0));
    assert_eq!(meta(&to.join("empty")).len(), 1 << 20);
    assert_eq!(meta(&to.join("nothing")).len(), 0);
    assert!(meta(&to.join("sparse")).blocks() * 512 < 16 << 20, "the holes were filled");
}

#[test]
fn extended_attributes_are_kept() {
    use xattr::FileExt;
    let mut supported = false;
    let (_dir, to, copied) = copied(|from| {
        let file = File::create(from.join("file")).unwrap();
        supported = file.set_xattr("user.zed", b"value").is_ok();
    });
    if !supported {
        println!("skipped: the filesystem of the temporary folder has no user attributes");
        return;
    }
    assert_eq!(copied.not_kept, 0);
    let value = File::open(to.join("file")).unwrap().get_xattr("user.zed").unwrap();
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_tree_with_very_many_files_is_copied_whole() {
    let (_dir, to, copied) = copied(|from| {
        for n in 0..300 {
            std::fs::write(from.join(n.to_string()), n.to_string()).unwrap();
        }
    });
    assert_eq!(copied.entries, 300);
    assert!((0..300).all(|n| std::fs::read_to_string(to.join(n.to_string())).unwrap() == n.to_string()));
}

#[test]
fn nesting_without_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let deep: PathBuf = std::iter::repeat_n("d", 300).collect();
    std::fs::create_dir_all(from.join(deep)).unwrap();
    let failure = tree::copy(&from, &dir.path().join("to")).unwrap_err();
    assert!(failure.source.to_string().contains("nested deeper than"), "{failure}: {}", failure.source);
}

#[test]
fn what_cannot_be_read_is_an_error_and_leaves_nothing() {
    if nix::unistd::geteuid().is_root() {
        println!("skipped: root can read every file");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    store.create(&request("a", &[])).unwrap();
    conformance::write_at_mountpoint(&store, &path("a"), "secret", b"text");
    let file = dir.path().join("ds/a/@data/secret");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let refused = store.snapshot(&[take("a@1")]).unwrap_err();
    assert!(matches!(refused.kind, StoreErrorKind::Permission(_)), "{refused}");
    assert!(store.snapshots(None).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("content")).unwrap().count(), 1);
}
