use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::types::limits::{KEYS_SIZE_MAX, RECORD_PACKED_SIZE_MAX};
use crate::protocol::types::message::Configuration;
use crate::protocol::types::page::RangeState;
use crate::protocol::types::record::Record;

fn state(ballot: u64, value: Option<&'static [u8]>) -> AcceptorState {
    AcceptorState {
        promised: Ballot(ballot + ballot % 3),
        accepted: Ballot(ballot),
        chosen: false,
        record: Some(Arc::new(Record {
            value: value.map(Bytes::from_static),
            ..Record::default()
        })),
        life: 0,
    }
}

fn group(registers: Vec<(Key, AcceptorState)>, chosen: Vec<(Key, Ballot)>) -> Group {
    Group {
        number: 1,
        registers,
        chosen,
        ..Group::default()
    }
}

#[test]
fn live_keys_are_users_keys_with_a_value() {
    let mut table = Table::default();
    let configuration = Key::try_from([1, b'c'].as_slice()).unwrap();
    let (a, b) = (Key::user(b"a"), Key::user(b"b"));
    table.apply(&group(
        vec![
            (configuration, state(1, Some(b"c"))),
            (a.clone(), state(1, Some(b"1"))),
            (b.clone(), AcceptorState::default()),
        ],
        vec![],
    ));
    assert_eq!(table.keys(), 1);
    table.apply(&group(vec![(a.clone(), state(2, Some(b"2")))], vec![]));
    assert_eq!(table.keys(), 1);
    table.apply(&group(vec![(b, state(3, Some(b"3")))], vec![]));
    assert_eq!(table.keys(), 2);
    table.apply(&group(vec![(a, state(4, None))], vec![]));
    assert_eq!(table.keys(), 1);
}

#[test]
fn a_later_state_replaces_the_earlier_one_in_every_space() {
    let mut table = Table::default();
    for key in [Key::user(b"k"), Key::configuration()] {
        for ballot in 1..4 {
            let now = state(ballot, Some(b"v"));
            table.apply(&group(vec![(key.clone(), now.clone())], vec![]));
            assert_eq!(table.load(&key), Some(now), "{key:?}");
        }
    }
    assert_eq!((table.keys(), table.records()), (1, 2));
}

#[test]
fn a_mark_counts_for_its_ballot_only() {
    let mut table = Table::default();
    let a = Key::user(b"a");
    table.apply(&group(
        vec![(a.clone(), state(2, Some(b"2")))],
        vec![(a.clone(), Ballot(1)), (Key::user(b"other"), Ballot(2))],
    ));
    assert!(!table.load(&a).unwrap().chosen);
    assert_eq!(table.load(&Key::user(b"other")), None);
    table.apply(&group(vec![], vec![(a.clone(), Ballot(2))]));
    assert!(table.load(&a).unwrap().chosen);
}

fn configured(spread: Spread) -> Group {
    let configuration = Configuration {
        spread,
        ..Configuration::default()
    };
    Group {
        meta: Some(Meta {
            configuration: Some(configuration),
            ..Meta::default()
        }),
        ..Group::default()
    }
}

fn names(pages: impl Iterator<Item = Page>) -> Vec<Key> {
    let states = pages.flat_map(|page| page.states);
    states.map(|(key, _)| key).collect()
}

/// All of a bucket, page by page.
fn listed(table: &Table, bucket: Bucket) -> Vec<Key> {
    let first = Some(table.list(bucket, None));
    names(std::iter::successors(first, |page| {
        let after = page.next.as_ref()?;
        Some(table.list(bucket, Some(after)))
    }))
}

#[test]
fn a_bucket_is_listed_in_order_and_only_it() {
    let mut table = Table::default();
    let spread = Spread::new(7, 8);
    let keys: Vec<Key> = (0..20_000)
        .map(|n| Key::user(n.to_string().as_bytes()))
        .collect();
    let (early, late) = keys.split_at(10);
    let states = |keys: &[Key]| keys.iter().map(|k| (k.clone(), state(1, None))).collect();
    table.apply(&group(states(early), vec![]));
    table.apply(&configured(spread));
    table.apply(&group(states(late), vec![]));
    assert_eq!(table.records(), 20_000);
    for bucket in spread.all() {
        let of_bucket = keys.iter().filter(|key| spread.bucket_of(key) == bucket);
        let mut expected: Vec<Key> = of_bucket.cloned().collect();
        expected.sort();
        assert_eq!(listed(&table, bucket), expected);
    }
}

