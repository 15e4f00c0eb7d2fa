//! Safe wrappers of one libzfs handle and of dataset handles. All unsafe calls into libzfs and libzfs_core that
//! take no channel program are here. Never decides anything: names in, values or a [`Refusal`] out.

use super::errors::Refusal;
use super::ffi;
use super::nvlist::NvList;
use super::nvlist::View;
use super::nvlist::c_text;
use super::nvlist::rust_text;
use crate::Pool;
use libzfs_sys as sys;
use std::ffi::CStr;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr;
use std::ptr::NonNull;

/// Longest text that `zfs_prop_get` writes for a native property (a path, at most).
const PROP_TEXT: usize = 8192;
/// The same for the properties of a pool that are read here: words and numbers.
const POOL_TEXT: usize = 256;

/// A libzfs handle. libzfs is not thread-safe per handle: whoever owns this value owns the handle, and methods
/// are reached only through the store's lock.
pub(super) struct Libzfs {
    raw: NonNull<sys::libzfs_handle_t>,
}

// SAFETY: a handle may be used from any thread, one at a time (it has no thread-local state); there is no `Sync`.
unsafe impl Send for Libzfs {}

/// An open dataset or snapshot with its properties as they were when it was opened.
pub(super) struct Handle<'a> {
    raw: NonNull<sys::zfs_handle_t>,
    lib: &'a Libzfs,
}

/// What to open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dataset,
    Snapshot,
}

impl Libzfs {
    /// Opens the library; fails with the library's sentence when the kernel has no ZFS or refuses.
    pub(super) fn init() -> Result<Self, String> {
        // SAFETY: no arguments; null means failure with errno set.
        let raw = unsafe { sys::libzfs_init() };
        let Some(raw) = NonNull::new(raw) else {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            // SAFETY: returns a static NUL-terminated text for every number.
            let text = unsafe { CStr::from_ptr(ffi::libzfs_error_init(errno)) };
            return Err(rust_text(text).trim_end().replace('\n', " "));
        };
        // SAFETY: the handle is alive. Errors are returned, not printed to the daemon's stderr.
        unsafe { ffi::libzfs_print_on_error(raw.as_ptr(), sys::boolean::B_FALSE) };
        Ok(Self { raw })
    }

    /// The failure that the last libzfs call on this handle left.
    fn refusal(&self) -> Refusal {
        // SAFETY: the handle is alive; the text belongs to the handle and is copied at once.
        let (code, text) = unsafe {
            let code = ffi::libzfs_errno(self.raw.as_ptr());
            (code, rust_text(CStr::from_ptr(sys::libzfs_error_description(self.raw.as_ptr()))))
        };
        Refusal::libzfs(code, text)
    }

    /// Opens a dataset (filesystem or volume) or a snapshot by its full name.
    pub(super) fn open(&self, name: &str, kind: Kind) -> Result<Handle<'_>, Refusal> {
        let name = c_text(name)?;
        let types = match kind {
            Kind::Dataset => ffi::TYPE_FILESYSTEM | ffi::TYPE_VOLUME,
            Kind::Snapshot => ffi::TYPE_SNAPSHOT,
        };
        // SAFETY: the handle is alive and the name NUL-terminated; null means failure.
        let raw = unsafe { sys::zfs_open(self.raw.as_ptr(), name.as_ptr(), types) };
        NonNull::new(raw).map(|raw| Handle { raw, lib: self }).ok_or_else(|| self.refusal())
    }

    /// The imported pools by name, as the kernel has them now: each iteration opens them anew.
    pub(super) fn pools(&self) -> Vec<Pool> {
        unsafe extern "C" fn visit(pool: *mut sys::zpool_handle_t, pools: *mut c_void) -> c_int {
            // SAFETY: libzfs passes a live pool that the callback must close, and `pools` is the vector given below.
            unsafe {
                let number = |name| pool_text(pool, name).parse().unwrap_or(0);
                let read = Pool {
                    name: rust_text(CStr::from_ptr(sys::zpool_get_name(pool))),
                    health: pool_text(pool, c"health"),
                    size: number(c"size"),
                    allocated: number(c"allocated"),
                    free: number(c"free"),
                };
                (*pools.cast::<Vec<Pool>>()).push(read);
                sys::zpool_close(pool);
            }
            0
        }
        let mut pools: Vec<Pool> = Vec::new();
        // SAFETY: the handle is alive, and the vector outlives the call.
        unsafe { sys::zpool_iter(self.raw.as_ptr(), Some(visit), ptr::from_mut(&mut pools).cast()) };
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }

    /// Creates a filesystem; property values are texts, checked and parsed by libzfs. Does not mount.
    pub(super) fn create(&self, name: &str, props: &NvList) -> Result<(), Refusal> {
        let name = c_text(name)?;
        let kind = ffi::TYPE_FILESYSTEM.unsigned_abs();
        // SAFETY: handle and list are alive, the name is NUL-terminated; libzfs copies what it keeps.
        let rc = unsafe { ffi::zfs_create(self.raw.as_ptr(), name.as_ptr(), kind, props.as_ptr()) };
        if rc == 0 { Ok(()) } else { Err(self.refusal()) }
    }
}

