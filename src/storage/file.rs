//! Files and directories that are there, whole, after a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::StorageError;

/// Replaces a file so that at any time the old or the new one is there, and durable.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StorageError::io("creating", &temporary))?;
    file.write_all(content)
        .map_err(StorageError::io("writing", &temporary))?;
    file.sync_all()
        .map_err(StorageError::io("syncing", &temporary))?;
    fs::rename(&temporary, path).map_err(StorageError::io("renaming a new file to", path))?;
    sync_parent(path)
}

/// Makes creations and renames in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(StorageError::io("syncing the directory", path))
}

pub fn sync_parent(path: &Path) -> Result<(), StorageError> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes a directory, readable by its owner only, and those above it that are missing.
pub fn make_directory(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(StorageError::io("making the directory", path))?;
    sync_parent(path)
}
