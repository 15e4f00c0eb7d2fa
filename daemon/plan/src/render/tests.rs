use super::*;
use crate::testing::*;

#[test]
fn show() {
    let mut w = TestWorld::new();
    w.observed.env.insert("REGION".into(), "eu".into());
    w.observed.env.insert("RELEASE_COOKIE".into(), "x".into());
    for name in ["hello", "stack", "prod", "jails", "fleet", "gpu-cluster"] {
        let plan = w.deploy(name, &example(name));
        println!("{}\n=======", render_plan(&plan, &w.observed));
    }
    w.converge("hello", &example("hello"));
    let p = w.deploy("hello", &example("hello").replace("1.0.0", "1.1.0"));
    println!("{}\n=======", render_plan(&p, &w.observed));
    w.run(&p);
    let p = w.rollback("hello", "@latest");
    println!("{}\n=======", render_plan(&p, &w.observed));
    let p = w.plan("hello", &example("hello").replace("1.0.0", "1.1.0"));
    println!("{}\n=======", render_plan(&p, &w.observed));
}
