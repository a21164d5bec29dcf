//! The file `checkpoint`: the parts that count, and where the log that follows them begins. It is
//! replaced as a whole, so each change of the parts happens at one moment: before it the new files
//! are leftovers, after it the old ones.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::types::message::GroupNumber;
use crate::storage::error::StorageError;
use crate::storage::file;
use crate::storage::format::{take, take_slice, u32_at, u64_at};
use crate::storage::log::batch::Position;
use crate::storage::log::segment::{SegmentStart, StoreOwner};
use crate::storage::prefix::{Prefix, cover_all};

const NAME: &str = "checkpoint";
const MAGIC: [u8; 4] = *b"HSCK";
const VERSION: u32 = 1;
const CHECK_SIZE: usize = 8;

/// A part that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartEntry {
    /// Its file is `number.part`.
    pub number: u64,
    pub prefix: Prefix,
    /// It contains what its keys were after this group.
    pub through: GroupNumber,
    /// The number of registers.
    pub registers: u64,
    /// The size of the file in bytes, and the last chain value in it.
    pub size: u64,
    pub chain: u64,
}

/// The node's own state after a group, encoded; empty if there is none yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaEntry {
    pub through: GroupNumber,
    pub value: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The first segment that may hold what a part lacks.
    pub log: SegmentStart,
    /// The number of the next part.
    pub next_part: u64,
    pub meta: MetaEntry,
    /// In order of prefix; they cover each hash once.
    pub parts: Vec<PartEntry>,
}

pub fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

impl Manifest {
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    pub fn registers(&self) -> u64 {
        self.parts.iter().map(|part| part.registers).sum()
    }

    /// What the least and the most advanced part contains.
    pub fn through(&self) -> (GroupNumber, GroupNumber) {
        let all = self.parts.iter().map(|part| part.through);
        let all = all.chain([self.meta.through]);
        let (min, max) = (all.clone().min(), all.max());
        (min.unwrap_or(0), max.unwrap_or(0))
    }

    /// The part for this hash.
    pub fn part_of(&self, hash: u64) -> &PartEntry {
        let after = self
            .parts
            .partition_point(|part| part.prefix.first() <= hash);
        &self.parts[after - 1]
    }

    /// Replaces parts by others with the same hashes.
    pub fn replace(&mut self, old: &[PartEntry], new: &[PartEntry]) {
        self.parts.retain(|part| !old.contains(part));
        self.parts.extend_from_slice(new);
        self.parts.sort_by_key(|part| part.prefix);
        assert!(cover_all(self.prefixes()), "the parts cover each hash once");
    }

    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.parts.iter().map(|part| part.prefix)
    }

    /// Replaces the file, durably. After an error the old or the new one is there.
    pub fn write(&self, store: &Path, owner: StoreOwner) -> Result<(), StorageError> {
        file::replace(&path(store), &self.encode(owner))
    }

    fn encode(&self, owner: StoreOwner) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let SegmentStart { segment, position } = self.log;
        for field in [
            owner.incarnation,
            segment,
            position.group,
            position.chain,
            self.next_part,
            self.meta.through,
            self.meta.value.len() as u64,
            self.parts.len() as u64,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.meta.value);
        for part in &self.parts {
            for field in [
                part.number,
                part.prefix.bits(),
                part.prefix.length(),
                part.through,
                part.registers,
                part.size,
                part.chain,
            ] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
        }
        let check = xxh3_64_with_seed(&bytes, owner.salt);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    pub fn read(store: &Path, owner: StoreOwner) -> Result<Self, StorageError> {
        let path = path(store);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(StorageError::damaged(&path, "it is missing"));
            }
            other => other.map_err(StorageError::io("reading", &path))?,
        };
        let refused = |what: &str| StorageError::damaged(&path, what);
        if bytes.len() < 16 + CHECK_SIZE || bytes[..4] != MAGIC {
            return Err(refused("it does not begin as the list of a checkpoint"));
        }
        if u32_at(&bytes, 4) != VERSION {
            return Err(StorageError::Version {
                path: path.clone(),
                what: "the checkpoint",
                found: u32_at(&bytes, 4),
                known: VERSION,
            });
        }
        if u64_at(&bytes, 8) != owner.incarnation {
            return Err(refused(&format!(
                "it belongs to incarnation {}, the identity file to {}",
                u64_at(&bytes, 8),
                owner.incarnation
            )));
        }
        let (body, check) = bytes.split_at(bytes.len() - CHECK_SIZE);
        if xxh3_64_with_seed(body, owner.salt) != u64_at(check, 0) {
            return Err(refused("its checksum is wrong"));
        }
        decode(&body[16..])
            .filter(|manifest| cover_all(manifest.prefixes()))
            .ok_or_else(|| refused("its list of parts is wrong"))
    }
}

