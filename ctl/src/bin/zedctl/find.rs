//! Finds the tree: what the command line says, then the environment, then the usual places.

use crate::args::Global;
use crate::mount::Mount;
use crate::socket::Socket;
use crate::tree::Tree;
use std::path::Path;
use std::path::PathBuf;
use zed_ctl::Code;
use zed_ctl::CtlError;

/// Where a tree may be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Mount(PathBuf),
    Socket(PathBuf),
}

/// The environment as far as it matters here.
struct Environment {
    mount: Option<PathBuf>,
    socket: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
}

/// The tree to use. One that was named must be there; the usual places are tried in turn.
pub(crate) fn find_tree(global: &Global) -> Result<Box<dyn Tree>, CtlError> {
    let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let environment = Environment {
        mount: path("ZED_MOUNT"),
        socket: path("ZED_SOCKET"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
    };
    first_of(&places(global, &environment))
}

fn first_of(places: &[Place]) -> Result<Box<dyn Tree>, CtlError> {
    let mut tried = Vec::new();
    for place in places {
        match open(place) {
            Ok(tree) => return Ok(tree),
            Err(why) => tried.push(why),
        }
    }
    let message = match tried.as_slice() {
        [only] => only.clone(),
        several => format!("no zed tree was found; tried:\n    {}", several.join("\n    ")),
    };
    Err(CtlError::new(Code::Unreachable, message)
        .hint("start zedd, or say where its tree is with --mount DIR or --socket PATH"))
}

fn places(global: &Global, environment: &Environment) -> Vec<Place> {
    let named = [
        global.mount.clone().map(Place::Mount),
        global.socket.clone().map(Place::Socket),
        environment.mount.clone().map(Place::Mount),
        environment.socket.clone().map(Place::Socket),
    ];
    if let Some(place) = named.into_iter().flatten().next() {
        return vec![place];
    }
    let of_user = |name: &str| environment.runtime_dir.as_ref().map(|dir| dir.join(name));
    [
        Some(Place::Mount(PathBuf::from("/zed"))),
        of_user("zed").map(Place::Mount),
        Some(Place::Socket(PathBuf::from("/run/zed/zedd.sock"))),
        of_user("zed.sock").map(Place::Socket),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The tree at a place, or one line that says why there is none.
fn open(place: &Place) -> Result<Box<dyn Tree>, String> {
    match place {
        Place::Mount(dir) => match probe_mount(dir) {
            Ok(()) => Ok(Box::new(Mount::new(dir.clone()))),
            Err(why) => Err(format!("{}: {why}", dir.display())),
        },
        Place::Socket(path) => match Socket::connect(path) {
            Ok(socket) => Ok(Box::new(socket)),
            Err(why) => Err(format!("socket {}: {why}", path.display())),
        },
    }
}

fn probe_mount(dir: &Path) -> Result<(), String> {
    match std::fs::metadata(dir.join("deploy")) {
        Ok(deploy) if deploy.is_dir() => Ok(()),
        Ok(_) => Err("it is not a zed tree: `deploy` is not a folder".to_owned()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {
            Err("the mount is dead: zedd is not running".to_owned())
        }
        Err(_) if dir.is_dir() => Err("no zed tree is mounted there".to_owned()),
        Err(_) => Err("no such folder".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(mount: Option<&str>, socket: Option<&str>) -> Global {
        Global {
            mount: mount.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
            json: false,
            no_color: false,
            offline: false,
            store: None,
            state: None,
        }
    }

    #[test]
    fn what_is_named_is_the_only_place() {
        let environment = Environment {
            mount: Some("/em".into()),
            socket: Some("/es".into()),
            runtime_dir: Some("/run/user/1".into()),
        };
        let user = Environment { mount: None, socket: None, runtime_dir: Some("/run/user/1".into()) };
        let empty = Environment { mount: None, socket: None, runtime_dir: None };
        for (global, environment, expected) in [
            (global(Some("/m"), None), &environment, vec![Place::Mount("/m".into())]),
            (global(None, Some("/s")), &environment, vec![Place::Socket("/s".into())]),
            (global(None, None), &environment, vec![Place::Mount("/em".into())]),
            (
                global(None, None),
                &empty,
                vec![Place::Mount("/zed".into()), Place::Socket("/run/zed/zedd.sock".into())],
            ),
            (
                global(None, None),
                &user,
                vec![
                    Place::Mount("/zed".into()),
                    Place::Mount("/run/user/1/zed".into()),
                    Place::Socket("/run/zed/zedd.sock".into()),
                    Place::Socket("/run/user/1/zed.sock".into()),
                ],
            ),
        ] {
            assert_eq!(places(&global, environment), expected);
        }
    }

    #[test]
    fn the_error_says_what_was_tried() {
        let dir = tempfile::tempdir().unwrap();
        let (empty, missing) = (dir.path().to_owned(), dir.path().join("missing"));
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let error = first_of(&[Place::Mount(empty.clone()), Place::Mount(missing.clone())]).err().unwrap();
        assert_eq!(
            error.message,
            format!(
                "no zed tree was found; tried:\n    {}: no zed tree is mounted there\n    {}: no such folder",
                empty.display(),
                missing.display()
            )
        );
        std::fs::create_dir_all(dir.path().join("tree/deploy")).unwrap();
        let tree = first_of(&[Place::Mount(missing), Place::Mount(dir.path().join("tree"))]).unwrap();
        assert_eq!(tree.place(), dir.path().join("tree").display().to_string());
    }
}
