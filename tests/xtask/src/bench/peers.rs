//! What others take to find that nothing is to be done: Ansible and pyinfra, from PyPI, on this machine.

use super::Options;
use super::Samples;
use crate::shell::Cmd;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// Resources of a run: files with their content.
pub(super) const RESOURCES: u32 = 10;

/// How long `ansible-playbook` takes over files that are as they should be. The inner error says why it could
/// not be measured.
pub(super) fn ansible(options: &Options, dir: &Path, times: u32) -> Result<Result<Samples, String>, String> {
    let bin = match crate::suite::ansible_programs(options.no_install)? {
        Ok(bin) => bin,
        Err(why) => return Ok(Err(why)),
    };
    let mut play = String::from("- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n");
    for n in 0..RESOURCES {
        let dest = dir.join(format!("ansible-{n}"));
        let _ = writeln!(
            play,
            "    - copy: {{dest: \"{}\", content: \"file {n}\", mode: \"0644\"}}",
            dest.display()
        );
    }
    write(&dir.join("play.yml"), &play)?;
    let run = || {
        Cmd::new(bin.join("ansible-playbook"))
            .args(["-i", "localhost,", "-e", "ansible_python_interpreter=/usr/bin/python3", "play.yml"])
            .dir(dir)
            .env("HOME", dir)
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_NOCOWS", "1")
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()))
            .read()
    };
    repeated(times, "changed=0", 1, run).map(Ok)
}

/// The same for pyinfra.
pub(super) fn pyinfra(options: &Options, dir: &Path, times: u32) -> Result<Result<Samples, String>, String> {
    let bin = match crate::suite::python_programs(options.no_install, "peers", "pyinfra==3.*", "pyinfra")? {
        Ok(bin) => bin,
        Err(why) => return Ok(Err(why)),
    };
    write(&dir.join("same"), "the same\n")?;
    let mut deploy = String::from("from pyinfra.operations import files\n");
    for n in 0..RESOURCES {
        let dest = dir.join(format!("pyinfra-{n}"));
        let _ = writeln!(deploy, "files.put(src=\"same\", dest=\"{}\", mode=\"644\")", dest.display());
    }
    write(&dir.join("deploy.py"), &deploy)?;
    let run =
        || Cmd::new(bin.join("pyinfra")).args(["-y", "@local", "deploy.py"]).dir(dir).env("HOME", dir).read();
    repeated(times, "] No changes", RESOURCES as usize, run).map(Ok)
}

/// Runs it once to make the files, then measures runs that must say that nothing changed.
fn repeated(
    times: u32,
    unchanged: &str,
    said: usize,
    run: impl Fn() -> Result<String, String>,
) -> Result<Samples, String> {
    run()?;
    let mut samples = Samples::default();
    for _ in 0..times {
        let start = Instant::now();
        let output = run()?;
        let took: Duration = start.elapsed();
        if output.matches(unchanged).count() < said {
            return Err(format!("a repeated run does not say `{unchanged}` {said} times:\n{output}"));
        }
        samples.add(took);
    }
    Ok(samples)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
