//! The record of GPUs on zed's own dataset: what the properties are to be, and the one write that makes them so.
//!
//! Writes only what differs, and nothing that is not below `com.zed:gpu.`.

use std::collections::BTreeMap;
use std::sync::Arc;
use zed_gpu::inventory::GpuInventory;
use zed_plan::props::PREFIX;
use zed_plan::props::SCHEMA;
use zed_plan::props::name;
use zed_store::Dataset;
use zed_store::OWN_DATASET;
use zed_store::PropChange;
use zed_store::Store;

/// What came of recording.
#[derive(Default)]
pub(super) struct Recorded {
    problem: Option<String>,
}

impl Recorded {
    /// Makes the properties what the list says, if they are not. `datasets` is the last look.
    pub(super) fn record(&mut self, inventory: &GpuInventory, store: &dyn Store, datasets: &[Arc<Dataset>]) {
        let Some(own) = datasets.iter().find(|dataset| dataset.path.as_str() == OWN_DATASET) else { return };
        let problem = match changes(inventory, own) {
            Ok(None) => None,
            Ok(Some(change)) => store.set(&[change]).err().map(|error| crate::chain(&error)),
            Err(problem) => Some(problem),
        };
        let problem = problem.map(|problem| format!("the GPUs are not recorded: {problem}"));
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.problem) {
            tracing::warn!(problem);
        }
        self.problem = problem;
    }

    /// What a person has to do.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}

/// The change that is needed, if any; the error says why none may be made.
fn changes(inventory: &GpuInventory, own: &Dataset) -> Result<Option<PropChange>, String> {
    let mut wanted: BTreeMap<String, Option<String>> = inventory
        .properties()
        .into_iter()
        .map(|(field, value)| (format!("{PREFIX}{field}"), Some(value)))
        .collect();
    for key in own.user.keys().filter(|key| key.starts_with(name::GPU)) {
        wanted.entry(key.clone()).or_default();
    }
    wanted.retain(|key, value| own.user.get(key) != value.as_ref());
    if wanted.is_empty() {
        return Ok(None);
    }
    let schema = own.user.get(name::SCHEMA).and_then(|text| text.parse::<u32>().ok());
    if let Some(found) = schema.filter(|found| *found > SCHEMA) {
        return Err(format!(
            "the properties of dataset {OWN_DATASET} were written in schema {found}, this zed knows {SCHEMA}: \
             upgrade zed on this host"
        ));
    }
    Ok(Some(PropChange { path: own.path.clone(), native: BTreeMap::new(), user: wanted }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::ensure_own_datasets;
    use zed_gpu::inventory::PciAddress;
    use zed_gpu::inventory::PciGpu;
    use zed_gpu::inventory::Seen;
    use zed_store::SimStore;

    /// GPUs of NVIDIA with these ids.
    fn inventory(ids: &[u32]) -> GpuInventory {
        let gpu = |id: &u32| PciGpu {
            address: PciAddress::parse("01:00.0"),
            vendor_id: 0x10de,
            device_id: *id,
            model: None,
            driver: None,
            console: false,
        };
        GpuInventory::new(&Seen { pci: ids.iter().map(gpu).collect(), ..Seen::default() }, false)
    }

    fn gpu_properties(store: &SimStore) -> Vec<String> {
        let own = store.list().unwrap().into_iter().find(|d| d.path.as_str() == OWN_DATASET).unwrap();
        let gpus = own.user.iter().filter(|(key, _)| key.starts_with(name::GPU));
        gpus.map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn record(recorded: &mut Recorded, store: &SimStore, ids: &[u32]) {
        recorded.record(&inventory(ids), store, &store.list().unwrap());
    }

    #[test]
    fn the_record_follows_the_list_and_is_written_only_when_it_differs() {
        let store = SimStore::new();
        ensure_own_datasets(&store).unwrap();
        let mut recorded = Recorded::default();
        record(&mut recorded, &store, &[0x2335, 0x1b80]);
        assert_eq!(
            gpu_properties(&store),
            [
                "com.zed:gpu.1.driver=none",
                "com.zed:gpu.1.model=10de:1b80",
                "com.zed:gpu.1.vendor=NVIDIA",
                "com.zed:gpu.driver=none",
                "com.zed:gpu.model=10de:2335",
                "com.zed:gpu.vendor=NVIDIA",
            ]
        );
        let own = store.list().unwrap().into_iter().find(|d| d.path.as_str() == OWN_DATASET).unwrap();
        assert_eq!(changes(&inventory(&[0x2335, 0x1b80]), &own), Ok(None));
        record(&mut recorded, &store, &[0x1b80]);
        assert_eq!(gpu_properties(&store).len(), 3);
        assert!(gpu_properties(&store).contains(&"com.zed:gpu.model=10de:1b80".to_owned()));
        record(&mut recorded, &store, &[]);
        assert_eq!(gpu_properties(&store), [""; 0]);
        assert_eq!(recorded.problem(), None);
    }

    #[test]
    fn what_a_newer_schema_wrote_is_left_alone_and_told() {
        let store = SimStore::new();
        ensure_own_datasets(&store).unwrap();
        let own = store.list().unwrap().into_iter().find(|d| d.path.as_str() == OWN_DATASET).unwrap();
        let newer = BTreeMap::from([(name::SCHEMA.to_owned(), Some("2".to_owned()))]);
        store.set(&[PropChange { path: own.path.clone(), native: BTreeMap::new(), user: newer }]).unwrap();
        let mut recorded = Recorded::default();
        record(&mut recorded, &store, &[0x2335]);
        assert_eq!(gpu_properties(&store), [""; 0]);
        let problem = recorded.problem().unwrap();
        assert!(problem.contains("schema 2") && problem.contains("upgrade zed"), "{problem}");
    }
}
