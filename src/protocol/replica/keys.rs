//! Keys in memory, their rounds, and the digests of all keys that this node holds.

use std::collections::HashMap;

use crate::protocol::keys::expiry::ExpiryIndex;
use crate::protocol::keys::resident::{Bounds, Cache, Fetched, Resident, Waiting, size_of_record};
use crate::protocol::register::acceptor;
use crate::protocol::register::coordinator::Effect;
use crate::protocol::replica::Replica;
use crate::protocol::replica::catchup::tombstones::Tombstones;
use crate::protocol::replica::durable::DurableState;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Digests, Spread};
use crate::protocol::types::message::{Group, GroupNumber, RoundId};
use crate::protocol::types::record::{AcceptorState, Key};

/// A key whose state is in memory. Keys are evicted only between inputs, and this borrows its key,
/// so it does not outlive the input in which it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded<'k>(&'k Key);

impl<'k> Loaded<'k> {
    pub(super) fn key(self) -> &'k Key {
        self.0
    }
}

#[derive(Debug)]
pub(super) struct Keys {
    cache: Cache,
    /// Of all registers.
    digests: Digests,
    expiry: ExpiryIndex,
    /// The key of each open round.
    rounds: HashMap<RoundId, Key, foldhash::fast::RandomState>,
    /// Empty; kept for its memory.
    effects: Vec<Effect>,
}

impl Keys {
    pub(super) fn new(bounds: Bounds, digests: Digests, expiring: Vec<(u64, Key)>) -> Self {
        Keys {
            cache: Cache::new(bounds),
            digests,
            expiry: ExpiryIndex::new(expiring),
            rounds: HashMap::default(),
            effects: Vec::new(),
        }
    }

    /// A list for the effects of one call of a coordinator.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The list is empty again.
    pub(super) fn return_effects(&mut self, effects: Vec<Effect>) {
        self.effects = effects;
    }

