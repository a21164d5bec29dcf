//! The keys whose state the core holds: loaded on demand, evicted when idle. This module decides
//! which keys are resident, not what their state means.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use crate::protocol::clients::pending::Pending;
use crate::protocol::keys::work::KeyWork;
use crate::protocol::register::applied::CLIENT_SIZE;
use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{
    LOAD_WAITERS_MAX, LOAD_WAITERS_SIZE_MAX, RECORD_OVERHEAD_SIZE, RECORD_PACKED_SIZE_MAX,
    REGISTERS_PART,
};
use crate::protocol::types::message::{Envelope, Epoch, GroupNumber, Message, NodeId};
use crate::protocol::types::record::{
    AcceptorState, AppliedOperation, ClientEntry, Key, Record, SPACE_TRANSACTION,
};

/// What waits for a key to be loaded.
#[derive(Debug)]
pub enum Waiting {
    Peer(Envelope),
    Operation(Pending),
    /// The key is to be copied to that member (C1).
    Copy(NodeId),
    /// The key is to be repaired by a round.
    Repair,
    /// The key is to be checked with the next heartbeat.
    Look,
    /// Work of that epoch.
    Work(Epoch, KeyWork),
}

impl Waiting {
    /// The size of the record or of the values in it.
    fn size(&self) -> usize {
        match self {
            Waiting::Peer(envelope) => match &envelope.message {
                Message::Accept(accept) => accept.record.size(),
                Message::Copy(copy) => copy.record.size(),
                _ => 0,
            },
            Waiting::Operation(pending) => pending.operation.action.value_size(),
            Waiting::Copy(_) | Waiting::Repair | Waiting::Look | Waiting::Work(..) => 0,
        }
    }
}

#[derive(Debug, Default)]
pub struct Resident {
    pub state: Option<AcceptorState>,
    pub coordinator: Option<Box<Coordinator>>,
    /// The last group that carries a change of this key.
    pub group: GroupNumber,
    /// The last ballot of this node's own that it accepted from itself since the key was loaded.
    pub own: Ballot,
    /// The earliest timer set for the key.
    pub timer_us: Option<u64>,
    used: bool,
}

/// About what a resident key takes in memory besides its name: its entries in the tables, and a
/// coordinator.
const RESIDENT_SIZE: usize = 256 + size_of::<Resident>() + size_of::<Coordinator>();
/// The bounds of a full node are lower by this factor (X6).
const FULL_PART: usize = 8;

/// How many empty places the eviction order may hold, in addition to one per key.
const ORDER_SLACK: usize = 1_024;

/// How many registers that have to stay one call of `evict` looks at.
const REGISTERS_STAY_MAX: usize = 16;

#[derive(Debug)]
enum KeySlot {
    Loading(Vec<Waiting>),
    Resident(Box<Resident>),
}

/// The result of requesting a key.
pub enum Fetched {
    Resident,
    /// To be loaded: the caller requests it.
    Load,
    /// Requested before.
    Waits,
    /// Too many inputs wait for it already.
    Overflow(Box<Waiting>),
}

pub struct Cache {
    slots: HashMap<Key, KeySlot, foldhash::fast::RandomState>,
    /// Eviction order: a key that was used since its last check gets a second chance.
    order: VecDeque<Key>,
    /// The same for keys that had no state when they were loaded. They are evicted first, because a
    /// client can name any number of keys that do not exist.
    absent: VecDeque<Key>,
    /// The registers of transactions, the oldest first. Each is used once, and then by a sweep, so
    /// only few are kept, and none gets a second chance.
    registers: VecDeque<Key>,
    /// Keys whose state is gone for good (P1).
    gone: VecDeque<Key>,
    residents: usize,
    /// About what the resident keys take in memory.
    size: usize,
    /// The size of what waits for keys to be loaded.
    waiting_size: usize,
    bounds: Bounds,
}

/// The upper bounds of the resident keys.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub keys_max: usize,
    pub size_max: usize,
}

