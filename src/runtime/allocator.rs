//! The memory that is in use. jemalloc counts it for each size of allocation, so nothing has to be
//! counted here, and a thread of its own returns free pages to the system after ten seconds.

use tikv_jemalloc_ctl::{epoch, stats};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Bytes in use, in all threads. It takes some microseconds: the sums of all threads are added up.
pub fn live_bytes() -> u64 {
    // Both names exist in every jemalloc with statistics, and this one is built with them.
    epoch::advance().expect("jemalloc has an epoch");
    stats::allocated::read().expect("jemalloc counts") as u64
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
}
