//! The keys of a scan, one after the other.

use std::iter::FusedIterator;

use super::Client;
use crate::session::{CallError, Scan, ScanCursor};
use wire::{Outcome, ScanEntry};

/// The keys of a scan. It holds one page at a time.
#[derive(Debug)]
pub struct ScanEntries<'a> {
    client: &'a Client,
    pages: ScanPages,
    failed: bool,
}

/// The entries of a scan, without a client.
#[derive(Debug)]
pub struct ScanPages {
    cursor: ScanCursor,
    page: std::vec::IntoIter<ScanEntry>,
}

impl ScanPages {
    pub fn new(scan: Scan) -> Self {
        ScanPages {
            cursor: ScanCursor::new(scan),
            page: Vec::new().into_iter(),
        }
    }

    /// The next key; `None` at the end. After an error the scan is where it was before: the next
    /// call asks again.
    pub fn next(&mut self, client: &Client) -> Result<Option<ScanEntry>, CallError> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            let Some(call) = self.cursor.next_call() else {
                return Ok(None);
            };
            match client.call(call)? {
                Outcome::Page(page) => self.page = self.cursor.take(page)?.into_iter(),
                other => unreachable!("the session takes no {other:?} for a page"),
            }
        }
    }
}

impl Client {
    /// The keys of a range, in order, as they are told page by page. Each key is told as it was at
    /// some moment during the scan: one that was present all the time is told, one that was absent
    /// all the time is not. After an error the iterator ends.
    pub fn scan(&self, scan: Scan) -> ScanEntries<'_> {
        ScanEntries {
            client: self,
            pages: ScanPages::new(scan),
            failed: false,
        }
    }
}

impl Iterator for ScanEntries<'_> {
    type Item = Result<ScanEntry, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.pages.next(self.client);
        self.failed = next.is_err();
        next.transpose()
    }
}

impl FusedIterator for ScanEntries<'_> {}
