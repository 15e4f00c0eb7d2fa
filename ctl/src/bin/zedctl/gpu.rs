//! `gpu`: devices, their jobs and statistics, and a job from its file to its result.

use crate::args::GpuCommand;
use crate::paint::Cell;
use crate::paint::Ended;
use crate::paint::Paint;
use crate::paint::Ui;
use crate::paint::age;
use crate::paint::now;
use crate::paint::paint_of;
use crate::paint::safe;
use crate::paint::size;
use crate::status::read_json;
use crate::tree::Tree;
use crate::tree::io_error;
use std::io::Write;
use std::path::Path;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::EXIT_FAILED;
use zed_ctl::EXIT_OK;
use zed_ctl::GpuJobView;
use zed_ctl::GpuStats;
use zed_ctl::GpuSuspects;
use zed_ctl::GpuView;

/// `zedctl gpu ...`
pub(crate) fn gpu(tree: &dyn Tree, ui: &mut Ui, command: Option<&GpuCommand>) -> Ended {
    match command {
        None => devices(tree, ui),
        Some(GpuCommand::Jobs { gpu }) => jobs(tree, ui, *gpu),
        Some(GpuCommand::Run { file, gpu }) => run(tree, ui, file, *gpu),
        Some(GpuCommand::Stats { gpu }) => stats(tree, ui, *gpu),
        Some(GpuCommand::Suspects { gpu }) => suspects(tree, ui, *gpu),
    }
}

/// The numbers of the devices: all, or the one that is asked for.
fn numbers(tree: &dyn Tree, wanted: Option<u32>) -> Result<Vec<u32>, CtlError> {
    let mut all: Vec<u32> = tree.list("gpu")?.iter().filter_map(|name| name.parse().ok()).collect();
    all.sort_unstable();
    match wanted {
        None => Ok(all),
        Some(gpu) if all.contains(&gpu) => Ok(vec![gpu]),
        Some(gpu) => {
            let error = CtlError::new(Code::NotFound, format!("there is no GPU {gpu} in {}", tree.place()));
            Err(error.hint("`zedctl gpu` lists them"))
        }
    }
}

/// One `.json` file of each device.
fn each<T: serde::de::DeserializeOwned>(
    tree: &dyn Tree,
    wanted: Option<u32>,
    file: &str,
) -> Result<Vec<(u32, T)>, CtlError> {
    let numbers = numbers(tree, wanted)?.into_iter();
    numbers.map(|gpu| Ok((gpu, read_json(tree, &format!("gpu/{gpu}/{file}"))?))).collect()
}

/// A JSON object whose keys are the devices' numbers.
fn by_number<T: serde::Serialize>(ui: &mut Ui, all: Vec<(u32, T)>) -> Ended {
    let all: std::collections::BTreeMap<u32, T> = all.into_iter().collect();
    ui.json(&all)?;
    Ok(EXIT_OK)
}

fn devices(tree: &dyn Tree, ui: &mut Ui) -> Ended {
    let all: Vec<(u32, GpuView)> = each(tree, None, "info.json")?;
    if ui.json {
        return by_number(ui, all);
    }
    let mut rows = Vec::new();
    for (gpu, view) in &all {
        let stats: GpuStats = read_json(tree, &format!("gpu/{gpu}/stats.json"))?;
        rows.push(vec![
            Cell::plain(&gpu.to_string()),
            Cell::plain(&view.model),
            Cell::plain(&view.kind),
            Cell::plain(&size(view.vram_mb << 20)),
            Cell::plain(&view.driver),
            Cell::new(&view.state, state_paint(&view.state)),
            Cell::plain(&stats.queued.to_string()),
            Cell::plain(&stats.running.to_string()),
            Cell::note(&view.error, Paint::Bad),
        ]);
    }
    if rows.is_empty() {
        ui.progress("no GPU here; `zedd --help` says how one is chosen");
    }
    ui.table(&["GPU", "MODEL", "KIND", "MEMORY", "DRIVER", "STATE", "QUEUED", "RUNNING", "ERROR"], &rows)?;
    Ok(EXIT_OK)
}

