//! The same queue with real nodes on Mesa's driver for CPUs, where the environment says that it is there.

use crate::fake::Told;
use crate::*;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use zed_gpu::device::DeviceInfo;
use zed_gpu::device::DeviceUuid;
use zed_gpu::queue::NodeHandle;
use zed_gpu::queue::NodeHost;
use zed_gpu::queue::NodeProcess;

struct RealHost(PathBuf);

/// One whose device is not there any more when its node looks for it. Needs no driver.
struct Vanished(RealHost);

impl NodeHost for Vanished {
    fn devices(&self) -> Result<Vec<DeviceInfo>, String> {
        FakeHost::default().devices()
    }

    fn stop(&self) {}

    fn start(&self, device: Option<DeviceUuid>) -> io::Result<NodeProcess> {
        self.0.start(device)
    }
}

fn program() -> Command {
    #[expect(clippy::disallowed_methods, reason = "a test starts the program that it tests")]
    let command = Command::new(env!("CARGO_BIN_EXE_zed-gpu-node"));
    command
}

impl NodeHost for RealHost {
    fn devices(&self) -> Result<Vec<DeviceInfo>, String> {
        let output = program().args(["list", "--allow-cpu"]).output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    fn stop(&self) {}

    fn start(&self, device: Option<DeviceUuid>) -> io::Result<NodeProcess> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = program();
        match device {
            Some(uuid) => {
                command.args(["node", "--allow-cpu", "--uuid", &uuid.to_string(), "--cache"]).arg(&self.0)
            }
            None => command.arg("cpu"),
        };
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0).spawn()?;
        let pid = child.id();
        Ok(NodeProcess { socket: ours, pid, handle: Box::new(RealNode(child)) })
    }
}

struct RealNode(Child);

impl NodeHandle for RealNode {
    fn kill(&mut self) {
        drop(self.0.kill());
    }

    fn ended(&mut self) -> Option<String> {
        let status = self.0.try_wait().unwrap()?;
        Some(status.signal().map_or_else(|| "exit".to_owned(), |signal| format!("signal {signal}")))
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon's GPUs with real nodes; nothing where there is no driver.
fn real(test: &str, root: &Path) -> Option<Bench> {
    if std::env::var_os("ZED_TEST_VULKAN").is_none() {
        println!("{test}: not run: ZED_TEST_VULKAN is not set");
        return None;
    }
    let (host, told) = (RealHost(root.join("cache")), Told::default());
    let set = GpuSet::open(root, Arc::new(host), Arc::new(told.clone()), QueueLimits::default()).unwrap();
    set.start(Use::Any).unwrap();
    let bench = Bench { set, host: FakeHost::default(), told };
    bench.until("the device is there", || !bench.set.gpus().is_empty());
    bench.ready();
    Some(bench)
}

/// A shader that never ends.
fn spin() -> &'static str {
    "(inputs: {\"a\": F32([1, 2])}, deadline: \"300ms\", op: Wgsl(source: \"\
     @group(0) @binding(0) var<storage, read> a: array<f32>; \
     @group(0) @binding(1) var<storage, read_write> c: array<u32>; \
     @compute @workgroup_size(1) fn main() { \
     loop { c[0] = c[0] + 1u; if (a[0] < 0.0) { break; } } }\", \
     inputs: [\"a\"], outputs: {\"c\": (U32, [1])}, groups: (1, 1, 1)))"
}

#[test]
fn real_jobs_are_done_with_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let Some(bench) = real("real_jobs_are_done_with_their_values", dir.path()) else { return };
    let ids: Vec<u64> = (0..200)
        .map(|number| {
            let text = format!("(inputs: {{\"a\": F32([{number}, 2])}}, op: Mul(\"a\", 2.0), reply: Text)");
            bench.submit(user(number % 8), &text)
        })
        .collect();
    for (id, number) in ids.iter().zip(0..) {
        let reply = bench.reply(*id).unwrap();
        assert_eq!(std::str::from_utf8(&reply).unwrap(), format!("# out f32 [2]\n{} 4\n", number * 2));
    }
    let stats = bench.set.stats(0).unwrap();
    assert_eq!((stats.done, stats.failed), (200, 0));
    let shaders = bench.set.shaders(0);
    assert_eq!(shaders.len(), 1, "{shaders:?}");
    let shader = bench.set.shader(0, &shaders[0]).unwrap();
    assert_eq!((shader.author.as_str(), shader.jobs), ("catalogue", 200));
}

