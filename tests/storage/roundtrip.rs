//! A reopened store contains what was committed; how the last run ended decides whether the state
//! counts (E1).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::{Configuration, Group, Member, Meta, Recovered};
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Durability, Opened, Table, disk, memory};
use proptest::prelude::*;

use super::model::{
    INCARNATION, check, directory, group, groups, list, make, numbered, open, options, os_options,
    tend_until,
};

#[test]
fn a_new_store_has_the_fresh_incarnation_and_keeps_it() {
    let (_base, path) = directory();
    let opened = open(options(&path));
    let fresh = Recovered {
        incarnation: INCARNATION,
        ..Recovered::default()
    };
    assert_eq!(opened.recovered, fresh);
    assert_eq!(opened.notes, Vec::<String>::new());
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    // Durable before open returns: nothing was committed or closed.
    drop(opened);
    let opened = disk::open(options(&path), 9).unwrap();
    assert_eq!(opened.recovered, fresh);
}

#[test]
fn what_was_committed_comes_back_after_a_close_and_after_none() {
    let (_base, path) = directory();
    let mut next = 1;
    for clean in [true, false, true, true, false] {
        let mut opened = disk::open(options(&path), 9 + next).unwrap();
        check(&opened);
        if next > 1 {
            assert_eq!(opened.recovered.group, next - 1);
            assert_eq!(opened.recovered.incarnation, 10);
        }
        for _ in 0..3 {
            // Several groups in one commit that write the same keys: the last one counts.
            opened.storage.commit(&groups(next..=next + 6)).unwrap();
            opened.storage.commit(&[group(next + 7)]).unwrap();
            next += 8;
        }
        opened.storage.commit(&[]).unwrap();
        if clean {
            opened.storage.close().unwrap();
        }
    }
    let opened = open(options(&path));
    assert_eq!(opened.recovered.group, next - 1);
    check(&opened);
}

#[test]
#[should_panic(expected = "groups come in order of number")]
fn a_group_number_never_goes_back() {
    let (_base, path) = directory();
    let mut opened = open(options(&path));
    opened.storage.commit(&[group(2)]).unwrap();
    let _ = opened.storage.commit(&[group(2)]);
}

