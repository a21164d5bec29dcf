//! P1: all members purge the tombstones that are older than the retry horizon and that all members
//! hold.
//!
//! Each member is responsible for some buckets. Once all members have reported the same digest for
//! a bucket, they hold the same state as this node, so its old tombstones may be purged, if the
//! bucket is still unchanged when it is listed.
//!
//! Ages are differences of hybrid clocks' readings, which a clock jump can make wrong. For
//! operations of sessions, a purge that comes too early only makes outcomes unknown (X3). But it
//! would allow a retry of a text operation, so this node must also have seen a tombstone with a
//! text operation for the horizon by its own time.

mod texts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire::clock;

use crate::protocol::clients::text_operation;
use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::work::KeyWork;
use crate::protocol::replica::Replica;
use crate::protocol::replica::catchup::serve::Purpose;
use crate::protocol::replica::keys::Loaded;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::capacity::MessageCapacity;
use crate::protocol::types::digest::{Bucket, Spread};
use crate::protocol::types::limits::{
    BUCKETS_PURGED_BUSY, BUCKETS_PURGED_IDLE, KEYS_PER_MESSAGE_MAX, PURGE_AFTER_MS,
    PURGE_DIFFERING_MAX, PURGE_HELD_UP_MS, PURGE_MS, SETTLE_MS,
};
use crate::protocol::types::message::{
    DigestsReply, DigestsRequest, Envelope, GroupNumber, Message, NodeId, Now, Purge, RoundId,
};
use crate::protocol::types::page::Page;
use crate::protocol::types::record::{AcceptorState, Key, Record, SPACE_CONFIGURATION};
use crate::protocol::types::rules::rule;
use texts::TextTombstones;

/// How many unknown buckets are listed at a heartbeat.
const BUCKETS_LISTED: usize = 4;

/// The members' reports for one purge.
#[derive(Debug)]
struct Round {
    id: RoundId,
    reported: BTreeMap<NodeId, DigestsReply>,
}

/// A bucket of this node's own that is scanned, one page at a time.
#[derive(Debug, Default)]
struct PurgeScan {
    /// The digest that all members reported; `None` if the scan only looks for tombstones.
    agreed: Option<u64>,
    /// When the first of the tombstones scanned so far may be purged.
    wait_ms: Option<u64>,
    /// Whether tombstones with text operations that this node tracks were scanned.
    rests: bool,
}

/// The tombstones that were found purgeable.
#[derive(Debug)]
struct PurgeSent {
    again_us: u64,
    /// The group with which this node's own copies of the tombstones are durable.
    group: GroupNumber,
    purge: Purge,
}

#[derive(Debug)]
pub struct Tombstones {
    /// Buckets in which a tombstone was written since the last heartbeat.
    noted: BTreeSet<Bucket>,
    /// Buckets that may hold tombstones, and when each is to be checked.
    due_us: BTreeMap<Bucket, u64>,
    /// Buckets that were not listed since this epoch began.
    unknown: VecDeque<Bucket>,
    looks: BTreeMap<Bucket, PurgeScan>,
    round: Option<Round>,
    next_us: u64,
    /// Buckets in which a member differed at the last check, in order.
    differed: Vec<Bucket>,
    /// Purges that are sent again, once: a lost one leaves a tombstone whose removal costs a round.
    sent: Vec<PurgeSent>,
    /// Tombstones with text operations, as this node has seen them by its own time.
    texts: TextTombstones,
    /// Buckets that hold such tombstones.
    begun: BTreeSet<Bucket>,
}

impl Tombstones {
    /// A tombstone was accepted in that bucket.
    pub fn accepted(&mut self, bucket: Bucket) {
        self.noted.insert(bucket);
    }

    /// The key holds no tombstone any more.
    pub fn superseded(&mut self, key: &Key) {
        self.texts.forget(key);
    }

    pub fn new(spread: Spread) -> Self {
        Tombstones {
            noted: BTreeSet::new(),
            due_us: BTreeMap::new(),
            unknown: spread.all().collect(),
            looks: BTreeMap::new(),
            round: None,
            next_us: 0,
            differed: spread.all().collect(),
            sent: Vec::new(),
            texts: TextTombstones::default(),
            begun: BTreeSet::new(),
        }
    }
}

impl Replica {
    /// R1: reports of another epoch no longer count.
    pub(in crate::protocol::replica) fn restart_purge(&mut self) {
        self.catchup.tombstones = Tombstones::new(self.keys.digests().spread());
    }

