//! X7: whose operations an overloaded node still accepts. This module owns the counts per client.
//!
//! In each interval of 100 ms an overloaded node accepts half of the operations that it completed
//! in the previous one, divided evenly among the clients that it receives operations from. So a
//! client that sends few operations is served, and the others are answered busy, however many
//! operations one client has in flight. A half of it is kept for the first operation of each
//! client, because the node does not know how many will send. The other half of the node's time
//! shortens the queue.

use std::collections::HashMap;
use std::fmt;

use wire::ClientId;

use crate::protocol::types::limits::{SHARE_OF_MS, SHARES_CLIENTS_MAX, SHARES_LEAST};
use crate::protocol::types::message::Now;
use crate::protocol::types::rules::rule;

#[derive(Default)]
pub struct Shares {
    interval: u64,
    /// The operations of each client in this interval.
    arrived: HashMap<ClientId, u32, foldhash::fast::RandomState>,
    accepted: u32,
    /// Of these, all but the first of each client.
    further: u32,
    refused: u32,
    /// Operations that a round of this node or of another one completed.
    completed: u32,
    /// The numbers of the previous interval.
    clients_before: usize,
    completed_before: u32,
}

/// Two nodes in the same state may differ in these counts, which matter only during overload. The
/// exhaustive search compares states as text, so the text omits them.
impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shares")
    }
}

impl Shares {
    /// Call it from time to time, whether the node is overloaded or not.
    pub fn pass(&mut self, now: Now) {
        let interval = now.mono_us / (SHARE_OF_MS * 1_000);
        if interval == self.interval {
            return;
        }
        let is_next = interval == self.interval + 1;
        self.interval = interval;
        self.clients_before = if is_next { self.arrived.len() } else { 0 };
        self.completed_before = if is_next { self.completed } else { 0 };
        self.arrived.clear();
        self.accepted = 0;
        self.further = 0;
        self.refused = 0;
        self.completed = 0;
    }

    pub fn complete(&mut self) {
        self.completed = self.completed.saturating_add(1);
    }

    /// Whether an overloaded node accepts this operation of the client.
    pub fn accepts(&mut self, now: Now, client: ClientId) -> bool {
        self.pass(now);
        let is_known = self.arrived.contains_key(&client);
        if !is_known && self.arrived.len() >= SHARES_CLIENTS_MAX {
            return false;
        }
        let of_client = self.arrived.entry(client).or_default();
        *of_client = of_client.saturating_add(1);
        let of_client = *of_client;
        let all = (self.completed_before / 2).max(SHARES_LEAST);
        let clients = self.clients_before.max(self.arrived.len());
        let share = (all / clients as u32).max(1);
        let is_first = of_client == 1;
        let accepts =
            self.accepted < all && (is_first || of_client <= share && self.further < all / 2);
        if accepts {
            self.accepted += 1;
            self.further += u32::from(!is_first);
        } else {
            self.refused += 1;
        }
        accepts && rule!(X7_share)
    }

    /// How long the node needs for the operations that it refused in this interval, at the pace of
    /// the previous one. The last one refused need not come back earlier.
    pub fn after_ms(&self) -> u32 {
        let pace = u64::from(self.completed_before.max(SHARES_LEAST));
        let after_ms = u64::from(self.refused) * SHARE_OF_MS / pace;
        u32::try_from(after_ms).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        }
    }

    /// In each interval one client sends `many`, and then each of the others one. Returns how many
    /// of each kind are accepted in the last interval.
    fn run(many: u32, others: u128, completed: u32) -> (u32, u32) {
        let mut shares = Shares::default();
        let mut accepted = (0, 0);
        for interval in 1..10 {
            let now = at(interval * SHARE_OF_MS);
            shares.pass(now);
            accepted = (0, 0);
            for _ in 0..many {
                accepted.0 += u32::from(shares.accepts(now, 0));
            }
            for client in 1..=others {
                accepted.1 += u32::from(shares.accepts(now, client));
            }
            (0..completed).for_each(|_| shares.complete());
        }
        let refused = many + others as u32 - accepted.0 - accepted.1;
        let pace = completed.max(SHARES_LEAST);
        assert_eq!(shares.after_ms(), refused * SHARE_OF_MS as u32 / pace);
        accepted
    }

    #[test]
    fn one_client_with_many_operations_does_not_starve_the_others() {
        assert_eq!(run(10_000, 999, 2_000), (1, 999));
        assert_eq!(run(10_000, 9, 2_000), (100, 9));
        assert_eq!(run(10_000, 0, 2_000), (501, 0), "half is kept for others");
        assert_eq!(run(0, 5_000, 2_000), (0, 1_000), "whoever comes first");
        assert_eq!(run(100, 1, 0), (8, 1), "few, so that some are completed");
    }

    #[test]
    fn an_interval_without_a_call_counts_as_empty() {
        let mut shares = Shares::default();
        shares.pass(at(SHARE_OF_MS));
        (0..2_000).for_each(|_| shares.complete());
        let now = at(3 * SHARE_OF_MS);
        let accepted = (0..1_000).filter(|_| shares.accepts(now, 1)).count();
        assert_eq!(accepted as u32, 1 + SHARES_LEAST / 2);
    }
}