#[test]
fn a_real_shader_that_never_ends_costs_its_job_and_is_evicted_at_the_third_offence() {
    let dir = tempfile::tempdir().unwrap();
    let test = "a_real_shader_that_never_ends_costs_its_job_and_is_evicted_at_the_third_offence";
    let Some(bench) = real(test, dir.path()) else { return };
    for _ in 0..3 {
        let hangs = bench.submit(user(1), spin());
        let others: Vec<u64> = (0..20).map(|_| bench.submit(user(2), &job("Exp"))).collect();
        let text = bench.outcome(hangs).unwrap_err().message;
        assert!(text.contains("within its deadline of 300ms"), "{text}");
        for id in others {
            assert!(bench.outcome(id).is_ok(), "{:?}", bench.job(id));
        }
    }
    assert_eq!(bench.set.info(0).unwrap().restarts, 3);
    let suspects = bench.set.suspects(0).unwrap();
    assert!(suspects.kernels.len() == 1 && suspects.kernels[0].evicted, "{suspects:?}");
    let kernel = suspects.kernels[0].kernel.clone();
    assert_eq!(bench.set.shader(0, &kernel).unwrap().author, "user");
    let evicted = bench.submit(user(1), spin());
    let text = bench.outcome(evicted).unwrap_err().message;
    assert!(text.contains("evicted") && text.contains(&kernel), "{text}");
    bench.say(GpuVerb::Forgive { kernel: Some(kernel) });
    let again = bench.submit(user(1), spin());
    assert!(bench.outcome(again).unwrap_err().message.contains("deadline"));
    assert_eq!(bench.set.stats(0).unwrap().done, 60);
}

#[test]
fn kill_9_of_a_real_node_with_100_jobs_loses_only_what_ran() {
    let dir = tempfile::tempdir().unwrap();
    let Some(bench) = real("kill_9_of_a_real_node_with_100_jobs_loses_only_what_ran", dir.path()) else {
        return;
    };
    let warm = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(warm).is_ok());
    let ids: Vec<u64> = (0..100).map(|_| bench.submit(user(1), &job("Exp"))).collect();
    let pid = i32::try_from(bench.set.info(0).unwrap().pid).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let more: Vec<u64> = (0..100).map(|_| bench.submit(user(2), &job("Exp"))).collect();
    let mut causes = std::collections::BTreeSet::new();
    for id in ids.iter().chain(&more) {
        if let Err(error) = bench.outcome(*id) {
            causes.insert(error.message.split_once(": ").unwrap().1.to_owned());
        }
        assert!(["done", "failed"].contains(&bench.job(*id).state.as_str()));
    }
    assert!(causes.len() <= 1, "{causes:?}");
    assert!(causes.iter().all(|cause| cause.contains("signal 9")), "{causes:?}");
    let stats = bench.set.stats(0).unwrap();
    assert_eq!(stats.done + stats.failed, 201);
}

#[test]
fn while_the_brake_is_set_a_real_node_computes_on_the_cpu_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(bench) = real("while_the_brake_is_set_a_real_node_computes_on_the_cpu_and_says_so", dir.path())
    else {
        return;
    };
    for _ in 0..5 {
        let hangs = bench.submit(user(1), spin());
        drop(bench.outcome(hangs));
        let kernel = bench.set.suspects(0).unwrap().kernels[0].kernel.clone();
        bench.say(GpuVerb::Forgive { kernel: Some(kernel) });
    }
    assert!(bench.set.suspects(0).unwrap().brake);
    let id = bench.submit(user(1), &job_with("Exp", "fallback: Allow, reply: Text"));
    assert_eq!(
        std::str::from_utf8(&bench.reply(id).unwrap()).unwrap(),
        "# out f32 [2]\n2.7182817 7.389056\n"
    );
    let view = bench.job(id);
    assert_eq!(view.ran_on, "cpu");
    assert!(view.fallback.contains("brake"), "{}", view.fallback);
}

#[test]
fn for_a_device_that_is_gone_a_process_without_a_driver_computes() {
    let dir = tempfile::tempdir().unwrap();
    let host = Vanished(RealHost(dir.path().join("cache")));
    let told = Told::default();
    let set =
        GpuSet::open(dir.path(), Arc::new(host), Arc::new(told.clone()), QueueLimits::default()).unwrap();
    set.start(Use::Hardware).unwrap();
    let bench = Bench { set, host: FakeHost::default(), told };
    bench.until("it is unusable", || bench.set.info(0).is_some_and(|info| info.state == "unusable"));
    let forbids = bench.submit(user(1), &job("Exp"));
    assert!(bench.outcome(forbids).unwrap_err().message.contains("unusable"));
    let id = bench.submit(user(1), &job_with("Exp", "fallback: Allow, reply: Text"));
    assert_eq!(
        std::str::from_utf8(&bench.reply(id).unwrap()).unwrap(),
        "# out f32 [2]\n2.7182817 7.389056\n"
    );
    let view = bench.job(id);
    assert_eq!((view.ran_on.as_str(), view.device.as_str()), ("cpu", ""));
    assert_eq!(bench.set.stats(0).unwrap().fallbacks, 1);
}
