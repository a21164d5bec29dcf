//! Frees disk space after many keys were purged.
//!
//! The engine keeps removed data until it happens to merge the tables that contain it, and in its
//! journals until they have grown to a fixed size. This module starts both earlier, in a quiet
//! moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

/// A compaction waits until nothing was removed for this long.
pub const COMPACT_AFTER: Duration = Duration::from_secs(10);

const DROPPED_MIN: u64 = 256;
/// The most remaining registers per removed one: a rewrite has to free enough to be worth its cost.
const REGISTERS_PER_DROPPED_MAX: u64 = 8;
/// A store that takes more than this on disk beyond twice the size of its content is compacted
/// after it was opened.
const SPARE_SIZE: u64 = 16 << 20;

/// A pause for the small compactions that the engine begins after a move to its tables: if one of
/// its workers waits for a large one, another spins.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts removals since the last compaction.
#[derive(Debug)]
pub struct Drops {
    dropped: u64,
    /// When the last removal was counted, or the store was opened.
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

    /// Removals before the store was opened show only in its size.
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

    /// Whether anything was removed since the last compaction.
    pub fn any(&self) -> bool {
        self.dropped > 0
    }

    pub fn compacted(&mut self) {
        self.dropped = 0;
    }
}

/// A rewrite of all tables, in progress in a separate thread. Commits continue meanwhile.
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

    /// The result of the compaction, once it has ended; it is returned once.
    pub fn ended(&mut self) -> Option<fjall::Result<()>> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(join(thread))
    }
}

/// The engine cannot be closed before the compaction has ended, and a compaction that writes tables
/// is not interrupted.
impl Drop for Compaction {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(error) = join(thread)
        {
            tracing::warn!("a compaction was abandoned: {error}");
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
    // Moves what was written in the meantime, so that little remains for the call that empties the
    // journals.
    move_to_tables(keyspace, stop)
}

fn move_to_tables(keyspace: &Keyspace, stop: &AtomicBool) -> fjall::Result<()> {
    keyspace.rotate_memtable()?;
    // If the engine's workers have failed, this loop would never end without `stop`.
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
