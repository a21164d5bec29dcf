//! Checks whether a node still runs while a slow operation waits for its answer.
//!
//! A slow operation is retried late, because its node is probably still working on it. If the node
//! is silent in the meantime, the client sends it hellos. If the node does not answer them, the
//! client sends the operation to another node at once.

use super::operation::NEVER;
use super::table::CallHandle;
use super::{Node, Session};

/// The client sends a hello once the node was silent for this long, or for this many round trips,
/// or for twice the time that the last hello took, whichever is longest: otherwise a busy node
/// would seem to be gone. The time doubles after each answer.
const SILENCE_US: u64 = 50_000;
const ROUND_TRIPS: u64 = 4;
/// The wait for the answer to a hello. At a busy node hellos wait as long as requests do (X7).
const ANSWER_US: u64 = 60_000;
/// The node is gone if it does not answer this many hellos. They count for all calls.
const HELLOS_MAX: u32 = 2;

#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// When to check next how long the node has been silent.
    pub due_us: u64,
    silence_us: u64,
    /// Whether this call has sent a hello since a frame last arrived from the node.
    has_asked: bool,
    /// When the node was found to be gone.
    failed_us: Option<u64>,
}

impl Probe {
    pub const NONE: Probe = Probe {
        due_us: NEVER,
        silence_us: 0,
        has_asked: false,
        failed_us: None,
    };

    /// `wait_us`: the wait after which the attempt is retried in any case.
    pub fn new(node: &Node, sent_us: u64, wait_us: u64) -> Probe {
        let silence_us = SILENCE_US.max(answer_us(node));
        let is_worthwhile = wait_us > 2 * silence_us + u64::from(HELLOS_MAX) * ANSWER_US;
        // While the round-trip time is in doubt, further hellos would confuse its estimate.
        if !is_worthwhile || node.distance.least_wait_us() > 0 {
            return Probe::NONE;
        }
        Probe {
            due_us: sent_us + silence_us,
            silence_us,
            ..Probe::NONE
        }
    }

    /// Whether the operation stops waiting for this attempt.
    pub fn has_failed(&self) -> bool {
        self.failed_us.is_some()
    }

    /// Whether the node was found to be gone, and no frame has arrived from it since.
    pub fn is_gone(&self, node: &Node) -> bool {
        let was_heard = |at_us| node.silent_since_us(at_us) > at_us;
        self.failed_us.is_some_and(|at_us| !was_heard(at_us))
    }
}

/// How long the answer to a hello may take at least.
fn answer_us(node: &Node) -> u64 {
    let far_us = ROUND_TRIPS.saturating_mul(node.distance.rtt_us());
    far_us.max(node.hello_pace.first_wait_us())
}

impl Session {
    /// Checks the node that the call waits for, if the check is due.
    pub(super) fn probe(&mut self, now_us: u64, handle: CallHandle) {
        let Some(operation) = self.table.get_mut(handle) else {
            return;
        };
        if now_us < operation.probe.due_us {
            return;
        }
        let Some((place, sent_us)) = operation.awaited() else {
            operation.probe = Probe::NONE;
            return;
        };
        let node = &self.nodes[place];
        let since_us = node.silent_since_us(sent_us);
        let answer_us = ANSWER_US.max(answer_us(node));
        let probe = &mut operation.probe;
        if now_us < since_us + probe.silence_us {
            if std::mem::take(&mut probe.has_asked) {
                probe.silence_us *= 2;
            }
            probe.due_us = since_us + probe.silence_us;
        } else if node.hellos_open >= HELLOS_MAX && now_us >= node.hello_sent_us + answer_us {
            probe.failed_us = Some(now_us);
            probe.due_us = NEVER;
            operation.retry_us = now_us;
        } else if node.hellos_open >= HELLOS_MAX {
            probe.due_us = node.hello_sent_us + answer_us;
        } else if now_us < node.hello_due_us {
            probe.due_us = node.hello_due_us;
        } else {
            probe.has_asked = true;
            probe.due_us = now_us + answer_us;
            self.greet(now_us, place);
        }
    }
}
