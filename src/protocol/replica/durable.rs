//! Which of this node's own state is on disk, and in which groups the rest goes there.

use std::collections::VecDeque;

use crate::protocol::replica::hung_disk::Oldest;
use crate::protocol::types::message::Meta;

#[derive(Debug)]
pub(super) struct DurableState {
    /// The state besides the keys. Its configuration is in `NodeIdentity`.
    pub(super) meta: Meta,
    /// Ceilings that are not durable yet, by group.
    pub(super) ceilings: VecDeque<(u64, u64)>,
    /// B1: the highest ceiling that is on disk.
    pub(super) durable_ceiling: u64,
    /// The group that holds the count of this start.
    pub(super) started_in: u64,
    /// The group that carries the configuration.
    pub(super) installed_in: u64,
    /// The group that carries the floor (P1).
    pub(super) floored_in: u64,
    /// The group that carries the commitment (E6).
    pub(super) bound_in: u64,
    /// The oldest group that waits for the disk.
    pub(super) oldest: Oldest,
}

impl DurableState {
    pub(super) fn new(meta: Meta) -> Self {
        DurableState {
            ceilings: VecDeque::new(),
            durable_ceiling: meta.ceiling,
            started_in: 0,
            installed_in: 0,
            floored_in: 0,
            bound_in: 0,
            oldest: Oldest::default(),
            meta,
        }
    }
}
