//! Reads the engine's journals before the engine does, and cuts a torn tail.
//!
//! The engine ends a journal at the first byte that it cannot read, cuts off what follows and
//! continues: damage in the middle, and everything written after it, would disappear silently.
//!
//! This module distinguishes damage from a tail that a power failure tore, and refuses damage
//! before anything is changed. The engine also refuses some torn tails, which are no damage; those
//! are cut here.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::error::StorageError;
use super::file;
use super::format::{GROUP_KEY, GroupEntry, u64_at};
use crate::protocol::types::message::GroupNumber;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// The unit in which the system counts the space of a file, on any file system.
const BLOCK_SIZE: u64 = 512;
/// Last bytes of a batch; the number is the engine's format version.
const TRAILER: &[u8] = b"FJL\x03";

/// Checks all journals of the store. Returns a note if a torn tail was cut off.
///
/// After a stop that was not clean the newest journal is rewritten, byte for byte: if a failed sync
/// was the reason for the stop, the system may regard data as written that never reached the disk,
/// and a later sync would have nothing to do.
pub fn check(
    store: &Path,
    mark: GroupNumber,
    clean_stop: bool,
    salt: Option<u64>,
) -> Result<Option<String>, StorageError> {
    let journals = list(store)?;
    let mut last_group = None;
    let mut note = None;
    for (at, path) in journals.iter().enumerate() {
        let bytes = fs::read(path).map_err(StorageError::io("reading", path))?;
        let mut end = 0;
        while let Some(batch) = batch(&bytes, end) {
            end = batch.end;
            if let Some(entry) = batch.group {
                last_group = Some(GroupEntry::decode(path, entry)?.number);
            }
        }
        let is_last = at + 1 == journals.len();
        // A new journal is filled with zeros for some length ahead.
        let rest = &bytes[end..];
        let written = rest.iter().rposition(|byte| *byte != 0);
        if let Some(last) = written {
            let rest = &rest[..=last];
            check_torn(path, end, rest, is_last, salt)?;
            check_reaches(path, end, last_group, mark)?;
            cut(path, end)?;
            note = Some(format!(
                "removed an unfinished write from the end of {}: {} bytes after group {}",
                path.display(),
                rest.len(),
                last_group.map_or("-".into(), |group| group.to_string())
            ));
        }
        if is_last && !clean_stop {
            write_again(path, &bytes[..end])?;
        }
    }
    Ok(note)
}

/// The journals' allocated disk space; a new journal is long but mostly not allocated.
pub fn size(store: &Path) -> Result<u64, StorageError> {
    let mut size = 0;
    for path in list(store)? {
        match fs::metadata(&path) {
            Ok(metadata) => size += metadata.blocks() * BLOCK_SIZE,
            // The engine has deleted it in the meantime.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::io("examining", &path)(e)),
        }
    }
    Ok(size)
}

/// Keeps only the newest journal, with nothing in it. The engine must be closed, with all that the
/// journals hold in its tables.
pub fn empty(store: &Path) -> Result<(), StorageError> {
    let journals = list(store)?;
    let Some((newest, older)) = journals.split_last() else {
        return Err(StorageError::damaged(store, "its journals are missing"));
    };
    for path in older {
        fs::remove_file(path).map_err(StorageError::io("removing", path))?;
    }
    cut(newest, 0)?;
    file::sync_directory(store)
}

/// A tail that a stop tore is the end of the newest journal: journals are synced before the next
/// one begins, and batches are synced or in order. A value may look like a batch, or contain the
/// journal of another store: only a batch whose group entry has a checksum with this store's salt
/// counts. Before a directory has a salt, any batch counts.
fn check_torn(
    path: &Path,
    end: usize,
    rest: &[u8],
    is_last: bool,
    salt: Option<u64>,
) -> Result<(), StorageError> {
    if !is_last {
        let what = format!("from byte {end} on it cannot be read, and newer journals follow");
        return Err(StorageError::damaged(path, what));
    }
    let is_own = |batch: ReadBatch<'_>| match salt {
        None => true,
        Some(salt) => batch
            .group
            .is_some_and(|entry| GroupEntry::is_sealed(entry, salt)),
    };
    if let Some(at) = (1..rest.len()).find(|at| batch(rest, *at).is_some_and(is_own)) {
        let what = format!(
            "from byte {end} on it cannot be read, but what was written later, at byte {}, is whole",
            end + at
        );
        return Err(StorageError::damaged(path, what));
    }
    Ok(())
}

