//! Giving disk space back after many keys were dropped.
//!
//! The engine keeps what was removed until it happens to merge the tables that hold it, and in its
//! journals until they have grown to a fixed size. Both are brought forward here, in a quiet moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

/// Compaction waits until nothing was dropped for so long.
pub const COMPACT_AFTER: Duration = Duration::from_secs(10);

const DROPPED_MIN: u64 = 256;
/// So many dropped for each one that is left: what is written anew is paid for by what was dropped.
const REGISTERS_PER_DROPPED_MAX: u64 = 8;
/// What a store may take on disk beyond twice what it holds before it is compacted once opened.
const SPARE_SIZE: u64 = 16 << 20;

/// For the small compactions that the engine begins after a move to its tables: one of its workers
/// that waits for a large one keeps another spinning.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts what was dropped since the last compaction.
#[derive(Debug)]
pub struct Drops {
    dropped: u64,
    /// Of the last one, or of the opening.
    at: Instant,
    compact_after: Duration,
}

impl Drops {
    pub fn new(compact_after: Duration) -> Self {
        Drops {
            dropped: 0,
            at: Instant::now(),
            compact_after,
        }
    }

    /// What was dropped before the store was opened shows in its size only.
    pub fn opened(&mut self, held: u64, on_disk: u64) {
        if on_disk > 2 * held + SPARE_SIZE {
            self.dropped = u64::MAX;
        }
    }

    pub fn add(&mut self, dropped: u64) {
        if dropped > 0 {
            self.dropped = self.dropped.saturating_add(dropped);
            self.at = Instant::now();
        }
    }

    pub fn is_compaction_due(&self, registers: u64) -> bool {
        let many =
            self.dropped >= DROPPED_MIN && self.dropped >= registers / REGISTERS_PER_DROPPED_MAX;
        many && self.at.elapsed() >= self.compact_after
    }

    /// Whether anything was dropped since the last compaction.
    pub fn any(&self) -> bool {
        self.dropped > 0
    }

    pub fn compacted(&mut self) {
        self.dropped = 0;
    }
}

/// A rewrite of all tables, under way in a thread of its own. Commits go on meanwhile.
#[derive(Debug)]
pub struct Compaction {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<fjall::Result<()>>>,
}

impl Compaction {
    pub fn start(keyspace: Keyspace) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::Builder::new()
            .name("compaction".to_owned())
            .spawn(move || compact(&keyspace, &asked))?;
        Ok(Compaction {
            stop,
            thread: Some(thread),
        })
    }

    /// How it ended, once it has; then it is over.
    pub fn ended(&mut self) -> Option<fjall::Result<()>> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(join(thread))
    }
}

/// The engine cannot be closed before it has ended; it is not cut short once it writes tables.
impl Drop for Compaction {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(error) = join(thread)
        {
            tracing::warn!("a compaction was given up: {error}");
        }
    }
}

fn join(thread: JoinHandle<fjall::Result<()>>) -> fjall::Result<()> {
    let ended = thread.join();
    ended.unwrap_or_else(|_| {
        Err(fjall::Error::Io(std::io::Error::other(
            "compaction panicked",
        )))
    })
}

fn compact(keyspace: &Keyspace, stop: &AtomicBool) -> fjall::Result<()> {
    move_to_tables(keyspace, stop)?;
    std::thread::sleep(PAUSE);
    keyspace.major_compact()?;
    // What came meanwhile, so that little is left for whoever empties the journals.
    move_to_tables(keyspace, stop)
}

fn move_to_tables(keyspace: &Keyspace, stop: &AtomicBool) -> fjall::Result<()> {
    keyspace.rotate_memtable()?;
    // Where the engine's workers have given up this would go on for ever.
    while keyspace.tree.sealed_memtable_count() > 0 && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(super::engine::WAIT);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_is_due_once_many_were_dropped_and_none_lately() {
        let mut drops = Drops::new(Duration::ZERO);
        drops.add(DROPPED_MIN - 1);
        assert!(!drops.is_compaction_due(0));
        drops.add(1);
        assert!(drops.is_compaction_due(0));
        let few = REGISTERS_PER_DROPPED_MAX * DROPPED_MIN;
        assert!(drops.is_compaction_due(few) && !drops.is_compaction_due(2 * few));
        drops.compacted();
        assert!(!drops.is_compaction_due(0));
        let mut late = Drops::new(Duration::from_secs(3_600));
        late.add(DROPPED_MIN);
        assert!(!late.is_compaction_due(0));
    }

    #[test]
    fn what_a_store_takes_when_it_is_opened_counts_too() {
        let due = |held: u64, on_disk: u64| {
            let mut drops = Drops::new(Duration::ZERO);
            drops.opened(held, on_disk);
            drops.is_compaction_due(1 << 40)
        };
        assert!(!due(0, SPARE_SIZE) && due(0, SPARE_SIZE + 1));
        assert!(!due(SPARE_SIZE, 3 * SPARE_SIZE) && due(SPARE_SIZE, 3 * SPARE_SIZE + 1));
    }
}
