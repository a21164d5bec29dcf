//! The storage engine, fjall: how it is set up, written, synced and read. Nothing outside of this
//! module depends on it.
//!
//! It has no group commit of its own, may block, and takes a damaged journal's first unreadable
//! byte for the end of the data: `journal` and `digest` guard against that.

use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode,
};

use super::compaction::Compaction;
use super::error::StorageError;
use super::journal;

/// The one keyspace.
const KEYSPACE: &str = "state";
/// One thread flushes while another compacts.
const WORKERS: usize = 2;
/// Blocks are read only at opening and by compaction, so a cache gains little.
const CACHE_SIZE: u64 = 8 << 20;
/// The engine starts a new journal once it flushes a memtable and the journal is past 64 MB; both
/// are read at opening. So this also bounds the time to open.
const MEMTABLE_SIZE: u64 = 32 << 20;
const JOURNALS_SIZE: u64 = 256 << 20;
const OPEN_FILES: usize = 128;
const BLOCK_SIZE: u32 = 16 << 10;
/// At these numbers a commit waits here, where a failed worker is noticed. At one more memtable or
/// a few more runs the engine itself would wait for its workers, forever if they have failed.
const MEMTABLES_WAITING: usize = 3;
const RUNS_WAITING: usize = 25;
pub(super) const WAIT: Duration = Duration::from_millis(1);
/// The files that the engine needs to find its data. If some of these are missing, it starts an
/// empty store and deletes the rest.
const PARTS: [&str; 3] = ["version", "keyspaces/0/current", "keyspaces/1/current"];

/// The file that the engine locks.
const LOCK: &str = "lock";

/// Key and value, with prefix and version; no value removes the entry.
pub type RawEntry = (Vec<u8>, Option<Vec<u8>>);

pub struct Engine {
    path: PathBuf,
    /// The compaction ends before the engine does.
    compaction: Option<Compaction>,
    database: Database,
    keyspace: Keyspace,
}

impl Engine {
    /// Creates a new store where there is none.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        guard(path, || {
            let failed = |e| opening_failed(path, e);
            let database = database(path).map_err(failed)?;
            let keyspace = database.keyspace(KEYSPACE, options).map_err(failed)?;
            Ok(Engine {
                path: path.to_path_buf(),
                compaction: None,
                database,
                keyspace,
            })
        })
    }

    /// Opens a store that is complete, and whose journals were checked.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        guard(path, || {
            make_lock_file(path)?;
            let failed = |e| opening_failed(path, e);
            let database = database(path).map_err(failed)?;
            if !database.keyspace_exists(KEYSPACE) {
                return Err(StorageError::damaged(path, "its keyspace is missing"));
            }
            let keyspace = database.keyspace(KEYSPACE, options).map_err(failed)?;
            Ok(Engine {
                path: path.to_path_buf(),
                compaction: None,
                database,
                keyspace,
            })
        })
    }

    /// Visits all entries, in order of key.
    pub fn scan(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        guard(&self.path, || {
            for entry in self.keyspace.iter() {
                let (key, value) = entry
                    .into_inner()
                    .map_err(|e| opening_failed(&self.path, e))?;
                each(&key, &value)?;
            }
            Ok(())
        })
    }

    pub fn load(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self.keyspace.get(key);
        let value = value.map_err(|e| opening_failed(&self.path, e))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Writes entries, all or nothing. There may be only one entry per key: the engine does not
    /// order entries within a batch. Without `sync`, the operating system has them on return.
    pub fn write(&self, entries: &[RawEntry], sync: bool) -> Result<(), StorageError> {
        self.wait_for_room()?;
        let mode = if sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for (key, value) in entries {
            match value {
                Some(value) => batch.insert(&self.keyspace, key.as_slice(), value.as_slice()),
                None => batch.remove(&self.keyspace, key.as_slice()),
            }
        }
        batch.commit().map_err(|e| self.failed("writing", e))
    }

    /// Makes all that was written durable.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|e| self.failed("syncing", e))
    }

    /// Bytes on disk, journals and tables.
    pub fn size(&self) -> Result<u64, StorageError> {
        Ok(journal::size(&self.path)? + self.keyspace.disk_space())
    }

    /// Bytes of the tables.
    pub fn tables_size(&self) -> u64 {
        self.keyspace.disk_space()
    }

    /// Upper bound of the bytes that are in journals and not in tables yet.
    pub fn memtables_size(&self) -> u64 {
        let tree = &self.keyspace.tree;
        let sealed = tree.sealed_memtable_count() as u64 * MEMTABLE_SIZE;
        tree.active_memtable().size() + sealed
    }

    /// Whether data is being moved to tables, so that space may be needed at any moment.
    pub fn is_moving(&self) -> bool {
        self.is_compacting() || self.keyspace.tree.sealed_memtable_count() > 0
    }

    /// Begins to rewrite all tables, without what was removed.
    pub fn start_compaction(&mut self) -> Result<(), StorageError> {
        let started = Compaction::start(self.keyspace.clone());
        self.compaction = Some(started.map_err(StorageError::io("compacting", &self.path))?);
        Ok(())
    }

    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Whether a compaction has succeeded since the last call. One that failed changed nothing, and
    /// the store continues.
    pub fn has_compacted(&mut self) -> bool {
        let Some(ended) = self.compaction.as_mut().and_then(Compaction::ended) else {
            return false;
        };
        self.compaction = None;
        if let Err(error) = &ended {
            tracing::warn!(
                "compaction failed, the space of purged keys is not freed for now: {error}"
            );
        }
        ended.is_ok()
    }

    /// Closes the engine and opens it with empty journals, since the engine frees none before they
    /// are full. Takes as long as one write to the tables and an opening without journals.
    pub fn empty_journals(self) -> Result<Self, StorageError> {
        let failed = |e| self.failed("moving data from its journal to its tables", e);
        self.keyspace.rotate_memtable().map_err(failed)?;
        while self.keyspace.tree.sealed_memtable_count() > 0 {
            self.check_workers()?;
            std::thread::sleep(WAIT);
        }
        let tree = &self.keyspace.tree;
        assert!(
            tree.get_highest_memtable_seqno().is_none(),
            "nothing is in the journals alone"
        );
        let path = self.path.clone();
        drop(self);
        journal::empty(&path)?;
        Engine::open(&path)
    }

    /// Waits while the workers lag, unless they have failed.
    fn wait_for_room(&self) -> Result<(), StorageError> {
        let tree = &self.keyspace.tree;
        while tree.sealed_memtable_count() >= MEMTABLES_WAITING
            || tree.l0_run_count() >= RUNS_WAITING
        {
            self.check_workers()?;
            std::thread::sleep(WAIT);
        }
        Ok(())
    }

    /// Nothing is buffered between commits; the call only reports a failure of the workers.
    fn check_workers(&self) -> Result<(), StorageError> {
        self.database
            .persist(PersistMode::Buffer)
            .map_err(|e| self.failed("moving data from its journal to its tables", e))
    }

    fn failed(&self, doing: &'static str, error: fjall::Error) -> StorageError {
        let path = self.path.clone();
        if let Some(source) = os_error(&error) {
            return StorageError::Write {
                doing,
                path,
                source,
            };
        }
        match error {
            fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) => {
                StorageError::Write {
                    doing,
                    path,
                    source,
                }
            }
            fjall::Error::Poisoned => StorageError::Engine {
                doing,
                reason: format!(
                    "moving data to its tables failed in the background; earlier log lines may say \
                     why (free space: {})",
                    free_there(&path)
                ),
                path,
            },
            other => StorageError::Engine {
                doing,
                path,
                reason: other.to_string(),
            },
        }
    }
}

