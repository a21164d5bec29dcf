//! Numbers of keys in the order of the keys. Only the caller knows the keys: it says of a number
//! whether its key is before the place that it looks for.

/// How many numbers a block has at most. To add or remove one moves at most one block, and the list
/// of the blocks if there is one block more or less.
const BLOCK_MAX: usize = 512;
/// A block with fewer is joined with a neighbour if both ...
const BLOCK_MIN: usize = BLOCK_MAX / 4;
/// ... then have at most so many. Above half of the maximum it would soon be split again.
const JOINED_MAX: usize = BLOCK_MAX / 2;
/// A block that grows gets room for a quarter more numbers, or for so many.
const ROOM_MIN: usize = 4;

/// A sorted vector in blocks. No block is empty.
#[derive(Debug, Default)]
pub struct Order {
    blocks: Vec<Vec<u32>>,
}

/// Where a number is, or belongs.
#[derive(Debug, Clone, Copy)]
struct OrderPlace {
    block: usize,
    at: usize,
}

impl Order {
    /// The numbers are in order.
    pub fn of_sorted(numbers: &[u32]) -> Self {
        let blocks = numbers.chunks(BLOCK_MAX);
        Order {
            blocks: blocks.map(<[u32]>::to_vec).collect(),
        }
    }

    /// The place behind all numbers that are before it: in the block of the last one of them.
    fn find(&self, mut is_before: impl FnMut(u32) -> bool) -> OrderPlace {
        let behind = self.blocks.partition_point(|block| is_before(block[0]));
        match behind.checked_sub(1) {
            None => OrderPlace { block: 0, at: 0 },
            Some(block) => OrderPlace {
                block,
                at: self.blocks[block].partition_point(|number| is_before(*number)),
            },
        }
    }

    /// The place of the first number that is not before it. At the end there is none.
    fn find_next(&self, is_before: impl FnMut(u32) -> bool) -> OrderPlace {
        let place = self.find(is_before);
        match self.blocks.get(place.block) {
            Some(block) if place.at == block.len() => OrderPlace {
                block: place.block + 1,
                at: 0,
            },
            _ => place,
        }
    }

    pub fn insert(&mut self, number: u32, is_before: impl FnMut(u32) -> bool) {
        let OrderPlace { mut block, mut at } = self.find(is_before);
        if self.blocks.is_empty() {
            self.blocks.reserve_exact(1);
            self.blocks.push(Vec::new());
        }
        if self.blocks[block].len() == BLOCK_MAX {
            // Keys that arrive in order fill their blocks.
            let is_end = block + 1 == self.blocks.len() && at == BLOCK_MAX;
            let kept = if is_end { BLOCK_MAX } else { BLOCK_MAX / 2 };
            let behind = self.blocks[block].split_off(kept);
            self.blocks[block].shrink_to_fit();
            self.blocks.insert(block + 1, behind);
            if at > kept || is_end {
                block += 1;
                at -= kept;
            }
        }
        let block = &mut self.blocks[block];
        if block.len() == block.capacity() {
            // Less room than a vector takes by itself: there are as many numbers as keys.
            let room = (block.len() / 4).max(ROOM_MIN);
            block.reserve_exact(room.min(BLOCK_MAX - block.len()));
        }
        block.insert(at, number);
    }

