//! Channel programs: several changes in one transaction group, all or none. Only root may run them, so every
//! caller has another way, taken when [`run`] answers [`Outcome::NotAllowed`].
//!
//! A fatal error in a program leaves its earlier changes done (zfs-program(8)), so each program first asks
//! `zfs.check.*` for everything and only then changes anything.

use super::errors::Refusal;
use super::ffi;
use super::nvlist::NvList;
use super::nvlist::c_text;
use super::nvlist::rust_text;
use crate::StoreErrorKind;
use std::ptr;

/// A program that used up its instructions, and one that ended with an error of its own. FreeBSD has neither
/// number; OpenZFS takes these instead there (`include/os/freebsd/spl/sys/ccompile.h`).
#[cfg(not(target_os = "freebsd"))]
const OUT_OF_TIME: libc::c_int = libc::ETIME;
#[cfg(not(target_os = "freebsd"))]
const LUA_ERROR: libc::c_int = libc::ECHRNG;
#[cfg(target_os = "freebsd")]
const OUT_OF_TIME: libc::c_int = libc::ETIMEDOUT;
#[cfg(target_os = "freebsd")]
const LUA_ERROR: libc::c_int = libc::ENXIO;

/// The kernel's own upper limits (`zfs_lua_max_instrlimit`, `zfs_lua_max_memlimit`).
const INSTRUCTIONS: u64 = 100_000_000;
const MEMORY: u64 = 100 << 20;

/// Sets (`set`) and removes (`inherit`) user properties of datasets. Arguments come as flat groups of four.
const SET: &str = r#"
local a = (...)["changes"]
local function each(set, inherit)
  for i = 1, #a, 4 do
    local e
    if a[i] == "set" then e = set(a[i+1], a[i+2], a[i+3]) else e = inherit(a[i+1], a[i+2]) end
    if e ~= 0 then return {errno = e, object = a[i+1]} end
  end
end
return each(zfs.check.set_prop, zfs.check.inherit) or each(zfs.sync.set_prop, zfs.sync.inherit) or {errno = 0}
"#;

/// Takes snapshots, then stamps them (`stamps`: groups of three). A stamp that fails takes all of them back.
const SNAPSHOT: &str = r#"
local s, p = (...)["snapshots"], (...)["stamps"]
for i = 1, #s do
  local e = zfs.check.snapshot(s[i])
  if e ~= 0 then return {errno = e, object = s[i]} end
end
local bad
for i = 1, #s do
  local e = zfs.sync.snapshot(s[i])
  if e ~= 0 then bad = {errno = e, object = s[i], taken = i - 1} break end
end
if bad == nil then
  for i = 1, #p, 3 do
    local e = zfs.sync.set_prop(p[i], p[i+1], p[i+2])
    if e ~= 0 then bad = {errno = e, object = p[i], taken = #s} break end
  end
end
if bad == nil then return {errno = 0} end
for i = 1, bad.taken do zfs.sync.destroy(s[i]) end
return bad
"#;

/// How a program ended, other than by failing.
pub(super) enum Outcome {
    /// All changes are made.
    Done,
    /// This user may not run channel programs; nothing was changed.
    NotAllowed,
}

/// A refusal and the dataset or snapshot it is about, when the program told.
pub(super) type Refused = (Refusal, Option<String>);

/// Changes of user properties: dataset, property, new value or `None` to remove.
pub(super) fn set(pool: &str, changes: &[(String, String, Option<String>)]) -> Result<Outcome, Refused> {
    let flat: Vec<String> = changes
        .iter()
        .flat_map(|(dataset, name, value)| {
            let verb = if value.is_some() { "set" } else { "inherit" };
            [verb.to_owned(), dataset.clone(), name.clone(), value.clone().unwrap_or_default()]
        })
        .collect();
    let mut args = NvList::new();
    args.texts("changes", &flat).map_err(|e| (e.into(), None))?;
    run(pool, SET, &args)
}

/// Takes all `snapshots` at one instant with their `stamps` (snapshot, property, value).
pub(super) fn snapshot(
    pool: &str,
    snapshots: &[String],
    stamps: &[(String, String, String)],
) -> Result<Outcome, Refused> {
    let flat: Vec<String> =
        stamps.iter().flat_map(|(snap, name, value)| [snap.clone(), name.clone(), value.clone()]).collect();
    let mut args = NvList::new();
    args.texts("snapshots", snapshots).map_err(|e| (e.into(), None))?;
    args.texts("stamps", &flat).map_err(|e| (e.into(), None))?;
    run(pool, SNAPSHOT, &args)
}

fn run(pool: &str, program: &str, args: &NvList) -> Result<Outcome, Refused> {
    let pool = c_text(pool).map_err(|e| (e.into(), None))?;
    let program = c_text(program).map_err(|e| (e.into(), None))?;
    let mut out = ptr::null_mut();
    // SAFETY: both texts are NUL-terminated, the list is alive; `out` receives a list that becomes ours.
    let rc = unsafe {
        ffi::lzc_channel_program(
            pool.as_ptr(),
            program.as_ptr(),
            INSTRUCTIONS,
            MEMORY,
            args.as_ptr(),
            &mut out,
        )
    };
    // SAFETY: null or a list handed over to the caller.
    let out = unsafe { NvList::from_raw(out) };
    match rc {
        0 => {}
        libc::EPERM | libc::EACCES => return Ok(Outcome::NotAllowed),
        OUT_OF_TIME | libc::ENOMEM => {
            let text = "too many changes for one channel program; split the request".to_owned();
            return Err((Refusal::new(StoreErrorKind::Invalid(text)), None));
        }
        LUA_ERROR => {
            let text = out.view().find(c"error").and_then(super::nvlist::Value::as_text).map(rust_text);
            let text = text.unwrap_or_else(|| "a channel program failed without a message".to_owned());
            return Err((Refusal::new(StoreErrorKind::Io(text)), None));
        }
        errno => return Err((Refusal::errno(errno), None)),
    }
    let result = out.view().find(c"return").and_then(super::nvlist::Value::as_list);
    let errno = result.and_then(|r| r.find(c"errno")).and_then(super::nvlist::Value::as_number);
    match errno {
        Some(0) => Ok(Outcome::Done),
        Some(errno) => {
            let object = result.and_then(|r| r.find(c"object")).and_then(super::nvlist::Value::as_text);
            Err((Refusal::errno(i32::try_from(errno).unwrap_or(libc::EIO)), object.map(rust_text)))
        }
        None => {
            let text = "a channel program answered in an unknown form".to_owned();
            Err((Refusal::new(StoreErrorKind::Io(text)), None))
        }
    }
}
