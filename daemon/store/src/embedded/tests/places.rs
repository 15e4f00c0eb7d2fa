//! Where datasets are seen: links, explicit mountpoints, and what is in their way.

use super::*;
use std::os::unix::fs::MetadataExt;

struct World {
    store: EmbeddedStore,
    dir: TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    World { store: EmbeddedStore::open(&dir.path().join("store")).unwrap(), dir }
}

impl World {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn create(&self, name: &str, mountpoint: &Path) -> Result<(), StoreError> {
        self.store.create(&request(name, &[("mountpoint", mountpoint.to_str().unwrap())]))
    }

    fn reopen(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        Self { store: EmbeddedStore::open(&dir.path().join("store")).unwrap(), dir }
    }
}

#[test]
fn snapshots_and_branches_can_be_looked_at() {
    let w = world();
    w.store.create(&request("app", &[])).unwrap();
    conformance::write_at_mountpoint(&w.store, &path("app"), "file", b"1");
    w.store.snapshot(&[take("app@1")]).unwrap();
    conformance::write_at_mountpoint(&w.store, &path("app"), "file", b"2");
    w.store.restore(&back("app", "app@1", "zed/branches/app-1")).unwrap();
    let text = |at: &str| std::fs::read_to_string(w.at("store/ds").join(at)).unwrap();
    assert_eq!(text("app/@snap/1/file"), "1");
    assert_eq!(text("app/@data/file"), "1");
    assert_eq!(text("zed/branches/app-1/@unmounted/file"), "2");
    assert!(
        !w.at("store/ds/zed/branches/app-1/@data").exists(),
        "a branch is where something could write to it"
    );
    // Only the owner of the store gets at what is not mounted.
    for closed in ["app/@snap/1", "zed/branches/app-1/@unmounted"] {
        let around = w.at("store/ds").join(closed).canonicalize().unwrap().parent().unwrap().to_owned();
        assert_eq!(std::fs::metadata(around).unwrap().mode() & 0o777, 0o500, "{closed}");
    }
}

#[test]
fn explicit_mountpoints_go_with_their_dataset() {
    let w = world();
    let place = w.at("srv/deep/web");
    w.create("web", &place).unwrap();
    std::fs::write(place.join("file"), "text").unwrap();
    w.store.set(&[native_change("web", "mountpoint", Some(w.at("moved").to_str().unwrap()))]).unwrap();
    assert!(place.symlink_metadata().is_err(), "the old link is left");
    assert_eq!(std::fs::read_to_string(w.at("moved/file")).unwrap(), "text");
    w.store.retire(&path("web"), &path("zed/branches/web")).unwrap();
    assert!(w.at("moved").symlink_metadata().is_err(), "a branch is still mounted");
    w.store.reinstate(&path("zed/branches/web"), &path("web")).unwrap();
    let w = w.reopen();
    assert_eq!(std::fs::read_to_string(w.at("moved/file")).unwrap(), "text");
}

#[test]
fn a_parent_that_is_not_mounted_gives_its_place_to_its_children() {
    let w = world();
    let place = w.at("srv");
    let native = [("mountpoint", place.to_str().unwrap()), ("canmount", "off")];
    w.store.create(&request("web", &native)).unwrap();
    w.store.create(&request("web/a", &[])).unwrap();
    assert_eq!(w.store.get(&path("web")).unwrap().unwrap().mountpoint, None);
    let child = w.store.get(&path("web/a")).unwrap().unwrap();
    assert_eq!((child.mountpoint.clone(), child.mounted), (Some(place.join("a")), true));
    std::fs::write(place.join("a/file"), "text").unwrap();
    w.store.set(&[native_change("web", "mountpoint", Some(w.at("other").to_str().unwrap()))]).unwrap();
    assert_eq!(std::fs::read_to_string(w.at("other/a/file")).unwrap(), "text");
    assert!(place.join("a").symlink_metadata().is_err());
    w.store.set(&[native_change("web", "mountpoint", Some("none"))]).unwrap();
    assert!(!w.store.get(&path("web/a")).unwrap().unwrap().mounted);
}

#[test]
fn what_is_in_the_way_stays() {
    let w = world();
    std::fs::create_dir(w.at("folder")).unwrap();
    std::fs::write(w.at("file"), "mine").unwrap();
    std::os::unix::fs::symlink("file", w.at("link")).unwrap();
    for name in ["folder", "file", "link"] {
        let refused = w.create("web", &w.at(name)).unwrap_err();
        assert!(
            matches!(&refused.kind, StoreErrorKind::Unsupported(why) if why.contains("already")),
            "{refused}"
        );
        assert!(w.store.get(&path("web")).unwrap().is_none());
    }
    assert!(w.at("folder").is_dir());
    assert_eq!(std::fs::read_to_string(w.at("link")).unwrap(), "mine");
    w.create("web", &w.at("free")).unwrap();
    let taken = w.create("other", &w.at("free")).unwrap_err();
    assert!(matches!(taken.kind, StoreErrorKind::Unsupported(_)), "{taken}");
}

#[test]
fn mountpoints_inside_a_dataset_are_refused() {
    let w = world();
    w.create("web", &w.at("srv")).unwrap();
    let refused = [
        w.store.create(&request("web/child", &[])).unwrap_err(),
        w.create("other", &w.at("srv/inside/it")).unwrap_err(),
    ];
    for refused in refused {
        assert!(
            matches!(&refused.kind, StoreErrorKind::Unsupported(why) if why.contains("inside")),
            "{refused}"
        );
    }
    assert_eq!(w.store.list().unwrap().len(), 1);
    w.create("web/child", &w.at("elsewhere")).unwrap();
}

#[test]
fn a_mountpoint_that_was_taken_while_the_store_was_closed_is_not_mounted() {
    let w = world();
    let place = w.at("srv");
    w.create("web", &place).unwrap();
    w.store.create(&request("other", &[])).unwrap();
    let World { store, dir } = w;
    drop(store);
    std::fs::remove_file(&place).unwrap();
    std::fs::write(&place, "mine").unwrap();
    let w = World { store: EmbeddedStore::open(&dir.path().join("store")).unwrap(), dir };
    assert!(!w.store.get(&path("web")).unwrap().unwrap().mounted);
    assert!(w.store.get(&path("other")).unwrap().unwrap().mounted);
    assert!(w.store.mount(&path("web")).is_err());
    w.store.set(&[user_change("other", Some("1"))]).unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "mine");
    std::fs::remove_file(&place).unwrap();
    w.store.mount(&path("web")).unwrap();
    assert!(w.store.get(&path("web")).unwrap().unwrap().mounted);
    assert!(place.is_dir());
}

#[test]
fn links_are_repaired_when_the_store_is_opened() {
    let w = world();
    w.store.create(&request("app", &[])).unwrap();
    conformance::write_at_mountpoint(&w.store, &path("app"), "file", b"1");
    w.store.snapshot(&[take("app@1")]).unwrap();
    let ds = w.at("store/ds");
    std::fs::remove_dir_all(&ds).unwrap();
    let w = w.reopen();
    assert_eq!(std::fs::read_to_string(ds.join("app/@data/file")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(ds.join("app/@snap/1/file")).unwrap(), "1");
    drop(w);
}
