//! A batch, as bytes: all groups of one commit, in the log. Each batch contains the chain value of
//! the one before and ends with its own, a salted checksum of everything in it. So a batch that is
//! damaged, lost, repeated, out of order or of another store does not continue the chain, and no
//! value of a client can look like a batch of this store.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::{Group, GroupNumber};
use crate::protocol::types::record::Key;
use crate::storage::format::{self, take, take_slice, u32_at, u64_at};

pub const MAGIC: [u8; 4] = *b"HSBT";
/// Magic, size of the entries, last group, chain value of the batch before.
const FIELDS_SIZE: usize = 4 + 4 + 8 + 8;
/// With a salted checksum: whoever looks for a batch reads only what follows a head of this store.
const HEAD_SIZE: usize = FIELDS_SIZE + 8;
const CHAIN_SIZE: usize = 8;
/// What a batch takes beside its entries.
pub const OVERHEAD_SIZE: usize = HEAD_SIZE + CHAIN_SIZE;

mod kind {
    pub const REGISTER: u8 = 1;
    pub const REMOVAL: u8 = 2;
    pub const CHOSEN: u8 = 3;
    pub const META: u8 = 4;
}

/// A place between two batches: the last group before it, and its chain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub group: GroupNumber,
    pub chain: u64,
}

/// Encodes the groups into `into`, in place of its content; returns the position after the batch.
///
/// # Panics
///
/// If the groups are not in order, or if one of them writes a key and drops it too.
pub fn encode(into: &mut Vec<u8>, groups: &[Group], from: Position, salt: u64) -> Position {
    into.clear();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&[0; HEAD_SIZE - MAGIC.len()]);
    let mut last = from.group;
    for group in groups {
        assert!(group.number > last, "groups come in order of number");
        last = group.number;
        encode_group(into, group);
    }
    let size = u32::try_from(into.len() - HEAD_SIZE).expect("a commit is less than 4 GiB");
    into[4..8].copy_from_slice(&size.to_le_bytes());
    into[8..16].copy_from_slice(&last.to_le_bytes());
    into[16..24].copy_from_slice(&from.chain.to_le_bytes());
    let check = xxh3_64_with_seed(&into[..FIELDS_SIZE], salt);
    into[FIELDS_SIZE..HEAD_SIZE].copy_from_slice(&check.to_le_bytes());
    let chain = xxh3_64_with_seed(into, salt);
    into.extend_from_slice(&chain.to_le_bytes());
    Position { group: last, chain }
}

/// In the order in which the table applies the changes of a group.
fn encode_group(into: &mut Vec<u8>, group: &Group) {
    if let Some(meta) = &group.meta {
        into.push(kind::META);
        sized(into, |into| format::encode_meta(into, meta));
    }
    for (key, state) in &group.registers {
        into.push(kind::REGISTER);
        encode_key(into, key);
        sized(into, |into| format::encode_register(into, state));
    }
    check_dropped(group);
    for key in &group.dropped {
        into.push(kind::REMOVAL);
        encode_key(into, key);
    }
    for (key, ballot) in &group.chosen {
        into.push(kind::CHOSEN);
        encode_key(into, key);
        into.extend_from_slice(&ballot.0.to_le_bytes());
    }
}

fn check_dropped(group: &Group) {
    if group.dropped.is_empty() || group.registers.is_empty() {
        return;
    }
    let dropped: HashSet<&Key> = group.dropped.iter().collect();
    let is_both = group.registers.iter().any(|(key, _)| dropped.contains(key));
    assert!(!is_both, "a group writes a key or drops it");
}

fn encode_key(into: &mut Vec<u8>, key: &Key) {
    let name = key.as_bytes();
    let size = u16::try_from(name.len()).expect("keys are short");
    into.extend_from_slice(&size.to_le_bytes());
    into.extend_from_slice(name);
}

/// Appends what `fill` appends, with its size before it.
fn sized(into: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = into.len();
    into.extend_from_slice(&[0; 4]);
    fill(into);
    let size = u32::try_from(into.len() - at - 4).expect("values are less than 4 GiB");
    into[at..at + 4].copy_from_slice(&size.to_le_bytes());
}

