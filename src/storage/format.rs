//! The entries of the store, as bytes: keys with their prefix, values with their version.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::error::StorageError;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::{GroupNumber, Incarnation, Meta};
use crate::protocol::types::record::{AcceptorState, Key};

/// First bytes of the engine's keys. All share one keyspace, so that the engine moves them from its
/// journal to its tables together: a group number is never newer than the registers beside it.
pub mod prefix {
    pub const GROUP: u8 = 0x01;
    pub const META: u8 = 0x02;
    pub const REGISTER: u8 = 0x10;
    pub const CHOSEN: u8 = 0x11;
}

pub const GROUP_KEY: [u8; 1] = [prefix::GROUP];
pub const META_KEY: [u8; 1] = [prefix::META];

/// First byte of chosen marks, and of group entries without a salted checksum.
const VERSION: u8 = 1;
/// First byte of a group entry with a salted checksum.
const GROUP_VERSION: u8 = 2;
/// First byte of registers. Version 2 added their admission; version 3 slices of text operations;
/// in version 4 the clients of the applied table are one byte string.
const REGISTER_VERSION: u8 = 4;
/// The first version that this build reads.
const REGISTER_VERSION_MIN: u8 = 2;
/// First byte of the node's own state. Version 2 added incarnation, admission and floor; version 3
/// the bucket hash key; version 4 splits by force and former nodes.
const META_VERSION: u8 = 4;
const GROUP_SIZE: usize = 1 + 4 * 8 + 8;
const SEALED_SIZE: usize = GROUP_SIZE + 8;

/// Written with each commit: which group the store ends with, and what it then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEntry {
    pub number: GroupNumber,
    pub incarnation: Incarnation,
    pub registers: u64,
    pub digest: u64,
}

impl GroupEntry {
    /// Encodes with a salted checksum that only this store can make: the salt of its directory is
    /// never sent, so no client can write a value that contains such a checksum.
    pub fn encode(&self, salt: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEALED_SIZE);
        bytes.push(GROUP_VERSION);
        for field in [self.number, self.incarnation, self.registers, self.digest] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        let check = xxh3_64(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        let seal = xxh3_64_with_seed(&bytes, salt);
        bytes.extend_from_slice(&seal.to_le_bytes());
        bytes
    }

    /// Whether the entry was written by the store with this salt.
    pub fn is_sealed(bytes: &[u8], salt: u64) -> bool {
        bytes.len() == SEALED_SIZE
            && xxh3_64_with_seed(&bytes[..GROUP_SIZE], salt) == u64_at(bytes, GROUP_SIZE)
    }

    /// Accepts entries with or without the salted checksum, which is verified only where
    /// `is_sealed` is called.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, StorageError> {
        let size = match bytes.first() {
            Some(&VERSION) => GROUP_SIZE,
            _ => SEALED_SIZE,
        };
        if size == SEALED_SIZE {
            versioned(path, "the group entry", GROUP_VERSION, bytes)?;
        }
        if bytes.len() != size || xxh3_64(&bytes[..GROUP_SIZE - 8]) != u64_at(bytes, GROUP_SIZE - 8)
        {
            return Err(StorageError::damaged(path, "its group entry is incomplete"));
        }
        Ok(GroupEntry {
            number: u64_at(bytes, 1),
            incarnation: u64_at(bytes, 9),
            registers: u64_at(bytes, 17),
            digest: u64_at(bytes, 25),
        })
    }
}

/// An entry of the store, as the scan at opening reads it.
#[derive(Debug)]
pub enum Entry {
    Group(GroupEntry),
    Meta(Box<Meta>),
    Register(Key, AcceptorState),
    Chosen(Key, Ballot),
}

