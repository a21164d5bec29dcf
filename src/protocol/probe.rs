//! Whether large datagrams get through: nothing of the protocol depends on it, but an operator may want to
//! know. Each node sends some over all links; the node at a link's end tells.

use bytes::Bytes;
use kvclient::wire::LinkStatus;

use super::Replica;
use super::limits::{PROBE_MS, PROBE_SIZE};
use super::message::{Destination, NodeId, Now, Output, Probe};

impl Replica {
    /// At each heartbeat.
    pub(super) fn probe_links(&mut self, now: Now) {
        if now.mono_us < self.probed_us + PROBE_MS * 1_000 || self.node == 0 {
            return;
        }
        self.probed_us = now.mono_us;
        let nodes = self.configuration.iter().flat_map(|c| c.nodes());
        let others = nodes.map(|m| m.node).filter(|node| *node != self.node);
        let padding = Bytes::from_static(&[0; PROBE_SIZE]);
        for node in others.collect::<Vec<NodeId>>() {
            let padding = padding.clone();
            let envelope = self.envelope(node, 0, Probe { padding }.into());
            let to = Destination::Node(node);
            self.outputs.push_back(Output::Send { to, envelope });
        }
    }

    /// For people.
    pub(super) fn links_status(&self, now: Now) -> Vec<LinkStatus> {
        let mut links = self.links.status();
        for link in links.iter_mut().filter(|link| link.to == self.node) {
            link.drops_large = self.links.drops_large(link.from, now);
        }
        links
    }
}
