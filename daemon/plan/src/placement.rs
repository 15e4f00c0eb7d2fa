//! Whether something belongs on this host.

use crate::observed::Observed;
use zed_spec::DeploySpec;
use zed_spec::Placement;

/// True when a placement includes this host. A spec that names hosts belongs to those only.
pub(crate) fn placed_here(on: &Placement, spec: &DeploySpec, observed: &Observed) -> bool {
    if !spec.hosts.is_empty() && !is_member(spec, observed) {
        return false;
    }
    match &observed.host {
        Some(host) => on.includes(host, &spec.hosts),
        None => *on == Placement::All,
    }
}

/// True when this host is one of the spec's.
pub(crate) fn is_member(spec: &DeploySpec, observed: &Observed) -> bool {
    observed.host.as_ref().is_some_and(|host| spec.hosts.contains_key(host))
}