impl Entry {
    pub fn decode(path: &Path, key: &[u8], value: &[u8]) -> Result<Self, StorageError> {
        let Some((first, rest)) = key.split_first() else {
            return Err(StorageError::damaged(path, "it holds an empty key"));
        };
        match (*first, rest.is_empty()) {
            (prefix::GROUP, true) => GroupEntry::decode(path, value).map(Entry::Group),
            (prefix::META, true) => {
                let body = versioned(path, "the node's own state", META_VERSION, value)?;
                decode_body(path, "the node's own state", body).map(|m| Entry::Meta(Box::new(m)))
            }
            (prefix::REGISTER, false) => {
                let key = decode_key(path, rest)?;
                let is_known =
                    |version: &u8| (REGISTER_VERSION_MIN..=REGISTER_VERSION).contains(version);
                let known = value.first().copied().filter(is_known);
                let known = known.unwrap_or(REGISTER_VERSION);
                let body = versioned(path, "a register", known, value)?;
                let state: AcceptorState = decode_body(path, "a register", body)?;
                let record = state.record.as_deref();
                record
                    .map_or(Ok(()), |record| record.check())
                    .map_err(|e| StorageError::damaged(path, format!("a register holds {e}")))?;
                Ok(Entry::Register(key, state))
            }
            (prefix::CHOSEN, false) => {
                let key = decode_key(path, rest)?;
                let body = versioned(path, "a chosen mark", VERSION, value)?;
                let ballot = <[u8; 8]>::try_from(body)
                    .map_err(|_| StorageError::damaged(path, "a chosen mark is incomplete"))?;
                Ok(Entry::Chosen(key, Ballot(u64::from_le_bytes(ballot))))
            }
            _ => Err(StorageError::damaged(
                path,
                format!("it holds a key with the unknown prefix {first:#04x}"),
            )),
        }
    }
}

pub fn register_key(key: &Key) -> Vec<u8> {
    prefixed(prefix::REGISTER, key)
}

pub fn chosen_key(key: &Key) -> Vec<u8> {
    prefixed(prefix::CHOSEN, key)
}

pub fn encode_register(state: &AcceptorState) -> Vec<u8> {
    encode_body(REGISTER_VERSION, state)
}

pub fn encode_meta(meta: &Meta) -> Vec<u8> {
    encode_body(META_VERSION, meta)
}

pub fn encode_chosen(ballot: Ballot) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&ballot.0.to_le_bytes());
    bytes
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn prefixed(prefix: u8, key: &Key) -> Vec<u8> {
    let name = key.as_bytes();
    let mut bytes = Vec::with_capacity(1 + name.len());
    bytes.push(prefix);
    bytes.extend_from_slice(name);
    bytes
}

fn encode_body<T: Serialize>(version: u8, body: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    wire::encode(&mut bytes, body);
    bytes
}

fn decode_body<T: DeserializeOwned>(
    path: &Path,
    what: &str,
    body: &[u8],
) -> Result<T, StorageError> {
    wire::decode(body).map_err(|e| StorageError::damaged(path, format!("{what} holds {e}")))
}

fn decode_key(path: &Path, bytes: &[u8]) -> Result<Key, StorageError> {
    Key::try_from(bytes)
        .map_err(|e| StorageError::damaged(path, format!("a register's key holds {e}")))
}

