//! When to send from another port. A device that translates addresses, such as a virtual address in
//! front of several nodes, keeps sending all datagrams from one port to the node that it chose
//! first, even when that node is dead.

use super::Session;

/// The time without an answer from the one given node, longer than answers are in flight on any
/// link, after which the port is changed. Answers that are under way to the old port are lost. So
/// with several nodes, which all may be busy but hardly share one address, it is twice as long. The
/// wait is doubled after each change, ...
const NEW_PORT_US: u64 = 2_000_000;
/// ... up to this.
const NEW_PORT_US_MAX: u64 = 8_000_000;

#[derive(Debug, Default)]
pub(super) struct NewPort {
    due_us: u64,
    /// 0 while any node answers.
    wait_us: u64,
}

impl Session {
    /// Whether to change the port now. Returns true once per change.
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
            let wait_us = match self.nodes.len() {
                1 => NEW_PORT_US,
                _ => 2 * NEW_PORT_US,
            };
            self.new_port = NewPort {
                due_us: since_us + wait_us,
                wait_us,
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
