//! Reserves disk space for what has to continue on a full disk: deletes, the node's own state, a
//! restart, and the checkpoint that frees the space of deleted keys.
//!
//! There are two parts: a file, whose space others cannot take; and free space, below which a node
//! is full (X6).
//!
//! A file system does not report quotas. So once a write has failed for want of space, only a
//! successful allocation shows that there is space again, and the node is full until then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use super::backoff::ReopenBackoff;
use super::error::StorageError;
use super::file;

pub const NAME: &str = "reserve";
/// The file that is allocated to find out whether there is space; it is unlinked before that.
pub const PROBE: &str = "reserve.tmp";
/// The file takes at most this fraction (1/32) of the file system.
const FILE_PART: u64 = 32;
/// The file takes at most this: a part of a checkpoint has up to 32 MiB.
const FILE_SIZE_MAX: u64 = 48 << 20;
/// Under a quota the file may be as small as this.
const FILE_SIZE_MIN: u64 = 1 << 20;
/// Space for the file counts only if this fraction of it (1/2) is free beside it: the file must not
/// take the last space.
const PROOF_PART: u64 = 2;
/// After a failure at least this much must be allocatable, even if no reserve file is made.
const PROOF_SIZE_MIN: u64 = 8 << 20;
/// The wait after a failure, or an attempt without success, before space is checked for again:
/// first and longest.
const PROVING_FIRST: Duration = Duration::from_secs(5);
const PROVING_MAX: Duration = Duration::from_secs(60);
/// The most that is allocated to find out whether there is space.
const PROBE_SIZE_MAX: u64 = 256 << 20;
/// Space is allocated in steps of this size, and beside it an additional amount must be free at
/// each step: half of what is allocated, but at most the second constant. So an attempt fails
/// before it has taken the space that other processes, under the same quota, write to.
const STEP_SIZE: u64 = 2 << 20;
const LEFT_SIZE_MAX: u64 = 8 << 20;
/// The default reserve is one and a half times the size of the store, within these bounds, so that
/// commits continue while a checkpoint is written.
const WANTED_MIN: u64 = 64 << 20;
const WANTED_MAX: u64 = 1 << 30;
/// On a small file system the lower bound is this fraction (1/4) of it.
const WANTED_PART: u64 = 4;
/// A full node stops being full once this fraction (1/8) of the wanted space is free beyond it.
const FREE_PART: u64 = 8;
/// A commit needs somewhat more than its entries take.
const MARGIN: u64 = 1 << 20;
/// What a start writes before the node serves.
const START_SIZE: u64 = 4 << 20;
const BLOCK_SIZE: u64 = 512;

/// The space on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// For this node, its reserve file included; 0 while a failed write shows a want of space.
    pub free: u64,
    /// The node is full if less is free; 0: it never is.
    pub wanted: u64,
    pub is_full: bool,
}

#[derive(Debug)]
pub struct Reserve {
    directory: PathBuf,
    file: PathBuf,
    /// `None`: derived from the size of the store.
    setting: Option<u64>,
    /// The size of the reserve file.
    held: u64,
    /// Its size when it was last freed.
    given: u64,
    /// A write failed for want of space, and no allocation has succeeded since.
    is_lacking: bool,
    proving: ReopenBackoff,
    store_size: u64,
    space: Space,
    /// Allocates a file up to this size; tests replace it.
    grow: fn(&File, u64) -> io::Result<()>,
}

impl Reserve {
    /// Changes nothing in the directory, which may not belong to a node yet.
    pub fn new(directory: &Path, setting: Option<u64>) -> Self {
        let file = directory.join(NAME);
        let held = fs::metadata(&file).map_or(0, |m| m.blocks() * BLOCK_SIZE);
        Reserve {
            directory: directory.to_path_buf(),
            file,
            setting,
            held,
            given: 0,
            is_lacking: false,
            proving: ReopenBackoff::new(PROVING_FIRST, PROVING_MAX),
            store_size: 0,
            space: Space::default(),
            grow,
        }
    }

