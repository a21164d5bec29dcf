//! Peer messages, and the core's inputs and outputs. No behaviour but encoding.

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
use crate::protocol::types::configuration::{Forced, Unreadable};
use crate::protocol::types::digest::{Bucket, Digests, Spread, Sums};
use crate::protocol::types::limits::{
    ADDRESS_SIZE_MAX, CHOSEN_PER_MESSAGE_MAX, KEYS_PER_MESSAGE_MAX, MEMBERS_MAX, NODES_MAX,
    PROBE_SIZE, RECORD_SIZE_MAX,
};
use crate::protocol::types::page::Page;
use crate::protocol::types::readdress::Readdressed;
use crate::protocol::types::record::{AcceptorState, Key, Record};

/// Given out by the configuration, from 1; 0 stands for a client or a node without an id.
pub type NodeId = u8;
/// A random id kept with a node's state; a node without its state has a new one (E1).
pub type Incarnation = u64;
pub type Epoch = u64;
/// No configuration has a later one: a lineage and a count of changes (E8) are 52 bits, so that readers in
/// floating point get all of it.
pub const EPOCH_MAX: Epoch = (1 << 52) - 1;
/// Correlates answers with the round that asked; unique across restarts of the asking node (R4).
pub type RoundId = u64;
pub type GroupNumber = u64;

/// The time of an input: a monotonic clock for timers, the wall clock for ballots (B2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    pub mono_us: u64,
    pub wall_ms: u64,
}

/// A client's address as the runtime sees it; IPv4 is mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: u128,
    /// Of a link-local address: the interface of this machine that it is reached through; else 0.
    pub zone: u32,
    pub port: u16,
    /// The datagram came from this node's own machine.
    pub is_own_machine: bool,
}

impl Endpoint {
    /// Without a zone, of another machine.
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
    /// How often it was removed of late without having been asked to leave, and when last (a reading
    /// of the hybrid clock): how long it must have been steady before it is admitted again.
    pub removals: u8,
    pub removed_at: u64,
}

/// Whether a frame with that destination is for another node than this one, which has the id `own`.
pub fn is_transit(own: NodeId, destination: NodeId) -> bool {
    destination != 0 && own != 0 && destination != own
}

/// What a relay needs of a frame between other nodes; `via` is the neighbour that it came from.
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

/// A configuration that is installed, or travels. The first member is the master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub cluster: u64,
    /// From 1; 0 is "none yet".
    pub epoch: Epoch,
    pub members: Vec<Member>,
    /// The members of the configuration to come, while this one is joint (Q2).
    pub joint: Option<Vec<Member>>,
    /// B3: acceptors refuse ballots at or below it.
    pub base: Ballot,
    /// E6: the incarnation of the first listed node that formed the first configuration.
    pub formed_by: Incarnation,
    /// Nodes that have an id and no vote: removed ones, which may come back, and those to be admitted.
    pub away: Vec<Member>,
    /// The highest id that was given out.
    pub ids: NodeId,
    /// An operator made it without a quorum. It is joint with itself, and until it is complete all of
    /// its members are its quorum, so that what any of them holds is kept.
    pub forced: bool,
    /// D1: chosen with the first configuration; no change of it changes this.
    pub spread: Spread,
    /// E8: the forces that this configuration comes of, or superseded; the last one names its lineage.
    pub forces: Vec<Forced>,
    /// As the operator named the cluster when the first configuration was formed, or empty; no change of it
    /// changes this. Releases before this one wrote none.
    #[serde(default)]
    pub name: String,
}

/// Tells a neighbour of its own heartbeat, so that it can tell how long a round trip takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    pub number: u32,
    /// How long ago it came.
    pub held_us: u32,
}

/// What a node tells of itself and of the links towards it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub boot: u64,
    /// `Meta::starts`, once that is on its disk; until then 0.
    pub starts: u64,
    /// The last group that it found on its disk at this start, and the last that is durable by now.
    pub found: GroupNumber,
    pub synced: GroupNumber,
    /// Its hybrid clock; of two rows the one with the later reading counts.
    pub clock: u64,
    pub wall_ms: u64,
    /// How long the oldest write has been on its way to the disk.
    pub unsynced_ms: u32,
    /// E1: the boots of other voters that it has heard of, and that nothing it knows speaks against.
    pub seen: Vec<(NodeId, u64)>,
    /// X6: what the node has no room of (`Full::code`), 0 if it is not full.
    pub full: u8,
    pub links: Vec<LinkTold>,
}