/// A batch that is whole and of this store, wherever it belongs.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The chain value of the batch before it.
    pub previous: u64,
    pub end: Position,
    /// In bytes, with everything.
    pub size: usize,
    entries: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the beginning of these bytes, if there is one.
    pub fn read(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let head = bytes.get(..HEAD_SIZE)?;
        let check = || xxh3_64_with_seed(&head[..FIELDS_SIZE], salt);
        if head[..4] != MAGIC || u64_at(head, FIELDS_SIZE) != check() {
            return None;
        }
        let entries_size = usize::try_from(u32_at(head, 4)).ok()?;
        let end = HEAD_SIZE.checked_add(entries_size)?;
        let chain = bytes.get(end..end.checked_add(CHAIN_SIZE)?)?;
        let chain = u64_at(chain, 0);
        if xxh3_64_with_seed(&bytes[..end], salt) != chain {
            return None;
        }
        Some(Batch {
            previous: u64_at(head, 16),
            end: Position {
                group: u64_at(head, 8),
                chain,
            },
            size: end + CHAIN_SIZE,
            entries: &bytes[HEAD_SIZE..end],
        })
    }

    /// Whether it is the next one after this position.
    pub fn follows(&self, position: Position) -> bool {
        self.previous == position.chain && self.end.group > position.group
    }

    pub fn entries(&self) -> Entries<'a> {
        Entries(self.entries)
    }
}

/// One change, as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    Meta(&'a [u8]),
    Register(&'a [u8], &'a [u8]),
    Removal(&'a [u8]),
    Chosen(&'a [u8], Ballot),
}

/// The entries of a batch, in the order in which they apply. `None` in place of an entry: the rest
/// cannot be read.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a>(pub &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Option<Entry<'a>>> {
        if self.0.is_empty() {
            return None;
        }
        let entry = read_entry(&mut self.0);
        if entry.is_none() {
            self.0 = &[];
        }
        Some(entry)
    }
}

fn read_entry<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let [kind] = take(rest)?;
    match kind {
        kind::META => Some(Entry::Meta(take_sized(rest)?)),
        kind::REGISTER => Some(Entry::Register(take_key(rest)?, take_sized(rest)?)),
        kind::REMOVAL => Some(Entry::Removal(take_key(rest)?)),
        kind::CHOSEN => {
            let key = take_key(rest)?;
            Some(Entry::Chosen(key, Ballot(u64::from_le_bytes(take(rest)?))))
        }
        _ => None,
    }
}

fn take_key<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = u16::from_le_bytes(take(rest)?);
    take_slice(rest, size.into())
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = u32::from_le_bytes(take(rest)?);
    take_slice(rest, usize::try_from(size).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::message::Meta;
    use crate::protocol::types::record::AcceptorState;

    const SALT: u64 = 5;
    const START: Position = Position { group: 3, chain: 9 };

    fn groups() -> Vec<Group> {
        let group = |number| Group {
            number,
            registers: vec![(Key::user(b"a"), AcceptorState::default())],
            dropped: vec![Key::user(b"b")],
            chosen: vec![(Key::user(b"a"), Ballot(7))],
            meta: (number == 5).then(Meta::default),
        };
        vec![group(4), group(5)]
    }

    #[test]
    fn the_entries_come_back_in_order() {
        let mut bytes = vec![1, 2, 3];
        let end = encode(&mut bytes, &groups(), START, SALT);
        let batch = Batch::read(&bytes, SALT).expect("it is whole");
        assert_eq!((batch.end, batch.size), (end, bytes.len()));
        assert!(batch.follows(START) && end.group == 5);
        let entries: Vec<_> = batch.entries().map(|e| e.expect("it is read")).collect();
        let kinds: Vec<u8> = entries
            .iter()
            .map(|entry| match entry {
                Entry::Meta(value) => {
                    assert_eq!(value[1..].len() + 1, value.len());
                    kind::META
                }
                Entry::Register(key, value) => {
                    assert_eq!((*key, value.len()), (&b"\0a"[..], 22));
                    kind::REGISTER
                }
                Entry::Removal(key) => {
                    assert_eq!(*key, b"\0b");
                    kind::REMOVAL
                }
                Entry::Chosen(key, ballot) => {
                    assert_eq!((*key, ballot.0), (&b"\0a"[..], 7));
                    kind::CHOSEN
                }
            })
            .collect();
        assert_eq!(kinds, [1, 2, 3, 4, 1, 2, 3]);
    }

    #[test]
    fn a_batch_with_any_bit_changed_is_none() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &groups(), START, SALT);
        assert!(Batch::read(&bytes, SALT + 1).is_none());
        for at in 0..bytes.len() {
            assert!(Batch::read(&bytes[..at], SALT).is_none());
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(Batch::read(&damaged, SALT).is_none(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_batch_follows_only_the_one_before() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &groups(), START, SALT);
        let batch = Batch::read(&bytes, SALT).expect("it is whole");
        assert!(!batch.follows(batch.end));
        assert!(!batch.follows(Position { chain: 8, ..START }));
        assert!(!batch.follows(Position { group: 5, ..START }));
    }
}