    pub(in crate::protocol::replica) fn is_purging(&self, round: RoundId) -> bool {
        let purging = self.catchup.tombstones.round.as_ref();
        purging.is_some_and(|purging| purging.id == round)
    }

    /// Whether tombstones of this node's buckets could have been purged long ago.
    pub(in crate::protocol::replica) fn is_purge_held_up(&self, now: Now) -> bool {
        let long_ago_us = now.mono_us.saturating_sub(PURGE_HELD_UP_MS * 1_000);
        self.catchup
            .tombstones
            .due_us
            .values()
            .any(|at_us| *at_us <= long_ago_us)
    }

    /// At each heartbeat.
    pub(in crate::protocol::replica) fn purge_tombstones(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let voters: Vec<NodeId> = configuration.voters().map(|m| m.node).collect();
        if !self.identity.votes || configuration.joint.is_some() {
            return;
        }
        let me = self.identity.node;
        let is_own = |bucket: &Bucket| voters[usize::from(*bucket) % voters.len()] == me;
        let after_ms = self.options.tuning.retry_horizon_ms + PURGE_AFTER_MS;
        let after_us = now.mono_us + after_ms * 1_000;
        let tombstones = &mut self.catchup.tombstones;
        for bucket in std::mem::take(&mut tombstones.noted) {
            if is_own(&bucket) {
                tombstones.due_us.entry(bucket).or_insert(after_us);
            }
        }
        tombstones.unknown.retain(is_own);
        for _ in 0..BUCKETS_LISTED {
            if let Some(bucket) = self.catchup.tombstones.unknown.pop_front() {
                self.catchup
                    .tombstones
                    .looks
                    .insert(bucket, PurgeScan::default());
                self.list_own(bucket, None, Purpose::Purge);
            }
        }
        self.send_purges_again(now, &voters);
        let mut due_us = self.catchup.tombstones.due_us.values();
        let is_due = due_us.any(|at_us| now.mono_us >= *at_us);
        let all_near = voters.iter().all(|node| self.view.reaches(*node)) || !rule!(P1_all);
        if now.mono_us >= self.catchup.tombstones.next_us && is_due && all_near {
            self.catchup.tombstones.next_us = now.mono_us + PURGE_MS * 1_000;
            self.ask_all(now, &voters);
        }
    }

    fn ask_all(&mut self, now: Now, voters: &[NodeId]) {
        let id = self.clock.round_id(now);
        self.catchup.tombstones.round = Some(Round {
            id,
            reported: BTreeMap::new(),
        });
        for node in voters {
            self.ask_for(*node, id, DigestsRequest { total: None }.into());
        }
    }

