//! Operations that met an intent, and the search for its fate (T5, T6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wire::{Birth, OperationId, Outcome};

use super::{Due, Job, Surroundings, Transactions, Want};
use crate::protocol::clients::pending::Pending;
use crate::protocol::register::applied::{read_under, seen};
use crate::protocol::types::limits::{
    INTENT_PATIENCE_DOUBLINGS_MAX, INTENT_PATIENCE_US, INTENT_WAIT_MAX_US, INTENT_WAIT_US,
    INTENT_WAITERS_MAX,
};
use crate::protocol::types::record::{Key, Record};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{
    Attempt, AttemptState, Fate, Intent, Register, StepAnswer, TransactionStep, view,
};

/// An operation that met an intent in this record.
#[derive(Debug)]
pub(super) struct Blocked {
    key: Key,
    pending: Pending,
    /// For a read, which it may be answered from.
    record: Option<Arc<Record>>,
    /// Whether the register is being read since after the record was.
    asked: bool,
}

impl Blocked {
    /// T6: the older of two transactions aborts the younger.
    fn is_older_than(&self, birth: Birth, id: OperationId) -> bool {
        let operation = &self.pending.operation;
        self.places() && (operation.birth, operation.id) < (birth, id)
    }

    /// Whether it is to place an intent.
    fn places(&self) -> bool {
        let step = self.pending.step.as_deref();
        matches!(step, Some(TransactionStep::Place { .. }))
    }

    /// A write that is no part of a transaction.
    fn is_single_write(&self) -> bool {
        self.pending.step.is_none() && !self.pending.is_read()
    }
}

/// T6: the oldest comes first, and holds the key when the others try.
fn by_age(mut woken: Vec<Blocked>) -> Vec<Blocked> {
    woken.sort_by_key(|b| (b.pending.operation.birth, b.pending.operation.id));
    woken
}

/// How long a single write waits for that attempt.
fn patience_us(number: u32) -> u64 {
    INTENT_PATIENCE_US << number.saturating_sub(1).min(INTENT_PATIENCE_DOUBLINGS_MAX)
}

/// The search for the fate of one attempt.
#[derive(Debug)]
pub(super) struct Visit {
    birth: Birth,
    /// T1: what the register of a first attempt is like before it is decided.
    undecided: Register,
    waiting: Vec<Blocked>,
    is_looking: bool,
    /// The register is being created as aborted, if it is absent.
    is_abandoning: bool,
    wait_us: u64,
    began_us: u64,
}

impl Transactions {
    pub fn blocked(
        &mut self,
        around: &Surroundings<'_>,
        key: &Key,
        pending: Pending,
        record: Arc<Record>,
    ) {
        let Some(bytes) = &record.intent else {
            // A later operation of the same round cleared the intent (T3).
            let key = key.clone();
            self.wants.push_back(Want::Run { key, pending });
            return;
        };
        let Ok(intent) = Intent::decode(bytes) else {
            self.wants.push_back(Want::Drop(pending));
            return;
        };
        let of = intent.of;
        let blocked = Blocked {
            key: key.clone(),
            record: pending.is_read().then_some(record),
            pending,
            asked: false,
        };
        if let Some(fate) = self.decisions.of(of) {
            self.unblock(around, of, blocked, fate);
            return;
        }
        if self.waiting >= INTENT_WAITERS_MAX {
            self.wants.push_back(Want::Busy(blocked.pending));
            return;
        }
        self.waiting += 1;
        self.parked.entry(key.clone()).or_default().insert(of);
        let visit = self.visits.entry(of).or_insert_with(|| Visit {
            birth: intent.birth,
            undecided: intent.undecided(),
            waiting: Vec::new(),
            is_looking: false,
            is_abandoning: false,
            wait_us: 0,
            began_us: around.now.mono_us,
        });
        // A write waits for the timer that is set already, if it is not the older one. The younger
        // of two transactions sets one first: in most cases the intent is resolved by then.
        let is_older = blocked.is_older_than(visit.birth, of.id);
        let waits = visit.wait_us > 0 && !blocked.pending.is_read() && !is_older;
        let is_patient = blocked.places() && !is_older;
        let (is_looking, undecided) = (visit.is_looking, visit.undecided.clone());
        visit.waiting.push(blocked);
        if is_looking || waits {
            return;
        }
        match is_patient && !self.is_left(around, of.id, &undecided) {
            true => self.wait(around, of),
            false => self.look_at(around, of),
        }
    }

