use super::super::recorded;
use super::*;
use std::collections::BTreeMap;

fn all() -> Limits {
    Limits { memory: Some(64 << 20), cpus: Some(1.5), pids: Some(100), nofile: Some(10) }
}

fn make(layout: &Layout, limits: &Limits, files: &[(&str, &str)]) -> Result<Plan, Unenforceable> {
    let files: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
    Plan::make(layout, Path::new("zed-1/api"), limits, &|path| files.get(path).map(|text| (*text).to_owned()))
}

/// One line a thing to do.
fn shown(plan: &Plan) -> Vec<String> {
    let enable =
        plan.enable.iter().map(|e| format!("{}/cgroup.subtree_control {}", e.folder.display(), e.word));
    let groups = plan.groups.iter().flat_map(|group| {
        let settings = group.settings.iter().map(|s| {
            let mark = if s.if_present { " ?" } else { "" };
            format!("{}/{} {}{mark}", group.path.display(), s.file, s.value)
        });
        settings.chain(std::iter::once(format!("{} <- program", group.leaf.display())))
    });
    enable.chain(groups).collect()
}

#[test]
fn version_1_gets_a_cgroup_in_each_hierarchy() {
    let layout = Layout::parse(recorded::HYBRID_MOUNTS, recorded::HYBRID_OWN);
    let plan = make(&layout, &all(), &[]).expect("a plan");
    let top = "/sys/fs/cgroup";
    let expect = [
        format!("{top}/memory/tasks/e03d/zed-1/api/memory.limit_in_bytes 67108864"),
        format!("{top}/memory/tasks/e03d/zed-1/api/memory.memsw.limit_in_bytes 67108864 ?"),
        format!("{top}/memory/tasks/e03d/zed-1/api <- program"),
        format!("{top}/cpu/zed-1/api/cpu.cfs_period_us 100000"),
        format!("{top}/cpu/zed-1/api/cpu.cfs_quota_us 150000"),
        format!("{top}/cpu/zed-1/api <- program"),
        format!("{top}/pids/zed-1/api/pids.max 100"),
        format!("{top}/pids/zed-1/api <- program"),
    ];
    assert_eq!(shown(&plan), expect);
    // Without limits only memory is counted.
    let plan = make(&layout, &Limits::default(), &[]).expect("a plan");
    assert_eq!(shown(&plan), [format!("{top}/memory/tasks/e03d/zed-1/api <- program")]);
}

const TOP: &str = "/sys/fs/cgroup";

/// Debian 12: the CPU controller is passed on by nobody yet.
const DEBIAN: [(&str, &str); 6] = [
    ("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n"),
    ("/sys/fs/cgroup/cgroup.subtree_control", "memory pids\n"),
    ("/sys/fs/cgroup/system.slice/cgroup.subtree_control", "memory pids\n"),
    ("/sys/fs/cgroup/system.slice/cgroup.type", "domain\n"),
    ("/sys/fs/cgroup/system.slice/cgroup.procs", ""),
    ("/sys/fs/cgroup/system.slice/zedd.service/cgroup.type", "domain\n"),
];

#[test]
fn version_2_gets_one_cgroup_beside_the_daemons() {
    let layout = Layout::parse(recorded::UNIFIED_MOUNTS, recorded::UNIFIED_OWN);
    let plan = make(&layout, &all(), &DEBIAN).expect("a plan");
    let slice = format!("{TOP}/system.slice");
    let expect = [
        format!("{slice}/zed-1/cgroup.subtree_control +memory"),
        format!("{slice}/zed-1/api/cgroup.subtree_control +memory"),
        format!("{TOP}/cgroup.subtree_control +cpu"),
        format!("{slice}/cgroup.subtree_control +cpu"),
        format!("{slice}/zed-1/cgroup.subtree_control +cpu"),
        format!("{slice}/zed-1/api/cgroup.subtree_control +cpu"),
        format!("{slice}/zed-1/cgroup.subtree_control +pids"),
        format!("{slice}/zed-1/api/cgroup.subtree_control +pids"),
        format!("{slice}/zed-1/api/memory.max 67108864"),
        format!("{slice}/zed-1/api/memory.swap.max 0 ?"),
        format!("{slice}/zed-1/api/cpu.max 150000 100000"),
        format!("{slice}/zed-1/api/pids.max 100"),
        format!("{slice}/zed-1/api/run <- program"),
    ];
    assert_eq!(shown(&plan), expect);
    // Without limits nothing is turned on in folders of others.
    let plan = make(&layout, &Limits::default(), &DEBIAN).expect("a plan");
    let others = plan
        .enable
        .iter()
        .filter(|enable| !enable.folder.ends_with("zed-1") && !enable.folder.ends_with("api"));
    assert_eq!(others.count(), 0, "{:?}", plan.enable);
    assert!(plan.enable.iter().all(|enable| enable.word != "+cpu" && enable.limit.is_none()));
}

