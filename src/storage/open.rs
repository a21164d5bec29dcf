//! Opens a data directory: a new store, or an existing one that proves to be complete (E1, R2). An
//! opening that is refused changes nothing, except that a damaged store on a full disk may lose the
//! file `reserve`, in whose space it is opened.

use std::path::PathBuf;
use std::time::Instant;

use super::compaction::Drops;
use super::digest::Digest;
use super::directory::Directory;
use super::disk::{DiskOptions, RunningStore, group_entry};
use super::engine::{self, Engine};
use super::error::StorageError;
use super::format::{Entry, GROUP_KEY, GroupEntry};
use super::identity::Identity;
use super::mark::Mark;
use super::presence::Presence;
use super::reserve::Reserve;
use super::{Opened, Table, journal};
use crate::protocol::types::message::{GroupNumber, Incarnation, Meta, Recovered};

/// The most registers that capacity is reserved for when a store is opened; the group entry gives
/// the count.
const RESERVED_MAX: usize = 1 << 26;

/// Opens the store in a data directory, or creates one. A node that has no state, or cannot prove
/// it complete, gets `fresh_incarnation` (E1), durably.
///
/// # Panics
///
/// If `index` is not an index of the list.
pub fn open(options: DiskOptions, fresh_incarnation: Incarnation) -> Result<Opened, StorageError> {
    assert!(
        usize::from(options.index) < options.list.len(),
        "a node has a place in its list"
    );
    let directory = Directory::open(&options.directory)?;
    let mut notes = Vec::from_iter(directory.permission_note()?);
    let Some(mut identity) = Identity::read(&directory.identity())? else {
        directory.check_empty()?;
        return Place::new(directory, options, notes).create(fresh_incarnation);
    };
    if !identity.made {
        // The creation of the store was not completed: nothing was promised yet.
        return Place::existing(directory, options, notes).create(fresh_incarnation);
    }
    let made_for = identity.check_made_for(directory.path(), &options.list, options.index);
    // E1: the last run's durability counts, whatever this run's is.
    let is_proven = identity.proves_state(options.boot_id.as_deref());
    if let Err(refused) = made_for {
        if !is_proven || !is_unused(&directory, &identity)? {
            return Err(refused);
        }
        notes.push(format!(
            "the data directory {} was made for another index or node list, {}; no cluster was \
             formed with it, so it is used for {}",
            directory.path().display(),
            identity.list.join(","),
            options.list.join(",")
        ));
        identity.remake(options.list.clone(), options.index);
    }
    if !is_proven {
        notes.push(format!(
            "THE STATE IN {} IS NOT USED: it was last written with durability os, did not stop \
             cleanly, and the machine has booted since, so its end may be missing. This node \
             starts empty, with a new incarnation in place of {}",
            directory.path().display(),
            identity.incarnation
        ));
        return Place::existing(directory, options, notes).create(fresh_incarnation);
    }
    Place::existing(directory, options, notes).recover(identity)
}

/// Where a store is created or opened, and how.
struct Place {
    directory: Directory,
    reserve: Reserve,
    options: DiskOptions,
    notes: Vec<String>,
}

/// A store that was created or opened there.
struct Store {
    engine: Engine,
    mark: Mark,
    identity: Identity,
    salt: u64,
    digest: Digest,
    drops: Drops,
    last_group: GroupNumber,
    ends_with: Vec<u8>,
}

impl Place {
    /// A directory that is not a node's yet.
    fn new(directory: Directory, options: DiskOptions, notes: Vec<String>) -> Self {
        let reserve = Reserve::new(directory.path(), options.reserve);
        Place {
            directory,
            reserve,
            options,
            notes,
        }
    }

    /// A directory that is known to be this node's: on a full disk its reserve is freed.
    fn existing(directory: Directory, options: DiskOptions, notes: Vec<String>) -> Self {
        let mut place = Self::new(directory, options, notes);
        place.reserve.prepare_start();
        place
    }

    /// Creates a new store. Existing files in its place are set aside, never deleted.
    fn create(mut self, incarnation: Incarnation) -> Result<Opened, StorageError> {
        let (directory, options) = (&self.directory, &self.options);
        // The identity is written first, so that from here on the old store is not taken for this
        // one's.
        let salt = random()?;
        let mut identity = Identity::new(
            options.list.clone(),
            options.index,
            incarnation,
            salt,
            options.run(),
        );
        identity.write(&directory.identity())?;
        // This may leave a file, so the directory must belong to a node by now.
        self.reserve.prepare_start();
        if let Some(store) = directory.set_aside()? {
            self.notes.push(format!(
                "the old store was set aside as {}; it can be deleted",
                store.display()
            ));
        }
        let engine = Engine::create(&directory.store())?;
        let digest = new_digest()?;
        let (key, entry) = group_entry(0, incarnation, &digest, salt);
        engine.write(&[(key, Some(entry.clone()))], true)?;
        engine.sync()?;
        // Before the first data: in a store that is filled at once, the engine soon moves data all
        // the time.
        self.reserve.keep(engine.size()?);
        let mark = Mark::create(&directory.mark(), incarnation)?;
        identity.made = true;
        identity.write(&directory.identity())?;
        let recovered = Recovered {
            incarnation,
            ..Recovered::default()
        };
        let store = Store {
            engine,
            mark,
            identity,
            salt,
            digest,
            drops: Drops::new(options.compact_after),
            last_group: 0,
            ends_with: entry,
        };
        self.run(store, Table::default(), recovered)
    }

