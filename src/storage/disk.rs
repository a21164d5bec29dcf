//! The durable store: a data directory with its identity, the log, the checkpoint and the mark.
//!
//! This module decides when what is synced, and when a checkpoint begins. `open` decides what is
//! refused at opening; `log`, `checkpoint`, `format`, `mark` and `identity` define the bytes.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backoff::ReopenBackoff;
use super::checkpoint::manifest::Manifest;
use super::checkpoint::{self, Checkpoint, CheckpointEnd};
use super::directory::Directory;
use super::drops::{Drops, FREE_AFTER};
use super::error::StorageError;
use super::identity::{self, Identity, LastRun};
use super::log::CommitLog;
use super::mark::Mark;
pub use super::open::open;
use super::presence::Presence;
use super::reserve::{self, Reserve, Space};
use super::sizes::StoreSizes;
use super::{Durability, Storage};
use crate::protocol::types::message::{Group, GroupNumber};

/// A commit this long after the mark was written writes it again, with the group of the sync
/// before. Since the node's ceiling is raised (B1), and so a group committed, about once per
/// second, the mark never lags far.
pub const MARK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the files are checked for while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval between checkpoints on a full disk that free little, and after one that
/// found no space.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// On a full disk, the fewest bytes in the log for which a checkpoint is worthwhile after that
/// interval, and at once.
const LOG_FULL_MIN: u64 = 1 << 20;
const LOG_FULL_MAX: u64 = 4 << 20;

/// Commits pause while a checkpoint runs and the log has this many times the size at which one
/// begins, ...
const LOG_TIMES_SLOW: u64 = 2;
/// ... and wait for its end from this many on, ...
const LOG_TIMES_MAX: u64 = 4;
const COMMIT_PAUSE: Duration = Duration::from_millis(20);
/// ... but no longer: a disk that takes 2 s counts as hung.
const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The least wait between repairs of the log after failures for want of space: the first and the
/// greatest. Until then the node waits, as with a hung disk; both are less than a stop may take.
pub(super) const REOPEN_FIRST: Duration = Duration::from_secs(2);
pub(super) const REOPEN_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Clone)]
pub struct DiskOptions {
    pub directory: PathBuf,
    /// The nodes, each as `host:port`, and this node's index among them, from 0.
    pub list: Vec<String>,
    pub index: u8,
    pub durability: Durability,
    /// Changes with each boot of the machine; `None` if it is not known.
    pub boot_id: Option<String>,
    pub mark_interval: Duration,
    /// How long nothing must have been removed before the space of what was removed is freed.
    pub free_after: Duration,
    /// The store is full when less is free on its disk, in bytes; 0: never; `None`: derived from
    /// the size of the store.
    pub reserve: Option<u64>,
    /// `None`: derived from the size of the file system.
    pub sizes: Option<StoreSizes>,
}

impl DiskOptions {
    pub fn new(
        directory: impl Into<PathBuf>,
        list: Vec<String>,
        index: u8,
        durability: Durability,
    ) -> Self {
        DiskOptions {
            directory: directory.into(),
            list,
            index,
            durability,
            boot_id: identity::kernel_boot_id(),
            mark_interval: MARK_INTERVAL,
            free_after: FREE_AFTER,
            reserve: Some(0),
            sizes: None,
        }
    }

    /// This node's address, as listed.
    pub(super) fn own(&self) -> &str {
        &self.list[usize::from(self.index)]
    }

    pub(super) fn sizes(&self, path: &Path) -> StoreSizes {
        let (_, total) = reserve::check_disk(path);
        self.sizes
            .unwrap_or_else(|| StoreSizes::for_file_system(total))
    }

    pub(super) fn run(&self) -> LastRun {
        LastRun {
            durability: self.durability,
            boot_id: self.boot_id.clone(),
        }
    }
}

