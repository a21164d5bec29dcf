//! The identity of this node: its incarnation, and its place in the configuration.

use std::sync::Arc;

use crate::protocol::membership::formation::Bootstrap;
use crate::protocol::types::message::{Configuration, Incarnation, NodeId};
use crate::protocol::types::readdress::Readdressed;

#[derive(Debug)]
pub(super) struct NodeIdentity {
    pub(super) incarnation: Incarnation,
    /// 0 while no configuration names this node's address.
    pub(super) node: NodeId,
    /// E1: whether this incarnation is a member.
    pub(super) votes: bool,
    /// `meta.configuration`, shared, with the addresses that its nodes have now.
    pub(super) configuration: Option<Arc<Configuration>>,
    /// The configuration as it was chosen, if it has other addresses.
    pub(super) agreed: Option<Arc<Configuration>>,
    /// Members at other addresses, as an operator gave them to this node.
    pub(super) readdressed: Vec<Readdressed>,
    /// Since when the configuration has had addresses other than those.
    pub(super) readdressed_since_us: Option<u64>,
    /// Present until there is a configuration.
    pub(super) formation: Option<Bootstrap>,
}

impl NodeIdentity {
    /// The identity of a node that has not installed a configuration yet.
    pub(super) fn new(
        incarnation: Incarnation,
        readdressed: Vec<Readdressed>,
        formation: Option<Bootstrap>,
    ) -> Self {
        NodeIdentity {
            incarnation,
            node: 0,
            votes: false,
            configuration: None,
            agreed: None,
            readdressed,
            readdressed_since_us: None,
            formation,
        }
    }
}
