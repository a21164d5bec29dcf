//! Operations, their outcomes, and how they are encoded.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::transaction::KeyResults;
use super::{
    Birth, BodyError, ClientId, Failure, Full, KEY_SIZE_MAX, KeyResult, ScanPage, TTL_MS_MAX,
    Transaction, Version, WATCH_WAIT_MS_MAX, WatchCursor, WatchPage, decode, encode,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OperationId {
    pub client: ClientId,
    pub sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatOperation", into = "FlatOperation")]
pub struct Operation {
    pub id: OperationId,
    pub birth: Birth,
    /// The client waits for no answers to operations below this sequence number.
    pub low_mark: u64,
    pub key: Bytes,
    pub want_old: bool,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Get,
    Put {
        value: Bytes,
    },
    PutIfAbsent {
        value: Bytes,
    },
    Delete,
    CompareVersion {
        version: Version,
        value: Bytes,
    },
    CompareValue {
        expected: Bytes,
        value: Bytes,
    },
    Add {
        delta: i64,
    },
    Append {
        value: Bytes,
    },
    /// A put that is applied only over an absent key, or over a value of at most `old_size_max`
    /// bytes that contains none of the bytes of `old_without`; otherwise the outcome is a conflict.
    /// For applications that cannot handle every value as the old one.
    PutOver {
        value: Bytes,
        old_size_max: u64,
        old_without: Bytes,
    },
    /// A put of a key that expires (L2). With `over`, only over that version; version 0 is that of
    /// an absent key.
    PutFor {
        value: Bytes,
        ttl_ms: u64,
        over: Option<Version>,
    },
    /// Gives a present key a time to live, which begins now. The version stays (L2). With `over`,
    /// only if the key has that version.
    Expire {
        ttl_ms: u64,
        over: Option<Version>,
    },
    /// Removes the time to live of a present key. The version stays.
    Persist {
        over: Option<Version>,
    },
    /// Reads how long the key still lives.
    TimeToLive,
    /// A delete of a present key that has this version.
    DeleteVersion {
        version: Version,
    },
    /// A read of what the node itself knows to be chosen. It may be old.
    GetStale,
    /// One page of the keys from the operation's key on, in order (S1).
    Scan {
        /// The operation's key itself is left out.
        is_after: bool,
        /// The first key that is left out at the end; empty: none is.
        end: Bytes,
        /// At most this many keys; 0: as many as fit a page.
        limit: u32,
        /// Without values.
        keys_only: bool,
        /// For a watch (W3): deleted keys that are not purged yet are told, too, and only the node
        /// that is asked puts the page together. Not with `keys_only`.
        deleted: bool,
    },
    /// A poll of a watch: the changes of the keys from the operation's key on (W1). It is answered
    /// once there are some, or after a wait.
    Watch {
        /// The first key that is left out at the end; empty: none is.
        end: Bytes,
        cursor: WatchCursor,
        /// Up to `WATCH_WAIT_MS_MAX`.
        wait_ms: u32,
    },
    /// A transaction over several keys. The operation's key is the first of them.
    Transact {
        transaction: Transaction,
    },
}

impl Action {
    pub fn is_read(&self) -> bool {
        match self {
            Action::Get | Action::TimeToLive | Action::GetStale => true,
            Action::Scan { .. } | Action::Watch { .. } => true,
            Action::Transact { transaction } => transaction.is_read_only(),
            _ => false,
        }
    }

    pub fn is_scan(&self) -> bool {
        matches!(self, Action::Scan { .. })
    }

    pub fn is_watch(&self) -> bool {
        matches!(self, Action::Watch { .. })
    }

    /// W3: whether only the node that the client asks may answer it.
    pub fn is_of_a_watch(&self) -> bool {
        matches!(
            self,
            Action::Watch { .. } | Action::Scan { deleted: true, .. }
        )
    }

    /// Whether any node answers it, by itself.
    pub fn is_stale(&self) -> bool {
        matches!(self, Action::GetStale)
    }

    /// The time to live that the action sets.
    pub fn ttl_ms(&self) -> Option<u64> {
        match self {
            Action::PutFor { ttl_ms, .. } | Action::Expire { ttl_ms, .. } => Some(*ttl_ms),
            _ => None,
        }
    }

    /// The bytes that count towards the limit of a value's size.
    pub fn value_size(&self) -> usize {
        match self {
            Action::Get
            | Action::GetStale
            | Action::TimeToLive
            | Action::Scan { .. }
            | Action::Watch { .. }
            | Action::Delete
            | Action::DeleteVersion { .. }
            | Action::Expire { .. }
            | Action::Persist { .. }
            | Action::Add { .. } => 0,
            Action::Put { value }
            | Action::PutFor { value, .. }
            | Action::PutIfAbsent { value }
            | Action::CompareVersion { value, .. }
            | Action::Append { value } => value.len(),
            Action::Transact { transaction } => transaction.value_size(),
            Action::CompareValue { expected, value } => expected.len() + value.len(),
            Action::PutOver {
                value, old_without, ..
            } => value.len() + old_without.len(),
        }
    }
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatOutcome", into = "FlatOutcome")]
pub enum Outcome {
    /// Of a get.
    Value {
        version: Version,
        value: Bytes,
    },
    /// Of a read: no such key.
    Absent,
    /// Of a scan.
    Page(ScanPage),
    /// Of a poll of a watch.
    Watched(WatchPage),
    /// Of a read of the time to live: how long the key still lives; `None` if it does not expire.
    Lives {
        version: Version,
        left_ms: Option<u64>,
    },
    /// Of a stale read: the last state that the node knows to be chosen. The version is 0 if it
    /// knows none.
    Stale {
        version: Version,
        value: Option<Bytes>,
        /// How long the node has not been joined to a quorum; 0: it is.
        apart_ms: u64,
    },
    /// Of a stale read: the node holds a record that it does not know to be chosen, or no records
    /// at all.
    NotKnown,
    /// A write that was applied. `number` is the sum after an add.
    Written {
        version: Version,
        old: Old,
        number: Option<i64>,
    },
    /// A delete of an absent key.
    NothingToDelete,
    /// A condition did not hold; `version` is that of the current record, 0 for an absent key.
    Conflict {
        version: Version,
        old: Old,
    },
    NotANumber,
    Overflow,
    TooLarge {
        limit: u64,
    },
    /// Surely not done: the node reaches only `reached`.
    NoQuorum {
        reached: Vec<u8>,
    },
    /// Surely not done: the node has too much to do. It expects to have less after this time; 0 if
    /// it has no estimate.
    Busy {
        after_ms: u32,
    },
    /// The write may have been applied, and no node can tell.
    Unknown,
    /// Not applied: the client must re-issue the operation with a birth above `dropped` (X1).
    Remake {
        dropped: Birth,
    },
    /// Not applied: the birth is ahead of the node's clock by more than it accepts (B5); the node's
    /// own clock is at `clock`.
    Ahead {
        clock: Birth,
    },
    /// Surely not done: the value would grow, and there is no space (X6).
    Full {
        full: Full,
    },
    /// All conditions of a transaction held, and all its operations took effect. There is a result
    /// for each of its keys.
    Committed {
        results: Vec<KeyResult>,
    },
    /// A transaction did nothing, and never will.
    Failed {
        failure: Failure,
    },
    /// In applied tables only: a transaction's intent was placed on the key in that attempt (T3).
    Placed {
        attempt: u32,
    },
}

impl Outcome {
    /// Whether the outcome is in the key's record. If it is, it is final, whatever happens to other
    /// attempts (X2).
    pub fn is_in_record(&self) -> bool {
        match self {
            Outcome::Written { .. } | Outcome::Unknown => true,
            // The record is that of the decision register (T1).
            Outcome::Committed { .. } | Outcome::Failed { .. } => true,
            _ => false,
        }
    }
}

/// The value before a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    NotAsked,
    Absent,
    Value(Bytes),
    /// The write was applied earlier, and its old value is no longer stored.
    Forgotten,
}

#[derive(Clone, Serialize, Deserialize)]
struct FlatOperation {
    client: ClientId,
    sequence: u64,
    birth: Birth,
    low_mark: u64,
    kind: u8,
    want_old: bool,
    key: Bytes,
    /// The version compared, an add's delta in two's complement, `old_size_max`, a time to live, or
    /// the sequence of a watch.
    word: u64,
    value: Bytes,
    /// The value compared, `old_without`, a version beside a time to live, or boot, range and wait
    /// of a watch.
    expected: Bytes,
}

/// The flags of a scan in `word`, above the 32 bits of its limit.
const SCAN_AFTER: u64 = 1 << 32;
const SCAN_KEYS_ONLY: u64 = 1 << 33;
const SCAN_DELETED: u64 = 1 << 34;
const SCAN_WORD_END: u64 = 1 << 35;

impl From<Operation> for FlatOperation {
    fn from(operation: Operation) -> Self {
        let none = Bytes::new;
        let (kind, word, value, expected) = match operation.action {
            Action::Get => (0, 0, none(), none()),
            Action::Put { value } => (1, 0, value, none()),
            Action::PutIfAbsent { value } => (2, 0, value, none()),
            Action::Delete => (3, 0, none(), none()),
            Action::CompareVersion { version, value } => (4, version, value, none()),
            Action::CompareValue { expected, value } => (5, 0, value, expected),
            Action::Add { delta } => (6, delta as u64, none(), none()),
            Action::Append { value } => (7, 0, value, none()),
            Action::PutOver {
                value,
                old_size_max,
                old_without,
            } => (8, old_size_max, value, old_without),
            Action::Scan {
                is_after,
                end,
                limit,
                keys_only,
                deleted,
            } => {
                let after = if is_after { SCAN_AFTER } else { 0 };
                let keys = if keys_only { SCAN_KEYS_ONLY } else { 0 };
                let deleted = if deleted { SCAN_DELETED } else { 0 };
                (9, u64::from(limit) | after | keys | deleted, end, none())
            }
            Action::Watch {
                end,
                cursor,
                wait_ms,
            } => {
                let boot = cursor.boot.to_le_bytes();
                let range = cursor.range.to_le_bytes();
                let beside = [&boot[..], &range, &wait_ms.to_le_bytes()].concat();
                (10, cursor.sequence, end, beside.into())
            }
            Action::Transact { transaction } => {
                let mut body = Vec::new();
                encode(&mut body, &transaction);
                (32, 0, body.into(), none())
            }
            Action::PutFor {
                value,
                ttl_ms,
                over,
            } => (16, ttl_ms, value, flatten_over(over)),
            Action::Expire { ttl_ms, over } => (17, ttl_ms, none(), flatten_over(over)),
            Action::Persist { over } => (18, 0, none(), flatten_over(over)),
            Action::TimeToLive => (19, 0, none(), none()),
            Action::DeleteVersion { version } => (20, version, none(), none()),
            Action::GetStale => (21, 0, none(), none()),
        };
        FlatOperation {
            client: operation.id.client,
            sequence: operation.id.sequence,
            birth: operation.birth,
            low_mark: operation.low_mark,
            kind,
            want_old: operation.want_old,
            key: operation.key,
            word,
            value,
            expected,
        }
    }
}

impl TryFrom<FlatOperation> for Operation {
    type Error = BodyError;

    fn try_from(flat: FlatOperation) -> Result<Self, BodyError> {
        let FlatOperation {
            word,
            value,
            expected,
            ..
        } = flat;
        let action = match flat.kind {
            0 => Action::Get,
            1 => Action::Put { value },
            2 => Action::PutIfAbsent { value },
            3 => Action::Delete,
            4 => Action::CompareVersion {
                version: word,
                value,
            },
            5 => Action::CompareValue { expected, value },
            6 => Action::Add { delta: word as i64 },
            7 => Action::Append { value },
            8 => Action::PutOver {
                value,
                old_size_max: word,
                old_without: expected,
            },
            9 if value.len() <= KEY_SIZE_MAX && word < SCAN_WORD_END => Action::Scan {
                is_after: word & SCAN_AFTER != 0,
                end: value,
                limit: word as u32,
                keys_only: word & SCAN_KEYS_ONLY != 0,
                deleted: match word & (SCAN_DELETED | SCAN_KEYS_ONLY) {
                    both if both == SCAN_DELETED | SCAN_KEYS_ONLY => return Err(BodyError::Bounds),
                    flags => flags & SCAN_DELETED != 0,
                },
            },
            10 if value.len() <= KEY_SIZE_MAX => watch_of(word, value, &expected)?,
            16 => Action::PutFor {
                value,
                ttl_ms: word,
                over: unflatten_over(&expected)?,
            },
            17 => Action::Expire {
                ttl_ms: word,
                over: unflatten_over(&expected)?,
            },
            18 => Action::Persist {
                over: unflatten_over(&expected)?,
            },
            19 => Action::TimeToLive,
            20 => Action::DeleteVersion { version: word },
            21 => Action::GetStale,
            32 => Action::Transact {
                transaction: decode(&value)?,
            },
            _ => return Err(BodyError::Bounds),
        };
        if action.ttl_ms().is_some_and(|ttl_ms| ttl_ms > TTL_MS_MAX) {
            return Err(BodyError::Bounds);
        }
        if flat.birth > crate::clock::READING_SANE_MAX || flat.low_mark > flat.sequence {
            return Err(BodyError::Bounds);
        }
        Ok(Operation {
            id: OperationId {
                client: flat.client,
                sequence: flat.sequence,
            },
            birth: flat.birth,
            low_mark: flat.low_mark,
            key: flat.key,
            want_old: flat.want_old,
            action,
        })
    }
}

fn watch_of(sequence: u64, end: Bytes, beside: &[u8]) -> Result<Action, BodyError> {
    let (boot, beside) = beside.split_first_chunk().ok_or(BodyError::Bounds)?;
    let (range, wait) = beside.split_first_chunk().ok_or(BodyError::Bounds)?;
    let wait = <[u8; 4]>::try_from(wait).map_err(|_| BodyError::Bounds)?;
    let cursor = WatchCursor {
        boot: u64::from_le_bytes(*boot),
        range: u64::from_le_bytes(*range),
        sequence,
    };
    let wait_ms = u32::from_le_bytes(wait);
    match wait_ms <= WATCH_WAIT_MS_MAX {
        true => Ok(Action::Watch {
            end,
            cursor,
            wait_ms,
        }),
        false => Err(BodyError::Bounds),
    }
}

/// A version beside a time to live: eight bytes, the least significant first; empty for none.
fn flatten_over(over: Option<Version>) -> Bytes {
    over.map_or_else(Bytes::new, |version| {
        Bytes::copy_from_slice(&version.to_le_bytes())
    })
}

fn unflatten_over(bytes: &[u8]) -> Result<Option<Version>, BodyError> {
    match bytes {
        [] => Ok(None),
        _ => match <[u8; 8]>::try_from(bytes) {
            Ok(bytes) => Ok(Some(Version::from_le_bytes(bytes))),
            Err(_) => Err(BodyError::Bounds),
        },
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct FlatOutcome {
    code: u8,
    old: u8,
    word: u64,
    number: Option<i64>,
    bytes: Bytes,
}

impl From<Outcome> for FlatOutcome {
    fn from(outcome: Outcome) -> Self {
        let mut flat = FlatOutcome {
            code: 0,
            old: 0,
            word: 0,
            number: None,
            bytes: Bytes::new(),
        };
        match outcome {
            Outcome::Value { version, value } => {
                (flat.code, flat.word, flat.bytes) = (0, version, value);
            }
            Outcome::Absent => flat.code = 1,
            Outcome::Written {
                version,
                old,
                number,
            } => {
                (flat.code, flat.word, flat.number) = (2, version, number);
                (flat.old, flat.bytes) = flatten_old(old);
            }
            Outcome::NothingToDelete => flat.code = 3,
            Outcome::Conflict { version, old } => {
                (flat.code, flat.word) = (4, version);
                (flat.old, flat.bytes) = flatten_old(old);
            }
            Outcome::NotANumber => flat.code = 5,
            Outcome::Overflow => flat.code = 6,
            Outcome::TooLarge { limit } => (flat.code, flat.word) = (7, limit),
            Outcome::NoQuorum { reached } => (flat.code, flat.bytes) = (8, reached.into()),
            Outcome::Busy { after_ms } => (flat.code, flat.word) = (9, after_ms.into()),
            Outcome::Unknown => flat.code = 10,
            Outcome::Remake { dropped } => (flat.code, flat.word) = (11, dropped),
            Outcome::Ahead { clock } => (flat.code, flat.word) = (12, clock),
            Outcome::Full { full } => (flat.code, flat.word) = (13, full.code().into()),
            Outcome::Page(page) => (flat.code, flat.bytes) = (14, page.encode()),
            Outcome::Watched(page) => (flat.code, flat.bytes) = (15, page.encode()),
            Outcome::Lives { version, left_ms } => {
                (flat.code, flat.word) = (16, version);
                flat.number = left_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
            }
            Outcome::Stale {
                version,
                value,
                apart_ms,
            } => {
                (flat.code, flat.word) = (17, version);
                flat.number = Some(i64::try_from(apart_ms).unwrap_or(i64::MAX));
                (flat.old, flat.bytes) = flatten_old(value.map_or(Old::Absent, Old::Value));
            }
            Outcome::NotKnown => flat.code = 18,
            Outcome::Committed { results } => {
                let mut body = Vec::new();
                encode(&mut body, &results);
                (flat.code, flat.bytes) = (32, body.into());
            }
            Outcome::Failed { failure } => {
                let (code, places, word) = failure.flatten();
                (flat.code, flat.old, flat.word) = (33, code, word);
                flat.number = Some(places);
            }
            Outcome::Placed { attempt } => (flat.code, flat.word) = (34, attempt.into()),
        }
        flat
    }
}

impl TryFrom<FlatOutcome> for Outcome {
    type Error = BodyError;

    fn try_from(flat: FlatOutcome) -> Result<Self, BodyError> {
        let FlatOutcome {
            old,
            word,
            number,
            bytes,
            ..
        } = flat;
        Ok(match flat.code {
            0 => Outcome::Value {
                version: word,
                value: bytes,
            },
            1 => Outcome::Absent,
            2 => Outcome::Written {
                version: word,
                old: unflatten_old(old, bytes)?,
                number,
            },
            3 => Outcome::NothingToDelete,
            4 => Outcome::Conflict {
                version: word,
                old: unflatten_old(old, bytes)?,
            },
            5 => Outcome::NotANumber,
            6 => Outcome::Overflow,
            7 => Outcome::TooLarge { limit: word },
            8 => Outcome::NoQuorum {
                reached: bytes.to_vec(),
            },
            9 => Outcome::Busy {
                after_ms: u32::try_from(word).unwrap_or(u32::MAX),
            },
            10 => Outcome::Unknown,
            11 => Outcome::Remake { dropped: word },
            12 => Outcome::Ahead { clock: word },
            13 => Outcome::Full {
                full: Full::of_code(word).ok_or(BodyError::Bounds)?,
            },
            14 => Outcome::Page(ScanPage::decode(bytes)?),
            15 => Outcome::Watched(WatchPage::decode(bytes)?),
            16 => Outcome::Lives {
                version: word,
                left_ms: match number {
                    None => None,
                    Some(ms) => Some(u64::try_from(ms).map_err(|_| BodyError::Bounds)?),
                },
            },
            17 => Outcome::Stale {
                version: word,
                value: match unflatten_old(old, bytes)? {
                    Old::Absent => None,
                    Old::Value(value) => Some(value),
                    Old::NotAsked | Old::Forgotten => return Err(BodyError::Bounds),
                },
                apart_ms: u64::try_from(number.unwrap_or(0)).map_err(|_| BodyError::Bounds)?,
            },
            18 => Outcome::NotKnown,
            32 => Outcome::Committed {
                results: decode::<KeyResults>(&bytes)?.0,
            },
            33 => Outcome::Failed {
                failure: Failure::unflatten(old, number.ok_or(BodyError::Bounds)?, word)?,
            },
            34 => Outcome::Placed {
                attempt: u32::try_from(word).map_err(|_| BodyError::Bounds)?,
            },
            _ => return Err(BodyError::Bounds),
        })
    }
}

fn flatten_old(old: Old) -> (u8, Bytes) {
    match old {
        Old::NotAsked => (0, Bytes::new()),
        Old::Absent => (1, Bytes::new()),
        Old::Value(value) => (2, value),
        Old::Forgotten => (3, Bytes::new()),
    }
}

fn unflatten_old(code: u8, bytes: Bytes) -> Result<Old, BodyError> {
    Ok(match code {
        0 => Old::NotAsked,
        1 => Old::Absent,
        2 => Old::Value(bytes),
        3 => Old::Forgotten,
        _ => return Err(BodyError::Bounds),
    })
}
