//! L1, L2: records that expire, one proposal at a time.

use wire::{KeyResult, OperationId};

use super::tests::{NOW, WALL_MS, at, operation, over_at};
use super::*;
use crate::protocol::types::transaction::{Attempt, Coordination, Decisions, Fate, Intent};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The record after these actions, each of them an operation of another client, and the outcomes.
fn after(record: &Record, wall_ms: u64, actions: &[Action]) -> (Record, Vec<Outcome>) {
    let known = record.applied.clients.iter().map(|entry| entry.client);
    let first = known.max().unwrap_or(0) + 1;
    let operations = (first..).zip(actions);
    let operations: Vec<Operation> = operations
        .map(|(client, action)| Operation {
            want_old: false,
            ..operation(client, 1, 1, action.clone())
        })
        .collect();
    let operations: Vec<(&Operation, bool)> = operations.iter().map(|o| (o, false)).collect();
    let moment = Moment { wall_ms, ..at(NOW) };
    let (record, verdicts) = over_at(record, moment, &operations);
    let outcomes = verdicts.into_iter().map(|verdict| match verdict {
        ApplyVerdict::Answer(outcome) => outcome,
        other => panic!("{other:?}"),
    });
    (record, outcomes.collect())
}

fn put_for(value: &'static str, ttl_ms: u64, over: Option<Version>) -> Action {
    let value = bytes(value);
    Action::PutFor {
        value,
        ttl_ms,
        over,
    }
}

fn written(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Written { version, .. } => *version,
        other => panic!("not written: {other:?}"),
    }
}

#[test]
fn what_is_put_removes_a_time_to_live_and_what_is_added_keeps_it() {
    let start = after(&Record::default(), WALL_MS, &[put_for("1", 500, None)]).0;
    assert_eq!(start.expiry_ms, Some(WALL_MS + 500));
    let version = start.version;
    let (one, two) = (bytes("1"), bytes("2"));
    let (expected, value) = (one.clone(), two.clone());
    let removing = [
        Action::Put { value: two.clone() },
        Action::CompareVersion {
            version,
            value: two.clone(),
        },
        Action::CompareValue { expected, value },
        Action::PutOver {
            value: two,
            old_size_max: 9,
            old_without: Bytes::new(),
        },
        Action::Persist { over: None },
        Action::Delete,
    ];
    for action in removing {
        let (record, outcomes) = after(&start, WALL_MS + 499, std::slice::from_ref(&action));
        assert_eq!(record.expiry_ms, None, "{action:?}");
        assert!(written(&outcomes[0]) >= version);
    }
    for action in [Action::Add { delta: 1 }, Action::Append { value: one }] {
        let (record, outcomes) = after(&start, WALL_MS + 499, std::slice::from_ref(&action));
        assert_eq!(record.expiry_ms, start.expiry_ms, "{action:?}");
        assert!(written(&outcomes[0]) > version);
    }
}

#[test]
fn an_expired_key_is_deleted_before_anything_else() {
    let start = after(&Record::default(), WALL_MS, &[put_for("1", 500, None)]).0;
    let version = start.version;
    let (expired_ms, over) = (WALL_MS + 500, Some(version));
    let conflict = Outcome::Conflict {
        version: 0,
        old: Old::NotAsked,
    };
    let cases = [
        (Action::Get, Outcome::Absent),
        (Action::TimeToLive, Outcome::Absent),
        (Action::Delete, Outcome::NothingToDelete),
        (Action::DeleteVersion { version }, conflict.clone()),
        (Action::Expire { ttl_ms: 9, over }, conflict.clone()),
        (Action::Persist { over: None }, conflict.clone()),
        (put_for("2", 9, over), conflict.clone()),
    ];
    for (action, expected) in cases {
        let (record, outcomes) = after(&start, expired_ms, std::slice::from_ref(&action));
        assert_eq!(outcomes, [expected], "{action:?}");
        assert_eq!((record.value, record.expiry_ms), (None, None), "{action:?}");
        assert!(record.version > version);
    }
    // What is added begins anew, and lives for ever.
    let (record, _) = after(&start, expired_ms, &[Action::Add { delta: 7 }]);
    assert_eq!((record.value, record.expiry_ms), (Some(bytes("7")), None));
    // Under an intent nothing changes, and nothing expires.
    let intent = Some(bytes("intent").into());
    let pinned = Record { intent, ..start };
    assert!(!pinned.is_expired(u64::MAX));
}