/// A property of a pool as scripts get it (numbers exact); empty for one that this library does not know.
///
/// # Safety
///
/// The pool must be alive.
unsafe fn pool_text(pool: *mut sys::zpool_handle_t, name: &CStr) -> String {
    let mut text = [0u8; POOL_TEXT];
    // SAFETY: the name is NUL-terminated and the caller's pool alive; at most the given number of bytes is written,
    // and nobody asks where the value is from.
    let rc = unsafe {
        let prop = ffi::zpool_name_to_prop(name.as_ptr());
        if prop == ffi::POOL_PROP_INVALID {
            return String::new();
        }
        let exact = sys::boolean::B_TRUE;
        sys::zpool_get_prop(pool, prop, text.as_mut_ptr().cast(), POOL_TEXT, ptr::null_mut(), exact)
    };
    if rc != 0 {
        return String::new();
    }
    CStr::from_bytes_until_nul(&text).map(rust_text).unwrap_or_default()
}

impl Drop for Libzfs {
    fn drop(&mut self) {
        // SAFETY: the handle is alive and no dataset handle outlives the borrow.
        unsafe { sys::libzfs_fini(self.raw.as_ptr()) }
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by libzfs, closed only here.
        unsafe { sys::zfs_close(self.raw.as_ptr()) }
    }
}

struct Visit<'v, 'a> {
    lib: &'a Libzfs,
    each: &'v mut dyn FnMut(Handle<'a>) -> Result<(), Refusal>,
    failed: Option<Refusal>,
}

unsafe extern "C" fn visit_dataset(dataset: *mut sys::zfs_handle_t, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the `Visit` that `iterate` passes; it lives during the iteration and is used by nothing else.
    let visit = unsafe { &mut *data.cast::<Visit<'_, '_>>() };
    let Some(raw) = NonNull::new(dataset) else { return 1 };
    match (visit.each)(Handle { raw, lib: visit.lib }) {
        Ok(()) => 0,
        Err(refusal) => {
            visit.failed = Some(refusal);
            1
        }
    }
}

impl<'a> Handle<'a> {
    /// The full name.
    pub(super) fn name(&self) -> String {
        // SAFETY: the handle is alive and so is its name.
        rust_text(unsafe { CStr::from_ptr(sys::zfs_get_name(self.raw.as_ptr())) })
    }

