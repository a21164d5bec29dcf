//! Operations in progress, and where their outcomes are to be sent.

use std::sync::Arc;

use wire::Operation;

use crate::protocol::clients::text_operation;
use crate::protocol::types::limits::{OPERATION_AGE_MAX_MS, TEXT_AGE_MAX_MS};
use crate::protocol::types::message::{Endpoint, NodeId, Now, RoundId};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::TransactionStep;

/// Where to send an operation's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    Client {
        to: Endpoint,
        attempt: u64,
    },
    /// Another node that forwarded the operation, in that boot of it.
    Node {
        node: NodeId,
        boot: u64,
        attempt: u64,
        /// The previous hop of the latest attempt.
        via: NodeId,
    },
    Sessionless {
        to: Endpoint,
        id: u64,
    },
    /// This node itself, which changes the configuration (see `change`).
    Own {
        sequence: u64,
    },
    /// A scan of this node, which needs the key at that place of its page.
    Scan {
        round: RoundId,
        place: usize,
    },
    /// A watch of this node, which needs to know what is chosen.
    Watch {
        read: u64,
    },
    /// A transaction of this node, or a node's search for the fate of one.
    Step {
        job: u64,
    },
}

impl ReplyTo {
    /// Whether both outcomes go to the same place.
    fn comes_with(self, other: ReplyTo) -> bool {
        match (self, other) {
            (ReplyTo::Client { to, .. }, ReplyTo::Client { to: other, .. })
            | (ReplyTo::Sessionless { to, .. }, ReplyTo::Sessionless { to: other, .. }) => {
                to == other
            }
            (ReplyTo::Node { node, .. }, ReplyTo::Node { node: other, .. }) => node == other,
            _ => false,
        }
    }

    /// Whether the operation came from a client of this node, and not from another node.
    pub fn is_client(self) -> bool {
        matches!(self, ReplyTo::Client { .. } | ReplyTo::Sessionless { .. })
    }
}

/// Further attempts from one source that are answered.
const ATTEMPTS_PER_SOURCE_MAX: usize = 8;
/// Further attempts that are answered in all. Over a limit the earliest ones are not answered, as
/// if they had been lost.
const ATTEMPTS_MAX: usize = 32;

/// An operation that is not answered yet.
#[derive(Debug, Clone)]
pub struct Pending {
    pub operation: Arc<Operation>,
    /// A step of the transaction that is the operation, on another record.
    pub step: Option<Arc<TransactionStep>>,
    pub reply: ReplyTo,
    /// Further attempts at the same operation, which get the same outcome.
    pub also: Vec<ReplyTo>,
    /// X2: an earlier attempt may have been executed, or may still arrive.
    pub tried: bool,
    /// X5: it was sent in an Accept, so no node may report any more that it was surely not done.
    pub sent: bool,
    pub arrived_us: u64,
    /// X8: the time from which its client no longer waits for the outcome.
    pub deadline_us: u64,
    /// X1: a time no later than the one at which a client's datagram with the operation reached a
    /// node. `None` if that is too long ago to determine.
    pub received_us: Option<u64>,
}

impl Pending {
    /// Adds an attempt that waits for the same outcome. The number of attempts is small, because an
    /// answer may be as large as a datagram. Returns how many attempts are no longer answered.
    pub(in crate::protocol) fn join(&mut self, reply: ReplyTo) -> u64 {
        let is_same = |other: &&ReplyTo| other.comes_with(reply);
        let of_source = self.also.iter().filter(is_same).count();
        let excess = if of_source >= ATTEMPTS_PER_SOURCE_MAX {
            self.also.iter().position(|other| other.comes_with(reply))
        } else {
            (self.also.len() >= ATTEMPTS_MAX).then_some(0)
        };
        if let Some(place) = excess {
            self.also.remove(place);
        }
        self.also.push(reply);
        u64::from(excess.is_some())
    }

    /// The deadline of an operation that arrives now and whose client waits for `left_ms`.
    pub(in crate::protocol) fn deadline_us(now: Now, left_ms: u32) -> u64 {
        now.mono_us + u64::from(left_ms).min(OPERATION_AGE_MAX_MS) * 1_000
    }

    /// The time until the deadline.
    pub(in crate::protocol) fn left_ms(&self, now: Now) -> u32 {
        let left_us = self.deadline_us.saturating_sub(now.mono_us);
        u32::try_from(left_us / 1_000).unwrap_or(u32::MAX)
    }

    /// X8: whether the deadline has passed, so that the operation must not be begun.
    pub(in crate::protocol) fn is_overdue(&self, now: Now) -> bool {
        now.mono_us >= self.deadline_us && rule!(X8)
    }

    /// Whether the operation is abandoned even if it was begun.
    pub(in crate::protocol) fn is_too_old(&self, now: Now) -> bool {
        now.mono_us >= self.arrived_us + OPERATION_AGE_MAX_MS * 1_000
    }

    /// X1: whether this is a text operation that waited or was in flight for so long that the table
    /// may have dropped an earlier attempt.
    pub(in crate::protocol) fn is_stale_text(&self, now: Now) -> bool {
        let age_max_us = TEXT_AGE_MAX_MS * 1_000;
        let stale = |at_us: u64| now.mono_us >= at_us + age_max_us;
        let is_text = text_operation::is_text(self.operation.id.client);
        is_text && self.received_us.is_none_or(stale) && rule!(X1_fresh)
    }

    /// Whether it changes nothing, so that a read round is enough.
    pub(in crate::protocol) fn is_read(&self) -> bool {
        match &self.step {
            Some(step) => step.is_read(),
            None => self.operation.action.is_read(),
        }
    }

    /// X5: whether "surely not done" is still true. For a read it always is.
    pub(in crate::protocol) fn is_refusable(&self) -> bool {
        !self.sent || self.is_read() || !rule!(X5_sent)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use wire::{Action, OperationId};

    /// An operation of that client, which arrived at time 0 and was not sent on.
    pub fn pending(client: u128) -> Pending {
        let operation = Operation {
            id: OperationId {
                client,
                sequence: 1,
            },
            birth: 1,
            low_mark: 1,
            key: "k".into(),
            want_old: false,
            action: Action::Delete,
        };
        let to = Endpoint::new(1, 1);
        Pending {
            operation: Arc::new(operation),
            step: None,
            reply: ReplyTo::Client { to, attempt: 1 },
            also: Vec::new(),
            tried: false,
            sent: false,
            arrived_us: 0,
            deadline_us: 0,
            received_us: None,
        }
    }

    /// However often an operation is sent again, only its last few attempts are answered.
    #[test]
    fn few_attempts_at_an_operation_are_answered() {
        let to = |port| Endpoint::new(1, port);
        let mut pending = pending(1);
        let mut unanswered = 0;
        for attempt in 1..=3_000 {
            unanswered += pending.join(ReplyTo::Client { to: to(1), attempt });
        }
        assert_eq!(unanswered, 3_000 - ATTEMPTS_PER_SOURCE_MAX as u64);
        assert_eq!(pending.also.len(), ATTEMPTS_PER_SOURCE_MAX);
        for port in 2..=200 {
            let (to, id) = (to(port), 7);
            pending.join(ReplyTo::Sessionless { to, id });
        }
        assert_eq!(pending.also.len(), ATTEMPTS_MAX);
        let (to, id) = (to(200), 7);
        assert_eq!(pending.also.last(), Some(&ReplyTo::Sessionless { to, id }));
    }
}
