//! What is unpacked from good archives, and that bad ones are refused by name and leave nothing.

use crate::common::Ground;
use crate::common::Item;
use crate::common::archive;
use crate::common::content;
use crate::common::entry;
use crate::common::extended;
use crate::common::file;
use crate::common::folder;
use crate::common::gzip;
use crate::common::hard_link;
use crate::common::header;
use crate::common::link;
use crate::common::mode;
use crate::common::other;
use crate::common::xz;
use crate::common::zstd;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use zed_artifact::Limits;

fn small() -> Vec<u8> {
    archive(&[
        folder("./"),
        folder("./bin/"),
        Item { mode: 0o4755, ..file("./bin/app", "#!/bin/sh\n") },
        link("./bin/link", "app"),
        hard_link("./bin/twin", "bin/app"),
        link("./etc", "/etc"),
        file("deep/er/file", "text"),
        Item { mode: 0o500, ..folder("closed") },
        file("closed/inside", "x"),
    ])
}

#[test]
fn every_packing_is_recognised_by_its_content() {
    let plain = small();
    let twice = |pack: fn(&[u8]) -> Vec<u8>| [pack(&plain[..1024]), pack(&plain[1024..])].concat();
    let skippable = [b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&plain)].concat();
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd(&plain)),
        ("xz", xz(&plain)),
        ("gzip, two members", twice(gzip)),
        ("zstd, two frames", twice(zstd)),
        ("xz, two streams", twice(xz)),
        ("zstd, skippable frame", skippable),
    ] {
        let ground = Ground::default();
        ground.try_unpack(&ground.tar(&bytes), "1", "run1").unwrap_or_else(|e| panic!("{name}: {e}"));
        let release = ground.release("1");
        let found = content(&release);
        let expected: BTreeMap<String, String> = [
            ("bin/", ""),
            ("bin/app", "#!/bin/sh\n"),
            ("bin/link", "-> app"),
            ("bin/twin", "#!/bin/sh\n"),
            ("etc", "-> /etc"),
            ("deep/", ""),
            ("deep/er/", ""),
            ("deep/er/file", "text"),
            ("closed/", ""),
            ("closed/inside", "x"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        assert_eq!(found, expected, "{name}");
        let app = release.join("bin/app");
        assert_eq!(mode(&app), 0o755, "no set-user-id");
        assert_eq!(app.metadata().unwrap().ino(), release.join("bin/twin").metadata().unwrap().ino());
        assert_eq!(app.metadata().unwrap().mtime(), 1_600_000_000);
        assert_eq!((mode(&release), mode(&release.join("closed"))), (0o755, 0o500));
    }
}

#[test]
fn later_entries_replace_earlier_ones_and_nothing_else() {
    let ground = Ground::default();
    let bytes = archive(&[
        file("a", "first"),
        hard_link("b", "a"),
        file("a", "second"),
        link("c", "b"),
        file("c", "no longer a link"),
        file("d", "file"),
        folder("d"),
        file("d/x", "inside"),
        folder("d/"),
        hard_link("e", "a"),
        hard_link("e", "a"),
    ]);
    ground.try_unpack(&ground.tar(&bytes), "1", "run1").unwrap();
    let found = content(&ground.release("1"));
    let texts: Vec<(&str, &str)> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let expected = [
        ("a", "second"),
        ("b", "first"),
        ("c", "no longer a link"),
        ("d/", ""),
        ("d/x", "inside"),
        ("e", "second"),
    ];
    assert_eq!(texts, expected);
}

#[test]
fn long_and_strange_names_are_kept() {
    let ground = Ground::default();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut bytes = entry(&file(&long, "gnu"));
    bytes.extend(extended(&[("path", b"pax\nwith newline"), ("size", b"3")], &file("x", "pax"), 3));
    bytes.extend(extended(&[("path", b"\xff\xfe"), ("comment", b"a=b")], &file("x", "raw"), 3));
    bytes.extend(extended(&[("linkpath", "t".repeat(300).as_bytes())], &link("l", "short"), 0));
    bytes.extend([0; 1024]);
    ground.try_unpack(&ground.tar(&bytes), "1", "run1").unwrap();
    let found = content(&ground.release("1"));
    assert_eq!(found[&long], "gnu");
    assert_eq!(found["pax\nwith newline"], "pax");
    assert_eq!(found["\u{fffd}\u{fffd}"], "raw");
    assert_eq!(found["l"], format!("-> {}", "t".repeat(300)));
}

#[test]
fn what_could_do_harm_is_refused_by_name() {
    let deep = "d/".repeat(200);
    let long = "n/".repeat(2500);
    for (name, items, expected) in [
        ("absolute", vec![file("/abs", "x")], "holds `/abs`, which is refused: its path is absolute"),
        ("parent", vec![file("a/../../x", "x")], "its path contains `..`"),
        ("parent of nothing", vec![folder("..")], "its path contains `..`"),
        (
            "link, then through it",
            vec![link("l", "../../../outside"), file("l/file", "hit")],
            "symbolic link",
        ),
        (
            "absolute link, then through it",
            vec![link("l", "/tmp"), file("l/zed-hit", "hit")],
            "symbolic link",
        ),
        ("link to a folder inside", vec![folder("d"), link("l", "d"), file("l/x", "hit")], "symbolic link"),
        ("folder through a link", vec![link("l", "../../../outside"), folder("l/new")], "symbolic link"),
        (
            "link over a folder",
            vec![folder("d"), link("d", "/tmp"), file("d/x", "hit")],
            "a folder of this name",
        ),
        ("file over a folder", vec![file("d/x", "x"), file("d", "y")], "a folder of this name"),
        ("through a file", vec![file("f", "x"), file("f/x", "y")], "a part of its path is no folder"),
        (
            "hard link out",
            vec![hard_link("h", "../../../outside/file")],
            "hard link to `../../../outside/file`",
        ),
        ("absolute hard link", vec![hard_link("h", "/etc/passwd")], "hard link to `/etc/passwd`"),
        ("hard link to nothing", vec![hard_link("h", "gone")], "no file of the artifact"),
        ("hard link to a folder", vec![folder("d"), hard_link("h", "d")], "no file of the artifact"),
        (
            "hard link to a link",
            vec![link("l", "/etc/passwd"), hard_link("h", "l")],
            "no file of the artifact",
        ),
        (
            "hard link through a link",
            vec![link("l", "../../../outside"), hard_link("h", "l/file")],
            "no file of the artifact",
        ),
        (
            "character device",
            vec![other(b'3', "dev/null")],
            "holds `dev/null`, which is refused: it is a character",
        ),
        ("block device", vec![other(b'4', "sda")], "it is a block device"),
        ("pipe", vec![other(b'6', "fifo")], "it is a named pipe"),
        ("sparse", vec![other(b'S', "holes")], "it is a sparse file"),
        ("unknown", vec![other(b'Z', "what")], "it is a thing of unknown type"),
        ("zed's own name", vec![file(".zed-release.json", "{}")], "one that zed uses itself"),
        ("below zed's own name", vec![file(".zed-release.json/x", "{}")], "one that zed uses itself"),
        ("no name", vec![file("", "x")], "it is the top folder itself"),
        ("deep", vec![folder(&deep)], "longer than 128"),
        ("long", vec![folder(&long)], "longer than 4096"),
        ("long component", vec![file(&"n".repeat(300), "x")], "File name too long"),
        ("nothing", vec![], "it holds nothing"),
    ] {
        let ground = Ground::default();
        let text = ground.refused(&ground.tar(&archive(&items)));
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn archives_that_lie_are_refused() {
    let whole = small();
    let huge = [header(&file("big", ""), 8 << 40), vec![0; 4096]].concat();
    let sparse = extended(&[("GNU.sparse.major", b"1")], &file("s", "x"), 1);
    let long_name = [header(&Item { kind: b'L', ..file("x", "") }, 1 << 33), vec![b'a'; 4096]].concat();
    let mut checksum = whole.clone();
    checksum[1024 + 150] ^= 1;
    for (name, bytes, expected) in [
        ("huge declared size", huge, "ends in the middle of an entry"),
        ("sparse by extended header", sparse, "sparse file"),
        ("name of 8 GiB", long_name, "8589934592 bytes"),
        (
            "name that belongs to no entry",
            [entry(&Item { kind: b'L', ..file("x", "y") }), vec![0; 1024]].concat(),
            "belongs to no entry",
        ),
        (
            "broken record",
            [entry(&Item { kind: b'x', ..file("x", "99 path=a\n") }), entry(&file("a", ""))].concat(),
            "extended header is broken",
        ),
        ("zero byte in a name", extended(&[("path", b"a\0b")], &file("x", ""), 0), "zero byte"),
        ("wrong checksum", checksum, "wrong checksum"),
        ("no end", whole[..whole.len() - 1024].to_vec(), "ends in the middle"),
        ("cut in a header", whole[..1500].to_vec(), "ends in the middle of a header"),
        ("cut gzip", gzip(&whole)[..100].to_vec(), "damaged or cut short"),
        ("cut zstd", zstd(&whole)[..100].to_vec(), "damaged or cut short"),
        ("cut xz", xz(&whole)[..100].to_vec(), "damaged or cut short"),
        ("text", b"hello".repeat(200), "of a format that zed does not know"),
        ("zip", b"PK\x03\x04 and so on".to_vec(), "a zip archive"),
        ("bzip2", b"BZh91AY".to_vec(), "packed with bzip2"),
        ("empty file", vec![], "it is empty"),
        ("gzip of text", gzip(&b"hello".repeat(200)), "damaged or cut short"),
        ("gzip in gzip", gzip(&gzip(&whole)), "damaged or cut short"),
    ] {
        let ground = Ground::default();
        let text = ground.refused(&ground.tar(&bytes));
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn limits_are_named_when_they_are_reached() {
    let zeros = "\0".repeat(4 << 20);
    let bomb = archive(&[file("zeros", &zeros)]);
    let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let many = archive(&many.iter().map(|name| file(name, "")).collect::<Vec<_>>());
    let default = Limits::default();
    for (name, bytes, limits, expected) in [
        ("bytes", bomb.clone(), Limits { bytes: 1 << 20, ..default }, "more than 1048576 bytes unpacked"),
        ("entries", many, Limits { entries: 39, ..default }, "more than 39 entries"),
        (
            "gzip bomb",
            gzip(&bomb),
            Limits { free: 1 << 20, ..default },
            "more than 200 bytes unpacked for each",
        ),
        (
            "zstd bomb",
            zstd(&bomb),
            Limits { free: 1 << 20, ..default },
            "more than 200 bytes unpacked for each",
        ),
        ("xz bomb", xz(&bomb), Limits { free: 1 << 20, ..default }, "more than 200 bytes unpacked for each"),
        (
            "bomb in what is skipped",
            gzip(&[header(&Item { kind: b'g', ..file("x", "") }, 0), vec![0; 8 << 20]].concat()),
            Limits { free: 1 << 20, ..default },
            "more than 200 bytes unpacked for each",
        ),
    ] {
        let ground = Ground { limits, ..Ground::default() };
        let text = ground.refused(&ground.tar(&bytes));
        assert!(text.contains(expected), "{name}: {text}");
    }
}
