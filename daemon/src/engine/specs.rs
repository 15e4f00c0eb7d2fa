//! The spec files: what is saved, which save is a new one, and what is gone. The generation rule is here.
//!
//! A file that cannot be read, or whose record cannot be written, stops its own deploy and no other.

use super::DeployState;
use super::Engine;
use super::deploys::declared;
use super::now;
use crate::events::About;
use crate::state::DeployRecord;
use crate::state::STATE_FORMAT;
use crate::state::SpecFile;
use crate::state::StateError;
use crate::state::spec_files;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use zed_ctl::EventKind;
use zed_spec::DeployName;

/// A file that is gone for less than this may be one that git or cp is about to write again.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// Brings the deploys in line with the files. What goes wrong with one file is kept with its deploy; the
    /// error is about the folder itself.
    pub(super) fn read_specs(&mut self) -> Result<(), StateError> {
        let files = spec_files(&self.parts.state.deploy_dir())?;
        let mut present = BTreeSet::new();
        for (name, file) in files {
            let read = file.and_then(|file| self.read_spec(&name, &file));
            self.keep_problem(&name, read);
            present.insert(name);
        }
        let gone: Vec<DeployName> =
            self.deploys.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            let noted = self.spec_is_gone(&name);
            self.keep_problem(&name, noted);
        }
        self.read_plans()
    }

    /// True while a missing file may still come back: the loop looks again soon.
    pub(super) fn some_may_come_back(&self) -> bool {
        self.deploys.values().any(|deploy| deploy.missing_since.is_some())
    }

    fn keep_problem(&mut self, name: &DeployName, result: Result<(), StateError>) {
        let problem = result.err().map(|error| crate::chain(&error));
        if let Some(problem) = &problem {
            tracing::error!(deploy = %name, problem, "a spec could not be taken in; trying again");
            let fresh = || DeployState::remembered(name, DeployRecord::default());
            self.deploys.entry(name.clone()).or_insert_with(fresh);
        }
        if let Some(deploy) = self.deploys.get_mut(name) {
            deploy.unread = problem;
        }
    }

    fn read_spec(
        &mut self,
        name: &DeployName,
        SpecFile { bytes, save }: &SpecFile,
    ) -> Result<(), StateError> {
        let sha256 = zed_plan::sha256_hex(bytes);
        if let Some(known) = self.deploys.get_mut(name)
            && known.record.file_sha256 == sha256
            && !known.record.removed
        {
            known.missing_since = None;
            // Saving equal bytes again changes nothing, unless something waits for just that: a held rollback is
            // released by it, a failed deploy tried again. What was there when zedd started was not saved again.
            let again = known.save.replace(*save).is_some_and(|before| before != *save);
            if !again || matches!(known.state, "converged" | "converging" | "rejected") {
                // What the spec refers to may have changed since the last look: an artifact, a file of a value.
                known.heal |= again && known.state == "converged";
                return Ok(());
            }
        }
        let mut record = match self.deploys.get(name) {
            Some(known) if known.record.generation > 0 => known.record.clone(),
            // Released before, or a state directory that was lost: counting goes on where the stamps are, or they would be newer.
            _ => {
                let released = self.released.get(name).copied().unwrap_or(0);
                DeployRecord {
                    generation: released.max(self.stamped_generation(name)?),
                    ..DeployRecord::default()
                }
            }
        };
        record.format = STATE_FORMAT;
        record.file_sha256 = sha256;
        record.removed = false;
        let accepted = std::str::from_utf8(bytes).ok().filter(|text| declared(name, text, 0).is_ok());
        match accepted {
            Some(text) => {
                record.generation += 1;
                record.accepted = Some(text.to_owned());
                record.rejected = None;
            }
            None => {
                let refused = zed_spec::parse(name, bytes).err();
                record.rejected = refused.map(|diagnostics| diagnostics.render(&format!("{name}.ron")));
            }
        }
        self.parts.state.write_record(name, &record)?;
        self.take_in(name, record, *save);
        Ok(())
    }

    /// The record is on disk: from here on it counts.
    fn take_in(&mut self, name: &DeployName, record: DeployRecord, save: crate::state::SaveId) {
        let accepted = record.rejected.is_none();
        self.parts.metrics.spec(accepted);
        let (kind, text) = match &record.rejected {
            None => (EventKind::SpecAccepted, format!("generation {}", record.generation)),
            Some(errors) => (EventKind::SpecRejected, errors.clone()),
        };
        self.emit(kind, About::deploy(name.as_str()), &text);
        let mut deploy = DeployState::remembered(name, record);
        deploy.heal = accepted;
        if let Some(before) = self.deploys.get(name) {
            deploy.drift.clone_from(&before.drift);
        }
        deploy.save = Some(save);
        self.deploys.insert(name.clone(), deploy);
        self.pauses.remove(name);
        if let Some(busy) = self.parts.shared.busy().get(name)
            && accepted
            && busy.what == super::DEPLOYING
        {
            // A newer save ends the probes of the older one: it is taken back, then the newer one is deployed.
            busy.signals.cancel.store(true, Ordering::SeqCst);
        }
    }

    /// The highest generation of a deploy that is stamped in the store.
    fn stamped_generation(&self, name: &DeployName) -> Result<u64, StateError> {
        let datasets = self.parts.store.list().map_err(|e| self.parts.state.blame(&crate::chain(&e)))?;
        let stamps = datasets.iter().flat_map(|set| zed_plan::props::parse_stamps(&set.path, &set.user).apps);
        Ok(stamps.filter(|stamp| stamp.deploy == *name).map(|stamp| stamp.generation).max().unwrap_or(0))
    }

    fn spec_is_gone(&mut self, name: &DeployName) -> Result<(), StateError> {
        let Some(deploy) = self.deploys.get_mut(name) else { return Ok(()) };
        if deploy.record.removed {
            return Ok(());
        }
        if deploy.missing_since.get_or_insert_with(Instant::now).elapsed() < GONE_AFTER {
            return Ok(());
        }
        let mut record = deploy.record.clone();
        record.removed = true;
        record.verdict = None;
        self.parts.state.write_record(name, &record)?;
        deploy.record = record;
        deploy.missing_since = None;
        deploy.state = "removing";
        deploy.changed_at = now();
        let text = "its apps are stopped and released, their data kept";
        self.emit(EventKind::SpecRemoved, About::deploy(name.as_str()), text);
        Ok(())
    }

    /// Dry runs: parsed and planned, never remembered, never applied.
    fn read_plans(&mut self) -> Result<(), StateError> {
        let mut found = BTreeMap::new();
        for (name, file) in spec_files(&self.parts.state.plan_dir())? {
            let SpecFile { bytes, save } = match file {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(error = %crate::chain(&error), "a dry run cannot be read");
                    continue;
                }
            };
            let sha256 = zed_plan::sha256_hex(&bytes);
            let old = self.plans.remove(&name);
            let generation = self.deploys.get(&name).map_or(0, |d| d.record.generation) + 1;
            if let Some(old) = old
                && old.record.file_sha256 == sha256
                && old.save == Some(save)
            {
                found.insert(name, old);
                continue;
            }
            let mut record = DeployRecord {
                format: STATE_FORMAT,
                generation,
                file_sha256: sha256,
                ..DeployRecord::default()
            };
            match zed_spec::parse(&name, &bytes) {
                Ok(_) => record.accepted = Some(String::from_utf8_lossy(&bytes).into_owned()),
                Err(diagnostics) => record.rejected = Some(diagnostics.render(&format!("{name}.ron"))),
            }
            let mut planned = DeployState::remembered(&name, record);
            planned.save = Some(save);
            found.insert(name, planned);
        }
        let dropped: Vec<DeployName> =
            self.plans.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in dropped {
            self.parts.state.remove_plan(&name)?;
        }
        self.plans = found;
        Ok(())
    }

    /// Makes every dry run again, from what is there now.
    pub(super) fn plan_again(&mut self) {
        for (name, planned) in &mut self.plans {
            let generation = self.deploys.get(name).map_or(0, |deploy| deploy.record.generation) + 1;
            planned.record.generation = generation;
            let save = planned.save;
            *planned = DeployState::remembered(name, planned.record.clone());
            planned.save = save;
        }
    }
}
