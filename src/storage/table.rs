//! The acceptor state of all keys, in memory. Follows what the core persists; what is on disk is
//! `disk`'s.

use std::collections::HashMap;

use crate::protocol::ballot::Ballot;
use crate::protocol::digest::{Bucket, Digests, bucket_of};
use crate::protocol::message::Group;
use crate::protocol::record::{AcceptorState, Key, SPACE_USER};

/// Key to acceptor state. Records are shared with whoever loads them.
#[derive(Debug, Default)]
pub struct Table {
    states: HashMap<Key, AcceptorState, foldhash::fast::RandomState>,
    live: u64,
}

impl Table {
    pub fn apply(&mut self, group: &Group) {
        for (key, state) in &group.registers {
            self.set(key.clone(), state.clone());
        }
        for (key, ballot) in &group.chosen {
            self.mark_chosen(key, *ballot);
        }
    }

    pub fn digests(&self) -> Digests {
        let mut digests = Digests::default();
        for (key, state) in &self.states {
            digests.add(key, state.accepted, state.life);
        }
        digests
    }

    /// All that is held in a bucket, in order of key.
    pub fn list(&self, bucket: Bucket) -> Vec<(Key, AcceptorState)> {
        let states = self
            .states
            .iter()
            .filter(|(key, _)| bucket_of(key) == bucket);
        let mut states: Vec<_> = states.map(|(k, s)| (k.clone(), s.clone())).collect();
        states.sort_by(|(a, _), (b, _)| a.cmp(b));
        states
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        self.states.get(key).cloned()
    }

    /// Keys of users that have a value.
    pub fn keys(&self) -> u64 {
        self.live
    }

    pub(super) fn reserve(&mut self, keys: usize) {
        self.states.reserve(keys);
    }

    pub(super) fn set(&mut self, key: Key, state: AcceptorState) {
        let counts = key.space() == SPACE_USER;
        let is_live = counts && has_value(&state);
        let was_live = self
            .states
            .insert(key, state)
            .is_some_and(|old| counts && has_value(&old));
        self.live = self.live + u64::from(is_live) - u64::from(was_live);
    }

    /// A mark for another ballot than the accepted one tells nothing of what is held now.
    pub(super) fn mark_chosen(&mut self, key: &Key, ballot: Ballot) {
        if let Some(state) = self.states.get_mut(key)
            && state.accepted == ballot
        {
            state.chosen = true;
        }
    }
}

fn has_value(state: &AcceptorState) -> bool {
    state.record.as_ref().is_some_and(|r| r.value.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::record::Record;

    fn state(ballot: u64, value: Option<&'static [u8]>) -> AcceptorState {
        AcceptorState {
            promised: Ballot(ballot),
            accepted: Ballot(ballot),
            chosen: false,
            record: Some(Arc::new(Record {
                value: value.map(Bytes::from_static),
                ..Record::default()
            })),
        }
    }

    fn group(registers: Vec<(Key, AcceptorState)>, chosen: Vec<(Key, Ballot)>) -> Group {
        Group {
            number: 1,
            registers,
            chosen,
            meta: None,
        }
    }

    #[test]
    fn live_keys_are_users_keys_with_a_value() {
        let mut table = Table::default();
        let configuration = Key::try_from(Bytes::from_static(&[1, b'c'])).unwrap();
        let (a, b) = (Key::user(b"a"), Key::user(b"b"));
        table.apply(&group(
            vec![
                (configuration, state(1, Some(b"c"))),
                (a.clone(), state(1, Some(b"1"))),
                (b.clone(), AcceptorState::default()),
            ],
            vec![],
        ));
        assert_eq!(table.keys(), 1);
        table.apply(&group(vec![(a.clone(), state(2, Some(b"2")))], vec![]));
        assert_eq!(table.keys(), 1);
        table.apply(&group(vec![(b, state(3, Some(b"3")))], vec![]));
        assert_eq!(table.keys(), 2);
        table.apply(&group(vec![(a, state(4, None))], vec![]));
        assert_eq!(table.keys(), 1);
    }

    #[test]
    fn a_mark_counts_for_its_ballot_only() {
        let mut table = Table::default();
        let a = Key::user(b"a");
        table.apply(&group(
            vec![(a.clone(), state(2, Some(b"2")))],
            vec![(a.clone(), Ballot(1)), (Key::user(b"other"), Ballot(2))],
        ));
        assert!(!table.load(&a).unwrap().chosen);
        assert_eq!(table.load(&Key::user(b"other")), None);
        table.apply(&group(vec![], vec![(a.clone(), Ballot(2))]));
        assert!(table.load(&a).unwrap().chosen);
    }
}
