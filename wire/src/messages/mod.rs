//! The messages between clients and nodes: frame kinds, operations, outcomes, hellos, status.
//!
//! Bodies are MessagePack, structs as arrays, bytes as bytes. Enums with content are sent as flat
//! structs with a code, because MessagePack's enums are maps keyed by name, and the wire format has
//! no maps and no recursive types.

mod change;
mod full;
mod status;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use change::{
    CHANGE_ADDRESS_SIZE_MAX, CHANGE_NODES_MAX, CHANGE_REASON_SIZE_MAX, Change, ChangeAnswer,
    ChangeOutcome, ChangeRequest,
};
pub use full::Full;
pub use status::{
    BehindStatus, ClockStatus, DiskStatus, LearningStatus, LinkStatus, MemberStatus, RouteStatus,
};

pub const KEY_SIZE_MAX: usize = 1_024;
/// The highest limit of values that a node can be given. A record of this size, with key and
/// applied table, still fits a frame.
pub const VALUE_SIZE_MAX: usize = 16 << 20;
/// The limit of values unless a node is given another one.
pub const VALUE_SIZE_DEFAULT: usize = 1 << 20;
/// An outcome in the applied table contains the old value if that is at most this large.
pub const OLD_VALUE_KEPT_SIZE_MAX: usize = 256;
/// A client stops retrying an operation this long after its birth, well within the nodes' horizon.
pub const RETRY_WINDOW_MS: u64 = 5_000;

/// Frame kinds between clients and nodes. Kinds between nodes start at 16.
pub mod kind {
    pub const HELLO: u8 = 1;
    pub const HELLO_ANSWER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ANSWER: u8 = 4;
    /// The node does not know the token of the request; the client has to send a new hello.
    pub const NO_SESSION: u8 = 5;
    pub const STATUS_REQUEST: u8 = 6;
    pub const STATUS_ANSWER: u8 = 7;
    pub const CHANGE_REQUEST: u8 = 8;
    pub const CHANGE_ANSWER: u8 = 9;
}

/// A client library's random id, new at each start of the client.
pub type ClientId = u128;
/// A reading of the hybrid clock (see `clock`).
pub type Birth = u64;
pub type Version = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("a body that does not decode")]
    Malformed,
    #[error("bytes after the end of a body")]
    Trailing,
    #[error("a field out of its bounds")]
    Bounds,
}

pub fn encode<T: Serialize>(into: &mut Vec<u8>, body: &T) {
    rmp_serde::encode::write(into, body).expect("a body encodes into memory");
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    let body = T::deserialize(&mut deserializer).map_err(|_| BodyError::Malformed)?;
    // rmp-serde accepts trailing bytes and does not give its position. Asking for one more value
    // fails on its first byte only if there is none.
    match bool::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(body),
        _ => Err(BodyError::Trailing),
    }
}

/// In bytes.
pub const CLUSTER_NAME_SIZE_MAX: usize = 64;

/// Letters, digits, `-`, `_` and `.`, but no name that could be a cluster's id.
pub fn is_cluster_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_id = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
    (1..=CLUSTER_NAME_SIZE_MAX).contains(&name.len()) && name.bytes().all(is_plain) && !is_id
}

/// The first message from a client to a node, and its reply to a `NO_SESSION`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub client: ClientId,
    /// The reply echoes the nonce, so that the client can tell it from the reply to an earlier
    /// hello.
    pub nonce: u64,
    pub library_version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAnswer {
    pub nonce: u64,
    /// Valid for this boot of the node and this address of the client.
    pub token: u64,
    /// 0 while the node has no vote.
    pub node: u8,
    pub cluster: u64,
    pub epoch: u64,
    pub members: Vec<MemberAddress>,
    pub key_size_max: u32,
    pub value_size_max: u32,
    /// One UDP port per shard; empty: the port that answered, which is the only one for now.
    pub shard_ports: Vec<u16>,
    pub clock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    pub node: u8,
    pub address: String,
}

