//! Comparisons: how nodes find and copy what they lack (C1). They serve learners, members that were
//! just admitted, and members that missed more than hints hold. A node fetches what it lacks
//! itself; only what is chosen while it catches up is sent without a request (`copies`).
//!
//! A comparison runs in passes. `comparison` has their stages; `schedule` decides when one begins.

use wire::LearningStatus;

use crate::protocol::catchup::comparison::{BucketQuestion, Comparing, Pass, PassKind, Stage};
use crate::protocol::catchup::fetch::Fetches;
use crate::protocol::catchup::schedule::{MemberArrival, Schedule};
use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::keys::work::KeyWork;
use crate::protocol::replica::Replica;
use crate::protocol::replica::catchup::serve::Purpose;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Bucket, Sums};
use crate::protocol::types::limits::{BUCKETS_COMPARED_MAX, FETCH_RETRY_MS, SETTLE_MS};
use crate::protocol::types::message::{
    BucketReply, BucketRequest, CopiesRequest, DigestsReply, DigestsRequest, Envelope, Message,
    NodeId, Now, RoundId,
};
use crate::protocol::types::page::Page;
use crate::protocol::types::record::{AcceptorState, Key};
use crate::protocol::types::rules::rule;

#[derive(Debug, Default)]
pub struct Comparisons {
    schedule: Schedule,
    pass: Option<Pass>,
    pub(in crate::protocol::replica) fetches: Fetches,
    /// For a learner: how many buckets, from the first on, were listed or are equal.
    listed: Bucket,
    /// Keys copied since this node is a learner.
    copied: u64,
}

impl Replica {
    /// R1: what was compared in another epoch no longer counts. Which members are reachable, and
    /// whether much is missing, does not depend on the epoch.
    pub(in crate::protocol::replica) fn restart_comparisons(&mut self, now: Now) {
        let before = std::mem::take(&mut self.catchup.comparisons);
        let learns = !self.identity.votes;
        self.catchup.comparisons = Comparisons {
            schedule: Schedule::restarted(before.schedule, now),
            copied: if learns { before.copied } else { 0 },
            listed: if learns { before.listed } else { 0 },
            ..Comparisons::default()
        };
        self.catchup.copies.forget();
        self.restart_purge();
    }

    /// Whether a learner holds nearly all that the members hold.
    pub(in crate::protocol::replica) fn is_caught_up(&self) -> bool {
        // X6: as a member, a full node would make all nodes refuse writes that grow.
        self.catchup.comparisons.schedule.is_caught_up() && self.space.full.is_none()
    }

    /// A learner will still request everything in the buckets from this one on.
    pub(in crate::protocol::replica) fn listed(&self) -> Bucket {
        self.catchup.comparisons.listed
    }

    pub(in crate::protocol::replica) fn learning(&self) -> Option<LearningStatus> {
        if self.identity.votes || self.identity.node == 0 {
            return None;
        }
        let buckets = self.keys.digests().spread().buckets();
        let done = match &self.catchup.comparisons.pass {
            _ if self.catchup.comparisons.schedule.is_caught_up() => buckets,
            Some(pass) if pass.stage() >= Stage::Entries => buckets - pass.buckets_left(),
            _ => 0,
        };
        Some(LearningStatus {
            buckets_done: done as u64,
            buckets: buckets as u64,
            keys_copied: self.catchup.comparisons.copied,
        })
    }

    /// At each heartbeat.
    pub(in crate::protocol::replica) fn compare_at_heartbeat(&mut self, now: Now) {
        if self.identity.node == 0 {
            return;
        }
        let mut sources = self.view.reachable().to_vec();
        sources.retain(|node| *node != self.identity.node);
        sources.sort_unstable();
        self.see_reachable(now, &sources);
        if let Some(pass) = &self.catchup.comparisons.pass {
            let mut gone = pass.sources();
            gone.retain(|node| !self.catchup.comparisons.schedule.is_reachable(*node));
            for node in gone {
                self.lose_source(node);
            }
            self.ask_overdue(now);
            self.check_again(now);
            self.advance_pass(now);
        } else if self.is_pass_due(now) && !sources.is_empty() {
            self.begin_pass(now, &sources);
        }
        self.purge_tombstones(now);
    }

