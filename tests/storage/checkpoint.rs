//! Checkpoints: with sizes so small that a few groups make several parts, a store is always exactly
//! what its groups make it, and its files stay small.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::{Group, Meta};
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Opened, StoreSizes, Table, disk};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{
    TINY, check, copy, files, group, numbered, open, options, os_options, scratch, tend_until,
};

const KEYS: u64 = 150;

fn tiny(path: &Path) -> DiskOptions {
    DiskOptions {
        sizes: Some(TINY),
        ..os_options(path)
    }
}

fn key(n: u64) -> Key {
    Key::user(format!("key {n}").as_bytes())
}

/// A group with any kind of change; chosen marks of ballots that count, and of others.
fn random_group(random: &mut StdRng, number: u64, table: &Table) -> Group {
    let mut group = Group {
        number,
        ..Group::default()
    };
    let mut written = Vec::new();
    for _ in 0..random.random_range(0..6) {
        let n = random.random_range(0..KEYS);
        let ballot = Ballot(10 * number + random.random_range(0..3));
        let value = vec![number as u8; random.random_range(0..60)];
        let record = Record {
            value: (!random.random_ratio(1, 4)).then(|| Bytes::from(value)),
            version: number,
            expiry_ms: random.random_ratio(1, 3).then_some(number),
            ..Record::default()
        };
        let state = AcceptorState {
            promised: Ballot(ballot.0 + 1),
            accepted: ballot,
            chosen: random.random_ratio(1, 5),
            record: (!random.random_ratio(1, 6)).then(|| Arc::new(record)),
            life: random.random_range(0..3),
        };
        group.registers.push((key(n), state));
        written.push(n);
    }
    for _ in 0..random.random_range(0..4) {
        let n = random.random_range(0..KEYS);
        if !written.contains(&n) && random.random_ratio(1, 3) {
            group.dropped.push(key(n));
        }
        let state = table.load(&key(n));
        let ballot = state.map_or(Ballot(number), |state| state.accepted);
        let other = u64::from(random.random_ratio(1, 3));
        group.chosen.push((key(n), Ballot(ballot.0 + other)));
    }
    if random.random_ratio(1, 7) {
        group.meta = Some(Meta {
            ceiling: number,
            ..Meta::default()
        });
    }
    group
}

#[track_caller]
fn assert_is(opened: &Opened, expected: &Table, meta: &Meta, number: u64) {
    assert_eq!(opened.recovered.group, number);
    assert_eq!(&opened.recovered.meta, meta);
    for n in 0..KEYS {
        let (found, expected) = (opened.table.load(&key(n)), expected.load(&key(n)));
        assert_eq!(found, expected, "key {n} after group {number}");
    }
    assert_eq!(opened.table.keys(), expected.keys());
    assert_eq!(opened.table.records(), expected.records());
    assert_eq!(opened.recovered.digests, expected.digests());
}

#[test]
fn any_groups_with_checkpoints_and_restarts_at_any_moment_come_back() {
    let mut parts_max = 0;
    for seed in 0..6 {
        let (_base, path) = scratch();
        let mut random = StdRng::seed_from_u64(seed);
        let (mut expected, mut meta) = (Table::default(), Meta::default());
        let mut opened = open(tiny(&path));
        for number in 1..=700 {
            let group = random_group(&mut random, number, &expected);
            expected.apply(&group);
            meta = group.meta.clone().unwrap_or(meta);
            opened.storage.commit(&[group]).unwrap();
            if random.random_ratio(1, 2) {
                opened.storage.tend().unwrap();
            }
            if random.random_ratio(1, 20) {
                std::thread::sleep(Duration::from_millis(random.random_range(0..8)));
            }
            if random.random_ratio(1, 25) {
                match random.random_ratio(1, 2) {
                    true => opened.storage.close().unwrap(),
                    false => drop(opened.storage),
                }
                opened = open(tiny(&path));
                assert_is(&opened, &expected, &meta, number);
                parts_max = parts_max.max(numbered(&path, "part").len());
            }
        }
    }
    assert!(parts_max > 30, "at most {parts_max} parts");
}

/// A store of several parts and segments, stopped cleanly: the groups of the model.
fn make_parts(path: &Path, number: u64) {
    let options = DiskOptions {
        sizes: Some(TINY),
        ..options(path)
    };
    let mut opened = open(options);
    for number in opened.recovered.group + 1..=number {
        opened.storage.commit(&[group(number)]).unwrap();
        opened.storage.tend().unwrap();
    }
    tend_until(&mut opened, || numbered(path, "part").len() > 1);
    opened.storage.close().unwrap();
}

/// Opens a copy of the directory after a change of it: true if it is refused; else it must be
/// complete.
fn is_refused(path: &Path, number: u64, change: impl FnOnce(&Path)) -> bool {
    let (_base, copied) = scratch();
    copy(path, &copied);
    change(&copied);
    let Ok(opened) = disk::open(tiny(&copied), 9) else {
        return true;
    };
    assert_eq!(opened.recovered.group, number);
    check(&opened);
    false
}