    /// T5: the read of the register begins after those of the keys.
    fn look_at(&mut self, around: &Surroundings<'_>, of: Attempt) {
        let Some(visit) = self.visits.get_mut(&of) else {
            return;
        };
        visit.is_looking = true;
        for blocked in &mut visit.waiting {
            blocked.asked = true;
        }
        let birth = visit.birth;
        let (key, step) = (Key::transaction(of.id), TransactionStep::Look { birth });
        self.step(around, key, step, of.id, Job::Visit(of));
    }

    pub(super) fn visit_due(&mut self, around: &Surroundings<'_>, of: Attempt) {
        let visit = self.visits.get(&of);
        if visit.is_some_and(|visit| !visit.is_looking) {
            self.look_at(around, of);
        }
    }

    pub(super) fn visit_answered(
        &mut self,
        around: &Surroundings<'_>,
        of: Attempt,
        answer: StepAnswer,
    ) {
        let Some(visit) = self.visits.get_mut(&of) else {
            return;
        };
        visit.is_looking = false;
        let was_abandoning = std::mem::take(&mut visit.is_abandoning);
        match answer {
            StepAnswer::Unregistered if of.number == 1 && rule!(T2_absent) => {
                let register = visit.undecided.clone();
                self.meet_pending(around, of, register, true);
            }
            // T2_absent: it was removed, or may have been. A round that writes makes sure.
            StepAnswer::Register(None) if of.number == 1 && !was_abandoning && rule!(T2_absent) => {
                let register = visit.undecided.clone();
                self.abort(around, of, register, true);
            }
            StepAnswer::Register(None) | StepAnswer::Unregistered | StepAnswer::Barred => {
                self.learn(around, of, Fate::Gone);
            }
            StepAnswer::Register(Some(register)) => match register.fate_of(of.number) {
                Some(fate) => self.learn(around, of, fate),
                None => self.meet_pending(around, of, register, false),
            },
            // X5: their coordinators say so to their clients. Without a vote or a working disk this
            // node runs no step, and hands them over.
            StepAnswer::Outcome(Outcome::NoQuorum { .. }) | StepAnswer::Dropped => {
                for blocked in self.end_visit(of) {
                    let Blocked { key, pending, .. } = blocked;
                    self.wants.push_back(Want::Run { key, pending });
                }
            }
            _ => {
                self.drop_overdue(around, of);
                self.wait(around, of);
            }
        }
    }

    /// The fate of an attempt is known: what waits for it goes on.
    pub fn learn(&mut self, around: &Surroundings<'_>, of: Attempt, fate: Fate) {
        self.decisions.learn(of, fate);
        for blocked in by_age(self.end_visit(of)) {
            self.unblock(around, of, blocked, fate);
        }
    }

    fn unblock(&mut self, around: &Surroundings<'_>, of: Attempt, blocked: Blocked, fate: Fate) {
        let Blocked {
            key,
            pending,
            record,
            ..
        } = blocked;
        let Some(record) = record else {
            self.wants.push_back(Want::Run { key, pending });
            return;
        };
        if fate == Fate::Gone && rule!(T5_absent) {
            // The intent may have been rolled forward after this read met it.
            let job = Job::Then(Box::new(pending), key.clone());
            let step = TransactionStep::Resolve { decided: None };
            self.step(around, key, step, of.id, job);
        } else {
            self.answer_read(around, pending, &view(&record, Some(fate)));
        }
    }

    fn answer_read(&mut self, around: &Surroundings<'_>, pending: Pending, record: &Record) {
        self.wants.push_back(match pending.step {
            Some(_) => Want::Stepped {
                pending,
                answer: StepAnswer::Seen(seen(record)),
            },
            None => Want::Answer {
                outcome: read_under(record, &pending.operation.action, around.wall_ms),
                pending,
            },
        });
    }

    /// `is_absent`: a first attempt that has no register yet.
    fn meet_pending(
        &mut self,
        around: &Surroundings<'_>,
        of: Attempt,
        register: Register,
        is_absent: bool,
    ) {
        self.drop_overdue(around, of);
        let reads = self.take_out(of, |b| b.asked && b.pending.is_read());
        let visit = self.visits.get(&of).expect("the caller looked");
        let (birth, later) = (visit.birth, &visit.waiting);
        let is_read = later.iter().any(|blocked| blocked.pending.is_read());
        let is_write = later.iter().any(|blocked| !blocked.pending.is_read());
        let is_older = later.iter().any(|b| b.is_older_than(birth, of.id)) && rule!(T6_older);
        let is_impatient = around.now.mono_us >= visit.began_us + patience_us(of.number)
            && later.iter().any(Blocked::is_single_write);
        for blocked in reads {
            let record = blocked.record.expect("a read has one");
            self.answer_read(around, blocked.pending, &record);
        }
        let is_free = self.is_left(around, of.id, &register);
        if is_write && (is_older || (is_free || is_impatient) && rule!(T6_abort)) {
            self.abort(around, of, register, is_absent);
        } else if is_read {
            self.look_at(around, of);
        } else if is_write {
            self.wait(around, of);
        } else {
            self.end_visit(of);
        }
    }

