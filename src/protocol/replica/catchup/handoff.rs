//! Hinted handoff (C1): members that missed writes get the keys' records when they are reachable
//! again.

use wire::BehindStatus;

use crate::protocol::catchup::hints::{Hints, Missed};
use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::replica::Replica;
use crate::protocol::replica::keys::Loaded;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::copy_purpose::CopyPurpose;
use crate::protocol::types::limits::{COPY_RETRY_MS, HINT_AFTER_MS};
use crate::protocol::types::message::{Copy, CopyAck, NodeId, Now, RoundId};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::{Key, Record};
use crate::protocol::types::rules::rule;

/// The result of checking a hint's key.
enum HintCheck {
    Send(Copy),
    /// This ballot in the node's own state blocks the copy.
    Doubt(Ballot),
}

impl Replica {
    /// A round of this node was chosen; a member that does not answer it soon has missed it.
    pub(in crate::protocol::replica) fn note_missing(
        &mut self,
        now: Now,
        round: RoundId,
        key: &Key,
        ballot: Ballot,
        holders: NodeSet,
    ) {
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let missing = voters.map(|m| m.node).filter(|n| !holders.contains(*n));
        let nodes: NodeSet = missing.collect();
        if !nodes.is_empty() && rule!(C1_noted) {
            let key = key.clone();
            let wait_us = self.answer_wait_us(HINT_AFTER_MS);
            let missed = Missed { key, ballot, nodes };
            self.catchup
                .chosen_rounds
                .chosen(now, round, missed, wait_us);
        }
        self.note_due(now);
    }

    /// This node itself may be among those that missed a write, if its own promise to another node
    /// blocked it.
    fn note_due(&mut self, now: Now) {
        let slow = self.slow_voters(now);
        while let Some(missed) = self.catchup.chosen_rounds.pop_due(now, &slow) {
            self.note(missed);
        }
    }

    /// The voters whose answers wait for slow disks, and how much longer they may take.
    fn slow_voters(&self, now: Now) -> Vec<(NodeId, u64)> {
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let waits = voters.map(|m| (m.node, self.disk_wait_us(now, m.node)));
        waits.filter(|(_, wait_us)| *wait_us > 0).collect()
    }

    fn note(&mut self, missed: Missed) {
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let voters = voters.map(|m| m.node);
        for node in voters.filter(|n| missed.nodes.contains(*n)) {
            let of_others = |(of, hints): (&NodeId, &Hints)| (*of != node).then(|| hints.size());
            let others = self.catchup.hints.iter().filter_map(of_others).sum();
            let hints = self.catchup.hints.entry(node).or_default();
            hints.note(missed.key.clone(), missed.ballot, others);
        }
    }

    /// At each heartbeat: sends overdue copies again, and as many more as window and rate allow.
    pub(in crate::protocol::replica) fn send_hinted_copies(&mut self, now: Now) {
        self.note_due(now);
        let is_busy = self.requests.has_operations();
        self.catchup
            .pace
            .renew_hinted(self.timings.heartbeat_ms, is_busy);
        let again_us = self.answer_wait_us(COPY_RETRY_MS);
        for node in self.catchup.hints.keys().copied().collect::<Vec<_>>() {
            let may_send = self.may_send_hinted_copies(now, node);
            let disk_us = self.disk_wait_us(now, node);
            let Some(hints) = self.catchup.hints.get_mut(&node) else {
                continue;
            };
            if !may_send {
                hints.pause();
                continue;
            }
            for key in hints.overdue(now, again_us + disk_us) {
                self.start_copy(now, node, &key);
            }
            self.fill_window(now, node);
        }
    }

    fn may_send_hinted_copies(&self, now: Now, node: NodeId) -> bool {
        // A member that missed more than the hint limit requests all of it, and would get these
        // copies twice.
        let overflowed = self
            .catchup
            .hints
            .get(&node)
            .is_some_and(|h| h.overflowed() > 0);
        let gets_them = overflowed && self.catchup.copies.is_asked_by(now, node);
        let is_answering = self.view.reaches(node) && !self.hangs(node);
        self.identity.votes && is_answering && !gets_them
    }

    /// That member was found to hold the same records as this node; `at_once`: all of them at the
    /// same time.
    pub(in crate::protocol::replica) fn forget_hints(&mut self, node: NodeId, at_once: bool) {
        // Neither of them has the writes that this node itself missed.
        let own = self.catchup.hints.remove(&self.identity.node);
        if let Some(hints) = self.catchup.hints.get_mut(&node) {
            hints.forget_overflowed();
            if at_once && own.as_ref().is_none_or(|own| own.overflowed() == 0) {
                hints.forget_noted(|key| own.as_ref().is_some_and(|own| own.has(key)));
            }
        }
        if let Some(own) = own {
            self.catchup.hints.insert(self.identity.node, own);
        }
    }

    fn fill_window(&mut self, now: Now, node: NodeId) {
        while self.catchup.pace.may_send_hinted() {
            let hints = self.catchup.hints.get_mut(&node);
            let Some(key) = hints.and_then(|hints| hints.start_copy(now)) else {
                return;
            };
            if !self.start_copy(now, node, &key) {
                return;
            }
        }
    }

