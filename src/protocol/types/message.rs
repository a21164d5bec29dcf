//! Peer messages, and the inputs and outputs of the protocol core. No behaviour except encoding and
//! bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::clock::{READING_MAX, READING_SANE_MAX, Reading, to_ms};
use wire::{
    self, Action, Answer, BodyError, CLUSTER_NAME_SIZE_MAX, ChangeAnswer, ChangeOutcome,
    ChangeRequest, Full, Hello, HelloAnswer, NoSession, NodeStatus, Operation, Outcome, Request,
    StatusRequest,
};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::configuration::{AdmissionBase, Forced};
use crate::protocol::types::digest::{Bucket, Digests, Spread, Sums};
pub use crate::protocol::types::event::Event;
use crate::protocol::types::limits::{
    ADDRESS_SIZE_MAX, CHOSEN_PER_MESSAGE_MAX, KEYS_PER_MESSAGE_MAX, MEMBERS_MAX, NODES_MAX,
    PROBE_SIZE, RANGE_KEYS_MAX, RECORD_SIZE_MAX,
};
use crate::protocol::types::page::{Page, PageBounds, RangePage};
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::readdress::Readdressed;
use crate::protocol::types::receive_wait::ReceiveWait;
use crate::protocol::types::record::{AcceptorState, Key, Record};
use crate::protocol::types::remote_step::{RemoteStep, RemoteStepAnswer};

/// The configuration assigns it, from 1 up. 0 stands for a client, or for a node without an id.
pub type NodeId = u8;
/// A random id stored with a node's state. A node without its state takes a new one (E1).
pub type Incarnation = u64;
pub type Epoch = u64;
/// The last epoch. A lineage and a count of changes (E8) take 52 bits, so that a reader that uses
/// floating point represents every epoch exactly.
pub const EPOCH_MAX: Epoch = (1 << 52) - 1;
/// Correlates answers with the round that asked. It is unique across restarts of the asking node
/// (R4).
pub type RoundId = u64;
pub type GroupNumber = u64;

/// The time of an input: a monotonic clock for timers and the wall clock for ballots (B2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    pub mono_us: u64,
    pub wall_ms: u64,
}

/// A client's address as the runtime sees it. IPv4 is mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: u128,
    /// For a link-local address, the interface of this machine through which it is reachable;
    /// otherwise 0.
    pub zone: u32,
    pub port: u16,
    /// The datagram came from the machine that this node runs on.
    pub is_own_machine: bool,
}

impl Endpoint {
    /// An endpoint without a zone, on another machine.
    pub const fn new(ip: u128, port: u16) -> Self {
        Endpoint {
            ip,
            zone: 0,
            port,
            is_own_machine: false,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    /// 0 for a node that was never a member.
    pub incarnation: Incarnation,
    /// As listed: `host:port`.
    pub address: String,
    /// How often the node was removed recently without a request for it, and when last (a reading
    /// of the hybrid clock). They determine how long it must be continuously reachable before it is
    /// admitted again.
    pub removals: u8,
    pub removed_at: u64,
}

/// Whether a frame with that destination is for a node other than this one, whose id is `own`.
pub fn is_transit(own: NodeId, destination: NodeId) -> bool {
    destination != 0 && own != 0 && destination != own
}

/// The fields that a relay needs of a frame between other nodes. `via` is the previous hop.
#[derive(Debug, Clone, Copy)]
pub struct TransitFrame {
    pub cluster: u64,
    pub via: NodeId,
    pub origin: NodeId,
    pub destination: NodeId,
    pub hops_left: u8,
}

/// Where a frame goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub next: NodeId,
    pub hops_left: u8,
}

/// A configuration that is installed or in transit. The first member is the master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub cluster: u64,
    /// Epochs begin at 1; 0 means "none yet".
    pub epoch: Epoch,
    pub members: Vec<Member>,
    /// The new members, while this configuration is joint (Q2).
    pub joint: Option<Vec<Member>>,
    /// B3: acceptors refuse ballots at or below it.
    pub base: Ballot,
    /// E6: the incarnation of the first listed node that formed the first configuration.
    pub formed_by: Incarnation,
    /// Non-members, which have an id and no vote: removed nodes, which may come back, and nodes to
    /// be added.
    pub away: Vec<Member>,
    /// The highest id that was given out.
    pub ids: NodeId,
    /// An operator made this configuration without a quorum. It is joint with itself. Until it is
    /// completed, only all of its members together are a quorum, so that no record that one of them
    /// holds is lost.
    pub forced: bool,
    /// D1: chosen with the first configuration. No later configuration changes it.
    pub spread: Spread,
    /// E8: the forces that this configuration descends from or supersedes. The last one gives the
    /// configuration's lineage.
    pub forces: Vec<Forced>,
    /// The cluster's name, which the operator gave when the first configuration was formed, or
    /// empty. No later configuration changes it. Earlier releases did not write it.
    #[serde(default)]
    pub name: String,
    /// X3: of each member. Earlier releases did not write it.
    #[serde(default)]
    pub admissions: Vec<AdmissionBase>,
}

