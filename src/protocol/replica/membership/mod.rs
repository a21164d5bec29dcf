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

use wire::Outcome;

use change::Changes;
use policy::Reachability;
use split::Splits;
use starts::{StartConfirmation, Starts};
use uninstalled::Uninstalled;
use vote::Epochs;

use crate::protocol::types::message::{GroupNumber, NodeId};
use crate::protocol::types::record::Key;

/// Changes of the configuration, and what must be known before this node participates in it. Only
/// the files of this folder see what it consists of.
#[derive(Debug)]
pub(super) struct Membership {
    changes: Changes,
    reached: Reachability,
    uninstalled: Uninstalled,
    /// Why the membership change that this node desires is not possible, if it is not.
    refused: Option<String>,
    /// E8: the splits of `DurableState`, by lineage.
    splits: Splits,
    starts: Starts,
    confirmation: StartConfirmation,
    epochs: Epochs,
    /// What the state of an earlier boot says of the cluster is not checked yet.
    is_restarted: bool,
}

impl Membership {
    pub(super) fn new(confirmation: StartConfirmation) -> Self {
        Membership {
            changes: Changes::default(),
            reached: Reachability::default(),
            uninstalled: Uninstalled::default(),
            refused: None,
            splits: Splits::default(),
            starts: Starts::default(),
            confirmation,
            epochs: Epochs::default(),
            is_restarted: true,
        }
    }

    /// Once after the start: what an earlier boot left is to be checked.
    pub(super) fn is_first_input(&mut self) -> bool {
        std::mem::take(&mut self.is_restarted)
    }

    /// A round of this node chose a record for the key.
    pub(super) fn chosen(&mut self, key: &Key) {
        self.changes.chosen(key);
    }

    /// The outcome of one of this node's own operations.
    pub(super) fn answer(&mut self, sequence: u64, outcome: Outcome) {
        self.changes.answer(sequence, outcome);
    }

    /// Why the membership change that this node desires is not possible, if it is not.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The last group that was on this node's disk at its start.
    pub(super) fn group_found(&self) -> GroupNumber {
        self.confirmation.found()
    }

    /// The starts that this node confirms, of the nodes for which `is_counted` holds.
    pub(super) fn starts_seen(&self, is_counted: impl Fn(NodeId) -> bool) -> Vec<(NodeId, u64)> {
        self.starts.seen(is_counted)
    }
}
