//! Keys in memory, their rounds, and which of their changes are not yet durable.

use std::collections::HashMap;

use crate::protocol::keys::outbox::Outbox;
use crate::protocol::keys::resident::{Bounds, Cache, Resident};
use crate::protocol::register::acceptor;
use crate::protocol::register::coordinator::Effect;
use crate::protocol::replica::catchup::tombstones::Tombstones;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Digests, Spread};
use crate::protocol::types::message::{GroupNumber, RoundId};
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
    pub(super) cache: Cache,
    /// The digests of all registers.
    pub(super) digests: Digests,
    pub(super) outbox: Outbox,
    /// The tombstones that this node holds.
    pub(super) tombstones: Tombstones,
    /// The key of each open round.
    pub(super) rounds: HashMap<RoundId, Key, foldhash::fast::RandomState>,
    pub(super) effects: Vec<Effect>,
    /// Chosen marks go to the disk with the next group.
    pub(super) marks_due: bool,
}

impl Keys {
    /// `group` is the last group on the disk.
    pub(super) fn new(
        bounds: Bounds,
        group: GroupNumber,
        digests: Digests,
        spread: Spread,
    ) -> Self {
        Keys {
            cache: Cache::new(bounds),
            digests,
            outbox: Outbox::new(group),
            tombstones: Tombstones::new(spread),
            rounds: HashMap::default(),
            effects: Vec::new(),
            marks_due: false,
        }
    }

    pub(super) fn loaded<'k>(&mut self, key: &'k Key) -> Option<Loaded<'k>> {
        self.cache.resident(key).map(|_| Loaded(key))
    }

    pub(super) fn at(&mut self, key: Loaded<'_>) -> &mut Resident {
        let resident = self.cache.resident(key.0);
        resident.expect("no key is evicted while an input is handled")
    }

    /// The only function that changes the state of a key: its digest, its group and the tracked
    /// tombstones follow. `change` returns whether it changed anything.
    pub(super) fn change<T>(
        &mut self,
        key: Loaded<'_>,
        change: impl FnOnce(&mut Option<AcceptorState>) -> (bool, T),
    ) -> T {
        let accepted = |state: &Option<AcceptorState>| state.as_ref().map(|s| (s.accepted, s.life));
        let resident = self.at(key);
        let before = accepted(&resident.state);
        let (is_changed, result) = change(&mut resident.state);
        if !is_changed {
            return result;
        }
        let after = accepted(&resident.state);
        let record = resident.state.as_ref().and_then(|s| s.record.as_ref());
        let is_tombstone = record.is_some_and(|r| r.value.is_none());
        if self.at(key).group != self.outbox.filling() {
            self.at(key).group = self.outbox.change(key.0.clone());
        }
        if before != after {
            self.digests.replace(key.0, before, after);
            let bucket = self.digests.spread().bucket_of(key.0);
            match is_tombstone {
                true => self.tombstones.accepted(bucket),
                false => self.tombstones.superseded(key.0),
            }
        }
        result
    }

    pub(super) fn set(&mut self, key: Loaded<'_>, state: Option<AcceptorState>) {
        self.change(key, |held| {
            *held = state;
            (true, ())
        });
    }

    /// No message waits for the mark: it goes with the next group.
    pub(super) fn mark_chosen(&mut self, key: Key, ballot: Ballot) {
        if let Some(resident) = self.cache.resident(&key)
            && !acceptor::mark_chosen(&mut resident.state, ballot)
        {
            return;
        }
        self.outbox.note_chosen(key, ballot);
    }
}