/// Refers to one of a neighbour's own heartbeats, so that the neighbour can measure the round-trip
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    pub number: u32,
    /// Microseconds since that heartbeat arrived.
    pub held_us: u32,
}

/// What a node publishes about itself and the links towards it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub boot: u64,
    /// `Meta::starts`, once that is durable; 0 until then.
    pub starts: u64,
    /// The last group that the node found on its disk at this start, and the last group that is
    /// durable now.
    pub found: GroupNumber,
    pub synced: GroupNumber,
    /// The node's hybrid clock. Of two rows, the one with the later reading counts.
    pub clock: u64,
    pub wall_ms: u64,
    /// How long the node's oldest write to its disk has been in progress.
    pub unsynced_ms: u32,
    /// E1: the boots of other voters from which this node has received and against which it has no
    /// report. It confirms them.
    pub seen: Vec<(NodeId, u64)>,
    /// X6: the space that the node lacks (`Full::code`), 0 if it is not full.
    pub full: u8,
    pub links: Vec<ReportedLink>,
}

/// A link as the receiving node measures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedLink {
    pub from: NodeId,
    pub up: bool,
    /// Up or on probation. On probation: received from again, but not for long enough.
    pub heard: bool,
    /// The smoothed round-trip time, 0 while it is unknown.
    pub rtt_us: u32,
    pub loss_permille: u16,
}

/// What a node holds for one key of a bucket. For a member, these are votes; for a learner, copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEntry {
    pub key: Key,
    pub accepted: Ballot,
    pub chosen: bool,
    pub tombstone: bool,
    /// Approximate size of a message with a copy of the record, in bytes.
    pub size: u32,
}

/// A member's vote for one key of a range (E5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeEntry {
    pub key: Key,
    pub accepted: Ballot,
    pub chosen: bool,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $(pub $field: $type),* }
            impl $name {
                pub const KIND: u8 = $kind;
            }
            impl From<$name> for Message {
                fn from(message: $name) -> Message { Message::$name(message) }
            }
        )*

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Message { $($name($name)),* }

        impl Message {
            pub fn kind(&self) -> u8 {
                match self { $(Message::$name(_) => $kind),* }
            }

            pub fn name(&self) -> &'static str {
                match self { $(Message::$name(_) => stringify!($name)),* }
            }

            /// The name of a frame kind.
            pub fn name_of(kind: u8) -> &'static str {
                match kind { $($kind => stringify!($name),)* _ => "a message to a client" }
            }

            pub fn encode_body(&self, into: &mut Vec<u8>) {
                match self { $(Message::$name(body) => wire::encode(into, body)),* }
            }

            /// `None` for a kind that this build does not know.
            pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Message>, BodyError> {
                let message = match kind {
                    $($kind => Message::$name(wire::decode(body)?),)*
                    _ => return Ok(None),
                };
                message.check()?;
                Ok(Some(message))
            }
        }
    };
}

