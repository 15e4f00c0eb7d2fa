//! Name-value lists, the form in which libzfs and the kernel exchange everything.
//!
//! Owns the memory of lists it made; a [`View`] borrows one that libzfs owns. Never interprets what is in them.

use nvpair_sys as sys;
use nvpair_sys::nvlist_t;
use std::ffi::CStr;
use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr;

/// Text with a NUL byte cannot cross into C.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` contains a NUL byte")]
pub(super) struct NulByte(String);

/// The text as C wants it.
pub(super) fn c_text(text: &str) -> Result<CString, NulByte> {
    CString::new(text).map_err(|_| NulByte(text.replace('\0', "\\0")))
}

/// An owned list with unique names.
pub(super) struct NvList {
    raw: *mut nvlist_t,
}

/// A list that something else owns, borrowed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    raw: *mut nvlist_t,
    owner: PhantomData<&'a nvlist_t>,
}

/// One value, of the kinds that zed meets.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a CStr),
    Number(u64),
    Signed(i64),
    List(View<'a>),
    Other,
}

impl NvList {
    pub(super) fn new() -> Self {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is valid for the write; the list made is freed in `drop`.
        let rc = unsafe { sys::nvlist_alloc(&mut raw, sys::NV_UNIQUE_NAME, 0) };
        // Fails only when memory is out, where Rust's own collections abort as well.
        assert!(rc == 0 && !raw.is_null(), "out of memory");
        Self { raw }
    }

    /// Takes a list that a C call returned; null becomes an empty list.
    ///
    /// # Safety
    /// `raw` must be null or a list that nobody else frees.
    pub(super) unsafe fn from_raw(raw: *mut nvlist_t) -> Self {
        if raw.is_null() { Self::new() } else { Self { raw } }
    }

    pub(super) fn as_ptr(&self) -> *mut nvlist_t {
        self.raw
    }

    pub(super) fn view(&self) -> View<'_> {
        View { raw: self.raw, owner: PhantomData }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) -> Result<(), NulByte> {
        let (name, value) = (c_text(name)?, c_text(value)?);
        // SAFETY: the list is alive; both strings are NUL-terminated and copied by the call.
        checked(unsafe { sys::nvlist_add_string(self.raw, name.as_ptr(), value.as_ptr()) });
        Ok(())
    }

    /// Adds a raw value as libzfs handed it out, for carrying properties from one dataset to another.
    pub(super) fn copy(&mut self, name: &CStr, value: Value<'_>) {
        match value {
            Value::Text(text) => {
                // SAFETY: the list is alive; both strings are NUL-terminated and copied by the call.
                checked(unsafe { sys::nvlist_add_string(self.raw, name.as_ptr(), text.as_ptr()) });
            }
            Value::Number(n) => {
                // SAFETY: the list is alive; the name is NUL-terminated and copied by the call.
                checked(unsafe { sys::nvlist_add_uint64(self.raw, name.as_ptr(), n) });
            }
            Value::Signed(_) | Value::List(_) | Value::Other => {}
        }
    }

    /// Adds a name without a value, as lists of snapshots have.
    pub(super) fn flag(&mut self, name: &str) -> Result<(), NulByte> {
        let name = c_text(name)?;
        // SAFETY: the list is alive; the name is NUL-terminated and copied by the call.
        checked(unsafe { sys::nvlist_add_boolean(self.raw, name.as_ptr()) });
        Ok(())
    }

    pub(super) fn texts(&mut self, name: &str, values: &[String]) -> Result<(), NulByte> {
        let name = c_text(name)?;
        let owned = values.iter().map(|v| c_text(v)).collect::<Result<Vec<_>, _>>()?;
        let raw: Vec<*const std::ffi::c_char> = owned.iter().map(|v| v.as_ptr()).collect();
        let len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        // SAFETY: `raw` holds `len` pointers to NUL-terminated strings that outlive the call, which copies them.
        checked(unsafe { sys::nvlist_add_string_array(self.raw, name.as_ptr(), raw.as_ptr(), len) });
        Ok(())
    }
}

/// Adding to a list fails only without memory or with a wrong type, which the callers above rule out.
fn checked(rc: std::ffi::c_int) {
    assert!(rc == 0, "out of memory while building a name-value list ({rc})");
}

impl Drop for NvList {
    fn drop(&mut self) {
        // SAFETY: made by nvlist_alloc or handed over by `from_raw`, and freed nowhere else.
        unsafe { sys::nvlist_free(self.raw) }
    }
}

impl<'a> View<'a> {
    /// # Safety
    /// `raw` must be a list that lives and is not changed during `'a`.
    pub(super) unsafe fn from_raw(raw: *mut nvlist_t) -> Self {
        Self { raw, owner: PhantomData }
    }

    /// All pairs in the list's order.
    pub(super) fn pairs(self) -> impl Iterator<Item = (&'a CStr, Value<'a>)> {
        let mut at = ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the list is alive for 'a; `at` is null or a pair of this list.
            at = unsafe { sys::nvlist_next_nvpair(self.raw, at) };
            // SAFETY: `at` is a pair of the live list, so its name and value live as long as the list.
            (!at.is_null()).then(|| unsafe { (CStr::from_ptr(sys::nvpair_name(at)), value_of(at)) })
        })
    }

    /// The value of a name.
    pub(super) fn find(self, name: &CStr) -> Option<Value<'a>> {
        let mut pair = ptr::null_mut();
        // SAFETY: the list is alive for 'a, the name is NUL-terminated, `pair` is valid for the write.
        let rc = unsafe { sys::nvlist_lookup_nvpair(self.raw, name.as_ptr(), &mut pair) };
        // SAFETY: on success `pair` belongs to the live list.
        (rc == 0).then(|| unsafe { value_of(pair) })
    }
}

/// # Safety
/// `pair` must belong to a list that lives during `'a`.
unsafe fn value_of<'a>(pair: *mut sys::nvpair_t) -> Value<'a> {
    use sys::data_type_t as t;
    // SAFETY: the pair is alive, as the caller promises.
    let kind = unsafe { sys::nvpair_type(pair) };
    // Below, each getter is called only for the type that the pair has.
    match kind {
        t::DATA_TYPE_STRING => {
            let mut text = ptr::null_mut();
            // SAFETY: as above; the text lives as long as the pair.
            unsafe {
                sys::nvpair_value_string(pair, &mut text);
                Value::Text(CStr::from_ptr(text))
            }
        }
        t::DATA_TYPE_UINT64 => {
            let mut number = 0;
            // SAFETY: as above.
            unsafe { sys::nvpair_value_uint64(pair, &mut number) };
            Value::Number(number)
        }
        t::DATA_TYPE_INT64 => {
            let mut number = 0;
            // SAFETY: as above.
            unsafe { sys::nvpair_value_int64(pair, &mut number) };
            Value::Signed(number)
        }
        t::DATA_TYPE_NVLIST => {
            let mut list = ptr::null_mut();
            // SAFETY: as above; the embedded list lives as long as the pair.
            unsafe {
                sys::nvpair_value_nvlist(pair, &mut list);
                Value::List(View::from_raw(list))
            }
        }
        _ => Value::Other,
    }
}

impl<'a> Value<'a> {
    pub(super) fn as_text(self) -> Option<&'a CStr> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_number(self) -> Option<u64> {
        match self {
            Value::Number(n) => Some(n),
            Value::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    pub(super) fn as_list(self) -> Option<View<'a>> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

/// Text from C; bytes that are not UTF-8 (set by another tool) show as U+FFFD.
pub(super) fn rust_text(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}
