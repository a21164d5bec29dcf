//! The machine by itself: the test answers its steps.

use std::sync::Arc;

use bytes::Bytes;
use wire::{
    Action, KeyChange, KeyResult, Operation, OperationId, Outcome, Transaction, TransactionPart,
};

use super::{Surroundings, Transactions, Want};
use crate::protocol::clients::pending::{Pending, tests};
use crate::protocol::types::limits::INTENT_WAIT_US;
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{Key, Record};
use crate::protocol::types::transaction::{
    Attempt, AttemptState, Coordination, Intent, Register, StepAnswer, TransactionStep,
};

const NOW_US: u64 = 1_000_000;

fn around(mono_us: u64) -> Surroundings<'static> {
    Surroundings {
        now: Now {
            mono_us,
            wall_ms: 0,
        },
        me: 1,
        boot: 1,
        clock: 10,
        wall_ms: 0,
        horizon: wire::clock::from_ms(10_000),
        is_present: &|_, _| true,
    }
}

/// A transaction of another node.
const OF: Attempt = Attempt {
    id: OperationId {
        client: 5,
        sequence: 5,
    },
    number: 1,
};

fn covered() -> Arc<Record> {
    let intent = Intent {
        of: OF,
        birth: 5,
        by: Coordination {
            coordinator: 2,
            boot: 2,
            deadline: 1 << 30,
        },
        change: Some(Some("new".into())),
        version: 70,
        expiry_ms: None,
        result: KeyResult {
            found: 0,
            value: None,
            version: 70,
            number: None,
        },
    };
    let record = Record {
        intent: Some(intent.encode()),
        ..Record::default()
    };
    record.into()
}

/// A client's operation, which is overdue a second later.
fn pending(client: u128, action: Action) -> Pending {
    let pending = tests::pending(client);
    let operation = Operation {
        action,
        ..pending.operation.as_ref().clone()
    };
    Pending {
        operation: operation.into(),
        arrived_us: NOW_US,
        deadline_us: NOW_US + 1_000_000,
        ..pending
    }
}

fn put(client: u128) -> Pending {
    let value = Bytes::from_static(b"1");
    pending(client, Action::Put { value })
}

fn transact(client: u128) -> Pending {
    let part = TransactionPart {
        key: "k".into(),
        change: Some(KeyChange::Delete),
        ..TransactionPart::default()
    };
    let transaction = Transaction { parts: vec![part] };
    pending(client, Action::Transact { transaction })
}

fn pending_register() -> Register {
    Register {
        attempt: OF.number,
        decision: AttemptState::Pending,
        birth: 5,
        deadline: u64::MAX,
        coordinator: 2,
        boot: 2,
        keys: vec!["k".into()],
    }
}

fn key() -> Key {
    Key::user(b"k")
}

fn wants(machine: &mut Transactions) -> Vec<Want> {
    std::iter::from_fn(|| machine.poll_want()).collect()
}

/// The only thing wanted: a step.
#[track_caller]
fn step(machine: &mut Transactions) -> (TransactionStep, u64) {
    let wants = wants(machine);
    match &wants[..] {
        [Want::Step { step, job, .. }] => (step.clone(), *job),
        _ => panic!("{wants:?}"),
    }
}

/// The only step that is wanted gets this answer.
#[track_caller]
fn answer(machine: &mut Transactions, now_us: u64, answer: StepAnswer) {
    let (_, job) = step(machine);
    machine.answered(job, answer);
    assert!(machine.handle_answer(&around(now_us)));
}

#[track_caller]
fn assert_nothing_waits(machine: &Transactions) {
    let waiting = (machine.waiting, machine.visits.len(), machine.parked.len());
    assert_eq!(waiting, (0, 0, 0));
}

