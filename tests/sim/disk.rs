//! A node's simulated disk: what was written, and what of it remains after a crash.
//!
//! One sync runs at a time and covers all groups that were written when it began. The disk has no
//! clock: the driver decides when a sync is completed.

use std::collections::{HashMap, VecDeque};

use horseshoe::protocol::types::digest::{Bucket, Digests, Spread};
use horseshoe::protocol::types::message::{Group, GroupNumber, Incarnation, Meta, Recovered};
use horseshoe::protocol::types::page::{Page, PageBounds, RangePage, RangeState};
use horseshoe::protocol::types::range::KeyRange;
use horseshoe::protocol::types::record::{AcceptorState, Key};

/// The merged content of groups.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub registers: HashMap<Key, AcceptorState, foldhash::fast::FixedState>,
    pub meta: Meta,
    pub group: GroupNumber,
}

impl Table {
    fn spread(&self) -> Spread {
        let configuration = self.meta.configuration.as_ref();
        configuration.map_or_else(Spread::default, |c| c.spread)
    }

    fn apply(&mut self, group: &Group) {
        assert!(
            group.number > self.group,
            "groups are written in order of number"
        );
        self.group = group.number;
        for (key, state) in &group.registers {
            self.registers.insert(key.clone(), state.clone());
        }
        for key in &group.dropped {
            self.registers.remove(key);
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

#[derive(Debug, Clone)]
pub struct Disk {
    incarnation: u64,
    /// What certainly remains after a crash.
    synced: Table,
    /// All writes since the start: `Load` is answered from this.
    written: Table,
    waiting: VecDeque<Group>,
    /// The last group of the sync in progress.
    syncing: Option<GroupNumber>,
    /// The incarnation that has lost its writes after the copy was made.
    rolled_back: Option<Incarnation>,
}

impl Disk {
    pub fn new(incarnation: u64) -> Self {
        Disk {
            incarnation,
            synced: Table::default(),
            written: Table::default(),
            waiting: VecDeque::new(),
            syncing: None,
            rolled_back: None,
        }
    }

    /// Replaces the content by an older copy.
    pub fn roll_back(&mut self, copy: Disk) {
        let rolled_back = Some(self.incarnation());
        *self = Disk {
            rolled_back,
            ..copy
        };
    }

    /// Whether this is an older copy, and still has the incarnation of the node that wrote more.
    pub fn is_rolled_back(&self) -> bool {
        self.rolled_back == Some(self.incarnation())
    }

    /// The node's present incarnation (E4).
    pub fn incarnation(&self) -> u64 {
        match self.synced.meta.incarnation {
            0 => self.incarnation,
            taken => taken,
        }
    }

    pub fn synced(&self) -> &Table {
        &self.synced
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        self.written.registers.get(key).cloned()
    }

    /// At most `length_max` keys: the store decides what a page holds.
    pub fn list(&self, bucket: Bucket, after: Option<&Key>, length_max: usize) -> Page {
        let spread = self.written.spread();
        let held = self.written.registers.iter();
        let held = held.filter(|(key, _)| spread.bucket_of(key) == bucket && Some(*key) > after);
        let mut states: Vec<_> = held.collect();
        states.sort_by_key(|(key, _)| *key);
        Page::collect(owned(states), length_max)
    }

    /// A page of a range of users' keys.
    pub fn list_range(&self, range: &KeyRange, bounds: PageBounds) -> RangePage {
        let held = self.written.registers.iter();
        let mut states: Vec<_> = held.filter(|(key, _)| range.contains(key)).collect();
        states.sort_by_key(|(key, _)| *key);
        let states = states.into_iter();
        let states = states.map(|(key, state)| (key.clone(), RangeState::from(state)));
        RangePage::of_range(states, bounds)
    }

    /// Takes a group; returns whether a sync should begin now.
    pub fn write(&mut self, group: Group) -> bool {
        self.written.apply(&group);
        self.waiting.push_back(group);
        self.begin_sync()
    }

    /// Completes the sync; returns the last durable group, and whether the next sync should begin.
    pub fn end_sync(&mut self) -> (GroupNumber, bool) {
        let last = self.syncing.take().expect("a sync is under way");
        self.settle(last);
        (last, self.begin_sync())
    }

    /// The process dies: of the groups that were not synced, the first `kept` remain.
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
        let mut digests = Digests::new(self.synced.spread());
        for (key, state) in &self.synced.registers {
            digests.add(key, state.accepted, state.life);
        }
        let registers = self.synced.registers.iter();
        let expiring = registers.filter_map(|(key, state)| {
            let record = state.record.as_ref()?;
            Some((record.expiry_ms?, key.clone()))
        });
        Recovered {
            incarnation: self.incarnation,
            expiring: expiring.collect(),
            meta: self.synced.meta.clone(),
            group: self.synced.group,
            digests,
            ..Recovered::default()
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

fn owned(states: Vec<(&Key, &AcceptorState)>) -> impl Iterator<Item = (Key, AcceptorState)> {
    let states = states.into_iter();
    states.map(|(key, state)| (key.clone(), state.clone()))
}
