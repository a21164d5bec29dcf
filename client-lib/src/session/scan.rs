//! Scans: which page is asked for next, and what is told of it. Pure, like the session.

use bytes::Bytes;

use super::call::{Call, CallError};
use wire::{Action, KEY_SIZE_MAX, ScanEntry, ScanPage, end_of_prefix};

/// The first key in order.
const FIRST_KEY: &[u8] = &[0];

/// Which keys to scan. Keys are in order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    first: Bytes,
    /// The first key behind the range; empty: there is none.
    end: Bytes,
    limit: Option<u64>,
    keys_only: bool,
    /// Deleted keys, too, for a watch.
    deleted: bool,
    deadline_us: Option<u64>,
}

impl Scan {
    /// All keys.
    pub fn all() -> Self {
        Scan {
            first: Bytes::from_static(FIRST_KEY),
            end: Bytes::new(),
            limit: None,
            keys_only: false,
            deleted: false,
            deadline_us: None,
        }
    }

    /// The keys that begin with these bytes.
    pub fn prefix(prefix: &[u8]) -> Self {
        let all = Scan::all();
        match prefix {
            [] => all,
            _ => Scan {
                first: Bytes::copy_from_slice(prefix),
                end: end_of_prefix(prefix),
                ..all
            },
        }
    }

    /// One key.
    pub(super) fn of_key(key: Bytes) -> Self {
        Scan {
            end: match key.len() < KEY_SIZE_MAX {
                true => [&key[..], &[0]].concat().into(),
                // No key is longer.
                false => end_of_prefix(&key),
            },
            first: key,
            ..Scan::all()
        }
    }

    /// Leaves out the keys before this one.
    pub fn starting_at(mut self, key: impl Into<Bytes>) -> Self {
        self.first = self.first.max(key.into());
        self
    }

    /// Leaves out this key and those behind it. An empty key leaves out none.
    pub fn ending_before(mut self, key: impl Into<Bytes>) -> Self {
        let key = key.into();
        if self.end.is_empty() || !key.is_empty() && key < self.end {
            self.end = key;
        }
        self
    }

    /// Tells at most this many keys.
    pub fn limit(mut self, keys: u64) -> Self {
        self.limit = Some(keys);
        self
    }

    /// Tells keys and versions, without values.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    pub(super) fn with_deleted(mut self) -> Self {
        self.deleted = true;
        self
    }

    /// The first key of the range, and the first one behind it; empty if there is none.
    pub(super) fn edges(&self) -> (Bytes, Bytes) {
        (self.first.clone(), self.end.clone())
    }

    /// How long each page may take; otherwise as long as any call.
    pub fn page_deadline_us(mut self, deadline_us: u64) -> Self {
        self.deadline_us = Some(deadline_us);
        self
    }
}

/// How far a scan has come.
#[derive(Debug, Clone)]
pub struct ScanCursor {
    /// `first` and `limit` are of what is still to be told.
    rest: Scan,
    /// `first` itself was told.
    is_after: bool,
    is_over: bool,
}

impl ScanCursor {
    pub fn new(scan: Scan) -> Self {
        ScanCursor {
            is_over: scan.limit == Some(0) || !scan.end.is_empty() && scan.first >= scan.end,
            rest: scan,
            is_after: false,
        }
    }

    /// The call for the next page; `None` at the end.
    pub fn next_call(&self) -> Option<Call> {
        if self.is_over {
            return None;
        }
        let limit = self.rest.limit.unwrap_or(0);
        let action = Action::Scan {
            is_after: self.is_after,
            end: self.rest.end.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            keys_only: self.rest.keys_only,
            deleted: self.rest.deleted,
        };
        let mut call = Call::new(self.rest.first.clone(), action);
        call.deadline_us = self.rest.deadline_us;
        Some(call)
    }

    /// The next page begins with this key, or after it.
    pub(super) fn position(&self) -> (Bytes, bool) {
        (self.rest.first.clone(), self.is_after)
    }

