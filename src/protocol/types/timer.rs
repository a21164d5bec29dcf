//! The replica's timers: what is due at which time. Timers are not cancelled, so the code that
//! handles one checks whether it is stale.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::protocol::types::record::Key;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Heartbeats, and the periodic work that runs with them.
    Heartbeat,
    /// Before the first configuration: query the listed nodes again.
    Survey,
    /// Announce link changes to the other nodes.
    News,
    /// Send unanswered forwarded operations again, or reclaim them.
    Forwards,
    /// Ask for a scan again.
    Scans,
    /// Answer polls of watches, and settle watched keys.
    Watches,
    /// Send more of the requested copies.
    Copies,
    /// Transactions and what waits for them have something due.
    Transactions,
    /// A round of this key has something due.
    Key(Key),
    /// L1: delete more of the keys that have expired.
    Expiry,
}

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
}

impl Timers {
    pub fn set(&mut self, at_us: u64, timer: Timer) {
        self.heap.push(Reverse((at_us, timer)));
    }

    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns the earliest timer that is due, with the time for which it was set.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, Timer)> {
        if self.next()? > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// All keys that have a timer, in order: for events that concern all of them at once.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self
            .heap
            .iter()
            .filter_map(|Reverse((_, timer))| match timer {
                Timer::Key(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }
}
