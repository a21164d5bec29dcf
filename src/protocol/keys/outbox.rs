//! R2 (persist first): groups of changed state, and the messages that wait for them.

use std::collections::VecDeque;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::HELD_BUCKETS_SIZE_MAX;
use crate::protocol::types::message::{
    BucketEntry, Envelope, GroupNumber, Message, NodeId, RangeEntry,
};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// Which paths a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The best path known.
    Usual,
    /// Also an alternative path, because the links of the usual path may just have failed. Each
    /// number selects a different one.
    Detour(u32),
    /// Also back through the previous hop of the request.
    Back(NodeId),
}

impl Way {
    /// The paths for a request that was already sent `again` times.
    pub fn asked(again: u32) -> Self {
        match again.checked_sub(1) {
            Some(turn) => Way::Detour(turn),
            None => Way::Usual,
        }
    }
}

/// A message that leaves once its group is durable.
#[derive(Debug)]
pub struct HeldMessage {
    group: GroupNumber,
    pub envelope: Envelope,
    pub way: Way,
}

/// The group being filled, and what waits for it and for the groups before it.
#[derive(Debug)]
pub struct Outbox {
    /// The number that the group being filled will have.
    filling: GroupNumber,
    persisted: GroupNumber,
    dirty: Vec<Key>,
    chosen: Vec<(Key, Ballot)>,
    meta_dirty: bool,
    /// In order of group.
    held: VecDeque<HeldMessage>,
    /// The size of the held answers about buckets.
    held_buckets_size: usize,
}

impl Outbox {
    pub fn new(last: GroupNumber) -> Self {
        Outbox {
            filling: last + 1,
            persisted: last,
            dirty: Vec::new(),
            chosen: Vec::new(),
            meta_dirty: false,
            held: VecDeque::new(),
            held_buckets_size: 0,
        }
    }

    pub fn filling(&self) -> GroupNumber {
        self.filling
    }

    /// Whether the group being filled holds something that messages may wait for.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.meta_dirty
    }

    pub fn is_durable(&self, group: GroupNumber) -> bool {
        group <= self.persisted || !rule!(R2)
    }

    /// The caller ensures that a key is in a group only once.
    pub fn change(&mut self, key: Key) -> GroupNumber {
        self.dirty.push(key);
        self.filling
    }

    pub fn change_meta(&mut self) -> GroupNumber {
        self.meta_dirty = true;
        self.filling
    }

    /// Adds a chosen mark, which nothing waits for.
    pub fn note_chosen(&mut self, key: Key, ballot: Ballot) {
        self.chosen.push((key, ballot));
    }

    /// How many chosen marks are pending.
    pub fn marks(&self) -> usize {
        self.chosen.len()
    }

    /// How many messages wait for groups.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns false if there is no space. This limits only answers about buckets, which are large
    /// and are requested again.
    pub fn hold(&mut self, group: GroupNumber, envelope: Envelope, way: Way) -> bool {
        let size = buckets_size(&envelope.message);
        if size > 0 && self.held_buckets_size + size > HELD_BUCKETS_SIZE_MAX {
            return false;
        }
        self.held_buckets_size += size;
        let behind = self
            .held
            .iter()
            .rev()
            .take_while(|h| h.group > group)
            .count();
        let held = HeldMessage {
            group,
            envelope,
            way,
        };
        self.held.insert(self.held.len() - behind, held);
        true
    }

    /// Closes the group if it holds something that messages may wait for, or, with `marks`, if it
    /// holds anything at all. Returns its number, keys and marks, and whether the node's own state
    /// is in it.
    pub fn close(&mut self, marks: bool) -> Option<Closed> {
        let urgent = self.is_dirty();
        if !urgent && (!marks || self.chosen.is_empty()) {
            return None;
        }
        let number = self.filling;
        self.filling += 1;
        Some(Closed {
            number,
            keys: std::mem::take(&mut self.dirty),
            chosen: std::mem::take(&mut self.chosen),
            meta: std::mem::take(&mut self.meta_dirty),
        })
    }

    /// The last group that is durable.
    pub fn synced(&self) -> GroupNumber {
        self.persisted
    }

    /// The first group that was returned to the driver and is not durable yet.
    pub fn oldest_unsynced(&self) -> Option<GroupNumber> {
        let oldest = self.persisted + 1;
        (oldest < self.filling).then_some(oldest)
    }

    pub fn persisted(&mut self, group: GroupNumber) {
        assert!(group < self.filling, "group {group} was never handed out");
        self.persisted = self.persisted.max(group);
    }

    /// The next message whose group is durable.
    pub fn pop_released(&mut self) -> Option<HeldMessage> {
        let released = self.held.front().is_some_and(|h| h.group <= self.persisted);
        let held = released.then(|| self.held.pop_front().expect("seen"))?;
        self.held_buckets_size -= buckets_size(&held.envelope.message);
        Some(held)
    }
}

/// About what an answer about buckets or ranges takes; 0 for other messages.
fn buckets_size(message: &Message) -> usize {
    match message {
        Message::DigestsReply(reported) => 8 * reported.sums.buckets().unwrap_or(0),
        Message::BucketReply(reported) => {
            128 + 2 * size_of::<BucketEntry>() * reported.entries.len()
        }
        Message::RangeReply(reported) => 128 + 2 * size_of::<RangeEntry>() * reported.entries.len(),
        _ => 0,
    }
}

#[derive(Debug)]
pub struct Closed {
    pub number: GroupNumber,
    pub keys: Vec<Key>,
    pub chosen: Vec<(Key, Ballot)>,
    pub meta: bool,
}
