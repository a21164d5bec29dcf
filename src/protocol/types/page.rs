//! A page of entries, as a store returns it: as many of a bucket as fit one message, or as many of
//! a range as was asked for.

use bytes::Bytes;
use wire::Version;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{KEYS_PER_MESSAGE_MAX, KEYS_SIZE_MAX};
use crate::protocol::types::record::{AcceptorState, Key, Record};

/// Approximate size of an entry in a message without its key, in bytes.
const ENTRY_OVERHEAD: usize = 24;

/// The entries are in order of key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<S = AcceptorState> {
    pub states: Vec<(Key, S)>,
    /// The last of these keys, if the bucket or range has more after it.
    pub next: Option<Key>,
}

pub type RangePage = Page<RangeState>;

impl<S> Default for Page<S> {
    fn default() -> Self {
        Page {
            states: Vec::new(),
            next: None,
        }
    }
}

/// The part of a key's state that pages of ranges contain. A store that packs its states reads this
/// part much faster than all of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeState {
    pub accepted: Ballot,
    pub chosen: bool,
    pub life: u32,
    pub record: Option<RangeRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRecord {
    pub version: Version,
    pub expires: bool,
    pub has_intent: bool,
    /// `None` is a tombstone. A value that was not asked for may be empty.
    pub value: Option<Bytes>,
}

impl From<&AcceptorState> for RangeState {
    fn from(state: &AcceptorState) -> Self {
        let record = state.record.as_ref();
        RangeState {
            accepted: state.accepted,
            chosen: state.chosen,
            life: state.life,
            record: record.map(|record| RangeRecord::from(&**record)),
        }
    }
}

impl From<&Record> for RangeRecord {
    fn from(record: &Record) -> Self {
        RangeRecord {
            version: record.version,
            expires: record.expiry_ms.is_some(),
            has_intent: record.intent.is_some(),
            value: record.value.clone(),
        }
    }
}

/// How much of a range fits a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    pub length_max: usize,
    /// In bytes, of keys and values.
    pub size_max: usize,
    /// Whether the values are asked for, and count.
    pub counts_values: bool,
}

impl Page {
    /// Takes as many entries as fit one message from the front of `states`, which is in order of
    /// key: at least one if there is any, and at most `length_max`. It advances the iterator at
    /// most one entry further.
    pub fn collect(states: impl Iterator<Item = (Key, AcceptorState)>, length_max: usize) -> Self {
        let bounds = PageBounds {
            length_max: length_max.min(KEYS_PER_MESSAGE_MAX),
            size_max: KEYS_SIZE_MAX,
            counts_values: false,
        };
        Page::collect_within(states, bounds, |_| 0)
    }
}

impl RangePage {
    /// The same of a range, with other bounds.
    pub fn of_range(states: impl Iterator<Item = (Key, RangeState)>, bounds: PageBounds) -> Self {
        Page::collect_within(states, bounds, |state| {
            let record = state.record.as_ref().filter(|_| bounds.counts_values);
            let value = record.and_then(|record| record.value.as_ref());
            value.map_or(0, Bytes::len)
        })
    }
}

impl<S> Page<S> {
    fn collect_within(
        states: impl Iterator<Item = (Key, S)>,
        bounds: PageBounds,
        size_of: impl Fn(&S) -> usize,
    ) -> Self {
        let mut page = Page::default();
        let mut size = 0;
        for (key, state) in states {
            size += key.as_bytes().len() + ENTRY_OVERHEAD + size_of(&state);
            let is_full = page.states.len() >= bounds.length_max;
            if let Some((last, _)) = page.states.last()
                && (is_full || size > bounds.size_max)
            {
                page.next = Some(last.clone());
                break;
            }
            page.states.push((key, state));
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
        let states = keys.map(|key| (key, AcceptorState::default()));
        Page::collect(states, length_max)
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
