//! The gpu tier: GPU nodes on a Vulkan driver that needs no GPU, or, with `ZED_TEST_GPU=real`, on the system's own.

use super::Options;
use super::Outcome;
use super::Pick;
use crate::count::Counts;
use std::ffi::OsStr;

pub(super) fn tier(options: &Options, sum: &mut Counts) -> Result<Outcome, String> {
    let env = match crate::vulkan::environment(options.no_install)? {
        Ok(env) => env,
        Err(why) => return Ok(Outcome::NotRun(why)),
    };
    let env: Vec<(&str, &OsStr)> = env.iter().map(|(key, value)| (*key, value.as_os_str())).collect();
    let nodes = super::tests(sum, &["--package", "zed-gpu"], &Pick::All, &env)?;
    if let Some(why) = super::without_mount(options)? {
        println!("   jobs through the tree are not tried: {why}");
        return Ok(nodes);
    }
    super::build_programs()?;
    let select = ["--package", "zed-tests", "--features", "zed-tests/fuse"];
    let shells = super::tests(sum, &select, &Pick::Only("gpu"), &env)?;
    Ok(if matches!(nodes, Outcome::Passed) { shells } else { nodes })
}
