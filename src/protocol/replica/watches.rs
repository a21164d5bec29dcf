//! Watches (W1 to W4): polls of clients for the changes of a range, which wait at this node until
//! there are some. `keys/changes.rs` holds the changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::{Action, Operation, OperationId, Outcome, WatchCursor, WatchPage};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::keys::changes::{ChangeLog, Reached};
use crate::protocol::replica::Replica;
use crate::protocol::types::limits::{
    BUSY_AFTER_MS, OPERATION_AGE_MAX_MS, SETTLED_AT_ONCE_MAX, WATCH_ANSWERS_PAUSE_US,
    WATCH_ANSWERS_SIZE_MAX, WATCH_DELAY_MAX_US, WATCH_DELAY_US, WATCH_TICK_US, WATCHES_MAX,
};
use crate::protocol::types::message::Now;
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;
use crate::protocol::types::transaction::{StepAnswer, TransactionStep};

#[derive(Debug, Default)]
pub(super) struct Watches {
    pub(super) changes: ChangeLog,
    polls: BTreeMap<u64, Poll>,
    last_poll: u64,
    /// The keys that are read because they are unsettled (W2).
    reads: BTreeMap<u64, Key>,
    last_read: u64,
    /// When polls are answered that have something to tell.
    answers_us: Option<u64>,
    tick_us: Option<u64>,
    timer_us: Option<u64>,
}

#[derive(Debug)]
struct Poll {
    pending: Pending,
    reached: Reached,
    due_us: u64,
}

impl Watches {
    /// Polls that wait for changes.
    pub(super) fn waiting(&self) -> usize {
        self.polls.len()
    }

    /// Changes are told together: the more watches, the longer they wait for further ones.
    fn delay_us(&self) -> u64 {
        (WATCH_DELAY_US * (1 + self.polls.len() as u64)).min(WATCH_DELAY_MAX_US)
    }

    fn answer_soon(&mut self, now: Now) {
        let at_us = now.mono_us + self.delay_us();
        self.answers_us.get_or_insert(at_us);
    }

    fn twin(&mut self, id: OperationId) -> Option<&mut Pending> {
        let mut polls = self.polls.values_mut();
        let twin = polls.find(|poll| poll.pending.operation.id == id);
        twin.map(|poll| &mut poll.pending)
    }
}

impl Replica {
    /// W1: only a node that runs rounds, and hears a quorum, serves watches; and only the node that
    /// the client asks (W3).
    pub(super) fn take_poll(&mut self, now: Now, pending: Pending) {
        let serves = self.runs_rounds() && self.view.hears_quorum();
        if !serves && rule!(W1_vote) {
            self.refuse(pending);
            return;
        }
        let watches = &mut self.requests.watches;
        if pending.tried
            && let Some(twin) = watches.twin(pending.operation.id)
        {
            self.counts.dropped.overflow += twin.join(pending.reply);
            self.end_operation(&pending.operation);
            return;
        }
        let Action::Watch {
            cursor, wait_ms, ..
        } = pending.operation.action
        else {
            unreachable!("only polls are taken");
        };
        let range = KeyRange::of(&pending.operation).expect("a watch has a range");
        let boot = self.options.boot;
        let reached = (cursor.boot == boot).then_some(Reached {
            range: cursor.range,
            sequence: cursor.sequence,
        });
        let began = match watches.polls.len() < WATCHES_MAX {
            true => watches.changes.watch(now, &range, reached),
            false => None,
        };
        match began {
            None => self.answer_busy(pending, BUSY_AFTER_MS),
            Some(Err(begins)) => {
                let mut page = self.watch_page(now, begins);
                page.is_new = true;
                self.answer(pending, Outcome::Watched(page));
            }
            Some(Ok(reached)) => {
                let due_us = (now.mono_us + u64::from(wait_ms) * 1_000).min(pending.deadline_us);
                watches.last_poll += 1;
                let poll = Poll {
                    pending,
                    reached,
                    due_us,
                };
                watches.polls.insert(watches.last_poll, poll);
                watches.answer_soon(now);
            }
        }
        self.wake_for_watches(now);
    }

    /// A page without entries.
    fn watch_page(&self, now: Now, reached: Reached) -> WatchPage {
        let changes = &self.requests.watches.changes;
        let configuration = self.identity.configuration.as_deref();
        let me = self.identity.node;
        let current_us = configuration.and_then(|c| changes.current_us(now, me, reached.range, c));
        WatchPage {
            node: me,
            cursor: WatchCursor {
                boot: self.options.boot,
                range: reached.range,
                sequence: reached.sequence,
            },
            behind_ms: current_us.map(|at_us| now.mono_us.saturating_sub(at_us) / 1_000),
            ..WatchPage::default()
        }
    }

    /// After each input.
    pub(super) fn look_for_changes(&mut self, now: Now) {
        let watches = &mut self.requests.watches;
        if watches.changes.take_news() && !watches.polls.is_empty() {
            watches.answer_soon(now);
            self.wake_for_watches(now);
        }
    }

