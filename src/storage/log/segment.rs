//! Log segments: files `N.log` with a head and then batches. Segments follow each other without a
//! gap in number, group and chain. All but the newest are synced, and end exactly with a batch.

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::batch::{Batch, Position};
use crate::protocol::types::message::Incarnation;
use crate::storage::error::StorageError;
use crate::storage::format::{u32_at, u64_at};

const MAGIC: [u8; 4] = *b"HSLG";
const VERSION: u32 = 1;
pub const HEAD_SIZE: usize = 48;

/// What the batches and heads of one store have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOwner {
    pub incarnation: Incarnation,
    pub salt: u64,
}

/// Where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStart {
    pub segment: u64,
    pub position: Position,
}

pub fn path(store: &Path, segment: u64) -> PathBuf {
    store.join(format!("{segment}.log"))
}

pub fn encode_head(start: SegmentStart, owner: StoreOwner) -> [u8; HEAD_SIZE] {
    let mut bytes = [0; HEAD_SIZE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    let SegmentStart { segment, position } = start;
    let fields = [owner.incarnation, segment, position.group, position.chain];
    for (field, at) in fields.into_iter().zip((8..).step_by(8)) {
        bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    let check = xxh3_64_with_seed(&bytes[..40], owner.salt);
    bytes[40..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// Checks the head of a segment, which must begin exactly there.
fn check_head(
    path: &Path,
    bytes: &[u8],
    start: SegmentStart,
    owner: StoreOwner,
) -> Result<(), StorageError> {
    let refused = |what: String| Err(StorageError::damaged(path, what));
    let Some(head) = bytes.get(..HEAD_SIZE).filter(|head| head[..4] == MAGIC) else {
        return refused("it does not begin as a segment of a log".into());
    };
    if u32_at(head, 4) != VERSION {
        return Err(StorageError::Version {
            path: path.to_path_buf(),
            what: "the log",
            found: u32_at(head, 4),
            known: VERSION,
        });
    }
    if u64_at(head, 8) != owner.incarnation {
        return refused(format!(
            "it belongs to incarnation {}, the identity file to {}",
            u64_at(head, 8),
            owner.incarnation
        ));
    }
    if head != encode_head(start, owner) {
        return refused(format!(
            "its head is not that of segment {}, which begins after group {}",
            start.segment, start.position.group
        ));
    }
    Ok(())
}

/// The content of a segment that was read as a whole.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    owner: StoreOwner,
    /// The end of the batches that were read, and the position there.
    pub end: usize,
    pub position: Position,
}

impl Segment {
    pub fn read(
        store: &Path,
        start: SegmentStart,
        owner: StoreOwner,
    ) -> Result<Self, StorageError> {
        let path = path(store, start.segment);
        let bytes = fs::read(&path).map_err(StorageError::io("reading", &path))?;
        check_head(&path, &bytes, start, owner)?;
        Ok(Segment {
            path,
            bytes,
            owner,
            end: HEAD_SIZE,
            position: start.position,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next batch; `None` at the end of those that can be read.
    pub fn next_batch(&mut self) -> Option<Batch<'_>> {
        let batch = Batch::read(&self.bytes[self.end..], self.owner.salt)?;
        if !batch.follows(self.position) {
            return None;
        }
        self.end += batch.size;
        self.position = batch.end;
        Some(batch)
    }

    /// The batches from this place on that were read.
    pub fn batches_from(&self, start: usize) -> &[u8] {
        &self.bytes[start..self.end]
    }

    /// What is after the batches, without the zeros at the end: the newest segment is longer than
    /// what was written to it.
    pub fn rest(&self) -> &[u8] {
        let rest = &self.bytes[self.end..];
        let written = rest.iter().rposition(|byte| *byte != 0);
        &rest[..written.map_or(0, |last| last + 1)]
    }

    /// A segment that others follow was synced and has the length of its content.
    pub fn check_ends(&self) -> Result<(), StorageError> {
        match self.end == self.bytes.len() {
            true => Ok(()),
            false => {
                let what = format!(
                    "from byte {} on it cannot be read, and newer segments follow",
                    self.end
                );
                Err(StorageError::damaged(&self.path, what))
            }
        }
    }

    /// Refuses a rest of the newest segment that contains a whole batch of this store: since the
    /// next batch is written only after a sync, what is before a whole batch is no torn write.
    pub fn check_torn(&self) -> Result<(), StorageError> {
        // The last bytes of a batch may be zeros.
        let tail = &self.bytes[self.end..];
        let is_whole = |at: &usize| Batch::read(&tail[*at..], self.owner.salt).is_some();
        match (0..self.rest().len()).find(is_whole) {
            None => Ok(()),
            Some(at) => {
                let what = format!(
                    "from byte {} on it cannot be read, but what was written later, at byte {}, \
                     is whole",
                    self.end,
                    self.end + at
                );
                Err(StorageError::damaged(&self.path, what))
            }
        }
    }
}

/// The numbers of the files in the store with this extension, in order. Other files are left alone.
pub fn numbers(store: &Path, extension: &str) -> Result<Vec<u64>, StorageError> {
    let failed = || StorageError::io("listing", store);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(store).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(extension));
        let number = stem.and_then(|stem| stem.strip_suffix('.')?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::batch;
    use super::*;
    use crate::protocol::types::message::Group;

    /// Also if the whole batch ends with zeros, as one in 256 does.
    #[test]
    fn a_whole_batch_after_an_unreadable_one_is_no_torn_write() {
        let directory = tempfile::tempdir().unwrap();
        let position = Position { group: 0, chain: 7 };
        let start = SegmentStart {
            segment: 1,
            position,
        };
        let group = |number| Group {
            number,
            ..Group::default()
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut is_zero_seen = false;
        for salt in 0..2_000 {
            let owner = StoreOwner {
                incarnation: 5,
                salt,
            };
            let middle = batch::encode(&mut first, &[group(1)], position, salt);
            batch::encode(&mut second, &[group(2)], middle, salt);
            let is_zero = second.last() == Some(&0);
            if salt > 3 && !is_zero {
                continue;
            }
            is_zero_seen |= is_zero;
            first[9] ^= 1;
            let head = encode_head(start, owner);
            let bytes = [&head[..], &first, &second, &[0; 100]].concat();
            fs::write(path(directory.path(), 1), &bytes).unwrap();
            let mut segment = Segment::read(directory.path(), start, owner).unwrap();
            assert!(segment.next_batch().is_none());
            let error = segment.check_torn().unwrap_err().to_string();
            assert!(error.contains("is whole"), "{error}");
        }
        assert!(is_zero_seen);
    }
}
