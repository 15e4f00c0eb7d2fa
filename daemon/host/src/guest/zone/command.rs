//! The command lines of a zone's tools, as typed values.
//!
//! Owns argv and deadlines, each with the manual page that it follows. Builds only; a table of tests holds every
//! line.

use crate::guest::commands::ToolCommand;
use std::path::PathBuf;
use std::time::Duration;

/// Looking, and small changes.
const SHORT: Duration = Duration::from_secs(30);
/// Stopping runs the stop methods of every service inside.
const METHODS: Duration = Duration::from_secs(600);
/// Installing a brand fetches or copies a whole system.
const LONG: Duration = Duration::from_secs(3600);

/// The service whose being online means that a zone is up.
const MILESTONE: &str = "svc:/milestone/multi-user-server:default";

/// One command of a zone's tools. `name` is the zone's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneCommand {
    /// Every zone in every state. zoneadm(8): `list -cp`.
    List,
    /// Run a command file. zonecfg(8): `-f`.
    Configure {
        /// The zone.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// Print the configuration as commands. zonecfg(8): `export`.
    Export {
        /// The zone.
        name: String,
    },
    /// Remove the configuration. zonecfg(8): `delete -F`.
    Delete {
        /// The zone.
        name: String,
    },
    /// A zonepath may be entered by root alone. chmod(1).
    Protect {
        /// The zonepath.
        path: PathBuf,
    },
    /// Install the brand's system. zoneadm(8): `install`.
    Install {
        /// The zone.
        name: String,
    },
    /// Take a system that is in the zonepath already. zoneadm(8): `attach`.
    Attach {
        /// The zone.
        name: String,
    },
    /// Let go of the system, which stays in the zonepath. zoneadm(8): `detach`.
    Detach {
        /// The zone.
        name: String,
    },
    /// Clear up an install that did not end. zoneadm(8): `uninstall -F`.
    ClearIncomplete {
        /// The zone.
        name: String,
    },
    /// Boot; returns before the zone is up. zoneadm(8): `boot`.
    Boot {
        /// The zone.
        name: String,
    },
    /// Stop with the stop methods of its services. zoneadm(8): `shutdown`.
    Shutdown {
        /// The zone.
        name: String,
    },
    /// Stop at once. zoneadm(8): `halt`.
    Halt {
        /// The zone.
        name: String,
    },
    /// Run a program inside. zlogin(1).
    Exec {
        /// The zone.
        name: String,
        /// Program and arguments, without anything that a shell would read.
        argv: Vec<String>,
    },
    /// State of the milestone that everything else comes before. zlogin(1), svcs(1): `-H -o state`.
    Milestone {
        /// The zone.
        name: String,
    },
    /// Virtual interfaces. dladm(8): `show-vnic -p -o`.
    Vnics,
    /// Make one. dladm(8): `create-vnic -l`.
    CreateVnic {
        /// Its name.
        vnic: String,
        /// The link below.
        over: String,
    },
    /// Remove one. dladm(8): `delete-vnic`.
    DeleteVnic {
        /// Its name.
        vnic: String,
    },
}

