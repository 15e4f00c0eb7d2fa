//! An existing host as a spec: what is there becomes what is declared, so that the first plan is empty.
//!
//! Pure: works on one look and the kept releases.

use crate::observe::Look;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use zed_plan::Release;
use zed_spec::App;
use zed_spec::DatasetPath;
use zed_spec::DeployName;
use zed_spec::DeploySpec;
use zed_spec::Placement;
use zed_store::Dataset;
use zed_store::MANAGED;

/// Native properties that have a field of their own in a spec.
const FIELDS: [&str; 5] = ["compression", "quota", "recordsize", "mountpoint", "atime"];
/// Native properties that zed manages itself.
const NOT_DECLARED: [&str; 1] = ["canmount"];

/// A spec of what is on the host and in no spec yet, as text. Its first line says under which name to save it:
/// apps keep the deploy that they are stamped with, or they would count as changed. Of several such deploys the
/// first is shown; the next one shows once that is saved.
pub fn import(
    look: &Look,
    releases: &BTreeMap<String, Release>,
    declared: &BTreeSet<DatasetPath>,
) -> Result<String, String> {
    let stamps: Vec<_> = crate::stamps(&look.observed)
        .into_iter()
        .filter(|(dataset, _)| !declared.contains(dataset))
        .collect();
    let lost = stamps.iter().map(|(_, stamp)| stamp.deploy.clone()).min();
    let name = lost.map_or_else(|| DeployName::parse("imported").map_err(|e| e.to_string()), Ok)?;
    let belongs =
        |dataset: &Dataset| dataset.user.get("com.zed:deploy").is_none_or(|deploy| deploy == name.as_str());
    let mut datasets = BTreeMap::new();
    for dataset in look.datasets.iter() {
        let own = zed_plan::is_own(dataset.path.as_str());
        // Made only because a child was declared: declaring it would be a change.
        let container = dataset.user.get("com.zed:role").is_some_and(|role| role == "container");
        if !own && !container && !declared.contains(&dataset.path) && belongs(dataset) {
            datasets.insert(dataset.path.clone(), imported(&dataset.native)?);
        }
    }
    let apps: BTreeMap<_, App> = stamps
        .into_iter()
        .filter(|(dataset, stamp)| stamp.deploy == name && datasets.contains_key(dataset))
        .filter_map(|(_, stamp)| Some((stamp.app, releases.get(&stamp.spec)?.definition.clone())))
        .collect();
    let released = look.datasets.iter().any(|dataset| {
        datasets.contains_key(&dataset.path)
            && dataset.user.contains_key(MANAGED)
            && !dataset.user.contains_key("com.zed:deploy")
    });
    let effect =
        if released { "it only marks again what a deploy had released" } else { "its plan is empty" };
    let header = format!("// What no spec declares. Save it as deploy/{name}.ron: {effect}.\n");
    let spec = DeploySpec { datasets, apps, ..DeploySpec::empty(name) };
    Ok(header + &zed_spec::render_spec(&spec))
}

fn imported(native: &BTreeMap<String, String>) -> Result<zed_spec::Dataset, String> {
    let number = |name: &str| {
        native
            .get(name)
            .map(|text| text.parse::<u64>().map_err(|_| format!("{name}={text} is not a number")))
            .transpose()
    };
    Ok(zed_spec::Dataset {
        compression: native.get("compression").cloned(),
        quota: number("quota")?,
        recordsize: number("recordsize")?,
        mountpoint: native.get("mountpoint").cloned(),
        atime: native.get("atime").map(|value| value == "on"),
        on: Placement::All,
        properties: native
            .iter()
            .filter(|(name, _)| !FIELDS.contains(&name.as_str()) && !NOT_DECLARED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}
