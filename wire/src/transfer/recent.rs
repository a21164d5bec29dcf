//! The transfers that ended most recently.

use std::collections::{BTreeMap, VecDeque};

/// How many are remembered, per owner and in total.
const OWNER_MAX: usize = 256;
const TOTAL_MAX: usize = 16 * OWNER_MAX;

/// Above its owner's limit the owner's oldest is forgotten, and above the total limit the oldest of
/// all, or nearly. So a host with many transfers displaces its own.
#[derive(Debug)]
pub(super) struct Recent<Owner, Id> {
    by_owner: BTreeMap<Owner, VecDeque<Id>>,
    /// The owners, once for each of their transfers, the oldest first.
    order: VecDeque<Owner>,
}

impl<Owner, Id> Default for Recent<Owner, Id> {
    fn default() -> Self {
        Recent {
            by_owner: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<Owner: Ord + Copy, Id: PartialEq> Recent<Owner, Id> {
    pub(super) fn contains(&self, owner: Owner, id: &Id) -> bool {
        let ids = self.by_owner.get(&owner);
        ids.is_some_and(|ids| ids.contains(id))
    }

    pub(super) fn add(&mut self, owner: Owner, id: Id) {
        let ids = self.by_owner.entry(owner).or_default();
        ids.push_back(id);
        if ids.len() > OWNER_MAX {
            ids.pop_front();
            return;
        }
        self.order.push_back(owner);
        if self.order.len() > TOTAL_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(ids) = self.by_owner.get_mut(&oldest)
        {
            ids.pop_front();
            if ids.is_empty() {
                self.by_owner.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_with_many_displaces_its_own() {
        let mut recent = Recent::default();
        recent.add(1, 7);
        for id in 0..10_000 {
            recent.add(2, id);
        }
        assert!(recent.contains(1, &7) && !recent.contains(2, &7));
        assert!(recent.contains(2, &9_999));
        for owner in 3..10_000 {
            recent.add(owner, 1);
        }
        assert_eq!(recent.order.len(), TOTAL_MAX);
        let held: usize = recent.by_owner.values().map(VecDeque::len).sum();
        assert_eq!(held, TOTAL_MAX);
    }
}
