//! The rules of the applied table and the effect of each operation, one proposal at a time.

use wire::clock::{self, Reading};
use wire::{KeyChange, OperationId, Transaction, TransactionPart};

use super::*;
use crate::protocol::types::limits::{
    APPLIED_SIZE_MAX, APPLIED_TEXT_SIZE_MAX, RETRY_HORIZON_MS, TEXT_KEPT_MS, TEXT_SLICE_MS,
    TEXT_SLICES_SIZE_MAX,
};
use crate::protocol::types::message::Endpoint;
use crate::protocol::types::transaction::{Coordination, TransactionStep};

pub(super) const NOW: Reading = clock::from_ms(100_000);
pub(super) const WALL_MS: u64 = 50_000;

pub(super) fn operation(client: u128, sequence: u64, low_mark: u64, action: Action) -> Operation {
    Operation {
        id: OperationId { client, sequence },
        birth: NOW + sequence,
        low_mark,
        key: Bytes::from_static(b"k"),
        want_old: true,
        action,
    }
}

fn put(client: u128, sequence: u64, low_mark: u64, value: &str) -> Operation {
    let value = Bytes::copy_from_slice(value.as_bytes());
    operation(client, sequence, low_mark, Action::Put { value })
}

pub(super) fn at(now: Reading) -> Moment {
    let before = |ms| now.saturating_sub(clock::from_ms(ms));
    Moment {
        now,
        horizon: before(RETRY_HORIZON_MS),
        text_kept_above: before(TEXT_KEPT_MS),
        wall_ms: WALL_MS,
    }
}

fn over(record: &Record, operations: &[(&Operation, bool)]) -> (Record, Vec<ApplyVerdict>) {
    over_at(record, at(NOW), operations)
}

pub(super) fn over_at(
    record: &Record,
    moment: Moment,
    operations: &[(&Operation, bool)],
) -> (Record, Vec<ApplyVerdict>) {
    let ballot = Ballot::new(record.version / 256 + 10, 1);
    let mut proposal = Proposal::new(Some(record), ballot, moment, 0);
    let verdicts = operations
        .iter()
        .map(|(o, tried)| proposal.apply(o, *tried))
        .collect();
    (proposal.finish().0, verdicts)
}

fn version_of(verdict: &ApplyVerdict) -> Version {
    match verdict {
        ApplyVerdict::Answer(Outcome::Written { version, .. }) => *version,
        other => panic!("not written: {other:?}"),
    }
}

#[test]
fn a_repeated_operation_is_answered_from_the_table() {
    let first = put(1, 1, 1, "a");
    let (record, before) = over(&Record::default(), &[(&first, false)]);
    let (_, other) = over(&record, &[(&put(2, 1, 1, "b"), false), (&first, true)]);
    assert_eq!(other[1], before[0]);
}

#[test]
fn below_the_mark_is_never_applied() {
    let (record, _) = over(&Record::default(), &[(&put(1, 5, 4, "a"), false)]);
    let (after, verdicts) = over(&record, &[(&put(1, 3, 1, "late"), true)]);
    assert_eq!(verdicts, [ApplyVerdict::Straggler]);
    assert_eq!(after.value, record.value);
}

#[test]
fn outcomes_that_no_client_waits_for_leave_with_the_next_write_of_another_client() {
    let (first, text) = (put(1, 5, 4, "a"), text_put(1, 7, NOW));
    let (record, _) = over(&Record::default(), &[(&first, false), (&text, false)]);
    let mut marks = LowMarks::default();
    marks.hear(1, 5);
    marks.hear(text.id.client, u64::MAX);
    let write = |record: &Record, marks: &LowMarks, operation: &Operation| {
        let mut proposal = Proposal::new(Some(record), Ballot::new(99, 1), at(NOW), 0);
        proposal.raise_marks(marks);
        let verdict = proposal.apply(operation, true);
        (proposal.finish().0, verdict)
    };
    let (record, _) = write(&record, &marks, &put(2, 1, 1, "b"));
    let held = |record: &Record| -> Vec<usize> {
        let clients = record.applied.clients.iter();
        clients.map(|entry| entry.operations.len()).collect()
    };
    assert_eq!(held(&record), [1, 1, 1], "it is waited for");
    marks.hear(1, 6);
    let (record, _) = write(&record, &marks, &put(2, 2, 2, "c"));
    assert_eq!(held(&record), [0, 1, 1]);
    let (after, verdict) = write(&record, &LowMarks::default(), &first);
    assert_eq!(verdict, ApplyVerdict::Straggler);
    assert_eq!(after.value, record.value);
}

