//! Numbers of keys, found by the hashes of the keys. It is made of many small tables, and grows by
//! one table at a time (linear hashing): one that grows as a whole would stop the loop for tens of
//! milliseconds, because the hash of each key is computed anew.

use hashbrown::HashTable;

/// Tables have about so many numbers. It is somewhat less than a table with 1,024 places takes, so
/// that most tables have few empty places.
const PER_TABLE: usize = 832;

#[derive(Debug)]
pub struct HashIndex {
    /// At least one.
    tables: Vec<HashTable<u32>>,
    length: usize,
}

impl Default for HashIndex {
    fn default() -> Self {
        HashIndex {
            tables: vec![HashTable::new()],
            length: 0,
        }
    }
}

impl HashIndex {
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = &self.tables[table_of(hash, self.tables.len())];
        table.find(hash, |number| is_it(*number)).copied()
    }

    /// The number is not there yet. `hash_of` tells the hash of any number that is there.
    pub fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if self.length >= self.tables.len() * PER_TABLE {
            self.split(&hash_of);
        }
        let at = table_of(hash, self.tables.len());
        self.tables[at].insert_unique(hash, number, |number| hash_of(*number));
        self.length += 1;
    }

    pub fn remove(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        let at = table_of(hash, self.tables.len());
        if let Ok(found) = self.tables[at].find_entry(hash, |held| *held == number) {
            found.remove();
            self.length -= 1;
        }
        // Half of what it takes to split, so that a few keys more or less change nothing.
        if self.tables.len() > 1 && self.length < self.tables.len() * PER_TABLE / 2 {
            self.join(&hash_of);
        }
    }

    /// The key of `old` has the number `new` from now on.
    pub fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let at = table_of(hash, self.tables.len());
        if let Some(held) = self.tables[at].find_mut(hash, |held| *held == old) {
            *held = new;
        }
    }

    /// Adds a table, and moves the numbers that belong there from the one table that has them.
    fn split(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let added = self.tables.len();
        let from = origin_of(added);
        let numbers = std::mem::take(&mut self.tables[from]);
        let hashed: Vec<(u64, u32)> = numbers.into_iter().map(|n| (hash_of(n), n)).collect();
        let moves = |hash: u64| table_of(hash, added + 1) == added;
        let moved = hashed.iter().filter(|(hash, _)| moves(*hash)).count();
        let mut stays = HashTable::with_capacity(hashed.len() - moved);
        let mut leaves = HashTable::with_capacity(moved);
        for (hash, number) in hashed {
            let table = if moves(hash) { &mut leaves } else { &mut stays };
            table.insert_unique(hash, number, |number| hash_of(*number));
        }
        self.tables[from] = stays;
        self.tables.push(leaves);
    }

    /// The opposite of `split`.
    fn join(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let Some(removed) = self.tables.pop() else {
            return;
        };
        let at = origin_of(self.tables.len());
        let to = &mut self.tables[at];
        to.reserve(removed.len(), |number| hash_of(*number));
        for number in removed {
            to.insert_unique(hash_of(number), number, |number| hash_of(*number));
        }
        to.shrink_to_fit(|number| hash_of(*number));
        if self.tables.capacity() > 4 * self.tables.len() {
            self.tables.shrink_to(2 * self.tables.len());
        }
    }
}

/// The table of a hash. Within a table, the lowest and the highest bits of the hash choose the
/// place, so these are others.
fn table_of(hash: u64, tables: usize) -> usize {
    let bits = (hash >> 24) as u32 as usize;
    let mask = tables.next_power_of_two() - 1;
    match bits & mask {
        at if at < tables => at,
        at => at & (mask >> 1),
    }
}

/// The table that a table was split off from.
fn origin_of(table: usize) -> usize {
    table - (1 << table.ilog2())
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    const COUNT: u32 = 100_000;

    fn hash_of(number: u32) -> u64 {
        foldhash::fast::FixedState::default().hash_one(number)
    }

    fn find(index: &HashIndex, number: u32) -> Option<u32> {
        index.find(hash_of(number), |held| held == number)
    }

    fn filled() -> HashIndex {
        let mut index = HashIndex::default();
        for number in 0..COUNT {
            index.insert(hash_of(number), number, hash_of);
            // While some tables are split and others are not yet.
            let looked_for = number / 2;
            assert_eq!(find(&index, looked_for), Some(looked_for));
        }
        index
    }

    /// For each number, while it holds 100,000 and more.
    fn places(index: &HashIndex) -> f64 {
        let tables = index.tables.iter();
        let places: usize = tables.map(|table| table.capacity() * 8 / 7).sum();
        places as f64 / index.length as f64
    }

    #[test]
    fn all_that_was_inserted_is_found_and_nothing_else() {
        let index = filled();
        assert!((0..COUNT).all(|number| find(&index, number) == Some(number)));
        assert!((COUNT..2 * COUNT).all(|number| find(&index, number).is_none()));
    }

    #[test]
    fn it_grows_and_shrinks_by_one_small_table_at_a_time() {
        let mut index = filled();
        let wanted = COUNT as usize / PER_TABLE;
        assert!((wanted..wanted + 2).contains(&index.tables.len()));
        let largest = index.tables.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 3 * PER_TABLE, "{largest}");
        assert!(places(&index) < 2.2, "{}", places(&index));
        for number in (0..COUNT).filter(|number| number % 100 != 0) {
            index.remove(hash_of(number), number, hash_of);
            // It is not there any more.
            index.remove(hash_of(number), number, hash_of);
            assert_eq!(find(&index, number), None);
        }
        assert!(
            (0..COUNT)
                .step_by(100)
                .all(|number| find(&index, number).is_some())
        );
        assert_eq!(index.length, COUNT as usize / 100);
        assert!(index.tables.len() <= 2 && index.tables.capacity() <= 8);
        assert!(places(&index) < 4.5, "{}", places(&index));
    }

    #[test]
    fn a_number_is_replaced() {
        let mut index = filled();
        index.replace(hash_of(7), 7, COUNT + 7);
        index.replace(hash_of(8), 9, COUNT + 9);
        let found = |key| index.find(hash_of(key), |held| held % COUNT == key);
        assert_eq!(found(7), Some(COUNT + 7));
        assert_eq!((found(8), found(9)), (Some(8), Some(9)));
    }
}
