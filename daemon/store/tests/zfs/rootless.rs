//! What works without root, after `zfs allow`: exactly what docs/OPERATIONS.md promises.

use crate::support::Pool;
use crate::support::back_to;
use crate::support::create;
use crate::support::path;
use crate::support::props;
use crate::support::snap;
use crate::support::zfs;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use zed_store::MANAGED;
use zed_store::PropChange;
use zed_store::Store;
use zed_store::StoreErrorKind;
use zed_store::TakeSnapshot;
use zed_store::conformance::Fixture;
use zed_store::zfs::ZfsStore;

/// The line of docs/OPERATIONS.md, without the user and the dataset.
const PERMISSIONS: &str = "create,destroy,mount,snapshot,clone,promote,rename,rollback,hold,release,userprop,canmount,\
                           mountpoint,compression,recordsize,quota,refquota,reservation,refreservation,atime,readonly";
/// `nobody`.
const USER: u32 = 65534;
const ROOT_OF_CHILD: &str = "ZED_TEST_ROOTLESS_ROOT";

#[test]
fn a_normal_user_with_delegation() {
    let pool = Pool::new();
    // Created by root, not delegated: nothing there may be changed.
    create(pool_store(&pool).as_ref(), "theirs", &[], &[]);
    zfs(&["create", "-o", "mountpoint=none", &pool.full("mine")]);
    zfs(&["allow", "-u", &USER.to_string(), PERMISSIONS, &pool.full("mine")]);
    // Mounted by root; a normal user can neither unmount nor restore it.
    let place = pool.mount_base().join("served");
    let mountpoint = format!("mountpoint={}", place.display());
    zfs(&["create", "-o", &mountpoint, &pool.full("mine/served")]);
    zfs(&["snapshot", &pool.full("mine/served@one")]);
    // The test program may lie where only root can read.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let out = Command::new(&program)
        .args(["--exact", "rootless::as_a_normal_user", "--ignored", "--nocapture"])
        .env(ROOT_OF_CHILD, &pool.root)
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

fn pool_store(pool: &Pool) -> Box<dyn Store> {
    Box::new(ZfsStore::open(&pool.root).expect("the store opens"))
}

#[test]
#[ignore = "started by a_normal_user_with_delegation, as a normal user"]
fn as_a_normal_user() {
    let root = std::env::var(ROOT_OF_CHILD).unwrap();
    let store = ZfsStore::open(&format!("{root}/mine")).unwrap();
    let elsewhere = ZfsStore::open(&root).unwrap();

    // Reading needs no permission.
    assert!(elsewhere.get(&path("theirs")).unwrap().is_some());
    // Creating works where nothing has to be mounted.
    for name in ["zed", "zed/branches", "app", "app/logs"] {
        create(&store, name, &[("compression", "lz4")], &[(MANAGED, "on")]);
    }
    let denied = zed_store::Create {
        path: path("mounted"),
        native: props(&[("mountpoint", "/tmp/zed-rootless")]),
        user: props(&[]),
    };
    let error = store.create(&denied).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Permission(_)), "{error}");
    assert_eq!(store.get(&path("mounted")).unwrap(), None, "nothing is left of it");

    // Properties of several datasets, one dataset after the other.
    let change = |name: &str, value: Option<&str>| PropChange {
        path: path(name),
        native: BTreeMap::new(),
        user: BTreeMap::from([("com.zed:version".to_owned(), value.map(str::to_owned))]),
    };
    store.set(&[change("app", Some("1")), change("app/logs", Some("1"))]).unwrap();
    store.set(&[change("app/logs", None)]).unwrap();
    assert_eq!(store.get(&path("app/logs")).unwrap().unwrap().user, props(&[(MANAGED, "on")]));
    let error = elsewhere.set(&[change("theirs", Some("1"))]).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Permission(_)), "{error}");

    // Snapshots of one instant with different stamps.
    let take = |name: &str, value: &str| TakeSnapshot {
        id: snap(name),
        user: props(&[("com.zed:version", value), ("com.zed:run", "r1")]),
    };
    let set = [take("app@one", "1"), take("app/logs@one", "2")];
    for _ in 0..2 {
        store.snapshot(&set).unwrap();
    }
    let taken = store.snapshots(None).unwrap();
    let taken: Vec<_> = taken.iter().filter(|s| s.id.dataset.as_str().starts_with("app")).collect();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].txg, taken[1].txg);
    assert!(taken.iter().zip(&set).all(|(taken, wanted)| taken.user == wanted.user), "{taken:?}");

    // A whole restore and back, of what is not mounted.
    store.restore(&back_to("app@one", "app-1")).unwrap();
    assert_eq!(store.get(&path("app")).unwrap().unwrap().user, back_to("app@one", "x").user);
    store.retire(&path("app/logs"), &path("zed/branches/logs")).unwrap();
    store.reinstate(&path("zed/branches/logs"), &path("app/logs")).unwrap();
    store.destroy_branch(&path("zed/branches/app-1")).unwrap();
    store.destroy_snapshots(&[snap("app@one"), snap("app/logs@one")]).unwrap();
    assert_eq!(store.snapshots(None).unwrap().len(), 1, "only the one that root took");

    // What is mounted stays as it is.
    let before = store.list().unwrap();
    let mut request = back_to("served@one", "served-1");
    request.dataset = path("served");
    let error = store.restore(&request).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Permission(_)), "{error}");
    assert_eq!(store.list().unwrap(), before);
    assert!(store.get(&path("served")).unwrap().unwrap().mounted);
}
