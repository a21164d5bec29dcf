//! Checks that the files that a running store writes are still those of its data directory. A
//! process that has deleted or moved files open does not notice: it would continue to write, and
//! report its writes to others as durable.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::StorageError;

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
    lock: OpenFile,
    mark: OpenFile,
    /// The log segment that is being written.
    segment: OpenFile,
}

impl Presence {
    pub fn new(lock: PathBuf, mark: PathBuf, segment: PathBuf) -> Result<Self, StorageError> {
        Ok(Presence {
            lock: OpenFile::open(lock)?,
            mark: OpenFile::open(mark)?,
            segment: OpenFile::open(segment)?,
        })
    }

    /// The log has begun its next segment.
    pub fn set_segment(&mut self, segment: PathBuf) -> Result<(), StorageError> {
        self.segment = OpenFile::open(segment)?;
        Ok(())
    }

    /// A few system calls, and no reading: called for every commit, before the commit is reported.
    pub fn check(&self) -> Result<(), StorageError> {
        for held in [&self.lock, &self.mark] {
            if !held.is_at_its_path() {
                return Err(gone(&held.path));
            }
        }
        match self.segment.is_linked() {
            true => Ok(()),
            false => Err(gone(&self.segment.path)),
        }
    }

    /// Called about once per second.
    pub fn check_all(&self) -> Result<(), StorageError> {
        self.check()?;
        match self.segment.is_at_its_path() {
            true => Ok(()),
            false => Err(gone(&self.segment.path)),
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