    /// The node compares with a member at once when it becomes reachable.
    fn see_reachable(&mut self, now: Now, sources: &[NodeId]) {
        let gone_ms = self.timings.source_gone_ms;
        let comparisons = &mut self.catchup.comparisons;
        if comparisons.schedule.see(now, sources, gone_ms) == MemberArrival::First {
            // Results of earlier comparisons are out of date.
            comparisons.pass = None;
            comparisons.fetches = Fetches::default();
        }
    }

    fn is_pass_due(&self, now: Now) -> bool {
        let is_busy = self.identity.votes && self.requests.has_operations();
        self.catchup.comparisons.schedule.is_due(now, is_busy)
    }

    fn begin_pass(&mut self, now: Now, near: &[NodeId]) {
        let counts = self.identity.votes && self.keys.digests().is_all_of(self.durable.life());
        let spread = self.keys.digests().spread();
        let schedule = &mut self.catchup.comparisons.schedule;
        let (kind, sources, turn) = schedule.begin(near, counts);
        let pass = Pass::new(now, kind, sources.clone(), turn, spread);
        self.catchup.comparisons.pass = Some(pass);
        for node in sources {
            self.ask_digests(now, node);
        }
    }

    fn ask_digests(&mut self, now: Now, node: NodeId) {
        let round = self.clock.round_id(now);
        let question = BucketQuestion::new(now, round);
        if let Some(pass) = &mut self.catchup.comparisons.pass {
            pass.digests.insert(node, question);
            let total = self.total_asked_with();
            self.ask_for(node, round, DigestsRequest { total }.into());
        }
    }

    /// Two members mostly hold the same state: one number then confirms it, where all digests take
    /// 32 KiB.
    fn total_asked_with(&self) -> Option<u64> {
        let pass = self.catchup.comparisons.pass.as_ref();
        let is_pair = pass.is_some_and(|pass| pass.kind == PassKind::Pair);
        is_pair.then(|| self.reported_sums().fold(0, u64::wrapping_add))
    }

    /// A request carries an id that no request of this node had before (R4), so it waits for the
    /// ceiling; and it belongs to an epoch, so it waits for that to be durable.
    pub(in crate::protocol::replica) fn ask_for(
        &mut self,
        node: NodeId,
        round: RoundId,
        message: Message,
    ) {
        let group = self.ceiling_group().max(self.durable.installed_in());
        self.send(node, round, message, group, Way::Usual);
    }

    pub(in crate::protocol::replica) fn handle_bucket_reply(
        &mut self,
        now: Now,
        envelope: Envelope,
    ) {
        let (from, round) = (envelope.origin, envelope.round);
        match envelope.message {
            Message::DigestsReply(reported) if self.is_purging(round) => {
                self.handle_purge_reply(now, from, reported);
            }
            Message::DigestsReply(reported) => {
                self.handle_digests_reply(now, from, round, &reported)
            }
            Message::BucketReply(reported) => self.handle_entries(now, from, round, reported),
            _ => self.counts.dropped.stray += 1,
        }
    }

    /// The other member held what this node did when it sent the request. If this node's digests
    /// have changed since, it requests all of them: the change may be a write that the other member
    /// missed.
    pub(in crate::protocol::replica) fn handle_digests_equal(
        &mut self,
        now: Now,
        from: NodeId,
        round: RoundId,
        total: u64,
    ) {
        let pass = self.catchup.comparisons.pass.as_ref();
        let question = pass.and_then(|pass| pass.digests.get(&from));
        if question.is_none_or(|question| question.round != round) {
            return;
        }
        if self.total_asked_with() != Some(total) {
            self.ask_for(from, round, DigestsRequest { total: None }.into());
            return;
        }
        let reported = DigestsReply {
            clock: 0,
            sums: Sums::collect(self.reported_sums()),
        };
        self.handle_digests_reply(now, from, round, &reported);
    }

