//! The configuration of a container, as the OCI runtime specification has it. Pure, but for the folders that it names.
//!
//! Owns what a container may do: a read-only root, its own processes, mounts, host name and IPC, few capabilities and
//! never more of them, a deny-by-default list of system calls, and only the folders of its app.

use crate::identity::Identity;
use crate::types::ContainerRequest;
use crate::types::HostErrorKind;
use oci_spec::runtime::Arch;
use oci_spec::runtime::Capabilities;
use oci_spec::runtime::Capability;
use oci_spec::runtime::Linux;
use oci_spec::runtime::LinuxCapabilities;
use oci_spec::runtime::LinuxCpu;
use oci_spec::runtime::LinuxDeviceCgroup;
use oci_spec::runtime::LinuxMemory;
use oci_spec::runtime::LinuxNamespace;
use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::LinuxPids;
use oci_spec::runtime::LinuxResources;
use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::Mount;
use oci_spec::runtime::PosixRlimit;
use oci_spec::runtime::PosixRlimitBuilder;
use oci_spec::runtime::PosixRlimitType;
use oci_spec::runtime::Process;
use oci_spec::runtime::Root;
use oci_spec::runtime::Spec;
use oci_spec::runtime::User;
use oci_spec::runtime::get_default_maskedpaths;
use oci_spec::runtime::get_default_readonly_paths;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::Limits;

/// What runc 1.1 knows.
const VERSION: &str = "1.0.2";
/// Where the app's dataset is inside.
pub(crate) const DATA: &str = "/data";
/// Microseconds in which a share of the CPUs may be used.
const PERIOD: u64 = 100_000;
/// System calls that are allowed. Taken from the list that containers-common (Apache-2.0) ships, without what makes
/// namespaces and mounts, keyrings and io_uring.
const SECCOMP: &str = include_str!("seccomp.json");
/// Files of the host that name resolution needs where the network is the host's.
const NETWORK_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// Everything that a configuration is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) request: &'a ContainerRequest,
    pub(crate) command: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) identity: &'a Identity,
    pub(crate) limits: &'a Limits,
    pub(crate) hostname: &'a str,
    /// The kernel counts swap.
    pub(crate) counts_swap: bool,
}

/// Makes it. Its cgroup is set by who knows it.
pub(crate) fn config(inputs: &Inputs<'_>) -> Result<Spec, HostErrorKind> {
    let ContainerRequest { root, .. } = inputs.request;
    let mut top = Root::default();
    top.set_path(root.clone()).set_readonly(Some(true));
    let mut spec = Spec::default();
    spec.set_version(VERSION.to_owned())
        .set_root(Some(top))
        .set_mounts(Some(mounts(inputs.request)))
        .set_process(Some(process(inputs)?))
        .set_hostname(Some(inputs.hostname.to_owned()))
        .set_annotations(None)
        .set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn process(inputs: &Inputs<'_>) -> Result<Process, HostErrorKind> {
    let Identity { uid, gid, groups } = inputs.identity;
    let mut user = User::default();
    user.set_uid(*uid).set_gid(*gid).set_additional_gids(Some(groups.clone()));
    let cwd = inputs.request.image.workdir.as_deref().unwrap_or("/");
    let environment = inputs.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(user)
        .set_args(Some(inputs.command.to_vec()))
        .set_env(Some(environment.collect()))
        .set_cwd(Path::new("/").join(cwd))
        .set_capabilities(Some(capabilities(*uid)))
        .set_rlimits(inputs.limits.nofile.map(|most| nofile(most).map(|limit| vec![limit])).transpose()?)
        .set_no_new_privileges(Some(true));
    Ok(process)
}

fn nofile(most: u64) -> Result<PosixRlimit, HostErrorKind> {
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).hard(most).soft(most);
    limit.build().map_err(|e| HostErrorKind::Io(format!("the limit of open files: {e}")))
}

