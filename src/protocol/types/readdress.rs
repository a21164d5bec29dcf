//! The address book: members that have moved to other addresses, as operators told each node while
//! it was stopped. Quorums do not depend on it, because they count ids and incarnations, which a
//! move does not change. So nodes with different entries, or with none, at worst do not reach each
//! other. The node that next changes the configuration writes its addresses into it.

use serde::{Deserialize, Serialize};

use crate::protocol::types::message::{Configuration, Member, NodeId};

/// A node is at another address than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readdressed {
    pub node: NodeId,
    /// The address in the configuration. Once the configuration has another one, this entry no
    /// longer applies.
    pub old: String,
    pub new: String,
}

impl Readdressed {
    pub fn is_of(&self, member: &Member) -> bool {
        (self.node, &self.old) == (member.node, &member.address)
    }
}

/// The current address of that member of the configuration.
pub fn address<'a>(readdressed: &'a [Readdressed], member: &'a Member) -> &'a str {
    let found = readdressed.iter().find(|r| r.is_of(member));
    found.map_or(&member.address, |found| &found.new)
}

/// The configuration with the current addresses of its nodes; `None` if the configuration already
/// has them.
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
