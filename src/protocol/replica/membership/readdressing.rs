//! Applies the addresses that a node was given while it was stopped (see `readdress`).

use crate::protocol::replica::Replica;
use crate::protocol::replica::membership::operator::as_it_is;
use crate::protocol::types::message::{Configuration, Now};
use crate::protocol::types::readdress::readdress;

impl Replica {
    /// Adopts a configuration as it was chosen, and returns it with the addresses that this node
    /// knows.
    pub(in crate::protocol::replica) fn take_agreed(
        &mut self,
        agreed: Configuration,
    ) -> Configuration {
        if agreed.joint.is_none() {
            // A new address in the configuration is newer than the one that this node was given. A
            // joint configuration may still be reverted.
            self.identity
                .readdressed
                .retain(|r| agreed.nodes().any(|member| r.is_of(member)));
        }
        let present = readdress(&self.identity.readdressed, &agreed);
        self.identity.agreed = present.is_some().then(|| agreed.clone().into());
        self.identity.readdressed_since_us = None;
        present.unwrap_or(agreed)
    }

    /// At each heartbeat. If the configuration has other addresses than this node knows, the first
    /// reachable member changes it, or another one if that takes too long. Returns why it cannot be
    /// changed, if it cannot.
    pub(in crate::protocol::replica) fn write_addresses(
        &mut self,
        now: Now,
        configuration: &Configuration,
    ) -> Option<String> {
        self.identity.agreed.as_ref()?;
        let since_us = *self
            .identity
            .readdressed_since_us
            .get_or_insert(now.mono_us);
        if now.mono_us < since_us + self.patience_us(configuration) {
            return None;
        }
        self.identity.readdressed_since_us = Some(now.mono_us);
        self.begin_change(now, as_it_is(configuration)).err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, configuration, options};
    use crate::protocol::types::message::NodeId;
    use crate::protocol::types::message::{Meta, Output, Recovered};
    use crate::protocol::types::readdress::Readdressed;

    fn moved(node: NodeId, new: &str) -> Readdressed {
        Readdressed {
            node,
            old: format!("node{node}:1"),
            new: new.into(),
        }
    }

    /// Node 1 of two, started at the address `own`.
    fn started(agreed: &Configuration, own: &str, readdressed: Vec<Readdressed>) -> Replica {
        let mut options = options();
        options.list[0] = own.into();
        let meta = Meta {
            configuration: Some(agreed.clone()),
            ..Meta::default()
        };
        let recovered = Recovered {
            incarnation: 1,
            meta,
            readdressed,
            ..Recovered::default()
        };
        Replica::new(options, recovered, NOW)
    }

    /// The configuration as it is written to disk.
    fn written(replica: &mut Replica) -> Option<Configuration> {
        let outputs = std::iter::from_fn(|| replica.poll_output());
        let metas = outputs.filter_map(|output| match output {
            Output::Persist(group) => group.meta,
            _ => None,
        });
        metas.last()?.configuration
    }

    #[test]
    fn a_node_goes_by_what_it_was_told_and_keeps_what_was_agreed_on() {
        let agreed = configuration(3);
        let reported = vec![moved(1, "here:1"), moved(2, "there:1")];
        let mut replica = started(&agreed, "here:1", reported);
        assert_eq!(replica.node(), 1);
        assert_eq!(replica.address_of(2), Some("there:1"));
        assert_eq!(written(&mut replica), Some(agreed));
        // If it was not given the new address, the node would not find itself.
        assert_eq!(started(&configuration(3), "here:1", Vec::new()).node(), 0);
    }

    #[test]
    fn what_a_later_configuration_says_counts_and_a_joint_one_forgets_nothing() {
        let reported = vec![moved(1, "here:1"), moved(2, "there:1")];
        let mut replica = started(&configuration(3), "here:1", reported);
        let mut joint = configuration(4);
        joint.members[1].address = "elsewhere:1".into();
        joint.joint = Some(joint.members.clone());
        replica.install(NOW, joint);
        assert_eq!(replica.address_of(2), Some("elsewhere:1"));
        // After the reversion the configuration has the old address again.
        replica.install(NOW, configuration(5));
        assert_eq!(replica.address_of(2), Some("there:1"));
        let mut later = configuration(6);
        later.members[1].address = "elsewhere:1".into();
        replica.install(NOW, later);
        replica.install(NOW, configuration(7));
        assert_eq!(replica.address_of(1), Some("here:1"));
        assert_eq!(replica.address_of(2), Some("node2:1"), "said after that");
    }
}
