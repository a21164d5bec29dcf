use proptest::prelude::*;
use wire::clock::READING_SANE_MAX;

use super::*;
use crate::protocol::types::limits::RECORD_PACKED_SIZE_MAX;

/// Readings that are near each other, as in most tables, and any.
fn reading() -> impl Strategy<Value = u64> {
    prop_oneof![
        READING_SANE_MAX - 100..READING_SANE_MAX,
        0..=READING_MAX,
        Just(0),
    ]
}

fn ballot() -> impl Strategy<Value = Ballot> {
    let issued = (reading(), any::<u8>());
    prop_oneof![
        8 => issued.prop_map(|(reading, node)| Ballot::new(reading, node)),
        1 => any::<u64>().prop_map(Ballot),
        1 => Just(Ballot::ZERO),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u64>(), Just(u64::MAX)]
}

fn bytes(size_max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..size_max).prop_map(Bytes::from)
}

/// Every outcome that an applied table may have.
fn outcome(version: Version) -> impl Strategy<Value = Outcome> {
    let old = || {
        prop_oneof![
            4 => Just(Old::NotAsked),
            1 => Just(Old::Absent),
            1 => Just(Old::Forgotten),
            2 => bytes(257).prop_map(Old::Value),
        ]
    };
    let number_after = prop::option::of(any::<i64>());
    let versions = || prop_oneof![Just(version), any::<u64>()];
    prop_oneof![
        8 => (versions(), old(), number_after).prop_map(|(version, old, number)| {
            Outcome::Written { version, old, number }
        }),
        2 => (versions(), old()).prop_map(|(version, old)| Outcome::Conflict { version, old }),
        1 => Just(Outcome::NothingToDelete),
        1 => Just(Outcome::NotANumber),
        1 => Just(Outcome::Overflow),
        1 => number().prop_map(|limit| Outcome::TooLarge { limit }),
        2 => any::<u32>().prop_map(|attempt| Outcome::Placed { attempt }),
    ]
}

fn client(version: Version) -> impl Strategy<Value = ClientEntry> {
    let operation = (number(), reading(), outcome(version));
    let operation = operation.prop_map(|(sequence, birth, outcome)| AppliedOperation {
        sequence,
        birth,
        outcome,
    });
    let operations = prop::collection::vec(operation, 0..4);
    (any::<u128>(), number(), reading(), operations).prop_map(
        |(client, mark, birth_max, operations)| ClientEntry {
            client,
            mark,
            birth_max,
            operations,
        },
    )
}

fn applied(version: Version) -> impl Strategy<Value = Applied> {
    let hashes = prop::collection::vec(any::<u64>(), 0..10);
    let slice = (reading(), reading(), hashes);
    let slice = slice.prop_map(|(first, last, hashes)| TextSlice {
        first,
        last,
        hashes,
    });
    let slices = prop_oneof![Just(vec![]), prop::collection::vec(slice, 0..4)];
    let clients = prop::collection::vec(client(version), 0..4);
    (reading(), clients, slices).prop_map(|(dropped, clients, slices)| Applied {
        dropped,
        clients,
        slices,
    })
}

fn record(accepted: Ballot) -> impl Strategy<Value = Record> {
    let version = prop_oneof![Just(accepted.0), ballot().prop_map(|ballot| ballot.0)];
    let intent = bytes(200).prop_map(EncodedIntent::from);
    let rest = (
        prop::option::of(bytes(300)),
        prop::option::of(number()),
        prop::option::of(intent),
    );
    let applied = version.prop_flat_map(|version| (Just(version), applied(version)));
    (applied, rest).prop_map(|((version, applied), (value, expiry_ms, intent))| Record {
        value,
        version,
        expiry_ms,
        intent,
        applied,
    })
}

fn state() -> impl Strategy<Value = AcceptorState> {
    let promised = |accepted| prop_oneof![Just(accepted), Just(next(accepted)), ballot()];
    let life = prop_oneof![3 => Just(0), 1 => any::<u32>()];
    ballot().prop_flat_map(move |accepted| {
        let record = prop::option::weighted(0.9, record(accepted).prop_map(Arc::new));
        (promised(accepted), any::<bool>(), record, life.clone()).prop_map(
            move |(promised, chosen, record, life)| AcceptorState {
                promised,
                accepted,
                chosen,
                record,
                life,
            },
        )
    })
}

fn next(ballot: Ballot) -> Ballot {
    next_of(ballot).unwrap_or(ballot)
}

fn packed(state: &AcceptorState) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(state, &mut bytes);
    bytes
}