    /// Nothing happens if the number is not at the place.
    pub fn remove(&mut self, number: u32, is_before: impl FnMut(u32) -> bool) {
        let OrderPlace { block, at } = self.find_next(is_before);
        if self.at(OrderPlace { block, at }) != Some(number) {
            return;
        }
        let numbers = &mut self.blocks[block];
        numbers.remove(at);
        if numbers.capacity() > 2 * numbers.len() + ROOM_MIN {
            numbers.shrink_to_fit();
        }
        if numbers.is_empty() {
            self.blocks.remove(block);
        } else if numbers.len() < BLOCK_MIN {
            let before = block.saturating_sub(1);
            let joined = self.join(before);
            self.join(if joined { before } else { block });
        }
        if self.blocks.capacity() > 4 * self.blocks.len() {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
    }

    /// Joins a block with the next one, if both are small.
    fn join(&mut self, block: usize) -> bool {
        let Some([first, second]) = self.blocks.get_mut(block..block + 2) else {
            return false;
        };
        if first.len() + second.len() > JOINED_MAX {
            return false;
        }
        first.reserve_exact(second.len());
        first.append(second);
        self.blocks.remove(block + 1);
        true
    }

    /// The key of `old` has the number `new` from now on.
    pub fn replace(&mut self, old: u32, new: u32, is_before: impl FnMut(u32) -> bool) {
        let place = self.find_next(is_before);
        if self.at(place) == Some(old) {
            self.blocks[place.block][place.at] = new;
        }
    }

    fn at(&self, place: OrderPlace) -> Option<u32> {
        self.blocks.get(place.block)?.get(place.at).copied()
    }

    /// The numbers that are not before the place, in order.
    pub fn from(&self, is_before: impl FnMut(u32) -> bool) -> impl Iterator<Item = u32> {
        let place = self.find(is_before);
        let mut blocks = self.blocks.iter().skip(place.block);
        let first = blocks.next().map_or(&[][..], |block| &block[place.at..]);
        first.iter().chain(blocks.flatten()).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Remove(u16),
        Renumber(u16),
        /// From there on.
        List(u16),
        /// Many keys in order, from there on.
        Fill(u16),
        /// All keys of a range.
        Clear(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..4_000_u16;
        prop_oneof![
            8 => key.clone().prop_map(Step::Insert),
            4 => key.clone().prop_map(Step::Remove),
            2 => key.clone().prop_map(Step::Renumber),
            2 => key.clone().prop_map(Step::List),
            1 => key.clone().prop_map(Step::Fill),
            1 => (key, 1..1_500_u16).prop_map(|(key, count)| Step::Clear(key, count)),
        ]
    }

    /// An order beside a map that does the same. The key of each number is in `keys`.
    #[derive(Default)]
    struct Twins {
        order: Order,
        model: BTreeMap<u16, u32>,
        keys: Vec<u16>,
    }

    impl Twins {
        fn insert(&mut self, key: u16) {
            if self.model.contains_key(&key) {
                return;
            }
            let number = self.number(key);
            self.model.insert(key, number);
            let keys = &self.keys;
            self.order.insert(number, |n| keys[n as usize] < key);
        }

        fn number(&mut self, key: u16) -> u32 {
            self.keys.push(key);
            self.keys.len() as u32 - 1
        }

        fn remove(&mut self, key: u16) {
            // A number that is not there is not removed.
            let number = self.model.remove(&key).unwrap_or(u32::MAX);
            let keys = &self.keys;
            self.order.remove(number, |n| keys[n as usize] < key);
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Insert(key) => self.insert(key),
                Step::Remove(key) => self.remove(key),
                Step::Renumber(key) => {
                    let new = self.number(key);
                    let Some(number) = self.model.get_mut(&key) else {
                        return;
                    };
                    let old = std::mem::replace(number, new);
                    let keys = &self.keys;
                    self.order.replace(old, new, |n| keys[n as usize] < key);
                }
                Step::List(key) => {
                    let keys = &self.keys;
                    let listed = self.order.from(|n| keys[n as usize] < key);
                    assert!(listed.eq(self.model.range(key..).map(|(_, number)| *number)));
                }
                Step::Fill(key) => (key..key + 700).for_each(|key| self.insert(key)),
                Step::Clear(key, count) => (key..key + count).for_each(|key| self.remove(key)),
            }
        }

        fn check(&self) {
            assert!(self.order.from(|_| false).eq(self.model.values().copied()));
            let blocks = &self.order.blocks;
            for block in blocks {
                assert!((1..=BLOCK_MAX).contains(&block.len()));
                let room = block.capacity() - block.len();
                assert!(room <= block.len() + ROOM_MIN, "{room}");
            }
            for pair in blocks.windows(2) {
                assert!(pair[0].len() + pair[1].len() > BLOCK_MIN);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn an_order_is_a_sorted_map(steps in prop::collection::vec(step(), 1..60)) {
            let mut twins = Twins::default();
            for step in steps {
                twins.take(step);
                twins.check();
            }
            for key in 0..6_000 {
                twins.remove(key);
            }
            twins.check();
            prop_assert_eq!((twins.order.blocks.len(), twins.order.blocks.capacity()), (0, 0));
        }
    }

    #[test]
    fn an_order_of_sorted_numbers_is_like_one_that_was_filled() {
        let numbers: Vec<u32> = (0..2_000).collect();
        let mut filled = Order::default();
        numbers
            .iter()
            .for_each(|number| filled.insert(*number, |n| n < *number));
        let made = Order::of_sorted(&numbers);
        assert_eq!(made.blocks, filled.blocks);
        assert!(Order::of_sorted(&[]).blocks.is_empty());
    }

    #[test]
    fn keys_that_arrive_in_order_fill_their_blocks() {
        let mut order = Order::default();
        (0..100_000).for_each(|number| order.insert(number, |n| n < number));
        assert!(order.from(|n| n < 7).eq(7..100_000));
        assert_eq!(order.blocks.len(), 100_000_usize.div_ceil(BLOCK_MAX));
        let numbers: usize = order.blocks.iter().map(Vec::capacity).sum();
        assert!(numbers < 101_000, "{numbers}");
    }
}
