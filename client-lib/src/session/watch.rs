//! Watches (W1 to W4): which node is asked for what, and what is told of the answers. Pure, like
//! the session.
//!
//! | phase | call | what follows |
//! |---|---|---|
//! | `Begin` | a poll without a cursor, to any node | that node is watched at: `Scan` |
//! | `Scan` | a scan there that tells deleted keys, page by page | at its end `Poll` |
//! | | in between a poll there, so that the node does not forget the watch | `Scan` |
//! | `Poll` | a poll there with the cursor | `Poll`; `Scan` if the node does not know all changes |
//!
//! After an error the watch begins anew, perhaps at another node. The versions of all keys that
//! were told are kept, so that only what has changed since is told again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::call::{Call, CallError};
use super::scan::{Scan, ScanCursor};
use wire::{Action, Outcome, ScanEntry, ScanPage, Version, WatchCursor, WatchPage};

/// How long a node keeps a poll if nothing changes.
const POLL_WAIT_MS: u32 = 500;
/// After this time without an answer to a poll the watch goes on at another node.
const POLL_DEADLINE_US: u64 = 1_200_000;
/// The same for each page of a scan.
const PAGE_DEADLINE_US: u64 = 2_000_000;
/// After so many pages of a scan the changes since are asked for: a node forgets a range that
/// nobody polls, and it holds only the last changes.
const PAGES_MAX: u32 = 8;
/// A node that has too much to do is asked again this often, because to begin anew costs it and the
/// other nodes more.
const BUSY_MAX: u32 = 3;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key has this state: the present one when the watch begins, and later each new one. Per
    /// key, versions only rise; states in between may be left out. Without a value the key is
    /// deleted; then version 0 means that the version of the deletion is not known any more.
    Changed {
        key: Bytes,
        version: Version,
        value: Option<Bytes>,
    },
    /// All that the node knows was told. `behind_ms`: the node surely knows every change up to so
    /// many milliseconds ago; `None` while it has not compared its keys with enough nodes since the
    /// watch began there.
    Current { behind_ms: Option<u64> },
    /// No node serves the watch at present. It goes on; what changes meanwhile is told later.
    Apart(CallError),
}

/// What the watch has told of a key, or knows of it.
#[derive(Debug, Clone, Copy)]
struct KnownState {
    version: Version,
    is_present: bool,
}

#[derive(Debug, Clone)]
enum WatchPhase {
    Begin,
    Scan(ScanCursor),
    Poll,
}

/// A watch of a key or of a range of keys.
#[derive(Debug, Clone)]
pub struct Watch {
    range: Scan,
    /// The key, if there is only one.
    only: Option<Bytes>,
    from_version: Version,
    phase: WatchPhase,
    /// The node that is watched at, and how far the watch has come there.
    node: u8,
    cursor: WatchCursor,
    known: BTreeMap<Bytes, KnownState>,
    events: VecDeque<WatchEvent>,
    skipped: u64,
    /// How often in a row the node was busy.
    busy: u32,
    /// The pages of the scan since the last poll.
    pages: u32,
    /// Whether the node is known to have no further changes.
    is_level: bool,
}

impl Watch {
    fn of(range: Scan, only: Option<Bytes>) -> Self {
        Watch {
            range: range.with_deleted(),
            only,
            from_version: 0,
            phase: WatchPhase::Begin,
            node: 0,
            cursor: WatchCursor::default(),
            known: BTreeMap::new(),
            events: VecDeque::new(),
            skipped: 0,
            busy: 0,
            pages: 0,
            is_level: false,
        }
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let key = key.into();
        Watch::of(Scan::of_key(key.clone()), Some(key))
    }

    /// All keys that begin with these bytes.
    pub fn prefix(prefix: &[u8]) -> Self {
        Watch::of(Scan::prefix(prefix), None)
    }

    /// Tells no states up to this version. For one key the state of that version counts as told, so
    /// that a deletion since is told. Versions of different keys rise with time, but not strictly:
    /// for a prefix this is a filter, and not a point in time.
    pub fn from_version(mut self, version: Version) -> Self {
        self.from_version = version;
        if let Some(key) = self.only.clone()
            && version > 0
        {
            let is_present = true;
            let known = KnownState {
                version,
                is_present,
            };
            self.known.insert(key, known);
        }
        self
    }

    /// The states in between that the nodes told of as left out. There may be more, which the node
    /// that was watched at never had.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next event that was found already.
    pub fn poll_event(&mut self) -> Option<WatchEvent> {
        self.events.pop_front()
    }

