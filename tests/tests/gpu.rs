//! GPU jobs from a shell, on the real zedd with real nodes: what the page says, shaders that hang, kills, shares.
//!
//! On the driver that `ZED_TEST_VULKAN` stands for (`cargo xtask test gpu` sets it); says so and passes without.

#![expect(clippy::print_stdout, reason = "a test says what it could not run, and what it saw")]

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use zed_tests::Zed;

/// A zedd whose first GPU is ready; nothing where there is no driver.
fn zed(test: &str) -> Option<Zed> {
    if std::env::var_os("ZED_TEST_VULKAN").is_none() {
        println!("{test}: not run: ZED_TEST_VULKAN is not set");
        return None;
    }
    let mut zed = Zed::stopped().with_args(&["--gpu", "any"]);
    zed.launch();
    ready(&zed);
    Some(zed)
}

fn ready(zed: &Zed) {
    zed.eventually("grep -qE '^state (ready|busy)$' $M/gpu/0/info || { cat $M/gpu/0/info; false; }");
}

/// One example of the page: its script, and what it prints.
struct Example {
    name: String,
    script: String,
    output: String,
    whole: bool,
}

/// The text of the next fenced block, and what follows it.
fn block(text: &str) -> (String, &str) {
    let (_, rest) = text.split_once("```").expect("a block begins");
    let (_, rest) = rest.split_once('\n').expect("its first line ends");
    let (block, rest) = rest.split_once("```\n").expect("a block ends");
    (block.to_owned(), rest)
}

fn examples(page: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("<!-- example: ") {
        let (name, after) = after.split_once(" -->\n").expect("the mark ends");
        let (script, after) = block(after);
        let marked = after.trim_start();
        let whole = marked.starts_with("<!-- output -->");
        assert!(whole || marked.starts_with("<!-- output: contains -->"), "{name} has no output");
        let (output, after) = block(after);
        found.push(Example { name: name.to_owned(), script, output, whole });
        rest = after;
    }
    found
}

#[test]
fn the_examples_of_the_page_print_what_it_says() {
    let Some(zed) = zed("the_examples_of_the_page_print_what_it_says") else { return };
    let page = std::fs::read_to_string(xtask::root().join("docs/GPU.md")).expect("the page is there");
    let examples = examples(&page);
    for needed in ["element-wise", "matmul", "reduction", "random"] {
        assert!(examples.iter().any(|example| example.name == needed), "{needed}");
    }
    for Example { name, script, output, whole } in examples {
        let printed = zed.ok(&format!("mkdir {name}; cd {name}\n{}", script.replace("/zed/", "$M/")));
        if whole {
            assert_eq!(printed, output.trim_end(), "{name}");
        } else {
            assert!(printed.contains(output.trim_end()), "{name}:\n{printed}");
        }
    }
    assert_eq!(zed.key("gpu/0/stats", "failed"), "0");
}

