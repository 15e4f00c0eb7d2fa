//! Programs on a device of this process.

mod common;

use common::array;
use common::bytes;
use common::dispatch;
use common::engine_with;
use common::floats;
use common::job;
use common::kernel;
use common::program;
use zed_gpu::node::JobError;
use zed_gpu::node::engine::Output;
use zed_gpu::node::engine::Running;
use zed_gpu::program::Author;
use zed_gpu::program::Buffer;
use zed_gpu::program::Program;
use zed_gpu::vk::DeviceOptions;
use zed_gpu::vk::VkError;
use zed_spec::job::ArrayId;
use zed_spec::job::Binary;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Operand;
use zed_spec::job::Step;

/// Both ways to reach a device's memory.
const WAYS: [bool; 2] = [false, true];

fn numbers(count: u32, step: f32) -> Vec<f32> {
    (0..count).map(|i| i as f32 * step).collect()
}

#[test]
fn a_program_gives_what_its_kernels_compute_with_shared_and_with_staged_memory() {
    for staging in WAYS {
        let options = DeviceOptions { staging, ..Default::default() };
        let Some(mut engine) = engine_with("engine", options) else { return };
        assert!(!(staging && engine.memory().unified));
        let add = kernel(Author::Catalogue, &["a", "b", "c"], "c[i] = a[i] + b[i] * scale;");
        for n in [1, 3, 64, 1000, 300_000] {
            let job = job(&[("a", n), ("b", n), ("c", n)], 2, &[2]);
            let (a, b) = (numbers(n, 1.0), numbers(n, 0.25));
            for scale in [1.0, -2.0] {
                let one = program(vec![dispatch(&add, &[array(0), array(1), array(2)], n, scale)]);
                let got = engine.compute_by(&job, one, &[&bytes(&a), &bytes(&b)]).unwrap();
                let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b * scale).collect();
                assert_eq!(floats(&got[0]), expected, "{n} elements, staging {staging}");
            }
        }
    }
}

#[test]
fn a_dispatch_sees_what_those_before_it_wrote() {
    for staging in WAYS {
        let options = DeviceOptions { staging, ..Default::default() };
        let Some(mut engine) = engine_with("engine", options) else { return };
        // Each takes its neighbour's value, so that a missing barrier shows.
        let shift = kernel(Author::Catalogue, &["a", "b"], "b[i] = a[(i + 1u) % push.n] + scale;");
        let n = 100_000;
        let job = job(&[("a", n), ("b", n)], 1, &[1]);
        let (one, two) = (Buffer::Temporary(0), Buffer::Temporary(1));
        let mut dispatches = vec![dispatch(&shift, &[array(0), one], n, 1.0)];
        for round in 0..10 {
            let (from, to) = if round % 2 == 0 { (one, two) } else { (two, one) };
            dispatches.push(dispatch(&shift, &[from, to], n, 1.0));
        }
        dispatches.push(dispatch(&shift, &[one, array(1)], n, 1.0));
        let bytes_each = u64::from(n) * 4;
        let whole = Program { temporaries: vec![bytes_each, bytes_each], dispatches };
        let got = engine.compute_by(&job, whole, &[&bytes(&numbers(n, 1.0))]).unwrap();
        let expected: Vec<f32> = (0..n).map(|i| ((i + 12) % n) as f32 + 12.0).collect();
        assert!(floats(&got[0]) == expected, "staging {staging}");
    }
}

#[test]
fn an_input_that_is_an_output_comes_back_with_and_without_a_kernel_that_reads_it() {
    let Some(mut engine) = engine_with("engine", DeviceOptions::default()) else { return };
    let copy = kernel(Author::Catalogue, &["a", "b"], "b[i] = a[i] * scale;");
    let (a, b) = (bytes(&numbers(10, 1.0)), bytes(&numbers(10, 3.0)));
    let job = job(&[("a", 10), ("b", 10), ("c", 10)], 2, &[0, 1, 2]);
    let one = program(vec![dispatch(&copy, &[array(0), array(2)], 10, 2.0)]);
    let got = engine.compute_by(&job, one, &[&a, &b]).unwrap();
    assert_eq!(got, [a.clone(), b, bytes(&numbers(10, 2.0))]);
}