    fn handle_digests_reply(
        &mut self,
        now: Now,
        from: NodeId,
        round: RoundId,
        reported: &DigestsReply,
    ) {
        let Some(mut pass) = self.catchup.comparisons.pass.take() else {
            return;
        };
        let asked = pass.digests.get(&from).is_some_and(|q| q.round == round);
        if asked {
            pass.digests.remove(&from);
            self.hear_clock(reported.clock);
            let mut differ: Vec<Bucket> = pass.share(from).collect();
            differ.retain(|bucket| self.differs(pass.kind, *bucket, reported));
            let mut at_first = differ.len();
            let looked_before = pass.differed.take();
            if let Some((before, _)) = &looked_before {
                at_first = before.len();
                differ.retain(|bucket| before.binary_search(bucket).is_ok());
            }
            if pass.kind == PassKind::Pair && differ.is_empty() {
                self.forget_hints(from, looked_before.is_none());
            }
            // A source that differed in most buckets and requests copies itself is lagging: listing
            // all that it holds would only delay it.
            let source_is_behind = at_first > self.keys.digests().spread().buckets() / 2
                && self.catchup.copies.is_asked_by(now, from);
            if pass.kind == PassKind::Pair && source_is_behind {
                differ.clear();
                pass.leaves_out = true;
            }
            if pass.kind == PassKind::Pair && looked_before.is_none() && !differ.is_empty() {
                pass.differed = Some((differ, now.mono_us + SETTLE_MS * 1_000));
            } else {
                pass.add(differ.into_iter().map(|bucket| (bucket, from)));
            }
        }
        self.catchup.comparisons.pass = Some(pass);
        self.advance_pass(now);
    }

    fn differs(&self, kind: PassKind, bucket: Bucket, reported: &DigestsReply) -> bool {
        let all = self.keys.digests().of_all(bucket);
        let votes = self.keys.digests().of_life(self.durable.life(), bucket);
        let own = if self.identity.votes { votes } else { all };
        let has_cached = self.identity.votes && kind == PassKind::Bulk && all != votes;
        reported.sums.of(bucket) != own || has_cached
    }

    /// The second check of the buckets that differed.
    fn check_again(&mut self, now: Now) {
        let Some(pass) = &self.catchup.comparisons.pass else {
            return;
        };
        let is_due = pass
            .differed
            .as_ref()
            .is_some_and(|(_, at)| now.mono_us >= *at);
        if is_due && pass.stage() == Stage::SecondCheck {
            for node in pass.sources() {
                self.ask_digests(now, node);
            }
        }
    }

    /// Continues the pass as far as the windows allow, and ends it.
    pub(in crate::protocol::replica) fn advance_pass(&mut self, now: Now) {
        // X6: a full learner remains a learner; a member may store what it has accepted.
        if !self.identity.votes && self.space.full.is_some() {
            return;
        }
        let Some(pass) = &mut self.catchup.comparisons.pass else {
            return;
        };
        let mut asked = Vec::new();
        while pass.comparing.len() < BUCKETS_COMPARED_MAX
            && self.catchup.comparisons.fetches.has_room()
            && let Some((bucket, source)) = pass.todo.pop_front()
        {
            let round = self.clock.round_id(now);
            let question = BucketQuestion::new(now, round);
            let comparing = Comparing {
                source,
                after: None,
                page: None,
                own_after: None,
                question,
            };
            pass.comparing.insert(bucket, comparing);
            asked.push((bucket, source, round));
        }
        if !self.identity.votes && pass.stage() >= Stage::Entries {
            self.catchup.comparisons.listed =
                self.catchup.comparisons.listed.max(pass.first_left());
        }
        let is_compared = pass.stage() == Stage::Records;
        for (bucket, source, round) in asked {
            let after = None;
            self.ask_for(source, round, BucketRequest { bucket, after }.into());
        }
        for (source, keys) in self.catchup.comparisons.fetches.fill(now) {
            self.ask_copies(now, source, keys);
        }
        if is_compared && self.catchup.comparisons.fetches.is_empty() {
            self.end_pass(now);
        }
    }

    fn ask_copies(&mut self, now: Now, source: NodeId, keys: Vec<Key>) {
        let round = self.clock.round_id(now);
        self.ask_for(source, round, CopiesRequest { keys }.into());
    }

    fn end_pass(&mut self, now: Now) {
        let Some(pass) = self.catchup.comparisons.pass.take() else {
            return;
        };
        let votes = self.identity.votes;
        if let Some(node) = pass.compared_all_with() {
            self.requests.watches.changes.compared(node, pass.began_us);
        }
        self.catchup.comparisons.schedule.end(now, &pass, votes);
    }

