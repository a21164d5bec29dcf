//! Slow disks. While a node's backlog is over its bound, this module decides which work the node
//! refuses. Everything that needs no disk continues.

use std::collections::BTreeMap;

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::replica::Replica;
use crate::protocol::types::limits::{
    BUSY_AFTER_MAX_MS, BUSY_AFTER_MS, DISK_BEHIND_MS, DISK_SLOW_KEPT_MS, DISK_SLOW_MS,
};
use crate::protocol::types::message::{Envelope, Message, NodeId, Now};
use crate::protocol::types::record::{Key, SPACE_CONFIGURATION, SPACE_USER};

/// The voters whose disks were slow lately.
#[derive(Debug, Default)]
pub(super) struct SlowDisks {
    seen: BTreeMap<NodeId, SlowDisk>,
}

#[derive(Debug)]
struct SlowDisk {
    /// It counts as slow until then.
    until_us: u64,
    /// The longest that a group has waited for it since it became slow.
    longest_ms: u64,
}

impl SlowDisks {
    /// That node's oldest group waits for its disk for this long.
    fn see(&mut self, now: Now, node: NodeId, unsynced_ms: u64) {
        if unsynced_ms >= DISK_SLOW_MS {
            let seen = SlowDisk {
                until_us: now.mono_us + DISK_SLOW_KEPT_MS * 1_000,
                longest_ms: self.slow_ms(now, node).max(unsynced_ms),
            };
            self.seen.insert(node, seen);
        }
    }

    /// How long groups wait for the disk of that node, if it is slow; else 0.
    fn slow_ms(&self, now: Now, node: NodeId) -> u64 {
        let seen = self.seen.get(&node);
        let slow = seen.filter(|seen| now.mono_us < seen.until_us);
        slow.map_or(0, |slow| slow.longest_ms)
    }

    pub(super) fn contains(&self, now: Now, node: NodeId) -> bool {
        self.slow_ms(now, node) > 0
    }
}

impl Replica {
    /// Whether this node's disk is so far behind that the node accepts no more writes.
    pub(super) fn is_disk_behind(&self) -> bool {
        self.durable.backlog().is_full()
    }

    /// Whether the operation causes something that must be written. The changes of the
    /// configuration are few, and one of them may be what removes this node.
    pub(super) fn would_write(&self, key: &Key, pending: &Pending) -> bool {
        let is_own = matches!(pending.reply, ReplyTo::Own { .. } | ReplyTo::Step { .. });
        key.space() == SPACE_USER && !is_own && !pending.operation.action.is_read()
    }

    /// Whether another node's message is dropped because it would have to be written. Its sender
    /// repeats it, or copies the record later. The messages of this node's own rounds are kept:
    /// the rounds in progress are limited already.
    pub(super) fn cannot_write(&self, envelope: &Envelope) -> bool {
        let is_own = envelope.origin == self.identity.node;
        let key = match &envelope.message {
            Message::Resolve(_) => return !is_own && self.is_disk_behind(),
            Message::Prepare(prepare) => &prepare.key,
            Message::Accept(accept) => &accept.key,
            Message::Copy(copy) => &copy.key,
            _ => return false,
        };
        !is_own && key.space() != SPACE_CONFIGURATION && self.is_disk_behind()
    }

    /// When a write that is refused now may succeed: after the commit in progress.
    pub(super) fn disk_after_ms(&self) -> u32 {
        let after_ms = u32::try_from(self.durable.oldest_group().slow_ms()).unwrap_or(u32::MAX);
        after_ms.clamp(BUSY_AFTER_MS, BUSY_AFTER_MAX_MS)
    }

    /// Notes which of the nodes report that their disks are slow.
    pub(super) fn see_slow_disks(&mut self, now: Now, nodes: &[NodeId]) {
        for node in nodes {
            let unsynced_ms = self.unsynced_ms_of(*node);
            self.view.slow_disks.see(now, *node, unsynced_ms);
        }
    }

    /// How much longer that node's answers may take because of its disk. A message waits for the
    /// commit in progress, and then for its own. A node with a hung disk does not answer.
    pub(super) fn disk_wait_us(&self, now: Now, node: NodeId) -> u64 {
        let unsynced_ms = self.unsynced_ms_of(node);
        if self.hangs(node) {
            return 0;
        }
        let is_behind = unsynced_ms >= DISK_BEHIND_MS;
        let slow_ms = self.view.slow_disks.slow_ms(now, node);
        let commit_ms = slow_ms.max(if is_behind { unsynced_ms } else { 0 });
        2 * commit_ms * 1_000
    }

