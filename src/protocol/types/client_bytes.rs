//! The clients of an applied table as one byte string.
//!
//! Every Accept, every answer with a record and every entry on disk carries the whole table, and a
//! key that many clients write has an entry for each of them. As arrays of numbers these entries
//! took more of a node's time than everything else that it did with the message.
//!
//! All numbers are little endian. An entry is the client (16 bytes), its mark (8), its highest
//! birth (8), the number of its operations (2), and these, each with its sequence (8), its birth
//! (8) and its outcome. An outcome begins with one byte:
//!
//! - 0: written, without an old value and a number; the version (8) follows;
//! - 1: the same, with a number; the version (8) and the number (8, signed) follow;
//! - 2: any outcome; its size (2) and its encoding as in an answer follow;
//! - 3: a placed intent; the attempt (4) follows.
//!
//! Earlier releases wrote an array of arrays, which is still read.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};
use wire::{BodyError, Old, Outcome};

use crate::protocol::types::record::{AppliedOperation, ClientEntry};

const WRITTEN: u8 = 0;
const WRITTEN_NUMBER: u8 = 1;
const OTHER: u8 = 2;
const PLACED: u8 = 3;
/// The least that an operation takes, in bytes.
const OPERATION_SIZE_MIN: usize = 8 + 8 + 1 + 2;

pub fn serialize<S: Serializer>(clients: &[ClientEntry], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&to_bytes(clients))
}

fn to_bytes(clients: &[ClientEntry]) -> Vec<u8> {
    let operations: usize = clients.iter().map(|entry| entry.operations.len()).sum();
    let mut bytes = Vec::with_capacity(34 * clients.len() + 33 * operations);
    for entry in clients {
        bytes.extend_from_slice(&entry.client.to_le_bytes());
        bytes.extend_from_slice(&entry.mark.to_le_bytes());
        bytes.extend_from_slice(&entry.birth_max.to_le_bytes());
        let count = u16::try_from(entry.operations.len());
        let count = count.expect("a table has at most 1,024 operations");
        bytes.extend_from_slice(&count.to_le_bytes());
        for operation in &entry.operations {
            bytes.extend_from_slice(&operation.sequence.to_le_bytes());
            bytes.extend_from_slice(&operation.birth.to_le_bytes());
            write_outcome(&mut bytes, &operation.outcome);
        }
    }
    bytes
}

fn write_outcome(bytes: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Written {
            version,
            old: Old::NotAsked,
            number,
        } => {
            bytes.push(if number.is_some() {
                WRITTEN_NUMBER
            } else {
                WRITTEN
            });
            bytes.extend_from_slice(&version.to_le_bytes());
            if let Some(number) = number {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Outcome::Placed { attempt } => {
            bytes.push(PLACED);
            bytes.extend_from_slice(&attempt.to_le_bytes());
        }
        other => {
            let mut encoded = Vec::new();
            wire::encode(&mut encoded, other);
            let size = u16::try_from(encoded.len()).expect("old values are short here");
            bytes.push(OTHER);
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&encoded);
        }
    }
}

pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<ClientEntry>, D::Error> {
    deserializer.deserialize_any(ClientsVisitor)
}

struct ClientsVisitor;

impl<'de> Visitor<'de> for ClientsVisitor {
    type Value = Vec<ClientEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the clients of an applied table")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        read_clients(bytes).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut clients = Vec::new();
        while let Some(entry) = entries.next_element()? {
            clients.push(entry);
        }
        Ok(clients)
    }
}

fn read_clients(mut bytes: &[u8]) -> Result<Vec<ClientEntry>, BodyError> {
    let bytes = &mut bytes;
    // Most tables have one client with one operation. Grown from nothing, each vector of every
    // record in memory would have room for four.
    let mut clients = Vec::with_capacity(usize::from(!bytes.is_empty()));
    while !bytes.is_empty() {
        let client = u128::from_le_bytes(take(bytes)?);
        let mark = u64::from_le_bytes(take(bytes)?);
        let birth_max = u64::from_le_bytes(take(bytes)?);
        let count = u16::from_le_bytes(take(bytes)?);
        if usize::from(count) > bytes.len() / OPERATION_SIZE_MIN {
            return Err(BodyError::Malformed);
        }
        let mut operations = Vec::with_capacity(count.into());
        for _ in 0..count {
            operations.push(read_operation(bytes)?);
        }
        clients.push(ClientEntry {
            client,
            mark,
            birth_max,
            operations,
        });
    }
    Ok(clients)
}