    pub(super) fn loaded<'k>(&mut self, key: &'k Key) -> Option<Loaded<'k>> {
        self.resident(key).map(|_| Loaded(key))
    }

    pub(super) fn at(&mut self, key: Loaded<'_>) -> &mut Resident {
        let resident = self.resident(key.0);
        resident.expect("no key is evicted while an input is handled")
    }

    /// Its state is changed by `Replica::change_key` only.
    pub(super) fn resident(&mut self, key: &Key) -> Option<&mut Resident> {
        self.cache.resident(key)
    }

    /// Whatever waits for the key continues when it arrives.
    pub(super) fn wait(&mut self, key: &Key, waiting: Waiting) -> Fetched {
        self.cache.wait(key, waiting)
    }

    /// The key was loaded. Returns what waited for it.
    pub(super) fn arrive(&mut self, key: &Key, state: Option<AcceptorState>) -> Vec<Waiting> {
        self.cache.loaded(key, state).unwrap_or_default()
    }

    /// The key was purged, and need not stay in memory.
    pub(super) fn forget(&mut self, key: &Key) {
        self.cache.forget(key.clone());
    }

    pub(super) fn evict(&mut self, is_full: bool, is_durable: impl Fn(GroupNumber) -> bool) {
        self.cache.evict(is_full, is_durable);
    }

    /// Puts the states of these keys, which have changed, into the group.
    pub(super) fn fill(&mut self, group: &mut Group, keys: Vec<Key>) {
        for key in keys {
            let resident = self.resident(&key);
            let resident = resident.expect("a changed key stays resident");
            match resident.state.clone() {
                Some(state) => group.registers.push((key, state)),
                None => group.dropped.push(key),
            }
        }
    }

    pub(super) fn digests(&self) -> &Digests {
        &self.digests
    }

    pub(super) fn expiry(&self) -> &ExpiryIndex {
        &self.expiry
    }

    pub(super) fn expiry_mut(&mut self) -> &mut ExpiryIndex {
        &mut self.expiry
    }

    /// D1: the first configuration says how keys are spread over buckets; all later ones say the
    /// same.
    pub(super) fn adopt_spread(&mut self, spread: Spread) {
        if self.digests.spread() != spread {
            assert!(
                self.digests.is_empty(),
                "without a configuration nothing is held"
            );
            self.digests = Digests::new(spread);
        }
    }

    /// How many keys are resident, and about what they take in memory.
    pub(super) fn held(&self) -> (usize, usize) {
        self.cache.held()
    }

    pub(super) fn open_rounds(&self) -> usize {
        self.rounds.len()
    }

    pub(super) fn open_round(&mut self, round: RoundId, key: &Key) {
        self.rounds.insert(round, key.clone());
    }

    pub(super) fn close_round(&mut self, round: RoundId) {
        self.rounds.remove(&round);
    }

    /// `None` after the round: its late answers only show which members missed nothing.
    pub(super) fn key_of_round(&self, round: RoundId) -> Option<&Key> {
        self.rounds.get(&round)
    }

    /// See `Replica::change_key`. Returns whether the record changed, too.
    fn change<T>(
        &mut self,
        key: Loaded<'_>,
        durable: &mut DurableState,
        tombstones: &mut Tombstones,
        change: impl FnOnce(&mut Option<AcceptorState>) -> (bool, T),
    ) -> (bool, T) {
        let accepted = |state: &Option<AcceptorState>| state.as_ref().map(|s| (s.accepted, s.life));
        let expiry_ms = |state: &Option<AcceptorState>| state.as_ref()?.record.as_ref()?.expiry_ms;
        let resident = self.at(key);
        let before = accepted(&resident.state);
        let expired_ms = expiry_ms(&resident.state);
        let size_before = size_of_record(&resident.state);
        let (is_changed, result) = change(&mut resident.state);
        if !is_changed {
            return (false, result);
        }
        let after = accepted(&resident.state);
        let record = resident.state.as_ref().and_then(|s| s.record.as_ref());
        let is_tombstone = record.is_some_and(|r| r.value.is_none());
        let expires_ms = expiry_ms(&resident.state);
        let size = size_of_record(&resident.state);
        resident.group = durable.change_key(key.0, resident.group);
        self.cache.resized(size_before, size);
        self.expiry.replace(key.0, expired_ms, expires_ms);
        if before != after {
            self.digests.replace(key.0, before, after);
            let bucket = self.digests.spread().bucket_of(key.0);
            match is_tombstone {
                true => tombstones.accepted(bucket),
                false => tombstones.superseded(key.0),
            }
        }
        (before != after, result)
    }
}

impl Replica {
    /// The one place where the state of a key changes: its digest, its group and what is known of
    /// tombstones follow. `change` returns whether it changed anything.
    pub(super) fn change_key<T>(
        &mut self,
        key: Loaded<'_>,
        change: impl FnOnce(&mut Option<AcceptorState>) -> (bool, T),
    ) -> T {
        let tombstones = &mut self.catchup.tombstones;
        let (is_changed, result) = self.keys.change(key, &mut self.durable, tombstones, change);
        if is_changed {
            let state = self.keys.at(key).state.as_ref();
            let record = state.and_then(|state| state.record.as_deref());
            self.transactions.note(key.key(), record);
            self.requests.watches.changes.note(key.key(), state);
        }
        result
    }

    pub(super) fn set_key(&mut self, key: Loaded<'_>, state: Option<AcceptorState>) {
        self.change_key(key, |held| {
            *held = state;
            (true, ())
        });
    }

    /// Nothing waits for the mark: it goes with a later group.
    pub(super) fn mark_chosen(&mut self, key: Key, ballot: Ballot) {
        match self.keys.resident(&key) {
            Some(resident) => {
                if !acceptor::mark_chosen(&mut resident.state, ballot) {
                    return;
                }
                let state = resident.state.as_ref();
                self.requests.watches.changes.note(&key, state);
            }
            None => self.requests.watches.changes.note_unseen(&key),
        }
        self.durable.note_chosen(key, ballot);
    }
}
