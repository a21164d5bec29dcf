//! Memory that is in use is counted; what is free goes back to the system: the C library's allocator keeps
//! what was freed in small pieces, however much it is, unless it is asked.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static COUNTED: Cap<System> = Cap::new(System, usize::MAX);

/// So much was freed, and so large a part of what was in use, and then nothing for so long, before it is asked.
/// It holds up who allocates meanwhile, for some 60 ms where there were a million keys.
const FREED_MIN: u64 = 16 << 20;
const PART_FREED_MIN: u64 = 4;
const QUIET_US: u64 = 10_000_000;
/// Less than that is freed and taken all the time.
const FALL_MIN: u64 = 1 << 20;

/// Sees how much was freed since the allocator was asked, for whatever cause: dropped keys, and then the store
/// that gives its space back, as late as it likes.
#[derive(Debug, Default)]
pub struct Freed {
    highest: u64,
    lowest: u64,
    fell_us: u64,
}

impl Freed {
    /// Whether the allocator is to be asked now; then the count begins anew.
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

/// What is free at the end of a thread's memory is kept, asked or not, up to a bound that the C library raises
/// by itself, to 64 MiB a thread. Here it stays where it is.
#[cfg(target_env = "gnu")]
const KEPT_AT_END_MAX: i32 = 8 << 20;
/// What is larger has pages of its own, and leaves no hole. Set with the bound above, as that would set it to
/// 128 KiB, less than buffers that are used again and again.
#[cfg(target_env = "gnu")]
const OWN_PAGES_MIN: i32 = 1 << 20;

/// Before anything large is in use.
#[allow(unsafe_code, reason = "no memory in use is touched")]
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain numbers; it may be called at any time, from any thread.
    unsafe {
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT_AT_END_MAX);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, OWN_PAGES_MIN);
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
