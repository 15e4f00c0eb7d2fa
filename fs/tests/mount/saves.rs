//! Spec files: saved in any way that tools do, never half, never by accident.

use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::Told;
use crate::support::have;
use crate::support::quick;
use crate::support::until;
use nix::errno::Errno;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_fs::Control;
use zed_fs::SpecDir;
use zed_fs::spec::MAX_SCRATCH;
use zed_fs::spec::MAX_SPEC;
use zed_fs::spec::SpecSettings;
use zed_fs::tree::Tree;
use zed_fs::tree::TreeSettings;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
}

fn saved(name: &str) -> Told {
    Told::Saved(SpecDir::Deploy, name.to_owned())
}

/// Tool, script, and whether it makes the file or changes `one` to `two` in one that is there.
const MAKERS: [(&str, &str); 14] = [
    ("bash", "echo two > deploy/prod.ron"),
    ("dash", "dash -c 'echo two > deploy/prod.ron'"),
    ("busybox", "busybox sh -c 'echo two > deploy/prod.ron'"),
    ("cat", "echo two | cat > deploy/prod.ron"),
    ("tee", "echo two | tee deploy/prod.ron"),
    ("cp", "cp ../two deploy/prod.ron"),
    ("cp -p", "cp -p ../two deploy/prod.ron"),
    ("cp --remove-destination", "cp --remove-destination ../two deploy/prod.ron"),
    ("install", "install -m 640 ../two deploy/prod.ron"),
    ("mv", "cp ../two /dev/shm/zed-fs-two-$$; mv /dev/shm/zed-fs-two-$$ deploy/prod.ron"),
    ("dd", "dd if=../two of=deploy/prod.ron status=none conv=fsync"),
    ("rsync", "rsync -a ../two deploy/prod.ron"),
    ("python3", "python3 -c 'open(\"deploy/prod.ron\", \"w\").write(\"two\\n\")'"),
    (
        "python3",
        "python3 -c 'import os; open(\"deploy/.x\", \"w\").write(\"two\\n\"); os.replace(\"deploy/.x\", \"deploy/prod.ron\")'",
    ),
];

const CHANGERS: [(&str, &str); 11] = [
    ("sed", "sed -i s/one/two/ deploy/prod.ron"),
    ("sed", "sed -i.bak s/one/two/ deploy/prod.ron"),
    ("perl", "perl -i -pe s/one/two/ deploy/prod.ron"),
    ("perl", "perl -i.bak -pe s/one/two/ deploy/prod.ron"),
    ("vim", "vim -es -u NONE -c 's/one/two/' -c wq deploy/prod.ron"),
    (
        "vim",
        "vim -es -u NONE -c 'set backup writebackup backupcopy=no' -c 's/one/two/' -c wq deploy/prod.ron",
    ),
    ("vim", "vim -es -u NONE -c 'set backup backupcopy=yes' -c 's/one/two/' -c wq deploy/prod.ron"),
    ("rsync", "rsync -a --inplace ../two deploy/prod.ron"),
    ("rsync", "rsync -ab ../two deploy/prod.ron"),
    (
        "tar",
        "mkdir ../t; cp ../two ../t/prod.ron; tar -C ../t -cf - prod.ron | tar -C deploy -xf -; rm -r ../t",
    ),
    ("node", "node -e 'fs.writeFileSync(\"deploy/prod.ron\", \"two\\n\")'"),
];

