//! The GPUs of this host, as far as zedd has to do with them: which program its nodes are, who hears of them.
//!
//! Queues and what they promise are `zed-gpu`'s; the start of a process is `zed-host`'s.

use crate::args::GpuUse;
use crate::events::About;
use crate::events::Events;
use crate::inventory::Inventory;
use crate::serve::Failure;
use crate::shared::Shared;
use crate::state::StateDir;
use std::collections::BTreeMap;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zed_ctl::EventKind;
use zed_gpu::device::DeviceInfo;
use zed_gpu::device::DeviceUuid;
use zed_gpu::queue::GpuSet;
use zed_gpu::queue::NodeHandle;
use zed_gpu::queue::NodeHost;
use zed_gpu::queue::NodeProcess;
use zed_gpu::queue::NoticeKind;
use zed_gpu::queue::Notices;
use zed_gpu::queue::QueueLimits;
use zed_gpu::queue::Use;
use zed_host::CommandRequest;
use zed_host::Ended;
use zed_host::Runner;
use zed_host::Served;
use zed_host::SupervisorProgram;

/// How long drivers may take to list their devices.
const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// What the list may have, in bytes.
const LIST_BYTES: usize = 1 << 20;

/// The longest line of a driver's complaints that goes into the log, in bytes.
const LONGEST_LINE: u64 = 4096;

/// Beginnings of the variables by which drivers and their loader are told things.
const FOR_DRIVERS: [&str; 16] = [
    "VK_", "LD_", "MESA_", "LP_", "GALLIUM_", "LIBGL_", "RADV_", "AMD_", "ANV_", "INTEL_", "NVK_", "NVIDIA_",
    "__GL_", "__NV_", "CUDA_", "XDG_",
];

/// The others that they are given.
const ALSO: [&str; 4] = ["HOME", "PATH", "TMPDIR", "LANG"];

/// Queues and nodes as zedd was told to have them; none when it was told to have none.
///
/// # Errors
/// When the state cannot be opened.
pub fn start(
    which: &GpuUse,
    state: &StateDir,
    program: SupervisorProgram,
    events: Arc<Events>,
    inventory: Arc<Inventory>,
) -> Result<Option<Arc<GpuSet>>, Failure> {
    let GpuUse::Use(which) = which else { return Ok(None) };
    let root = state.gpu_dir();
    let (program, cache, runner) = (program.path, root.join("cache"), Runner::default());
    let host = Host { program, cache, runner, stopping: AtomicBool::new(false), inventory };
    let limits = QueueLimits::default();
    let set = GpuSet::open(&root, Arc::new(host), Arc::new(Telling(events)), limits)
        .map_err(|e| crate::chain(&e))?;
    set.start(which.clone()).map_err(|e| format!("failed to start the GPU queues: {e}"))?;
    Ok(Some(set))
}

/// The list of this host's GPUs; nothing is looked for when none are to be used.
pub fn inventory(which: &GpuUse, shared: &Arc<Shared>) -> Arc<Inventory> {
    match which {
        GpuUse::Off => Inventory::none(),
        GpuUse::Use(which) => Inventory::look_for(shared.clone(), *which == Use::Any),
    }
}

/// Nodes are this program again.
struct Host {
    program: PathBuf,
    /// Where nodes keep what they have compiled.
    cache: PathBuf,
    runner: Runner,
    stopping: AtomicBool,
    /// Is told what drivers list.
    inventory: Arc<Inventory>,
}

/// What drivers may be told by the environment of zedd.
fn environment() -> BTreeMap<String, String> {
    let wanted = |name: &str| FOR_DRIVERS.iter().any(|begin| name.starts_with(begin)) || ALSO.contains(&name);
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| wanted(name)).collect()
}