/// Root of an image gives its files and processes to its own users; everybody may listen on low ports.
fn capabilities(uid: u32) -> LinuxCapabilities {
    let low_ports: Capabilities = [Capability::NetBindService].into();
    let root: Capabilities = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Kill,
        Capability::NetBindService,
        Capability::Setgid,
        Capability::Setuid,
    ]
    .into();
    let have = if uid == 0 { root } else { low_ports };
    let ambient = if uid == 0 { Capabilities::new() } else { have.clone() };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(have.clone()))
        .set_effective(Some(have.clone()))
        .set_permitted(Some(have))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    capabilities
}

fn mount(at: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(at))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

fn bind(source: &Path, at: &Path, options: &[&str]) -> Mount {
    let mut mount = mount("", "bind", "", &[&["rbind", "nosuid", "nodev"], options].concat());
    mount.set_destination(at.to_owned()).set_source(Some(source.to_owned()));
    mount
}

fn mounts(request: &ContainerRequest) -> Vec<Mount> {
    const SAFE: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let safe = |more: &[&'static str]| [&SAFE, more].concat();
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &SAFE),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &safe(&["mode=1777", "size=65536k"])),
        mount("/dev/mqueue", "mqueue", "mqueue", &SAFE),
        mount("/sys", "sysfs", "sysfs", &safe(&["ro"])),
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ];
    if !request.private_network {
        let files = NETWORK_FILES.map(Path::new).into_iter().filter(|path| path.is_file());
        mounts.extend(files.map(|path| bind(path, path, &["ro", "noexec"])));
    }
    mounts.push(bind(&request.data, Path::new(DATA), &["rw"]));
    mounts.extend(request.mounts.iter().map(|path| bind(path, path, &["rw"])));
    mounts
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux, HostErrorKind> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if inputs.request.private_network {
        kinds.push(LinuxNamespaceType::Network);
    }
    let namespaces = kinds.into_iter().map(|kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace
    });
    let mut masked = get_default_maskedpaths();
    // The release itself lies in the dataset, and is not the app's to change.
    masked.push(format!("{DATA}/releases"));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces.collect()))
        .set_resources(Some(resources(inputs)))
        .set_seccomp(Some(seccomp()?))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(get_default_readonly_paths()));
    Ok(linux)
}

fn resources(inputs: &Inputs<'_>) -> LinuxResources {
    let Limits { memory, cpus, pids, nofile: _ } = inputs.limits;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut nothing = LinuxDeviceCgroup::default();
    nothing.set_allow(false).set_typ(None).set_major(None).set_minor(None).set_access(Some("rwm".to_owned()));
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(vec![nothing]));
    if let Some(bytes) = memory {
        let mut limit = LinuxMemory::default();
        // Memory and swap together, so there is no swap at all.
        limit.set_limit(Some(signed(*bytes))).set_swap(inputs.counts_swap.then(|| signed(*bytes)));
        resources.set_memory(Some(limit));
    }
    if let Some(cpus) = cpus {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a spec's number of CPUs is positive, and `as` ends at the largest number"
        )]
        let quota = ((cpus * PERIOD as f64).round() as i64).max(1_000);
        let mut share = LinuxCpu::default();
        share.set_quota(Some(quota)).set_period(Some(PERIOD));
        resources.set_cpu(Some(share));
    }
    if let Some(pids) = pids {
        let mut most = LinuxPids::default();
        most.set_limit(signed(*pids));
        resources.set_pids(Some(most));
    }
    resources
}

fn seccomp() -> Result<LinuxSeccomp, HostErrorKind> {
    let mut seccomp: LinuxSeccomp = serde_json::from_str(SECCOMP)
        .map_err(|e| HostErrorKind::Io(format!("the list of system calls is not readable: {e}")))?;
    // A 32-bit program is no way around the list.
    let architectures = match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        // The runtime takes its own.
        _ => Vec::new(),
    };
    seccomp.set_architectures(Some(architectures).filter(|list| !list.is_empty()));
    Ok(seccomp)
}

#[cfg(test)]
mod tests;
