//! `kvc_client`: a client, the process that owns it, and whether it can still be used.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use kvclient_core::{Client, ClientOptions};

use crate::border::border;
use crate::prefixed::{self, Prefixed};
use crate::status::Status;

/// Distinguishes a client from other memory, as far as that is possible.
const MAGIC: u64 = 0x6b76_635f_636c_6931;

#[derive(Debug)]
pub struct Handle {
    magic: AtomicU64,
    /// The process that opened the client. A child process has a copy of its memory, with locks in
    /// an arbitrary state, and shares its descriptors; the child must use neither.
    process: u32,
    /// The value of `FORKS` when the client was opened: a child in its own process-id namespace may
    /// have the same process id as its parent.
    forks: u32,
    closed: AtomicBool,
    pub client: Client,
}

/// The number of forks from the first process to this one.
static FORKS: AtomicU32 = AtomicU32::new(0);
static FORKS_COUNTED: Once = Once::new();

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

type AtFork = Option<extern "C" fn()>;

unsafe extern "C" {
    fn pthread_atfork(prepare: AtFork, parent: AtFork, child: AtFork) -> c_int;
}

/// Each child increments the count. If there is no memory to register that, only the process id
/// identifies a child.
fn count_forks() {
    // SAFETY: the function that runs in the child only changes an atomic number.
    FORKS_COUNTED.call_once(|| unsafe {
        pthread_atfork(None, None, Some(count_fork));
    });
}

impl Handle {
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.client.is_lost()
    }

    fn close(&self) {
        self.client.close();
        // Set last: a thread that sees it knows that no more completions will follow.
        self.closed.store(true, Ordering::Release);
    }
}

/// Returns the client if this process opened it. Takes no lock.
///
/// # Safety
/// `client` is NULL or points to readable memory; a client exists until its last call has ended.
unsafe fn look<'a>(client: *const Handle) -> Result<&'a Handle, Status> {
    // SAFETY: the caller's promise. Only the magic number is read before the memory is known to be
    // a client.
    let magic = match client.is_null() {
        true => return Err(Status::InvalidArgument),
        false => unsafe { &(*client).magic },
    };
    if magic.load(Ordering::Relaxed) != MAGIC {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: it is a client.
    let handle = unsafe { &*client };
    let forks = FORKS.load(Ordering::Relaxed);
    if handle.process != std::process::id() || handle.forks != forks {
        return Err(Status::Forked);
    }
    Ok(handle)
}

/// Runs a call on a client. A panic closes the client.
///
/// # Safety
/// As for `look`.
pub unsafe fn with_client(
    client: *const Handle,
    run: impl FnOnce(&Handle) -> Result<c_int, Status>,
) -> c_int {
    // SAFETY: the caller's promise.
    let handle = match unsafe { look(client) } {
        Ok(handle) => handle,
        Err(status) => return status.code(),
    };
    match border(|| run(handle)) {
        Some(Ok(code)) => code,
        Some(Err(status)) => status.code(),
        None => {
            border(|| handle.close());
            Status::Internal.code()
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct OpenOptions {
    pub size: usize,
    pub deadline_ms: u32,
    pub no_quorum_after_ms: u32,
    pub cluster: u64,
}

// SAFETY: integers.
unsafe impl Prefixed for OpenOptions {}

impl From<OpenOptions> for ClientOptions {
    fn from(options: OpenOptions) -> Self {
        let default = ClientOptions::default();
        let or = |ms: u32, default: Duration| match ms {
            0 => default,
            ms => Duration::from_millis(ms.into()),
        };
        ClientOptions {
            deadline: or(options.deadline_ms, default.deadline),
            no_quorum_after: or(options.no_quorum_after_ms, default.no_quorum_after),
            cluster: options.cluster,
        }
    }
}

/// # Safety
/// `nodes` is NULL or a string; `options` as for `prefixed::read`.
unsafe fn open(nodes: *const c_char, options: *const OpenOptions) -> Result<Box<Handle>, Status> {
    if nodes.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: the caller's promise.
    let (nodes, options) = unsafe { (CStr::from_ptr(nodes), prefixed::read(options)?) };
    let nodes = nodes.to_str().map_err(|_| Status::InvalidArgument)?;
    count_forks();
    Ok(Box::new(Handle {
        magic: AtomicU64::new(MAGIC),
        process: std::process::id(),
        forks: FORKS.load(Ordering::Relaxed),
        closed: AtomicBool::new(false),
        client: Client::open(nodes, options.into())?,
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_open(
    nodes: *const c_char,
    options: *const OpenOptions,
    out: *mut *mut Handle,
) -> c_int {
    if out.is_null() {
        return Status::InvalidArgument.code();
    }
    // SAFETY: kvclient.h requires valid pointers; `out` was checked.
    unsafe {
        out.write(std::ptr::null_mut());
        match border(|| open(nodes, options)) {
            Some(Ok(handle)) => {
                out.write(Box::into_raw(handle));
                Status::Ok.code()
            }
            Some(Err(status)) => status.code(),
            None => Status::Internal.code(),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_close(client: *mut Handle) {
    let close = |handle: &Handle| {
        handle.close();
        Ok(Status::Ok.code())
    };
    // SAFETY: kvclient.h requires a valid pointer. If it is not a client, there is nothing to do.
    unsafe { with_client(client, close) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvc_free(client: *mut Handle) {
    // SAFETY: kvclient.h requires a valid pointer, and that this is the last call. A child leaves
    // the client alone.
    let Ok(handle) = (unsafe { look(client) }) else {
        return;
    };
    handle.magic.store(0, Ordering::Relaxed);
    // SAFETY: the pointer came from `Box::into_raw`, and is not used as a client any more.
    border(|| drop(unsafe { Box::from_raw(client) }));
}
