//! Dropped keys free their space on disk, and commits continue meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::Group;
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Opened};

use super::model::{directory, files, open, os_options};

const KEYS_KEPT: u64 = 2_000;
const KEYS_PER_GROUP: u64 = 1_000;
/// A bound for steps that take a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

fn key(n: u64) -> Key {
    Key::user(format!("key {n:012}").as_bytes())
}

/// In an order that is not that of the keys.
fn keys(from: u64, to: u64) -> Vec<Key> {
    let mut keys: Vec<Key> = (from..to).map(key).collect();
    keys.sort_by_key(|key| xxhash_rust::xxh3::xxh3_64(key.as_bytes()));
    keys
}

fn state(ballot: u64, value: Option<Bytes>) -> AcceptorState {
    AcceptorState {
        promised: Ballot(ballot + 1),
        accepted: Ballot(ballot),
        chosen: true,
        record: Some(Arc::new(Record {
            value,
            version: ballot,
            ..Record::default()
        })),
        life: 1,
    }
}

/// The disk space of the store's files.
fn size_on_disk(path: &Path) -> u64 {
    let sizes = files(&path.join("store")).into_iter();
    let sizes = sizes.filter_map(|file| file.metadata().ok());
    sizes.map(|metadata| metadata.blocks() * 512).sum()
}

fn options(path: &Path) -> DiskOptions {
    DiskOptions {
        free_after: Duration::ZERO,
        ..os_options(path)
    }
}

/// Commits one more group that `fill` makes; returns how long that took.
fn commit(opened: &mut Opened, fill: impl FnOnce(&mut Group)) -> Duration {
    opened.recovered.group += 1;
    let mut group = Group {
        number: opened.recovered.group,
        ..Group::default()
    };
    fill(&mut group);
    opened.table.apply(&group);
    let start = Instant::now();
    opened.storage.commit(&[group]).unwrap();
    start.elapsed()
}

fn put(opened: &mut Opened, keys: &[Key], value: Option<&[u8]>) {
    for keys in keys.chunks(KEYS_PER_GROUP as usize) {
        commit(opened, |group| {
            let ballot = 10 * group.number;
            // Data that cannot be compressed.
            let noise = |key: &Key| xxhash_rust::xxh3::xxh3_128(key.as_bytes()).to_le_bytes();
            let value = |key: &Key| value.map(|v| Bytes::from([&noise(key), v].concat()));
            let states = keys
                .iter()
                .map(|key| (key.clone(), state(ballot, value(key))));
            group.registers = states.collect();
        });
    }
}

fn drop_keys(opened: &mut Opened, keys: &[Key]) {
    for keys in keys.chunks(KEYS_PER_GROUP as usize) {
        commit(opened, |group| group.dropped = keys.to_vec());
    }
}

/// Otherwise a node that is filled at once, on a slow disk, has no reserve when it is full.
#[test]
fn a_new_store_has_its_reserve_before_the_first_commit() {
    let (_keep, path) = directory();
    let reserve = Some(1 << 20);
    let opened = open(DiskOptions {
        reserve,
        ..options(&path)
    });
    assert!(path.join("reserve").exists());
    drop(opened);
}

/// A store whose keys were all dropped except for a few, and its earlier size on disk.
fn make(path: &Path, keys_max: u64) -> (Opened, u64) {
    let mut opened = open(options(path));
    put(&mut opened, &keys(0, KEYS_KEPT), Some(&[1; 100]));
    let all = keys(KEYS_KEPT, keys_max);
    put(&mut opened, &all, Some(&[1; 100]));
    let full = size_on_disk(path);
    assert!(full > keys_max * 116, "{full}");
    put(&mut opened, &all, None);
    drop_keys(&mut opened, &all);
    assert!(size_on_disk(path) > full / 2);
    (opened, full)
}

/// Runs the store's maintenance until the store takes a tenth of its earlier size, and commits
/// meanwhile.
fn tend(opened: &mut Opened, path: &Path, full: u64) {
    let (start, mut commit_max, mut tend_max) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    while size_on_disk(path) > full / 10 {
        assert!(start.elapsed() < PATIENCE, "{} bytes", size_on_disk(path));
        let tending = Instant::now();
        opened.storage.tend().unwrap();
        tend_max = tend_max.max(tending.elapsed());
        let took = commit(opened, |group| {
            let state = state(10 * group.number, None);
            group
                .registers
                .push((key(u64::MAX - group.number % 10), state));
        });
        commit_max = commit_max.max(took);
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "of {full} bytes {} are left after {:?}; a commit took {commit_max:?} at most, tending \
         {tend_max:?}",
        size_on_disk(path),
        start.elapsed()
    );
}

/// The content, also after a restart, is exactly what was not dropped.
fn check_after_restart(opened: Opened, path: &Path) {
    let live = opened.table;
    drop(opened.storage);
    let opened = open(options(path));
    assert_eq!(opened.table.keys(), KEYS_KEPT);
    assert_eq!(opened.table.digests(), live.digests());
    assert_eq!(opened.recovered.digests, live.digests());
}

#[test]
fn dropped_keys_give_their_space_back_while_commits_go_on() {
    let (_base, path) = directory();
    let (mut opened, full) = make(&path, 200_000);
    tend(&mut opened, &path, full);
    check_after_restart(opened, &path);
}

#[test]
fn a_store_that_was_stopped_before_it_gave_space_back_does_so_once_it_is_opened() {
    let (_base, path) = directory();
    let (opened, full) = make(&path, 100_000);
    opened.storage.close().unwrap();
    let mut opened = open(options(&path));
    tend(&mut opened, &path, full);
    check_after_restart(opened, &path);
}

/// At any moment the files are consistent, and closing waits until a checkpoint was given up.
#[test]
fn a_stop_during_a_checkpoint_loses_nothing() {
    let (_base, path) = directory();
    let (mut opened, _) = make(&path, 100_000);
    opened.storage.tend().unwrap();
    let last = opened.recovered.group;
    opened.storage.close().unwrap();
    let opened = open(options(&path));
    assert_eq!(
        (opened.recovered.group, opened.table.keys()),
        (last, KEYS_KEPT)
    );
}
