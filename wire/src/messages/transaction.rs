//! Transactions over several keys: what a client asks, and what it is told.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::at_most;
use super::{BodyError, KEY_SIZE_MAX, TTL_MS_MAX, VALUE_SIZE_MAX, Version};

/// Keys that one transaction names.
pub const TRANSACTION_KEYS_MAX: usize = 128;
/// Conditions on one key.
pub const CONDITIONS_MAX: usize = 16;

/// Conditions and operations that take effect together or not at all. Each key is named once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatTransaction", into = "FlatTransaction")]
pub struct Transaction {
    pub parts: Vec<TransactionPart>,
}

/// What a transaction asks of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionPart {
    pub key: Bytes,
    /// All must hold, for the state before the transaction.
    pub conditions: Vec<Condition>,
    /// Whether the result contains the value before the transaction.
    pub get: bool,
    pub change: Option<KeyChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Absent,
    Present,
    Version(Version),
    Value(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    Put(Bytes),
    /// A put of a key that expires (L2).
    PutFor {
        value: Bytes,
        ttl_ms: u64,
    },
    Delete,
    Add(i64),
    Append(Bytes),
}

/// What a transaction did with one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyResult {
    /// The version before the transaction; 0 if the key was absent.
    pub found: Version,
    /// The value before, if it was asked for; `None` also if the key was absent.
    pub value: Option<Bytes>,
    /// The version after the transaction; 0 if the key is absent and was absent before.
    pub version: Version,
    /// The sum after an add.
    pub number: Option<i64>,
}

/// The results of a transaction, one for each of its keys.
#[derive(Debug, Deserialize)]
pub(super) struct KeyResults(
    #[serde(deserialize_with = "at_most::<_, _, TRANSACTION_KEYS_MAX>")] pub Vec<KeyResult>,
);

/// Why a transaction did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The place of the key in the transaction.
    pub part: u16,
    pub reason: FailureReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// This condition of the key did not hold; `version` is that of the key, 0 if it is absent.
    Condition {
        place: u16,
        version: Version,
    },
    NotANumber,
    Overflow,
    /// A value would be longer than this, or, with 0, the transaction does not fit.
    TooLarge {
        limit: u64,
    },
    /// Other transactions held its keys until its time was over.
    Contended,
}

impl Transaction {
    pub fn is_read_only(&self) -> bool {
        self.parts.iter().all(|part| part.change.is_none())
    }

    /// The bytes that count towards the limit of a value's size.
    pub fn value_size(&self) -> usize {
        self.parts.iter().map(TransactionPart::value_size).sum()
    }

    /// The bounds that a node relies on.
    pub fn check(&self) -> Result<(), BodyError> {
        let mut keys: Vec<&Bytes> = self.parts.iter().map(|part| &part.key).collect();
        keys.sort_unstable();
        let is_twice = keys.windows(2).any(|pair| pair[0] == pair[1]);
        let is_sized = |key: &&Bytes| (1..=KEY_SIZE_MAX).contains(&key.len());
        let is_many = |part: &TransactionPart| part.conditions.len() > CONDITIONS_MAX;
        let is_sound = (1..=TRANSACTION_KEYS_MAX).contains(&keys.len())
            && keys.iter().all(is_sized)
            && !is_twice
            && !self.parts.iter().any(is_many)
            && self.value_size() <= VALUE_SIZE_MAX;
        is_sound.then_some(()).ok_or(BodyError::Bounds)
    }
}

impl TransactionPart {
    fn value_size(&self) -> usize {
        let change = match &self.change {
            Some(KeyChange::Put(value) | KeyChange::Append(value)) => value.len(),
            Some(KeyChange::PutFor { value, .. }) => value.len(),
            Some(KeyChange::Delete | KeyChange::Add(_)) | None => 0,
        };
        let compared = self.conditions.iter().map(|condition| match condition {
            Condition::Value(value) => value.len(),
            Condition::Absent | Condition::Present | Condition::Version(_) => 0,
        });
        change + compared.sum::<usize>()
    }
}

/// A code, a number and bytes.
type FlatItem = (u8, u64, Bytes);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FlatTransaction(
    #[serde(deserialize_with = "at_most::<_, _, TRANSACTION_KEYS_MAX>")] Vec<FlatTransactionPart>,
);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FlatTransactionPart {
    key: Bytes,
    #[serde(deserialize_with = "at_most::<_, _, CONDITIONS_MAX>")]
    conditions: Vec<(u8, u64, Bytes)>,
    get: bool,
    change: (u8, u64, Bytes),
}

