//! `zedctl gpu`: tables over the files of a device, and a job from its file to its result over the socket.

use super::Fake;
use super::Ran;
use super::server;
use super::zedctl;
use std::fs;
use zed_ctl::GpuJobView;
use zed_ctl::GpuStats;
use zed_ctl::GpuSuspects;
use zed_ctl::GpuUserStats;
use zed_ctl::GpuView;
use zed_ctl::SuspectView;
use zed_ctl::to_json;

fn with_gpus() -> Fake {
    let fake = Fake::new();
    for gpu in [0, 1] {
        let view = GpuView {
            gpu,
            model: "llvmpipe".to_owned(),
            kind: "cpu".to_owned(),
            vram_mb: 2048,
            driver: "lavapipe 25".to_owned(),
            state: "ready".to_owned(),
            ..GpuView::default()
        };
        fake.put(&format!("gpu/{gpu}/info.json"), &to_json(&view));
        let share = GpuUserStats { weight: 2, queued: 3, ended: 4, device_us: 1500 };
        let stats = GpuStats {
            queued: 3,
            done: 4,
            users: [("1000".to_owned(), share)].into(),
            total_us: vec![("64".to_owned(), 0), ("1024".to_owned(), 4), ("inf".to_owned(), 1)],
            queue_us: vec![("1024".to_owned(), 4)],
            ..GpuStats::default()
        };
        fake.put(&format!("gpu/{gpu}/stats.json"), &to_json(&stats));
        let kernels = vec![SuspectView {
            kernel: "wgsl".to_owned(),
            timeouts: 3,
            evicted: true,
            ..SuspectView::default()
        }];
        let suspects = GpuSuspects { brake: gpu == 1, window: 5, kernels };
        fake.put(&format!("gpu/{gpu}/suspects.json"), &to_json(&suspects));
        fs::create_dir_all(fake.path(&format!("gpu/{gpu}/jobs"))).unwrap();
    }
    for (id, state, error) in [(7, "done", ""), (12, "failed", "past its deadline\nof 1 s")] {
        let job = GpuJobView {
            id,
            state: state.to_owned(),
            error: error.to_owned(),
            ops: "Add Sum".to_owned(),
            device_us: 64,
            ..GpuJobView::default()
        };
        fake.put(&format!("gpu/0/jobs/{id}/status.json"), &to_json(&job));
        fake.put(&format!("gpu/0/jobs/{id}/result"), "# c f32 [1]\n3\n");
        fake.put(&format!("gpu/0/jobs/{id}/wait"), &format!("{state}: {error}\n"));
    }
    fake
}

#[test]
fn devices_jobs_and_suspects_are_tables() {
    let fake = with_gpus();
    fake.run(&["gpu"]).is(
        0,
        "\
GPU  MODEL     KIND  MEMORY   DRIVER       STATE  QUEUED  RUNNING  ERROR
0    llvmpipe  cpu   2.0 GiB  lavapipe 25  ready  3       0
1    llvmpipe  cpu   2.0 GiB  lavapipe 25  ready  3       0
",
        "",
    );
    fake.run(&["gpu", "jobs", "0"]).is(
        0,
        "\
GPU  ID  STATE   UID  AGE  QUEUED  DEVICE  OPS      ERROR
0    7   done    0    -    -       64 us   Add Sum
0    12  failed  0    -    -       64 us   Add Sum  past its deadline
",
        "",
    );
    fake.run(&["gpu", "suspects"]).is(
        0,
        "\
GPU 1: the brake is set after 5 timeouts: only jobs that allow the CPU run
GPU  KERNEL  STATE    TIMEOUTS  LAST
0    wgsl    evicted  3         -
1    wgsl    evicted  3         -
",
        "",
    );
    fake.run(&["gpu", "stats", "0"]).is(
        0,
        "\
GPU  WAITING  QUEUED  RUNNING  SUBMITTED  DONE  FAILED  CANCELLED  REFUSED  TIMEOUTS  FALLBACKS
0    0        3       0        0          4     0       0          0        0         0

GPU  USER  WEIGHT  QUEUED  ENDED  DEVICE
0    1000  2       3       4      1.5 ms

GPU  UP TO   IN QUEUE  ON DEVICE  IN ALL
0    1.0 ms  4         0          4
0    longer  0         0          1
",
        "",
    );
    let ran = fake.run(&["gpu", "--json"]);
    let all: std::collections::BTreeMap<u32, GpuView> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(all[&1].model, "llvmpipe");
    let ran = fake.run(&["gpu", "stats", "1", "--json"]);
    let all: std::collections::BTreeMap<u32, GpuStats> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((all.len(), all[&1].done), (1, 4));
}

#[test]
fn a_gpu_that_is_not_there_is_told() {
    let fake = with_gpus();
    let place = fake.dir.path().display();
    let expected = format!("zedctl: there is no GPU 5 in {place}\nhint: `zedctl gpu` lists them\n");
    fake.run(&["gpu", "stats", "5"]).is(1, "", &expected);
    let bare = Fake::new();
    fs::create_dir_all(bare.path("gpu")).unwrap();
    bare.run(&["gpu"]).is(0, "", "no GPU here; `zedd --help` says how one is chosen\n");
}

#[test]
fn a_job_is_run_to_its_result() {
    let fake = with_gpus();
    let socket = fake.path("sock");
    server::serve(fake.dir.path(), &socket);
    let run = |job: &[u8], more: &[&str]| {
        fs::write(fake.path("job"), job).unwrap();
        let file = fake.path("job");
        let mut arguments = vec!["--socket", socket.to_str().unwrap(), "gpu", "run", file.to_str().unwrap()];
        arguments.extend(more);
        Ran::of(zedctl(&arguments).output().unwrap())
    };
    // The server replies with what the job says after `reply `.
    run(b"reply 7\n", &[]).is(0, "# c f32 [1]\n3\n", "");
    run(b"reply 12\n", &["--gpu", "0"]).is(1, "", "job 12: failed: past its deadline\\nof 1 s\n");
    run(b"reply # c f32 [1]\n4\n", &[]).is(0, "# c f32 [1]\n4\n", "");
    run(b"reply \xff\xfe\n\0", &["--json"]).is(0, "{\n  \"result\": \"\u{fffd}\u{fffd}\\n\\u0000\"\n}\n", "");
    run(b"bad", &[]).is(1, "", "zedctl: job:1:1: bad\nhint: mend it\n");
    let ran = run(b"reply 7\n", &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&told["job"]["id"], &told["result"]), (&7.into(), &"# c f32 [1]\n3\n".into()));
}
