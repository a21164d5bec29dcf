//! Drives the transactions of this node (T1 to T11): takes their steps as operations of single
//! records, and carries out what they want.

use std::sync::Arc;

use rand::RngExt;
use wire::{Action, KeyChange, Outcome, clock};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::keys::outbox::Way;
use crate::protocol::register::coordinator::preferred;
use crate::protocol::replica::Replica;
use crate::protocol::replica::scan::KeyRead;
use crate::protocol::transactions::{Surroundings, Transactions, Want};
use crate::protocol::types::limits::{
    BUSY_AFTER_MS, OPERATIONS_MAX, RESOLVE_PART_SIZE, RESOLVE_SIZE_MAX,
};
use crate::protocol::types::message::{NodeId, Now, Resolve, ResolvePart};
use crate::protocol::types::page::Page;
use crate::protocol::types::record::{Key, Record};
use crate::protocol::types::timer::Timer;
use crate::protocol::types::transaction::StepAnswer;

impl Replica {
    /// A client's attempt at a transaction. X6: what may have been done is looked for before it is
    /// refused.
    pub(super) fn begin_transaction(&mut self, now: Now, pending: Pending) {
        let is_running = self.transactions.has_run(pending.operation.id);
        let full = self.space.cluster_full;
        let full = full.filter(|_| !is_running && grows(&pending));
        if let Some(full) = full
            && !pending.tried
        {
            self.answer_full(pending, full);
            return;
        }
        if self.is_disk_behind() && !is_running && !pending.is_read() {
            let after_ms = self.disk_after_ms();
            self.answer_busy(pending, after_ms);
            return;
        }
        if !self.transactions.has_own() {
            self.transactions
                .set_own(self.random.random::<u128>() | 1 << 127);
        }
        self.transact(now, |transactions, around| {
            transactions.begin(around, pending, full);
        });
    }

    /// An operation met an intent.
    pub(super) fn block(&mut self, now: Now, key: &Key, pending: Pending, record: Arc<Record>) {
        self.transact(now, |transactions, around| {
            transactions.blocked(around, key, pending, record);
        });
    }

    /// The steps' answers are handled after the input that brought them.
    pub(super) fn stepped(&mut self, pending: &Pending, answer: StepAnswer) {
        if let reply @ ReplyTo::Node { .. } = pending.reply {
            self.end_operation(&pending.operation);
            self.answer_step(reply, answer);
            return;
        }
        self.end_step();
        match pending.reply {
            ReplyTo::Step { job } => self.transactions.answered(job, answer),
            ReplyTo::Watch { read } => self.has_settled(read, answer),
            ReplyTo::Scan { round, place } => {
                self.requests
                    .scans
                    .has_read(round, place, KeyRead::of(answer));
            }
            _ => unreachable!("no other operation has steps"),
        }
    }

    /// T5: the rounds of one input that resolve intents share a message to each member. Returns
    /// whether there was one.
    pub(super) fn send_resolves(&mut self) -> bool {
        let resolves = self.sending.take_resolves();
        let any = !resolves.is_empty();
        for (to, parts) in resolves {
            let group = self.ceiling_group();
            for parts in resolve_batches(parts) {
                self.send(to, 0, Resolve { parts }.into(), group, Way::Usual);
            }
        }
        any
    }

    /// Returns whether there was an answer to handle.
    pub(super) fn take_step_answers(&mut self, now: Now) -> bool {
        if !self.transactions.has_answers() && !self.transactions.has_wants() {
            return false;
        }
        self.transact(now, |transactions, around| {
            transactions.handle_answer(around);
        });
        true
    }

    pub(super) fn transactions_timeout(&mut self, now: Now) {
        self.transact(now, Transactions::handle_timeout);
    }

    pub(super) fn refuse_snapshots(&mut self, now: Now) {
        let reached = self.view.reachable().to_vec();
        self.transact(now, |transactions, around| {
            transactions.refuse_snapshots(around, &reached);
        });
    }

    /// At each heartbeat.
    pub(super) fn sweep_transactions(&mut self, now: Now) {
        let coordinators = self.view.coordinators();
        let (me, horizon_ms) = (self.identity.node, self.options.tuning.retry_horizon_ms);
        let is_preferred = |key: &Key| preferred(key, coordinators) == Some(me);
        self.transactions.track_noted(now, horizon_ms, is_preferred);
        if self.runs_rounds() && self.view.hears_quorum() {
            self.transact(now, Transactions::sweep);
        }
    }