    /// Must be called once the directory is locked and belongs to a node: frees the file if there
    /// is too little space to start.
    pub fn prepare_start(&mut self) {
        let is_kept = self.held > 0 || self.setting != Some(0);
        self.make_room(START_SIZE);
        if is_kept && self.lacks(START_SIZE + MARGIN) {
            self.lack();
        }
    }

    pub fn space(&self) -> Space {
        self.space
    }

    /// Whether data of this size can be rewritten, which takes slightly more, while commits
    /// continue. Must not be called during a checkpoint, which could run out of space meanwhile.
    pub fn has_room_for(&self, size: u64) -> bool {
        let size = size.saturating_add(size / 8 + 2 * MARGIN);
        let is_seen = self.check_disk().0 >= size;
        let probed = size.min(PROBE_SIZE_MAX);
        // The additional space counts too: the reserve has to suffice for the log.
        is_seen && !(self.is_lacking && self.lacks(probed - left_size(probed)))
    }

    fn check_disk(&self) -> (u64, u64) {
        check_disk(&self.directory)
    }

    /// Called now and then: updates the numbers, and allocates nothing.
    pub fn update(&mut self, store_size: u64) {
        self.store_size = store_size;
        self.look();
    }

    /// Like `update`, and makes the file if there is space for it. Must not be called during a
    /// checkpoint, which could run out of space meanwhile.
    pub fn keep(&mut self, store_size: u64) {
        self.store_size = store_size;
        let (available, total) = self.look();
        let size = self.file_size(total);
        let is_wanted = self.is_lacking || self.held == 0 && size > 0;
        let is_there = available >= self.wanted(total).max(2 * size);
        if is_wanted && is_there && self.proving.left(Instant::now()).is_zero() {
            self.prove(size);
            self.look();
        }
    }

    /// Must be called first for a store that is not new. The store had the file unless it ran out
    /// of space, or had another setting.
    pub fn resume(&mut self, store_size: u64) {
        let (_, total) = self.check_disk();
        self.is_lacking |= self.held == 0 && self.file_size(total) > 0;
        self.keep(store_size);
    }

    fn file_size(&self, total: u64) -> u64 {
        let setting = self.setting.map_or(u64::MAX, |setting| setting / 2);
        FILE_SIZE_MAX.min(setting).min(total / FILE_PART)
    }

    /// Allocates the file, or what a file would take; only an error for want of space shows that
    /// there is none. Without the file the node is merely full somewhat sooner.
    fn prove(&mut self, size: u64) {
        let least = match self.is_lacking {
            true => self.given.max(PROOF_SIZE_MIN),
            false => FILE_SIZE_MIN,
        };
        let makes_file = self.held == 0 && size > 0;
        let mut part = size.max(1);
        let proven = loop {
            let proven = match makes_file {
                true => self.make_file(part),
                false => self.probe(PROOF_SIZE_MIN),
            };
            let is_over = proven.is_err_and(|error| is_no_room(&error));
            if !is_over || !makes_file || part / 2 < least {
                break !is_over;
            }
            part /= 2;
        };
        self.is_lacking &= !proven;
        // If a file cannot be allocated for another reason, this is not retried each second either.
        if !proven || makes_file && self.held == 0 {
            self.proving.fail(Instant::now());
        }
    }

    /// Allocates more than the file takes, as proof. After a failure the node needs more than a
    /// small file to continue.
    fn make_file(&mut self, size: u64) -> io::Result<()> {
        let proof_size = match self.is_lacking {
            true => size.max(PROOF_SIZE_MIN),
            false => size,
        };
        let made = create(&self.file).and_then(|file| {
            self.allocate(&file, proof_size + proof_size / PROOF_PART)?;
            file.set_len(size)
        });
        match made {
            Ok(()) => self.held = size,
            // The part that was allocated takes space from others (of a quota, for example).
            Err(_) => {
                let _ = fs::remove_file(&self.file);
            }
        }
        made
    }

    /// Allocates this much, and frees it at once.
    fn probe(&self, size: u64) -> io::Result<()> {
        let path = self.directory.join(PROBE);
        let file = create(&path)?;
        fs::remove_file(&path)?;
        self.allocate(&file, size)
    }

