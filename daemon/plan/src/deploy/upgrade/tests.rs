//! Upgrades during which something goes on serving, artifacts, and apps of several processes.

use crate::deploy::tests::lines;
use crate::deploy::tests::notes;
use crate::instance::Instance;
use crate::observed::ProcessStatus;
use crate::plan::Step;
use crate::testing::*;
use crate::verb::AppVerb;

/// One app with these fields.
fn api(version: &str, fields: &str) -> String {
    format!(
        "Deploy(datasets: {{\"a\": ()}}, apps: {{\"api\": (dataset: \"a\", version: \"{version}\", command: [\"serve\"], \
         env: {{\"PORT\": \"8080\"}}, {fields})}})"
    )
}

const BLUE_GREEN: &str = "strategy: BlueGreen(ports: (8080, 8081), drain: \"5s\"), listen: \"127.0.0.1:80\"";

#[test]
fn blue_green_runs_both_and_moves_the_traffic_before_the_old_one_goes() {
    let mut world = TestWorld::new();
    let first = world.converge("d", &api("1", BLUE_GREEN));
    assert_eq!(
        lines(&first)[..5],
        ["CreateDataset a", "StartApp api", "Probe api", "Route api api:8080", "RecordRelease api"]
    );
    let plan = world.converge("d", &api("2", BLUE_GREEN));
    assert_eq!(
        lines(&plan),
        [
            "Snapshot a",
            "StartApp api.2",
            "Probe api.2",
            "Soak api.2",
            "Route api api.2:8081",
            "RecordRelease api",
            "| SetProps a",
            "Drain api",
            "StopApp api",
            "ForgetApp api",
        ]
    );
    // The data is not put back: the old version goes on using it.
    let undone: Vec<Vec<&str>> =
        plan.units[0].steps.iter().map(|step| step.undo.iter().map(step_name).collect()).collect();
    assert_eq!(undone[..5], [vec![], vec!["StopApp"], vec![], vec![], vec!["Route"]]);
    let Step::StartApp { run } = &plan.units[0].steps[1].step else { panic!("a start") };
    assert_eq!(run.env["PORT"], "8081");
    assert_eq!(world.observed.datasets[&path("a")].user["com.zed:live"], "2");
    assert!(world.plan("d", &api("2", BLUE_GREEN)).is_empty());
    // And back to the first.
    let plan = world.converge("d", &api("3", BLUE_GREEN));
    assert!(lines(&plan).contains(&"StartApp api".to_owned()), "{:?}", lines(&plan));
    assert!(!world.observed.datasets[&path("a")].user.contains_key("com.zed:live"));
    // A rollback stops what runs, and starts what ran then, where it ran.
    let plan = world.rollback("api", "2");
    assert_eq!(
        lines(&plan)[..6],
        ["StopApp api", "Snapshot a", "Restore a", "StartApp api.2", "Probe api.2", "Route api api.2:8081"]
    );
}

#[test]
fn rolling_replaces_batch_by_batch_and_a_canary_is_watched_first() {
    let mut world = TestWorld::new();
    let rolling = "instances: 3, strategy: Rolling(batch: 2, pause: \"2s\"), listen: \"127.0.0.1:80\"";
    world.converge("d", &api("1", rolling));
    let plan = world.converge("d", &api("2", rolling));
    assert_eq!(
        lines(&plan),
        [
            "Snapshot a",
            "Route api api.3:8082",
            "Drain api",
            "Drain api.2",
            "StopApp api",
            "StartApp api",
            "StopApp api.2",
            "StartApp api.2",
            "Probe api",
            "Probe api.2",
            "Route api api:8080 api.2:8081 api.3:8082",
            "Soak api api.2",
            "Route api api:8080 api.2:8081",
            "Drain api.3",
            "StopApp api.3",
            "StartApp api.3",
            "Probe api.3",
            "Route api api:8080 api.2:8081 api.3:8082",
            "Route api api:8080 api.2:8081 api.3:8082",
            "RecordRelease api",
            "| SetProps a",
        ]
    );
    // What is taken back waits for each process of the old version, because the next one to go serves meanwhile.
    for planned in plan.units[0].steps.iter().filter(|planned| step_name(&planned.step) == "StopApp") {
        let [Step::StartApp { run: started }, Step::Probe { run: probed, health: _ }] = &planned.undo[..]
        else {
            panic!("{:?}", planned.undo)
        };
        assert_eq!((&started.version[..], started), ("1", probed));
    }
    let canary = "instances: 2, strategy: Canary(instances: 1, pause: \"30s\")";
    let plan = world.converge("d", &api("3", canary));
    let soak = plan.units[0].steps.iter().find_map(|planned| match &planned.step {
        Step::Soak { runs, lasts } => Some((runs.len(), lasts.as_secs())),
        _ => None,
    });
    assert_eq!(soak, Some((1, 30)));
    // The third process and the front are no longer part of the app.
    let tail = lines(&plan);
    let committed = tail.iter().position(|line| line.starts_with('|')).unwrap();
    assert_eq!(
        tail[committed + 1..],
        ["StopApp api.3", "ForgetApp api.3", "StopApp api.front", "ForgetApp api.front"]
    );
    assert!(world.plan("d", &api("3", canary)).is_empty());
}

