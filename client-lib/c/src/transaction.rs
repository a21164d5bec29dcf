//! `kvc_txn`: a transaction over several keys, put together call by call, then run or submitted.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kvclient_core::wire::{Condition, KEY_SIZE_MAX, KeyChange, TTL_MS_MAX, VALUE_SIZE_MAX};
use kvclient_core::{Call, TransactionDraft};

use crate::border::border;
use crate::handle::{Handle, with_client};
use crate::outcome::{CallResult, outcome};
use crate::prefixed::bytes;
use crate::status::Status;

/// Distinguishes a transaction from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_7478_6e31;

#[derive(Debug)]
pub struct TxnHandle {
    magic: AtomicU64,
    draft: TransactionDraft,
}

impl TxnHandle {
    fn call(&self, deadline_ms: u32) -> Result<Call, Status> {
        let mut call = self.draft.call()?;
        call.deadline_us = (deadline_ms > 0).then(|| u64::from(deadline_ms) * 1_000);
        Ok(call)
    }
}

/// # Safety
/// `txn` is NULL or points to memory that can be read, and that no other call changes.
unsafe fn look<'a>(txn: *mut TxnHandle) -> Result<&'a mut TxnHandle, Status> {
    // SAFETY: the caller's promise. Only the magic number is read before the memory is known to be
    // a transaction.
    unsafe {
        if txn.is_null() || (*txn).magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Status::InvalidArgument);
        }
        Ok(&mut *txn)
    }
}

/// # Safety
/// As for `look`; `key` is NULL or points to as many bytes as its size says.
unsafe fn edit(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    change: impl FnOnce(&mut TransactionDraft, Bytes) -> Result<(), Status>,
) -> c_int {
    let edited = border(|| {
        // SAFETY: as the caller promises.
        let (txn, key) = unsafe { (look(txn)?, bytes(key, key_size, KEY_SIZE_MAX)?) };
        if key.is_empty() {
            return Err(Status::InvalidArgument);
        }
        change(&mut txn.draft, Bytes::copy_from_slice(key))
    });
    let status = match edited {
        Some(Ok(())) => Status::Ok,
        Some(Err(status)) => status,
        None => Status::Internal,
    };
    status.code()
}

/// # Safety
/// `value` is NULL or points to as many bytes as its size says.
unsafe fn value_of(value: *const c_void, value_size: usize) -> Result<Bytes, Status> {
    // SAFETY: as the caller promises.
    let value = unsafe { bytes(value, value_size, VALUE_SIZE_MAX)? };
    Ok(Bytes::copy_from_slice(value))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_new() -> *mut TxnHandle {
    let made = border(|| {
        Box::into_raw(Box::new(TxnHandle {
            magic: AtomicU64::new(MAGIC),
            draft: TransactionDraft::new(),
        }))
    });
    made.unwrap_or(std::ptr::null_mut())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_if_absent(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        draft.condition(key, Condition::Absent);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_if_present(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        draft.condition(key, Condition::Present);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_if_version(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    version: u64,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        // Version 0 is that of an absent key.
        let condition = match version {
            0 => Condition::Absent,
            version => Condition::Version(version),
        };
        draft.condition(key, condition);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_if_value(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    value: *const c_void,
    value_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        // SAFETY: this is the interface of kvclient.h.
        let value = unsafe { value_of(value, value_size)? };
        draft.condition(key, Condition::Value(value));
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_get(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        draft.get(key);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_put(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    value: *const c_void,
    value_size: usize,
    ttl_ms: u64,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        if ttl_ms > TTL_MS_MAX {
            return Err(Status::InvalidArgument);
        }
        // SAFETY: this is the interface of kvclient.h.
        let value = unsafe { value_of(value, value_size)? };
        let put = match ttl_ms {
            0 => KeyChange::Put(value),
            ttl_ms => KeyChange::PutFor { value, ttl_ms },
        };
        draft.change(key, put);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_delete(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        draft.change(key, KeyChange::Delete);
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_add(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    delta: i64,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        draft.change(key, KeyChange::Add(delta));
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_append(
    txn: *mut TxnHandle,
    key: *const c_void,
    key_size: usize,
    value: *const c_void,
    value_size: usize,
) -> c_int {
    let change = |draft: &mut TransactionDraft, key| {
        // SAFETY: this is the interface of kvclient.h.
        let value = unsafe { value_of(value, value_size)? };
        draft.change(key, KeyChange::Append(value));
        Ok(())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { edit(txn, key, key_size, change) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_run(
    client: *mut Handle,
    txn: *mut TxnHandle,
    deadline_ms: u32,
    out: *mut *mut CallResult,
) -> c_int {
    let run = |handle: &Handle| {
        // SAFETY: kvclient.h requires valid pointers.
        let call = unsafe { look(txn)? }.call(deadline_ms)?;
        let (status, result) = outcome(handle.client.call(call));
        if let Some(result) = result.filter(|_| !out.is_null()) {
            // SAFETY: kvclient.h requires valid pointers.
            unsafe { out.write(Box::into_raw(result)) };
        }
        Ok(status.code())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe {
        if !out.is_null() {
            out.write(std::ptr::null_mut());
        }
        with_client(client, run)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_submit(
    client: *mut Handle,
    txn: *mut TxnHandle,
    deadline_ms: u32,
    tag: u64,
) -> c_int {
    let submit = |handle: &Handle| {
        // SAFETY: kvclient.h requires valid pointers.
        let call = unsafe { look(txn)? }.call(deadline_ms)?;
        handle.client.submit(call, tag)?;
        Ok(Status::Ok.code())
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, submit) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_txn_free(txn: *mut TxnHandle) {
    border(|| {
        // SAFETY: a transaction came from `Box::into_raw`, and kvclient.h requires that it is freed
        // only once.
        unsafe {
            if look(txn).is_ok() {
                (*txn).magic.store(0, Ordering::Relaxed);
                drop(Box::from_raw(txn));
            }
        }
    });
}