    /// Allocates an empty file in steps. What must be free beside it is given back after each step,
    /// and all of it after a failure.
    fn allocate(&self, file: &File, size: u64) -> io::Result<()> {
        if self.check_disk().0 < size {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut end = 0;
        while end < size {
            end = size.min(end + STEP_SIZE);
            let grown = (self.grow)(file, end + left_size(size));
            file.set_len(if grown.is_ok() { end } else { 0 })?;
            grown?;
        }
        Ok(())
    }

    /// Whether it is known that this much cannot be allocated.
    fn lacks(&self, size: u64) -> bool {
        self.check_disk().0 < size || self.probe(size).is_err_and(|error| is_no_room(&error))
    }

    fn wanted(&self, total: u64) -> u64 {
        let least = WANTED_MIN.min(total / WANTED_PART);
        let anew = self.store_size.saturating_add(self.store_size / 2);
        self.setting
            .unwrap_or_else(|| anew.clamp(least, WANTED_MAX))
    }

    fn look(&mut self) -> (u64, u64) {
        let (available, total) = self.check_disk();
        let wanted = self.wanted(total);
        let free = match self.is_lacking {
            true => 0,
            false => available.saturating_add(self.held),
        };
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

    /// Prepares a write of this size to the store: if there is too little space for it, the file is
    /// freed.
    pub fn make_room(&mut self, size: u64) {
        self.store_size = self.store_size.saturating_add(size);
        let (available, _) = self.look();
        if available < size.saturating_add(MARGIN) {
            self.give();
        }
    }

    /// Records that a write failed for want of space, whatever the file system reports: the file is
    /// freed, and recreated only once there is more space than it took.
    pub fn lack(&mut self) {
        self.is_lacking = true;
        self.proving.fail(Instant::now());
        self.give();
        self.look();
    }

    fn give(&mut self) {
        if self.held == 0 {
            return;
        }
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                tracing::warn!("{} can't be removed: {e}", self.file.display());
            }
            _ => {
                tracing::error!(
                    "the disk of {} is full: the node continues in its reserve, and recreates the \
                     reserve once there is space",
                    self.directory.display()
                );
                self.given = self.held;
                self.held = 0;
            }
        }
        // The space of a removed file may be freed only with the change of its directory.
        let _ = file::sync_directory(&self.directory);
    }
}

/// Whether a call failed for want of space.
pub fn is_no_space(error: &StorageError) -> bool {
    match error {
        StorageError::Io { source, .. } | StorageError::Write { source, .. } => is_no_room(source),
        _ => false,
    }
}

