//! The border with C, and all unsafe code: it converts pointers to slices and answers to numbers.
//! No panic crosses it, and none is printed.

use std::ffi::{c_char, c_int};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use kvclient::session::NODES_MAX;
use kvclient::wire::Old;

use crate::store::{self, Failed, KEY_SIZE_MAX, VALUE_SIZE_MAX};

const DONE: c_int = 0;
const ABSENT: c_int = 1;
const FAILED: c_int = -1;

/// A host name has at most 253 bytes.
const SERVER_SIZE_MAX: usize = 512;

/// # Safety
/// `servers` is NULL, or points to an array of pointers to strings, which ends with NULL or an
/// empty string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv739_init(servers: *const *const c_char) -> c_int {
    be_quiet();
    guarded(|| {
        // SAFETY: the caller's promise.
        let servers = unsafe { list(servers) }?;
        store::init(&servers)?;
        Ok(DONE)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kv739_shutdown() {
    guarded(|| {
        store::shutdown()?;
        Ok(DONE)
    });
}

/// # Safety
/// `server` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv739_fail(server: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { spare(server, true) }
}

/// # Safety
/// `server` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv739_recover(server: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { spare(server, false) }
}

/// # Safety
/// `key` is NULL or a string; `value` is NULL or has room for `VALUE_SIZE_MAX` bytes and one more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv739_get(key: *const c_char, value: *mut c_char) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise.
        let key = unsafe { text(key, KEY_SIZE_MAX) }?;
        if value.is_null() {
            return Err(Failed);
        }
        let Some(found) = store::get(key)? else {
            return Ok(ABSENT);
        };
        // SAFETY: the caller's promise.
        unsafe { hand_out(&found, value) };
        Ok(DONE)
    })
}

/// # Safety
/// `key` and `value` are NULL or strings; `old_value` is NULL or has room for `VALUE_SIZE_MAX`
/// bytes and one more, and may be `value`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv739_put(
    key: *const c_char,
    value: *const c_char,
    old_value: *mut c_char,
) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise.
        let key = unsafe { text(key, KEY_SIZE_MAX) }?;
        // SAFETY: the caller's promise.
        let value = unsafe { text(value, VALUE_SIZE_MAX) }?;
        match store::put(key, value)? {
            Old::Absent => return Ok(ABSENT),
            Old::NotAsked => return Err(Failed),
            Old::Value(_) | Old::Forgotten if old_value.is_null() => {}
            // SAFETY: the caller's promise; `value` is not read after this.
            Old::Value(old) => unsafe { hand_out(&old, old_value) },
            Old::Forgotten => return Err(Failed),
        }
        Ok(DONE)
    })
}

/// # Safety
/// `server` is NULL or a string.
unsafe fn spare(server: *const c_char, spared: bool) {
    guarded(|| {
        // SAFETY: the caller's promise.
        store::spare(unsafe { server_name(server) }?, spared)?;
        Ok(DONE)
    });
}

fn guarded(call: impl FnOnce() -> Result<c_int, Failed>) -> c_int {
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    result.unwrap_or(Err(Failed)).unwrap_or(FAILED)
}

/// Standard error belongs to the application. This library has its own copy of the Rust runtime, so
/// the hook affects no other code's panics.
fn be_quiet() {
    static ONCE: Once = Once::new();
    if cfg!(not(test)) {
        ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
    }
}

/// # Safety
/// As for `kv739_init`. The strings are borrowed as long as the caller does not change them.
unsafe fn list<'a>(servers: *const *const c_char) -> Result<Vec<&'a str>, Failed> {
    let mut names = Vec::new();
    if servers.is_null() {
        return Err(Failed);
    }
    loop {
        // SAFETY: no earlier entry was the end of the array.
        let server = unsafe { *servers.add(names.len()) };
        if server.is_null() {
            return Ok(names);
        }
        // SAFETY: the caller's promise.
        match unsafe { server_name(server) }? {
            "" => return Ok(names),
            _ if names.len() == NODES_MAX => return Err(Failed),
            name => names.push(name),
        }
    }
}

/// # Safety
/// As for `text`.
unsafe fn server_name<'a>(start: *const c_char) -> Result<&'a str, Failed> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { text(start, SERVER_SIZE_MAX) }?;
    std::str::from_utf8(bytes).map_err(|_| Failed)
}

/// The bytes before the NUL, up to `size_max` of them. No byte is read behind the NUL, or behind
/// position `size_max`, where the NUL must be at the latest.
///
/// # Safety
/// `start` is NULL, or a string, or has more than `size_max` bytes.
unsafe fn text<'a>(start: *const c_char, size_max: usize) -> Result<&'a [u8], Failed> {
    if start.is_null() {
        return Err(Failed);
    }
    let start = start.cast::<u8>();
    for size in 0..=size_max {
        // SAFETY: none of the earlier bytes was the NUL.
        if unsafe { *start.add(size) } == 0 {
            // SAFETY: these bytes were just read.
            return Ok(unsafe { std::slice::from_raw_parts(start, size) });
        }
    }
    Err(Failed)
}

/// # Safety
/// `into` has room for `VALUE_SIZE_MAX` bytes and one more.
unsafe fn hand_out(value: &[u8], into: *mut c_char) {
    assert!(value.len() <= VALUE_SIZE_MAX, "the buffer has no more room");
    // SAFETY: there is space, and the library's memory does not overlap the application's.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), into.cast(), value.len());
        *into.add(value.len()) = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(bytes: &[u8], size_max: usize) -> Option<&[u8]> {
        let whole = bytes.len() > size_max || bytes.contains(&0);
        assert!(whole, "it would be read beyond its end");
        // SAFETY: the check above.
        unsafe { text(bytes.as_ptr().cast(), size_max) }.ok()
    }

    #[test]
    fn a_string_ends_within_its_bound() {
        assert_eq!(text_of(b"\0", 3), Some(&b""[..]));
        assert_eq!(text_of(b"abc\0", 3), Some(&b"abc"[..]));
        assert_eq!(text_of(b"ab\0c\0", 3), Some(&b"ab"[..]));
        assert_eq!(text_of(b"abcd", 3), None);
    }

    #[test]
    fn a_panic_stops_at_the_border() {
        let error = panic::catch_unwind(|| guarded(|| panic!("for the test")));
        assert_eq!(error.ok(), Some(FAILED));
    }
}