#[test]
fn born_before_what_was_dropped_is_unknown_or_made_anew() {
    let mut record = Record::default();
    record.applied.dropped = NOW + 7;
    let (_, verdicts) = over(
        &record,
        &[
            (&put(1, 7, 1, "a"), true),
            (&put(1, 6, 1, "a"), false),
            (&put(1, 8, 1, "a"), false),
        ],
    );
    assert_eq!(verdicts[0], ApplyVerdict::Answer(Outcome::Unknown));
    assert_eq!(
        verdicts[1],
        ApplyVerdict::Answer(Outcome::Remake { dropped: NOW + 7 })
    );
    assert!(version_of(&verdicts[2]) > 0);
}

#[test]
fn a_conflict_enters_the_table_only_if_it_may_have_been_tried() {
    let (record, _) = over(&Record::default(), &[(&put(1, 1, 1, "a"), false)]);
    let create = |sequence| {
        operation(
            2,
            sequence,
            1,
            Action::PutIfAbsent {
                value: Bytes::from_static(b"b"),
            },
        )
    };
    let (after, _) = over(&record, &[(&create(1), false)]);
    assert_eq!(after.applied.clients.len(), 1);
    let (after, first) = over(&record, &[(&create(1), true)]);
    let (deleted, _) = over(&after, &[(&operation(1, 2, 1, Action::Delete), false)]);
    let (_, again) = over(&deleted, &[(&create(1), true)]);
    assert_eq!(first, again);
}

#[test]
fn combined_writes_have_versions_of_their_own() {
    let (_, verdicts) = over(
        &Record::default(),
        &[
            (&put(1, 1, 1, "a"), false),
            (&put(2, 1, 1, "b"), false),
            (&put(3, 1, 1, "c"), false),
        ],
    );
    let versions: Vec<_> = verdicts.iter().map(version_of).collect();
    assert_eq!(versions, [versions[0], versions[0] + 1, versions[0] + 2]);
}

#[test]
fn a_round_that_changes_nothing_keeps_the_version() {
    let (record, _) = over(&Record::default(), &[(&put(1, 1, 1, "a"), false)]);
    let swap = operation(
        2,
        1,
        1,
        Action::CompareVersion {
            version: 1,
            value: Bytes::new(),
        },
    );
    let (after, verdicts) = over(&record, &[(&swap, true)]);
    assert_eq!(after.version, record.version);
    let current = Old::Value(Bytes::from_static(b"a"));
    let conflict = Outcome::Conflict {
        version: record.version,
        old: current,
    };
    assert_eq!(verdicts, [ApplyVerdict::Answer(conflict)]);
}

#[test]
fn the_horizon_and_the_bound_raise_dropped() {
    let (record, _) = over(&Record::default(), &[(&put(1, 1, 1, "a"), false)]);
    let late = NOW + 1 + clock::from_ms(RETRY_HORIZON_MS);
    let (record, _) = Proposal::new(Some(&record), Ballot::ZERO, at(late), 0).finish();
    assert_eq!(
        record.applied,
        Applied {
            dropped: NOW + 1,
            ..Applied::default()
        }
    );

    let mut record = Record::default();
    for client in 0..1_000 {
        record = over(&record, &[(&put(client, client as u64 + 1, 1, "v"), false)]).0;
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, &record.applied);
        assert!(bytes.len() <= APPLIED_SIZE_MAX);
    }
    let held = record.applied.clients.len();
    assert!(held > 50 && record.applied.dropped >= NOW + 1_000 - held as u64 - 1);
    let youngest = record.applied.clients.iter().map(|c| c.birth_max).max();
    assert_eq!(youngest, Some(NOW + 1_000));
}

