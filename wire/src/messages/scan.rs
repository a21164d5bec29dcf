//! The pages of a scan, as a node answers them. The entries travel as one string of bytes, so that
//! a page costs its receiver no allocation for each key.

use bytes::{Buf, Bytes};

use super::{BodyError, KEY_SIZE_MAX, VALUE_SIZE_MAX, Version};

/// The length of a value that was not asked for.
const NO_VALUE: u32 = u32::MAX;

/// One key that a scan or a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    pub key: Bytes,
    pub version: Version,
    /// `None` if only keys were asked for; of a watch, and of a scan that asks for deleted keys,
    /// too, if the key is deleted.
    pub value: Option<Bytes>,
}

/// Keys in order, with their versions and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanPage {
    pub entries: Vec<ScanEntry>,
    /// The next page begins after this key, which need not be among the entries. `None`: the page
    /// reaches the end of the range.
    pub next: Option<Bytes>,
}

impl ScanPage {
    /// The size of an entry in a page, in bytes.
    pub fn entry_size(key_size: usize, value_size: usize) -> usize {
        ENTRY_HEADER_SIZE + key_size + value_size
    }

    pub(super) fn encode(&self) -> Bytes {
        let size =
            |e: &ScanEntry| Self::entry_size(e.key.len(), e.value.as_ref().map_or(0, Bytes::len));
        let next = self.next.as_deref().unwrap_or_default();
        let total: usize = self.entries.iter().map(size).sum();
        let mut bytes = Vec::with_capacity(2 + next.len() + total);
        bytes.extend_from_slice(&(next.len() as u16).to_le_bytes());
        bytes.extend_from_slice(next);
        for entry in &self.entries {
            put_entry(&mut bytes, entry);
        }
        bytes.into()
    }

    /// The keys and values share the memory of `bytes`.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, BodyError> {
        let next_size = usize::from(bytes.try_get_u16_le().map_err(|_| BodyError::Malformed)?);
        let next = take(&mut bytes, next_size, KEY_SIZE_MAX)?;
        let mut entries: Vec<ScanEntry> = Vec::new();
        while bytes.has_remaining() {
            let entry = take_entry(&mut bytes)?;
            if entries.last().is_some_and(|last| last.key >= entry.key) {
                return Err(BodyError::Bounds);
            }
            entries.push(entry);
        }
        let next = Some(next).filter(|next| !next.is_empty());
        let reaches = |last: &ScanEntry| next.as_ref().is_none_or(|next| last.key <= *next);
        match entries.last().is_none_or(reaches) {
            true => Ok(ScanPage { entries, next }),
            false => Err(BodyError::Bounds),
        }
    }
}

/// Lengths and version of an entry, in bytes.
pub(super) const ENTRY_HEADER_SIZE: usize = 2 + 4 + 8;

pub(super) fn put_entry(bytes: &mut Vec<u8>, entry: &ScanEntry) {
    let value = entry.value.as_deref();
    let value_size = value.map_or(NO_VALUE, |value| value.len() as u32);
    bytes.extend_from_slice(&(entry.key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&value_size.to_le_bytes());
    bytes.extend_from_slice(&entry.version.to_le_bytes());
    bytes.extend_from_slice(&entry.key);
    bytes.extend_from_slice(value.unwrap_or_default());
}

/// Key and value share the memory of `bytes`.
pub(super) fn take_entry(bytes: &mut Bytes) -> Result<ScanEntry, BodyError> {
    if bytes.remaining() < ENTRY_HEADER_SIZE {
        return Err(BodyError::Malformed);
    }
    let key_size = usize::from(bytes.get_u16_le());
    let value_size = bytes.get_u32_le();
    let version = bytes.get_u64_le();
    let key = take(bytes, key_size, KEY_SIZE_MAX)?;
    let value = match value_size {
        NO_VALUE => None,
        size => Some(take(bytes, size as usize, VALUE_SIZE_MAX)?),
    };
    match key.is_empty() {
        true => Err(BodyError::Bounds),
        false => Ok(ScanEntry {
            key,
            version,
            value,
        }),
    }
}

fn take(bytes: &mut Bytes, size: usize, size_max: usize) -> Result<Bytes, BodyError> {
    if size > size_max {
        Err(BodyError::Bounds)
    } else if size > bytes.len() {
        Err(BodyError::Malformed)
    } else {
        Ok(bytes.split_to(size))
    }
}

/// The end of the keys that begin with `prefix`: the first key behind all of them. Empty if there
/// is none, so that the range has no end.
pub fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &'static str, value: Option<&'static str>) -> ScanEntry {
        ScanEntry {
            key: key.into(),
            version: 7,
            value: value.map(Bytes::from),
        }
    }

    #[test]
    fn pages_survive_the_wire_and_cut_ones_are_refused() {
        let page = ScanPage {
            entries: vec![
                entry("a", Some("1")),
                entry("b", None),
                entry("bb", Some("")),
            ],
            next: Some("c".into()),
        };
        let bytes = page.encode();
        assert_eq!(ScanPage::decode(bytes.clone()), Ok(page.clone()));
        let whole = (0..bytes.len()).filter(|cut| ScanPage::decode(bytes.slice(..*cut)).is_ok());
        // A page may end after any entry.
        assert_eq!(whole.count(), page.entries.len());
        let empty = ScanPage::default();
        assert_eq!(ScanPage::decode(empty.encode()), Ok(empty));
    }

    #[test]
    fn a_page_out_of_order_or_beyond_its_end_is_refused() {
        let refused = |entries, next: Option<&'static str>| {
            let next = next.map(Bytes::from);
            ScanPage::decode(ScanPage { entries, next }.encode()) == Err(BodyError::Bounds)
        };
        assert!(refused(vec![entry("b", None), entry("a", None)], None));
        assert!(refused(vec![entry("a", None), entry("a", None)], None));
        assert!(refused(vec![entry("", None)], None));
        assert!(refused(vec![entry("b", None)], Some("a")));
        assert!(!refused(vec![entry("a", None)], Some("a")));
    }

    #[test]
    fn a_prefix_ends_before_the_first_key_behind_it() {
        assert_eq!(&end_of_prefix(b"ab")[..], b"ac");
        assert_eq!(&end_of_prefix(b"a\xff\xff")[..], b"b");
        assert_eq!(&end_of_prefix(b"\xff")[..], b"");
        assert_eq!(&end_of_prefix(b"")[..], b"");
    }
}
