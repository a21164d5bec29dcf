//! When to send from another port. What translates addresses on the way, such as a virtual address that
//! stands for several nodes, goes on sending what comes from one port to the node that it chose first,
//! also when that one is dead.

use super::Session;

/// After so long without an answer of any node, which is longer than answers are under way on any link,
/// and then after as long again, doubled each time, ...
const NEW_PORT_US: u64 = 2_000_000;
/// ... up to this.
const NEW_PORT_US_MAX: u64 = 8_000_000;

#[derive(Debug, Default)]
pub(super) struct NewPort {
    due_us: u64,
    /// 0 as long as somebody answers.
    wait_us: u64,
}

impl Session {
    /// Whether to send from another port from here on. True once each time.
    pub fn wants_new_port(&mut self, now_us: u64) -> bool {
        let now_us = self.advance(now_us);
        if !self.is_active() {
            return false;
        }
        let Some(since_us) = self.silent_since_us() else {
            self.new_port.wait_us = 0;
            return false;
        };
        if self.new_port.wait_us == 0 {
            self.new_port = NewPort {
                due_us: since_us + NEW_PORT_US,
                wait_us: NEW_PORT_US,
            };
        }
        if now_us < self.new_port.due_us {
            return false;
        }
        let wait_us = (2 * self.new_port.wait_us).min(NEW_PORT_US_MAX);
        self.new_port = NewPort {
            due_us: now_us + wait_us,
            wait_us,
        };
        true
    }

    /// Since when all nodes that may be asked were asked and have not answered.
    fn silent_since_us(&self) -> Option<u64> {
        let asked = self.nodes.iter().filter(|node| !node.spared);
        let mut last_us = None;
        for node in asked {
            last_us = last_us.max(Some(node.unanswered_since_us?));
        }
        last_us
    }
}