    fn abort(
        &mut self,
        around: &Surroundings<'_>,
        of: Attempt,
        register: Register,
        is_absent: bool,
    ) {
        let visit = self.visits.get_mut(&of).expect("the caller looked");
        (visit.is_looking, visit.is_abandoning) = (true, is_absent);
        for blocked in &mut visit.waiting {
            blocked.asked = true;
        }
        let to = Register {
            decision: AttemptState::Aborted,
            ..register.clone()
        };
        let step = match is_absent {
            true => TransactionStep::Abandon(to),
            false => TransactionStep::Move { from: register, to },
        };
        self.step(around, Key::transaction(of.id), step, of.id, Job::Visit(of));
    }

    fn wait(&mut self, around: &Surroundings<'_>, of: Attempt) {
        let Some(visit) = self.visits.get_mut(&of) else {
            return;
        };
        if visit.waiting.is_empty() {
            self.end_visit(of);
            return;
        }
        let wait_us = (2 * visit.wait_us).clamp(INTENT_WAIT_US, INTENT_WAIT_MAX_US);
        visit.wait_us = wait_us;
        let at_us = around.now.mono_us + wait_us;
        self.due.insert((at_us, Due::Visit(of)));
    }

    fn end_visit(&mut self, of: Attempt) -> Vec<Blocked> {
        let Some(visit) = self.visits.remove(&of) else {
            return Vec::new();
        };
        for blocked in &visit.waiting {
            self.waiting -= 1;
            unpark(&mut self.parked, &blocked.key, of);
        }
        visit.waiting
    }

    /// X8: drops the operations of a visit whose deadlines have passed.
    fn drop_overdue(&mut self, around: &Surroundings<'_>, of: Attempt) {
        for blocked in self.take_out(of, |b| b.pending.is_overdue(around.now)) {
            self.wants.push_back(Want::Drop(blocked.pending));
        }
    }

    /// Takes operations out of a visit.
    fn take_out(&mut self, of: Attempt, is_out: impl FnMut(&Blocked) -> bool) -> Vec<Blocked> {
        let Some(visit) = self.visits.get_mut(&of) else {
            return Vec::new();
        };
        let waiting = std::mem::take(&mut visit.waiting);
        let (out, stay): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_out);
        if out.is_empty() {
            visit.waiting = stay;
            return out;
        }
        self.waiting -= out.len();
        let keys: BTreeSet<&Key> = stay.iter().map(|blocked| &blocked.key).collect();
        for blocked in out.iter().filter(|b| !keys.contains(&b.key)) {
            unpark(&mut self.parked, &blocked.key, of);
        }
        visit.waiting = stay;
        out
    }

    pub(super) fn is_parked(&self, key: &Key) -> bool {
        self.parked.contains_key(key)
    }

    /// The intent of a key was resolved, as this node sees: the writes that wait try again.
    pub(super) fn poke(&mut self, key: &Key) {
        let Some(attempts) = self.parked.remove(key) else {
            return;
        };
        let mut woken = Vec::new();
        for of in attempts {
            let Some(visit) = self.visits.get_mut(&of) else {
                continue;
            };
            let waiting = std::mem::take(&mut visit.waiting);
            let goes_on = |b: &Blocked| b.key == *key && !b.pending.is_read();
            let (run, stay): (Vec<_>, Vec<_>) = waiting.into_iter().partition(goes_on);
            if stay.iter().any(|blocked| blocked.key == *key) {
                self.parked.entry(key.clone()).or_default().insert(of);
            }
            visit.waiting = stay;
            self.waiting -= run.len();
            woken.extend(run);
        }
        for blocked in by_age(woken) {
            let Blocked { key, pending, .. } = blocked;
            self.wants.push_back(Want::Run { key, pending });
        }
    }
}

/// No operation of that visit waits for the key any more.
fn unpark(parked: &mut BTreeMap<Key, BTreeSet<Attempt>>, key: &Key, of: Attempt) {
    if let Some(attempts) = parked.get_mut(key) {
        attempts.remove(&of);
        if attempts.is_empty() {
            parked.remove(key);
        }
    }
}
