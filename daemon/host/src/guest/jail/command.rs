//! The command lines of a jail's tools, as typed values.
//!
//! Owns argv and deadlines, each with the manual page that it follows. Builds only; a table of tests holds every
//! line.

use crate::guest::commands::ToolCommand;
use std::path::PathBuf;
use std::time::Duration;

/// Looking, and small changes.
const SHORT: Duration = Duration::from_secs(30);
/// Starting and stopping run every rc script of the jail.
const SCRIPTS: Duration = Duration::from_secs(300);
/// What fetches from the network or copies a whole system.
const LONG: Duration = Duration::from_secs(1800);

/// One command of a jail's tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JailCommand {
    /// Every jail, dying ones included. jls(8): `-d`, `-q`, parameters.
    List,
    /// Create, from a file of its own. jail(8): `-f`, `-c`.
    Create {
        /// The jail.
        name: String,
        /// Its jail.conf(5).
        conf: PathBuf,
    },
    /// Stop and remove. jail(8): `-f`, `-r`.
    Remove {
        /// The jail.
        name: String,
        /// Its jail.conf(5).
        conf: PathBuf,
    },
    /// Remove without the commands of its file, when there is no file. jail(8): `-R`.
    RemoveBare {
        /// The jail.
        name: String,
    },
    /// Run a program inside, as root. jexec(8).
    Exec {
        /// The jail.
        name: String,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Names of the packages inside. pkg-query(8), pkg(8): `-j`.
    PackageNames {
        /// The jail.
        name: String,
    },
    /// Names of the packages that are wanted for themselves or that nothing needs. pkg-query(8): `-e`.
    PackagesNotNeeded {
        /// The jail.
        name: String,
    },
    /// Install packages. pkg-install(8), pkg(8): `-j`.
    PackageInstall {
        /// The jail.
        name: String,
        /// Packages.
        packages: Vec<String>,
    },
    /// Mark packages as not wanted for themselves. pkg-set(8), pkg(8): `-j`.
    PackageRelease {
        /// The jail.
        name: String,
        /// Packages.
        packages: Vec<String>,
    },
    /// Remove what nothing needs and nobody wants for itself. pkg-autoremove(8), pkg(8): `-j`.
    PackageAutoremove {
        /// The jail.
        name: String,
    },
    /// Enable a service inside. sysrc(8): `-j`.
    ServiceEnable {
        /// The jail.
        name: String,
        /// The service.
        service: String,
    },
    /// Forget that a service is enabled. sysrc(8): `-j`, `-x`, `-i`.
    ServiceDisable {
        /// The jail.
        name: String,
        /// The service.
        service: String,
    },
    /// A verb of a service inside. service(8): `-j`.
    Service {
        /// The jail.
        name: String,
        /// The service.
        service: String,
        /// `status`, `start`, `onestop`.
        verb: &'static str,
    },
    /// Rules of resource limits that name the jail. rctl(8): a filter.
    Limits {
        /// The jail.
        name: String,
    },
    /// Unpack the base system. tar(1): `-x`, `-p`, `-f`, `-C`, `--unlink`; the handbook's way to a thick jail.
    ExtractBase {
        /// base.txz.
        archive: PathBuf,
        /// The root.
        root: PathBuf,
    },
    /// Copy the base system that Bastille keeps. cp(1): `-a`.
    CopyBase {
        /// Bastille's release.
        release: PathBuf,
        /// The root.
        root: PathBuf,
    },
    /// Take immutable flags away below a root, so that it can be filled again. chflags(1): `-R`.
    ClearFlags {
        /// The root.
        root: PathBuf,
    },
    /// Fetch a release. bastille(8): `bootstrap`.
    BastilleBootstrap {
        /// `14.2-RELEASE`.
        release: String,
    },
    /// Make a jail without a system and without starting it. bastille(8): `create -E`.
    BastilleCreate {
        /// The jail.
        name: String,
    },
    /// Start. bastille(8): `start`.
    BastilleStart {
        /// The jail.
        name: String,
    },
    /// Stop. bastille(8): `stop`.
    BastilleStop {
        /// The jail.
        name: String,
    },
    /// Every jail that Bastille knows. bastille(8): `list jails`.
    BastilleList,
}