impl fmt::Debug for Cache {
    /// In order of keys, so that equal states print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots: Vec<(&Key, &KeySlot)> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| *key);
        f.debug_struct("Cache")
            .field("slots", &slots)
            .field("order", &self.order)
            .field("absent", &self.absent)
            .field("registers", &self.registers)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

impl Cache {
    pub fn new(bounds: Bounds) -> Self {
        Cache {
            slots: HashMap::default(),
            order: VecDeque::new(),
            absent: VecDeque::new(),
            registers: VecDeque::new(),
            gone: VecDeque::new(),
            residents: 0,
            size: 0,
            waiting_size: 0,
            bounds,
        }
    }

    /// How many keys are resident, and about what they take in memory.
    pub fn held(&self) -> (usize, usize) {
        (self.residents, self.size)
    }

    pub fn resident(&mut self, key: &Key) -> Option<&mut Resident> {
        match self.slots.get_mut(key) {
            Some(KeySlot::Resident(resident)) => {
                resident.used = true;
                Some(resident)
            }
            _ => None,
        }
    }

    /// Queues an input that must wait until the key is resident.
    pub fn wait(&mut self, key: &Key, waiting: Waiting) -> Fetched {
        let size = waiting.size();
        let is_too_much =
            size > 0 && self.waiting_size > 0 && self.waiting_size + size > LOAD_WAITERS_SIZE_MAX;
        match self.slots.get_mut(key) {
            Some(KeySlot::Resident(_)) => Fetched::Resident,
            _ if is_too_much => Fetched::Overflow(Box::new(waiting)),
            Some(KeySlot::Loading(waiters)) if waiters.len() >= LOAD_WAITERS_MAX => {
                Fetched::Overflow(Box::new(waiting))
            }
            Some(KeySlot::Loading(waiters)) => {
                self.waiting_size += size;
                waiters.push(waiting);
                Fetched::Waits
            }
            None => {
                self.waiting_size += size;
                self.slots
                    .insert(key.clone(), KeySlot::Loading(vec![waiting]));
                Fetched::Load
            }
        }
    }

    /// The key's state is loaded; returns the inputs that waited for it, or `None` if nothing
    /// requested it.
    pub fn loaded(&mut self, key: &Key, state: Option<AcceptorState>) -> Option<Vec<Waiting>> {
        let slot = self.slots.get_mut(key)?;
        let KeySlot::Loading(waiters) = slot else {
            return None;
        };
        let waiters = std::mem::take(waiters);
        self.waiting_size -= waiters.iter().map(Waiting::size).sum::<usize>();
        let queue = match (key.space(), &state) {
            (SPACE_TRANSACTION, _) => &mut self.registers,
            (_, Some(_)) => &mut self.order,
            (_, None) => &mut self.absent,
        };
        queue.push_back(key.clone());
        self.size += size_of_resident(key) + size_of_record(&state);
        let resident = Resident {
            state,
            used: true,
            ..Resident::default()
        };
        *slot = KeySlot::Resident(Box::new(resident));
        self.residents += 1;
        Some(waiters)
    }

    /// The key has no state any more, so it is not kept.
    pub fn forget(&mut self, key: Key) {
        self.gone.push_back(key);
    }

    /// The record of a resident key has another size.
    pub fn resized(&mut self, before: usize, after: usize) {
        self.size = self.size + after - before;
    }

    fn remove(&mut self, key: &Key) {
        if let Some(KeySlot::Resident(resident)) = self.slots.remove(key) {
            self.residents -= 1;
            self.size -= size_of_resident(key) + size_of_record(&resident.state);
        }
    }

    fn drop_gone(&mut self, is_durable: impl Fn(GroupNumber) -> bool) {
        while let Some(key) = self.gone.front() {
            let mut is_removed = false;
            match self.slots.get(key) {
                Some(KeySlot::Resident(resident)) if resident.state.is_none() => {
                    if !is_durable(resident.group) {
                        return;
                    }
                    is_removed = resident.is_idle();
                }
                _ => {}
            }
            let key = self.gone.pop_front().expect("just seen");
            if is_removed {
                self.remove(&key);
            }
        }
    }

