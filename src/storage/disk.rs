//! The durable store: a data directory with its identity, the engine's store and the mark.
//!
//! Owns when what is synced, and what is refused at opening. Bytes are told in `format`, `mark` and
//! `identity`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::compaction::{COMPACT_AFTER, Drops};
use super::digest::Digest;
use super::directory::Directory;
use super::engine::{self, Engine, RawEntry};
use super::error::StorageError;
use super::format::{self, Entry, GROUP_KEY, GroupEntry, META_KEY};
use super::identity::{self, Identity, Run};
use super::mark::Mark;
use super::presence::Presence;
use super::reserve::{Reserve, Space};
use super::{Durability, Opened, Storage, Table, journal};
use crate::protocol::message::{Group, GroupNumber, Incarnation, Meta, Recovered};

/// Commits this long after the mark was written write it again. As the node's ceiling is raised
/// (B1), and so a group committed, every second or so, the mark is never far behind.
pub const MARK_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked whether the files are there while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// On a full disk what was written over is given back so often, at most, ...
const COMPACT_FULL_INTERVAL: Duration = Duration::from_secs(5);
/// ... once it is so much.
const WRITTEN_MIN: u64 = 1 << 20;

/// Journals with more in them are emptied after a compaction.
const JOURNALS_KEPT_SIZE: u64 = 4 << 20;

/// Registers that room is made for at once at opening, on the word of the group entry.
const RESERVED_MAX: usize = 1 << 26;

#[derive(Debug, Clone)]
pub struct DiskOptions {
    pub directory: PathBuf,
    /// The nodes, `host:port` each, and this node's place among them, from 0.
    pub list: Vec<String>,
    pub index: u8,
    pub durability: Durability,
    /// What changes when the machine boots; `None` if that is not known.
    pub boot_id: Option<String>,
    pub mark_interval: Duration,
    /// How long nothing was dropped before the space of what was is given back.
    pub compact_after: Duration,
    /// The store is full when less is free on its disk, in bytes; 0: never; `None`: by the size of the
    /// store.
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
    fn own(&self) -> &str {
        &self.list[usize::from(self.index)]
    }

    fn run(&self) -> Run {
        Run {
            durability: self.durability,
            boot_id: self.boot_id.clone(),
        }
    }
}

/// A running store. Fields are dropped in order: the directory stays locked to the end.
struct Disk {
    /// `None` only while it is opened anew; if that fails the store has failed.
    engine: Option<Engine>,
    mark: Mark,
    marked_at: Instant,
    presence: Presence,
    looked_at: Instant,
    reserve: Reserve,
    /// Bytes since the last compaction.
    written: u64,
    compacted_at: Instant,
    digest: Digest,
    drops: Drops,
    last_group: GroupNumber,
    /// The group entry that the store ends with.
    ends_with: Vec<u8>,
    /// A commit failed, or is under way: it may have ended in a panic.
    failed: bool,
    identity: Identity,
    /// It has learned what its file does not tell yet.
    identity_is_news: bool,
    /// That of the identity.
    salt: u64,
    options: DiskOptions,
    directory: Directory,
}

/// What is to be written of some groups.
struct Prepared {
    entries: Vec<RawEntry>,
    /// In bytes.
    size: u64,
    has_meta: bool,
    last_group: GroupNumber,
    ends_with: Vec<u8>,
}

/// Opens the store in a data directory, or makes a new one. A node that has no state, or cannot
/// prove it complete, gets `fresh_incarnation` (E1), durably.
///
/// # Panics
///
/// If `index` is no place in the list.
pub fn open(options: DiskOptions, fresh_incarnation: Incarnation) -> Result<Opened, StorageError> {
    assert!(
        usize::from(options.index) < options.list.len(),
        "a node has a place in its list"
    );
    let directory = Directory::open(&options.directory)?;
    let reserve = Reserve::open(directory.path(), options.reserve);
    let mut notes = Vec::from_iter(directory.permission_note()?);
    let Some(identity) = Identity::read(&directory.identity())? else {
        directory.check_empty()?;
        return create(directory, reserve, options, fresh_incarnation, notes);
    };
    identity.check_made_for(directory.path(), &options.list, options.index)?;
    if !identity.made {
        // Only the making of the store was begun: nothing was promised yet.
        return create(directory, reserve, options, fresh_incarnation, notes);
    }
    // E1: the last run's durability counts, whatever this run's is.
    if !identity.proves_state(options.boot_id.as_deref()) {
        notes.push(format!(
            "THE STATE IN {} IS NOT USED: it was last written with durability os, did not stop \
             cleanly, and the machine has booted since, so its end may be missing. This node \
             starts empty, with a new incarnation in place of {}",
            directory.path().display(),
            identity.incarnation
        ));
        return create(directory, reserve, options, fresh_incarnation, notes);
    }
    recover(directory, reserve, options, identity, notes)
}

