//! Counts the memory that is in use, and returns free memory to the system: the C library's
//! allocator keeps what was freed in small pieces, however much it is, until it is asked to trim.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static COUNTED: Cap<System> = Cap::new(System, usize::MAX);

/// Trim after at least 16 MiB and a quarter of the peak were freed, and 10 s without a further
/// fall. A trim delays threads that allocate meanwhile, for some 60 ms where there were a million
/// keys.
const FREED_MIN: u64 = 16 << 20;
const PART_FREED_MIN: u64 = 4;
const QUIET_US: u64 = 10_000_000;
/// Smaller falls are ordinary allocation and freeing.
const FALL_MIN: u64 = 1 << 20;

/// Tracks how much was freed since the last trim, for whatever reason: purged keys, or a store that
/// returns memory later.
#[derive(Debug, Default)]
pub struct Freed {
    highest: u64,
    lowest: u64,
    fell_us: u64,
}

impl Freed {
    /// Whether a trim is due; if so, the count begins again.
    pub fn take_due(&mut self, now_us: u64, live: u64) -> bool {
        if live > self.highest {
            self.highest = live;
            self.lowest = live;
        } else if live + FALL_MIN <= self.lowest {
            self.lowest = live;
            self.fell_us = now_us;
        }
        let freed = self.highest - live;
        let is_much = freed >= FREED_MIN.max(self.highest / PART_FREED_MIN);
        let is_due = is_much && now_us >= self.fell_us + QUIET_US;
        if is_due {
            *self = Freed {
                highest: live,
                lowest: live,
                fell_us: now_us,
            };
        }
        is_due
    }
}

/// Trims in a separate thread: others that allocate meanwhile may have to wait, but only for parts
/// of the trim.
pub fn trim_aside() {
    let thread = std::thread::Builder::new().name("trim".to_owned());
    if let Err(error) = thread.spawn(trim) {
        tracing::warn!(
            "freed memory is not returned to the system, because no thread can be started: {error}"
        );
    }
}

#[allow(unsafe_code, reason = "no memory in use is touched")]
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time, from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// The C library keeps the free memory at the end of each thread's heap, even when asked to trim,
/// up to a bound that it raises automatically, to 64 MiB per thread. Setting the bound keeps it
/// fixed. It is more than the copies that a put of 1 MiB needs for a moment: to return them to the
/// system and to get them again takes longer than to fill them.
#[cfg(target_env = "gnu")]
const KEPT_AT_END_MAX: i32 = 16 << 20;
/// Larger allocations get pages of their own, and so leave no hole. It is set explicitly because
/// setting the bound above would set it to 128 KiB. It is above the messages with the largest value
/// that is allowed by default: new pages for each copy of these took half of the time of a put.
#[cfg(target_env = "gnu")]
const OWN_PAGES_MIN: i32 = 4 << 20;

/// Must be called before any large allocation.
#[allow(unsafe_code, reason = "no memory in use is touched")]
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both arguments are plain numbers; `mallopt` may be called at any time, from any
    // thread.
    unsafe {
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT_AT_END_MAX);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, OWN_PAGES_MIN);
    }
}

/// Bytes in use, in all threads. The C library could report this too, but walks all free memory to
/// do so: with a million keys, a node that was queried once per second did little else.
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
    fn the_allocator_is_asked_each_time_much_was_freed_and_a_quiet_time_has_passed() {
        const MB: u64 = 1 << 20;
        let mut freed = Freed::default();
        let mut at = |seconds: u64, live: u64| freed.take_due(seconds * 1_000_000, live * MB);
        assert!(!at(1, 800) && !at(2, 700) && !at(20, 700), "a small part");
        assert!(!at(30, 300) && !at(35, 90) && !at(44, 90));
        assert!(at(45, 90) && !at(100, 90), "once");
        assert!(!at(101, 30) && at(111, 30), "the store is late");
        assert!(!at(200, 16) && !at(211, 15), "too little");
        assert!(!at(300, 100) && !at(301, 10) && !at(302, 90) && !at(320, 90));
        trim();
    }
}
