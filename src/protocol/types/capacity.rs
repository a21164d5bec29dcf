//! The capacity left in a message. The encoded size of a list is bounded, so that each message fits
//! a datagram, whatever the list's items are.

use serde::Serialize;

use crate::protocol::types::limits::LIST_SIZE_MAX;

/// The items and bytes that still fit into a list under construction.
#[derive(Debug)]
pub struct MessageCapacity {
    items_left: usize,
    size_left: usize,
    /// Scratch space that measures an item's encoding.
    scratch: Vec<u8>,
}

impl MessageCapacity {
    /// The capacity for a list of at most `items_max` items.
    pub fn new(items_max: usize) -> Self {
        MessageCapacity {
            items_left: items_max,
            size_left: LIST_SIZE_MAX,
            scratch: Vec::new(),
        }
    }

    /// Whether one more item fits. If it does, it is counted.
    pub fn take<T: Serialize>(&mut self, item: &T) -> bool {
        self.scratch.clear();
        wire::encode(&mut self.scratch, item);
        let size = self.scratch.len();
        let fits = self.items_left > 0 && size <= self.size_left;
        if fits {
            self.items_left -= 1;
            self.size_left -= size;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bounded_by_the_number_of_its_items_and_by_their_size() {
        let mut room = MessageCapacity::new(3);
        assert!(room.take(&1u64) && room.take(&1u64) && room.take(&1u64));
        assert!(!room.take(&1u64), "by number");
        let mut room = MessageCapacity::new(usize::MAX);
        let mut list = Vec::new();
        while room.take(&u64::MAX) {
            list.push(u64::MAX);
        }
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, &list);
        assert_eq!(list.len(), LIST_SIZE_MAX / 9);
        assert!(bytes.len() <= LIST_SIZE_MAX + 5, "{}", bytes.len());
    }
}