/// Makes a new store. What lies in the way is set aside, never deleted.
fn create(
    directory: Directory,
    reserve: Reserve,
    options: DiskOptions,
    incarnation: Incarnation,
    mut notes: Vec<String>,
) -> Result<Opened, StorageError> {
    // The identity first, so that from here on the old store is not taken for this one's.
    let salt = random()?;
    let mut identity = Identity::new(
        options.list.clone(),
        options.index,
        incarnation,
        salt,
        options.run(),
    );
    identity.write(&directory.identity())?;
    if let Some(store) = directory.set_aside()? {
        notes.push(format!(
            "the old store was set aside as {}; it can be deleted",
            store.display()
        ));
    }
    let engine = Engine::create(&directory.store())?;
    let digest = new_digest()?;
    let (key, entry) = group_entry(0, incarnation, &digest, salt);
    engine.write(&[(key, Some(entry.clone()))], true)?;
    engine.sync()?;
    let mark = Mark::create(&directory.mark(), incarnation)?;
    identity.made = true;
    identity.write(&directory.identity())?;
    let recovered = Recovered {
        incarnation,
        ..Recovered::default()
    };
    let presence = Presence::new(directory.store(), directory.lock(), directory.mark())?;
    let disk = Disk {
        engine: Some(engine),
        mark,
        marked_at: Instant::now(),
        presence,
        looked_at: Instant::now(),
        reserve,
        written: 0,
        compacted_at: Instant::now(),
        digest,
        drops: Drops::new(options.compact_after),
        last_group: 0,
        ends_with: entry,
        failed: false,
        identity,
        identity_is_news: false,
        salt,
        options,
        directory,
    };
    Ok(Opened {
        storage: Box::new(disk),
        table: Table::default(),
        recovered,
        notes,
    })
}

/// Opens a store that is there, and proves it whole before anything is changed by this run.
fn recover(
    directory: Directory,
    reserve: Reserve,
    options: DiskOptions,
    mut identity: Identity,
    mut notes: Vec<String>,
) -> Result<Opened, StorageError> {
    let store = directory.store();
    let incarnation = identity.incarnation;
    let (mut mark, note) = Mark::open(&directory.mark(), incarnation)?;
    notes.extend(note);
    engine::check_parts(&store)?;
    notes.extend(journal::check(
        &store,
        mark.group(),
        identity.clean_stop,
        identity.salt,
    )?);
    let engine = Engine::open(&store)?;
    let contents = Contents::read(&engine, &directory)?;
    let last_group = contents.check(&directory, incarnation, mark.group())?;
    // What an earlier run left to the operating system is made durable before this run is entered
    // as one that syncs.
    engine.sync()?;
    mark.write(last_group)?;
    if let Some(configuration) = &contents.meta.configuration {
        identity.learn(configuration, options.own());
        identity.forget_readdressed(configuration);
    }
    let was_without_salt = identity.salt.is_none();
    let salt = identity.salt.map_or_else(random, Ok)?;
    identity.salt = Some(salt);
    identity.begin(options.run());
    identity.write(&directory.identity())?;
    let recovered = Recovered {
        incarnation,
        meta: contents.meta,
        group: last_group,
        digests: contents.table.digests(),
        readdressed: identity.readdressed.clone(),
    };
    let mut drops = Drops::new(options.compact_after);
    drops.opened(contents.size, engine.size()?);
    let (_, entry) = group_entry(last_group, incarnation, &contents.digest, salt);
    if was_without_salt {
        // From now on the store ends with an entry that has a seal.
        engine.write(&[(GROUP_KEY.to_vec(), Some(entry.clone()))], true)?;
    }
    let presence = Presence::new(directory.store(), directory.lock(), directory.mark())?;
    let disk = Disk {
        engine: Some(engine),
        mark,
        marked_at: Instant::now(),
        presence,
        looked_at: Instant::now(),
        reserve,
        written: 0,
        compacted_at: Instant::now(),
        digest: contents.digest,
        drops,
        last_group,
        ends_with: entry,
        failed: false,
        identity,
        identity_is_news: false,
        salt,
        options,
        directory,
    };
    Ok(Opened {
        storage: Box::new(disk),
        table: contents.table,
        recovered,
        notes,
    })
}

