//! What work on a GPU costs through `/zed/gpu/0/queue`, beside the same submit in a bare Vulkan program.
//!
//! The bare program is the example `bare` of `zed-gpu`: a process that is told what to do, so that both sides run in turns.
//! Without a GPU both use lavapipe, which `cargo xtask` unpacks; then "the device" is this machine's CPU.

use super::Options;
use super::Samples;
use super::daemon::Daemon;
use super::goal;
use super::heading;
use super::not_run;
use super::ratio;
use crate::shell::Cmd;
use crate::vulkan;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// Elements of each of the two inputs of the small job: together 1 kB.
const ELEMENTS: usize = 128;

/// The program with which a cold and a warm start are compared: four kernels, two of them in double precision.
const FIRST: &str = "(inputs: {\"a\": F32([[1, 2], [3, 4]]), \"x\": F64([0.1, 0.2, 0.3])}, steps: {\"b\": Matmul(\"a\", \"a\"), \
    \"s\": Sum(\"b\"), \"e\": Exp(\"x\"), \"l\": LogSumExp(\"e\")}, outputs: [\"s\", \"l\"], deadline: \"60s\", reply: Text)";

pub(super) fn run(options: &Options) -> Result<(), String> {
    let environment = match vulkan::environment(options.no_install)? {
        Ok(environment) => environment,
        Err(why) => {
            not_run("gpu", &why);
            return Ok(());
        }
    };
    let build = ["build", "--release", "-p", "zed-gpu", "--example", "bare"];
    if !Cmd::cargo().args(build).deadline(Duration::from_secs(45 * 60)).run()?.ok() {
        return Err("the release build of the bare program failed".into());
    }
    let daemon = Daemon::start_with(false, &["--gpu", "any"], &environment)?;
    let mut bare = Bare::start(&environment)?;
    let gpu = Gpu::ready(daemon.mount().join("gpu/0"))?;
    println!("   device: {}", gpu.model()?);
    latency(options, &gpu, &mut bare)?;
    throughput(options, &gpu, &mut bare)?;
    bandwidth(options, &gpu, &mut bare, daemon.dir())?;
    compute(options, &gpu, &mut bare)?;
    starts(options, &gpu, &daemon)
}

/// The device's folder.
struct Gpu(PathBuf);

