//! Panics end at this border and print nothing, because a library must not print.

use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static QUIET: Once = Once::new();

/// Runs an entry point of the library; returns `None` if it panicked.
pub fn border<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A thread that unwinds must not set the hook; a later call will.
    if !std::thread::panicking() {
        QUIET.call_once(keep_quiet);
    }
    INSIDE.set(true);
    let _uncancelled = Uncancelled::new();
    // State that a panic may leave incomplete is under the client's lock. It either tolerates that,
    // or is abandoned.
    let result = catch_unwind(AssertUnwindSafe(run));
    INSIDE.set(false);
    // Dropping the panic's payload could itself panic. The payload is a message and defects are
    // rare, so it is leaked.
    result.map_err(std::mem::forget).ok()
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// The value of glibc and musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// Cancelling a thread unwinds its stack. The library's frames do not support that, and the process
/// would end. So cancellation is disabled inside the library, and takes effect outside of it.
struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    fn new() -> Self {
        let mut before = 0;
        // SAFETY: the state is valid, and `before` is a place for the earlier state. The call
        // cannot fail with these arguments.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut disabled = 0;
        // SAFETY: as above. This call itself cancels no thread.
        unsafe { pthread_setcancelstate(self.before, &mut disabled) };
    }
}

/// The hook belongs to this copy of the standard library. If the library is linked statically into
/// a Rust program, the program may share it; the program's own panics are still reported.
fn keep_quiet() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if !INSIDE.get() {
            report(panic);
        }
    }));
}
