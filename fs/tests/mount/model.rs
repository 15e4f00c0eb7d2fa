//! Random operations on a folder of specs and on a plain folder do the same.

use crate::support::Rig;
use crate::support::deploy_names;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NAMES: [&str; 6] = ["prod.ron", "web-1.ron", ".prod.ron.swp", "prod.ron~", "4913", "Prod.ron"];

#[derive(Debug, Clone)]
enum Action {
    Open { slot: usize, name: usize, create: bool, exclusive: bool, truncate: bool, append: bool },
    Write { slot: usize, offset: u64, data: Vec<u8> },
    Read { slot: usize, offset: u64, size: usize },
    Resize { slot: usize, size: u64 },
    Sync { slot: usize },
    Close { slot: usize },
    Put { name: usize, data: Vec<u8> },
    Get { name: usize },
    Cut { name: usize, size: u64 },
    Mode { name: usize, mode: u32 },
    Remove { name: usize },
    Rename { from: usize, to: usize },
    RenameOnly { from: usize, to: usize },
    Exchange { one: usize, other: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let (slot, name) = (0..3_usize, 0..NAMES.len());
    let data = || prop::collection::vec(b'a'..=b'z', 0..40);
    let (offset, size) = (0..60_u64, 0..60_u64);
    prop_oneof![
        (slot.clone(), name.clone(), any::<[bool; 4]>()).prop_map(
            |(slot, name, [create, exclusive, truncate, append])| {
                Action::Open {
                    slot,
                    name,
                    create,
                    exclusive: create && exclusive,
                    truncate: truncate && !append,
                    append,
                }
            }
        ),
        (slot.clone(), offset.clone(), data()).prop_map(|(slot, offset, data)| Action::Write {
            slot,
            offset,
            data
        }),
        (slot.clone(), offset, 0..60_usize).prop_map(|(slot, offset, size)| Action::Read {
            slot,
            offset,
            size
        }),
        (slot.clone(), size.clone()).prop_map(|(slot, size)| Action::Resize { slot, size }),
        slot.clone().prop_map(|slot| Action::Sync { slot }),
        slot.prop_map(|slot| Action::Close { slot }),
        (name.clone(), data()).prop_map(|(name, data)| Action::Put { name, data }),
        name.clone().prop_map(|name| Action::Get { name }),
        (name.clone(), size).prop_map(|(name, size)| Action::Cut { name, size }),
        (name.clone(), 0..0o1000_u32).prop_map(|(name, mode)| Action::Mode { name, mode }),
        name.clone().prop_map(|name| Action::Remove { name }),
        (name.clone(), name.clone()).prop_map(|(from, to)| Action::Rename { from, to }),
        (name.clone(), name.clone()).prop_map(|(from, to)| Action::RenameOnly { from, to }),
        (name.clone(), name).prop_map(|(one, other)| Action::Exchange { one, other }),
    ]
}

/// One of the two folders.
struct Side<'a> {
    folder: &'a Path,
    open: [Option<File>; 3],
}

/// What an action came to: bytes, or an error number.
type Came = Result<Vec<u8>, Option<i32>>;

impl Side<'_> {
    fn path(&self, name: usize) -> std::path::PathBuf {
        self.folder.join(NAMES[name])
    }

    fn slot(&self, slot: usize) -> io::Result<&File> {
        self.open[slot].as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn act(&mut self, action: &Action) -> Came {
        self.try_act(action).map_err(|error| error.raw_os_error())
    }

    fn try_act(&mut self, action: &Action) -> io::Result<Vec<u8>> {
        match action {
            Action::Open { slot, name, create, exclusive, truncate, append } => {
                self.open[*slot] = None;
                let mut options = File::options();
                options.read(true).write(true).mode(0o640).create(*create).create_new(*exclusive);
                let file = options.truncate(*truncate).append(*append).open(self.path(*name))?;
                self.open[*slot] = Some(file);
            }
            Action::Write { slot, offset, data } => self.slot(*slot)?.write_all_at(data, *offset)?,
            Action::Read { slot, offset, size } => {
                let mut bytes = vec![0; *size];
                let count = self.slot(*slot)?.read_at(&mut bytes, *offset)?;
                bytes.truncate(count);
                return Ok(bytes);
            }
            Action::Resize { slot, size } => self.slot(*slot)?.set_len(*size)?,
            Action::Sync { slot } => self.slot(*slot)?.sync_all()?,
            Action::Close { slot } => self.open[*slot] = None,
            Action::Put { name, data } => fs::write(self.path(*name), data)?,
            Action::Get { name } => return fs::read(self.path(*name)),
            Action::Cut { name, size } => {
                nix::unistd::truncate(&self.path(*name), i64::try_from(*size).unwrap())?
            }
            Action::Mode { name, mode } => {
                fs::set_permissions(self.path(*name), fs::Permissions::from_mode(*mode))?;
            }
            Action::Remove { name } => fs::remove_file(self.path(*name))?,
            Action::Rename { from, to } => fs::rename(self.path(*from), self.path(*to))?,
            Action::RenameOnly { from, to } => {
                self.rename(*from, *to, nix::fcntl::RenameFlags::RENAME_NOREPLACE)?
            }
            Action::Exchange { one, other } => {
                self.rename(*one, *other, nix::fcntl::RenameFlags::RENAME_EXCHANGE)?
            }
        }
        Ok(Vec::new())
    }

    fn rename(&self, from: usize, to: usize, flags: nix::fcntl::RenameFlags) -> io::Result<()> {
        use nix::fcntl::AT_FDCWD;
        Ok(nix::fcntl::renameat2(AT_FDCWD, &self.path(from), AT_FDCWD, &self.path(to), flags)?)
    }

    /// Every file: its name, mode, size and content.
    fn state(&self) -> Vec<(String, u32, u64, Vec<u8>)> {
        deploy_names(self.folder)
            .into_iter()
            .map(|name| {
                let path = self.folder.join(&name);
                let found = fs::metadata(&path).unwrap();
                (name, found.permissions().mode(), found.len(), fs::read(path).unwrap())
            })
            .collect()
    }
}

/// T33. A folder of specs behaves like a plain folder of files: random sequences of opening, writing, cutting,
/// renaming, swapping and removing give the same results, error numbers, contents and modes in both, open files
/// that lost their name included.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_of_specs_is_a_folder() {
    let Some(rig) = Rig::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: files that their owner may not read need root to be compared");
        return;
    }
    let config = Config { cases: 60, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(action(), 1..40), |actions| {
        let plain = tempfile::tempdir().unwrap();
        rig.ok("find deploy -type f \\( -name '*.ron' -o -name '.*' -o -name '*~' -o -name 4913 \\) -delete; sync deploy");
        let deploy = rig.path("deploy");
        let mut ours = Side { folder: &deploy, open: [const { None }; 3] };
        let mut theirs = Side { folder: plain.path(), open: [const { None }; 3] };
        for (action, step) in actions.iter().zip(0..) {
            let (here, there) = (ours.act(action), theirs.act(action));
            prop_assert_eq!(here, there, "step {}: {:?}", step, action);
            prop_assert_eq!(ours.state(), theirs.state(), "after step {}: {:?}", step, action);
        }
        // What is on disk in the end is what was seen.
        (ours.open, theirs.open) = ([const { None }; 3], [const { None }; 3]);
        prop_assert_eq!(ours.state(), theirs.state());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
