//! What transactions leave: intents that are resolved, and registers that are removed (T8, T9).

use wire::{Birth, OperationId};

use super::{Due, Job, Surroundings, Transactions};
use crate::protocol::types::limits::{SWEEP_AFTER_MS, SWEEPS_MAX};
use crate::protocol::types::record::{Key, SPACE_TRANSACTION};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{
    Attempt, AttemptState, Fate, Register, StepAnswer, TransactionStep,
};

/// A decided attempt whose keys are being resolved, or whose register is to be removed.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The jobs of this sweep carry it.
    serial: u64,
    attempt: u32,
    birth: Birth,
    /// Keys that may still have an intent of the attempt.
    left: usize,
}

impl Transactions {
    /// The register is decided: its keys are rolled forward or back, and later it is removed.
    pub(super) fn settle(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        register: Register,
    ) {
        let number = register.attempt;
        let fate = match register.decision {
            AttemptState::Committed(_) => Fate::Committed,
            AttemptState::Failed(_) | AttemptState::Aborted => Fate::Void,
            AttemptState::Pending => return,
        };
        self.learn(around, Attempt { id, number }, fate);
        let sweep = self.sweeps.get(&id);
        if sweep.is_some_and(|sweep| sweep.attempt == number) {
            return;
        }
        let keys: Vec<Key> = register.keys.iter().map(|key| Key::user(key)).collect();
        let left = if rule!(T8) { keys.len() } else { 0 };
        self.serials += 1;
        let serial = self.serials;
        let sweep = Sweep {
            serial,
            attempt: number,
            birth: register.birth,
            left,
        };
        self.sweeps.insert(id, sweep);
        match left {
            0 => self.remove_later(around, id),
            _ => {
                let decided = Some((number, fate));
                for key in keys {
                    let (step, job) = (
                        TransactionStep::Resolve { decided },
                        Job::SweepKey(id, serial),
                    );
                    self.step(around, key, step, id, job);
                }
            }
        }
    }

    pub(super) fn key_swept(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        serial: u64,
        answer: &StepAnswer,
    ) {
        let sweep = self.sweeps.get(&id);
        if sweep.is_none_or(|sweep| sweep.serial != serial) {
            return;
        }
        if *answer != StepAnswer::Resolved {
            // The register stays. Whoever sweeps it next goes on.
            self.sweeps.remove(&id);
            let at_us = around.now.mono_us + SWEEP_AFTER_MS * 1_000;
            self.tracked.track(Key::transaction(id), at_us);
            return;
        }
        let Some(sweep) = self.sweeps.get_mut(&id) else {
            return;
        };
        sweep.left = sweep.left.saturating_sub(1);
        if sweep.left == 0 {
            self.remove_later(around, id);
        }
    }

    /// T8: a register stays for the retry horizon, so that retries find the outcome. A clock that
    /// is ahead of the wall clocks hardly moves, so this node's own time counts, too.
    fn remove_later(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let old_at = self.sweeps[&id].birth.saturating_add(around.horizon);
        let wait = old_at.saturating_sub(around.clock).min(around.horizon);
        let at_us = around.now.mono_us + (wire::clock::to_ms(wait) + 1) * 1_000;
        self.due.insert((at_us, Due::Sweep(id)));
    }

    pub(super) fn sweep_due(&mut self, around: &Surroundings<'_>, id: OperationId) {
        let settled = self.sweeps.get(&id).filter(|sweep| sweep.left == 0);
        let Some(attempt) = settled.map(|sweep| sweep.attempt) else {
            return;
        };
        self.sweeps.remove(&id);
        let job = Job::SweepRegister(id);
        let step = TransactionStep::Delete { attempt };
        self.step(around, Key::transaction(id), step, id, job);
    }

    /// Looks at what was tracked for long enough.
    pub fn sweep(&mut self, around: &Surroundings<'_>) {
        while self.sweeps_begun() < SWEEPS_MAX {
            let Some(key) = self.tracked.pop_due(around.now.mono_us) else {
                break;
            };
            if key.space() != SPACE_TRANSACTION {
                // T9: nobody visited it.
                if let Some(id) = self.tracked.owner(&key) {
                    let job = Job::SweepIntent(key.clone());
                    let step = TransactionStep::Resolve { decided: None };
                    self.step(around, key, step, id, job);
                }
            } else if let Some(id) = key.transaction_id()
                && !self.sweeps.contains_key(&id)
            {
                // Whether an absent register was there before makes no difference to a sweep.
                let step = TransactionStep::Look { birth: 0 };
                self.step(around, key, step, id, Job::SweepRegister(id));
            }
        }
    }

    fn sweeps_begun(&self) -> usize {
        let is_sweep = |job: &&Job| matches!(job, Job::SweepRegister(_) | Job::SweepIntent(_));
        self.jobs.values().filter(is_sweep).count()
    }

    pub(super) fn intent_swept(
        &mut self,
        around: &Surroundings<'_>,
        key: Key,
        answer: &StepAnswer,
    ) {
        if *answer != StepAnswer::Resolved {
            let at_us = around.now.mono_us + SWEEP_AFTER_MS * 1_000;
            self.tracked.track(key, at_us);
        }
    }

    pub(super) fn register_swept(
        &mut self,
        around: &Surroundings<'_>,
        id: OperationId,
        answer: StepAnswer,
    ) {
        let key = Key::transaction(id);
        let later_us = around.now.mono_us + SWEEP_AFTER_MS * 1_000;
        match answer {
            StepAnswer::Register(None) | StepAnswer::Unregistered => {}
            StepAnswer::Register(Some(register)) if register.decision != AttemptState::Pending => {
                if !self.sweeps.contains_key(&id) && !self.has_run(id) {
                    self.settle(around, id, register);
                }
            }
            StepAnswer::Register(Some(register)) => {
                if !self.is_left(around, id, &register) {
                    self.tracked.track(key, later_us);
                    return;
                }
                let to = Register {
                    decision: AttemptState::Aborted,
                    ..register.clone()
                };
                let step = TransactionStep::Move { from: register, to };
                self.step(around, key, step, id, Job::SweepRegister(id));
            }
            _ => self.tracked.track(key, later_us),
        }
    }
}
