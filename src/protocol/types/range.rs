//! Ranges of users' keys, in order. Pure arithmetic.

use std::ops::Bound;

use serde::{Deserialize, Serialize};
use wire::{Action, Operation};

use crate::protocol::types::record::{Key, SPACE_USER};

/// The keys from `first` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    pub first: Key,
    /// `first` itself is left out.
    pub is_after: bool,
    /// `None`: no key is behind the range.
    pub last: Option<Key>,
    /// `last` itself is left out.
    pub is_before: bool,
}

impl KeyRange {
    /// The range of a scan or a watch; `None` for other operations.
    pub fn of(operation: &Operation) -> Option<Self> {
        let (is_after, end) = match &operation.action {
            Action::Scan { is_after, end, .. } => (*is_after, end),
            Action::Watch { end, .. } => (false, end),
            _ => return None,
        };
        Some(KeyRange {
            first: Key::user(&operation.key),
            is_after,
            last: (!end.is_empty()).then(|| Key::user(end)),
            is_before: true,
        })
    }

    /// The part of the range up to that key, inclusive, or all of it.
    pub fn up_to(mut self, last: Option<&Key>) -> Self {
        if let Some(last) = last {
            self.last = Some(last.clone());
            self.is_before = false;
        }
        self
    }

    /// Whether all its keys are users' keys.
    pub fn is_of_users(&self) -> bool {
        let mut edges = self.last.iter().chain([&self.first]);
        edges.all(|key| key.space() == SPACE_USER)
    }

    pub fn contains(&self, key: &Key) -> bool {
        let is_behind = match self.is_after {
            true => *key > self.first,
            false => *key >= self.first,
        };
        let is_before = self.last.as_ref().is_none_or(|last| match self.is_before {
            true => key < last,
            false => key <= last,
        });
        is_behind && is_before && key.space() == SPACE_USER
    }

    /// For the lookup in an ordered table of users' keys; `None` if no key is in the range.
    pub fn bounds(&self) -> Option<(Bound<&Key>, Bound<&Key>)> {
        let first = match self.is_after {
            true => Bound::Excluded(&self.first),
            false => Bound::Included(&self.first),
        };
        let last = match &self.last {
            None => Bound::Unbounded,
            Some(last) if self.is_before => Bound::Excluded(last),
            Some(last) => Bound::Included(last),
        };
        let is_empty = self.last.as_ref().is_some_and(|last| {
            let is_open = self.is_after || self.is_before;
            *last < self.first || *last == self.first && is_open
        });
        (!is_empty).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_range_holds_what_its_bounds_let_through() {
        let names = ["a", "b", "c"].map(|name| Key::user(name.as_bytes()));
        let all: BTreeSet<Key> = names.iter().cloned().collect();
        let lasts = names.iter().cloned().map(Some).chain([None]);
        for last in lasts {
            for first in &names {
                for flags in 0..4 {
                    let range = KeyRange {
                        first: first.clone(),
                        is_after: flags & 1 != 0,
                        last: last.clone(),
                        is_before: flags & 2 != 0,
                    };
                    let listed = range.bounds().into_iter().flat_map(|b| all.range(b));
                    let held = all.iter().filter(|key| range.contains(key));
                    assert!(listed.eq(held), "{range:?}");
                    let part = range.clone().up_to(range.bounds().map(|_| first));
                    let only = all.iter().filter(|key| part.contains(key));
                    let expected = range.bounds().is_some() && !range.is_after;
                    assert_eq!(only.eq([first]), expected, "{part:?}");
                }
            }
        }
    }
}
