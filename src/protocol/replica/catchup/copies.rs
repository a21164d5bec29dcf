//! Copies of records (C1): those that other nodes requested from this one, and those that it
//! stored.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::keys::work::KeyWork;
use crate::protocol::register::acceptor::{self, Verdict};
use crate::protocol::replica::Replica;
use crate::protocol::replica::keys::Loaded;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::copy_purpose::CopyPurpose;
use crate::protocol::types::limits::{COPIES_WAITING_MAX, DOUBTS_MAX, SETTLE_MS};
use crate::protocol::types::message::{Copy, Envelope, Epoch, Message, NodeId, Now, RoundId};
use crate::protocol::types::record::{AcceptorState, Key};
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;

/// How long a node counts as requesting copies after its last request.
const ASKED_US: u64 = 1_000_000;

/// Copies that other nodes requested.
#[derive(Debug, Default)]
pub struct Copies {
    waiting: VecDeque<(Key, NodeId, KeyWork)>,
    /// The pending copies, so that a node that asks again gets no second copy.
    known: HashSet<(NodeId, Key), foldhash::fast::RandomState>,
    /// When each node last requested copies.
    asked_us: BTreeMap<NodeId, u64>,
    timer_us: Option<u64>,
    /// Unconfirmed records that were requested, and since when.
    doubts: BTreeMap<Key, (Ballot, u64)>,
}

impl Copies {
    pub fn forget(&mut self) {
        self.waiting.clear();
        self.known.clear();
        self.doubts.clear();
    }

    pub fn is_asked_by(&self, now: Now, node: NodeId) -> bool {
        let asked_us = self.asked_us.get(&node);
        asked_us.is_some_and(|at_us| now.mono_us < at_us + ASKED_US)
    }

    fn wait(&mut self, key: Key, to: NodeId, work: KeyWork) {
        if self.known.insert((to, key.clone())) {
            self.waiting.push_back((key, to, work));
        }
    }

    fn doubt(&mut self, now: Now, key: &Key, ballot: Ballot) -> bool {
        let stale_us = now.mono_us.saturating_sub(10 * SETTLE_MS * 1_000);
        if self.doubts.len() >= DOUBTS_MAX {
            self.doubts.retain(|_, (_, since_us)| *since_us > stale_us);
        }
        match self.doubts.get(key) {
            Some((before, since_us)) if *before == ballot => {
                let is_settled = now.mono_us >= since_us + SETTLE_MS * 1_000;
                if is_settled {
                    self.doubts.remove(key);
                }
                is_settled
            }
            _ => {
                if self.doubts.len() < DOUBTS_MAX {
                    self.doubts.insert(key.clone(), (ballot, now.mono_us));
                }
                false
            }
        }
    }
}

impl Replica {
    pub(in crate::protocol::replica) fn with_key(&mut self, now: Now, key: &Key, work: KeyWork) {
        if let Some(loaded) = self.keys.loaded(key) {
            self.work_on(now, loaded, work);
        } else {
            self.wait_for(key.clone(), Waiting::Work(self.epoch(), work));
        }
    }

    /// This node has a vote.
    pub(in crate::protocol::replica) fn work_on(
        &mut self,
        now: Now,
        key: Loaded<'_>,
        work: KeyWork,
    ) {
        match work {
            KeyWork::Copy { to, purpose, via } if self.catchup.pace.has_size_left() => {
                let size = self.send_copy_of(now, key, to, purpose, Way::Back(via));
                self.catchup.pace.charge_fetched(size);
            }
            // The key was loaded in the meantime, and the batch is used up.
            KeyWork::Copy { to, .. } => {
                self.catchup.copies.wait(key.key().clone(), to, work);
                self.wake_for_copies(now);
            }
            KeyWork::Promote { ballot } => self.promote(now, key, ballot),
            KeyWork::Discard { ballot } => self.discard(key, ballot),
            KeyWork::Purge { ballot } => self.purge(key, ballot),
            KeyWork::Expire => self.expire_key(now, key),
        }
    }

    pub(in crate::protocol::replica) fn handle_copies_request(
        &mut self,
        now: Now,
        envelope: Envelope,
    ) {
        let Message::CopiesRequest(asked) = envelope.message else {
            return;
        };
        let (to, via) = (envelope.origin, envelope.via);
        let purpose = CopyPurpose::of(envelope.round);
        // The requester would take the copy for one that it had missed.
        if purpose == CopyPurpose::Hint {
            self.counts.dropped.stray += 1;
            return;
        }
        self.catchup.copies.asked_us.insert(to, now.mono_us);
        for key in asked.keys {
            if self.catchup.copies.waiting.len() >= COPIES_WAITING_MAX {
                self.counts.dropped.overflow += 1;
                break;
            }
            let work = KeyWork::Copy { to, purpose, via };
            self.catchup.copies.wait(key, to, work);
        }
        self.serve_copies(now);
    }

