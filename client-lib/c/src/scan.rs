//! `kvc_scan`: the keys of a range, one after the other.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kvclient_core::wire::KEY_SIZE_MAX;
use kvclient_core::{Scan, ScanPages};

use crate::border::border;
use crate::handle::{Handle, with_client};
use crate::prefixed::{self, Prefixed, bytes};
use crate::status::Status;

/// Distinguishes a scan from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_7363_6e31;

pub const KEYS_ONLY: u32 = 1;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ScanOptions {
    pub size: usize,
    pub prefix: *const c_void,
    pub prefix_size: usize,
    pub from: *const c_void,
    pub from_size: usize,
    pub to: *const c_void,
    pub to_size: usize,
    pub limit: u64,
    pub flags: u32,
    pub deadline_ms: u32,
}

// SAFETY: integers and raw pointers.
unsafe impl Prefixed for ScanOptions {}

impl Default for ScanOptions {
    fn default() -> Self {
        ScanOptions {
            size: size_of::<ScanOptions>(),
            prefix: std::ptr::null(),
            prefix_size: 0,
            from: std::ptr::null(),
            from_size: 0,
            to: std::ptr::null(),
            to_size: 0,
            limit: 0,
            flags: 0,
            deadline_ms: 0,
        }
    }
}

impl ScanOptions {
    /// # Safety
    /// Each pointer is NULL or points to as many bytes as its size says, if that size is within
    /// bounds.
    unsafe fn to_scan(self) -> Result<Scan, Status> {
        if self.flags & !KEYS_ONLY != 0 {
            return Err(Status::InvalidArgument);
        }
        // SAFETY: as the caller promises.
        let (prefix, from, to) = unsafe {
            (
                bytes(self.prefix, self.prefix_size, KEY_SIZE_MAX)?,
                bytes(self.from, self.from_size, KEY_SIZE_MAX)?,
                bytes(self.to, self.to_size, KEY_SIZE_MAX)?,
            )
        };
        let mut scan = Scan::prefix(prefix)
            .starting_at(Bytes::copy_from_slice(from))
            .ending_before(Bytes::copy_from_slice(to));
        if self.limit > 0 {
            scan = scan.limit(self.limit);
        }
        if self.flags & KEYS_ONLY != 0 {
            scan = scan.keys_only();
        }
        if self.deadline_ms > 0 {
            scan = scan.page_deadline_us(u64::from(self.deadline_ms) * 1_000);
        }
        Ok(scan)
    }
}

/// What `kvc_scan_next` tells.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ToldEntry {
    pub key: *const c_void,
    pub key_size: usize,
    pub value: *const c_void,
    pub value_size: usize,
    pub version: u64,
}

const NOTHING: ToldEntry = ToldEntry {
    key: std::ptr::null(),
    key_size: 0,
    value: std::ptr::null(),
    value_size: 0,
    version: 0,
};

#[derive(Debug)]
pub struct ScanHandle {
    magic: AtomicU64,
    client: *const Handle,
    pages: ScanPages,
    /// The key and the value that were told last, each followed by a zero byte.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl ScanHandle {
    fn next(&mut self, handle: &Handle) -> Result<Option<ToldEntry>, Status> {
        let Some(entry) = self.pages.next(&handle.client)? else {
            return Ok(None);
        };
        terminate(&mut self.key, &entry.key);
        let mut told = ToldEntry {
            key: self.key.as_ptr().cast(),
            key_size: entry.key.len(),
            version: entry.version,
            ..NOTHING
        };
        if let Some(value) = &entry.value {
            terminate(&mut self.value, value);
            told.value = self.value.as_ptr().cast();
            told.value_size = value.len();
        }
        Ok(Some(told))
    }
}

fn terminate(into: &mut Vec<u8>, bytes: &[u8]) {
    into.clear();
    into.extend_from_slice(bytes);
    into.push(0);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_scan_open(
    client: *mut Handle,
    options: *const ScanOptions,
    out: *mut *mut ScanHandle,
) -> c_int {
    let open = |handle: &Handle| {
        if out.is_null() {
            return Err(Status::InvalidArgument);
        }
        if handle.is_closed() {
            return Err(Status::Closed);
        }
        // SAFETY: kvclient.h requires valid pointers.
        let scan = unsafe { prefixed::read(options)?.to_scan()? };
        let scan = ScanHandle {
            magic: AtomicU64::new(MAGIC),
            client,
            pages: ScanPages::new(scan),
            key: Vec::new(),
            value: Vec::new(),
        };
        // SAFETY: checked above, and kvclient.h requires a valid pointer.
        unsafe { out.write(Box::into_raw(Box::new(scan))) };
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
/// `scan` is NULL or points to memory that can be read.
unsafe fn is_scan(scan: *const ScanHandle) -> bool {
    // SAFETY: the caller's promise. Only the magic number is read before the memory is known to be
    // a scan.
    !scan.is_null() && unsafe { (*scan).magic.load(Ordering::Relaxed) } == MAGIC
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_scan_next(scan: *mut ScanHandle, out: *mut ToldEntry) -> c_int {
    // SAFETY: kvclient.h requires valid pointers, and that one thread at a time uses a scan.
    unsafe {
        if !out.is_null() {
            out.write(NOTHING);
        }
        if !is_scan(scan) || out.is_null() {
            return Status::InvalidArgument.code();
        }
        let client = (*scan).client;
        with_client(client, |handle| {
            if handle.is_closed() {
                return Err(Status::Closed);
            }
            let next = (*scan).next(handle)?.ok_or(Status::NotFound)?;
            out.write(next);
            Ok(Status::Ok.code())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_scan_free(scan: *mut ScanHandle) {
    border(|| {
        // SAFETY: a scan came from `Box::into_raw`, and kvclient.h requires that it is freed only
        // once.
        unsafe {
            if is_scan(scan) {
                (*scan).magic.store(0, Ordering::Relaxed);
                drop(Box::from_raw(scan));
            }
        }
    });
}
