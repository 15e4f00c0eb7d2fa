use super::*;
use crate::types::ImageDefaults;
use serde_json::Value;

fn request() -> ContainerRequest {
    ContainerRequest {
        root: "/pool/apps/api/releases/1/rootfs".into(),
        image: ImageDefaults { workdir: Some("srv".into()), ..ImageDefaults::default() },
        data: "/pool/apps/api".into(),
        mounts: vec!["/pool/shared".into()],
        private_network: false,
        limits: Limits::default(),
    }
}

fn made(request: &ContainerRequest, uid: u32, limits: &Limits, counts_swap: bool) -> Value {
    let spec = config(&Inputs {
        request,
        command: &["/bin/api".to_owned(), "--serve".to_owned()],
        environment: &BTreeMap::from([("A".to_owned(), "b=c".to_owned())]),
        identity: &Identity { uid, gid: 7, groups: vec![7, 8] },
        limits,
        hostname: "api.2",
        counts_swap,
    });
    serde_json::to_value(spec.unwrap()).unwrap()
}

#[test]
fn the_configuration_says_what_the_runtime_reads() {
    let limits = Limits { memory: Some(64 << 20), cpus: Some(0.5), pids: Some(20), nofile: Some(99) };
    let made = made(&request(), 1000, &limits, true);
    for (path, expected) in [
        ("/ociVersion", serde_json::json!("1.0.2")),
        ("/hostname", serde_json::json!("api.2")),
        ("/root", serde_json::json!({"path": "/pool/apps/api/releases/1/rootfs", "readonly": true})),
        ("/process/args", serde_json::json!(["/bin/api", "--serve"])),
        ("/process/env", serde_json::json!(["A=b=c"])),
        ("/process/cwd", serde_json::json!("/srv")),
        ("/process/user", serde_json::json!({"uid": 1000, "gid": 7, "additionalGids": [7, 8]})),
        ("/process/noNewPrivileges", serde_json::json!(true)),
        ("/process/rlimits", serde_json::json!([{"type": "RLIMIT_NOFILE", "hard": 99, "soft": 99}])),
        ("/linux/resources/memory", serde_json::json!({"limit": 67_108_864, "swap": 67_108_864})),
        ("/linux/resources/cpu", serde_json::json!({"quota": 50_000, "period": 100_000})),
        ("/linux/resources/pids", serde_json::json!({"limit": 20})),
        ("/linux/seccomp/defaultAction", serde_json::json!("SCMP_ACT_ERRNO")),
    ] {
        assert_eq!(made.pointer(path), Some(&expected), "{path}");
    }
}

#[test]
fn rights_are_those_of_the_user_and_never_more() {
    for (uid, expected, ambient) in [(0, 7, 0), (1000, 1, 1)] {
        let made = made(&request(), uid, &Limits::default(), true);
        let sets = &made["process"]["capabilities"];
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(sets[set].as_array().unwrap().len(), expected, "{uid} {set}");
        }
        for set in ["ambient", "inheritable"] {
            assert_eq!(sets[set].as_array().map_or(0, Vec::len), ambient, "{uid} {set}");
        }
    }
}

#[test]
fn an_app_gets_its_own_folders_and_the_network_that_it_asks_for() {
    for private in [false, true] {
        let request = ContainerRequest { private_network: private, ..request() };
        let made = made(&request, 0, &Limits::default(), false);
        let binds: Vec<(&str, &str)> = made["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .map(|mount| (mount["source"].as_str().unwrap(), mount["destination"].as_str().unwrap()))
            .filter(|(source, _)| source.starts_with("/pool"))
            .collect();
        assert_eq!(binds, [("/pool/apps/api", "/data"), ("/pool/shared", "/pool/shared")]);
        let kinds = made["linux"]["namespaces"].to_string();
        assert_eq!(kinds.contains("network"), private);
        assert_eq!(
            made["mounts"].to_string().contains("/etc/hosts"),
            !private && Path::new("/etc/hosts").exists()
        );
        let masked = made["linux"]["maskedPaths"].to_string();
        assert!(masked.contains("/data/releases") && masked.contains("/proc/kcore"), "{masked}");
        assert!(made["linux"]["resources"].get("memory").is_none());
    }
}

#[test]
fn what_makes_namespaces_and_mounts_is_not_on_the_list() {
    let seccomp = serde_json::to_value(seccomp().unwrap()).unwrap();
    let allowed = |name: &str| {
        let rules = seccomp["syscalls"].as_array().unwrap().iter();
        rules
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
            .any(|rule| rule["names"].as_array().unwrap().iter().any(|listed| listed == name))
    };
    for name in ["read", "execve", "openat", "futex", "epoll_wait", "clone", "socket", "exit_group"] {
        assert!(allowed(name), "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "pivot_root",
        "bpf",
        "keyctl",
        "add_key",
        "reboot",
        "ptrace_x",
        "io_uring_setup",
        "kexec_load",
        "init_module",
        "open_by_handle_at",
        "clone3",
        "swapon",
        "userfaultfd",
    ] {
        assert!(!allowed(name), "{name}");
    }
}