/// T20. A spec reads back byte for byte what was saved, whatever saved it: truncate and write, a temporary file
/// and a rename, `sed -i`, vim with or without a backup, `install`, rsync. Each save reaches the daemon once,
/// complete, and no scratch file ever does.
#[test]
fn every_tool_saves_a_spec() {
    let Some(rig) = Rig::new() else { return };
    fs::write(rig.real("two"), "two\n").unwrap();
    // rsync takes files of equal length and equal second for equal.
    rig.ok("touch -d 2001-02-03 ../two");
    let all = MAKERS.iter().flat_map(|tool| [(tool, false), (tool, true)]);
    for ((tool, script), exists) in all.chain(CHANGERS.iter().map(|tool| (tool, true))) {
        let what = format!("{script} (exists: {exists})");
        if !have(tool.split(' ').next().unwrap()) {
            continue;
        }
        rig.ok("rm -f deploy/* deploy/.[!.]* 2>/dev/null; sync deploy");
        if exists {
            rig.ok("echo one > deploy/prod.ron");
        }
        rig.fake.forget_told();
        rig.ok(script);
        assert_eq!(rig.read("deploy/prod.ron"), "two\n", "{what}");
        assert_eq!(
            fs::read_to_string(rig.real("deploy/prod.ron")).unwrap(),
            "two\n",
            "{what}: the real file"
        );
        let told = rig.fake.told();
        assert_eq!(told, [saved("prod")], "{what}");
        rig.ok("find deploy -name '.*.sw?' | grep . && exit 1; true");
    }
}

/// T21. A spec keeps the mode, owner and times that its writer gave it, and an unchanged second `rsync -a` or
/// `cp -pu` transfers nothing.
#[test]
fn mode_owner_and_times_are_kept() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > ../src; chmod 640 ../src; touch -d '2001-02-03 04:05:06.789' ../src");
    for script in [
        "cp -p ../src deploy/prod.ron",
        "rsync -a ../src deploy/prod.ron",
        "install -p -m 640 ../src deploy/prod.ron",
    ] {
        if !have(script.split(' ').next().unwrap()) {
            continue;
        }
        rig.ok(&format!("rm -f deploy/prod.ron; {script}"));
        let (source, kept) =
            (fs::metadata(rig.real("src")).unwrap(), fs::metadata(rig.path("deploy/prod.ron")).unwrap());
        assert_eq!(kept.mode() & 0o7777, 0o640, "{script}");
        assert_eq!((kept.mtime(), kept.mtime_nsec()), (source.mtime(), source.mtime_nsec()), "{script}");
    }
    rig.fake.forget_told();
    if have("rsync") {
        assert_eq!(rig.ok("rsync -ai ../src deploy/prod.ron"), "", "nothing to transfer");
    }
    rig.ok("cp -pu ../src deploy/prod.ron; touch deploy/prod.ron; chmod 600 deploy/prod.ron");
    assert_eq!(rig.fake.told(), [], "none of these is a save");
    assert_eq!(fs::metadata(rig.real("deploy/prod.ron")).unwrap().mode() & 0o7777, 0o600);
    if nix::unistd::geteuid().is_root() {
        rig.ok("chown 12:34 deploy/prod.ron; sed -i s/one/two/ deploy/prod.ron");
        let kept = fs::metadata(rig.path("deploy/prod.ron")).unwrap();
        assert_eq!((kept.uid(), kept.gid()), (12, 34), "sed gives the new file the old one's owner");
    }
}

/// T22. The close that shells make before they write anything saves nothing; a file that was cut to nothing and
/// closed is an empty spec.
#[test]
fn nothing_is_saved_before_there_is_something() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    rig.fake.forget_told();
    let mut file = File::options().write(true).truncate(true).open(rig.path("deploy/prod.ron")).unwrap();
    // What bash does: it duplicates the descriptor and closes the first.
    drop(file.try_clone().unwrap());
    assert_eq!(rig.fake.told(), []);
    assert_eq!(fs::read_to_string(rig.real("deploy/prod.ron")).unwrap(), "one\n", "the real file is whole");
    assert_eq!(rig.read("deploy/prod.ron"), "", "every handle sees what is pending");
    file.write_all(b"two").unwrap();
    assert_eq!(rig.read("deploy/prod.ron"), "two");
    assert_eq!(rig.fake.told(), []);
    drop(file);
    assert_eq!(rig.fake.told(), [saved("prod")]);
    rig.ok(": > deploy/prod.ron");
    rig.fake.wait_told("the empty save", |told| told.len() == 2);
    assert_eq!(fs::read_to_string(rig.real("deploy/prod.ron")).unwrap(), "");
    rig.ok("echo three > deploy/prod.ron; truncate -s 3 deploy/prod.ron");
    assert_eq!(rig.read("deploy/prod.ron"), "thr");
    assert_eq!(rig.fake.saves("prod"), 4);
}