    pub(in crate::protocol::replica) fn handle_purge_reply(
        &mut self,
        now: Now,
        from: NodeId,
        reported: DigestsReply,
    ) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let Some(round) = &mut self.catchup.tombstones.round else {
            return;
        };
        round.reported.insert(from, reported);
        let mut voters = configuration.voters().map(|m| m.node);
        let all = voters.all(|node| round.reported.contains_key(&node)) || !rule!(P1_all);
        if !all {
            return;
        }
        let life = self.durable.life();
        let own = |bucket| self.keys.digests().of_life(life, bucket);
        let agrees = |bucket: Bucket| {
            let mut reported = round.reported.values();
            reported.all(|reported| reported.sums.of(bucket) == own(bucket)) || !rule!(P1_all)
        };
        // A bucket that is being written often differs at one check, but seldom at two.
        let differing = self
            .keys
            .digests()
            .spread()
            .all()
            .filter(|bucket| !agrees(*bucket));
        let differing: Vec<Bucket> = differing.collect();
        let before = std::mem::take(&mut self.catchup.tombstones.differed);
        let twice = differing.iter().filter(|b| before.binary_search(b).is_ok());
        let is_behind = twice.count() > PURGE_DIFFERING_MAX;
        self.catchup.tombstones.differed = differing;
        let due = self.catchup.tombstones.due_us.iter();
        let due = due.filter(|(bucket, at_us)| {
            let looks = self.catchup.tombstones.looks.contains_key(bucket);
            now.mono_us >= **at_us && agrees(**bucket) && !looks
        });
        let mut due: Vec<(u64, Bucket)> = due.map(|(bucket, at_us)| (*at_us, *bucket)).collect();
        due.sort_unstable();
        let many = match self.requests.operations {
            0 => BUCKETS_PURGED_IDLE,
            _ => BUCKETS_PURGED_BUSY,
        };
        let many = if is_behind { 0 } else { many };
        let due = due.into_iter().map(|(_, bucket)| bucket);
        let (begun, fresh) = due.partition(|bucket| self.catchup.tombstones.begun.contains(bucket));
        let first = shared(begun, fresh, many).into_iter();
        let agreed: Vec<(Bucket, u64)> = first.map(|b| (b, own(b))).collect();
        self.catchup.tombstones.round = None;
        for (bucket, sum) in agreed {
            let look = PurgeScan {
                agreed: Some(sum),
                ..PurgeScan::default()
            };
            self.catchup.tombstones.looks.insert(bucket, look);
            self.list_own(bucket, None, Purpose::Purge);
        }
    }

    /// A page of this node's own bucket, listed for the first time in this epoch, or to purge
    /// tombstones. Once a page has something to purge, the rest of the bucket waits for the next
    /// check.
    pub(in crate::protocol::replica) fn find_purgeable(
        &mut self,
        now: Now,
        bucket: Bucket,
        page: &Page,
    ) {
        self.note_listed(page);
        let Some(mut look) = self.catchup.tombstones.looks.remove(&bucket) else {
            return;
        };
        // What was listed is what all members agreed on, if the digest is still the same.
        let sum = self.keys.digests().of_life(self.durable.life(), bucket);
        let is_same = look.agreed == Some(sum);
        let terms = self.terms();
        let horizon = clock::from_ms(self.options.tuning.retry_horizon_ms);
        let reading = self.clock.tick(now);
        let mut tombstones = Vec::new();
        let mut room = MessageCapacity::new(KEYS_PER_MESSAGE_MAX);
        for (key, state) in &page.states {
            let Some(record) =
                purgeable(key, state).filter(|_| terms.is_vote(state, rule!(E5_tombstone)))
            else {
                continue;
            };
            let old_at = horizon + state.accepted.reading().max(last_birth(record));
            let tombstone = (key.clone(), state.accepted);
            let rest_ms = match has_text(record) && rule!(P1_text) {
                true => self
                    .catchup
                    .tombstones
                    .texts
                    .rest_ms(now, key, state.accepted),
                false => Some(0),
            };
            look.rests |= rest_ms.is_some_and(|ms| ms > 0);
            let rest_ms = rest_ms.unwrap_or(self.options.tuning.retry_horizon_ms);
            // A tombstone for which there is no space is purged with the next check.
            if old_at < reading && rest_ms == 0 && is_same && room.take(&tombstone) {
                tombstones.push(tombstone);
            } else {
                let old_ms = clock::to_ms(old_at.saturating_sub(reading)).max(rest_ms) + PURGE_MS;
                look.wait_ms = Some(look.wait_ms.map_or(old_ms, |ms| ms.min(old_ms)));
            }
        }
        if page.next.is_some() && tombstones.is_empty() {
            self.catchup.tombstones.looks.insert(bucket, look);
            self.list_own(bucket, page.next.clone(), Purpose::Purge);
            return;
        }
        if page.next.is_some() {
            look.wait_ms = Some(PURGE_MS);
        } else if !look.rests {
            self.catchup.tombstones.begun.remove(&bucket);
        }
        if look.rests {
            self.catchup.tombstones.begun.insert(bucket);
        }
        match look.wait_ms {
            Some(ms) => {
                let at_us = now.mono_us + ms * 1_000;
                self.catchup.tombstones.due_us.insert(bucket, at_us);
            }
            None => {
                self.catchup.tombstones.due_us.remove(&bucket);
            }
        }
        self.send_purge(now, Purge { tombstones });
    }

    fn send_purge(&mut self, now: Now, purge: Purge) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if purge.tombstones.is_empty() {
            return;
        }
        // What this node itself holds is as durable as what the other members reported.
        let group = self.durable.group_of_now();
        for member in configuration.voters() {
            self.send(member.node, 0, purge.clone().into(), group, Way::Usual);
        }
        self.catchup.tombstones.sent.push(PurgeSent {
            again_us: now.mono_us + SETTLE_MS * 1_000,
            group,
            purge,
        });
    }

    fn send_purges_again(&mut self, now: Now, voters: &[NodeId]) {
        let me = self.identity.node;
        let is_due = |sent: &mut PurgeSent| now.mono_us >= sent.again_us;
        let due: Vec<PurgeSent> = self
            .catchup
            .tombstones
            .sent
            .extract_if(.., is_due)
            .collect();
        for sent in due {
            for node in voters.iter().filter(|node| **node != me) {
                let purge = sent.purge.clone();
                self.send(*node, 0, purge.into(), sent.group, Way::Usual);
            }
        }
    }

    pub(in crate::protocol::replica) fn handle_purge(&mut self, now: Now, envelope: Envelope) {
        let is_joint = self
            .identity
            .configuration
            .as_ref()
            .is_some_and(|c| c.joint.is_some());
        let Message::Purge(purge) = envelope.message else {
            return;
        };
        if is_joint {
            self.counts.dropped.stray += 1;
            return;
        }
        for (key, ballot) in purge.tombstones {
            self.with_key(now, &key, KeyWork::Purge { ballot });
        }
    }

    /// Purges the key, if its tombstone is still that one. In the same group the floor rises above
    /// what was promised for the key, and above all births that its table answered for.
    pub(in crate::protocol::replica) fn purge(&mut self, loaded: Loaded<'_>, ballot: Ballot) {
        let (terms, key) = (self.terms(), loaded.key());
        let resident = self.keys.at(loaded);
        let Some(state) = terms.vote(&resident.state, rule!(E5_purged)) else {
            return;
        };
        let Some(record) = purgeable(key, state).filter(|_| state.accepted == ballot) else {
            return;
        };
        let births = Ballot::new(last_birth(record), NodeId::MAX);
        let floor = state.promised.max(births).max(self.durable.floor());
        self.set_key(loaded, None);
        self.keys.forget(key);
        if rule!(P1_floor) {
            self.durable.raise_floor(floor);
            self.clock.observe(floor.reading());
        }
    }
}

