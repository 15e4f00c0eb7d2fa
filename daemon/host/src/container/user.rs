//! Whom a container's program runs as: the app's user of the host, or what the image says.
//!
//! Reads `etc/passwd` and `etc/group` of the image, never through a link out of it.

use super::root::open_inside;
use crate::identity::Identity;
use crate::types::HostErrorKind;
use std::io;
use std::io::Read;
use std::path::Path;

/// Longest file of users or groups that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The user of an image, `name`, `uid`, `name:group` or `uid:gid`; root when it names none.
pub(super) fn image_user(root: &Path, user: Option<&str>) -> Result<Identity, HostErrorKind> {
    let text = user.unwrap_or("0");
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let unknown = |what: &str, file: &str| {
        HostErrorKind::NotFound(format!(
            "the image runs as the {what} of `{text}`, which its `{file}` does not have"
        ))
    };
    let passwd = read_inside(root, "etc/passwd")?;
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&user) || (user.parse::<u32>().is_ok() && fields.get(2) == Some(&user))
    });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)?.parse::<u32>().ok());
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => field(2).ok_or_else(|| unknown("user", "etc/passwd"))?,
    };
    let gid = match group {
        None => field(3).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let groups = read_inside(root, "etc/group")?;
                let mut fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
                let found = fields.find(|fields| fields.first() == Some(&group));
                let gid = found.and_then(|fields| fields.get(2)?.parse().ok());
                gid.ok_or_else(|| unknown("group", "etc/group"))?
            }
        },
    };
    Ok(Identity { uid, gid, groups: vec![gid] })
}

/// The text of a file of the image; empty when it has none.
fn read_inside(root: &Path, name: &str) -> Result<String, HostErrorKind> {
    let failed = |e: io::Error| {
        HostErrorKind::Io(format!("`{}` of the image cannot be read: {e}", root.join(name).display()))
    };
    let file = match open_inside(root, name) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(e) => return Err(failed(e)),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_inside_and_nowhere_else() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        std::fs::create_dir_all(root.join("usr/etc")).unwrap();
        // As an image may have it: it means the image's own root.
        std::os::unix::fs::symlink("/usr/etc", root.join("etc")).unwrap();
        std::fs::write(
            root.join("usr/etc/passwd"),
            "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\nbroken\n",
        )
        .unwrap();
        std::fs::write(root.join("usr/etc/group"), "web:x:34:\nlogs:x:4:\n").unwrap();
        for (text, expected) in [
            (None, Ok((0, 0))),
            (Some("web"), Ok((33, 34))),
            (Some("33"), Ok((33, 34))),
            (Some("1000"), Ok((1000, 0))),
            (Some("1000:1001"), Ok((1000, 1001))),
            (Some("web:logs"), Ok((33, 4))),
            (Some("nobody-here"), Err("the image runs as the user of `nobody-here`, which its `etc/passwd`")),
            (Some("web:none"), Err("the image runs as the group of `web:none`, which its `etc/group`")),
        ] {
            let found = image_user(&root, text);
            match (&found, expected) {
                (Ok(found), Ok(ids)) => assert_eq!((found.uid, found.gid), ids, "{text:?}"),
                (Err(e), Err(part)) => assert!(e.to_string().starts_with(part), "{text:?}: {e}"),
                _ => panic!("{text:?}: {found:?}"),
            }
        }
        std::fs::write(top.path().join("outside"), "web:x:1:1::/:/bin/sh\n").unwrap();
        std::fs::remove_file(root.join("usr/etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../outside", root.join("usr/etc/passwd")).unwrap();
        assert!(image_user(&root, Some("web")).is_err(), "a link leads nowhere but into the image");
    }
}
