//! A page of entries, as a store returns it: as many of a bucket as fit one message, or as many of
//! a range as was asked for.

use crate::protocol::types::limits::{KEYS_PER_MESSAGE_MAX, KEYS_SIZE_MAX};
use crate::protocol::types::record::{AcceptorState, Key};

/// Approximate size of an entry in a message without its key, in bytes.
const ENTRY_OVERHEAD: usize = 24;

/// The entries are in order of key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub states: Vec<(Key, AcceptorState)>,
    /// The last of these keys, if the bucket or range has more after it.
    pub next: Option<Key>,
}

/// How much of a range fits a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    pub length_max: usize,
    /// In bytes, of keys and values.
    pub size_max: usize,
    pub counts_values: bool,
}

impl Page {
    /// Takes as many entries as fit one message from the front of `states`, which is in order of
    /// key: at least one if there is any, and at most `length_max`. It advances the iterator at
    /// most one entry further.
    pub fn collect<'a>(
        states: impl Iterator<Item = (&'a Key, &'a AcceptorState)>,
        length_max: usize,
    ) -> Self {
        let bounds = PageBounds {
            length_max: length_max.min(KEYS_PER_MESSAGE_MAX),
            size_max: KEYS_SIZE_MAX,
            counts_values: false,
        };
        Page::collect_within(states, bounds)
    }

    /// The same with other bounds.
    pub fn collect_within<'a>(
        states: impl Iterator<Item = (&'a Key, &'a AcceptorState)>,
        bounds: PageBounds,
    ) -> Self {
        let mut page = Page::default();
        let mut size = 0;
        for (key, state) in states {
            size += key.as_bytes().len() + ENTRY_OVERHEAD;
            if bounds.counts_values {
                size += state
                    .record
                    .as_ref()
                    .map_or(0, |record| record.value_size());
            }
            let is_full = page.states.len() >= bounds.length_max;
            if let Some((last, _)) = page.states.last()
                && (is_full || size > bounds.size_max)
            {
                page.next = Some(last.clone());
                break;
            }
            page.states.push((key.clone(), state.clone()));
        }
        page
    }

    /// Whether this page covers the key, which is after the page's start.
    pub fn reaches(&self, key: &Key) -> bool {
        self.next.as_ref().is_none_or(|next| key <= next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: impl Iterator<Item = String>, length_max: usize) -> Page {
        let keys = names.map(|name| Key::user(name.as_bytes()));
        let states: Vec<_> = keys.map(|key| (key, AcceptorState::default())).collect();
        Page::collect(states.iter().map(|(k, s)| (k, s)), length_max)
    }

    #[test]
    fn a_page_is_what_fits_and_says_whether_there_is_more() {
        let names = |count: usize| (0..count).map(|n| format!("{n:03}"));
        assert_eq!(page(names(0), 9), Page::default());
        let whole = page(names(9), 9);
        assert_eq!((whole.states.len(), whole.next), (9, None));
        let part = page(names(10), 9);
        assert_eq!(
            (part.states.len(), &part.next),
            (9, &Some(Key::user(b"008")))
        );
        assert!(part.reaches(&Key::user(b"008")) && !part.reaches(&Key::user(b"009")));
        let long = (0..100).map(|n| format!("{n:01000}"));
        let long = page(long, usize::MAX).states.len();
        assert!((20..KEYS_SIZE_MAX / 1_000 + 1).contains(&long), "{long}");
        assert_eq!(page(names(2), 0).states.len(), 1, "it gets on");
    }
}
