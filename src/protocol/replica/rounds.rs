//! Runs a key's coordinator, and carries out its effects.

use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::register::coordinator::{Context, Coordinator, Effect};
use crate::protocol::replica::Replica;
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{AcceptorState, Key};
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;

impl Replica {
    pub(super) fn handle_loaded(&mut self, now: Now, key: &Key, state: Option<AcceptorState>) {
        let waiters = self.keys.arrive(key, state);
        let Some(loaded) = self.keys.loaded(key) else {
            return;
        };
        for waiting in waiters {
            if !self.is_still_wanted(&waiting) {
                continue;
            }
            match waiting {
                Waiting::Peer(envelope) => self.handle_member_message(now, envelope),
                Waiting::Operation(pending) => self.run_here(now, key.clone(), pending),
                Waiting::Repair => self.repair(now, key),
                Waiting::Look => {}
                Waiting::Work(_, work) => self.work_on(now, loaded, work),
                Waiting::Copy(node) => {
                    self.copy_key(now, node, loaded);
                }
            }
        }
    }

    /// Runs a repair round.
    pub(super) fn repair(&mut self, now: Now, key: &Key) {
        if self.keys.resident(key).is_some() {
            self.coordinate(now, key, Coordinator::repair);
        } else {
            self.wait_for(key.clone(), Waiting::Repair);
        }
    }

    pub(super) fn key_timeout(&mut self, now: Now, key: &Key, at_us: u64) {
        let Some(resident) = self.keys.resident(key) else {
            return;
        };
        // A timer is stale if an earlier one fired before it.
        if resident.timer_us.is_none_or(|set| set > at_us) {
            return;
        }
        resident.timer_us = None;
        if resident.coordinator.is_none() {
            return;
        }
        self.coordinate(now, key, |coordinator, context| {
            coordinator.handle_timeout(context)
        });
    }

    /// The key is resident. Without a vote there is nothing to coordinate, and the operations that
    /// remain are handed over.
    pub(super) fn coordinate(
        &mut self,
        now: Now,
        key: &Key,
        handle: impl FnOnce(&mut Coordinator, &mut Context<'_>),
    ) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let terms = self.terms();
        let runs_rounds = self.runs_rounds_of(key);
        let mut effects = self.keys.take_effects();
        let Some(resident) = self.keys.resident(key) else {
            return;
        };
        let mut coordinator = resident.coordinator.take().unwrap_or_default();
        let mut context = Context {
            now,
            me: self.identity.node,
            key,
            configuration: &configuration,
            state: terms.vote(&resident.state, rule!(E5_own)),
            floor: terms.floor.max(terms.base),
            clock: &mut self.clock,
            random: &mut self.random,
            waits: &mut self.requests.waits,
            low_marks: &self.requests.low_marks,
            hears_quorum: self.view.hears_quorum(),
            retry_horizon_ms: self.options.tuning.retry_horizon_ms,
            is_full: self.space.cluster_full.is_some(),
            value_size_max: self.options.value_size_max,
            decisions: self.transactions.decisions(),
            near: self.view.reachable(),
            coordinators: self.view.coordinators(),
            effects: &mut effects,
        };
        match runs_rounds {
            true => handle(&mut coordinator, &mut context),
            false => coordinator.hand_over(&mut context),
        }
        if let Some(deadline_us) = coordinator.deadline()
            && resident.timer_us.is_none_or(|set| set > deadline_us)
        {
            resident.timer_us = Some(deadline_us);
            self.timers.set(deadline_us, Timer::Key(key.clone()));
        }
        // After reads, a coordinator is in most cases in its initial state and is not kept.
        resident.coordinator = Some(coordinator).filter(|c| !c.is_blank(now));
        if let Some(coordinator) = &mut resident.coordinator {
            coordinator.give_room_back();
        }
        for effect in effects.drain(..) {
            self.carry_out(now, key, effect);
        }
        self.keys.return_effects(effects);
    }

    fn carry_out(&mut self, now: Now, key: &Key, effect: Effect) {
        match effect {
            Effect::Send {
                to,
                round,
                message,
                again,
            } => {
                self.count_again(&message, again);
                let group = self.ceiling_group();
                self.send(to, round, message, group, Way::asked(again));
            }
            Effect::Resolve { to, part } => self.sending.push_resolve(to, part),
            Effect::Answer { pending, outcome } => self.answer(pending, outcome),
            Effect::Stepped { pending, answer } => self.stepped(&pending, answer),
            Effect::Blocked { pending, record } => self.block(now, key, pending, record),
            Effect::Forward { to, pending } => self.forward(now, to, pending),
            Effect::Drop { pending, straggler } => self.drop_operation(pending, straggler),
            Effect::Joined {
                pending,
                unanswered,
            } => {
                self.counts.dropped.overflow += unanswered;
                self.end_operation(&pending.operation);
            }
            Effect::Open(round, kind) => {
                self.counts.round_began(kind);
                self.keys.open_round(round, key);
            }
            Effect::Close(round, end) => {
                self.counts.round_ended(end);
                self.keys.close_round(round);
            }
            Effect::Chosen {
                round,
                ballot,
                holders,
                is_covered,
            } => {
                self.mark_chosen(key.clone(), ballot);
                self.copy_to_learners(now, key, round);
                // C1_noted: a record with an intent is followed by another one.
                if !is_covered {
                    self.spread_chosen(key, ballot);
                    self.note_missing(now, round, key, ballot, holders);
                }
                self.membership.chosen(key);
            }
        }
    }

    /// B1: the group that must be durable before a ballot or round id issued now may leave.
    pub(super) fn ceiling_group(&mut self) -> u64 {
        self.durable.ceiling_group(&mut self.clock)
    }
}
