//! What sealed log segments change in the parts of a checkpoint. The changes of all parts may be
//! more than fit the memory that a checkpoint may take; then only those of the first hashes are
//! collected, and the segments are read again for the others.

use std::collections::{BTreeMap, HashMap};

use super::job::Job;
use super::manifest::Manifest;
use super::part;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::GroupNumber;
use crate::storage::error::StorageError;
use crate::storage::log::batch::Entry;
use crate::storage::log::segment::{Segment, SegmentStart};
use crate::storage::prefix::{self, Prefix};

/// What a change takes in memory beside its key and value, about.
const OVERHEAD_SIZE: usize = 96;

/// The changes of one key.
#[derive(Debug, Default)]
pub struct RegisterChange {
    /// `None`: its register was not written. The inner `None` is a removal.
    pub register: Option<Option<Box<[u8]>>>,
    /// Chosen marks since its register was last written.
    pub chosen: Vec<Ballot>,
}

pub type PartChanges = HashMap<Box<[u8]>, RegisterChange, foldhash::fast::RandomState>;

/// The changes of the keys whose hash is between `first` and `last`, both included.
#[derive(Debug)]
pub struct LogChanges {
    pub first: u64,
    pub last: u64,
    pub parts: BTreeMap<Prefix, PartChanges>,
    /// The last state of the node's own.
    pub meta: Option<Vec<u8>>,
    size: usize,
}

impl LogChanges {
    /// Collects from all sealed segments, from this hash on. `None` if the job was stopped.
    pub fn collect(
        job: &Job,
        manifest: &Manifest,
        first: u64,
    ) -> Result<Option<Self>, StorageError> {
        let mut changes = LogChanges {
            first,
            last: u64::MAX,
            parts: BTreeMap::new(),
            meta: None,
            size: 0,
        };
        let mut start = manifest.log;
        while start.segment < job.log.segment {
            let mut segment = Segment::read(&job.store, start, job.owner)?;
            let path = segment.path().to_path_buf();
            while let Some(batch) = segment.next_batch() {
                if job.is_stopped() {
                    return Ok(None);
                }
                for entry in batch.entries() {
                    let entry = entry
                        .ok_or_else(|| StorageError::damaged(&path, "a batch can't be read"))?;
                    changes.add(job, manifest, batch.end.group, entry);
                }
                changes.narrow(manifest, job.sizes.changes_max(manifest.size()), job);
            }
            segment.check_ends()?;
            start = SegmentStart {
                segment: start.segment + 1,
                position: segment.position,
            };
        }
        if start != job.log {
            let what = "its log does not lead to the segment that is being written";
            return Err(StorageError::damaged(&job.store, what));
        }
        Ok(Some(changes))
    }

    fn add(&mut self, job: &Job, manifest: &Manifest, group: GroupNumber, entry: Entry<'_>) {
        let key = match entry {
            Entry::Meta(value) => {
                self.meta = Some(value.to_vec());
                return;
            }
            Entry::Register(key, _) | Entry::Removal(key) | Entry::Chosen(key, _) => key,
        };
        let hash = prefix::hash(key, job.owner.salt);
        if hash < self.first || hash > self.last {
            return;
        }
        let part = manifest.part_of(hash);
        if group <= part.through {
            return;
        }
        let part = self.parts.entry(part.prefix).or_default();
        if !part.contains_key(key) {
            part.insert(key.into(), RegisterChange::default());
            self.size += key.len() + OVERHEAD_SIZE;
        }
        let change = part.get_mut(key).expect("it was added");
        self.size -= change.size();
        change.add(entry);
        self.size += change.size();
    }

    /// Forgets the changes of the last hashes, so many that the others fit: those of whole parts if
    /// that is possible.
    fn narrow(&mut self, manifest: &Manifest, size_max: usize, job: &Job) {
        while self.size > size_max && self.first < self.last {
            let middle = self.first + (self.last - self.first) / 2;
            let ends = manifest.parts.iter().map(|part| part.prefix.last());
            let end = ends.filter(|end| (self.first..=middle).contains(end)).max();
            self.last = end.unwrap_or(middle);
            let last = self.last;
            self.parts.retain(|prefix, _| prefix.first() <= last);
            if let Some(mut part) = self.parts.last_entry()
                && part.key().last() > last
            {
                let is_kept = |key: &[u8]| prefix::hash(key, job.owner.salt) <= last;
                part.get_mut().retain(|key, _| is_kept(key));
            }
            let changes = self.parts.values().flatten();
            let sizes = changes.map(|(key, change)| key.len() + OVERHEAD_SIZE + change.size());
            self.size = sizes.sum();
        }
    }
}

/// What these changes take in a part, in bytes.
pub fn size_in_part(changes: &PartChanges) -> u64 {
    let sizes = changes
        .iter()
        .map(|(key, change)| key.len() + change.size());
    sizes
        .map(|size| (size + part::REGISTER_OVERHEAD_SIZE) as u64)
        .sum()
}

impl RegisterChange {
    fn add(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Register(_, value) => {
                self.register = Some(Some(value.into()));
                self.chosen.clear();
            }
            Entry::Removal(_) => {
                self.register = Some(None);
                self.chosen.clear();
            }
            Entry::Chosen(_, ballot) if !self.chosen.contains(&ballot) => self.chosen.push(ballot),
            Entry::Chosen(..) | Entry::Meta(_) => {}
        }
    }

    fn size(&self) -> usize {
        let value = self.register.iter().flatten().map(|value| value.len());
        value.sum::<usize>() + size_of_val(&self.chosen[..])
    }
}
