//! S1: a page of a scan, once it is judged, while some of its keys are still read. It holds the
//! only values that a scan keeps: what does not fit the page is dropped as soon as that is known.

use wire::{ScanEntry, ScanPage};

use crate::protocol::register::scan::{Judged, JudgedPage, OwnVotes, ScanTerms, ToldRecord};
use crate::protocol::types::limits::{RANGE_SIZE_MAX, SCAN_READS_AT_ONCE_MAX};
use crate::protocol::types::record::Key;

/// Its values have at most `RANGE_SIZE_MAX` bytes together, or there is only one.
#[derive(Debug)]
pub struct UnfinishedPage {
    /// In order of key.
    keys: Vec<FoundKey>,
    next: Option<Key>,
    terms: ScanTerms,
    /// The place of the first key that no read was begun for.
    begun: usize,
    /// Reads in progress.
    reading: usize,
}

#[derive(Debug)]
struct FoundKey {
    key: Key,
    state: FoundState,
}

#[derive(Debug)]
enum FoundState {
    /// A read of the key says.
    Awaited,
    Absent,
    Present(ToldRecord),
}

impl UnfinishedPage {
    pub fn new(judged: JudgedPage, own: OwnVotes, terms: ScanTerms) -> Self {
        let mut own = own.votes.into_iter().enumerate();
        let keys = judged.keys.into_iter().map(|judged| match judged {
            Judged::Own(place) => {
                let (_, (key, vote)) = own
                    .find(|(at, _)| *at == place)
                    .expect("both are in order of key");
                let told = vote.into_told();
                let state = told.map_or(FoundState::Absent, FoundState::Present);
                FoundKey { key, state }
            }
            Judged::Read(key) => FoundKey {
                key,
                state: FoundState::Awaited,
            },
        });
        let mut page = UnfinishedPage {
            keys: keys.collect(),
            next: judged.next,
            terms,
            begun: 0,
            reading: 0,
        };
        page.cut();
        page
    }

    /// Begins the next read, if another one may be in progress. Returns its place and its key.
    pub fn begin_read(&mut self) -> Option<(usize, Key)> {
        if self.reading >= SCAN_READS_AT_ONCE_MAX {
            return None;
        }
        let next = self.keys[self.begun..]
            .iter()
            .position(FoundKey::is_awaited);
        let Some(place) = next.map(|at| self.begun + at) else {
            self.begun = self.keys.len();
            return None;
        };
        self.begun = place + 1;
        self.reading += 1;
        Some((place, self.keys[place].key.clone()))
    }

    /// Whether the page still needs this read, which was begun.
    pub fn needs(&self, place: usize) -> bool {
        self.keys.get(place).is_some_and(FoundKey::is_awaited)
    }

    /// What the read found, which the page needs; `None`: the key is absent.
    pub fn set(&mut self, place: usize, found: Option<ToldRecord>) {
        self.reading -= 1;
        let told = found.and_then(|found| found.told(self.terms));
        self.keys[place].state = told.map_or(FoundState::Absent, FoundState::Present);
        self.cut();
    }

    /// Whether no read is in progress or to be begun.
    pub fn is_finished(&self) -> bool {
        self.reading == 0 && !self.keys[self.begun..].iter().any(FoundKey::is_awaited)
    }

    pub fn finish(self) -> ScanPage {
        let entries = self.keys.into_iter().filter_map(|found| match found.state {
            FoundState::Present(ToldRecord { version, value }) => Some(ScanEntry {
                key: found.key.name().to_vec().into(),
                version,
                value,
            }),
            FoundState::Awaited | FoundState::Absent => None,
        });
        ScanPage {
            entries: entries.collect(),
            next: self.next.map(|next| next.name().to_vec().into()),
        }
    }

    /// Ends the page behind the last key that fits it. S1: the page reaches up to the key before
    /// the cut, so all that is cut off is in the next one. Reads that are still in progress can
    /// only make the page end earlier.
    fn cut(&mut self) {
        let (mut length, mut size) = (0, 0);
        let mut end = self.keys.len();
        for (place, found) in self.keys.iter().enumerate() {
            let FoundState::Present(told) = &found.state else {
                continue;
            };
            let value_size = told.value.as_ref().map_or(0, |value| value.len());
            size += ScanPage::entry_size(found.key.name().len(), value_size);
            if length > 0 && size > RANGE_SIZE_MAX {
                end = place;
                break;
            }
            length += 1;
            if length == self.terms.length_max || size > RANGE_SIZE_MAX {
                end = place + 1;
                break;
            }
        }
        if end == self.keys.len() {
            return;
        }
        self.keys.truncate(end);
        self.next = self.keys.last().map(|last| last.key.clone());
        self.begun = self.begun.min(end);
        let begun = self.keys[..self.begun].iter();
        self.reading = begun.filter(|found| found.is_awaited()).count();
    }
}