#[test]
fn a_new_time_to_live_keeps_the_version_and_its_condition_is_checked() {
    let start = after(&Record::default(), WALL_MS, &[put_for("1", 500, Some(0))]).0;
    let version = start.version;
    let (same, other) = (Some(version), Some(version + 1));
    let later_ms = WALL_MS + 400;
    let (record, outcomes) = after(
        &start,
        later_ms,
        &[
            Action::Expire {
                ttl_ms: 900,
                over: other,
            },
            Action::Persist { over: other },
            put_for("2", 9, Some(0)),
            Action::DeleteVersion {
                version: version + 1,
            },
            Action::Expire {
                ttl_ms: 500,
                over: same,
            },
            Action::TimeToLive,
        ],
    );
    for outcome in &outcomes[..4] {
        assert!(matches!(outcome, Outcome::Conflict { version: v, .. } if *v == version));
    }
    assert_eq!(written(&outcomes[4]), version);
    let left_ms = Some(500);
    assert_eq!(outcomes[5], Outcome::Lives { version, left_ms });
    assert_eq!(
        (record.version, record.expiry_ms),
        (version, Some(later_ms + 500))
    );
    let (record, outcomes) = after(
        &record,
        later_ms,
        &[
            Action::Persist { over: same },
            Action::TimeToLive,
            Action::DeleteVersion { version },
            Action::DeleteVersion { version: 0 },
        ],
    );
    let left_ms = None;
    assert_eq!(outcomes[1], Outcome::Lives { version, left_ms });
    assert!(written(&outcomes[2]) > version && record.value.is_none());
    assert_eq!(outcomes[3], Outcome::NothingToDelete);
}

/// T9, L1: an intent keeps a record from expiring. Once it is rolled back or forward, no operation
/// of the same round finds the value that has expired.
#[test]
fn a_record_expires_in_the_round_that_resolves_its_intent() {
    let start = after(&Record::default(), WALL_MS, &[put_for("5", 500, None)]).0;
    let id = OperationId {
        client: 99,
        sequence: 1,
    };
    let of = Attempt { id, number: 1 };
    let intent = |change, expiry_ms| Intent {
        of,
        birth: NOW,
        by: Coordination {
            coordinator: 1,
            boot: 1,
            deadline: NOW,
        },
        change,
        version: start.version + 1,
        expiry_ms,
        result: KeyResult::default(),
    };
    let put = intent(Some(Some(bytes("7"))), Some(WALL_MS + 400));
    for (intent, fate) in [
        (intent(None, None), Fate::Void),
        (intent(None, None), Fate::Committed),
        (put, Fate::Committed),
    ] {
        let record = Record {
            intent: Some(intent.encode()),
            ..start.clone()
        };
        let mut decisions = Decisions::default();
        decisions.learn(of, fate);
        let wall_ms = WALL_MS + 600;
        let moment = Moment { wall_ms, ..at(NOW) };
        let ballot = Ballot::new(record.version / 256 + 10, 1);
        let mut proposal = Proposal::new(Some(&record), ballot, moment, 0);
        proposal.resolve(&decisions);
        let get = operation(1, 1, 1, Action::Get);
        assert_eq!(
            proposal.apply(&get, false),
            ApplyVerdict::Answer(Outcome::Absent)
        );
        let add = operation(2, 1, 1, Action::Add { delta: 1 });
        let ApplyVerdict::Answer(Outcome::Written { number, .. }) = proposal.apply(&add, false)
        else {
            panic!("not written");
        };
        let (made, _) = proposal.finish();
        assert_eq!((number, made.expiry_ms), (Some(1), None), "{fate:?}");
        assert_eq!(made.value, Some(bytes("1")));
    }
}