    fn recover(mut self, mut identity: Identity) -> Result<Opened, StorageError> {
        let (directory, options) = (&self.directory, &self.options);
        let incarnation = identity.incarnation;
        let Found {
            engine,
            mut mark,
            contents,
            last_group,
            notes: found,
        } = find(directory, &identity)?;
        self.notes.extend(found);
        // Data that an earlier run left to the operating system is made durable before this run is
        // recorded as one that syncs.
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
            expiring: contents.table.expiring(),
            readdressed: identity.readdressed.clone(),
        };
        let mut drops = Drops::new(options.compact_after);
        let size = engine.size()?;
        drops.opened(contents.size, size);
        self.reserve.resume(size);
        let (_, entry) = group_entry(last_group, incarnation, &contents.digest, salt);
        if was_without_salt {
            // From now on the store ends with an entry that has a salted checksum.
            engine.write(&[(GROUP_KEY.to_vec(), Some(entry.clone()))], true)?;
        }
        let store = Store {
            engine,
            mark,
            identity,
            salt,
            digest: contents.digest,
            drops,
            last_group,
            ends_with: entry,
        };
        self.run(store, contents.table, recovered)
    }

    fn run(self, store: Store, table: Table, recovered: Recovered) -> Result<Opened, StorageError> {
        let directory = self.directory;
        let presence = Presence::new(directory.store(), directory.lock(), directory.mark())?;
        let disk = RunningStore {
            engine: Some(store.engine),
            mark: store.mark,
            marked_at: Instant::now(),
            presence,
            looked_at: Instant::now(),
            reserve: self.reserve,
            is_reserve_due: false,
            written: 0,
            compacted_at: Instant::now(),
            had_no_room_at: None,
            reopening: RunningStore::reopening(),
            digest: store.digest,
            drops: store.drops,
            last_group: store.last_group,
            synced_group: store.last_group,
            ends_with: store.ends_with,
            failed: false,
            identity: store.identity,
            identity_is_news: false,
            salt: store.salt,
            options: self.options,
            directory,
        };
        Ok(Opened {
            storage: Box::new(disk),
            table,
            recovered,
            notes: self.notes,
        })
    }
}

/// A store that was opened and is complete.
struct Found {
    engine: Engine,
    mark: Mark,
    contents: Contents,
    last_group: GroupNumber,
    notes: Vec<String>,
}

/// Opens an existing store, and proves it complete before this run changes anything.
fn find(directory: &Directory, identity: &Identity) -> Result<Found, StorageError> {
    let store = directory.store();
    let (mark, note) = Mark::open(&directory.mark(), identity.incarnation)?;
    let mut notes = Vec::from_iter(note);
    engine::check_parts(&store)?;
    notes.extend(journal::check(
        &store,
        mark.group(),
        identity.clean_stop,
        identity.salt,
    )?);
    let engine = Engine::open(&store)?;
    let contents = Contents::read(&engine, directory)?;
    let last_group = contents.check(directory, identity.incarnation, mark.group())?;
    Ok(Found {
        engine,
        mark,
        contents,
        last_group,
        notes,
    })
}

/// Whether the node never belonged to a cluster, and made no commitment (E6): then no other node
/// relies on its state. The identity file may name a cluster slightly later than the store.
fn is_unused(directory: &Directory, identity: &Identity) -> Result<bool, StorageError> {
    if identity.cluster.is_some() {
        return Ok(false);
    }
    let Contents { meta, group, .. } = find(directory, identity)?.contents;
    let holds_nothing = group.is_some_and(|group| group.registers == 0);
    Ok(holds_nothing && meta.configuration.is_none() && meta.bound_to.is_none())
}

/// The content of a store, from one scan.
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
                // The group entry comes first, because of its prefix.
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
                // Chosen marks come after all registers, because of their prefix.
                Entry::Chosen(name, ballot) => contents.table.mark_chosen(&name, ballot),
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// Checks that this is exactly the store's content after its last group, and no older than the
    /// mark.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::Durability;

    /// A start that reaches the reserve removes `reserve.tmp`, whether the disk is full or not.
    #[test]
    fn a_start_that_is_refused_leaves_the_reserve_alone() {
        let base = tempfile::tempdir().unwrap();
        let options = |list: &[&str]| {
            let list = list.iter().map(|address| (*address).to_owned()).collect();
            DiskOptions::new(base.path(), list, 0, Durability::Fsync)
        };
        let listed = || options(&["a:1", "b:1", "c:1"]);
        open(listed(), 5).unwrap().storage.close().unwrap();
        let path = base.path().join("identity");
        let mut identity = Identity::read(&path).unwrap().unwrap();
        identity.cluster = Some(9);
        identity.write(&path).unwrap();
        let files = ["reserve", "reserve.tmp"].map(|name| base.path().join(name));
        for file in &files {
            fs::write(file, [7; 10_000]).unwrap();
        }
        let error = open(options(&["x:1", "b:1", "c:1"]), 6).map(|_| ());
        let text = error.expect_err("is refused").to_string();
        assert!(text.contains("x:1"), "{text}");
        assert!(files.iter().all(|file| file.exists()));
        open(listed(), 6).unwrap();
        assert!(files[0].exists() && !files[1].exists());
    }
}