/// Counts the visited states: each copied state shares the record, which is too large to be packed
/// and counts its holders.
#[test]
fn a_page_of_a_large_bucket_costs_a_page() {
    let mut table = Table::default();
    table.apply(&configured(Spread::new(7, 1)));
    let all = state(1, Some(&[1; RECORD_PACKED_SIZE_MAX]));
    let keys = (0..100_000_u32).map(|n| Key::user(&n.to_be_bytes()));
    table.apply(&group(keys.map(|key| (key, all.clone())).collect(), vec![]));
    let shared = || Arc::strong_count(all.record.as_ref().unwrap());
    let held = shared();
    assert_eq!(held, 100_001);
    let page = table.list(0, Some(&Key::user(&50_000_u32.to_be_bytes())));
    assert_eq!(page.states[0].0, Key::user(&50_001_u32.to_be_bytes()));
    assert_eq!(shared() - held, page.states.len());
    let fits = KEYS_SIZE_MAX / 20;
    assert!((100..fits).contains(&page.states.len()));
}

/// A range lists the state of each key also after removals have moved entries.
#[test]
fn a_range_lists_the_states_of_its_keys() {
    let mut table = Table::default();
    let key = |n: u64| Key::user(format!("{n:05}").as_bytes());
    let states = (1..=5_000).map(|n| (key(n), state(n, Some(b"1"))));
    let configuration = (Key::configuration(), state(9_999, Some(b"c")));
    table.apply(&group(states.chain([configuration]).collect(), vec![]));
    let dropped = |n: &u64| n.is_multiple_of(7) || (100..4_000).contains(n);
    table.apply(&Group {
        dropped: (1..=5_000).filter(dropped).map(key).collect(),
        ..Group::default()
    });
    let range = KeyRange {
        first: key(0),
        is_after: false,
        last: None,
        is_before: false,
    };
    let bounds = PageBounds {
        length_max: usize::MAX,
        size_max: usize::MAX,
        counts_values: false,
    };
    let page = table.list_range(&range, bounds);
    let listed = page
        .states
        .iter()
        .map(|(key, state)| (key.clone(), state.accepted));
    let kept = (1..=5_000).filter(|n| !dropped(n));
    assert!(listed.eq(kept.map(|n| (key(n), Ballot(n)))));
}

