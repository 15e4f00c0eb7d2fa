//! zonecfg(8), zoneadm(8), zlogin(1), dladm(8), and the services of a zone as svcs(1) shows them.

use super::Said;
use super::SimZone;
use super::World;
use super::said;
use std::path::Path;
use std::path::PathBuf;

/// Looks at a zone until it runs, and until its services are up.
const SLOW: u32 = 2;

fn property(config: &[String], name: &str) -> Option<String> {
    let value = config.iter().find_map(|line| line.strip_prefix(&format!("set {name}=")))?;
    Some(value.trim_matches('"').to_owned())
}

/// The blocks of a resource: from its `add` to its `end`.
fn without(config: &[String], resource: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut inside = false;
    for line in config {
        if *line == format!("add {resource}") {
            inside = true;
        } else if inside {
            inside = line != "end";
        } else {
            out.push(line.clone());
        }
    }
    out
}

impl World {
    pub(super) fn illumos(&mut self, argv: &[&str]) -> Said {
        match argv {
            ["zoneadm", "list", "-cp"] => self.zones_list(),
            ["zoneadm", "-z", name, verb, ..] => self.zoneadm(name, verb),
            ["zonecfg", "-z", name, "-f", file] => self.zonecfg_file(name, file),
            ["zonecfg", "-z", name, "export"] => match self.zones.get(*name) {
                Some(zone) => said(0, zone.config.join("\n") + "\n"),
                None => said(1, format!("{name}: No such zone configured")),
            },
            ["zonecfg", "-z", name, "delete", "-F"] => {
                match self.zones.get(*name).map(|zone| zone.state.clone()) {
                    None => said(1, format!("{name}: No such zone configured")),
                    Some(state) if state == "configured" => {
                        self.zones.remove(*name);
                        self.tree.take(&Path::new("/etc/zones").join(format!("{name}.xml")));
                        said(0, "")
                    }
                    Some(state) => said(1, format!("Zone {name} is {state}; delete not allowed.")),
                }
            }
            ["zlogin", "-n", name, rest @ ..] => self.zlogin(name, rest),
            ["dladm", "show-vnic", "-p", "-o", "link,over"] => {
                said(0, self.vnics.iter().map(|(link, over)| format!("{link}:{over}\n")).collect::<String>())
            }
            ["dladm", "create-vnic", "-l", over, vnic] => match self.vnics.contains_key(*vnic) {
                true => said(1, "dladm: vnic creation failed: object already exists"),
                false => {
                    self.vnics.insert((*vnic).to_owned(), (*over).to_owned());
                    said(0, "")
                }
            },
            ["dladm", "delete-vnic", vnic] => {
                let used = self.zones.values().any(|zone| {
                    zone.id.is_some()
                        && zone.config.iter().any(|line| *line == format!("set physical={vnic}"))
                });
                match (used, self.vnics.contains_key(*vnic)) {
                    (true, _) => said(1, "dladm: vnic deletion failed: link busy"),
                    (false, false) => said(1, "dladm: invalid link name"),
                    (false, true) => {
                        self.vnics.remove(*vnic);
                        said(0, "")
                    }
                }
            }
            ["chmod", "0700", path] => {
                self.tree.put(&Path::new("/sim/protected").join(path.trim_start_matches('/')), b"", 0o600);
                said(0, "")
            }
            _ => said(64, format!("usage: {}", argv.first().unwrap_or(&""))),
        }
    }

    /// Time passes with each look: a boot and a shutdown end by themselves.
    fn zones_list(&mut self) -> Said {
        let mut out = String::from("0:global:running:/::ipkg:shared:0\n");
        for (name, zone) in &mut self.zones {
            let next = match zone.state.as_str() {
                "ready" => Some("running"),
                "shutting_down" => Some("installed"),
                _ => None,
            };
            if let Some(next) = next {
                zone.pending = zone.pending.saturating_sub(1);
                if zone.pending == 0 {
                    next.clone_into(&mut zone.state);
                }
            }
            if zone.state == "installed" {
                zone.id = None;
            }
            let id = zone.id.map_or("-".to_owned(), |id| id.to_string());
            let path = property(&zone.config, "zonepath").unwrap_or_default().replace(':', "\\:");
            let brand = property(&zone.config, "brand").unwrap_or_default();
            out.push_str(&format!("{id}:{name}:{}:{path}:uuid:{brand}:excl:0\n", zone.state));
        }
        said(0, out)
    }

