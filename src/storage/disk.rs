//! The durable store: a data directory with its identity, the engine's store and the mark.
//!
//! This module decides when what is synced. `open` decides what is refused at opening; `format`,
//! `mark` and `identity` define the bytes.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::backoff::ReopenBackoff;
use super::batch::Batch;
use super::compaction::{COMPACT_AFTER, Drops};
use super::digest::Digest;
use super::directory::Directory;
use super::engine::{Engine, RawEntry};
use super::error::StorageError;
use super::format::{self, GROUP_KEY, GroupEntry, META_KEY};
use super::identity::{self, Identity, LastRun};
use super::mark::Mark;
pub use super::open::open;
use super::presence::Presence;
use super::reserve::{Reserve, Space};
use super::{Durability, Storage, journal};
use crate::protocol::types::message::{Group, GroupNumber, Incarnation};

/// A commit this long after the mark was written writes it again, with the group of the sync
/// before. Since the node's ceiling is raised (B1), and so a group committed, about once per
/// second, the mark never lags far.
pub const MARK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the files are checked for while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// On a full disk, the shortest interval between compactions that free overwritten data.
const COMPACT_FULL_INTERVAL: Duration = Duration::from_secs(5);
/// The fewest bytes written for which such a compaction is worthwhile.
const WRITTEN_MIN: u64 = 1 << 20;

/// The least wait between reopenings of the store after failures for want of space: the first and
/// the greatest. Until then the node waits, as with a hung disk; both are less than a stop may
/// take.
const REOPEN_FIRST: Duration = Duration::from_secs(2);
const REOPEN_MAX: Duration = Duration::from_secs(8);

/// Journals that hold more than this are emptied after a compaction.
const JOURNALS_KEPT_SIZE: u64 = 4 << 20;

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
    pub compact_after: Duration,
    /// The store is full when less is free on its disk, in bytes; 0: never; `None`: derived from
    /// the size of the store.
    pub reserve: Option<u64>,
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
            compact_after: COMPACT_AFTER,
            reserve: Some(0),
        }
    }

    /// This node's address, as listed.
    pub(super) fn own(&self) -> &str {
        &self.list[usize::from(self.index)]
    }

    pub(super) fn run(&self) -> LastRun {
        LastRun {
            durability: self.durability,
            boot_id: self.boot_id.clone(),
        }
    }
}

/// A running store. Fields are dropped in order: the directory stays locked to the end.
pub(super) struct RunningStore {
    /// `None` only while it is reopened; if that fails, the store has failed.
    pub(super) engine: Option<Engine>,
    pub(super) mark: Mark,
    pub(super) marked_at: Instant,
    pub(super) presence: Presence,
    pub(super) looked_at: Instant,
    pub(super) reserve: Reserve,
    /// The reserve has to be recreated as soon as the engine moves no data.
    pub(super) is_reserve_due: bool,
    /// Bytes since the last compaction.
    pub(super) written: u64,
    pub(super) compacted_at: Instant,
    /// When there was no space even for writes that would free some.
    pub(super) had_no_room_at: Option<Instant>,
    pub(super) reopening: ReopenBackoff,
    pub(super) digest: Digest,
    pub(super) drops: Drops,
    pub(super) last_group: GroupNumber,
    /// The last group that a sync has covered.
    pub(super) synced_group: GroupNumber,
    /// The group entry with which the store ends.
    pub(super) ends_with: Vec<u8>,
    /// A commit failed, or is in progress: it may have ended with a panic.
    pub(super) failed: bool,
    pub(super) identity: Identity,
    /// The identity has changed since its file was written.
    pub(super) identity_is_news: bool,
    /// The salt of the identity.
    pub(super) salt: u64,
    pub(super) options: DiskOptions,
    pub(super) directory: Directory,
}

/// The entries to write for some groups.
struct Prepared {
    entries: Vec<RawEntry>,
    /// In bytes.
    size: u64,
    has_meta: bool,
    last_group: GroupNumber,
    ends_with: Vec<u8>,
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
        let batch = self.prepare(groups);
        self.reserve.make_room(batch.size);
        self.learn(groups);
        if let Err(error) = self.write(&batch) {
            self.go_on_in_reserve(error.into_write(), Some(&batch))?;
            self.write(&batch).map_err(StorageError::into_write)?;
        }
        self.failed = false;
        Ok(())
    }

    fn tend(&mut self) -> Result<(), StorageError> {
        if self.failed {
            return Err(self.stopped());
        }
        self.failed = true;
        if let Err(error) = self.reclaim() {
            self.go_on_in_reserve(error.into_write(), None)?;
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
        self.engine().sync()?;
        self.mark
            .write(self.last_group)
            .map_err(StorageError::into_write)?;
        // The engine's threads end before the stop is recorded as clean.
        let RunningStore {
            engine,
            mut identity,
            mut reserve,
            directory,
            ..
        } = *self;
        drop(engine);
        identity.clean_stop = true;
        let write = || identity.write(&directory.identity());
        let written = write().or_else(|error| match reserve.explains(&error) {
            true => {
                reserve.lack();
                write()
            }
            false => Err(error),
        });
        written.map_err(StorageError::into_write)
    }
}

