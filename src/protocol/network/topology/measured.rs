//! What the links of this node show beside whether they work: how far a node is, and whether large datagrams
//! get through.

use super::Links;
use crate::protocol::network::link::{LEAST_RTT_MAX_US, Link};
use crate::protocol::types::message::{NodeId, Now};

impl Links {
    /// What a round trip to a node takes at least, by whatever way; 0 while that is not known.
    pub fn least_rtt_us(&self, node: NodeId) -> u64 {
        let path = self.paths.get(&node).filter(|path| path.next != node);
        let direct = self.others.get(&node).map_or(0, Link::least_rtt_us);
        // Of a path it is what others tell.
        path.map_or(direct, |path| u64::from(path.rtt_us.min(LEAST_RTT_MAX_US)))
    }

    /// A large datagram came from that neighbour.
    pub fn probed(&mut self, neighbour: NodeId, now: Now) {
        if let Some(link) = self.others.get_mut(&neighbour) {
            link.probed(now.mono_us);
        }
    }

    /// Whether only small datagrams come from that neighbour.
    pub fn drops_large(&self, neighbour: NodeId, now: Now) -> bool {
        let link = self.others.get(&neighbour);
        link.is_some_and(|link| link.drops_large(now.mono_us))
    }
}
