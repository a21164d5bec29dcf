use super::*;
use bytes::Bytes;
use proptest::prelude::*;

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Get),
        any_bytes().prop_map(|value| Action::Put { value }),
        any_bytes().prop_map(|value| Action::PutIfAbsent { value }),
        Just(Action::Delete),
        (any::<u64>(), any_bytes())
            .prop_map(|(version, value)| Action::CompareVersion { version, value }),
        (any_bytes(), any_bytes())
            .prop_map(|(expected, value)| Action::CompareValue { expected, value }),
        any::<i64>().prop_map(|delta| Action::Add { delta }),
        any_bytes().prop_map(|value| Action::Append { value }),
        (any_bytes(), any::<u64>(), any_bytes()).prop_map(|(value, old_size_max, old_without)| {
            Action::PutOver {
                value,
                old_size_max,
                old_without,
            }
        }),
        (any_bytes(), 0..=TTL_MS_MAX, any::<Option<u64>>()).prop_map(|(value, ttl_ms, over)| {
            Action::PutFor {
                value,
                ttl_ms,
                over,
            }
        }),
        (0..=TTL_MS_MAX, any::<Option<u64>>())
            .prop_map(|(ttl_ms, over)| Action::Expire { ttl_ms, over }),
        any::<Option<u64>>().prop_map(|over| Action::Persist { over }),
        Just(Action::TimeToLive),
        any::<u64>().prop_map(|version| Action::DeleteVersion { version }),
        Just(Action::GetStale),
        (any::<bool>(), any_bytes(), any::<u32>(), 0..3).prop_map(
            |(is_after, end, limit, wanted)| Action::Scan {
                is_after,
                end,
                limit,
                keys_only: wanted == 1,
                deleted: wanted == 2,
            }
        ),
        (
            any_bytes(),
            any::<u64>(),
            any::<u64>(),
            0..=WATCH_WAIT_MS_MAX
        )
            .prop_map(|(end, boot, sequence, wait_ms)| Action::Watch {
                end,
                cursor: WatchCursor {
                    boot,
                    range: boot / 2,
                    sequence,
                },
                wait_ms,
            }),
        any_transaction().prop_map(|transaction| Action::Transact { transaction }),
    ]
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let condition = prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        any::<u64>().prop_map(Condition::Version),
        any_bytes().prop_map(Condition::Value),
    ];
    let change = prop_oneof![
        any_bytes().prop_map(KeyChange::Put),
        Just(KeyChange::Delete),
        any::<i64>().prop_map(KeyChange::Add),
        any_bytes().prop_map(KeyChange::Append),
        (any_bytes(), 0..=TTL_MS_MAX)
            .prop_map(|(value, ttl_ms)| KeyChange::PutFor { value, ttl_ms }),
    ];
    let conditions = prop::collection::vec(condition, 0..3);
    let part = (conditions, any::<bool>(), prop::option::of(change));
    prop::collection::vec(part, 1..5).prop_map(|parts| {
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(place, (conditions, get, change))| TransactionPart {
            key: format!("key {place}").into(),
            conditions,
            get,
            change,
        });
        Transaction {
            parts: parts.collect(),
        }
    })
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let reason = prop_oneof![
        (any::<u16>(), any::<u64>())
            .prop_map(|(place, version)| FailureReason::Condition { place, version }),
        Just(FailureReason::NotANumber),
        Just(FailureReason::Overflow),
        any::<u64>().prop_map(|limit| FailureReason::TooLarge { limit }),
        Just(FailureReason::Contended),
    ];
    (any::<u16>(), reason).prop_map(|(part, reason)| Failure { part, reason })
}

fn any_result() -> impl Strategy<Value = KeyResult> {
    let value = prop::option::of(any_bytes());
    (any::<u64>(), value, any::<u64>(), any::<Option<i64>>()).prop_map(
        |(found, value, version, number)| KeyResult {
            found,
            value,
            version,
            number,
        },
    )
}

