use super::*;
use crate::testing::TestWorld;
use crate::testing::app as app_name;
use crate::testing::parse;
use std::collections::BTreeSet;

const BASE: &str = r#"dataset: "d", version: "1", command: ["serve"]"#;

fn spec(body: &str) -> App {
    let text = format!(
        r#"Deploy(datasets: {{"d": (), "e": ()}}, apps: {{"a": ({body}), "b": (dataset: "e", version: "1")}})"#
    );
    parse("t", &text).apps["a"].clone()
}

fn hashes(body: &str, observed: &Observed) -> Resolved {
    resolve(&app_name("a"), &DeployName::parse("t").unwrap(), &spec(body), None, observed)
}

#[test]
fn a_part_of_the_process_changes_both_hashes_and_what_is_around_it_only_one() {
    let observed = TestWorld::new().observed;
    let base = hashes(BASE, &observed);
    assert_eq!(
        base,
        hashes(&format!("{BASE}, env: {{}}, depends_on: []"), &observed),
        "defaults are not parts"
    );
    let mut seen = BTreeSet::from([base.spec_hash.clone()]);
    // What is added, and whether the process has to be started again.
    for (change, restarts) in [
        (r#"version: "2""#, true),
        (r#"command: ["serve", "--fast"]"#, true),
        (r#"dataset: "e""#, true),
        (r#"env: {"A": "1"}"#, true),
        (r#"user: "www""#, true),
        (r#"group: "www""#, true),
        (r#"limits: (memory: "1M")"#, true),
        ("runtime: Container", true),
        (r#"artifact: Dir("/srv/a")"#, true),
        (r#"node_name: "a@h""#, true),
        ("restart: Never", true),
        (r#"health: (probes: [Tcp("127.0.0.1:1")])"#, false),
        (r#"stop_grace: "3s""#, false),
        (r#"depends_on: ["b"]"#, false),
        (r#"data: ["e"]"#, false),
        (r#"hooks: (on_failure: [["x"]])"#, false),
        ("instances: 2", false),
        (r#"strategy: Rolling(batch: 2)"#, false),
        (r#"strategy: BlueGreen(ports: (8080, 8081)), listen: "127.0.0.1:8000""#, true),
        (r#"when: Fact("os", "linux")"#, false),
    ] {
        let field = change.split(':').next().unwrap();
        let kept: Vec<&str> =
            BASE.split(", ").filter(|part| !part.starts_with(&format!("{field}:"))).collect();
        let changed = hashes(&format!("{}, {change}", kept.join(", ")), &observed);
        assert_eq!(changed.run_hash != base.run_hash, restarts, "{change}");
        assert!(seen.insert(changed.spec_hash), "{change}");
    }
}

#[test]
fn values_from_elsewhere_count_by_their_content() {
    let body =
        format!(r#"{BASE}, env_from: {{"A": Env("TOKEN"), "B": File("/etc/b")}}, cookie: Env("COOKIE")"#);
    let mut observed = TestWorld::new().observed;
    let wanted_for = |observed: &Observed| -> Vec<String> {
        hashes(&body, observed).missing.into_iter().map(|missing| missing.wanted_for).collect()
    };
    assert_eq!(wanted_for(&observed), ["A", "B", "cookie"]);
    observed.env.insert("TOKEN".into(), String::new());
    observed.env.insert("COOKIE".into(), "c".into());
    observed.files.insert("/etc/b".into(), "ab".repeat(32));
    assert_eq!(wanted_for(&observed), ["A"], "an empty variable counts as unset");
    observed.env.insert("TOKEN".into(), "one".into());
    let one = hashes(&body, &observed);
    assert_eq!(one.missing, []);
    observed.env.insert("TOKEN".into(), "two".into());
    let two = hashes(&body, &observed);
    assert!(one.run_hash != two.run_hash && one.spec_hash != two.spec_hash);
}

/// These hashes are stamped on datasets: a change of this test means that every app of every host restarts at
/// the next upgrade.
#[test]
fn hashes_are_the_same_in_every_build() {
    let observed = TestWorld::new().observed;
    let resolved = hashes(BASE, &observed);
    assert_eq!(resolved.run_hash, "cb9a2bcc0b1ad8b7596d18024539de1e4d36f458b3c9f29a6a9965941b770031");
    assert_eq!(resolved.spec_hash, "ebb4888412a042ef2abf3635bc79d9e1d0747c573797389db382e78f7d06d9b8");
}

#[test]
fn a_release_starts_as_it_was_declared() {
    let mut observed = TestWorld::new().observed;
    let definition = spec(&format!(r#"{BASE}, node_name: "a@h", cookie: Env("COOKIE"), stop_grace: "3s""#));
    let deploy = DeployName::parse("t").unwrap();
    let release = {
        let (name, host) = (app_name("a"), localhost());
        let (deploy, app) = (&deploy, &definition);
        let origin = Origin { name: &name, deploy, host: &host, app, run_hash: "", folder: None };
        release_of(origin, "hash", None)
    };
    assert_eq!(run_spec_of(&release, 1, &observed).unwrap_err().len(), 1);
    observed.env.insert("COOKIE".into(), "c".into());
    let run = run_spec_of(&release, 1, &observed).unwrap();
    assert_eq!(run.env["RELEASE_NODE"], "a@h");
    assert_eq!(run.env_from["RELEASE_COOKIE"], ValueFrom::Env("COOKIE".into()));
    assert_eq!(run.stop_grace.as_secs(), 3);
    assert_eq!(run.host.as_str(), "web1");
    observed.host = None;
    assert_eq!(run_spec_of(&release, 1, &observed).unwrap().host.as_str(), "localhost");
}

#[test]
fn only_an_app_with_something_to_run_has_a_process() {
    for (body, expect) in [
        (r#"dataset: "d", version: "1""#, false),
        (BASE, true),
        (r#"dataset: "d", version: "1", artifact: Dir("/srv/a")"#, true),
        (r#"dataset: "d", version: "1", runtime: Container"#, true),
    ] {
        assert_eq!(has_process(&spec(body)), expect, "{body}");
    }
}
