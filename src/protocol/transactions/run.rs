//! A transaction that this node coordinates (T1, T2, T4).

use std::collections::BTreeSet;
use std::sync::Arc;

use wire::{
    Action, Failure, FailureReason, Full, KeyResult, Operation, OperationId, Outcome, Transaction,
    clock,
};

use super::{Due, Job, RunJob, Surroundings, Transactions, Want};
use crate::protocol::clients::pending::Pending;
use crate::protocol::types::limits::{
    ABORTED_REST_US, INTENT_WAIT_MAX_US, INTENT_WAIT_US, TRANSACTION_ATTEMPTS_MAX, TRANSACTION_MS,
};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{
    Attempt, AttemptState, Fate, Register, Seen, StepAnswer, TransactionStep,
};

#[derive(Debug)]
pub(super) struct TransactionRun {
    /// The client's operation, and the attempts at it that wait for the outcome.
    pub(super) pending: Pending,
    /// Further snapshots of the same keys, which get the same answer (T11).
    pub(super) sharers: Vec<Pending>,
    /// That operation, or one of this node's own in place of a snapshot.
    pub(super) operation: Arc<Operation>,
    /// Rises whenever answers to earlier steps no longer count.
    turn: u64,
    pub(super) phase: RunPhase,
    wait_us: u64,
    /// Parts to be placed again, because their nodes were busy.
    again: Vec<usize>,
    /// T3: the parts for whose placement the register is read, or was.
    vouched: BTreeSet<usize>,
    /// The parts by key.
    order: Vec<usize>,
    /// How many of them are being placed, or are held, in this attempt.
    placed: usize,
    /// The last attempt after whose abort it has waited.
    rested: u32,
    /// The last attempt whose commit was asked for.
    asked: u32,
    /// T1: whether the register was seen. A first attempt creates it with its decision.
    is_registered: bool,
    /// Whether this run has asked for the placement of an intent.
    has_placed: bool,
}

#[derive(Debug)]
pub(super) enum RunPhase {
    Creating,
    /// X6: the register is looked at and not created, because a member is full.
    Finding(Full),
    /// The register, as this node moved it to pending or as it would be, and what was placed.
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
    pub(super) fn transaction(&self) -> &Transaction {
        transaction_of(&self.operation)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        let parts = self.transaction().parts.iter();
        parts.map(|part| Key::user(&part.key)).collect()
    }

    pub(super) fn has_turn(&self, turn: u64) -> bool {
        self.turn == turn
    }

    /// The run goes on under another id.
    pub(super) fn begin_anew(&mut self) {
        self.phase = RunPhase::Creating;
        (self.rested, self.asked) = (0, 0);
        (self.is_registered, self.has_placed) = (false, false);
    }

    /// Whether another attempt of the client may be under way.
    fn is_retry(&self) -> bool {
        let tried = self.pending.tried || self.pending.sent;
        tried && !self.is_in_place()
    }

    /// Whether it runs under an id of this node's own.
    pub(super) fn is_in_place(&self) -> bool {
        self.operation.id != self.pending.operation.id
    }

    /// Whether this node has yet to ask for the commit of the present attempt.
    pub(super) fn is_undecided(&self) -> bool {
        match &self.phase {
            RunPhase::Creating => true,
            RunPhase::Placing(register, _) => register.attempt > self.asked,
            RunPhase::Finding(_) | RunPhase::Deciding | RunPhase::Snapshot { .. } => false,
        }
    }

    /// A snapshot that gets the same answer.
    pub(super) fn take_in(&mut self, snapshot: Pending) {
        self.pending.deadline_us = self.pending.deadline_us.max(snapshot.deadline_us);
        self.sharers.push(snapshot);
    }

    /// Another attempt at an operation whose outcome this run finds.
    fn join(&mut self, pending: &Pending) -> u64 {
        self.pending.deadline_us = self.pending.deadline_us.max(pending.deadline_us);
        let id = pending.operation.id;
        let sharer = self.sharers.iter_mut().find(|p| p.operation.id == id);
        let same = sharer.unwrap_or(&mut self.pending);
        same.tried |= pending.tried;
        same.sent |= pending.sent;
        let replies = pending.also.iter().chain([&pending.reply]);
        replies.map(|reply| same.join(*reply)).sum()
    }
}

