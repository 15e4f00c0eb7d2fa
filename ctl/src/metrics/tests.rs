use super::*;
use crate::view::HostView;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One sample: its name, labels and value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A strict reader of the text exposition format, version 0.0.4: panics at everything that is not in it.
fn read(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'));
    let mut samples: Vec<Sample> = Vec::new();
    let mut families = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("HELP has a text");
            assert!(!help.is_empty());
            assert!(families.insert(name.to_owned()), "{name} is told twice");
            family = name.to_owned();
            kind.clear();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, word) = rest.split_once(' ').expect("TYPE has a kind");
            assert_eq!(name, family, "TYPE follows its HELP");
            assert!(["gauge", "counter", "histogram"].contains(&word), "{word}");
            assert_eq!(word == "counter", name.ends_with("_total"), "{name} is a {word}");
            kind = word.to_owned();
        } else {
            let sample = read_sample(line);
            let suffix = sample.name.strip_prefix(&family).expect("a sample is in its family");
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
            samples.push(sample);
        }
    }
    samples
}

fn read_sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let (name, mut rest) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect("a closing brace")),
        None => (head, ""),
    };
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect("label=\"");
        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{label}");
        let mut text = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next().expect("a closing quote") {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some(c @ ('"' | '\\')) => text.push(c),
                    other => panic!("unknown escape {other:?}"),
                },
                c => text.push(c),
            }
        }
        assert!(labels.insert(label.to_owned(), text).is_none(), "a label twice: {line}");
        rest = chars.as_str();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').expect("a comma between labels");
        }
    }
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect("a number") };
    Sample { name: name.to_owned(), labels, value }
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    samples.iter().find(|sample| sample.name == name && sample.labels == labels).map(|sample| sample.value)
}

fn world() -> World {
    let app = |name: &str, health: &str| AppView {
        name: name.to_owned(),
        deploy: "prod".to_owned(),
        version: "1.0 \"a\\b\"\nc".to_owned(),
        state: "running".to_owned(),
        health: health.to_owned(),
        restarts: 3,
        ..AppView::default()
    };
    let apps = [app("a", "healthy"), app("b", "unhealthy"), app("c", "unknown")];
    let host = HostView {
        name: "web1".to_owned(),
        store: "embedded:/srv/zed".to_owned(),
        available: u64::MAX,
        apps: BTreeMap::from([("running".to_owned(), 3)]),
        ..HostView::default()
    };
    World {
        host: Arc::new(host),
        apps: Arc::new(apps.into_iter().map(|app| (app.name.clone(), Arc::new(app))).collect()),
        ..World::default()
    }
}

#[test]
fn the_exposition_is_valid_and_tells_the_world() {
    let mut counters = Counters::default();
    counters.converge_runs.insert("no-op".to_owned(), 7);
    counters.converge_seconds.observe(0.004);
    counters.probes.insert("a".to_owned(), ProbeCounts { asked: 9, failed: 2 });
    let samples = read(&render_metrics(&world(), &counters));
    let version = world().apps["a"].version.clone();
    for (name, labels, expected) in [
        ("zed_up", &[][..], Some(1.0)),
        ("zed_apps", &[("state", "running")], Some(3.0)),
        (
            "zed_app_info",
            &[("app", "a"), ("version", &version), ("deploy", "prod"), ("state", "running")],
            Some(1.0),
        ),
        ("zed_probes_total", &[("app", "a")], Some(9.0)),
        ("zed_probe_failures_total", &[("app", "a")], Some(2.0)),
        ("zed_app_up", &[("app", "a")], Some(0.0)),
        ("zed_app_healthy", &[("app", "a")], Some(1.0)),
        ("zed_app_healthy", &[("app", "b")], Some(0.0)),
        ("zed_app_healthy", &[("app", "c")], None),
        ("zed_app_restarts_total", &[("app", "b")], Some(3.0)),
        ("zed_store_available_bytes", &[], Some(18_446_744_073_709_551_615.0)),
        ("zed_converge_runs_total", &[("outcome", "no-op")], Some(7.0)),
        ("zed_converge_seconds_bucket", &[("le", "0.001")], Some(0.0)),
        ("zed_converge_seconds_bucket", &[("le", "0.005")], Some(1.0)),
        ("zed_converge_seconds_bucket", &[("le", "+Inf")], Some(1.0)),
        ("zed_converge_seconds_count", &[], Some(1.0)),
        ("zed_converge_seconds_sum", &[], Some(0.004)),
    ] {
        assert_eq!(value(&samples, name, labels), expected, "{name} {labels:?}");
    }
}

#[test]
fn an_apps_metrics_are_its_part_of_the_whole() {
    let world = world();
    let whole = read(&render_metrics(&world, &Counters::default()));
    let part = read(&render_app_metrics(&world.apps["b"]));
    assert!(!part.is_empty());
    for sample in part {
        assert_eq!(sample.labels["app"], "b");
        assert!(whole.contains(&sample), "{sample:?}");
    }
}

#[test]
fn a_histogram_grows_to_its_count() {
    let mut histogram = Histogram::default();
    for seconds in [0.0, 0.001, 0.0011, 2.0, 1e9, f64::NAN, -1.0] {
        histogram.observe(seconds);
    }
    assert_eq!(histogram.count(), 7);
    let mut out = Exposition::default();
    out.histogram("zed_x_seconds", "x", &histogram);
    let samples = read(&out.0);
    let buckets: Vec<f64> = samples.iter().filter(|s| s.name.ends_with("_bucket")).map(|s| s.value).collect();
    assert_eq!(buckets, [4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 6.0, 6.0, 6.0, 6.0, 7.0]);
}
