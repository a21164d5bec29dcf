//! The acceptor state of all keys, in memory. It contains what the core has persisted; `disk` owns
//! the files.
//!
//! Each key has a number below the number of keys. The indexes contain these numbers, and compare
//! keys where their states are: a key of 16 bytes with a value of 100 bytes takes about 200 bytes
//! in all. A removed key's number passes to the key with the highest number, so nothing has holes.
//! Whatever grows or shrinks does so in small parts, so that no operation stops the loop.

mod chunks;
mod index;
mod order;
mod pools;

use std::hash::BuildHasher;
use std::ops::Bound;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Bucket, Digests, Spread};
use crate::protocol::types::message::{Group, Meta};
use crate::protocol::types::page::{Page, PageBounds, RangePage};
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::record::{AcceptorState, Key, Record, SPACE_USER};
use chunks::Chunks;
use index::HashIndex;
use order::Order;
use pools::{Held, Location, Pools};

/// Maps keys to acceptor state. Two indexes keep the keys in order: one for each bucket, so that
/// listing a page of a bucket visits no other bucket, and one of all users' keys, for ranges.
#[derive(Debug)]
pub struct Table {
    spread: Spread,
    states: States,
    index: HashIndex,
    buckets: Box<[Order]>,
    /// Users' keys only.
    order: Order,
    /// False while the table is loaded: then buckets and order are empty.
    is_ordered: bool,
    live: u64,
}

/// The keys and their states, by number.
#[derive(Debug, Default)]
struct States {
    hasher: foldhash::fast::RandomState,
    locations: Chunks<Location>,
    pools: Pools,
}

impl States {
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn hash_of(&self, number: u32) -> u64 {
        self.hash(self.key(number))
    }

    fn location(&self, number: u32) -> Location {
        *self.locations.get(number as usize)
    }

    fn get(&self, number: u32) -> Held<'_> {
        self.pools.get(self.location(number))
    }

    fn key(&self, number: u32) -> &[u8] {
        self.pools.key(self.location(number))
    }

    /// The keys of some spaces in order. Keys are all over the memory, so most are compared by
    /// eight bytes of each that are copied before: those after what all keys begin with.
    fn sorted(&self, is_wanted: impl Fn(u8) -> bool) -> Vec<u32> {
        let all = 0..self.locations.len() as u32;
        let numbers: Vec<u32> = all.filter(|n| is_wanted(self.key(*n)[0])).collect();
        let keys = numbers.iter().map(|number| self.key(*number));
        let common = keys.reduce(common_beginning).map_or(0, <[u8]>::len);
        let with_bytes = |number| (next_bytes(&self.key(number)[common..]), number);
        let mut sorted: Vec<(u64, u32)> = numbers.into_iter().map(with_bytes).collect();
        sorted.sort_unstable_by(|(first, a), (second, b)| {
            let whole = || self.key(*a).cmp(self.key(*b));
            first.cmp(second).then_with(whole)
        });
        sorted.into_iter().map(|(_, number)| number).collect()
    }

    fn all(&self) -> impl Iterator<Item = Held<'_>> {
        let locations = self.locations.iter();
        locations.map(|location| self.pools.get(*location))
    }
}

impl Default for Table {
    fn default() -> Self {
        let spread = Spread::default();
        Table {
            spread,
            states: States::default(),
            index: HashIndex::default(),
            buckets: buckets_of(spread),
            order: Order::default(),
            is_ordered: true,
            live: 0,
        }
    }
}

impl Table {
    /// A table to be loaded: until `order` is called, only changes may be made.
    pub(super) fn loading() -> Self {
        Table {
            is_ordered: false,
            ..Table::default()
        }
    }

    /// Puts all keys in order at once, which takes a fraction of the time of one by one.
    pub(super) fn order(&mut self) {
        let states = &self.states;
        let order = states.sorted(|space| space == SPACE_USER);
        let others = states.sorted(|space| space != SPACE_USER);
        let mut buckets = vec![Vec::new(); self.spread.buckets()];
        for number in order.iter().chain(&others) {
            let key = states.get(*number).to_key();
            buckets[usize::from(self.spread.bucket_of(&key))].push(*number);
        }
        self.order = Order::of_sorted(&order);
        self.buckets = buckets.iter().map(|all| Order::of_sorted(all)).collect();
        self.is_ordered = true;
    }

