//! A transaction that this node coordinates (T1, T2, T4), and snapshots (T11).

use std::collections::BTreeSet;
use std::sync::Arc;

use wire::{
    Action, Failure, FailureReason, Full, KeyResult, Operation, OperationId, Outcome, Transaction,
    clock,
};

use super::{Due, Job, RunJob, Surroundings, Transactions, Want};
use crate::protocol::clients::pending::Pending;
use crate::protocol::register::applied::check_conditions;
use crate::protocol::types::limits::{
    INTENT_WAIT_MAX_US, INTENT_WAIT_US, SNAPSHOT_TRIES_MAX, TRANSACTION_ATTEMPTS_MAX,
    TRANSACTION_MS,
};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{
    Attempt, AttemptState, Fate, Register, Seen, StepAnswer, TransactionStep,
};

#[derive(Debug)]
pub(super) struct TransactionRun {
    /// The client's operation, and the attempts at it that wait for the outcome.
    pending: Pending,
    /// That operation, or one of this node's own in place of a snapshot.
    operation: Arc<Operation>,
    /// Rises whenever answers to earlier steps no longer count.
    turn: u64,
    phase: RunPhase,
    wait_us: u64,
    /// Parts to be placed again, because their nodes were busy.
    again: Vec<usize>,
    /// T3: the parts for whose placement the register is read, or was.
    vouched: BTreeSet<usize>,
}

#[derive(Debug)]
enum RunPhase {
    Creating,
    /// X6: the register is looked at and not created, because a member is full.
    Finding(Full),
    /// The register, as this node moved it to pending, and what was placed.
    Placing(Register, Vec<Option<KeyResult>>),
    /// The register is being moved or looked at.
    Deciding,
    Snapshot {
        tries: u32,
        before: Option<Vec<Seen>>,
        seen: Vec<Option<Seen>>,
    },
}

impl TransactionRun {
    fn transaction(&self) -> &Transaction {
        match &self.operation.action {
            Action::Transact { transaction } => transaction,
            _ => unreachable!("only transactions are run"),
        }
    }

    fn keys(&self) -> Vec<Key> {
        let parts = self.transaction().parts.iter();
        parts.map(|part| Key::user(&part.key)).collect()
    }
}

impl Transactions {
    /// An attempt of a client at a transaction. X6: with `full`, it only finds what was begun.
    pub fn begin(&mut self, around: &Surroundings<'_>, pending: Pending, full: Option<Full>) {
        let asked = pending.operation.id;
        let id = self.in_place.get(&asked).copied().unwrap_or(asked);
        if let Some(run) = self.runs.get_mut(&id) {
            let replies = pending.also.iter().chain([&pending.reply]);
            let unanswered = replies.map(|reply| run.pending.join(*reply)).sum();
            run.pending.sent |= pending.sent;
            run.pending.deadline_us = run.pending.deadline_us.max(pending.deadline_us);
            self.wants.push_back(Want::Joined {
                pending,
                unanswered,
            });
            return;
        }
        let is_snapshot = pending.operation.action.is_read();
        let run = TransactionRun {
            operation: pending.operation.clone(),
            turn: self.next_turn(),
            phase: full.map_or(RunPhase::Creating, RunPhase::Finding),
            wait_us: INTENT_WAIT_US,
            pending,
            again: Vec::new(),
            vouched: BTreeSet::new(),
        };
        self.due.insert((run.pending.deadline_us, Due::Run(id)));
        self.runs.insert(id, run);
        match is_snapshot {
            true => self.read_all(around, id, 0, None),
            false if full.is_some() => self.look(around, id, RunJob::Register),
            false => self.create(around, id),
        }
    }

    pub fn has_run(&self, id: OperationId) -> bool {
        self.runs.contains_key(&id)
    }

    fn create(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let run = &self.runs[&id];
        let operation = run.operation.clone();
        let parts = &run.transaction().parts;
        let register = Register {
            attempt: 1,
            decision: AttemptState::Pending,
            birth: operation.birth,
            deadline: around.clock + clock::from_ms(TRANSACTION_MS),
            coordinator: around.me,
            boot: around.boot,
            keys: parts.iter().map(|part| part.key.clone()).collect(),
        };
        let tried = run.pending.tried;
        let job = self.job(id, RunJob::Register);
        let step = TransactionStep::Create(register.clone());
        self.step_of(around, Key::transaction(id), step, operation, tried, job);
        if !rule!(T2_chosen) {
            self.place_all(around, id, register);
        }
    }

