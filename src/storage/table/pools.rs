//! The states of keys, packed into as few bytes as possible.
//!
//! A state has no allocation of its own: that would take another 16 bytes to refer to it, and a
//! seventh of its size on average because allocators have few sizes. States of about the same size
//! are side by side in a *pool*. A pool has no holes: where a state is removed, the pool's last one
//! takes its place.

use super::chunks::Chunks;
use crate::protocol::types::limits::RECORD_PACKED_SIZE_MAX;
use crate::protocol::types::page::RangeState;
use crate::protocol::types::record::{AcceptorState, Key};
use crate::storage::packed;

/// What precedes a packed state: the size of all that follows (2), the size of the key (2), and the
/// key.
const SIZES_SIZE: usize = 4;
/// A state that takes more is held as it is.
const ENTRY_SIZE_MAX: usize = 4_096;
/// Up to this size, pools are for sizes that differ by `STEP_MIN`; beyond, for 16 sizes from each
/// power of two to the next.
const FINE_SIZE_MAX: usize = 256;
const STEP_MIN: usize = 8;
const FINE_POOLS: usize = FINE_SIZE_MAX / STEP_MIN;
const POOLS: usize = FINE_POOLS + 16 * (ENTRY_SIZE_MAX.ilog2() - FINE_SIZE_MAX.ilog2()) as usize;
/// Where an allocation grows as a whole, this bounds how long that takes. The allocator has this
/// size.
const BLOCK_SIZE: usize = 64 << 10;
/// The pool of the states that are held as they are.
const WHOLE: u8 = POOLS as u8;
const _: () = assert!(POOLS < 256);

/// Where a state is. Five bytes: there are as many of these as keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pool: u8,
    at: [u8; 4],
}

impl Location {
    fn new(pool: u8, at: usize) -> Self {
        let at = u32::try_from(at).expect("so many keys fit no memory");
        let at = at.to_le_bytes();
        Location { pool, at }
    }

    fn at(self) -> usize {
        u32::from_le_bytes(self.at) as usize
    }
}

/// A state as it is held.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    Packed {
        key: &'a [u8],
        state: &'a [u8],
    },
    Whole {
        key: &'a Key,
        state: &'a AcceptorState,
    },
}

impl<'a> Held<'a> {
    pub fn key(self) -> &'a [u8] {
        match self {
            Held::Packed { key, .. } => key,
            Held::Whole { key, .. } => key.as_bytes(),
        }
    }

    pub fn to_key(self) -> Key {
        match self {
            Held::Packed { key, .. } => Key::try_from(key).expect("it was a key"),
            Held::Whole { key, .. } => key.clone(),
        }
    }

    pub fn to_state(self) -> AcceptorState {
        match self {
            Held::Packed { state, .. } => packed::unpack(state).expect("it was packed"),
            Held::Whole { state, .. } => state.clone(),
        }
    }

    /// The value may be empty if it is not asked for.
    pub fn to_range_state(self, with_value: bool) -> RangeState {
        match self {
            Held::Packed { state, .. } => {
                packed::range_state(state, with_value).expect("it was packed")
            }
            Held::Whole { state, .. } => state.into(),
        }
    }

    pub fn head(self) -> packed::Head {
        match self {
            Held::Packed { state, .. } => packed::head(state).expect("it was packed"),
            Held::Whole { state, .. } => {
                let record = state.record.as_ref();
                packed::Head {
                    promised: state.promised,
                    accepted: state.accepted,
                    chosen: state.chosen,
                    life: state.life,
                    has_value: record.is_some_and(|record| record.value.is_some()),
                    expiry_ms: record.and_then(|record| record.expiry_ms),
                }
            }
        }
    }
}

/// States of up to a certain size.
#[derive(Debug)]
struct Pool {
    entry_size: usize,
    per_block: usize,
    /// All but the last are full.
    blocks: Vec<Vec<u8>>,
    length: usize,
}

impl Pool {
    fn new(entry_size: usize) -> Self {
        Pool {
            entry_size,
            per_block: BLOCK_SIZE / entry_size,
            blocks: Vec::new(),
            length: 0,
        }
    }

    /// The block of an entry, and where it starts there. Each comparison of keys computes this, and
    /// dividing longer integers takes some times as long.
    fn place(&self, at: usize) -> (usize, usize) {
        let (at, per_block) = (at as u32, self.per_block as u32);
        let (block, at) = (at / per_block, at % per_block);
        (block as usize, at as usize * self.entry_size)
    }

    fn entry(&self, at: usize) -> &[u8] {
        let (block, start) = self.place(at);
        &self.blocks[block][start..start + self.entry_size]
    }

    fn entry_mut(&mut self, at: usize) -> &mut [u8] {
        let (block, start) = self.place(at);
        &mut self.blocks[block][start..start + self.entry_size]
    }

