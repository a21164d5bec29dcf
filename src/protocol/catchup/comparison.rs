//! One comparison of this node's buckets with those of one or more members: which member is asked for which
//! bucket, and what is still to be answered. Sends nothing; `replica/catchup/compare.rs` does.
//!
//! | stage | what happens in it | it ends when |
//! |---|---|---|
//! | `Digests` | each member is asked for its digests; buckets that differ queue up | all have answered, or are lost |
//! | `SecondCheck` | of a pair: buckets that differed wait, then the digests are asked for again | these came |
//! | `Entries` | the entries of a few buckets at a time are listed on both sides and compared | none is left |
//! | `Records` | missing records are fetched | all came, or were given up; then the pass ends |
//!
//! Entries that differ are fetched, and buckets that queue up are compared, while an earlier stage goes on. A
//! second check follows `Digests` of a pair only if buckets differed, and leads back to it.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::types::digest::{Bucket, Spread};
use crate::protocol::types::limits::GIVEN_UP_MAX;
use crate::protocol::types::message::{BucketTold, NodeId, Now, RoundId};
use crate::protocol::types::record::Key;

/// A question that waits for its answer.
#[derive(Debug)]
pub struct BucketQuestion {
    pub round: RoundId,
    pub at_us: u64,
    pub times: u32,
}

/// A bucket that is being compared, a page at a time.
#[derive(Debug)]
pub struct Comparing {
    pub source: NodeId,
    pub after: Option<Key>,
    /// The source's entries, until this node's own are listed, ...
    pub page: Option<BucketTold>,
    /// ... which they are up to here.
    pub own_after: Option<Key>,
    pub question: BucketQuestion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// What this node holds is no vote, or much is missing: all that counts is to be had, from all members in
    /// turn by bucket.
    Bulk,
    /// Two members compare all buckets.
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
    /// Each has its share of the buckets.
    shares: Vec<NodeId>,
    /// Whose share begins where.
    turn: u64,
    pub digests: BTreeMap<NodeId, BucketQuestion>,
    /// Of a pair: the buckets that differed at the first look, and when the second is due. What is
    /// being written differs at one look, but seldom at two.
    pub differed: Option<(Vec<Bucket>, u64)>,
    pub todo: VecDeque<(Bucket, NodeId)>,
    pub comparing: BTreeMap<Bucket, Comparing>,
    pub missing: u64,
    /// Keys that were asked for in vain.
    pub given_up: u64,
    /// Something was not seen through.
    pub is_cut_short: bool,
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

    /// False once it was asked often enough.
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
        }
    }

    pub fn sources(&self) -> Vec<NodeId> {
        let mut sources = self.shares.clone();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// The buckets that this source is asked for.
    pub fn share(&self, source: NodeId) -> impl Iterator<Item = Bucket> {
        self.spread.all().filter(move |bucket| {
            let place = (u64::from(*bucket) + self.turn) % self.shares.len() as u64;
            self.shares[place as usize] == source
        })
    }

    /// Neighbouring buckets are of different sources, so that all are at work.
    pub fn add(&mut self, buckets: impl Iterator<Item = (Bucket, NodeId)>) {
        self.todo.extend(buckets);
        self.todo.make_contiguous().sort_unstable();
    }

    pub fn buckets_left(&self) -> usize {
        self.todo.len() + self.comparing.len()
    }

    /// All buckets before that one are done.
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

    /// Whether all that its sources hold is here, but for what was written since and what little could not be had.
    pub fn is_whole(&self) -> bool {
        !self.is_cut_short && self.given_up <= GIVEN_UP_MAX
    }

    /// That source is asked for nothing more: its share goes to another one, which is given, and is to be
    /// asked for the keys, too. Without another one the pass is cut short, if anything was to come.
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
        // The heir's digests tell of all that it inherits. If they came before, and the lost one's did
        // not, its whole share is compared.
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