fn state_paint(state: &str) -> Paint {
    match state {
        "ready" | "busy" | "done" | "ok" => Paint::Good,
        "starting" | "restarting" | "paused" | "waiting" | "cancelled" | "suspect" => Paint::Notice,
        "lost" | "unusable" | "failed" | "evicted" => Paint::Bad,
        other => paint_of(other),
    }
}

fn jobs(tree: &dyn Tree, ui: &mut Ui, gpu: Option<u32>) -> Ended {
    let mut all = Vec::new();
    for gpu in numbers(tree, gpu)? {
        let mut ids: Vec<u64> =
            tree.list(&format!("gpu/{gpu}/jobs"))?.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        for id in ids {
            match read_json::<GpuJobView>(tree, &format!("gpu/{gpu}/jobs/{id}/status.json")) {
                Ok(job) => all.push((gpu, job)),
                // One that was forgotten in between.
                Err(error) if error.code == Code::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if ui.json {
        let all: Vec<serde_json::Value> =
            all.iter().map(|(gpu, job)| serde_json::json!({ "gpu": gpu, "job": job })).collect();
        ui.json(&all)?;
        return Ok(EXIT_OK);
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = all.iter().map(|(gpu, job)| job_row(*gpu, job, now)).collect();
    ui.table(&["GPU", "ID", "STATE", "UID", "AGE", "QUEUED", "DEVICE", "OPS", "ERROR"], &rows)?;
    Ok(EXIT_OK)
}

fn job_row(gpu: u32, job: &GpuJobView, now: i64) -> Vec<Cell> {
    vec![
        Cell::plain(&gpu.to_string()),
        Cell::plain(&job.id.to_string()),
        Cell::new(&job.state, state_paint(&job.state)),
        Cell::plain(&job.uid.to_string()),
        Cell::plain(&age(job.submitted_at, now)),
        Cell::plain(&micros(job.queued_us)),
        Cell::plain(&micros(job.device_us)),
        Cell::plain(&job.ops),
        Cell::note(job.error.lines().next().unwrap_or_default(), Paint::Bad),
    ]
}

/// `12.3 ms`; `-` for nothing.
fn micros(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        us if us < 1000 => format!("{us} us"),
        us if us < 1_000_000 => format!("{}.{} ms", us / 1000, us / 100 % 10),
        us => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

/// Submits, waits, prints the result. What the job replies with is printed as it comes.
fn run(tree: &dyn Tree, ui: &mut Ui, file: &Path, gpu: Option<u32>) -> Ended {
    let job = std::fs::read(file).map_err(|error| io_error("read", &file.display().to_string(), &error))?;
    let Some(gpu) = numbers(tree, gpu)?.first().copied() else {
        return Err(CtlError::new(Code::NotFound, format!("there is no GPU in {}", tree.place())).into());
    };
    let reply = tree.submit(&format!("gpu/{gpu}/queue"), &job)?;
    let text = std::str::from_utf8(&reply).ok().and_then(|text| text.strip_suffix('\n'));
    let Some(id) = text.and_then(|text| text.parse::<u64>().ok()) else {
        // The job asked for its result instead of its id.
        if ui.json {
            ui.json(&serde_json::json!({ "result": String::from_utf8_lossy(&reply) }))?;
        } else {
            ui.out.write_all(&reply)?;
        }
        return Ok(EXIT_OK);
    };
    let place = format!("gpu/{gpu}/jobs/{id}");
    let verdict = tree.read(&format!("{place}/wait"))?;
    let status: GpuJobView = read_json(tree, &format!("{place}/status.json"))?;
    let done = status.state == "done";
    let result = if done { tree.read(&format!("{place}/result"))? } else { String::new() };
    if ui.json {
        ui.json(&serde_json::json!({ "gpu": gpu, "job": status, "result": result }))?;
    } else if done {
        ui.out.write_all(crate::paint::safe_lines(&result).as_bytes())?;
    } else {
        ui.progress(&format!("job {id}: {}", safe(verdict.trim_end())));
    }
    Ok(if done { EXIT_OK } else { EXIT_FAILED })
}

fn stats(tree: &dyn Tree, ui: &mut Ui, gpu: Option<u32>) -> Ended {
    let all: Vec<(u32, GpuStats)> = each(tree, gpu, "stats.json")?;
    if ui.json {
        return by_number(ui, all);
    }
    let plain = |words: &[String]| words.iter().map(|word| Cell::plain(word)).collect::<Vec<_>>();
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|(gpu, stats)| {
            let counters = [
                u64::from(*gpu),
                stats.waiting,
                stats.queued,
                stats.running,
                stats.submitted,
                stats.done,
                stats.failed,
                stats.cancelled,
                stats.refused,
                stats.timeouts,
                stats.fallbacks,
            ];
            plain(&counters.map(|count| count.to_string()))
        })
        .collect();
    let heading = [
        "GPU",
        "WAITING",
        "QUEUED",
        "RUNNING",
        "SUBMITTED",
        "DONE",
        "FAILED",
        "CANCELLED",
        "REFUSED",
        "TIMEOUTS",
        "FALLBACKS",
    ];
    ui.table(&heading, &rows)?;
    for (gpu, stats) in &all {
        if !stats.users.is_empty() {
            writeln!(ui.out)?;
        }
        let rows: Vec<Vec<Cell>> = stats
            .users
            .iter()
            .map(|(user, share)| {
                plain(&[
                    gpu.to_string(),
                    user.clone(),
                    share.weight.to_string(),
                    share.queued.to_string(),
                    share.ended.to_string(),
                    micros(share.device_us),
                ])
            })
            .collect();
        ui.table(&["GPU", "USER", "WEIGHT", "QUEUED", "ENDED", "DEVICE"], &rows)?;
        histograms(ui, *gpu, stats)?;
    }
    Ok(EXIT_OK)
}

/// How many took at most so long, and longer than the row above says.
fn histograms(ui: &mut Ui, gpu: u32, stats: &GpuStats) -> std::io::Result<()> {
    let all = [&stats.queue_us, &stats.device_us, &stats.total_us];
    let count = |histogram: &[(String, u64)], bound: &str| {
        histogram.iter().find(|(other, _)| other == bound).map_or(0, |(_, count)| *count)
    };
    let rows: Vec<Vec<Cell>> = stats
        .total_us
        .iter()
        .map(|(bound, _)| (bound, all.map(|histogram| count(histogram, bound))))
        .filter(|(_, counts)| counts.iter().any(|count| *count > 0))
        .map(|(bound, counts)| {
            let until = bound.parse().map_or_else(|_| "longer".to_owned(), micros);
            let counts = counts.iter().map(|count| Cell::plain(&count.to_string()));
            [Cell::plain(&gpu.to_string()), Cell::plain(&until)].into_iter().chain(counts).collect()
        })
        .collect();
    if !rows.is_empty() {
        writeln!(ui.out)?;
    }
    ui.table(&["GPU", "UP TO", "IN QUEUE", "ON DEVICE", "IN ALL"], &rows)
}

fn suspects(tree: &dyn Tree, ui: &mut Ui, gpu: Option<u32>) -> Ended {
    let all: Vec<(u32, GpuSuspects)> = each(tree, gpu, "suspects.json")?;
    if ui.json {
        return by_number(ui, all);
    }
    let now = now();
    let mut rows = Vec::new();
    for (gpu, suspects) in &all {
        if suspects.brake {
            let window = suspects.window;
            let text = format!(
                "GPU {gpu}: the brake is set after {window} timeouts: only jobs that allow the CPU run"
            );
            writeln!(ui.out, "{}", ui.paint(Paint::Bad, &text))?;
        }
        for kernel in &suspects.kernels {
            let state = if kernel.evicted { "evicted" } else { "suspect" };
            rows.push(vec![
                Cell::plain(&gpu.to_string()),
                Cell::plain(&kernel.kernel),
                Cell::new(state, state_paint(state)),
                Cell::plain(&kernel.timeouts.to_string()),
                Cell::plain(&age(kernel.last_at, now)),
            ]);
        }
    }
    ui.table(&["GPU", "KERNEL", "STATE", "TIMEOUTS", "LAST"], &rows)?;
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (us, text) in
            [(0, "-"), (999, "999 us"), (1000, "1.0 ms"), (12_345, "12.3 ms"), (61_500_000, "61.5 s")]
        {
            assert_eq!(micros(us), text);
        }
    }
}
