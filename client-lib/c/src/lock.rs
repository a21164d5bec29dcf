//! `kvc_lock`: a lock, and the calls that acquire, renew and release it.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use bytes::Bytes;
use kvclient_core::lock::{Lock, LockOptions};
use kvclient_core::wire::{KEY_SIZE_MAX, TTL_MS_MAX};

use crate::border::border;
use crate::handle::{Handle, with_client};
use crate::prefixed::{self, Prefixed, bytes};
use crate::status::Status;

/// Distinguishes a lock from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_6c6f_636b;
const TTL_MS_DEFAULT: u64 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct LockSettings {
    pub size: usize,
    pub ttl_ms: u64,
    pub wait_ms: u64,
}

// SAFETY: integers.
unsafe impl Prefixed for LockSettings {}

#[derive(Debug)]
pub struct HeldLock {
    magic: u64,
    lock: Lock,
}

/// # Safety
/// `lock` is NULL or points to memory that can be read, and that no other call changes.
unsafe fn look<'a>(lock: *mut HeldLock) -> Result<&'a mut HeldLock, Status> {
    // SAFETY: as the caller promises.
    let held = unsafe { lock.as_mut() };
    held.filter(|held| held.magic == MAGIC)
        .ok_or(Status::InvalidArgument)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_lock_acquire(
    client: *mut Handle,
    name: *const c_void,
    name_size: usize,
    settings: *const LockSettings,
    out: *mut *mut HeldLock,
) -> c_int {
    let run = |handle: &Handle| {
        // SAFETY: kvclient.h requires valid pointers.
        let (settings, name) = unsafe {
            (
                prefixed::read(settings)?,
                bytes(name, name_size, KEY_SIZE_MAX)?,
            )
        };
        if out.is_null() || settings.ttl_ms > TTL_MS_MAX {
            return Err(Status::InvalidArgument);
        }
        let ttl_ms = match settings.ttl_ms {
            0 => TTL_MS_DEFAULT,
            ttl_ms => ttl_ms,
        };
        let options = LockOptions {
            ttl: Duration::from_millis(ttl_ms),
            wait: Duration::from_millis(settings.wait_ms),
            holder: String::new(),
        };
        let name = Bytes::copy_from_slice(name);
        match Lock::acquire(&handle.client, name, options)? {
            Some(lock) => {
                let held = Box::new(HeldLock { magic: MAGIC, lock });
                // SAFETY: checked above, and kvclient.h requires a valid pointer.
                unsafe { out.write(Box::into_raw(held)) };
                Ok(Status::Ok.code())
            }
            None => Ok(Status::Conflict.code()),
        }
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
pub unsafe extern "C" fn kvc_lock_renew(client: *mut Handle, lock: *mut HeldLock) -> c_int {
    let run = |handle: &Handle| {
        // SAFETY: kvclient.h requires a valid pointer.
        let held = unsafe { look(lock)? };
        match held.lock.renew(&handle.client)? {
            true => Ok(Status::Ok.code()),
            false => Ok(Status::Conflict.code()),
        }
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, run) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_lock_token(lock: *const HeldLock) -> u64 {
    // SAFETY: kvclient.h requires a valid pointer.
    unsafe { look(lock.cast_mut()) }.map_or(0, |held| held.lock.token())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_lock_left_ms(lock: *const HeldLock) -> u64 {
    // SAFETY: kvclient.h requires a valid pointer.
    let held = unsafe { look(lock.cast_mut()) };
    let left = held.map_or(Duration::ZERO, |held| held.lock.left());
    // What is left of the last millisecond does not count.
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_lock_release(client: *mut Handle, lock: *mut HeldLock) -> c_int {
    let taken = border(|| {
        // SAFETY: a lock came from `Box::into_raw`, and kvclient.h requires that it is released
        // only once.
        unsafe {
            look(lock).ok()?.magic = 0;
            Some(Box::from_raw(lock).lock)
        }
    });
    let Some(taken) = taken.flatten() else {
        return Status::InvalidArgument.code();
    };
    let run = |handle: &Handle| match taken.release(&handle.client)? {
        true => Ok(Status::Ok.code()),
        false => Ok(Status::Conflict.code()),
    };
    // SAFETY: this is the interface of kvclient.h.
    unsafe { with_client(client, run) }
}
