//! Whether a condition or a placement holds for a host.

use crate::ast::Condition;
use crate::ast::Host;
use crate::ast::Placement;
use crate::names::HostName;
use std::collections::BTreeMap;

/// Whether a fact changes while the host runs, as those of pools and GPUs do: no condition may use it.
pub fn is_changing_fact(name: &str) -> bool {
    name == "gpus" || name.starts_with("pool.") || name.starts_with("gpu.")
}

impl Condition {
    /// Whether it holds for a host with these facts and a daemon with this environment. A fact or variable
    /// that is absent has no value, so that comparing it is false and `Not` of that is true.
    pub fn holds(&self, facts: &BTreeMap<String, String>, env: &BTreeMap<String, String>) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|c| c.holds(facts, env)),
            Condition::Any(any) => any.iter().any(|c| c.holds(facts, env)),
            Condition::Not(inner) => !inner.holds(facts, env),
            Condition::Fact(name, value) => facts.get(name) == Some(value),
            Condition::Env(name, value) => env.get(name) == Some(value),
        }
    }
}

impl Placement {
    /// Whether it includes `host`, given the hosts that the spec declares. `All` includes every host, also
    /// when the spec declares none.
    pub fn includes(&self, host: &HostName, hosts: &BTreeMap<HostName, Host>) -> bool {
        match self {
            Placement::All => true,
            Placement::Label(key, value) => hosts.get(host).is_some_and(|h| h.labels.get(key) == Some(value)),
            Placement::Hosts(names) => names.contains(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn conditions_hold_for_the_facts_they_name() {
        let facts = map(&[("os", "linux"), ("arch", "x86_64")]);
        let env = map(&[("STAGE", "prod"), ("EMPTY", "")]);
        let check = |text: &str, expect: bool| {
            let spec = format!(
                "(datasets: {{\"a\": ()}}, apps: {{\"a\": (dataset: \"a\", version: \"1\", when: {text})}})"
            );
            let name = crate::DeployName::parse("t").unwrap();
            let spec = crate::parse(&name, spec.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
            let when = spec.apps["a"].when.as_ref().unwrap();
            assert_eq!(when.holds(&facts, &env), expect, "{text}");
        };
        check("Fact(\"os\", \"linux\")", true);
        check("Fact(\"os\", \"freebsd\")", false);
        check("Fact(\"zone\", \"linux\")", false);
        check("Env(\"STAGE\", \"prod\")", true);
        check("Env(\"EMPTY\", \"\")", true);
        check("Env(\"UNSET\", \"\")", false);
        check("Not(Env(\"UNSET\", \"\"))", true);
        check("All([Fact(\"os\", \"linux\"), Env(\"STAGE\", \"prod\")])", true);
        check("All([Fact(\"os\", \"linux\"), Env(\"STAGE\", \"test\")])", false);
        check("Any([Fact(\"os\", \"freebsd\"), Env(\"STAGE\", \"prod\")])", true);
        check("Any([Fact(\"os\", \"freebsd\"), Env(\"STAGE\", \"test\")])", false);
        check("Not(Not(Fact(\"arch\", \"x86_64\")))", true);
    }

    #[test]
    fn placements_include_the_hosts_they_name() {
        let host = |text: &str| HostName::parse(text).unwrap();
        let hosts = BTreeMap::from([
            (host("web1"), Host { address: "h:1".into(), labels: map(&[("role", "web")]), gpus: vec![] }),
            (host("db1"), Host { address: "h:2".into(), labels: map(&[]), gpus: vec![] }),
        ]);
        let check = |on: Placement, expect: [bool; 2]| {
            assert_eq!(["web1", "db1"].map(|name| on.includes(&host(name), &hosts)), expect, "{on:?}");
        };
        check(Placement::All, [true, true]);
        check(Placement::Label("role".into(), "web".into()), [true, false]);
        check(Placement::Label("role".into(), "db".into()), [false, false]);
        check(Placement::Hosts(vec![host("db1")]), [false, true]);
        assert!(Placement::All.includes(&host("web1"), &BTreeMap::new()));
    }
}
