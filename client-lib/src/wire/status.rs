//! Parts of what a node says of itself.

use serde::{Deserialize, Serialize};

/// What a learner has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningStatus {
    /// Parts of the keys that it went through, of so many, in its present pass.
    pub buckets_done: u64,
    pub buckets: u64,
    /// Keys that it has copied.
    pub keys_copied: u64,
}

/// What a node has noted for a member that missed writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindStatus {
    pub node: u8,
    /// Keys that wait to be copied.
    pub keys: u64,
    /// Missed writes that there was no room to note, since this node's start.
    pub overflowed: u64,
}

/// How a node's disk does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// How long the oldest write that is not finished has taken so far; 0 if there is none.
    pub unsynced_ms: u64,
    /// From so long on the node has no working disk, and no vote until it has.
    pub hung_after_ms: u64,
    pub hangs: bool,
    /// Of the last writes that were finished.
    pub sync_median_us: u64,
    pub sync_max_us: u64,
    /// Free for the node, what it keeps in reserve included, in bytes; and below what it is full.
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

/// A link in one direction, as the receiving node measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: u8,
    pub to: u8,
    pub up: bool,
    /// Smoothed; 0 while it is not known.
    pub rtt_us: u32,
    pub loss_permille: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub to: u8,
    /// The nodes that relay, in order; empty for a direct link.
    pub through: Vec<u8>,
    /// Whether a working path is known; else the direct link is tried.
    pub works: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: u8,
    pub address: String,
    /// It reaches the node that tells, and is reached by it.
    pub heard: bool,
    /// As the configuration has it; of a node without a vote as it last told, 0 if it is not known.
    pub incarnation: u64,
}