#[test]
fn an_entry_keeps_its_highest_birth_when_operations_leave_by_the_mark() {
    let first = put(1, 9, 1, "a");
    let (record, _) = over(&Record::default(), &[(&first, false)]);
    let mut second = put(1, 10, 10, "b");
    second.birth = NOW;
    let (record, _) = over(&record, &[(&second, false)]);
    let entry = &record.applied.clients[0];
    assert_eq!((entry.operations.len(), entry.birth_max), (1, NOW + 9));
}

#[test]
fn numbers_are_canonical_decimals() {
    let add = |record: &Record, delta| {
        let add = operation(1, record.version + 1, 1, Action::Add { delta });
        over(record, &[(&add, false)]).1.remove(0)
    };
    let with = |text: &str| Record {
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        ..Record::default()
    };
    for bad in [
        "",
        "x",
        "1.0",
        " 1",
        "+1",
        "01",
        "-0",
        "9223372036854775808",
    ] {
        assert_eq!(
            add(&with(bad), 1),
            ApplyVerdict::Answer(Outcome::NotANumber),
            "{bad:?}"
        );
    }
    assert_eq!(
        add(&with("9223372036854775807"), 1),
        ApplyVerdict::Answer(Outcome::Overflow)
    );
    assert_eq!(
        add(&with("-9223372036854775808"), -1),
        ApplyVerdict::Answer(Outcome::Overflow)
    );
    assert!(matches!(
        add(&with("-5"), 3),
        ApplyVerdict::Answer(Outcome::Written {
            number: Some(-2),
            ..
        })
    ));
}

#[test]
fn old_values_are_kept_up_to_a_size() {
    let long = "x".repeat(OLD_VALUE_KEPT_SIZE_MAX + 1);
    let (record, _) = over(&Record::default(), &[(&put(1, 1, 1, &long), false)]);
    let second = put(1, 2, 1, "b");
    let (record, first) = over(&record, &[(&second, false)]);
    let (_, again) = over(&record, &[(&second, true)]);
    let old = |verdict: &ApplyVerdict| match verdict {
        ApplyVerdict::Answer(Outcome::Written { old, .. }) => old.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(old(&first[0]), Old::Value(Bytes::from(long)));
    assert_eq!(old(&again[0]), Old::Forgotten);
}

fn text_put(port: u16, id: u64, birth: Reading) -> Operation {
    text_put_from(1, port, id, birth)
}

fn text_put_from(ip: u128, port: u16, id: u64, birth: Reading) -> Operation {
    let client = text_operation::text_client(Endpoint::new(ip, port), b"text");
    Operation {
        birth,
        ..put(client, id, 0, "text")
    }
}

fn with_value(size: usize) -> Record {
    Record {
        value: Some(Bytes::from(vec![b'x'; size])),
        ..Record::default()
    }
}

/// Runs puts of other clients, each over a value that the table keeps, enough to fill the table
/// many times.
fn flood(mut record: Record, moment: Moment) -> Record {
    for client in 1..=100 {
        record.value = with_value(256).value;
        let mut other = put(client, 1, 1, "other");
        other.birth = moment.now + client as u64;
        let (after, verdicts) = over_at(&record, moment, &[(&other, false)]);
        version_of(&verdicts[0]);
        record = after;
    }
    record
}

#[test]
fn a_put_over_what_its_caller_can_not_take_is_a_conflict_that_tells_no_value() {
    let put_over = |sequence| {
        let action = Action::PutOver {
            value: Bytes::from_static(b"new"),
            old_size_max: 4,
            old_without: Bytes::from_static(b"[]"),
        };
        operation(1, sequence, 1, action)
    };
    let holds = |text: &'static str| Record {
        value: Some(Bytes::from_static(text.as_bytes())),
        version: 7,
        ..Record::default()
    };
    for text in ["", "four"] {
        let (after, verdicts) = over(&holds(text), &[(&put_over(1), false)]);
        let old = Old::Value(Bytes::from_static(text.as_bytes()));
        let version = version_of(&verdicts[0]);
        let written = Outcome::Written {
            version,
            old,
            number: None,
        };
        assert_eq!(verdicts, [ApplyVerdict::Answer(written)]);
        assert_eq!(after.value.as_deref(), Some(&b"new"[..]));
    }
    for text in ["fiveb", "a]b", "["] {
        let record = holds(text);
        let (after, verdicts) = over(&record, &[(&put_over(1), true)]);
        let conflict = Outcome::Conflict {
            version: 7,
            old: Old::NotAsked,
        };
        assert_eq!(verdicts, [ApplyVerdict::Answer(conflict.clone())]);
        assert_eq!((after.value, after.version), (record.value, 7));
        // X2: the conflict remains the outcome, whatever the record holds by then.
        let later = Record {
            value: None,
            applied: after.applied,
            ..Record::default()
        };
        let (_, again) = over(&later, &[(&put_over(1), true)]);
        assert_eq!(again, [ApplyVerdict::Answer(conflict)]);
    }
    let (after, verdicts) = over(&Record::default(), &[(&put_over(1), false)]);
    assert!(version_of(&verdicts[0]) > 0 && after.value.is_some());
}