    fn zonecfg_file(&mut self, name: &str, file: &str) -> Said {
        let Some(text) = self.tree.text(Path::new(file)) else {
            return said(1, format!("could not open file {file}: No such file or directory"));
        };
        let known = self.zones.get(name).cloned();
        let state = known.as_ref().map_or("configured", |zone| zone.state.as_str()).to_owned();
        let fixed = !matches!(state.as_str(), "configured" | "incomplete");
        let mut config = known.as_ref().map(|zone| zone.config.clone()).unwrap_or_default();
        let mut committed = None;
        let mut inside = false;
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["create", ..] if fixed => {
                    return said(1, format!("Zone {name} already installed; create not allowed."));
                }
                ["create", ..] => config = vec!["create -b".to_owned()],
                ["remove", "-F", resource] => {
                    if !config.contains(&format!("add {resource}")) {
                        return said(1, format!("No such {resource} resource."));
                    }
                    config = without(&config, resource);
                }
                ["clear", property] => config.retain(|line| !line.starts_with(&format!("set {property}="))),
                ["verify"] if config.is_empty() => {
                    return said(1, format!("{name}: No such zone configured"));
                }
                ["verify"] => {}
                ["commit"] => committed = Some(config.clone()),
                ["set", setting] if !inside => {
                    let key = setting.split('=').next().unwrap_or_default();
                    if fixed && matches!(key, "zonepath" | "brand") {
                        return said(1, format!("Zone {name} already installed; set {key} not allowed."));
                    }
                    let at = config.iter().position(|line| line.starts_with(&format!("set {key}=")));
                    match at {
                        Some(at) => line.clone_into(&mut config[at]),
                        None => config.push(line.to_owned()),
                    }
                }
                ["add", _] => {
                    inside = true;
                    config.push(line.to_owned());
                }
                ["end"] => {
                    inside = false;
                    config.push(line.to_owned());
                }
                _ if inside => config.push(line.to_owned()),
                _ => return said(1, format!("{file}: syntax error: {line}")),
            }
        }
        let Some(config) = committed else { return said(0, "") };
        // The order of properties follows no resource: they come first.
        let (mut properties, mut resources, mut inside) = (Vec::new(), Vec::new(), false);
        for line in config {
            inside |= line.starts_with("add ") && !line.starts_with("add options");
            if inside {
                resources.push(line.clone())
            } else {
                properties.push(line.clone())
            }
            inside &= line != "end";
        }
        properties.extend(resources);
        let xml = properties.join("\n");
        self.tree.put(&Path::new("/etc/zones").join(format!("{name}.xml")), xml.as_bytes(), 0o644);
        let zone = SimZone { config: properties, state, ..known.unwrap_or_default() };
        self.zones.insert(name.to_owned(), zone);
        said(0, "")
    }

    fn zoneadm(&mut self, name: &str, verb: &str) -> Said {
        let Some(mut zone) = self.zones.get(name).cloned() else {
            return said(1, format!("zoneadm: {name}: No such zone configured"));
        };
        let path = PathBuf::from(property(&zone.config, "zonepath").unwrap_or_default());
        let root = path.join("root/etc/release");
        let refused =
            |state: &str| said(1, format!("zoneadm: zone '{name}': must be {state} before {verb}."));
        let outcome = match (verb, zone.state.as_str()) {
            ("install", "configured") => {
                let protected =
                    Path::new("/sim/protected").join(path.to_string_lossy().trim_start_matches('/'));
                if !self.tree.exists(&protected) {
                    return said(1, format!("{} must not be group readable.", path.display()));
                }
                if self.no_network {
                    // It had begun.
                    "incomplete".clone_into(&mut zone.state);
                    self.zones.insert(name.to_owned(), zone);
                    return said(1, "pkg: Unable to contact any configured publishers.");
                }
                self.tree.put(&root, b"illumos\n", 0o644);
                "installed".clone_into(&mut zone.state);
                said(0, "")
            }
            ("attach", "configured") if self.tree.exists(&root) => {
                "installed".clone_into(&mut zone.state);
                said(0, "")
            }
            ("attach", "configured") => said(1, "zoneadm: the zonepath holds no zone"),
            ("detach", "installed") => {
                "configured".clone_into(&mut zone.state);
                said(0, "")
            }
            ("uninstall", "incomplete" | "installed") => {
                self.tree.take(&root);
                "configured".clone_into(&mut zone.state);
                said(0, "")
            }
            // It returns at once: the zone is not up, and its services are not, for some time.
            ("boot", "installed") => {
                self.next_zone += 1;
                zone.id = Some(self.next_zone);
                "ready".clone_into(&mut zone.state);
                (zone.pending, zone.services_in) = (SLOW, SLOW);
                said(0, "")
            }
            ("shutdown", "running") => {
                "shutting_down".clone_into(&mut zone.state);
                zone.pending = SLOW;
                said(0, "")
            }
            ("halt", "running" | "ready" | "shutting_down") => {
                "installed".clone_into(&mut zone.state);
                zone.id = None;
                said(0, "")
            }
            ("boot" | "detach", _) => refused("installed"),
            ("shutdown", _) => refused("running"),
            _ => refused("configured"),
        };
        self.zones.insert(name.to_owned(), zone);
        outcome
    }

    fn zlogin(&mut self, name: &str, argv: &[&str]) -> Said {
        let maintenance = self.maintenance.contains(name);
        let Some(zone) = self.zones.get_mut(name).filter(|zone| zone.state == "running") else {
            return said(1, "zlogin: login allowed only to running zones");
        };
        match argv {
            ["/usr/bin/svcs", ..] => {
                zone.services_in = zone.services_in.saturating_sub(1);
                let state = match zone.services_in {
                    0 if maintenance => "maintenance",
                    0 => "online",
                    _ => "offline*",
                };
                said(0, format!("{state}\n"))
            }
            _ => said(0, ""),
        }
    }
}
