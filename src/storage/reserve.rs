//! Room on the disk for what has to go on when there is no more: deletes, the node's own state, a
//! restart, and the compaction that gives the room of deleted keys back.
//!
//! Two parts: what others may not take, a file; and free space, below which a node is full (X6).

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use super::error::StorageError;
use super::file;

pub const NAME: &str = "reserve";
/// The file takes this part of the file system, ...
const FILE_PART: u64 = 32;
/// ... or so much, if that is less.
const FILE_SIZE_MAX: u64 = 32 << 20;
/// Unless a reserve is given it is what the store takes and half of that, so that all of it can be
/// written anew while commits go on, within these bounds: with more than that the engine writes only parts of it anew at a time.
const WANTED_MIN: u64 = 64 << 20;
const WANTED_MAX: u64 = 1 << 30;
/// On a small file system no less than this part of it.
const WANTED_PART: u64 = 4;
/// A node is full no more once so large a part of what is wanted is free beyond it.
const FREE_PART: u64 = 8;
/// A commit needs somewhat more than its entries take.
const MARGIN: u64 = 1 << 20;
/// What a start writes before it serves.
const START_SIZE: u64 = 4 << 20;
const BLOCK_SIZE: u64 = 512;

/// What there is on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// For this node, its reserve file included.
    pub free: u64,
    /// The node is full if less is free; 0: it never is.
    pub wanted: u64,
    pub is_full: bool,
}

#[derive(Debug)]
pub struct Reserve {
    directory: PathBuf,
    file: PathBuf,
    /// `None`: by the size of the store.
    setting: Option<u64>,
    /// What the file takes.
    held: u64,
    store_size: u64,
    space: Space,
}

impl Reserve {
    /// Of a directory that is locked. If there is no room to start in, the file makes it.
    pub fn open(directory: &Path, setting: Option<u64>) -> Self {
        let file = directory.join(NAME);
        let held = fs::metadata(&file).map_or(0, |m| m.blocks() * BLOCK_SIZE);
        let mut reserve = Reserve {
            directory: directory.to_path_buf(),
            file,
            setting,
            held,
            store_size: 0,
            space: Space::default(),
        };
        reserve.make_room(START_SIZE);
        reserve
    }

    pub fn space(&self) -> Space {
        self.space
    }

    /// Whether data of this size can be written anew, which takes somewhat more, and commits go on.
    pub fn has_room_for(&self, size: u64) -> bool {
        let more = size / 8 + 2 * MARGIN;
        self.look_at_disk().0 >= size.saturating_add(more)
    }

    /// What others can take, too, and in all; a file system that does not tell is not full.
    fn look_at_disk(&self) -> (u64, u64) {
        statvfs(&self.directory).map_or((u64::MAX, u64::MAX), |stat| {
            let size = stat.fragment_size();
            let bytes = |blocks: u64| blocks.saturating_mul(size);
            (bytes(stat.blocks_available()), bytes(stat.blocks()))
        })
    }

    /// Now and then: brings all up to date, and makes the file if there is room for it.
    pub fn keep(&mut self, store_size: u64) {
        self.store_size = store_size;
        let (available, total) = self.look();
        let size = match self.setting {
            Some(setting) => FILE_SIZE_MAX.min(setting / 2),
            None => FILE_SIZE_MAX,
        };
        let size = size.min(total / FILE_PART);
        if self.held == 0 && size > 0 && available >= self.space.wanted.max(2 * size) {
            // Without it the node is full somewhat sooner, no more.
            match self.allocate(size) {
                Ok(()) => self.held = size,
                // What it got so far takes the room of others (of a quota, say).
                Err(_) => {
                    let _ = fs::remove_file(&self.file);
                }
            }
        }
    }

    fn allocate(&self, size: u64) -> std::io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.file)?;
        posix_fallocate(&file, 0, i64::try_from(size).unwrap_or(i64::MAX))?;
        Ok(())
    }

    fn look(&mut self) -> (u64, u64) {
        let (available, total) = self.look_at_disk();
        let least = WANTED_MIN.min(total / WANTED_PART);
        let wanted = self.setting;
        let anew = self.store_size.saturating_add(self.store_size / 2);
        let wanted = wanted.unwrap_or_else(|| anew.clamp(least, WANTED_MAX));
        let free = available.saturating_add(self.held);
        let bound = match self.space.is_full {
            true => wanted.saturating_add(wanted / FREE_PART),
            false => wanted,
        };
        self.space = Space {
            free,
            wanted,
            is_full: free < bound,
        };
        (available, total)
    }

    /// For a write of this size to the store: if there is no room for it, the file gives it.
    pub fn make_room(&mut self, size: u64) {
        self.store_size = self.store_size.saturating_add(size);
        let (available, _) = self.look();
        if available < size.saturating_add(MARGIN) {
            self.give();
        }
    }

    pub fn give(&mut self) {
        if self.held == 0 {
            return;
        }
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                tracing::warn!("{} can't be removed: {e}", self.file.display());
            }
            _ => {
                tracing::error!(
                    "the disk of {} has no room left: the node goes on in its reserve, and makes it \
                     anew once there is room",
                    self.directory.display()
                );
                self.held = 0;
            }
        }
        // The room of a file that is removed may come back with its directory only.
        let _ = file::sync_directory(&self.directory);
    }

    /// Whether that a write failed is for want of room.
    pub fn explains(&self, error: &StorageError) -> bool {
        match error {
            StorageError::Io { source, .. } | StorageError::Write { source, .. } => matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ),
            // Of what failed in the background the reason is not told.
            StorageError::Engine { .. } => self.space.is_full || self.held == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_and_gives_its_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), Some(1 << 20));
        reserve.keep(0);
        let path = directory.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().len(), 512 << 10);
        reserve.make_room(1 << 10);
        assert!(path.exists(), "there is room");
        reserve.make_room(u64::MAX);
        assert!(!path.exists() && reserve.held == 0);
        reserve.keep(0);
        assert!(path.exists());
        let again = Reserve::open(directory.path(), Some(1 << 20));
        assert_eq!(again.held, 512 << 10);
    }

    #[test]
    fn a_node_is_full_below_what_is_wanted_and_no_more_well_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), Some(0));
        assert!(!reserve.space().is_full);
        // Others use the disk, too.
        reserve.setting = Some(u64::MAX / 2);
        reserve.make_room(0);
        assert!(reserve.space().is_full);
        reserve.setting = None;
        reserve.keep(u64::MAX);
        assert_eq!(reserve.space().wanted, WANTED_MAX);
        reserve.keep(WANTED_MIN);
        assert_eq!(reserve.space().wanted, WANTED_MIN / 2 * 3);
    }

    #[test]
    fn only_a_want_of_room_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(directory.path(), Some(0));
        let error = |number| {
            let io = StorageError::io("writing", directory.path());
            io(std::io::Error::from_raw_os_error(number))
        };
        assert!(reserve.explains(&error(28)) && reserve.explains(&error(122)));
        assert!(!reserve.explains(&error(5)));
    }
}
