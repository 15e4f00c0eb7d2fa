//! Users and groups: names are looked up in the daemon, before anything changes; the switch itself happens in a
//! small process, between fork and exec.
//!
//! Never switches the identity of the daemon itself.

use crate::types::HostError;
use crate::types::HostErrorKind;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;
use serde::Deserialize;
use serde::Serialize;
use std::io;

/// Whom a program runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// Looks a user and a group up. `None` when the program runs as the daemon does: nothing is named, or what is
/// named is what the daemon is.
pub(crate) fn resolve_identity(
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Option<Identity>, HostErrorKind> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let group = group.map(find_group).transpose()?;
    let identity = match user {
        None => {
            let gid = group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
            Identity { uid: nix::unistd::geteuid().as_raw(), gid, groups: vec![gid] }
        }
        Some(name) => identity_of(name, group)?,
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !uid.is_root() {
        if identity.uid == uid.as_raw() && identity.gid == gid.as_raw() {
            return Ok(None);
        }
        return Err(HostErrorKind::Permission(format!(
            "only root can run a program as user id {} and group id {}, and this daemon runs as user id {uid}; \
             run it as root, or remove `user` and `group`",
            identity.uid, identity.gid
        )));
    }
    Ok(Some(identity))
}

/// User and group id of an app's files; nothing when they are the daemon's own.
///
/// # Errors
///
/// There is no such user or group, or the daemon may not give files away.
pub fn ids_of(user: Option<&str>, group: Option<&str>) -> Result<Option<(u32, u32)>, HostError> {
    let identity = resolve_identity(user, group).map_err(|kind| HostError {
        operation: "look up the owner of",
        object: "the app's files".to_owned(),
        kind,
        source: None,
    })?;
    Ok(identity.map(|identity| (identity.uid, identity.gid)))
}

fn identity_of(name: &str, group: Option<u32>) -> Result<Identity, HostErrorKind> {
    let failed = |e: nix::Error| HostErrorKind::Io(format!("the user `{name}` cannot be looked up: {e}"));
    let unknown = || HostErrorKind::NotFound(format!("there is no user `{name}` on this host"));
    let mut entry = User::from_name(name).map_err(failed)?;
    if entry.is_none()
        && let Ok(number) = name.parse::<u32>()
    {
        entry = User::from_uid(Uid::from_raw(number)).map_err(failed)?;
        if let (None, Some(gid)) = (&entry, group) {
            // A bare number with a group needs no entry in the user database.
            return Ok(Identity { uid: number, gid, groups: vec![gid] });
        }
    }
    let entry = entry.ok_or_else(unknown)?;
    let gid = group.unwrap_or_else(|| entry.gid.as_raw());
    let groups = groups_of(&entry.name, gid).map_err(failed)?;
    Ok(Identity { uid: entry.uid.as_raw(), gid, groups })
}

#[cfg(not(target_os = "illumos"))]
fn groups_of(login: &str, gid: u32) -> nix::Result<Vec<u32>> {
    let login = std::ffi::CString::new(login).map_err(|_| nix::Error::EINVAL)?;
    let groups = nix::unistd::getgrouplist(&login, Gid::from_raw(gid))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// The bindings have no `getgrouplist` for illumos: the program gets its primary group only.
#[cfg(target_os = "illumos")]
fn groups_of(_login: &str, gid: u32) -> nix::Result<Vec<u32>> {
    Ok(vec![gid])
}

fn find_group(name: &str) -> Result<u32, HostErrorKind> {
    let found = Group::from_name(name)
        .map_err(|e| HostErrorKind::Io(format!("the group `{name}` cannot be looked up: {e}")))?;
    match found {
        Some(group) => Ok(group.gid.as_raw()),
        None => name
            .parse::<u32>()
            .map_err(|_| HostErrorKind::NotFound(format!("there is no group `{name}` on this host"))),
    }
}

impl Identity {
    /// Groups in the form that the system call wants, made before the fork.
    pub(crate) fn group_ids(&self) -> Vec<Gid> {
        self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect()
    }

    /// Makes the calling process this user, for good. Called between fork and exec: allocates nothing.
    pub(crate) fn switch(uid: u32, gid: u32, groups: &[Gid]) -> io::Result<()> {
        // Order matters: after setuid the other two are no longer permitted.
        nix::unistd::setgroups(groups)?;
        nix::unistd::setgid(Gid::from_raw(gid))?;
        nix::unistd::setuid(Uid::from_raw(uid))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_named_means_as_the_daemon() {
        assert_eq!(resolve_identity(None, None), Ok(None));
    }

    #[test]
    fn unknown_names_are_not_found() {
        let user = resolve_identity(Some("no-such-user-zed"), None);
        assert_eq!(
            user,
            Err(HostErrorKind::NotFound("there is no user `no-such-user-zed` on this host".into()))
        );
        let group = resolve_identity(Some("root"), Some("no-such-group-zed"));
        assert!(
            matches!(group, Err(HostErrorKind::NotFound(text)) if text.contains("group `no-such-group-zed`"))
        );
    }

    #[test]
    fn names_and_numbers_resolve_to_the_same_user() {
        if !nix::unistd::geteuid().is_root() {
            let got = resolve_identity(Some("root"), None);
            assert!(matches!(got, Err(HostErrorKind::Permission(_))), "{got:?}");
            return;
        }
        let named = resolve_identity(Some("nobody"), None).expect("nobody exists").expect("a switch");
        assert_eq!(resolve_identity(Some(&named.uid.to_string()), None), Ok(Some(named.clone())));
        let bare = resolve_identity(Some("54321"), Some("54322"));
        assert_eq!(bare, Ok(Some(Identity { uid: 54321, gid: 54322, groups: vec![54322] })));
        assert!(matches!(resolve_identity(Some("54321"), None), Err(HostErrorKind::NotFound(_))));
    }
}