    fn push(&mut self, entry: &[u8]) {
        let size = self.per_block * self.entry_size;
        if self.length.is_multiple_of(self.per_block) {
            self.blocks.push(Vec::new());
        }
        let block = self.blocks.last_mut().expect("just seen");
        if block.len() == block.capacity() {
            let room = block.len().max(self.entry_size);
            block.reserve_exact(room.min(size - block.len()));
        }
        block.extend_from_slice(entry);
        block.resize(block.len().next_multiple_of(self.entry_size), 0);
        self.length += 1;
    }

    fn swap_remove(&mut self, at: usize) {
        let last = self.length - 1;
        let ((from, start), (to, place)) = (self.place(last), self.place(at));
        let entry = start..start + self.entry_size;
        match self.blocks.get_disjoint_mut([from, to]) {
            Ok([from, to]) => to[place..place + self.entry_size].copy_from_slice(&from[entry]),
            Err(_) => self.blocks[from].copy_within(entry, place),
        }
        self.length = last;
        let block = self.blocks.last_mut().expect("it has an entry");
        block.truncate(block.len() - self.entry_size);
        if block.is_empty() {
            self.blocks.pop();
        }
        if self.blocks.capacity() > 4 * self.blocks.len() {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
    }
}

/// An entry that is to be held.
#[derive(Debug)]
enum NewEntry<'a> {
    Packed(&'a [u8]),
    Whole(Key, AcceptorState),
}

impl NewEntry<'_> {
    fn pool(&self) -> u8 {
        match self {
            NewEntry::Packed(entry) => pool_of(entry.len()),
            NewEntry::Whole(..) => WHOLE,
        }
    }
}

#[derive(Debug)]
pub struct Pools {
    packed: Box<[Pool]>,
    whole: Chunks<(Key, AcceptorState)>,
    /// The entry that is being packed.
    buffer: Vec<u8>,
}

impl Default for Pools {
    fn default() -> Self {
        Pools {
            packed: (0..WHOLE)
                .map(|pool| Pool::new(size_of_pool(pool)))
                .collect(),
            whole: Chunks::default(),
            buffer: Vec::new(),
        }
    }
}

impl Pools {
    pub fn get(&self, location: Location) -> Held<'_> {
        let at = location.at();
        let Some(pool) = self.packed.get(usize::from(location.pool)) else {
            let (key, state) = self.whole.get(at);
            return Held::Whole { key, state };
        };
        let entry = pool.entry(at);
        let (sizes, rest) = entry.split_at(SIZES_SIZE);
        let size = |at: usize| usize::from(u16::from_le_bytes([sizes[at], sizes[at + 1]]));
        let (key, state) = rest[..size(0)].split_at(size(2));
        Held::Packed { key, state }
    }

    /// The key alone: the indexes compare many for each one that is added.
    pub fn key(&self, location: Location) -> &[u8] {
        match self.packed.get(usize::from(location.pool)) {
            None => self.whole.get(location.at()).0.as_bytes(),
            Some(pool) => {
                let entry = pool.entry(location.at());
                let size = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
                &entry[SIZES_SIZE..SIZES_SIZE + size]
            }
        }
    }

    pub fn add(&mut self, key: &Key, state: &AcceptorState) -> Location {
        let mut buffer = std::mem::take(&mut self.buffer);
        let location = self.push(entry_of(key, state, &mut buffer));
        self.buffer = buffer;
        location
    }

    fn push(&mut self, entry: NewEntry<'_>) -> Location {
        let number = entry.pool();
        let at = match entry {
            NewEntry::Packed(entry) => {
                let pool = &mut self.packed[usize::from(number)];
                pool.push(entry);
                pool.length - 1
            }
            NewEntry::Whole(key, state) => {
                self.whole.push((key, state));
                self.whole.len() - 1
            }
        };
        Location::new(number, at)
    }

    /// Replaces a state. Returns its new location if it does not fit the old one, which still is to
    /// be vacated.
    pub fn set(&mut self, at: Location, key: &Key, state: &AcceptorState) -> Option<Location> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let moved = match entry_of(key, state, &mut buffer) {
            NewEntry::Packed(entry) if fits(entry.len(), at.pool) => {
                let pool = &mut self.packed[usize::from(at.pool)];
                pool.entry_mut(at.at())[..entry.len()].copy_from_slice(entry);
                None
            }
            NewEntry::Whole(key, state) if at.pool == WHOLE => {
                *self.whole.get_mut(at.at()) = (key, state);
                None
            }
            entry => Some(self.push(entry)),
        };
        self.buffer = buffer;
        moved
    }

    /// What moves to that place when it is vacated: the last state of the pool.
    pub fn last_beside(&self, at: Location) -> Location {
        let length = match self.packed.get(usize::from(at.pool)) {
            Some(pool) => pool.length,
            None => self.whole.len(),
        };
        Location::new(at.pool, length - 1)
    }

    pub fn vacate(&mut self, at: Location) {
        match self.packed.get_mut(usize::from(at.pool)) {
            Some(pool) => pool.swap_remove(at.at()),
            None => self.whole.swap_remove(at.at()),
        }
    }

    pub fn mark_chosen(&mut self, at: Location) {
        let Some(pool) = self.packed.get_mut(usize::from(at.pool)) else {
            self.whole.get_mut(at.at()).1.chosen = true;
            return;
        };
        let entry = pool.entry_mut(at.at());
        let key_size = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
        packed::mark_chosen(&mut entry[SIZES_SIZE + key_size..]);
    }
}

