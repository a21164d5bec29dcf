//! Checks that the files that a running store writes are still those of its data directory. A
//! process that has deleted or moved files open does not notice: it would continue to write, and
//! report its writes to others as durable.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::StorageError;
use super::journal;

/// A file of the store that is held open.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

impl OpenFile {
    fn open(path: PathBuf) -> Result<Self, StorageError> {
        let file = File::open(&path).map_err(|_| gone(&path))?;
        Ok(OpenFile { path, file })
    }

    fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.nlink() > 0)
    }

    /// Whether its path still leads to it.
    fn is_at_its_path(&self) -> bool {
        let here = fs::metadata(&self.path);
        let held = self.file.metadata();
        matches!((here, held), (Ok(here), Ok(held)) if is_same(&here, &held))
    }
}

/// The files of an open store.
#[derive(Debug)]
pub struct Presence {
    store: PathBuf,
    /// The lock, the mark and the journal that is being written.
    lock: OpenFile,
    mark: OpenFile,
    journal: OpenFile,
}

impl Presence {
    pub fn new(store: PathBuf, lock: PathBuf, mark: PathBuf) -> Result<Self, StorageError> {
        let journal = OpenFile::open(journal::newest(&store)?)?;
        Ok(Presence {
            store,
            lock: OpenFile::open(lock)?,
            mark: OpenFile::open(mark)?,
            journal,
        })
    }

    /// Three or four system calls, and no reading: called for every commit, before the commit is
    /// reported.
    pub fn check(&mut self) -> Result<(), StorageError> {
        for held in [&self.lock, &self.mark] {
            if !held.is_at_its_path() {
                return Err(gone(&held.path));
            }
        }
        match self.journal.is_linked() {
            true => Ok(()),
            false => self.find_journal(),
        }
    }

    /// The engine begins a new journal now and then, and deletes older ones. Called about once per
    /// second.
    pub fn find_journal(&mut self) -> Result<(), StorageError> {
        let newest = journal::newest(&self.store).map_err(|_| gone(&self.journal.path))?;
        let is_older = journal::number(&newest) < journal::number(&self.journal.path);
        if newest != self.journal.path && !is_older {
            self.journal = OpenFile::open(newest)?;
        }
        match self.journal.is_at_its_path() {
            true => Ok(()),
            false => Err(gone(&self.journal.path)),
        }
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn gone(path: &Path) -> StorageError {
    StorageError::Gone {
        path: path.to_path_buf(),
    }
}
