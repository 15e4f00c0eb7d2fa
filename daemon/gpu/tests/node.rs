//! A node as zedd sees it: a process with a socket.

#![expect(clippy::unwrap_used, reason = "a test stops at what is wrong")]

mod common;

use common::add_job;
use common::bytes;
use common::driver;
use common::process::Ended;
use common::process::Node;
use common::process::command;
use common::process::ended;
use common::user_job;
use std::fs;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use zed_gpu::device::DeviceInfo;
use zed_gpu::wire::CacheState;
use zed_gpu::wire::FromNode;
use zed_gpu::wire::Payload;
use zed_gpu::wire::Run;
use zed_spec::job::ArrayId;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Step;
use zed_spec::job::Unary;

const LONG: Duration = Duration::from_secs(60);

fn triple(n: u32) -> (Job, Vec<u8>, Vec<u8>) {
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let tripled: Vec<f32> = values.iter().map(|value| value * 3.0).collect();
    (user_job(n, "b[i] = a[i] * 3.0;"), bytes(&values), bytes(&tripled))
}

fn cache_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("pipeline_cache")).unwrap();
    let mut caches = files.map(|entry| entry.unwrap().path());
    caches.find(|path| path.extension().is_some_and(|end| end == "bin")).unwrap()
}

#[test]
fn a_node_runs_jobs_ends_when_told_and_finds_its_caches_at_the_next_start() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let (job, input, expected) = triple(1000);
    let mut node = Node::start(cache.path());
    assert_eq!(node.ready().1, CacheState::Absent);
    node.send(&[(7, &job, &[&input]), (8, &job, &[&input])]);
    let kernels = match node.next(LONG).unwrap().value {
        FromNode::Kernels { id: 7, kernels } => kernels,
        other => panic!("{other:?}"),
    };
    assert_eq!(kernels.len(), 1);
    // A user's kernels run alone; what is known of a shape is not said again.
    for id in [7, 8] {
        assert_eq!(node.next(LONG).unwrap().value, FromNode::Began(vec![id]));
        let done = node.next(LONG).unwrap();
        let FromNode::Done { id: of, outputs, times, on_cpu } = done.value else { panic!("{done:?}") };
        assert_eq!((of, outputs, on_cpu, times.batch), (id, vec![Some(0)], false, 1));
        assert_eq!(done.raw, expected);
        assert_eq!((times.pipelines, times.shader_hits), (u32::from(id == 7), 0));
        assert_eq!(times.compile > 0, id == 7);
    }
    node.stop();
    let mut node = Node::start(cache.path());
    let (_, state) = node.ready();
    assert!(matches!(state, CacheState::Loaded(32..)), "{state:?}");
    let (output, times) = node.compute(&job, &[&input]);
    assert_eq!(output, expected);
    assert_eq!((times.pipelines, times.shader_hits), (1, 1));
    node.stop();
}

#[test]
fn large_arrays_come_and_go_as_files() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let (mut job, input, expected) = triple(1 << 20);
    // The input as it came, and the result.
    job.outputs = vec![ArrayId(0), ArrayId(1)];
    let mut files: Vec<fs::File> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
    files[0].write_all(&input).unwrap();
    let run =
        |outputs| Run { id: 1, job: job.clone(), on_cpu: false, inputs: vec![Payload::File(0)], outputs };
    let [a, b, c] = [0, 1, 2].map(|number| files[number].try_clone().unwrap());
    node.send_run(run(vec![Some(1), Some(2)]), &[], &[a.as_fd(), b.as_fd(), c.as_fd()]);
    let (_, end) = node.end_of_next(LONG).unwrap();
    assert!(matches!(end, Ended::Done(outputs, _) if outputs == [None, None]));
    for (file, expected) in files[1..].iter_mut().zip([&input, &expected]) {
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found == *expected);
    }
    // Some in files, some in the message.
    node.send_run(run(vec![None, Some(1)]), &[], &[a.as_fd(), b.as_fd()]);
    let (_, end) = node.end_of_next(LONG).unwrap();
    assert!(matches!(end, Ended::Done(outputs, _) if outputs == [Some(input.clone()), None]));
    node.stop();
}

