//! Measures the ZFS store against the `zfs` program, both in one run on one pool, and prints tables of medians.
//!
//! `zfs_bench [restore MEGABYTES..] [list DATASETS..]`; `ZED_TEST_POOL` names the pool. `cargo xtask zfs bench` runs
//! it where ZFS is. A `zfs` process is what a tool without libzfs pays; both do the same to the same kind of data.

#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]
#![expect(clippy::disallowed_methods, reason = "the other side of the comparison is a process")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use zed_spec::DatasetPath;
use zed_store::Create;
use zed_store::MANAGED;
use zed_store::Restore;
use zed_store::SnapshotRef;
use zed_store::Store;
use zed_store::TakeSnapshot;
use zed_store::UserProps;
use zed_store::zfs::ZfsStore;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let pool = std::env::var("ZED_TEST_POOL").map_err(|_| "ZED_TEST_POOL must name a pool for tests")?;
    let root = format!("{pool}/bench");
    zfs(&["create", &root])?;
    let store = ZfsStore::open(&root)?;
    let mut sizes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut what = "";
    for arg in &args {
        match arg.parse() {
            Ok(number) => sizes.entry(what).or_default().push(number),
            Err(_) => what = arg,
        }
    }
    if sizes.is_empty() {
        sizes = BTreeMap::from([("restore", vec![1, 100, 1000]), ("list", vec![1000, 10_000])]);
    }
    println!("{}, medians in milliseconds", store.info()?.version);
    for (what, numbers) in sizes {
        match what {
            "restore" => restore(&store, &root, &numbers)?,
            "list" => list(&store, &root, &numbers)?,
            other => return Err(format!("`{other}` is neither `restore` nor `list`").into()),
        }
    }
    Ok(())
}

fn zfs(args: &[&str]) -> Outcome<()> {
    let status = Command::new("zfs").args(args).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("zfs {args:?}: {status}").into()) }
}

fn path(text: &str) -> Outcome<DatasetPath> {
    Ok(DatasetPath::parse(text)?)
}

fn timed<T>(f: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

/// Incompressible bytes, different each time.
fn fill(file: PathBuf, megabytes: usize, seed: u64) -> Outcome<()> {
    let mut state = seed | 1;
    let mut block = vec![0u8; 1 << 20];
    let mut file = File::create(file)?;
    for _ in 0..megabytes {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

fn create(store: &dyn Store, name: &str, native: &[(&str, &str)], user: &[(&str, &str)]) -> Outcome<()> {
    let owned = |pairs: &[(&str, &str)]| -> UserProps {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    Ok(store.create(&Create { path: path(name)?, native: owned(native), user: owned(user) })?)
}

/// Waits until everything written is on the disk: what a transaction group still has to write is waited for by the
/// first change after it, whoever makes it.
fn settle(root: &str) -> Outcome<()> {
    let status = Command::new("zpool").args(["sync", root.split('/').next().unwrap_or(root)]).status()?;
    if status.success() { Ok(()) } else { Err(format!("zpool sync: {status}").into()) }
}

/// A restore by the store against `zfs rollback`, with as much changed since the snapshot.
fn restore(store: &ZfsStore, root: &str, sizes: &[usize]) -> Outcome<()> {
    for name in ["zed", "zed/branches"] {
        create(store, name, &[("canmount", "off")], &[(MANAGED, "on")])?;
    }
    println!("\nrestore to a snapshot     store  zfs rollback  ratio");
    for (at, megabytes) in sizes.iter().enumerate() {
        let rounds = if *megabytes > 500 { 3 } else { 7 };
        let app = format!("app{at}");
        let stamps =
            [(MANAGED, "on"), ("com.zed:version", "1"), ("com.zed:app", "web"), ("com.zed:run", "r1")];
        create(store, &app, &[("compression", "lz4")], &stamps)?;
        let dataset = store.get(&path(&app)?)?.ok_or("the dataset is gone")?;
        let place = dataset.mountpoint.clone().ok_or("it is not mounted")?;
        fill(place.join("base"), 4, 9)?;
        let from = SnapshotRef { dataset: path(&app)?, name: "one".to_owned() };
        store.snapshot(&[TakeSnapshot { id: from.clone(), user: dataset.user.clone() }])?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            fill(place.join("changed"), *megabytes, 1 + round)?;
            settle(root)?;
            let branch = path(&format!("zed/branches/{app}-{round}"))?;
            let request = Restore {
                dataset: path(&app)?,
                from: from.clone(),
                branch: branch.clone(),
                user: dataset.user.clone(),
                branch_user: UserProps::from([("com.zed:role".to_owned(), "branch".to_owned())]),
            };
            ours.push(timed(|| Ok(store.restore(&request)?))?);
            if place.join("changed").exists() {
                return Err("the restore left the change".into());
            }
            store.destroy_branch(&branch)?;
            fill(place.join("changed"), *megabytes, 1000 + round)?;
            settle(root)?;
            let snapshot = format!("{root}/{from}");
            theirs.push(timed(|| zfs(&["rollback", &snapshot]))?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{megabytes:>6} MB changed      {ours:>10.1} {theirs:>13.1} {:>6.2}", ours / theirs);
    }
    Ok(())
}

/// Listing everything with its properties.
fn list(store: &ZfsStore, root: &str, sizes: &[usize]) -> Outcome<()> {
    const USER: [&str; 5] = [MANAGED, "com.zed:app", "com.zed:version", "com.zed:run", "com.zed:spec"];
    println!("\nlist with 5 user properties each       store  zfs list  zfs get");
    create(store, "many", &[("canmount", "off")], &[])?;
    let mut there = 0;
    for size in sizes {
        for n in there..*size {
            if n % 100 == 0 {
                create(store, &format!("many/g{}", n / 100), &[("canmount", "off")], &[])?;
            }
            let user: Vec<(&str, &str)> =
                USER.iter().map(|name| (*name, "some value of usual length")).collect();
            let name = format!("many/g{}/d{n}", n / 100);
            create(store, &name, &[("canmount", "off"), ("compression", "lz4")], &user)?;
        }
        there = *size;
        let names = "name,guid,mountpoint,mounted,canmount,compression,origin,referenced";
        let columns = format!("{names},{}", USER.join(","));
        let (mut ours, mut listed, mut got) = (Vec::new(), Vec::new(), Vec::new());
        let tree = format!("{root}/many");
        for _ in 0..3 {
            let mut found = 0;
            ours.push(timed(|| {
                found = store.list()?.len();
                Ok(())
            })?);
            if found < *size {
                return Err(format!("{found} datasets of {size} were listed").into());
            }
            listed.push(timed(|| zfs(&["list", "-Hp", "-r", "-o", &columns, &tree]))?);
            let got_columns = columns.trim_start_matches("name,");
            got.push(timed(|| {
                zfs(&["get", "-Hp", "-r", "-o", "name,property,value,source", got_columns, &tree])
            })?);
        }
        println!(
            "{size:>6} datasets                  {:>10.0} {:>9.0} {:>8.0}",
            median(ours),
            median(listed),
            median(got)
        );
    }
    Ok(())
}