fn read_operation(bytes: &mut &[u8]) -> Result<AppliedOperation, BodyError> {
    Ok(AppliedOperation {
        sequence: u64::from_le_bytes(take(bytes)?),
        birth: u64::from_le_bytes(take(bytes)?),
        outcome: read_outcome(bytes)?,
    })
}

fn read_outcome(bytes: &mut &[u8]) -> Result<Outcome, BodyError> {
    let [kind] = take(bytes)?;
    match kind {
        WRITTEN | WRITTEN_NUMBER => Ok(Outcome::Written {
            version: u64::from_le_bytes(take(bytes)?),
            old: Old::NotAsked,
            number: match kind {
                WRITTEN_NUMBER => Some(i64::from_le_bytes(take(bytes)?)),
                _ => None,
            },
        }),
        OTHER => {
            let size = usize::from(u16::from_le_bytes(take(bytes)?));
            let (encoded, rest) = bytes.split_at_checked(size).ok_or(BodyError::Malformed)?;
            *bytes = rest;
            wire::decode(encoded)
        }
        PLACED => Ok(Outcome::Placed {
            attempt: u32::from_le_bytes(take(bytes)?),
        }),
        _ => Err(BodyError::Bounds),
    }
}

fn take<const SIZE: usize>(bytes: &mut &[u8]) -> Result<[u8; SIZE], BodyError> {
    let (taken, rest) = bytes
        .split_first_chunk::<SIZE>()
        .ok_or(BodyError::Malformed)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Compact(#[serde(with = "super")] Vec<ClientEntry>);

    #[derive(Serialize)]
    struct Arrays(Vec<ClientEntry>);

    fn outcome() -> impl Strategy<Value = Outcome> {
        let old = prop_oneof![
            Just(Old::NotAsked),
            Just(Old::Absent),
            Just(Old::Forgotten),
            prop::collection::vec(any::<u8>(), 0..257).prop_map(|bytes| Old::Value(bytes.into())),
        ];
        let written = (any::<u64>(), old, any::<Option<i64>>());
        prop_oneof![
            written.prop_map(|(version, old, number)| Outcome::Written {
                version,
                old,
                number
            }),
            any::<u64>().prop_map(|version| Outcome::Conflict {
                version,
                old: Old::NotAsked
            }),
            Just(Outcome::NothingToDelete),
            Just(Outcome::Overflow),
            any::<u32>().prop_map(|attempt| Outcome::Placed { attempt }),
        ]
    }

    fn entry() -> impl Strategy<Value = ClientEntry> {
        let birth = 0..=wire::clock::READING_SANE_MAX;
        let operation = (any::<u64>(), birth.clone(), outcome());
        let operation = operation.prop_map(|(sequence, birth, outcome)| AppliedOperation {
            sequence,
            birth,
            outcome,
        });
        let operations = prop::collection::vec(operation, 0..4);
        (any::<u128>(), any::<u64>(), birth, operations).prop_map(
            |(client, mark, birth_max, operations)| ClientEntry {
                client,
                mark,
                birth_max,
                operations,
            },
        )
    }

    fn encoded(body: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        bytes
    }

    proptest! {
        #[test]
        fn clients_are_read_back_from_both_forms(clients in prop::collection::vec(entry(), 0..20)) {
            let bytes = encoded(&Compact(clients.clone()));
            let arrays = encoded(&Arrays(clients.clone()));
            prop_assert_eq!(wire::decode::<Compact>(&arrays).unwrap().0, clients.clone());
            prop_assert_eq!(wire::decode::<Compact>(&bytes).unwrap().0, clients);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(clients) = read_clients(&bytes) {
                let again = encoded(&Compact(clients.clone()));
                prop_assert_eq!(wire::decode::<Compact>(&again).unwrap().0, clients);
            }
        }

        #[test]
        fn an_entry_that_is_cut_is_refused(entry in entry(), at in any::<prop::sample::Index>()) {
            let bytes = to_bytes(&[entry]);
            let cut = 1 + at.index(bytes.len() - 1);
            prop_assert!(read_clients(&bytes[..cut]).is_err());
        }
    }
}
