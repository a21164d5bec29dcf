//! The acceptor state of all keys, in memory. It contains what the core has persisted; `disk` owns
//! the files.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Bound;

use indexmap::IndexMap;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Bucket, Digests, Spread};
use crate::protocol::types::message::{Group, Meta};
use crate::protocol::types::page::{Page, PageBounds};
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::record::{AcceptorState, Key, SPACE_USER};

/// A shard is shrunk once it uses less than this fraction (1/4) of its capacity.
const ROOM_PER_KEY_MAX: usize = 4;
/// A map that grows is copied as a whole. Copying one of many small maps stops the loop only
/// briefly.
const SHARDS: usize = 64;

type Hasher = foldhash::fast::RandomState;
type Shard = IndexMap<Key, AcceptorState, Hasher>;

/// Where the state of a key is.
#[derive(Debug, Clone, Copy)]
struct StatePlace {
    shard: u32,
    at: u32,
}

/// Maps keys to acceptor state. Two indexes keep the keys in order: one for each bucket, so that
/// listing a page of a bucket visits no other bucket, and one of all users' keys, for ranges. They
/// share the keys' memory. Records are shared with the code that loads them.
#[derive(Debug)]
pub struct Table {
    spread: Spread,
    /// Chooses the shard of a key. The maps have other seeds: within a shard, hashes with this one
    /// would be similar.
    hasher: Hasher,
    shards: Box<[Shard]>,
    buckets: Box<[BTreeSet<Key>]>,
    /// Users' keys with their places in the shards. Looking up each key would take most of a scan's
    /// time.
    order: BTreeMap<Key, StatePlace>,
    /// False while the table is loaded: then buckets and order are empty.
    is_indexed: bool,
    live: u64,
}

impl Default for Table {
    fn default() -> Self {
        let spread = Spread::default();
        Table {
            spread,
            hasher: Hasher::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            buckets: buckets_of(spread),
            order: BTreeMap::new(),
            is_indexed: true,
            live: 0,
        }
    }
}

impl Table {
    /// A table to be loaded: until `index` is called, only changes may be made.
    pub(super) fn loading(keys: u64) -> Self {
        let mut table = Table {
            is_indexed: false,
            ..Table::default()
        };
        let per_shard = keys as usize / SHARDS;
        for shard in &mut table.shards {
            shard.reserve(per_shard + per_shard / 8);
        }
        table
    }