/// A running store. Fields are dropped in order: the checkpoint ends first, and the directory stays
/// locked to the end.
pub(super) struct RunningStore {
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) log: CommitLog,
    /// Of the last checkpoint that ended.
    pub(super) manifest: Manifest,
    pub(super) mark: Mark,
    pub(super) marked_at: Instant,
    pub(super) presence: Presence,
    pub(super) looked_at: Instant,
    pub(super) reserve: Reserve,
    /// The reserve has to be recreated as soon as no checkpoint needs the space.
    pub(super) is_reserve_due: bool,
    /// When a checkpoint began last, and when one found no space.
    pub(super) began_at: Option<Instant>,
    pub(super) put_off_at: Option<Instant>,
    pub(super) reopening: ReopenBackoff,
    pub(super) drops: Drops,
    /// The last group that a sync has covered.
    pub(super) synced_group: GroupNumber,
    /// A commit failed, or is in progress: it may have ended with a panic.
    pub(super) failed: bool,
    pub(super) identity: Identity,
    /// The identity has changed since its file was written.
    pub(super) identity_is_news: bool,
    pub(super) sizes: StoreSizes,
    pub(super) options: DiskOptions,
    pub(super) directory: Directory,
}

impl Storage for RunningStore {
    fn commit(&mut self, groups: &[Group]) -> Result<(), StorageError> {
        if self.failed {
            return Err(self.stopped());
        }
        if groups.is_empty() {
            return Ok(());
        }
        self.failed = true;
        let size = self.log.prepare(groups);
        self.reserve.make_room(size);
        self.learn(groups);
        let sync = self.options.durability == Durability::Fsync
            || groups.iter().any(|group| group.meta.is_some());
        if let Err(error) = self.write(sync) {
            self.go_on_in_reserve(error.into_write())?;
            self.write(sync).map_err(StorageError::into_write)?;
        }
        let dropped = groups.iter().map(|group| group.dropped.len() as u64);
        self.drops.add(dropped.sum());
        self.failed = false;
        Ok(())
    }

    fn tend(&mut self) -> Result<(), StorageError> {
        if self.failed {
            return Err(self.stopped());
        }
        self.failed = true;
        if let Err(error) = self.tend_log() {
            self.go_on_in_reserve(error.into_write())?;
        }
        self.look_after_files().map_err(StorageError::into_write)?;
        self.failed = false;
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        Some(self.reserve.space())
    }

    fn close(mut self: Box<Self>) -> Result<(), StorageError> {
        if self.failed {
            return Err(self.stopped());
        }
        // The checkpoint ends before the stop is recorded as clean.
        if let Some(checkpoint) = self.checkpoint.take() {
            let result = checkpoint.end().result.map(drop);
            let failed = result.or_else(|error| match reserve::is_no_space(&error) {
                true => Ok(()),
                false => Err(error),
            });
            failed.map_err(StorageError::into_write)?;
        }
        self.log.sync().map_err(StorageError::into_write)?;
        self.mark
            .write(self.log.position().group)
            .map_err(StorageError::into_write)?;
        self.identity.clean_stop = true;
        let path = self.directory.identity();
        let written = self.identity.write(&path).or_else(|error| {
            if !reserve::is_no_space(&error) {
                return Err(error);
            }
            self.reserve.lack();
            self.identity.write(&path)
        });
        written.map_err(StorageError::into_write)
    }
}

fn is_soon(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at.elapsed() < CHECKPOINT_INTERVAL)
}

impl RunningStore {
    /// Bytes on the disk.
    fn size(&self) -> u64 {
        self.log.size() + self.manifest.size()
    }

