//! The course of transactions on one node: those that it coordinates (`run`), snapshots
//! (`snapshot`), the intents that its operations met (`visit`), and what is left over (`sweep`).
//! This module decides which step is to be taken on which record. It sends nothing, and knows no
//! acceptor state.

mod run;
mod snapshot;
mod sweep;
#[cfg(test)]
mod tests;
mod tracked;
mod visit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use wire::clock::Reading;
use wire::{Action, Operation, OperationId, Outcome};

use crate::protocol::clients::pending::Pending;
use crate::protocol::types::limits::OPERATION_AGE_MAX_MS;
use crate::protocol::types::message::{NodeId, Now};
use crate::protocol::types::record::Key;
use crate::protocol::types::transaction::{
    Attempt, Decisions, Register, StepAnswer, TransactionStep,
};
use run::TransactionRun;
use sweep::Sweep;
use tracked::Tracked;
use visit::Visit;

/// What the caller is to do.
#[derive(Debug)]
pub enum Want {
    /// Run the step on the record; its answer comes with the job.
    Step {
        key: Key,
        step: TransactionStep,
        operation: Arc<Operation>,
        tried: bool,
        job: u64,
        deadline_us: u64,
    },
    Answer {
        pending: Pending,
        outcome: Outcome,
    },
    /// A step that met an intent is answered.
    Stepped {
        pending: Pending,
        answer: StepAnswer,
    },
    /// The operation goes to its key's coordinator again.
    Run {
        key: Key,
        pending: Pending,
    },
    Drop(Pending),
    /// Too many wait.
    Busy(Pending),
    /// Another attempt at a transaction in progress, as `Effect::Joined`.
    Joined {
        pending: Pending,
        unanswered: u64,
    },
}

/// What the machine may use while it handles one input.
pub struct Surroundings<'a> {
    pub now: Now,
    pub me: NodeId,
    pub boot: u64,
    pub clock: Reading,
    /// L1: the time by which keys expire, in milliseconds since 1970.
    pub wall_ms: u64,
    /// X1: the retry horizon.
    pub horizon: Reading,
    /// Whether that member is joined to this node, in that boot.
    pub is_present: &'a dyn Fn(NodeId, u64) -> bool,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Surroundings<'_> {
    /// T6: whether somebody works on the pending attempt, so that others wait for it.
    fn is_cared_for(&self, register: &Register) -> bool {
        self.clock < register.deadline && (self.is_present)(register.coordinator, register.boot)
    }

    fn is_mine(&self, register: &Register) -> bool {
        (register.coordinator, register.boot) == (self.me, self.boot)
    }
}

/// What a step is for.
#[derive(Debug)]
enum Job {
    /// `turn`: of the run, so that answers to what it has given up are recognized.
    Run {
        id: OperationId,
        turn: u64,
        of: RunJob,
    },
    Visit(Attempt),
    SweepRegister(OperationId),
    /// With the sweep's serial number.
    SweepKey(OperationId, u64),
    /// A key whose intent nobody visits.
    SweepIntent(Key),
    /// The intent of a key is gone: the operation goes there again.
    Then(Box<Pending>, Key),
    /// Nobody waits for it.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum RunJob {
    /// The register is looked at or moved.
    Register,
    /// The register is created.
    Create,
    Part(usize),
    /// T3: the register is read, to vouch for the placement of a part.
    Vouch(usize, u64),
    /// The register is read, because a placement was refused.
    Refused,
    /// The register is created as aborted, because there is none.
    Abandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Run(OperationId),
    Visit(Attempt),
    Sweep(OperationId),
}

#[derive(Debug, Default)]
pub struct Transactions {
    runs: BTreeMap<OperationId, TransactionRun>,
    visits: BTreeMap<Attempt, Visit>,
    sweeps: BTreeMap<OperationId, Sweep>,
    jobs: BTreeMap<u64, Job>,
    last_job: u64,
    /// The last turn of any run, so that no run takes an answer to an earlier one with its id.
    turns: u64,
    /// The last sweep.
    serials: u64,
    /// Of this node's own transactions, in place of snapshots.
    own: Option<OperationId>,
    /// Clients' snapshots that run as transactions of this node's own.
    in_place: BTreeMap<OperationId, OperationId>,
    decisions: Decisions,
    /// The keys for whose intents operations wait.
    parked: BTreeMap<Key, BTreeSet<Attempt>>,
    /// Operations that wait for intents.
    waiting: usize,
    due: BTreeSet<(u64, Due)>,
    timer_us: Option<u64>,
    answers: VecDeque<(u64, StepAnswer)>,
    wants: VecDeque<Want>,
    tracked: Tracked,
}

