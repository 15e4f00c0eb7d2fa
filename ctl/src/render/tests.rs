use super::*;
use crate::HealthView;
use crate::ProbeView;

fn app() -> AppView {
    let release = |version: &str, snapshot: &str, kind: &str| ReleaseView {
        version: version.to_owned(),
        snapshot: snapshot.to_owned(),
        dataset: "apps/hello".to_owned(),
        generation: 1,
        deployed_at: "2026-11-22T17:00:00Z".to_owned(),
        taken_at: if snapshot.is_empty() { String::new() } else { "2026-11-22T18:00:00Z".to_owned() },
        kind: kind.to_owned(),
    };
    AppView {
        name: "hello".to_owned(),
        deploy: "hello".to_owned(),
        version: "1.1.0".to_owned(),
        state: "running".to_owned(),
        health: "healthy".to_owned(),
        generation: 2,
        run: "k3v9".to_owned(),
        dataset: "apps/hello".to_owned(),
        mountpoint: "/srv/a b".to_owned(),
        pid: 42,
        since: 1_795_369_588,
        error: "probe failed:\n\tconnection refused".to_owned(),
        env: BTreeMap::from([("A".to_owned(), "1\n2".to_owned()), ("B".to_owned(), String::new())]),
        history: vec![
            release("1.0.0", "zed-a", "older"),
            release("1.2 beta", "zed-b", "undone"),
            release("1.1.0", "", "running"),
        ],
        ..AppView::default()
    }
}

#[test]
fn app_status_is_flat_keyed() {
    assert_eq!(
        render_app_status(&app()),
        "\
name hello
deploy hello
version 1.1.0
state running
health healthy
health_since -
health_reason -
held -
drift -
error probe failed:\\n\\tconnection refused
generation 2
run k3v9
spec -
deployed_at -
dataset apps/hello
mountpoint /srv/a b
pid 42
restarts 0
since 2026-11-22T17:46:28Z
last_exit -
listen -
hosts -
"
    );
}

#[test]
fn health_names_each_probe_behind_the_word() {
    let probe = ProbeView {
        instance: "api.2".to_owned(),
        probe: "GET http://127.0.0.1:80/".to_owned(),
        state: "failing".to_owned(),
        since: 1_795_369_588,
        failures: 4,
        latency_us: 812,
        checked_at: 1_795_369_600,
        last: "status 500, expected 2xx: \"oops\"".to_owned(),
    };
    let health = HealthView {
        health: "unhealthy".to_owned(),
        since: 1_795_369_598,
        reason: "api.2: it fails".to_owned(),
        probes: vec![probe],
    };
    assert_eq!(
        render_health(&health),
        "\
unhealthy since=2026-11-22T17:46:38Z reason=\"api.2: it fails\"
\"GET http://127.0.0.1:80/\" instance=api.2 state=failing since=2026-11-22T17:46:28Z failures=4 latency_us=812 \
         checked_at=2026-11-22T17:46:40Z last=\"status 500, expected 2xx: \\\"oops\\\"\"
"
    );
    assert_eq!(render_health(&HealthView::default()), "- since=- reason=-\n");
}

#[test]
fn host_status_counts_and_ends_with_problems() {
    let host = HostView {
        name: "web1".to_owned(),
        state: "failed".to_owned(),
        store: "zfs:tank".to_owned(),
        available: 10,
        apps: BTreeMap::from([("failed".to_owned(), 1), ("running".to_owned(), 2)]),
        problems: vec!["app `x` needs an operator".to_owned()],
        ..HostView::default()
    };
    assert_eq!(
        render_host_status(&host),
        "\
name web1
state failed
zed_version -
store zfs:tank
available 10
started_at -
datasets 0
apps 3
apps.failed 1
apps.running 2
deploys 0
unhealthy 0
problems 1
problem.1 app `x` needs an operator
"
    );
}

#[test]
fn deploy_status_tells_the_verdict() {
    let deploy = DeployView {
        name: "hello".to_owned(),
        state: "converging".to_owned(),
        step: "3/7 probe hello".to_owned(),
        generation: 2,
        plan: "~ app hello\n".to_owned(),
        apps: vec!["hello".to_owned(), "db".to_owned()],
        ..DeployView::default()
    };
    assert_eq!(
        render_deploy_status(&deploy),
        "\
name hello
state converging
verdict -
verdict_at -
step 3/7 probe hello
generation 2
spec -
run -
pending yes
errors no
apps hello db
changed_at -
"
    );
}

#[test]
fn releases_are_one_a_line() {
    assert_eq!(
        render_history(&app()),
        "\
1.0.0 kind=older snapshot=@zed-a generation=1 deployed_at=2026-11-22T17:00:00Z taken_at=2026-11-22T18:00:00Z
\"1.2 beta\" kind=undone snapshot=@zed-b generation=1 deployed_at=2026-11-22T17:00:00Z taken_at=2026-11-22T18:00:00Z
1.1.0 kind=running snapshot=- generation=1 deployed_at=2026-11-22T17:00:00Z taken_at=-
"
    );
    assert_eq!(
        render_snapshots(&app()),
        "\
apps/hello@zed-a version=1.0.0 kind=older taken_at=2026-11-22T18:00:00Z
apps/hello@zed-b version=\"1.2 beta\" kind=undone taken_at=2026-11-22T18:00:00Z
"
    );
}

#[test]
fn the_first_word_of_a_target_can_be_written_back() {
    let mut app = app();
    let targets = |app: &AppView| -> Vec<String> {
        render_targets(app).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(targets(&app), ["@latest", "@zed-b", "@zed-a"]);
    // Rolled back to 1.0.0: what `@latest` would give is an older one, and there is none.
    let mut back = app.clone();
    back.history[2].version = "1.0.0".to_owned();
    assert_eq!(targets(&back), ["@zed-b", "@zed-a"]);
    app.held = "rolled back to 1.1.0".to_owned();
    assert_eq!(targets(&app), ["@latest", "undo", "@zed-b", "@zed-a"]);
    for target in targets(&app) {
        assert!(crate::parse_verb(crate::FileKind::AppRollback, &target).is_ok(), "{target}");
    }
    assert_eq!(render_targets(&AppView::default()), "");
}

#[test]
fn maps_and_values_stay_on_their_lines() {
    assert_eq!(render_env(&app()), "A=1\\n2\nB=\n");
    assert_eq!(render_value(""), "-\n");
    assert_eq!(render_value("a\nb\\"), "a\\nb\\\\\n");
    assert_eq!(render_map(&BTreeMap::from([("os".to_owned(), "Linux".to_owned())])), "os Linux\n");
    assert_eq!(
        render_apps([&app()]),
        "hello version=1.1.0 state=running health=healthy deploy=hello held=no\n"
    );
}

#[test]
fn json_reads_back() {
    let text = to_json(&app());
    assert!(text.ends_with("}\n"));
    // Everybody may read it: the environment has a file of its own.
    let public = AppView { env: BTreeMap::new(), ..app() };
    assert_eq!(serde_json::from_str::<AppView>(&text).unwrap(), public);
}
