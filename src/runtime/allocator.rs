//! Memory that is in use is counted; what is free goes back to the system: the C library's allocator keeps
//! what was freed in small pieces, however much it is, unless it is asked.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static COUNTED: Cap<System> = Cap::new(System, usize::MAX);

/// So many keys were dropped (P1), and then none for so long, before it is asked. It holds up who
/// allocates meanwhile, for some 60 ms where there were a million keys.
const DROPPED_MIN: usize = 10_000;
const QUIET_US: u64 = 10_000_000;

/// Counts what was dropped since the allocator was asked.
#[derive(Debug, Default)]
pub struct Dropped {
    keys: usize,
    last_us: Option<u64>,
    /// It was asked once already.
    asked: bool,
}

impl Dropped {
    pub fn add(&mut self, keys: usize, now_us: u64) {
        if keys > 0 {
            self.keys += keys;
            self.last_us = Some(now_us);
        }
    }

    /// Whether the allocator is to be asked now: a second time some time after the first, because the
    /// store, too, lets memory go as it gives its space back. Then the count begins anew.
    pub fn take_due(&mut self, now_us: u64) -> bool {
        let is_quiet = self.last_us.is_some_and(|last| now_us >= last + QUIET_US);
        let is_due = is_quiet && self.keys >= DROPPED_MIN;
        if is_due && self.asked {
            *self = Dropped::default();
        } else if is_due {
            self.asked = true;
            self.last_us = Some(now_us + QUIET_US);
        }
        is_due
    }
}

/// In a thread of its own: who allocates meanwhile may have to wait, but for parts of it only.
pub fn trim_aside() {
    let thread = std::thread::Builder::new().name("trim".to_owned());
    if let Err(error) = thread.spawn(trim) {
        tracing::warn!("no thread to hand freed memory back: {error}");
    }
}

#[allow(unsafe_code, reason = "no memory in use is touched")]
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// What is in use, in all threads. The C library could tell it, too, but goes through all that is free to do so:
/// with a million keys a node that was asked each second did little else.
pub fn live_bytes() -> u64 {
    COUNTED.allocated() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_counted() {
        const SIZE: usize = 1 << 30;
        let taken: Vec<u8> = Vec::with_capacity(SIZE);
        assert!(live_bytes() >= SIZE as u64);
        drop(taken);
        assert!(live_bytes() < SIZE as u64);
    }

    #[test]
    fn the_allocator_is_asked_twice_after_many_drops_and_a_quiet_time() {
        let mut dropped = Dropped::default();
        dropped.add(DROPPED_MIN - 1, 0);
        assert!(!dropped.take_due(QUIET_US));
        dropped.add(1, QUIET_US);
        dropped.add(0, 2 * QUIET_US);
        assert!(!dropped.take_due(2 * QUIET_US - 1));
        assert!(dropped.take_due(2 * QUIET_US));
        assert!(!dropped.take_due(3 * QUIET_US));
        assert!(dropped.take_due(4 * QUIET_US));
        assert!(!dropped.take_due(6 * QUIET_US));
        trim();
    }
}
