//! Steps on jails and zones, and running programs inside them.
//!
//! Owns where a guest's datasets are mounted when a step is carried out, and what a program that belongs into a guest
//! is executed as. Takes no decision that the plan did not take.

use crate::steps::StepError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use zed_host::Host;
use zed_host::ProbeRequest;
use zed_host::guest;
use zed_host::guest::GuestError;
use zed_host::guest::GuestRequest;
use zed_host::guest::Guests;
use zed_host::guest::MountRequest;
use zed_plan::GuestId;
use zed_plan::GuestSpec;
use zed_plan::RunSpec;
use zed_plan::Step;
use zed_spec::DatasetPath;
use zed_spec::Probe;
use zed_store::Store;

/// Carries out a step on a guest.
pub(crate) fn run(store: &dyn Store, host: &dyn Host, step: &Step) -> Result<(), StepError> {
    let guests = guests(host)?;
    match step {
        Step::MakeGuest { guest } => Ok(guest::make(&*guests, &request(store, guest)?)?),
        Step::StartGuest { guest } => Ok(guest::start(&*guests, &request(store, guest)?)?),
        Step::StopGuest { guest } => Ok(guests.stop(guest)?),
        Step::RemoveGuest { guest } => Ok(guests.remove(guest)?),
        _ => Ok(()),
    }
}

fn guests(host: &dyn Host) -> Result<Arc<dyn Guests>, StepError> {
    host.guests().ok_or(StepError::Missing("make jails or zones on this host"))
}

/// The guest with the places of its datasets.
fn request(store: &dyn Store, spec: &GuestSpec) -> Result<GuestRequest, StepError> {
    let root = mountpoint(store, spec.dataset())?;
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let source = mountpoint(store, &mount.dataset)?;
        let at = mount.at.clone().unwrap_or_else(|| source.to_string_lossy().into_owned());
        mounts.push(MountRequest { source, at, read_only: mount.read_only });
    }
    Ok(GuestRequest { spec: spec.clone(), root, mounts })
}

/// Where a dataset is, mounted.
fn mountpoint(store: &dyn Store, dataset: &DatasetPath) -> Result<PathBuf, StepError> {
    store.mount(dataset)?;
    let found = store.get(dataset)?;
    found
        .and_then(|found| found.mountpoint.clone())
        .ok_or_else(|| StepError::NoPlace { dataset: dataset.clone() })
}

/// What is executed on the host for a program that belongs into a guest; the program itself where there is none.
pub(crate) struct Entered {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Complete environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// User of that program, on the host.
    pub(crate) user: Option<String>,
    /// Its group.
    pub(crate) group: Option<String>,
}

/// Wraps a program of an app; `name` tells it from the app's other programs.
pub(crate) fn enter(
    host: &dyn Host,
    run: &RunSpec,
    name: &str,
    command: &[String],
    environment: BTreeMap<String, String>,
) -> Result<Entered, StepError> {
    let (user, group) = (run.user.clone(), run.group.clone());
    let Some(guest) = GuestId::of(&run.runtime).filter(|_| !command.is_empty()) else {
        return Ok(Entered { command: command.to_vec(), environment, user, group });
    };
    let failed = |kind| GuestError { operation: "enter", object: guest.to_string(), kind };
    // The same path inside and outside: see [`GuestSpec::new`].
    let directory = PathBuf::from(environment.get("ZED_RELEASE").map_or("/", String::as_str));
    let inside =
        guest::inside(&guest, name, command, &environment, &directory, user.as_deref(), group.as_deref());
    let inside = inside.map_err(failed)?;
    if let Some((path, content)) = &inside.script {
        guests(host)?.write_script(&guest, path, content)?;
    }
    Ok(Entered { command: inside.argv, environment: inside.environment, user: None, group: None })
}

/// The probes of an app, of which those that run a program do so in its guest.
pub(crate) fn probe_inside(
    host: &dyn Host,
    run: &RunSpec,
    mut request: ProbeRequest,
) -> Result<ProbeRequest, StepError> {
    if GuestId::of(&run.runtime).is_none() {
        return Ok(request);
    }
    for (index, probe) in request.health.probes.iter_mut().enumerate() {
        let Probe::Exec { command } = probe else { continue };
        let name = format!("{} probe {index}", run.instance());
        let entered = enter(host, run, &name, command, request.environment.clone())?;
        // The others read from the environment, too: BeamPing its cookie.
        *command = entered.command;
    }
    (request.user, request.group) = (None, None);
    Ok(request)
}
