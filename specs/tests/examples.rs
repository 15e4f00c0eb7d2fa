//! The example files: the good ones are accepted and keep their meaning in the canonical form, and each bad one
//! gets the diagnostic that its first line names.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files fails")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::DeployName;
use zed_spec::DeploySpec;
use zed_spec::Diagnostics;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ron"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no examples in {}", dir.display());
    files
}

fn parse(path: &Path) -> Result<DeploySpec, Diagnostics> {
    let name = DeployName::parse(path.file_stem().unwrap().to_str().unwrap()).unwrap();
    zed_spec::parse(&name, &fs::read(path).unwrap())
}

fn must_parse(path: &Path) -> DeploySpec {
    parse(path).unwrap_or_else(|e| panic!("{}", e.render(&path.display().to_string())))
}

#[test]
fn good_examples_are_accepted_and_canonical_forms_mean_the_same() {
    for path in files("examples") {
        let spec = must_parse(&path);
        let canonical = spec.canonical();
        let again = zed_spec::parse(&spec.name, canonical.as_bytes())
            .unwrap_or_else(|e| panic!("{}\n{canonical}", e.render("canonical form")));
        assert_eq!(spec, again, "{}", path.display());
        assert_eq!(canonical, again.canonical(), "{}", path.display());
    }
}

#[test]
fn bad_examples_get_the_diagnostic_that_they_name() {
    for path in files("examples/bad") {
        let shown = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let expect = first.strip_prefix("// expect ").unwrap_or_else(|| panic!("{shown} has no `// expect`"));
        let mut words = expect.split(' ');
        let place = words.next().unwrap();
        let Err(diagnostics) = parse(&path) else {
            panic!("{shown} was accepted");
        };
        let rendered = diagnostics.render("f.ron");
        let places: Vec<String> = diagnostics.iter().map(|d| format!("{}:{}", d.line, d.column)).collect();
        assert!(places.iter().any(|p| p == place), "{shown}: nothing at {place}:\n{rendered}");
        for word in words {
            assert!(rendered.contains(word), "{shown}: `{word}` is missing:\n{rendered}");
        }
        for diagnostic in &diagnostics {
            assert!(rendered.contains(&format!("f.ron:{}:{}", diagnostic.line, diagnostic.column)));
        }
    }
}

#[test]
fn rendered_examples_mean_the_same_and_leave_defaults_out() {
    for path in files("examples") {
        let spec = must_parse(&path);
        let rendered = zed_spec::render_spec(&spec);
        let again = zed_spec::parse(&spec.name, rendered.as_bytes())
            .unwrap_or_else(|e| panic!("{}\n{rendered}", e.render("rendered")));
        assert_eq!(spec, again, "{}", path.display());
        for default in
            ["restart: Always", "stop_grace: \"10s\"", "runtime: Process", "on: All", "snapshots: ()"]
        {
            assert!(!rendered.contains(default), "{}: {default} in\n{rendered}", path.display());
        }
    }
}

/// The hash is stored on datasets: a change here makes every deployed spec look changed. If it must change, so
/// must `SPEC_FORMAT`.
#[test]
fn the_hash_of_a_spec_stays_what_it_is() {
    let spec = must_parse(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello.ron"));
    assert_eq!(zed_spec::SPEC_FORMAT, 1);
    assert_eq!(spec.sha256(), "7519fdce0f53beab003df952af6aa6deb024f1812e7b62aefc8959f666cf60ad");
}
