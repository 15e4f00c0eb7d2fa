//! The tools with which people and configuration management save files: each saves a spec that converges, and
//! an unchanged second run reports no change.

use std::path::PathBuf;
use zed_tests::Zed;
use zed_tests::free_port;

/// Saves `hello.ron` 1.0.0 with `save`, then 1.1.0; both are served and read back byte for byte.
#[track_caller]
fn saves(save: &str) -> (Zed, u16) {
    let zed = Zed::start();
    let port = free_port();
    for version in ["1.0.0", "1.1.0"] {
        zed.write_hello(version, port);
        if version == "1.0.0" {
            // rsync takes files of equal length and second for equal: the next one is younger.
            zed.ok("touch -d '1 hour ago' hello.ron");
        }
        zed.ok(save);
        zed.ok("sync $M/deploy/hello.ron && cmp hello.ron $M/deploy/hello.ron");
        zed.assert_version("hello", port, version);
        let names = zed.ok("ls -A $M/deploy | grep -v '^hello\\.' || true");
        assert_eq!(names, "", "nothing is left beside the spec");
    }
    (zed, port)
}

#[test]
fn tools_cp() {
    saves("cp hello.ron $M/deploy/");
}

#[test]
fn tools_cp_preserving() {
    let (zed, _) = saves(
        "chmod 640 hello.ron; touch -d '2024-05-06 07:08:09 UTC' hello.ron; cp -p hello.ron $M/deploy/",
    );
    let stat = "stat -c '%a %u %g %Y'";
    assert_eq!(zed.ok(&format!("{stat} $M/deploy/hello.ron")), zed.ok(&format!("{stat} hello.ron")));
}

#[test]
fn tools_cat_redirected() {
    saves("cat hello.ron > $M/deploy/hello.ron");
}

#[test]
fn tools_mv_from_another_filesystem() {
    saves("cp hello.ron copy.ron && mv copy.ron $M/deploy/hello.ron");
}

#[test]
fn tools_tee_and_dd() {
    saves("tee $M/deploy/hello.ron < hello.ron > /dev/null");
    saves("dd if=hello.ron of=$M/deploy/hello.ron bs=64 status=none");
}

#[test]
fn tools_install() {
    let (zed, _) = saves("install -m 600 hello.ron $M/deploy/hello.ron");
    assert_eq!(zed.ok("stat -c %a $M/deploy/hello.ron"), "600");
}

#[test]
fn tools_install_compared() {
    let (zed, _) = saves("install -C -m 644 hello.ron $M/deploy/hello.ron");
    let before = zed.ok("grep ^generation $M/deploy/hello.status");
    zed.ok("install -C -m 644 hello.ron $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    assert_eq!(zed.ok("grep ^generation $M/deploy/hello.status"), before);
}

#[test]
fn tools_sed_and_perl_in_place() {
    for edit in ["sed -i 's/1.0.0/1.1.0/'", "perl -pi -e 's/1.0.0/1.1.0/'"] {
        let zed = Zed::start();
        let port = free_port();
        zed.write_hello("1.0.0", port);
        zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
        zed.ok(&format!("{edit} $M/deploy/hello.ron && sync $M/deploy/hello.ron"));
        zed.assert_version("hello", port, "1.1.0");
        assert_eq!(zed.ok("ls -A $M/deploy | grep -v '^hello\\.' || true"), "");
    }
}

#[test]
fn tools_vim() {
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    zed.ok("cp hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    zed.ok("vim -Nu NONE -es -c '%s/1\\.0\\.0/1.1.0/' -c 'wq' $M/deploy/hello.ron < /dev/null");
    zed.ok("sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.1.0");
    assert_eq!(zed.ok("ls -A $M/deploy | grep -v '^hello\\.' || true"), "", "no swap file is left");
}

#[test]
fn tools_rsync() {
    let (zed, port) = saves("rsync -a hello.ron $M/deploy/");
    let changes = zed.ok("rsync -ai hello.ron $M/deploy/");
    assert_eq!(changes, "", "an unchanged second run reports no change");
    zed.ok("rsync -a $M/deploy/hello.ron $M/apps/hello/status out/ 2>&1 && cmp out/hello.ron hello.ron && test -s out/status");
    zed.assert_version("hello", port, "1.1.0");
    zed.write_hello("1.2.0-b", port);
    zed.ok("rsync -a --inplace hello.ron $M/deploy/ && sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.2.0-b");
}

#[test]
fn tools_busybox() {
    saves("busybox cp hello.ron $M/deploy/hello.ron");
    saves("busybox sh -c 'cat hello.ron > $M/deploy/hello.ron'");
    let (zed, port) = saves("dash -c 'cat hello.ron > $M/deploy/hello.ron'");
    zed.ok("busybox sed -i 's/1.1.0/1.3.0/' $M/deploy/hello.ron && sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.3.0");
    // dash says "I/O error" whatever the error was; what counts is that it fails, and that the reason is told.
    zed.fails("dash -c 'echo nonsense > $M/apps/hello/rollback'");
    let why = zed.ok("cat $M/apps/hello/error");
    assert!(why.contains("nonsense"), "{why}");
}

#[test]
fn tools_git() {
    let (zed, port) = saves("cp hello.ron $M/deploy/hello.ron");
    // A checkout writes the file anew; the folder of specs is the work tree.
    zed.write_hello("1.4.0", port);
    zed.ok("mkdir repo && cp hello.ron repo/ && git -C repo init -q && git -C repo add . && \
            git -C repo -c user.name=t -c user.email=t@t commit -qm x && \
            git --git-dir repo/.git --work-tree $M/deploy checkout -q -- hello.ron && sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.4.0");
}

#[test]
fn tools_ansible_copy() {
    let bin = PathBuf::from(
        std::env::var_os("ZED_TEST_ANSIBLE").expect("ZED_TEST_ANSIBLE names ansible's programs"),
    );
    let zed = Zed::start();
    let port = free_port();
    zed.write_hello("1.0.0", port);
    let copy = format!(
        "HOME=$D ANSIBLE_LOCAL_TEMP=$D/a ANSIBLE_REMOTE_TEMP=$D/r {}/ansible localhost -i localhost, -c local \
         -e ansible_python_interpreter=/usr/bin/python3 -o -m copy -a \"src=$D/hello.ron dest=$M/deploy/hello.ron mode=0644\" 2>/dev/null",
        bin.display()
    );
    let first = zed.ok(&copy);
    assert!(first.contains("CHANGED") && first.contains("\"changed\": true"), "{first}");
    zed.ok("sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.0.0");
    let second = zed.ok(&copy);
    assert!(second.contains("SUCCESS") && second.contains("\"changed\": false"), "{second}");
    zed.write_hello("1.1.0", port);
    let third = zed.ok(&copy);
    assert!(third.contains("\"changed\": true"), "{third}");
    zed.ok("sync $M/deploy/hello.ron");
    zed.assert_version("hello", port, "1.1.0");
    assert_eq!(zed.ok("ls -A $M/deploy | grep -v '^hello\\.' || true"), "");
    let said = {
        zed.ok("echo 'Deploy(datsets: {})' > hello.ron");
        zed.fails(&copy)
    };
    assert!(said.contains("FAILED"), "a spec that does not parse fails the task: {said}");
}
