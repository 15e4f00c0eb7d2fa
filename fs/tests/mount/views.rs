//! What the tree shows: true sizes, consistent texts, stable numbers, and nothing stale.

use crate::support::Rig;
use crate::support::have;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use zed_ctl::DatasetView;
use zed_ctl::InstanceView;

/// T1. `find` and `grep -r` over the whole tree end, and reading changes nothing.
#[test]
fn walkers_end() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    rig.fake.forget_told();
    let before = rig.ok("cat apps/hello/* hosts/h1/* deploy/prod.[rspe]* | sort");
    rig.ok("find . -ls | grep -c . ; grep -r . . | cat; ls -lR . ; du -a .");
    assert_eq!(rig.ok("cat apps/hello/* hosts/h1/* deploy/prod.[rspe]* | sort"), before);
    assert_eq!(rig.fake.told(), []);
}

/// T2. The size of a file is what a read would give now, so tar and rsync copy it whole.
#[test]
fn sizes_are_true() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron; echo nonsense > ctl; true");
    let files = rig.ok("find . -type f ! -path './.meta/*' ! -name '*.wait'");
    let mut count = 0;
    for name in files.lines() {
        let size = fs::metadata(rig.path(name)).unwrap().len();
        let text = match name.rsplit('/').next() {
            Some("log" | "events") => rig.ok(&format!("grep -r . {name}")),
            _ => rig.read(name),
        };
        assert_eq!(size, text.len() as u64, "{name}");
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends with a newline");
        count += 1;
    }
    assert!(count > 40, "{files}");
    rig.ok("mkdir ../copy; tar -cf - apps hosts datasets deploy | tar -C ../copy -xf -");
    rig.ok("cmp hosts/h1/status ../copy/hosts/h1/status && cmp apps/hello/status.json ../copy/apps/hello/status.json");
    if have("rsync") {
        rig.ok("rsync -a hosts ../synced; diff -r hosts ../synced/hosts");
    }
}

/// Post-mortems and older output are what the supervisor wrote, at once and without a wait at the end.
#[test]
fn post_mortems_and_older_output_are_passed_on() {
    let Some(rig) = Rig::new() else { return };
    let log = rig.fake.world_now().apps["hello"].log.clone();
    let beside = |name: &str| log.with_file_name(name);
    assert_eq!(rig.ok("cat apps/hello/crash apps/hello/crash.json; stat -c %s apps/hello/crash"), "0\n");
    assert_eq!(rig.ok("ls apps/hello | grep -c 'log[.]'; true"), "0\n");
    fs::write(beside("crash"), "crash 2026\nended signal 11\n").unwrap();
    fs::write(beside("crash.json"), "{\"format\": 1}\n").unwrap();
    fs::write(beside("log.1"), "older\n".repeat(100_000)).unwrap();
    assert_eq!(rig.read("apps/hello/crash"), "crash 2026\nended signal 11\n");
    assert_eq!(rig.read("apps/hello/crash.json"), "{\"format\": 1}\n");
    assert_eq!(rig.ok("stat -c '%s %a' apps/hello/crash.json apps/hello/log.1"), "14 640\n600000 640\n");
    assert_eq!(rig.ok("ls apps/hello | grep 'log[.]'"), "log.1\n");
    assert_eq!(
        rig.ok("md5sum < apps/hello/log.1"),
        rig.ok(&format!("md5sum < {}", beside("log.1").display()))
    );
    rig.ok("! cat apps/hello/log.2; ! echo x > apps/hello/crash; ! rm apps/hello/log.1");
    // A read is one post-mortem, also when another takes its place.
    let mut file = File::open(rig.path("apps/hello/crash")).unwrap();
    let mut begin = [0; 5];
    file.read_exact(&mut begin).unwrap();
    fs::write(beside("crash.new"), "crash 2027\n").unwrap();
    fs::rename(beside("crash.new"), beside("crash")).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, " 2026\nended signal 11\n");
    assert_eq!(rig.read("apps/hello/crash"), "crash 2027\n");
}

/// T3. A read is one consistent snapshot, taken at open.
#[test]
fn a_read_is_a_snapshot() {
    let Some(rig) = Rig::new() else { return };
    let mut file = File::open(rig.path("apps/hello/status")).unwrap();
    let mut begin = [0; 20];
    file.read_exact(&mut begin).unwrap();
    rig.fake.change_app("hello", |app| app.version = "a much longer version than before".to_owned());
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("version 1.1.0\n") || String::from_utf8_lossy(&begin).contains("1.1.0"), "{rest}");
    assert!(rig.read("apps/hello/status").contains("a much longer version"));
}