impl From<Transaction> for FlatTransaction {
    fn from(transaction: Transaction) -> Self {
        let none = Bytes::new;
        let condition = |condition| match condition {
            Condition::Absent => (0, 0, none()),
            Condition::Present => (1, 0, none()),
            Condition::Version(version) => (2, version, none()),
            Condition::Value(value) => (3, 0, value),
        };
        let change = |change| match change {
            None => (0, 0, none()),
            Some(KeyChange::Put(value)) => (1, 0, value),
            Some(KeyChange::Delete) => (2, 0, none()),
            Some(KeyChange::Add(delta)) => (3, delta as u64, none()),
            Some(KeyChange::Append(value)) => (4, 0, value),
            Some(KeyChange::PutFor { value, ttl_ms }) => (5, ttl_ms, value),
        };
        let parts = transaction.parts.into_iter();
        let flat = parts.map(|part| FlatTransactionPart {
            key: part.key,
            conditions: part.conditions.into_iter().map(condition).collect(),
            get: part.get,
            change: change(part.change),
        });
        FlatTransaction(flat.collect())
    }
}

impl TryFrom<FlatTransaction> for Transaction {
    type Error = BodyError;

    fn try_from(FlatTransaction(flat): FlatTransaction) -> Result<Self, BodyError> {
        let condition = |(code, word, bytes): FlatItem| match code {
            0 => Ok(Condition::Absent),
            1 => Ok(Condition::Present),
            2 => Ok(Condition::Version(word)),
            3 => Ok(Condition::Value(bytes)),
            _ => Err(BodyError::Bounds),
        };
        let change = |(code, word, bytes): FlatItem| match code {
            0 => Ok(None),
            1 => Ok(Some(KeyChange::Put(bytes))),
            2 => Ok(Some(KeyChange::Delete)),
            3 => Ok(Some(KeyChange::Add(word as i64))),
            4 => Ok(Some(KeyChange::Append(bytes))),
            5 if word <= TTL_MS_MAX => Ok(Some(KeyChange::PutFor {
                value: bytes,
                ttl_ms: word,
            })),
            _ => Err(BodyError::Bounds),
        };
        let parts = flat.into_iter().map(|part| {
            Ok(TransactionPart {
                key: part.key,
                conditions: part
                    .conditions
                    .into_iter()
                    .map(condition)
                    .collect::<Result<_, _>>()?,
                get: part.get,
                change: change(part.change)?,
            })
        });
        let transaction = Transaction {
            parts: parts.collect::<Result<_, BodyError>>()?,
        };
        transaction.check()?;
        Ok(transaction)
    }
}

impl Failure {
    /// The reason's code, its place and the key's, and its number.
    pub fn flatten(self) -> (u8, i64, u64) {
        let (code, place, word) = match self.reason {
            FailureReason::Condition { place, version } => (0, place, version),
            FailureReason::NotANumber => (1, 0, 0),
            FailureReason::Overflow => (2, 0, 0),
            FailureReason::TooLarge { limit } => (3, 0, limit),
            FailureReason::Contended => (4, 0, 0),
        };
        (code, i64::from(self.part) << 16 | i64::from(place), word)
    }

    pub fn unflatten(code: u8, places: i64, word: u64) -> Result<Self, BodyError> {
        let part = u16::try_from(places >> 16).map_err(|_| BodyError::Bounds)?;
        let place = places as u16;
        let reason = match code {
            0 => FailureReason::Condition {
                place,
                version: word,
            },
            1 => FailureReason::NotANumber,
            2 => FailureReason::Overflow,
            3 => FailureReason::TooLarge { limit: word },
            4 => FailureReason::Contended,
            _ => return Err(BodyError::Bounds),
        };
        Ok(Failure { part, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(part: TransactionPart, count: usize) -> Option<String> {
        let parts = vec![part; count];
        let bytes = rmp_serde::to_vec(&Transaction { parts }).expect("memory");
        let decoded = rmp_serde::from_slice::<Transaction>(&bytes);
        decoded.err().map(|error| error.to_string())
    }

    /// The other bounds are checked once everything is decoded, which would take too much memory.
    #[test]
    fn too_many_parts_or_conditions_are_refused_by_their_number() {
        let part = |conditions: usize| TransactionPart {
            key: "k".into(),
            conditions: vec![Condition::Present; conditions],
            ..TransactionPart::default()
        };
        let too_many = |max| Some(format!("a list of at most {max} elements"));
        for (part, count, expected) in [
            (part(CONDITIONS_MAX), 1, None),
            (part(CONDITIONS_MAX + 1), 1, too_many(CONDITIONS_MAX)),
            (
                TransactionPart::default(),
                1_000,
                too_many(TRANSACTION_KEYS_MAX),
            ),
        ] {
            match (refusal(part, count), expected) {
                (found, None) => assert_eq!(found, None),
                (Some(found), Some(why)) => assert!(found.contains(&why), "{found}"),
                (None, Some(why)) => panic!("not refused: {why}"),
            }
        }
    }
}