/// All that a store holds, from one scan.
struct Contents {
    table: Table,
    digest: Digest,
    meta: Meta,
    group: Option<GroupEntry>,
    /// Bytes of keys and values.
    size: u64,
}

impl Contents {
    fn read(engine: &Engine, directory: &Directory) -> Result<Self, StorageError> {
        let path = directory.store();
        let mut contents = Contents {
            table: Table::default(),
            digest: new_digest()?,
            meta: Meta::default(),
            group: None,
            size: 0,
        };
        engine.scan(|key, value| {
            contents.size += (key.len() + value.len()) as u64;
            match Entry::decode(&path, key, value)? {
                // It comes first, by its prefix.
                Entry::Group(group) => {
                    let registers = usize::try_from(group.registers).unwrap_or(usize::MAX);
                    contents.digest.reserve(registers.min(RESERVED_MAX));
                    contents.group = Some(group);
                }
                Entry::Meta(meta) => {
                    contents.digest.set_meta(key, value);
                    contents.table.learn(&meta);
                    contents.meta = *meta;
                }
                Entry::Register(name, state) => {
                    contents.digest.set_register(key, value);
                    contents.table.set(name, state);
                }
                // These come after all registers, by their prefix.
                Entry::Chosen(name, ballot) => contents.table.mark_chosen(&name, ballot),
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// Whether this is exactly what the store held after its last group, and no less than the mark
    /// tells.
    fn check(
        &self,
        directory: &Directory,
        incarnation: Incarnation,
        mark: GroupNumber,
    ) -> Result<GroupNumber, StorageError> {
        let path = directory.store();
        let Some(group) = self.group else {
            return Err(StorageError::damaged(&path, "its group entry is missing"));
        };
        if group.incarnation != incarnation {
            let what = format!(
                "it belongs to incarnation {}, the identity file to {incarnation}",
                group.incarnation
            );
            return Err(StorageError::damaged(&path, what));
        }
        if group.number < mark {
            return Err(StorageError::Behind {
                path,
                store: group.number,
                mark,
            });
        }
        let found = (self.digest.registers(), self.digest.sum());
        if found != (group.registers, group.digest) {
            let what = format!(
                "its {} registers are not the {} that it held after group {}, or some of them are \
                 older than they were",
                found.0, group.registers, group.number
            );
            return Err(StorageError::damaged(&path, what));
        }
        Ok(group.number)
    }
}

impl Storage for Disk {
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
        // The engine's threads end before the stop is called a clean one.
        let Disk {
            engine,
            mut identity,
            directory,
            ..
        } = *self;
        drop(engine);
        identity.clean_stop = true;
        identity
            .write(&directory.identity())
            .map_err(StorageError::into_write)
    }
}

impl Disk {
    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("a store that has not failed")
    }

    /// Without commits, too, a node says soon that its files are gone, or its disk is full.
    fn look_after_files(&mut self) -> Result<(), StorageError> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.presence.look_for_journal()?;
            self.presence.check()?;
            let size = self.engine().size()?;
            self.reserve.keep(size);
            self.looked_at = Instant::now();
        }
        Ok(())
    }

    /// Whether all tables are to be written anew: many keys were dropped, or the disk is full of what was
    /// written over, and has room for that.
    fn is_compaction_due(&mut self) -> bool {
        let much = self.written >= WRITTEN_MIN || self.drops.any();
        let is_due = self.reserve.space().is_full && much;
        let is_due = is_due && self.compacted_at.elapsed() >= COMPACT_FULL_INTERVAL;
        let size = self.engine().tables_size();
        let has_room = is_due && self.reserve.has_room_for(size);
        has_room || self.drops.is_compaction_due(self.digest.registers())
    }

