//! The values of registers and of the node's own state, as bytes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::error::StorageError;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::Meta;
use crate::protocol::types::record::{AcceptorState, Applied, Key, Record};

/// First byte of registers. Versions up to 4 were those of formats before the log.
const REGISTER_VERSION: u8 = 5;
/// First byte of the node's own state.
const META_VERSION: u8 = 4;

/// What a register has, in its second byte.
mod flag {
    pub const CHOSEN: u8 = 0x01;
    pub const RECORD: u8 = 0x02;
    pub const VALUE: u8 = 0x04;
    pub const EXPIRY: u8 = 0x08;
    pub const INTENT: u8 = 0x10;
    pub const ALL: u8 = 0x1f;
}

const FLAGS_AT: usize = 1;
const ACCEPTED_AT: usize = 10;
/// Of a register without a record.
const REGISTER_SIZE_MIN: usize = 22;

/// Appends a register. Its fixed fields come first, so that a checkpoint can set the chosen mark
/// without decoding the rest.
pub fn encode_register(into: &mut Vec<u8>, state: &AcceptorState) {
    let record = state.record.as_deref();
    let has = |flag: u8, is: bool| if is { flag } else { 0 };
    let flags = has(flag::CHOSEN, state.chosen)
        | has(flag::RECORD, record.is_some())
        | has(flag::VALUE, record.is_some_and(|r| r.value.is_some()))
        | has(flag::EXPIRY, record.is_some_and(|r| r.expiry_ms.is_some()))
        | has(flag::INTENT, record.is_some_and(|r| r.intent.is_some()));
    into.extend_from_slice(&[REGISTER_VERSION, flags]);
    into.extend_from_slice(&state.promised.0.to_le_bytes());
    into.extend_from_slice(&state.accepted.0.to_le_bytes());
    into.extend_from_slice(&state.life.to_le_bytes());
    let Some(record) = record else { return };
    into.extend_from_slice(&record.version.to_le_bytes());
    if let Some(expiry_ms) = record.expiry_ms {
        into.extend_from_slice(&expiry_ms.to_le_bytes());
    }
    for bytes in [record.value.as_ref(), record.intent.as_deref()]
        .into_iter()
        .flatten()
    {
        let size = u32::try_from(bytes.len()).expect("values are less than 4 GiB");
        into.extend_from_slice(&size.to_le_bytes());
        into.extend_from_slice(bytes);
    }
    wire::encode(into, &record.applied);
}

pub fn decode_register(path: &Path, bytes: &[u8]) -> Result<AcceptorState, StorageError> {
    let mut rest = versioned(path, "a register", REGISTER_VERSION, bytes)?;
    let fields = read_register(&mut rest);
    let mut state = fields
        .ok_or_else(|| StorageError::damaged(path, "a register is incomplete or too long"))?;
    if let Some(record) = &mut state.record {
        let refused = |e| StorageError::damaged(path, format!("a register holds {e}"));
        let record = Arc::get_mut(record).expect("it is new");
        record.applied = wire::decode(rest).map_err(refused)?;
        record.check().map_err(refused)?;
    }
    Ok(state)
}

/// Everything except the applied table, which remains in `rest`.
fn read_register(rest: &mut &[u8]) -> Option<AcceptorState> {
    let [flags] = take(rest)?;
    let has = |flag: u8| flags & flag != 0;
    let mut state = AcceptorState {
        promised: Ballot(u64::from_le_bytes(take(rest)?)),
        accepted: Ballot(u64::from_le_bytes(take(rest)?)),
        chosen: has(flag::CHOSEN),
        record: None,
        life: u32::from_le_bytes(take(rest)?),
    };
    if !has(flag::RECORD) {
        let is_whole = rest.is_empty() && flags & !flag::CHOSEN == 0;
        return is_whole.then_some(state);
    }
    let record = Record {
        version: u64::from_le_bytes(take(rest)?),
        expiry_ms: match has(flag::EXPIRY) {
            true => Some(u64::from_le_bytes(take(rest)?)),
            false => None,
        },
        value: match has(flag::VALUE) {
            true => Some(take_bytes(rest)?),
            false => None,
        },
        intent: match has(flag::INTENT) {
            true => Some(take_bytes(rest)?.into()),
            false => None,
        },
        applied: Applied::default(),
    };
    state.record = Some(Arc::new(record));
    (flags & !flag::ALL == 0).then_some(state)
}