#[test]
fn the_identity_file_tells_a_reader_what_it_is() {
    let (_base, path) = directory();
    make(&path, 3);
    let text = fs::read_to_string(path.join("identity")).unwrap();
    for expected in [
        "\"format\": 4",
        "\"incarnation\": 4369",
        "\"salt\": ",
        "\"index\": 1",
        "\"durability\": \"fsync\"",
        "\"clean_stop\": true",
        "\"boot_id\": \"first boot\"",
        "\"cluster\": null",
        "\"address\": null",
        "\"b:1\"",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let mut opened = open(options(&path));
    let text = fs::read_to_string(path.join("identity")).unwrap();
    assert!(text.contains("\"clean_stop\": false"), "{text}");
    // The fourth group contains a configuration.
    opened.storage.commit(&[group(4)]).unwrap();
    let text = fs::read_to_string(path.join("identity")).unwrap();
    assert!(text.contains("\"cluster\": 77") && text.contains("\"node\": 2"));
}

/// A key's state of number `n`.
fn state(n: u64) -> AcceptorState {
    AcceptorState {
        promised: Ballot(n + 1),
        accepted: Ballot(n),
        record: Some(Arc::new(Record::default())),
        ..AcceptorState::default()
    }
}

#[test]
fn a_dropped_key_leaves_nothing_and_may_be_written_again() {
    let key = Key::user(b"k");
    let write = |number| Group {
        number,
        registers: vec![(key.clone(), state(number))],
        chosen: vec![(key.clone(), Ballot(number))],
        ..Group::default()
    };
    let drop = |number| Group {
        number,
        dropped: vec![key.clone()],
        chosen: vec![(key.clone(), Ballot(number))],
        ..Group::default()
    };
    let late_mark = |number| Group {
        chosen: vec![(key.clone(), Ballot(number))],
        number,
        ..Group::default()
    };
    // One key per commit, with a restart after each.
    let (_base, path) = directory();
    for (groups, expected) in [
        (vec![write(1)], Some(1)),
        (vec![drop(2)], None),
        (vec![write(3), drop(4)], None),
        (vec![drop(5), write(6)], Some(6)),
        (vec![drop(7), late_mark(8)], None),
        (vec![write(9), drop(10), write(11)], Some(11)),
        (vec![write(12), drop(13), write(14), drop(15)], None),
    ] {
        let mut opened = open(options(&path));
        opened.storage.commit(&groups).unwrap();
        groups.iter().for_each(|group| opened.table.apply(group));
        let live = opened.table;
        std::mem::drop(opened.storage);
        let opened = open(options(&path));
        let held = opened.table.load(&key);
        assert_eq!(held.as_ref().map(|state| state.accepted.0), expected);
        assert!(held.as_ref().is_none_or(|state| state.chosen));
        assert_eq!(held, live.load(&key));
        assert_eq!(opened.recovered.digests, live.digests());
    }
}

#[test]
#[should_panic(expected = "writes a key or drops it")]
fn a_group_does_not_write_what_it_drops() {
    let (_base, path) = directory();
    let mut opened = open(options(&path));
    let key = Key::user(b"k");
    let group = Group {
        number: 1,
        registers: vec![(key.clone(), state(1))],
        dropped: vec![key],
        ..Group::default()
    };
    let _ = opened.storage.commit(&[group]);
}

#[test]
fn once_the_configuration_was_changed_any_list_that_names_the_address_will_do() {
    let (_base, path) = directory();
    let started_as = |list: &[&str], index| DiskOptions {
        list: list.iter().map(|address| address.to_string()).collect(),
        index,
        ..options(&path)
    };
    let configuration = |epoch, members: &[(u8, &str)]| Configuration {
        epoch,
        members: nodes(members),
        ..Configuration::default()
    };
    let commit = |opened: &mut Opened, number, configuration| {
        let meta = Meta {
            configuration: Some(configuration),
            ..Meta::default()
        };
        let group = Group {
            number,
            meta: Some(meta),
            ..Group::default()
        };
        opened.storage.commit(&[group]).unwrap();
    };
    let mut opened = open(options(&path));
    commit(
        &mut opened,
        1,
        configuration(1, &[(1, "a:1"), (2, "b:1"), (3, "c:1")]),
    );
    drop(opened);
    let new_list = || started_as(&["b:1", "c:1", "d:1"], 0);
    let error = disk::open(new_list(), 9).unwrap_err().to_string();
    assert!(error.contains("a:1,b:1,c:1"), "{error}");
    // A non-member has an address too.
    let mut removed = configuration(3, &[(3, "c:1"), (4, "d:1")]);
    removed.away = nodes(&[(2, "b:1")]);
    let mut opened = open(options(&path));
    commit(&mut opened, 2, removed);
    drop(opened);
    for start in [new_list(), options(&path), started_as(&["d:1", "b:1"], 1)] {
        let opened = open(start);
        assert_eq!(opened.recovered.group, 2);
    }
    for (list, index) in [(["b:1", "c:1", "d:1"], 2), (["a:1", "b:1", "c:1"], 0)] {
        let error = disk::open(started_as(&list, index), 9)
            .unwrap_err()
            .to_string();
        let given = format!("started as {}", list[usize::from(index)]);
        for part in [path.to_str().unwrap(), "node 2", "is b:1", &given] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}

fn nodes(named: &[(u8, &str)]) -> Vec<Member> {
    let member = |(node, address): &(u8, &str)| Member {
        node: *node,
        address: address.to_string(),
        ..Member::default()
    };
    named.iter().map(member).collect()
}

#[test]
fn a_run_under_os_that_ended_with_the_machine_counts_as_no_state() {
    let (_base, path) = directory();
    let other_boot = |durability| DiskOptions {
        boot_id: Some("second boot".into()),
        durability,
        ..options(&path)
    };
    let mut lost = 0;
    // The last run's durability counts, not this one's.
    for (next, clean, kept) in [
        (Durability::Os, true, true),
        (Durability::Os, false, false),
        (Durability::Fsync, false, false),
        (Durability::Fsync, true, true),
    ] {
        let mut opened = open(os_options(&path));
        let from = opened.recovered.group + 1;
        opened.storage.commit(&groups(from..=from + 4)).unwrap();
        if clean {
            opened.storage.close().unwrap();
        } else {
            drop(opened);
        }
        let opened = disk::open(other_boot(next), INCARNATION + 1 + lost).unwrap();
        let text = opened.notes.join("\n");
        if kept {
            assert_eq!(opened.recovered.group, from + 4);
            check(&opened);
            assert_eq!(text, "");
        } else {
            lost += 1;
            let fresh = Recovered {
                incarnation: INCARNATION + lost,
                ..Recovered::default()
            };
            assert_eq!((&opened.recovered, opened.table.keys()), (&fresh, 0));
            assert!(text.contains("IS NOT USED"), "{text}");
            let aside = format!("store.lost-{lost}");
            assert!(text.contains(&aside) && path.join(aside).is_dir(), "{text}");
        }
        // So that the next iteration begins from a run that ended cleanly.
        opened.storage.close().unwrap();
    }
}

#[test]
fn a_run_under_fsync_may_end_with_the_machine() {
    let (_base, path) = directory();
    let mut opened = open(options(&path));
    opened.storage.commit(&groups(1..=5)).unwrap();
    drop(opened);
    for durability in [Durability::Fsync, Durability::Os] {
        let options = DiskOptions {
            boot_id: None,
            durability,
            ..options(&path)
        };
        let opened = disk::open(options, 9).unwrap();
        assert_eq!(opened.recovered.incarnation, INCARNATION);
        check(&opened);
    }
    // That last run was one under `os`.
    let lost = disk::open(options(&path), 9).unwrap();
    assert_eq!(lost.recovered.incarnation, 9);
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_anew() {
    let (_base, path) = directory();
    drop(open(options(&path)));
    let identity = path.join("identity");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("\"made\": true", "\"made\": false")).unwrap();
    let opened = disk::open(options(&path), 9).unwrap();
    assert_eq!(opened.recovered.incarnation, 9);
    assert!(path.join("store.lost-1").is_dir() && path.join("mark.lost-1").is_file());
}

/// Enough data for many segments and for checkpoints.
#[test]
fn a_store_larger_than_its_log_comes_back() {
    let (_base, path) = directory();
    let mut opened = open(os_options(&path));
    let mut expected = Table::default();
    for number in 1..=200 {
        let state = AcceptorState {
            accepted: Ballot(number),
            record: Some(Arc::new(Record {
                value: Some(noise(number, 10_000)),
                ..Record::default()
            })),
            ..AcceptorState::default()
        };
        let name = |n| Key::user(format!("{}", (number * 11 + n) % 300).as_bytes());
        let group = Group {
            number,
            registers: (0..10).map(|n| (name(n), state.clone())).collect(),
            ..Group::default()
        };
        opened.storage.commit(std::slice::from_ref(&group)).unwrap();
        opened.storage.tend().unwrap();
        expected.apply(&group);
    }
    tend_until(&mut opened, || log_size(&path) < 6 << 20);
    drop(opened);
    assert!(numbered(&path, "part").len() > 3);
    let opened = open(options(&path));
    assert_eq!((opened.recovered.group, opened.table.keys()), (200, 300));
    for n in 0..300 {
        let key = Key::user(format!("{n}").as_bytes());
        assert!(opened.table.load(&key) == expected.load(&key), "key {n}");
    }
}

/// A checkpoint may delete a file meanwhile.
fn log_size(path: &Path) -> u64 {
    let files = numbered(path, "log").into_iter();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

fn noise(seed: u64, size: usize) -> Bytes {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn a_memory_store_keeps_nothing() {
    let mut opened = memory::open(5);
    assert_eq!(opened.recovered.incarnation, 5);
    opened.storage.commit(&groups(1..=3)).unwrap();
    opened.storage.close().unwrap();
}

#[test]
fn the_kernels_boot_id_is_used_unless_given() {
    let (_base, path) = directory();
    let options = DiskOptions::new(&path, list(), 0, Durability::Os);
    assert_eq!(options.boot_id, horseshoe::storage::kernel_boot_id());
    assert!(options.boot_id.is_some_and(|id| id.len() > 8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Any sequence of commits, with any number of groups each, and with both kinds of ends.
    #[test]
    fn any_run_comes_back(
        runs in prop::collection::vec(
            (prop::collection::vec(0u64..5, 0..6), any::<bool>(), any::<bool>()),
            1..5,
        ),
    ) {
        let (_base, path) = directory();
        let mut last = 0;
        for (commits, clean, os) in runs {
            let options = if os { os_options(&path) } else { options(&path) };
            let mut opened = open(options);
            prop_assert_eq!(opened.recovered.group, last);
            check(&opened);
            for count in commits {
                opened.storage.commit(&groups(last + 1..=last + count)).unwrap();
                last += count;
            }
            if clean {
                opened.storage.close().unwrap();
            }
        }
        check(&open(options(&path)));
    }
}
