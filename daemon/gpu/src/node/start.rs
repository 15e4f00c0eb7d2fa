//! The start of a node: its arguments, its caches, its device, the canary.

use super::cache;
use super::cache::Identity;
use super::canary;
use super::engine::Engine;
use super::folder::Folder;
use super::keeper::Keeper;
use super::shaders::Shaders;
use crate::device::DeviceInfo;
use crate::device::Selection;
use crate::device::choose;
use crate::vk;
use crate::vk::Device;
use crate::vk::DeviceOptions;
use crate::vk::Driver;
use crate::wire::CacheState;
use crate::wire::StartTimes;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What a node is told: `--uuid HEX|--rank N --cache DIR [--allow-cpu]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) selection: Selection,
    pub(super) cache: PathBuf,
    pub(super) allow_cpu: bool,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// Which one is wrong.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut selection, mut cache, mut allow_cpu) = (None, None, false);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--allow-cpu" => allow_cpu = true,
                "--uuid" => selection = Some(Selection::Uuid(value()?.clone())),
                "--rank" => {
                    let rank = value()?;
                    let number = rank.parse().map_err(|_| format!("--rank {rank}: a number is wanted"))?;
                    selection = Some(Selection::Rank(number));
                }
                "--cache" => cache = Some(PathBuf::from(value()?)),
                _ => return Err(format!("{name} is no argument of a GPU node")),
            }
        }
        Ok(Self {
            selection: selection.ok_or("--uuid or --rank is missing")?,
            cache: cache.ok_or("--cache is missing")?,
            allow_cpu,
        })
    }
}

/// A node that is ready.
pub(super) struct Started {
    pub(super) engine: Engine,
    pub(super) info: DeviceInfo,
    pub(super) times: StartTimes,
    pub(super) cache: CacheState,
}

/// Microseconds since then, and a new then.
fn lap(since: &mut Instant) -> u64 {
    let micros = micros(*since);
    *since = Instant::now();
    micros
}

/// Microseconds since then.
pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Makes the folder of the caches. Belongs at the beginning of a process, before any other thread: drivers are told by the
/// environment where to keep their own.
///
/// # Errors
/// When it cannot be used. Without it everything works, only slower.
pub(super) fn folder(arguments: &Arguments) -> io::Result<Folder> {
    let folder = Folder::new(&arguments.cache)?;
    vk::shader_caches_below(&folder.drivers());
    Ok(folder)
}

/// Opens the device.
///
/// # Errors
/// Why the device cannot be used.
pub(super) fn start(arguments: &Arguments, folder: io::Result<Folder>) -> Result<Started, String> {
    let mut times = StartTimes::default();
    let mut clock = Instant::now();
    let driver = Arc::new(Driver::load().map_err(|error| error.to_string())?);
    let devices = driver.devices();
    let place =
        choose(&devices, &arguments.selection, arguments.allow_cpu).map_err(|error| error.to_string())?;
    let info = devices.into_iter().nth(place).ok_or("the device is gone")?;
    times.instance = lap(&mut clock);
    let identity = Identity::of(&info, driver.cache_uuid(place).unwrap_or_default());
    let (cache, blob) = match &folder {
        Ok(folder) => load(folder, &info, &identity),
        Err(error) => (unusable(&arguments.cache, error), Vec::new()),
    };
    times.cache = lap(&mut clock);
    let options = DeviceOptions { pipeline_cache: &blob, ..DeviceOptions::default() };
    let device = Device::open(&driver, place, &options).map_err(|error| error.to_string())?;
    times.device = lap(&mut clock);
    // A lock that cannot be had is another node's: this one does not write.
    let keeper = folder.ok().and_then(|folder| {
        let writer = folder.writer(info.uuid).ok().flatten();
        Keeper::new(Shaders::new(folder.shaders()), writer, identity).ok()
    });
    let mut engine = Engine::on(device, keeper);
    times.cache += lap(&mut clock);
    canary::run(&mut engine)?;
    times.canary = lap(&mut clock);
    Ok(Started { engine, info, times, cache })
}

fn unusable(folder: &Path, error: &io::Error) -> CacheState {
    CacheState::Rejected(format!("{} cannot be used: {error}", folder.display()))
}

/// What is in the file of the pipeline cache, and what to say of it.
fn load(folder: &Folder, info: &DeviceInfo, identity: &Identity) -> (CacheState, Vec<u8>) {
    match folder.pipeline_cache(info.uuid, cache::MAX_FILE) {
        Ok(None) => (CacheState::Absent, Vec::new()),
        Ok(Some(file)) => match cache::decode(&file, identity) {
            Ok(blob) => (CacheState::Loaded(blob.len() as u64), blob.to_vec()),
            Err(reason) => (CacheState::Rejected(reason.to_string()), Vec::new()),
        },
        Err(error) => (CacheState::Rejected(format!("it cannot be read: {error}")), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_a_device_and_a_folder() {
        let parse = |text: &str| {
            Arguments::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<String>>())
        };
        let arguments = |selection, allow_cpu| Arguments { selection, cache: "/c".into(), allow_cpu };
        assert_eq!(parse("--rank 3 --cache /c"), Ok(arguments(Selection::Rank(3), false)));
        let uuid = Selection::Uuid("ab12".to_owned());
        assert_eq!(parse("--allow-cpu --cache /c --uuid ab12"), Ok(arguments(uuid, true)));
        for (text, expected) in [
            ("--cache /c", "--uuid or --rank is missing"),
            ("--rank 1", "--cache is missing"),
            ("--rank x --cache /c", "--rank x: a number is wanted"),
            ("--cache", "--cache needs a value"),
            ("--rank 1 --cache /c more", "more is no argument of a GPU node"),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
    }
}
