//! Jails and zones as the planner and the host speak of them: which, what it shall be, what was seen of it.
//!
//! Owns the two hashes that decide: `configuration` (a change needs a restart of the guest) and `content` (what
//! is put into its root; a change is made while it runs). Reads nothing.

use crate::release::sha256_hex;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use std::fmt;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::Jail;
use zed_spec::JailManager;
use zed_spec::JailName;
use zed_spec::NameError;
use zed_spec::Runtime;
use zed_spec::Zone;
use zed_spec::ZoneName;

/// A jail or a zone of this host, written `jail:shop` or `zone:shop-z`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuestId {
    /// A FreeBSD jail.
    Jail(JailName),
    /// An illumos zone.
    Zone(ZoneName),
}

impl GuestId {
    /// The guest that a runtime runs in.
    pub fn of(runtime: &Runtime) -> Option<Self> {
        match runtime {
            Runtime::Jail(name) => Some(Self::Jail(name.clone())),
            Runtime::Zone(name) => Some(Self::Zone(name.clone())),
            Runtime::Process | Runtime::Container { .. } => None,
        }
    }

    /// `jail` or `zone`: also the capability that a host needs for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Jail(_) => "jail",
            Self::Zone(_) => "zone",
        }
    }

    /// Its name, as its tools know it.
    pub fn name(&self) -> &str {
        match self {
            Self::Jail(name) => name.as_str(),
            Self::Zone(name) => name.as_str(),
        }
    }

    /// `jail shop`, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// Reads the written form.
    ///
    /// # Errors
    /// A kind or a name that there cannot be.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some(("jail", name)) => JailName::parse(name).map(Self::Jail),
            Some(("zone", name)) => ZoneName::parse(name).map(Self::Zone),
            _ => Err(NameError {
                kind: "guest",
                text: text.to_owned(),
                reason: "it must be jail:NAME or zone:NAME".to_owned(),
            }),
        }
    }
}

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

impl Serialize for GuestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What a guest is, by the spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GuestDefinition {
    /// A jail.
    Jail(JailName, Jail),
    /// A zone.
    Zone(ZoneName, Zone),
}

/// A dataset that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GuestMount {
    /// Which.
    pub dataset: DatasetPath,
    /// Where inside; at the path that it has on the host when absent.
    pub at: Option<String>,
    /// Only to read.
    pub read_only: bool,
}

/// Everything that makes a guest what it shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Its deploy.
    pub deploy: DeployName,
    /// By the spec.
    pub definition: GuestDefinition,
    /// The mounts of its definition, then the datasets of the apps in it, each at its own path.
    pub mounts: Vec<GuestMount>,
}

impl GuestSpec {
    /// Puts together what the spec says of a guest. `apps` are the datasets of the apps that run in it: they are
    /// mounted where they are on the host, so that a path means the same inside and outside.
    pub fn new(
        deploy: &DeployName,
        definition: GuestDefinition,
        apps: impl IntoIterator<Item = DatasetPath>,
    ) -> Self {
        let mut mounts: Vec<GuestMount> = match &definition {
            GuestDefinition::Jail(_, jail) => {
                let declared = jail.mounts.iter().map(|mount| GuestMount {
                    dataset: mount.dataset.clone(),
                    at: Some(mount.at.clone()),
                    read_only: mount.read_only,
                });
                declared.collect()
            }
            GuestDefinition::Zone(..) => Vec::new(),
        };
        let mut apps: Vec<DatasetPath> = apps.into_iter().collect();
        apps.sort();
        apps.dedup();
        mounts.extend(apps.into_iter().map(|dataset| GuestMount { dataset, at: None, read_only: false }));
        Self { deploy: deploy.clone(), definition, mounts }
    }

    /// Which.
    pub fn id(&self) -> GuestId {
        match &self.definition {
            GuestDefinition::Jail(name, _) => GuestId::Jail(name.clone()),
            GuestDefinition::Zone(name, _) => GuestId::Zone(name.clone()),
        }
    }

