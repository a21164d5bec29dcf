//! One checkpoint: brings all parts to the end of the sealed log segments, then deletes the
//! segments. It works on files only, and shares nothing with the thread that commits.
//!
//! Each change of the parts is complete by itself: new files are durable before the list names
//! them, and old ones are deleted after it no longer does. So it may end at any step, and takes the
//! space of one part at a time.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::changes::{LogChanges, PartChanges, RegisterChange};
use super::manifest::{Manifest, PartEntry};
use super::part::{self, PartReader, PartWriter};
use crate::protocol::types::ballot::Ballot;
use crate::storage::error::StorageError;
use crate::storage::file;
use crate::storage::format;
use crate::storage::log::segment::{self, SegmentStart, StoreOwner};
use crate::storage::prefix::{self, Prefix};
use crate::storage::sizes::StoreSizes;

/// What a checkpoint begins with.
#[derive(Debug, Clone)]
pub struct Job {
    pub store: PathBuf,
    pub owner: StoreOwner,
    pub sizes: StoreSizes,
    /// The segment that is being written: all before it are sealed.
    pub log: SegmentStart,
    pub stop: Arc<AtomicBool>,
}

impl Job {
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A checkpoint in progress.
#[derive(Debug)]
pub struct CheckpointRun {
    job: Job,
    pub manifest: Manifest,
    /// The part that is being written, if the changes of one part do not fit.
    writer: Option<PartWriter>,
}

impl CheckpointRun {
    pub fn new(job: Job, manifest: Manifest) -> Self {
        CheckpointRun {
            job,
            manifest,
            writer: None,
        }
    }

    /// False if it was stopped before its end. In any case, also after an error, `manifest` is as
    /// on the disk, or an older one whose files are all there.
    pub fn run(&mut self) -> Result<bool, StorageError> {
        let mut first = 0;
        let meta = loop {
            let Some(changes) = LogChanges::collect(&self.job, &self.manifest, first)? else {
                return Ok(false);
            };
            let (last, meta) = (changes.last, changes.meta.clone());
            if !self.merge(changes)? {
                return Ok(false);
            }
            match last.checked_add(1) {
                Some(next) => first = next,
                None => break meta,
            }
        };
        self.end(meta)?;
        self.resize()
    }

    /// Merges changes into the parts that they belong to.
    fn merge(&mut self, mut changes: LogChanges) -> Result<bool, StorageError> {
        for part in self.manifest.parts.clone() {
            let (first, last) = (part.prefix.first(), part.prefix.last());
            let is_past = last < changes.first || first > changes.last;
            let is_whole = changes.first <= first && last <= changes.last;
            let of_part = changes.parts.remove(&part.prefix).unwrap_or_default();
            if is_past || is_whole && of_part.is_empty() {
                continue;
            }
            let slice = (changes.first.max(first), changes.last.min(last));
            if !self.merge_part(part, slice, of_part)? {
                return Ok(false);
            }
            if slice.1 == last {
                let writer = self.writer.take().expect("the part is being written");
                let new = writer.finish()?;
                self.replace(&[part], &[new])?;
            }
        }
        Ok(true)
    }

