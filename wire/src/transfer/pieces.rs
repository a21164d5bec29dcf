//! Which pieces have arrived.

use super::format::RANGES_MAX;

const WORD: usize = u64::BITS as usize;

/// A set of places, of which all below one are in it.
#[derive(Debug)]
pub(super) struct PlaceSet {
    words: Vec<u64>,
    below: usize,
    /// All in the set are below this one.
    end: usize,
    len: usize,
}

impl PlaceSet {
    pub(super) fn new(count: usize) -> Self {
        PlaceSet {
            words: vec![0; count.div_ceil(WORD)],
            below: 0,
            end: 0,
            len: 0,
        }
    }

    pub(super) fn contains(&self, place: usize) -> bool {
        let word = self.words.get(place / WORD);
        word.is_some_and(|word| word >> (place % WORD) & 1 == 1)
    }

    /// Adds a place; returns whether it was missing.
    pub(super) fn insert(&mut self, place: usize) -> bool {
        if self.contains(place) {
            return false;
        }
        self.words[place / WORD] |= 1 << (place % WORD);
        self.len += 1;
        self.end = self.end.max(place + 1);
        if place == self.below {
            self.below = self.next(place, false);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn below(&self) -> usize {
        self.below
    }

    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// The lowest ranges above `below`: first and end.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges = Vec::new();
        let mut at = self.below;
        while at < self.end && ranges.len() < RANGES_MAX {
            let first = self.next(at, true);
            if first >= self.end {
                break;
            }
            at = self.next(first, false);
            ranges.push((first as u16, at as u16));
        }
        ranges
    }

    /// The first place from `at` on that is in the set, or that is not.
    fn next(&self, at: usize, is_in: bool) -> usize {
        let mut place = at;
        while let Some(word) = self.words.get(place / WORD) {
            let word = if is_in { *word } else { !*word };
            let rest = word >> (place % WORD);
            if rest != 0 {
                return place + rest.trailing_zeros() as usize;
            }
            place = (place / WORD + 1) * WORD;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_and_the_bound_below_describe_the_set(places in prop::collection::vec(0usize..130, 0..200)) {
            let (mut set, mut model) = (PlaceSet::new(130), BTreeSet::new());
            for place in places {
                prop_assert_eq!(set.insert(place), model.insert(place));
            }
            prop_assert_eq!(set.len(), model.len());
            let below = (0..).find(|place| !model.contains(place)).unwrap();
            prop_assert_eq!(set.below(), below);
            let mut told: BTreeSet<usize> = (0..below).collect();
            for (first, after) in set.ranges() {
                prop_assert!(!model.contains(&(usize::from(first) - 1)));
                told.extend(usize::from(first)..usize::from(after));
            }
            if set.ranges().len() < RANGES_MAX {
                prop_assert_eq!(told, model);
            }
        }
    }
}
