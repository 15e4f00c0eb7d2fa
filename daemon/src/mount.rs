//! The mount of the tree: made when the daemon starts, taken away when it stops. illumos has no FUSE, so the tree
//! is served on the socket only there.
//!
//! Knows nothing of what is served.

use crate::args::Args;
use crate::args::Defaults;
use crate::serve::Failure;
use std::sync::Arc;
use zed_fs::tree::Tree;

#[cfg(not(target_os = "illumos"))]
pub(crate) use with_fuse::mount;
#[cfg(target_os = "illumos")]
pub(crate) use without_fuse::mount;

#[cfg(not(target_os = "illumos"))]
mod with_fuse {
    use super::Arc;
    use super::Args;
    use super::Defaults;
    use super::Failure;
    use super::Tree;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;
    use zed_fs::fuse::MountSettings;
    use zed_fs::fuse::Mounted;
    use zed_host::CommandRequest;
    use zed_host::Ended;
    use zed_host::Runner;

    /// Mounts the tree where the command line or the default says; nowhere with `--no-mount`.
    pub(crate) fn mount(
        args: &Args,
        defaults: &Result<Defaults, String>,
        tree: &Arc<Tree>,
    ) -> Result<Option<Mounted>, Failure> {
        if args.no_mount {
            return Ok(None);
        }
        let dir = match &args.mount {
            Some(dir) => dir.clone(),
            None => defaults.as_ref().map_err(Clone::clone)?.mount.clone(),
        };
        crate::logging::install_interrupt_logger()?;
        let settings = MountSettings { allow_other: false, unmount_helper: Some(Arc::new(fusermount)) };
        zed_fs::fuse::mount(tree, &dir, &settings).map(Some).map_err(|e| crate::chain(&e))
    }

    /// Takes the dead mount of a normal user's zedd away.
    fn fusermount(path: &Path) -> std::io::Result<()> {
        let argv = ["fusermount3", "-u", "-z", "--"].map(ToOwned::to_owned).into_iter();
        let finished = Runner::default()
            .run(
                &CommandRequest {
                    argv: argv.chain(std::iter::once(path.to_string_lossy().into_owned())).collect(),
                    program: None,
                    environment: BTreeMap::from([("PATH".to_owned(), zed_host::DEFAULT_PATH.to_owned())]),
                    directory: None,
                    input: Vec::new(),
                    deadline: Duration::from_secs(10),
                    grace: Duration::from_secs(1),
                    keep: 4096,
                },
                None,
            )
            .map_err(std::io::Error::other)?;
        if finished.ended == Ended::Exit(0) {
            return Ok(());
        }
        Err(std::io::Error::other(String::from_utf8_lossy(&finished.output).into_owned()))
    }
}

#[cfg(target_os = "illumos")]
mod without_fuse {
    use super::Arc;
    use super::Args;
    use super::Defaults;
    use super::Failure;
    use super::Tree;

    /// A mount, of which there is none on this system.
    pub(crate) enum Mounted {}

    impl Mounted {
        /// Takes it away.
        pub(crate) fn unmount(self) -> Result<(), std::convert::Infallible> {
            match self {}
        }
    }

    /// Mounts nothing, and refuses to seem to.
    pub(crate) fn mount(
        args: &Args,
        _defaults: &Result<Defaults, String>,
        _tree: &Arc<Tree>,
    ) -> Result<Option<Mounted>, Failure> {
        match &args.mount {
            Some(dir) => Err(format!(
                "`--mount {}` is not possible: illumos has no FUSE; start zedd without it, and use zedctl, which \
                 finds the tree on the socket",
                dir.display()
            )),
            None => {
                tracing::info!("illumos has no FUSE: the tree is served on the socket only");
                Ok(None)
            }
        }
    }
}
