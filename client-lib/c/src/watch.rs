//! `kvc_watch`: the changes of a key or of the keys with a prefix, one after the other.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use bytes::Bytes;
use kvclient_core::wire::KEY_SIZE_MAX;
use kvclient_core::{CallError, Watch, WatchEvent};

use crate::asynchronous::CompletionOut;
use crate::border::border;
use crate::handle::{Handle, with_client};
use crate::outcome::watched;
use crate::prefixed::{self, Prefixed, bytes};
use crate::status::Status;

/// Distinguishes a watch from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_7774_6368;

/// What an event is.
pub mod event {
    use std::ffi::c_int;
    pub const PUT: c_int = 1;
    pub const DELETE: c_int = 2;
    pub const CURRENT: c_int = 3;
    pub const APART: c_int = 4;
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct WatchOptions {
    pub size: usize,
    pub key: *const c_void,
    pub key_size: usize,
    pub prefix: *const c_void,
    pub prefix_size: usize,
    pub from_version: u64,
}

// SAFETY: integers and raw pointers.
unsafe impl Prefixed for WatchOptions {}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            size: size_of::<WatchOptions>(),
            key: std::ptr::null(),
            key_size: 0,
            prefix: std::ptr::null(),
            prefix_size: 0,
            from_version: 0,
        }
    }
}

impl WatchOptions {
    /// # Safety
    /// Each pointer is NULL or points to as many bytes as its size says, if that size is within
    /// bounds.
    unsafe fn to_watch(self) -> Result<Watch, Status> {
        // SAFETY: as the caller promises.
        let (key, prefix) = unsafe {
            (
                bytes(self.key, self.key_size, KEY_SIZE_MAX)?,
                bytes(self.prefix, self.prefix_size, KEY_SIZE_MAX)?,
            )
        };
        let watch = match (key, prefix) {
            ([], []) if !self.key.is_null() => return Err(Status::InvalidArgument),
            ([], prefix) => Watch::prefix(prefix),
            (key, []) => Watch::key(Bytes::copy_from_slice(key)),
            _ => return Err(Status::InvalidArgument),
        };
        Ok(watch.from_version(self.from_version))
    }
}

/// `kvc_watch_event`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ToldEvent {
    pub kind: c_int,
    pub status: c_int,
    pub key: *const c_void,
    pub key_size: usize,
    pub value: *const c_void,
    pub value_size: usize,
    pub version: u64,
    pub behind_ms: i64,
}

const NOTHING: ToldEvent = ToldEvent {
    kind: 0,
    status: 0,
    key: std::ptr::null(),
    key_size: 0,
    value: std::ptr::null(),
    value_size: 0,
    version: 0,
    behind_ms: -1,
};

#[derive(Debug)]
pub struct WatchHandle {
    magic: Cell<u64>,
    client: *const Handle,
    watch: Watch,
    /// The tag of the call that was submitted and not taken.
    submitted: Option<u64>,
    /// The key and the value that were told last, each followed by a zero byte.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl WatchHandle {
    /// The next event that was found already.
    fn poll(&mut self) -> Option<ToldEvent> {
        Some(match self.watch.poll_event()? {
            WatchEvent::Changed {
                key,
                version,
                value,
            } => {
                terminate(&mut self.key, &key);
                let mut told = ToldEvent {
                    kind: event::DELETE,
                    key: self.key.as_ptr().cast(),
                    key_size: key.len(),
                    version,
                    ..NOTHING
                };
                if let Some(value) = &value {
                    terminate(&mut self.value, value);
                    told.kind = event::PUT;
                    told.value = self.value.as_ptr().cast();
                    told.value_size = value.len();
                }
                told
            }
            WatchEvent::Current { behind_ms } => ToldEvent {
                kind: event::CURRENT,
                behind_ms: behind_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
                ..NOTHING
            },
            WatchEvent::Apart(error) => ToldEvent {
                kind: event::APART,
                status: Status::from(error).code(),
                ..NOTHING
            },
        })
    }

    fn next(&mut self, handle: &Handle) -> Result<ToldEvent, Status> {
        if self.submitted.is_some() {
            return Err(Status::InvalidArgument);
        }
        loop {
            if let Some(told) = self.poll() {
                return Ok(told);
            }
            let result = handle.client.call(self.watch.next_call());
            self.watch.take(result)?;
        }
    }
}

