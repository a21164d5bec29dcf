//! Changes of the configuration: by operators, automatically, and by force; and how a node applies
//! them.

pub(in crate::protocol::replica) mod change;
pub(in crate::protocol::replica) mod life;
pub(in crate::protocol::replica) mod operator;
pub(in crate::protocol::replica) mod policy;
pub(in crate::protocol::replica) mod readdressing;
pub(in crate::protocol::replica) mod split;
pub(in crate::protocol::replica) mod starts;
pub(in crate::protocol::replica) mod uninstalled;
pub(in crate::protocol::replica) mod vote;

use change::Changes;
use split::Splits;
use starts::{StartConfirmation, Starts};

/// Changes of the configuration, and the checks that precede this node's participation in it.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) changes: Changes,
    /// E8: `meta.splits`, by lineage.
    pub(super) splits: Splits,
    pub(super) starts: Starts,
    pub(super) confirmation: StartConfirmation,
    /// The state of an earlier boot has not been checked against the cluster yet.
    pub(super) is_restarted: bool,
}

impl Membership {
    pub(super) fn new(confirmation: StartConfirmation) -> Self {
        Membership {
            changes: Changes::default(),
            splits: Splits::default(),
            starts: Starts::default(),
            confirmation,
            is_restarted: true,
        }
    }
}