    /// All properties: name to a list of `value` and `source`.
    pub(super) fn props(&self) -> View<'_> {
        // SAFETY: the list belongs to the handle, which the view borrows.
        unsafe { View::from_raw(ffi::zfs_get_all_props(self.raw.as_ptr())) }
    }

    /// A native property as canonical text (sizes in bytes, switches by name), or `None` where it does not apply.
    pub(super) fn text_of(&self, name: &CStr) -> Option<String> {
        let mut buffer = vec![0u8; PROP_TEXT];
        // SAFETY: the handle is alive; at most `buffer.len()` bytes are written, NUL-terminated; the optional outputs
        // for the source are null.
        let rc = unsafe {
            let prop = ffi::zfs_name_to_prop(name.as_ptr());
            if prop == ffi::PROP_INVALID || prop == ffi::PROP_USER {
                return None;
            }
            sys::zfs_prop_get(
                self.raw.as_ptr(),
                prop,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
                sys::boolean::B_TRUE,
            )
        };
        if rc != 0 {
            return None;
        }
        CStr::from_bytes_until_nul(&buffer).ok().map(rust_text)
    }

    /// Sets native and user properties, texts, in as few transactions as libzfs can.
    pub(super) fn set(&self, props: &NvList) -> Result<(), Refusal> {
        // SAFETY: handle and list are alive; libzfs copies what it needs.
        let rc = unsafe { ffi::zfs_prop_set_list(self.raw.as_ptr(), props.as_ptr()) };
        if rc == 0 { Ok(()) } else { Err(self.lib.refusal()) }
    }

    /// Removes the local value. Properties that children do not inherit (`quota`, `canmount`) go back to the
    /// received value or the default, as `zfs inherit -S` does.
    pub(super) fn inherit(&self, name: &str) -> Result<(), Refusal> {
        let name = c_text(name)?;
        // SAFETY: the handle is alive and the name NUL-terminated.
        let rc = unsafe {
            let prop = ffi::zfs_name_to_prop(name.as_ptr());
            let native = prop != ffi::PROP_INVALID && prop != ffi::PROP_USER;
            let default_only = native && ffi::zfs_prop_inheritable(prop) == sys::boolean::B_FALSE;
            ffi::zfs_prop_inherit(self.raw.as_ptr(), name.as_ptr(), sys::boolean_t::from(default_only))
        };
        if rc == 0 { Ok(()) } else { Err(self.lib.refusal()) }
    }

    /// Mounts it where its `mountpoint` says; one that may not be mounted is left alone.
    pub(super) fn mount(&self) -> Result<(), Refusal> {
        // SAFETY: the handle is alive; no options.
        let rc = unsafe { ffi::zfs_mount(self.raw.as_ptr(), ptr::null(), 0) };
        if rc == 0 { Ok(()) } else { Err(self.lib.refusal()) }
    }

    /// Unmounts it without force.
    pub(super) fn unmount(&self) -> Result<(), Refusal> {
        // SAFETY: the handle is alive; null takes the mountpoint from the mount table.
        let rc = unsafe { ffi::zfs_unmount(self.raw.as_ptr(), ptr::null(), 0) };
        if rc == 0 { Ok(()) } else { Err(self.lib.refusal()) }
    }

    /// Visits each direct child (filesystems and volumes).
    pub(super) fn children(
        &self,
        each: &mut dyn FnMut(Handle<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut visit = Visit { lib: self.lib, each, failed: None };
        // SAFETY: the handle is alive, and `visit` outlives the call.
        let rc = unsafe {
            sys::zfs_iter_filesystems(
                self.raw.as_ptr(),
                Some(visit_dataset),
                ptr::from_mut(&mut visit).cast(),
            )
        };
        self.visited(rc, visit.failed)
    }

    /// Visits each snapshot, oldest first.
    pub(super) fn snapshots(
        &self,
        each: &mut dyn FnMut(Handle<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut visit = Visit { lib: self.lib, each, failed: None };
        // SAFETY: as in `children`; the limits 0, 0 mean all.
        let rc = unsafe {
            ffi::zfs_iter_snapshots_sorted(
                self.raw.as_ptr(),
                Some(visit_dataset),
                ptr::from_mut(&mut visit).cast(),
                0,
                0,
            )
        };
        self.visited(rc, visit.failed)
    }

    fn visited(&self, rc: c_int, failed: Option<Refusal>) -> Result<(), Refusal> {
        match (rc, failed) {
            (_, Some(refusal)) => Err(refusal),
            (0, None) => Ok(()),
            (_, None) => Err(self.lib.refusal()),
        }
    }
}

/// True for a native property that a user can set.
pub(super) fn is_settable(name: &CStr) -> bool {
    // SAFETY: the name is NUL-terminated; the tables are set up by libzfs_init, which every caller's handle implies.
    unsafe {
        let prop = ffi::zfs_name_to_prop(name.as_ptr());
        prop != ffi::PROP_INVALID
            && prop != ffi::PROP_USER
            && ffi::zfs_prop_readonly(prop) == sys::boolean::B_FALSE
    }
}

/// A stored number of a native property as text: `on`, `lz4`, or the number itself. `None` for unknown properties.
///
/// `zfs_prop_get` is not asked, because it reads the mount table for some switches and shows temporary values.
pub(super) fn number_text(name: &CStr, number: u64) -> Option<String> {
    const INDEX: std::ffi::c_uint = 2;
    let mut text = ptr::null();
    // SAFETY: the name is NUL-terminated; `text` receives a static text.
    unsafe {
        let prop = ffi::zfs_name_to_prop(name.as_ptr());
        if prop == ffi::PROP_INVALID || prop == ffi::PROP_USER {
            return None;
        }
        if ffi::zfs_prop_get_type(prop) != INDEX {
            return Some(number.to_string());
        }
        if ffi::zfs_prop_index_to_string(prop, number, &mut text) != 0 || text.is_null() {
            return None;
        }
        Some(rust_text(CStr::from_ptr(text)))
    }
}

fn done(errno: c_int) -> Result<(), Refusal> {
    if errno == 0 { Ok(()) } else { Err(Refusal::errno(errno)) }
}

/// Is there a dataset or snapshot of this full name?
pub(super) fn exists(name: &str) -> bool {
    // SAFETY: the name is NUL-terminated; libzfs_core was initialised by libzfs_init.
    c_text(name).is_ok_and(|name| unsafe { ffi::lzc_exists(name.as_ptr()) } != 0)
}

/// Renames a dataset. Touches no mounts.
pub(super) fn rename(from: &str, to: &str) -> Result<(), Refusal> {
    let (from, to) = (c_text(from)?, c_text(to)?);
    // SAFETY: both names are NUL-terminated.
    done(unsafe { ffi::lzc_rename(from.as_ptr(), to.as_ptr()) })
}

/// Clones a snapshot; `props` are native (typed) and user properties of the new dataset.
pub(super) fn clone(name: &str, origin: &str, props: &NvList) -> Result<(), Refusal> {
    let (name, origin) = (c_text(name)?, c_text(origin)?);
    // SAFETY: names are NUL-terminated, the list is alive.
    done(unsafe { ffi::lzc_clone(name.as_ptr(), origin.as_ptr(), props.as_ptr()) })
}

/// Makes a clone the owner of the history it came from. `Err` has the conflicting snapshot's name, if that was it.
pub(super) fn promote(name: &str) -> Result<(), (Refusal, Option<String>)> {
    let name = c_text(name).map_err(|e| (e.into(), None))?;
    let mut conflict = [0u8; 512];
    // SAFETY: the name is NUL-terminated; at most the given number of bytes is written.
    let rc = unsafe { ffi::lzc_promote(name.as_ptr(), conflict.as_mut_ptr().cast(), 512) };
    done(rc).map_err(|refusal| {
        let text = CStr::from_bytes_until_nul(&conflict).map(rust_text).unwrap_or_default();
        (refusal, (rc == libc::EEXIST && !text.is_empty()).then_some(text))
    })
}

/// Destroys one dataset without snapshots and children.
pub(super) fn destroy(name: &str) -> Result<(), Refusal> {
    let name = c_text(name)?;
    // SAFETY: the name is NUL-terminated.
    done(unsafe { ffi::lzc_destroy(name.as_ptr()) })
}

/// Takes all snapshots or none, each with the same user properties.
pub(super) fn snapshot(names: &[String], props: &NvList) -> Result<(), Refusal> {
    let mut list = NvList::new();
    names.iter().try_for_each(|name| list.flag(name))?;
    let mut errors = ptr::null_mut();
    // SAFETY: both lists are alive; `errors` receives a list that becomes ours.
    let rc = unsafe { ffi::lzc_snapshot(list.as_ptr(), props.as_ptr(), &mut errors) };
    // SAFETY: null or a list handed over to the caller.
    drop(unsafe { NvList::from_raw(errors) });
    done(rc)
}

/// Destroys all snapshots or none; those that do not exist are skipped. `Err` names the one that refused, if told.
pub(super) fn destroy_snapshots(names: &[String]) -> Result<(), (Refusal, Option<String>)> {
    let mut list = NvList::new();
    names.iter().try_for_each(|name| list.flag(name)).map_err(|e| (e.into(), None))?;
    let mut errors = ptr::null_mut();
    // SAFETY: the list is alive; `errors` receives a list that becomes ours.
    let rc = unsafe { ffi::lzc_destroy_snaps(list.as_ptr(), sys::boolean::B_FALSE, &mut errors) };
    // SAFETY: null or a list handed over to the caller.
    let errors = unsafe { NvList::from_raw(errors) };
    let first = errors.view().pairs().next().map(|(name, _)| rust_text(name));
    done(rc).map_err(|refusal| (refusal, first))
}

/// Tags of the holds on a snapshot.
pub(super) fn holds(name: &str) -> Result<Vec<String>, Refusal> {
    let name = c_text(name)?;
    let mut holds = ptr::null_mut();
    // SAFETY: the name is NUL-terminated; `holds` receives a list that becomes ours.
    let rc = unsafe { ffi::lzc_get_holds(name.as_ptr(), &mut holds) };
    // SAFETY: null or a list handed over to the caller.
    let holds = unsafe { NvList::from_raw(holds) };
    done(rc)?;
    Ok(holds.view().pairs().map(|(tag, _)| rust_text(tag)).collect())
}
