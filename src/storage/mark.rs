//! The mark: a small file beside the store that records the last synced group. It distinguishes a
//! store that lost the end of its log from one that never had that data (R2).
//!
//! Two slots, each on its own page, are written alternately and synced, so that one of them is
//! complete at any time.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::error::StorageError;
use super::file;
use super::format::u64_at;
use crate::protocol::types::message::{GroupNumber, Incarnation};

const MAGIC: [u8; 4] = *b"HSMK";
const VERSION: u32 = 1;
const SLOT_SIZE: usize = 40;
const SLOT_DISTANCE: usize = 4_096;
const FILE_SIZE: usize = 2 * SLOT_DISTANCE;

#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    file: File,
    slot: MarkSlot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MarkSlot {
    incarnation: Incarnation,
    /// Counts the writes; its last bit selects the slot that is written.
    writes: u64,
    group: GroupNumber,
}

impl MarkSlot {
    fn encode(self) -> [u8; SLOT_SIZE] {
        let mut bytes = [0; SLOT_SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.writes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.group.to_le_bytes());
        let check = xxh3_64(&bytes[..32]);
        bytes[32..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// `None` for a slot that is incomplete.
    fn decode(path: &Path, bytes: &[u8]) -> Result<Option<MarkSlot>, StorageError> {
        if bytes[..4] != MAGIC || xxh3_64(&bytes[..32]) != u64_at(bytes, 32) {
            return Ok(None);
        }
        let version = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        if version != VERSION {
            return Err(StorageError::Version {
                path: path.to_path_buf(),
                what: "the mark",
                found: version,
                known: VERSION,
            });
        }
        Ok(Some(MarkSlot {
            incarnation: u64_at(bytes, 8),
            writes: u64_at(bytes, 16),
            group: u64_at(bytes, 24),
        }))
    }

    fn offset(self) -> usize {
        (self.writes % 2) as usize * SLOT_DISTANCE
    }
}

impl Mark {
    /// A new mark at group 0.
    pub fn create(path: &Path, incarnation: Incarnation) -> Result<Self, StorageError> {
        let mut bytes = vec![0; FILE_SIZE];
        for writes in 0..2 {
            let slot = MarkSlot {
                incarnation,
                writes,
                group: 0,
            };
            let at = slot.offset();
            bytes[at..at + SLOT_SIZE].copy_from_slice(&slot.encode());
        }
        file::replace(path, &bytes)?;
        let (mark, _) = Mark::open(path, incarnation)?;
        Ok(mark)
    }

    /// The mark as it was last written, with a note if one slot is incomplete.
    pub fn open(
        path: &Path,
        incarnation: Incarnation,
    ) -> Result<(Self, Option<String>), StorageError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(StorageError::damaged(path, "it is missing"));
            }
            other => other.map_err(StorageError::io("opening", path))?,
        };
        let mut bytes = vec![0; FILE_SIZE];
        file.read_exact_at(&mut bytes, 0).map_err(|e| {
            StorageError::damaged(path, format!("it cannot be read completely ({e})"))
        })?;
        let first = MarkSlot::decode(path, &bytes[..SLOT_SIZE])?;
        let second = MarkSlot::decode(path, &bytes[SLOT_DISTANCE..SLOT_DISTANCE + SLOT_SIZE])?;
        let Some(slot) = first.into_iter().chain(second).max_by_key(|s| s.writes) else {
            return Err(StorageError::damaged(path, "both of its slots are damaged"));
        };
        if slot.incarnation != incarnation {
            return Err(StorageError::damaged(
                path,
                format!(
                    "it belongs to incarnation {}, the identity file to {incarnation}",
                    slot.incarnation
                ),
            ));
        }
        let note = (first.is_none() || second.is_none()).then(|| {
            format!(
                "one of the two slots of {} is incomplete, as after a power failure; by the other \
                 one group {} was synced",
                path.display(),
                slot.group
            )
        });
        let path = path.to_path_buf();
        Ok((Mark { path, file, slot }, note))
    }

    pub fn group(&self) -> GroupNumber {
        self.slot.group
    }

    /// Records durably that `group`, and all before it, are synced.
    pub fn write(&mut self, group: GroupNumber) -> Result<(), StorageError> {
        assert!(group >= self.slot.group, "the mark never goes back");
        if group == self.slot.group {
            return Ok(());
        }
        let slot = MarkSlot {
            writes: self.slot.writes + 1,
            group,
            ..self.slot
        };
        self.file
            .write_all_at(&slot.encode(), slot.offset() as u64)
            .map_err(StorageError::io("writing", &self.path))?;
        self.file
            .sync_data()
            .map_err(StorageError::io("syncing", &self.path))?;
        self.slot = slot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_write_counts_and_one_slot_is_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        let mut mark = Mark::create(&path, 5).unwrap();
        for group in [1, 2, 7] {
            mark.write(group).unwrap();
        }
        let (mark, note) = Mark::open(&path, 5).unwrap();
        assert_eq!((mark.group(), note), (7, None));
        let whole = fs::read(&path).unwrap();
        let newest = mark.slot.offset();
        for (broken, left) in [(newest, 2), (SLOT_DISTANCE - newest, 7)] {
            for at in broken..broken + SLOT_SIZE {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                fs::write(&path, &damaged).unwrap();
                let (mark, note) = Mark::open(&path, 5).unwrap();
                assert_eq!(mark.group(), left);
                assert!(note.unwrap().contains("is incomplete"));
            }
        }
    }

    #[test]
    fn a_mark_that_tells_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        Mark::create(&path, 5).unwrap();
        let error = Mark::open(&path, 6).unwrap_err().to_string();
        assert!(error.contains("belongs to incarnation 5"), "{error}");
        for content in [vec![0; FILE_SIZE], vec![1, 2, 3], vec![]] {
            fs::write(&path, content).unwrap();
            assert!(matches!(
                Mark::open(&path, 5),
                Err(StorageError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn a_mark_of_another_version_is_refused_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        Mark::create(&path, 5).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4] = 3;
        let check = xxh3_64(&bytes[..32]);
        bytes[32..SLOT_SIZE].copy_from_slice(&check.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = Mark::open(&path, 5).unwrap_err().to_string();
        assert!(error.contains("has format version 3"), "{error}");
    }
}
