//! Which apps stand or fall together, and in which order they start.

use super::Deploy;
use crate::guest::GuestId;
use crate::plan::Severity;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Disjoint sets by union and path halving.
struct Sets(Vec<usize>);

impl Sets {
    fn find(&mut self, mut item: usize) -> usize {
        while self.0[item] != item {
            self.0[item] = self.0[self.0[item]];
            item = self.0[item];
        }
        item
    }

    /// The smaller root wins: a component is named by its first member.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

impl Deploy<'_> {
    /// For each node the first node of its component. Apps belong together when they share a dataset, when one
    /// depends on the other, when they run in one guest, and when one is removed from a dataset that another uses.
    pub(super) fn components(&self) -> Vec<usize> {
        let mut sets = Sets((0..self.nodes.len()).collect());
        for dataset in self.wanted.values() {
            for pair in dataset.users.windows(2) {
                sets.join(pair[0], pair[1]);
            }
        }
        let by_name: BTreeMap<&str, usize> =
            self.nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
        let mut guests: BTreeMap<GuestId, usize> = BTreeMap::new();
        let mut removed_from: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for dependency in self.depends_on(index) {
                if let Some(other) = by_name.get(dependency.as_str()) {
                    sets.join(index, *other);
                }
            }
            if let Some(guest) = node.app.and_then(|app| GuestId::of(&app.runtime)) {
                let first = *guests.entry(guest).or_insert(index);
                sets.join(index, first);
            }
            let Some(found) = node.located else { continue };
            if let Some(user) = self.wanted.get(found.dataset).and_then(|dataset| dataset.users.first()) {
                sets.join(index, *user);
            } else if let Some(other) = removed_from.insert(found.dataset.as_str(), index) {
                sets.join(index, other);
            }
        }
        (0..self.nodes.len()).map(|index| sets.find(index)).collect()
    }

    /// What an app depends on, by the spec, or by its record when the spec no longer has it.
    pub(super) fn depends_on(&self, index: usize) -> &[zed_spec::AppName] {
        let node = &self.nodes[index];
        if let Some(app) = node.app {
            return &app.depends_on;
        }
        let record = node.located.and_then(|found| self.input.releases.get(&found.stamp.spec));
        record.map_or(&[][..], |release| &release.definition.depends_on[..])
    }

    /// Dependencies before dependents, else by name.
    pub(super) fn start_order(&mut self, members: &[usize]) -> Vec<usize> {
        if members.len() == 1 {
            return members.to_vec();
        }
        let by_name: BTreeMap<&str, usize> =
            members.iter().map(|i| (self.nodes[*i].name.as_str(), *i)).collect();
        let mut waits: BTreeMap<usize, usize> = BTreeMap::new();
        let mut dependents: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in members {
            let dependencies: BTreeSet<usize> = self
                .depends_on(*index)
                .iter()
                .filter_map(|name| by_name.get(name.as_str()).copied())
                .collect();
            waits.insert(*index, dependencies.len());
            for dependency in dependencies {
                dependents.entry(dependency).or_default().push(*index);
            }
        }
        let mut ready: BTreeSet<(&str, usize)> =
            by_name.iter().filter(|(_, index)| waits.get(index) == Some(&0)).map(|(n, i)| (*n, *i)).collect();
        let mut order = Vec::with_capacity(members.len());
        while let Some((_, index)) = ready.pop_first() {
            order.push(index);
            for dependent in dependents.remove(&index).unwrap_or_default() {
                if let Some(left) = waits.get_mut(&dependent) {
                    *left -= 1;
                    if *left == 0 {
                        ready.insert((self.nodes[dependent].name.as_str(), dependent));
                    }
                }
            }
        }
        if order.len() < members.len() {
            let rest: Vec<usize> = members.iter().copied().filter(|index| !order.contains(index)).collect();
            let names: Vec<&str> = rest.iter().map(|index| self.nodes[*index].name.as_str()).collect();
            let text = format!("these apps depend on each other in a circle: {}", names.join(", "));
            let object = format!("deploy {}", self.spec.name);
            self.notes.push(super::select::note(Severity::Fatal, "cycle", object, text));
            order.extend(rest);
        }
        order
    }
}
