//! The groups that were given to the disk and are not durable yet. This module owns their number
//! and size, and decides whether the disk is so far behind that the node accepts no more writes.

use std::collections::VecDeque;
use std::fmt;

use crate::protocol::types::limits::{DISK_BACKLOG_GROUPS_MAX, DISK_BACKLOG_SIZE_MAX};
use crate::protocol::types::message::{Group, GroupNumber};

/// Roughly what a register takes beside its key and its record, in bytes.
const REGISTER_SIZE: usize = 64;

#[derive(Default)]
pub struct DiskBacklog {
    /// Numbers and sizes, in order.
    groups: VecDeque<(GroupNumber, usize)>,
    size: usize,
}

/// Two nodes in the same state may differ in sizes here. The exhaustive search compares states as
/// text, and never reaches the bounds.
impl fmt::Debug for DiskBacklog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskBacklog")
    }
}

impl DiskBacklog {
    /// The group goes to the disk.
    pub fn add(&mut self, group: &Group) {
        let size = size_of(group);
        self.groups.push_back((group.number, size));
        self.size += size;
    }

    /// This group and all before it are durable.
    pub fn persisted(&mut self, group: GroupNumber) {
        while let Some((_, size)) = self.groups.pop_front_if(|(number, _)| *number <= group) {
            self.size -= size;
        }
    }

    /// Whether the disk lags so far that the node refuses what would have to be written.
    pub fn is_full(&self) -> bool {
        self.size > DISK_BACKLOG_SIZE_MAX || self.groups.len() > DISK_BACKLOG_GROUPS_MAX
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    pub fn size(&self) -> usize {
        self.size
    }
}

fn size_of(group: &Group) -> usize {
    let registers = group.registers.iter().map(|(key, state)| {
        let record_size = state.record.as_ref().map_or(0, |record| record.size());
        REGISTER_SIZE + key.as_bytes().len() + record_size
    });
    let marks = group.chosen.iter().map(|(key, _)| key);
    let names = group.dropped.iter().chain(marks);
    registers.sum::<usize>() + names.map(|key| key.as_bytes().len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::types::record::{AcceptorState, ClientEntry, Key, Record};

    fn group(number: GroupNumber, value_size: usize) -> Group {
        let record = Record {
            value: Some(vec![0; value_size].into()),
            ..Record::default()
        };
        let state = AcceptorState {
            record: Some(Arc::new(record)),
            ..AcceptorState::default()
        };
        Group {
            number,
            registers: vec![(Key::user(b"k"), state)],
            ..Group::default()
        }
    }

    #[test]
    fn many_groups_fill_it_until_some_are_durable() {
        let mut backlog = DiskBacklog::default();
        for number in 1..=DISK_BACKLOG_GROUPS_MAX as u64 + 1 {
            assert!(!backlog.is_full());
            backlog.add(&group(number, 0));
        }
        assert!(backlog.is_full());
        backlog.persisted(1);
        assert!(!backlog.is_full());
        backlog.persisted(u64::MAX);
        assert_eq!((backlog.groups(), backlog.size()), (0, 0));
    }

    /// An intent and a full table are written to the disk like a value.
    #[test]
    fn all_that_a_record_has_counts() {
        let sizes = |record: Record| {
            let state = AcceptorState {
                record: Some(Arc::new(record)),
                ..AcceptorState::default()
            };
            size_of(&Group {
                registers: vec![(Key::user(b"k"), state)],
                ..Group::default()
            })
        };
        let bytes = Some(vec![0; 1 << 20].into());
        let with_value = sizes(Record {
            value: bytes.clone(),
            ..Record::default()
        });
        let with_intent = sizes(Record {
            intent: bytes.map(Into::into),
            ..Record::default()
        });
        assert_eq!(with_intent, with_value);
        let entry = ClientEntry {
            client: 1,
            mark: 1,
            birth_max: 1,
            operations: Vec::new(),
        };
        let mut record = Record::default();
        record.applied.clients = vec![entry; 1_000];
        assert!(sizes(record) > sizes(Record::default()) + 10_000);
    }

    #[test]
    fn few_large_groups_fill_it() {
        let mut backlog = DiskBacklog::default();
        let half = DISK_BACKLOG_SIZE_MAX / 2;
        backlog.add(&group(1, half));
        assert!(!backlog.is_full());
        backlog.add(&group(2, half));
        assert!(backlog.is_full());
        backlog.persisted(1);
        assert!(!backlog.is_full());
    }
}