    /// Repeats requests that were not answered. A source that does not answer for its buckets is
    /// asked for nothing more in this pass; copies that never arrive are abandoned.
    fn ask_overdue(&mut self, now: Now) {
        let tries_max = self.timings.fetch_tries_max;
        let wait_us = self.answer_wait_us(FETCH_RETRY_MS);
        let total = self.total_asked_with();
        let Some(pass) = &mut self.catchup.comparisons.pass else {
            return;
        };
        let mut silent = Vec::new();
        let mut again: Vec<(NodeId, RoundId, Message)> = Vec::new();
        let mut listed = Vec::new();
        let overdue =
            |(_, question): &(&NodeId, &mut BucketQuestion)| question.is_overdue(now, wait_us);
        for (node, question) in pass.digests.iter_mut().filter(overdue) {
            match question.ask_again(now, tries_max) {
                true => again.push((*node, question.round, DigestsRequest { total }.into())),
                false => silent.push(*node),
            }
        }
        for (bucket, comparing) in &mut pass.comparing {
            let bucket = *bucket;
            if !comparing.question.is_overdue(now, wait_us) {
                continue;
            }
            if comparing.page.is_some() {
                comparing.question.at_us = now.mono_us;
                listed.push((bucket, comparing.own_after.clone()));
            } else if comparing.question.ask_again(now, tries_max) {
                let after = comparing.after.clone();
                let asked = BucketRequest { bucket, after }.into();
                again.push((comparing.source, comparing.question.round, asked));
            } else {
                silent.push(comparing.source);
            }
        }
        for node in &silent {
            self.lose_source(*node);
        }
        self.catchup.comparisons.schedule.add_silent(silent);
        for (bucket, after) in listed {
            self.list_own(bucket, after, Purpose::Compare);
        }
        for (node, round, message) in again {
            self.ask_for(node, round, message);
        }
        let (overdue, given_up) = self
            .catchup
            .comparisons
            .fetches
            .overdue(now, wait_us, tries_max);
        if let Some(pass) = &mut self.catchup.comparisons.pass {
            pass.given_up += given_up;
        }
        for (source, keys) in overdue {
            self.ask_copies(now, source, keys);
        }
    }

    /// Asks a replacement source for the copies that were to come from that node; without one, the
    /// next pass finds their keys missing.
    fn lose_source(&mut self, node: NodeId) {
        let Some(pass) = &mut self.catchup.comparisons.pass else {
            return;
        };
        let keys = self.catchup.comparisons.fetches.forget(node);
        if let Some(heir) = pass.lose(node, !keys.is_empty()) {
            for (key, size) in keys {
                self.catchup.comparisons.fetches.want(heir, key, size);
            }
        }
    }

    fn handle_entries(&mut self, now: Now, from: NodeId, round: RoundId, reported: BucketReply) {
        let bucket = reported.bucket;
        let Some(pass) = &mut self.catchup.comparisons.pass else {
            return;
        };
        let Some(comparing) = pass.comparing.get_mut(&bucket) else {
            return;
        };
        let asked = comparing.source == from
            && comparing.question.round == round
            && comparing.after == reported.after
            && comparing.page.is_none();
        if asked && reported.leads_on() {
            let after = reported.after.clone();
            comparing.own_after = after.clone();
            comparing.page = Some(reported);
            comparing.question.at_us = now.mono_us;
            self.list_own(bucket, after, Purpose::Compare);
        }
    }

    /// A page of this node's own entries of a bucket, after `own_after`.
    pub(in crate::protocol::replica) fn handle_own_bucket(
        &mut self,
        now: Now,
        bucket: Bucket,
        own_after: &Option<Key>,
        own: &Page,
    ) {
        let Some(pass) = &mut self.catchup.comparisons.pass else {
            return;
        };
        let comparing = pass.comparing.get_mut(&bucket);
        let Some(comparing) = comparing.filter(|c| c.own_after == *own_after) else {
            return;
        };
        let Some(reported) = comparing.page.take() else {
            return;
        };
        let (source, round) = (comparing.source, comparing.question.round);
        comparing.question.at_us = now.mono_us;
        if let Some(own_next) = own.next.as_ref().filter(|next| reported.goes_beyond(next)) {
            comparing.own_after = Some(own_next.clone());
            comparing.page = Some(reported.clone());
            self.list_own(bucket, Some(own_next.clone()), Purpose::Compare);
        } else if let Some(after) = reported.next.clone() {
            comparing.after = Some(after.clone());
            comparing.question.times = 1;
            let after = Some(after);
            self.ask_for(source, round, BucketRequest { bucket, after }.into());
        } else {
            pass.comparing.remove(&bucket);
        }
        self.compare(now, source, &reported, own_after, own);
        self.advance_pass(now);
    }