impl RunningStore {
    pub(super) fn reopening() -> ReopenBackoff {
        ReopenBackoff::new(REOPEN_FIRST, REOPEN_MAX)
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("a store that has not failed")
    }

    /// A node without commits also reports soon that its files are gone, or that its disk is full.
    fn look_after_files(&mut self) -> Result<(), StorageError> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.presence.find_journal()?;
            self.presence.check()?;
            let size = self.engine().size()?;
            self.reserve.update(size);
            self.is_reserve_due = true;
            self.looked_at = Instant::now();
        }
        // Under constant load the engine may be moving data each time that the interval has passed.
        if self.is_reserve_due && !self.engine().is_moving() {
            let size = self.engine().size()?;
            self.reserve.keep(size);
            self.is_reserve_due = false;
        }
        Ok(())
    }

    /// Whether to rewrite all tables: many keys were removed, or the disk is full of overwritten
    /// data and has space for the rewrite.
    fn is_compaction_due(&mut self) -> bool {
        let much = self.written >= WRITTEN_MIN || self.drops.any();
        let is_due = self.reserve.space().is_full && much;
        let is_due = is_due && self.compacted_at.elapsed() >= COMPACT_FULL_INTERVAL;
        let is_due = is_due && !self.engine().is_moving();
        let size = self.engine().tables_size();
        let has_room = is_due && self.reserve.has_room_for(size);
        if is_due && !has_room {
            // Set so that this is not checked again with each commit.
            self.compacted_at = Instant::now();
        }
        has_room || self.drops.is_compaction_due(self.digest.registers())
    }

    /// On a full disk the journals come first, and without delay: to delete a key takes as much of
    /// them as to write it, since the promise is written with the record. A compaction frees their
    /// space last.
    fn are_journals_due(&mut self) -> Result<bool, StorageError> {
        let is_soon = |at: Instant| at.elapsed() < COMPACT_FULL_INTERVAL;
        if !self.reserve.space().is_full || self.had_no_room_at.is_some_and(is_soon) {
            return Ok(false);
        }
        if journal::size(&self.directory.store())? <= JOURNALS_KEPT_SIZE
            || self.engine().is_moving()
        {
            return Ok(false);
        }
        let size = self.engine().memtables_size();
        let has_room = self.reserve.has_room_for(size);
        if !has_room {
            self.had_no_room_at = Some(Instant::now());
        }
        Ok(has_room)
    }

    /// Frees the space that removed keys took.
    fn reclaim(&mut self) -> Result<(), StorageError> {
        if self.engine().is_compacting() {
            let has_compacted = self.engine().has_compacted();
            if has_compacted && journal::size(&self.directory.store())? > JOURNALS_KEPT_SIZE {
                self.empty_journals()?;
            }
        } else if self.are_journals_due()? {
            self.empty_journals()?;
        } else if self.is_compaction_due() {
            self.engine().start_compaction()?;
            self.drops.compacted();
            self.written = 0;
            self.compacted_at = Instant::now();
        }
        Ok(())
    }

    fn empty_journals(&mut self) -> Result<(), StorageError> {
        let engine = self.engine.take().expect("a store that has not failed");
        let engine = engine.empty_journals()?;
        self.check_end(&engine, None)?;
        self.engine = Some(engine);
        self.presence.find_journal()
    }

    fn write(&mut self, batch: &Prepared) -> Result<(), StorageError> {
        if self.identity_is_news {
            self.identity.write(&self.directory.identity())?;
            self.identity_is_news = false;
        }
        let sync = batch.has_meta || self.options.durability == Durability::Fsync;
        self.write_entries(&batch.entries, sync)?;
        // Data in files that no later start will find is not durable.
        self.presence.check()?;
        self.written += batch.size;
        self.last_group = batch.last_group;
        self.ends_with.clone_from(&batch.ends_with);
        // A sync covers everything that was written before it.
        if sync {
            self.synced_group = batch.last_group;
        }
        Ok(())
    }

    /// Writes a batch, and if it is time the mark. Only synced data may be marked, so the mark is
    /// that of an earlier sync, and both are synced at the same time: on a disk that needs a second
    /// for each sync, a commit would otherwise take two, and the disk would count as hung.
    fn write_entries(&mut self, entries: &[RawEntry], sync: bool) -> Result<(), StorageError> {
        let (mark, group) = (&mut self.mark, self.synced_group);
        let engine = self.engine.as_ref().expect("a store that has not failed");
        let is_due = sync && self.marked_at.elapsed() >= self.options.mark_interval;
        if !is_due || group == mark.group() {
            return engine.write(entries, sync);
        }
        let marked = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mark".to_owned());
            let marking = thread.spawn_scoped(scope, || mark.write(group));
            engine.write(entries, sync)?;
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

    /// After an error for want of space: frees the reserve and reopens the store, since the engine
    /// writes nothing more after an error. Any other error is returned.
    fn go_on_in_reserve(
        &mut self,
        error: StorageError,
        batch: Option<&Prepared>,
    ) -> Result<(), StorageError> {
        if !self.reserve.explains(&error) {
            return Err(error);
        }
        tracing::error!(
            "a write to {} failed for lack of space ({}): reopening the store",
            self.directory.path().display(),
            error.cause()
        );
        drop(self.engine.take());
        std::thread::sleep(self.reopening.left(Instant::now()));
        self.reopening.fail(Instant::now());
        self.had_no_room_at = Some(Instant::now());
        self.compacted_at = Instant::now();
        self.reserve.lack();
        let store = self.directory.store();
        let note = journal::check(&store, self.mark.group(), false, Some(self.salt))?;
        if let Some(note) = note {
            tracing::warn!("{note}");
        }
        let engine = Engine::open(&store)?;
        self.check_end(&engine, batch)?;
        self.engine = Some(engine);
        self.presence.find_journal()
    }

    /// Checks that a reopened store ends as it should: with the last committed batch, or with the
    /// one in progress.
    fn check_end(&self, engine: &Engine, batch: Option<&Prepared>) -> Result<(), StorageError> {
        let held = engine.load(&GROUP_KEY)?;
        let under_way = batch.map(|batch| &batch.ends_with);
        if held.is_some() && [Some(&self.ends_with), under_way].contains(&held.as_ref()) {
            return Ok(());
        }
        let what = "after it was reopened its last group is not the expected one";
        Err(StorageError::damaged(&self.directory.store(), what))
    }

    /// The identity file names a configuration before the store does, never after it: with the
    /// address that it names the next start is accepted.
    fn learn(&mut self, groups: &[Group]) {
        let mut metas = groups.iter().rev().filter_map(|group| group.meta.as_ref());
        if let Some(configuration) = metas.next().and_then(|m| m.configuration.as_ref()) {
            self.identity_is_news |= self.identity.learn(configuration, self.options.own());
        }
    }

    /// Merges the groups: for each key only the last state, and one group entry.
    fn prepare(&mut self, groups: &[Group]) -> Prepared {
        let mut last_group = self.last_group;
        for group in groups {
            assert!(group.number > last_group, "groups come in order of number");
            last_group = group.number;
        }
        let dropped = groups.iter().map(|group| group.dropped.len() as u64);
        self.drops.add(dropped.sum());
        let mut entries = Vec::new();
        for (key, last) in Batch::new(groups).entries {
            let name = format::register_key(key);
            match last.register {
                Some(Some(state)) => {
                    let value = format::encode_register(state);
                    self.digest.set_register(&name, &value);
                    entries.push((name, Some(value)));
                }
                Some(None) => {
                    self.digest.remove_register(&name);
                    entries.push((name, None));
                }
                None => {}
            }
            if let Some(chosen) = last.chosen {
                entries.push((format::chosen_key(key), chosen.map(format::encode_chosen)));
            }
        }
        if let Some(meta) = groups.iter().rev().find_map(|group| group.meta.as_ref()) {
            let value = format::encode_meta(meta);
            self.digest.set_meta(&META_KEY, &value);
            entries.push((META_KEY.to_vec(), Some(value)));
        }
        let incarnation = self.identity.incarnation;
        let (key, ends_with) = group_entry(last_group, incarnation, &self.digest, self.salt);
        entries.push((key, Some(ends_with.clone())));
        let size = |(key, value): &RawEntry| key.len() + value.as_ref().map_or(0, Vec::len);
        Prepared {
            size: entries.iter().map(size).sum::<usize>() as u64,
            has_meta: groups.iter().any(|group| group.meta.is_some()),
            entries,
            last_group,
            ends_with,
        }
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped {
            path: self.directory.store(),
        }
    }
}

pub(super) fn group_entry(
    number: GroupNumber,
    incarnation: Incarnation,
    digest: &Digest,
    salt: u64,
) -> (Vec<u8>, Vec<u8>) {
    let entry = GroupEntry {
        number,
        incarnation,
        registers: digest.registers(),
        digest: digest.sum(),
    };
    (GROUP_KEY.to_vec(), entry.encode(salt))
}
