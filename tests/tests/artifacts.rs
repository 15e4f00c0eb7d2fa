//! Artifacts and containers as an operator sees them: from an archive to what serves.

use std::path::Path;
use zed_tests::Zed;
use zed_tests::enough_attempts;
use zed_tests::free_port;

/// A spec of one app; `more` are further fields of it.
fn save(zed: &Zed, version: &str, more: &str) {
    let spec = format!(
        r#"Deploy(
    datasets: {{"apps/shop": ()}},
    apps: {{
        "shop": (
            dataset: "apps/shop",
            version: "{version}",
            stop_grace: "200ms",
            {more}
        ),
    }},
)
"#
    );
    std::fs::write(zed.dir().join("shop.ron"), spec).expect("the spec can be written");
}

fn deploy(zed: &Zed) -> String {
    zed.ok("cp shop.ron $M/deploy/ && sync $M/deploy/shop.ron \
         || { cat $M/deploy/shop.status; tail -n 20 $M/apps/shop/log; false; }")
}

/// Saves, sees it fail, and gives the verdict and the plan.
fn refused(zed: &Zed) -> String {
    zed.fails("cp shop.ron $M/deploy/ && sync $M/deploy/shop.ron");
    zed.ok("cat $M/deploy/shop.status $M/deploy/shop.plan")
}

/// An archive whose program serves its own release; the word is in it.
fn archive(zed: &Zed, name: &str, word: &str) -> String {
    zed.ok(&format!(
        "rm -rf build && mkdir -p build/bin build/www && echo {word} > build/www/word && \
         printf '#!/bin/sh\nexec busybox httpd -f -p 127.0.0.1:$PORT -h www\n' > build/bin/serve && \
         chmod +x build/bin/serve && tar -C build -czf {name} ."
    ));
    zed.dir().join(name).to_string_lossy().into_owned()
}

fn app(path: &str, port: u16) -> String {
    format!(
        r#"artifact: Tar("{path}"), command: ["bin/serve"], env: {{"PORT": "{port}"}},
            health: (probes: [Http("http://127.0.0.1:{port}/word")], interval: "100ms", attempts: 300),"#
    )
}

fn served(zed: &Zed, port: u16) -> String {
    zed.ok(&format!("curl -sSf 127.0.0.1:{port}/word")).trim().to_owned()
}

#[test]
fn an_archive_becomes_a_release_is_upgraded_and_rolled_back() {
    let zed = Zed::start();
    let port = free_port();
    let one = archive(&zed, "one.tar.gz", "one");
    save(&zed, "1.0.0", &app(&one, port));
    deploy(&zed);
    let home = zed.key("apps/shop/status", "mountpoint");
    assert_eq!(served(&zed, port), "one");
    assert_eq!(zed.ok(&format!("readlink {home}/current")).trim(), "releases/1.0.0");

    // Saved again, nothing changes.
    let pid = zed.key("apps/shop/status", "pid");
    deploy(&zed);
    assert_eq!(zed.key("apps/shop/status", "pid"), pid);

    let two = archive(&zed, "two.tar.gz", "two");
    save(&zed, "2.0.0", &app(&two, port));
    deploy(&zed);
    assert_eq!(served(&zed, port), "two");
    assert_eq!(zed.ok(&format!("readlink {home}/current")).trim(), "releases/2.0.0");

    // Another archive of the same version is another release.
    let other = archive(&zed, "two.tar.gz", "other");
    save(&zed, "2.0.0", &app(&other, port));
    deploy(&zed);
    assert_eq!(served(&zed, port), "other");

    zed.ok("echo 1.0.0 > $M/apps/shop/rollback");
    zed.eventually(
        "grep -qx 'version 1.0.0' $M/apps/shop/status && grep -qx 'state running' $M/apps/shop/status",
    );
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/word"));
    assert_eq!(served(&zed, port), "one");
    assert_eq!(zed.ok(&format!("ls -A {home}/releases")).matches(".new").count(), 0);
}

