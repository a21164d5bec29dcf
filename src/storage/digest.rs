//! A running digest of everything that a store must not lose: one number over all registers and the
//! node's own state, updated by each commit and compared at each open.
//!
//! It makes a loss in the middle visible. The engine checks each block and each batch alone; it
//! does not notice a batch that took a wrong place in the order, or a file that is gone.

use std::collections::HashMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

/// The map is shrunk once it uses less than this fraction (1/4) of its capacity.
const ROOM_PER_REGISTER_MAX: usize = 4;

/// The sum of the hashes of all entries, so that an entry is replaced without reading others.
#[derive(Debug)]
pub struct Digest {
    /// The hash of a register's key, and the hash of its current entry.
    registers: HashMap<[u64; 2], u64, foldhash::fast::RandomState>,
    /// Seed of the hashes of keys, which are not kept on disk; random, so that no client can
    /// prepare keys that collide.
    seed: u64,
    meta: u64,
    sum: u64,
}

impl Digest {
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Digest {
            registers: HashMap::default(),
            seed: getrandom::u64()?,
            meta: 0,
            sum: 0,
        })
    }

    pub fn reserve(&mut self, registers: usize) {
        self.registers.reserve(registers);
    }

    pub fn set_register(&mut self, key: &[u8], value: &[u8]) {
        let new = entry_hash(key, value);
        let old = self.registers.insert(self.slot(key), new).unwrap_or(0);
        self.replace(old, new);
    }

    /// Returns whether there was such a register.
    pub fn remove_register(&mut self, key: &[u8]) -> bool {
        let old = self.registers.remove(&self.slot(key));
        self.replace(old.unwrap_or(0), 0);
        let (held, room) = (self.registers.len(), self.registers.capacity());
        if held * ROOM_PER_REGISTER_MAX < room {
            self.registers.shrink_to(2 * held);
        }
        old.is_some()
    }

    pub fn set_meta(&mut self, key: &[u8], value: &[u8]) {
        let new = entry_hash(key, value);
        self.replace(self.meta, new);
        self.meta = new;
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The number of registers, tombstones included.
    pub fn registers(&self) -> u64 {
        self.registers.len() as u64
    }

    fn slot(&self, key: &[u8]) -> [u64; 2] {
        let hash = xxh3_128_with_seed(key, self.seed);
        [hash as u64, (hash >> 64) as u64]
    }

    fn replace(&mut self, old: u64, new: u64) {
        self.sum = self.sum.wrapping_sub(old).wrapping_add(new);
    }
}

fn entry_hash(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_tells_what_is_held_not_how_it_came() {
        let mut long = Digest::new().unwrap();
        long.set_register(b"a", b"1");
        long.set_meta(b"m", b"1");
        long.set_register(b"b", b"2");
        long.set_register(b"a", b"3");
        long.set_meta(b"m", b"2");
        let mut short = Digest::new().unwrap();
        short.set_register(b"b", b"2");
        short.set_register(b"a", b"3");
        short.set_meta(b"m", b"2");
        assert_eq!((long.sum(), long.registers()), (short.sum(), 2));
        short.set_register(b"a", b"1");
        assert_ne!(long.sum(), short.sum());
        for digest in [&mut long, &mut short] {
            assert!(digest.remove_register(b"a") && !digest.remove_register(b"a"));
        }
        assert_eq!((long.sum(), long.registers()), (short.sum(), 1));
    }

    #[test]
    fn what_is_removed_gives_its_room_back() {
        let mut digest = Digest::new().unwrap();
        let empty = digest.sum();
        let keys = 0..100_000u32;
        keys.clone()
            .for_each(|n| digest.set_register(&n.to_le_bytes(), b"1"));
        let full = digest.registers.capacity();
        keys.clone()
            .skip(1_000)
            .for_each(|n| assert!(digest.remove_register(&n.to_le_bytes())));
        assert!(digest.registers.capacity() < full / 10);
        keys.take(1_000)
            .for_each(|n| assert!(digest.remove_register(&n.to_le_bytes())));
        assert_eq!((digest.sum(), digest.registers()), (empty, 0));
    }
}
