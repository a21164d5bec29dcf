//! Reads a store as an earlier run left it, and proves it complete: the parts of the checkpoint,
//! then the log that follows them. Nothing is changed before `settle`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::checkpoint::manifest::Manifest;
use super::checkpoint::part::{self, PartReader};
use super::error::StorageError;
use super::file;
use super::format;
use super::log::batch::{Batch, Entry, Position};
use super::log::segment::{self, Segment, SegmentStart, StoreOwner};
use super::log::{CommitLog, LogEnd};
use super::mark::Mark;
use super::prefix;
use super::table::Table;
use crate::protocol::types::message::{GroupNumber, Meta};

/// A store that is complete.
#[derive(Debug)]
pub struct Found {
    pub table: Table,
    pub meta: Meta,
    pub manifest: Manifest,
    /// The number of removals in the log.
    pub dropped: u64,
    /// What is cut off, if anything.
    pub note: Option<String>,
    log: FoundLog,
}

/// The newest segment, and the segments before it.
#[derive(Debug)]
struct FoundLog {
    start: SegmentStart,
    newest: Segment,
    /// Where the batches begin that may not be synced: those after the mark.
    unsynced: usize,
    sealed: Vec<(u64, u64)>,
}

/// What was read so far.
struct StoreReading<'a> {
    store: &'a Path,
    owner: StoreOwner,
    mark: GroupNumber,
    manifest: &'a Manifest,
    table: Table,
    meta: Meta,
    dropped: u64,
}

impl Found {
    /// Reads everything, into a table.
    pub fn read(store: &Path, owner: StoreOwner, mark: &Mark) -> Result<Self, StorageError> {
        let manifest = Manifest::read(store, owner)?;
        let mut reading = StoreReading {
            store,
            owner,
            mark: mark.group(),
            manifest: &manifest,
            table: Table::loading(),
            meta: Meta::default(),
            dropped: 0,
        };
        reading.read_parts()?;
        let log = reading.read_log()?;
        let note = reading.check_end(&log)?;
        reading.table.order();
        let StoreReading {
            table,
            meta,
            dropped,
            ..
        } = reading;
        Ok(Found {
            table,
            meta,
            manifest,
            dropped,
            note,
            log,
        })
    }

    pub fn last_group(&self) -> GroupNumber {
        self.log.newest.position.group
    }

    /// Makes what was read durable, and cuts off an unfinished write. After a stop that was not
    /// clean, what may not be synced is written again: if a failed sync was the reason for the
    /// stop, the system may regard data as written that never reached the disk. Files that no
    /// longer count are deleted.
    pub fn settle(
        self,
        store: &Path,
        owner: StoreOwner,
        clean_stop: bool,
        ahead: u64,
    ) -> Result<Settled, StorageError> {
        let FoundLog {
            start,
            newest,
            unsynced,
            sealed,
        } = self.log;
        if !clean_stop {
            write_again(newest.path(), newest.batches_from(unsynced), unsynced)?;
        }
        let end = LogEnd {
            start,
            size: newest.end as u64,
            position: newest.position,
            sealed,
        };
        drop(newest);
        let log = CommitLog::open(store, owner, ahead, end)?;
        let mut manifest = self.manifest;
        if !clean_stop {
            manifest.write(store, owner)?;
        }
        let leftover = remove_leftovers(store, &manifest)?;
        manifest.next_part = manifest.next_part.max(leftover + 1);
        Ok(Settled {
            table: self.table,
            meta: self.meta,
            manifest,
            dropped: self.dropped,
            log,
        })
    }
}

/// A store that is ready to be written.
#[derive(Debug)]
pub struct Settled {
    pub table: Table,
    pub meta: Meta,
    pub manifest: Manifest,
    pub dropped: u64,
    pub log: CommitLog,
}