    /// The page that the call returned. Returns the keys to tell. After an error the cursor is
    /// where it was before.
    pub fn take(&mut self, page: ScanPage) -> Result<Vec<ScanEntry>, CallError> {
        let ScanPage { mut entries, next } = page;
        // Otherwise a defective node could keep the scan in a loop.
        let leads_on =
            |next: &Bytes| *next > self.rest.first || *next == self.rest.first && !self.is_after;
        if !next.as_ref().is_none_or(leads_on) {
            return Err(CallError::WrongAnswer(
                "the next page of the scan would not begin behind this one",
            ));
        }
        if let Some(limit) = &mut self.rest.limit {
            entries.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
            *limit -= entries.len() as u64;
            self.is_over |= *limit == 0;
        }
        match next {
            Some(next) => (self.rest.first, self.is_after) = (next, true),
            None => self.is_over = true,
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(cursor: &ScanCursor) -> Option<(Bytes, bool, Bytes, u32)> {
        let call = cursor.next_call()?;
        let Action::Scan {
            is_after,
            end,
            limit,
            ..
        } = call.action
        else {
            panic!("not a scan: {call:?}");
        };
        Some((call.key, is_after, end, limit))
    }

    fn page(keys: &[&'static str], next: Option<&'static str>) -> ScanPage {
        let entry = |key: &&'static str| ScanEntry {
            key: Bytes::from(*key),
            version: 1,
            value: None,
        };
        ScanPage {
            entries: keys.iter().map(entry).collect(),
            next: next.map(Bytes::from),
        }
    }

    #[test]
    fn prefix_and_bounds_meet() {
        let range = |scan| asked(&ScanCursor::new(scan)).map(|(first, _, end, _)| (first, end));
        let both = |first: &'static str, end: &'static str| Some((first.into(), end.into()));
        assert_eq!(range(Scan::all()), both("\0", ""));
        assert_eq!(range(Scan::prefix(b"")), both("\0", ""));
        assert_eq!(range(Scan::prefix(b"a")), both("a", "b"));
        let inner = Scan::prefix(b"a").starting_at("ab").ending_before("ac");
        assert_eq!(range(inner), both("ab", "ac"));
        let outer = Scan::prefix(b"b").starting_at("a").ending_before("d");
        assert_eq!(range(outer), both("b", "c"));
        assert_eq!(range(Scan::all().starting_at("b").ending_before("b")), None);
        assert_eq!(range(Scan::all().limit(0)), None);
        assert_eq!(range(Scan::prefix(b"a").ending_before("")), both("a", "b"));
    }

    #[test]
    fn pages_follow_each_other_up_to_the_end_or_the_limit() {
        let mut cursor = ScanCursor::new(Scan::all());
        let told = |cursor: &mut ScanCursor, page| cursor.take(page).expect("a good page").len();
        assert_eq!(told(&mut cursor, page(&["a", "b"], Some("c"))), 2);
        assert_eq!(asked(&cursor), Some(("c".into(), true, "".into(), 0)));
        assert_eq!(told(&mut cursor, page(&[], Some("d"))), 0);
        assert_eq!(asked(&cursor), Some(("d".into(), true, "".into(), 0)));
        assert_eq!(told(&mut cursor, page(&["e"], None)), 1);
        assert_eq!(asked(&cursor), None);
        let mut cursor = ScanCursor::new(Scan::all().limit(3));
        assert_eq!(told(&mut cursor, page(&["a", "b"], Some("b"))), 2);
        assert_eq!(asked(&cursor), Some(("b".into(), true, "".into(), 1)));
        assert_eq!(told(&mut cursor, page(&["c", "d"], Some("d"))), 1);
        assert_eq!(asked(&cursor), None);
    }

    #[test]
    fn a_page_that_leads_back_is_an_error_and_not_the_end() {
        let mut cursor = ScanCursor::new(Scan::all().starting_at("a"));
        // The first key itself was not told yet.
        assert_eq!(cursor.take(page(&[], Some("a"))), Ok(vec![]));
        assert!(cursor.take(page(&["b"], Some("b"))).is_ok());
        for back in ["b", "a"] {
            let taken = cursor.take(page(&[], Some(back)));
            assert!(matches!(taken, Err(CallError::WrongAnswer(_))), "{taken:?}");
        }
        // Another node may answer the same call.
        assert_eq!(asked(&cursor), Some(("b".into(), true, "".into(), 0)));
    }
}
