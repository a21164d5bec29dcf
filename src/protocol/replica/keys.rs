//! Keys in memory, their rounds, and what of them is on its way to the disk.

use std::collections::HashMap;

use crate::protocol::keys::outbox::Outbox;
use crate::protocol::keys::resident::{Bounds, Cache};
use crate::protocol::register::coordinator::Effect;
use crate::protocol::replica::catchup::tombstones::Tombstones;
use crate::protocol::types::digest::{Digests, Spread};
use crate::protocol::types::message::{GroupNumber, RoundId};
use crate::protocol::types::record::Key;

#[derive(Debug)]
pub(super) struct Keys {
    pub(super) cache: Cache,
    /// Of all registers.
    pub(super) digests: Digests,
    pub(super) outbox: Outbox,
    /// Tombstones that are held.
    pub(super) tombstones: Tombstones,
    /// The key of each open round.
    pub(super) rounds: HashMap<RoundId, Key, foldhash::fast::RandomState>,
    pub(super) effects: Vec<Effect>,
    /// Marks that records are chosen go to the disk with the next group.
    pub(super) marks_due: bool,
}

impl Keys {
    /// `group` is the last one that the disk holds.
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
}
