//! Damaged files and torn writes: a store either opens exactly as it was after some group no older
//! than the last synced one, or is refused.
//!
//! The engine alone does not guarantee that. It takes the first byte of its journal that it cannot
//! read for the end of the data, so that a flipped bit in one batch can make all later batches
//! disappear silently; and a batch's checksum does not cover its position in the order.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use horseshoe::protocol::types::message::Group;
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, StorageError, disk};
use tempfile::TempDir;

use super::model::{
    check, copy, directory, files, group, groups, journal, make, open, options, size,
};

/// Disables updates of the sync mark, so that it stays where opening left it.
fn unmarked(path: &Path) -> DiskOptions {
    DiskOptions {
        mark_interval: Duration::MAX,
        ..options(path)
    }
}

/// Commits groups one by one, without a clean stop; returns the journal's size before each and
/// after the last.
fn commit_each(options: DiskOptions, to: u64) -> Vec<usize> {
    let path = options.directory.clone();
    let mut opened = open(options);
    let mut sizes = vec![size(&journal(&path))];
    for number in opened.recovered.group + 1..=to {
        opened.storage.commit(&[group(number)]).unwrap();
        sizes.push(size(&journal(&path)));
    }
    sizes
}

/// A directory for copies that are opened by the hundred: in memory, if the machine has such a
/// place.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

/// Opens a copy with one file replaced: it must be refused, or exact and no older than `synced`.
fn open_with(path: &Path, file: &Path, content: &[u8], synced: u64) -> Result<u64, StorageError> {
    let base = scratch();
    let copied = base.path().join("copy");
    copy(path, &copied);
    let inner = file.strip_prefix(path).unwrap();
    fs::write(copied.join(inner), content).unwrap();
    let opened = disk::open(options(&copied), 9)?;
    assert_eq!(opened.recovered.incarnation, super::model::INCARNATION);
    assert!(
        opened.recovered.group >= synced,
        "served group {} where {synced} was synced",
        opened.recovered.group
    );
    check(&opened);
    Ok(opened.recovered.group)
}

#[test]
fn no_flipped_byte_of_a_synced_group_goes_unnoticed() {
    let (_base, path) = directory();
    make(&path, 10);
    let marked = 16;
    let sizes = commit_each(options(&path), marked);
    commit_each(unmarked(&path), 20);
    let journal = journal(&path);
    let bytes = fs::read(&journal).unwrap();
    // Group 14: groups before and after it are before the mark, and it overwrites keys and is
    // overwritten.
    let range = sizes[3]..sizes[4];
    assert!(range.len() > 100, "{range:?}");
    assert_eq!(open_with(&path, &journal, &bytes, marked).unwrap(), 20);
    let (mut refused, mut by_digest, mut exact) = (0, 0, 0);
    for at in range.clone() {
        // Every bit of the head of a batch, which the batch's checksum does not cover.
        let flips = if at < range.start + 13 {
            (0..8).map(|bit| 1 << bit).collect()
        } else {
            vec![1 << (at % 8), 0xff]
        };
        for flip in flips {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            match open_with(&path, &journal, &damaged, marked) {
                Ok(_) => exact += 1,
                Err(error) => {
                    refused += 1;
                    by_digest += u32::from(error.to_string().contains("older than they were"));
                }
            }
        }
    }
    println!("{refused} refused ({by_digest} by the digest alone), {exact} opened with all");
    // Only the digest detects a batch that takes another position in the order.
    assert!(refused > exact && by_digest > 0);
}

#[test]
fn no_flipped_byte_of_the_last_groups_makes_a_state_that_never_was() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 12);
    let journal = journal(&path);
    let bytes = fs::read(&journal).unwrap();
    for at in (sizes[0]..sizes[2]).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        // Data behind the mark may be truncated, as a torn write; a part of a group is never read.
        let _ = open_with(&path, &journal, &damaged, 10);
    }
}

#[test]
fn a_torn_write_is_cut_and_what_was_synced_is_there() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 15);
    let journal = journal(&path);
    let bytes = fs::read(&journal).unwrap();
    // What a power failure leaves of a journal if the last write was in progress: everything that
    // was synced before, and a part of the rest, possibly with holes where a page was not written.
    for (n, ends) in sizes.windows(2).enumerate() {
        let (synced, end) = (ends[0], ends[1]);
        let group = 10 + n as u64;
        assert_eq!(
            open_with(&path, &journal, &bytes[..synced], group).unwrap(),
            group
        );
        for torn in (synced + 1..end).step_by(17) {
            let mut zeros_behind = bytes[..torn].to_vec();
            zeros_behind.resize(end + 500, 0);
            let mut zeros_before = bytes[..end].to_vec();
            zeros_before[synced..torn].fill(0);
            let mut hole = bytes[..end].to_vec();
            hole[torn..(torn + 40).min(end)].fill(0);
            let mut garbage = bytes[..torn].to_vec();
            garbage.extend_from_slice(b"\x01\x02\x03 something else");
            for torn in [
                &bytes[..torn],
                &zeros_behind,
                &zeros_before,
                &hole,
                &garbage,
            ] {
                let opened = open_with(&path, &journal, torn, group).unwrap();
                assert!(opened == group || (opened == group + 1 && torn == &bytes[..end]));
            }
        }
    }
}

#[test]
fn a_cut_is_told_and_the_store_goes_on() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 12);
    let journal = journal(&path);
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..sizes[2] - 5]).unwrap();
    let mut opened = open(options(&path));
    assert_eq!(opened.recovered.group, 11);
    let text = opened.notes.join("\n");
    assert!(text.contains("removed an unfinished write"), "{text}");
    opened.storage.commit(&groups(12..=14)).unwrap();
    drop(opened);
    let opened = open(options(&path));
    assert_eq!((opened.recovered.group, opened.notes.len()), (14, 0));
    check(&opened);
}