    /// Sends as many copies as the rate allows; clients' operations come first.
    pub(in crate::protocol::replica) fn serve_copies(&mut self, now: Now) {
        let is_busy = self.requests.has_operations();
        self.catchup.pace.renew_fetched(now, is_busy);
        // A copy whose key must be loaded first is charged when it leaves.
        let mut expected = 0;
        while self.catchup.pace.may_send_fetched(expected)
            && let Some((key, to, work)) = self.catchup.copies.waiting.pop_front()
        {
            self.catchup.pace.start_fetched();
            self.catchup.copies.known.remove(&(to, key.clone()));
            if self.identity.votes {
                if self.keys.resident(&key).is_none() {
                    expected += self.catchup.pace.expected_size();
                }
                self.with_key(now, &key, work);
            }
        }
        self.wake_for_copies(now);
    }

    fn wake_for_copies(&mut self, now: Now) {
        let copies = &mut self.catchup.copies;
        let next_us = self.catchup.pace.next_portion_us();
        if !copies.waiting.is_empty() && copies.timer_us.is_none_or(|set| set < now.mono_us) {
            copies.timer_us = Some(next_us);
            self.timers.set(next_us, Timer::Copies);
        }
    }

    pub(in crate::protocol::replica) fn copies_timeout(&mut self, now: Now) {
        self.catchup.copies.timer_us = None;
        self.serve_copies(now);
    }

    /// E5: a learner is sent the records chosen in buckets that it has already listed, so that
    /// writes do not outrun its copying.
    pub(in crate::protocol::replica) fn copy_to_learners(
        &mut self,
        now: Now,
        key: &Key,
        round: RoundId,
    ) {
        for node in self.view.learners().to_vec() {
            if self.is_due_for_copy(node, key)
                && let Some(loaded) = self.keys.loaded(key)
            {
                self.send_copy_of(now, loaded, node, CopyPurpose::Fetch(round), Way::Usual);
            }
        }
    }

    /// C1, E5: the content of every copy, whichever node it is for: the record that this member has
    /// accepted in its present life, if that is known to be chosen. Otherwise the ballot that it
    /// has accepted, if any state counts.
    pub(in crate::protocol::replica) fn copy_of(
        &mut self,
        loaded: Loaded<'_>,
    ) -> Result<Copy, Option<Ballot>> {
        let terms = self.terms();
        let resident = self.keys.at(loaded);
        let state = terms.vote(&resident.state, rule!(E5_copied));
        let state = state.filter(|_| self.identity.votes).ok_or(None)?;
        let is_chosen = state.chosen || !rule!(C1_chosen);
        let record = state.record.as_ref().filter(|_| is_chosen);
        Ok(Copy {
            key: loaded.key().clone(),
            ballot: state.accepted,
            record: record.cloned().ok_or(Some(state.accepted))?,
        })
    }

    /// The one place where copies leave. R2 requires no wait: what is chosen is durable at a
    /// quorum.
    pub(in crate::protocol::replica) fn send_copy(
        &mut self,
        to: NodeId,
        purpose: CopyPurpose,
        copy: Copy,
        way: Way,
    ) {
        let envelope = self.envelope(to, purpose.round(), copy.into());
        self.dispatch(envelope, way);
    }

    /// Returns about what the copy takes.
    fn send_copy_of(
        &mut self,
        now: Now,
        loaded: Loaded<'_>,
        to: NodeId,
        purpose: CopyPurpose,
        way: Way,
    ) -> usize {
        let key = loaded.key();
        match self.copy_of(loaded) {
            Ok(copy) => {
                let size = key.as_bytes().len() + copy.record.size();
                self.send_copy(to, purpose, copy, way);
                return size;
            }
            // Most unconfirmed records are resolved by a round in progress, or by a Chosen message.
            Err(Some(ballot)) => {
                if self.catchup.copies.doubt(now, key, ballot) {
                    self.repair(now, key);
                }
            }
            Err(None) => {}
        }
        0
    }

    /// Stores a copy that was requested; returns whether this node holds it now. `loaded` is the
    /// copy's key.
    pub(in crate::protocol::replica) fn take_copy(
        &mut self,
        now: Now,
        source: NodeId,
        loaded: Loaded<'_>,
        copy: &Copy,
    ) -> bool {
        let Copy {
            key,
            ballot,
            record,
        } = copy;
        let ballot = *ballot;
        let terms = self.terms();
        let mut state = self.keys.at(loaded).state.clone();
        self.clock.observe(ballot.reading());
        if !self.identity.votes {
            // A learner's cache keeps no promises.
            let held = state.as_ref().filter(|s| s.accepted >= ballot);
            if let Some(held) = held
                && held.accepted == ballot
                && held.record.as_ref() != Some(record)
            {
                self.note_contradiction(now, key, ballot, source);
                return false;
            }
            if held.is_none() {
                let copied = AcceptorState {
                    promised: ballot.next(),
                    accepted: ballot,
                    chosen: true,
                    record: Some(record.clone()),
                    life: terms.life,
                };
                self.set_key(loaded, Some(copied));
            } else {
                self.mark_chosen(key.clone(), ballot);
            }
            return true;
        }
        match acceptor::copy(&mut state, ballot, record, terms) {
            Verdict::Granted => {
                self.clock.observe(ballot.next().reading());
                self.set_key(loaded, state);
                true
            }
            Verdict::Repeated => {
                self.mark_chosen(key.clone(), ballot);
                true
            }
            Verdict::Contradicted => {
                self.note_contradiction(now, key, ballot, source);
                false
            }
            // The clock moves above the promise, so that a round of this node can repair the key.
            Verdict::Refused(promised) => {
                self.clock.observe(promised.reading());
                if self
                    .catchup
                    .comparisons
                    .fetches
                    .refused(source, key, promised)
                {
                    self.repair(now, key);
                }
                false
            }
        }
    }