    /// A job of the run's present turn.
    fn job(&self, id: OperationId, of: RunJob) -> Job {
        let turn = self.runs[&id].turn;
        Job::Run { id, turn, of }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn turn(&mut self, id: OperationId, phase: RunPhase) {
        let turn = self.next_turn();
        let run = self.runs.get_mut(&id).expect("the caller looked");
        (run.turn, run.phase) = (turn, phase);
        run.again.clear();
        run.vouched.clear();
    }

    pub(super) fn run_answered(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        turn: u64,
        of: RunJob,
        answer: StepAnswer,
    ) {
        let Some(run) = self.runs.get(&id).filter(|run| run.turn == turn) else {
            return;
        };
        let creating = !matches!(run.phase, RunPhase::Placing(..) | RunPhase::Deciding);
        match (of, answer) {
            (RunJob::Register, StepAnswer::Register(register)) => {
                self.found(around, id, register);
            }
            (RunJob::Vouch(part, version), StepAnswer::Register(register)) => {
                match &self.runs[&id].phase {
                    RunPhase::Placing(own, _) if register.as_ref() == Some(own) => {
                        self.place(around, id, part, Some(version));
                    }
                    _ => self.found(around, id, register),
                }
            }
            (RunJob::Refused, StepAnswer::Register(register)) => match &self.runs[&id].phase {
                // Nobody waits for the outcome any more.
                RunPhase::Placing(own, _) if register.as_ref() == Some(own) => {
                    let failure = contended();
                    self.fail(around, id, failure);
                }
                _ => self.found(around, id, register),
            },
            (RunJob::Part(part), StepAnswer::Held(result)) => self.held(around, id, part, result),
            (RunJob::Part(_), StepAnswer::Failed(failure)) => self.fail(around, id, failure),
            (RunJob::Part(part), StepAnswer::Forgotten(version)) => {
                let run = self.runs.get_mut(&id).expect("just seen");
                if run.vouched.insert(part) {
                    self.look(around, id, RunJob::Vouch(part, version));
                } else {
                    // The key is written so often that its version has changed meanwhile.
                    run.vouched.remove(&part);
                    run.again.push(part);
                    self.look_later(around, id);
                }
            }
            (RunJob::Part(_), StepAnswer::Refused) => self.look(around, id, RunJob::Refused),
            (RunJob::Part(part), StepAnswer::Seen(seen)) => self.seen(around, id, part, seen),
            // X5: nothing was begun, or nobody can tell what was.
            (_, StepAnswer::Outcome(outcome)) if creating => self.finish(id, outcome),
            (_, StepAnswer::Dropped) if creating => self.give_up(id),
            (RunJob::Part(part), StepAnswer::Outcome(_) | StepAnswer::Dropped) => {
                let run = self.runs.get_mut(&id).expect("just seen");
                run.again.push(part);
                self.look_later(around, id);
            }
            _ => {
                self.turn(id, RunPhase::Deciding);
                self.look_later(around, id);
            }
        }
    }

    fn look(&mut self, around: &Surroundings<'_>, id: OperationId, of: RunJob) {
        let job = self.job(id, of);
        self.step(around, Key::transaction(id), TransactionStep::Look, id, job);
    }

    fn look_later(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let at_us = around.now.mono_us + run.wait_us;
        run.wait_us = (2 * run.wait_us).min(INTENT_WAIT_MAX_US);
        self.due.insert((at_us, Due::Run(id)));
    }

    fn move_to(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        from: Register,
        to: Register,
    ) {
        self.turn(id, RunPhase::Deciding);
        let job = self.job(id, RunJob::Register);
        let step = TransactionStep::Move { from, to };
        self.step(around, Key::transaction(id), step, id, job);
    }

    /// T1, T4: goes on from what the register says.
    fn found(&mut self, around: &Surroundings<'_>, id: OperationId, register: Option<Register>) {
        let Some(register) = register else {
            let outcome = match self.runs[&id].phase {
                RunPhase::Finding(full) => Outcome::Full { full },
                _ => Outcome::Unknown,
            };
            self.finish(id, outcome);
            return;
        };
        let number = register.attempt;
        match &register.decision {
            AttemptState::Committed(results) => {
                let results = results.clone();
                self.finish(id, Outcome::Committed { results });
                self.settle(around, id, register);
            }
            AttemptState::Failed(failure) => {
                let failure = *failure;
                self.finish(id, Outcome::Failed { failure });
                self.settle(around, id, register);
            }
            AttemptState::Aborted if !rule!(T1) => {
                let failure = contended();
                self.finish(id, Outcome::Failed { failure });
            }
            AttemptState::Aborted => {
                self.learn(around, Attempt { id, number }, Fate::Void);
                let is_late = around.clock >= register.deadline;
                let mut to = register.clone();
                if is_late || number >= TRANSACTION_ATTEMPTS_MAX {
                    to.decision = AttemptState::Failed(contended());
                } else {
                    to.attempt = number + 1;
                    to.decision = AttemptState::Pending;
                    (to.coordinator, to.boot) = (around.me, around.boot);
                }
                self.move_to(around, id, register, to);
            }
            AttemptState::Pending if around.is_mine(&register) => {
                self.place_all(around, id, register);
            }
            AttemptState::Pending if around.is_cared_for(&register) => {
                self.turn(id, RunPhase::Deciding);
                self.look_later(around, id);
            }
            AttemptState::Pending => {
                let to = Register {
                    decision: AttemptState::Aborted,
                    ..register.clone()
                };
                self.move_to(around, id, register, to);
            }
        }
    }

    fn place_all(&mut self, around: &Surroundings<'_>, id: OperationId, register: Register) {
        let count = self.runs[&id].transaction().parts.len();
        let results = vec![None; count];
        if rule!(T2_chosen) {
            self.turn(id, RunPhase::Placing(register, results));
        } else {
            let run = self.runs.get_mut(&id).expect("the caller looked");
            if matches!(run.phase, RunPhase::Placing(..)) {
                return;
            }
            run.phase = RunPhase::Placing(register, results);
        }
        for part in 0..count {
            self.place(around, id, part, None);
        }
    }

    /// T2: also a key that is only read or checked gets an intent.
    fn place(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        part: usize,
        vouched: Option<u64>,
    ) {
        let run = &self.runs[&id];
        let RunPhase::Placing(register, _) = &run.phase else {
            return;
        };
        let number = register.attempt;
        let operation = run.operation.clone();
        let wanted = &run.transaction().parts[part];
        let key = Key::user(&wanted.key);
        let step = match wanted.change.is_some() || rule!(T2_read) {
            true => TransactionStep::Place {
                part: part as u16,
                number,
                vouched,
            },
            false => TransactionStep::Read,
        };
        let job = self.job(id, RunJob::Part(part));
        self.step_of(around, key, step, operation, false, job);
    }

    fn held(&mut self, around: &Surroundings<'_>, id: OperationId, part: usize, result: KeyResult) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let RunPhase::Placing(register, results) = &mut run.phase else {
            return;
        };
        results[part] = Some(result);
        if results.iter().any(Option::is_none) {
            return;
        }
        let results: Vec<KeyResult> = results.iter().flatten().cloned().collect();
        let from = register.clone();
        let decision = AttemptState::Committed(results.clone());
        let mut to = Register {
            decision,
            ..from.clone()
        };
        // T10: the register holds all results.
        if to.encode().len() > wire::VALUE_SIZE_MAX {
            to.decision = AttemptState::Failed(too_large());
        }
        self.move_to(around, id, from, to);
        if !rule!(T4) {
            self.finish(id, Outcome::Committed { results });
        }
    }

