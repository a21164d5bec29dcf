//! Whether the node that a slow operation waits for is still there.
//!
//! An operation of many rounds, or one that has to wait for others, is sent to another node only
//! late: the first node may well be at work on it. So a node that is silent meanwhile is sent
//! hellos, and if it does not answer these, the operation goes to another node at once.

use super::operation::NEVER;
use super::table::CallHandle;
use super::{Node, Session};

/// A hello is sent after a silence of this, or of this many round trips if that is longer. The time
/// doubles with each answer.
const SILENCE_US: u64 = 50_000;
const ROUND_TRIPS: u64 = 4;
/// The time for the answer to a hello. At a busy node it waits as long as requests do (X7).
const ANSWER_US: u64 = 60_000;
/// Hellos that may be lost, whichever call they were sent for.
const HELLOS_MAX: u32 = 2;

#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// When the node's silence is looked at next.
    pub due_us: u64,
    silence_us: u64,
    /// Whether a hello was sent for it since the node was heard last.
    has_asked: bool,
    /// When the node had not answered enough of them.
    failed_us: Option<u64>,
}

impl Probe {
    pub const NONE: Probe = Probe {
        due_us: NEVER,
        silence_us: 0,
        has_asked: false,
        failed_us: None,
    };

    /// For an attempt that waits for `wait_us` in any case.
    pub fn new(node: &Node, sent_us: u64, wait_us: u64) -> Probe {
        let far_us = ROUND_TRIPS.saturating_mul(node.distance.rtt_us());
        let silence_us = SILENCE_US.max(far_us);
        let is_worthwhile = wait_us > 2 * silence_us + u64::from(HELLOS_MAX) * ANSWER_US;
        // Further hellos would not tell how far a node is of which that is in doubt.
        if !is_worthwhile || node.distance.least_wait_us() > 0 {
            return Probe::NONE;
        }
        Probe {
            due_us: sent_us + silence_us,
            silence_us,
            ..Probe::NONE
        }
    }

    /// Whether the operation need not wait any longer for this attempt.
    pub fn has_failed(&self) -> bool {
        self.failed_us.is_some()
    }

    /// Whether the node has not been heard since.
    pub fn is_gone(&self, node: &Node) -> bool {
        let was_heard = |at_us| node.silent_since_us(at_us) > at_us;
        self.failed_us.is_some_and(|at_us| !was_heard(at_us))
    }
}

impl Session {
    /// Looks at the silence of the node that the call waits for, if it is time.
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
        let far_us = ROUND_TRIPS.saturating_mul(node.distance.rtt_us());
        let answer_us = ANSWER_US.max(far_us);
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