impl Host {
    /// All devices of all drivers, as another process finds them.
    fn list(&self) -> Result<Vec<DeviceInfo>, String> {
        let request = CommandRequest {
            argv: ["zedd", "gpu-list", "--allow-cpu"].map(str::to_owned).into(),
            program: Some(self.program.clone()),
            environment: environment(),
            directory: None,
            input: Vec::new(),
            deadline: LIST_DEADLINE,
            grace: Duration::from_secs(1),
            keep: LIST_BYTES,
        };
        let finished = self.runner.run(&request, Some(&self.stopping)).map_err(|e| crate::chain(&e))?;
        let text = String::from_utf8_lossy(&finished.output);
        if finished.ended != Ended::Exit(0) {
            let last = text.lines().last().unwrap_or_default();
            return Err(format!("`zedd gpu-list`: {}: {last}", finished.ended));
        }
        // Drivers say what they like, too.
        let list = text.lines().rev().find(|line| line.starts_with('['));
        let list = list.ok_or_else(|| "`zedd gpu-list` printed no list".to_owned())?;
        serde_json::from_str(list).map_err(|e| format!("`zedd gpu-list` printed something else: {e}"))
    }
}

impl NodeHost for Host {
    fn devices(&self) -> Result<Vec<DeviceInfo>, String> {
        let listed = self.list();
        // Drivers that cannot be asked show nothing.
        self.inventory.tell_vulkan(listed.clone().unwrap_or_default());
        listed
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn start(&self, device: Option<DeviceUuid>) -> io::Result<NodeProcess> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut argv = vec!["zedd".to_owned()];
        match device {
            Some(uuid) => {
                let cache = self.cache.to_string_lossy().into_owned();
                // Which device it is has been decided; whether it may be one of the CPU's, too.
                argv.extend(["gpu-node", "--allow-cpu", "--uuid"].map(str::to_owned));
                argv.extend([uuid.to_string(), "--cache".to_owned(), cache]);
            }
            None => argv.push("gpu-cpu".to_owned()),
        }
        let (served, stderr) = Served::start(&self.program, &argv, &environment(), theirs.into())?;
        let pid = served.pid();
        std::thread::Builder::new().name("gpu-stderr".to_owned()).spawn(move || log_lines(pid, stderr))?;
        Ok(NodeProcess { socket: ours, pid, handle: Box::new(Node(served)) })
    }
}

/// What a node and its driver complain of.
fn log_lines(pid: u32, stderr: impl Read) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::info!(pid, "gpu node: {}", String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

struct Node(Served);

impl NodeHandle for Node {
    fn kill(&mut self) {
        self.0.kill();
    }

    fn ended(&mut self) -> Option<String> {
        match self.0.ended() {
            Ok(ended) => ended.map(|ended| ended.to_string()),
            Err(error) => Some(format!("it cannot be waited for: {error}")),
        }
    }
}

/// Notices become events.
struct Telling(Arc<Events>);

impl Notices for Telling {
    fn notice(&self, kind: NoticeKind, gpu: Option<u32>, text: &str) {
        let kind = match kind {
            NoticeKind::Ready => EventKind::GpuReady,
            NoticeKind::Lost => EventKind::GpuLost,
            NoticeKind::Unusable => EventKind::GpuUnusable,
            NoticeKind::Timeout => EventKind::GpuTimeout,
            NoticeKind::Evicted => EventKind::GpuEvicted,
            NoticeKind::Braked => EventKind::GpuBraked,
            NoticeKind::Released => EventKind::GpuReleased,
            NoticeKind::Warning => EventKind::Warning,
        };
        let text = gpu.map_or_else(|| text.to_owned(), |gpu| format!("gpu {gpu}: {text}"));
        self.0.emit(kind, About::nothing(), &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_words_are_logged_line_by_line_however_long() {
        // Only that it comes to an end.
        log_lines(1, [b"short\n".as_slice(), &[b'x'; 10_000], b"\xff\nlast"].concat().as_slice());
        let all = environment();
        assert!(all.keys().all(|name| !name.starts_with("NOTIFY") && !name.starts_with("CARGO")));
        assert_eq!(all.get("PATH").cloned(), std::env::var("PATH").ok());
    }
}