/// T4. Nothing is stale: after a change of the world both content and attributes are the new ones, though the
/// kernel keeps attributes of what does not change.
#[test]
fn nothing_is_stale() {
    let Some(rig) = Rig::new() else { return };
    let names =
        ["apps/hello/status", "apps/hello/version", "hosts/h1/apps", "hosts/h1/status", "deploy/prod.status"];
    for round in 0..200_usize {
        rig.fake.change(|world| {
            let mut apps = (*world.apps).clone();
            Arc::make_mut(apps.get_mut("hello").unwrap()).version = "x".repeat(round);
            world.apps = Arc::new(apps);
            Arc::make_mut(&mut world.host).state = "y".repeat(round);
            let mut deploys = (*world.deploys).clone();
            Arc::make_mut(deploys.get_mut("prod").unwrap()).step = "z".repeat(round);
            world.deploys = Arc::new(deploys);
        });
        for name in names {
            let size = fs::metadata(rig.path(name)).unwrap().len();
            let text = rig.read(name);
            assert_eq!(size, text.len() as u64, "{name} in round {round}");
            assert!(
                round == 0
                    || text.contains(&"x".repeat(round))
                    || text.contains(&"y".repeat(round))
                    || text.contains(&"z".repeat(round)),
                "{name} in round {round}: {text}"
            );
        }
    }
}

/// T5. mtime is when a value last changed: it stays when something else does.
#[test]
fn mtime_is_the_last_change() {
    let Some(rig) = Rig::new() else { return };
    let mtime = |name: &str| fs::metadata(rig.path(name)).unwrap().mtime();
    let (app, host, set) =
        (mtime("apps/hello/status"), mtime("hosts/h1/status"), mtime("datasets/apps/compression"));
    rig.fake.change_app("hello", |app| app.state = "stopped".to_owned());
    assert!(mtime("apps/hello/status") > app);
    assert_eq!((mtime("hosts/h1/status"), mtime("datasets/apps/compression")), (host, set));
    rig.fake.change(|world| world.apps = Arc::new((*world.apps).clone()));
    let unchanged = mtime("apps/hello/status");
    rig.fake.change_app("hello", |app| app.state = "stopped".to_owned());
    assert_eq!(mtime("apps/hello/status"), unchanged, "an equal value has not changed");
}

/// T6. Inode numbers are the same after a restart, and differ between files.
#[test]
fn inode_numbers_are_stable() {
    let list = "find . ! -name '.scratch' -printf '%i %p\\n' | sort -k2";
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    let first = rig.ok(list);
    let mut numbers: Vec<&str> = first.lines().map(|line| line.split(' ').next().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), first.lines().count());
    let Some(again) = Rig::new() else { return };
    again.ok("echo one > deploy/prod.ron");
    assert_eq!(again.ok(list), first);
}

/// T7. `datasets/` has a folder for each dataset and a file for each property, `com.zed:*` as they are called; a
/// property that is called like a child dataset is `NAME.value`.
#[test]
fn datasets_are_folders() {
    let Some(rig) = Rig::new() else { return };
    assert_eq!(
        rig.ok("ls -A datasets datasets/apps datasets/deep | xargs").trim(),
        "datasets: apps apps-old deep datasets/apps: compression hello hello.value datasets/deep: below"
    );
    assert_eq!(rig.read("datasets/apps/hello/com.zed:version"), "1.1.0\n");
    assert_eq!(rig.read("datasets/apps/hello.value"), "a property like a child\n");
    assert_eq!(rig.read("datasets/deep/below/it/quota"), "10G\n");
    assert_eq!(rig.read("hosts/h1/datasets"), "apps\napps-old\napps/hello\ndeep/below/it\n");
    rig.fake.change(|world| {
        let mut sets = (*world.datasets).clone();
        sets.remove("deep/below/it");
        let many = (0..10_000).map(|n| {
            let properties = [("quota".to_owned(), n.to_string())].into();
            (format!("t/t{n}"), Arc::new(DatasetView { path: format!("t/t{n}"), properties }))
        });
        sets.extend(many);
        world.datasets = Arc::new(sets);
    });
    assert!(!rig.path("datasets/deep").exists());
    assert_eq!(
        rig.ok("ls datasets/t | wc -l; cat datasets/t/t9999/quota; ls -lR datasets/t | grep -c quota"),
        "10000\n9999\n10000\n"
    );
}

