//! Counts of this node's actions, for the operator.

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::replica::Replica;
use crate::protocol::types::counts::{
    NodeCounts, OperationEnd, OperationKind, OperationSource, QueueDepths, Retransmission,
};
use crate::protocol::types::message::Message;

impl Replica {
    pub fn counts(&self) -> &NodeCounts {
        &self.counts
    }

    pub fn queue_depths(&self) -> QueueDepths {
        let (resident_keys, resident_size) = self.keys.held();
        QueueDepths {
            operations: self.requests.operations,
            operations_size: self.requests.operations_size,
            forwards: self.forwarding.forwards.count(),
            rounds: self.keys.open_rounds(),
            held_messages: self.durable.held_messages(),
            unsynced_groups: self.durable.backlog().groups(),
            unsynced_size: self.durable.backlog().size(),
            resident_keys,
            resident_size,
            expiring_keys: self.keys.expiry().count(),
            sessions: self.requests.sessions.count(),
        }
    }

    /// Each operation is counted once, however many attempts at it are answered.
    pub(super) fn count_end(&mut self, pending: &Pending, end: OperationEnd) {
        let source = match pending.reply {
            ReplyTo::Client { .. } => OperationSource::Client,
            ReplyTo::Sessionless { .. } => OperationSource::Text,
            ReplyTo::Node { .. } => OperationSource::Node,
            ReplyTo::Scan { .. } => OperationSource::Scan,
            // Steps are not counted: the transaction is.
            ReplyTo::Own { .. } | ReplyTo::Step { .. } | ReplyTo::Watch { .. } => {
                OperationSource::Membership
            }
        };
        let kind = OperationKind::of(&pending.operation.action);
        self.counts
            .operation_ended(source, kind, end, pending.arrived_us);
    }

    /// `again`: how often a round's message was sent before.
    pub(super) fn count_again(&mut self, message: &Message, again: u32) {
        if again == 0 {
            return;
        }
        match message {
            Message::Prepare(_) => self.counts.sent_again(Retransmission::Prepare),
            Message::Accept(_) => self.counts.sent_again(Retransmission::Accept),
            Message::Read(_) => self.counts.sent_again(Retransmission::Read),
            _ => {}
        }
    }
}