/// An unreadable tail is not cut if groups that were synced would be missing. Where the journals
/// hold no group at all, only the tables can show that; they are checked later.
fn check_reaches(
    path: &Path,
    end: usize,
    last_group: Option<GroupNumber>,
    mark: GroupNumber,
) -> Result<(), StorageError> {
    match last_group {
        Some(group) if group < mark => {
            let what = format!(
                "from byte {end} on it cannot be read; before that it ends at group {group}, but \
                 group {mark} was synced"
            );
            Err(StorageError::damaged(path, what))
        }
        _ => Ok(()),
    }
}

fn write_again(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(StorageError::io("opening", path))?;
    file.write_all_at(bytes, 0)
        .and_then(|()| file.sync_all())
        .map_err(StorageError::io("writing", path))
}

fn cut(path: &Path, length: usize) -> Result<(), StorageError> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(StorageError::io("opening", path))?;
    file.set_len(length as u64)
        .and_then(|()| file.sync_all())
        .map_err(StorageError::io("cutting", path))
}

/// The journal that is being written.
pub fn newest(store: &Path) -> Result<PathBuf, StorageError> {
    let mut journals = list(store)?;
    Ok(journals.pop().expect("a list without journals is an error"))
}

/// Journals are numbered in the order in which they were begun.
pub fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// The journals from the oldest to the newest.
fn list(store: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let failed = || StorageError::io("listing", store);
    let mut journals = Vec::new();
    for entry in fs::read_dir(store).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        match number(&path) {
            Some(number) => journals.push((number, path)),
            None => {
                return Err(StorageError::damaged(
                    &path,
                    "the name of a journal must be a number",
                ));
            }
        }
    }
    if journals.is_empty() {
        return Err(StorageError::damaged(store, "its journal is missing"));
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

#[derive(Debug)]
struct ReadBatch<'a> {
    end: usize,
    group: Option<&'a [u8]>,
}

/// The batch that starts at `at`, if there is a complete one: a start with the number of items, the
/// items, and an end with their checksum. The checksum does not cover the start's sequence number;
/// the digest does.
fn batch(bytes: &[u8], at: usize) -> Option<ReadBatch<'_>> {
    let mut reader = Reader { bytes, at };
    if reader.byte()? != START {
        return None;
    }
    let items = reader.u32()?;
    let _sequence = reader.take(8)?;
    let first = reader.at;
    let mut group = None;
    for _ in 0..items {
        if let (key, value) = reader.item()?
            && key == GROUP_KEY
        {
            group = Some(value);
        }
    }
    let body = &bytes[first..reader.at];
    let sound = reader.byte()? == END
        && u64_at(reader.take(8)?, 0) == xxh3_64(body)
        && reader.take(TRAILER.len())? == TRAILER;
    sound.then_some(ReadBatch {
        end: reader.at,
        group,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    /// Key and value of an item; a cleared keyspace has none.
    fn item(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        match self.byte()? {
            ITEM => {
                let _kind_and_compression = self.take(2)?;
                let _keyspace = self.take(8)?;
                let key_size = self.take(2)?;
                let key_size = u16::from_le_bytes(key_size.try_into().expect("two bytes"));
                let _value_size = self.u32()?;
                let stored_size = self.u32()?;
                let key = self.take(key_size.into())?;
                Some((key, self.take(usize::try_from(stored_size).ok()?)?))
            }
            CLEAR => self.take(8).map(|_| (&[][..], &[][..])),
            _ => None,
        }
    }
}