    /// The call to make next. Its result goes to `take`.
    pub fn next_call(&self) -> Call {
        match &self.phase {
            WatchPhase::Begin => self.poll(0),
            WatchPhase::Scan(_) if self.pages >= PAGES_MAX => self.poll_there(0),
            WatchPhase::Scan(cursor) => {
                let call = cursor.next_call().expect("at the end the phase ends");
                Call {
                    node: Some(self.node),
                    deadline_us: Some(PAGE_DEADLINE_US),
                    ..call
                }
            }
            WatchPhase::Poll if self.is_level => self.poll_there(POLL_WAIT_MS),
            WatchPhase::Poll => self.poll_there(0),
        }
    }

    fn poll_there(&self, wait_ms: u32) -> Call {
        Call {
            node: Some(self.node),
            deadline_us: Some(POLL_DEADLINE_US),
            ..self.poll(wait_ms)
        }
    }

    fn poll(&self, wait_ms: u32) -> Call {
        let (first, end) = self.range.edges();
        let action = Action::Watch {
            end,
            cursor: self.cursor,
            wait_ms,
        };
        Call::new(first, action)
    }

    /// The result of the call. An error is returned if the watch cannot go on.
    pub fn take(&mut self, result: Result<Outcome, CallError>) -> Result<(), CallError> {
        if result.is_ok() {
            self.busy = 0;
        }
        match result {
            Ok(Outcome::Watched(page)) => self.take_changes(page),
            Ok(Outcome::Page(page)) => match self.take_page(page) {
                Ok(()) => {}
                Err(error) => self.begin_anew(error)?,
            },
            Ok(other) => unreachable!("the session takes no {other:?} for a watch"),
            Err(error) => self.begin_anew(error)?,
        }
        Ok(())
    }

    fn begin_anew(&mut self, error: CallError) -> Result<(), CallError> {
        match error {
            CallError::NoQuorum { .. }
            | CallError::TimedOut
            | CallError::Busy
            | CallError::WrongAnswer(_) => {}
            fatal => return Err(fatal),
        }
        let has_begun = !matches!(self.phase, WatchPhase::Begin);
        if has_begun && error == CallError::Busy && self.busy < BUSY_MAX {
            self.busy += 1;
            return Ok(());
        }
        self.busy = 0;
        // The node that is watched at may be the only one that does not serve.
        if !has_begun {
            self.events.push_back(WatchEvent::Apart(error));
        }
        self.phase = WatchPhase::Begin;
        self.cursor = WatchCursor::default();
        Ok(())
    }

    fn take_changes(&mut self, page: WatchPage) {
        (self.node, self.cursor) = (page.node, page.cursor);
        (self.pages, self.is_level) = (0, false);
        if page.is_new {
            let cursor = ScanCursor::new(self.range.clone());
            self.phase = match cursor.next_call() {
                Some(_) => WatchPhase::Scan(cursor),
                None => WatchPhase::Poll,
            };
            return;
        }
        self.skipped += page.skipped;
        for entry in page.entries {
            self.see(entry);
        }
        if matches!(self.phase, WatchPhase::Scan(_)) {
            return;
        }
        self.phase = WatchPhase::Poll;
        self.is_level = !page.has_more;
        if self.is_level {
            let behind_ms = page.behind_ms;
            self.events.push_back(WatchEvent::Current { behind_ms });
        }
    }

    fn take_page(&mut self, page: ScanPage) -> Result<(), CallError> {
        let WatchPhase::Scan(cursor) = &mut self.phase else {
            return Ok(());
        };
        let (first, is_after) = cursor.position();
        let last = page.next.clone();
        let entries = cursor.take(page)?;
        let is_over = cursor.next_call().is_none();
        self.miss(&first, is_after, last.as_ref(), &entries);
        for entry in entries {
            self.see(entry);
        }
        self.pages += 1;
        if is_over {
            self.phase = WatchPhase::Poll;
        }
        Ok(())
    }