    /// The dataset that is its root (a jail) or holds it (a zone).
    pub fn dataset(&self) -> &DatasetPath {
        match &self.definition {
            GuestDefinition::Jail(_, jail) => &jail.dataset,
            GuestDefinition::Zone(_, zone) => &zone.dataset,
        }
    }

    /// Hash of what takes effect when the guest starts: a change of it is a restart.
    pub fn configuration(&self) -> String {
        let mut of = self.clone();
        if let GuestDefinition::Jail(_, jail) = &mut of.definition {
            jail.packages.clear();
            jail.files.clear();
            jail.setup.clear();
            jail.services.clear();
            jail.depends_on.clear();
            jail.on = zed_spec::Placement::All;
        }
        if let GuestDefinition::Zone(_, zone) = &mut of.definition {
            zone.depends_on.clear();
            zone.on = zed_spec::Placement::All;
        }
        hash_of("guest configuration 1", &(&of.definition, &of.mounts))
    }

    /// Hash of what is put into its root while it runs: packages, files, setup commands, services.
    pub fn content(&self) -> String {
        match &self.definition {
            GuestDefinition::Jail(_, jail) => {
                hash_of("guest content 1", &(&jail.packages, &jail.files, &jail.setup, &jail.services))
            }
            GuestDefinition::Zone(..) => hash_of("guest content 1", &()),
        }
    }

    /// What its platform cannot do of it, one sentence each; empty when all is well. It is known before anything
    /// changes.
    pub fn problems(&self) -> Vec<String> {
        match &self.definition {
            GuestDefinition::Jail(name, jail) => jail_problems(name, jail),
            GuestDefinition::Zone(_, zone) => zone_problems(zone),
        }
    }
}

/// sha256 over a name and the JSON of a value.
fn hash_of(what: &str, value: &impl Serialize) -> String {
    // Every map of a spec has text for keys, so this cannot fail; the tests would see equal hashes.
    let json = serde_json::to_vec(value).unwrap_or_default();
    sha256_hex(&[what.as_bytes(), b"\n", &json].concat())
}

/// jail(8) parameters that zed derives from the other fields.
const OWN_PARAMETERS: [&str; 8] =
    ["name", "path", "mount.fstab", "vnet", "vnet.interface", "host.hostname", "ip4.addr", "ip6.addr"];

fn jail_problems(name: &JailName, jail: &Jail) -> Vec<String> {
    let mut found = Vec::new();
    for parameter in OWN_PARAMETERS {
        if jail.params.contains_key(parameter) {
            found.push(format!(
                "`params` sets `{parameter}`, which follows from the other fields: remove it there"
            ));
        }
    }
    let addressed = jail.ip4.is_some() || jail.ip6.is_some();
    if addressed && jail.interface.is_none() {
        let of = if jail.vnet { "the bridge to join" } else { "the interface that holds the address" };
        found.push(format!("it has an address and no `interface`: name {of}"));
    }
    if jail.manager == JailManager::Bastille && jail.vnet && name.as_str().contains('-') {
        found.push(
            "Bastille allows no `-` in the name of a jail with `vnet`: rename it, or use JailConf".to_owned(),
        );
    }
    found
}

fn zone_problems(zone: &Zone) -> Vec<String> {
    let mut found = Vec::new();
    if zone.ip.is_some() && zone.over.is_none() {
        found.push("it has an address and no `over`: name the link below its VNIC".to_owned());
    }
    if zone.limits.nofile.is_some() {
        found.push("a zone has no limit on open files: remove `nofile`".to_owned());
    }
    found
}

/// What was seen of a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedGuest {
    /// Its state.
    pub status: GuestStatus,
    /// What zed made it last; `None` when zed did not make it.
    pub made: Option<Box<GuestSpec>>,
    /// True when its configuration is as zed wrote it.
    pub intact: bool,
    /// [`GuestSpec::configuration`] that it was started with, when it runs.
    pub running: Option<String>,
    /// [`GuestSpec::content`] of its root.
    pub content: Option<String>,
    /// True when the host has booted since zed started it.
    pub rebooted: bool,
}

