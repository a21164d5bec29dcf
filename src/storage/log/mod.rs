//! The log: every commit appends one batch to its newest segment. Nothing else is written for a
//! commit, and nothing is read while a store runs, except by a checkpoint.
//!
//! A batch counts from the moment when it is written whole (`os`) or synced (`fsync`). After a
//! write or sync that failed, `repair` brings the segment back to the last batch that counts.

pub mod batch;
pub mod segment;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use self::batch::{Batch, Position};
use self::segment::{HEAD_SIZE, SegmentStart, StoreOwner};
use super::error::StorageError;
use super::file;
use crate::protocol::types::message::{Group, GroupNumber};

/// A buffer that grew beyond this is freed after the commit.
const BUFFER_SIZE_KEPT: usize = 4 << 20;

/// The end of a log, as an opening finds it or a creation makes it.
#[derive(Debug)]
pub struct LogEnd {
    /// Where the newest segment begins.
    pub start: SegmentStart,
    /// Its end in bytes, and the position there.
    pub size: u64,
    pub position: Position,
    /// Numbers and sizes of the segments before it that are still needed.
    pub sealed: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub struct CommitLog {
    store: PathBuf,
    owner: StoreOwner,
    /// The newest segment.
    path: PathBuf,
    file: File,
    start: SegmentStart,
    /// The end of the last batch that counts, and the position there.
    end: u64,
    position: Position,
    /// The end of what was synced in this segment, and the position there.
    synced: (u64, Position),
    /// The size of the file: space is allocated ahead in steps of `ahead`, so that most syncs write
    /// no size.
    allocated: u64,
    ahead: u64,
    sealed: Vec<(u64, u64)>,
    /// The batch that is being written, and the position after it.
    buffer: Vec<u8>,
    next: Position,
}

impl CommitLog {
    /// The first segment of a new store, durably.
    pub fn create(store: &Path, owner: StoreOwner, ahead: u64) -> Result<Self, StorageError> {
        let salt = owner.salt.to_le_bytes();
        let chain = xxhash_rust::xxh3::xxh3_64_with_seed(&salt, owner.incarnation);
        let position = Position { group: 0, chain };
        let start = SegmentStart {
            segment: 1,
            position,
        };
        create_segment(store, start, owner)?;
        let end = LogEnd {
            start,
            size: HEAD_SIZE as u64,
            position,
            sealed: Vec::new(),
        };
        CommitLog::open(store, owner, ahead, end)
    }

    /// Continues a log whose end was checked. What is after it is cut off.
    pub fn open(
        store: &Path,
        owner: StoreOwner,
        ahead: u64,
        end: LogEnd,
    ) -> Result<Self, StorageError> {
        let path = segment::path(store, end.start.segment);
        let file = open(&path)?;
        let log = CommitLog {
            store: store.to_path_buf(),
            owner,
            path,
            file,
            start: end.start,
            end: end.size,
            position: end.position,
            synced: (end.size, end.position),
            allocated: end.size,
            ahead,
            sealed: end.sealed,
            buffer: Vec::new(),
            next: end.position,
        };
        log.cut()?;
        Ok(log)
    }

    /// The last group, and the chain value after it.
    pub fn position(&self) -> Position {
        self.position
    }

    pub fn owner(&self) -> StoreOwner {
        self.owner
    }

    /// Where the newest segment begins.
    pub fn start(&self) -> SegmentStart {
        self.start
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of batches in the newest segment.
    pub fn written(&self) -> u64 {
        self.end - HEAD_SIZE as u64
    }

    /// Bytes of all batches.
    pub fn content_size(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|(_, size)| size).sum();
        sealed + self.written()
    }

    /// Bytes of all segments on the disk.
    pub fn size(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|(_, size)| size).sum();
        sealed + self.allocated
    }

    /// Encodes the next batch; returns its size in bytes.
    pub fn prepare(&mut self, groups: &[Group]) -> u64 {
        if self.buffer.capacity() > BUFFER_SIZE_KEPT {
            self.buffer = Vec::new();
        }
        self.next = batch::encode(&mut self.buffer, groups, self.position, self.owner.salt);
        self.buffer.len() as u64
    }

    /// The last group of the batch that was prepared.
    pub fn prepared_group(&self) -> GroupNumber {
        self.next.group
    }

