//! E3: what must be known of all keys before a joint configuration may be completed. This module
//! owns the evidence; `change` requests it, and repairs the keys that differ.
//!
//! Evidence stays true once it is gathered, so it is gathered while writes continue: equal digests
//! of a bucket first, then the entries of the buckets that differ, then a repair round for each key
//! that still differs.

use std::collections::{BTreeMap, BTreeSet};

use wire::clock::Reading;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::{Bucket, Spread, Sums};
use crate::protocol::types::limits::{SEAL_BUCKETS_MAX, SEAL_PASSES_MAX};
use crate::protocol::types::message::{BucketEntry, BucketReply, Configuration, NodeId, RoundId};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// What the caller must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    AskDigests,
    AskBucket(NodeId, Bucket, Option<Key>),
    /// Run a repair round.
    Repair(Key),
    /// The evidence is complete: the joint configuration may be completed.
    Complete,
}

/// A bucket that is compared key by key.
#[derive(Debug, Default)]
struct Listing {
    entries: BTreeMap<NodeId, Vec<BucketEntry>>,
    /// The key up to which each member has listed the bucket; a member that listed nothing has
    /// none.
    reported: BTreeMap<NodeId, Key>,
    complete: BTreeSet<NodeId>,
    /// Whether the entries were compared.
    compared: bool,
}

#[derive(Debug)]
pub struct Evidence {
    /// Correlates answers with the requests made for this evidence.
    pub id: RoundId,
    /// The highest clock that a member reported after it had installed the joint configuration.
    clock: Reading,
    /// The digests received in the present pass.
    reported: BTreeMap<NodeId, Sums>,
    passes: u32,
    open: BTreeSet<Bucket>,
    listings: BTreeMap<Bucket, Listing>,
    mending: BTreeMap<Key, Bucket>,
    complete: bool,
}

impl Evidence {
    pub fn new(id: RoundId, spread: Spread) -> Self {
        Evidence {
            id,
            clock: 0,
            reported: BTreeMap::new(),
            passes: 1,
            open: spread.all().collect(),
            listings: BTreeMap::new(),
            mending: BTreeMap::new(),
            complete: false,
        }
    }