#[test]
fn a_release_that_cannot_be_had_or_is_not_healthy_leaves_the_one_before() {
    let zed = Zed::start();
    let port = free_port();
    let one = archive(&zed, "one.tar.gz", "one");
    save(&zed, "1.0.0", &app(&one, port));
    deploy(&zed);
    let home = zed.key("apps/shop/status", "mountpoint");

    let sha256 = "ab".repeat(32);
    let wrong = app(&one, port)
        .replace(&format!("Tar(\"{one}\")"), &format!("Tar(path: \"{one}\", sha256: \"{sha256}\")"));
    let hostile = zed.ok(
        "ln -s /etc trap && tar -cf hostile.tar trap && rm trap && mkdir trap && echo x > trap/zed-test && \
                          tar -rf hostile.tar trap/zed-test && readlink -f hostile.tar",
    );
    let broken = zed.ok("head -c 100 one.tar.gz > broken.tar.gz && readlink -f broken.tar.gz");
    let sick = archive(&zed, "sick.tar.gz", "sick");
    let attempts = format!("attempts: {}", enough_attempts());
    let ill = app(&sick, port).replace("/word\")]", "/nothing\")]").replace("attempts: 300", &attempts);
    for (name, more, expected) in [
        ("wrong digest", wrong, "sha256"),
        ("missing", app("/nowhere/shop.tar.gz", port), "/nowhere/shop.tar.gz"),
        ("of no use", app("/dev/null", port), "`/dev/null` cannot be used: it is no regular file"),
        ("hostile", app(hostile.trim(), port), "trap/zed-test"),
        ("broken", app(broken.trim(), port), "is damaged or cut short"),
        ("not healthy", ill, "404"),
    ] {
        save(&zed, "2.0.0", &more);
        let text = refused(&zed);
        assert!(text.contains(expected), "{name}: {text}");
        if name == "not healthy" {
            // The one before was stopped for it, and started again.
            zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/word"));
        }
        assert_eq!(served(&zed, port), "one", "{name}");
        assert_eq!(zed.ok(&format!("ls -A {home}/releases")).trim(), "1.0.0", "{name}");
        assert_eq!(zed.ok(&format!("readlink {home}/current")).trim(), "releases/1.0.0", "{name}");
        assert_eq!(zed.key("apps/shop/status", "version"), "1.0.0", "{name}");
    }
    assert!(!Path::new("/etc/zed-test").exists());
}

/// True when the host has a runtime; else says that the test was not run.
fn has_containers(zed: &Zed) -> bool {
    let has = zed.sh("grep -q '^container ' $M/hosts/testhost/facts").ok();
    if !has {
        eprintln!("not run: this host has no OCI runtime, or zedd is not root");
    }
    has
}

#[test]
fn an_image_runs_in_a_container_with_its_limit() {
    let zed = Zed::start();
    if !has_containers(&zed) {
        return;
    }
    let port = free_port();
    // An image as its builders write it: one layer, a configuration, a manifest, an index.
    zed.ok(&format!(
        r#"mkdir -p root/bin root/www image/blobs/sha256 && cp "$(command -v busybox)" root/bin/busybox && echo inside > root/www/word
        tar -C root -czf layer.tgz bin www
        blob() {{ s=$(sha256sum < $1 | cut -d' ' -f1); mv $1 image/blobs/sha256/$s; echo $s; }}
        arch=amd64; [ "$(uname -m)" = aarch64 ] && arch=arm64
        size=$(stat -c %s layer.tgz); layer=$(blob layer.tgz)
        printf '{{"architecture":"%s","os":"linux","config":{{"Entrypoint":["/bin/busybox"],"Cmd":["httpd","-f","-p","127.0.0.1:{port}","-h","/www"]}},"rootfs":{{"type":"layers","diff_ids":[]}}}}' $arch > config
        csize=$(stat -c %s config); config=$(blob config)
        printf '{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}}]}}' $config $csize $layer $size > manifest
        msize=$(stat -c %s manifest); manifest=$(blob manifest)
        printf '{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}}]}}' $manifest $msize > image/index.json"#
    ));
    let image = zed.dir().join("image");
    let fields = |more: &str| {
        format!(
            r#"artifact: Oci("{}"), runtime: Container, {more}
            restart: OnFailure(backoff: "1h", max_backoff: "1h"),
            health: (probes: [Http("http://127.0.0.1:{port}/word"), Exec(["/bin/busybox", "test", "-d", "/www"])], interval: "100ms", timeout: "20s", attempts: 300),"#,
            image.display()
        )
    };
    save(&zed, "1.0.0", &fields(""));
    deploy(&zed);
    assert_eq!(served(&zed, port), "inside");
    let home = zed.key("apps/shop/status", "mountpoint");
    assert_eq!(zed.ok(&format!("ls {home}/releases/1.0.0")), "image.json\nrootfs");

    // The same image, with a limit that its next program exceeds.
    let glutton = r#"command: ["/bin/busybox", "sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"], limits: (memory: "32M"),"#;
    let more = fields(glutton)
        .replace("Http(", "Tcp(")
        .replace(&format!("http://127.0.0.1:{port}/word"), &format!("127.0.0.1:{port}"));
    // It has to use the memory up in this time.
    let attempts = format!("attempts: {}", enough_attempts());
    save(&zed, "2.0.0", &more.replace("attempts: 300", &attempts));
    let verdict = refused(&zed);
    assert!(verdict.contains("oom killed (limit 32M)"), "{verdict}");
    assert!(zed.ok("cat $M/apps/shop/crash").contains("memory_limit 32M"));
    zed.eventually(&format!("curl -sSf 127.0.0.1:{port}/word"));
    assert_eq!(zed.key("apps/shop/status", "version"), "1.0.0");

    zed.ok("rm $M/deploy/shop.ron");
    zed.eventually(&format!("! curl -s 127.0.0.1:{port}/word"));
}