/// The bytes after the version byte.
fn versioned<'a>(
    path: &Path,
    what: &'static str,
    known: u8,
    value: &'a [u8],
) -> Result<&'a [u8], StorageError> {
    match value.split_first() {
        Some((&found, body)) if found == known => Ok(body),
        Some((&found, _)) => Err(StorageError::Version {
            path: path.to_path_buf(),
            what,
            found: found.into(),
            known: known.into(),
        }),
        None => Err(StorageError::damaged(path, format!("{what} is empty"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::types::configuration::{AdmissionBase, Forced};
    use crate::protocol::types::digest::Spread;
    use crate::protocol::types::message::{Configuration, Member};
    use crate::protocol::types::record::{Applied, ClientEntry, Record, TextSlice};

    fn here() -> &'static Path {
        Path::new("store")
    }

    proptest! {
        #[test]
        fn registers_come_back(
            name in prop::collection::vec(any::<u8>(), 1..40),
            // Ballots and births beyond what is accepted from others are refused.
            ballots in (0..u64::MAX >> 1, 0..u64::MAX >> 1, any::<bool>()),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
            clients in prop::collection::vec((any::<u128>(), any::<u64>(), 0..1u64 << 55), 0..3),
            slices in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..9), 0..3),
            life in any::<u32>(),
        ) {
            let clients = clients.into_iter().map(|(client, mark, birth_max)| ClientEntry {
                client, mark, birth_max, operations: vec![],
            }).collect();
            let slices: Vec<TextSlice> = slices.into_iter().map(|hashes| TextSlice {
                first: 4, last: 5, hashes,
            }).collect();
            let state = AcceptorState {
                promised: Ballot(ballots.0),
                accepted: Ballot(ballots.1),
                chosen: ballots.2,
                record: Some(Arc::new(Record {
                    value: value.map(Bytes::from),
                    version: ballots.0,
                    expiry_ms: Some(ballots.1),
                    intent: None,
                    applied: Applied { dropped: 3, clients, slices },
                })),
                life,
            };
            let key = Key::user(&name);
            let bytes = encode_register(&state);
            let entry = Entry::decode(here(), &register_key(&key), &bytes);
            match entry.unwrap() {
                Entry::Register(k, s) => prop_assert_eq!((k, s), (key, state)),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(
            key in prop::collection::vec(any::<u8>(), 0..5),
            value in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let _ = Entry::decode(here(), &key, &value);
        }
    }

    #[test]
    fn the_nodes_own_state_comes_back() {
        let member = |node| Member {
            node,
            incarnation: 2,
            address: "a:1".into(),
            removals: 4,
            removed_at: 5,
        };
        let forced = Forced {
            lineage: 4,
            from: 5,
        };
        let meta = Meta {
            ceiling: 9,
            bound_to: Some(8),
            configuration: Some(Configuration {
                cluster: 1,
                epoch: 1,
                members: vec![member(1)],
                joint: Some(vec![member(2)]),
                base: Ballot(3),
                formed_by: 2,
                away: vec![member(3)],
                ids: 3,
                forced: true,
                spread: Spread::new(u128::MAX - 7, 4_096),
                forces: vec![forced],
                name: "orders".to_owned(),
                admissions: vec![AdmissionBase {
                    node: 1,
                    base: Ballot(2),
                }],
            }),
            incarnation: 6,
            life: 7,
            floor: Ballot(8),
            starts: 9,
            splits: vec![Configuration::default(); 2],
            former: [(3, "h3:7000".to_owned())].into(),
        };
        match Entry::decode(here(), &META_KEY, &encode_meta(&meta)).unwrap() {
            Entry::Meta(decoded) => assert_eq!(*decoded, meta),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_entry_with_any_byte_changed_is_refused() {
        let entry = GroupEntry {
            number: 7,
            incarnation: 8,
            registers: 9,
            digest: 10,
        };
        let bytes = entry.encode(5);
        assert_eq!(GroupEntry::decode(here(), &bytes).unwrap(), entry);
        assert!(GroupEntry::is_sealed(&bytes, 5) && !GroupEntry::is_sealed(&bytes, 6));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let decoded = GroupEntry::decode(here(), &damaged);
            assert!(at >= GROUP_SIZE || decoded.is_err());
            assert!(!GroupEntry::is_sealed(&damaged, 5));
            assert!(GroupEntry::decode(here(), &bytes[..at]).is_err());
        }
    }

    /// As releases before the salted checksum wrote it.
    #[test]
    fn a_group_entry_without_a_seal_is_read() {
        let entry = GroupEntry {
            number: 7,
            incarnation: 8,
            registers: 9,
            digest: 10,
        };
        let mut bytes = entry.encode(5);
        bytes.truncate(GROUP_SIZE - 8);
        bytes[0] = VERSION;
        let check = xxh3_64(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        assert_eq!(GroupEntry::decode(here(), &bytes).unwrap(), entry);
        assert!(!GroupEntry::is_sealed(&bytes, 5));
    }

    #[test]
    fn another_version_is_refused_by_number_and_name() {
        let key = Key::user(b"a");
        let register = encode_register(&AcceptorState::default());
        for (key, mut value, what, known) in [
            (register_key(&key), register, "a register", REGISTER_VERSION),
            (
                META_KEY.to_vec(),
                encode_meta(&Meta::default()),
                "the node's own state",
                META_VERSION,
            ),
        ] {
            for version in [1, 9] {
                value[0] = version;
                let error = Entry::decode(here(), &key, &value).unwrap_err();
                let expected = format!(
                    "{what} in store has format version {version}, this build reads version {known}"
                );
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    }
}
