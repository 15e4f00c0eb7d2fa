//! What `--store` takes.

use super::*;
use crate::StoreErrorKind;

fn refused(spec: &str) -> StoreErrorKind {
    match open(spec) {
        Ok(_) => panic!("`{spec}` was opened"),
        Err(refused) => refused.kind,
    }
}

#[test]
fn an_embedded_store_is_opened_by_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("made/with:colon");
    let store = open(&format!("embedded:{}", below.display())).unwrap();
    assert_eq!(store.info().unwrap().kind, "embedded");
    assert!(below.is_dir());
}

#[test]
fn anything_else_is_refused() {
    for spec in ["", "embedded", "embedded:", "zfs:", "tank", "sqlite:x", "/var/lib/zed", "ZFS:tank"] {
        assert!(matches!(refused(spec), StoreErrorKind::Invalid(_)), "`{spec}`");
    }
}

#[cfg(not(feature = "zfs"))]
#[test]
fn a_build_without_zfs_says_what_is_missing() {
    let StoreErrorKind::Unsupported(why) = refused("zfs:tank/zed") else { panic!("not Unsupported") };
    for part in ["built without OpenZFS", "--features zfs", "cargo xtask zfs"] {
        assert!(why.contains(part), "{why}");
    }
}
