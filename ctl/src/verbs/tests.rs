use super::*;
use proptest::prelude::*;

fn parse(kind: FileKind, line: &str) -> Result<Verb, CtlError> {
    parse_verb(kind, line)
}

#[test]
fn every_verb_is_understood_in_its_file() {
    let name = || "prod".to_owned();
    for (kind, line, verb) in [
        (FileKind::RootCtl, "apply prod", Verb::Apply { plan: name() }),
        (FileKind::RootCtl, "reload", Verb::Reload),
        (FileKind::RootCtl, " retry\t'prod' ", Verb::RetryDeploy { deploy: name() }),
        (FileKind::RootCtl, "release \"prod\"", Verb::ReleaseDeploy { deploy: name() }),
        (FileKind::RootCtl, "heal", Verb::Heal { deploy: None }),
        (FileKind::RootCtl, "heal pr\\od", Verb::Heal { deploy: Some(name()) }),
        (FileKind::RootCtl, "log debug", Verb::Log { level: LogLevel::Debug }),
        (FileKind::AppCtl, "start", Verb::Start),
        (FileKind::AppCtl, "stop", Verb::Stop),
        (FileKind::AppCtl, "restart", Verb::Restart),
        (FileKind::AppCtl, "release", Verb::Release),
        (FileKind::AppCtl, "retry", Verb::Retry),
        (FileKind::AppRollback, "@latest", Verb::Rollback(RollbackTarget::Latest)),
        (FileKind::AppRollback, "undo", Verb::Rollback(RollbackTarget::Undo)),
        (FileKind::AppRollback, "@zed-a:1", Verb::Rollback(RollbackTarget::Snapshot("zed-a:1".to_owned()))),
        (FileKind::AppRollback, "1.0.0", Verb::Rollback(RollbackTarget::Version("1.0.0".to_owned()))),
        (FileKind::AppRollback, "'1 0'", Verb::Rollback(RollbackTarget::Version("1 0".to_owned()))),
        (FileKind::HostCtl, "converge", Verb::Converge),
        (FileKind::HostCtl, "heal", Verb::Heal { deploy: None }),
        (FileKind::GpuCtl, "pause", Verb::Gpu(GpuVerb::Pause)),
        (FileKind::GpuCtl, "resume", Verb::Gpu(GpuVerb::Resume)),
        (FileKind::GpuCtl, "restart", Verb::Gpu(GpuVerb::Restart)),
        (FileKind::GpuCtl, "forgive", Verb::Gpu(GpuVerb::Forgive { kernel: None })),
        (
            FileKind::GpuCtl,
            "forgive add.f32",
            Verb::Gpu(GpuVerb::Forgive { kernel: Some("add.f32".to_owned()) }),
        ),
        (
            FileKind::GpuCtl,
            "weight ann 1000",
            Verb::Gpu(GpuVerb::Weight { user: "ann".to_owned(), weight: 1000 }),
        ),
        (FileKind::GpuCtl, "retain 0", Verb::Gpu(GpuVerb::Retain { jobs: 0 })),
        (FileKind::GpuCtl, "cancel", Verb::Gpu(GpuVerb::Cancel)),
        (FileKind::GpuJobCtl, "start", Verb::Gpu(GpuVerb::Start)),
        (FileKind::GpuJobCtl, "cancel", Verb::Gpu(GpuVerb::Cancel)),
        (FileKind::GpuJobCtl, "priority -100", Verb::Gpu(GpuVerb::Priority { priority: -100 })),
    ] {
        assert_eq!(parse(kind, line), Ok(verb), "{line}");
    }
}