messages! {
    Prepare = 16 { key: Key, ballot: Ballot }
    /// `floor` counts only if there is no record (R4, X3).
    Promise = 17 { ballot: Ballot, accepted: Ballot, record: Option<Arc<Record>>, floor: Ballot }
    Nack = 18 { ballot: Ballot, promised: Ballot }
    Accept = 19 { key: Key, ballot: Ballot, record: Arc<Record> }
    Accepted = 20 { ballot: Ballot }
    /// Ballots known to be chosen.
    Chosen = 21 { chosen: Vec<(Key, Ballot)> }
    /// `holds` is the ballot of the record that the asking node holds, or zero.
    Read = 22 { key: Key, holds: Ballot }
    /// It has no record if there is none, or if the asking node holds the same one.
    ReadAnswer = 23 { accepted: Ballot, chosen: bool, record: Option<Arc<Record>>, floor: Ballot }
    /// `attempt` is numbered in the session between two boots, `from_boot` and `to_boot`.
    /// `waited_us` is the time since the operation arrived at the forwarding node, `left_ms` the
    /// time that its client still waits (X8). `heard` is the receiver's clock as the forwarding
    /// node last received it.
    Forward = 24 { from_boot: u64, to_boot: u64, attempt: u64, waited_us: u64, left_ms: u32, heard: u64, operation: Arc<Operation> }
    ForwardAnswer = 25 { to_boot: u64, attempt: u64, outcome: Outcome }
    /// To a neighbour directly, never relayed. `number` counts the heartbeats to this neighbour.
    /// `rows` begins with the sender's own row.
    Heartbeat = 26 { number: u32, echo: Option<Echo>, rows: Vec<Row> }
    /// E6: the query of the first listed node. `nonce` is the one that the queried node chose, or 0
    /// at first.
    Survey = 27 { list: u64, index: u8, asker: Incarnation, nonce: u64, name: String }
    /// E6: the answer of a node without state. `word`: whether it is committed to the asking node,
    /// which is so if `bound_to` is that node's incarnation and the nonce was right.
    SurveyAnswer = 28 { list: u64, index: u8, incarnation: Incarnation, nonce: u64, word: bool, bound_to: Option<Incarnation>, name: String }
    ConfigurationUpdate = 29 { configuration: Arc<Configuration> }
    /// `address` is the asking node's own address, to which the answer goes.
    ConfigurationRequest = 30 { epoch: Epoch, address: String }
    /// C1: a record known to be chosen, for a node that lacks it.
    Copy = 31 { key: Key, ballot: Ballot, record: Arc<Record> }
    /// `refused_for` is the conflicting promise. Without one, the member holds that record or a
    /// later one.
    CopyAck = 32 { key: Key, ballot: Ballot, refused_for: Option<Ballot> }
    /// Requests the digests of all buckets (see `digest`). `total` is the asking node's digest of
    /// all buckets, if that node needs no digests when the two are equal.
    DigestsRequest = 33 { total: Option<u64> }
    /// E3: it is sent in the envelope's epoch, so its sender has installed that epoch. `clock` is
    /// above every ballot that the member promised or accepted before.
    DigestsReply = 34 { clock: u64, sums: Sums }
    /// Requests the entries of a bucket after the key `after`, in order of key.
    BucketRequest = 35 { bucket: Bucket, after: Option<Key> }
    /// The entries after the key `after`. If there are more, they reach up to `next`, inclusive.
    BucketReply = 36 { bucket: Bucket, after: Option<Key>, entries: Vec<BucketEntry>, next: Option<Key> }
    /// C1: requests copies of these keys' records.
    CopiesRequest = 37 { keys: Vec<Key> }
    /// E4: a learner of the envelope's epoch and incarnation asks to be admitted. It wants to be
    /// sent each record chosen in the first `listed` buckets. It will still request the entries of
    /// the other buckets.
    AdmissionRequest = 38 { ready: bool, listed: Bucket }
    /// P1: all members hold these tombstones at these ballots, so the receiver purges them.
    Purge = 39 { tombstones: Vec<(Key, Ballot)> }
    /// E1: a report of a rollback. The receiver's incarnation had at least as many starts in
    /// another boot than its present one, or a durable group that its present start did not find.
    RolledBack = 40 { incarnation: Incarnation, starts: u64, boot: u64, synced: GroupNumber }
    /// To a neighbour directly, never relayed and never cut into parts: it shows whether large
    /// datagrams get through.
    Probe = 41 { padding: Bytes }
    /// The digest of all buckets equals the `total` in the request.
    DigestsEqual = 42 { total: u64 }
    /// S1: requests the votes for a range of keys. `sum` is the digest of the asking node's votes
    /// for it.
    RangeRequest = 43 { range: KeyRange, sum: u64 }
    /// The digest of the sender's votes equals the `sum` in the request. `floor` counts for keys
    /// without a vote (R4).
    RangeEqual = 44 { floor: Ballot }
    /// The votes in order of key. If there are more in the range, they reach up to `next`,
    /// inclusive.
    RangeReply = 45 { entries: Vec<RangeEntry>, next: Option<Key>, floor: Ballot }
    /// T5: Accepts without their records, which the receiver derives from its own.
    Resolve = 46 { parts: Vec<ResolvePart> }
    /// The rounds whose parts of a Resolve were accepted, with their ballots.
    AllAccepted = 47 { rounds: Vec<(u64, Ballot)> }
    /// As Forward, with a step of a transaction on the operation's key.
    ForwardStep = 48 { from_boot: u64, to_boot: u64, attempt: u64, left_ms: u32, operation: Arc<Operation>, step: RemoteStep }
    ForwardStepAnswer = 49 { to_boot: u64, attempt: u64, answer: RemoteStepAnswer }
}