    /// Writes the prepared batch. Only after a success it counts; then nothing is prepared any
    /// more, and a call that repeats this one because something else has failed writes nothing.
    pub fn write(&mut self, sync: bool) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let end = self.end + self.buffer.len() as u64;
        self.allocate(end);
        let written = self.file.write_all_at(&self.buffer, self.end);
        written.map_err(StorageError::io("writing", &self.path))?;
        self.allocated = self.allocated.max(end);
        if sync {
            self.sync_file()?;
            self.synced = (end, self.next);
        }
        self.end = end;
        self.position = self.next;
        self.buffer.clear();
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.sync_file()?;
        self.synced = (self.end, self.position);
        Ok(())
    }

    fn sync_file(&self) -> Result<(), StorageError> {
        let synced = self.file.sync_data();
        synced.map_err(StorageError::io("syncing", &self.path))
    }

    /// Where no space can be allocated, the write itself shows whether there is any.
    fn allocate(&mut self, end: u64) {
        if end <= self.allocated || self.ahead == 0 {
            return;
        }
        let size = end.next_multiple_of(self.ahead);
        let [from, more] = [self.allocated, size - self.allocated].map(|n| n as i64);
        if fallocate(&self.file, FallocateFlags::empty(), from, more).is_ok() {
            self.allocated = size;
        }
    }

    /// Ends the newest segment, durably, and begins the next one.
    pub fn roll(&mut self) -> Result<(), StorageError> {
        self.cut()?;
        self.allocated = self.end;
        self.synced = (self.end, self.position);
        let start = SegmentStart {
            segment: self.start.segment + 1,
            position: self.position,
        };
        let path = segment::path(&self.store, start.segment);
        let created = create_segment(&self.store, start, self.owner).and_then(|()| open(&path));
        self.file = match created {
            Ok(file) => file,
            Err(error) => {
                self.take_back(&path)?;
                return Err(error);
            }
        };
        self.path = path;
        self.sealed.push((self.start.segment, self.end));
        self.start = start;
        self.end = HEAD_SIZE as u64;
        self.synced = (self.end, self.position);
        self.allocated = self.end;
        Ok(())
    }

    /// Removes a segment that was not begun, durably: otherwise the log would end with it. If that
    /// fails, nothing more may be written to the segment before it, whatever the reason is.
    fn take_back(&self, path: &Path) -> Result<(), StorageError> {
        let removed = match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StorageError::io("removing", path)),
        };
        let removed = removed.and_then(|()| file::sync_directory(&self.store));
        removed.map_err(|error| {
            let error = io::Error::other(error.to_string());
            StorageError::io("removing", path)(error)
        })
    }

    /// After a failure: cuts off what does not count, and writes again what was not synced, since
    /// the system may treat data that a failed sync left behind as written.
    pub fn repair(&mut self) -> Result<(), StorageError> {
        let size = usize::try_from(self.end - self.synced.0).expect("it is in memory too");
        let mut bytes = vec![0; size];
        let read = self.file.read_exact_at(&mut bytes, self.synced.0);
        read.map_err(StorageError::io("reading", &self.path))?;
        self.check_unsynced(&bytes)?;
        let written = self.file.write_all_at(&bytes, self.synced.0);
        written.map_err(StorageError::io("writing", &self.path))?;
        self.cut()?;
        self.synced = (self.end, self.position);
        self.allocated = self.end;
        Ok(())
    }

    /// Whether these bytes are exactly the batches since the last sync.
    fn check_unsynced(&self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let mut position = self.synced.1;
        while let Some(batch) = Batch::read(bytes, self.owner.salt)
            && batch.follows(position)
        {
            position = batch.end;
            bytes = &bytes[batch.size..];
        }
        if bytes.is_empty() && position == self.position {
            return Ok(());
        }
        let what = "what was written since the last sync is not there any more";
        Err(StorageError::damaged(&self.path, what))
    }

    /// Removes what is after the end, durably.
    fn cut(&self) -> Result<(), StorageError> {
        let cut = self.file.set_len(self.end);
        cut.and_then(|()| self.file.sync_all())
            .map_err(StorageError::io("cutting", &self.path))
    }

    /// Segments before this one were deleted.
    pub fn forget_before(&mut self, segment: u64) {
        self.sealed.retain(|(number, _)| *number >= segment);
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(StorageError::io("opening", path))
}

/// A segment is never there without its head.
fn create_segment(
    store: &Path,
    start: SegmentStart,
    owner: StoreOwner,
) -> Result<(), StorageError> {
    let path = segment::path(store, start.segment);
    file::replace(&path, &segment::encode_head(start, owner))
}