    fn fail(&mut self, around: &Surroundings<'_>, id: OperationId, failure: Failure) {
        let RunPhase::Placing(register, _) = &self.runs[&id].phase else {
            return;
        };
        let from = register.clone();
        let to = Register {
            decision: AttemptState::Failed(failure),
            ..from.clone()
        };
        self.move_to(around, id, from, to);
    }

    fn finish(&mut self, id: OperationId, outcome: Outcome) {
        let Some(run) = self.runs.remove(&id) else {
            return;
        };
        let pending = run.pending;
        self.in_place.remove(&pending.operation.id);
        let is_unfit = matches!(outcome, Outcome::Unknown | Outcome::Remake { .. });
        self.wants.push_back(match pending.is_read() && is_unfit {
            // The client asks again.
            true => Want::Drop(pending),
            false => Want::Answer { pending, outcome },
        });
    }

    fn give_up(&mut self, id: OperationId) {
        if let Some(run) = self.runs.remove(&id) {
            self.in_place.remove(&run.pending.operation.id);
            self.wants.push_back(Want::Drop(run.pending));
        }
    }

    pub(super) fn run_due(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        if run.pending.deadline_us > around.now.mono_us {
            let at_us = run.pending.deadline_us;
            self.due.insert((at_us, Due::Run(id)));
            match run.phase {
                RunPhase::Deciding => {
                    self.turn(id, RunPhase::Deciding);
                    self.look(around, id, RunJob::Register);
                }
                RunPhase::Placing(..) => self.place_again(around, id),
                RunPhase::Creating | RunPhase::Finding(_) | RunPhase::Snapshot { .. } => {}
            }
            return;
        }
        // Nobody waits for it any more: its keys need not wait for its deadline.
        if let RunPhase::Placing(register, _) = &run.phase {
            let from = register.clone();
            let to = Register {
                decision: AttemptState::Aborted,
                ..from.clone()
            };
            let step = TransactionStep::Move { from, to };
            self.step(around, Key::transaction(id), step, id, Job::Nothing);
        }
        self.give_up(id);
    }

    fn place_again(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        for part in std::mem::take(&mut run.again) {
            self.place(around, id, part, None);
        }
    }