    /// What this node held when it started is found where buckets are listed.
    pub(super) fn note_listed(&mut self, page: &Page) {
        for (key, state) in &page.states {
            let record = state.record.as_deref();
            self.transactions.note_listed(key, record);
        }
    }

    pub(super) fn transact(
        &mut self,
        now: Now,
        handle: impl FnOnce(&mut Transactions, &Surroundings<'_>),
    ) {
        let (me, boot) = (self.identity.node, self.options.boot);
        let (links, configuration) = (&self.links, &self.identity.configuration);
        let timings = &self.timings;
        let is_present = |node: NodeId, of_boot: u64| {
            if node == me {
                return of_boot == boot;
            }
            let member = configuration.as_ref().and_then(|c| c.voter(node));
            let known = member.and_then(|m| links.boot(node, m.incarnation));
            let hangs = timings.is_hung(links.unsynced_ms(node).into());
            known == Some(of_boot) && links.is_joined(node) && !hangs
        };
        let around = Surroundings {
            now,
            me,
            boot,
            clock: self.clock.last(),
            wall_ms: self.clock.expiry_ms(now),
            horizon: clock::from_ms(self.options.tuning.retry_horizon_ms),
            is_present: &is_present,
        };
        handle(&mut self.transactions, &around);
        while let Some(want) = self.transactions.poll_want() {
            self.fulfil(now, want);
        }
        if let Some(at_us) = self.transactions.needs_timer() {
            self.timers.set(at_us, Timer::Transactions);
        }
    }

    fn fulfil(&mut self, now: Now, want: Want) {
        match want {
            Want::Step {
                key,
                step,
                operation,
                tried,
                job,
                deadline_us,
            } => {
                let pending = Pending {
                    operation,
                    step: Some(Arc::new(step)),
                    reply: ReplyTo::Step { job },
                    also: Vec::new(),
                    tried,
                    sent: false,
                    arrived_us: now.mono_us,
                    deadline_us,
                    received_us: Some(now.mono_us),
                };
                self.begin_step();
                self.run_here(now, key, pending);
            }
            Want::Run { key, pending } => self.run_here(now, key, pending),
            Want::Answer { pending, outcome } => self.answer_honestly(pending, outcome),
            Want::Stepped { pending, answer } => self.stepped(&pending, answer),
            Want::Drop(pending) => self.drop_operation(pending, false),
            Want::Busy(pending) => self.answer_busy(pending, BUSY_AFTER_MS),
            Want::Joined {
                pending,
                unanswered,
            } => {
                self.counts.dropped.overflow += unanswered;
                self.end_operation(&pending.operation);
            }
        }
    }

    /// X5: what may have been begun elsewhere is not refused.
    fn answer_honestly(&mut self, pending: Pending, outcome: Outcome) {
        let is_refusal = matches!(
            outcome,
            Outcome::NoQuorum { .. }
                | Outcome::Busy { .. }
                | Outcome::Full { .. }
                | Outcome::Remake { .. }
        );
        match is_refusal && pending.sent {
            true => self.drop_operation(pending, false),
            false => self.answer(pending, outcome),
        }
    }
}

/// The parts of each message, so that it fits a datagram. A larger frame would be transferred, and
/// a lost piece of it would delay all its keys.
fn resolve_batches(parts: Vec<ResolvePart>) -> Vec<Vec<ResolvePart>> {
    let mut batches: Vec<Vec<ResolvePart>> = Vec::new();
    let mut left = 0usize;
    for part in parts {
        let size = part.key.as_bytes().len() + RESOLVE_PART_SIZE;
        if batches.is_empty() || size > left {
            batches.push(Vec::new());
            left = RESOLVE_SIZE_MAX;
        }
        left = left.saturating_sub(size);
        batches.last_mut().expect("just pushed").push(part);
    }
    batches
}

/// X6: deletes go on while a node is full.
fn grows(pending: &Pending) -> bool {
    let Action::Transact { transaction } = &pending.operation.action else {
        return false;
    };
    let changes = transaction
        .parts
        .iter()
        .filter_map(|part| part.change.as_ref());
    changes.clone().any(|change| *change != KeyChange::Delete)
}

const _: () = assert!(OPERATIONS_MAX > crate::protocol::types::limits::INTENT_WAITERS_MAX);