#[test]
fn what_does_not_fit_its_message_fails_and_the_node_goes_on() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let (job, input, expected) = triple(100);
    let mut short = tempfile::tempfile().unwrap();
    short.write_all(&input[4..]).unwrap();
    let run =
        Run { id: 3, job: job.clone(), on_cpu: false, inputs: vec![Payload::Raw(0)], outputs: vec![None] };
    let with = |change: &dyn Fn(&mut Run)| {
        let mut bad = run.clone();
        change(&mut bad);
        bad
    };
    for (bad, expected) in [
        (with(&|run| run.inputs = vec![Payload::Raw(4)]), "does not hold the bytes of \"a\""),
        (with(&|run| run.inputs = vec![Payload::Raw(u32::MAX)]), "does not hold the bytes of \"a\""),
        (
            with(&|run| run.inputs = vec![Payload::File(0)]),
            "the file of \"a\" has 396 bytes; its array has 400",
        ),
        (with(&|run| run.inputs = vec![Payload::File(1)]), "does not have a file"),
        (with(&|run| run.inputs = vec![]), "another number of arrays"),
        (with(&|run| run.outputs = vec![]), "another number of arrays"),
        (with(&|run| run.outputs = vec![Some(9)]), "does not have a file"),
        (with(&|run| run.job.outputs = vec![ArrayId(9)]), "array that it does not have"),
        (with(&|run| run.job.steps[0].results = vec![ArrayId(9)]), "array that it does not have"),
        (with(&|run| run.job.arrays.clear()), "array that it does not have"),
        (with(&|run| run.job.steps.clear()), "no kernel gives \"b\""),
        (with(&|run| run.on_cpu = true), "cannot be computed on the CPU"),
        (with(&|run| run.job.arrays[1].shape = vec![1 << 25]), "need files"),
    ] {
        node.send_run(bad, &input, &[short.as_fd()]);
        match node.end_of_next(LONG) {
            Some((3, Ended::Failed(error, None))) => assert!(error.contains(expected), "{error}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Larger than any buffer, in a file that has no blocks.
    let huge = tempfile::tempfile().unwrap();
    huge.set_len(4 << 30).unwrap();
    let large = with(&|run| {
        run.job = user_job(64, "b[i] = a[i];");
        run.job.arrays.iter_mut().for_each(|array| array.shape = vec![1 << 30]);
        (run.inputs, run.outputs) = (vec![Payload::File(0)], vec![Some(1)]);
    });
    let out = tempfile::tempfile().unwrap();
    node.send_run(large, &[], &[huge.as_fd(), out.as_fd()]);
    match node.end_of_next(LONG) {
        Some((3, Ended::Failed(error, _))) => assert!(error.contains("holds at most"), "{error}"),
        other => panic!("{other:?}"),
    }
    let nonsense = user_job(100, "b[i] = nonsense;");
    node.send(&[(4, &nonsense, &[&input]), (5, &job, &[&input])]);
    match node.end_of_next(LONG) {
        Some((4, Ended::Failed(error, Some(kernel)))) => {
            assert!(error.contains("nonsense") && kernel.starts_with("wgsl-"), "{error} {kernel}");
        }
        other => panic!("{other:?}"),
    }
    let end = node.end_of_next(LONG);
    assert!(matches!(end, Some((5, Ended::Done(outputs, _))) if outputs == [Some(expected)]));
    node.stop();
}

#[test]
fn a_kernel_that_spins_is_never_done_and_its_node_ends_with_the_socket_or_by_a_kill() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let spin = user_job(64, "var x = a[i]; loop { x = x * 0.5 + 1.0; if (x > 1e9) { break; } } b[i] = x;");
    let (job, input, expected) = triple(64);
    for kill in [false, true] {
        let mut node = Node::start(cache.path());
        node.ready();
        assert_eq!(node.compute(&job, &[&input]).0, expected);
        node.send(&[(2, &spin, &[&input]), (3, &job, &[&input])]);
        loop {
            match node.next(LONG).unwrap().value {
                FromNode::Began(ids) => break assert_eq!(ids, [2]),
                FromNode::Kernels { id: 2, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(node.end_of_next(Duration::from_millis(700)), None, "it spins");
        if kill {
            node.child.0.kill().unwrap();
            assert!(ended(&mut node.child).is_some());
        } else {
            // As if zedd were killed: the node ends although its device does not.
            let mut child = node.abandon();
            assert!(ended(&mut child).is_some());
        }
    }
    let mut node = Node::start(cache.path());
    node.ready();
    assert_eq!(node.compute(&job, &[&input]).0, expected);
    node.stop();
}

#[test]
fn an_idle_node_keeps_its_caches_when_its_socket_closes() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let mut child = node.abandon();
    let status = ended(&mut child).unwrap();
    assert!(status.success(), "{status}");
    assert!(cache_file(cache.path()).exists());
}

/// Damages a file in one of fifty ways.
fn damage(file: &[u8], way: usize) -> Vec<u8> {
    let mut bytes = file.to_vec();
    match way % 5 {
        // Cut off, from nothing to nearly all.
        0 => bytes.truncate(file.len() * way / 50),
        // One bit flipped, all over the file.
        1 => bytes[file.len() * way / 50] ^= 1 << (way % 8),
        // Another device's, another driver's: their fields in the header.
        2 => bytes[32 + way % 16] ^= 0xff,
        3 => bytes[16 + way % 16] ^= 0xff,
        // Something else, of the same size or larger.
        _ => bytes = vec![u8::try_from(way).unwrap(); file.len() + way],
    }
    bytes
}

#[test]
fn fifty_corrupted_pipeline_caches_are_said_once_and_rebuilt() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    node.stop();
    let path = cache_file(cache.path());
    let good = fs::read(&path).unwrap();
    let (job, input, expected) = triple(64);
    for way in 0..50 {
        fs::write(&path, damage(&good, way)).unwrap();
        let mut node = Node::start(cache.path());
        let (_, state) = node.ready();
        assert!(matches!(&state, CacheState::Rejected(reason) if !reason.is_empty()), "{way}: {state:?}");
        if way % 10 == 0 {
            assert_eq!(node.compute(&job, &[&input]).0, expected);
        }
        node.stop();
        assert_eq!(fs::read(&path).unwrap(), good, "{way}: rebuilt");
    }
    let mut node = Node::start(cache.path());
    let (_, state) = node.ready();
    assert!(matches!(state, CacheState::Loaded(_)), "{state:?}");
    node.stop();
}

#[test]
fn damaged_shaders_are_compiled_again() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let (job, input, expected) = triple(64);
    let mut node = Node::start(cache.path());
    node.ready();
    node.compute(&job, &[&input]);
    node.stop();
    for entry in fs::read_dir(cache.path().join("spirv")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    for hits in [0, 1] {
        let mut node = Node::start(cache.path());
        node.ready();
        let (output, times) = node.compute(&job, &[&input]);
        assert_eq!((output, times.shader_hits), (expected.clone(), hits));
        node.stop();
    }
}

#[test]
fn a_folder_that_cannot_be_used_makes_a_node_slower_and_nothing_else() {
    if !driver("node") {
        return;
    }
    let place = tempfile::NamedTempFile::new().unwrap();
    let mut node = Node::start(place.path());
    let (_, state) = node.ready();
    assert!(matches!(&state, CacheState::Rejected(reason) if reason.contains("cannot be used")), "{state:?}");
    let (job, input, expected) = triple(64);
    assert_eq!(node.compute(&job, &[&input]).0, expected);
    node.stop();
}

#[test]
fn a_driver_that_stops_loops_is_not_used() {
    let Some(old) = std::env::var_os("ZED_TEST_VULKAN_OLD").map(PathBuf::from) else {
        println!("node: not run: ZED_TEST_VULKAN_OLD is not set");
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["--rank", "0", "--allow-cpu", "--cache", cache.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments, |command| {
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ["usr/lib", "root/usr/lib"].map(|below| old.join(below).join(&triple));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
        command.env("VK_DRIVER_FILES", old.join("lvp.json")).env("VK_ICD_FILENAMES", old.join("lvp.json"));
    });
    let expected = "this driver stops loops after 65535 iterations and reports success (Mesa before 23?): \
                    install a newer one";
    assert_eq!(node.first(), FromNode::Unusable(expected.to_owned()));
    assert!(!ended(&mut node.child).unwrap().success());
}

#[test]
fn a_device_that_is_not_there_is_said_with_those_that_are() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().to_str().unwrap();
    for (arguments, expected) in [
        (["--rank", "99", "--allow-cpu"].as_slice(), "no device has rank 99; there is "),
        (&["--uuid", "ffffffffffff", "--allow-cpu"], "no device's UUID begins with ffffffffffff; there is "),
    ] {
        let mut node = Node::start_with(&[arguments, &["--cache", cache]].concat(), |_| ());
        match node.first() {
            FromNode::Unusable(reason) => assert!(reason.starts_with(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(!ended(&mut node.child).unwrap().success());
    }
}

#[test]
fn the_list_of_devices_is_json_and_shows_drivers_for_cpus_only_when_asked() {
    if !driver("node") {
        return;
    }
    let list = |arguments: &[&str]| -> Vec<DeviceInfo> {
        let output = command().arg("list").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let all = list(&["--allow-cpu"]);
    assert!(!all.is_empty());
    let cpu = |info: &&DeviceInfo| info.kind.name() == "cpu";
    assert_eq!(list(&[]).len(), all.len() - all.iter().filter(cpu).count());
    for info in &all {
        assert!(info.memory > 0 && info.limits.push_bytes >= 128 && !info.model.is_empty(), "{info:?}");
    }
    assert!(!command().args(["list", "--what"]).output().unwrap().status.success());
}

/// Kilobytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_a_hundred_thousand_jobs() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let input = bytes(&[1.0; 256]);
    let jobs: Vec<_> = (1..=4).map(|part| add_job(part * 64)).collect();
    let inputs: Vec<[&[u8]; 2]> = (1..=4).map(|part| [&input[..part * 256]; 2]).collect();
    let mut warm = 0;
    for round in 0..1000 {
        let runs: Vec<(u64, &Job, &[&[u8]])> = (0..100_u64)
            .zip(jobs.iter().zip(&inputs).cycle())
            .map(|(id, (job, inputs))| (id, job, inputs.as_slice()))
            .collect();
        node.send(&runs);
        for id in 0..100 {
            let (of, end) = node.end_of_next(LONG).unwrap();
            assert!(of == id && matches!(end, Ended::Done(..)), "{of} {end:?}");
        }
        if round == 50 {
            warm = resident(node.child.0.id());
        }
    }
    let grown = resident(node.child.0.id()).saturating_sub(warm);
    assert!(grown < 4096, "{grown} kB more than after 5,000 jobs");
    node.stop();
}

/// Jobs of several kinds and sizes, with what they are given.
fn mixed() -> Vec<(Job, Vec<Vec<u8>>)> {
    let values = |n: u32, step: f32| bytes(&(0..n).map(|i| 0.3 + i as f32 * step).collect::<Vec<_>>());
    let mut jobs = Vec::new();
    for n in [1, 64, 100, 1000, 5000] {
        jobs.push((add_job(n), vec![values(n, 0.37), values(n, 1e-3)]));
        for unary in [Unary::Exp, Unary::Tanh, Unary::Erf] {
            let steps = vec![Step { op: Op::Unary(unary, ArrayId(0)), results: vec![ArrayId(1)] }];
            let job = Job { steps, ..common::job(&[("a", n), ("b", n)], 1, &[1]) };
            jobs.push((job, vec![values(n, 1e-3)]));
        }
    }
    jobs
}

#[test]
fn jobs_that_share_a_submit_end_in_order_with_the_same_bits_as_alone() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let jobs = mixed();
    let inputs: Vec<Vec<&[u8]>> =
        jobs.iter().map(|(_, inputs)| inputs.iter().map(Vec::as_slice).collect()).collect();
    let alone: Vec<Vec<u8>> = jobs
        .iter()
        .zip(&inputs)
        .map(|((job, _), inputs)| {
            let (output, times) = node.compute(job, inputs);
            assert_eq!(times.batch, 1);
            output
        })
        .collect();
    let all: Vec<(u64, &Job, &[&[u8]])> =
        (0..).zip(&jobs).zip(&inputs).map(|((id, (job, _)), inputs)| (id, job, inputs.as_slice())).collect();
    // In one message, and in messages of their own that are there when a job before them has ended.
    let slow =
        user_job(64, "var x = a[i]; for (var k = 0u; k < 300000u; k++) { x = x * 0.9 + 1.0; } b[i] = x;");
    let slow_input = bytes(&[1.0; 64]);
    for together in [true, false] {
        node.send(&[(99, &slow, &[&slow_input])]);
        if together {
            node.send(&all);
        } else {
            all.iter().for_each(|one| node.send(std::slice::from_ref(one)));
        }
        assert_eq!(node.end_of_next(LONG).unwrap().0, 99);
        let mut batches = Vec::new();
        for (id, expected) in (0..).zip(&alone) {
            let (of, end) = node.end_of_next(LONG).unwrap();
            let Ended::Done(outputs, times) = end else { panic!("{of} {end:?}") };
            assert_eq!(of, id);
            assert!(outputs == [Some(expected.clone())], "job {id}");
            batches.push(times.batch);
        }
        if together {
            assert_eq!(batches, vec![20; 20], "one submit");
        }
        assert!(batches.iter().any(|batch| *batch > 1), "{batches:?}");
    }
    node.stop();
}

#[test]
fn a_user_s_job_between_others_runs_alone_and_in_its_turn() {
    if !driver("node") {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut node = Node::start(cache.path());
    node.ready();
    let (user, input, _) = triple(100);
    let add = add_job(100);
    let two: [&[u8]; 2] = [&input, &input];
    let one: [&[u8]; 1] = [&input];
    node.send(&[(1, &add, &two), (2, &add, &two), (3, &user, &one), (4, &add, &two), (5, &add, &two)]);
    let mut submits = Vec::new();
    let mut done = Vec::new();
    while done.len() < 5 {
        match node.next(LONG).unwrap().value {
            FromNode::Began(ids) => submits.push(ids),
            FromNode::Done { id, .. } => done.push(id),
            FromNode::Kernels { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((submits, done), (vec![vec![1, 2], vec![3], vec![4, 5]], vec![1, 2, 3, 4, 5]));
    node.stop();
}