/// A later placement of the round cleared the intent that the operation met.
#[test]
fn an_operation_whose_intent_is_cleared_goes_on() {
    let mut machine = Transactions::default();
    machine.blocked(&around(NOW_US), &key(), put(1), Arc::default());
    assert!(matches!(&wants(&mut machine)[..], [Want::Run { .. }]));
    let unreadable = Record {
        intent: Some(Bytes::from("x").into()),
        ..Record::default()
    };
    machine.blocked(&around(NOW_US), &key(), put(1), unreadable.into());
    assert!(matches!(&wants(&mut machine)[..], [Want::Drop(_)]));
    machine.blocked(&around(NOW_US), &key(), put(1), covered());
    assert!(matches!(&wants(&mut machine)[..], [Want::Step { .. }]));
}

/// T6: a younger transaction waits for a while before it looks, unless the coordinator is gone.
#[test]
fn a_younger_transaction_is_patient() {
    let place = TransactionStep::Place {
        part: 0,
        number: 1,
        by: Coordination {
            coordinator: 1,
            boot: 1,
            deadline: 1 << 30,
        },
        vouched: None,
    };
    let born = |birth: u64| {
        let pending = transact(1);
        let operation = Operation {
            birth,
            ..pending.operation.as_ref().clone()
        };
        Pending {
            operation: operation.into(),
            step: Some(Arc::new(place.clone())),
            ..pending
        }
    };
    let alone = Surroundings {
        is_present: &|_, _| false,
        ..around(NOW_US)
    };
    for (birth, around, looks) in [
        (9, &around(NOW_US), false),
        (9, &alone, true),
        (1, &around(NOW_US), true),
    ] {
        let mut machine = Transactions::default();
        machine.blocked(around, &key(), born(birth), covered());
        assert_eq!(!wants(&mut machine).is_empty(), looks, "{birth}");
        machine.handle_timeout(&self::around(NOW_US + INTENT_WAIT_US));
        assert_eq!(wants(&mut machine).is_empty(), looks, "{birth}");
    }
}

/// A node without a vote, or with a hung disk, drops the step that reads the register.
#[test]
fn an_operation_does_not_wait_for_a_register_that_this_node_may_not_read() {
    let mut machine = Transactions::default();
    machine.blocked(&around(NOW_US), &key(), put(1), covered());
    answer(&mut machine, NOW_US, StepAnswer::Dropped);
    assert!(matches!(&wants(&mut machine)[..], [Want::Run { .. }]));
    assert_nothing_waits(&machine);
}

/// X8
#[test]
fn an_overdue_operation_does_not_wait_for_a_register_that_cannot_be_read() {
    let mut machine = Transactions::default();
    let busy = || StepAnswer::Outcome(Outcome::Busy { after_ms: 20 });
    machine.blocked(&around(NOW_US), &key(), put(1), covered());
    answer(&mut machine, NOW_US, busy());
    assert!(wants(&mut machine).is_empty());
    machine.handle_timeout(&around(NOW_US + INTENT_WAIT_US));
    answer(&mut machine, NOW_US + 1_000_000, busy());
    assert!(matches!(&wants(&mut machine)[..], [Want::Drop(_)]));
    assert_nothing_waits(&machine);
}

/// Otherwise each attempt at a hot key would leave an entry.
#[test]
fn a_key_for_which_no_operation_waits_any_more_is_not_remembered() {
    let mut machine = Transactions::default();
    let read = pending(1, Action::Get);
    machine.blocked(&around(NOW_US), &key(), read, covered());
    machine.blocked(&around(NOW_US), &key(), put(2), covered());
    let register = || StepAnswer::Register(Some(pending_register()));
    answer(&mut machine, NOW_US, register());
    assert!(matches!(&wants(&mut machine)[..], [Want::Answer { .. }]));
    assert!(machine.is_parked(&key()), "the write waits");
    machine.handle_timeout(&around(NOW_US + INTENT_WAIT_US));
    answer(&mut machine, NOW_US + 1_000_000, register());
    assert!(matches!(&wants(&mut machine)[..], [Want::Drop(_)]));
    assert_nothing_waits(&machine);
}

