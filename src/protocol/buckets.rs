//! What this node holds, told bucket by bucket: digests of all, and the contents of one.

use std::collections::BTreeMap;

use super::Replica;
use super::digest::{BUCKETS, Bucket, Sums};
use super::limits::{BUCKET_WAITERS_MAX, KEYS_PER_MESSAGE_MAX, KEYS_SIZE_MAX};
use super::message::{
    BucketAsked, BucketEntry, BucketTold, DigestsTold, Envelope, Message, NodeId, Now, RoundId,
};
use super::outbox::Way;
use super::record::{AcceptorState, Key};
use super::repair::size_of;

/// What an entry takes in a message beside its key, about.
const ENTRY_OVERHEAD: usize = 24;

/// Who waits for a bucket's contents.
#[derive(Debug)]
enum Waiter {
    Node {
        to: NodeId,
        round: RoundId,
        via: NodeId,
        after: Option<Key>,
    },
    /// This node itself, see `handle_own_bucket`.
    Own,
}

/// Buckets whose contents were asked for.
#[derive(Debug, Default)]
pub struct Waiters(BTreeMap<Bucket, Vec<Waiter>>);

impl Replica {
    /// Of a member: its votes (E5). R2: they leave once what they tell of is durable.
    pub(super) fn handle_digests_asked(&mut self, envelope: &Envelope) {
        let buckets = 0..BUCKETS as Bucket;
        let sums = buckets.map(|bucket| self.digests.of_life(self.meta.life, bucket));
        let told = DigestsTold {
            clock: self.clock.last(),
            sums: Sums::collect(sums),
        };
        let group = self.group_of_now();
        let (to, round, via) = (envelope.origin, envelope.round, envelope.via);
        self.send(to, round, told.into(), group, Way::Back(via));
    }

    pub(super) fn handle_bucket_asked(&mut self, envelope: Envelope) {
        let Message::BucketAsked(BucketAsked { bucket, after }) = envelope.message else {
            return;
        };
        let waiter = Waiter::Node {
            to: envelope.origin,
            round: envelope.round,
            via: envelope.via,
            after,
        };
        self.wait_for_bucket(bucket, waiter);
    }

    /// This node's own contents of a bucket are wanted: `handle_own_bucket` gets them.
    pub(super) fn list_own(&mut self, bucket: Bucket) {
        self.wait_for_bucket(bucket, Waiter::Own);
    }

    fn wait_for_bucket(&mut self, bucket: Bucket, waiter: Waiter) {
        let waiters = self.bucket_waiters.0.entry(bucket).or_default();
        // Whoever asked will ask again.
        if waiters.len() >= BUCKET_WAITERS_MAX {
            self.counters.overflow += 1;
            return;
        }
        if waiters.is_empty() {
            self.lists.push_back(bucket);
        }
        waiters.push(waiter);
    }

    pub(super) fn handle_listed(
        &mut self,
        now: Now,
        bucket: Bucket,
        states: &[(Key, AcceptorState)],
    ) {
        let waiters = self.bucket_waiters.0.remove(&bucket);
        for waiter in waiters.into_iter().flatten() {
            match waiter {
                Waiter::Own => self.handle_own_bucket(now, bucket, states),
                Waiter::Node {
                    to,
                    round,
                    via,
                    after,
                } => {
                    let told = self.bucket_told(bucket, states, after);
                    // R2: what was listed was handed out for the disk before.
                    let group = self.outbox.filling() - 1;
                    self.send(to, round, told.into(), group, Way::Back(via));
                }
            }
        }
    }

    /// A page of a bucket: as much behind `after` as one message takes.
    fn bucket_told(
        &self,
        bucket: Bucket,
        states: &[(Key, AcceptorState)],
        after: Option<Key>,
    ) -> BucketTold {
        let terms = self.terms();
        let behind = |key: &Key| after.as_ref().is_none_or(|after| key > after);
        let mut told = BucketTold {
            bucket,
            entries: Vec::new(),
            more: false,
            after: after.clone(),
        };
        let mut size = 0;
        for (key, state) in states.iter().filter(|(key, _)| behind(key)) {
            let Some(record) = state.record.as_ref().filter(|_| terms.is_vote(state)) else {
                continue;
            };
            size += key.as_bytes().len() + ENTRY_OVERHEAD;
            if size > KEYS_SIZE_MAX || told.entries.len() >= KEYS_PER_MESSAGE_MAX {
                told.more = true;
                break;
            }
            told.entries.push(BucketEntry {
                key: key.clone(),
                accepted: state.accepted,
                chosen: state.chosen,
                tombstone: record.value.is_none(),
                size: size_of(key, record).try_into().unwrap_or(u32::MAX),
            });
        }
        told
    }

    /// The group with which all that this node holds now is durable.
    pub(super) fn group_of_now(&self) -> u64 {
        match self.outbox.is_dirty() {
            true => self.outbox.filling(),
            false => self.outbox.filling() - 1,
        }
    }
}
