//! Operations that wait for their outcome, and who waits for it.

use std::sync::Arc;

use kvclient::wire::Operation;

use super::limits::{OPERATION_AGE_MAX_MS, TEXT_AGE_MAX_MS};
use super::message::{Endpoint, NodeId, Now};
use super::rules::rule;
use super::sessionless;

/// Who waits for an operation's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    Client {
        to: Endpoint,
        attempt: u64,
    },
    /// Forwarded by a node, in that boot of it.
    Node {
        node: NodeId,
        boot: u64,
        attempt: u64,
        /// The neighbour that its latest sending came through.
        via: NodeId,
    },
    Sessionless {
        to: Endpoint,
        id: u64,
    },
    /// This node itself, for the configuration (see `change`).
    Own {
        sequence: u64,
    },
}

impl ReplyTo {
    /// Whether it came from a client here, and not from another node.
    pub fn is_client(self) -> bool {
        !matches!(self, ReplyTo::Node { .. } | ReplyTo::Own { .. })
    }
}

/// An operation that is not answered yet.
#[derive(Debug, Clone)]
pub struct Pending {
    pub operation: Arc<Operation>,
    pub reply: ReplyTo,
    /// Further attempts at the same operation, which wait for the same outcome.
    pub also: Vec<ReplyTo>,
    /// X2: an earlier attempt may have been made, or may still come.
    pub tried: bool,
    /// X5: it went out in an Accept, so that nobody may say any more that it was surely not done.
    pub sent: bool,
    pub arrived_us: u64,
    /// X1: a time not after the one at which a client's datagram brought it to a node; `None`: too long
    /// ago to say.
    pub received_us: Option<u64>,
}

impl Pending {
    pub(super) fn is_overdue(&self, now: Now) -> bool {
        now.mono_us >= self.arrived_us + OPERATION_AGE_MAX_MS * 1_000
    }

    /// X1: a text operation that waited, or was on its way, for so long that the table may have forgotten
    /// an earlier attempt.
    pub(super) fn is_stale_text(&self, now: Now) -> bool {
        let age_max_us = TEXT_AGE_MAX_MS * 1_000;
        let stale = |at_us: u64| now.mono_us >= at_us + age_max_us;
        let is_text = sessionless::is_text(self.operation.id.client);
        is_text && self.received_us.is_none_or(stale) && rule!(X1_fresh)
    }

    /// X5: whether "surely not done" is still true. Of a read it always is.
    pub(super) fn is_refusable(&self) -> bool {
        !self.sent || self.operation.action.is_read() || !rule!(X5_sent)
    }
}
