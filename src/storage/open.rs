//! Opens a data directory: a new store, or an existing one that proves to be complete (E1, R2). An
//! opening that is refused changes nothing, except that a damaged store on a full disk may lose the
//! file `reserve`, in whose space it is opened.

use std::path::PathBuf;
use std::time::Instant;

use super::backoff::ReopenBackoff;
use super::checkpoint::manifest::Manifest;
use super::directory::Directory;
use super::disk::{DiskOptions, REOPEN_FIRST, REOPEN_MAX, RunningStore};
use super::drops::Drops;
use super::error::StorageError;
use super::identity::Identity;
use super::log::CommitLog;
use super::log::segment::StoreOwner;
use super::mark::Mark;
use super::presence::Presence;
use super::recovery::Found;
use super::reserve::Reserve;
use super::{Opened, Table, checkpoint, file};
use crate::protocol::types::message::{Incarnation, Recovered};

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
    log: CommitLog,
    manifest: Manifest,
    mark: Mark,
    identity: Identity,
    drops: Drops,
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
        let path = directory.store();
        file::make_directory(&path)?;
        let owner = StoreOwner { incarnation, salt };
        let sizes = options.sizes(&path);
        let log = CommitLog::create(&path, owner, sizes.ahead)?;
        let manifest = checkpoint::create(&path, log.start(), owner)?;
        // Before the first data: a store may be filled at once.
        self.reserve.keep(log.size() + manifest.size());
        let mark = Mark::create(&directory.mark(), incarnation)?;
        identity.made = true;
        identity.write(&directory.identity())?;
        let recovered = Recovered {
            incarnation,
            ..Recovered::default()
        };
        let store = Store {
            log,
            manifest,
            mark,
            identity,
            drops: Drops::new(0, options.free_after),
        };
        self.run(store, Table::default(), recovered)
    }

    fn recover(mut self, mut identity: Identity) -> Result<Opened, StorageError> {
        let (directory, options) = (&self.directory, &self.options);
        let (found, mut mark) = find(directory, &identity, &mut self.notes)?;
        self.notes.extend(found.note.clone());
        let (incarnation, group) = (identity.incarnation, found.last_group());
        let path = directory.store();
        let sizes = options.sizes(&path);
        // Data that an earlier run left to the operating system is made durable before this run is
        // recorded as one that syncs.
        let found = found.settle(&path, owner(&identity), identity.clean_stop, sizes.ahead)?;
        mark.write(group)?;
        if let Some(configuration) = &found.meta.configuration {
            identity.learn(configuration, options.own());
            identity.forget_readdressed(configuration);
        }
        identity.begin(options.run());
        identity.write(&directory.identity())?;
        let recovered = Recovered {
            incarnation,
            meta: found.meta,
            group,
            digests: found.table.digests(),
            expiring: found.table.expiring(),
            readdressed: identity.readdressed.clone(),
        };
        self.reserve
            .resume(found.log.size() + found.manifest.size());
        let store = Store {
            log: found.log,
            manifest: found.manifest,
            mark,
            identity,
            drops: Drops::new(found.dropped, options.free_after),
        };
        self.run(store, found.table, recovered)
    }

    fn run(self, store: Store, table: Table, recovered: Recovered) -> Result<Opened, StorageError> {
        let directory = self.directory;
        tracing::debug!(
            "the store in {} has {} keys, {} parts, {} bytes in its log, and ends with group {}",
            directory.path().display(),
            table.records(),
            store.manifest.parts.len(),
            store.log.content_size(),
            recovered.group
        );
        let segment = store.log.path().to_path_buf();
        let presence = Presence::new(directory.lock(), directory.mark(), segment)?;
        let disk = RunningStore {
            checkpoint: None,
            synced_group: store.log.position().group,
            log: store.log,
            manifest: store.manifest,
            mark: store.mark,
            marked_at: Instant::now(),
            presence,
            looked_at: Instant::now(),
            reserve: self.reserve,
            is_reserve_due: false,
            began_at: None,
            put_off_at: None,
            reopening: ReopenBackoff::new(REOPEN_FIRST, REOPEN_MAX),
            drops: store.drops,
            failed: false,
            identity: store.identity,
            identity_is_news: false,
            sizes: self.options.sizes(&directory.store()),
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

pub(super) fn owner(identity: &Identity) -> StoreOwner {
    StoreOwner {
        incarnation: identity.incarnation,
        salt: identity.salt,
    }
}

/// Reads an existing store, and proves it complete; changes nothing.
fn find(
    directory: &Directory,
    identity: &Identity,
    notes: &mut Vec<String>,
) -> Result<(Found, Mark), StorageError> {
    let (mark, note) = Mark::open(&directory.mark(), identity.incarnation)?;
    notes.extend(note);
    let found = Found::read(&directory.store(), owner(identity), &mark)?;
    Ok((found, mark))
}

/// Whether the node never belonged to a cluster, and made no commitment (E6): then no other node
/// relies on its state. The identity file may name a cluster slightly later than the store.
fn is_unused(directory: &Directory, identity: &Identity) -> Result<bool, StorageError> {
    if identity.cluster.is_some() {
        return Ok(false);
    }
    let (found, _) = find(directory, identity, &mut Vec::new())?;
    let Found { table, meta, .. } = found;
    Ok(table.records() == 0 && meta.configuration.is_none() && meta.bound_to.is_none())
}

fn random() -> Result<u64, StorageError> {
    getrandom::u64().map_err(|error| StorageError::Io {
        doing: "reading",
        path: PathBuf::from("the system's source of randomness"),
        source: std::io::Error::other(error.to_string()),
    })
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
