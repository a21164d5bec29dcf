//! X6: while a node is full, writes that grow are refused before any message of them is sent.
//! Nothing that a quorum accepts is ever refused: accepts, copies and catch-up continue, in the
//! margin that is reserved for them.

use wire::{Action, Full, Operation, Outcome, TransactionPart};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::replica::Replica;
use crate::protocol::types::limits::OPERATION_OVERHEAD_SIZE;
use crate::protocol::types::message::{Event, Now, Output};
use crate::protocol::types::record::{Key, Record};

/// X6: the exhausted resource, memory or disk space.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    /// The resource that this node has exhausted.
    pub(super) full: Option<Full>,
    /// The resource that a member of the cluster has exhausted.
    pub(super) cluster_full: Option<Full>,
}

impl Replica {
    /// Sets the resource that this node itself has exhausted.
    pub(super) fn set_full(&mut self, now: Now, full: Option<Full>) {
        self.space.full = full;
        self.check_full();
        if self.identity.node != 0 {
            self.announce_links(now);
        }
    }

    /// Every member holds all keys, so one full member is enough. A learner is no member, and an
    /// unreachable member accepts nothing.
    pub(super) fn check_full(&mut self) {
        let own = self.space.full.filter(|_| self.identity.votes);
        let others = self.identity.configuration.iter().flat_map(|c| c.voters());
        let others = others.filter(|m| m.node != self.identity.node);
        let mut others = others.filter(|m| self.links.is_joined(m.node));
        let full = own.or_else(|| others.find_map(|m| self.links.full(m.node, m.incarnation)));
        if full != self.space.cluster_full {
            self.space.cluster_full = full;
            self.sending.push(Output::Event(Event::Full(full)));
        }
    }

    /// The exhausted resource, if the operation must be refused for it. The key is resident.
    pub(super) fn no_room_for(&mut self, key: &Key, pending: &Pending) -> Option<Full> {
        let full = self.space.cluster_full?;
        let operation = &pending.operation;
        if pending.step.is_some() || matches!(pending.reply, ReplyTo::Own { .. }) {
            return None;
        }
        let terms = self.terms();
        let resident = self.keys.resident(key)?;
        let state = terms.vote(&resident.state, true);
        let record = state.and_then(|state| state.record.as_deref());
        // A retry of an applied operation is answered from the table, and changes nothing.
        let is_done = record.is_some_and(|record| is_known(record, operation));
        (!is_done && grows(record, &operation.action)).then_some(full)
    }

    pub(super) fn answer_full(&mut self, pending: Pending, full: Full) {
        // X5: `full`, too, means that the operation was surely not done.
        if pending.sent {
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, Outcome::Full { full });
        }
    }

    /// Counts an operation that is now in progress.
    pub(super) fn begin_operation(&mut self, operation: &Operation) {
        self.requests.operations += 1;
        self.requests.operations_size += size_of(operation);
    }

    /// Counts an operation that has ended.
    pub(super) fn end_operation(&mut self, operation: &Operation) {
        self.requests.operations -= 1;
        self.requests.operations_size -= size_of(operation);
    }

    /// Counts a step of a transaction. The steps share the transaction's operation.
    pub(super) fn begin_step(&mut self) {
        self.requests.operations += 1;
        self.requests.operations_size += OPERATION_OVERHEAD_SIZE;
    }

    pub(super) fn end_step(&mut self) {
        self.requests.operations -= 1;
        self.requests.operations_size -= OPERATION_OVERHEAD_SIZE;
    }

    /// For the operator: which nodes are full.
    pub(super) fn full_warnings(&self) -> Vec<String> {
        let nodes = self.identity.configuration.iter().flat_map(|c| c.nodes());
        let nodes = nodes.filter(|m| self.links.is_joined(m.node));
        let full = nodes.filter_map(|m| {
            let full = match m.node == self.identity.node {
                true => self.space.full,
                false => self.links.full(m.node, self.links.incarnation(m.node)?),
            }?;
            let (node, address) = (m.node, &m.address);
            Some(match self.is_voter(m.node) {
                true => format!(
                    "node {node} ({address}) is out of {full}: writes that grow are refused. \
                     Delete keys, or {}",
                    remedy(full)
                ),
                false => format!(
                    "node {node} ({address}) is out of {full}, so it copies no more records and is \
                     not admitted: {}",
                    remedy(full)
                ),
            })
        });
        full.collect()
    }

    fn is_voter(&self, node: u8) -> bool {
        let configuration = self.identity.configuration.as_ref();
        configuration.is_some_and(|c| c.voter(node).is_some())
    }
}

