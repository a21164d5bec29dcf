//! Measurements of this node's links besides whether they are up: how far away a node is, and
//! whether large datagrams get through.

use super::Links;
use crate::protocol::network::link::{LEAST_RTT_MAX_US, Link};
use crate::protocol::types::message::{NodeId, Now};

impl Links {
    /// The minimum round-trip time to a node over any path; 0 while it is unknown.
    pub fn least_rtt_us(&self, node: NodeId) -> u64 {
        let path = self.paths.get(&node).filter(|path| path.next != node);
        let direct = self.others.get(&node).map_or(0, Link::least_rtt_us);
        // The time of an indirect path comes from other nodes' rows.
        path.map_or(direct, |path| u64::from(path.rtt_us.min(LEAST_RTT_MAX_US)))
    }

    /// A large datagram arrived from that neighbour.
    pub fn probed(&mut self, neighbour: NodeId, now: Now) {
        if let Some(link) = self.others.get_mut(&neighbour) {
            link.probed(now.mono_us);
        }
    }

    /// Whether only small datagrams arrive from that neighbour.
    pub fn drops_large(&self, neighbour: NodeId, now: Now) -> bool {
        let link = self.others.get(&neighbour);
        link.is_some_and(|link| link.drops_large(now.mono_us))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, beat, both, row, view};
    use super::*;
    use crate::protocol::types::message::{Echo, Heartbeat};

    #[test]
    fn a_round_trip_that_others_tell_is_bounded() {
        let mut view = view(1, &both(&[(1, 2), (2, 3)]));
        assert_eq!(view.least_rtt_us(3), 200);
        for rtt_us in [LEAST_RTT_MAX_US + 1, u32::MAX] {
            let mut forged = row(3, &[2, 4], u64::from(rtt_us));
            forged.links.iter_mut().for_each(|l| l.rtt_us = rtt_us);
            view.heartbeat(2, beat(vec![forged]), at(110), |_| true);
            view.find_paths();
            assert_eq!(view.least_rtt_us(3), u64::from(LEAST_RTT_MAX_US));
        }
    }

    /// The echo claims that a heartbeat of an hour ago was held for no time at all, or for very
    /// long.
    #[test]
    fn a_round_trip_by_a_forged_echo_is_bounded() {
        for held_us in [0, u32::MAX] {
            let mut view = view(1, &both(&[(1, 2)]));
            let sent = view.beat(2, row(1, &[2], 1), at(200)).expect("a neighbour");
            let echo = Echo {
                number: sent.number,
                held_us,
            };
            let forged = Heartbeat {
                number: 2,
                echo: Some(echo),
                ..beat(vec![row(2, &[1], 2)])
            };
            view.heartbeat(2, forged, at(3_600_000), |_| true);
            let expected = if held_us == 0 { LEAST_RTT_MAX_US } else { 0 };
            assert_eq!(view.least_rtt_us(2), u64::from(expected), "{held_us}");
        }
    }
}
