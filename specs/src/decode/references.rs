//! What one part of a spec says about another: names, dependencies, labels, GPUs.
//!
//! Collected while values are read, with their places, and checked at the end, when every declaration is known.
//! Declarations count even if their own content has mistakes, so that one mistake gives one message.

use super::Cx;
use super::shape::closest;
use crate::ast::Gpu;
use crate::ast::Placement;
use crate::diagnostics::quoted;
use crate::syntax::Span;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// In `datasets`.
    Dataset,
    /// In `datasets`, or the dataset of a jail, zone, model or job.
    AnyDataset,
    App,
    Jail,
    Zone,
    Model,
    Host,
    Secret,
}

impl Kind {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Kind::Dataset | Kind::AnyDataset => ("dataset", "datasets"),
            Kind::App => ("app", "apps"),
            Kind::Jail => ("jail", "jails"),
            Kind::Zone => ("zone", "zones"),
            Kind::Model => ("model", "models"),
            Kind::Host => ("host", "hosts"),
            Kind::Secret => ("secret slot", "secrets"),
        }
    }
}

/// What a declared host has; `None` when its declaration has mistakes.
type HostFacts = Option<(BTreeMap<String, String>, Vec<Gpu>)>;

/// A model's need for GPU memory.
pub(super) struct VramNeed {
    pub(super) model: String,
    pub(super) vram_gb: u32,
    pub(super) span: Span,
    pub(super) on: Placement,
}

struct Edge {
    from: String,
    to: String,
    span: Span,
}

/// Everything that is checked at the end.
#[derive(Default)]
pub(super) struct References {
    declared: BTreeMap<Kind, BTreeSet<String>>,
    /// Sections that could not be read: nothing can be said about references to them.
    unknown: BTreeSet<Kind>,
    uses: Vec<(Kind, String, Span)>,
    edges: BTreeMap<Kind, Vec<Edge>>,
    labels: Vec<(String, String, Span)>,
    hosts: BTreeMap<String, HostFacts>,
    vram: Vec<VramNeed>,
}

impl References {
    pub(super) fn declare(&mut self, kind: Kind, name: &str) {
        self.declared.entry(kind).or_default().insert(name.to_owned());
    }

    pub(super) fn forget(&mut self, kind: Kind) {
        self.unknown.insert(kind);
    }

    pub(super) fn refer(&mut self, kind: Kind, name: &str, span: Span) {
        self.uses.push((kind, name.to_owned(), span));
    }

    /// `from` needs `to`, both of one kind. Also a reference.
    pub(super) fn depend(&mut self, kind: Kind, from: &str, to: &str, span: Span) {
        self.refer(kind, to, span);
        let edge = Edge { from: from.to_owned(), to: to.to_owned(), span };
        self.edges.entry(kind).or_default().push(edge);
    }

    pub(super) fn label(&mut self, key: &str, value: &str, span: Span) {
        self.labels.push((key.to_owned(), value.to_owned(), span));
    }

    pub(super) fn host(&mut self, name: &str, facts: HostFacts) {
        self.hosts.insert(name.to_owned(), facts);
    }

    pub(super) fn need_vram(&mut self, need: VramNeed) {
        self.vram.push(need);
    }

    /// Reports every reference that leads nowhere, every cycle, and every model that fits nowhere.
    pub(super) fn check(mut self, cx: &mut Cx<'_>) {
        let datasets = self.declared.get(&Kind::Dataset).cloned().unwrap_or_default();
        self.declared.entry(Kind::AnyDataset).or_default().extend(datasets);
        if self.unknown.contains(&Kind::Dataset) {
            self.unknown.insert(Kind::AnyDataset);
        }
        self.check_uses(cx);
        self.check_labels(cx);
        self.check_vram(cx);
        for (kind, edges) in &self.edges {
            check_cycles(cx, *kind, edges);
        }
    }

    fn check_uses(&self, cx: &mut Cx<'_>) {
        let none = BTreeSet::new();
        for (kind, name, span) in &self.uses {
            let declared = self.declared.get(kind).unwrap_or(&none);
            if declared.contains(name) || self.unknown.contains(kind) {
                continue;
            }
            let (one, section) = kind.text();
            let message = format!("the {one} {} is not declared in `{section}`", quoted(name));
            let suggestion = if cx.is_full() { None } else { suggest(name, declared) };
            let hint = match suggestion {
                Some(near) => format!("did you mean `{near}`?"),
                None if declared.is_empty() => format!("the spec declares no {section}"),
                None => format!("declared are {}", some_of(declared)),
            };
            cx.error_hint(*span, message, hint);
        }
    }

