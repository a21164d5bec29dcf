//! The data directory: its layout, its lock, and how a store is set aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::StorageError;
use super::file;

const IDENTITY: &str = "identity";
const LOCK: &str = "lock";
const MARK: &str = "mark";
const STORE: &str = "store";
/// Separates the original name of what was set aside from its number.
const LOST: &str = ".lost-";

/// A data directory that this process has locked for as long as the value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: File,
}

/// Closing the file is not enough: a child process that another thread has just forked shares its
/// lock until it executes its own program.
impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            let path = self.path.display();
            tracing::warn!("the data directory {path} could not be unlocked: {error}");
        }
    }
}

impl Directory {
    /// Whether there is a node's data directory. Nothing is locked or created.
    pub fn is_there(path: &Path) -> bool {
        path.join(IDENTITY).is_file()
    }

    /// Creates the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let path = std::path::absolute(path).map_err(StorageError::io("finding", path))?;
        file::make_directory(&path)?;
        let lock = lock(&path)?;
        Ok(Directory { path, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn lock(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    pub fn identity(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }

    pub fn mark(&self) -> PathBuf {
        self.path.join(MARK)
    }

    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// A warning if users other than the owner may read it.
    pub fn permission_note(&self) -> Result<Option<String>, StorageError> {
        let metadata =
            fs::metadata(&self.path).map_err(StorageError::io("examining", &self.path))?;
        let mode = metadata.permissions().mode() & 0o777;
        Ok((mode & 0o077 != 0).then(|| {
            let path = self.path.display();
            format!(
                "other users may enter the data directory {path} (mode {mode:o}): chmod 700 {path}"
            )
        }))
    }

    /// Without an identity file there may be nothing else either: a directory that is not a node's,
    /// or is incomplete, is not touched.
    pub fn check_empty(&self) -> Result<(), StorageError> {
        for name in self.names()? {
            let harmless = name == LOCK
                || name == "identity.tmp"
                || name == "lost+found"
                || name.contains(LOST);
            if !harmless {
                return Err(StorageError::Foreign {
                    directory: self.path.clone(),
                    found: name,
                });
            }
        }
        Ok(())
    }

    /// Renames the store and the mark, if they exist, to unused names. Returns the new name of the
    /// store.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, StorageError> {
        let mut number = 1;
        for name in self.names()? {
            let used = name
                .rsplit_once(LOST)
                .and_then(|(_, n)| n.parse::<u64>().ok());
            number = number.max(used.unwrap_or(0) + 1);
        }
        let mut store = None;
        for name in [MARK, STORE] {
            let from = self.path.join(name);
            if !from
                .try_exists()
                .map_err(StorageError::io("checking", &from))?
            {
                continue;
            }
            let to = self.path.join(format!("{name}{LOST}{number}"));
            file::set_aside(&from, &to).map_err(StorageError::io("setting aside", &from))?;
            if name == STORE {
                store = Some(to);
            }
        }
        file::sync_directory(&self.path)?;
        Ok(store)
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let mut names = Vec::new();
        let failed = || StorageError::io("listing", &self.path);
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// Locks the directory by a file in it, which contains the id of the process that holds the lock.
fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StorageError::io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The process id only helps the operator; a file that cannot be read is no further
            // error.
            let _ = file.read_to_string(&mut text);
            return Err(StorageError::InUse {
                directory: directory.to_path_buf(),
                pid: text.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(StorageError::io("locking", &path)(e)),
    }
    // The process id only helps the operator: on a full disk the write may fail, and the node has
    // to start.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_for_the_owner_only_and_locked() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("deep/data");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(directory.permission_note().unwrap(), None);
        let error = Directory::open(&path).unwrap_err().to_string();
        let expected = format!("in use by process {}", std::process::id());
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        drop(directory);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let directory = Directory::open(&path).unwrap();
        let note = directory.permission_note().unwrap().unwrap();
        assert!(note.contains("mode 750"), "{note}");
    }

    /// Between its fork and exec a child process has all files of this process open.
    #[test]
    fn it_is_free_again_though_a_child_still_shares_the_lock() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(base.path()).unwrap();
        let shared = directory.lock.try_clone().unwrap();
        drop(directory);
        Directory::open(base.path()).unwrap();
        drop(shared);
    }

    #[test]
    fn foreign_files_are_refused_by_name() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(base.path()).unwrap();
        directory.check_empty().unwrap();
        for name in ["letter.txt", "reserve", "reserve.tmp"] {
            let path = base.path().join(name);
            fs::write(&path, "dear").unwrap();
            let error = directory.check_empty().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_set_aside_never_takes_a_used_name() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(base.path()).unwrap();
        assert_eq!(directory.set_aside().unwrap(), None);
        for number in 1..3 {
            fs::create_dir(directory.store()).unwrap();
            fs::write(directory.mark(), "m").unwrap();
            let store = directory.set_aside().unwrap().unwrap();
            assert!(store.ends_with(format!("store.lost-{number}")));
        }
        assert!(base.path().join("mark.lost-2").exists());
        directory.check_empty().unwrap();
    }
}