    /// E5: promotes a cached record to an accepted one, as a copy would be accepted.
    fn promote(&mut self, now: Now, loaded: Loaded<'_>, ballot: Ballot) {
        let terms = self.terms();
        let mut state = self.keys.at(loaded).state.clone();
        let cached = state
            .as_ref()
            .filter(|s| !terms.is_vote(s, rule!(E5_adopted)) && s.accepted == ballot);
        let Some(record) = cached.and_then(|s| s.record.clone()) else {
            return;
        };
        match acceptor::copy(&mut state, ballot, &record, terms) {
            Verdict::Granted => {
                self.clock.observe(ballot.next().reading());
                self.set_key(loaded, state);
            }
            Verdict::Refused(promised) => {
                self.clock.observe(promised.reading());
                self.repair(now, loaded.key());
            }
            Verdict::Repeated | Verdict::Contradicted => unreachable!("a cache is no vote"),
        }
    }

    fn discard(&mut self, loaded: Loaded<'_>, ballot: Ballot) {
        let terms = self.terms();
        let resident = self.keys.at(loaded);
        let state = resident.state.as_ref();
        if state.is_some_and(|s| !terms.is_vote(s, rule!(E5_dropped)) && s.accepted == ballot) {
            self.set_key(loaded, None);
        }
    }

    pub(in crate::protocol::replica) fn epoch(&self) -> Epoch {
        self.identity.configuration.as_ref().map_or(0, |c| c.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::catchup::pace::PORTION_MS;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica, reported};
    use crate::protocol::types::limits::COPIES_SIZE_MAX;
    use crate::protocol::types::message::{CopiesRequest, Input, Output};
    use crate::protocol::types::record::Record;
    use std::sync::Arc;
    use wire::VALUE_SIZE_MAX;

    /// Whether node 1, in its admission `life`, copies to node 2 the record that it holds from its
    /// admission 0.
    fn is_copied(life: u32) -> bool {
        let (mut replica, key) = (replica(), Key::user(b"k"));
        (0..life).for_each(|_| replica.durable.begin_life());
        let keys = vec![key.clone()];
        reported(&mut replica, 1, CopiesRequest { keys }.into());
        let state = AcceptorState {
            promised: Ballot::new(6, 2),
            accepted: Ballot::new(5, 2),
            chosen: true,
            record: Some(Record::default().into()),
            ..AcceptorState::default()
        };
        let mut is_copied = false;
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Load(key) => {
                    let state = Some(state.clone());
                    replica.handle_input(NOW, Input::Loaded { key, state });
                }
                Output::Send { envelope, .. } => {
                    is_copied |= matches!(envelope.message, Message::Copy(_));
                }
                _ => {}
            }
        }
        is_copied
    }

    /// A request of a few KiB can request thousands of the largest records.
    #[test]
    fn large_copies_leave_in_portions() {
        const KEYS: usize = 300;
        let mut replica = replica();
        let keys = (0..KEYS).map(|n| Key::user(format!("{n}").as_bytes()));
        let keys = keys.collect();
        let record = Arc::new(Record {
            value: Some(vec![1; VALUE_SIZE_MAX].into()),
            ..Record::default()
        });
        let state = AcceptorState {
            promised: Ballot::new(6, 2),
            accepted: Ballot::new(5, 2),
            chosen: true,
            record: Some(record.clone()),
            ..AcceptorState::default()
        };
        reported(&mut replica, 1, CopiesRequest { keys }.into());
        let (mut now, mut copied) = (NOW, 0);
        for _ in 0..KEYS {
            let before = copied;
            while let Some(output) = replica.poll_output() {
                match output {
                    Output::Load(key) => {
                        let state = Some(state.clone());
                        replica.handle_input(now, Input::Loaded { key, state });
                    }
                    Output::Persist(group) => {
                        let group = group.number;
                        replica.handle_input(now, Input::Persisted { group });
                    }
                    Output::Send { envelope, .. } => {
                        copied += usize::from(matches!(envelope.message, Message::Copy(_)));
                    }
                    _ => {}
                }
            }
            let size = (copied - before) * record.size();
            assert!(size < COPIES_SIZE_MAX + record.size(), "{size} at once");
            now.mono_us += PORTION_MS * 1_000;
            replica.handle_input(now, Input::Timeout);
        }
        assert_eq!(copied, KEYS);
    }

    /// E5: a cache may hold a record that was deleted and purged since.
    #[test]
    fn a_cache_is_copied_to_nobody() {
        assert!(is_copied(0));
        assert!(!is_copied(1));
    }
}