/// A link as the node at its end measures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTold {
    pub from: NodeId,
    pub up: bool,
    /// Up, or on probation: heard again, but not for long enough.
    pub heard: bool,
    /// Smoothed; 0 while it is not known.
    pub rtt_us: u32,
    pub loss_permille: u16,
}

/// What a node holds for one key of a bucket: records that are votes, or of a learner its copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEntry {
    pub key: Key,
    pub accepted: Ballot,
    pub chosen: bool,
    pub tombstone: bool,
    /// About what a copy of the record takes on the way.
    pub size: u32,
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

            /// Of a frame's kind.
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
    /// `floor` counts where there is no record (R4, X3).
    Promise = 17 { ballot: Ballot, accepted: Ballot, record: Option<Arc<Record>>, floor: Ballot }
    Nack = 18 { ballot: Ballot, promised: Ballot }
    Accept = 19 { key: Key, ballot: Ballot, record: Arc<Record> }
    Accepted = 20 { ballot: Ballot }
    /// Ballots known to be chosen.
    Chosen = 21 { chosen: Vec<(Key, Ballot)> }
    /// `holds` is the ballot whose record the asker has; zero for none.
    Read = 22 { key: Key, holds: Ballot }
    /// Without a record if there is none, or if the asker holds it.
    ReadAnswer = 23 { accepted: Ballot, chosen: bool, record: Option<Arc<Record>>, floor: Ballot }
    /// `attempt` counts in the session between two boots, `from_boot` and `to_boot`.
    /// `waited_us`: since it came to the forwarder; `heard`: the receiver's clock, as that had last heard it.
    Forward = 24 { from_boot: u64, to_boot: u64, attempt: u64, waited_us: u64, heard: u64, operation: Operation }
    ForwardAnswer = 25 { to_boot: u64, attempt: u64, outcome: Outcome }
    /// To a neighbour, never relayed. `number` counts those to it; `rows` begin with the sender's own.
    Heartbeat = 26 { number: u32, echo: Option<Echo>, rows: Vec<Row> }
    /// E6: the first listed node asks. `nonce` is the one that the asked node gave, 0 at first.
    Survey = 27 { list: u64, index: u8, asker: Incarnation, nonce: u64, name: String }
    /// E6: of a node without state: its word if `bound_to` is the asker and the nonce was right.
    SurveyAnswer = 28 { list: u64, index: u8, incarnation: Incarnation, nonce: u64, word: bool, bound_to: Option<Incarnation>, name: String }
    ConfigurationTold = 29 { configuration: Configuration }
    /// `address` is the asker's own, where the answer goes.
    ConfigurationAsked = 30 { epoch: Epoch, address: String }
    /// C1: a record known to be chosen, for a member that missed it.
    Copy = 31 { key: Key, ballot: Ballot, record: Arc<Record> }
    /// `refused_for` is the promise that stood in the way; without one the member holds that record or a later one.
    Copied = 32 { key: Key, ballot: Ballot, refused_for: Option<Ballot> }
    /// For the digests of all buckets (see `digest`). `total` is the asker's own sum of them, if that it is the
    /// same is all that the asker wants to know then.
    DigestsAsked = 33 { total: Option<u64> }
    /// E3: told in the envelope's epoch, and so after its installing. `clock` is above all that the
    /// member promised or accepted before.
    DigestsTold = 34 { clock: u64, sums: Sums }
    /// For what the asked node holds in a bucket, in order of key, behind `after`.
    BucketAsked = 35 { bucket: Bucket, after: Option<Key> }
    /// What there is behind `after`, up to `next` if there is more behind that.
    BucketTold = 36 { bucket: Bucket, after: Option<Key>, entries: Vec<BucketEntry>, next: Option<Key> }
    /// C1: a member is asked for copies of these keys' records.
    CopiesAsked = 37 { keys: Vec<Key> }
    /// E4: a learner of the envelope's epoch and incarnation asks to be admitted. Of what is chosen in the
    /// first `listed` buckets it is to be told; of the others it will ask for all that they hold.
    AdmissionAsked = 38 { ready: bool, listed: Bucket }
    /// P1: all members hold these tombstones at these ballots; they are to be dropped.
    Purge = 39 { tombstones: Vec<(Key, Ballot)> }
    /// E1: the receiver's incarnation was started as often, or more often, in another boot than the present,
    /// or had more on its disk then than it found at its present start.
    RolledBack = 40 { incarnation: Incarnation, starts: u64, boot: u64, synced: GroupNumber }
    /// To a neighbour, never relayed, and never cut into parts: whether large datagrams get through.
    Probe = 41 { padding: Bytes }
    /// The sum of all digests is the one that was told with the question.
    DigestsEqual = 42 { total: u64 }
}

