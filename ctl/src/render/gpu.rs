//! What the files under `gpu/` say.

use super::Flat;
use super::keyed;
use super::time_or_dash;
use crate::view::GpuArrayView;
use crate::view::GpuJobView;
use crate::view::GpuStats;
use crate::view::GpuSuspects;
use crate::view::GpuView;
use crate::view::ShaderView;

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// `gpu/N/info`.
pub fn render_gpu_info(gpu: &GpuView) -> String {
    let pid = if gpu.pid == 0 { String::new() } else { gpu.pid.to_string() };
    let text = Flat::default()
        .line("gpu", gpu.gpu.to_string())
        .line("uuid", &gpu.uuid)
        .line("kind", &gpu.kind)
        .line("vendor", &gpu.vendor)
        .line("model", &gpu.model)
        .line("vram_mb", gpu.vram_mb.to_string())
        .line("driver", &gpu.driver)
        .line("api", &gpu.api)
        .line("pci", &gpu.pci)
        .line("f64", yes_or_no(gpu.f64))
        .line("state", &gpu.state)
        .line("error", &gpu.error)
        .line("pid", pid)
        .line("since", time_or_dash(gpu.since))
        .line("restarts", gpu.restarts.to_string())
        .line("cache", &gpu.cache);
    let parts = gpu.start_us.iter();
    parts.fold(text, |text, (part, us)| text.line(&format!("start_us.{part}"), us.to_string())).0
}

/// `gpu/N/stats`: counters, one line a user, and histograms: how many took at most so many microseconds and more than
/// the line before says.
pub fn render_gpu_stats(stats: &GpuStats) -> String {
    let counters = [
        ("waiting", stats.waiting),
        ("queued", stats.queued),
        ("running", stats.running),
        ("queued_bytes", stats.queued_bytes),
        ("kept", stats.kept),
        ("submitted", stats.submitted),
        ("done", stats.done),
        ("failed", stats.failed),
        ("cancelled", stats.cancelled),
        ("refused", stats.refused),
        ("timeouts", stats.timeouts),
        ("fallbacks", stats.fallbacks),
        ("batches", stats.batches),
    ];
    let mut text =
        counters.into_iter().fold(Flat::default(), |text, (name, value)| text.line(name, value.to_string()));
    for (user, share) in &stats.users {
        let values = keyed(
            user,
            &[
                ("weight", &share.weight.to_string()),
                ("queued", &share.queued.to_string()),
                ("ended", &share.ended.to_string()),
                ("device_us", &share.device_us.to_string()),
            ],
        );
        text.0.push_str("user.");
        text.0.push_str(&values);
    }
    let histograms =
        [("queue_us", &stats.queue_us), ("device_us", &stats.device_us), ("total_us", &stats.total_us)];
    for (name, buckets) in histograms {
        for (bound, count) in buckets {
            text = text.line(&format!("{name}.{bound}"), count.to_string());
        }
    }
    text.0
}

/// `gpu/N/suspects`: the brake, then one line a kernel.
pub fn render_gpu_suspects(suspects: &GpuSuspects) -> String {
    let mut text = Flat::default()
        .line("brake", yes_or_no(suspects.brake))
        .line("window", suspects.window.to_string())
        .0;
    for suspect in &suspects.kernels {
        text.push_str(&keyed(
            &suspect.kernel,
            &[
                ("timeouts", &suspect.timeouts.to_string()),
                ("evicted", yes_or_no(suspect.evicted)),
                ("last_at", &time_or_dash(suspect.last_at)),
            ],
        ));
    }
    text
}

/// `gpu/N/shaders/NAME`.
pub fn render_shader(shader: &ShaderView) -> String {
    Flat::default()
        .line("name", &shader.name)
        .line("state", &shader.state)
        .line("author", &shader.author)
        .line("jobs", shader.jobs.to_string())
        .line("timeouts", shader.timeouts.to_string())
        .0
}