    /// The keys of the page that the scan did not tell are purged, and no node holds an earlier
    /// state of them.
    fn miss(&mut self, first: &Bytes, is_after: bool, last: Option<&Bytes>, told: &[ScanEntry]) {
        let from = match is_after {
            true => Bound::Excluded(first),
            false => Bound::Included(first),
        };
        let to = last.map_or(Bound::Unbounded, Bound::Included);
        if last.is_some_and(|last| last < first || last == first && is_after) {
            return;
        }
        let is_told = |key: &Bytes| told.binary_search_by(|entry| entry.key.cmp(key)).is_ok();
        let missed = self.known.range::<Bytes, _>((from, to));
        let missed = missed.filter(|(key, _)| !is_told(key));
        let missed: Vec<Bytes> = missed.map(|(key, _)| key.clone()).collect();
        for key in missed {
            let known = self.known.remove(&key).expect("just listed");
            if known.is_present {
                self.events.push_back(WatchEvent::Changed {
                    key,
                    version: 0,
                    value: None,
                });
            }
        }
    }

    /// W1: tells what is newer than what was told.
    fn see(&mut self, entry: ScanEntry) {
        let ScanEntry {
            key,
            version,
            value,
        } = entry;
        let before = self.known.get(&key).copied();
        if before.is_some_and(|known| known.version >= version) {
            return;
        }
        // W3: a transaction's void intent leaves a tombstone on an absent key.
        let is_news = match (&value, before) {
            (Some(_), None) => version > self.from_version,
            (None, None) => self.from_version > 0 && version > self.from_version,
            (Some(_), Some(_)) => true,
            (None, Some(known)) => known.is_present,
        };
        let is_present = value.is_some();
        let known = KnownState {
            version,
            is_present,
        };
        match self.known.get_mut(&key) {
            Some(before) => *before = known,
            // The key shares the memory of its whole page.
            None => drop(self.known.insert(Bytes::copy_from_slice(&key), known)),
        }
        if is_news {
            self.events.push_back(WatchEvent::Changed {
                key,
                version,
                value,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &'static str, version: Version, value: Option<&'static str>) -> ScanEntry {
        ScanEntry {
            key: key.into(),
            version,
            value: value.map(Bytes::from),
        }
    }

    fn begins(watch: &mut Watch, node: u8) {
        let call = watch.next_call();
        assert_eq!(call.node, None);
        let cursor = WatchCursor {
            boot: 7,
            range: 1,
            sequence: 3,
        };
        let page = WatchPage {
            node,
            cursor,
            is_new: true,
            ..WatchPage::default()
        };
        watch.take(Ok(Outcome::Watched(page))).expect("goes on");
    }

    fn scanned(watch: &mut Watch, entries: &[ScanEntry], next: Option<&'static str>) {
        let page = ScanPage {
            entries: entries.to_vec(),
            next: next.map(Bytes::from),
        };
        watch.take(Ok(Outcome::Page(page))).expect("goes on");
    }

    fn polled(watch: &mut Watch, entries: &[ScanEntry]) {
        let page = WatchPage {
            node: 2,
            entries: entries.to_vec(),
            ..WatchPage::default()
        };
        watch.take(Ok(Outcome::Watched(page))).expect("goes on");
    }

    fn told(watch: &mut Watch) -> Vec<(String, Version, bool)> {
        let mut told = Vec::new();
        while let Some(event) = watch.poll_event() {
            if let WatchEvent::Changed {
                key,
                version,
                value,
            } = event
            {
                let name = String::from_utf8(key.to_vec()).expect("text");
                told.push((name, version, value.is_some()));
            }
        }
        told
    }

    fn all(events: &[(&str, Version, bool)]) -> Vec<(String, Version, bool)> {
        let events = events.iter();
        let events = events.map(|(key, version, is)| ((*key).to_owned(), *version, *is));
        events.collect()
    }

    #[test]
    fn a_watch_tells_the_present_state_and_then_what_is_newer() {
        let mut watch = Watch::prefix(b"k");
        begins(&mut watch, 2);
        assert_eq!(watch.next_call().node, Some(2));
        let first = [entry("ka", 5, Some("1")), entry("kb", 9, None)];
        scanned(&mut watch, &first, Some("kb"));
        scanned(&mut watch, &[entry("kc", 6, Some("1"))], None);
        assert_eq!(told(&mut watch), all(&[("ka", 5, true), ("kc", 6, true)]));
        // W3: a late notice of a state before the deletion is not told.
        let late = [
            entry("kb", 8, Some("0")),
            entry("ka", 5, Some("1")),
            entry("kc", 7, None),
            entry("kd", 8, None),
        ];
        polled(&mut watch, &late);
        assert_eq!(told(&mut watch), all(&[("kc", 7, false)]));
        polled(&mut watch, &[entry("kb", 10, Some("2"))]);
        assert_eq!(told(&mut watch), all(&[("kb", 10, true)]));
    }

    #[test]
    fn during_a_long_scan_the_changes_are_polled_and_nothing_is_current() {
        let mut watch = Watch::prefix(b"k");
        begins(&mut watch, 2);
        for next in ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"] {
            assert!(watch.next_call().action.is_scan(), "before {next}");
            scanned(&mut watch, &[], Some(next));
        }
        assert!(watch.next_call().action.is_watch());
        polled(&mut watch, &[entry("k9", 7, Some("1"))]);
        assert_eq!(told(&mut watch), all(&[("k9", 7, true)]));
        assert!(watch.next_call().action.is_scan());
        scanned(&mut watch, &[entry("k9", 6, Some("0"))], None);
        assert_eq!(watch.poll_event(), None);
        let page = WatchPage {
            node: 2,
            has_more: true,
            ..WatchPage::default()
        };
        watch.take(Ok(Outcome::Watched(page))).expect("goes on");
        assert_eq!(watch.poll_event(), None);
        polled(&mut watch, &[]);
        let current = WatchEvent::Current { behind_ms: None };
        assert_eq!(watch.poll_event(), Some(current));
    }

    #[test]
    fn at_another_node_only_what_has_changed_is_told() {
        let mut watch = Watch::prefix(b"k");
        begins(&mut watch, 2);
        let first = [
            entry("ka", 5, Some("1")),
            entry("kb", 6, Some("1")),
            entry("kc", 7, Some("1")),
        ];
        scanned(&mut watch, &first, None);
        told(&mut watch);
        watch.take(Err(CallError::TimedOut)).expect("goes on");
        assert_eq!(told(&mut watch), []);
        begins(&mut watch, 3);
        assert_eq!(watch.next_call().node, Some(3));
        scanned(&mut watch, &[entry("ka", 5, Some("1"))], Some("kb"));
        scanned(&mut watch, &[entry("kc", 8, Some("2"))], None);
        assert_eq!(told(&mut watch), all(&[("kb", 0, false), ("kc", 8, true)]));
    }

    #[test]
    fn a_busy_node_is_asked_again_before_the_watch_begins_anew() {
        let mut watch = Watch::prefix(b"k");
        begins(&mut watch, 2);
        scanned(&mut watch, &[], None);
        for _ in 0..BUSY_MAX {
            watch.take(Err(CallError::Busy)).expect("goes on");
            assert_eq!(watch.next_call().node, Some(2));
        }
        watch.take(Err(CallError::Busy)).expect("goes on");
        assert_eq!(watch.next_call().node, None);
    }

    #[test]
    fn while_no_node_serves_the_watch_says_so_and_goes_on() {
        let mut watch = Watch::key("k");
        watch.take(Err(CallError::Busy)).expect("goes on");
        assert_eq!(watch.poll_event(), Some(WatchEvent::Apart(CallError::Busy)));
        assert_eq!(watch.next_call().node, None);
        assert_eq!(watch.take(Err(CallError::Closed)), Err(CallError::Closed));
    }

    #[test]
    fn a_key_of_any_length_is_watched_alone() {
        let longest = vec![7; wire::KEY_SIZE_MAX];
        for key in [vec![0], vec![255], longest] {
            let call = Watch::key(key.clone()).next_call();
            assert_eq!(call.check(), Ok(()));
            let Action::Watch { end, .. } = call.action else {
                panic!("no poll: {call:?}");
            };
            let mut next = key.clone();
            next.push(0);
            let behind = next.len() > wire::KEY_SIZE_MAX || end[..] <= next[..];
            assert!(call.key[..] == key && end[..] > key[..] && behind);
        }
        assert!(Watch::key("").next_call().check().is_err());
    }

    #[test]
    fn a_watch_of_one_key_goes_on_from_a_version() {
        let mut watch = Watch::key("k").from_version(5);
        begins(&mut watch, 2);
        scanned(&mut watch, &[entry("k", 5, Some("1"))], None);
        assert_eq!(told(&mut watch), []);
        let mut watch = Watch::key("k").from_version(5);
        begins(&mut watch, 2);
        scanned(&mut watch, &[], None);
        assert_eq!(told(&mut watch), all(&[("k", 0, false)]));
        let mut watch = Watch::prefix(b"k").from_version(5);
        begins(&mut watch, 2);
        let keys = [
            entry("ka", 5, Some("1")),
            entry("kb", 6, Some("1")),
            entry("kc", 7, None),
        ];
        scanned(&mut watch, &keys, None);
        assert_eq!(told(&mut watch), all(&[("kb", 6, true), ("kc", 7, false)]));
    }
}
