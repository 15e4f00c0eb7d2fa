//! A pool without space: refusals say so, nothing is half done, and space can be made again.

use crate::support::back_to;
use crate::support::branches;
use crate::support::create;
use crate::support::path;
use crate::support::run;
use crate::support::snap;
use crate::support::take;
use std::io::Write;
use zed_store::MANAGED;
use zed_store::Store;
use zed_store::StoreErrorKind;
use zed_store::zfs::ZfsStore;

/// A pool of 96 MiB of its own.
struct Small {
    name: String,
    folder: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let name = format!("zedsmall{}", std::process::id());
        let image = folder.path().join("image");
        fs_with_len(&image, 96 << 20);
        let mountpoint = folder.path().join("root").display().to_string();
        run("zpool", &["create", "-f", "-m", &mountpoint, &name, image.to_str().expect("UTF-8")]);
        Self { name, folder }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A failure leaves a pool in memory; the test that failed has already said why.
        drop(std::process::Command::new("zpool").args(["destroy", "-f", &self.name]).status());
        drop(std::fs::remove_dir_all(self.folder.path()));
    }
}

fn fs_with_len(path: &std::path::Path, len: u64) {
    std::fs::File::create(path).and_then(|f| f.set_len(len)).expect("a sparse file");
}

#[test]
fn a_full_pool_refuses_and_recovers() {
    let small = Small::new();
    let store = ZfsStore::open(&small.name).unwrap();
    branches(&store);
    create(&store, "app", &[("compression", "off")], &[(MANAGED, "on")]);
    let place = store.get(&path("app")).unwrap().unwrap().mountpoint.clone().unwrap();
    std::fs::write(place.join("version"), "1").unwrap();
    take(&store, "app@one", &[("com.zed:version", "1")]);
    let mut big = std::fs::File::create(place.join("big")).unwrap();
    let block = vec![7u8; 1 << 20];
    let full = loop {
        if let Err(error) = big.write_all(&block).and_then(|()| big.sync_data()) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    drop(big);
    let before = store.list().unwrap().len();
    // What needs space says that there is none, or is done whole.
    match store.restore(&back_to("app@one", "app-1")) {
        Ok(()) => assert_eq!(std::fs::read_to_string(place.join("version")).unwrap(), "1"),
        Err(error) => {
            assert_eq!(error.kind, StoreErrorKind::NoSpace, "{error}");
            assert_eq!(store.list().unwrap().len(), before);
            assert!(store.get(&path("app")).unwrap().unwrap().mounted);
        }
    }
    // Space is made by zed's own means: the branch, or the file and the snapshot, go.
    store.destroy_branch(&path("zed/branches/app-1")).unwrap();
    drop(std::fs::remove_file(place.join("big")));
    store.destroy_snapshots(&[snap("app@one")]).unwrap();
    run("zpool", &["sync", &small.name]);
    std::fs::write(place.join("again"), &block).unwrap();
    take(&store, "app@two", &[("com.zed:version", "2")]);
}

#[test]
fn a_quota_is_told_from_a_fault() {
    let small = Small::new();
    let store = ZfsStore::open(&small.name).unwrap();
    create(&store, "a", &[("filesystem_limit", "1")], &[]);
    create(&store, "a/one", &[], &[]);
    let request =
        zed_store::Create { path: path("a/b"), native: Default::default(), user: Default::default() };
    // Root is exempt from limits, so this shows a reservation instead.
    store.create(&request).unwrap();
    let mut request = request;
    request.path = path("big");
    request.native.insert("reservation".to_owned(), (1u64 << 40).to_string());
    let error = store.create(&request).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoSpace, "{error}");
    assert_eq!(store.get(&path("big")).unwrap(), None, "nothing is left");
}