    pub fn apply(&mut self, group: &Group) {
        if let Some(meta) = &group.meta {
            self.learn(meta);
        }
        for (key, state) in &group.registers {
            self.put(key, state);
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
        for held in self.states.all() {
            let head = held.head();
            digests.add(&held.to_key(), head.accepted, head.life);
        }
        digests
    }

    /// L1: the keys that expire, each with its time.
    pub fn expiring(&self) -> Vec<(u64, Key)> {
        let held = self.states.all();
        let expiring = held.filter_map(|held| Some((held.head().expiry_ms?, held.to_key())));
        expiring.collect()
    }

    /// The entries of a bucket after the key `after`, as many as fit one message.
    pub fn list(&self, bucket: Bucket, after: Option<&Key>) -> Page {
        debug_assert!(self.is_ordered, "a table is listed once it is loaded");
        let states = &self.states;
        let is_behind = |number| after.is_none_or(|after| states.key(number) > after.as_bytes());
        let numbers = self.buckets[usize::from(bucket)].from(|number| !is_behind(number));
        let listed = numbers.map(|number| states.get(number));
        Page::collect(
            listed.map(|held| (held.to_key(), held.to_state())),
            usize::MAX,
        )
    }

    /// A page of a range of users' keys.
    pub fn list_range(&self, range: &KeyRange, bounds: PageBounds) -> RangePage {
        debug_assert!(self.is_ordered, "a table is listed once it is loaded");
        let states = &self.states;
        let Some((first, last)) = range.bounds() else {
            return RangePage::default();
        };
        let is_before = |number| match first {
            Bound::Unbounded => false,
            Bound::Included(first) => states.key(number) < first.as_bytes(),
            Bound::Excluded(first) => states.key(number) <= first.as_bytes(),
        };
        let is_within = |key: &[u8]| match last {
            Bound::Unbounded => true,
            Bound::Included(last) => key <= last.as_bytes(),
            Bound::Excluded(last) => key < last.as_bytes(),
        };
        let numbers = self.order.from(is_before);
        let listed = numbers.map(|number| states.get(number));
        let listed = listed.take_while(|held| is_within(held.key()));
        let with_value = bounds.counts_values;
        let states = listed.map(|held| (held.to_key(), held.to_range_state(with_value)));
        RangePage::of_range(states, bounds)
    }

    /// D1: the first configuration gives the bucket hash key. Normally the table is empty before.
    pub(super) fn learn(&mut self, meta: &Meta) {
        let configuration = meta.configuration.as_ref();
        if let Some(spread) = configuration.map(|c| c.spread)
            && spread != self.spread
        {
            self.spread = spread;
            self.buckets = buckets_of(spread);
            if !self.is_ordered {
                return;
            }
            for number in 0..self.states.locations.len() as u32 {
                let key = self.states.get(number).to_key();
                self.insert_into_bucket(number, &key);
            }
        }
    }

    pub fn holds(&self, key: &Key) -> bool {
        self.number_of(key).is_some()
    }

    pub fn load(&self, key: &Key) -> Option<AcceptorState> {
        let number = self.number_of(key)?;
        Some(self.states.get(number).to_state())
    }

    /// The number of users' keys that have a value.
    pub fn keys(&self) -> u64 {
        self.live
    }

    /// The number of keys that have any state, the configuration among them.
    pub fn records(&self) -> u64 {
        self.states.locations.len() as u64
    }

    fn number_of(&self, key: &Key) -> Option<u32> {
        let key = key.as_bytes();
        let hash = self.states.hash(key);
        self.index
            .find(hash, |number| self.states.key(number) == key)
    }

    pub(super) fn set(&mut self, key: Key, state: AcceptorState) {
        self.put(&key, &state);
    }

    fn put(&mut self, key: &Key, state: &AcceptorState) {
        let counts = key.space() == SPACE_USER;
        let has_value = |record: &Record| record.value.is_some();
        let is_live = counts && state.record.as_deref().is_some_and(has_value);
        let was_live = match self.number_of(key) {
            Some(number) => {
                let location = self.states.location(number);
                let old = self.states.pools.get(location).head();
                if let Some(moved) = self.states.pools.set(location, key, state) {
                    *self.states.locations.get_mut(number as usize) = moved;
                    self.vacate(location);
                }
                counts && old.has_value
            }
            None => {
                self.add(key, state);
                false
            }
        };
        self.live = self.live + u64::from(is_live) - u64::from(was_live);
    }

    /// The key has no state yet.
    fn add(&mut self, key: &Key, state: &AcceptorState) {
        let number = u32::try_from(self.states.locations.len());
        let number = number.expect("so many keys fit no memory");
        let location = self.states.pools.add(key, state);
        self.states.locations.push(location);
        let states = &self.states;
        let hash = states.hash(key.as_bytes());
        self.index
            .insert(hash, number, |number| states.hash_of(number));
        if !self.is_ordered {
            return;
        }
        if key.space() == SPACE_USER {
            let is_before = |number| states.key(number) < key.as_bytes();
            self.order.insert(number, is_before);
        }
        self.insert_into_bucket(number, key);
    }

    fn insert_into_bucket(&mut self, number: u32, key: &Key) {
        let states = &self.states;
        let bucket = usize::from(self.spread.bucket_of(key));
        self.buckets[bucket].insert(number, |number| states.key(number) < key.as_bytes());
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(number) = self.number_of(key) else {
            return;
        };
        let states = &self.states;
        let old = states.get(number).head();
        let location = states.location(number);
        let is_before = |number| states.key(number) < key.as_bytes();
        let bucket = usize::from(self.spread.bucket_of(key));
        self.buckets[bucket].remove(number, is_before);
        if key.space() == SPACE_USER {
            self.order.remove(number, is_before);
        }
        let hash = states.hash(key.as_bytes());
        self.index
            .remove(hash, number, |number| states.hash_of(number));
        self.renumber_last(number);
        self.states.locations.swap_remove(number as usize);
        self.vacate(location);
        self.live -= u64::from(key.space() == SPACE_USER && old.has_value);
    }

    /// The key with the highest number takes that one, which no index has any more.
    fn renumber_last(&mut self, number: u32) {
        let last = (self.states.locations.len() - 1) as u32;
        if last == number {
            return;
        }
        let states = &self.states;
        let key = states.get(last).to_key();
        let is_before = |number| states.key(number) < key.as_bytes();
        let bucket = usize::from(self.spread.bucket_of(&key));
        self.buckets[bucket].replace(last, number, is_before);
        if key.space() == SPACE_USER {
            self.order.replace(last, number, is_before);
        }
        self.index
            .replace(states.hash(key.as_bytes()), last, number);
    }

    /// No key's state is at the location any more. The last state of its pool moves there.
    fn vacate(&mut self, location: Location) {
        let states = &mut self.states;
        let last = states.pools.last_beside(location);
        if last != location {
            let hash = states.hash(states.pools.get(last).key());
            let moved = self
                .index
                .find(hash, |number| states.location(number) == last);
            let moved = moved.expect("each state in a pool is that of a key");
            *states.locations.get_mut(moved as usize) = location;
        }
        states.pools.vacate(location);
    }

    /// A chosen mark for a ballot other than the accepted one says nothing about the present
    /// record.
    pub(super) fn mark_chosen(&mut self, key: &Key, ballot: Ballot) {
        if let Some(number) = self.number_of(key) {
            let location = self.states.location(number);
            if self.states.pools.get(location).head().accepted == ballot {
                self.states.pools.mark_chosen(location);
            }
        }
    }
}

fn common_beginning<'a>(a: &'a [u8], b: &[u8]) -> &'a [u8] {
    let length = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    &a[..length]
}

/// The next eight bytes of a key, as a number with the same order; zeros after its end.
fn next_bytes(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let next = &rest[..rest.len().min(8)];
    bytes[..next.len()].copy_from_slice(next);
    u64::from_be_bytes(bytes)
}

fn buckets_of(spread: Spread) -> Box<[Order]> {
    spread.all().map(|_| Order::default()).collect()
}

#[cfg(test)]
mod tests;
