//! The keys whose state the core holds: loaded on demand, evicted when idle. Owns residence, not
//! meaning.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::ballot::Ballot;
use super::copies::Work;
use super::limits::LOAD_WAITERS_MAX;
use super::message::{Envelope, Epoch, GroupNumber, NodeId};
use super::pending::Pending;
use super::record::{AcceptorState, Key};
use super::round::Coordinator;

/// What waits for a key to be loaded.
#[derive(Debug)]
pub enum Waiting {
    Peer(Envelope),
    Operation(Pending),
    /// Is to be copied to that member (C1).
    Copy(NodeId),
    /// Is to be mended by a round.
    Mend,
    /// Is to be looked at with the next heartbeat.
    Look,
    /// Of that epoch.
    Work(Epoch, Work),
}

#[derive(Debug, Default)]
pub struct Resident {
    pub state: Option<AcceptorState>,
    pub coordinator: Option<Box<Coordinator>>,
    /// The last group that carries a change of this key.
    pub group: GroupNumber,
    /// The last ballot of this node's own that it accepted from itself, since the key was loaded.
    pub own: Ballot,
    /// The earliest timer set for the key.
    pub timer_us: Option<u64>,
    used: bool,
}

/// Places in the order of eviction that may be empty beside as many as there are keys.
const ORDER_SLACK: usize = 1_024;

#[derive(Debug)]
enum Slot {
    Loading(Vec<Waiting>),
    Resident(Box<Resident>),
}

/// What asking for a key gives.
pub enum Fetched {
    Resident,
    /// To be loaded: the caller asks for it.
    Load,
    /// Asked for before.
    Waits,
    /// Too much waits for it already.
    Overflow(Box<Waiting>),
}

pub struct Cache {
    slots: HashMap<Key, Slot, foldhash::fast::RandomState>,
    /// Eviction order: a second chance for what was used since it was last looked at.
    order: VecDeque<Key>,
    /// Keys whose state is gone for good (P1).
    gone: VecDeque<Key>,
    size_max: usize,
}

impl fmt::Debug for Cache {
    /// In order of keys: the same state reads the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots: Vec<(&Key, &Slot)> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| *key);
        f.debug_struct("Cache")
            .field("slots", &slots)
            .field("order", &self.order)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

impl Cache {
    pub fn new(size_max: usize) -> Self {
        let slots = HashMap::default();
        Cache {
            slots,
            order: VecDeque::new(),
            gone: VecDeque::new(),
            size_max: size_max.max(1),
        }
    }

    pub fn resident(&mut self, key: &Key) -> Option<&mut Resident> {
        match self.slots.get_mut(key) {
            Some(Slot::Resident(resident)) => {
                resident.used = true;
                Some(resident)
            }
            _ => None,
        }
    }

    /// For what has to wait until the key is resident.
    pub fn wait(&mut self, key: &Key, waiting: Waiting) -> Fetched {
        match self.slots.get_mut(key) {
            Some(Slot::Resident(_)) => Fetched::Resident,
            Some(Slot::Loading(waiters)) if waiters.len() >= LOAD_WAITERS_MAX => {
                Fetched::Overflow(Box::new(waiting))
            }
            Some(Slot::Loading(waiters)) => {
                waiters.push(waiting);
                Fetched::Waits
            }
            None => {
                self.slots.insert(key.clone(), Slot::Loading(vec![waiting]));
                Fetched::Load
            }
        }
    }

    /// The key's state is here; gives what waited. `None` if nobody asked.
    pub fn loaded(&mut self, key: &Key, state: Option<AcceptorState>) -> Option<Vec<Waiting>> {
        let slot = self.slots.get_mut(key)?;
        let Slot::Loading(waiters) = slot else {
            return None;
        };
        let waiters = std::mem::take(waiters);
        let resident = Resident {
            state,
            used: true,
            ..Resident::default()
        };
        *slot = Slot::Resident(Box::new(resident));
        self.order.push_back(key.clone());
        Some(waiters)
    }

    /// The key has no state any more: there is nothing to keep it for.
    pub fn forget(&mut self, key: Key) {
        self.gone.push_back(key);
    }

    fn drop_gone(&mut self, is_durable: impl Fn(GroupNumber) -> bool) {
        while let Some(key) = self.gone.front() {
            match self.slots.get(key) {
                Some(Slot::Resident(resident)) if resident.state.is_none() => {
                    if !is_durable(resident.group) {
                        return;
                    }
                    let idle = resident.coordinator.as_ref().is_none_or(|c| c.is_idle());
                    if idle {
                        self.slots.remove(key);
                    }
                }
                _ => {}
            }
            self.gone.pop_front();
        }
    }

    /// Lets idle keys go until the bound is kept. What is under way, or not yet durable as told by
    /// `is_durable`, stays; so the bound may be passed while that much is going on.
    pub fn evict(&mut self, is_durable: impl Fn(GroupNumber) -> bool) {
        self.drop_gone(&is_durable);
        // Keys that are held here alone keep whole pages of memory from going back to the system.
        if self.order.len() > 2 * self.slots.len() + ORDER_SLACK {
            self.order.retain(|key| self.slots.contains_key(key));
            self.order.shrink_to_fit();
            self.slots.shrink_to_fit();
        }
        let mut looked_at = 0;
        let chances = 2 * self.order.len();
        while self.order.len() > self.size_max && looked_at < chances {
            looked_at += 1;
            let Some(key) = self.order.pop_front() else {
                return;
            };
            let Some(Slot::Resident(resident)) = self.slots.get_mut(&key) else {
                continue;
            };
            let idle = resident.coordinator.as_ref().is_none_or(|c| c.is_idle());
            if resident.used || !idle || !is_durable(resident.group) {
                resident.used = false;
                self.order.push_back(key);
            } else {
                self.slots.remove(&key);
            }
        }
    }
}
