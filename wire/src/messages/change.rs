//! An operator's requests to change the configuration, and a node's replies.
//!
//! A request names the desired result, not the steps to it. A request whose result already holds,
//! or is in progress, changes nothing. So a retry is harmless if the first attempt arrived.

use serde::{Deserialize, Serialize};

use super::BodyError;
use super::bounded::at_most;

/// The most nodes that one request may name: as many as a configuration may have members.
pub const CHANGE_NODES_MAX: usize = 9;
/// The largest size of a `HOST:PORT`.
pub const CHANGE_ADDRESS_SIZE_MAX: usize = 300;
/// A node's reason in plain words is truncated to this size.
pub const CHANGE_REASON_SIZE_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRequest {
    pub token: u64,
    pub attempt: u64,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeAnswer {
    pub attempt: u64,
    pub outcome: ChangeOutcome,
}

/// A request names nodes by the ids that the configuration gave them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatChange", into = "FlatChange")]
pub enum Change {
    /// The node at that address becomes a member in place of `node`.
    Replace { node: u8, address: String },
    /// That node is removed from the configuration.
    Remove { node: u8 },
    /// The node at that address becomes a member.
    Add { address: String },
    /// That member becomes the first.
    TransferMaster { node: u8 },
    /// Without a quorum: exactly these nodes become the members. The node that receives the request
    /// does this only while its configuration is that of `epoch` and, unless `despite_quorum` is
    /// set, only while it reaches no quorum of it.
    Force {
        nodes: Vec<u8>,
        epoch: u64,
        despite_quorum: bool,
    },
}

/// A node's immediate reply to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatChangeOutcome", into = "FlatChangeOutcome")]
pub enum ChangeOutcome {
    /// The requested result holds already.
    Done { epoch: u64, node: u8 },
    /// A change that leads to configuration `epoch` is in progress; `node` is the id that an
    /// address was given, 0 if none was.
    Started { epoch: u64, node: u8 },
    /// The change has to wait until node `node` is admitted, which happens automatically.
    Waits { epoch: u64, node: u8 },
    /// Nothing was done, for the reason given in plain words; if `soon` is set, the same request
    /// may succeed shortly.
    Refused { reason: String, soon: bool },
}

#[derive(Clone, Serialize, Deserialize)]
struct FlatChange {
    code: u8,
    node: u8,
    address: String,
    #[serde(deserialize_with = "at_most::<_, _, CHANGE_NODES_MAX>")]
    nodes: Vec<u8>,
    epoch: u64,
    despite_quorum: bool,
}

impl From<Change> for FlatChange {
    fn from(change: Change) -> Self {
        let mut flat = FlatChange {
            code: 0,
            node: 0,
            address: String::new(),
            nodes: Vec::new(),
            epoch: 0,
            despite_quorum: false,
        };
        match change {
            Change::Replace { node, address } => (flat.node, flat.address) = (node, address),
            Change::Remove { node } => (flat.code, flat.node) = (1, node),
            Change::Add { address } => (flat.code, flat.address) = (2, address),
            Change::TransferMaster { node } => (flat.code, flat.node) = (3, node),
            Change::Force {
                nodes,
                epoch,
                despite_quorum,
            } => {
                (flat.code, flat.nodes, flat.epoch) = (4, nodes, epoch);
                flat.despite_quorum = despite_quorum;
            }
        }
        flat
    }
}

impl TryFrom<FlatChange> for Change {
    type Error = BodyError;

    fn try_from(flat: FlatChange) -> Result<Self, BodyError> {
        let FlatChange {
            node,
            address,
            nodes,
            ..
        } = flat;
        let addressed = (1..=CHANGE_ADDRESS_SIZE_MAX).contains(&address.len());
        let named = (1..=CHANGE_NODES_MAX).contains(&nodes.len()) && !nodes.contains(&0);
        Ok(match flat.code {
            0 if node > 0 && addressed => Change::Replace { node, address },
            1 if node > 0 => Change::Remove { node },
            2 if addressed => Change::Add { address },
            3 if node > 0 => Change::TransferMaster { node },
            4 if named => Change::Force {
                nodes,
                epoch: flat.epoch,
                despite_quorum: flat.despite_quorum,
            },
            _ => return Err(BodyError::Bounds),
        })
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct FlatChangeOutcome {
    code: u8,
    epoch: u64,
    node: u8,
    soon: bool,
    reason: String,
}

impl From<ChangeOutcome> for FlatChangeOutcome {
    fn from(outcome: ChangeOutcome) -> Self {
        let flat = |code, epoch, node| FlatChangeOutcome {
            code,
            epoch,
            node,
            soon: false,
            reason: String::new(),
        };
        match outcome {
            ChangeOutcome::Done { epoch, node } => flat(0, epoch, node),
            ChangeOutcome::Started { epoch, node } => flat(1, epoch, node),
            ChangeOutcome::Waits { epoch, node } => flat(2, epoch, node),
            ChangeOutcome::Refused { mut reason, soon } => {
                reason.truncate(reason.floor_char_boundary(CHANGE_REASON_SIZE_MAX));
                FlatChangeOutcome {
                    soon,
                    reason,
                    ..flat(3, 0, 0)
                }
            }
        }
    }
}

impl TryFrom<FlatChangeOutcome> for ChangeOutcome {
    type Error = BodyError;

    fn try_from(flat: FlatChangeOutcome) -> Result<Self, BodyError> {
        let FlatChangeOutcome {
            epoch,
            node,
            soon,
            reason,
            ..
        } = flat;
        Ok(match flat.code {
            0 => ChangeOutcome::Done { epoch, node },
            1 => ChangeOutcome::Started { epoch, node },
            2 => ChangeOutcome::Waits { epoch, node },
            3 if reason.len() <= CHANGE_REASON_SIZE_MAX => ChangeOutcome::Refused { reason, soon },
            _ => return Err(BodyError::Bounds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    fn back<T: Serialize + serde::de::DeserializeOwned>(body: &T) -> Result<T, BodyError> {
        let mut bytes = Vec::new();
        encode(&mut bytes, body);
        decode(&bytes)
    }

    fn force(nodes: Vec<u8>) -> Change {
        Change::Force {
            nodes,
            epoch: 7,
            despite_quorum: true,
        }
    }

    #[test]
    fn changes_and_outcomes_survive_the_wire() {
        let address = "host:7000".to_owned();
        for change in [
            Change::Replace {
                node: 3,
                address: address.clone(),
            },
            Change::Remove { node: 255 },
            Change::Add { address },
            Change::TransferMaster { node: 1 },
            force((1..=9).collect()),
        ] {
            assert_eq!(back(&change).as_ref(), Ok(&change));
        }
        let (epoch, node) = (9, 4);
        for outcome in [
            ChangeOutcome::Done { epoch, node },
            ChangeOutcome::Started { epoch, node },
            ChangeOutcome::Waits { epoch, node },
            ChangeOutcome::Refused {
                reason: "there is no node 7".to_owned(),
                soon: true,
            },
        ] {
            assert_eq!(back(&outcome).as_ref(), Ok(&outcome));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let long = "a".repeat(CHANGE_ADDRESS_SIZE_MAX + 1);
        for change in [
            Change::Replace {
                node: 0,
                address: "a:1".to_owned(),
            },
            Change::Remove { node: 0 },
            Change::Add {
                address: String::new(),
            },
            Change::Add { address: long },
            Change::TransferMaster { node: 0 },
            force(Vec::new()),
            force(vec![0]),
            force((1..=10).collect()),
        ] {
            assert_eq!(back(&change), Err(BodyError::Malformed), "{change:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let outcome = ChangeOutcome::Refused {
            reason: "ä".repeat(CHANGE_REASON_SIZE_MAX),
            soon: false,
        };
        let Ok(ChangeOutcome::Refused { reason, .. }) = back(&outcome) else {
            panic!("a refusal");
        };
        assert_eq!(reason, "ä".repeat(CHANGE_REASON_SIZE_MAX / 2));
    }
}
