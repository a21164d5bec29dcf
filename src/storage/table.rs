//! The acceptor state of all keys, in memory. Follows what the core persists; what is on disk is
//! `disk`'s.

use std::collections::HashMap;

use crate::protocol::ballot::Ballot;
use crate::protocol::digest::{BUCKETS, Bucket, Digests, bucket_of};
use crate::protocol::message::Group;
use crate::protocol::record::{AcceptorState, Key, SPACE_USER};

type States = HashMap<Key, AcceptorState, foldhash::fast::RandomState>;

/// A map is made smaller once it uses less than one part in this many of its room.
const ROOM_PER_STATE_MAX: usize = 4;

/// Key to acceptor state, a map for each bucket: one bucket is listed without a look at the others,
/// and no map is so large that making it larger or smaller takes long. Records are shared with
/// whoever loads them.
#[derive(Debug)]
pub struct Table {
    buckets: Box<[States]>,
    live: u64,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            buckets: (0..BUCKETS).map(|_| States::default()).collect(),
            live: 0,
        }
    }
}

impl Table {
    pub fn apply(&mut self, group: &Group) {
        for (key, state) in &group.registers {
            self.set(key.clone(), state.clone());
        }
        for key in &group.dropped {
            self.remove(key);
        }
        for (key, ballot) in &group.chosen {
            self.mark_chosen(key, *ballot);
        }
    }

    pub fn digests(&self) -> Digests {
        let mut digests = Digests::default();
        for (key, state) in self.buckets.iter().flatten() {
            digests.add(key, state.accepted, state.life);
        }
        digests
    }

    /// All that is held in a bucket, in order of key.
    pub fn list(&self, bucket: Bucket) -> Vec<(Key, AcceptorState)> {
        let states = self.buckets[usize::from(bucket)].iter();
        let mut states: Vec<_> = states.map(|(k, s)| (k.clone(), s.clone())).collect();
        states.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        states
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        self.states(key).get(key).cloned()
    }

    /// Keys of users that have a value.
    pub fn keys(&self) -> u64 {
        self.live
    }

    /// Keys that anything is held of, the configuration among them.
    pub fn records(&self) -> u64 {
        let all: usize = self.buckets.iter().map(|states| states.len()).sum();
        all as u64
    }

    pub(super) fn set(&mut self, key: Key, state: AcceptorState) {
        let counts = key.space() == SPACE_USER;
        let is_live = counts && has_value(&state);
        let was_live = self
            .states_mut(&key)
            .insert(key, state)
            .is_some_and(|old| counts && has_value(&old));
        self.live = self.live + u64::from(is_live) - u64::from(was_live);
    }

    fn remove(&mut self, key: &Key) {
        let states = self.states_mut(key);
        let old = states.remove(key);
        if states.len() * ROOM_PER_STATE_MAX < states.capacity() {
            states.shrink_to(2 * states.len());
        }
        let was_live = old.is_some_and(|old| key.space() == SPACE_USER && has_value(&old));
        self.live -= u64::from(was_live);
    }

    /// A mark for another ballot than the accepted one tells nothing of what is held now.
    pub(super) fn mark_chosen(&mut self, key: &Key, ballot: Ballot) {
        if let Some(state) = self.states_mut(key).get_mut(key)
            && state.accepted == ballot
        {
            state.chosen = true;
        }
    }

    fn states(&self, key: &Key) -> &States {
        &self.buckets[usize::from(bucket_of(key))]
    }

    fn states_mut(&mut self, key: &Key) -> &mut States {
        &mut self.buckets[usize::from(bucket_of(key))]
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
            life: 0,
        }
    }

    fn group(registers: Vec<(Key, AcceptorState)>, chosen: Vec<(Key, Ballot)>) -> Group {
        Group {
            number: 1,
            registers,
            chosen,
            ..Group::default()
        }
    }

    #[test]
    fn live_keys_are_users_keys_with_a_value() {
        let mut table = Table::default();
        let configuration = Key::try_from([1, b'c'].as_slice()).unwrap();
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

    #[test]
    fn a_bucket_is_listed_in_order_and_only_it() {
        let mut table = Table::default();
        let names: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
        let keys: Vec<Key> = names.iter().map(|n| Key::user(n.as_bytes())).collect();
        let states = keys.iter().map(|key| (key.clone(), state(1, None)));
        table.apply(&group(states.collect(), vec![]));
        for bucket in 0..BUCKETS as Bucket {
            let listed: Vec<Key> = table.list(bucket).into_iter().map(|(key, _)| key).collect();
            let of_bucket = keys.iter().filter(|key| bucket_of(key) == bucket);
            let mut expected: Vec<Key> = of_bucket.cloned().collect();
            expected.sort();
            assert_eq!(listed, expected);
        }
    }

    #[test]
    fn dropped_keys_are_gone_with_their_room() {
        let mut table = Table::default();
        let keys: Vec<Key> = (0..100_000u32)
            .map(|n| Key::user(&n.to_le_bytes()))
            .collect();
        let states = keys.iter().map(|key| (key.clone(), state(1, Some(b"1"))));
        table.apply(&group(states.collect(), vec![]));
        let room = |table: &Table| table.buckets.iter().map(States::capacity).sum::<usize>();
        let full = room(&table);
        let (kept, dropped) = keys.split_at(1_000);
        table.apply(&Group {
            dropped: dropped.to_vec(),
            // A mark that comes with the drop, or late, brings nothing back.
            chosen: vec![(dropped[0].clone(), Ballot(1))],
            ..Group::default()
        });
        assert_eq!((table.keys(), table.load(&dropped[0])), (1_000, None));
        assert!(kept.iter().all(|key| table.load(key).is_some()));
        assert!(room(&table) < full / 10, "{} of {full}", room(&table));
        let mut expected = Digests::default();
        for key in kept {
            expected.add(key, Ballot(1), 0);
        }
        assert_eq!(table.digests(), expected);
        table.apply(&group(
            vec![(dropped[0].clone(), state(2, Some(b"2")))],
            vec![],
        ));
        assert_eq!(table.keys(), 1_001);
        table.apply(&Group {
            dropped: keys,
            ..Group::default()
        });
        assert_eq!((table.keys(), room(&table)), (0, 0));
    }
}
