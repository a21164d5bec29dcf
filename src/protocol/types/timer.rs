//! The replica's timers: what is due when. Stale entries are recognised by whoever they wake.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::protocol::types::record::Key;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Heartbeats, and all that is looked after at their pace.
    Heartbeat,
    /// Before the first configuration: ask the listed nodes again.
    Survey,
    /// Others are to be told that links changed.
    News,
    /// Forwarded operations that were not answered are sent again, or taken back.
    Forwards,
    /// More of the copies that were asked for may leave.
    Copies,
    /// Something of this key's rounds is due.
    Key(Key),
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

    /// Takes the earliest timer that is due, with the time it was set for.
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, Timer)> {
        if self.next()? > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// All keys that have a timer, in order: for what concerns them all at once.
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
