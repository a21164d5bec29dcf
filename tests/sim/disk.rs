//! A node's simulated disk: what was written, and what of it a crash leaves.
//!
//! One sync runs at a time and covers all groups that were handed over when it began. Knows nothing
//! of time: who drives it says when a sync is through.

use std::collections::{HashMap, VecDeque};

use horseshoe::protocol::message::{Group, GroupNumber, Meta, Recovered};
use horseshoe::protocol::record::{AcceptorState, Key};

/// Groups, put together.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub registers: HashMap<Key, AcceptorState, foldhash::fast::FixedState>,
    pub meta: Meta,
    pub group: GroupNumber,
}

impl Table {
    fn apply(&mut self, group: &Group) {
        assert!(
            group.number > self.group,
            "groups are written in order of number"
        );
        self.group = group.number;
        for (key, state) in &group.registers {
            self.registers.insert(key.clone(), state.clone());
        }
        for (key, ballot) in &group.chosen {
            if let Some(state) = self.registers.get_mut(key)
                && state.accepted == *ballot
            {
                state.chosen = true;
            }
        }
        if let Some(meta) = &group.meta {
            self.meta = meta.clone();
        }
    }
}

#[derive(Debug)]
pub struct Disk {
    incarnation: u64,
    /// What a crash leaves in any case.
    synced: Table,
    /// All that was handed over in this life: what `Load` is answered from.
    written: Table,
    waiting: VecDeque<Group>,
    /// The last group of the sync that is under way.
    syncing: Option<GroupNumber>,
}

impl Disk {
    pub fn new(incarnation: u64) -> Self {
        Disk {
            incarnation,
            synced: Table::default(),
            written: Table::default(),
            waiting: VecDeque::new(),
            syncing: None,
        }
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn synced(&self) -> &Table {
        &self.synced
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        self.written.registers.get(key).cloned()
    }

    /// Takes a group; whether a sync is to begin now.
    pub fn write(&mut self, group: Group) -> bool {
        self.written.apply(&group);
        self.waiting.push_back(group);
        self.begin_sync()
    }

    /// The sync is through: the last group that is safe, and whether the next sync is to begin.
    pub fn end_sync(&mut self) -> (GroupNumber, bool) {
        let last = self.syncing.take().expect("a sync is under way");
        self.settle(last);
        (last, self.begin_sync())
    }

    /// The process dies: of what was not synced the first `kept` groups are found again.
    pub fn crash(&mut self, kept: usize) {
        let last = match kept {
            0 => self.synced.group,
            kept => self
                .waiting
                .get(kept - 1)
                .map_or(self.written.group, |g| g.number),
        };
        self.settle(last);
        self.waiting.clear();
        self.syncing = None;
        self.written = self.synced.clone();
    }

    pub fn unsynced(&self) -> usize {
        self.waiting.len()
    }

    /// All state is lost.
    pub fn wipe(&mut self, incarnation: u64) {
        *self = Disk::new(incarnation);
    }

    pub fn recovered(&self) -> Recovered {
        Recovered {
            incarnation: self.incarnation,
            meta: self.synced.meta.clone(),
            group: self.synced.group,
        }
    }

    fn begin_sync(&mut self) -> bool {
        if self.syncing.is_some() {
            return false;
        }
        self.syncing = self.waiting.back().map(|g| g.number);
        self.syncing.is_some()
    }

    fn settle(&mut self, last: GroupNumber) {
        while let Some(group) = self.waiting.pop_front_if(|g| g.number <= last) {
            self.synced.apply(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use horseshoe::protocol::ballot::Ballot;

    use super::*;

    fn group(number: GroupNumber, promised: u64) -> Group {
        let state = AcceptorState {
            promised: Ballot(promised),
            ..AcceptorState::default()
        };
        Group {
            number,
            registers: vec![(Key::user(b"k"), state)],
            ..Group::default()
        }
    }

    fn promised(table: &Table) -> Option<u64> {
        table.registers.get(&Key::user(b"k")).map(|s| s.promised.0)
    }

    #[test]
    fn a_crash_loses_what_was_not_synced() {
        let mut disk = Disk::new(1);
        assert!(disk.write(group(1, 10)));
        assert!(!disk.write(group(2, 20)), "one sync at a time");
        assert_eq!(disk.load(&Key::user(b"k")).unwrap().promised, Ballot(20));
        assert_eq!(
            disk.end_sync(),
            (1, true),
            "covers what was there when it began"
        );
        disk.crash(0);
        assert_eq!(promised(disk.synced()), Some(10));
        assert_eq!(disk.load(&Key::user(b"k")).unwrap().promised, Ballot(10));
        assert_eq!(
            (disk.recovered().group, disk.recovered().incarnation),
            (1, 1)
        );
    }

    #[test]
    fn a_crash_may_leave_some_of_it() {
        let mut disk = Disk::new(1);
        for number in 1..=3 {
            disk.write(group(number, number * 10));
        }
        disk.crash(2);
        assert_eq!(
            (promised(disk.synced()), disk.recovered().group),
            (Some(20), 2)
        );
        assert!(
            disk.write(group(3, 33)),
            "numbers go on from the last one found"
        );
    }

    #[test]
    fn one_sync_covers_all_that_waits() {
        let mut disk = Disk::new(1);
        for number in 1..=4 {
            disk.write(group(number, number));
        }
        assert_eq!(disk.end_sync(), (1, true));
        assert_eq!(disk.end_sync(), (4, false));
        assert_eq!(disk.unsynced(), 0);
    }

    #[test]
    fn marks_are_of_the_accepted_ballot() {
        let mut disk = Disk::new(1);
        let state = AcceptorState {
            accepted: Ballot(5),
            ..AcceptorState::default()
        };
        let key = Key::user(b"k");
        let registers = vec![(key.clone(), state)];
        disk.write(Group {
            number: 1,
            registers,
            ..Group::default()
        });
        let mark = |number, ballot| Group {
            number,
            chosen: vec![(key.clone(), Ballot(ballot))],
            ..Group::default()
        };
        disk.write(mark(2, 4));
        assert!(!disk.load(&key).unwrap().chosen);
        disk.write(mark(3, 5));
        assert!(disk.load(&key).unwrap().chosen);
    }

    #[test]
    fn a_wiped_disk_is_another_incarnation() {
        let mut disk = Disk::new(1);
        disk.write(group(1, 10));
        disk.wipe(2);
        assert_eq!(
            disk.recovered(),
            Recovered {
                incarnation: 2,
                ..Recovered::default()
            }
        );
    }
}