/// `gpu/N/jobs/ID/status`.
pub fn render_gpu_job(job: &GpuJobView) -> String {
    let mut text = Flat::default()
        .line("id", job.id.to_string())
        .line("state", &job.state)
        .line("error", &job.error)
        .line("uid", job.uid.to_string())
        .line("priority", job.priority.to_string())
        .line("ops", &job.ops)
        .line("ran_on", &job.ran_on)
        .line("fallback", &job.fallback)
        .line("device", &job.device)
        .line("submitted_at", time_or_dash(job.submitted_at))
        .line("ended_at", time_or_dash(job.ended_at))
        .line("queued_us", job.queued_us.to_string())
        .line("compile_us", job.compile_us.to_string())
        .line("device_us", job.device_us.to_string())
        .line("attempts", job.attempts.to_string());
    for (side, arrays) in [("in", &job.inputs), ("out", &job.outputs)] {
        for array in arrays {
            text = text.line(&format!("{side}.{}", array.name), array_words(array));
        }
    }
    text.0
}

/// `f32 [2,3] bytes=24 source=upload`
fn array_words(array: &GpuArrayView) -> String {
    let shape: Vec<String> = array.shape.iter().map(u32::to_string).collect();
    let mut words = format!("{} [{}] bytes={}", array.dtype, shape.join(","), array.bytes);
    if !array.source.is_empty() {
        words.push_str(" source=");
        words.push_str(&array.source);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::GpuUserStats;
    use crate::view::SuspectView;

    #[test]
    fn a_device_is_flat_keyed() {
        let gpu = GpuView {
            gpu: 1,
            model: "NVIDIA H200".to_owned(),
            f64: true,
            state: "ready".to_owned(),
            start_us: [("instance".to_owned(), 900), ("total".to_owned(), 4000)].into(),
            ..GpuView::default()
        };
        assert_eq!(
            render_gpu_info(&gpu),
            "\
gpu 1
uuid -
kind -
vendor -
model NVIDIA H200
vram_mb 0
driver -
api -
pci -
f64 yes
state ready
error -
pid -
since -
restarts 0
cache -
start_us.instance 900
start_us.total 4000
"
        );
    }

    #[test]
    fn stats_end_with_users_and_histograms() {
        let share = GpuUserStats { weight: 2, queued: 3, ended: 4, device_us: 5 };
        let stats = GpuStats {
            queued: 3,
            users: [("0".to_owned(), share)].into(),
            queue_us: vec![("64".to_owned(), 7), ("inf".to_owned(), 1)],
            ..GpuStats::default()
        };
        let text = render_gpu_stats(&stats);
        assert!(text.starts_with("waiting 0\nqueued 3\n"), "{text}");
        assert!(
            text.ends_with(
                "\
batches 0
user.0 weight=2 queued=3 ended=4 device_us=5
queue_us.64 7
queue_us.inf 1
"
            ),
            "{text}"
        );
    }

    #[test]
    fn suspects_are_a_line_each() {
        let kernel = SuspectView { kernel: "wgsl 1".to_owned(), timeouts: 3, evicted: true, last_at: 0 };
        let suspects = GpuSuspects { brake: true, window: 5, kernels: vec![kernel] };
        assert_eq!(
            render_gpu_suspects(&suspects),
            "brake yes\nwindow 5\n\"wgsl 1\" timeouts=3 evicted=yes last_at=-\n"
        );
        let shader = ShaderView { name: "add".to_owned(), state: "ok".to_owned(), ..ShaderView::default() };
        assert_eq!(render_shader(&shader), "name add\nstate ok\nauthor -\njobs 0\ntimeouts 0\n");
    }

    #[test]
    fn a_job_ends_with_its_arrays() {
        let array = GpuArrayView {
            name: "a".to_owned(),
            dtype: "f32".to_owned(),
            shape: vec![2, 3],
            bytes: 24,
            source: "upload".to_owned(),
        };
        let out = GpuArrayView { name: "c".to_owned(), source: String::new(), ..array.clone() };
        let job = GpuJobView { id: 7, inputs: vec![array], outputs: vec![out], ..GpuJobView::default() };
        let text = render_gpu_job(&job);
        assert!(text.starts_with("id 7\nstate -\nerror -\nuid 0\npriority 0\nops -\n"), "{text}");
        assert!(
            text.ends_with("attempts 0\nin.a f32 [2,3] bytes=24 source=upload\nout.c f32 [2,3] bytes=24\n"),
            "{text}"
        );
    }
}
