//! Members that have moved to other addresses, as operators told each node while it was stopped:
//! the address book. It is no matter of quorums. Who a member is, its id and incarnation, stays,
//! and these are what is counted. So nodes that were told of different addresses, or of none, at
//! worst do not reach each other; and whichever of them change the configuration next write their
//! addresses into it.

use serde::{Deserialize, Serialize};

use crate::protocol::types::message::{Configuration, Member, NodeId};

/// A node is at another address than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readdressed {
    pub node: NodeId,
    /// What the configuration says. Once it says anything else, that counts.
    pub old: String,
    pub new: String,
}

impl Readdressed {
    pub fn is_of(&self, member: &Member) -> bool {
        (self.node, &self.old) == (member.node, &member.address)
    }
}

/// Where that member of the configuration is.
pub fn address<'a>(readdressed: &'a [Readdressed], member: &'a Member) -> &'a str {
    let found = readdressed.iter().find(|r| r.is_of(member));
    found.map_or(&member.address, |found| &found.new)
}

/// The configuration with the addresses at which its nodes are; `None` if these are those that it
/// says.
pub fn readdress(readdressed: &[Readdressed], agreed: &Configuration) -> Option<Configuration> {
    let is_readdressed = |member: &Member| readdressed.iter().any(|r| r.is_of(member));
    let joint = agreed.joint.iter().flatten();
    if !agreed.nodes().chain(joint).any(is_readdressed) {
        return None;
    }
    let mut present = agreed.clone();
    let joint = present.joint.iter_mut().flatten();
    let all = present.members.iter_mut().chain(joint);
    for member in all.chain(&mut present.away) {
        member.address = address(readdressed, member).to_owned();
    }
    Some(present)
}