impl ZoneCommand {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        match self {
            Self::List => words(&["zoneadm", "list", "-cp"]),
            Self::Configure { name, file } => words(&["zonecfg", "-z", name, "-f", &file.to_string_lossy()]),
            Self::Export { name } => words(&["zonecfg", "-z", name, "export"]),
            Self::Delete { name } => words(&["zonecfg", "-z", name, "delete", "-F"]),
            Self::Protect { path } => words(&["chmod", "0700", &path.to_string_lossy()]),
            Self::Install { name } => words(&["zoneadm", "-z", name, "install"]),
            Self::Attach { name } => words(&["zoneadm", "-z", name, "attach"]),
            Self::Detach { name } => words(&["zoneadm", "-z", name, "detach"]),
            Self::ClearIncomplete { name } => words(&["zoneadm", "-z", name, "uninstall", "-F"]),
            Self::Boot { name } => words(&["zoneadm", "-z", name, "boot"]),
            Self::Shutdown { name } => words(&["zoneadm", "-z", name, "shutdown"]),
            Self::Halt { name } => words(&["zoneadm", "-z", name, "halt"]),
            Self::Exec { name, argv } => {
                words(&["zlogin", "-n", name]).into_iter().chain(argv.iter().cloned()).collect()
            }
            Self::Milestone { name } => {
                words(&["zlogin", "-n", name, "/usr/bin/svcs", "-H", "-o", "state", MILESTONE])
            }
            Self::Vnics => words(&["dladm", "show-vnic", "-p", "-o", "link,over"]),
            Self::CreateVnic { vnic, over } => words(&["dladm", "create-vnic", "-l", over, vnic]),
            Self::DeleteVnic { vnic } => words(&["dladm", "delete-vnic", vnic]),
        }
    }

    /// What the runner is given.
    pub fn command(&self) -> ToolCommand {
        ToolCommand { argv: self.argv(), deadline: self.deadline() }
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::List
            | Self::Configure { .. }
            | Self::Export { .. }
            | Self::Delete { .. }
            | Self::Protect { .. }
            | Self::Milestone { .. }
            | Self::Vnics
            | Self::CreateVnic { .. }
            | Self::DeleteVnic { .. } => SHORT,
            Self::Boot { .. } | Self::Shutdown { .. } | Self::Halt { .. } | Self::Exec { .. } => METHODS,
            Self::Install { .. }
            | Self::Attach { .. }
            | Self::Detach { .. }
            | Self::ClearIncomplete { .. } => LONG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_is_as_its_manual_page_says() {
        use ZoneCommand as C;
        let name = || "shop-z".to_owned();
        let vnic = || "shop_z0".to_owned();
        // What it is for, the command, its argv as one line, the manual page that it follows.
        let rows: [(&str, C, &str, &str); 17] = [
            ("look", C::List, "zoneadm list -cp", "zoneadm(8)"),
            (
                "configure",
                C::Configure { name: name(), file: "/s/shop-z.zonecfg".into() },
                "zonecfg -z shop-z -f /s/shop-z.zonecfg",
                "zonecfg(8)",
            ),
            ("configuration", C::Export { name: name() }, "zonecfg -z shop-z export", "zonecfg(8)"),
            ("forget", C::Delete { name: name() }, "zonecfg -z shop-z delete -F", "zonecfg(8)"),
            ("protect", C::Protect { path: "/z/shop".into() }, "chmod 0700 /z/shop", "chmod(1)"),
            ("install", C::Install { name: name() }, "zoneadm -z shop-z install", "zoneadm(8)"),
            ("attach", C::Attach { name: name() }, "zoneadm -z shop-z attach", "zoneadm(8)"),
            ("detach", C::Detach { name: name() }, "zoneadm -z shop-z detach", "zoneadm(8)"),
            ("clear", C::ClearIncomplete { name: name() }, "zoneadm -z shop-z uninstall -F", "zoneadm(8)"),
            ("boot", C::Boot { name: name() }, "zoneadm -z shop-z boot", "zoneadm(8)"),
            ("shutdown", C::Shutdown { name: name() }, "zoneadm -z shop-z shutdown", "zoneadm(8)"),
            ("halt", C::Halt { name: name() }, "zoneadm -z shop-z halt", "zoneadm(8)"),
            (
                "inside",
                C::Exec { name: name(), argv: vec!["/bin/sh".into(), "/x".into()] },
                "zlogin -n shop-z /bin/sh /x",
                "zlogin(1)",
            ),
            (
                "up?",
                C::Milestone { name: name() },
                "zlogin -n shop-z /usr/bin/svcs -H -o state svc:/milestone/multi-user-server:default",
                "svcs(1)",
            ),
            ("interfaces", C::Vnics, "dladm show-vnic -p -o link,over", "dladm(8)"),
            (
                "interface",
                C::CreateVnic { vnic: vnic(), over: "net0".into() },
                "dladm create-vnic -l net0 shop_z0",
                "dladm(8)",
            ),
            ("no interface", C::DeleteVnic { vnic: vnic() }, "dladm delete-vnic shop_z0", "dladm(8)"),
        ];
        for (what, command, argv, page) in rows {
            assert_eq!(command.argv().join(" "), argv, "{what}, {page}");
            assert!(!command.deadline().is_zero(), "{what}");
        }
    }
}
