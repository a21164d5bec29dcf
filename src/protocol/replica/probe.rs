//! Detects whether large datagrams arrive. Nothing in the protocol depends on it, but an operator
//! may want to know. Each node sends one over each link from time to time; the node at the link's
//! end reports it.

use bytes::Bytes;
use wire::LinkStatus;

use crate::protocol::replica::Replica;
use crate::protocol::types::limits::PROBE_SIZE;
use crate::protocol::types::message::{Destination, NodeId, Now, Output, Probe};

impl Replica {
    /// At each heartbeat.
    pub(super) fn probe_links(&mut self, now: Now) {
        let nodes = self.identity.configuration.iter().flat_map(|c| c.nodes());
        let others = nodes
            .map(|m| m.node)
            .filter(|node| *node != self.identity.node);
        let others: Vec<NodeId> = others.collect();
        if self.identity.node == 0 {
            return;
        }
        let Some(node) = self.view.next_probe(now, &others) else {
            return;
        };
        let padding = Bytes::from_static(&[0; PROBE_SIZE]);
        let envelope = self.envelope(node, 0, Probe { padding }.into());
        let to = Destination::Node(node);
        self.sending.push(Output::Send { to, envelope });
    }

    /// The links for the operator.
    pub(super) fn links_status(&self, now: Now) -> Vec<LinkStatus> {
        let mut links = self.links.status();
        for link in links
            .iter_mut()
            .filter(|link| link.to == self.identity.node)
        {
            link.drops_large = self.links.drops_large(link.from, now);
        }
        links
    }
}