impl Transactions {
    /// An attempt of a client at a transaction. X6: with `full`, it only finds what was begun.
    pub fn begin(&mut self, around: &Surroundings<'_>, pending: Pending, full: Option<Full>) {
        let asked = pending.operation.id;
        let id = self.in_place.get(&asked).copied().unwrap_or(asked);
        if let Some(run) = self.runs.get_mut(&id) {
            let unanswered = run.join(&pending);
            self.wants.push_back(Want::Joined {
                pending,
                unanswered,
            });
            return;
        }
        let is_snapshot = pending.operation.action.is_read();
        let pending = match is_snapshot {
            true => self.share(pending),
            false => Some(pending),
        };
        let Some(pending) = pending else { return };
        let run = TransactionRun {
            operation: pending.operation.clone(),
            turn: self.next_turn(),
            phase: full.map_or(RunPhase::Creating, RunPhase::Finding),
            wait_us: INTENT_WAIT_US,
            sharers: Vec::new(),
            again: Vec::new(),
            vouched: BTreeSet::new(),
            order: order_of(&pending.operation),
            pending,
            placed: 0,
            rested: 0,
            asked: 0,
            is_registered: false,
            has_placed: false,
        };
        self.due.insert((run.pending.deadline_us, Due::Run(id)));
        self.runs.insert(id, run);
        match is_snapshot {
            true => self.read_all(around, id, 0, None),
            false if full.is_some() => self.look(around, id, RunJob::Register),
            false => self.start(around, id),
        }
    }

    /// T1: a first attempt places its intents before it has a register. A retry creates that first:
    /// another node may be at work for the client.
    pub(super) fn start(&mut self, around: &Surroundings<'_>, id: OperationId) {
        match self.runs[&id].is_retry() {
            true => self.create(around, id),
            false => {
                let register = self.undecided(around, id);
                self.place_all(around, id, register);
            }
        }
    }

    /// The register of a first attempt before it is decided.
    fn undecided(&self, around: &Surroundings<'_>, id: OperationId) -> Register {
        let run = &self.runs[&id];
        let parts = run.transaction().parts.iter();
        Register {
            attempt: 1,
            decision: AttemptState::Pending,
            birth: run.operation.birth,
            deadline: around.clock + clock::from_ms(TRANSACTION_MS),
            coordinator: around.me,
            boot: around.boot,
            keys: parts.map(|part| part.key.clone()).collect(),
        }
    }

    pub fn has_run(&self, id: OperationId) -> bool {
        self.runs.contains_key(&id)
    }

    fn create(&mut self, around: &Surroundings<'_>, id: OperationId) {
        self.turn(id, RunPhase::Creating);
        let register = self.undecided(around, id);
        self.create_as(around, id, register);
    }

    /// T1_first: a run asks for this once with the same birth.
    fn create_as(&mut self, around: &Surroundings<'_>, id: OperationId, register: Register) {
        let run = &self.runs[&id];
        let (operation, tried) = (run.operation.clone(), run.is_retry());
        let job = self.job(id, RunJob::Create);
        let step = TransactionStep::Create(register);
        self.step_of(around, Key::transaction(id), step, operation, tried, job);
    }