/// T3: the version of a key with many writers changes while the register is read.
#[test]
fn a_placement_that_was_vouched_for_in_vain_is_tried_again_later() {
    let mut machine = Transactions::default();
    machine.begin(&around(NOW_US), transact(1), None);
    // The register is created to vouch for it.
    answer(&mut machine, NOW_US, StepAnswer::Forgotten(4));
    let (create, job) = step(&mut machine);
    let TransactionStep::Create(register) = create else {
        panic!("{create:?}");
    };
    let register = || StepAnswer::Register(Some(register.clone()));
    machine.answered(job, register());
    machine.handle_answer(&around(NOW_US));
    let mut now_us = NOW_US;
    for version in [6, 8] {
        answer(&mut machine, now_us, StepAnswer::Forgotten(version));
        answer(&mut machine, now_us, register());
        answer(&mut machine, now_us, StepAnswer::Forgotten(version + 1));
        assert!(wants(&mut machine).is_empty());
        now_us += 2 * INTENT_WAIT_US;
        machine.handle_timeout(&around(now_us));
    }
    let placed = step(&mut machine).0;
    let is_open = matches!(placed, TransactionStep::Place { vouched: None, .. });
    assert!(is_open, "{placed:?}");
}

/// The first attempt's only intent is placed, and nobody knows what became of the creation of its
/// register. The register is absent, and can't be created any more.
fn barred(mut pending: Pending, now_us: u64, is_joined: bool) -> Outcome {
    pending.deadline_us = now_us + 1_000_000;
    let mut machine = Transactions::default();
    machine.begin(&around(NOW_US), pending.clone(), None);
    answer(&mut machine, NOW_US, StepAnswer::Held(KeyResult::default()));
    if is_joined {
        let tried = Pending {
            tried: true,
            ..pending
        };
        machine.begin(&around(NOW_US), tried, None);
    }
    let job = wants(&mut machine).iter().find_map(|want| match want {
        Want::Step {
            step: TransactionStep::Create(_),
            job,
            ..
        } => Some(*job),
        _ => None,
    });
    let unknown = StepAnswer::Outcome(Outcome::Unknown);
    machine.answered(job.expect("its creation"), unknown);
    machine.handle_answer(&around(NOW_US));
    machine.handle_timeout(&around(now_us));
    answer(&mut machine, now_us, StepAnswer::Unregistered);
    answer(&mut machine, now_us, StepAnswer::Barred);
    let mut wants = wants(&mut machine).into_iter();
    let outcome = wants.find_map(|want| match want {
        Want::Answer { outcome, .. } => Some(outcome),
        _ => None,
    });
    outcome.expect("an answer")
}

/// X5: the attempt surely did nothing, unless another one may have been executed, or the register
/// may have been there and be gone.
#[test]
fn an_attempt_whose_register_cannot_be_created_is_issued_again() {
    let soon_us = NOW_US + INTENT_WAIT_US;
    let outcome = barred(transact(1), soon_us, false);
    assert!(matches!(outcome, Outcome::Remake { .. }), "{outcome:?}");
    assert_eq!(barred(transact(1), soon_us, true), Outcome::Unknown);
    let late_us = NOW_US + 10_000_000;
    assert_eq!(barred(transact(1), late_us, false), Outcome::Unknown);
}

/// T9: the intents of an attempt that has ended are looked at by the next sweep, also if they are
/// noted after its end.
#[test]
fn the_next_sweep_looks_at_what_an_ended_attempt_placed() {
    let mut machine = Transactions::default();
    machine.begin(&around(NOW_US), transact(1), None);
    let refused = Outcome::NoQuorum {
        reached: Vec::new(),
    };
    answer(&mut machine, NOW_US, StepAnswer::Outcome(refused));
    assert!(matches!(&wants(&mut machine)[..], [Want::Answer { .. }]));
    machine.note(&key(), Some(&covered()));
    machine.track_noted(around(NOW_US).now, 10_000, |_| false);
    machine.sweep(&around(NOW_US));
    let (swept, _) = step(&mut machine);
    assert_eq!(swept, TransactionStep::Resolve { decided: None });
}
