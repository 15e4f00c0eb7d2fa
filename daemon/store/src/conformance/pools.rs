//! Cases about pools.

use super::*;
use crate::Pool;

pub(super) const CASES: &[(&str, Case)] = &[("pools_tell_health_and_space", pools_tell_health_and_space)];

fn pools_tell_health_and_space(fixture: &mut dyn Fixture) {
    let pools = ok(fixture.store().pools());
    let info = ok(fixture.store().info());
    let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
    assert!(names.is_sorted() && !names.is_empty(), "{names:?}");
    // On ZFS the root is a pool or below one; elsewhere there is one, called after the store's kind.
    let own = if info.kind == "zfs" { info.root.split('/').next().unwrap_or_default() } else { &info.kind };
    let own = pools.iter().find(|pool| pool.name == own).unwrap_or_else(|| panic!("{own} among {names:?}"));
    assert_eq!(own.health, Pool::ONLINE);
    assert!(own.free > 0 && own.free <= own.size && own.allocated <= own.size, "{own:?}");
}
