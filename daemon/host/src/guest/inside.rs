//! Running an app, a probe or a hook inside a guest: what is executed on the host for it.
//!
//! Owns the argv and the way of the environment. No value of the environment is ever an argument: everybody who can
//! run ps(1) sees those. Pure.

use super::GuestErrorKind;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use zed_plan::GuestId;

/// What to execute on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The environment of that program.
    pub environment: BTreeMap<String, String>,
    /// A script that must be in the zone's root before, readable by root alone: its path inside and its content.
    /// It lies in /var/run, which is memory: it is in no snapshot and gone after a reboot.
    pub script: Option<(String, Vec<u8>)>,
}

/// Wraps a program: `name` is what it is (`api`, `api probe`), for the name of a script.
///
/// A jail is entered with jexec(8), which hands the environment on and then becomes the program: the process
/// that is supervised is the app itself. zlogin(1) hands nothing on and joins its arguments for a shell, so a zone
/// gets one fixed argument, the path of a script that nobody but root can read.
pub fn inside(
    guest: &GuestId,
    name: &str,
    program: &[String],
    environment: &BTreeMap<String, String>,
    directory: &Path,
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Inside, GuestErrorKind> {
    match guest {
        GuestId::Jail(jail) => {
            let mut argv = vec!["/usr/sbin/jexec".to_owned()];
            if let (Some(user), None) = (user, group) {
                argv.extend(["-U".to_owned(), user.to_owned()]);
            }
            argv.push(jail.to_string());
            if let Some(group) = group {
                // jexec(8) knows no group; chroot(8) does, and stays where it is.
                argv.extend(["/usr/sbin/chroot".to_owned(), "-g".to_owned(), group.to_owned()]);
                argv.extend(user.into_iter().flat_map(|user| ["-u".to_owned(), user.to_owned()]));
                argv.push("/".to_owned());
            }
            // jexec(8) starts in the root of the jail. The words after the script are its arguments: nothing in
            // them is read by a shell.
            let enter = "cd \"$0\" && exec \"$@\"";
            argv.extend(["/bin/sh".to_owned(), "-c".to_owned(), enter.to_owned()]);
            argv.push(directory.to_string_lossy().into_owned());
            argv.extend(program.iter().cloned());
            Ok(Inside { argv, environment: environment.clone(), script: None })
        }
        GuestId::Zone(zone) => {
            if group.is_some() {
                let text = "a program in a zone runs in the groups of its user: remove `group` from the app";
                return Err(GuestErrorKind::Missing(text.to_owned()));
            }
            let path = format!("/var/run/zed-{}.sh", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
            let script = script(program, environment, directory, user);
            let argv = ["/usr/sbin/zlogin", "-n", zone.as_str(), "/bin/sh", &path];
            Ok(Inside {
                argv: argv.into_iter().map(str::to_owned).collect(),
                environment: BTreeMap::new(),
                script: Some((path, script.into_bytes())),
            })
        }
    }
}

/// A shell script that sets the environment and becomes the program. It stays: a restart runs it again.
fn script(
    program: &[String],
    environment: &BTreeMap<String, String>,
    directory: &Path,
    user: Option<&str>,
) -> String {
    let mut out = String::from("#!/bin/sh\n");
    for (name, value) in environment {
        let _ = writeln!(out, "export {name}={}", quoted(value));
    }
    let _ = writeln!(out, "cd {} || exit 126", quoted(&directory.to_string_lossy()));
    let words = program.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    match user {
        None => out.push_str(&format!("exec {words}\n")),
        // Without `-`, su(8) keeps the environment.
        Some(user) => {
            let _ =
                writeln!(out, "exec /usr/bin/su {} -c {}", quoted(user), quoted(&format!("exec {words}")));
        }
    }
    out
}

/// One word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zed_spec::JailName;
    use zed_spec::ZoneName;

    const SECRET: &str = "hunter2 'quoted' $HOME";

    fn wrap(guest: &GuestId, user: Option<&str>, group: Option<&str>) -> Result<Inside, GuestErrorKind> {
        let program = ["bin/shop", "a b", "it's", "$X"].map(str::to_owned);
        let environment = BTreeMap::from([("COOKIE".to_owned(), SECRET.to_owned())]);
        inside(guest, "shop", &program, &environment, Path::new("/z/apps/shop"), user, group)
    }

    #[test]
    fn no_secret_is_an_argument_and_no_argument_is_read_by_a_shell() {
        let jail = GuestId::Jail(JailName::parse("shop").unwrap());
        let tail = "/bin/sh -c cd \"$0\" && exec \"$@\" /z/apps/shop bin/shop a b it's $X";
        // user, group, what comes before, by jexec(8) and chroot(8).
        for (user, group, head) in [
            (None, None, "/usr/sbin/jexec shop"),
            (Some("www"), None, "/usr/sbin/jexec -U www shop"),
            (Some("www"), Some("web"), "/usr/sbin/jexec shop /usr/sbin/chroot -g web -u www /"),
            (None, Some("web"), "/usr/sbin/jexec shop /usr/sbin/chroot -g web /"),
        ] {
            let made = wrap(&jail, user, group).unwrap();
            assert_eq!(made.argv.join(" "), format!("{head} {tail}"));
            assert_eq!(made.environment["COOKIE"], SECRET);
            assert!(made.script.is_none());
        }
        let zone = GuestId::Zone(ZoneName::parse("shop-z").unwrap());
        let made = wrap(&zone, None, None).unwrap();
        assert_eq!(
            made.argv.join(" "),
            "/usr/sbin/zlogin -n shop-z /bin/sh /var/run/zed-shop.sh",
            "zlogin(1)"
        );
        assert!(made.environment.is_empty());
        assert!(wrap(&zone, None, Some("web")).is_err());
    }

    #[test]
    fn the_script_of_a_zone_gives_the_program_what_it_was_given() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.sh");
        let program = ["printf", "%s|", "a b", "it's", "$X"].map(str::to_owned);
        let environment = BTreeMap::from([("COOKIE".to_owned(), SECRET.to_owned())]);
        let show = ["sh", "-c", "printf %s \"$COOKIE\"; pwd"].map(str::to_owned);
        for (program, expect) in
            [(&program[..], "a b|it's|$X|".to_owned()), (&show[..], format!("{SECRET}/\n"))]
        {
            std::fs::write(&path, script(program, &environment, Path::new("/"), None)).unwrap();
            let words = ["sh", path.to_str().unwrap()];
            let command = crate::guest::ToolCommand::new(std::time::Duration::from_secs(20), words);
            let output =
                crate::guest::Commands::run(&crate::guest::LocalSystem::default(), &command).unwrap();
            assert_eq!(output.text, expect);
        }
    }
}
