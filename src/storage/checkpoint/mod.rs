//! The checkpoint: what all registers were after some group, in files that are written behind the
//! commits, so that the log before that group can be deleted.
//!
//! It is divided into parts by a hash of the key, each in a file of its own (`part`), and the file
//! `checkpoint` lists those that count (`manifest`). A thread merges sealed log segments into them
//! (`job`, `changes`).

mod changes;
mod job;
pub mod manifest;
pub mod part;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use self::changes::{LogChanges, PartChanges};
use self::job::{CheckpointRun, Job};
use self::manifest::{Manifest, MetaEntry, PartEntry};
use self::part::{PartReader, PartWriter};
use super::error::StorageError;
use super::log::segment::{SegmentStart, StoreOwner};
use super::prefix::{self, Prefix};
use super::sizes::StoreSizes;

/// The thread gets less processor time than those that serve.
const NICE: i32 = 5;

/// The checkpoint of a new store: one empty part.
pub fn create(
    store: &Path,
    log: SegmentStart,
    owner: StoreOwner,
) -> Result<Manifest, StorageError> {
    let part = PartWriter::create(store, 1, Prefix::ALL, log.position.group, owner)?.finish()?;
    let manifest = Manifest {
        log,
        next_part: 2,
        meta: MetaEntry::default(),
        parts: vec![part],
    };
    manifest.write(store, owner)?;
    Ok(manifest)
}

/// The size of the largest part that a checkpoint would write now, about. Reads all sealed
/// segments, and the parts that they change.
pub fn largest_part(
    store: &Path,
    owner: StoreOwner,
    sizes: StoreSizes,
    log: SegmentStart,
    manifest: &Manifest,
) -> Result<u64, StorageError> {
    let job = Job {
        store: store.to_path_buf(),
        owner,
        sizes,
        log,
        stop: Arc::default(),
    };
    let mut parts: BTreeMap<Prefix, u64> = BTreeMap::new();
    let mut first = Some(0);
    while let Some(from) = first {
        let changes = LogChanges::collect(&job, manifest, from)?;
        let changes = changes.expect("nothing stops it");
        for part in &manifest.parts {
            if let Some(changed) = changes.parts.get(&part.prefix) {
                let size = size_of_unchanged(store, owner, *part, &changes, changed)?;
                *parts.entry(part.prefix).or_default() += size + changes::size_in_part(changed);
            }
        }
        first = changes.last.checked_add(1);
    }
    Ok(parts.into_values().max().unwrap_or(0))
}

/// What the registers of a part take that are not changed, in bytes.
fn size_of_unchanged(
    store: &Path,
    owner: StoreOwner,
    part: PartEntry,
    changes: &LogChanges,
    changed: &PartChanges,
) -> Result<u64, StorageError> {
    let mut size = 0;
    let mut reader = PartReader::open(store, part, owner)?;
    while let Some(registers) = reader.next_block()? {
        for register in registers {
            let (key, value) = register?;
            let hash = prefix::hash(key, owner.salt);
            if (changes.first..=changes.last).contains(&hash) && !changed.contains_key(key) {
                size += key.len() + value.len() + part::REGISTER_OVERHEAD_SIZE;
            }
        }
    }
    Ok(size as u64)
}

/// How a checkpoint ended.
#[derive(Debug)]
pub struct CheckpointEnd {
    /// The list of parts, also after an error.
    pub manifest: Manifest,
    /// False if it was stopped.
    pub result: Result<bool, StorageError>,
}

/// A checkpoint that a thread of its own makes.
#[derive(Debug)]
pub struct Checkpoint {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<CheckpointEnd>>,
}

impl Checkpoint {
    /// Brings the parts to the beginning of this segment, the one that is being written.
    pub fn start(
        store: &Path,
        owner: StoreOwner,
        sizes: StoreSizes,
        log: SegmentStart,
        manifest: Manifest,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let job = Job {
            store: store.to_path_buf(),
            owner,
            sizes,
            log,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(CheckpointRun::new(job, manifest)))?;
        Ok(Checkpoint {
            stop,
            thread: Some(thread),
        })
    }

    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it, and waits for its end.
    pub fn end(mut self) -> CheckpointEnd {
        self.stop.store(true, Ordering::Relaxed);
        join(self.thread.take().expect("its end was not taken yet"))
    }

    /// Its end, once, if it has ended.
    pub fn ended(&mut self) -> Option<CheckpointEnd> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(join(thread))
    }
}

/// The files belong to the thread until it has ended. It ends soon: a part that is not finished is
/// given up.
impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(error) = join(thread).result
        {
            tracing::warn!("a checkpoint was given up: {error}");
        }
    }
}

fn join(thread: JoinHandle<CheckpointEnd>) -> CheckpointEnd {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run(mut run: CheckpointRun) -> CheckpointEnd {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::warn!("the priority of the thread for checkpoints can't be lowered: {error}");
    }
    let result = run.run();
    CheckpointEnd {
        manifest: run.manifest,
        result,
    }
}