impl FoundKey {
    fn is_awaited(&self) -> bool {
        matches!(self.state, FoundState::Awaited)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::register::scan::OwnVote;
    use crate::protocol::types::limits::{RANGE_KEYS_MAX, SCAN_READS_MAX};
    use crate::protocol::types::page::RangeState;
    use crate::protocol::types::record::{AcceptorState, Record};

    const ALL: ScanTerms = ScanTerms {
        length_max: RANGE_KEYS_MAX,
        keys_only: false,
        deleted: false,
    };

    fn name(number: usize) -> String {
        format!("{number:04}")
    }

    fn key(number: usize) -> Key {
        Key::user(name(number).as_bytes())
    }

    fn told(size: usize) -> Option<ToldRecord> {
        Some(ToldRecord {
            version: 1,
            value: Some(vec![b'v'; size].into()),
        })
    }

    /// The coordinator's own keys with the sizes of their values; `None` is to be read.
    fn page(keys: &[Option<usize>], terms: ScanTerms) -> UnfinishedPage {
        let (mut judged, mut own) = (JudgedPage::default(), OwnVotes::default());
        for (number, size) in keys.iter().enumerate() {
            let Some(size) = size else {
                judged.keys.push(Judged::Read(key(number)));
                continue;
            };
            let record = Record {
                value: Some(vec![b'v'; *size].into()),
                ..Record::default()
            };
            let state = AcceptorState {
                record: Some(Arc::new(record)),
                ..AcceptorState::default()
            };
            judged.keys.push(Judged::Own(own.votes.len()));
            let vote = OwnVote::of(&RangeState::from(&state), terms);
            own.votes.push((key(number), vote));
        }
        UnfinishedPage::new(judged, own, terms)
    }

    fn held(page: &UnfinishedPage) -> usize {
        let sizes = page.keys.iter().map(|found| match &found.state {
            FoundState::Present(told) => told.value.as_ref().map_or(0, Bytes::len),
            FoundState::Awaited | FoundState::Absent => 0,
        });
        sizes.sum()
    }

    /// Begins all reads that may be in progress, and lets them end, the last one first.
    fn read_all(page: &mut UnfinishedPage, mut found: impl FnMut(usize) -> Option<ToldRecord>) {
        while !page.is_finished() {
            let reads: Vec<usize> =
                std::iter::from_fn(|| page.begin_read().map(|(place, _)| place)).collect();
            assert!((1..=SCAN_READS_AT_ONCE_MAX).contains(&reads.len()));
            for place in reads.into_iter().rev() {
                if page.needs(place) {
                    page.set(place, found(place));
                }
            }
        }
    }

    fn finished(page: UnfinishedPage) -> (usize, Option<String>) {
        let page = page.finish();
        let next = page
            .next
            .map(|next| String::from_utf8(next.to_vec()).expect("text"));
        (page.entries.len(), next)
    }

    #[test]
    fn values_that_do_not_fit_are_dropped_and_left_to_the_next_page() {
        let size = RANGE_SIZE_MAX / 4;
        let mut unfinished = page(&[None; SCAN_READS_MAX], ALL);
        read_all(&mut unfinished, |_| told(size));
        assert_eq!(finished(unfinished), (3, Some(name(2))));
        // One value of any size is in a page, and no second one is held beside it.
        let mut unfinished = page(&[None; SCAN_READS_MAX], ALL);
        let mut most = 0;
        while let Some((place, _)) = unfinished.begin_read() {
            unfinished.set(place, told(1 << 20));
            most = most.max(held(&unfinished));
        }
        assert_eq!(most, 1 << 20);
        assert_eq!(finished(unfinished), (1, Some(name(0))));
        let mut unfinished = page(&[None; SCAN_READS_MAX], ALL);
        read_all(&mut unfinished, |_| told(1 << 20));
        assert_eq!(finished(unfinished), (1, Some(name(0))));
    }

    #[test]
    fn a_read_before_held_values_pushes_them_out() {
        let mut unfinished = page(&[None, Some(RANGE_SIZE_MAX / 2), None, Some(9)], ALL);
        let first = unfinished.begin_read().expect("a read");
        assert_eq!(first, (0, key(0)));
        assert_eq!(unfinished.begin_read(), Some((2, key(2))));
        unfinished.set(0, told(RANGE_SIZE_MAX / 2));
        // The page ends before key 1, so the read of key 2 is no longer needed.
        assert!(unfinished.is_finished() && !unfinished.needs(2));
        assert_eq!(finished(unfinished), (1, Some(name(0))));
    }

    #[test]
    fn absent_keys_before_the_cut_are_in_the_page() {
        let large = Some(RANGE_SIZE_MAX - 100);
        let mut unfinished = page(&[large, None, Some(200)], ALL);
        assert_eq!(unfinished.next, Some(key(1)));
        read_all(&mut unfinished, |_| None);
        assert_eq!(finished(unfinished), (1, Some(name(1))));
        let mut whole = page(&[None, Some(9), None], ALL);
        read_all(&mut whole, |_| None);
        assert_eq!(finished(whole), (1, None));
    }

    #[test]
    fn keys_alone_hold_no_values_and_a_page_has_no_more_than_the_limit() {
        let keys_only = ScanTerms {
            keys_only: true,
            ..ALL
        };
        let mut keys = vec![Some(1_000); RANGE_KEYS_MAX];
        keys.extend([None; SCAN_READS_MAX]);
        let mut unfinished = page(&keys[1..], keys_only);
        assert_eq!(held(&unfinished), 0);
        read_all(&mut unfinished, |_| told(1_000));
        assert_eq!(held(&unfinished), 0);
        let last = Some(name(RANGE_KEYS_MAX - 1));
        assert_eq!(finished(unfinished), (RANGE_KEYS_MAX, last));
        let two = ScanTerms {
            length_max: 2,
            ..ALL
        };
        let mut unfinished = page(&[None, None, Some(9), None, Some(9), None], two);
        read_all(&mut unfinished, |place| told(9).filter(|_| place > 0));
        assert_eq!(finished(unfinished), (2, Some(name(2))));
    }
}
