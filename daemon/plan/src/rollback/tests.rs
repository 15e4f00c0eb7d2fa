use super::*;
use crate::testing::*;

/// hello in three versions, each deployed.
fn three() -> TestWorld {
    let mut world = TestWorld::new();
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.converge("hello", &example("hello").replace("1.0.0", version));
    }
    world
}

fn version(world: &TestWorld) -> String {
    world.observed.datasets["apps/hello"].user["com.zed:version"].clone()
}

#[test]
fn latest_goes_back_one_release_and_again_one() {
    let mut world = three();
    world.rollback("hello", "@latest");
    assert_eq!(version(&world), "1.1.0");
    let wrote: Vec<&str> = world.content["apps/hello"].iter().map(|line| &line[..11]).collect();
    assert_eq!(wrote, ["hello 1.0.0", "hello 1.1.0"]);
    world.rollback("hello", "@latest");
    assert_eq!(version(&world), "1.0.0");
    let error = world.plan_rollback("hello", "@latest").unwrap_err();
    assert!(matches!(error, RollbackError::NoOlderRelease { .. }), "{error}");
}