fn any_old() -> impl Strategy<Value = Old> {
    prop_oneof![
        Just(Old::NotAsked),
        Just(Old::Absent),
        any_bytes().prop_map(Old::Value),
        Just(Old::Forgotten)
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (any::<u64>(), any_bytes()).prop_map(|(version, value)| Outcome::Value { version, value }),
        Just(Outcome::Absent),
        (any::<u64>(), any_old(), any::<Option<i64>>()).prop_map(|(version, old, number)| {
            Outcome::Written {
                version,
                old,
                number,
            }
        }),
        Just(Outcome::NothingToDelete),
        (any::<u64>(), any_old()).prop_map(|(version, old)| Outcome::Conflict { version, old }),
        Just(Outcome::NotANumber),
        Just(Outcome::Overflow),
        any::<u64>().prop_map(|limit| Outcome::TooLarge { limit }),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|reached| Outcome::NoQuorum { reached }),
        any::<u32>().prop_map(|after_ms| Outcome::Busy { after_ms }),
        Just(Outcome::Unknown),
        any::<u64>().prop_map(|dropped| Outcome::Remake { dropped }),
        any::<u64>().prop_map(|clock| Outcome::Ahead { clock }),
        Just(Outcome::Full { full: Full::Memory }),
        prop::collection::vec(any_result(), 0..4)
            .prop_map(|results| Outcome::Committed { results }),
        any_failure().prop_map(|failure| Outcome::Failed { failure }),
        any::<u32>().prop_map(|attempt| Outcome::Placed { attempt }),
        (any::<u64>(), any::<Option<u64>>()).prop_map(|(version, left_ms)| {
            let left_ms = left_ms.map(|ms| ms >> 1);
            Outcome::Lives { version, left_ms }
        }),
        (any::<u64>(), prop::option::of(any_bytes()), any::<u64>()).prop_map(
            |(version, value, apart_ms)| Outcome::Stale {
                version,
                value,
                apart_ms: apart_ms >> 1,
            }
        ),
        Just(Outcome::NotKnown),
        any_watch_page().prop_map(Outcome::Watched),
    ]
}

fn any_watch_page() -> impl Strategy<Value = WatchPage> {
    let words = (any::<u8>(), any::<u64>(), any::<u64>(), any::<bool>());
    let entry = (prop::option::of(any_bytes()), any::<u64>());
    let entries = prop::collection::vec(entry, 0..4);
    let behind_ms = prop::option::of(any::<u32>());
    (words, entries, behind_ms).prop_map(|((node, boot, sequence, is_new), entries, behind_ms)| {
        let entries = entries
            .into_iter()
            .enumerate()
            .map(|(n, (value, version))| ScanEntry {
                key: format!("key {n}").into(),
                version,
                value,
            });
        WatchPage {
            node,
            cursor: WatchCursor {
                boot,
                range: boot / 2,
                sequence,
            },
            is_new,
            has_more: !is_new,
            skipped: sequence / 3,
            behind_ms: behind_ms.map(u64::from),
            entries: entries.collect(),
        }
    })
}

proptest! {
    #[test]
    fn operations_survive_the_wire(action in any_action(), key in any_bytes(), client in any::<u128>(), sequence in any::<u64>(), want_old in any::<bool>()) {
        let operation = Operation {
            id: OperationId { client, sequence },
            birth: sequence >> 9,
            low_mark: sequence / 2,
            key,
            want_old,
            action,
        };
        let request = Request { token: 1, attempt: 2, retry: true, left_ms: 3, operation };
        let mut bytes = Vec::new();
        encode(&mut bytes, &request);
        prop_assert_eq!(decode::<Request>(&bytes).unwrap(), request);
        for cut in 0..bytes.len() {
            prop_assert!(decode::<Request>(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        prop_assert_eq!(decode::<Request>(&bytes), Err(BodyError::Trailing));
    }

    #[test]
    fn outcomes_survive_the_wire(outcome in any_outcome()) {
        let mut bytes = Vec::new();
        encode(&mut bytes, &outcome);
        prop_assert_eq!(decode::<Outcome>(&bytes).unwrap(), outcome);
    }

    #[test]
    fn arbitrary_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Hello>(&bytes);
        let _ = decode::<HelloAnswer>(&bytes);
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Answer>(&bytes);
        let _ = decode::<StatusAnswer>(&bytes);
    }
}