    /// Evicts idle keys until the bounds are met, which are lower for a full node. A key that is in
    /// use, or not yet durable according to `is_durable`, stays, so the bounds may be exceeded
    /// while many are.
    pub fn evict(&mut self, is_full: bool, is_durable: impl Fn(GroupNumber) -> bool) {
        self.drop_gone(&is_durable);
        // Keys that only these queues hold prevent the return of whole pages of memory to the
        // system.
        let queued = self.order.len() + self.absent.len() + self.registers.len();
        if queued > 2 * self.slots.len() + ORDER_SLACK {
            // A key that was dropped and loaded again is there twice.
            let mut seen = HashSet::with_capacity(self.slots.len());
            for queue in [&mut self.absent, &mut self.order, &mut self.registers] {
                queue.retain(|key| match self.slots.get(key) {
                    Some(KeySlot::Resident(_)) => seen.insert(key.clone()),
                    _ => false,
                });
                queue.shrink_to_fit();
            }
            self.slots.shrink_to_fit();
        }
        let part = if is_full { FULL_PART } else { 1 };
        let keys_max = (self.bounds.keys_max / part).max(1);
        let size_max = self.bounds.size_max / part;
        self.evict_registers(keys_max / REGISTERS_PART, &is_durable);
        for of_absent in [true, false] {
            let mut chances = 2 * self.queue(of_absent).len();
            while chances > 0 && (self.residents > keys_max || self.size > size_max) {
                chances -= 1;
                self.evict_next(of_absent, &is_durable);
            }
        }
    }

    /// Those in use, or not yet durable, stay, as the newest ones. Only a few of them are looked at
    /// in one call: while a disk is slow there may be thousands.
    fn evict_registers(&mut self, kept: usize, is_durable: impl Fn(GroupNumber) -> bool) {
        let mut stayed = 0;
        while self.registers.len() > kept && stayed < REGISTERS_STAY_MAX {
            let Some(key) = self.registers.pop_front() else {
                return;
            };
            let Some(KeySlot::Resident(resident)) = self.slots.get(&key) else {
                continue;
            };
            if resident.is_idle() && is_durable(resident.group) {
                self.remove(&key);
            } else {
                self.registers.push_back(key);
                stayed += 1;
            }
        }
    }

    fn queue(&mut self, of_absent: bool) -> &mut VecDeque<Key> {
        match of_absent {
            true => &mut self.absent,
            false => &mut self.order,
        }
    }