impl Message {
    /// B5: the latest of the ballots, births and clocks in the message that the receiver's state or
    /// clock would follow. The rows of a heartbeat and a forwarded operation are checked
    /// separately.
    pub fn latest(&self) -> Reading {
        let of = |record: &Option<Arc<Record>>| record.as_ref().map_or(0, |r| r.latest());
        match self {
            Message::Prepare(m) => m.ballot.reading(),
            Message::Promise(m) => {
                let ballot = m.accepted.max(m.floor).max(m.ballot);
                ballot.reading().max(of(&m.record))
            }
            Message::Nack(m) => m.promised.reading(),
            Message::Accept(m) => m.ballot.reading().max(m.record.latest()),
            Message::ReadAnswer(m) => m.accepted.max(m.floor).reading().max(of(&m.record)),
            Message::Copy(m) => m.ballot.reading().max(m.record.latest()),
            Message::CopyAck(m) => m.refused_for.map_or(0, Ballot::reading),
            Message::DigestsReply(m) => m.clock,
            Message::Resolve(m) => {
                let over = m.parts.iter().map(|part| part.over);
                over.fold(Ballot::ZERO, Ballot::max).reading()
            }
            Message::RangeEqual(m) => m.floor.reading(),
            Message::RangeReply(m) => {
                let accepted = m.entries.iter().map(|entry| entry.accepted);
                accepted.fold(m.floor, Ballot::max).reading()
            }
            _ => 0,
        }
    }

    /// Checks bounds that decoding alone does not enforce.
    fn check(&self) -> Result<(), BodyError> {
        bounded(self.latest() <= READING_SANE_MAX)?;
        let record = match self {
            Message::Promise(m) => m.record.as_ref(),
            Message::ReadAnswer(m) => m.record.as_ref(),
            Message::Accept(m) => Some(&m.record),
            Message::Copy(m) => Some(&m.record),
            Message::Heartbeat(m) => {
                let fits = |row: &Row| {
                    let clocks = row.clock <= READING_SANE_MAX && row.wall_ms <= to_ms(READING_MAX);
                    let lists = row.links.len() <= NODES_MAX && row.seen.len() <= 2 * MEMBERS_MAX;
                    clocks && lists && row.node > 0
                };
                let fit = (1..=NODES_MAX).contains(&m.rows.len()) && m.rows.iter().all(fits);
                return if fit { Ok(()) } else { Err(BodyError::Bounds) };
            }
            Message::Chosen(m) if m.chosen.len() > CHOSEN_PER_MESSAGE_MAX => {
                return Err(BodyError::Bounds);
            }
            Message::Survey(m) => return bounded(m.name.len() <= CLUSTER_NAME_SIZE_MAX),
            Message::SurveyAnswer(m) => return bounded(m.name.len() <= CLUSTER_NAME_SIZE_MAX),
            Message::ConfigurationUpdate(m) => return bounded(m.configuration.is_sound()),
            Message::ConfigurationRequest(m) => {
                return bounded(m.address.len() <= ADDRESS_SIZE_MAX);
            }
            Message::DigestsReply(m) => return bounded(m.sums.buckets().is_some()),
            Message::BucketReply(m) => return bounded(m.entries.len() <= KEYS_PER_MESSAGE_MAX),
            Message::CopiesRequest(m) => return bounded(m.keys.len() <= KEYS_PER_MESSAGE_MAX),
            Message::RangeRequest(m) => return bounded(m.range.is_of_users()),
            Message::RangeReply(m) => {
                return bounded(m.entries.len() <= RANGE_KEYS_MAX && m.is_sound());
            }
            Message::Resolve(m) => return bounded(m.parts.len() <= KEYS_PER_MESSAGE_MAX),
            Message::AllAccepted(m) => return bounded(m.rounds.len() <= KEYS_PER_MESSAGE_MAX),
            Message::Purge(m) => return bounded(m.tombstones.len() <= KEYS_PER_MESSAGE_MAX),
            Message::Probe(m) => return bounded(m.padding.len() <= PROBE_SIZE),
            _ => None,
        };
        // A record over a bound that is already on disk is still loaded. But if a node accepted
        // such a record from a message, and the record did not fit an answer, its key would be
        // blocked for good.
        record.map_or(Ok(()), |record| {
            bounded(record.size() <= RECORD_SIZE_MAX)?;
            record.check()
        })
    }
}