/// Selects the due buckets to check: half of them buckets with tracked tombstones, so that these
/// are purged and free their space, half others. One half may use what the other leaves.
fn shared(begun: Vec<Bucket>, fresh: Vec<Bucket>, many: usize) -> Vec<Bucket> {
    let of_begun = (many / 2).max(many.saturating_sub(fresh.len()));
    let mut first: Vec<Bucket> = begun.into_iter().take(of_begun).collect();
    first.extend(fresh.into_iter().take(many - first.len()));
    first
}

/// The tombstone that is held for a key, if it may be purged.
fn purgeable<'a>(key: &Key, state: &'a AcceptorState) -> Option<&'a Record> {
    let record = state.record.as_deref();
    record.filter(|r| r.value.is_none() && r.intent.is_none() && key.space() != SPACE_CONFIGURATION)
}

fn has_text(record: &Record) -> bool {
    let mut clients = record.applied.clients.iter();
    let is_text = clients.any(|entry| text_operation::is_text(entry.client));
    is_text || !record.applied.slices.is_empty()
}

/// The highest birth that the record's table answers for, or that it dropped.
fn last_birth(record: &Record) -> u64 {
    let clients = record.applied.clients.iter().map(|c| c.birth_max);
    let slices = record.applied.slices.iter().map(|slice| slice.last);
    clients.chain(slices).fold(record.applied.dropped, u64::max)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, configuration, replica, reported};
    use crate::protocol::types::digest::Sums;
    use crate::protocol::types::message::{Accept, ConfigurationUpdate, Endpoint, Input, Output};
    use crate::protocol::types::record::ClientEntry;

    /// A ballot of node 2, at `NOW`.
    const OLD: Ballot = Ballot((NOW.wall_ms << 20) | 2);

    /// Node 1 accepts a delete of the key from node 2.
    fn delete(replica: &mut Replica, now: Now, key: &Key) {
        let accept = Accept {
            key: key.clone(),
            ballot: OLD,
            record: Arc::new(Record::default()),
        };
        let envelope = Envelope {
            origin: 2,
            destination: 1,
            incarnation: 2,
            epoch: 1,
            round: 7,
            hops_left: 0,
            via: 2,
            message: accept.into(),
        };
        let cluster = 9;
        replica.handle_input(now, Input::Peer { cluster, envelope });
    }

    /// Executes the replica's requests on a disk that holds these deletes; returns the keys that it
    /// purges.
    fn purged(replica: &mut Replica, now: Now, deleted: &[&Key]) -> Vec<Key> {
        let state = tombstone();
        let mut purged = Vec::new();
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Persist(group) => {
                    let group = group.number;
                    replica.handle_input(now, Input::Persisted { group });
                }
                Output::Load(key) => {
                    replica.handle_input(now, Input::Loaded { key, state: None });
                }
                Output::List {
                    bucket,
                    after,
                    epoch,
                } => {
                    let states = deleted.iter().map(|key| ((*key).clone(), state.clone()));
                    let listed = Input::Listed {
                        bucket,
                        after,
                        epoch,
                        page: Page::collect(states, usize::MAX),
                    };
                    replica.handle_input(now, listed);
                }
                Output::Send { envelope, .. } => {
                    if let Message::Purge(purge) = envelope.message {
                        purged.extend(purge.tombstones.into_iter().map(|(key, _)| key));
                    }
                }
                _ => {}
            }
        }
        purged
    }

    /// P1: all members reported the same digest for a bucket, but before it is listed here, this
    /// node accepts another delete, which is late, and which the others may not have.
    #[test]
    fn a_bucket_that_changed_since_all_agreed_is_not_purged() {
        let key = Key::user(b"k");
        let spread = Spread::default();
        let bucket = spread.bucket_of(&key);
        let others = (0..).map(|n: u32| Key::user(n.to_string().as_bytes()));
        let late = others
            .into_iter()
            .find(|k| spread.bucket_of(k) == bucket)
            .unwrap();
        for is_changed in [false, true] {
            let mut replica = replica();
            delete(&mut replica, NOW, &key);
            purged(&mut replica, NOW, &[]);
            let now = Now {
                mono_us: NOW.mono_us + 20_000_000,
                wall_ms: NOW.wall_ms + 20_000,
            };
            replica.catchup.tombstones.due_us.insert(bucket, 0);
            replica.catchup.tombstones.round = Some(Round {
                id: 5,
                reported: BTreeMap::new(),
            });
            let sums = Sums::collect(spread.all().map(|b| replica.keys.digests().of_life(0, b)));
            for node in [1, 2] {
                let sums = sums.clone();
                replica.handle_purge_reply(now, node, DigestsReply { clock: 0, sums });
            }
            if is_changed {
                delete(&mut replica, now, &late);
                assert_eq!(purged(&mut replica, now, &[&key, &late]), []);
            } else {
                assert_eq!(
                    purged(&mut replica, now, &[&key]),
                    std::slice::from_ref(&key)
                );
            }
        }
    }

    /// There are many more tombstones with text operations than this node tracks, in more buckets
    /// than it checks within twice the horizon while operations are in progress.
    #[test]
    fn tombstones_of_text_go_under_load_however_many_there_are() {
        const BUCKETS: u16 = 800;
        const KEYS: usize = 2 * crate::protocol::types::limits::TEXT_TOMBSTONES_MAX;
        let mut replica = replica();
        purged(&mut replica, NOW, &[]);
        replica.requests.operations = 1;
        let text = ClientEntry {
            client: text_operation::text_client(Endpoint::new(1, 1), b"v"),
            mark: 0,
            birth_max: OLD.reading(),
            operations: Vec::new(),
        };
        let mut record = Record::default();
        record.applied.clients.push(text);
        let state = AcceptorState {
            record: Some(record.into()),
            ..tombstone()
        };
        let mut held: BTreeMap<Bucket, BTreeSet<Key>> = BTreeMap::new();
        let mut buckets: BTreeMap<Key, Bucket> = BTreeMap::new();
        for number in 0..KEYS {
            let bucket = (number % usize::from(BUCKETS)) as Bucket;
            let key = Key::user(number.to_string().as_bytes());
            buckets.insert(key.clone(), bucket);
            held.entry(bucket).or_default().insert(key);
        }
        replica.catchup.tombstones.due_us = held.keys().map(|bucket| (*bucket, 0)).collect();
        let spread = Spread::default();
        let mut took_s = 20;
        while held.values().any(|keys| !keys.is_empty()) {
            took_s += 1;
            assert!(took_s < 300, "{} buckets are left", held.len());
            let now = Now {
                mono_us: NOW.mono_us + took_s * 1_000_000,
                wall_ms: NOW.wall_ms + took_s * 1_000,
            };
            // The node's clock continues.
            replica.handle_input(now, Input::Full(None));
            let (id, reported) = (RoundId::default(), BTreeMap::new());
            replica.catchup.tombstones.round = Some(Round { id, reported });
            let sums = Sums::collect(spread.all().map(|b| replica.keys.digests().of_life(0, b)));
            for node in [1, 2] {
                let sums = sums.clone();
                replica.handle_purge_reply(now, node, DigestsReply { clock: 0, sums });
            }
            while let Some(output) = replica.poll_output() {
                match output {
                    Output::List {
                        bucket,
                        after,
                        epoch,
                    } => {
                        let keys = held.get(&bucket).into_iter().flatten();
                        let page = Page {
                            states: keys.map(|key| (key.clone(), state.clone())).collect(),
                            next: None,
                        };
                        let listed = Input::Listed {
                            bucket,
                            after,
                            epoch,
                            page,
                        };
                        replica.handle_input(now, listed);
                    }
                    Output::Persist(group) => {
                        let group = group.number;
                        replica.handle_input(now, Input::Persisted { group });
                    }
                    Output::Send { envelope, .. } => {
                        let Message::Purge(purge) = envelope.message else {
                            continue;
                        };
                        for (key, _) in purge.tombstones {
                            replica.catchup.tombstones.texts.forget(&key);
                            held.entry(buckets[&key]).or_default().remove(&key);
                        }
                    }
                    _ => {}
                }
            }
            held.retain(|_, keys| !keys.is_empty());
        }
    }

    fn tombstone() -> AcceptorState {
        AcceptorState {
            promised: OLD.next(),
            accepted: OLD,
            record: Some(Record::default().into()),
            ..AcceptorState::default()
        }
    }

    fn install_next(replica: &mut Replica) {
        let configuration = configuration(2).into();
        reported(replica, 2, ConfigurationUpdate { configuration }.into());
    }

    /// Whether node 1, in its admission `life`, purges a tombstone of its admission 0 on request,
    /// if `meanwhile` happens while it loads the key.
    fn is_buried(life: u32, meanwhile: impl FnOnce(&mut Replica)) -> bool {
        let (mut replica, key) = (replica(), Key::user(b"k"));
        (0..life).for_each(|_| replica.durable.begin_life());
        purged(&mut replica, NOW, &[]);
        let tombstones = vec![(key.clone(), OLD)];
        reported(&mut replica, 1, Purge { tombstones }.into());
        meanwhile(&mut replica);
        let state = Some(tombstone());
        replica.handle_input(NOW, Input::Loaded { key, state });
        let mut outputs = std::iter::from_fn(|| replica.poll_output());
        outputs.any(|output| matches!(output, Output::Persist(group) if !group.dropped.is_empty()))
    }

    /// P1: what all members held in one epoch says nothing about the next. E5: a cache is not
    /// purged, because the floor would rise to a promise that was not given in this admission.
    #[test]
    fn a_purge_is_of_one_epoch_and_one_admission() {
        assert!(is_buried(0, |_| ()));
        assert!(!is_buried(0, install_next));
        assert!(!is_buried(1, |_| ()));
    }

    /// R1: what members reported in one epoch is not used in the next.
    #[test]
    fn purging_begins_anew_in_another_epoch() {
        let mut replica = replica();
        replica.ask_all(NOW, &[1, 2]);
        let id = replica.catchup.tombstones.round.as_ref().unwrap().id;
        assert!(replica.is_purging(id));
        install_next(&mut replica);
        assert!(!replica.is_purging(id));
    }

    /// E5: a cached tombstone is not part of the state on which all members agreed.
    #[test]
    fn a_cached_tombstone_is_not_purged() {
        let (mut replica, key) = (replica(), Key::user(b"k"));
        replica.durable.begin_life();
        purged(&mut replica, NOW, &[]);
        let bucket = Spread::default().bucket_of(&key);
        let look = PurgeScan {
            agreed: Some(0),
            ..PurgeScan::default()
        };
        replica.catchup.tombstones.looks.insert(bucket, look);
        let now = Now {
            mono_us: NOW.mono_us + 20_000_000,
            wall_ms: NOW.wall_ms + 20_000,
        };
        let states = vec![(key, tombstone())];
        replica.find_purgeable(now, bucket, &Page { states, next: None });
        assert_eq!(purged(&mut replica, now, &[]), []);
    }
}
