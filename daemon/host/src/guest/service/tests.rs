use super::*;
use crate::guest::LocalSystem;
use crate::guest::commands::Output;
use std::path::Path;

fn service() -> ZeddService {
    let arguments = ["--no-mount", "--socket", "/var/run/zedd.sock"].map(str::to_owned);
    ZeddService { program: "/usr/local/sbin/zedd".into(), arguments: arguments.into() }
}

fn run(words: &[&str]) -> Result<Output, String> {
    LocalSystem::default().run(&ToolCommand::new(Duration::from_secs(60), words.iter().copied()))
}

#[test]
fn a_stop_ends_zedd_alone() {
    let unit = ServiceManager::Systemd.render(&service()).unwrap();
    assert!(unit.contains("KillMode=process") && unit.contains("Type=notify"));
    let script = ServiceManager::Rcd.render(&service()).unwrap();
    // rc.subr(8) compares the program's name with the process of the pid file.
    assert!(script.contains("procname=\"/usr/local/sbin/zedd\""), "{script}");
    let manifest = ServiceManager::Smf.render(&service()).unwrap();
    assert!(!manifest.contains(":kill") && manifest.contains("restarter/start_pid"), "{manifest}");
    assert!(manifest.contains("value=\"child\""), "{manifest}");
}

/// An earlier system called a function that no rc.subr(8) has, and its script failed.
#[test]
fn the_rc_script_calls_only_functions_that_rc_subr_has() {
    let script = ServiceManager::Rcd.render(&service()).unwrap();
    for line in script.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())) {
        let word = line.split([' ', '=']).next().unwrap();
        let variable = line.starts_with(&format!("{word}="));
        assert!(variable || ["load_rc_config", "run_rc_command"].contains(&word), "{line}");
    }
}

#[test]
fn what_would_need_quoting_is_refused() {
    for bad in ["a b", "x;y", "$HOME", "\"", "", "<x>"] {
        let service = ZeddService { arguments: vec![bad.to_owned()], ..service() };
        for manager in [ServiceManager::Systemd, ServiceManager::Rcd, ServiceManager::Smf] {
            assert!(manager.render(&service).unwrap_err().contains("letters"), "{bad}");
        }
    }
    let service = ZeddService { program: "zedd".into(), arguments: Vec::new() };
    assert!(ServiceManager::Rcd.render(&service).unwrap_err().contains("absolute"));
}

#[test]
fn shellcheck_accepts_the_rc_script() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("zedd");
    std::fs::write(&path, ServiceManager::Rcd.render(&service()).unwrap()).unwrap();
    // Variables are read, and rc.subr is found, only on FreeBSD.
    let words = ["shellcheck", "-s", "sh", "-e", "SC1091,SC2034", path.to_str().unwrap()];
    match run(&words) {
        Ok(output) => assert!(output.ok(), "{}", output.text),
        Err(why) => println!("not run: shellcheck: {why}"),
    }
}

#[test]
fn systemd_accepts_the_unit() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("zedd.service");
    // systemd looks whether the program is there.
    let service = ZeddService { program: "/bin/true".into(), ..service() };
    std::fs::write(&path, ServiceManager::Systemd.render(&service).unwrap()).unwrap();
    match run(&["systemd-analyze", "verify", "--man=no", path.to_str().unwrap()]) {
        Ok(output) => {
            let about_it: Vec<_> = output.text.lines().filter(|line| line.contains("zedd.service")).collect();
            assert!(about_it.is_empty(), "{about_it:?}");
        }
        Err(why) => println!("not run: systemd-analyze: {why}"),
    }
}

#[test]
fn the_manifest_is_valid_by_the_declarations_of_illumos() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/illumos/service_bundle.dtd");
    let dtd = std::env::var_os("ZED_TEST_SMF_DTD").map_or(beside, PathBuf::from);
    if !dtd.is_file() {
        println!("not run: {} is missing; ZED_TEST_SMF_DTD names another place", dtd.display());
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("zedd.xml");
    std::fs::write(&path, ServiceManager::Smf.render(&service()).unwrap()).unwrap();
    let dtd = dtd.to_str().unwrap();
    match run(&["xmllint", "--nonet", "--noout", "--dtdvalid", dtd, path.to_str().unwrap()]) {
        Ok(output) => assert!(output.ok(), "{}", output.text),
        Err(why) => println!("not run: xmllint: {why}"),
    }
}

/// A service manager with the ways of the three: answers by the command's first words, keeps a list.
struct Manager {
    state: &'static str,
    fails: Option<&'static str>,
    ran: parking_lot::Mutex<Vec<String>>,
}

impl Commands for Manager {
    fn run(&self, command: &ToolCommand) -> Result<Output, String> {
        let line = command.line();
        let asks = ["systemctl is-enabled", "sysrc -n", "svcs "].iter().any(|ask| line.starts_with(ask));
        let code = i32::from(self.fails.is_some_and(|word| line.contains(word)));
        self.ran.lock().push(line);
        let text = if asks { format!("{}\n", self.state) } else { String::new() };
        Ok(Output { ended: crate::Ended::Exit(code), text })
    }
}

#[test]
fn an_install_is_judged_by_what_the_manager_says_afterwards() {
    use ServiceManager as M;
    // Manager, what it says afterwards, a command that fails, what the outcome says.
    for (manager, state, fails, expect) in [
        (M::Systemd, "enabled", None, Ok(())),
        (M::Systemd, "disabled", None, Err("`disabled`")),
        (M::Systemd, "enabled", Some("daemon-reload"), Err("daemon-reload")),
        (M::Rcd, "YES", None, Ok(())),
        (M::Rcd, "NO", None, Err("`NO`")),
        (M::Smf, "online", None, Ok(())),
        (M::Smf, "offline*", None, Ok(())),
        // svccfg import exits 0 of a service whose start method fails.
        (M::Smf, "maintenance", None, Err("`maintenance`")),
        (M::Smf, "online", Some("validate"), Err("validate")),
    ] {
        let commands = Manager { state, fails, ran: parking_lot::Mutex::default() };
        let files = crate::guest::SimGuests::new();
        let done = manager.install(&service(), &commands, &files);
        match expect {
            Ok(()) => assert_eq!(done.unwrap(), manager.place().0),
            Err(word) => {
                assert!(done.unwrap_err().to_string().contains(word), "{manager:?} {state} {fails:?}")
            }
        }
        let written = files.read(&manager.place().0).unwrap().unwrap();
        assert_eq!(written, manager.render(&service()).unwrap().as_bytes());
    }
}

/// What is run, and the manual page that says so.
#[test]
fn every_command_line_is_as_its_manual_page_says() {
    let rows = [
        (
            ServiceManager::Systemd,
            "systemctl daemon-reload; systemctl enable zedd.service; systemctl is-enabled zedd.service",
            "systemctl(1)",
        ),
        (ServiceManager::Rcd, "sysrc zedd_enable=YES; sysrc -n zedd_enable", "sysrc(8)"),
        (
            ServiceManager::Smf,
            "svccfg validate /lib/svc/manifest/site/zedd.xml; svccfg import /lib/svc/manifest/site/zedd.xml; svcs -H -o state \
             svc:/system/zedd:default",
            "svccfg(8), svcs(1)",
        ),
    ];
    for (manager, lines, page) in rows {
        let mut commands: Vec<String> = manager.enable().iter().map(ToolCommand::line).collect();
        commands.push(manager.is_enabled().0.line());
        assert_eq!(commands.join("; "), lines, "{page}");
    }
}
