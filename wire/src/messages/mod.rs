//! The messages between clients and nodes: frame kinds, operations, outcomes, hellos, status.
//!
//! Bodies are MessagePack, structs as arrays, bytes as bytes. Enums with content are sent as flat
//! structs with a code, because MessagePack's enums are maps keyed by name, and the wire format has
//! no maps and no recursive types.

mod bounded;
mod change;
mod full;
mod operation;
mod scan;
mod status;
mod transaction;
mod watch;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use change::{
    CHANGE_ADDRESS_SIZE_MAX, CHANGE_NODES_MAX, CHANGE_REASON_SIZE_MAX, Change, ChangeAnswer,
    ChangeOutcome, ChangeRequest,
};
pub use full::Full;
pub use operation::{Action, Old, Operation, OperationId, Outcome};
pub use scan::{ScanEntry, ScanPage, end_of_prefix};
pub use status::{
    BehindStatus, ClockStatus, DiskStatus, LearningStatus, LinkStatus, MemberStatus, RouteStatus,
};
pub use transaction::{
    CONDITIONS_MAX, Condition, Failure, FailureReason, KeyChange, KeyResult, TRANSACTION_KEYS_MAX,
    Transaction, TransactionPart,
};
pub use watch::{WatchCursor, WatchPage};

pub const KEY_SIZE_MAX: usize = 1_024;
/// The highest limit of values that a node can be given. A record of this size, with key and
/// applied table, still fits a frame.
pub const VALUE_SIZE_MAX: usize = 16 << 20;
/// The limit of values unless a node is given another one.
pub const VALUE_SIZE_DEFAULT: usize = 1 << 20;
/// An outcome in the applied table contains the old value if that is at most this large.
pub const OLD_VALUE_KEPT_SIZE_MAX: usize = 256;
/// A node answers a poll of a watch after this time, if nothing changed.
pub const WATCH_WAIT_MS_MAX: u32 = 1_000;
/// A client stops retrying an operation this long after its birth, well within the nodes' horizon.
pub const RETRY_WINDOW_MS: u64 = 5_000;
/// The longest time to live of a key: a hundred years.
pub const TTL_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;

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

/// Rendezvous hash: a key's preferred coordinator is the node with the highest weight. Clients and
/// nodes must agree on it for speed; safety does not depend on it.
pub fn rendezvous_weight(key: &[u8], node: u8) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, u64::from(node))
}

#[cfg(test)]
mod tests;