/// T8. What is gone is gone at once, and what is new is there at once.
#[test]
fn apps_come_and_go() {
    let Some(rig) = Rig::new() else { return };
    assert_eq!(rig.read("apps/hello/version"), "1.1.0\n");
    let old = rig.fake.world_now();
    rig.fake.change(|world| world.apps = Arc::default());
    assert_eq!(rig.ok("ls apps"), "");
    assert!(!rig.path("apps/hello/version").exists());
    rig.fake.change(|world| world.apps = Arc::clone(&old.apps));
    assert_eq!(rig.read("apps/hello/version"), "1.1.0\n");
    rig.ok("cd apps/hello; cat version");
}

/// T9. Beside a spec are its status, plan, errors and verdict, from the moment it is saved; `.meta/` counts what
/// the tree does.
#[test]
fn a_spec_has_its_views() {
    let Some(rig) = Rig::new() else { return };
    assert_eq!(
        rig.ok("ls deploy plan | xargs").trim(),
        "deploy: prod.errors prod.plan prod.plan.json prod.status prod.status.json prod.wait \
        plan: next.errors next.plan next.plan.json"
    );
    assert_eq!(rig.read("deploy/prod.plan"), "~ hello 1.0.0 -> 1.1.0\n");
    assert!(rig.read("deploy/prod.status").starts_with("name prod\nstate converged\n"));
    assert!(!rig.path("deploy/new.status").exists());
    rig.ok("echo one > deploy/new.ron");
    assert!(rig.read("deploy/new.status").starts_with("name new\nstate accepted\n"));
    assert_eq!(rig.read("deploy/new.errors"), "");
    let status: serde_json::Value = serde_json::from_str(&rig.read("deploy/prod.status.json")).unwrap();
    assert_eq!(status["name"], "prod");
    let requests = rig.read(".meta/requests");
    let creates = requests.lines().find(|line| line.starts_with("create ")).unwrap();
    assert_eq!(creates, "create requests=1 errors=0");
    assert!(rig.read(".meta/latency").contains("read count="));
    assert_eq!(rig.read(".meta/version"), rig.read("version"));
}

/// T19. An app of several processes has a stream for each: `log` is that of the first, `INSTANCE.log` are the others.
#[test]
fn every_process_has_its_output() {
    let Some(rig) = Rig::new() else { return };
    let log = rig.fake.world_now().apps["hello"].log.clone();
    let other = log.with_file_name("second");
    fs::write(&log, "of the first\n").unwrap();
    fs::write(&other, "of the second\n").unwrap();
    let instance = |name: &str, log: &std::path::Path| InstanceView {
        name: name.to_owned(),
        log: log.to_owned(),
        ..InstanceView::default()
    };
    rig.fake.change_app("hello", |app| {
        app.instances = vec![instance("hello", &log), instance("hello.2", &other)];
    });
    assert_eq!(rig.ok("ls apps/hello | grep '[.]log$'"), "hello.2.log\n");
    assert_eq!(rig.ok("grep -h of apps/hello/log apps/hello/hello.2.log"), "of the first\nof the second\n");
    assert_eq!(rig.ok("stat -c '%s %a' apps/hello/hello.2.log"), "14 640\n");
    rig.fake.change_app("hello", |app| app.instances.clear());
    assert_eq!(rig.ok("ls apps/hello | grep -c '[.]log$'; true"), "0\n");
}

/// T18. An app's health is live: what a probe saw changes it, and its size, without a change of the world.
#[test]
fn health_is_what_the_probes_saw_last() {
    let Some(rig) = Rig::new() else { return };
    assert_eq!(rig.read("apps/hello/health"), "healthy since=- reason=-\n");
    let stamp = fs::metadata(rig.path("apps/hello/status")).unwrap().modified().unwrap();
    let probe = zed_ctl::ProbeView {
        instance: "hello".to_owned(),
        probe: "GET http://h/".to_owned(),
        state: "passing".to_owned(),
        last: "status 200".to_owned(),
        ..zed_ctl::ProbeView::default()
    };
    *rig.fake.probes.lock() = vec![probe];
    let text = rig.read("apps/hello/health");
    assert!(text.ends_with("last=\"status 200\"\n"), "{text}");
    assert_eq!(fs::metadata(rig.path("apps/hello/health")).unwrap().len(), text.len() as u64);
    assert!(rig.read("apps/hello/health.json").contains("\"last\": \"status 200\""));
    assert_eq!(fs::metadata(rig.path("apps/hello/status")).unwrap().modified().unwrap(), stamp);
    assert_eq!(rig.read(".meta/log_level"), "info\n");
}