#[test]
fn large_arrays_are_written_and_read_in_ranges() {
    let Some(zed) = zed("large_arrays_are_written_and_read_in_ranges") else { return };
    zed.ok("head -c 4194304 /dev/urandom > a
        exec 3<>$M/gpu/0/queue
        echo '(inputs: {\"a\": Upload(U32, [1048576]), \"b\": F32([1])}, op: Neg(\"b\"), outputs: [\"a\", \"out\"])' >&3
        read id <&3; echo $id > id
        cd $M/gpu/0/jobs/$id
        grep -qx 'state waiting' status
        for n in 3 1 0 2; do dd if=$D/a of=in/a bs=1M skip=$n seek=$n count=1 status=none || exit 1; done
        cmp $D/a in/a
        echo start > ctl
        cat wait");
    zed.ok("cd $M/gpu/0/jobs/$(cat id); cmp out/a $D/a; [ $(stat -c %s out/a) = 4194304 ]
        cmp <(dd if=out/a bs=4 skip=1000 count=77 status=none) <(dd if=$D/a bs=4 skip=1000 count=77 status=none)");
    // What has been started is not written any more.
    let said = zed.fails("echo x > $M/gpu/0/jobs/$(cat id)/in/a");
    assert!(said.contains("busy") || said.contains("ermission denied"), "{said}");
}

/// A shader that reads `a` until it is 7, which it never is.
fn hanging(name: &str) -> String {
    format!(
        "Job(inputs: {{\"a\": U32([1])}}, deadline: \"1s\", steps: {{\"spin\": Wgsl(source: \"
@group(0) @binding(0) var<storage, read> a: array<u32>;
@group(0) @binding(1) var<storage, read_write> {name}: array<u32>;
@compute @workgroup_size(1) fn main() {{
    var n = 0u;
    loop {{ n = n * 1664525u + a[0]; if (n == 7u && a[0] == 7u) {{ break; }} }}
    {name}[0] = n;
}}\", inputs: [\"a\"], outputs: {{\"c\": (U32, [1])}}, groups: (1, 1, 1))}})"
    )
}

const SMALL: &str = "(inputs: {\"a\": F32([1, 2, 3])}, op: Neg(\"a\"))";

#[test]
fn a_shader_that_never_ends_costs_its_own_job_and_is_evicted_at_the_third() {
    let Some(zed) = zed("a_shader_that_never_ends") else { return };
    std::fs::write(zed.dir().join("spin.ron"), hanging("c")).expect("the job is written");
    for offence in 1..=3 {
        // Others wait in the queue behind it, and none of them is lost.
        zed.ok(&format!(
            "exec 3<>$M/gpu/0/queue; cat spin.ron >&3; for n in 1 2 3 4 5; do echo '{SMALL}' >&3 || exit 1; done
            for n in 1 2 3 4 5 6; do read id <&3; echo $id; done > ids.{offence}"
        ));
        zed.ok(&format!("cat $M/gpu/0/jobs/$(head -n 1 ids.{offence})/wait"));
        let failed = Instant::now();
        zed.ok(&format!("cat $M/gpu/0/jobs/$(sed -n 2p ids.{offence})/wait"));
        println!("the next job is done {} ms after that one has failed", failed.elapsed().as_millis());
        let verdicts = zed.ok(&format!(
            "cd $M/gpu/0/jobs; for id in $(cat $D/ids.{offence}); do cat $id/wait > /dev/null; \
             grep -h '^state' $id/status; done"
        ));
        assert_eq!(
            verdicts.lines().collect::<Vec<_>>().join(" "),
            format!("state failed{}", " state done".repeat(5))
        );
        let error = zed.ok(&format!("cat $M/gpu/0/jobs/$(head -n 1 ids.{offence})/error"));
        assert!(error.contains("deadline"), "{error}");
    }
    assert!(zed.ok("cat $M/gpu/0/suspects").contains("evicted=yes"));
    // Evicted: it fails at once, and the device is not restarted for it.
    let restarts = zed.key("gpu/0/info", "restarts");
    let refused = zed.sh("exec 3<>$M/gpu/0/queue; cat spin.ron >&3 && read id <&3 && cat $M/gpu/0/jobs/$id/wait; cat $M/gpu/0/error");
    assert!(refused.output.contains("evicted"), "{}", refused.output);
    assert_eq!(zed.key("gpu/0/info", "restarts"), restarts);
    zed.ok("echo forgive > $M/gpu/0/ctl");
    assert!(!zed.ok("cat $M/gpu/0/suspects").contains("evicted=yes"));
    let error =
        zed.ok("exec 3<>$M/gpu/0/queue; cat spin.ron >&3 && read id <&3 && cat $M/gpu/0/jobs/$id/wait");
    assert!(error.contains("deadline"), "it may run again: {error}");
    ready(&zed);
    zed.ok(&format!("exec 3<>$M/gpu/0/queue; echo '{SMALL}' >&3; read id <&3; cat $M/gpu/0/jobs/$id/wait"));
}

/// Submits 100 jobs while the device is paused; their ids are in `ids`.
fn hundred_jobs(zed: &Zed) {
    zed.ok(&format!(
        "echo pause > $M/gpu/0/ctl
        exec 3<>$M/gpu/0/queue
        for ((n = 0; n < 100; n++)); do echo '{SMALL}' >&3 || exit 1; read id <&3; echo $id; done > ids
        [ $(sort -u ids | wc -l) = 100 ]"
    ));
    assert_eq!(zed.key("gpu/0/stats", "queued"), "100");
}

/// Waits for the end of all of them, and counts how they ended.
fn ends(zed: &Zed) -> BTreeMap<String, usize> {
    let states = zed.ok(
        "cd $M/gpu/0/jobs; for id in $(cat $D/ids); do cat $id/wait > /dev/null; grep -h '^state' $id/status; done",
    );
    let mut counts = BTreeMap::new();
    for state in states.lines() {
        *counts.entry(state.to_owned()).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), 100, "{counts:?}");
    counts
}

#[test]
fn a_node_that_is_killed_takes_no_job_with_it_that_waits() {
    let Some(zed) = zed("a_node_that_is_killed") else { return };
    hundred_jobs(&zed);
    let restarts: u64 = zed.key("gpu/0/info", "restarts").parse().expect("a number");
    zed.ok("kill -9 $(grep '^pid ' $M/gpu/0/info | cut -d' ' -f2); echo resume > $M/gpu/0/ctl");
    let counts = ends(&zed);
    // Those that ran, if any did, have failed and say so.
    assert!(counts.keys().all(|state| state == "state done" || state == "state failed"), "{counts:?}");
    assert!(counts["state done"] >= 90, "{counts:?}");
    ready(&zed);
    assert!(zed.key("gpu/0/info", "restarts").parse::<u64>().expect("a number") > restarts);
    // While they run.
    hundred_jobs(&zed);
    zed.ok("pid=$(grep '^pid ' $M/gpu/0/info | cut -d' ' -f2); echo resume > $M/gpu/0/ctl; kill -9 $pid");
    let counts = ends(&zed);
    assert!(counts.keys().all(|state| state == "state done" || state == "state failed"), "{counts:?}");
    ready(&zed);
    let key = |name: &str| zed.key("gpu/0/stats", name).parse::<u64>().expect("a number");
    assert_eq!((key("submitted"), key("done") + key("failed")), (200, 200), "each ended once");
}

#[test]
fn jobs_survive_the_death_of_zedd_and_end_once() {
    let Some(mut zed) = zed("jobs_survive_the_death_of_zedd") else { return };
    hundred_jobs(&zed);
    zed.kill9();
    zed.launch();
    // It was paused, and still is.
    zed.eventually("grep -q '^state paused$' $M/gpu/0/info && echo resume > $M/gpu/0/ctl");
    let counts = ends(&zed);
    assert_eq!(counts, BTreeMap::from([("state done".to_owned(), 100)]));
    // And killed while they run.
    ready(&zed);
    hundred_jobs(&zed);
    zed.ok("echo resume > $M/gpu/0/ctl");
    zed.kill9();
    zed.launch();
    ready(&zed);
    let counts = ends(&zed);
    assert!(counts.keys().all(|state| state == "state done" || state == "state failed"), "{counts:?}");
    let ids = zed.ok("sort -n ids | tail -n 1");
    zed.ok(&format!("exec 3<>$M/gpu/0/queue; echo '{SMALL}' >&3; read id <&3; [ $id -gt {ids} ]"));
}

/// How many jobs the greedy user of the next test has.
const MANY: usize = 10_000;

#[test]
fn eight_shells_share_a_device_and_nothing_is_lost() {
    let Some(zed) = zed("eight_shells_share_a_device") else { return };
    if !nix::unistd::geteuid().is_root() {
        println!("eight_shells_share_a_device: not run: becoming other users needs root");
        return;
    }
    // Each prints the id of its last job: those of a user are worked off in their order.
    let submit = |uid: u32, count: usize| {
        let job = SMALL.replace('"', "\\\"");
        format!(
            "setpriv --reuid {uid} --regid {uid} --clear-groups bash -c 'exec 3<>$M/gpu/0/queue
                for ((n = 0; n < {count}; n++)); do echo \"{job}\" >&3 && read id <&3 || exit 1; done; echo $id'"
        )
    };
    zed.ok("chmod 755 $D; echo retain 20000 > $M/gpu/0/ctl");
    // The greedy one first: by age alone all others would wait for it.
    zed.ok(&format!("echo pause > $M/gpu/0/ctl; {}", submit(2000, MANY)));
    let others: Vec<String> = (2001..2008)
        .map(|uid| format!("{{ {}; }} > last.{uid} & pids=\"$pids $!\"", submit(uid, 100)))
        .collect();
    zed.ok(&format!("{}\nfor pid in $pids; do wait $pid || exit 1; done", others.join("\n")));
    // Who waits for the others sees how far the greedy one is when the last of them has ended.
    let seen = zed
        .ok("cd $M/gpu/0; (sleep 0.3; echo resume > ctl) & cat $(sed 's|.*|jobs/&/wait|' $D/last.*) stats");
    let ended_of = |stats: &str, uid: u32| -> usize {
        let start = format!("user.{uid} ");
        let line =
            stats.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{uid}: {stats}"));
        let word = line.split(' ').find_map(|word| word.strip_prefix("ended=")).expect("a count");
        word.parse().expect("a number")
    };
    assert!((2001..2008).all(|uid| ended_of(&seen, uid) == 100), "{seen}");
    let greedy = ended_of(&seen, 2000);
    println!("of the greedy user's {MANY} jobs {greedy} have ended when the others' 700 have");
    assert!(greedy < MANY / 2, "the others have ended, and of the greedy user's jobs {greedy}");
    zed.eventually("grep -q '^queued 0$' $M/gpu/0/stats && grep -q '^running 0$' $M/gpu/0/stats");
    assert_eq!(ended_of(&zed.ok("cat $M/gpu/0/stats"), 2000), MANY);
    let key = |name: &str| zed.key("gpu/0/stats", name).parse::<usize>().expect("a number");
    assert_eq!(
        (key("submitted"), key("done"), key("failed"), key("refused")),
        (MANY + 700, MANY + 700, 0, 0)
    );
}

#[test]
fn zedctl_runs_a_job_over_the_mount_and_over_the_socket() {
    let Some(zed) = zed("zedctl_runs_a_job") else { return };
    std::fs::write(zed.dir().join("job.ron"), SMALL).expect("the job is written");
    for way in ["--mount $M", "--socket $S"] {
        assert_eq!(zed.ok(&format!("zedctl {way} gpu run job.ron")), "# out f32 [3]\n-1 -2 -3", "{way}");
        assert!(zed.ok(&format!("zedctl {way} gpu")).contains("ready"), "{way}");
        assert!(zed.ok(&format!("zedctl {way} gpu jobs 0")).contains("done"), "{way}");
        let said = zed.fails(&format!("echo '(op: Neg(\"b\"))' > bad.ron; zedctl {way} gpu run bad.ron"));
        assert!(said.contains("there is no array"), "{way}: {said}");
    }
    // Nobody waits longer than they want to.
    let ended = zed.sh_within(
        Duration::from_secs(60),
        "echo pause > $M/gpu/0/ctl; timeout -s INT 1 zedctl --mount $M gpu run job.ron; [ $? = 124 ]",
    );
    assert_eq!(ended.code, 0, "{}", ended.output);
}