    /// Returns false if the window has no space for the copy.
    fn start_copy(&mut self, now: Now, node: NodeId, key: &Key) -> bool {
        self.catchup.pace.start_hinted();
        if let Some(loaded) = self.keys.loaded(key) {
            return self.copy_key(now, node, loaded);
        }
        self.wait_for(key.clone(), Waiting::Copy(node));
        true
    }

    /// Sends the record in this node's own state, if it is known to be chosen. Returns false if the
    /// window has no space for the copy.
    pub(in crate::protocol::replica) fn copy_key(
        &mut self,
        now: Now,
        node: NodeId,
        loaded: Loaded<'_>,
    ) -> bool {
        let key = loaded.key();
        let missed = self
            .catchup
            .hints
            .get(&node)
            .and_then(|hints| hints.missed(key));
        let (Some(missed), true) = (missed, self.view.reaches(node)) else {
            return true;
        };
        match self.check_hint(loaded, missed) {
            HintCheck::Doubt(ballot) => self.doubt(now, node, key, ballot),
            HintCheck::Send(copy) => {
                let size = size_of(&copy.key, &copy.record);
                let hints = self.catchup.hints.entry(node).or_default();
                if !hints.may_send(key, size) {
                    return false;
                }
                hints.sent(key, copy.ballot, size);
                self.send_copy(node, CopyPurpose::Hint, copy, Way::Usual);
            }
        }
        true
    }

    fn check_hint(&mut self, key: Loaded<'_>, missed: Ballot) -> HintCheck {
        match self.copy_of(key) {
            Ok(copy) if copy.ballot >= missed => HintCheck::Send(copy),
            Ok(copy) => HintCheck::Doubt(copy.ballot),
            Err(accepted) => HintCheck::Doubt(accepted.unwrap_or_default()),
        }
    }

    /// A round in progress confirms most records. A repair round repairs a key whose copy is still
    /// blocked at the next check.
    fn doubt(&mut self, now: Now, node: NodeId, key: &Key, ballot: Ballot) {
        let hints = self.catchup.hints.get_mut(&node);
        if hints.is_some_and(|hints| hints.doubt(key, ballot)) {
            self.coordinate(now, key, Coordinator::repair);
        }
    }

    pub(in crate::protocol::replica) fn handle_copied(
        &mut self,
        now: Now,
        node: NodeId,
        copied: &CopyAck,
    ) {
        match copied.refused_for {
            // The clock moves above the promise, so that a round of this node can repair the key.
            Some(promised) => {
                self.clock.observe(promised.reading());
                self.doubt(now, node, &copied.key, promised);
            }
            None => {
                if let Some(hints) = self.catchup.hints.get_mut(&node) {
                    hints.copied(&copied.key, copied.ballot);
                }
                if self.may_send_hinted_copies(now, node) {
                    self.fill_window(now, node);
                }
            }
        }
    }

    pub(in crate::protocol::replica) fn behind(&self) -> Vec<BehindStatus> {
        let reported = self.catchup.hints.iter().map(|(node, hints)| BehindStatus {
            node: *node,
            keys: hints.len() as u64,
            overflowed: hints.overflowed(),
        });
        reported
            .filter(|b| b.keys > 0 || b.overflowed > 0)
            .collect()
    }
}

/// Approximate size of a copy's message.
pub fn size_of(key: &Key, record: &Record) -> usize {
    let clients = &record.applied.clients;
    let operations: usize = clients.iter().map(|c| c.operations.len()).sum();
    key.as_bytes().len() + record.content_size() + 64 * (1 + clients.len() + operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica, reported};
    use crate::protocol::replica::view::Reach;
    use crate::protocol::types::limits::HINTS_MAX;
    use crate::protocol::types::message::CopiesRequest;

    #[test]
    fn an_intent_counts_like_a_value() {
        let bytes = Some(vec![0; 1 << 20].into());
        let value = Record {
            value: bytes.clone(),
            ..Record::default()
        };
        let intent = Record {
            intent: bytes.map(Into::into),
            ..Record::default()
        };
        let key = Key::user(b"k");
        assert_eq!(size_of(&key, &intent), size_of(&key, &value));
    }

    #[test]
    fn who_missed_more_than_was_noted_and_asks_for_it_is_sent_no_hints() {
        let mut replica = replica();
        let hints = replica.catchup.hints.entry(2).or_default();
        for number in 0..HINTS_MAX {
            hints.note(Key::user(&number.to_le_bytes()), Ballot::new(5, 1), 0);
        }
        let keys = vec![Key::user(b"k")];
        let later = Now {
            mono_us: NOW.mono_us + 1_000_000,
            ..NOW
        };
        reported(&mut replica, 1, CopiesRequest { keys }.into());
        replica.view.see(Reach {
            voters: vec![2],
            ..Reach::default()
        });
        assert!(replica.may_send_hinted_copies(NOW, 2), "all was noted");
        let hints = replica.catchup.hints.entry(2).or_default();
        hints.note(Key::user(b"one more"), Ballot::new(5, 1), 0);
        assert!(!replica.may_send_hinted_copies(NOW, 2));
        assert!(replica.may_send_hinted_copies(later, 2), "it asks no more");
        replica.forget_hints(2, false);
        assert_eq!(replica.behind()[0].keys, HINTS_MAX as u64);
        replica.forget_hints(2, true);
        assert_eq!(replica.behind(), []);
    }
}
