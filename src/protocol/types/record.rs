//! The parts of a key's state: keys with their space, records, the content of the applied table,
//! and the acceptor's state. Data and bounds only; the rules are in `register` and `applied`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::clock::{READING_MAX, Reading};
use wire::{
    Birth, BodyError, ClientId, KEY_SIZE_MAX, OLD_VALUE_KEPT_SIZE_MAX, Old, Outcome,
    VALUE_SIZE_MAX, Version,
};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::client_bytes;
use crate::protocol::types::encoded_intent::EncodedIntent;
use crate::protocol::types::limits::{
    APPLIED_OPERATIONS_MAX, APPLIED_SIZE_MAX, RECORD_OVERHEAD_SIZE, TEXT_SLICE_OVERHEAD_SIZE,
    TEXT_SLICES_SIZE_MAX,
};

pub const SPACE_USER: u8 = 0;
pub const SPACE_CONFIGURATION: u8 = 1;
pub const SPACE_TRANSACTION: u8 = 2;

/// A space byte and the name, with the same bytes on the wire and on disk. The allocation is
/// shared, because a node holds each of its keys in several tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    pub fn user(name: &[u8]) -> Self {
        Key([SPACE_USER].iter().chain(name).copied().collect())
    }

    /// The register in which configurations are chosen.
    pub fn configuration() -> Self {
        Key(Arc::from(b"\x01configuration".as_slice()))
    }

    pub(super) fn of_transaction(name: &[u8]) -> Self {
        Key([SPACE_TRANSACTION].iter().chain(name).copied().collect())
    }

    pub fn space(&self) -> u8 {
        self.0[0]
    }

    pub fn name(&self) -> &[u8] {
        &self.0[1..]
    }

    /// The space byte and the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = BodyError;

    fn try_from(bytes: &[u8]) -> Result<Self, BodyError> {
        let sized = (2..=KEY_SIZE_MAX + 1).contains(&bytes.len());
        if sized && bytes[0] <= SPACE_TRANSACTION {
            Ok(Key(Arc::from(bytes)))
        } else {
            Err(BodyError::Bounds)
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key's bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Key::try_from(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

/// What a quorum agrees on for one key at one ballot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// V1: the token for compare-and-swap.
    pub version: Version,
    /// L1: the time from which the key is absent, in milliseconds since 1970. Only a value has one.
    pub expiry_ms: Option<u64>,
    /// T2: a transaction's intent; what is under it does not change.
    pub intent: Option<EncodedIntent>,
    pub applied: Applied,
}

/// X1: the clients that wrote the key recently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The highest birth that the table no longer answers for.
    pub dropped: Birth,
    #[serde(with = "client_bytes")]
    pub clients: Clients,
    /// Text operations that left `clients` and that may still be retried, oldest first. Without
    /// any, the table is encoded as in earlier releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<TextSlice>,
}

/// The clients of a table. Encoded, they are one byte string (`client_bytes`).
pub type Clients = Vec<ClientEntry>;

/// What a slice keeps of each of its operations.
pub type Hashes = Vec<u64>;

/// Text operations that were applied one after the other, without their outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSlice {
    /// The lowest birth among them ...
    pub first: Birth,
    /// ... and the highest one.
    pub last: Birth,
    #[serde(with = "hashes")]
    pub hashes: Hashes,
}

/// Hashes as one byte string, each with the least significant byte first.
mod hashes {
    use super::*;

    pub fn serialize<S: Serializer>(hashes: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hashes, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        let (hashes, rest) = bytes.as_chunks::<8>();
        match rest {
            [] => Ok(hashes
                .iter()
                .map(|hash| u64::from_le_bytes(*hash))
                .collect()),
            _ => Err(de::Error::custom(BodyError::Bounds)),
        }
    }
}

