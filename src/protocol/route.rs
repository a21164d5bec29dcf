//! What a node knows of its links to the others: who was heard when, in which boot, with which wall
//! clock. Knows nothing of quorums.

use super::message::{Incarnation, NodeId, Now};

#[derive(Debug, Clone)]
struct Link {
    node: NodeId,
    incarnation: Incarnation,
    heard_us: u64,
    /// Of the last heartbeat.
    boot: Option<u64>,
    /// The peer's wall clock less this node's monotonic clock, in milliseconds.
    wall_offset_ms: Option<i64>,
}

/// One entry a peer, in order of node id.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<Link>,
}

impl Links {
    /// Every message counts as a sign of life of the incarnation that sent it.
    pub fn heard(&mut self, node: NodeId, incarnation: Incarnation, now: Now) {
        let link = self.entry(node, incarnation);
        link.heard_us = now.mono_us;
    }

    pub fn heartbeat(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        boot: u64,
        wall_ms: u64,
        now: Now,
    ) {
        let link = self.entry(node, incarnation);
        link.heard_us = now.mono_us;
        link.boot = Some(boot);
        link.wall_offset_ms = Some(wall_ms as i64 - (now.mono_us / 1_000) as i64);
    }

    /// Whether this incarnation was heard within `within_ms`.
    pub fn is_heard(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        now: Now,
        within_ms: u64,
    ) -> bool {
        self.find(node, incarnation)
            .is_some_and(|l| now.mono_us < l.heard_us + within_ms * 1_000)
    }

    pub fn boot(&self, node: NodeId, incarnation: Incarnation) -> Option<u64> {
        self.find(node, incarnation).and_then(|l| l.boot)
    }

    /// What the peer's wall clock shows now, by its last heartbeat.
    pub fn wall_ms(&self, node: NodeId, incarnation: Incarnation, now: Now) -> Option<u64> {
        let offset = self.find(node, incarnation)?.wall_offset_ms?;
        (now.mono_us / 1_000).checked_add_signed(offset)
    }

    fn find(&self, node: NodeId, incarnation: Incarnation) -> Option<&Link> {
        self.links
            .iter()
            .find(|l| l.node == node && l.incarnation == incarnation)
    }

    /// A node has one entry, its present incarnation's.
    fn entry(&mut self, node: NodeId, incarnation: Incarnation) -> &mut Link {
        let place = match self.links.binary_search_by_key(&node, |l| l.node) {
            Ok(place) => place,
            Err(place) => {
                let heard_us = 0;
                let link = Link {
                    node,
                    incarnation,
                    heard_us,
                    boot: None,
                    wall_offset_ms: None,
                };
                self.links.insert(place, link);
                place
            }
        };
        let link = &mut self.links[place];
        if link.incarnation != incarnation {
            *link = Link {
                node,
                incarnation,
                heard_us: 0,
                boot: None,
                wall_offset_ms: None,
            };
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_us: mono_ms * 1_000,
            wall_ms: 0,
        }
    }

    #[test]
    fn a_link_is_heard_for_a_while() {
        let mut links = Links::default();
        links.heard(2, 7, at(100));
        assert!(links.is_heard(2, 7, at(299), 200));
        assert!(!links.is_heard(2, 7, at(300), 200));
        assert!(!links.is_heard(2, 8, at(100), 200) && !links.is_heard(3, 7, at(100), 200));
    }

    #[test]
    fn a_heartbeat_tells_boot_and_wall_clock() {
        let mut links = Links::default();
        links.heartbeat(2, 7, 55, 1_000_000, at(100));
        assert_eq!(links.boot(2, 7), Some(55));
        assert_eq!(links.wall_ms(2, 7, at(350)), Some(1_000_250));
        links.heard(2, 8, at(400));
        assert_eq!((links.boot(2, 7), links.boot(2, 8)), (None, None));
    }
}