/// Packs the state if it is small. A large one shares its record with the code that stored it, and
/// with the code that loads it: neither copies the value.
fn entry_of<'a>(key: &Key, state: &AcceptorState, buffer: &'a mut Vec<u8>) -> NewEntry<'a> {
    let record = state.record.as_ref();
    if record.is_none_or(|record| record.size() <= RECORD_PACKED_SIZE_MAX) {
        let name = key.as_bytes();
        buffer.clear();
        buffer.extend_from_slice(&[0; 2]);
        buffer.extend_from_slice(&(name.len() as u16).to_le_bytes());
        buffer.extend_from_slice(name);
        packed::pack(state, buffer);
        if buffer.len() <= ENTRY_SIZE_MAX {
            let size = (buffer.len() - SIZES_SIZE) as u16;
            buffer[..2].copy_from_slice(&size.to_le_bytes());
            return NewEntry::Packed(buffer);
        }
    }
    NewEntry::Whole(key.clone(), state.clone())
}

/// Whether an entry of that size may stay in the pool. One that is a little smaller than the pool's
/// entries stays, so that a state whose size varies seldom moves.
fn fits(size: usize, pool: u8) -> bool {
    if pool == WHOLE {
        return false;
    }
    let size_max = size_of_pool(pool);
    size <= size_max && size + size_max / 8 + STEP_MIN > size_max
}

/// The pool of the smallest entries into which so many bytes fit.
fn pool_of(size: usize) -> u8 {
    let last = size - 1;
    let pool = match size <= FINE_SIZE_MAX {
        true => last / STEP_MIN,
        false => {
            let power = last.ilog2();
            let sixteenth = (last - (1 << power)) >> (power - 4);
            FINE_POOLS + 16 * (power - FINE_SIZE_MAX.ilog2()) as usize + sixteenth
        }
    };
    pool as u8
}

/// The opposite of `pool_of`: the size of its entries.
fn size_of_pool(pool: u8) -> usize {
    let pool = usize::from(pool);
    match pool.checked_sub(FINE_POOLS) {
        None => (pool + 1) * STEP_MIN,
        Some(coarse) => {
            let power = FINE_SIZE_MAX << (coarse / 16);
            power + (coarse % 16 + 1) * (power / 16)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_pool_with_the_least_waste() {
        for size in 1..=ENTRY_SIZE_MAX {
            let pool = pool_of(size);
            assert!(pool < WHOLE && size_of_pool(pool) >= size, "{size}");
            assert!(pool == 0 || size_of_pool(pool - 1) < size, "{size}");
            assert!(fits(size, pool), "{size}");
        }
        assert_eq!(size_of_pool(WHOLE - 1), ENTRY_SIZE_MAX);
        assert!(!fits(201, pool_of(200)) && !fits(100, pool_of(200)));
    }

    fn entries(pool: &Pool) -> Vec<u8> {
        (0..pool.length).map(|at| pool.entry(at)[0]).collect()
    }

    #[test]
    fn the_last_entry_of_a_pool_takes_the_place_of_a_removed_one() {
        let mut pool = Pool::new(BLOCK_SIZE / 16);
        (0..40).for_each(|n| pool.push(&[n]));
        assert!(entries(&pool).iter().copied().eq(0..40));
        assert_eq!(pool.blocks.len(), 3);
        // In another block, in the same one, and itself.
        let mut expected: Vec<u8> = (0..40).collect();
        for at in [3, 33, 37] {
            pool.swap_remove(at);
            expected.swap_remove(at);
        }
        assert_eq!(entries(&pool), expected);
        for _ in 0..37 {
            pool.swap_remove(0);
            expected.swap_remove(0);
            assert_eq!(entries(&pool), expected);
            assert_eq!(pool.blocks.len(), pool.length.div_ceil(16));
        }
        assert_eq!(pool.blocks.capacity(), 0);
    }

    #[test]
    fn the_blocks_of_a_pool_have_little_room() {
        for pool in 0..WHOLE {
            let mut pool = Pool::new(size_of_pool(pool));
            (0..10_000).for_each(|_| pool.push(&[1]));
            let taken: usize = pool.blocks.iter().map(Vec::capacity).sum();
            let used = 10_000 * pool.entry_size;
            assert!(taken >= used && taken <= used + BLOCK_SIZE, "{pool:?}");
            let is_small = |block: &Vec<u8>| block.capacity() <= BLOCK_SIZE;
            assert!(pool.blocks.iter().all(is_small));
        }
    }
}
