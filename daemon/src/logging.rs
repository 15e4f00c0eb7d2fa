//! The daemon's own log: to stderr and to the file that `/zed/log` streams; its level can be changed.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use zed_ctl::LogLevel;

/// The file becomes `log.1` when it is longer than this, in bytes.
const ROTATE_AT: u64 = 8 << 20;

/// Until somebody sets another.
const DEFAULT_LEVEL: &str = "info";

/// Changes the level of the running log.
#[derive(Clone)]
pub struct LogLevelHandle {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    /// What it is set to, or the filter that it was started with.
    level: Arc<Mutex<String>>,
}

impl LogLevelHandle {
    /// For a daemon without a log of its own (tests).
    pub fn none() -> Self {
        Self { handle: None, level: Arc::new(Mutex::new(DEFAULT_LEVEL.to_owned())) }
    }

    /// What it is set to: a level, or the filter of `ZED_LOG`.
    pub fn level(&self) -> String {
        self.level.lock().clone()
    }

    /// Sets the level.
    pub fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.handle
            && let Err(error) = handle.reload(filter(level.as_str()))
        {
            tracing::error!(%error, "the level of the log could not be changed");
            return;
        }
        level.as_str().clone_into(&mut self.level.lock());
    }
}

/// zed's own targets at this level; libraries only when they warn.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!(
        "warn,zedd={level},zed_fs={level},zed_gpu={level},zed_store={level},zed_host={level}"
    ))
}

/// Starts logging. `ZED_LOG` overrides the filter, in tracing's syntax.
pub fn start(path: &Path) -> io::Result<LogLevelHandle> {
    let file = LogFile::open(path)?;
    let given = std::env::var("ZED_LOG").ok();
    let filter = given.as_ref().map_or_else(|| filter(DEFAULT_LEVEL), EnvFilter::new);
    let (filter, handle) = reload::Layer::new(filter);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || Tee(file.clone()));
    Registry::default().with(filter).with(layer).try_init().map_err(io::Error::other)?;
    let level = given.unwrap_or_else(|| DEFAULT_LEVEL.to_owned());
    Ok(LogLevelHandle { handle: Some(handle), level: Arc::new(Mutex::new(level)) })
}

/// Puts in place what waiting clients of the mount need to be interruptible; see zed-fs. What libraries log
/// goes where zed's own lines go.
#[cfg(not(target_os = "illumos"))]
pub fn install_interrupt_logger() -> Result<(), String> {
    zed_fs::fuse::install_interrupt_logger(Box::new(tracing_log::LogTracer::new()))
        .map_err(|e| format!("failed to install the logger that interrupts depend on: {e}"))
}

#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    inner: Arc<Mutex<(fs::File, u64)>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), inner: Arc::new(Mutex::new((file, length))) })
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.1 > ROTATE_AT {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            *inner = (fs::OpenOptions::new().create(true).append(true).open(&self.path)?, 0);
        }
        inner.0.write_all(bytes)?;
        inner.1 += bytes.len() as u64;
        Ok(())
    }
}

/// Both places. One that cannot be written does not keep the other from it.
struct Tee(LogFile);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        let _ = self.0.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
