//! What this node reports of its records, by bucket: digests of all buckets, and the entries of
//! one.

use std::collections::BTreeMap;

use crate::protocol::keys::outbox::Way;
use crate::protocol::replica::Replica;
use crate::protocol::replica::catchup::handoff::size_of;
use crate::protocol::types::digest::{Bucket, Sums};
use crate::protocol::types::limits::{BUCKET_WAITERS_MAX, PARTS_ASKED_MAX};
use crate::protocol::types::message::{
    BucketEntry, BucketReply, BucketRequest, DigestsEqual, DigestsReply, DigestsRequest, Envelope,
    Epoch, Message, NodeId, Now, RoundId,
};
use crate::protocol::types::page::Page;
use crate::protocol::types::record::{AcceptorState, Key};
use crate::protocol::types::rules::rule;

/// The entries of a bucket that follow a key.
pub type PageRequest = (Bucket, Option<Key>);

/// A requester that waits for a page of a bucket.
#[derive(Debug, PartialEq, Eq)]
enum BucketWaiter {
    Node {
        to: NodeId,
        round: RoundId,
        via: NodeId,
    },
    Own(Purpose),
}

/// The purpose for which this node itself lists the entries of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// See `handle_own_bucket`.
    Compare,
    /// See `find_purgeable`.
    Purge,
}

/// Pages of buckets that were requested.
#[derive(Debug, Default)]
pub struct Waiters(BTreeMap<PageRequest, Vec<BucketWaiter>>);

impl Replica {
    /// A member reports its votes (E5). R2: the answer leaves once the reported state is durable.
    pub(in crate::protocol::replica) fn handle_digests_request(
        &mut self,
        envelope: &Envelope,
        asked: &DigestsRequest,
    ) {
        let total = self.reported_sums().fold(0, u64::wrapping_add);
        let reported: Message = match asked.total == Some(total) {
            true => DigestsEqual { total }.into(),
            false => DigestsReply {
                clock: self.clock.last(),
                sums: Sums::collect(self.reported_sums()),
            }
            .into(),
        };
        let group = self.durable.group_of_now();
        let (to, round, via) = (envelope.origin, envelope.round, envelope.via);
        self.send(to, round, reported, group, Way::Back(via));
    }

    /// The digests of all buckets, in order.
    pub(in crate::protocol::replica) fn reported_sums(&self) -> impl Iterator<Item = u64> {
        let buckets = self.keys.digests().spread().all();
        buckets.map(|bucket| match rule!(E5_summed) {
            true => self.keys.digests().of_life(self.durable.life(), bucket),
            false => self.keys.digests().of_all(bucket),
        })
    }

    pub(in crate::protocol::replica) fn handle_bucket_request(&mut self, envelope: Envelope) {
        let Message::BucketRequest(BucketRequest { bucket, after }) = envelope.message else {
            return;
        };
        if usize::from(bucket) >= self.keys.digests().spread().buckets() {
            self.counts.dropped.stray += 1;
            return;
        }
        let waiter = BucketWaiter::Node {
            to: envelope.origin,
            round: envelope.round,
            via: envelope.via,
        };
        self.wait_for_part((bucket, after), waiter);
    }

    /// This node needs a page of its own entries.
    pub(in crate::protocol::replica) fn list_own(
        &mut self,
        bucket: Bucket,
        after: Option<Key>,
        purpose: Purpose,
    ) {
        self.wait_for_part((bucket, after), BucketWaiter::Own(purpose));
    }

    /// R1: a node that asked in another epoch gets no answer.
    pub(in crate::protocol::replica) fn restart_listing(&mut self) {
        self.catchup.bucket_waiters = Waiters::default();
        self.catchup.page_requests.clear();
    }

    fn wait_for_part(&mut self, part: PageRequest, waiter: BucketWaiter) {
        let parts = self.catchup.bucket_waiters.0.len();
        let waiters = self.catchup.bucket_waiters.0.get(&part).map_or(0, Vec::len);
        let is_own = matches!(waiter, BucketWaiter::Own(_));
        // Other nodes will ask again. This node itself requests few pages.
        let is_full = waiters >= BUCKET_WAITERS_MAX || (waiters == 0 && parts >= PARTS_ASKED_MAX);
        if is_full && !is_own {
            self.counts.dropped.overflow += 1;
            return;
        }
        if waiters == 0 {
            self.catchup.page_requests.push_back(part.clone());
        }
        let waiters = self.catchup.bucket_waiters.0.entry(part).or_default();
        if !is_own || !waiters.contains(&waiter) {
            waiters.push(waiter);
        }
    }

    pub(in crate::protocol::replica) fn handle_listed(
        &mut self,
        now: Now,
        part: PageRequest,
        epoch: Epoch,
        page: &Page,
    ) {
        // R1, E3 (a): state from before this epoch was installed is no evidence in it. Every node
        // that still waits has asked in this epoch, and gets the entries that are listed for it.
        if epoch != self.epoch() {
            return;
        }
        let waiters = self.catchup.bucket_waiters.0.remove(&part);
        let (bucket, after) = part;
        for waiter in waiters.into_iter().flatten() {
            match waiter {
                BucketWaiter::Own(Purpose::Compare) => {
                    self.handle_own_bucket(now, bucket, &after, page);
                }
                BucketWaiter::Own(Purpose::Purge) => self.find_purgeable(now, bucket, page),
                BucketWaiter::Node { to, round, via } => {
                    let reported = self.bucket_reply(bucket, after.clone(), page);
                    // R2: what was listed was returned to the driver for the disk before.
                    let group = self.durable.last_closed();
                    self.send(to, round, reported.into(), group, Way::Back(via));
                }
            }
        }
    }

