//! Members that have moved to other addresses, as operators told each node while it was stopped:
//! the address book. It is no matter of quorums. Who a member is, its id and incarnation, stays,
//! and these are what is counted. So nodes that were told of different addresses, or of none, at
//! worst do not reach each other; and whichever of them change the configuration next write their
//! addresses into it.

use serde::{Deserialize, Serialize};

use super::Replica;
use super::message::{Configuration, Member, NodeId, Now};
use super::operator::as_it_is;

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

impl Replica {
    /// Takes a configuration as it was agreed on, and gives it with the addresses that this node
    /// knows.
    pub(super) fn take_agreed(&mut self, agreed: Configuration) -> Configuration {
        if agreed.joint.is_none() {
            // What it says now was said later. A joint one may still be taken back.
            self.readdressed
                .retain(|r| agreed.nodes().any(|member| r.is_of(member)));
        }
        let present = readdress(&self.readdressed, &agreed);
        self.agreed = present.is_some().then(|| agreed.clone().into());
        self.readdressed_since_us = None;
        present.unwrap_or(agreed)
    }

    /// At each heartbeat. A configuration that says other addresses than this node knows is
    /// changed, by the first member that is there, the others if it takes too long. Gives why it
    /// can't be.
    pub(super) fn write_addresses(
        &mut self,
        now: Now,
        configuration: &Configuration,
    ) -> Option<String> {
        self.agreed.as_ref()?;
        let since_us = *self.readdressed_since_us.get_or_insert(now.mono_us);
        if now.mono_us < since_us + self.patience_us(configuration) {
            return None;
        }
        self.readdressed_since_us = Some(now.mono_us);
        self.begin_change(now, as_it_is(configuration)).err()
    }
}