    /// T11: reads all keys; `before`: what they were at the last time.
    fn read_all(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        tries: u32,
        before: Option<Vec<Seen>>,
    ) {
        let keys = self.runs[&id].keys();
        let seen = vec![None; keys.len()];
        self.turn(
            id,
            RunPhase::Snapshot {
                tries,
                before,
                seen,
            },
        );
        let operation = self.runs[&id].operation.clone();
        for (part, key) in keys.into_iter().enumerate() {
            let job = self.job(id, RunJob::Part(part));
            self.step_of(
                around,
                key,
                TransactionStep::Read,
                operation.clone(),
                false,
                job,
            );
        }
    }

    fn seen(&mut self, around: &Surroundings<'_>, id: OperationId, part: usize, read: Seen) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let RunPhase::Snapshot {
            tries,
            before,
            seen,
        } = &mut run.phase
        else {
            // Without T2_read.
            match judge(run.transaction(), part, &read) {
                Ok(result) => self.held(around, id, part, result),
                Err(failure) => self.fail(around, id, failure),
            }
            return;
        };
        seen[part] = Some(read);
        if seen.iter().any(Option::is_none) {
            return;
        }
        let seen: Vec<Seen> = seen.drain(..).flatten().collect();
        let is_enough = seen.len() == 1 || !rule!(T11);
        let is_same = before.take().is_some_and(|before| {
            let mut pairs = before.iter().zip(&seen);
            pairs.all(|(before, now)| is_unchanged(before, now))
        });
        let tries = *tries + 1;
        if is_same || is_enough {
            let parts = 0..seen.len();
            let results = parts.map(|part| judge(run.transaction(), part, &seen[part]));
            let outcome = match results.collect::<Result<Vec<_>, _>>() {
                Ok(results) if size_of(&results) > wire::VALUE_SIZE_MAX => Outcome::Failed {
                    failure: too_large(),
                },
                Ok(results) => Outcome::Committed { results },
                Err(failure) => Outcome::Failed { failure },
            };
            self.finish(id, outcome);
        } else if tries <= SNAPSHOT_TRIES_MAX {
            self.read_all(around, id, tries, Some(seen));
        } else {
            self.run_in_place(around, id);
        }
    }

    /// Runs the snapshot as an ordinary transaction, under an id of this node's own: a client's
    /// reads have no identity that outlives them.
    fn run_in_place(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let mut run = self.runs.remove(&id).expect("the caller looked");
        let Some(own) = &mut self.own else {
            return;
        };
        own.sequence += 1;
        let own = *own;
        self.in_place.insert(run.pending.operation.id, own);
        // X1: the lowest one that is in progress.
        let first = OperationId { sequence: 0, ..own };
        let lowest = self
            .runs
            .range(first..own)
            .next()
            .map(|(id, _)| id.sequence);
        let mut operation = (*run.operation).clone();
        operation.id = own;
        operation.birth = around.clock;
        operation.low_mark = lowest.unwrap_or(own.sequence);
        run.operation = Arc::new(operation);
        run.phase = RunPhase::Creating;
        self.due.insert((run.pending.deadline_us, Due::Run(own)));
        self.runs.insert(own, run);
        self.create(around, own);
    }

    /// Under this id the node runs its own transactions.
    pub fn set_own(&mut self, client: u128) {
        self.own.get_or_insert(OperationId {
            client,
            sequence: 0,
        });
    }

    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }
}

fn contended() -> Failure {
    Failure {
        part: 0,
        reason: FailureReason::Contended,
    }
}

/// T10: the results do not fit an answer.
fn too_large() -> Failure {
    Failure {
        part: 0,
        reason: FailureReason::TooLarge { limit: 0 },
    }
}

fn size_of(results: &[KeyResult]) -> usize {
    let values = results.iter().filter_map(|result| result.value.as_ref());
    values.map(|value| value.len()).sum()
}

/// The result of a part that only reads.
fn judge(transaction: &Transaction, place: usize, seen: &Seen) -> Result<KeyResult, Failure> {
    let part = &transaction.parts[place];
    let found = seen.value.as_ref().map_or(0, |_| seen.version);
    let held = check_conditions(part, seen.value.as_ref(), found);
    held.map_err(|reason| Failure {
        part: place as u16,
        reason,
    })?;
    Ok(KeyResult {
        found,
        value: seen.value.clone().filter(|_| part.get),
        version: found,
        number: None,
    })
}

/// T11: a key without a record was not written and purged in between if one of the members that
/// answered has the same floor in the same epoch: a purge would have raised it.
fn is_unchanged(before: &Seen, now: &Seen) -> bool {
    let is_absent_still = match (&before.floors, &now.floors) {
        (None, None) => true,
        (Some((epoch, before)), Some((now_epoch, now))) => {
            epoch == now_epoch && before.iter().any(|floor| now.contains(floor))
        }
        _ => false,
    };
    before.version == now.version && is_absent_still
}
