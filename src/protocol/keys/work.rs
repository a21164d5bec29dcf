//! What waits for a key to become resident, besides operations and messages.

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::{NodeId, RoundId};

/// What is to be done with a key once it is resident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyWork {
    /// Its record is to go to the node that asked.
    Tell {
        to: NodeId,
        round: RoundId,
        via: NodeId,
    },
    /// E5: what it holds as a cache is chosen at that ballot, says a member.
    Promote { ballot: Ballot },
    /// E5: what it holds as a cache is to go.
    Discard { ballot: Ballot },
    /// P1: all members hold its tombstone at that ballot.
    Purge { ballot: Ballot },
}
