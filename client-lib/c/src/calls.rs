//! Calls that wait.

use std::ffi::{c_int, c_void};

use crate::handle::{Handle, with_client};
use crate::operation::{Operation, WriteOptions, kind};
use crate::outcome::{CallResult, outcome};
use crate::prefixed;
use crate::status::Status;

/// # Safety
/// The requirements of kvclient.h: each pointer is NULL or valid, and points to as many bytes as
/// its size says, if that size is within bounds.
unsafe fn call(
    client: *mut Handle,
    operation: Operation,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let run = |handle: &Handle| {
        // SAFETY: as the caller promises.
        let call = unsafe { operation.with(prefixed::read(options)?)?.to_call()? };
        let (status, result) = outcome(handle.client.call(call));
        if let Some(result) = result.filter(|_| !out.is_null()) {
            // SAFETY: as the caller promises.
            unsafe { out.write(Box::into_raw(result)) };
        }
        Ok(status.code())
    };
    // SAFETY: as the caller promises.
    unsafe {
        if !out.is_null() {
            out.write(std::ptr::null_mut());
        }
        with_client(client, run)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_get(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    out: *mut *mut CallResult,
) -> c_int {
    // SAFETY: this is the interface of kvclient.h.
    unsafe {
        if out.is_null() {
            return with_client(client, |_| Err(Status::InvalidArgument));
        }
        let operation = Operation::new(kind::GET, key, key_size);
        call(client, operation, std::ptr::null(), out)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_put(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    value: *const c_void,
    value_size: usize,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation {
        value,
        value_size,
        ..Operation::new(kind::PUT, key, key_size)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_delete(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation::new(kind::DELETE, key, key_size);
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_cas(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    expected: *const c_void,
    expected_size: usize,
    value: *const c_void,
    value_size: usize,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation {
        expected,
        expected_size,
        value,
        value_size,
        ..Operation::new(kind::CAS, key, key_size)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_add(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    delta: i64,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation {
        delta,
        ..Operation::new(kind::ADD, key, key_size)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_append(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    value: *const c_void,
    value_size: usize,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation {
        value,
        value_size,
        ..Operation::new(kind::APPEND, key, key_size)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_expire(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    ttl_ms: u64,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation {
        ttl_ms,
        ..Operation::new(kind::EXPIRE, key, key_size)
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_persist(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    options: *const WriteOptions,
    out: *mut *mut CallResult,
) -> c_int {
    let operation = Operation::new(kind::PERSIST, key, key_size);
    // SAFETY: this is the interface of kvclient.h.
    unsafe { call(client, operation, options, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_ttl(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    out: *mut *mut CallResult,
) -> c_int {
    // SAFETY: this is the interface of kvclient.h.
    unsafe {
        if out.is_null() {
            return with_client(client, |_| Err(Status::InvalidArgument));
        }
        let operation = Operation::new(kind::TTL, key, key_size);
        call(client, operation, std::ptr::null(), out)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_get_stale(
    client: *mut Handle,
    key: *const c_void,
    key_size: usize,
    out: *mut *mut CallResult,
) -> c_int {
    // SAFETY: this is the interface of kvclient.h.
    unsafe {
        if out.is_null() {
            return with_client(client, |_| Err(Status::InvalidArgument));
        }
        let operation = Operation::new(kind::GET_STALE, key, key_size);
        call(client, operation, std::ptr::null(), out)
    }
}
