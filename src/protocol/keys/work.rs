//! Work that waits for a key to become resident, besides operations and messages.

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::copy_purpose::CopyPurpose;
use crate::protocol::types::message::NodeId;

/// What to do with a key once it is resident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyWork {
    /// Send its record to the node that asked.
    Copy {
        to: NodeId,
        purpose: CopyPurpose,
        via: NodeId,
    },
    /// E5: a member reports that the cached record is chosen at that ballot.
    Promote { ballot: Ballot },
    /// E5: the cached record is to be discarded.
    Discard { ballot: Ballot },
    /// P1: all members hold its tombstone at that ballot.
    Purge { ballot: Ballot },
    /// L1: it may have expired.
    Expire,
}