/// T23. Names that are not `[a-z0-9][a-z0-9-]*.ron` are scratch: visible, kept apart from the specs, never
/// applied, at most 256 of 1 MiB, swept after a day.
#[test]
fn scratch_is_never_applied() {
    let Some(rig) = Rig::new() else { return };
    let names = [
        ".prod.ron.swp",
        "4913",
        "prod.ron~",
        "#prod.ron#",
        "prod.ron.bak",
        "Prod.ron",
        ".ansible_tmpx1prod.ron",
    ];
    for name in names {
        rig.ok(&format!("echo scratch > 'deploy/{name}'"));
        assert_eq!(rig.read(&format!("deploy/{name}")), "scratch\n");
        assert!(!rig.real("deploy").join(name).exists(), "{name} is not among the specs");
    }
    assert_eq!(
        rig.ok("ls -A deploy | grep -cvE '^prod\\.[a-z]*(\\.json)?$'").trim(),
        names.len().to_string()
    );
    assert_eq!(rig.fake.told(), []);
    for number in names.len()..MAX_SCRATCH {
        File::create(rig.path(&format!("deploy/x{number}"))).unwrap();
    }
    assert_eq!(errno(File::create(rig.path("deploy/one-more"))), Errno::ENOSPC);
    assert!(rig.read("error").contains("256 scratch files"), "{}", rig.read("error"));
    rig.ok("echo fine > deploy/prod.ron");
    rig.ok("touch -d '2 days ago' deploy/x200 deploy/prod.ron");
    let control: Arc<dyn Control> = Arc::clone(&rig.fake) as Arc<dyn Control>;
    let later = Tree::new(control, quick()).unwrap();
    let left = later.specs(SpecDir::Deploy).list().unwrap();
    assert!(!left.contains("x200") && left.contains("x201") && left.contains("prod.ron"));
}

/// T24. A spec has at most 1 MiB: more is EFBIG, and what was there stays.
#[test]
fn specs_are_bounded() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    fs::write(rig.path("deploy/full.ron"), vec![b' '; MAX_SPEC]).unwrap();
    assert_eq!(fs::metadata(rig.path("deploy/full.ron")).unwrap().len(), MAX_SPEC as u64);
    fs::write(rig.real("long"), vec![b' '; MAX_SPEC + 1]).unwrap();
    for script in ["cp ../long deploy/prod.ron", "truncate -s 2M deploy/prod.ron", "cp ../long deploy/.long"]
    {
        let refused = rig.sh(script);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("File too large"), "{script}: {said}");
        assert_eq!(rig.read("deploy/prod.ron"), "one\n", "{script}");
        assert_eq!(fs::read_to_string(rig.real("deploy/prod.ron")).unwrap(), "one\n", "{script}");
    }
    assert_eq!(rig.fake.saves("prod"), 1);
    let refused = rig.sh("cp ../long deploy/new.ron; ls deploy/new.ron");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("No such file"), "{refused:?}");
}