    /// Checks the next key of one queue, and evicts it if it can.
    fn evict_next(&mut self, of_absent: bool, is_durable: impl Fn(GroupNumber) -> bool) {
        let Some(key) = self.queue(of_absent).pop_front() else {
            return;
        };
        let Some(KeySlot::Resident(resident)) = self.slots.get_mut(&key) else {
            return;
        };
        if resident.used || !resident.is_idle() || !is_durable(resident.group) {
            resident.used = false;
            let is_absent = of_absent && resident.state.is_none();
            self.queue(is_absent).push_back(key);
        } else {
            self.remove(&key);
        }
    }
}

impl Resident {
    fn is_idle(&self) -> bool {
        self.coordinator.as_ref().is_none_or(|c| c.is_idle())
    }
}

fn size_of_resident(key: &Key) -> usize {
    RESIDENT_SIZE + key.as_bytes().len()
}

/// About what the record of a resident key takes in memory. A large one takes nothing: it is shared
/// with the store. It is computed for each message, so the applied table is not gone through: of
/// each client the least counts.
pub fn size_of_record(state: &Option<AcceptorState>) -> usize {
    const HELD_SIZE: usize = size_of::<ClientEntry>() + size_of::<AppliedOperation>();
    let record = state.as_ref().and_then(|state| state.record.as_ref());
    let Some(record) = record else { return 0 };
    let clients = record.applied.clients.len();
    let size = record.content_size() + RECORD_OVERHEAD_SIZE;
    match size + clients * CLIENT_SIZE <= RECORD_PACKED_SIZE_MAX {
        true => size_of::<Record>() + size + clients * HELD_SIZE,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::OperationId;

    fn key(n: usize) -> Key {
        Key::user(format!("{n:01000}").as_bytes())
    }

    fn load(cache: &mut Cache, n: usize, state: Option<AcceptorState>) {
        cache.wait(&key(n), Waiting::Look);
        cache.loaded(&key(n), state);
    }

    /// A cache that holds `count` keys of the maximum size, of which the odd ones are absent.
    fn filled(size_max: usize, count: usize) -> Cache {
        let mut cache = Cache::new(Bounds {
            keys_max: 65_536,
            size_max,
        });
        for n in 0..count {
            let state = n.is_multiple_of(2).then(AcceptorState::default);
            load(&mut cache, n, state);
        }
        cache
    }

    #[test]
    fn keys_are_bounded_by_their_size_and_absent_ones_go_first() {
        let mut cache = filled(1 << 20, 2_000);
        cache.evict(false, |_| true);
        let held = |cache: &mut Cache, n| cache.resident(&key(n)).is_some();
        assert!(cache.size <= 1 << 20 && cache.residents > 300, "{cache:?}");
        let absent = (1..2_000).step_by(2).filter(|n| held(&mut cache, *n));
        assert_eq!(absent.count(), 0);
        let present = (0..2_000).step_by(2).filter(|n| held(&mut cache, *n));
        assert_eq!(present.count(), cache.residents);
    }

    /// While a disk is slow to load, large records would accumulate here.
    #[test]
    fn what_waits_for_keys_is_bounded_by_its_size() {
        let mut cache = filled(1 << 20, 0);
        let wait = |cache: &mut Cache, n, value_size: usize| {
            let value = Some(vec![0; value_size].into());
            let record = Record {
                value,
                ..Record::default()
            };
            let copy = crate::protocol::types::message::Copy {
                key: key(n),
                ballot: Ballot::ZERO,
                record: record.into(),
            };
            let envelope = Envelope {
                origin: 1,
                destination: 2,
                incarnation: 1,
                epoch: 1,
                round: 0,
                hops_left: 1,
                via: 1,
                message: copy.into(),
            };
            !matches!(
                cache.wait(&key(n), Waiting::Peer(envelope)),
                Fetched::Overflow(_)
            )
        };
        // A record takes some space beside its value.
        let fit = (LOAD_WAITERS_SIZE_MAX >> 20) - 1;
        let taken = (0..20).filter(|n| wait(&mut cache, n % 5, 1 << 20)).count();
        assert_eq!(taken, fit);
        assert!(matches!(cache.wait(&key(99), Waiting::Look), Fetched::Load));
        assert!(!wait(&mut cache, 98, 1 << 20), "for another key neither");
        (0..100).for_each(|n| drop(cache.loaded(&key(n), None)));
        assert_eq!(cache.waiting_size, 0);
        cache = filled(1 << 20, 0);
        assert!(wait(&mut cache, 0, LOAD_WAITERS_SIZE_MAX), "one may always");
        assert!(!wait(&mut cache, 1, 1) && !wait(&mut cache, 0, 1));
    }

    fn state(value_size: usize) -> Option<AcceptorState> {
        let value = Some(vec![0; value_size].into());
        let record = Record {
            value,
            ..Record::default()
        };
        Some(AcceptorState {
            record: Some(record.into()),
            ..AcceptorState::default()
        })
    }

    /// What the store packs is not shared with it.
    #[test]
    fn small_records_count_and_large_ones_do_not() {
        let mut cache = filled(1 << 20, 0);
        load(&mut cache, 0, None);
        let (_, absent) = cache.held();
        load(&mut cache, 1, state(RECORD_PACKED_SIZE_MAX));
        assert_eq!(cache.held(), (2, 2 * absent));
        load(&mut cache, 2, state(900));
        assert!(cache.size > 3 * absent + 900, "{cache:?}");
        let small = state(10);
        cache.resized(size_of_record(&state(900)), size_of_record(&small));
        cache.resident(&key(2)).unwrap().state = small;
        assert!(cache.size < 3 * absent + 900, "{cache:?}");
        (0..3).for_each(|n| cache.remove(&key(n)));
        assert_eq!(cache.held(), (0, 0));
    }

    /// X6: the node evicts at once, even keys that were just used.
    #[test]
    fn a_full_node_keeps_few_keys() {
        let mut cache = filled(1 << 20, 100);
        cache.evict(false, |_| true);
        assert_eq!(cache.residents, 100);
        cache.evict(true, |_| true);
        assert!(cache.size <= (1 << 20) / FULL_PART, "{}", cache.size);
        assert!(cache.residents > 0);
    }

    fn register(sequence: u64) -> Key {
        let client = 7;
        Key::transaction(OperationId { client, sequence })
    }

    fn load_register(cache: &mut Cache, sequence: u64) {
        cache.wait(&register(sequence), Waiting::Look);
        cache.loaded(&register(sequence), None);
    }

    /// Each transaction has a register of its own: a load of them leaves the other keys in memory.
    #[test]
    fn registers_of_transactions_do_not_put_other_keys_out() {
        let mut cache = filled(64 << 20, 100);
        for sequence in 0..4_000 {
            load_register(&mut cache, sequence);
            cache.evict(false, |_| sequence != 10);
        }
        let kept = 65_536 / REGISTERS_PART;
        assert_eq!(cache.residents, 100 + kept);
        assert!((0..100).all(|n| cache.resident(&key(n)).is_some()));
        assert!(cache.resident(&register(0)).is_none());
        assert!((4_000 - kept as u64..4_000).all(|n| cache.resident(&register(n)).is_some()));
        cache.evict(true, |_| false);
        assert_eq!(cache.residents, 100 + kept, "none is durable");
        cache.evict(true, |_| true);
        assert_eq!(cache.residents, 100 + kept / FULL_PART);
    }

    /// While a disk is slow, all registers stay, and no call goes through all of them.
    #[test]
    fn few_of_the_registers_that_stay_are_looked_at_in_one_call() {
        let mut cache = filled(64 << 20, 0);
        (0..5_000).for_each(|sequence| load_register(&mut cache, sequence));
        let looks = std::cell::Cell::new(0);
        cache.evict(false, |_| {
            looks.set(looks.get() + 1);
            false
        });
        assert_eq!((looks.get(), cache.residents), (REGISTERS_STAY_MAX, 5_000));
        cache.evict(false, |_| true);
        assert_eq!(cache.residents, 65_536 / REGISTERS_PART);
    }

    /// Otherwise the queues may stay above their bound, and each call of `evict` goes through them.
    #[test]
    fn a_key_that_was_dropped_and_loaded_again_is_queued_once() {
        let mut cache = filled(64 << 20, 0);
        (0..1_000).for_each(|n| load(&mut cache, n, None));
        for n in (0..2_000).map(|n| n % 10) {
            cache.forget(key(n));
            cache.evict(false, |_| true);
            load(&mut cache, n, None);
        }
        assert_eq!((cache.residents, cache.absent.len()), (1_000, 3_000));
        (10..1_000).for_each(|n| cache.forget(key(n)));
        cache.evict(false, |_| true);
        assert_eq!((cache.residents, cache.absent.len()), (10, 10));
    }

    #[test]
    fn what_is_not_durable_stays_and_sizes_are_counted_once() {
        let mut cache = filled(0, 10);
        cache.evict(true, |_| false);
        assert_eq!(cache.residents, 10);
        (0..10).step_by(3).for_each(|n| cache.forget(key(n)));
        cache.evict(true, |_| true);
        assert_eq!((cache.residents, cache.size), (0, 0));
    }
}
