//! Groups that are generated from their number, and the content that a store with these groups must
//! have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::{Configuration, Group, Member, Meta};
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Durability, Opened, StoreSizes, Table, disk};
use tempfile::TempDir;

pub const INCARNATION: u64 = 0x1111;
/// A bound for steps that take a second.
pub const PATIENCE: Duration = Duration::from_secs(120);
const KEYS: u64 = 7;
const KEYS_SLOW: u64 = 8;

/// Segments have the length of their content.
pub const SIZES: StoreSizes = StoreSizes {
    segment: 1 << 20,
    ahead: 0,
    part: 1 << 20,
    log: 4 << 20,
    changes: 1 << 20,
};

/// Sizes with which a few groups make checkpoints of several parts.
pub const TINY: StoreSizes = StoreSizes {
    segment: 700,
    ahead: 0,
    part: 150,
    log: 1_000,
    changes: 500,
};

pub fn list() -> Vec<String> {
    ["a:1", "b:1", "c:1"].map(String::from).to_vec()
}

pub fn options(directory: &Path) -> DiskOptions {
    DiskOptions {
        boot_id: Some("first boot".into()),
        mark_interval: Duration::ZERO,
        sizes: Some(SIZES),
        ..DiskOptions::new(directory, list(), 1, Durability::Fsync)
    }
}

pub fn os_options(directory: &Path) -> DiskOptions {
    DiskOptions {
        durability: Durability::Os,
        ..options(directory)
    }
}

/// Opens a store that must open.
pub fn open(options: DiskOptions) -> Opened {
    disk::open(options, INCARNATION).expect("opens")
}

/// In memory, if the machine has such a place: for many small stores.
pub fn scratch() -> (TempDir, PathBuf) {
    let base = TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap());
    let path = base.path().join("data");
    (base, path)
}

pub fn directory() -> (TempDir, PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("data");
    (base, path)
}

fn key(n: u64) -> Key {
    Key::user(format!("key {}", n % KEYS).as_bytes())
}

fn slow_key(n: u64) -> Key {
    Key::user(format!("slow key {}", n % KEYS_SLOW).as_bytes())
}

/// A group that overwrites and drops keys of earlier groups, so that an older state would be
/// detected.
pub fn group(number: u64) -> Group {
    let state = |n: u64| AcceptorState {
        promised: Ballot(n * 10 + 1),
        accepted: Ballot(n * 10),
        chosen: false,
        record: Some(Arc::new(Record {
            value: (n % 5 != 4).then(|| Bytes::from(format!("value {n}"))),
            version: n,
            ..Record::default()
        })),
        life: (n / 6) as u32,
    };
    let previous = number.saturating_sub(1);
    let mut group = Group {
        number,
        registers: vec![
            (key(number), state(number)),
            (key(number + 3), state(number)),
        ],
        chosen: vec![(key(previous), Ballot(previous * 10))],
        meta: number.is_multiple_of(4).then(|| meta(number)),
        ..Group::default()
    };
    if number.is_multiple_of(3) {
        let dropped = key(number + 5);
        // A chosen mark for a dropped key has no effect.
        group.chosen.push((dropped.clone(), Ballot(number * 10)));
        group.dropped.push(dropped);
    }
    group
}

pub fn groups(numbers: std::ops::RangeInclusive<u64>) -> Vec<Group> {
    numbers.map(group).collect()
}

fn meta(number: u64) -> Meta {
    let member = |node, address: &str| Member {
        node,
        incarnation: INCARNATION,
        address: address.into(),
        ..Member::default()
    };
    Meta {
        ceiling: number * 100,
        bound_to: Some(number),
        configuration: Some(Configuration {
            cluster: 77,
            epoch: 1,
            members: vec![member(1, "a:1"), member(2, "b:1"), member(3, "c:1")],
            formed_by: 1,
            ids: 3,
            ..Configuration::default()
        }),
        incarnation: number + 1,
        life: (number / 6) as u32,
        floor: Ballot(number),
        starts: number + 2,
        former: [(4, format!("d:{number}"))].into(),
        ..Meta::default()
    }
}

/// Checks that a store contains exactly the groups up to the number that it reports.
pub fn check(opened: &Opened) {
    let number = opened.recovered.group;
    let mut table = Table::default();
    for group in groups(1..=number) {
        table.apply(&group);
    }
    assert_eq!(opened.table.keys(), table.keys(), "keys after {number}");
    let digests = &opened.recovered.digests;
    assert_eq!(digests, &table.digests(), "digests after {number}");
    for key in (0..KEYS).map(key).chain((0..KEYS_SLOW).map(slow_key)) {
        let (found, expected) = (opened.table.load(&key), table.load(&key));
        assert_eq!(found, expected, "{key:?} after group {number}");
    }
    let expected = number - number % 4;
    let expected = if expected == 0 {
        Meta::default()
    } else {
        meta(expected)
    };
    assert_eq!(opened.recovered.meta, expected, "meta after group {number}");
}

/// A store with the groups up to `number`, stopped cleanly.
pub fn make(directory: &Path, number: u64) {
    let mut opened = open(options(directory));
    for group in groups(1..=number) {
        opened.storage.commit(&[group]).unwrap();
    }
    opened.storage.close().unwrap();
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The newest log segment.
pub fn segment(directory: &Path) -> PathBuf {
    numbered(directory, "log").pop().expect("a segment")
}

/// The files of the store with this extension, in order of number.
pub fn numbered(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut paths = files(&directory.join("store"));
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort_by_key(number);
    paths
}

/// Tends a store until a checkpoint that began has ended, with the list of parts that it made.
pub fn tend_until(opened: &mut Opened, mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < PATIENCE);
        opened.storage.tend().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    opened.storage.tend().unwrap();
}

pub fn size(path: &Path) -> usize {
    usize::try_from(fs::metadata(path).unwrap().len()).unwrap()
}

/// All files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