impl Message {
    /// B5: the latest of the ballots, births and clocks in it that the receiver's state or clock would
    /// follow. A heartbeat's rows are looked at one by one, and so is a forwarded operation.
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
            Message::Copied(m) => m.refused_for.map_or(0, Ballot::reading),
            Message::DigestsTold(m) => m.clock,
            _ => 0,
        }
    }

    /// Bounds that decoding alone does not enforce.
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
            Message::ConfigurationTold(m) => return bounded(m.configuration.is_sound()),
            Message::ConfigurationAsked(m) => return bounded(m.address.len() <= ADDRESS_SIZE_MAX),
            Message::DigestsTold(m) => return bounded(m.sums.buckets().is_some()),
            Message::BucketTold(m) => return bounded(m.entries.len() <= KEYS_PER_MESSAGE_MAX),
            Message::CopiesAsked(m) => return bounded(m.keys.len() <= KEYS_PER_MESSAGE_MAX),
            Message::Purge(m) => return bounded(m.tombstones.len() <= KEYS_PER_MESSAGE_MAX),
            Message::Probe(m) => return bounded(m.padding.len() <= PROBE_SIZE),
            _ => None,
        };
        // What the disk holds from before is taken back all the same. But one that is taken here and does
        // not fit an answer would block its key for good.
        record.map_or(Ok(()), |record| {
            bounded(record.size() <= RECORD_SIZE_MAX)?;
            record.check()
        })
    }
}

fn bounded(fits: bool) -> Result<(), BodyError> {
    if fits { Ok(()) } else { Err(BodyError::Bounds) }
}

impl BucketTold {
    /// What comes next is behind what came before.
    pub fn leads_on(&self) -> bool {
        self.next.is_none() || self.next > self.after
    }

    /// Whether it tells of what is at this key, behind `after`.
    pub fn reaches(&self, key: &Key) -> bool {
        self.next.as_ref().is_none_or(|next| key <= next)
    }

    /// Whether it tells of anything behind this key.
    pub fn goes_beyond(&self, key: &Key) -> bool {
        self.next.as_ref().is_none_or(|next| key < next)
    }
}

/// A message with what its frame's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub origin: NodeId,
    pub destination: NodeId,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub round: RoundId,
    /// Relays that it may still pass.
    pub hops_left: u8,
    /// The neighbour that it came from, 0 if that is not known. Not on the wire: the datagram tells.
    pub via: NodeId,
    pub message: Message,
}

/// Where a peer message goes next; for whom it is its envelope says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// By the id that the configuration gave.
    Node(NodeId),
    /// By the place in the list of nodes, before a configuration gave ids.
    Listed(u8),
    /// For a node that may not know yet which id it has.
    Address(Arc<str>),
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    Hello(Hello),
    Request(Request),
    StatusRequest(StatusRequest),
    Change(ChangeRequest),
    /// From a gateway: of a client that has no session and no id but where it sends from.
    Sessionless {
        id: u64,
        key: Bytes,
        action: Action,
    },
}

/// What a client is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientReply {
    Hello(HelloAnswer),
    Answer(Answer),
    NoSession(NoSession),
    /// The runtime fills in what it alone knows (keys, durability, uptime, dropped datagrams).
    Status {
        attempt: u64,
        status: Box<NodeStatus>,
    },
    Change {
        attempt: u64,
        outcome: ChangeOutcome,
    },
    /// The gateway says it in its own words.
    Sessionless {
        id: u64,
        outcome: Outcome,
    },
}

/// All that enters the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// From another node; `cluster` is the datagram's.
    Peer { cluster: u64, envelope: Envelope },
    Client {
        from: Endpoint,
        message: ClientMessage,
    },
    Loaded {
        key: Key,
        state: Option<AcceptorState>,
    },
    /// What the node holds in a bucket behind `after`, as of some moment after `Output::List` asked for it
    /// in that epoch: whatever was in groups handed out before is in it.
    Listed {
        bucket: Bucket,
        after: Option<Key>,
        epoch: Epoch,
        page: Page,
    },
    /// This group, and all before it, are as durable as the node was told to make them.
    Persisted { group: GroupNumber },
    /// A timer that `next_timeout` named is due.
    Timeout,
    /// What the node has no room of from now on (X6).
    Full(Option<Full>),
    /// Stop taking operations; what runs goes on until the driver ends it.
    Stop,
}

