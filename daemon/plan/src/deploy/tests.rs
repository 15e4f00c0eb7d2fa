use crate::testing::*;

#[test]
fn the_first_deploy_of_hello() {
    let mut world = TestWorld::new();
    let plan = world.deploy("hello", &example("hello"));
    let steps: Vec<&str> = plan.units.iter().flat_map(|u| &u.steps).map(|s| step_name(&s.step)).collect();
    assert_eq!(steps, ["CreateDataset", "CreateDataset", "StartApp", "Probe", "RecordRelease", "SetProps"]);
    world.run(&plan);
    assert!(world.deploy("hello", &example("hello")).is_empty());
}
