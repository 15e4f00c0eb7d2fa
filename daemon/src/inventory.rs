//! GPUs of this host, as far as they are known: the bus and nvidia-smi are asked in threads of their own, Vulkan is told
//! by whoever runs the nodes.
//!
//! Only for people and schedulers: nothing here starts or steers a node, and no plan depends on it. Neither a program
//! nor a driver that hangs delays anything but its own part of the list.

use crate::shared::Shared;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use zed_gpu::device::DeviceInfo;
use zed_gpu::inventory::GpuInventory;
use zed_gpu::inventory::Programs;
use zed_gpu::inventory::Seen;
use zed_gpu::inventory::System;
use zed_gpu::inventory::observe_nvidia;
use zed_gpu::inventory::observe_pci;
use zed_host::CommandRequest;
use zed_host::Ended;
use zed_host::HostErrorKind;
use zed_host::Runner;

/// How long a program may take. nvidia-smi starts every GPU that sleeps, one after the other.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a source may be silent until the list counts as complete without it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of the daemon waits for a program to be ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes of output to keep: prtconf prints some hundred kilobytes.
const KEEP: usize = 4 << 20;

/// What is known of the host's GPUs.
pub struct Inventory {
    known: Mutex<Known>,
    shared: Option<Arc<Shared>>,
    /// A driver that computes on the CPU counts as a GPU.
    cpu: bool,
    patience: Duration,
    since: Instant,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Known {
    seen: Seen,
    pci: bool,
    nvidia: bool,
}

impl Inventory {
    /// None, and nothing is looked for.
    pub fn none() -> Arc<Self> {
        Self::new(None, false, Duration::ZERO)
    }

    /// Starts to look, and expects to be told what Vulkan shows. Wakes the loop when something was found. With `cpu`, a
    /// driver that computes on the CPU counts as a GPU.
    pub fn look_for(shared: Arc<Shared>, cpu: bool) -> Arc<Self> {
        let stopping = shared.stopping.clone();
        let inventory = Self::new(Some(shared), cpu, PATIENCE);
        inventory.look(System::here(), Arc::new(HostPrograms { runner: Runner::default(), stopping }));
        inventory
    }

    fn new(shared: Option<Arc<Shared>>, cpu: bool, patience: Duration) -> Arc<Self> {
        let (known, since, threads) = (Mutex::default(), Instant::now(), Mutex::default());
        Arc::new(Self { known, shared, cpu, patience, since, threads })
    }

    fn look(self: &Arc<Self>, system: System<'static>, programs: Arc<dyn Programs + Send + Sync>) {
        let (inventory, on_the_bus) = (self.clone(), programs.clone());
        self.in_thread("gpu-pci", move || {
            let answer = observe_pci(system, &*on_the_bus);
            inventory.learn(&answer.troubles, |known| {
                known.seen.pci = answer.found;
                known.pci = true;
            });
        });
        let inventory = self.clone();
        self.in_thread("gpu-nvidia", move || {
            let answer = observe_nvidia(&*programs);
            inventory.learn(&answer.troubles, |known| {
                known.seen.smi = answer.found;
                known.nvidia = true;
            });
        });
    }

    fn in_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => self.threads.lock().push(thread),
            Err(error) => tracing::warn!(%error, name, "the list of GPUs is not whole"),
        }
    }

    /// The daemon ends: waits until the programs that it runs here have been ended. One that cannot be killed is not
    /// waited for.
    pub fn end(&self) {
        let since = Instant::now();
        while since.elapsed() < FAREWELL && !self.threads.lock().iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Vulkan shows these devices, by rank: all of them, not only those that a node has. Called each time after
    /// Vulkan was asked, also when it shows nothing.
    pub fn tell_vulkan(&self, devices: Vec<DeviceInfo>) {
        self.learn(&[], |known| known.seen.vulkan = Some(devices));
    }

    fn learn(&self, troubles: &[String], change: impl FnOnce(&mut Known)) {
        for trouble in troubles {
            tracing::warn!(trouble, "the list of GPUs lacks what this program knows");
        }
        change(&mut self.known.lock());
        if let Some(shared) = &self.shared {
            shared.wake();
        }
    }

    /// The list, once all have been asked: what may be recorded. A source that is silent for too long is not
    /// waited for.
    pub fn complete(&self) -> Option<GpuInventory> {
        let known = self.known.lock();
        let all = known.pci && known.nvidia && known.seen.vulkan.is_some();
        (all || self.since.elapsed() >= self.patience).then(|| self.list(&known))
    }

    /// What is known so far, as facts; none when nothing is looked for.
    pub fn facts(&self) -> BTreeMap<String, String> {
        if self.shared.is_none() {
            return BTreeMap::new();
        }
        self.list(&self.known.lock()).facts()
    }

    fn list(&self, known: &Known) -> GpuInventory {
        GpuInventory::new(&known.seen, self.cpu)
    }
}

/// The programs of this host, ended with the daemon.
struct HostPrograms {
    runner: Runner,
    stopping: Arc<AtomicBool>,
}

