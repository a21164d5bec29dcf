//! Keys that were dropped give their space on disk back, and commits go on meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::protocol::ballot::Ballot;
use horseshoe::protocol::message::Group;
use horseshoe::protocol::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Opened};

use super::model::{directory, files, open, os_options};

const KEYS: u64 = 200_000;
const KEYS_KEPT: u64 = 2_000;
const KEYS_PER_GROUP: u64 = 1_000;
/// A bound for what takes a second or two.
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

/// What the files of the store take on the disk.
fn size_on_disk(path: &Path) -> u64 {
    let sizes = files(&path.join("store")).into_iter();
    let sizes = sizes.filter_map(|file| file.metadata().ok());
    sizes.map(|metadata| metadata.blocks() * 512).sum()
}

fn options(path: &Path) -> DiskOptions {
    DiskOptions {
        compact_after: Duration::ZERO,
        ..os_options(path)
    }
}

/// Commits one more group that `fill` makes; gives how long that took.
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
            // Not to be compressed away.
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

#[test]
fn dropped_keys_give_their_space_back_while_commits_go_on() {
    let (_base, path) = directory();
    let mut opened = open(options(&path));
    put(&mut opened, &keys(0, KEYS_KEPT), Some(&[1; 100]));
    let all = keys(KEYS_KEPT, KEYS);
    put(&mut opened, &all, Some(&[1; 100]));
    let full = size_on_disk(&path);
    assert!(full > KEYS * 116, "{full}");
    put(&mut opened, &all, None);
    drop_keys(&mut opened, &all);
    let before = size_on_disk(&path);
    let (start, mut slowest, mut slowest_tend) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    let mut tick = 0;
    while size_on_disk(&path) > full / 10 {
        assert!(start.elapsed() < PATIENCE, "{} bytes", size_on_disk(&path));
        let tend = Instant::now();
        opened.storage.tend().unwrap();
        slowest_tend = slowest_tend.max(tend.elapsed());
        tick += 1;
        slowest = slowest.max(commit(&mut opened, |group| {
            let state = state(10 * group.number, None);
            group.registers.push((key(KEYS + tick % 10), state));
        }));
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{full} bytes full, {before} once dropped, {} after {:?}; a commit took {slowest:?} at \
         most, tending {slowest_tend:?}",
        size_on_disk(&path),
        start.elapsed()
    );
    let live = opened.table;
    drop(opened.storage);
    let opened = open(options(&path));
    assert_eq!(opened.table.keys(), KEYS_KEPT);
    assert_eq!(opened.table.digests(), live.digests());
    assert_eq!(opened.recovered.digests, live.digests());
}