    fn bucket_reply(&self, bucket: Bucket, after: Option<Key>, page: &Page) -> BucketReply {
        let terms = self.terms();
        let counts = |(_, state): &&(Key, AcceptorState)| terms.is_vote(state, rule!(E5_listed));
        let entries = page
            .states
            .iter()
            .filter(counts)
            .filter_map(|(key, state)| {
                let record = state.record.as_ref()?;
                Some(BucketEntry {
                    key: key.clone(),
                    accepted: state.accepted,
                    chosen: state.chosen,
                    tombstone: record.value.is_none(),
                    size: size_of(key, record).try_into().unwrap_or(u32::MAX),
                })
            });
        BucketReply {
            bucket,
            after,
            entries: entries.collect(),
            next: page.next.clone(),
        }
    }
}

#[cfg(test)]
pub(in crate::protocol::replica) mod tests {
    use super::*;
    use crate::protocol::replica::{Options, Tuning};
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::message::{
        Configuration, ConfigurationUpdate, Input, Member, Meta, Output, Recovered,
    };
    use crate::protocol::types::record::Record;

    pub const NOW: Now = Now {
        mono_us: 1_000_000,
        wall_ms: 1_800_000_000_000,
    };

    pub fn configuration(epoch: Epoch) -> Configuration {
        let member = |node: NodeId| Member {
            node,
            incarnation: u64::from(node),
            address: format!("node{node}:1"),
            ..Member::default()
        };
        Configuration {
            cluster: 9,
            epoch,
            members: vec![member(1), member(2)],
            formed_by: 1,
            ids: 2,
            ..Configuration::default()
        }
    }

    /// Options of node 1 of two.
    pub fn options() -> Options {
        Options {
            list: vec!["node1:1".into(), "node2:1".into()],
            index: 0,
            boot: 1,
            seed: 1,
            skew_max_ms: 60_000,
            insecure_admin: true,
            value_size_max: wire::VALUE_SIZE_DEFAULT,
            keys_cached_max: 10,
            cache_size_max: 64 << 20,
            heartbeat_ms: 50,
            link_down_ms: 200,
            shrink_after_ms: 0,
            disk_hung_ms: 2_000,
            cluster_name: String::new(),
            bootstrap: false,
            tuning: Tuning::default(),
        }
    }

    pub fn replica() -> Replica {
        let meta = Meta {
            configuration: Some(configuration(1)),
            ..Meta::default()
        };
        let recovered = Recovered {
            incarnation: 1,
            meta,
            ..Recovered::default()
        };
        Replica::new(options(), recovered, NOW)
    }

    /// Delivers a message from node 2.
    pub fn reported(replica: &mut Replica, epoch: Epoch, message: Message) {
        let envelope = Envelope {
            origin: 2,
            destination: 1,
            incarnation: 2,
            epoch,
            round: 7,
            hops_left: 0,
            via: 2,
            message,
        };
        let cluster = 9;
        replica.handle_input(NOW, Input::Peer { cluster, envelope });
    }

    /// Drains all outputs: the epochs in which the bucket is to be listed, and the answers sent.
    fn drain(replica: &mut Replica) -> (Vec<Epoch>, Vec<BucketReply>) {
        let (mut lists, mut answers) = (Vec::new(), Vec::new());
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Persist(group) => {
                    let group = group.number;
                    replica.handle_input(NOW, Input::Persisted { group });
                }
                Output::List { epoch, .. } => lists.push(epoch),
                Output::Send { envelope, .. } => {
                    if let Message::BucketReply(reported) = envelope.message {
                        answers.push(reported);
                    }
                }
                _ => {}
            }
        }
        (lists, answers)
    }

    /// E3 (a): the list that was requested before the epoch is older than what this node accepted
    /// last in the previous epoch, so it must not be reported as the node's state when it left that
    /// epoch.
    #[test]
    fn what_was_listed_in_an_earlier_epoch_is_not_told_in_this() {
        let mut replica = replica();
        let (bucket, after) = (3, None);
        let asked = || BucketRequest {
            bucket,
            after: after.clone(),
        };
        drain(&mut replica);
        reported(&mut replica, 1, asked().into());
        assert_eq!(drain(&mut replica), (vec![1], vec![]));
        let configuration = configuration(2).into();
        reported(
            &mut replica,
            2,
            ConfigurationUpdate { configuration }.into(),
        );
        reported(&mut replica, 2, asked().into());
        assert_eq!(drain(&mut replica), (vec![2], vec![]));
        let listed = |epoch, states| Input::Listed {
            bucket,
            after: None,
            epoch,
            page: Page { states, next: None },
        };
        replica.handle_input(NOW, listed(1, Vec::new()));
        assert_eq!(drain(&mut replica), (vec![], vec![]), "of epoch 1");
        let state = AcceptorState {
            accepted: Ballot::new(5, 1),
            record: Some(Record::default().into()),
            ..AcceptorState::default()
        };
        replica.handle_input(NOW, listed(2, vec![(Key::user(b"k"), state)]));
        let (_, answers) = drain(&mut replica);
        let entries: Vec<usize> = answers
            .iter()
            .map(|reported| reported.entries.len())
            .collect();
        assert_eq!(entries, [1]);
    }
}