    /// Puts all keys in order at once, which takes a fraction of the time of one by one. What is
    /// needed of a key is read once: keys are all over the memory.
    pub(super) fn index(&mut self) {
        let mut all = Vec::with_capacity(self.shards.iter().map(Shard::len).sum());
        for (shard, states) in self.shards.iter().enumerate() {
            for (at, key) in states.keys().enumerate() {
                let place = StatePlace {
                    shard: shard as u32,
                    at: at as u32,
                };
                all.push((first_bytes(key), key, place, self.spread.bucket_of(key)));
            }
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let mut buckets = vec![Vec::new(); self.spread.buckets()];
        let mut order = Vec::with_capacity(all.len());
        for (_, key, place, bucket) in all {
            buckets[usize::from(bucket)].push(key.clone());
            if key.space() == SPACE_USER {
                order.push((key.clone(), place));
            }
        }
        self.order = order.into_iter().collect();
        self.buckets = buckets.into_iter().map(BTreeSet::from_iter).collect();
        self.is_indexed = true;
    }

    pub fn apply(&mut self, group: &Group) {
        if let Some(meta) = &group.meta {
            self.learn(meta);
        }
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
        let mut digests = Digests::new(self.spread);
        for (key, state) in self.shards.iter().flatten() {
            digests.add(key, state.accepted, state.life);
        }
        digests
    }

    /// L1: the keys that expire, each with its time.
    pub fn expiring(&self) -> Vec<(u64, Key)> {
        let states = self.shards.iter().flatten();
        let expiring = states.filter_map(|(key, state)| {
            let record = state.record.as_ref()?;
            Some((record.expiry_ms?, key.clone()))
        });
        expiring.collect()
    }

    /// The entries of a bucket after the key `after`, as many as fit one message.
    pub fn list(&self, bucket: Bucket, after: Option<&Key>) -> Page {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.buckets[usize::from(bucket)].range((behind, Bound::Unbounded));
        Page::collect(keys.map(|key| (key, &self.shard(key)[key])), usize::MAX)
    }

    /// A page of a range of users' keys.
    pub fn list_range(&self, range: &KeyRange, bounds: PageBounds) -> Page {
        let keys = range.bounds().into_iter().flat_map(|b| self.order.range(b));
        let states = keys.map(|(key, place)| {
            let StatePlace { shard, at } = *place;
            (key, &self.shards[shard as usize][at as usize])
        });
        Page::collect_within(states, bounds)
    }

    /// D1: the first configuration gives the bucket hash key. Normally the table is empty before.
    pub(super) fn learn(&mut self, meta: &Meta) {
        let configuration = meta.configuration.as_ref();
        if let Some(spread) = configuration.map(|c| c.spread)
            && spread != self.spread
        {
            self.spread = spread;
            self.buckets = buckets_of(spread);
            if !self.is_indexed {
                return;
            }
            for key in self.shards.iter().flat_map(Shard::keys) {
                self.buckets[usize::from(spread.bucket_of(key))].insert(key.clone());
            }
        }
    }

    pub fn holds(&self, key: &Key) -> bool {
        self.shard(key).contains_key(key)
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        self.shard(key).get(key).cloned()
    }

    /// The number of users' keys that have a value.
    pub fn keys(&self) -> u64 {
        self.live
    }

    /// The number of keys that have any state, the configuration among them.
    pub fn records(&self) -> u64 {
        let all: usize = self.shards.iter().map(Shard::len).sum();
        all as u64
    }

    pub(super) fn set(&mut self, key: Key, state: AcceptorState) {
        let counts = key.space() == SPACE_USER;
        let is_live = counts && has_value(&state);
        let shard = self.shard_of(&key);
        let was_live = match self.shards[shard].get_mut(&key) {
            Some(held) => {
                let old = std::mem::replace(held, state);
                counts && has_value(&old)
            }
            None => {
                self.add(shard, key, state);
                false
            }
        };
        self.live = self.live + u64::from(is_live) - u64::from(was_live);
    }

    /// The key has no state yet.
    fn add(&mut self, shard: usize, key: Key, state: AcceptorState) {
        let at = u32::try_from(self.shards[shard].len()).expect("so many keys fit no memory");
        if self.is_indexed {
            self.bucket_of(&key).insert(key.clone());
        }
        if self.is_indexed && key.space() == SPACE_USER {
            let place = StatePlace {
                shard: shard as u32,
                at,
            };
            self.order.insert(key.clone(), place);
        }
        self.shards[shard].insert(key, state);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let shard = self.shard_of(key);
        let states = &mut self.shards[shard];
        let Some((at, _, old)) = states.swap_remove_full(key) else {
            return;
        };
        // The shard's last entry has moved to this place.
        let moved = states.get_index(at);
        if let Some(place) = moved.and_then(|(moved, _)| self.order.get_mut(moved)) {
            place.at = at as u32;
        }
        if states.len() * ROOM_PER_KEY_MAX < states.capacity() {
            states.shrink_to(2 * states.len());
        }
        if self.is_indexed {
            self.bucket_of(key).remove(key);
        }
        self.order.remove(key);
        self.live -= u64::from(key.space() == SPACE_USER && has_value(&old));
    }

    /// A chosen mark for a ballot other than the accepted one says nothing about the present
    /// record.
    pub(super) fn mark_chosen(&mut self, key: &Key, ballot: Ballot) {
        let shard = self.shard_of(key);
        if let Some(state) = self.shards[shard].get_mut(key)
            && state.accepted == ballot
        {
            state.chosen = true;
        }
    }

    fn shard_of(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    fn shard(&self, key: &Key) -> &Shard {
        &self.shards[self.shard_of(key)]
    }

    fn bucket_of(&mut self, key: &Key) -> &mut BTreeSet<Key> {
        &mut self.buckets[usize::from(self.spread.bucket_of(key))]
    }
}

fn buckets_of(spread: Spread) -> Box<[BTreeSet<Key>]> {
    spread.all().map(|_| BTreeSet::new()).collect()
}

/// The first bytes of a key, for comparing most keys without looking them up.
fn first_bytes(key: &Key) -> [u64; 3] {
    let mut bytes = [0; 24];
    let first = &key.as_bytes()[..key.as_bytes().len().min(24)];
    bytes[..first.len()].copy_from_slice(first);
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2].map(|n| u64::from_be_bytes(words[n]))
}

fn has_value(state: &AcceptorState) -> bool {
    state.record.as_ref().is_some_and(|r| r.value.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::types::limits::KEYS_SIZE_MAX;
    use crate::protocol::types::message::Configuration;
    use crate::protocol::types::record::Record;

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
    fn a_table_that_is_loaded_is_like_one_that_was_filled() {
        let [mut filled, mut loaded] = [Table::default(), Table::loading(1_000)];
        let name = |n: u64| match n % 3 {
            0 => Key::user(format!("a long common beginning {n}").as_bytes()),
            1 => Key::user(&n.to_be_bytes()[(n % 8) as usize..]),
            _ => Key::try_from([1, n as u8].as_slice()).unwrap(),
        };
        let keys: Vec<Key> = (0..3_000).map(name).collect();
        for table in [&mut filled, &mut loaded] {
            for (key, n) in keys.iter().zip(1..) {
                table.set(key.clone(), state(n, Some(b"v")));
                if n % 5 == 0 {
                    table.remove(&keys[n as usize / 2]);
                }
                if n == 2_000 {
                    table.apply(&configured(Spread::new(7, 8)));
                }
            }
        }
        loaded.index();
        assert_eq!(
            (loaded.keys(), loaded.records()),
            (filled.keys(), filled.records())
        );
        assert_eq!(loaded.digests(), filled.digests());
        for bucket in Spread::new(7, 8).all() {
            assert_eq!(listed(&loaded, bucket), listed(&filled, bucket));
        }
        let shown = |table: &Table| -> Vec<(Key, AcceptorState)> {
            let state = |(key, place): (&Key, &StatePlace)| {
                let held = table.shards[place.shard as usize].get_index(place.at as usize);
                let (held, state) = held.expect("the place is right");
                assert_eq!(held, key);
                (key.clone(), state.clone())
            };
            table.order.iter().map(state).collect()
        };
        assert_eq!(shown(&loaded), shown(&filled));
    }

    #[test]
    fn a_later_state_replaces_the_earlier_one_in_every_space() {
        let mut table = Table::default();
        for key in [Key::user(b"k"), Key::configuration()] {
            for ballot in 1..4 {
                let now = state(ballot, Some(b"v"));
                table.apply(&group(vec![(key.clone(), now.clone())], vec![]));
                assert_eq!(table.load(&key), Some(now), "{key:?}");
            }
        }
        assert_eq!((table.keys(), table.records()), (1, 2));
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

    fn configured(spread: Spread) -> Group {
        let configuration = Configuration {
            spread,
            ..Configuration::default()
        };
        Group {
            meta: Some(Meta {
                configuration: Some(configuration),
                ..Meta::default()
            }),
            ..Group::default()
        }
    }

    fn names(pages: impl Iterator<Item = Page>) -> Vec<Key> {
        let states = pages.flat_map(|page| page.states);
        states.map(|(key, _)| key).collect()
    }

    /// All of a bucket, page by page.
    fn listed(table: &Table, bucket: Bucket) -> Vec<Key> {
        let first = Some(table.list(bucket, None));
        names(std::iter::successors(first, |page| {
            let after = page.next.as_ref()?;
            Some(table.list(bucket, Some(after)))
        }))
    }

    #[test]
    fn a_bucket_is_listed_in_order_and_only_it() {
        let mut table = Table::default();
        let spread = Spread::new(7, 8);
        let keys: Vec<Key> = (0..20_000)
            .map(|n| Key::user(n.to_string().as_bytes()))
            .collect();
        let (early, late) = keys.split_at(10);
        let states = |keys: &[Key]| keys.iter().map(|k| (k.clone(), state(1, None))).collect();
        table.apply(&group(states(early), vec![]));
        table.apply(&configured(spread));
        table.apply(&group(states(late), vec![]));
        assert_eq!(table.records(), 20_000);
        for bucket in spread.all() {
            let of_bucket = keys.iter().filter(|key| spread.bucket_of(key) == bucket);
            let mut expected: Vec<Key> = of_bucket.cloned().collect();
            expected.sort();
            assert_eq!(listed(&table, bucket), expected);
        }
    }

    /// Counts the visited states: each copied state shares the record, which counts its holders.
    #[test]
    fn a_page_of_a_large_bucket_costs_a_page() {
        let mut table = Table::default();
        table.apply(&configured(Spread::new(7, 1)));
        let all = state(1, Some(b"1"));
        let keys = (0..100_000_u32).map(|n| Key::user(&n.to_be_bytes()));
        table.apply(&group(keys.map(|key| (key, all.clone())).collect(), vec![]));
        let shared = || Arc::strong_count(all.record.as_ref().unwrap());
        let held = shared();
        assert_eq!(held, 100_001);
        let page = table.list(0, Some(&Key::user(&50_000_u32.to_be_bytes())));
        assert_eq!(page.states[0].0, Key::user(&50_001_u32.to_be_bytes()));
        assert_eq!(shared() - held, page.states.len());
        let fits = KEYS_SIZE_MAX / 20;
        assert!((100..fits).contains(&page.states.len()));
    }

    /// A range lists the state of each key also after removals have moved entries.
    #[test]
    fn a_range_lists_the_states_of_its_keys() {
        let mut table = Table::default();
        let key = |n: u64| Key::user(format!("{n:05}").as_bytes());
        let states = (1..=5_000).map(|n| (key(n), state(n, Some(b"1"))));
        let configuration = (Key::configuration(), state(9_999, Some(b"c")));
        table.apply(&group(states.chain([configuration]).collect(), vec![]));
        let dropped = |n: &u64| n.is_multiple_of(7) || (100..4_000).contains(n);
        table.apply(&Group {
            dropped: (1..=5_000).filter(dropped).map(key).collect(),
            ..Group::default()
        });
        let range = KeyRange {
            first: key(0),
            is_after: false,
            last: None,
            is_before: false,
        };
        let bounds = PageBounds {
            length_max: usize::MAX,
            size_max: usize::MAX,
            counts_values: false,
        };
        let page = table.list_range(&range, bounds);
        let listed = page
            .states
            .iter()
            .map(|(key, state)| (key.clone(), state.accepted));
        let kept = (1..=5_000).filter(|n| !dropped(n));
        assert!(listed.eq(kept.map(|n| (key(n), Ballot(n)))));
    }

    #[test]
    fn dropped_keys_are_gone() {
        let mut table = Table::default();
        let keys: Vec<Key> = (0..100_000u32)
            .map(|n| Key::user(&n.to_le_bytes()))
            .collect();
        let states = keys.iter().map(|key| (key.clone(), state(1, Some(b"1"))));
        table.apply(&group(states.collect(), vec![]));
        let (kept, dropped) = keys.split_at(1_000);
        table.apply(&Group {
            dropped: dropped.to_vec(),
            // A chosen mark that comes with the removal, or late, restores nothing.
            chosen: vec![(dropped[0].clone(), Ballot(1))],
            ..Group::default()
        });
        assert_eq!((table.keys(), table.load(&dropped[0])), (1_000, None));
        assert!(kept.iter().all(|key| table.load(key).is_some()));
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
        assert_eq!((table.keys(), table.records()), (0, 0));
    }
}