/// The writer of the value cannot know this store's salt: the batches in it have the salt of
/// another store.
#[test]
fn a_value_that_looks_like_a_batch_is_cut_with_the_torn_write_that_holds_it() {
    let (_other_base, other) = directory();
    make(&other, 12);
    // Opened again, the journal has the length of its content.
    open(options(&other)).storage.close().unwrap();
    let look_alike = fs::read(self::journal(&other)).unwrap();
    let (_base, path) = directory();
    make(&path, 10);
    let mut opened = open(unmarked(&path));
    let state = AcceptorState {
        record: Some(Arc::new(Record {
            value: Some(Bytes::from(look_alike.clone())),
            ..Record::default()
        })),
        ..AcceptorState::default()
    };
    let group = Group {
        number: 11,
        registers: vec![(Key::user(b"look-alike"), state)],
        ..Group::default()
    };
    opened.storage.commit(&[group]).unwrap();
    drop(opened);
    let journal = journal(&path);
    let bytes = fs::read(&journal).unwrap();
    let at = bytes
        .windows(look_alike.len())
        .position(|part| part == look_alike)
        .expect("the value is in the journal");
    // The end of the batch was not written to the disk.
    let torn = &bytes[..at + look_alike.len() + 3];
    assert_eq!(open_with(&path, &journal, torn, 10).unwrap(), 10);
}

/// The directory was written by a release before the salt existed: it can be read, and has a salt
/// from then on.
#[test]
fn a_directory_without_a_salt_is_read_and_gets_one() {
    let (_base, path) = directory();
    make(&path, 10);
    let identity = path.join("identity");
    let text = fs::read_to_string(&identity).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"salt\""));
    let text: Vec<&str> = lines.collect();
    let text = text.join("\n").replace("\"format\": 3", "\"format\": 2");
    fs::write(&identity, text).unwrap();
    {
        let database = fjall::Database::builder(path.join("store")).open().unwrap();
        let keyspace = database.keyspace("state", Default::default).unwrap();
        let entry = keyspace.get([1]).unwrap().unwrap();
        let mut old = vec![1];
        old.extend_from_slice(&entry[1..33]);
        let check = xxhash_rust::xxh3::xxh3_64(&old);
        old.extend_from_slice(&check.to_le_bytes());
        keyspace.insert([1], old).unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let mut opened = open(options(&path));
    assert_eq!(opened.recovered.group, 10);
    check(&opened);
    opened.storage.commit(&groups(11..=12)).unwrap();
    drop(opened);
    let text = fs::read_to_string(&identity).unwrap();
    assert!(
        text.contains("\"salt\"") && text.contains("\"format\": 3"),
        "{text}"
    );
    let opened = open(options(&path));
    assert_eq!(opened.recovered.group, 12);
    check(&opened);
}

#[test]
fn damage_before_whole_groups_is_no_torn_write() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 13);
    let journal = journal(&path);
    let mut bytes = fs::read(&journal).unwrap();
    // Group 12, which is behind the mark; group 13 behind it is intact.
    bytes[sizes[1] + 30] ^= 1;
    let error = open_with(&path, &journal, &bytes, 10)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("from byte {} on it cannot be read", sizes[1])),
        "{error}"
    );
    assert!(error.contains("was written later"), "{error}");
}

const OPEN_COPY: &str = "STORAGE_TEST_COPY";

/// Not a test: opens the copy that the test below damaged, in a separate process.
#[test]
fn child() {
    let Ok(path) = std::env::var(OPEN_COPY) else {
        return;
    };
    match disk::open(options(Path::new(&path)), 9) {
        Ok(opened) => {
            assert!(opened.recovered.group >= 33);
            assert_eq!(opened.recovered.incarnation, super::model::INCARNATION);
            check(&opened);
            println!("exact");
        }
        Err(error) => println!("refused: {error}"),
    }
}

/// The engine trusts some counts in its own files and allocates that much memory at once. If the
/// allocation fails the process aborts, which is acceptable too: it does not serve.
#[test]
fn no_flipped_byte_of_any_other_file_goes_unnoticed() {
    let base = scratch();
    let path = base.path().join("data");
    make(&path, 30);
    // Moves the data to tables, as far as the engine does so.
    {
        let database = fjall::Database::builder(path.join("store")).open().unwrap();
        let keyspace = database.keyspace("state", Default::default).unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    commit_each(options(&path), 33);
    let journal = journal(&path);
    let mut counts = [0; 3];
    for file in files(&path) {
        if file == journal || file.ends_with("lock") {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by((bytes.len() / 24).max(1)) {
            let copied = base.path().join("copy");
            copy(&path, &copied);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(copied.join(file.strip_prefix(&path).unwrap()), damaged).unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["damage::child", "--exact", "--nocapture"])
                .env(OPEN_COPY, &copied)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let failed = output.status.code() == Some(101);
            let place = format!("byte {at} of {}: {text}", file.display());
            assert!(
                !failed,
                "{place}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let outcomes = [
                text.contains("exact"),
                text.contains("refused"),
                output.status.signal().is_some(),
            ];
            for (count, outcome) in counts.iter_mut().zip(outcomes) {
                *count += u32::from(outcome);
            }
            assert!(outcomes.contains(&true), "{place}");
            fs::remove_dir_all(&copied).unwrap();
        }
    }
    let [exact, refused, died] = counts;
    println!("{refused} refused, {exact} opened with all that was written, {died} died");
}
