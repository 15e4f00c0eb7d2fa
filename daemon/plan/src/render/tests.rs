//! Golden texts: what people see. `ZED_GOLDEN=write cargo test -p zed-plan` writes them anew; read the difference.

use super::*;
use crate::testing::*;
use zed_spec::HostName;

fn golden(name: &str, text: &str) {
    let file = format!("{}/src/render/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("ZED_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&file, text).unwrap();
    }
    let expect = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!(text, expect, "{file}");
}

fn world(host: &str) -> TestWorld {
    let mut world = TestWorld::new();
    world.observed.host = Some(HostName::parse(host).unwrap());
    world.observed.env.insert("REGION".into(), "eu".into());
    world.observed.env.insert("RELEASE_COOKIE".into(), "secret".into());
    world
}

#[test]
fn every_example_as_it_is_planned_on_a_bare_host() {
    for (name, host) in [
        ("hello", "web1"),
        ("prod", "web1"),
        ("stack", "web1"),
        ("jails", "web1"),
        ("fleet", "web1"),
        ("gpu-cluster", "server"),
    ] {
        let mut world = world(host);
        let plan = world.deploy(name, &example(name));
        let text = render_plan(&plan, &world.observed);
        golden(name, &text);
        assert!(!text.contains("secret\n") && !text.contains("eu\n"), "values from elsewhere are not shown");
        let clean = ["hello", "prod"].contains(&name);
        assert_eq!(plan.fatal().count() == 0, clean, "{name}: {:?}", plan.notes);
    }
}

#[test]
fn every_example_is_applied_where_everything_exists() {
    for name in ["hello", "prod", "stack", "jails", "fleet", "gpu-cluster"] {
        let mut world = world(if name == "gpu-cluster" { "server" } else { "web1" });
        for capability in [
            "process",
            "jail",
            "zone",
            "container",
            "secret",
            "limits",
            "limits.memory",
            "limits.cpus",
            "limits.pids",
            "limits.nofile",
            "models",
            "jobs",
            "replicate",
            "rollout",
        ] {
            world.observed.runtimes.insert(capability.to_owned());
        }
        world.provide_artifacts(&parse(name, &example(name)));
        let plan = world.converge(name, &example(name));
        assert!(!plan.is_empty(), "{name}");
        let again = world.deploy(name, &example(name));
        assert!(again.is_empty(), "{name}: {:#?}", again.units);
    }
}

#[test]
fn the_life_of_hello() {
    let mut world = world("web1");
    let hello = |version: &str| example("hello").replace("1.0.0", version).replace("keep: 5", "keep: 1");
    world.converge("hello", &hello("1.0.0"));
    world.converge("hello", &hello("1.1.0"));
    let mut out = String::new();
    let plan = world.deploy("hello", &hello("1.2.0"));
    out += &render_plan(&plan, &world.observed);
    world.run(&plan);
    let plan = world.plan_rollback("hello", "@latest").unwrap();
    out += "\n";
    out += &render_plan(&plan, &world.observed);
    world.run(&plan);
    out += "\n";
    let plan = world.plan("hello", &hello("1.2.0"));
    out += &render_plan(&plan, &world.observed);
    out += "\n";
    let plan = world.undeclare("hello");
    out += &render_plan(&plan, &world.observed);
    golden("life", &out);
}

#[test]
fn a_change_shows_old_and_new() {
    let mut world = TestWorld::new();
    let spec = |with: &str| format!("Deploy(datasets: {{\"tank/data\": ({with}), \"gone\": ()}})");
    world.converge("d", &spec("quota: \"1G\", compression: \"lz4\""));
    let plan = world.deploy("d", &spec("quota: \"2G\", compression: \"zstd\"").replace(", \"gone\": ()", ""));
    golden("change", &render_plan(&plan, &world.observed));
    assert_eq!(summarize(&plan, &world.observed), Summary { add: 0, change: 1, remove: 1, destroy: 0 });
}

#[test]
fn lines_stay_short() {
    let mut world = world("web1");
    for name in ["hello", "prod", "stack", "jails", "fleet"] {
        let plan = world.deploy(name, &example(name));
        for line in render_plan(&plan, &world.observed).lines() {
            assert!(line.len() <= WIDTH + 10, "{line}");
            assert_eq!(line.trim_end(), line);
        }
    }
}

#[test]
fn the_json_is_the_plan_itself() {
    let mut world = world("web1");
    let plan = world.deploy("hello", &example("hello"));
    let json = plan_json(&plan, &world.observed);
    assert_eq!(json["empty"], false);
    assert_eq!(json["summary"]["add"], 3);
    assert_eq!(serde_json::from_value::<Plan>(json["plan"].clone()).unwrap(), plan);
}