    /// Writes the new content of the part for hashes in the slice, both ends included.
    fn merge_part(
        &mut self,
        old: PartEntry,
        slice: (u64, u64),
        mut changes: PartChanges,
    ) -> Result<bool, StorageError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.create(old.prefix, self.job.log.position.group)?,
        };
        assert!(
            writer.prefix() == old.prefix,
            "one part is written at a time"
        );
        let mut reader = PartReader::open(&self.job.store, old, self.job.owner)?;
        let is_whole = slice == (old.prefix.first(), old.prefix.last());
        while let Some(registers) = reader.next_block()? {
            if self.job.is_stopped() {
                return Ok(false);
            }
            for register in registers {
                let (key, value) = register?;
                let is_in = || {
                    let hash = prefix::hash(key, self.job.owner.salt);
                    (slice.0..=slice.1).contains(&hash)
                };
                if !is_whole && !is_in() {
                    continue;
                }
                match changes.remove(key) {
                    None => writer.push(key, value)?,
                    Some(change) => push_changed(&mut writer, key, Some(value), change)?,
                }
            }
        }
        for (key, change) in changes {
            push_changed(&mut writer, &key, None, change)?;
        }
        self.writer = Some(writer);
        Ok(true)
    }

    fn create(&mut self, prefix: Prefix, through: u64) -> Result<PartWriter, StorageError> {
        let number = self.manifest.next_part;
        self.manifest.next_part += 1;
        PartWriter::create(&self.job.store, number, prefix, through, self.job.owner)
    }

    /// All parts are past the sealed segments.
    fn end(&mut self, meta: Option<Vec<u8>>) -> Result<(), StorageError> {
        let through = self.job.log.position.group;
        let mut next = self.manifest.clone();
        for part in &mut next.parts {
            part.through = through;
        }
        next.meta.through = through;
        if let Some(value) = meta {
            next.meta.value = value;
        }
        next.log = self.job.log;
        next.write(&self.job.store, self.job.owner)?;
        let ended = self.manifest.log.segment..next.log.segment;
        self.manifest = next;
        for number in ended {
            remove(segment::path(&self.job.store, number));
        }
        Ok(())
    }

    /// Divides parts that are too large, and joins pairs that are small.
    fn resize(&mut self) -> Result<bool, StorageError> {
        let part_size = self.job.sizes.part;
        loop {
            if self.job.is_stopped() {
                return Ok(false);
            }
            let parts = &self.manifest.parts;
            let is_large = |part: &&PartEntry| part.size > part_size && part.registers > 1;
            let large = parts.iter().find(is_large).copied();
            let halves = large.and_then(|part| Some((part, part.prefix.halves()?)));
            if let Some((part, halves)) = halves {
                if !self.copy(&[part], &halves)? {
                    return Ok(false);
                }
                continue;
            }
            let is_pair = |pair: &&[PartEntry]| {
                let parent = pair[0].prefix.parent();
                let size = pair[0].size + pair[1].size;
                parent.is_some() && parent == pair[1].prefix.parent() && size <= part_size / 4
            };
            let Some(pair) = parts.windows(2).find(is_pair).map(<[PartEntry]>::to_vec) else {
                return Ok(true);
            };
            let parent = pair[0].prefix.parent().expect("it is a half");
            if !self.copy(&pair, &[parent])? {
                return Ok(false);
            }
        }
    }

    /// Copies the registers of parts to new ones, which cover the same hashes. False if it was
    /// stopped.
    fn copy(&mut self, old: &[PartEntry], new: &[Prefix]) -> Result<bool, StorageError> {
        let through = old.iter().map(|part| part.through).max().unwrap_or(0);
        let mut writers = Vec::new();
        for prefix in new {
            writers.push(self.create(*prefix, through)?);
        }
        for part in old {
            let mut reader = PartReader::open(&self.job.store, *part, self.job.owner)?;
            while let Some(registers) = reader.next_block()? {
                if self.job.is_stopped() {
                    return Ok(false);
                }
                for register in registers {
                    let (key, value) = register?;
                    let hash = prefix::hash(key, self.job.owner.salt);
                    let mut writers = writers.iter_mut();
                    let writer = writers.find(|writer| writer.prefix().contains(hash));
                    writer.expect("the opening checked it").push(key, value)?;
                }
            }
        }
        let new = self.finish_all(writers)?;
        self.replace(old, &new)?;
        Ok(true)
    }

    fn finish_all(&self, writers: Vec<PartWriter>) -> Result<Vec<PartEntry>, StorageError> {
        let mut finished: Vec<PartEntry> = Vec::new();
        for writer in writers {
            let entry = writer
                .finish()
                .inspect_err(|_| self.remove_parts(&finished))?;
            finished.push(entry);
        }
        Ok(finished)
    }

    fn remove_parts(&self, parts: &[PartEntry]) {
        for part in parts {
            remove(part::path(&self.job.store, part.number));
        }
    }

    /// Replaces parts in the list; the new ones are complete.
    fn replace(&mut self, old: &[PartEntry], new: &[PartEntry]) -> Result<(), StorageError> {
        let mut next = self.manifest.clone();
        next.replace(old, new);
        let listed = file::sync_directory(&self.job.store)
            .and_then(|()| next.write(&self.job.store, self.job.owner));
        let obsolete = match &listed {
            Ok(()) => old,
            // Where it is not certain that the list names the old parts, both are kept.
            Err(_) if self.is_on_disk() => new,
            Err(_) => &[],
        };
        self.remove_parts(obsolete);
        listed?;
        self.manifest = next;
        Ok(())
    }

    fn is_on_disk(&self) -> bool {
        let read = Manifest::read(&self.job.store, self.job.owner);
        read.is_ok_and(|found| found.parts == self.manifest.parts)
    }
}

/// A file that cannot be deleted is deleted by the next start.
fn remove(path: PathBuf) {
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!("{} can't be removed: {error}", path.display());
    }
}

/// Writes what a key is after its changes; `old` is what it was before.
fn push_changed(
    writer: &mut PartWriter,
    key: &[u8],
    old: Option<&[u8]>,
    change: RegisterChange,
) -> Result<(), StorageError> {
    let register = match &change.register {
        Some(register) => register.as_deref(),
        None => old,
    };
    let Some(register) = register else {
        return Ok(());
    };
    let accepted: Option<Ballot> = format::accepted(register);
    if accepted.is_some_and(|accepted| change.chosen.contains(&accepted)) {
        let mut chosen = register.to_vec();
        format::set_chosen(&mut chosen);
        return writer.push(key, &chosen);
    }
    writer.push(key, register)
}