fn bounded(fits: bool) -> Result<(), BodyError> {
    if fits { Ok(()) } else { Err(BodyError::Bounds) }
}

/// An Accept at the ballot after `over`. Its record is the one accepted at `over`, with its
/// transaction's intent rolled forward if `committed`, and without it otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvePart {
    pub round: u64,
    pub key: Key,
    pub over: Ballot,
    pub committed: bool,
}

impl BucketReply {
    /// The next page begins after this one does.
    pub fn leads_on(&self) -> bool {
        self.next.is_none() || self.next > self.after
    }

    /// Whether this page covers the key, which is after `after`.
    pub fn reaches(&self, key: &Key) -> bool {
        self.next.as_ref().is_none_or(|next| key <= next)
    }

    /// Whether this page covers any key after this one.
    pub fn goes_beyond(&self, key: &Key) -> bool {
        self.next.as_ref().is_none_or(|next| key < next)
    }
}

impl RangeReply {
    /// Whether the entries are votes, in order of key, and none is behind `next`.
    fn is_sound(&self) -> bool {
        let keys = || self.entries.iter().map(|entry| &entry.key);
        let reaches = |last: &Key| self.next.as_ref().is_none_or(|next| last <= next);
        self.entries
            .iter()
            .all(|entry| entry.accepted > Ballot::ZERO)
            && keys().is_sorted_by(|a, b| a < b)
            && keys().next_back().is_none_or(reaches)
    }
}

/// A message with the fields of its frame header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub origin: NodeId,
    pub destination: NodeId,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub round: RoundId,
    /// How many more relays it may pass.
    pub hops_left: u8,
    /// The previous hop, 0 if unknown. Not on the wire: it follows from the datagram's sender.
    pub via: NodeId,
    pub message: Message,
}

/// Where a peer message goes next. Its final destination is in its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// By the id that the configuration assigned.
    Node(NodeId),
    /// By the place in the list of nodes, before a configuration has assigned ids.
    Listed(u8),
    /// For a node that may not know its id yet.
    Address(Arc<str>),
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    Hello(Hello),
    Request(Request),
    StatusRequest(StatusRequest),
    Change(ChangeRequest),
    /// From a gateway: the operation of a text client, which has no session and no id except its
    /// source address.
    Sessionless {
        id: u64,
        key: Bytes,
        action: Action,
    },
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientReply {
    Hello(HelloAnswer),
    Answer(Answer),
    NoSession(NoSession),
    /// The runtime adds the fields that only it knows (keys, durability, uptime, dropped
    /// datagrams).
    Status {
        attempt: u64,
        status: Box<NodeStatus>,
    },
    Change {
        attempt: u64,
        outcome: ChangeOutcome,
    },
    /// The gateway translates the outcome into its own protocol.
    Sessionless {
        id: u64,
        outcome: Outcome,
    },
}

/// All inputs of the protocol core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// From another node. `cluster` is the cluster id of the datagram.
    Peer { cluster: u64, envelope: Envelope },
    Client {
        from: Endpoint,
        message: ClientMessage,
    },
    Loaded {
        key: Key,
        state: Option<AcceptorState>,
    },
    /// The node's entries of a bucket after the key `after`, as of some time after `Output::List`
    /// requested them in that epoch. They include every group that was returned before that output.
    Listed {
        bucket: Bucket,
        after: Option<Key>,
        epoch: Epoch,
        page: Page,
    },
    /// S1: the answer to `Output::ListRange`, as of some time after it.
    RangeListed {
        listing: u64,
        epoch: Epoch,
        page: RangePage,
    },
    /// This group, and all groups before it, are as durable as the node's settings demand.
    Persisted { group: GroupNumber },
    /// A timer that `next_timeout` announced is due.
    Timeout,
    /// X7: how long datagrams wait.
    Waited(ReceiveWait),
    /// The space that the node lacks from now on, or `None` (X6).
    Full(Option<Full>),
    /// Accept no further operations. Operations in progress continue until the driver stops.
    Stop,
}