fn head_of(state: &AcceptorState) -> Head {
    let record = state.record.as_ref();
    Head {
        promised: state.promised,
        accepted: state.accepted,
        chosen: state.chosen,
        life: state.life,
        has_value: record.is_some_and(|record| record.value.is_some()),
        expiry_ms: record.and_then(|record| record.expiry_ms),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_state_is_unpacked_as_it_was(state in state(), before in bytes(10)) {
        let mut bytes = before.to_vec();
        pack(&state, &mut bytes);
        let (kept, bytes) = bytes.split_at(before.len());
        prop_assert_eq!(kept, &before);
        prop_assert_eq!(bytes, packed(&state), "equal states have equal bytes");
        prop_assert_eq!(head(bytes), Ok(head_of(&state)));
        prop_assert_eq!(range_state(bytes, true), Ok(RangeState::from(&state)));
        let mut without = RangeState::from(&state);
        if let Some(value) = without.record.as_mut().and_then(|record| record.value.as_mut()) {
            *value = Bytes::new();
        }
        prop_assert_eq!(range_state(bytes, false), Ok(without));
        prop_assert_eq!(unpack(bytes), Ok(state));
    }

    #[test]
    fn a_mark_changes_nothing_else(mut state in state()) {
        let mut bytes = packed(&state);
        mark_chosen(&mut bytes);
        state.chosen = true;
        prop_assert_eq!(unpack(&bytes), Ok(state));
    }

    #[test]
    fn nothing_may_follow_a_state(state in state(), more in bytes(10)) {
        let mut bytes = packed(&state);
        bytes.push(0);
        bytes.extend_from_slice(&more);
        prop_assert_eq!(unpack(&bytes), Err(BodyError::Trailing));
    }

    #[test]
    fn a_state_that_is_cut_is_refused(state in state(), at in any::<prop::sample::Index>()) {
        let bytes = packed(&state);
        prop_assert!(unpack(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// Whatever is read is a state, which packs and unpacks like any other.
    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(state) = unpack(&bytes) {
            prop_assert_eq!(head(&bytes), Ok(head_of(&state)));
            prop_assert_eq!(range_state(&bytes, true), Ok(RangeState::from(&state)));
            prop_assert_eq!(unpack(&packed(&state)), Ok(state));
        }
    }

    /// Bytes that are nearly those of a state get further than arbitrary ones.
    #[test]
    fn changed_bytes_are_refused_or_read(
        state in state(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = packed(&state);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(state) = unpack(&bytes) {
            prop_assert_eq!(head(&bytes), Ok(head_of(&state)));
            prop_assert_eq!(range_state(&bytes, true), Ok(RangeState::from(&state)));
            prop_assert_eq!(unpack(&packed(&state)), Ok(state));
        }
    }

    #[test]
    fn numbers_and_differences_are_read_back(number in number(), from in number()) {
        let mut bytes = Vec::new();
        put_number(&mut bytes, number);
        put_difference(&mut bytes, number, from);
        let rest = &mut bytes.as_slice();
        prop_assert_eq!(take_number(rest), Ok(number));
        prop_assert_eq!(take_difference(rest, from), Ok(number));
        prop_assert!(rest.is_empty());
    }
}

#[test]
fn a_number_has_one_form() {
    for (bytes, number) in [
        (&[0][..], Ok(0)),
        (&[0x80, 0], Err(BodyError::Bounds)),
        (&[0xff, 0], Err(BodyError::Bounds)),
        (&[0x80, 1], Ok(128)),
        (&[0x80], Err(BodyError::Malformed)),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            Ok(u64::MAX),
        ),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            Err(BodyError::Bounds),
        ),
        (&[0x80; 11], Err(BodyError::Bounds)),
    ] {
        assert_eq!(take_number(&mut &*bytes), number, "{bytes:x?}");
    }
}

/// Counts that no bytes follow must not allocate.
#[test]
fn a_count_above_what_follows_is_refused() {
    for flag in [CLIENTS, SLICES, INTENT, VALUE] {
        let mut bytes = (RECORD | flag).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 8]);
        put_number(&mut bytes, u64::MAX);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(unpack(&bytes), Err(BodyError::Malformed), "{flag}");
    }
}

#[test]
fn other_layouts_and_contradictory_flags_are_refused() {
    let mut bytes = packed(&AcceptorState::default());
    for flags in [
        1 << 12,
        1 << 15,
        VALUE,
        VERSION,
        PROMISED_NEXT | PROMISED_OTHER,
    ] {
        bytes[..2].copy_from_slice(&flags.to_le_bytes());
        bytes.resize(40, 0);
        assert_eq!(unpack(&bytes), Err(BodyError::Bounds), "{flags:#x}");
        assert_eq!(head(&bytes), Err(BodyError::Bounds), "{flags:#x}");
    }
}

/// The state that a put of a client leaves that has done 1,000 operations, 10 ms after it was made.
fn after_a_put(value: Option<&'static [u8]>) -> AcceptorState {
    let reading = wire::clock::from_ms(1_800_000_000_000);
    let accepted = Ballot::new(reading, 3);
    let birth = reading - wire::clock::from_ms(10) - 77;
    let operation = AppliedOperation {
        sequence: 1_000,
        birth,
        outcome: Outcome::Written {
            version: accepted.0,
            old: Old::NotAsked,
            number: None,
        },
    };
    let client = ClientEntry {
        client: u128::MAX / 3,
        mark: 990,
        birth_max: birth,
        operations: vec![operation],
    };
    let record = Record {
        value: value.map(Bytes::from_static),
        version: accepted.0,
        applied: Applied {
            clients: vec![client],
            ..Applied::default()
        },
        ..Record::default()
    };
    AcceptorState {
        promised: accepted.next(),
        accepted,
        chosen: true,
        record: Some(record.into()),
        life: 0,
    }
}

#[test]
fn what_a_put_leaves_takes_few_bytes() {
    let size = |state: &AcceptorState| packed(state).len();
    let value = &[b'v'; 100];
    let mut state = after_a_put(Some(value));
    assert_eq!(size(&state), 2 + 8 + 26 + 1 + value.len());
    Arc::make_mut(state.record.as_mut().unwrap()).applied = Applied::default();
    assert_eq!(size(&state), 2 + 8 + 1 + value.len());
    assert!(size(&after_a_put(None)) < RECORD_PACKED_SIZE_MAX);
}