#[test]
fn a_text_operation_stays_in_a_full_table_for_a_second() {
    let first = text_put(1, 7, NOW);
    let (record, before) = over(&with_value(5), &[(&first, true)]);
    let full = flood(record, at(NOW));
    let retry = text_put(1, 7, NOW + clock::from_ms(20));
    let soon = at(NOW + clock::from_ms(20));
    let (_, again) = over_at(&full, soon, &[(&retry, true)]);
    assert_eq!(again, before);

    let late = at(NOW + clock::from_ms(TEXT_KEPT_MS) + 1);
    let full = flood(full, late);
    assert!(
        !full
            .applied
            .clients
            .iter()
            .any(|c| c.client == first.id.client)
    );
    let (_, verdicts) = over_at(&full, late, &[(&first, true)]);
    assert_eq!(verdicts, [ApplyVerdict::Answer(Outcome::Unknown)]);
}

/// The text operations that a record's table knows, with and without their outcomes.
fn texts_in(record: &Record) -> (usize, usize) {
    let clients = record.applied.clients.iter();
    let texts = clients.filter(|c| text_operation::is_text(c.client));
    let hashed = record.applied.slices.iter().map(|slice| slice.hashes.len());
    (texts.map(|c| c.operations.len()).sum(), hashed.sum())
}

#[test]
fn text_operations_are_busy_at_the_bound_and_others_never() {
    let mut record = Record::default();
    let mut done = 0;
    loop {
        record.value = with_value(256).value;
        let one = text_put(done, u64::from(done), NOW + u64::from(done));
        let (after, verdicts) = over(&record, &[(&one, true)]);
        if verdicts == [ApplyVerdict::Answer(Outcome::Busy { after_ms: 0 })] {
            assert_eq!(after, record);
            break;
        }
        version_of(&verdicts[0]);
        record = after;
        done += 1;
    }
    assert!(usize::from(done) > 2_000, "{done}");
    let (outcomes, hashed) = texts_in(&record);
    assert!(outcomes >= APPLIED_TEXT_SIZE_MAX / 400, "{outcomes}");
    assert_eq!(outcomes + hashed, usize::from(done));
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, &record.applied.slices);
    assert!(bytes.len() <= TEXT_SLICES_SIZE_MAX);
    let record = flood(record, at(NOW));
    assert_eq!(texts_in(&record), (outcomes, hashed));

    // A second later there is space for others, in place of the oldest.
    let later = NOW + clock::from_ms(TEXT_KEPT_MS + 1);
    let (after, verdicts) = over_at(&record, at(later), &[(&text_put(999, 1, later), true)]);
    version_of(&verdicts[0]);
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, &after.applied);
    assert!(bytes.len() <= APPLIED_SIZE_MAX);
}

