use super::*;
use crate::testing::app;
use crate::testing::path;

fn stamp(name: &str) -> AppStamp {
    AppStamp {
        app: app(name),
        deploy: DeployName::parse("web").unwrap(),
        version: "1.0.0".into(),
        generation: 3,
        run: RunId("r0000001".into()),
        spec: "ab".repeat(32),
        artifact: Some("cd".repeat(32)),
        health: "healthy".into(),
        deployed_at: "2026-11-22T17:46:28Z".into(),
        state: RunState::Stopped,
        live: Some(2),
        scale: Some(4),
        held: Some(3),
        rolled_back_to: Some("zed-x".into()),
        rolled_back_from: Some(path("zed/branches/apps.a-r1")),
    }
}

fn parse(user: &BTreeMap<String, String>) -> Stamps {
    parse_stamps(&"dataset d", user)
}

#[test]
fn what_is_written_is_read_back() {
    let bare = AppStamp {
        artifact: None,
        state: RunState::Running,
        held: None,
        rolled_back_to: None,
        rolled_back_from: None,
        ..stamp("b")
    };
    for stamps in [vec![stamp("a")], vec![bare.clone()], vec![stamp("a"), bare.clone(), stamp("a-b")]] {
        let user = render_stamps(&BTreeMap::new(), &stamps);
        assert!(user.keys().all(|key| key.starts_with(PREFIX) && *key == key.to_lowercase()), "{user:?}");
        let mut read = parse(&user);
        read.apps.sort_by(|a, b| a.app.cmp(&b.app));
        let mut expect = stamps.clone();
        expect.sort_by(|a, b| a.app.cmp(&b.app));
        assert_eq!(read, Stamps { apps: expect, notes: Vec::new() });
        assert_eq!(stamp_edits(&replace_stamps(&BTreeMap::new(), &stamps), &stamps), BTreeMap::new());
    }
}

#[test]
fn the_app_that_has_the_plain_names_keeps_them() {
    let current = render_stamps(&BTreeMap::new(), &[stamp("m")]);
    assert_eq!(current[name::APP], "m");
    let both = render_stamps(&current, &[stamp("a"), stamp("m")]);
    assert_eq!(both[name::APP], "m");
    assert_eq!(both["com.zed:app.a.version"], "1.0.0");
    let left = replace_stamps(&both, &[stamp("a")]);
    assert_eq!(left[name::APP], "a");
    assert!(left.keys().all(|key| !key.starts_with(name::OTHER_APP)), "{left:?}");
}

#[test]
fn other_properties_survive_a_change_of_stamps() {
    let mut user = BTreeMap::from([
        ("com.acme:backup".to_owned(), "daily".to_owned()),
        (name::MANAGED.to_owned(), "yes".to_owned()),
        (name::ROLE.to_owned(), "app".to_owned()),
    ]);
    user.extend(stamp("a").render(true));
    let edits = stamp_edits(&user, &[]);
    assert!(edits.values().all(Option::is_none));
    let bare = replace_stamps(&user, &[]);
    assert_eq!(bare.len(), 5, "{bare:?}: the mark, the role, the deploy, the run and what is not ours stay");
    assert_eq!(parse(&bare).apps, []);
}

#[test]
fn only_what_changed_is_written() {
    let user = replace_stamps(&BTreeMap::new(), &[stamp("a")]);
    let next = AppStamp { version: "1.1.0".into(), held: None, ..stamp("a") };
    let expect =
        BTreeMap::from([(name::VERSION.to_owned(), Some("1.1.0".to_owned())), (name::HELD.to_owned(), None)]);
    assert_eq!(stamp_edits(&user, &[next]), expect);
}

#[test]
fn an_odd_property_is_a_note_and_never_a_dead_end() {
    let good = || replace_stamps(&BTreeMap::new(), &[stamp("a"), stamp("b")]);
    // Key, value (none removes it), severity of the note, apps that are still read.
    for (key, value, severity, apps) in [
        (name::GENERATION, Some("many"), Severity::Warning, 2),
        (name::HELD, Some("-1"), Severity::Warning, 2),
        (name::STATE, Some("asleep"), Severity::Warning, 2),
        (name::ROLLED_BACK_FROM, Some("//"), Severity::Warning, 2),
        (name::SCHEMA, Some("one"), Severity::Warning, 2),
        (name::APP, Some("Not A Name"), Severity::Warning, 1),
        (name::VERSION, None, Severity::Warning, 1),
        (name::DEPLOY, Some("Not A Name"), Severity::Warning, 1),
        ("com.zed:app.b.spec", None, Severity::Warning, 1),
        ("com.zed:app.UPPER.spec", Some("x"), Severity::Warning, 2),
        (name::SCHEMA, Some("2"), Severity::Fatal, 0),
    ] {
        let mut user = good();
        match value {
            Some(value) => user.insert(key.to_owned(), value.to_owned()),
            None => user.remove(key),
        };
        let read = parse(&user);
        assert_eq!(read.apps.len(), apps, "{key} = {value:?}: {read:?}");
        assert_eq!(read.notes.len(), 1, "{key} = {value:?}: {read:?}");
        assert_eq!(read.notes[0].severity, severity, "{key} = {value:?}");
        assert_eq!(read.notes[0].object, "dataset d");
    }
    for key in ["com.zed:future", "com.zed:gpu.0", "com.acme:x"] {
        let mut user = good();
        user.insert(key.to_owned(), "1".to_owned());
        assert_eq!(parse(&user).notes, [], "{key}");
    }
}

#[test]
fn a_data_dataset_is_no_release_of_its_own() {
    let user = BTreeMap::from([
        (name::ROLE.to_owned(), "data".to_owned()),
        (name::APP.to_owned(), "a".to_owned()),
        (name::VERSION.to_owned(), "1".to_owned()),
    ]);
    assert_eq!(parse(&user), Stamps::default());
}