impl Gpu {
    fn ready(path: PathBuf) -> Result<Self, String> {
        let gpu = Self(path);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let info = std::fs::read_to_string(gpu.0.join("info")).unwrap_or_default();
            if info.lines().any(|line| line == "state ready") {
                return Ok(gpu);
            }
            if Instant::now() > until {
                return Err(format!("{} did not become ready: {info}", gpu.0.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn value(&self, file: &str, key: &str) -> Result<String, String> {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        found.map(str::to_owned).ok_or_else(|| format!("{} has no {key}", path.display()))
    }

    fn model(&self) -> Result<String, String> {
        Ok(format!("{}, {}", self.value("info", "model")?, self.value("info", "driver")?))
    }

    fn queue(&self) -> Result<Queue, String> {
        let path = self.0.join("queue");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        file.map(Queue).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn submit(&self, job: &str) -> Result<PathBuf, String> {
        let mut reply = [0; 32];
        let count = self.queue()?.ask(job.as_bytes(), &mut reply)?;
        let id = String::from_utf8_lossy(reply.get(..count).unwrap_or_default()).trim().to_owned();
        Ok(self.0.join("jobs").join(id))
    }
}

/// An open `queue`.
struct Queue(File);

impl Queue {
    /// One write, one read.
    fn ask(&mut self, job: &[u8], reply: &mut [u8]) -> Result<usize, String> {
        self.0.write_all(job).map_err(|e| format!("a job was refused: {e}"))?;
        self.0.read(reply).map_err(|e| format!("a job has no reply: {e}"))
    }
}

/// The bare program.
struct Bare {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Bare {
    fn start(environment: &vulkan::Environment) -> Result<Self, String> {
        let mut command = Command::new(super::program("examples/bare")?);
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start the bare program: {e}"))?;
        let (commands, answers) = (child.stdin.take(), child.stdout.take());
        let commands = commands.ok_or("the bare program has no input")?;
        let answers = BufReader::new(answers.ok_or("the bare program has no output")?);
        Ok(Self { child, commands, answers })
    }

    fn run(&mut self, command: &str, into: &mut Samples) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("the bare program, told `{command}`: {e}");
        writeln!(self.commands, "{command}").map_err(failed)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(failed)?;
        for word in line.split_whitespace() {
            let nanos =
                word.parse().map_err(|e| format!("the bare program, told `{command}`: {line}: {e}"))?;
            into.add(Duration::from_nanos(nanos));
        }
        if line.is_empty() { Err(format!("the bare program ended at `{command}`")) } else { Ok(()) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small job with its data in the same write.
fn small_job(reply: &str) -> Vec<u8> {
    let text = format!(
        "(inputs: {{\"a\": Raw(F32, [{ELEMENTS}]), \"b\": Raw(F32, [{ELEMENTS}])}}, op: Add(\"a\", \"b\"), reply: {reply})\0"
    );
    let mut job = text.into_bytes();
    for value in [1.5_f32; ELEMENTS].iter().chain(&[2.25; ELEMENTS]) {
        job.extend_from_slice(&value.to_le_bytes());
    }
    job
}

/// The same with its data as text, as a shell writes it.
fn text_job() -> Vec<u8> {
    let list = |value: &str| vec![value; ELEMENTS].join(", ");
    let (a, b) = (list("1.5"), list("2.25"));
    format!("(inputs: {{\"a\": F32([{a}]), \"b\": F32([{b}])}}, op: Add(\"a\", \"b\"), reply: Text)")
        .into_bytes()
}

fn latency(options: &Options, gpu: &Gpu, bare: &mut Bare) -> Result<(), String> {
    let (rounds, count) = if options.quick { (3, 50) } else { (20, 500) };
    let (raw, text) = (small_job("Raw"), text_job());
    let mut queue = gpu.queue()?;
    let mut reply = vec![0; 64 << 10];
    let [mut least, mut zed, mut as_text] = [const { Samples(Vec::new()) }; 3];
    let mut warm = Samples::default();
    bare.run("add 100", &mut warm)?;
    for _ in 0..100 {
        queue.ask(&raw, &mut reply)?;
        queue.ask(&text, &mut reply)?;
    }
    for _ in 0..rounds {
        bare.run(&format!("add {count}"), &mut least)?;
        for (job, samples) in [(&raw, &mut zed), (&text, &mut as_text)] {
            for _ in 0..count {
                let begun = Instant::now();
                queue.ask(job, &mut reply)?;
                samples.add(begun.elapsed());
            }
        }
    }
    heading("a job of 1 kB (two arrays of 128 f32, added), one at a time, until its result is read");
    let yardstick = least.median();
    least.row("bare Vulkan: copy, submit, wait, copy", Some(yardstick));
    zed.row("zed: one write and one read, data raw", Some(yardstick));
    as_text.row("zed: one write and one read, data as text", Some(yardstick));
    goal("within 1.5 of the bare submit", ratio(zed.median(), yardstick) <= 1.5);
    Ok(())
}

fn throughput(options: &Options, gpu: &Gpu, bare: &mut Bare) -> Result<(), String> {
    let (rounds, jobs) = if options.quick { (2, 200) } else { (5, 10_000) };
    let job = small_job("Id");
    let [mut least, mut zed] = [const { Samples(Vec::new()) }; 2];
    for _ in 0..rounds {
        let mut each = Samples::default();
        bare.run(&format!("add {jobs}"), &mut each)?;
        least.add(each.0.iter().sum());
        let before: u64 = number(&gpu.value("stats", "done")?)?;
        let mut queue = gpu.queue()?;
        let begun = Instant::now();
        for _ in 0..jobs {
            queue.0.write_all(&job).map_err(|e| format!("a job was refused: {e}"))?;
        }
        while number(&gpu.value("stats", "done")?)? < before + jobs {
            std::thread::sleep(Duration::from_millis(1));
        }
        zed.add(begun.elapsed());
    }
    heading(&format!("{jobs} such jobs, from the first write until all are done"));
    least.row("bare Vulkan: one submit and one wait a job", Some(least.median()));
    zed.row("zed: one write a job, batched by the node", Some(least.median()));
    let rate = |samples: &Samples| {
        f64::from(u32::try_from(jobs).unwrap_or(u32::MAX)) / samples.median().as_secs_f64()
    };
    println!("   jobs/s: bare {:.0}, zed {:.0}", rate(&least), rate(&zed));
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("`{text}` is no number: {e}"))
}

fn bandwidth(options: &Options, gpu: &Gpu, bare: &mut Bare, dir: &Path) -> Result<(), String> {
    let (rounds, bytes) = if options.quick { (2, 4 << 20) } else { (7, 64 << 20) };
    let data = vec![1_u8; bytes];
    let mut back = vec![0_u8; bytes];
    let [mut write, mut read, mut plain_write, mut plain_read, mut device] =
        [const { Samples(Vec::new()) }; 5];
    let job = format!("(inputs: {{\"a\": Upload(F32, [{}])}}, op: Abs(\"a\"), deadline: \"60s\")", bytes / 4);
    let plain = dir.join("plain");
    for _ in 0..rounds {
        bare.run(&format!("copy {bytes} 1"), &mut device)?;
        write_file(&plain, &data, &mut plain_write)?;
        read_file(&plain, &mut back, &mut plain_read)?;
        let at = gpu.submit(&job)?;
        write_file(&at.join("in/a"), &data, &mut write)?;
        std::fs::write(at.join("ctl"), "start\n").map_err(|e| format!("start: {e}"))?;
        let verdict = std::fs::read_to_string(at.join("wait")).map_err(|e| format!("wait: {e}"))?;
        if !verdict.contains("done") {
            return Err(format!("the large job: {verdict}"));
        }
        read_file(&at.join("out/out"), &mut back, &mut read)?;
        if back != data {
            return Err("the large job gives other bytes".into());
        }
    }
    heading(&format!("{} MiB in and out, 1 MiB at a time", bytes >> 20));
    plain_write.row("writing a plain file on the disk's filesystem", Some(plain_write.median()));
    write.row("zed: writing in/a", Some(plain_write.median()));
    plain_read.row("reading that plain file (cached)", Some(plain_read.median()));
    read.row("zed: reading out/out", Some(plain_read.median()));
    device.row("bare Vulkan: to a buffer, copied there, and back", None);
    let rate = |samples: &Samples| bytes as f64 / samples.median().as_secs_f64() / f64::from(1 << 20);
    println!(
        "   MiB/s: written {:.0} (plain {:.0}), read {:.0} (plain {:.0})",
        rate(&write),
        rate(&plain_write),
        rate(&read),
        rate(&plain_read)
    );
    Ok(())
}

fn write_file(path: &Path, data: &[u8], into: &mut Samples) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let begun = Instant::now();
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    for (piece, at) in data.chunks(1 << 20).zip((0..).step_by(1 << 20)) {
        file.write_all_at(piece, at).map_err(failed)?;
    }
    drop(file);
    into.add(begun.elapsed());
    Ok(())
}

fn read_file(path: &Path, back: &mut [u8], into: &mut Samples) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let begun = Instant::now();
    let file = File::open(path).map_err(failed)?;
    for (piece, at) in back.chunks_mut(1 << 20).zip((0..).step_by(1 << 20)) {
        file.read_exact_at(piece, at).map_err(failed)?;
    }
    into.add(begun.elapsed());
    Ok(())
}

fn compute(options: &Options, gpu: &Gpu, bare: &mut Bare) -> Result<(), String> {
    let (rounds, n, elements) = if options.quick { (2, 128, 100_000) } else { (7, 1024_u32, 16_000_000_u32) };
    let square = format!("Upload(F32, [{n}, {n}])");
    let matmul = format!(
        "(inputs: {{\"a\": {square}, \"b\": {square}}}, op: Matmul(\"a\", \"b\"), deadline: \"120s\")"
    );
    let sum = format!("(inputs: {{\"a\": Upload(F32, [{elements}])}}, op: Sum(\"a\"), deadline: \"120s\")");
    let [mut node_matmul, mut cpu_matmul, mut node_sum, mut cpu_sum] = [const { Samples(Vec::new()) }; 4];
    // The driver compiles at the first dispatch.
    on_device(gpu, &matmul, &["a", "b"], n * n, &mut Samples::default())?;
    on_device(gpu, &sum, &["a"], elements, &mut Samples::default())?;
    for _ in 0..rounds {
        bare.run(&format!("matmul {n} 1"), &mut cpu_matmul)?;
        on_device(gpu, &matmul, &["a", "b"], n * n, &mut node_matmul)?;
        bare.run(&format!("sum {elements} 1"), &mut cpu_sum)?;
        on_device(gpu, &sum, &["a"], elements, &mut node_sum)?;
    }
    heading(&format!("{n} x {n} matrix product and a sum of {elements} f32; the node's time on the device"));
    cpu_matmul.row("plain multithreaded CPU version: product", Some(cpu_matmul.median()));
    node_matmul.row("node: product", Some(cpu_matmul.median()));
    cpu_sum.row("plain multithreaded CPU version: sum", Some(cpu_sum.median()));
    node_sum.row("node: sum", Some(cpu_sum.median()));
    let flops = 2.0 * f64::from(n).powi(3);
    let gflops = |samples: &Samples| flops / samples.median().as_secs_f64() / 1e9;
    println!("   GFLOP/s: plain {:.1}, node {:.1}", gflops(&cpu_matmul), gflops(&node_matmul));
    let bandwidth = |samples: &Samples| f64::from(elements) * 4.0 / samples.median().as_secs_f64() / 1e9;
    println!("   GB/s of the sum: plain {:.1}, node {:.1}", bandwidth(&cpu_sum), bandwidth(&node_sum));
    Ok(())
}

/// Runs a job on ones, and takes the time on the device from its status.
fn on_device(gpu: &Gpu, job: &str, inputs: &[&str], elements: u32, into: &mut Samples) -> Result<(), String> {
    let at = gpu.submit(job)?;
    let ones = 1.0_f32.to_le_bytes().repeat(usize::try_from(elements).map_err(|e| e.to_string())?);
    for input in inputs {
        write_file(&at.join("in").join(input), &ones, &mut Samples::default())?;
    }
    std::fs::write(at.join("ctl"), "start\n").map_err(|e| format!("start: {e}"))?;
    let verdict = std::fs::read_to_string(at.join("wait")).map_err(|e| format!("wait: {e}"))?;
    if !verdict.contains("done") {
        return Err(format!("{job}: {verdict}"));
    }
    let status = std::fs::read_to_string(at.join("status")).map_err(|e| format!("status: {e}"))?;
    let micros = status.lines().find_map(|line| line.strip_prefix("device_us ")).unwrap_or_default();
    into.add(Duration::from_micros(number(micros)?));
    Ok(())
}

/// From the order to start anew until the first result is read.
fn starts(options: &Options, gpu: &Gpu, daemon: &Daemon) -> Result<(), String> {
    let rounds = if options.quick { 2 } else { 10 };
    let [mut cold, mut warm] = [const { Samples(Vec::new()) }; 2];
    for _ in 0..rounds {
        for (samples, is_cold) in [(&mut cold, true), (&mut warm, false)] {
            if is_cold {
                daemon.sh("rm -rf store/ds/zed/*/gpu/cache")?;
            }
            samples.add(restart(gpu)?);
        }
    }
    heading("start of the node until the first result: four kernels, two in double precision");
    cold.row("cold: no pipeline cache, no cache of the driver", Some(warm.median()));
    warm.row("warm: both as the last node left them", Some(warm.median()));
    for key in ["cache", "start_us.instance", "start_us.device", "start_us.cache", "start_us.canary"] {
        println!("   the last warm start: {key} {}", gpu.value("info", key).unwrap_or_else(|_| "-".into()));
    }
    goal("at least 4 times faster warm than cold", ratio(cold.median(), warm.median()) >= 4.0);
    Ok(())
}

fn restart(gpu: &Gpu) -> Result<Duration, String> {
    let begun = Instant::now();
    std::fs::write(gpu.0.join("ctl"), "restart\n").map_err(|e| format!("restart: {e}"))?;
    let mut reply = vec![0; 4096];
    let count = gpu.queue()?.ask(FIRST.as_bytes(), &mut reply)?;
    let text = String::from_utf8_lossy(reply.get(..count).unwrap_or_default()).into_owned();
    if !text.starts_with("# s f32") {
        return Err(format!("the first job gave: {text}"));
    }
    Ok(begun.elapsed())
}