/// All that leaves the core. What may not leave before a group is durable is held back inside (R2),
/// so the driver sends at once whatever it is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Persist(Group),
    Load(Key),
    /// Wants `Input::Listed` of that part of a bucket, with the same epoch.
    List {
        bucket: Bucket,
        after: Option<Key>,
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

/// What is written together, in order of `number`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub number: GroupNumber,
    pub registers: Vec<(Key, AcceptorState)>,
    /// Keys that have no state any more (P1). None of them is among `registers`.
    pub dropped: Vec<Key>,
    /// Marks for records that were found to be chosen since they were written. Nothing waits for them.
    pub chosen: Vec<(Key, Ballot)>,
    /// Set when something of it changed; such a group is synced whatever the durability.
    pub meta: Option<Meta>,
}

/// The node's own state beside its registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// B1: above every reading that was issued, promised, accepted or observed in these.
    pub ceiling: u64,
    /// E6: the incarnation of the first listed node that has this node's word.
    pub bound_to: Option<Incarnation>,
    pub configuration: Option<Configuration>,
    /// E4: taken in place of the store's own since that has been removed; 0 while there is none.
    pub incarnation: Incarnation,
    /// E5: counts the node's admissions; state of an earlier one is a cache, and no vote.
    pub life: u32,
    /// P1: the promise for all keys that have no state.
    pub floor: Ballot,
    /// E1: how often the node was started with this state.
    pub starts: u64,
    /// E8: configurations that the node's own is split from.
    pub splits: Vec<Configuration>,
    /// Nodes that configurations of before named, and where they were.
    pub former: BTreeMap<NodeId, String>,
}

/// What a node starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub incarnation: Incarnation,
    pub meta: Meta,
    /// The number of the last group that the store holds.
    pub group: GroupNumber,
    /// Of all registers that the store holds.
    pub digests: Digests,
    /// Nodes that are at other addresses than the configuration says.
    pub readdressed: Vec<Readdressed>,
}

/// What an operator should read in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    QuorumGained,
    QuorumLost {
        heard: Vec<NodeId>,
    },
    /// What the node waits for before it can serve, when that changes.
    Waits(String),
    ConfigurationInstalled {
        epoch: Epoch,
        votes: bool,
    },
    /// A node of another cluster, with that id there, sends here.
    OtherCluster {
        own: u64,
        other: u64,
        node: NodeId,
    },
    /// R3: `origin` gave another record for a ballot than this node holds.
    Contradiction {
        key: Key,
        ballot: Ballot,
        origin: NodeId,
    },
    ClockClamped {
        ahead_ms: u64,
    },
    ClockTrusted,
    /// A clock, this node's own perhaps, is so far ahead of the members' median, or, negative, behind.
    ClockOff {
        node: NodeId,
        offset_ms: i64,
    },
    /// No more.
    ClockRight {
        node: NodeId,
    },
    /// B5: what that node tells is too far ahead of this node's clock to be followed.
    NodeAhead {
        node: NodeId,
        ahead_ms: u64,
    },
    /// A clock has come to its end: this machine's, where `is_wall`, else that of the node's state, in
    /// milliseconds since 1970. The node does nothing more.
    ClockAtEnd {
        ms: u64,
        is_wall: bool,
    },
    /// The node was started with another name for its cluster than that has. It does nothing more.
    OtherName {
        given: String,
        cluster: u64,
        name: String,
    },
    /// The oldest write has been on its way to the disk for so long.
    DiskHangs {
        unsynced_ms: u64,
    },
    DiskGoesOn,
    /// X6: what this node or another member has no room of, when that changes.
    Full(Option<Full>),
    /// E1: the node has been here with later state than it has now.
    RolledBack,
    /// E7: what the configuration's register holds is none that this release knows.
    UnreadableConfiguration {
        ballot: Ballot,
        why: Unreadable,
    },
    /// E8: the cluster was forced twice, each time without the other. In words: this node's
    /// configuration, and the other.
    Split {
        own: String,
        other: String,
    },
    /// A change that is wanted can't be made, in words for an operator.
    ChangeRefused(String),
    /// E8: nodes at these addresses have no place in the configuration that was forced.
    LeftOut(Vec<String>),
}

/// Encodes a client's reply; gives the frame kind.
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