    /// A job of the run's present turn.
    pub(super) fn job(&self, id: OperationId, of: RunJob) -> Job {
        let turn = self.runs[&id].turn;
        Job::Run { id, turn, of }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    pub(super) fn turn(&mut self, id: OperationId, phase: RunPhase) {
        let turn = self.next_turn();
        let run = self.runs.get_mut(&id).expect("the caller looked");
        (run.turn, run.phase) = (turn, phase);
        run.again.clear();
        run.vouched.clear();
        run.placed = 0;
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
        let has_begun = matches!(run.phase, RunPhase::Placing(..) | RunPhase::Deciding);
        // A run knows whether it has seen the register.
        let answer = match answer {
            StepAnswer::Unregistered => StepAnswer::Register(None),
            answer => answer,
        };
        // T1: as long as no register was seen, intents alone decide nothing.
        let is_open = match of {
            RunJob::Part(_) | RunJob::Create => !run.is_registered,
            _ => !has_begun,
        };
        match (of, answer) {
            (RunJob::Abandoned, StepAnswer::Barred) => self.end_barred(around, id),
            (RunJob::Abandoned, StepAnswer::Register(None)) => self.finish(id, Outcome::Unknown),
            (RunJob::Abandoned, StepAnswer::Register(register)) => {
                self.found(around, id, register);
            }
            (RunJob::Register | RunJob::Create, StepAnswer::Register(register)) => {
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
            (RunJob::Part(part), StepAnswer::Failed(failure)) => {
                let part = part as u16;
                self.fail(around, id, Failure { part, ..failure });
            }
            // Only a register that is pending can vouch for a placement.
            (RunJob::Part(_), StepAnswer::Forgotten(_)) if is_open => self.create(around, id),
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
            (_, StepAnswer::Outcome(Outcome::Remake { .. }))
                if is_open && self.renew(around, id) => {}
            (_, StepAnswer::Outcome(outcome))
                if is_open && (!has_begun || is_refusal(&outcome)) =>
            {
                self.finish(id, outcome);
            }
            (RunJob::Part(_), StepAnswer::Dropped) if is_open => self.give_up(id),
            (_, StepAnswer::Dropped) if !has_begun => self.give_up(id),
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

    /// T1, X5: the register can't be created any more, because members have forgotten what is as
    /// old (X3). So this attempt did nothing. The outcome is unknown only if another attempt may
    /// have been executed, or if the run is so old that its register may have been removed and
    /// purged.
    fn end_barred(&mut self, around: &Surroundings<'_>, id: OperationId) {
        if self.renew(around, id) {
            return;
        }
        let run = &self.runs[&id];
        let horizon_us = clock::to_ms(around.horizon) * 1_000;
        let is_old = around.now.mono_us >= run.pending.arrived_us + horizon_us
            || around.clock >= run.operation.birth.saturating_add(around.horizon);
        let outcome = match run.is_retry() || is_old {
            true => Outcome::Unknown,
            false => Outcome::Remake {
                dropped: around.clock,
            },
        };
        self.finish(id, outcome);
    }

    fn look(&mut self, around: &Surroundings<'_>, id: OperationId, of: RunJob) {
        let job = self.job(id, of);
        let birth = self.runs[&id].operation.birth;
        let step = TransactionStep::Look { birth };
        self.step(around, Key::transaction(id), step, id, job);
    }

    /// T1: the first attempt is aborted, if it is not decided.
    fn abandon(&mut self, around: &Surroundings<'_>, id: OperationId, of: RunJob) {
        self.turn(id, RunPhase::Deciding);
        let register = Register {
            decision: AttemptState::Aborted,
            ..self.undecided(around, id)
        };
        let (operation, job) = (self.runs[&id].operation.clone(), self.job(id, of));
        let step = TransactionStep::Abandon(register);
        self.step_of(around, Key::transaction(id), step, operation, false, job);
    }

    /// T9: nobody goes on with a first attempt. This node's next sweep rolls its intents back, so
    /// that nobody waits for its deadline.
    pub(super) fn leave(&mut self, run: &TransactionRun) {
        if run.has_placed && !run.is_registered {
            for key in run.keys() {
                self.tracked.track_at_once(key);
            }
        }
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
        if !self.runs[&id].is_registered {
            self.create_as(around, id, to);
            return;
        }
        let job = self.job(id, RunJob::Register);
        let step = TransactionStep::Move { from, to };
        self.step(around, Key::transaction(id), step, id, job);
    }

    /// T1, T4: goes on from what the register says.
    fn found(&mut self, around: &Surroundings<'_>, id: OperationId, register: Option<Register>) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let Some(register) = register else {
            match run.phase {
                RunPhase::Finding(full) => self.finish(id, Outcome::Full { full }),
                _ if run.is_registered => self.finish(id, Outcome::Unknown),
                _ => self.abandon(around, id, RunJob::Abandoned),
            }
            return;
        };
        run.is_registered = true;
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
            AttemptState::Aborted if self.rests(around, id, number) => {}
            AttemptState::Aborted => {
                let is_late = around.clock >= register.deadline;
                let mut to = register.clone();
                to.keys = self.undecided(around, id).keys;
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
        self.turn(id, RunPhase::Placing(register, results));
        self.place_next(around, id);
    }

    /// T6: places the next keys once all before them are held. A transaction that was aborted
    /// waits at its first key, in an order that is the same for all, and holds no other meanwhile.
    /// So does one for whose keys others wait.
    fn place_next(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let run = &self.runs[&id];
        let RunPhase::Placing(register, results) = &run.phase else {
            return;
        };
        let mut asked = run.order[..run.placed].iter();
        if asked.any(|part| results[*part].is_none()) {
            return;
        }
        let all = run.order.len();
        let count = match register.attempt > 1 || self.is_contended(run) {
            true => all.min(2 * run.placed + 1),
            false => all,
        };
        let run = self.runs.get_mut(&id).expect("just seen");
        let next = run.order[run.placed..count].to_vec();
        run.placed = count;
        for part in next {
            self.place(around, id, part, None);
        }
    }

    /// Whether operations of this node wait for intents of its keys. A snapshot in place has many
    /// keys, and tries to hold them all at once first.
    fn is_contended(&self, run: &TransactionRun) -> bool {
        let is_candidate = !self.parked.is_empty() && !run.is_in_place();
        is_candidate && run.keys().iter().any(|key| self.is_parked(key))
    }

    /// T6: an attempt that was aborted waits before the next one, so that the older transaction
    /// finds its keys free. Returns whether it does.
    fn rests(&mut self, around: &Surroundings<'_>, id: OperationId, number: u32) -> bool {
        self.learn(around, Attempt { id, number }, Fate::Void);
        let run = self.runs.get_mut(&id).expect("the caller looked");
        if run.rested >= number {
            return false;
        }
        run.rested = number;
        self.turn(id, RunPhase::Deciding);
        let at_us = around.now.mono_us + ABORTED_REST_US;
        self.due.insert((at_us, Due::Run(id)));
        true
    }

    /// T2: also a key that is only read or checked gets an intent.
    fn place(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        part: usize,
        vouched: Option<u64>,
    ) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let RunPhase::Placing(register, _) = &run.phase else {
            return;
        };
        run.has_placed = true;
        let (number, by) = (register.attempt, register.by());
        let operation = run.operation.clone();
        let wanted = &run.transaction().parts[part];
        let key = Key::user(&wanted.key);
        let step = match wanted.change.is_some() || rule!(T2_read) {
            true => TransactionStep::Place {
                part: part as u16,
                number,
                by,
                vouched,
            },
            false => TransactionStep::Read,
        };
        let job = self.job(id, RunJob::Part(part));
        self.step_of(around, key, step, operation, false, job);
    }

    pub(super) fn held(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        part: usize,
        result: KeyResult,
    ) {
        let run = self.runs.get_mut(&id).expect("the caller looked");
        let RunPhase::Placing(register, results) = &mut run.phase else {
            return;
        };
        results[part] = Some(result);
        if results.iter().any(Option::is_none) {
            self.place_next(around, id);
            return;
        }
        let results: Vec<KeyResult> = results.iter().flatten().cloned().collect();
        let from = register.clone();
        run.asked = from.attempt;
        let decision = AttemptState::Committed(results.clone());
        let mut to = Register {
            decision,
            ..from.clone()
        };
        // T10: the register holds all results.
        if to.may_be_larger_than(wire::VALUE_SIZE_MAX) && to.encode().len() > wire::VALUE_SIZE_MAX {
            to.decision = AttemptState::Failed(too_large());
        }
        self.move_to(around, id, from, to);
        if !rule!(T4) {
            self.finish(id, Outcome::Committed { results });
        }
    }

    pub(super) fn fail(&mut self, around: &Surroundings<'_>, id: OperationId, failure: Failure) {
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

    pub(super) fn finish(&mut self, id: OperationId, outcome: Outcome) {
        let Some(run) = self.runs.remove(&id) else {
            return;
        };
        self.leave(&run);
        let is_unfit = matches!(outcome, Outcome::Unknown | Outcome::Remake { .. });
        for pending in run.sharers.into_iter().chain([run.pending]) {
            self.in_place.remove(&pending.operation.id);
            let outcome = outcome.clone();
            self.wants.push_back(match pending.is_read() && is_unfit {
                // The client asks again.
                true => Want::Drop(pending),
                false => Want::Answer { pending, outcome },
            });
        }
    }

    fn give_up(&mut self, id: OperationId) {
        let Some(run) = self.runs.remove(&id) else {
            return;
        };
        self.leave(&run);
        for pending in run.sharers.into_iter().chain([run.pending]) {
            self.in_place.remove(&pending.operation.id);
            self.wants.push_back(Want::Drop(pending));
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
            if !run.is_registered {
                self.abandon(around, id, RunJob::Register);
                self.give_up(id);
                return;
            }
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
}

pub(super) fn transaction_of(operation: &Operation) -> &Transaction {
    match &operation.action {
        Action::Transact { transaction } => transaction,
        _ => unreachable!("only transactions are run"),
    }
}

/// X5: of a step that was surely not executed.
fn is_refusal(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::NoQuorum { .. } | Outcome::Remake { .. } | Outcome::Full { .. }
    )
}

/// The parts in the order of their keys.
fn order_of(operation: &Operation) -> Vec<usize> {
    let parts = &transaction_of(operation).parts;
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|part| &parts[*part].key);
    order
}

fn contended() -> Failure {
    Failure {
        part: 0,
        reason: FailureReason::Contended,
    }
}

/// T10: the results do not fit an answer.
pub(super) fn too_large() -> Failure {
    Failure {
        part: 0,
        reason: FailureReason::TooLarge { limit: 0 },
    }
}