impl JailCommand {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let with = |first: &[&str], more: &[String]| -> Vec<String> {
            words(first).into_iter().chain(more.iter().cloned()).collect()
        };
        match self {
            Self::List => words(&["jls", "-d", "-q", "jid", "dying", "name", "path"]),
            Self::Create { name, conf } => words(&["jail", "-f", &conf.to_string_lossy(), "-c", name]),
            Self::Remove { name, conf } => words(&["jail", "-f", &conf.to_string_lossy(), "-r", name]),
            Self::RemoveBare { name } => words(&["jail", "-R", name]),
            Self::Exec { name, argv } => with(&["jexec", name], argv),
            Self::PackageNames { name } => words(&["pkg", "-j", name, "query", "%n %o"]),
            Self::PackagesNotNeeded { name } => {
                words(&["pkg", "-j", name, "query", "-e", "%a = 0 || %#r = 0", "%n %o"])
            }
            Self::PackageInstall { name, packages } => with(&["pkg", "-j", name, "install", "-y"], packages),
            Self::PackageRelease { name, packages } => {
                with(&["pkg", "-j", name, "set", "-y", "-A", "1"], packages)
            }
            Self::PackageAutoremove { name } => words(&["pkg", "-j", name, "autoremove", "-y"]),
            Self::ServiceEnable { name, service } => {
                words(&["sysrc", "-j", name, &format!("{service}_enable=YES")])
            }
            Self::ServiceDisable { name, service } => {
                words(&["sysrc", "-j", name, "-i", "-x", &format!("{service}_enable")])
            }
            Self::Service { name, service, verb } => words(&["service", "-j", name, service, verb]),
            Self::Limits { name } => words(&["rctl", &format!("jail:{name}")]),
            Self::ExtractBase { archive, root } => {
                words(&["tar", "-xpf", &archive.to_string_lossy(), "-C", &root.to_string_lossy(), "--unlink"])
            }
            // The point makes cp copy what is in the release, whether or not the root is there.
            Self::CopyBase { release, root } => {
                words(&["cp", "-a", &format!("{}/.", release.display()), &root.to_string_lossy()])
            }
            Self::ClearFlags { root } => words(&["chflags", "-R", "noschg", &root.to_string_lossy()]),
            Self::BastilleBootstrap { release } => words(&["bastille", "bootstrap", release]),
            Self::BastilleCreate { name } => words(&["bastille", "create", "-E", name]),
            Self::BastilleStart { name } => words(&["bastille", "start", name]),
            Self::BastilleStop { name } => words(&["bastille", "stop", name]),
            Self::BastilleList => words(&["bastille", "list", "jails"]),
        }
    }

    /// What the runner is given.
    pub fn command(&self) -> ToolCommand {
        ToolCommand { argv: self.argv(), deadline: self.deadline() }
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::List
            | Self::PackageNames { .. }
            | Self::PackagesNotNeeded { .. }
            | Self::ServiceEnable { .. }
            | Self::ServiceDisable { .. }
            | Self::Limits { .. }
            | Self::BastilleCreate { .. }
            | Self::BastilleList => SHORT,
            Self::Create { .. }
            | Self::Remove { .. }
            | Self::RemoveBare { .. }
            | Self::Exec { .. }
            | Self::Service { .. }
            | Self::BastilleStart { .. }
            | Self::BastilleStop { .. } => SCRIPTS,
            Self::PackageInstall { .. }
            | Self::PackageRelease { .. }
            | Self::PackageAutoremove { .. }
            | Self::ExtractBase { .. }
            | Self::CopyBase { .. }
            | Self::ClearFlags { .. }
            | Self::BastilleBootstrap { .. } => LONG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is for, the command, its argv as one line, the manual page that it follows.
    type Row = (&'static str, JailCommand, &'static str, &'static str);

    fn rows() -> Vec<Row> {
        let name = || "shop".to_owned();
        let conf = || PathBuf::from("/etc/jail.conf.d/shop.conf");
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        use JailCommand as C;
        vec![
            ("look", C::List, "jls -d -q jid dying name path", "jls(8)"),
            (
                "start",
                C::Create { name: name(), conf: conf() },
                "jail -f /etc/jail.conf.d/shop.conf -c shop",
                "jail(8)",
            ),
            (
                "stop",
                C::Remove { name: name(), conf: conf() },
                "jail -f /etc/jail.conf.d/shop.conf -r shop",
                "jail(8)",
            ),
            ("stop, no file", C::RemoveBare { name: name() }, "jail -R shop", "jail(8)"),
            (
                "inside",
                C::Exec { name: name(), argv: list("sh -c true") },
                "jexec shop sh -c true",
                "jexec(8)",
            ),
            ("packages there", C::PackageNames { name: name() }, "pkg -j shop query %n %o", "pkg-query(8)"),
            (
                "packages nobody needs",
                C::PackagesNotNeeded { name: name() },
                "pkg -j shop query -e %a = 0 || %#r = 0 %n %o",
                "pkg-query(8)",
            ),
            (
                "packages",
                C::PackageInstall { name: name(), packages: list("nginx openssl") },
                "pkg -j shop install -y nginx openssl",
                "pkg-install(8)",
            ),
            (
                "package not wanted",
                C::PackageRelease { name: name(), packages: list("nginx") },
                "pkg -j shop set -y -A 1 nginx",
                "pkg-set(8)",
            ),
            (
                "unneeded packages",
                C::PackageAutoremove { name: name() },
                "pkg -j shop autoremove -y",
                "pkg-autoremove(8)",
            ),
            (
                "enable",
                C::ServiceEnable { name: name(), service: "nginx".into() },
                "sysrc -j shop nginx_enable=YES",
                "sysrc(8)",
            ),
            (
                "disable",
                C::ServiceDisable { name: name(), service: "nginx".into() },
                "sysrc -j shop -i -x nginx_enable",
                "sysrc(8)",
            ),
            (
                "service",
                C::Service { name: name(), service: "nginx".into(), verb: "status" },
                "service -j shop nginx status",
                "service(8)",
            ),
            ("limits", C::Limits { name: name() }, "rctl jail:shop", "rctl(8)"),
            (
                "base",
                C::ExtractBase { archive: "/m/base.txz".into(), root: "/z/jails/shop".into() },
                "tar -xpf /m/base.txz -C /z/jails/shop --unlink",
                "tar(1)",
            ),
            (
                "base of Bastille",
                C::CopyBase { release: "/b/releases/14.2-RELEASE".into(), root: "/z/jails/shop".into() },
                "cp -a /b/releases/14.2-RELEASE/. /z/jails/shop",
                "cp(1)",
            ),
            ("flags", C::ClearFlags { root: "/z/shop".into() }, "chflags -R noschg /z/shop", "chflags(1)"),
            (
                "fetch",
                C::BastilleBootstrap { release: "14.2-RELEASE".into() },
                "bastille bootstrap 14.2-RELEASE",
                "bastille(8)",
            ),
            ("create", C::BastilleCreate { name: name() }, "bastille create -E shop", "bastille(8)"),
            ("start", C::BastilleStart { name: name() }, "bastille start shop", "bastille(8)"),
            ("stop", C::BastilleStop { name: name() }, "bastille stop shop", "bastille(8)"),
            ("look", C::BastilleList, "bastille list jails", "bastille(8)"),
        ]
    }

    #[test]
    fn every_command_line_is_as_its_manual_page_says() {
        for (what, command, argv, page) in rows() {
            assert_eq!(command.argv().join(" "), argv, "{what}, {page}");
            assert!(!command.deadline().is_zero(), "{what}");
        }
    }

    #[test]
    fn bastille_is_never_told_to_destroy() {
        assert!(rows().iter().all(|row| !row.2.contains("destroy")), "data are never destroyed by zed");
    }
}