#[test]
fn no_flipped_byte_of_any_file_goes_unnoticed() {
    let (_base, path) = scratch();
    make_parts(&path, 40);
    for file in files(&path) {
        if file.ends_with("lock") {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let inner = file.strip_prefix(&path).unwrap();
        let step = if file.ends_with("mark") { 7 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let refused = is_refused(&path, 40, |copied| {
                fs::write(copied.join(inner), damaged).unwrap();
            });
            assert!(
                refused || !inner.starts_with("store"),
                "byte {at} of {}",
                inner.display()
            );
        }
    }
}

/// Without the zeros of the space that is allocated ahead.
fn content(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(written.map_or(0, |last| last + 1));
    bytes
}

#[test]
fn a_file_that_is_missing_older_or_of_another_directory_is_noticed() {
    let (_base, path) = scratch();
    let (_other_base, other) = scratch();
    make_parts(&other, 43);
    let mut older = Vec::new();
    for number in [8, 20, 31, 43] {
        make_parts(&path, number);
        let (base, copied) = scratch();
        copy(&path, &copied);
        older.push((base, copied));
    }
    let mut refused = 0;
    for file in files(&path.join("store")) {
        let inner = file.strip_prefix(&path).unwrap();
        let shown = inner.display();
        let is_gone = is_refused(&path, 43, |copied| {
            fs::remove_file(copied.join(inner)).unwrap();
        });
        // A newest segment with only its head, of 48 bytes, has nothing that could be missing.
        let is_blank = inner.extension().is_some_and(|e| e == "log") && content(&file).len() <= 48;
        assert!(is_gone || is_blank, "{shown} is missing");
        let elsewhere = older.iter().map(|(_, path)| path).chain([&other]);
        let same_name = elsewhere.map(|from| from.join(inner));
        let extension = file.extension().and_then(|extension| extension.to_str());
        let same_kind = extension.map_or(vec![], |extension| numbered(&path, extension));
        for from in same_name.chain(same_kind) {
            if !from.exists() || content(&from) == content(&file) {
                continue;
            }
            let is_noticed = is_refused(&path, 43, |copied| {
                fs::copy(&from, copied.join(inner)).unwrap();
            });
            assert!(is_noticed, "{} in place of {shown}", from.display());
            refused += 1;
        }
    }
    assert!(refused > 5, "{refused} exchanges");
    // Files that no longer count change nothing.
    for (_, from) in &older {
        let is_noticed = is_refused(&path, 43, |copied| {
            for file in files(&from.join("store")) {
                let to = copied.join(file.strip_prefix(from).unwrap());
                if !to.exists() {
                    fs::copy(&file, to).unwrap();
                }
            }
        });
        assert!(!is_noticed, "{}", from.display());
    }
}

/// An older list of parts, or older parts with an older list, even if all files that they name are
/// there.
#[test]
fn an_older_store_under_a_newer_mark_is_noticed() {
    let (_base, path) = scratch();
    make_parts(&path, 20);
    let (_older_base, older) = scratch();
    copy(&path, &older);
    make_parts(&path, 43);
    let is_noticed = is_refused(&path, 43, |copied| {
        fs::remove_dir_all(copied.join("store")).unwrap();
        copy(&older.join("store"), &copied.join("store"));
    });
    assert!(is_noticed);
}

fn size_of_files(path: &Path) -> u64 {
    let sizes = files(&path.join("store")).into_iter();
    sizes
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

#[test]
fn a_long_run_of_overwrites_takes_little_more_than_twice_the_data() {
    const KEYS: u64 = 8_000;
    const PER_GROUP: u64 = 50;
    let sizes = StoreSizes {
        segment: 64 << 10,
        ahead: 0,
        part: 128 << 10,
        log: 128 << 10,
        changes: 64 << 10,
    };
    let (_base, path) = scratch();
    let mut opened = open(DiskOptions {
        sizes: Some(sizes),
        ..os_options(&path)
    });
    let (mut peak, mut written) = (0, 0);
    for number in 1..=10 * KEYS / PER_GROUP {
        let state = AcceptorState {
            accepted: Ballot(number),
            record: Some(Arc::new(Record {
                value: Some(Bytes::from(vec![number as u8; 100])),
                ..Record::default()
            })),
            ..AcceptorState::default()
        };
        let first = number * PER_GROUP;
        let keys = (first..first + PER_GROUP).map(|n| key(n % KEYS));
        let group = Group {
            number,
            registers: keys.map(|key| (key, state.clone())).collect(),
            ..Group::default()
        };
        written += opened
            .storage
            .commit(&[group])
            .map(|()| 150 * PER_GROUP)
            .unwrap();
        opened.storage.tend().unwrap();
        // Slower than the checkpoint, by far.
        std::thread::sleep(Duration::from_millis(2));
        if number > 2 * KEYS / PER_GROUP {
            peak = peak.max(size_of_files(&path));
        }
    }
    let live: u64 = numbered(&path, "part")
        .iter()
        .map(|part| part.metadata().unwrap().len())
        .sum();
    println!("{written} bytes written, {live} in parts, at most {peak} on disk");
    assert!(live > KEYS * 130 && written > 8 * live);
    assert!(peak * 2 < live * 5, "{peak} bytes for {live}");
}