/// One attempt at an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub token: u64,
    /// Numbered within the session; an attempt is executed at most once.
    pub attempt: u64,
    /// Set in every sending after the first, whatever reply the earlier ones had.
    pub retry: bool,
    /// How long the client waits for the answer. A node begins nothing that nobody waits for.
    pub left_ms: u32,
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub attempt: u64,
    pub clock: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoSession {
    pub token: u64,
    pub attempt: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    pub token: u64,
    pub attempt: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub attempt: u64,
    pub status: NodeStatus,
}

/// What a node reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: u8,
    pub cluster: u64,
    /// The id of another cluster whose nodes send to this one, 0 if there is none.
    pub other_cluster: u64,
    pub epoch: u64,
    pub incarnation: u64,
    pub boot: u64,
    /// Whether this incarnation is a member of the configuration.
    pub votes: bool,
    pub quorum: bool,
    /// Node id of the master; 0 before the first configuration.
    pub master: u8,
    /// The nodes with a vote; while a change is in progress, the voters of both configurations.
    pub members: Vec<MemberStatus>,
    /// The nodes that have an id and no vote.
    pub away: Vec<MemberStatus>,
    /// Whether a change of the configuration is in progress.
    pub joint: bool,
    /// What the node is pending on, and what an operator can do, in plain words; empty if it is
    /// ready.
    pub waits_for: String,
    pub keys: u64,
    /// Keys for which the node has any state, including deleted keys that are not purged yet.
    pub records: u64,
    /// The digest of all keys with their accepted ballots: members with equal state have equal
    /// digests.
    pub digest: u64,
    pub durability: String,
    pub version: String,
    pub uptime_ms: u64,
    pub datagrams_dropped: u64,
    /// Memory in use by all threads of the process, and the amount at which the node is full.
    pub memory_live_bytes: u64,
    pub memory_max_bytes: u64,
    pub clock_clamped: bool,
    /// Directed links between nodes as this node knows them: its own measurements and those that
    /// the other nodes published; in order of `from` and `to`.
    pub links: Vec<LinkStatus>,
    /// The nodes that are reachable for this node over any path, including itself.
    pub component: Vec<u8>,
    /// The path of this node's messages to each other node, in order of `to`.
    pub routes: Vec<RouteStatus>,
    /// Messages that this node sent to other nodes, and messages of other nodes that it relayed.
    pub messages_sent: u64,
    pub messages_relayed: u64,
    /// The members that missed writes which this node is to copy to them, in order of id.
    pub behind: Vec<BehindStatus>,
    /// For a node without a vote: how far its copying from the members has come.
    pub learning: Option<LearningStatus>,
    /// Whether the node is bound to an address other than a loopback one: anyone who can send to it
    /// can use it.
    pub exposed: bool,
    /// Part of `datagrams_dropped`: messages of nodes that came from an address of no known node.
    pub strangers_dropped: u64,
    /// Conditions that an operator should correct, in plain words.
    pub warnings: Vec<String>,
    /// `None` for a node without a data directory.
    pub disk: Option<DiskStatus>,
    /// The name that the operator gave the cluster; empty if it has none, or the node knows none
    /// yet.
    pub cluster_name: String,
    /// The offset of each clock that the node knows, including its own, in order of `node`.
    pub clocks: Vec<ClockStatus>,
    /// Part of `datagrams_dropped`: the kernel had no space for them in the receive buffer.
    pub datagrams_lost: u64,
}

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
}

impl Action {
    pub fn is_read(&self) -> bool {
        matches!(self, Action::Get)
    }