    /// On a full disk first the journals: a compaction moves them to tables, but gives their room back last.
    fn are_journals_due(&self) -> Result<bool, StorageError> {
        let is_time = self.compacted_at.elapsed() >= COMPACT_FULL_INTERVAL;
        if !self.reserve.space().is_full || !is_time {
            return Ok(false);
        }
        let size = journal::size(&self.directory.store())?;
        Ok(size > JOURNALS_KEPT_SIZE && self.reserve.has_room_for(size))
    }

    /// Gives the space back that dropped keys took.
    fn reclaim(&mut self) -> Result<(), StorageError> {
        if self.engine().is_compacting() {
            let has_compacted = self.engine().has_compacted();
            if has_compacted && journal::size(&self.directory.store())? > JOURNALS_KEPT_SIZE {
                self.empty_journals()?;
            }
        } else if self.are_journals_due()? {
            self.compacted_at = Instant::now();
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
        self.presence.look_for_journal()
    }

    fn write(&mut self, batch: &Prepared) -> Result<(), StorageError> {
        if self.identity_is_news {
            self.identity.write(&self.directory.identity())?;
            self.identity_is_news = false;
        }
        let sync = batch.has_meta || self.options.durability == Durability::Fsync;
        self.engine().write(&batch.entries, sync)?;
        // What is in files that nobody will find again is not durable.
        self.presence.check()?;
        self.written += batch.size;
        self.last_group = batch.last_group;
        self.ends_with.clone_from(&batch.ends_with);
        // Only what is synced may be marked; a sync is of all that was written before it.
        if sync && self.marked_at.elapsed() >= self.options.mark_interval {
            self.mark.write(batch.last_group)?;
            self.marked_at = Instant::now();
        }
        Ok(())
    }

    /// After an error for want of room: the reserve gives it, and the store is opened anew, since the engine
    /// writes nothing more after an error. Any other error is given back.
    fn go_on_in_reserve(
        &mut self,
        error: StorageError,
        batch: Option<&Prepared>,
    ) -> Result<(), StorageError> {
        if !self.reserve.explains(&error) {
            return Err(error);
        }
        tracing::error!(
            "a write to {} found no room ({}): the store is opened anew",
            self.directory.path().display(),
            error.cause()
        );
        drop(self.engine.take());
        self.reserve.give();
        let store = self.directory.store();
        let note = journal::check(&store, self.mark.group(), false, Some(self.salt))?;
        if let Some(note) = note {
            tracing::warn!("{note}");
        }
        let engine = Engine::open(&store)?;
        self.check_end(&engine, batch)?;
        self.engine = Some(engine);
        self.presence.look_for_journal()
    }

    /// That a store which was opened anew ends as it should: with what was committed last, or with what
    /// was under way.
    fn check_end(&self, engine: &Engine, batch: Option<&Prepared>) -> Result<(), StorageError> {
        let held = engine.load(&GROUP_KEY)?;
        let under_way = batch.map(|batch| &batch.ends_with);
        if held.is_some() && [Some(&self.ends_with), under_way].contains(&held.as_ref()) {
            return Ok(());
        }
        let what = "opened anew it is not what it was";
        Err(StorageError::damaged(&self.directory.store(), what))
    }

    /// The identity file tells of a configuration before the store does, never after it: with the
    /// address that it names the next start is let in.
    fn learn(&mut self, groups: &[Group]) {
        let mut metas = groups.iter().rev().filter_map(|group| group.meta.as_ref());
        if let Some(configuration) = metas.next().and_then(|m| m.configuration.as_ref()) {
            self.identity_is_news |= self.identity.learn(configuration, self.options.own());
        }
    }

    /// What the groups come to: of each key the last state only, and the group entry.
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

fn group_entry(
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

fn new_digest() -> Result<Digest, StorageError> {
    Digest::new().map_err(no_randomness)
}

fn random() -> Result<u64, StorageError> {
    getrandom::u64().map_err(no_randomness)
}

fn no_randomness(error: getrandom::Error) -> StorageError {
    StorageError::Io {
        doing: "reading",
        path: PathBuf::from("the system's source of randomness"),
        source: std::io::Error::other(error.to_string()),
    }
}
