//! X1: the highest low mark that this node has received from each client, with operations on
//! whatever keys.
//!
//! A record keeps the outcomes of a client's operations until that client writes the key again. If
//! hundreds of clients write a key in turn, each of its records would carry hundreds of outcomes
//! that no client waits for. With these marks they leave the record with its next change.

use std::collections::HashMap;
use std::fmt;

use wire::ClientId;

use crate::protocol::types::limits::LOW_MARKS_MAX;

type Marks = HashMap<ClientId, u64, foldhash::fast::RandomState>;

/// Clients that were not heard from for long are forgotten: for these, outcomes only stay longer.
#[derive(Default)]
pub struct LowMarks {
    recent: Marks,
    earlier: Marks,
}

/// In order, so that equal marks are the same text: the exhaustive search compares states as text.
impl fmt::Debug for LowMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = self.earlier.iter().chain(&self.recent).collect();
        all.sort_unstable();
        f.debug_list().entries(all).finish()
    }
}

impl LowMarks {
    pub fn hear(&mut self, client: ClientId, mark: u64) {
        let mark = mark.max(self.of(client));
        if self.recent.len() >= LOW_MARKS_MAX / 2 && !self.recent.contains_key(&client) {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(client, mark);
    }

    /// 0 for a client that this node has not heard from.
    pub fn of(&self, client: ClientId) -> u64 {
        let found = self
            .recent
            .get(&client)
            .or_else(|| self.earlier.get(&client));
        found.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_never_falls_and_few_clients_are_remembered() {
        let mut marks = LowMarks::default();
        marks.hear(1, 5);
        marks.hear(1, 3);
        assert_eq!((marks.of(1), marks.of(2)), (5, 0));
        for client in 2..LOW_MARKS_MAX as u128 {
            marks.hear(client, 1);
            assert!(marks.recent.len() + marks.earlier.len() <= LOW_MARKS_MAX);
        }
        assert_eq!(marks.of(1), 5, "one of the earlier ones");
        (0..LOW_MARKS_MAX as u128).for_each(|client| marks.hear(client + 10_000, 1));
        assert_eq!(marks.of(1), 0, "forgotten");
    }
}