/// All outputs of the protocol core. The core itself holds back a message that must not leave
/// before a group is durable (R2), so the driver sends every returned message at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Persist(Box<Group>),
    Load(Key),
    /// Requests `Input::Listed` for that page of a bucket, with the same epoch.
    List {
        bucket: Bucket,
        after: Option<Key>,
        epoch: Epoch,
    },
    /// Requests `Input::RangeListed` for a page of a range, with the same number and epoch.
    ListRange {
        listing: u64,
        range: KeyRange,
        bounds: PageBounds,
        epoch: Epoch,
    },
    Send {
        to: Destination,
        envelope: Envelope,
    },
    Reply {
        to: Endpoint,
        reply: ClientReply,
    },
    Event(Event),
}

/// Changes that are written together, in order of `number`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub number: GroupNumber,
    pub registers: Vec<(Key, AcceptorState)>,
    /// Keys that have no state any more (P1). None of them is among `registers`.
    pub dropped: Vec<Key>,
    /// Chosen marks for records that were found to be chosen after they were written. No message
    /// waits for them.
    pub chosen: Vec<(Key, Ballot)>,
    /// Present if any of it changed. A group with it is synced whatever the durability.
    pub meta: Option<Meta>,
}

/// The node's own state, apart from its registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// B1: above every reading that this node issued, promised, accepted or observed.
    pub ceiling: u64,
    /// E6: the incarnation of the first listed node to which this node is committed.
    pub bound_to: Option<Incarnation>,
    pub configuration: Option<Configuration>,
    /// E4: the incarnation that replaces the store's own one after the node was removed; 0 while
    /// there is none.
    pub incarnation: Incarnation,
    /// E5: counts the node's admissions. State of an earlier life is a cache, not a vote.
    pub life: u32,
    /// P1: the promise for all keys that have no state.
    pub floor: Ballot,
    /// E1: how often the node was started with this state.
    pub starts: u64,
    /// E8: configurations from which the node's own one is split by force.
    pub splits: Vec<Configuration>,
    /// Nodes that earlier configurations named, with their addresses.
    pub former: BTreeMap<NodeId, String>,
}

/// The state from which a node starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub incarnation: Incarnation,
    pub meta: Meta,
    pub group: GroupNumber,
    pub digests: Digests,
    /// L1: the keys that expire, each with its time.
    pub expiring: Vec<(u64, Key)>,
    /// Nodes that are at other addresses than the configuration says.
    pub readdressed: Vec<Readdressed>,
}

/// Encodes a reply to a client and returns the frame kind.
pub fn encode_reply(reply: &ClientReply, into: &mut Vec<u8>) -> u8 {
    match reply {
        ClientReply::Hello(body) => {
            wire::encode(into, body);
            wire::kind::HELLO_ANSWER
        }
        ClientReply::Answer(body) => {
            wire::encode(into, body);
            wire::kind::ANSWER
        }
        ClientReply::NoSession(body) => {
            wire::encode(into, body);
            wire::kind::NO_SESSION
        }
        ClientReply::Status { attempt, status } => {
            let body = wire::StatusAnswer {
                attempt: *attempt,
                status: (**status).clone(),
            };
            wire::encode(into, &body);
            wire::kind::STATUS_ANSWER
        }
        ClientReply::Change { attempt, outcome } => {
            let body = ChangeAnswer {
                attempt: *attempt,
                outcome: outcome.clone(),
            };
            wire::encode(into, &body);
            wire::kind::CHANGE_ANSWER
        }
        ClientReply::Sessionless { .. } => {
            unreachable!("who has no session is answered by its gateway, not in a frame")
        }
    }
}

/// `None` for a kind that no client sends.
pub fn decode_client(kind: u8, body: &[u8]) -> Result<Option<ClientMessage>, BodyError> {
    Ok(Some(match kind {
        wire::kind::HELLO => ClientMessage::Hello(wire::decode(body)?),
        wire::kind::REQUEST => ClientMessage::Request(wire::decode(body)?),
        wire::kind::STATUS_REQUEST => ClientMessage::StatusRequest(wire::decode(body)?),
        wire::kind::CHANGE_REQUEST => ClientMessage::Change(wire::decode(body)?),
        _ => return Ok(None),
    }))
}