    /// E3 (c): above everything that a quorum of the old configuration promised.
    pub fn base(&self) -> Ballot {
        Ballot::new(self.clock, NodeId::MAX)
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Members that have not answered a request for their digests or for a bucket.
    pub fn silent(&self, near: &[NodeId]) -> Vec<(NodeId, Step)> {
        let mut silent = Vec::new();
        for node in near {
            if self.listings.is_empty() && !self.reported.contains_key(node) {
                silent.push((*node, Step::AskDigests));
            }
            for (bucket, listing) in &self.listings {
                if !listing.compared && !listing.complete.contains(node) {
                    let after = listing.reported.get(node).cloned();
                    silent.push((*node, Step::AskBucket(*node, *bucket, after)));
                }
            }
        }
        silent
    }

    /// A member that has installed the joint configuration reports its clock and its digests.
    pub fn add_digests(&mut self, node: NodeId, clock: Reading, sums: Sums) {
        self.clock = self.clock.max(clock);
        self.reported.insert(node, sums);
    }

    pub fn add_page(&mut self, node: NodeId, reported: BucketReply) -> Option<Step> {
        let listing = self.listings.get_mut(&reported.bucket)?;
        if listing.compared || listing.complete.contains(&node) {
            return None;
        }
        // A duplicate or late page does not continue the listing; a page that ends where it began
        // would not advance it.
        if listing.reported.get(&node) != reported.after.as_ref() || !reported.leads_on() {
            return None;
        }
        let entries = listing.entries.entry(node).or_default();
        entries.extend(reported.entries);
        if let Some(next) = reported.next {
            listing.reported.insert(node, next.clone());
            return Some(Step::AskBucket(node, reported.bucket, Some(next)));
        }
        listing.complete.insert(node);
        None
    }

    /// A round of the joint epoch chose a record for the key.
    pub fn chosen(&mut self, key: &Key) {
        if let Some(bucket) = self.mending.remove(key)
            && !self.mending.values().any(|of| *of == bucket)
        {
            self.settle(bucket);
        }
    }

    /// Keys whose repair rounds are not completed. They are repaired again and, after a while,
    /// listed again.
    pub fn unrepaired(&self) -> Vec<Key> {
        self.mending.keys().cloned().collect()
    }

    /// The steps that follow from the answers received so far. This waits for the answers of all
    /// members in `near`, or, with `at_once`, only for those of a joint quorum.
    pub fn steps(
        &mut self,
        configuration: &Configuration,
        near: &[NodeId],
        at_once: bool,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.listings.is_empty() && !self.open.is_empty() {
            let reported: NodeSet = self.reported.keys().copied().collect();
            let all = near.iter().all(|node| reported.contains(*node));
            if !configuration.has_quorum(&reported) || !(all || at_once) {
                return steps;
            }
            self.compare_digests(configuration);
            if !self.open.is_empty() && self.passes < SEAL_PASSES_MAX {
                self.passes += 1;
                self.reported.clear();
                return vec![Step::AskDigests];
            }
        }
        self.compare_listings(configuration, near, at_once, &mut steps);
        self.start_listings(near, &mut steps);
        if self.open.is_empty() && !self.complete {
            self.complete = true;
            steps.push(Step::Complete);
        }
        steps
    }

    /// E3 (b), by buckets: a joint quorum holds the same contents.
    fn compare_digests(&mut self, configuration: &Configuration) {
        let reported = &self.reported;
        self.open.retain(|bucket| {
            let mut holders: BTreeMap<u64, NodeSet> = BTreeMap::new();
            for (node, sums) in reported {
                holders.entry(sums.of(*bucket)).or_default().insert(*node);
            }
            let agreed = holders.values().any(|set| configuration.has_quorum(set));
            !agreed && rule!(E3_evidence)
        });
    }

    fn start_listings(&mut self, near: &[NodeId], steps: &mut Vec<Step>) {
        let room = SEAL_BUCKETS_MAX.saturating_sub(self.listings.len());
        let fresh = self.open.iter().copied();
        let fresh: Vec<Bucket> = fresh
            .filter(|bucket| !self.listings.contains_key(bucket))
            .take(room)
            .collect();
        for bucket in fresh {
            self.listings.insert(bucket, Listing::default());
            let asked = near.iter().map(|node| Step::AskBucket(*node, bucket, None));
            steps.extend(asked);
        }
    }

    fn compare_listings(
        &mut self,
        configuration: &Configuration,
        near: &[NodeId],
        at_once: bool,
        steps: &mut Vec<Step>,
    ) {
        let mut settled = Vec::new();
        for (bucket, listing) in &mut self.listings {
            let reported: NodeSet = listing.complete.iter().copied().collect();
            let all = near.iter().all(|node| reported.contains(*node));
            let enough = configuration.has_quorum(&reported) && (all || at_once);
            if listing.compared || !enough {
                continue;
            }
            listing.compared = true;
            let open = unsettled(configuration, listing);
            if open.is_empty() {
                settled.push(*bucket);
            }
            for key in open {
                self.mending.insert(key.clone(), *bucket);
                steps.push(Step::Repair(key));
            }
        }
        for bucket in settled {
            self.settle(bucket);
        }
    }

    /// Lists the buckets again whose keys could not be repaired so far: other nodes may have
    /// repaired them.
    pub fn look_anew(&mut self) {
        let stuck: BTreeSet<Bucket> = self.mending.values().copied().collect();
        for bucket in stuck {
            self.listings.remove(&bucket);
        }
        self.mending.clear();
    }

    fn settle(&mut self, bucket: Bucket) {
        self.open.remove(&bucket);
        self.listings.remove(&bucket);
    }
}

/// E3 (b), by keys: the keys for which no joint quorum holds the same ballot, or agrees that there
/// is no record. A member that holds something else does not count for the quorum that is compared.
fn unsettled(configuration: &Configuration, listing: &Listing) -> Vec<Key> {
    let mut ballots: BTreeMap<&Key, BTreeMap<NodeId, Ballot>> = BTreeMap::new();
    for node in &listing.complete {
        for entry in listing.entries.get(node).into_iter().flatten() {
            let held = ballots.entry(&entry.key).or_default();
            held.insert(*node, entry.accepted);
        }
    }
    let open = ballots.iter().filter(|(_, held)| {
        let mut holders: BTreeMap<Ballot, NodeSet> = BTreeMap::new();
        for node in &listing.complete {
            let ballot = held.get(node).copied().unwrap_or_default();
            holders.entry(ballot).or_default().insert(*node);
        }
        !holders.values().any(|set| configuration.has_quorum(set))
    });
    open.map(|(key, _)| (*key).clone()).collect()
}