#[test]
fn a_daemon_in_the_top_cgroup_uses_that() {
    let layout = Layout::parse(recorded::UNIFIED_MOUNTS, "0::/\n");
    let files = [("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")];
    let limits = Limits { memory: Some(1 << 20), ..Limits::default() };
    let plan = make(&layout, &limits, &files).expect("a plan");
    assert_eq!(plan.groups[0].path, Path::new("/sys/fs/cgroup/zed-1/api"));
    assert_eq!(plan.enable[0].folder, Path::new(TOP));
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let hybrid = Layout::parse(recorded::HYBRID_MOUNTS, recorded::HYBRID_OWN);
    let unified = |own: &str| Layout::parse(recorded::UNIFIED_MOUNTS, own);
    let mut no_pids = hybrid.clone();
    no_pids.v1.remove("pids");
    let mut locked = hybrid.clone();
    locked.v1.get_mut("memory").expect("memory").read_only = true;
    let mut busy = DEBIAN.to_vec();
    busy[4] = ("/sys/fs/cgroup/system.slice/cgroup.procs", "12\n");
    let namespace =
        [("/sys/fs/cgroup/cgroup.controllers", "memory"), ("/sys/fs/cgroup/cgroup.type", "domain")];
    let tiny = Limits { cpus: Some(0.0001), ..Limits::default() };
    type Case<'a> = (&'a Layout, Limits, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case<'_>; 6] = [
        (&no_pids, all(), &[], "pids 100", "there is no cgroup controller `pids`"),
        (&locked, all(), &[], "memory 64M", "is mounted read-only"),
        (
            &unified(recorded::UNIFIED_OWN),
            all(),
            &busy,
            "memory 64M",
            "`/sys/fs/cgroup/system.slice`, holds processes",
        ),
        (&unified("0::/\n"), all(), &namespace, "memory 64M", "the uppermost cgroup that it may see"),
        (&Layout::default(), all(), &[], "memory 64M", "there is no cgroup controller `memory`"),
        (&hybrid, tiny, &[], "cpus 0.0001", "in thousandths"),
    ];
    for (layout, limits, files, limit, reason) in cases {
        let error = make(layout, &limits, files).expect_err(reason);
        assert_eq!(error.limit, limit);
        assert!(error.reason.contains(reason), "{error}");
        assert!(error.to_string().ends_with(", or take the limit out of the spec"), "{error}");
    }
    // Where nothing is limited, nothing is refused.
    for layout in [&no_pids, &locked, &Layout::default()] {
        make(layout, &Limits::default(), &[]).expect("a plan");
    }
}

#[test]
fn shares_of_cpus_become_microseconds() {
    let cases = [
        (1.0, Some((100_000, 100_000))),
        (0.5, Some((50_000, 100_000))),
        (0.01, Some((1_000, 100_000))),
        (0.005, Some((5_000, 1_000_000))),
        (0.001, Some((1_000, 1_000_000))),
        (0.0001, None),
        (64.0, Some((6_400_000, 100_000))),
    ];
    for (cpus, expect) in cases {
        assert_eq!(quota(cpus), expect, "{cpus}");
    }
}