#[test]
fn more_or_fewer_processes_restart_none_of_those_that_stay() {
    let mut world = TestWorld::new();
    let with = |count: u32| api("1", &format!("instances: {count}, strategy: Rolling()"));
    world.converge("d", &with(2));
    let plan = world.converge("d", &with(3));
    let starts = lines(&plan).into_iter().filter(|line| line.contains("StartApp")).collect::<Vec<_>>();
    assert_eq!(starts, ["StartApp api.3"]);
    let plan = world.converge("d", &with(1));
    assert!(!lines(&plan).iter().any(|line| line.contains("StartApp")), "{:?}", lines(&plan));
    assert_eq!(world.observed.alive(&app("api")), [1]);
    // The same by an operator, until the spec deploys the app anew.
    world.verb("api", AppVerb::Scale(4)).unwrap();
    assert_eq!(world.observed.alive(&app("api")), [1, 2, 3, 4]);
    assert!(world.plan("d", &with(1)).is_empty());
    world.verb("api", AppVerb::Scale(2)).unwrap();
    assert_eq!(world.observed.alive(&app("api")), [1, 2]);
    world.converge("d", &with(1).replace("version: \"1\"", "version: \"2\""));
    assert_eq!(world.observed.alive(&app("api")), [1]);
    let refused = world.converge("d", &api("3", BLUE_GREEN)).notes;
    assert!(refused.is_empty(), "{refused:?}");
    assert!(world.verb("api", AppVerb::Scale(2)).unwrap_err().text.contains("not blue-green"));
}

#[test]
fn an_instance_that_is_gone_is_drift_and_is_named() {
    let mut world = TestWorld::new();
    let spec = api("1", "instances: 3, strategy: Rolling()");
    world.converge("d", &spec);
    let third = Instance::new(&app("api"), 3);
    world.observed.processes.get_mut(&third).unwrap().status = ProcessStatus::Gone { rebooted: false };
    let plan = world.plan("d", &spec);
    assert!(plan.is_empty());
    assert!(
        plan.notes[0].text.starts_with("api.3: its process and its supervisor are gone"),
        "{:?}",
        plan.notes
    );
    world.heal = true;
    assert_eq!(lines(&world.plan("d", &spec))[0], "StartApp api.3");
}

#[test]
fn artifacts_are_unpacked_beside_what_runs_and_counted_by_content() {
    let mut world = TestWorld::new();
    let spec = |version: &str| api(version, "artifact: Tar(\"/srv/api.tar\")");
    let plan = world.deploy("d", &spec("1"));
    assert_eq!(notes(&plan), ["Fatal artifact app api"]);
    let provide = |world: &mut TestWorld, digest: &str| {
        world.observed.artifacts.insert("/srv/api.tar".to_owned(), digest.repeat(32));
    };
    provide(&mut world, "aa");
    world.converge("d", &spec("1"));
    assert!(world.content["a"].contains(&"current releases/1".to_owned()), "{:?}", world.content["a"]);
    let plan = world.converge("d", &spec("2"));
    assert_eq!(
        lines(&plan),
        [
            "Unpack a releases/2",
            "StopApp api",
            "Snapshot a",
            "StartApp api",
            "Probe api",
            "RecordRelease api",
            "SwitchRelease a releases/2",
            "| SetProps a",
            "PruneReleases a releases/2",
        ]
    );
    // Another content under the same version: drift as long as nobody saves, then a folder of its own.
    provide(&mut world, "bb");
    let plan = world.plan("d", &spec("2"));
    assert!(plan.is_empty());
    assert_eq!(notes(&plan), ["Warning drift app api"]);
    let plan = world.converge("d", &spec("2"));
    assert_eq!(lines(&plan)[0], "Unpack a releases/2+bbbbbbbbbbbb");
    // The file may go once it is unpacked.
    world.observed.artifacts.clear();
    assert!(world.plan("d", &spec("2")).is_empty());
    // What the spec asks for is compared before anything changes.
    provide(&mut world, "cc");
    let asks = api("3", &format!("artifact: Tar(path: \"/srv/api.tar\", sha256: \"{}\")", "dd".repeat(32)));
    let plan = world.deploy("d", &asks);
    assert_eq!(notes(&plan), ["Fatal artifact app api"]);
    assert!(plan.notes[0].text.contains("it has sha256 cccc"), "{}", plan.notes[0].text);
}

#[test]
fn an_app_that_shares_data_with_a_replaced_one_is_stopped_for_it() {
    let mut world = TestWorld::new();
    let spec = |version: &str| {
        format!(
            "Deploy(datasets: {{\"a\": (), \"d\": ()}}, apps: {{\"old\": (dataset: \"d\", version: \"{version}\", command: \
             [\"x\"]), \"api\": (dataset: \"a\", data: [\"d\"], version: \"{version}\", command: [\"serve\"], {BLUE_GREEN})}})"
        )
    };
    world.converge("s", &spec("1"));
    let plan = world.deploy("s", &spec("2"));
    assert_eq!(notes(&plan), ["Warning strategy app api"]);
    assert!(lines(&plan).contains(&"StopApp api".to_owned()));
    world.run(&plan);
    assert!(world.plan("s", &spec("2")).is_empty());
}
