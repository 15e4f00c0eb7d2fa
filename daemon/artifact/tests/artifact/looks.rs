//! What a look finds, that it costs no reading when nothing changed, and what a release is started with.

use crate::common::Ground;
use crate::common::archive;
use crate::common::file;
use crate::common::text;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zed_artifact::Digests;
use zed_artifact::Found;
use zed_spec::Artifact;

#[test]
fn what_is_missing_or_odd_is_an_answer() {
    let ground = Ground::default();
    let at = |name: &str| text(&ground.top.path().join(name));
    let tar = |name: &str| Artifact::Tar { path: at(name), sha256: None };
    let good = ground.tar(&archive(&[file("a", "x")]));
    std::os::unix::fs::symlink(at("artifacts/app.tar"), at("newest")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let sources = [
        good,
        tar("newest"),
        tar("nothing"),
        tar("artifacts/app.tar/below"),
        tar("outside"),
        tar("pipe"),
        Artifact::Dir { path: at("no-folder") },
        Artifact::Oci { path: at("no-layout"), digest: None },
    ];
    let found = Digests::default().look(&sources);
    let kind = |name: &str| match &found[&at(name)] {
        Found::Digest(digest) => digest.clone(),
        Found::Missing => "missing".into(),
        Found::Unusable(why) => why.rsplit_once("used: ").map_or(why.clone(), |(_, why)| why.to_owned()),
    };
    assert_eq!(kind("artifacts/app.tar").len(), 64);
    assert_eq!(kind("newest"), kind("artifacts/app.tar"));
    for (name, expected) in [
        ("nothing", "missing"),
        ("artifacts/app.tar/below", "missing"),
        ("outside", "it is a folder; it must be a file"),
        ("pipe", "it is no regular file; it must be a file"),
        ("no-folder", "missing"),
        ("no-layout", "missing"),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
}

/// Bytes that this thread has read so far, as far as the system counts them.
fn bytes_read() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test]
fn a_look_reads_again_only_what_has_changed() {
    let ground = Ground::default();
    let tar = ground.tar(&archive(&[file("a", &"x".repeat(1 << 20))]));
    let folder = ground.top.path().join("artifacts/folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "1".repeat(1 << 20)).unwrap();
    let all = [tar, Artifact::Dir { path: text(&folder) }];
    let Artifact::Tar { path, .. } = &all[0] else { unreachable!() };
    let digests = Digests::default();
    let first = digests.look(&all);

    // Written again within one tick of the clock, with the same size: what is this young is not remembered.
    std::fs::write(folder.join("file"), "2".repeat(1 << 20)).unwrap();
    let second = digests.look(&all);
    assert_eq!(second[path], first[path]);
    assert_ne!(second[&text(&folder)], first[&text(&folder)]);

    // Once it is old enough to be remembered, a look costs no reading.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(digests.look(&all), second);
    let before = bytes_read();
    assert_eq!(digests.look(&all), second);
    match (before, bytes_read()) {
        (Some(before), Some(after)) => {
            assert!(after - before < 100_000, "{} bytes were read", after - before)
        }
        _ => println!("not shown that nothing is read: this system does not count what a thread reads"),
    }
    std::fs::write(folder.join("file"), "3".repeat(1 << 20)).unwrap();
    assert_ne!(digests.look(&all), second);
}

/// Lays out what the names say; a name that ends in `!` is a program.
fn release(top: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let (name, mode) = name.strip_suffix('!').map_or((*name, 0o644), |name| (name, 0o755));
        let path = top.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_beam_release_says_how_it_starts() {
    const MIX: &str = "#!/bin/sh\n  start|start_iex|daemon|daemon_iex)\n";
    const RELX: &str = "#!/bin/sh\ncase \"$1\" in\n    foreground)\n";
    let data = ("releases/start_erl.data", "13.2 1.0.0\n");
    let rel = ("releases/1.0.0/shop.rel", "");
    for (name, files, expected) in [
        ("mix", vec![data, rel, ("bin/shop!", MIX), ("bin/server!", "#!/bin/sh\n")], Ok("bin/shop start")),
        (
            "relx",
            vec![data, rel, ("bin/shop!", RELX), ("bin/shop-1.0.0!", RELX), ("bin/nodetool!", "")],
            Ok("bin/shop foreground"),
        ),
        ("nothing", vec![("bin/shop!", MIX)], Err("no `releases/start_erl.data`, so it is no BEAM release")),
        ("no version", vec![("releases/start_erl.data", "13.2")], Err("does not name a version")),
        (
            "version that leads out",
            vec![("releases/start_erl.data", "1 ../../x")],
            Err("the version `../../x`"),
        ),
        ("no script", vec![data, rel], Err("no `bin/NAME` for a `releases/1.0.0/NAME.rel`")),
        ("script is no program", vec![data, rel, ("bin/shop", MIX)], Err("no `bin/NAME`")),
        (
            "foreign script",
            vec![data, rel, ("bin/shop!", "#!/bin/sh\n")],
            Err("neither a script of Mix nor of relx"),
        ),
        (
            "two",
            vec![data, rel, ("releases/1.0.0/web.rel", ""), ("bin/shop!", MIX), ("bin/web!", MIX)],
            Err("several start scripts in `bin`: shop, web"),
        ),
    ] {
        let top = tempfile::tempdir().unwrap();
        release(top.path(), &files);
        match (zed_artifact::startup(top.path()), expected) {
            (Ok(command), Ok(expected)) => {
                let program = Path::new(&command[0]).strip_prefix(top.path()).unwrap();
                assert_eq!(format!("{} {}", program.display(), command[1]), expected, "{name}");
            }
            (Err(e), Err(expected)) => {
                let text = e.to_string();
                assert!(
                    text.contains(expected) && text.contains("give the app a `command`"),
                    "{name}: {text}"
                );
            }
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }
}