/// T25. A save that does not parse is kept byte for byte, and the close says EBADMSG: cp, tee and dd see it. A
/// rename onto a spec's name is judged first: on EBADMSG both files stay as they were, and `NAME.errors` says
/// why until the next save.
#[test]
fn bad_specs_are_told() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo bad > ../bad");
    for script in [
        "cp ../bad deploy/prod.ron",
        "dd if=../bad of=deploy/prod.ron status=none",
        "cat ../bad | tee deploy/prod.ron",
    ] {
        rig.ok("echo good > deploy/prod.ron");
        let refused = rig.sh(script);
        assert!(!refused.status.success(), "{script}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Bad message"), "{script}: {refused:?}");
        assert_eq!(rig.read("deploy/prod.ron"), "bad\n", "{script}");
        assert!(rig.read("error").starts_with("prod.ron:1:1: this is bad"), "{script}");
    }
    rig.ok("echo good > deploy/prod.ron; cp ../bad deploy/.tmp");
    rig.fake.forget_told();
    let refused = rig.sh("mv deploy/.tmp deploy/prod.ron");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Bad message"), "{refused:?}");
    assert_eq!((rig.read("deploy/prod.ron").as_str(), rig.read("deploy/.tmp").as_str()), ("good\n", "bad\n"));
    assert!(rig.read("deploy/prod.errors").starts_with("prod.ron:1:1: this is bad\n"));
    assert_eq!(rig.fake.told(), []);
    rig.ok("echo better > deploy/prod.ron");
    assert_eq!(rig.read("deploy/prod.errors"), "");
}

/// T26. `fsync` through a handle that wrote makes the save durable and gives the parser's verdict at once:
/// EBADMSG or success. It never waits for the deploy.
#[test]
fn fsync_of_a_writer_is_the_verdict() {
    let Some(rig) = Rig::new() else { return };
    let mut file = File::create(rig.path("deploy/prod.ron")).unwrap();
    file.write_all(b"go").unwrap();
    file.sync_all().unwrap();
    assert_eq!(rig.fake.told(), [saved("prod")]);
    file.write_all(b" bad").unwrap();
    assert_eq!(errno(file.sync_all()), Errno::EBADMSG);
    assert_eq!(errno(file.sync_all()), Errno::EBADMSG, "asked again, it says the same");
    assert_eq!(rig.fake.saves("prod"), 2, "which is not another save");
    drop(file);
    assert_eq!(rig.fake.saves("prod"), 2);
    let scratch = File::create(rig.path("deploy/.bad")).unwrap();
    (&scratch).write_all(b"bad").unwrap();
    scratch.sync_all().unwrap();
}

/// T27. `sync deploy/NAME.ron` returns when that save has converged, and fails with EIO when it did not; reading
/// `NAME.wait` waits as well and gives the verdict.
#[test]
fn sync_waits_until_the_save_has_converged() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron; echo one > deploy/web.ron");
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| rig.sh("sync deploy/prod.ron"));
        let wait = scope.spawn(|| rig.sh("cat deploy/prod.wait"));
        let fail = scope.spawn(|| rig.sh("sync deploy/web.ron"));
        let text = scope.spawn(|| rig.sh("cat deploy/web.wait"));
        until("all four wait", || rig.mount().waiting() == 4);
        rig.fake.settle("prod", Ok("converged in 2 s".to_owned()));
        assert!(sync.join().unwrap().status.success());
        assert_eq!(wait.join().unwrap().stdout, b"converged in 2 s\n");
        rig.fake.settle("web", Err(CtlError::new(Code::Failed, "web: the probe never passed")));
        let failed = fail.join().unwrap();
        assert!(String::from_utf8_lossy(&failed.stderr).contains("nput/output error"), "{failed:?}");
        assert!(
            String::from_utf8_lossy(&text.join().unwrap().stdout)
                .starts_with("web: the probe never passed\n")
        );
    });
    assert!(rig.read("error").starts_with("web: the probe never passed\n"));
}

/// T28. A wait has a deadline: after that `sync` fails with ETIMEDOUT and nothing is lost.
#[test]
fn waits_end() {
    let settings = TreeSettings { settle: Duration::from_millis(50), ..quick() };
    let Some(rig) = Rig::with(settings) else { return };
    rig.ok("echo one > deploy/prod.ron");
    let late = rig.sh("sync deploy/prod.ron");
    assert!(String::from_utf8_lossy(&late.stderr).contains("timed out"), "{late:?}");
    assert_eq!(errno(fs::read(rig.path("deploy/prod.wait"))), Errno::ETIMEDOUT);
    // The wait that nobody waits for any more ends in silence.
    rig.fake.settle("prod", Ok(String::new()));
    rig.ok("sync deploy/prod.ron");
}