fn decode(mut rest: &[u8]) -> Option<Manifest> {
    let rest = &mut rest;
    let next = |rest: &mut &[u8]| take(rest).map(u64::from_le_bytes);
    let segment = next(rest)?;
    let position = Position {
        group: next(rest)?,
        chain: next(rest)?,
    };
    let next_part = next(rest)?;
    let through = next(rest)?;
    let meta_size = next(rest)?;
    let count = next(rest)?;
    let value = take_slice(rest, usize::try_from(meta_size).ok()?)?.to_vec();
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(PartEntry {
            number: next(rest)?,
            prefix: Prefix::new(next(rest)?, next(rest)?)?,
            through: next(rest)?,
            registers: next(rest)?,
            size: next(rest)?,
            chain: next(rest)?,
        });
    }
    rest.is_empty().then_some(Manifest {
        log: SegmentStart { segment, position },
        next_part,
        meta: MetaEntry { through, value },
        parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: StoreOwner = StoreOwner {
        incarnation: 5,
        salt: 6,
    };

    fn part(number: u64, prefix: Prefix) -> PartEntry {
        PartEntry {
            number,
            prefix,
            through: 10 * number,
            registers: 2,
            size: 100 * number,
            chain: 3,
        }
    }

    fn manifest() -> Manifest {
        let [low, high] = Prefix::ALL.halves().unwrap();
        Manifest {
            log: SegmentStart {
                segment: 4,
                position: Position { group: 5, chain: 6 },
            },
            next_part: 9,
            meta: MetaEntry {
                through: 7,
                value: vec![1, 2, 3],
            },
            parts: vec![part(1, low), part(2, high)],
        }
    }

    #[test]
    fn it_comes_back_and_with_any_byte_changed_it_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path();
        let manifest = manifest();
        manifest.write(store, OWNER).unwrap();
        assert_eq!(Manifest::read(store, OWNER).unwrap(), manifest);
        let whole = fs::read(path(store)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            fs::write(path(store), damaged).unwrap();
            assert!(Manifest::read(store, OWNER).is_err(), "byte {at}");
            fs::write(path(store), &whole[..at]).unwrap();
            assert!(Manifest::read(store, OWNER).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn parts_are_found_by_hash_and_replaced_by_others_with_the_same_hashes() {
        let mut manifest = manifest();
        assert_eq!((manifest.size(), manifest.registers()), (300, 4));
        assert_eq!(manifest.through(), (7, 20));
        let [low, high] = [manifest.parts[0], manifest.parts[1]];
        let quarters = high.prefix.halves().unwrap().map(|prefix| part(3, prefix));
        manifest.replace(&[high], &quarters);
        assert_eq!(manifest.parts, [low, quarters[0], quarters[1]]);
        for part in manifest.parts.clone() {
            for hash in [part.prefix.first(), part.prefix.last()] {
                assert_eq!(manifest.part_of(hash), &part);
            }
        }
    }

    #[test]
    #[should_panic(expected = "cover each hash once")]
    fn a_part_is_not_replaced_by_half_of_it() {
        let mut manifest = manifest();
        let high = manifest.parts[1];
        let [quarter, _] = high.prefix.halves().unwrap();
        manifest.replace(&[high], &[part(3, quarter)]);
    }
}