/// The free space, which others can take too, and the total; a file system that does not report
/// them is not full.
pub fn check_disk(path: &Path) -> (u64, u64) {
    statvfs(path).map_or((u64::MAX, u64::MAX), |stat| {
        let size = stat.fragment_size();
        let bytes = |blocks: u64| blocks.saturating_mul(size);
        (bytes(stat.blocks_available()), bytes(stat.blocks()))
    })
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// The space that must be free beside an allocation of this size.
fn left_size(size: u64) -> u64 {
    LEFT_SIZE_MAX.min(size / 2)
}

fn grow(file: &File, size: u64) -> io::Result<()> {
    posix_fallocate(file, 0, i64::try_from(size).unwrap_or(i64::MAX))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reserve {
        fn open(directory: &Path, setting: Option<u64>) -> Self {
            let mut reserve = Self::new(directory, setting);
            reserve.prepare_start();
            reserve
        }
    }

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
        // Other processes also use the disk.
        reserve.setting = Some(u64::MAX / 2);
        reserve.make_room(0);
        assert!(reserve.space().is_full);
        reserve.setting = Some(u64::MAX);
        reserve.keep(0);
        assert!(reserve.space().is_full && reserve.space().wanted == u64::MAX);
        reserve.setting = None;
        reserve.keep(u64::MAX);
        assert_eq!(reserve.space().wanted, WANTED_MAX);
        reserve.keep(WANTED_MIN);
        assert_eq!(reserve.space().wanted, WANTED_MIN / 2 * 3);
    }

    #[test]
    fn a_file_that_could_not_be_made_whole_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), None);
        let size = 1 << 60;
        assert!(reserve.make_file(size).is_err(), "no disk is so large");
        assert!(!directory.path().join(NAME).exists() && reserve.held == 0);
    }

    const QUOTA_SIZE: u64 = 11 << 20;

    /// A quota that a single file reaches.
    fn grow_in_quota(file: &File, size: u64) -> io::Result<()> {
        if size > QUOTA_SIZE {
            // Other processes write in the meantime.
            let taken = file.metadata()?.len();
            assert!(QUOTA_SIZE - taken >= LEFT_SIZE_MAX / 2, "{taken} is taken");
            assert!(size - taken <= STEP_SIZE + LEFT_SIZE_MAX, "{size}");
            return Err(io::Error::from_raw_os_error(122));
        }
        grow(file, size)
    }

    #[test]
    fn space_is_allocated_in_steps_and_an_attempt_fails_before_it_takes_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), None);
        reserve.grow = grow_in_quota;
        let path = directory.path().join("file");
        let size_after = |size| {
            let file = create(&path).unwrap();
            let is_allocated = reserve.allocate(&file, size).is_ok();
            (is_allocated, file.metadata().unwrap().len())
        };
        assert_eq!(size_after(6 << 20), (true, 6 << 20));
        assert_eq!(size_after(7 << 20), (true, 7 << 20));
        assert_eq!(size_after(QUOTA_SIZE), (false, 0));
        assert_eq!(size_after(64 << 20), (false, 0));
        assert!(reserve.make_file(FILE_SIZE_MAX).is_err() && !reserve.file.exists());
    }

    #[test]
    fn after_a_failure_a_small_file_takes_more_space_than_its_own_as_proof() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), Some(1 << 20));
        reserve.grow = grow_in_quota;
        reserve.keep(0);
        assert_eq!(reserve.held, 512 << 10, "nothing has failed");
        reserve.lack();
        reserve.proving = ReopenBackoff::new(Duration::ZERO, Duration::ZERO);
        reserve.keep(0);
        assert!(reserve.space().is_full && reserve.held == 0);
        reserve.grow = grow;
        reserve.keep(0);
        assert!(!reserve.space().is_full && reserve.held == 512 << 10);
        let length = fs::metadata(&reserve.file).unwrap().len();
        assert_eq!(length, 512 << 10);
    }

    #[test]
    fn after_a_failure_the_node_is_full_until_room_was_allocated_and_some_time_has_passed() {
        let directory = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(directory.path(), Some(1 << 20));
        reserve.keep(0);
        assert!(!reserve.space().is_full && reserve.held > 0);
        reserve.lack();
        reserve.keep(0);
        assert!(!directory.path().join(NAME).exists(), "not at once");
        let space = reserve.space();
        assert!(space.is_full && space.free == 0, "{space:?}");
        reserve.proving = ReopenBackoff::new(Duration::ZERO, Duration::ZERO);
        reserve.keep(0);
        assert!(!reserve.space().is_full && reserve.held == 512 << 10);
    }

    #[test]
    fn a_store_without_the_file_is_full_until_there_is_room_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let resumed = |setting: u64| {
            let mut reserve = Reserve::open(directory.path(), Some(setting));
            reserve.resume(0);
            (reserve.space().is_full, reserve.held)
        };
        assert_eq!(resumed(0), (false, 0));
        assert_eq!(resumed(u64::MAX), (true, 0));
        assert_eq!(resumed(1 << 20), (false, 512 << 10));
    }

    #[test]
    fn only_a_want_of_room_is_explained() {
        let error = |number| {
            let io = StorageError::io("writing", Path::new("store"));
            io(std::io::Error::from_raw_os_error(number))
        };
        assert!(is_no_space(&error(28)) && is_no_space(&error(122).into_write()));
        assert!(!is_no_space(&error(5)));
    }
}