/// What an operator can do.
pub fn remedy(full: Full) -> &'static str {
    match full {
        Full::Memory => "give it more (--memory-max)",
        Full::Disk => "free space on its disk (--disk-reserve sets how much must be free)",
        Full::Other => "see the documentation of that node's release",
    }
}

/// Approximate memory of an operation in progress.
pub fn size_of(operation: &Operation) -> usize {
    let of_part = |part: &TransactionPart| {
        std::mem::size_of_val(part)
            + part.key.len()
            + std::mem::size_of_val(part.conditions.as_slice())
    };
    let parts_size: usize = match &operation.action {
        Action::Transact { transaction } => transaction.parts.iter().map(of_part).sum(),
        _ => 0,
    };
    OPERATION_OVERHEAD_SIZE + operation.key.len() + operation.action.value_size() + parts_size
}

/// Whether the operation's outcome is in the record's table, or its client has moved on.
fn is_known(record: &Record, operation: &Operation) -> bool {
    let (client, sequence) = (operation.id.client, operation.id.sequence);
    let entry = record.applied.clients.iter().find(|c| c.client == client);
    entry.is_some_and(|c| sequence < c.mark || c.operations.iter().any(|o| o.sequence == sequence))
}

/// Whether the value may become larger than it is in the record that this node holds. Adding to an
/// existing number does not count as growth: a number has twenty digits at most.
fn grows(record: Option<&Record>, action: &Action) -> bool {
    let present = record.and_then(|record| record.value.as_ref());
    let size = match action {
        // Refused as a whole, before it has begun.
        Action::Transact { .. } => return false,
        Action::Get
        | Action::GetStale
        | Action::TimeToLive
        | Action::Scan { .. }
        | Action::Watch { .. }
        | Action::Delete
        | Action::DeleteVersion { .. }
        | Action::Expire { .. }
        | Action::Persist { .. } => return false,
        Action::Add { .. } => return present.is_none(),
        Action::Append { value } => return present.is_none() || !value.is_empty(),
        Action::Put { value }
        | Action::PutFor { value, .. }
        | Action::PutIfAbsent { value }
        | Action::CompareVersion { value, .. }
        | Action::CompareValue { value, .. }
        | Action::PutOver { value, .. } => value.len(),
    };
    present.is_none_or(|present| size > present.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_grows_is_what_leaves_more_than_there_is() {
        let value = Bytes::from_static;
        let put = |bytes| Action::Put {
            value: value(bytes),
        };
        let present = Record {
            value: Some(value(b"1234")),
            ..Record::default()
        };
        let tombstone = Record::default();
        for (record, action, expected) in [
            (None, Action::Get, false),
            (None, Action::Delete, false),
            (None, put(b""), true),
            (Some(&tombstone), put(b"1"), true),
            (Some(&tombstone), Action::Add { delta: 1 }, true),
            (Some(&present), Action::Delete, false),
            (Some(&present), put(b"5678"), false),
            (Some(&present), put(b"56789"), true),
            (Some(&present), Action::Add { delta: 1 }, false),
            (Some(&present), Action::Append { value: value(b"") }, false),
            (Some(&present), Action::Append { value: value(b"5") }, true),
            (
                Some(&present),
                Action::CompareVersion {
                    version: 1,
                    value: value(b"12345"),
                },
                true,
            ),
        ] {
            assert_eq!(grows(record, &action), expected, "{action:?}");
        }
    }
}