    fn check_labels(&self, cx: &mut Cx<'_>) {
        if self.unknown.contains(&Kind::Host) || self.hosts.values().any(Option::is_none) {
            return;
        }
        let known: BTreeSet<String> = self
            .hosts
            .values()
            .flatten()
            .flat_map(|(labels, _)| labels.iter().map(|(key, value)| format!("{key}={value}")))
            .collect();
        for (key, value, span) in &self.labels {
            let label = format!("{key}={value}");
            if known.contains(&label) {
                continue;
            }
            let message = format!("no declared host has the label {}", quoted(&label));
            let hint = if known.is_empty() {
                "the spec declares no host with labels".to_owned()
            } else {
                format!("there are {}", some_of(&known))
            };
            cx.error_hint(*span, message, hint);
        }
    }

    fn check_vram(&self, cx: &mut Cx<'_>) {
        if self.hosts.is_empty() || self.hosts.values().any(Option::is_none) {
            return;
        }
        for need in &self.vram {
            let here = self.hosts.iter().filter_map(|(name, facts)| Some((name, facts.as_ref()?)));
            let here = here.filter(|(name, (labels, _))| match &need.on {
                Placement::All => true,
                Placement::Label(key, value) => labels.get(key) == Some(value),
                Placement::Hosts(hosts) => hosts.iter().any(|host| host.as_str() == name.as_str()),
            });
            let gpus: Vec<(&String, &Gpu)> =
                here.flat_map(|(name, (_, gpus))| gpus.iter().map(move |gpu| (name, gpu))).collect();
            let largest = gpus.iter().map(|(_, gpu)| gpu.vram_gb).max();
            if largest.is_some_and(|largest| largest >= need.vram_gb) {
                continue;
            }
            let message = format!(
                "the model {} needs a GPU with {} GB, and no host where it belongs has one",
                quoted(&need.model),
                need.vram_gb
            );
            let hint = match largest {
                None => "none of the declared hosts has a GPU".to_owned(),
                Some(largest) => {
                    let hosts: BTreeSet<String> = gpus
                        .iter()
                        .filter(|(_, gpu)| gpu.vram_gb == largest)
                        .map(|(host, gpu)| format!("{} on {host}", gpu.model))
                        .collect();
                    format!("the largest has {largest} GB: {}", some_of(&hosts))
                }
            };
            cx.error_hint(need.span, message, hint);
        }
    }
}

/// The closest declared name, or the only one there is.
fn suggest<'d>(name: &str, declared: &'d BTreeSet<String>) -> Option<&'d str> {
    let near = closest(name, declared.iter().map(String::as_str));
    near.or_else(|| declared.first().filter(|_| declared.len() == 1).map(String::as_str))
}

/// A few of the names, for a hint.
fn some_of(names: &BTreeSet<String>) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| quoted(name)).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Reports each cycle once, at the dependency that leaves the part named first in the file. Walks with an own
/// stack: a chain may be as long as a spec allows.
fn check_cycles(cx: &mut Cx<'_>, kind: Kind, edges: &[Edge]) {
    let mut out: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    for edge in edges {
        out.entry(&edge.from).or_default().push(edge);
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for root in edges.iter().map(|edge| edge.from.as_str()) {
        if done.contains(root) {
            continue;
        }
        // Each entry: a part on the current path, and how many of its dependencies were followed.
        let mut path: Vec<(&str, usize)> = vec![(root, 0)];
        let mut on_path: BTreeMap<&str, usize> = BTreeMap::from([(root, 0)]);
        while let Some((part, next)) = path.last_mut() {
            let part = *part;
            let Some(edge) = out.get(part).and_then(|edges| edges.get(*next)) else {
                done.insert(part);
                on_path.remove(part);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(begin) = on_path.get(edge.to.as_str()) {
                report_cycle(cx, kind, &path[*begin..], &out);
            } else if !done.contains(edge.to.as_str()) {
                on_path.insert(&edge.to, path.len());
                path.push((&edge.to, 0));
            }
        }
    }
}

/// `cycle` is the path of the parts, each with one more than the index of the dependency that leads on.
fn report_cycle(cx: &mut Cx<'_>, kind: Kind, cycle: &[(&str, usize)], out: &BTreeMap<&str, Vec<&Edge>>) {
    let Some((first, next)) = cycle.first() else { return };
    let Some(edge) = out.get(first).and_then(|edges| edges.get(next.checked_sub(1)?)) else { return };
    let (_, section) = kind.text();
    if cycle.len() == 1 {
        cx.error(edge.span, format!("dependency cycle: {} depends on itself", quoted(first)));
        return;
    }
    let shown: Vec<&str> = cycle.iter().take(8).map(|(part, _)| *part).collect();
    let dots = if shown.len() < cycle.len() { " -> ..." } else { "" };
    let message = format!("dependency cycle in `{section}`: {}{dots} -> {first}", shown.join(" -> "));
    cx.error_hint(edge.span, message, "remove one of these dependencies: none of them could start first");
}