fn terminate(into: &mut Vec<u8>, bytes: &[u8]) {
    into.clear();
    into.extend_from_slice(bytes);
    into.push(0);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_open(
    client: *mut Handle,
    options: *const WatchOptions,
    out: *mut *mut WatchHandle,
) -> c_int {
    let open = |handle: &Handle| {
        if out.is_null() {
            return Err(Status::InvalidArgument);
        }
        if handle.is_closed() {
            return Err(Status::Closed);
        }
        // SAFETY: kvclient.h requires valid pointers.
        let watch = unsafe { prefixed::read(options)?.to_watch()? };
        let watch = WatchHandle {
            magic: Cell::new(MAGIC),
            client,
            watch,
            submitted: None,
            key: Vec::new(),
            value: Vec::new(),
        };
        // SAFETY: checked above, and kvclient.h requires a valid pointer.
        unsafe { out.write(Box::into_raw(Box::new(watch))) };
        Ok(Status::Ok.code())
    };
    // SAFETY: kvclient.h requires valid pointers.
    unsafe {
        if !out.is_null() {
            out.write(std::ptr::null_mut());
        }
        with_client(client, open)
    }
}

/// # Safety
/// `watch` is NULL or points to memory that can be read.
unsafe fn is_watch(watch: *const WatchHandle) -> bool {
    // SAFETY: the caller's promise. Only the magic number is read before the memory is known to be
    // a watch.
    !watch.is_null() && unsafe { (*watch).magic.get() } == MAGIC
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_next(watch: *mut WatchHandle, out: *mut ToldEvent) -> c_int {
    // SAFETY: kvclient.h requires valid pointers, and that one thread at a time uses a watch.
    unsafe {
        if !out.is_null() {
            out.write(NOTHING);
        }
        if !is_watch(watch) || out.is_null() {
            return Status::InvalidArgument.code();
        }
        with_client((*watch).client, |handle| {
            if handle.is_closed() {
                return Err(Status::Closed);
            }
            out.write((*watch).next(handle)?);
            Ok(Status::Ok.code())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_submit(watch: *mut WatchHandle, tag: u64) -> c_int {
    // SAFETY: kvclient.h requires a valid pointer, and that one thread at a time uses a watch.
    unsafe {
        if !is_watch(watch) {
            return Status::InvalidArgument.code();
        }
        with_client((*watch).client, |handle| {
            if (*watch).submitted.is_some() {
                return Err(Status::InvalidArgument);
            }
            handle.client.submit((*watch).watch.next_call(), tag)?;
            (*watch).submitted = Some(tag);
            Ok(Status::Ok.code())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_take(
    watch: *mut WatchHandle,
    completion: *const CompletionOut,
) -> c_int {
    border_status(|| {
        // SAFETY: kvclient.h requires valid pointers, and that one thread at a time uses a watch.
        let (watch, completion) = unsafe {
            if !is_watch(watch) || completion.is_null() {
                return Err(Status::InvalidArgument);
            }
            (&mut *watch, &*completion)
        };
        if watch.submitted != Some(completion.tag) {
            return Err(Status::InvalidArgument);
        }
        watch.submitted = None;
        // SAFETY: a completion's result is NULL, or was not freed yet.
        let result = match unsafe { watched(completion.result) } {
            Some(outcome) => Ok(outcome),
            None => Err(error_of(completion.status)?),
        };
        watch.watch.take(result)?;
        Ok(Status::Ok)
    })
}

/// The error behind the status of a completion. An error means that no watch was submitted.
fn error_of(status: c_int) -> Result<CallError, Status> {
    let all = Status::ALL.iter().find(|known| known.code() == status);
    Ok(match all {
        Some(Status::NoQuorum) => CallError::NoQuorum {
            detail: String::new(),
        },
        Some(Status::Busy) => CallError::Busy,
        Some(Status::TimedOut) => CallError::TimedOut,
        Some(Status::Ok) | None => return Err(Status::InvalidArgument),
        Some(other) => return Err(*other),
    })
}

fn border_status(run: impl FnOnce() -> Result<Status, Status>) -> c_int {
    let mut status = Status::Internal;
    border(|| status = run().unwrap_or_else(|status| status));
    status.code()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_poll(watch: *mut WatchHandle, out: *mut ToldEvent) -> c_int {
    border_status(|| {
        // SAFETY: kvclient.h requires valid pointers, and that one thread at a time uses a watch.
        unsafe {
            if !out.is_null() {
                out.write(NOTHING);
            }
            if !is_watch(watch) || out.is_null() {
                return Err(Status::InvalidArgument);
            }
            out.write((*watch).poll().ok_or(Status::NotFound)?);
        }
        Ok(Status::Ok)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_watch_free(watch: *mut WatchHandle) {
    border(|| {
        // SAFETY: a watch came from `Box::into_raw`, and kvclient.h requires that it is freed only
        // once.
        unsafe {
            if is_watch(watch) {
                (*watch).magic.set(0);
                drop(Box::from_raw(watch));
            }
        }
    });
}