#[test]
fn refusals_name_the_verb_and_what_is_expected() {
    for (kind, line, message, hint) in [
        (FileKind::AppCtl, "strat", "`strat` is not a verb of `apps/APP/ctl`", "did you mean `start`?"),
        (
            FileKind::AppCtl,
            "dance",
            "`dance` is not a verb of `apps/APP/ctl`",
            "expected `start`, `stop`, `restart`, `release`, `retry`, `scale COUNT`, `pause`, `resume`, `promote` or \
             `abort`",
        ),
        (
            FileKind::AppCtl,
            "reload",
            "`reload` is not a verb of `apps/APP/ctl`",
            "`reload` is written to `ctl`",
        ),
        (FileKind::RootCtl, "stop", "`stop` is not a verb of `ctl`", "`stop` is written to `apps/APP/ctl`"),
        (
            FileKind::RootCtl,
            "apply",
            "`apply` was given no argument: expected `apply PLAN`",
            "apply the plan of plan/PLAN.ron exactly as plan/PLAN.plan shows it; refused when the host has moved since",
        ),
        (
            FileKind::RootCtl,
            "heal a b",
            "`heal` was given 2 arguments: expected `heal [DEPLOY]`",
            "repair drift of one deploy, or of all",
        ),
        (
            FileKind::RootCtl,
            "log inof",
            "`inof` is not a log level: expected error, warn, info, debug, trace",
            "did you mean `log info`?",
        ),
        (
            FileKind::RootCtl,
            "retry ../prod",
            "`retry`: `../prod` cannot be a DEPLOY: `.` is not allowed in it",
            "a name is made of a-z, 0-9 and `-`, as the spec's file without `.ron`",
        ),
        (
            FileKind::GpuCtl,
            "weight ann 0",
            "`weight`: `0` is not a number from 1 to 1000",
            "expected `weight USER N`",
        ),
        (
            FileKind::GpuJobCtl,
            "priority 101",
            "`priority`: `101` is not a number from -100 to 100",
            "expected `priority N`",
        ),
        (
            FileKind::GpuJobCtl,
            "pause",
            "`pause` is not a verb of `gpu/N/jobs/ID/ctl`",
            "`pause` is written to `apps/APP/ctl`",
        ),
        (FileKind::HostCtl, "'heal", "`'heal`: the quote ' is not closed", "expected `converge` or `heal`"),
        (
            FileKind::AppRollback,
            "1.0 now",
            "a rollback has one target, `1.0` is followed by more",
            "expected `@latest`, `VERSION`, `@SNAPSHOT` or `undo`",
        ),
        (FileKind::AppRollback, "latest", "`latest` is not a version", "did you mean `@latest`?"),
        (
            FileKind::AppRollback,
            "@",
            "`@` cannot be the name of a snapshot",
            "expected `@latest`, `VERSION`, `@SNAPSHOT` or `undo`",
        ),
        (
            FileKind::AppRollback,
            "tank/a@x",
            "`tank/a@x` is neither a version nor a snapshot",
            "expected `@latest`, `VERSION`, `@SNAPSHOT` or `undo`",
        ),
    ] {
        let expected = CtlError::new(Code::BadArgument, message).hint(hint);
        assert_eq!(parse(kind, line), Err(expected), "{line}");
    }
}

#[test]
fn words_are_split_as_a_shell_does() {
    for (line, words) in [
        ("", Ok(vec![])),
        (" \t ", Ok(vec![])),
        ("a  b", Ok(vec!["a", "b"])),
        ("a''", Ok(vec!["a"])),
        ("''", Ok(vec![""])),
        ("'a b'\"c d\"", Ok(vec!["a bc d"])),
        (r#""a\"\\\n""#, Ok(vec![r#"a"\\n"#])),
        (r"'a\'", Ok(vec![r"a\"])),
        (r"a\ b \'", Ok(vec!["a b", "'"])),
        ("\"a", Err(TokenError::OpenQuote('"'))),
        ("a\\", Err(TokenError::OpenEscape)),
        ("a\0", Err(TokenError::Control('\0'))),
        ("'\u{1b}[0m'", Err(TokenError::Control('\u{1b}'))),
    ] {
        let words = words.map(|words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(tokenize(line), words, "{line:?}");
    }
}

#[test]
fn one_write_is_one_verb_a_line() {
    assert_eq!(verb_lines(b"a").unwrap(), ["a"]);
    assert_eq!(verb_lines(b"a\n").unwrap(), ["a"]);
    assert_eq!(verb_lines(b"a\r\nb c\n").unwrap(), ["a", "b c"]);
    for empty in [&b""[..], b"\n", b" \n", b"\n\n"] {
        assert_eq!(verb_lines(empty).unwrap_err().code, Code::BadArgument, "{empty:?}");
    }
    assert_eq!(verb_lines(&[b'a'; MAX_WRITE]).unwrap().len(), 1);
    assert_eq!(verb_lines(&[b'a'; MAX_WRITE + 1]).unwrap_err().code, Code::TooLarge);
    assert_eq!(verb_lines(b"a\xff").unwrap_err().code, Code::BadArgument);
}

#[test]
fn the_help_text_has_every_verb() {
    let help = help_text();
    for spec in all_verbs() {
        assert!(help.contains(&format!("    {}", spec.form())), "{}", spec.form());
        assert!(!spec.help.ends_with('.'), "{}", spec.help);
    }
    assert!(help.ends_with('\n'));
}

proptest! {
    #[test]
    fn any_line_is_judged_and_refusals_stay_short(line in "\\PC{0,300}|[a-z@'\"\\\\ \\x00-\\x1f]{0,40}") {
        for kind in FileKind::ALL {
            if let Err(error) = parse_verb(kind, &line) {
                prop_assert_eq!(error.code, Code::BadArgument);
                prop_assert!(error.message.len() < 2000);
                prop_assert!(!error.render().trim_end().chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn a_quoted_word_is_one_word(word in "[^'\\p{Cc}]{0,40}") {
        prop_assert_eq!(tokenize(&format!("'{word}'")), Ok(vec![word]));
    }
}
