//! What ends rounds before they are chosen: competing rounds, a new epoch, the loss of the vote or
//! of the quorum, and operations whose clients no longer wait.

use std::collections::VecDeque;

use rand::RngExt;

use super::permit::ShortRoundPermit;
use super::{Context, Coordinator, Effect, Phase, preferred};
use crate::protocol::types::counts::RoundEnd;
use crate::protocol::types::message::NodeId;
use crate::protocol::types::rules::rule;

impl Coordinator {
    /// An idle coordinator, of which there may be one for each resident key, keeps no memory for
    /// operations.
    pub fn give_room_back(&mut self) {
        if self.is_idle() {
            self.queue = VecDeque::new();
        }
    }

    /// R1: rounds in progress start again in the present epoch.
    pub fn handle_epoch_change(&mut self, context: &mut Context<'_>) {
        self.right = None;
        if self.writing.is_some() {
            self.lose(context);
            self.lost = 0;
            self.wait_until_us = context.now.mono_us;
        }
        if self.reading.is_some() {
            self.requeue_reads(context);
        }
        self.advance(context);
    }

    /// This node has no vote any more, or its disk is hung, so it runs no rounds. Its clients'
    /// operations go to a member.
    pub fn hand_over(&mut self, context: &mut Context<'_>) {
        if let Some(round) = self.writing.take() {
            context
                .effects
                .push(Effect::Close(round.id, RoundEnd::Lost));
            let sent = matches!(round.phase, Phase::Accept { .. });
            for mut pending in round.operations {
                pending.tried |= sent && pending.sent;
                self.queue.push_back(pending);
            }
        }
        if self.reading.is_some() {
            self.requeue_reads(context);
        }
        self.must_repair = false;
        self.right = None;
        for pending in std::mem::take(&mut self.queue) {
            let to = preferred(context.key, context.coordinators);
            match to.filter(|_| pending.reply.is_client()) {
                Some(to) => context.effects.push(Effect::Forward { to, pending }),
                None => context.effects.push(Effect::Drop {
                    pending,
                    straggler: false,
                }),
            }
        }
    }

    /// X5: the quorum was lost or is reachable again.
    pub fn handle_quorum_change(&mut self, context: &mut Context<'_>) {
        if context.hears_quorum {
            self.wait_until_us = context.now.mono_us;
        } else {
            if matches!(&self.writing, Some(w) if matches!(w.phase, Phase::Prepare { .. })) {
                self.lose(context);
            }
            if self.reading.is_some() {
                self.requeue_reads(context);
            }
            self.refuse(context);
        }
        self.advance(context);
    }

    /// Abandons the round, because no client waits for its outcomes any more.
    pub(super) fn give_up(&mut self, context: &mut Context<'_>) {
        let round = self.writing.take().expect("checked by the caller");
        context
            .effects
            .push(Effect::Close(round.id, RoundEnd::Abandoned));
        self.right = None;
        for pending in round.operations {
            context.effects.push(Effect::Drop {
                pending,
                straggler: false,
            });
        }
    }

    /// X8: drops the queued operations whose deadlines have passed.
    pub(super) fn drop_overdue(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        if !self.queue.iter().any(|p| p.is_overdue(now)) {
            return;
        }
        let (overdue, rest): (Vec<_>, Vec<_>) =
            self.queue.drain(..).partition(|p| p.is_overdue(now));
        self.queue = rest.into();
        for pending in overdue {
            context.effects.push(Effect::Drop {
                pending,
                straggler: false,
            });
        }
    }

    /// Ends a lost round: its operations wait for another round, or go to the preferred
    /// coordinator.
    pub(super) fn lose(&mut self, context: &mut Context<'_>) {
        let Some(round) = self.writing.take() else {
            return;
        };
        context
            .effects
            .push(Effect::Close(round.id, RoundEnd::Lost));
        self.right = None;
        let sent = matches!(round.phase, Phase::Accept { .. });
        if let Phase::Accept { record, .. } = round.phase
            && !rule!(R3_doubt)
        {
            let epoch = context.configuration.epoch;
            self.right = Some(ShortRoundPermit {
                ballot: round.ballot,
                record,
                epoch,
            });
        }
        for mut pending in round.operations.into_iter().rev() {
            // X2: it was sent in an Accept of a round that was not completed.
            pending.tried |= sent && pending.sent;
            self.queue.push_front(pending);
        }
        self.lost += 1;
        let bound_us = context.backoff_us(self.lost, &self.queue);
        self.wait_until_us = context.now.mono_us + context.random.random_range(0..bound_us);
        let preferred = preferred(context.key, context.coordinators);
        let preferred = preferred.filter(|to| *to != context.me && context.hears_quorum);
        if let Some(to) = preferred {
            self.forward_all(to, context);
        }
    }

    /// Forwards the operations rather than compete. An operation that was forwarded to this node
    /// stays here, so that no operation loops.
    fn forward_all(&mut self, to: NodeId, context: &mut Context<'_>) {
        for _ in 0..self.queue.len() {
            let pending = self.queue.pop_front().expect("counted");
            if pending.reply.is_client() {
                context.effects.push(Effect::Forward { to, pending });
            } else {
                self.queue.push_back(pending);
            }
        }
    }
}