    /// A node without commits also reports soon that its files are gone, or that its disk is full.
    fn look_after_files(&mut self) -> Result<(), StorageError> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.presence.check_all()?;
            self.reserve.update(self.size());
            self.is_reserve_due = true;
            self.looked_at = Instant::now();
        }
        if self.is_reserve_due && self.checkpoint.is_none() {
            self.reserve.keep(self.size());
            self.is_reserve_due = false;
        }
        Ok(())
    }

    /// Begins segments and checkpoints when they are due.
    fn tend_log(&mut self) -> Result<(), StorageError> {
        if let Some(ended) = self.checkpoint.as_mut().and_then(Checkpoint::ended) {
            self.checkpoint = None;
            self.take_checkpoint(ended)?;
        }
        if self.checkpoint.is_none() && self.is_checkpoint_due()? {
            return self.start_checkpoint();
        }
        // A segment that is longer does no harm.
        if self.log.written() >= self.sizes.segment && !is_soon(self.put_off_at) {
            self.roll()?;
        }
        self.slow_down();
        Ok(())
    }

    /// Commits wait while a checkpoint cannot keep up with them, at first little: otherwise the log
    /// would grow without bound.
    fn slow_down(&self) {
        let is_behind = |times: u64| {
            let log_max = self.sizes.log_max(self.manifest.size());
            self.checkpoint.is_some() && self.log.size() > times.saturating_mul(log_max)
        };
        if is_behind(LOG_TIMES_SLOW) {
            std::thread::sleep(COMMIT_PAUSE);
        }
        let began = Instant::now();
        while is_behind(LOG_TIMES_MAX) && !self.has_checkpoint_ended() {
            if began.elapsed() >= COMMIT_PAUSE_MAX {
                return;
            }
            std::thread::sleep(COMMIT_PAUSE);
        }
    }

    fn has_checkpoint_ended(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(Checkpoint::is_over)
    }

    fn take_checkpoint(&mut self, ended: CheckpointEnd) -> Result<(), StorageError> {
        self.manifest = ended.manifest;
        self.log.forget_before(self.manifest.log.segment);
        tracing::debug!(
            "the checkpoint has {} registers in {} parts, {} bytes",
            self.manifest.registers(),
            self.manifest.parts.len(),
            self.manifest.size()
        );
        match ended.result {
            Err(error) if reserve::is_no_space(&error) => {
                tracing::warn!("a checkpoint found no space and is tried again later: {error}");
                self.put_off_at = Some(Instant::now());
                self.reserve.lack();
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Whether there is a reason for a checkpoint, and space for it.
    fn is_checkpoint_due(&mut self) -> Result<bool, StorageError> {
        let is_wanted = self.log.size() > self.sizes.log_max(self.manifest.size())
            || self.drops.is_due(self.manifest.registers())
            || self.reserve.space().is_full && self.frees_something(is_soon(self.began_at));
        if !is_wanted || is_soon(self.put_off_at) {
            return Ok(false);
        }
        let has_room = self.reserve.has_room_for(self.part_size_max()) || self.needs_little()?;
        if !has_room {
            self.put_off_at = Some(Instant::now());
        }
        Ok(has_room)
    }

    /// On a full disk: whether there is space for what a checkpoint really writes, which may be far
    /// less than the log has. To find out takes a few tenths of a second, in which commits wait.
    fn needs_little(&mut self) -> Result<bool, StorageError> {
        if !self.reserve.space().is_full {
            return Ok(false);
        }
        if self.log.written() > 0 {
            self.roll()?;
        }
        let store = self.directory.store();
        let (owner, start) = (self.log.owner(), self.log.start());
        let size = checkpoint::largest_part(&store, owner, self.sizes, start, &self.manifest)?;
        Ok(self.reserve.has_room_for(size))
    }

    /// On a full disk: whether a checkpoint frees enough, or enough time has passed since the last
    /// one. To delete a key takes as much of the log as to write it, since the promise is written
    /// with the record.
    fn frees_something(&self, was_soon: bool) -> bool {
        let log_size = self.log.content_size();
        let is_some = log_size >= LOG_FULL_MIN || self.drops.any();
        log_size >= LOG_FULL_MAX || is_some && !was_soon
    }

    /// What a checkpoint writes before it deletes anything, about: the largest part, with its share
    /// of the log. Most of a long log overwrites the same keys again. A checkpoint that needs more
    /// finds no space, and gives back what it took.
    fn part_size_max(&self) -> u64 {
        let parts = &self.manifest.parts;
        let largest = parts.iter().map(|part| part.size).max().unwrap_or(0);
        let share = self.log.content_size() / parts.len().max(1) as u64;
        largest + share.min(self.sizes.part)
    }

    fn start_checkpoint(&mut self) -> Result<(), StorageError> {
        self.began_at = Some(Instant::now());
        if self.log.written() > 0 {
            self.roll()?;
        }
        self.drops.freed();
        tracing::debug!(
            "a checkpoint begins: the log has {} bytes",
            self.log.content_size()
        );
        let store = self.directory.store();
        let (owner, start) = (self.log.owner(), self.log.start());
        let started = Checkpoint::start(&store, owner, self.sizes, start, self.manifest.clone());
        match started {
            Ok(checkpoint) => self.checkpoint = Some(checkpoint),
            // The system allows no further thread.
            Err(error) => {
                tracing::warn!("no checkpoint can begin: {error}");
                self.put_off_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StorageError> {
        self.log.roll()?;
        self.synced_group = self.log.position().group;
        self.presence.set_segment(self.log.path().to_path_buf())
    }

    fn write(&mut self, sync: bool) -> Result<(), StorageError> {
        if self.identity_is_news {
            self.identity.write(&self.directory.identity())?;
            self.identity_is_news = false;
        }
        self.write_batch(sync)?;
        // Data in files that no later start will find is not durable.
        self.presence.check()?;
        // A sync covers everything that was written before it.
        if sync {
            self.synced_group = self.log.position().group;
        }
        Ok(())
    }

    /// Writes a batch, and if it is time the mark. Only synced data may be marked, so the mark is
    /// that of an earlier sync, and both are synced at the same time: on a disk that needs a second
    /// for each sync, a commit would otherwise take two, and the disk would count as hung.
    fn write_batch(&mut self, sync: bool) -> Result<(), StorageError> {
        let (mark, group, log) = (&mut self.mark, self.synced_group, &mut self.log);
        let is_due = sync && self.marked_at.elapsed() >= self.options.mark_interval;
        if !is_due || group == mark.group() {
            return log.write(sync);
        }
        let marked = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mark".to_owned());
            let marking = thread.spawn_scoped(scope, || mark.write(group));
            log.write(sync)?;
            let marked = marking.ok().map(|marking| marking.join());
            let marked = marked.map(|marked| marked.unwrap_or_else(|panic| resume_unwind(panic)));
            marked.transpose()
        })?;
        // The system allows no further thread.
        if marked.is_none() {
            self.mark.write(group)?;
        }
        self.marked_at = Instant::now();
        Ok(())
    }

    /// After an error for want of space: frees the reserve, and brings the log back to its last
    /// batch that counts. Any other error is returned.
    fn go_on_in_reserve(&mut self, error: StorageError) -> Result<(), StorageError> {
        if !reserve::is_no_space(&error) {
            return Err(error);
        }
        tracing::error!(
            "a write to {} failed for lack of space ({}): repairing the log",
            self.directory.path().display(),
            error.cause()
        );
        std::thread::sleep(self.reopening.left(Instant::now()));
        self.reopening.fail(Instant::now());
        self.put_off_at = Some(Instant::now());
        self.reserve.lack();
        self.log.repair().map_err(StorageError::into_write)
    }

    /// The identity file names a configuration before the store does, never after it: with the
    /// address that it names the next start is accepted.
    fn learn(&mut self, groups: &[Group]) {
        let mut metas = groups.iter().rev().filter_map(|group| group.meta.as_ref());
        if let Some(configuration) = metas.next().and_then(|m| m.configuration.as_ref()) {
            self.identity_is_news |= self.identity.learn(configuration, self.options.own());
        }
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped {
            path: self.directory.store(),
        }
    }
}