    /// Sets the timer for what is due next.
    fn wake_for_watches(&mut self, now: Now) {
        let watches = &mut self.requests.watches;
        if watches.changes.is_idle() && watches.polls.is_empty() {
            watches.tick_us = None;
            return;
        }
        let tick_us = *watches.tick_us.get_or_insert(now.mono_us + WATCH_TICK_US);
        let at_us = watches
            .answers_us
            .map_or(tick_us, |at_us| at_us.min(tick_us));
        if watches.timer_us.is_none_or(|set_us| set_us > at_us) {
            watches.timer_us = Some(at_us);
            self.timers.set(at_us, Timer::Watches);
        }
    }

    pub(super) fn watches_timeout(&mut self, now: Now) {
        let watches = &mut self.requests.watches;
        if watches.timer_us.is_some_and(|at_us| at_us > now.mono_us) {
            return;
        }
        watches.timer_us = None;
        let is_due = |at_us: Option<u64>| at_us.is_some_and(|at_us| at_us <= now.mono_us);
        if is_due(watches.answers_us) {
            watches.answers_us = None;
            self.answer_polls(now);
        }
        if is_due(self.requests.watches.tick_us) {
            self.requests.watches.tick_us = None;
            self.watch_tick(now);
        }
        self.wake_for_watches(now);
    }

    fn watch_tick(&mut self, now: Now) {
        self.requests.watches.changes.forget(now);
        let serves = self.runs_rounds() && self.view.hears_quorum();
        if !serves && rule!(W1_vote) {
            self.refuse_polls();
            return;
        }
        self.settle_changes(now);
        self.answer_polls(now);
    }

    /// Answers the polls that have something to tell, and those that have waited for long enough.
    fn answer_polls(&mut self, now: Now) {
        let ids: Vec<u64> = self.requests.watches.polls.keys().copied().collect();
        let mut size = 0;
        for id in ids {
            let watches = &mut self.requests.watches;
            if size > WATCH_ANSWERS_SIZE_MAX {
                watches.answers_us = Some(now.mono_us + WATCH_ANSWERS_PAUSE_US);
                return;
            }
            let poll = watches.polls.get_mut(&id).expect("just listed");
            let changed = watches.changes.page(poll.reached);
            if let Some(changed) = &changed {
                poll.reached.sequence = changed.sequence;
                if changed.entries.is_empty() && now.mono_us < poll.due_us {
                    continue;
                }
            }
            let poll = watches.polls.remove(&id).expect("just seen");
            let Some(changed) = changed else {
                // It begins anew.
                self.take_poll(now, poll.pending);
                continue;
            };
            size += changed.size;
            let page = WatchPage {
                entries: changed.entries,
                skipped: changed.skipped,
                has_more: changed.has_more,
                ..self.watch_page(now, poll.reached)
            };
            self.answer(poll.pending, Outcome::Watched(page));
        }
    }

    /// W2: the notice that a state was chosen is sent once. If it is lost, a round finds out.
    fn settle_changes(&mut self, now: Now) {
        let watches = &mut self.requests.watches;
        let room = SETTLED_AT_ONCE_MAX.saturating_sub(watches.reads.len());
        for key in watches.changes.take_unsettled(room) {
            let watches = &mut self.requests.watches;
            watches.last_read += 1;
            let read = watches.last_read;
            watches.reads.insert(read, key.clone());
            let operation = Operation {
                id: OperationId {
                    // Reads are not in any applied table.
                    client: 0,
                    sequence: read,
                },
                birth: 0,
                low_mark: 0,
                key: key.name().to_vec().into(),
                want_old: false,
                action: Action::Get,
            };
            let pending = Pending {
                operation: Arc::new(operation),
                step: Some(Arc::new(TransactionStep::Read)),
                reply: ReplyTo::Watch { read },
                also: Vec::new(),
                tried: false,
                sent: false,
                arrived_us: now.mono_us,
                deadline_us: now.mono_us + OPERATION_AGE_MAX_MS * 1_000,
                received_us: None,
            };
            self.begin_step();
            self.run_here(now, key, pending);
        }
    }

    /// A round of `settle_changes` has ended.
    pub(super) fn has_settled(&mut self, read: u64, answer: StepAnswer) {
        let watches = &mut self.requests.watches;
        let Some(key) = watches.reads.remove(&read) else {
            return;
        };
        match answer {
            StepAnswer::Seen(seen) => watches.changes.settled(&key, seen.version, seen.value),
            _ => watches.changes.still_unsettled(&key),
        }
    }

    /// The epoch has changed, and with it perhaps this node's vote.
    pub(super) fn restart_watches(&mut self) {
        if !self.identity.votes && rule!(W1_vote) {
            self.requests.watches.changes.end();
            self.refuse_polls();
        }
    }

    /// Their clients go on at another node.
    pub(super) fn refuse_polls(&mut self) {
        for poll in std::mem::take(&mut self.requests.watches.polls).into_values() {
            self.refuse(poll.pending);
        }
    }
}
