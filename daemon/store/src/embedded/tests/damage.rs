//! Catalogs that were cut, damaged, or written by another version.

use super::*;

fn store(dir: &Path) {
    let store = EmbeddedStore::open(dir).unwrap();
    for name in ["a", "b", "c"] {
        store.create(&request(name, &[])).unwrap();
    }
}

fn refused(dir: &Path) -> StoreError {
    match EmbeddedStore::open(dir) {
        Ok(_) => panic!("opened"),
        Err(refused) => refused,
    }
}

fn names(store: &EmbeddedStore) -> Vec<String> {
    store.list().unwrap().iter().map(|d| d.path.to_string()).collect()
}

#[test]
fn a_record_that_was_not_finished_is_dropped_at_every_length() {
    let dir = quick_dir();
    store(dir.path());
    let catalog = dir.path().join("catalog.jsonl");
    let whole = std::fs::read(&catalog).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for length in last..whole.len() {
        for tail in [&b""[..], &[0; 10]] {
            std::fs::write(&catalog, [&whole[..length], tail].concat()).unwrap();
            let store = EmbeddedStore::open(dir.path()).unwrap();
            assert_eq!(names(&store), ["a", "b"], "{length} of {} bytes", whole.len());
            // And a record after it is read again.
            store.set(&[user_change("a", Some("1"))]).unwrap();
            drop(store);
            assert_eq!(names(&EmbeddedStore::open(dir.path()).unwrap()), ["a", "b"]);
        }
    }
}

#[test]
fn damage_before_the_end_is_refused_and_named() {
    let dir = quick_dir();
    store(dir.path());
    let catalog = dir.path().join("catalog.jsonl");
    let whole = std::fs::read(&catalog).unwrap();
    let at = whole.iter().position(|b| *b == b'\n').unwrap() + 20;
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    std::fs::write(&catalog, &damaged).unwrap();
    let error = refused(dir.path());
    let StoreErrorKind::Io(what) = &error.kind else { panic!("{error}") };
    assert!(what.contains("line 2"), "{what}");
    assert_eq!(std::fs::read(&catalog).unwrap(), damaged, "a refused catalog was touched");
    std::fs::write(&catalog, "").unwrap();
    assert!(matches!(refused(dir.path()).kind, StoreErrorKind::Io(_)));
    assert_eq!(std::fs::read_dir(dir.path().join("content")).unwrap().count(), 3, "content was removed");
    std::fs::write(&catalog, &whole).unwrap();
    assert_eq!(names(&EmbeddedStore::open(dir.path()).unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = quick_dir();
    store(dir.path());
    let json = r#"{"zed-embedded-store":2}"#;
    let header = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    std::fs::write(dir.path().join("catalog.jsonl"), header).unwrap();
    let error = refused(dir.path());
    assert!(
        matches!(&error.kind, StoreErrorKind::Unsupported(why) if why.contains("format is 2")),
        "{error}"
    );
}

/// Written by the first version that was used; it must open for ever.
const FORMAT_1: &str = include_str!("format-1.jsonl");

#[test]
fn the_first_format_is_still_read() {
    let dir = quick_dir();
    std::fs::write(dir.path().join("catalog.jsonl"), FORMAT_1).unwrap();
    for content in [1, 2, 3, 4, 5] {
        let tree = dir.path().join(format!("content/{content}/tree"));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("file"), content.to_string()).unwrap();
    }
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(names(&store), ["app", "zed", "zed/branches", "zed/branches/app-1"]);
    let app = store.get(&path("app")).unwrap().unwrap();
    assert_eq!(app.user, props(&[("com.zed:managed", "on"), ("com.zed:version", "1")]));
    assert_eq!(app.native, props(&[("recordsize", "16384")]));
    let snapshots = store.snapshots(Some(&path("app"))).unwrap();
    assert_eq!(
        snapshots.iter().map(|s| (s.id.to_string(), s.txg)).collect::<Vec<_>>(),
        [("app@1".to_owned(), 1)]
    );
    assert_eq!(snapshots[0].clones, [path("zed/branches/app-1")]);
    assert_eq!(conformance::read_at_mountpoint(&store, &path("app"), "file").as_deref(), Some(&b"5"[..]));
}

#[test]
fn content_that_nothing_explains_is_left_alone() {
    let dir = quick_dir();
    store(dir.path());
    let foreign = dir.path().join("content/77/tree");
    std::fs::create_dir_all(&foreign).unwrap();
    let unfinished = dir.path().join("content/78.part/tree");
    std::fs::create_dir_all(&unfinished).unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert!(foreign.exists());
    assert!(!unfinished.exists());
    store.create(&request("d", &[])).unwrap();
    assert!(dir.path().join("content/79/tree").exists(), "a number that was in use was given again");
}

#[test]
fn a_long_history_is_rewritten() {
    let dir = quick_dir();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    store.create(&request("a", &[])).unwrap();
    let catalog = dir.path().join("catalog.jsonl");
    let mut longest = 0;
    for n in 0..300 {
        let value = format!("{n}{}", "v".repeat(8000));
        store.set(&[user_change("a", Some(&value))]).unwrap();
        longest = longest.max(std::fs::metadata(&catalog).unwrap().len());
    }
    assert!(longest > 1_000_000 && longest < 1_100_000, "2.4 MB of history became {longest} bytes");
    let before = store.list().unwrap();
    drop(store);
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(store.list().unwrap(), before);
    drop(store);
    assert!(std::fs::metadata(&catalog).unwrap().len() < 20_000, "a start drops the history");
}
