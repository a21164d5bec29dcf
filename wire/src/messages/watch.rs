//! The changes that a watch tells, as a node answers them.

use bytes::{Buf, Bytes};

use super::scan::{ENTRY_HEADER_SIZE, put_entry, take_entry};
use super::{BodyError, ScanEntry};

/// Where a watch has come to at one node. It says nothing to other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchCursor {
    /// The boot of the node; 0: the watch begins.
    pub boot: u64,
    /// The number of the range at the node. A range that nobody asked about for a while gets
    /// another one.
    pub range: u64,
    /// The last change that was told, or that the watch began after.
    pub sequence: u64,
}

/// The changes of a watched range since a cursor, in the order in which the node learned of them.
/// Each key is told once, with its last state; an entry without a value is a deleted key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchPage {
    pub node: u8,
    pub cursor: WatchCursor,
    /// The node does not know what changed since the cursor that it was given. The watch begins
    /// anew, with a scan at this node.
    pub is_new: bool,
    /// There are further changes, which the next poll tells at once.
    pub has_more: bool,
    /// States in between that are not told.
    pub skipped: u64,
    /// How long ago, in milliseconds, the time was up to which the node knows every change; `None`
    /// if it has not compared its keys with enough members yet.
    pub behind_ms: Option<u64>,
    pub entries: Vec<ScanEntry>,
}

const NEW: u8 = 1;
const MORE: u8 = 2;
/// Node, flags, boot, range, sequence, skipped, behind: in bytes.
const HEADER_SIZE: usize = 1 + 1 + 8 + 8 + 8 + 8 + 8;
const UNKNOWN: u64 = u64::MAX;

impl WatchPage {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + 64 * self.entries.len());
        let new = if self.is_new { NEW } else { 0 };
        let more = if self.has_more { MORE } else { 0 };
        bytes.extend_from_slice(&[self.node, new | more]);
        let behind_ms = self.behind_ms.unwrap_or(UNKNOWN);
        let WatchCursor {
            boot,
            range,
            sequence,
        } = self.cursor;
        for word in [boot, range, sequence, self.skipped, behind_ms] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for entry in &self.entries {
            put_entry(&mut bytes, entry);
        }
        bytes.into()
    }

    /// The keys and values share the memory of `bytes`.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, BodyError> {
        if bytes.remaining() < HEADER_SIZE {
            return Err(BodyError::Malformed);
        }
        let node = bytes.get_u8();
        let flags = bytes.get_u8();
        if flags & !(NEW | MORE) != 0 {
            return Err(BodyError::Bounds);
        }
        let cursor = WatchCursor {
            boot: bytes.get_u64_le(),
            range: bytes.get_u64_le(),
            sequence: bytes.get_u64_le(),
        };
        let skipped = bytes.get_u64_le();
        let behind_ms = Some(bytes.get_u64_le()).filter(|ms| *ms != UNKNOWN);
        let mut entries = Vec::with_capacity(bytes.remaining() / (ENTRY_HEADER_SIZE + 64));
        while bytes.has_remaining() {
            entries.push(take_entry(&mut bytes)?);
        }
        Ok(WatchPage {
            node,
            cursor,
            is_new: flags & NEW != 0,
            has_more: flags & MORE != 0,
            skipped,
            behind_ms,
            entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_survive_the_wire_and_cut_ones_are_refused() {
        let entry = |key: &'static str, value: Option<&'static str>| ScanEntry {
            key: key.into(),
            version: 7,
            value: value.map(Bytes::from),
        };
        let page = WatchPage {
            node: 3,
            cursor: WatchCursor {
                boot: 5,
                range: 6,
                sequence: 9,
            },
            is_new: false,
            has_more: true,
            skipped: 2,
            behind_ms: Some(40),
            entries: vec![
                entry("b", Some("1")),
                entry("a", None),
                entry("c", Some("")),
            ],
        };
        let bytes = page.encode();
        assert_eq!(WatchPage::decode(bytes.clone()), Ok(page.clone()));
        let whole = (0..bytes.len()).filter(|cut| WatchPage::decode(bytes.slice(..*cut)).is_ok());
        // A page may end after its header, and after any entry.
        assert_eq!(whole.count(), page.entries.len());
        let empty = WatchPage::default();
        assert_eq!(WatchPage::decode(empty.encode()), Ok(empty));
        let mut wrong = bytes.to_vec();
        wrong[1] = 4;
        assert_eq!(WatchPage::decode(wrong.into()), Err(BodyError::Bounds));
    }
}