fn database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .worker_threads(WORKERS)
        .cache_size(CACHE_SIZE)
        .max_cached_files(Some(OPEN_FILES))
        .max_journaling_size(JOURNALS_SIZE)
        // The engine checks a compressed item by compressing it again, so another version of the
        // compression would be reported as damage.
        .journal_compression(CompressionType::None)
        .manual_journal_persist(true)
        .open()
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_SIZE)
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_SIZE))
        // Filters serve lookups of single keys, of which there are none.
        .filter_policy(FilterPolicy::disabled())
}

/// The engine locks a file, and does not create it if it is missing: a copy of the directory may
/// lack it, and the process that opens the store has locked the data directory.
fn make_lock_file(path: &Path) -> Result<(), StorageError> {
    let lock = path.join(LOCK);
    let made = OpenOptions::new().append(true).create(true).open(&lock);
    made.map(drop).map_err(StorageError::io("opening", &lock))
}

/// Refuses a store that the engine would take for missing.
pub fn check_parts(path: &Path) -> Result<(), StorageError> {
    for part in PARTS {
        let part_path = path.join(part);
        // A part that this process has no permission to examine is not missing.
        let looked = part_path.try_exists();
        if !looked.map_err(StorageError::io("checking", &part_path))? {
            return Err(StorageError::damaged(path, format!("{part} is missing")));
        }
    }
    Ok(())
}

/// The operating system's error that caused it.
fn os_error(error: &fjall::Error) -> Option<io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let number = error.downcast_ref().and_then(io::Error::raw_os_error);
        if let Some(number) = number {
            return Some(io::Error::from_raw_os_error(number));
        }
        cause = error.source();
    }
    None
}

fn opening_failed(path: &Path, error: fjall::Error) -> StorageError {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) => {
            StorageError::io("opening the store in", path)(source)
        }
        fjall::Error::Locked => StorageError::InUse {
            directory: path.to_path_buf(),
            pid: None,
        },
        other => StorageError::damaged(path, format!("the engine says {other}")),
    }
}

/// The engine panics on assertions that damaged files violate; that is an error of the files, not a
/// bug of the node.
fn guard<T>(
    path: &Path,
    action: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(StorageError::damaged(
            path,
            format!("the engine failed to read it: {reason}"),
        ))
    })
}

fn free_there(path: &Path) -> String {
    nix::sys::statvfs::statvfs(path).map_or("unknown".into(), |stat| {
        let bytes = u128::from(stat.blocks_available()) * u128::from(stat.fragment_size());
        let files = stat.files_available();
        format!("{} MiB, {files} files", bytes >> 20)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_in_the_systems_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let engine = Engine::create(&path).unwrap();
        let full = || io::Error::from_raw_os_error(28);
        for error in [
            fjall::Error::Io(full()),
            fjall::Error::Storage(LsmError::Io(full())),
        ] {
            assert_eq!(
                engine.failed("writing", error).to_string(),
                format!(
                    "No space left on device (os error 28) writing {}; the node stops",
                    path.display()
                )
            );
        }
        let behind = engine.failed("writing", fjall::Error::Poisoned).to_string();
        assert!(behind.contains("free space: "), "{behind}");
    }

    #[test]
    fn a_panic_while_reading_is_an_error_that_names_the_path() {
        let error = guard(Path::new("store"), || -> Result<(), StorageError> {
            panic!("bad block {}", 7)
        });
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("store is damaged: the engine failed to read it: bad block 7"),
            "{text}"
        );
    }
}