impl Transactions {
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    pub fn poll_want(&mut self) -> Option<Want> {
        self.wants.pop_front()
    }

    /// The answer of a step, handled by the next `handle_answer`.
    pub fn answered(&mut self, job: u64, answer: StepAnswer) {
        self.answers.push_back((job, answer));
    }

    /// Returns whether there was an answer to handle.
    pub fn handle_answer(&mut self, around: &Surroundings<'_>) -> bool {
        let Some((job, answer)) = self.answers.pop_front() else {
            return false;
        };
        match self.jobs.remove(&job) {
            Some(Job::Run { id, turn, of }) => self.run_answered(around, id, turn, of, answer),
            Some(Job::Visit(of)) => self.visit_answered(around, of, answer),
            Some(Job::SweepRegister(id)) => self.register_swept(around, id, answer),
            Some(Job::SweepKey(id, serial)) => self.key_swept(around, id, serial, &answer),
            Some(Job::SweepIntent(key)) => self.intent_swept(around, key, &answer),
            Some(Job::Then(pending, key)) => {
                let pending = *pending;
                self.wants.push_back(Want::Run { key, pending });
            }
            Some(Job::Nothing) | None => {}
        }
        true
    }

    /// Whether the answer to a job still matters.
    pub fn wants(&self, job: u64) -> bool {
        match self.jobs.get(&job) {
            Some(Job::Run { id, turn, .. }) => {
                self.runs.get(id).is_some_and(|run| run.has_turn(*turn))
            }
            job => job.is_some(),
        }
    }

    /// T6: nobody works on the pending attempt any more.
    fn is_left(&self, around: &Surroundings<'_>, id: OperationId, register: &Register) -> bool {
        !around.is_cared_for(register) || around.is_mine(register) && !self.has_run(id)
    }

    /// Whether there is something to do without a further input.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    pub fn has_wants(&self) -> bool {
        !self.wants.is_empty()
    }

    pub fn handle_timeout(&mut self, around: &Surroundings<'_>) {
        let now_us = around.now.mono_us;
        if self.timer_us.is_some_and(|at_us| at_us <= now_us) {
            self.timer_us = None;
        }
        while let Some((at_us, due)) = self.due.first().copied() {
            if at_us > now_us {
                break;
            }
            self.due.pop_first();
            match due {
                Due::Run(id) => self.run_due(around, id),
                Due::Visit(of) => self.visit_due(around, of),
                Due::Sweep(id) => self.sweep_due(around, id),
            }
        }
    }

    /// When to call `handle_timeout`, if no timer is set for that time yet.
    pub fn needs_timer(&mut self) -> Option<u64> {
        let (at_us, _) = self.due.first().copied()?;
        if self.timer_us.is_some_and(|set| set <= at_us) {
            return None;
        }
        self.timer_us = Some(at_us);
        Some(at_us)
    }

    /// Takes a step for a job.
    fn step(
        &mut self,
        around: &Surroundings<'_>,
        key: Key,
        step: TransactionStep,
        id: OperationId,
        job: Job,
    ) {
        // T1: whether a register was removed is judged by the birth of its transaction.
        let birth = match &step {
            TransactionStep::Abandon(register) => register.birth,
            _ => around.clock,
        };
        let operation = Operation {
            id,
            birth,
            low_mark: 0,
            key: key.name().to_vec().into(),
            want_old: false,
            action: Action::Get,
        };
        self.step_of(around, key, step, Arc::new(operation), false, job);
    }

    fn step_of(
        &mut self,
        around: &Surroundings<'_>,
        key: Key,
        step: TransactionStep,
        operation: Arc<Operation>,
        tried: bool,
        job: Job,
    ) {
        self.last_job += 1;
        self.jobs.insert(self.last_job, job);
        self.wants.push_back(Want::Step {
            key,
            step,
            operation,
            tried,
            job: self.last_job,
            deadline_us: around.now.mono_us + OPERATION_AGE_MAX_MS * 1_000,
        });
    }
}
