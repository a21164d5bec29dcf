//! Damaged files and torn writes: a store either opens exactly as it was after some group no older
//! than the last synced one, or is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use horseshoe::protocol::types::message::Group;
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, StorageError, disk};

use super::model::{
    check, copy, directory, group, groups, make, open, options, scratch, segment, size,
};

/// Disables updates of the sync mark, so that it stays where opening left it.
fn unmarked(path: &Path) -> DiskOptions {
    DiskOptions {
        mark_interval: Duration::MAX,
        ..options(path)
    }
}

/// Commits groups one by one, without a clean stop; returns the segment's size before each and
/// after the last.
fn commit_each(options: DiskOptions, to: u64) -> Vec<usize> {
    let path = options.directory.clone();
    let mut opened = open(options);
    let mut sizes = vec![size(&segment(&path))];
    for number in opened.recovered.group + 1..=to {
        opened.storage.commit(&[group(number)]).unwrap();
        sizes.push(size(&segment(&path)));
    }
    sizes
}

/// Opens a copy with one file replaced: it must be refused, or exact and no older than `synced`.
fn open_with(path: &Path, file: &Path, content: &[u8], synced: u64) -> Result<u64, StorageError> {
    let (_base, copied) = scratch();
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
    let log = segment(&path);
    let bytes = fs::read(&log).unwrap();
    // Group 14: groups before and after it are before the mark, and it overwrites keys and is
    // overwritten.
    let range = sizes[3]..sizes[4];
    assert!(range.len() > 100, "{range:?}");
    assert_eq!(open_with(&path, &log, &bytes, marked).unwrap(), 20);
    for at in range {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = open_with(&path, &log, &damaged, marked).expect_err("is refused");
            let text = error.to_string();
            assert!(text.contains("from byte"), "byte {at}: {text}");
        }
    }
}

#[test]
fn no_flipped_byte_of_the_last_groups_makes_a_state_that_never_was() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 12);
    let log = segment(&path);
    let bytes = fs::read(&log).unwrap();
    for at in (sizes[0]..sizes[2]).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        // Data behind the mark may be truncated, as a torn write; a part of a group is never read.
        let _ = open_with(&path, &log, &damaged, 10);
    }
}

#[test]
fn a_torn_write_is_cut_and_what_was_synced_is_there() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 15);
    let log = segment(&path);
    let bytes = fs::read(&log).unwrap();
    // What a power failure leaves of a segment if the last write was in progress: everything that
    // was synced before, and a part of the rest, possibly with holes where a page was not written.
    for (n, ends) in sizes.windows(2).enumerate() {
        let (synced, end) = (ends[0], ends[1]);
        let group = 10 + n as u64;
        assert_eq!(
            open_with(&path, &log, &bytes[..synced], group).unwrap(),
            group
        );
        for torn in (synced + 1..end).step_by(3) {
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
                let opened = open_with(&path, &log, torn, group).unwrap();
                // The end of a batch may be zeros.
                assert!(
                    opened == group || (opened == group + 1 && torn.starts_with(&bytes[..end]))
                );
            }
        }
    }
}

#[test]
fn a_cut_is_told_and_the_store_goes_on() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 12);
    let log = segment(&path);
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..sizes[2] - 5]).unwrap();
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
    let look_alike = fs::read(segment(&other)).unwrap();
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
    let log = segment(&path);
    let bytes = fs::read(&log).unwrap();
    let at = bytes
        .windows(look_alike.len())
        .position(|part| part == look_alike)
        .expect("the value is in the log");
    // The end of the batch was not written to the disk.
    let torn = &bytes[..at + look_alike.len() + 3];
    assert_eq!(open_with(&path, &log, torn, 10).unwrap(), 10);
}

#[test]
fn damage_before_whole_groups_is_no_torn_write() {
    let (_base, path) = directory();
    make(&path, 10);
    let sizes = commit_each(unmarked(&path), 13);
    let log = segment(&path);
    let mut bytes = fs::read(&log).unwrap();
    // Group 12, which is behind the mark; group 13 behind it is intact.
    bytes[sizes[1] + 30] ^= 1;
    let error = open_with(&path, &log, &bytes, 10).unwrap_err().to_string();
    assert!(
        error.contains(&format!("from byte {} on it cannot be read", sizes[1])),
        "{error}"
    );
    assert!(error.contains("was written later"), "{error}");
}