/// T29. A spec that is removed or renamed away is gone for readers at once, and undeclared a second later unless
/// it has come back: a tool that removes the old file before it writes the new one, or keeps it as a backup, stops
/// no app. `sync deploy` and the end of the daemon end the second early.
#[test]
fn removal_and_renaming_away() {
    let settings =
        TreeSettings { specs: SpecSettings { grace: LIMIT * 3, ..SpecSettings::default() }, ..quick() };
    let Some(mut rig) = Rig::with(settings) else { return };
    rig.ok("echo one > deploy/prod.ron");
    rig.fake.forget_told();
    rig.ok("mv deploy/prod.ron deploy/prod.ron~; ! test -e deploy/prod.ron; ls deploy | grep -q 'prod.ron~'");
    assert_eq!(rig.fake.told(), [], "nothing is undeclared yet");
    assert!(rig.real("deploy/prod.ron").exists());
    rig.ok("echo two > deploy/prod.ron");
    assert_eq!(rig.fake.told(), [saved("prod")]);
    rig.ok("mv deploy/prod.ron deploy/x; mv deploy/x deploy/prod.ron");
    assert_eq!(rig.fake.saves("prod"), 2);
    assert_eq!(rig.read("deploy/prod.ron"), "two\n");
    rig.ok("rm deploy/prod.ron; echo three > deploy/prod.ron");
    assert_eq!(rig.fake.saves("prod"), 3, "a save, and no removal before it");
    rig.ok("rm deploy/prod.ron; ! test -e deploy/prod.ron");
    assert_eq!((rig.fake.saves("prod"), rig.real("deploy/prod.ron").exists()), (3, true));
    rig.ok("sync deploy");
    assert_eq!((rig.fake.saves("prod"), rig.real("deploy/prod.ron").exists()), (4, false));
    rig.ok("echo four > deploy/prod.ron; rm deploy/prod.ron");
    rig.unmount();
    assert_eq!((rig.fake.saves("prod"), rig.real("deploy/prod.ron").exists()), (6, false));

    let Some(quick) = Rig::new() else { return };
    quick.ok("echo one > deploy/prod.ron; mv deploy/prod.ron deploy/prod.off");
    quick.fake.wait_told("the removal", |told| told == [saved("prod"), saved("prod")]);
    assert!(!quick.real("deploy/prod.ron").exists());
    assert_eq!(quick.read("deploy/prod.off"), "one\n");
    quick.ok("mv deploy/prod.off deploy/other.ron; mv deploy/other.ron deploy/prod.ron; sync deploy");
    assert_eq!(quick.fake.saves("other"), 2);
    assert_eq!(quick.read("deploy/prod.ron"), "one\n");
}

