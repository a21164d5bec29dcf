//! Files and directories that are complete after a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::StorageError;

/// Replaces a file so that at any time either the old or the new one is there, complete and
/// durable.
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

/// Creates a directory, readable only by its owner, and its missing parents.
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

/// Renames a file or directory to an unused name. Directories of the lower layer of an overlay file
/// system cannot be renamed (EXDEV), as on machines whose root file system is an image: then their
/// contents are moved one by one.
pub fn set_aside(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices && from.is_dir() => {
            move_one_by_one(from, to)
        }
        other => other,
    }
}

fn move_one_by_one(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        set_aside(&entry.path(), &to.join(entry.file_name()))?;
    }
    File::open(to)?.sync_all()?;
    fs::remove_dir(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_moves_whole_one_by_one() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["store", "store.lost-1"].map(|name| base.path().join(name));
        fs::create_dir_all(from.join("a/b")).expect("it is new");
        fs::write(from.join("a/b/file"), "1").expect("there is room");
        fs::write(from.join("file"), "2").expect("there is room");
        move_one_by_one(&from, &to).expect("it can be moved");
        assert!(!from.exists());
        assert_eq!(fs::read(to.join("a/b/file")).expect("it is there"), b"1");
        assert_eq!(fs::read(to.join("file")).expect("it is there"), b"2");
    }
}