#[test]
fn a_user_s_kernel_sees_nothing_that_others_left_in_memory() {
    for staging in WAYS {
        let options = DeviceOptions { staging, ..Default::default() };
        let Some(mut engine) = engine_with("engine", options) else { return };
        let n = 1000;
        let fill = kernel(Author::Catalogue, &["c"], "c[i] = 42.0;");
        let job = job(&[("c", n)], 0, &[0]);
        for _ in 0..3 {
            let got = engine.compute_by(&job, program(vec![dispatch(&fill, &[array(0)], n, 1.0)]), &[]);
            assert_eq!(floats(&got.unwrap()[0]), vec![42.0; n as usize]);
            let nothing = kernel(Author::User, &["c"], "if (i == 5u) { c[i] = 1.0; }");
            let got = engine.compute_by(&job, program(vec![dispatch(&nothing, &[array(0)], n, 1.0)]), &[]);
            let mut expected = vec![0.0; n as usize];
            expected[5] = 1.0;
            assert_eq!(floats(&got.unwrap()[0]), expected, "staging {staging}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_engine_goes_on() {
    let options = DeviceOptions { memory: Some(8 << 20), ..Default::default() };
    let Some(mut engine) = engine_with("engine", options) else { return };
    let copy = kernel(Author::Catalogue, &["a", "b"], "b[i] = a[i] * scale;");
    let small = job(&[("a", 10), ("b", 10)], 1, &[1]);
    let input = bytes(&numbers(10, 1.0));
    let good = || program(vec![dispatch(&copy, &[array(0), array(1)], 10, 1.0)]);
    let with = |change: &dyn Fn(&mut zed_gpu::program::Dispatch)| {
        let mut bad = good();
        change(&mut bad.dispatches[0]);
        bad
    };
    let no_wgsl = kernel(Author::User, &["a", "b"], "b[i] = nonsense;");
    for (bad, expected) in [
        (with(&|one| one.groups = [0, 1, 1]), "(0, 1, 1) workgroups"),
        (with(&|one| one.groups = [1, 1, u32::MAX]), "workgroups"),
        (with(&|one| one.push = vec![0; 4]), "push constants"),
        (with(&|one| one.buffers = vec![array(0)]), "binds 1 buffers"),
        (with(&|one| one.buffers = vec![array(0), array(7)]), "array that is not there"),
        (with(&|one| one.buffers = vec![array(0), Buffer::Temporary(0)]), "buffer that is not there"),
        (with(&|one| one.kernel = no_wgsl.clone()), "shader test"),
        (program(Vec::new()), "no kernel gives \"b\""),
    ] {
        let error = engine.compute_by(&small, bad, &[&input]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(engine.compute_by(&small, good(), &[&input]).unwrap(), std::slice::from_ref(&input));
    }
    for inputs in [&[] as &[&[u8]], &[&input, &input], &[&input[4..]]] {
        let error = engine.compute_by(&small, good(), inputs).unwrap_err();
        assert!(matches!(error, JobError::Input(_)), "{error}");
    }
    let n = 3 << 20;
    let large = job(&[("a", n), ("b", n)], 1, &[1]);
    let one = program(vec![dispatch(&copy, &[array(0), array(1)], n, 1.0)]);
    let error = engine.compute_by(&large, one, &[&bytes(&numbers(n, 1.0))]).unwrap_err();
    assert!(matches!(error, JobError::Device(VkError::Memory { .. })), "{error}");
    assert_eq!(engine.compute_by(&small, good(), &[&input]).unwrap(), [input]);
}

fn scaled(n: u32, factor: f64) -> Job {
    let op = Op::Binary(Binary::Mul, Operand::Array(ArrayId(0)), Operand::Number(factor));
    let steps = vec![Step { op, results: vec![ArrayId(1)] }];
    Job { steps, ..job(&[("a", n), ("b", n)], 1, &[1]) }
}

#[test]
fn other_numbers_in_a_job_need_no_other_pipeline_and_no_other_memory() {
    let Some(mut engine) = engine_with("engine", DeviceOptions::default()) else { return };
    let input = bytes(&numbers(100, 1.0));
    let mut used = 0;
    for factor in 0..1500_u16 {
        let job = scaled(100, f64::from(factor));
        let running = engine.begin(&job).unwrap();
        assert_eq!(running.prepared.pipelines, u32::from(factor == 0), "{factor}");
        assert!(running.prepared.planned, "the plan is new");
        engine.end(running);
        let got = engine.compute(&job, &[&input]).unwrap();
        assert_eq!(floats(&got[0]), numbers(100, f32::from(factor)));
        let now = engine.memory().device.used;
        assert!(factor == 0 || now == used, "{now} {used}");
        used = now;
    }
    let running = engine.begin(&scaled(100, 1499.0)).unwrap();
    assert!(!running.prepared.planned, "the plan is known");
    engine.end(running);
}

#[test]
fn memory_stays_within_its_bound_and_is_used_again() {
    const BOUND: u64 = 8 << 20;
    for staging in WAYS {
        let options = DeviceOptions { staging, memory: Some(BOUND), ..Default::default() };
        let Some(mut engine) = engine_with("engine", options) else { return };
        for round in 0..2 {
            for part in 1..16 {
                let n = part * 25_000;
                let got = engine.compute(&scaled(n, 2.0), &[&bytes(&numbers(n, 1.0))]).unwrap();
                assert!(floats(&got[0]) == numbers(n, 2.0), "{n} in round {round}");
                let stats = engine.memory();
                assert!(stats.device.held <= BOUND && stats.staging.held <= BOUND, "{stats:?}");
                assert!(stats.device.used <= stats.device.held, "{stats:?}");
            }
        }
        assert!(engine.memory().device.freed > 0);
        engine.forget_idle();
        assert_eq!((engine.memory().device.held, engine.memory().staging.held), (0, 0));
        let before = engine.memory().device;
        for _ in 0..100 {
            engine.compute(&scaled(1000, 2.0), &[&bytes(&numbers(1000, 1.0))]).unwrap();
        }
        let after = engine.memory().device;
        assert_eq!(after.misses - before.misses, 1, "one slab for both buffers, kept for all runs");
    }
}

#[test]
fn jobs_that_run_together_do_not_share_memory() {
    let Some(mut engine) = engine_with("engine", DeviceOptions::default()) else { return };
    let n = 1000;
    let mut together: Vec<Running> = (0..64_u16)
        .map(|number| {
            let mut running = engine.begin(&scaled(n, f64::from(number % 4))).unwrap();
            running.input(0).unwrap().copy_from_slice(&bytes(&numbers(n, f32::from(number))));
            running
        })
        .collect();
    let mut batch: Vec<&mut Running> = together.iter_mut().collect();
    engine.run(&mut batch).unwrap();
    for (number, running) in (0..64_u16).zip(&together) {
        let Some(Output::Bytes(found)) = running.output(0) else { panic!("{number} has no output") };
        assert!(floats(found) == numbers(n, f32::from(number * (number % 4))), "{number}");
    }
    together.into_iter().for_each(|running| engine.end(running));
}

#[test]
fn the_kernels_of_a_job_are_told_before_they_are_compiled_and_once() {
    let Some(mut engine) = engine_with("engine", DeviceOptions::default()) else { return };
    let user = common::user_job(64, "b[i] = a[i];");
    for (job, is_user) in [(user, true), (scaled(64, 2.0), false)] {
        let mut told = Vec::new();
        let running = engine.begin_with(&job, |kernels, user| told.push((kernels.len(), user))).unwrap();
        assert_eq!((running.user(), running.prepared.pipelines), (is_user, 1));
        engine.end(running);
        let running = engine.begin_with(&job, |kernels, user| told.push((kernels.len(), user))).unwrap();
        engine.end(running);
        assert_eq!(told, [(1, is_user)]);
    }
}