/// A record after text puts with these ids.
fn after_texts(record: &Record, moment: Moment, ids: std::ops::Range<u64>) -> Record {
    let mut record = record.clone();
    for id in ids {
        let one = text_put(2, id, moment.now + id);
        let (after, verdicts) = over_at(&record, moment, &[(&one, true)]);
        version_of(&verdicts[0]);
        record = after;
    }
    record
}

/// X1_hash: later text puts push its outcome out of the table, but not what it is known by.
#[test]
fn a_text_operation_whose_outcome_has_left_is_not_applied_again() {
    let first = text_put(1, 7_777, NOW);
    let (record, _) = over(&Record::default(), &[(&first, true)]);
    let record = after_texts(&record, at(NOW), 0..300);
    assert!(texts_in(&record).1 > 100);
    let elsewhere = text_put_from(2, 3, 7_777, NOW);
    for retry in [&first, &elsewhere] {
        let (after, verdicts) = over(&record, &[(retry, true)]);
        assert_eq!(verdicts, [ApplyVerdict::Answer(Outcome::Unknown)]);
        assert_eq!(after, record);
    }
    // A second after the last of its slice it may leave, and is another operation then.
    let late = at(NOW + clock::from_ms(TEXT_KEPT_MS) + 1_000);
    let (after, _) = over_at(&record, late, &[(&text_put(3, 1, late.now), true)]);
    assert!(after.applied.slices.is_empty() && after.applied.dropped >= NOW);
}

/// One coordinator takes a slice for old, another one has added to it since. The slice must stay
/// for the last that was added.
#[test]
fn a_slice_stays_for_the_last_operation_in_it() {
    let record = after_texts(&Record::default(), at(NOW), 0..180);
    let [slice] = &record.applied.slices[..] else {
        panic!("{:?}", record.applied.slices);
    };
    let seen = slice.last;
    let later = at(NOW + clock::from_ms(TEXT_SLICE_MS / 2));
    let grown = after_texts(&record, later, 180..210);
    let last = grown.applied.slices[0].last;
    assert!(grown.applied.slices.len() == 1 && last > seen);
    let moment = |text_kept_above| Moment {
        text_kept_above,
        ..later
    };
    for (settled, stays) in [(seen, true), (last - 1, true), (last, false)] {
        let proposal = Proposal::new(Some(&grown), Ballot::ZERO, moment(settled), 0);
        assert_eq!(proposal.finish().0.applied.slices.len() == 1, stays);
    }
    // It is not extended forever: otherwise it would never leave.
    let much_later = at(NOW + clock::from_ms(2 * TEXT_SLICE_MS));
    let more = after_texts(&grown, much_later, 210..410);
    assert!(more.applied.slices.len() > 1);
}

#[test]
fn a_clock_that_jumps_ahead_takes_no_text_operation_out_of_the_table() {
    let first = text_put(1, 7, NOW);
    let (record, before) = over(&Record::default(), &[(&first, true)]);
    let jumped = NOW + clock::from_ms(60_000);
    let moment = Moment {
        text_kept_above: NOW - 1,
        ..at(jumped)
    };
    let retry = text_put(1, 7, jumped);
    let (_, again) = over_at(&record, moment, &[(&retry, true)]);
    assert_eq!(again, before);
}