/// The ballot at which an encoded register was accepted; `None` if it is incomplete.
pub fn accepted(register: &[u8]) -> Option<Ballot> {
    let field = register.get(ACCEPTED_AT..ACCEPTED_AT + 8)?;
    Some(Ballot(u64_at(field, 0)))
}

/// Records in an encoded register that its record is chosen.
pub fn set_chosen(register: &mut [u8]) {
    if register.len() >= REGISTER_SIZE_MIN {
        register[FLAGS_AT] |= flag::CHOSEN;
    }
}

pub fn encode_meta(into: &mut Vec<u8>, meta: &Meta) {
    into.push(META_VERSION);
    wire::encode(into, meta);
}

pub fn decode_meta(path: &Path, bytes: &[u8]) -> Result<Meta, StorageError> {
    let what = "the node's own state";
    let body = versioned(path, what, META_VERSION, bytes)?;
    wire::decode(body).map_err(|e| StorageError::damaged(path, format!("{what} holds {e}")))
}

pub fn decode_key(path: &Path, bytes: &[u8]) -> Result<Key, StorageError> {
    Key::try_from(bytes)
        .map_err(|e| StorageError::damaged(path, format!("a register's key holds {e}")))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Takes a field of fixed size from the front.
pub(super) fn take<const SIZE: usize>(bytes: &mut &[u8]) -> Option<[u8; SIZE]> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*field)
}

/// Takes this many bytes from the front.
pub(super) fn take_slice<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (field, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(field)
}

fn take_bytes(bytes: &mut &[u8]) -> Option<Bytes> {
    let size = u32::from_le_bytes(take(bytes)?);
    let field = take_slice(bytes, usize::try_from(size).ok()?)?;
    Some(Bytes::copy_from_slice(field))
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
            // Ballots and births beyond what is accepted from others are refused.
            ballots in (0..u64::MAX >> 1, 0..u64::MAX >> 1, any::<bool>()),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
            intent in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            expiry_ms in prop::option::of(any::<u64>()),
            has_record in any::<bool>(),
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
                record: has_record.then(|| Arc::new(Record {
                    value: value.map(Bytes::from),
                    version: ballots.0,
                    expiry_ms,
                    intent: intent.map(|intent| Bytes::from(intent).into()),
                    applied: Applied { dropped: 3, clients, slices },
                })),
                life,
            };
            let mut bytes = Vec::new();
            encode_register(&mut bytes, &state);
            prop_assert_eq!(accepted(&bytes), Some(state.accepted));
            prop_assert_eq!(&decode_register(here(), &bytes).unwrap(), &state);
            for size in 0..bytes.len() {
                prop_assert!(decode_register(here(), &bytes[..size]).is_err());
            }
            set_chosen(&mut bytes);
            let chosen = AcceptorState { chosen: true, ..state };
            prop_assert_eq!(decode_register(here(), &bytes).unwrap(), chosen);
            bytes.push(0);
            prop_assert!(decode_register(here(), &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_a_register_or_an_error(
            value in prop::collection::vec(any::<u8>(), 0..50),
            flags in any::<u8>(),
        ) {
            let value = [&[REGISTER_VERSION, flags], &value[..]].concat();
            let _ = decode_register(here(), &value);
            let _ = decode_meta(here(), &value[1..]);
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
        let mut bytes = Vec::new();
        encode_meta(&mut bytes, &meta);
        assert_eq!(decode_meta(here(), &bytes).unwrap(), meta);
    }

    #[test]
    fn another_version_is_refused_by_number_and_name() {
        let (mut register, mut meta) = (Vec::new(), Vec::new());
        encode_register(&mut register, &AcceptorState::default());
        encode_meta(&mut meta, &Meta::default());
        for version in [1, 9] {
            (register[0], meta[0]) = (version, version);
            let register = decode_register(here(), &register).unwrap_err();
            let meta = decode_meta(here(), &meta).unwrap_err();
            for (error, what, known) in [
                (register, "a register", REGISTER_VERSION),
                (meta, "the node's own state", META_VERSION),
            ] {
                let expected = format!(
                    "{what} in store has format version {version}, this build reads version {known}"
                );
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    }
}
