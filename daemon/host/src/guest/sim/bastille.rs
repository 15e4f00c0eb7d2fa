//! bastille(8) 1.x, by its scripts. It says what is wrong and exits 0 wherever they do: `error_continue` goes on with
//! the next jail, and the last command of the loop decides.

use super::Said;
use super::World;
use super::said;
use std::path::Path;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    Path::new("/usr/local/bastille/jails").join(name)
}

impl World {
    /// Jails that it knows: folders with a jail.conf.
    fn bastille_jails(&self) -> Vec<String> {
        let names = self.tree.list(Path::new("/usr/local/bastille/jails")).unwrap_or_default();
        names.into_iter().filter(|name| self.tree.exists(&folder(name).join("jail.conf"))).collect()
    }

    /// set_target: a name, a number, `all`, or the beginning of one name. In a name a point stands for any letter,
    /// because it is handed to grep(1).
    fn targets(&self, target: &str) -> Vec<String> {
        let known = self.bastille_jails();
        if target.eq_ignore_ascii_case("all") {
            return known;
        }
        if target.bytes().all(|b| b.is_ascii_digit()) {
            let jid = target.parse().unwrap_or(0);
            return self
                .jails
                .iter()
                .filter(|(_, jail)| jail.jid == jid)
                .map(|(name, _)| name.clone())
                .collect();
        }
        let fits = |name: &str, whole: bool| {
            (name.len() == target.len() || (!whole && name.len() > target.len()))
                && name.bytes().zip(target.bytes()).all(|(n, t)| t == b'.' || n == t)
        };
        let exact: Vec<String> = known.iter().filter(|name| fits(name, true)).cloned().collect();
        if !exact.is_empty() {
            return exact;
        }
        let begins: Vec<String> = known.into_iter().filter(|name| fits(name, false)).collect();
        if begins.len() == 1 { begins } else { Vec::new() }
    }

    pub(super) fn bastille(&mut self, verb: &str, argv: &[&str]) -> Said {
        match (verb, argv) {
            ("list", ["jails"]) => {
                let names = self.bastille_jails();
                said(0, names.iter().map(|name| format!("{name}\n")).collect::<String>())
            }
            ("bootstrap", [release]) => {
                let release = (*release).to_owned();
                if self.no_network {
                    return said(0, "Unable to fetch MANIFEST. See 'bootstrap urls'.");
                }
                let version = format!("USERLAND_VERSION=\"{release}\"\n");
                let kept = Path::new("/usr/local/bastille/releases").join(&release);
                self.tree.put(&kept.join("bin/freebsd-version"), version.as_bytes(), 0o555);
                self.tree.put(&kept.join("etc/rc"), b"#!/bin/sh\n", 0o644);
                said(0, "Bootstrap successful.")
            }
            ("create", ["-E", name]) => self.bastille_create(name),
            ("start" | "stop" | "cmd" | "mount" | "destroy", argv) => self.bastille_each(verb, argv),
            _ => said(1, "Usage: bastille command TARGET [args]"),
        }
    }

    fn bastille_create(&mut self, name: &str) -> Said {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.targets(name).iter().any(|known| known == name) {
            return said(1, format!("[ERROR]: Jail already exists: {name}"));
        }
        if name.starts_with(['-', '_'])
            || !name.chars().all(plain)
            || name.bytes().all(|b| b.is_ascii_digit())
        {
            return said(1, "[ERROR]: Jail names may not contain special characters!");
        }
        let folder = folder(name);
        if !self.tree.is_folder(&folder) {
            let _ = self.tree.make_folder(&folder.join("root"));
        }
        let root = folder.join("root");
        let conf = format!(
            "{name} {{\n  host.hostname = {name};\n  mount.fstab = {};\n  path = {};\n}}\n",
            folder.join("fstab").display(),
            root.display()
        );
        self.tree.put(&folder.join("jail.conf"), conf.as_bytes(), 0o644);
        self.tree.put(&folder.join("fstab"), b"", 0o644);
        self.tree.put(&folder.join("settings.conf"), b"boot=\"on\"\ndepend=\"\"\npriority=\"99\"\n", 0o644);
        if self.empty_template {
            // Starts what has no system: fails, and says nothing.
            let _ = self.create_jail(name, &folder.join("jail.conf"));
        }
        said(0, format!("Creating empty jail: {name}"))
    }

    fn bastille_each(&mut self, verb: &str, argv: &[&str]) -> Said {
        let options: Vec<&str> = argv.iter().copied().take_while(|word| word.starts_with('-')).collect();
        let auto = options.iter().any(|word| word.contains('a'));
        let Some((target, rest)) = argv[options.len()..].split_first() else {
            return said(1, "Usage: bastille command TARGET [args]");
        };
        let targets = self.targets(target);
        if targets.is_empty() {
            return said(1, format!("[ERROR]: Jail not found: {target}"));
        }
        let mut text = String::new();
        for name in targets {
            let conf = folder(&name).join("jail.conf");
            let runs = self.jails.contains_key(&name);
            let (_, line) = match verb {
                "start" if runs => said(0, "Jail is already running."),
                // The script ends with `sleep 0`, whatever jail(8) said.
                "start" => self.create_jail(&name, &conf),
                "stop" if !runs => said(0, "Jail is already stopped."),
                "stop" if self.sticky.contains(&name) => said(0, "jail: /etc/rc.shutdown: failed"),
                "stop" => self.remove_jail(&name),
                "cmd" | "mount" if !runs && !auto => said(0, "Jail is not running."),
                "cmd" => said(0, ""),
                "mount" => self.bastille_mount(&name, rest),
                "destroy" if runs && !auto => {
                    said(0, "Jail is running. Use [-a|--auto] to auto-stop the jail.")
                }
                // Without -y it asks, and nobody answers.
                _ if !options.iter().any(|word| word.contains('y')) => {
                    return said(1, "[ERROR]: Invalid input. Please answer 'y' or 'n'.");
                }
                _ => {
                    let _ = self.remove_jail(&name);
                    // rm -rf takes a link away, and not what it leads to; a root of its own is gone.
                    self.tree.remove_all(&folder(&name));
                    said(0, "Destroying jail...")
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        said(0, text)
    }

    /// HOST_PATH JAIL_PATH TYPE OPTIONS DUMP PASS: six columns, or only a word of advice.
    fn bastille_mount(&mut self, name: &str, columns: &[&str]) -> Said {
        let [source, target, kind, options, dump, pass] = columns else {
            return said(0, "FSTAB format not recognized.");
        };
        let path = folder(name).join("root").join(target.trim_start_matches('/'));
        let _ = self.tree.make_folder(&path);
        let fstab = folder(name).join("fstab");
        let mut text = self.tree.text(&fstab).unwrap_or_default();
        text.push_str(&format!("{source} {} {kind} {options} {dump} {pass}\n", path.display()));
        self.tree.put(&fstab, text.as_bytes(), 0o644);
        said(0, "Added")
    }

    /// True when Bastille's folder of a jail leads to a root elsewhere.
    #[cfg(test)]
    pub(super) fn has_linked_root(&self, name: &str) -> bool {
        self.tree.is_link(&folder(name).join("root"))
    }
}
