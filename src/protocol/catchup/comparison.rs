//! One comparison of this node's buckets with those of one or more members: which member is asked
//! for which bucket, and which answers are outstanding. It sends nothing;
//! `replica/catchup/compare.rs` does.
//!
//! | stage | what happens in it | it ends when |
//! |---|---|---|
//! | `Digests` | digests are requested; buckets that differ are queued | all answered or are lost |
//! | `SecondCheck` | of a pair: after a wait, the digests are requested again | they arrived |
//! | `Entries` | both sides list a few buckets at a time, and these are compared | none is left |
//! | `Records` | missing records are fetched | all arrived or were abandoned; then the pass ends |
//!
//! Entries that differ are fetched, and queued buckets are compared, while an earlier stage is
//! still in progress. A second check follows `Digests` of a pair only if buckets differed, and
//! leads back to it.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::types::digest::{Bucket, Spread};
use crate::protocol::types::limits::GIVEN_UP_MAX;
use crate::protocol::types::message::{BucketReply, NodeId, Now, RoundId};
use crate::protocol::types::record::Key;

/// A request that waits for its answer.
#[derive(Debug)]
pub struct BucketQuestion {
    pub round: RoundId,
    pub at_us: u64,
    pub times: u32,
}

/// A bucket that is being compared, one page at a time.
#[derive(Debug)]
pub struct Comparing {
    pub source: NodeId,
    pub after: Option<Key>,
    /// The source's entries, until this node's own entries are listed.
    pub page: Option<BucketReply>,
    /// The key up to which this node's own entries are listed.
    pub own_after: Option<Key>,
    pub question: BucketQuestion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Full catch-up: this node's records are no votes, or many are missing. It fetches everything
    /// that counts, from all members, round-robin over buckets.
    Bulk,
    /// Pairwise comparison: two members compare all buckets.
    Pair,
}

/// The first thing that a pass still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Digests,
    SecondCheck,
    Entries,
    Records,
}

#[derive(Debug)]
pub struct Pass {
    pub kind: PassKind,
    spread: Spread,
    pub began_us: u64,
    /// The source of each share of the buckets.
    shares: Vec<NodeId>,
    /// Rotates the shares, so that not every pass gives the same buckets to the same source.
    turn: u64,
    pub digests: BTreeMap<NodeId, BucketQuestion>,
    /// Of a pair: the buckets that differed at the first check, and when the second check is due. A
    /// bucket that is being written differs at one check, but seldom at two.
    pub differed: Option<(Vec<Bucket>, u64)>,
    pub todo: VecDeque<(Bucket, NodeId)>,
    pub comparing: BTreeMap<Bucket, Comparing>,
    pub missing: u64,
    /// Failed fetches: keys whose requests were not answered.
    pub given_up: u64,
    /// Whether the pass is incomplete.
    pub is_cut_short: bool,
    /// Buckets that differ are not compared, because the other member is catching up itself.
    pub leaves_out: bool,
}

impl BucketQuestion {
    pub fn new(now: Now, round: RoundId) -> Self {
        BucketQuestion {
            round,
            at_us: now.mono_us,
            times: 1,
        }
    }

    pub fn is_overdue(&self, now: Now, wait_us: u64) -> bool {
        now.mono_us >= self.at_us + wait_us
    }

    /// Returns false once the request was sent often enough.
    pub fn ask_again(&mut self, now: Now, tries_max: u32) -> bool {
        self.times += 1;
        self.at_us = now.mono_us;
        self.times <= tries_max
    }
}

impl Pass {
    pub fn new(now: Now, kind: PassKind, sources: Vec<NodeId>, turn: u64, spread: Spread) -> Self {
        Pass {
            kind,
            spread,
            began_us: now.mono_us,
            shares: sources,
            turn,
            digests: BTreeMap::new(),
            differed: None,
            todo: VecDeque::new(),
            comparing: BTreeMap::new(),
            missing: 0,
            given_up: 0,
            is_cut_short: false,
            leaves_out: false,
        }
    }

