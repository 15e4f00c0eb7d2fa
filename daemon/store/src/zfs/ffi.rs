//! What libzfs and libzfs_core offer and the crate `libzfs-sys` 0.5.11 lacks (its bindings are of 0.7.13, 2019).
//!
//! Only functions whose C signature is the same in OpenZFS 0.8 to 2.3 and in illumos are declared: those whose
//! signature changed (`zfs_version_kernel`, `zfs_iter_snapshots`) are not used. Numbers of properties changed too,
//! so they are always asked for by name (`zfs_name_to_prop`), never taken from a constant.
//! No logic here: safe wrappers are in `nvlist`, `handle` and `program`.

use libzfs_sys::boolean_t;
use libzfs_sys::libzfs_handle_t;
use libzfs_sys::zfs_handle_t;
use libzfs_sys::zfs_iter_f;
use libzfs_sys::zfs_prop_t;
use libzfs_sys::zpool_prop_t;
use nvpair_sys::nvlist_t;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;

/// `zfs_type_t`: bits, unchanged since the first release.
pub(super) const TYPE_FILESYSTEM: c_int = 1;
pub(super) const TYPE_SNAPSHOT: c_int = 1 << 1;
pub(super) const TYPE_VOLUME: c_int = 1 << 2;
/// `ZPROP_INVAL`: the name is no native property.
pub(super) const PROP_INVALID: zfs_prop_t = -1;
/// `ZPOOL_PROP_INVAL`, -1 in C: the name is no property of pools.
pub(super) const POOL_PROP_INVALID: zpool_prop_t::Type = zpool_prop_t::Type::MAX;
/// `zfs_name_to_prop` answers this for user properties in newer releases (`ZPROP_USERPROP`).
pub(super) const PROP_USER: zfs_prop_t = -2;

#[link(name = "zfs")]
unsafe extern "C" {
    pub(super) fn libzfs_errno(handle: *mut libzfs_handle_t) -> c_int;
    pub(super) fn libzfs_error_init(error: c_int) -> *const c_char;
    pub(super) fn libzfs_print_on_error(handle: *mut libzfs_handle_t, print: boolean_t);

    pub(super) fn zpool_name_to_prop(name: *const c_char) -> zpool_prop_t::Type;
    pub(super) fn zfs_name_to_prop(name: *const c_char) -> zfs_prop_t;
    pub(super) fn zfs_prop_readonly(prop: zfs_prop_t) -> boolean_t;
    /// `PROP_TYPE_NUMBER` 0, `PROP_TYPE_STRING` 1, `PROP_TYPE_INDEX` 2.
    pub(super) fn zfs_prop_get_type(prop: zfs_prop_t) -> c_uint;
    pub(super) fn zfs_prop_index_to_string(prop: zfs_prop_t, index: u64, text: *mut *const c_char) -> c_int;
    pub(super) fn zfs_prop_inheritable(prop: zfs_prop_t) -> boolean_t;

    pub(super) fn zfs_get_all_props(dataset: *mut zfs_handle_t) -> *mut nvlist_t;
    pub(super) fn zfs_prop_set_list(dataset: *mut zfs_handle_t, props: *mut nvlist_t) -> c_int;
    pub(super) fn zfs_prop_inherit(
        dataset: *mut zfs_handle_t,
        name: *const c_char,
        received: boolean_t,
    ) -> c_int;
    pub(super) fn zfs_create(
        handle: *mut libzfs_handle_t,
        name: *const c_char,
        kind: c_uint,
        props: *mut nvlist_t,
    ) -> c_int;
    pub(super) fn zfs_mount(dataset: *mut zfs_handle_t, options: *const c_char, flags: c_int) -> c_int;
    pub(super) fn zfs_unmount(dataset: *mut zfs_handle_t, mountpoint: *const c_char, flags: c_int) -> c_int;
    pub(super) fn zfs_iter_snapshots_sorted(
        dataset: *mut zfs_handle_t,
        visit: zfs_iter_f,
        data: *mut c_void,
        min_txg: u64,
        max_txg: u64,
    ) -> c_int;
}

#[link(name = "zfs_core")]
unsafe extern "C" {
    pub(super) fn lzc_snapshot(
        snaps: *mut nvlist_t,
        props: *mut nvlist_t,
        errors: *mut *mut nvlist_t,
    ) -> c_int;
    pub(super) fn lzc_destroy_snaps(
        snaps: *mut nvlist_t,
        defer: boolean_t,
        errors: *mut *mut nvlist_t,
    ) -> c_int;
    pub(super) fn lzc_get_holds(snapshot: *const c_char, holds: *mut *mut nvlist_t) -> c_int;
    pub(super) fn lzc_clone(name: *const c_char, origin: *const c_char, props: *mut nvlist_t) -> c_int;
    pub(super) fn lzc_promote(name: *const c_char, conflict: *mut c_char, len: c_int) -> c_int;
    pub(super) fn lzc_rename(from: *const c_char, to: *const c_char) -> c_int;
    pub(super) fn lzc_destroy(name: *const c_char) -> c_int;
    pub(super) fn lzc_exists(name: *const c_char) -> boolean_t;
    pub(super) fn lzc_channel_program(
        pool: *const c_char,
        program: *const c_char,
        instructions: u64,
        memory: u64,
        args: *mut nvlist_t,
        out: *mut *mut nvlist_t,
    ) -> c_int;
}