    /// Leaves of the nodes those whose disks are not slow, if there are any: a coordinator's
    /// messages wait for its disk now and then (B1), and those of its rounds' keys with them.
    pub(super) fn without_slow_disks(&self, now: Now, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let is_fast = |node: &NodeId| !self.view.slow_disks.contains(now, *node);
        let fast: Vec<NodeId> = nodes.iter().copied().filter(is_fast).collect();
        match fast.is_empty() {
            true => nodes,
            false => fast,
        }
    }

    /// For the operator.
    pub(super) fn slow_disk_warning(&self) -> Option<String> {
        let backlog = self.durable.backlog();
        self.is_disk_behind().then(|| {
            format!(
                "this node's disk is too slow: {} groups of changes ({} MiB) wait for it, so \
                 writes at this node are answered busy, and those of other nodes are copied later",
                backlog.groups(),
                backlog.size() >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::{Action, Operation, Outcome};

    use super::*;
    use crate::protocol::clients::pending;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica, reported};
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::limits::DISK_BACKLOG_SIZE_MAX;
    use crate::protocol::types::message::{ClientReply, Group, Input, Output, Prepare, Read};
    use crate::protocol::types::record::{AcceptorState, Record};

    fn large_group() -> Group {
        let record = Record {
            value: Some(vec![0; DISK_BACKLOG_SIZE_MAX].into()),
            ..Record::default()
        };
        let state = AcceptorState {
            record: Some(Arc::new(record)),
            ..AcceptorState::default()
        };
        Group {
            number: 1,
            registers: vec![(Key::user(b"large"), state)],
            ..Group::default()
        }
    }

    fn put() -> Pending {
        let mut pending = pending::tests::pending(1 << 127);
        let action = Action::Put { value: "v".into() };
        pending.operation = Arc::new(Operation {
            action,
            ..(*pending.operation).clone()
        });
        Pending {
            arrived_us: NOW.mono_us,
            deadline_us: NOW.mono_us + 1_000_000,
            received_us: Some(NOW.mono_us),
            ..pending
        }
    }

    fn outputs(replica: &mut Replica) -> Vec<Output> {
        std::iter::from_fn(|| replica.poll_ready()).collect()
    }

    #[test]
    fn a_node_whose_disk_is_far_behind_takes_on_no_writes() {
        let mut replica = replica();
        replica.durable.write(&large_group());
        assert!(replica.slow_disk_warning().is_some());
        outputs(&mut replica);
        let key = || Key::user(b"k");
        let prepare = Prepare {
            key: key(),
            ballot: Ballot::new(9, 2),
        };
        reported(&mut replica, 1, prepare.into());
        assert_eq!(replica.counters().overflow, 1);
        let read = Read {
            key: key(),
            holds: Ballot::ZERO,
        };
        reported(&mut replica, 1, read.into());
        let asked = outputs(&mut replica);
        assert!(asked.contains(&Output::Load(key())), "a read goes on");
        let (key, state) = (key(), None);
        let loaded = Input::Loaded {
            key: key.clone(),
            state,
        };
        replica.handle_input(NOW, loaded);
        outputs(&mut replica);
        replica.begin_operation(&put().operation);
        replica.run_here(NOW, key, put());
        let answer = outputs(&mut replica).into_iter().find_map(|o| match o {
            Output::Reply {
                reply: ClientReply::Answer(answer),
                ..
            } => Some(answer.outcome),
            _ => None,
        });
        assert!(matches!(answer, Some(Outcome::Busy { .. })), "{answer:?}");
    }

    #[test]
    fn a_slow_disk_is_avoided_for_a_while() {
        let mut slow = SlowDisks::default();
        slow.see(NOW, 2, DISK_SLOW_MS);
        slow.see(NOW, 3, DISK_SLOW_MS - 1);
        let later = |ms: u64| Now {
            mono_us: NOW.mono_us + ms * 1_000,
            ..NOW
        };
        assert!(slow.contains(later(DISK_SLOW_KEPT_MS - 1), 2) && !slow.contains(NOW, 3));
        assert!(!slow.contains(later(DISK_SLOW_KEPT_MS), 2));
        slow.see(later(1), 2, 2 * DISK_SLOW_MS);
        slow.see(later(2), 2, DISK_SLOW_MS);
        assert_eq!(slow.slow_ms(later(3), 2), 2 * DISK_SLOW_MS, "the longest");
        slow.see(later(2 + DISK_SLOW_KEPT_MS), 2, DISK_SLOW_MS);
        assert_eq!(slow.slow_ms(later(2 + DISK_SLOW_KEPT_MS), 2), DISK_SLOW_MS);
    }
}
