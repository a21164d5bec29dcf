//! What a node reports to its operator's log.

use wire::Full;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::configuration::Unreadable;
use crate::protocol::types::message::{Epoch, NodeId};
use crate::protocol::types::record::Key;

/// An event for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    QuorumGained,
    QuorumLost {
        heard: Vec<NodeId>,
    },
    /// What the node needs before it can serve, reported when that changes.
    Waits(String),
    ConfigurationInstalled {
        epoch: Epoch,
        votes: bool,
    },
    /// This node receives messages from a node of another cluster, which has this id there.
    OtherCluster {
        own: u64,
        other: u64,
        node: NodeId,
    },
    /// R3: `origin` sent a record that differs from the one this node holds at the same ballot.
    Contradiction {
        key: Key,
        ballot: Ballot,
        origin: NodeId,
    },
    ClockClamped {
        ahead_ms: u64,
    },
    ClockTrusted,
    /// A clock, possibly this node's own, is this far ahead of the median, or behind it if
    /// negative.
    ClockOff {
        node: NodeId,
        offset_ms: i64,
    },
    /// The node's clock offset is within the limit again.
    ClockRight {
        node: NodeId,
    },
    /// B5: that node's readings are too far ahead of this node's clock to be followed.
    NodeAhead {
        node: NodeId,
        ahead_ms: u64,
    },
    /// A clock has reached its end: this machine's clock if `is_wall`, otherwise the hybrid clock
    /// in the node's state. In milliseconds since 1970. The node stops working.
    ClockAtEnd {
        ms: u64,
        is_wall: bool,
    },
    /// The node was started with a cluster name that differs from its cluster's. The node stops
    /// working.
    OtherName {
        given: String,
        cluster: u64,
        name: String,
    },
    /// The oldest write to the disk has been in progress for this long.
    DiskHangs {
        unsynced_ms: u64,
    },
    DiskGoesOn,
    /// X7: whether this node is overloaded.
    Overload(bool),
    /// X6: the space that this node or another member lacks, reported when that changes.
    Full(Option<Full>),
    /// E1: other nodes have seen this node with a later state than it has now.
    RolledBack,
    /// E7: the value of the configuration's register is not a configuration that this release can
    /// read.
    UnreadableConfiguration {
        ballot: Ballot,
        why: Unreadable,
    },
    /// E8: the cluster is split by force. Text that describes this node's configuration and the
    /// other one.
    Split {
        own: String,
        other: String,
    },
    /// The desired membership change is not possible. Text for an operator.
    ChangeRefused(String),
    /// E8: the forced configuration excludes the nodes at these addresses: it has no place for
    /// them.
    LeftOut(Vec<String>),
}