    /// The bytes that count towards the limit of a value's size.
    pub fn value_size(&self) -> usize {
        match self {
            Action::Get | Action::Delete | Action::Add { .. } => 0,
            Action::Put { value }
            | Action::PutIfAbsent { value }
            | Action::CompareVersion { value, .. }
            | Action::Append { value } => value.len(),
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
    /// Of a get: no such key.
    Absent,
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
}

impl Outcome {
    /// Whether the outcome is in the key's record. If it is, it is final, whatever happens to other
    /// attempts (X2).
    pub fn is_in_record(&self) -> bool {
        matches!(self, Outcome::Written { .. } | Outcome::Unknown)
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
    /// The version compared, an add's delta in two's complement, or `old_size_max`.
    word: u64,
    value: Bytes,
    expected: Bytes,
}

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
            _ => return Err(BodyError::Bounds),
        };
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

/// Rendezvous hash: a key's preferred coordinator is the node with the highest weight. Clients and
/// nodes must agree on it for speed; safety does not depend on it.
pub fn rendezvous_weight(key: &[u8], node: u8) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, u64::from(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn any_action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Get),
            any_bytes().prop_map(|value| Action::Put { value }),
            any_bytes().prop_map(|value| Action::PutIfAbsent { value }),
            Just(Action::Delete),
            (any::<u64>(), any_bytes())
                .prop_map(|(version, value)| Action::CompareVersion { version, value }),
            (any_bytes(), any_bytes())
                .prop_map(|(expected, value)| Action::CompareValue { expected, value }),
            any::<i64>().prop_map(|delta| Action::Add { delta }),
            any_bytes().prop_map(|value| Action::Append { value }),
            (any_bytes(), any::<u64>(), any_bytes()).prop_map(
                |(value, old_size_max, old_without)| {
                    Action::PutOver {
                        value,
                        old_size_max,
                        old_without,
                    }
                }
            ),
        ]
    }

    fn any_old() -> impl Strategy<Value = Old> {
        prop_oneof![
            Just(Old::NotAsked),
            Just(Old::Absent),
            any_bytes().prop_map(Old::Value),
            Just(Old::Forgotten)
        ]
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (any::<u64>(), any_bytes())
                .prop_map(|(version, value)| Outcome::Value { version, value }),
            Just(Outcome::Absent),
            (any::<u64>(), any_old(), any::<Option<i64>>()).prop_map(|(version, old, number)| {
                Outcome::Written {
                    version,
                    old,
                    number,
                }
            }),
            Just(Outcome::NothingToDelete),
            (any::<u64>(), any_old()).prop_map(|(version, old)| Outcome::Conflict { version, old }),
            Just(Outcome::NotANumber),
            Just(Outcome::Overflow),
            any::<u64>().prop_map(|limit| Outcome::TooLarge { limit }),
            prop::collection::vec(any::<u8>(), 0..9)
                .prop_map(|reached| Outcome::NoQuorum { reached }),
            any::<u32>().prop_map(|after_ms| Outcome::Busy { after_ms }),
            Just(Outcome::Unknown),
            any::<u64>().prop_map(|dropped| Outcome::Remake { dropped }),
            any::<u64>().prop_map(|clock| Outcome::Ahead { clock }),
            Just(Outcome::Full { full: Full::Memory }),
        ]
    }

    proptest! {
        #[test]
        fn operations_survive_the_wire(action in any_action(), key in any_bytes(), client in any::<u128>(), sequence in any::<u64>(), want_old in any::<bool>()) {
            let operation = Operation {
                id: OperationId { client, sequence },
                birth: sequence >> 9,
                low_mark: sequence / 2,
                key,
                want_old,
                action,
            };
            let request = Request { token: 1, attempt: 2, retry: true, left_ms: 3, operation };
            let mut bytes = Vec::new();
            encode(&mut bytes, &request);
            prop_assert_eq!(decode::<Request>(&bytes).unwrap(), request);
            for cut in 0..bytes.len() {
                prop_assert!(decode::<Request>(&bytes[..cut]).is_err());
            }
            bytes.push(0);
            prop_assert_eq!(decode::<Request>(&bytes), Err(BodyError::Trailing));
        }

        #[test]
        fn outcomes_survive_the_wire(outcome in any_outcome()) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &outcome);
            prop_assert_eq!(decode::<Outcome>(&bytes).unwrap(), outcome);
        }

        #[test]
        fn arbitrary_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<HelloAnswer>(&bytes);
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
            let _ = decode::<StatusAnswer>(&bytes);
        }
    }
}