#[test]
fn text_operations_rise_where_clocks_differ() {
    let ahead = NOW + clock::from_ms(60_000);
    let (record, _) = over_at(
        &Record::default(),
        at(ahead),
        &[(&text_put(1, 7, NOW), true)],
    );
    assert_eq!(record.applied.newest_text(), ahead);
    let (record, _) = over(&record, &[(&text_put(2, 8, NOW), true)]);
    assert_eq!(record.applied.newest_text(), ahead + 1);
}

#[test]
fn the_same_words_from_elsewhere_are_not_run_while_they_may_be_a_retry() {
    let (record, _) = over(&with_value(5), &[(&text_put_from(1, 1, 7, NOW), true)]);
    for elsewhere in [text_put_from(2, 1, 7, NOW), text_put_from(1, 2, 7, NOW)] {
        let (after, verdicts) = over(&record, &[(&elsewhere, true)]);
        assert_eq!(verdicts, [ApplyVerdict::Answer(Outcome::Unknown)]);
        assert_eq!(after, record);
        let late = at(NOW + clock::from_ms(TEXT_KEPT_MS) + 1);
        let (_, verdicts) = over_at(&record, late, &[(&elsewhere, true)]);
        version_of(&verdicts[0]);
    }
    let (_, verdicts) = over(&record, &[(&text_put_from(2, 1, 8, NOW), true)]);
    version_of(&verdicts[0]);
}

/// X6: the table stays as large as it was, and operations that left it for that are not applied
/// again.
#[test]
fn a_table_without_room_does_not_grow() {
    let (first, second) = (put(1, 1, 1, "a"), put(2, 2, 1, "b"));
    let (before, _) = over(&Record::default(), &[(&first, false)]);
    let mut proposal = Proposal::new(Some(&before), Ballot::new(NOW, 1), at(NOW), 0);
    proposal.keep_size(Some(&before));
    let third = put(3, 3, 1, "c");
    for operation in [&second, &third] {
        let verdict = proposal.apply(operation, false);
        assert!(matches!(
            verdict,
            ApplyVerdict::Answer(Outcome::Written { .. })
        ));
    }
    let (after, changed) = proposal.finish();
    assert!(changed && after.applied.size() <= before.applied.size());
    let (_, verdicts) = over(&after, &[(&first, true), (&second, true)]);
    assert_eq!(
        verdicts,
        [const { ApplyVerdict::Answer(Outcome::Unknown) }; 2]
    );
    // The table still answers for the last one.
    let (_, verdicts) = over(&after, &[(&third, true)]);
    assert!(matches!(
        &verdicts[..],
        [ApplyVerdict::Answer(Outcome::Written {
            old: Old::Forgotten,
            ..
        })]
    ));
}

/// T3: the placement of a key whose table has forgotten what is as old. Only before the deadline
/// does it count that the register was pending.
#[test]
fn t3_a_placement_is_vouched_for_until_its_deadline() {
    let part = TransactionPart {
        key: Bytes::from_static(b"k"),
        change: Some(KeyChange::Put(Bytes::from_static(b"v"))),
        ..TransactionPart::default()
    };
    let transaction = Transaction { parts: vec![part] };
    let transact = operation(1, 1, 1, Action::Transact { transaction });
    let placed = |vouched, deadline| {
        let forgotten = transact.birth;
        let mut proposal = Proposal::new(None, Ballot::new(10, 1), at(NOW), forgotten);
        let step = TransactionStep::Place {
            part: 0,
            number: 1,
            by: Coordination {
                coordinator: 1,
                boot: 1,
                deadline,
            },
            vouched,
        };
        proposal.step(&transact, &step, false)
    };
    let is_held = |verdict| matches!(verdict, ApplyVerdict::Step(StepAnswer::Held(_)));
    let forgotten = ApplyVerdict::Step(StepAnswer::Forgotten(0));
    assert_eq!(placed(None, NOW + 1), forgotten);
    assert!(is_held(placed(Some(0), NOW + 1)));
    assert_eq!(placed(Some(0), NOW), forgotten);
    assert_eq!(placed(Some(7), NOW + 1), forgotten, "of another version");
}