impl StoreReading<'_> {
    fn read_parts(&mut self) -> Result<(), StorageError> {
        if !self.manifest.meta.value.is_empty() {
            let path = super::checkpoint::manifest::path(self.store);
            self.set_meta(&path, &self.manifest.meta.value)?;
        }
        for entry in &self.manifest.parts {
            let mut reader = PartReader::open(self.store, *entry, self.owner)?;
            while let Some(registers) = reader.next_block()? {
                let path = registers.path();
                for register in registers {
                    let (key, value) = register?;
                    if !entry.prefix.contains(prefix::hash(key, self.owner.salt)) {
                        let what = "it contains a key of another part";
                        return Err(StorageError::damaged(path, what));
                    }
                    self.set(path, key, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_meta(&mut self, path: &Path, value: &[u8]) -> Result<(), StorageError> {
        self.meta = format::decode_meta(path, value)?;
        self.table.learn(&self.meta);
        Ok(())
    }

    fn set(&mut self, path: &Path, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let key = format::decode_key(path, key)?;
        self.table.set(key, format::decode_register(path, value)?);
        Ok(())
    }

    /// Applies all segments that the parts may lack something of.
    fn read_log(&mut self) -> Result<FoundLog, StorageError> {
        let mut numbers = segment::numbers(self.store, "log")?;
        let mut start = self.manifest.log;
        numbers.retain(|number| *number >= start.segment);
        let mut sealed = Vec::new();
        let missing = |number| {
            let path = segment::path(self.store, number);
            Err(StorageError::damaged(&path, "it is missing"))
        };
        let Some(last) = numbers.last().copied() else {
            return missing(start.segment);
        };
        loop {
            if !numbers.contains(&start.segment) {
                return missing(start.segment);
            }
            let (segment, unsynced) = self.read_segment(start)?;
            if start.segment == last {
                return Ok(FoundLog {
                    start,
                    newest: segment,
                    unsynced,
                    sealed,
                });
            }
            segment.check_ends()?;
            sealed.push((start.segment, segment.end as u64));
            start = SegmentStart {
                segment: start.segment + 1,
                position: segment.position,
            };
        }
    }

    /// Also returns the end of the batches that the mark says are synced.
    fn read_segment(&mut self, start: SegmentStart) -> Result<(Segment, usize), StorageError> {
        let mut segment = Segment::read(self.store, start, self.owner)?;
        let path = segment.path().to_path_buf();
        let mut synced = segment.end;
        let (min, max) = self.manifest.through();
        while let Some(batch) = segment.next_batch() {
            let Position { group, .. } = batch.end;
            if group > min {
                self.apply(&path, batch, group > max)?;
            }
            if group <= self.mark {
                synced = segment.end;
            }
        }
        Ok((segment, synced))
    }

    /// Applies a batch, or only what the parts concerned do not contain yet.
    fn apply(&mut self, path: &Path, batch: Batch<'_>, is_all: bool) -> Result<(), StorageError> {
        let (group, salt) = (batch.end.group, self.owner.salt);
        let manifest = self.manifest;
        let is_news =
            |key: &[u8]| is_all || group > manifest.part_of(prefix::hash(key, salt)).through;
        for entry in batch.entries() {
            let unreadable = || StorageError::damaged(path, "a batch can't be read");
            match entry.ok_or_else(unreadable)? {
                Entry::Meta(value) if group > manifest.meta.through => {
                    self.set_meta(path, value)?
                }
                Entry::Register(key, value) if is_news(key) => self.set(path, key, value)?,
                Entry::Removal(key) if is_news(key) => {
                    self.dropped += 1;
                    self.table.remove(&format::decode_key(path, key)?);
                }
                Entry::Chosen(key, ballot) if is_news(key) => {
                    self.table
                        .mark_chosen(&format::decode_key(path, key)?, ballot);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Accepts an unfinished write at the end of the newest segment, unless groups that were synced
    /// would be missing; returns a note then.
    fn check_end(&self, log: &FoundLog) -> Result<Option<String>, StorageError> {
        let (newest, last) = (&log.newest, log.newest.position.group);
        let rest = newest.rest().len();
        if rest == 0 {
            return match last < self.mark {
                true => Err(StorageError::Behind {
                    path: self.store.to_path_buf(),
                    store: last,
                    mark: self.mark,
                }),
                false => Ok(None),
            };
        }
        if last < self.mark {
            let what = format!(
                "from byte {} on it cannot be read; before that it ends at group {last}, but \
                 group {} was synced",
                newest.end, self.mark
            );
            return Err(StorageError::damaged(newest.path(), what));
        }
        newest.check_torn()?;
        Ok(Some(format!(
            "removed an unfinished write from the end of {}: {rest} bytes after group {last}",
            newest.path().display()
        )))
    }
}

fn write_again(path: &Path, bytes: &[u8], at: usize) -> Result<(), StorageError> {
    let file = OpenOptions::new().write(true).open(path);
    let file = file.map_err(StorageError::io("opening", path))?;
    file.write_all_at(bytes, at as u64)
        .and_then(|()| file.sync_all())
        .map_err(StorageError::io("writing", path))
}

/// Deletes parts that the list does not name, and segments before those that are needed; returns
/// the highest number of a part that was there.
fn remove_leftovers(store: &Path, manifest: &Manifest) -> Result<u64, StorageError> {
    let remove = |path: &Path| fs::remove_file(path).map_err(StorageError::io("removing", path));
    let parts = segment::numbers(store, "part")?;
    for number in &parts {
        if !manifest.parts.iter().any(|part| part.number == *number) {
            remove(&part::path(store, *number))?;
        }
    }
    for number in segment::numbers(store, "log")? {
        if number < manifest.log.segment {
            remove(&segment::path(store, number))?;
        }
    }
    file::sync_directory(store)?;
    Ok(parts.last().copied().unwrap_or(0))
}