    /// Compares a member's entries with this node's own states, as far as both have listed the
    /// bucket.
    fn compare(
        &mut self,
        now: Now,
        source: NodeId,
        reported: &BucketReply,
        own_after: &Option<Key>,
        page: &Page,
    ) {
        let terms = self.terms();
        let votes = self.identity.votes;
        let mut missing = 0;
        let mut own = page.states.as_slice();
        let here = |key: &Key| Some(key) > own_after.as_ref() && page.reaches(key);
        for entry in reported.entries.iter().filter(|entry| here(&entry.key)) {
            // Both are in order of key.
            let earlier = own.iter().take_while(|(key, _)| *key < entry.key);
            own = &own[earlier.count()..];
            let same = own.first().filter(|(key, _)| *key == entry.key);
            let state = same.map(|(_, state)| state);
            let counts = state.filter(|s| !votes || terms.is_vote(s, rule!(E5_compared)));
            if counts.map_or(Ballot::ZERO, |s| s.accepted) >= entry.accepted {
                continue;
            }
            missing += 1;
            let key = entry.key.clone();
            let ballot = entry.accepted;
            // E5: a record that this node already has at the same ballot need not be sent.
            if entry.chosen && state.is_some_and(|s| s.accepted == ballot) {
                self.with_key(now, &key, KeyWork::Promote { ballot });
            } else {
                self.catchup
                    .comparisons
                    .fetches
                    .want(source, key, entry.size as usize);
            }
        }
        if votes {
            // E5: a cached key that the member does not have is discarded: it is no vote, and no
            // source.
            let is_cache = |state: &AcceptorState| !terms.is_vote(state, rule!(E5_unnamed));
            for (key, state) in page.states.iter().filter(|(_, state)| is_cache(state)) {
                let found = reported
                    .entries
                    .binary_search_by(|e| e.key.cmp(key))
                    .is_ok();
                if reported.reaches(key) && !found {
                    let ballot = state.accepted;
                    self.with_key(now, key, KeyWork::Discard { ballot });
                }
            }
        }
        if let Some(pass) = &mut self.catchup.comparisons.pass {
            pass.missing += missing;
        }
    }

    /// A requested copy arrived.
    pub(in crate::protocol::replica) fn handle_fetched(&mut self, now: Now, envelope: Envelope) {
        let source = envelope.origin;
        let Message::Copy(copy) = &envelope.message else {
            return;
        };
        let Some(loaded) = self.keys.loaded(&copy.key) else {
            self.wait_for(copy.key.clone(), Waiting::Peer(envelope));
            return;
        };
        if self.take_copy(now, source, loaded, copy)
            && self.catchup.comparisons.fetches.end(now, source, &copy.key)
        {
            self.catchup.comparisons.copied += 1;
        }
        self.advance_pass(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica};
    use crate::protocol::replica::view::Reach;
    use crate::protocol::types::digest::Spread;

    /// The process was stopped in the middle of a comparison. When it continues, it receives from
    /// the same nodes at once.
    #[test]
    fn who_did_not_run_takes_the_others_for_new() {
        let mut replica = replica();
        replica.view.see(Reach {
            voters: vec![2],
            ..Reach::default()
        });
        let schedule = &mut replica.catchup.comparisons.schedule;
        schedule.see(NOW, &[2], 1_000);
        schedule.end(
            NOW,
            &Pass::new(NOW, PassKind::Pair, vec![2], 0, Spread::default()),
            true,
        );
        let began = |replica: &Replica| {
            replica
                .catchup
                .comparisons
                .pass
                .as_ref()
                .map(|p| (p.kind, p.began_us))
        };
        let after = |ms: u64| Now {
            mono_us: NOW.mono_us + ms * 1_000,
            ..NOW
        };
        replica.begin_pass(NOW, &[2]);
        replica.compare_at_heartbeat(after(50));
        assert_eq!(began(&replica), Some((PassKind::Pair, NOW.mono_us)));
        replica.compare_at_heartbeat(after(10_000));
        assert_eq!(began(&replica), None, "what it was told is old");
        let next = after(10_000 + SETTLE_MS);
        replica.compare_at_heartbeat(next);
        assert_eq!(began(&replica), Some((PassKind::Bulk, next.mono_us)));
    }
}