/// State of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestStatus {
    /// Not there.
    Absent,
    /// Known to its tools, and without a root to run from.
    Configured,
    /// Could run, and does not.
    Stopped,
    /// Runs.
    Running,
    /// Neither: on its way, or in need of somebody. The text says what its tools say.
    Other(String),
}

impl ObservedGuest {
    /// True when it runs as this spec wants it.
    pub fn is(&self, spec: &GuestSpec) -> bool {
        let configuration = spec.configuration();
        self.status == GuestStatus::Running
            && self.intact
            && self.running.as_ref() == Some(&configuration)
            && self.content.as_ref() == Some(&spec.content())
            && self.made.as_ref().is_some_and(|made| made.configuration() == configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(more: &str) -> GuestSpec {
        let text = format!(
            "(datasets: {{\"d\": ()}}, jails: {{\"shop\": (dataset: \"jails/shop\", release: \"14.2-RELEASE\", {more})}})"
        );
        let name = DeployName::parse("prod").unwrap();
        let spec = zed_spec::parse(&name, text.as_bytes()).unwrap();
        let (name, jail) = spec.jails.into_iter().next().unwrap();
        GuestSpec::new(&spec.name, GuestDefinition::Jail(name, jail), [])
    }

    #[test]
    fn what_needs_a_restart_is_told_from_what_does_not() {
        let plain = jail("");
        for (more, restart, content) in [
            ("", false, false),
            ("depends_on: []", false, false),
            ("packages: [\"nginx\"]", false, true),
            ("files: [(path: \"/a\", content: \"x\")]", false, true),
            ("setup: [[\"true\"]]", false, true),
            ("services: [\"sshd\"]", false, true),
            ("params: {\"enforce_statfs\": \"1\"}", true, false),
            ("hostname: \"x\"", true, false),
            ("mounts: [(dataset: \"d\", at: \"/d\")]", true, false),
            ("limits: (memory: \"1G\")", true, false),
        ] {
            let other = jail(more);
            assert_eq!(other.configuration() != plain.configuration(), restart, "{more}");
            assert_eq!(other.content() != plain.content(), content, "{more}");
        }
    }

    #[test]
    fn datasets_of_apps_are_mounts_at_their_own_path() {
        let path = |text: &str| DatasetPath::parse(text).unwrap();
        let GuestSpec { deploy, definition, .. } = jail("mounts: [(dataset: \"d\", at: \"/d\")]");
        let spec = GuestSpec::new(&deploy, definition, [path("apps/b"), path("apps/a"), path("apps/a")]);
        let shown: Vec<_> =
            spec.mounts.iter().map(|m| (m.dataset.as_str(), m.at.as_deref(), m.read_only)).collect();
        assert_eq!(shown, [("d", Some("/d"), true), ("apps/a", None, false), ("apps/b", None, false)]);
    }

    #[test]
    fn what_a_platform_cannot_do_is_said_before() {
        for (more, words) in [
            ("", &[][..]),
            ("params: {\"path\": \"/x\"}", &["`path`"]),
            ("ip4: \"10.0.0.1/24\"", &["no `interface`"]),
            ("vnet: true, manager: Bastille", &[]),
        ] {
            let found = jail(more).problems();
            assert_eq!(found.len(), words.len(), "{more}: {found:?}");
            assert!(words.iter().all(|word| found[0].contains(word)), "{more}: {found:?}");
        }
    }

    #[test]
    fn ids_are_written_and_read() {
        for text in ["jail:shop", "zone:shop-z"] {
            assert_eq!(GuestId::parse(text).unwrap().to_string(), text);
        }
        for text in ["shop", "jail:", "jail:1", "vm:x"] {
            assert!(GuestId::parse(text).is_err(), "{text}");
        }
    }
}