impl Programs for HostPrograms {
    fn output(&self, argv: &[&str]) -> Result<Option<String>, String> {
        let request = CommandRequest {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            program: None,
            environment: BTreeMap::from([("PATH".to_owned(), zed_host::DEFAULT_PATH.to_owned())]),
            directory: None,
            input: Vec::new(),
            deadline: DEADLINE,
            grace: Duration::from_secs(1),
            keep: KEEP,
        };
        let finished = match self.runner.run(&request, Some(&self.stopping)) {
            Ok(finished) => finished,
            Err(error) if matches!(error.kind, HostErrorKind::NotFound(_)) => return Ok(None),
            Err(error) => return Err(crate::chain(&error)),
        };
        let text = String::from_utf8_lossy(&finished.output).into_owned();
        if finished.ended == Ended::Exit(0) {
            return Ok(Some(text));
        }
        let name = argv.first().copied().unwrap_or_default();
        Err(format!("{name}: {}: {}", finished.ended, text.lines().next().unwrap_or("it printed nothing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// nvidia-smi does not end before it is let go; there is no other program.
    struct Hanging(Mutex<mpsc::Receiver<()>>);

    impl Programs for Hanging {
        fn output(&self, argv: &[&str]) -> Result<Option<String>, String> {
            assert_eq!(argv.first(), Some(&"nvidia-smi"));
            let _ = self.0.lock().recv();
            Ok(Some("NVIDIA H200, 143771, 570.86.15, [N/A], 00000000:C1:00.0\n".to_owned()))
        }
    }

    /// Waits for what a thread will do.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..6000 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what} did not come to be");
    }

    fn hanging(patience: Duration) -> (Arc<Inventory>, mpsc::Sender<()>) {
        let (go, hang) = mpsc::channel();
        let inventory = Inventory::new(Some(Arc::new(Shared::new())), false, patience);
        inventory.look(System::Linux(std::path::Path::new("/none")), Arc::new(Hanging(Mutex::new(hang))));
        until("an answer of the bus", || inventory.known.lock().pci);
        (inventory, go)
    }

    #[test]
    fn a_program_that_hangs_keeps_nothing_but_the_record_waiting() {
        let (inventory, go) = hanging(Duration::from_secs(3600));
        inventory.tell_vulkan(Vec::new());
        assert_eq!(inventory.facts().get("gpus").map(String::as_str), Some("0"));
        assert_eq!(inventory.complete(), None);
        go.send(()).unwrap();
        until("the answer of nvidia-smi", || inventory.complete().is_some());
        assert_eq!(inventory.facts().get("gpu.0.model").map(String::as_str), Some("NVIDIA H200"));
    }

    #[test]
    fn a_program_that_hangs_for_ever_is_not_waited_for() {
        let (inventory, _go) = hanging(Duration::ZERO);
        assert_eq!(inventory.complete(), Some(GpuInventory::default()));
    }

    #[test]
    fn the_record_waits_for_vulkan() {
        let (inventory, go) = hanging(Duration::from_secs(3600));
        go.send(()).unwrap();
        until("the answer of nvidia-smi", || inventory.known.lock().nvidia);
        assert_eq!(inventory.complete(), None);
        inventory.tell_vulkan(Vec::new());
        let problem = inventory.complete().and_then(|list| list.devices[0].problem.clone());
        assert!(problem.is_some_and(|problem| problem.contains("no Vulkan driver")));
    }

    #[test]
    fn without_nodes_there_are_no_facts_and_nothing_to_record() {
        let inventory = Inventory::none();
        assert!(inventory.facts().is_empty());
        assert_eq!(inventory.complete(), Some(GpuInventory::default()));
    }

    /// The real runner, for a program that would run for ten minutes.
    struct Sleeping(HostPrograms);

    impl Programs for Sleeping {
        fn output(&self, _: &[&str]) -> Result<Option<String>, String> {
            self.0.output(&["sleep", "600"])
        }
    }

    #[test]
    fn the_end_of_the_daemon_ends_the_programs_that_still_run() {
        let shared = Arc::new(Shared::new());
        let inventory = Inventory::new(Some(shared.clone()), false, PATIENCE);
        let runner = Runner::default();
        let programs = HostPrograms { runner: runner.clone(), stopping: shared.stopping.clone() };
        inventory.look(System::Linux(std::path::Path::new("/none")), Arc::new(Sleeping(programs)));
        until("a running program", || !runner.in_flight().is_empty());
        shared.stop();
        inventory.end();
        assert_eq!(runner.in_flight(), []);
    }

    #[test]
    fn programs_of_the_host_answer_fail_or_are_not_there() {
        let programs = HostPrograms { runner: Runner::default(), stopping: Arc::default() };
        assert_eq!(programs.output(&["echo", "a"]), Ok(Some("a\n".to_owned())));
        assert_eq!(programs.output(&["no-such-program-of-zed"]), Ok(None));
        let failed = programs.output(&["sh", "-c", "echo broken; exit 9"]);
        assert_eq!(failed, Err("sh: exit 9: broken".to_owned()));
    }
}