impl TextSlice {
    /// An upper bound of the encoded size, in bytes.
    pub fn size(&self) -> usize {
        TEXT_SLICE_OVERHEAD_SIZE + size_of_val(&self.hashes[..])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    pub client: ClientId,
    /// The highest low mark received.
    pub mark: u64,
    /// The highest birth that the entry ever held, including operations that left at the low mark.
    pub birth_max: Birth,
    pub operations: Vec<AppliedOperation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedOperation {
    pub sequence: u64,
    pub birth: Birth,
    pub outcome: Outcome,
}

impl Record {
    /// The latest reading among the record's births and in its version.
    pub fn latest(&self) -> Reading {
        let births = self.applied.clients.iter().flat_map(|entry| {
            let operations = entry.operations.iter().map(|o| o.birth);
            operations.chain([entry.birth_max])
        });
        let slices = self.applied.slices.iter().map(|slice| slice.last);
        let births = births.chain(slices).fold(self.applied.dropped, u64::max);
        let intent = self.intent.as_ref();
        let intent = intent.and_then(EncodedIntent::head);
        let intent = intent.map_or(0, |head| head.latest);
        births.max(Ballot(self.version).reading()).max(intent)
    }

    /// L1: whether the key is absent because of its age, although the record has a value. What is
    /// under an intent does not expire.
    pub fn is_expired(&self, wall_ms: u64) -> bool {
        let is_past = self.expiry_ms.is_some_and(|expiry_ms| expiry_ms <= wall_ms);
        is_past && self.value.is_some() && self.intent.is_none()
    }

    pub fn value_size(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    /// The size of the value and of the intent, which may carry a value as well.
    pub fn content_size(&self) -> usize {
        self.value_size() + self.intent.as_ref().map_or(0, |intent| intent.len())
    }

    /// An upper bound of the encoded size, in bytes.
    pub fn size(&self) -> usize {
        self.content_size() + self.applied.size() + RECORD_OVERHEAD_SIZE
    }

    /// Checks bounds that decoding alone does not enforce.
    pub fn check(&self) -> Result<(), BodyError> {
        let operations: usize = self
            .applied
            .clients
            .iter()
            .map(|c| c.operations.len())
            .sum();
        let slices: usize = self.applied.slices.iter().map(TextSlice::size).sum();
        let too_many = self.latest() > READING_MAX - 1
            || !self.applied.clients.iter().all(ClientEntry::is_sound)
            || operations > APPLIED_OPERATIONS_MAX
            || self.applied.clients.len() > APPLIED_SIZE_MAX
            || slices > TEXT_SLICES_SIZE_MAX
            || [self.value.as_ref(), self.intent.as_deref()]
                .into_iter()
                .flatten()
                .any(|bytes| bytes.len() > VALUE_SIZE_MAX);
        if too_many {
            Err(BodyError::Bounds)
        } else {
            Ok(())
        }
    }
}

impl ClientEntry {
    /// Whether each outcome is one that a write can have, with no old value longer than the table
    /// keeps.
    fn is_sound(&self) -> bool {
        self.operations.iter().all(|operation| {
            let old = match &operation.outcome {
                Outcome::Written { old, .. } | Outcome::Conflict { old, .. } => old,
                Outcome::NothingToDelete
                | Outcome::NotANumber
                | Outcome::Overflow
                | Outcome::TooLarge { .. }
                | Outcome::Placed { .. } => &Old::NotAsked,
                _ => return false,
            };
            !matches!(old, Old::Value(value) if value.len() > OLD_VALUE_KEPT_SIZE_MAX)
        })
    }
}

/// What an acceptor holds for one key. Where it is optional, `None` is a key without state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptorState {
    pub promised: Ballot,
    pub accepted: Ballot,
    /// Whether the record is known to be chosen at `accepted`.
    pub chosen: bool,
    /// Present if `accepted` is not zero.
    pub record: Option<Arc<Record>>,
    /// E5: the life (`Meta::life`) to which the state belongs. State of an earlier life is a cache,
    /// not a vote.
    pub life: u32,
}

#[cfg(test)]
mod tests {
    use wire::transfer::FRAME_BODY_SIZE_MAX;

    use super::*;
    use crate::protocol::types::limits::RECORD_SIZE_MAX;
    use crate::protocol::types::message::{Accept, Copy, Message, Promise, ReadAnswer};

    /// The record with the largest value, and with as many clients of the longest numbers as fit
    /// beside it.
    fn largest(more: usize) -> Arc<Record> {
        let birth = wire::clock::READING_SANE_MAX;
        let client = |_| ClientEntry {
            client: ClientId::MAX,
            mark: u64::MAX,
            birth_max: birth,
            operations: vec![AppliedOperation {
                sequence: u64::MAX,
                birth,
                outcome: Outcome::Written {
                    version: Ballot::new(wire::clock::READING_SANE_MAX, 9).0,
                    old: Old::NotAsked,
                    number: Some(i64::MIN),
                },
            }],
        };
        let mut record = Record {
            value: Some(vec![1; VALUE_SIZE_MAX].into()),
            version: Ballot::new(wire::clock::READING_SANE_MAX, 9).0,
            ..Record::default()
        };
        while record.size() + 100 <= RECORD_SIZE_MAX {
            record.applied.clients.push(client(()));
        }
        let more = (0..more).map(|_| client(()));
        record.applied.clients.extend(more);
        record.into()
    }

    fn carriers(record: &Arc<Record>) -> [Message; 4] {
        let key = Key::user(&[b'k'; KEY_SIZE_MAX]);
        let ballot = Ballot::new(wire::clock::READING_SANE_MAX, 9);
        let record = record.clone();
        let some = Some(record.clone());
        [
            Accept {
                key: key.clone(),
                ballot,
                record: record.clone(),
            }
            .into(),
            Copy {
                key,
                ballot,
                record,
            }
            .into(),
            Promise {
                ballot,
                accepted: ballot,
                record: some.clone(),
                floor: ballot,
            }
            .into(),
            ReadAnswer {
                accepted: ballot,
                chosen: true,
                record: some,
                floor: ballot,
            }
            .into(),
        ]
    }

    /// A record that fits an Accept but no Promise would block its key for good.
    #[test]
    fn whatever_carries_a_record_that_is_taken_fits_a_frame() {
        for (more, is_taken) in [(0, true), (1, false)] {
            let record = largest(more);
            assert_eq!(record.size() <= RECORD_SIZE_MAX, is_taken);
            for message in carriers(&record) {
                let mut body = Vec::new();
                message.encode_body(&mut body);
                let size = body.len();
                assert!(size <= FRAME_BODY_SIZE_MAX, "{}: {size}", message.name());
                let decoded = Message::decode(message.kind(), &body);
                assert_eq!(decoded.is_ok(), is_taken, "{}", message.name());
            }
        }
    }
}
