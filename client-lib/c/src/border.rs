//! Panics stop here, and say nothing: a library does not print.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside of the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static QUIET: Once = Once::new();

/// Runs an entry of the library; `None` if it panicked.
pub fn border<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A thread that unwinds may not set the hook; some other call will.
    if !std::thread::panicking() {
        QUIET.call_once(keep_quiet);
    }
    INSIDE.set(true);
    let _uncancelled = Uncancelled::new();
    // What a panic may leave half done is behind the client's lock, which bears it, or is given up.
    let result = catch_unwind(AssertUnwindSafe(run));
    INSIDE.set(false);
    // Dropping what was thrown could itself throw; it is a message, and defects are rare.
    result.map_err(std::mem::forget).ok()
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Of glibc and musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// A thread that is cancelled unwinds, which the frames of the library do not bear: the process would end.
/// So it is cancelled once it is outside again.
struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    fn new() -> Self {
        let mut before = 0;
        // SAFETY: a valid state, and a place for the one before. It can't fail with these.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut disabled = 0;
        // SAFETY: as above. No thread is cancelled by this call itself.
        unsafe { pthread_setcancelstate(self.before, &mut disabled) };
    }
}

/// The hook is that of this copy of the standard library. Linked statically into a Rust program it may be
/// the program's too, whose own panics go on being reported.
fn keep_quiet() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if !INSIDE.get() {
            report(panic);
        }
    }));
}