/// T30. `mv -n` never replaces (RENAME_NOREPLACE), and two files can be swapped (RENAME_EXCHANGE).
#[test]
#[cfg(target_os = "linux")]
fn renames_with_flags() {
    use nix::fcntl::AT_FDCWD;
    use nix::fcntl::RenameFlags;
    use nix::fcntl::renameat2;
    let Some(rig) = Rig::new() else { return };
    let rename =
        |from: &str, to: &str, flags| renameat2(AT_FDCWD, &rig.path(from), AT_FDCWD, &rig.path(to), flags);
    rig.ok("echo one > deploy/a.ron; echo two > deploy/.b; echo bad > deploy/.c");
    assert_eq!(rename("deploy/.b", "deploy/a.ron", RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(rename("deploy/.c", "deploy/a.ron", RenameFlags::RENAME_EXCHANGE), Err(Errno::EBADMSG));
    assert_eq!((rig.read("deploy/a.ron").as_str(), rig.read("deploy/.b").as_str()), ("one\n", "two\n"));
    assert_eq!(rename("deploy/.b", "deploy/a.ron", RenameFlags::RENAME_EXCHANGE), Ok(()));
    assert_eq!((rig.read("deploy/a.ron").as_str(), rig.read("deploy/.b").as_str()), ("two\n", "one\n"));
    assert_eq!(rename("deploy/.b", "deploy/new.ron", RenameFlags::RENAME_NOREPLACE), Ok(()));
    assert_eq!(rig.fake.told(), [saved("a"), saved("a"), saved("new")]);
}

/// T31. There are only files in `deploy/` and `plan/`: no folders, no links, no devices, and nothing can be made
/// or removed elsewhere. Extended attributes and ACLs are not supported, and say so.
#[test]
fn what_cannot_be_is_refused() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    for script in [
        "mkdir deploy/x",
        "ln deploy/prod.ron deploy/b.ron",
        "ln -s prod.ron deploy/b.ron",
        "mkfifo deploy/b.ron",
        "touch apps/x",
        "rm help",
        "rmdir apps",
        "mv deploy/prod.ron apps/",
        "rm deploy/prod.status",
        "touch deploy/web.status",
        "mv deploy/prod.ron deploy/prod.errors",
        "echo x > version",
        "echo x > hosts/h1/status",
        "chmod 777 version",
        "truncate -s 0 metrics",
    ] {
        let refused = rig.sh(script);
        assert!(!refused.status.success(), "{script}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("not permitted") || said.contains("denied"), "{script}: {said}");
    }
    assert_eq!(rig.read("deploy/prod.ron"), "one\n");
    if have("setfattr") {
        let said = rig.sh("setfattr -n user.x -v y deploy/prod.ron");
        assert!(String::from_utf8_lossy(&said.stderr).contains("not supported"), "{said:?}");
    }
}

/// T32. A spec that git or rsync places in the real folder is seen, and so is one that is changed or removed
/// there.
#[test]
fn the_real_folder_may_change_underneath() {
    let Some(rig) = Rig::new() else { return };
    let real = |name: &str| rig.real("deploy").join(name);
    fs::write(real("prod.ron"), "one").unwrap();
    assert_eq!(rig.read("deploy/prod.ron"), "one");
    fs::write(real("prod.ron"), "three").unwrap();
    assert_eq!(rig.read("deploy/prod.ron"), "three");
    assert_eq!(fs::metadata(rig.path("deploy/prod.ron")).unwrap().len(), 5);
    fs::create_dir(real("sub.ron")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", real("link.ron")).unwrap();
    fs::write(real("README"), "not a spec").unwrap();
    let listed = rig.ok("ls -A deploy");
    assert!(!listed.contains("sub") && !listed.contains("link") && !listed.contains("README"), "{listed}");
    assert!(!rig.path("deploy/link.ron").exists());
    fs::remove_file(real("prod.ron")).unwrap();
    assert!(!rig.path("deploy/prod.ron").exists());
}

/// A removed or replaced file stays readable through what has it open.
#[test]
fn open_files_survive_their_names() {
    let Some(rig) = Rig::new() else { return };
    rig.ok("echo one > deploy/prod.ron");
    let mut old = File::open(rig.path("deploy/prod.ron")).unwrap();
    rig.ok("echo two > deploy/.t; mv deploy/.t deploy/prod.ron");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut old, &mut text).unwrap();
    assert_eq!(text, "one\n");
    let gone = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .create(true)
        .truncate(false)
        .open(rig.path("deploy/.u"))
        .unwrap();
    rig.ok("rm deploy/.u");
    (&gone).write_all(b"still here").unwrap();
    let mut back = [0; 10];
    std::os::unix::fs::FileExt::read_exact_at(&gone, &mut back, 0).unwrap();
    assert_eq!(&back, b"still here");
    drop(gone);
    assert!(!Path::new(&rig.path("deploy/.u")).exists());
}