    /// W4: the member of whose keys this node now holds all that it held when the pass began.
    pub fn compared_all_with(&self) -> Option<NodeId> {
        let is_all = !self.is_cut_short && !self.leaves_out && self.given_up == 0;
        let is_pair = self.kind == PassKind::Pair;
        self.shares.first().copied().filter(|_| is_pair && is_all)
    }

    pub fn sources(&self) -> Vec<NodeId> {
        let mut sources = self.shares.clone();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// The buckets that are requested from this source.
    pub fn share(&self, source: NodeId) -> impl Iterator<Item = Bucket> {
        self.spread.all().filter(move |bucket| {
            let place = (u64::from(*bucket) + self.turn) % self.shares.len() as u64;
            self.shares[place as usize] == source
        })
    }

    /// Adjacent buckets come from different sources, so that all sources are at work.
    pub fn add(&mut self, buckets: impl Iterator<Item = (Bucket, NodeId)>) {
        self.todo.extend(buckets);
        self.todo.make_contiguous().sort_unstable();
    }

    pub fn buckets_left(&self) -> usize {
        self.todo.len() + self.comparing.len()
    }

    /// All buckets before this one are done.
    pub fn first_left(&self) -> Bucket {
        let waiting = self.todo.front().map(|(bucket, _)| *bucket);
        let compared = self.comparing.keys().next().copied();
        let left = waiting.into_iter().chain(compared).min();
        left.unwrap_or(self.spread.all().end)
    }

    pub fn stage(&self) -> Stage {
        if !self.digests.is_empty() {
            Stage::Digests
        } else if self.differed.is_some() {
            Stage::SecondCheck
        } else if self.buckets_left() > 0 {
            Stage::Entries
        } else {
            Stage::Records
        }
    }

    /// Whether this node holds all that its sources hold, except for what was written since and for
    /// the few keys whose fetches failed.
    pub fn is_whole(&self) -> bool {
        !self.is_cut_short && self.given_up <= GIVEN_UP_MAX
    }

    /// Requests nothing more from that source. Its buckets are assigned to a replacement source,
    /// which is returned and must be asked for the keys, too. Without a replacement the pass is
    /// incomplete, if anything was outstanding.
    pub fn lose(&mut self, source: NodeId, wanted_keys: bool) -> Option<NodeId> {
        let place = self.shares.iter().position(|s| *s == source)?;
        let others = self
            .shares
            .iter()
            .cycle()
            .skip(place)
            .take(self.shares.len());
        let heir = others.copied().find(|s| *s != source);
        let is_asked = self.digests.remove(&source).is_some();
        let share: Vec<Bucket> = self.share(source).collect();
        let compared = self.comparing.iter().filter(|(_, c)| c.source == source);
        let mut left: Vec<Bucket> = compared.map(|(bucket, _)| *bucket).collect();
        self.comparing.retain(|_, c| c.source != source);
        let waiting = self.todo.iter().filter(|(_, s)| *s == source);
        left.extend(waiting.map(|(bucket, _)| *bucket));
        self.todo.retain(|(_, s)| *s != source);
        let Some(heir) = heir else {
            let looks_again = self.differed.take().is_some();
            self.is_cut_short |= is_asked || looks_again || !left.is_empty() || wanted_keys;
            return None;
        };
        for place in self.shares.iter_mut().filter(|s| **s == source) {
            *place = heir;
        }
        // The digests of the replacement cover everything that it takes over. If they arrived
        // before, and those of the lost source did not, all buckets of the lost source are
        // compared.
        if self.digests.contains_key(&heir) {
            left.clear();
        } else if is_asked {
            left = share;
        }
        self.add(left.into_iter().map(|bucket| (bucket, heir)));
        Some(heir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        mono_us: 0,
        wall_ms: 0,
    };

    fn question() -> BucketQuestion {
        BucketQuestion::new(NOW, RoundId::default())
    }

    fn bulk() -> Pass {
        let mut pass = Pass::new(NOW, PassKind::Bulk, vec![1, 2, 3], 7, Spread::default());
        for node in [1, 2, 3] {
            pass.digests.insert(node, question());
        }
        pass
    }

    #[test]
    fn each_bucket_is_in_one_share() {
        let pass = bulk();
        let mut all: Vec<Bucket> = [1, 2, 3].iter().flat_map(|n| pass.share(*n)).collect();
        all.sort_unstable();
        assert_eq!(all, pass.spread.all().collect::<Vec<_>>());
    }

    fn compare(pass: &mut Pass, bucket: Bucket, source: NodeId) {
        let comparing = Comparing {
            source,
            after: None,
            page: None,
            own_after: None,
            question: question(),
        };
        pass.comparing.insert(bucket, comparing);
    }

    #[test]
    fn what_is_left_begins_where_none_waits_and_none_is_compared() {
        let mut pass = bulk();
        assert_eq!(pass.first_left(), pass.spread.all().end);
        pass.add([(7, 1), (5, 2)].into_iter());
        assert_eq!(pass.first_left(), 5);
        compare(&mut pass, 3, 1);
        assert_eq!(pass.first_left(), 3);
    }

    #[test]
    fn what_a_lost_source_owes_another_one_is_asked_for() {
        let mut pass = bulk();
        pass.digests.clear();
        let (of_first, of_second) = (pass.share(1).next().unwrap(), pass.share(2).next().unwrap());
        compare(&mut pass, of_first, 1);
        pass.add([(of_second, 2)].into_iter());
        assert_eq!(pass.lose(1, true), Some(2));
        assert_eq!(pass.lose(1, true), None, "it is lost once");
        assert_eq!(pass.lose(2, false), Some(3));
        let mut waiting: Vec<_> = pass.todo.iter().copied().collect();
        waiting.sort_unstable();
        let mut owed = [(of_first, 3), (of_second, 3)];
        owed.sort_unstable();
        assert_eq!(waiting, owed);
        assert!(pass.comparing.is_empty() && !pass.is_cut_short);
        assert_eq!(pass.share(3).count(), pass.spread.buckets());
        assert_eq!(pass.lose(3, false), None);
        assert!(pass.is_cut_short && pass.stage() == Stage::Records);
    }

    #[test]
    fn an_heir_that_is_yet_to_tell_its_digests_tells_them_for_both_shares() {
        let mut pass = bulk();
        pass.digests.remove(&1);
        let of_first: Vec<_> = pass.share(1).map(|bucket| (bucket, 1)).collect();
        compare(&mut pass, of_first[0].0, 1);
        pass.add(of_first[1..].iter().copied());
        assert_eq!(pass.lose(1, false), Some(2));
        assert_eq!(pass.buckets_left(), 0);
        let of_third = pass.share(3).count();
        assert_eq!(pass.share(2).count(), pass.spread.buckets() - of_third);
        assert!(!pass.is_cut_short && pass.stage() == Stage::Digests);
    }

    #[test]
    fn a_share_whose_digests_were_not_told_is_compared_in_full() {
        let mut pass = bulk();
        pass.digests.clear();
        pass.digests.insert(1, question());
        let owed = pass.share(1).count();
        assert_eq!(pass.lose(1, false), Some(2));
        assert_eq!(pass.buckets_left(), owed);
        assert!(pass.todo.iter().all(|(_, source)| *source == 2));
    }

    #[test]
    fn a_source_that_owed_nothing_cuts_nothing_short() {
        let mut pass = Pass::new(NOW, PassKind::Pair, vec![2], 0, Spread::default());
        assert_eq!(pass.lose(2, false), None);
        assert!(!pass.is_cut_short);
        assert_eq!(pass.lose(2, true), None);
        assert!(pass.is_cut_short);
    }
}