#[test]
fn dropped_keys_are_gone() {
    let mut table = Table::default();
    let keys: Vec<Key> = (0..100_000u32)
        .map(|n| Key::user(&n.to_le_bytes()))
        .collect();
    let states = keys.iter().map(|key| (key.clone(), state(1, Some(b"1"))));
    table.apply(&group(states.collect(), vec![]));
    let (kept, dropped) = keys.split_at(1_000);
    table.apply(&Group {
        dropped: dropped.to_vec(),
        // A chosen mark that comes with the removal, or late, restores nothing.
        chosen: vec![(dropped[0].clone(), Ballot(1))],
        ..Group::default()
    });
    assert_eq!((table.keys(), table.load(&dropped[0])), (1_000, None));
    assert!(kept.iter().all(|key| table.load(key).is_some()));
    let mut expected = Digests::default();
    for key in kept {
        expected.add(key, Ballot(1), 0);
    }
    assert_eq!(table.digests(), expected);
    table.apply(&group(
        vec![(dropped[0].clone(), state(2, Some(b"2")))],
        vec![],
    ));
    assert_eq!(table.keys(), 1_001);
    table.apply(&Group {
        dropped: keys,
        ..Group::default()
    });
    assert_eq!((table.keys(), table.records()), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    /// A key, a ballot, and the size of the value or none for a tombstone.
    Set(u16, u64, Option<usize>),
    Drop(u16, u16),
    Mark(u16, u64),
    /// Many keys of one size.
    Fill(u16, usize),
}

fn step() -> impl Strategy<Value = Step> {
    // Sizes of several pools, and of records that are not packed.
    let size = || prop_oneof![8 => 0..300_usize, 1 => 900..1_200_usize, 1 => Just(5_000)];
    let key = || 0..3_000_u16;
    prop_oneof![
        12 => (key(), 0..4_u64, prop::option::weighted(0.9, size()))
            .prop_map(|(key, ballot, size)| Step::Set(key, ballot, size)),
        4 => (key(), 1..3_u16).prop_map(|(key, count)| Step::Drop(key, count)),
        1 => (key(), 500..3_000_u16).prop_map(|(key, count)| Step::Drop(key, count)),
        4 => (key(), 0..4_u64).prop_map(|(key, ballot)| Step::Mark(key, ballot)),
        2 => (key(), size()).prop_map(|(key, size)| Step::Fill(key, size)),
    ]
}

/// Keys of different lengths; each seventh one is a configuration's.
fn numbered(n: u16) -> Key {
    let space = u8::from(n.is_multiple_of(7));
    let more = "x".repeat(usize::from(n % 90));
    let name = format!("{n:04}{more}");
    Key::try_from(&*[&[space], name.as_bytes()].concat()).unwrap()
}

fn sized(ballot: u64, size: Option<usize>) -> AcceptorState {
    let mut state = state(ballot, None);
    let record = Arc::make_mut(state.record.as_mut().unwrap());
    record.value = size.map(|size| vec![ballot as u8; size].into());
    record.expiry_ms = size.filter(|size| size % 3 == 0).map(|size| size as u64);
    state
}

fn group_of(step: &Step, held: &BTreeMap<Key, AcceptorState>) -> Group {
    let range = |first: u16, count: u16| (first..first + count).map(numbered);
    match step {
        Step::Set(key, ballot, size) => {
            group(vec![(numbered(*key), sized(*ballot, *size))], vec![])
        }
        Step::Fill(first, size) => {
            let keys = range(*first, 700).filter(|key| !held.contains_key(key));
            group(
                keys.map(|key| (key, sized(9, Some(*size)))).collect(),
                vec![],
            )
        }
        Step::Drop(first, count) => Group {
            dropped: range(*first, *count).collect(),
            ..Group::default()
        },
        Step::Mark(key, ballot) => group(vec![], vec![(numbered(*key), Ballot(*ballot))]),
    }
}

fn apply(held: &mut BTreeMap<Key, AcceptorState>, group: &Group) {
    held.extend(group.registers.iter().cloned());
    for key in &group.dropped {
        held.remove(key);
    }
    for (key, ballot) in &group.chosen {
        if let Some(state) = held.get_mut(key).filter(|s| s.accepted == *ballot) {
            state.chosen = true;
        }
    }
}

/// Compares all that a table tells with a map of the same states.
fn check(table: &Table, held: &BTreeMap<Key, AcceptorState>, spread: Spread) {
    assert_eq!(table.records(), held.len() as u64);
    let has_value = |state: &AcceptorState| state.record.as_ref().unwrap().value.is_some();
    let users = || held.iter().filter(|(key, _)| key.space() == SPACE_USER);
    let live = users().filter(|(_, state)| has_value(state));
    assert_eq!(table.keys(), live.count() as u64);
    let mut digests = Digests::new(spread);
    for (key, state) in held {
        digests.add(key, state.accepted, state.life);
        assert_eq!(table.load(key).as_ref(), Some(state));
    }
    assert_eq!(table.digests(), digests);
    let mut expiring = table.expiring();
    expiring.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = held.iter().filter_map(|(key, state)| {
        let expiry_ms = state.record.as_ref().unwrap().expiry_ms?;
        Some((expiry_ms, key.clone()))
    });
    assert!(expiring.into_iter().eq(expected));
    for bucket in spread.all() {
        let expected = held.keys().filter(|key| spread.bucket_of(key) == bucket);
        assert!(listed(table, bucket).iter().eq(expected));
    }
    for (is_after, is_before) in [(false, false), (true, true)] {
        let range = KeyRange {
            first: Key::user(b"0500"),
            is_after,
            last: Some(Key::user(b"2501")),
            is_before,
        };
        let bounds = |counts_values| PageBounds {
            length_max: 300,
            size_max: 100_000,
            counts_values,
        };
        let expected = users().filter(|(key, _)| range.contains(key));
        let expected = expected.map(|(key, state)| (key.clone(), RangeState::from(state)));
        let expected = |bounds| RangePage::of_range(expected.clone(), bounds);
        let page = table.list_range(&range, bounds(true));
        assert_eq!(page, expected(bounds(true)));
        let page = table.list_range(&range, bounds(false));
        assert!(without_values(page) == without_values(expected(bounds(false))));
    }
}

/// Pages contain only whether there are values, unless they are asked for.
fn without_values(mut page: RangePage) -> RangePage {
    let records = page
        .states
        .iter_mut()
        .filter_map(|(_, state)| state.record.as_mut());
    for value in records.filter_map(|record| record.value.as_mut()) {
        *value = Bytes::new();
    }
    page
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_table_is_a_map(steps in prop::collection::vec(step(), 1..40), configured_at in 0..9_usize) {
        let (mut table, mut held) = (Table::default(), BTreeMap::new());
        let spread = Spread::new(7, 4);
        for (at, step) in steps.iter().enumerate() {
            if at == configured_at {
                table.apply(&configured(spread));
            }
            let group = group_of(step, &held);
            table.apply(&group);
            apply(&mut held, &group);
            let gone = group.dropped.iter();
            gone.for_each(|key| assert!(!table.holds(key) && table.load(key).is_none()));
            let known = if at >= configured_at { spread } else { Spread::default() };
            if at % 4 == 0 || at + 1 == steps.len() {
                check(&table, &held, known);
            }
        }
        let all = held.keys().cloned().collect();
        table.apply(&Group { dropped: all, ..Group::default() });
        assert_eq!((table.records(), table.keys()), (0, 0));
        assert!((0..3_000).all(|n| !table.holds(&numbered(n))));
    }
}

#[test]
fn a_table_that_is_loaded_is_like_one_that_was_filled() {
    let [mut filled, mut loaded] = [Table::default(), Table::loading()];
    let name = |n: u64| match n % 3 {
        0 => Key::user(format!("a long common beginning {n}").as_bytes()),
        1 => Key::user(&n.to_be_bytes()[(n % 8) as usize..]),
        _ => Key::try_from([1, n as u8].as_slice()).unwrap(),
    };
    let keys: Vec<Key> = (0..3_000).map(name).collect();
    for table in [&mut filled, &mut loaded] {
        for (key, n) in keys.iter().zip(1..) {
            table.set(key.clone(), state(n, Some(b"v")));
            if n % 5 == 0 {
                table.remove(&keys[n as usize / 2]);
            }
            if n == 2_000 {
                table.apply(&configured(Spread::new(7, 8)));
            }
        }
    }
    loaded.order();
    let counts = |table: &Table| (table.keys(), table.records());
    assert_eq!(counts(&loaded), counts(&filled));
    assert_eq!(loaded.digests(), filled.digests());
    for bucket in Spread::new(7, 8).all() {
        assert_eq!(listed(&loaded, bucket), listed(&filled, bucket));
    }
    let range = KeyRange {
        first: Key::user(b"0"),
        is_after: false,
        last: None,
        is_before: false,
    };
    let bounds = PageBounds {
        length_max: usize::MAX,
        size_max: usize::MAX,
        counts_values: false,
    };
    let all = filled.list_range(&range, bounds);
    assert!(all.states.len() > 500);
    assert_eq!(loaded.list_range(&range, bounds), all);
    // What comes after that is put in order too.
    for table in [&mut filled, &mut loaded] {
        table.set(Key::user(b"a long"), state(9, None));
        table.remove(&keys[1_500]);
    }
    assert_eq!(
        loaded.list_range(&range, bounds),
        filled.list_range(&range, bounds)
    );
}
