//! Scans (S1): a page of keys in order, as a coordinator puts it together from the votes of a
//! quorum. This module owns the scans in progress and the ranges that other nodes have requested;
//! `register/scan.rs` judges, and `register/scan_page.rs` holds the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wire::{Action, Operation, OperationId, Outcome};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::keys::outbox::Way;
use crate::protocol::register::acceptor::AcceptorBounds;
use crate::protocol::register::scan::{
    OwnVote, OwnVotes, RangeAnswer, RangeVotes, ScanTerms, ToldRecord, judge,
};
use crate::protocol::register::scan_page::UnfinishedPage;
use crate::protocol::register::waits::RoundKind;
use crate::protocol::replica::Replica;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::counts::Retransmission;
use crate::protocol::types::limits::{
    BUSY_AFTER_MS, RANGE_KEYS_BUSY_MAX, RANGE_KEYS_MAX, RANGE_SIZE_MAX, RANGES_ASKED_MAX,
    SCAN_KEYS_LISTED_MIN, SCAN_OPERATIONS_BUSY, SCANS_MAX, SCANS_WAITING_MAX,
};
use crate::protocol::types::message::{
    Envelope, Epoch, Message, NodeId, Now, Output, RangeEntry, RangeEqual, RangeReply,
    RangeRequest, RoundId,
};
use crate::protocol::types::page::{PageBounds, RangePage, RangeState};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;
use crate::protocol::types::transaction::{Seen, StepAnswer, TransactionStep};

/// The scans of this node's clients, and what other nodes ask for theirs.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// By the id of their round.
    active: BTreeMap<RoundId, ScanInProgress>,
    waiting: VecDeque<Pending>,
    /// Listings are numbered.
    listings: u64,
    requested: BTreeMap<u64, RangeListing>,
    /// Requested of the driver once all earlier changes were drained.
    due: VecDeque<(u64, KeyRange, PageBounds)>,
    reads: VecDeque<(RoundId, usize, KeyRead)>,
    /// Numbers these reads.
    sequence: u64,
    timer_us: Option<u64>,
}

/// For whom a range is listed.
#[derive(Debug)]
enum RangeListing {
    Own(RoundId),
    Node {
        to: NodeId,
        round: RoundId,
        via: NodeId,
        /// The digest of the asking node's votes.
        sum: u64,
        /// This node's floor when the request came.
        floor: Ballot,
    },
}

/// A page that is being put together.
#[derive(Debug)]
struct ScanInProgress {
    pending: Pending,
    range: KeyRange,
    terms: ScanTerms,
    /// Until the page is judged.
    own: OwnVotes,
    /// What other members are asked, once this node has listed its own votes.
    asked: Option<RangeRequest>,
    answers: Vec<RangeAnswer>,
    /// Once a quorum has answered.
    judged: Option<UnfinishedPage>,
    due_us: u64,
    retransmissions: u32,
}

/// What the read of a single key came to.
#[derive(Debug)]
pub(super) enum KeyRead {
    Outcome(Outcome),
    /// W3: also a deleted key has a version.
    Seen(Seen),
    GivenUp,
}

impl KeyRead {
    pub(super) fn of(answer: StepAnswer) -> Self {
        match answer {
            StepAnswer::Seen(seen) => KeyRead::Seen(seen),
            StepAnswer::Outcome(outcome) => KeyRead::Outcome(outcome),
            _ => KeyRead::GivenUp,
        }
    }

    /// An error: what the scan ends with; `None` if nobody waits for it any more.
    fn found(self) -> Result<Option<ToldRecord>, Option<Outcome>> {
        let (version, value) = match self {
            KeyRead::Outcome(Outcome::Value { version, value }) => (version, Some(value)),
            KeyRead::Seen(seen) => (seen.version, seen.value),
            KeyRead::Outcome(Outcome::Absent) => return Ok(None),
            KeyRead::Outcome(refusal) => return Err(Some(refusal)),
            KeyRead::GivenUp => return Err(None),
        };
        Ok((version > 0).then_some(ToldRecord { version, value }))
    }
}

impl Scans {
    /// Whether anything is to be listed.
    pub(super) fn lists(&self) -> bool {
        !self.due.is_empty()
    }

    /// A read of a single key has ended.
    pub(super) fn has_read(&mut self, scan: RoundId, place: usize, read: KeyRead) {
        self.reads.push_back((scan, place, read));
    }

    fn list(&mut self, listing: RangeListing, range: KeyRange, bounds: PageBounds) {
        self.listings += 1;
        self.requested.insert(self.listings, listing);
        self.due.push_back((self.listings, range, bounds));
    }

    /// The same operation, if it is in progress already.
    fn twin(&mut self, id: OperationId) -> Option<&mut Pending> {
        let active = self.active.values_mut().map(|scan| &mut scan.pending);
        let mut all = active.chain(&mut self.waiting);
        all.find(|pending| pending.operation.id == id)
    }
}

/// At the coordinator.
impl Replica {
    /// This node runs rounds.
    pub(super) fn begin_scan(&mut self, now: Now, pending: Pending) {
        if pending.tried
            && let Some(twin) = self.requests.scans.twin(pending.operation.id)
        {
            let replies = pending.also.iter().chain([&pending.reply]);
            let unanswered: u64 = replies.map(|reply| twin.join(*reply)).sum();
            self.counts.dropped.overflow += unanswered;
            self.end_operation(&pending.operation);
        } else if self.requests.scans.active.len() < SCANS_MAX {
            self.start_scan(now, pending);
        } else if self.requests.scans.waiting.len() < SCANS_WAITING_MAX {
            self.requests.scans.waiting.push_back(pending);
        } else {
            self.answer_busy(pending, BUSY_AFTER_MS);
        }
    }

    fn start_scan(&mut self, now: Now, pending: Pending) {
        let range = KeyRange::of(&pending.operation).expect("a scan");
        let round = self.clock.round_id(now);
        let Action::Scan {
            limit,
            keys_only,
            deleted,
            ..
        } = pending.operation.action
        else {
            unreachable!("it has a range");
        };
        let keys_max = self.page_keys_max();
        let length_max = match limit {
            0 => keys_max,
            limit => keys_max.min(limit as usize),
        };
        let bounds = PageBounds {
            length_max: length_max.max(SCAN_KEYS_LISTED_MIN),
            size_max: RANGE_SIZE_MAX,
            counts_values: !keys_only,
        };
        self.requests
            .scans
            .list(RangeListing::Own(round), range.clone(), bounds);
        let due_us = now.mono_us + self.scan_wait_us(0);
        let scan = ScanInProgress {
            pending,
            range,
            terms: ScanTerms {
                length_max,
                keys_only,
                deleted,
            },
            own: OwnVotes::default(),
            asked: None,
            answers: Vec::new(),
            judged: None,
            due_us,
            retransmissions: 0,
        };
        self.requests.scans.active.insert(round, scan);
        self.wake_for_scans(due_us);
    }

    /// Pages are short while other operations are in progress.
    fn page_keys_max(&self) -> usize {
        let scans = &self.requests.scans;
        // The scan that begins counts as an operation, but is in neither list yet.
        let scans = scans.active.len() + scans.waiting.len() + 1;
        match self.requests.operations_beside(scans) > SCAN_OPERATIONS_BUSY {
            true => RANGE_KEYS_BUSY_MAX,
            false => RANGE_KEYS_MAX,
        }
    }

    /// A member lists a page before it answers, which may take as long as its other work of a turn.
    fn scan_wait_us(&self, retransmissions: u32) -> u64 {
        const LISTING_US: u64 = 20_000;
        let wait_us = self
            .requests
            .waits
            .wait_us(RoundKind::Read, retransmissions);
        wait_us + (LISTING_US << retransmissions.min(4))
    }

    /// This node's own votes are listed. The others' lists begin after this, and are no older.
    fn ask_members(&mut self, now: Now, round: RoundId, page: RangePage) {
        let terms = self.terms();
        let floor = terms.floor;
        let mut states = page.states;
        states.retain(|(_, state)| is_scanned(state, terms));
        self.note_unchosen(round, &states);
        let sum = self.sum_of(states.iter());
        let due_us = now.mono_us + self.scan_wait_us(0);
        let Some(scan) = self.requests.scans.active.get_mut(&round) else {
            return;
        };
        let terms = scan.terms;
        let votes = states.into_iter().map(|(key, state)| {
            let vote = OwnVote::of(&state, terms);
            (key, vote)
        });
        scan.own = OwnVotes {
            votes: votes.collect(),
            next: page.next,
        };
        let range = scan.range.clone().up_to(scan.own.next.as_ref());
        scan.asked = Some(RangeRequest { range, sum });
        scan.due_us = due_us;
        // R2: this node's own answer, too, waits until what it shows is durable.
        let me = self.identity.node;
        let group = self.durable.answer_in(self.durable.last_closed(), true);
        self.send(me, round, RangeEqual { floor }.into(), group, Way::Usual);
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let mut asked = NodeSet::default();
        for node in self.view.reachable() {
            if configuration.has_quorum(&asked) {
                break;
            }
            asked.insert(*node);
        }
        self.ask_for_scan(round, |node| asked.contains(node), 0);
    }

    /// W3: what this node has accepted and does not know to be chosen may be so after the page was
    /// judged, which it may be without this node's own answer.
    fn note_unchosen(&mut self, round: RoundId, states: &[(Key, RangeState)]) {
        let scan = self.requests.scans.active.get(&round);
        if scan.is_some_and(|scan| scan.terms.deleted) {
            for (key, state) in states.iter().filter(|(_, state)| !state.chosen) {
                self.requests.watches.changes.note_listed(key, state);
            }
        }
    }

    fn ask_for_scan(&mut self, round: RoundId, is_asked: impl Fn(NodeId) -> bool, again: u32) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let Some(asked) = self
            .requests
            .scans
            .active
            .get(&round)
            .and_then(|s| s.asked.clone())
        else {
            return;
        };
        let me = self.identity.node;
        let group = self.ceiling_group();
        for member in configuration.voters() {
            if member.node != me && is_asked(member.node) {
                let message = asked.clone().into();
                self.send(member.node, round, message, group, Way::asked(again));
            }
        }
    }

    /// From a voter in its present incarnation and the present epoch (R1), or from this node.
    pub(super) fn handle_range_answer(&mut self, now: Now, envelope: Envelope) {
        let (from, round) = (envelope.origin, envelope.round);
        let Some(scan) = self.requests.scans.active.get_mut(&round) else {
            return;
        };
        let is_awaited =
            scan.judged.is_none() && scan.answers.iter().all(|answer| answer.from != from);
        let Some(asked) = scan.asked.as_ref().filter(|_| is_awaited) else {
            return;
        };
        let (floor, votes) = match envelope.message {
            Message::RangeEqual(RangeEqual { floor }) => (floor, RangeVotes::Equal),
            Message::RangeReply(RangeReply {
                entries,
                next,
                floor,
            }) => {
                let keys = entries.iter().map(|entry| &entry.key).chain(&next);
                let mut keys = keys.map(|key| asked.range.contains(key));
                if !keys.all(|is_in| is_in) {
                    self.counts.dropped.stray += 1;
                    return;
                }
                (floor, RangeVotes::Listed { entries, next })
            }
            _ => return,
        };
        scan.answers.push(RangeAnswer { from, floor, votes });
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let Some(page) = judge(&scan.own, &scan.answers, &configuration) else {
            return;
        };
        let own = std::mem::take(&mut scan.own);
        scan.judged = Some(UnfinishedPage::new(page, own, scan.terms));
        scan.answers = Vec::new();
        self.advance_scan(now, round);
    }

    /// Begins the reads that may be in progress at the same time; answers once all have ended.
    fn advance_scan(&mut self, now: Now, round: RoundId) {
        loop {
            let Some(scan) = self.requests.scans.active.get_mut(&round) else {
                return;
            };
            let Some(page) = &mut scan.judged else {
                return;
            };
            let Some((place, key)) = page.begin_read() else {
                if page.is_finished() {
                    self.finish_scan(now, round);
                }
                return;
            };
            let deadline_us = scan.pending.deadline_us;
            let is_seen = scan.terms.deleted;
            let step = is_seen.then(|| Arc::new(TransactionStep::Read));
            self.read_for_scan(now, (round, place), key, step, deadline_us);
        }
    }

    /// Reads one key by a read round of its own.
    fn read_for_scan(
        &mut self,
        now: Now,
        (round, place): (RoundId, usize),
        key: Key,
        step: Option<Arc<TransactionStep>>,
        deadline_us: u64,
    ) {
        self.requests.scans.sequence += 1;
        let operation = Operation {
            id: OperationId {
                // Reads are not in any applied table.
                client: 0,
                sequence: self.requests.scans.sequence,
            },
            birth: 0,
            low_mark: 0,
            key: key.name().to_vec().into(),
            want_old: false,
            action: Action::Get,
        };
        let pending = Pending {
            operation: Arc::new(operation),
            step,
            reply: ReplyTo::Scan { round, place },
            also: Vec::new(),
            tried: false,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us,
            received_us: None,
        };
        match pending.step {
            Some(_) => self.begin_step(),
            None => self.begin_operation(&pending.operation),
        }
        self.run_here(now, key, pending);
    }

    /// Returns whether there was one.
    pub(super) fn take_scan_reads(&mut self, now: Now) -> bool {
        let Some((round, place, read)) = self.requests.scans.reads.pop_front() else {
            return false;
        };
        let Some(scan) = self.requests.scans.active.get_mut(&round) else {
            return true;
        };
        let Some(page) = scan.judged.as_mut().filter(|page| page.needs(place)) else {
            return true;
        };
        match read.found() {
            Ok(found) => page.set(place, found),
            Err(refusal) => {
                let scan = self
                    .requests
                    .scans
                    .active
                    .remove(&round)
                    .expect("just seen");
                match refusal {
                    Some(refusal) => self.answer(scan.pending, refusal),
                    None => self.drop_operation(scan.pending, false),
                }
                self.start_waiting_scans(now);
                return true;
            }
        }
        self.advance_scan(now, round);
        true
    }

    fn finish_scan(&mut self, now: Now, round: RoundId) {
        let scan = self
            .requests
            .scans
            .active
            .remove(&round)
            .expect("the caller looked");
        let page = scan.judged.expect("the caller looked").finish();
        self.answer(scan.pending, Outcome::Page(page));
        self.start_waiting_scans(now);
    }

    fn start_waiting_scans(&mut self, now: Now) {
        while self.requests.scans.active.len() < SCANS_MAX {
            let Some(pending) = self.requests.scans.waiting.pop_front() else {
                return;
            };
            // X8, and the vote or the disk may be gone by now.
            let key = Key::user(&pending.operation.key);
            self.run_here(now, key, pending);
        }
    }

    /// R1: the epoch has changed, and with it perhaps this node's vote: all scans begin again.
    pub(super) fn restart_scans(&mut self, now: Now) {
        self.requests.scans.requested.clear();
        self.requests.scans.due.clear();
        let active = std::mem::take(&mut self.requests.scans.active).into_values();
        let waiting = std::mem::take(&mut self.requests.scans.waiting);
        let all: Vec<Pending> = active.map(|scan| scan.pending).chain(waiting).collect();
        for pending in all {
            let key = Key::user(&pending.operation.key);
            self.run_here(now, key, pending);
        }
    }

    pub(super) fn scans_timeout(&mut self, now: Now) {
        if self
            .requests
            .scans
            .timer_us
            .is_some_and(|at_us| at_us > now.mono_us)
        {
            return;
        }
        self.requests.scans.timer_us = None;
        let due = self.requests.scans.active.iter();
        let due = due.filter(|(_, scan)| scan.due_us <= now.mono_us);
        let due: Vec<RoundId> = due.map(|(round, _)| *round).collect();
        for round in due {
            self.scan_timeout(now, round);
        }
        self.start_waiting_scans(now);
        if let Some(due_us) = self
            .requests
            .scans
            .active
            .values()
            .map(|scan| scan.due_us)
            .min()
        {
            self.wake_for_scans(due_us);
        }
    }

    fn scan_timeout(&mut self, now: Now, round: RoundId) {
        let is_over = self.requests.scans.active[&round].pending.is_overdue(now);
        let (serves, runs) = (
            self.view.hears_quorum() || !rule!(X5_silence),
            self.runs_rounds(),
        );
        if is_over || !serves || !runs {
            let scan = self
                .requests
                .scans
                .active
                .remove(&round)
                .expect("the caller looked");
            match (is_over, serves) {
                (true, _) => self.drop_operation(scan.pending, false),
                (_, false) => self.refuse(scan.pending),
                _ => {
                    let key = Key::user(&scan.pending.operation.key);
                    self.run_here(now, key, scan.pending);
                }
            }
            return;
        }
        let scan = self
            .requests
            .scans
            .active
            .get_mut(&round)
            .expect("the caller looked");
        let asks = scan.asked.is_some() && scan.judged.is_none();
        let retransmissions = scan.retransmissions + u32::from(asks);
        let answered: NodeSet = scan.answers.iter().map(|answer| answer.from).collect();
        scan.retransmissions = retransmissions;
        if asks {
            self.counts.sent_again(Retransmission::Range);
            self.ask_for_scan(round, |node| !answered.contains(node), retransmissions);
        }
        let due_us = now.mono_us + self.scan_wait_us(retransmissions);
        if let Some(scan) = self.requests.scans.active.get_mut(&round) {
            scan.due_us = due_us;
        }
    }

    fn wake_for_scans(&mut self, at_us: u64) {
        if self.requests.scans.timer_us.is_none_or(|set| set > at_us) {
            self.requests.scans.timer_us = Some(at_us);
            self.timers.set(at_us, Timer::Scans);
        }
    }
}

/// At each member.
impl Replica {
    pub(super) fn handle_range_request(&mut self, envelope: &Envelope, asked: RangeRequest) {
        // The node that asked will ask again.
        if self.requests.scans.requested.len() >= RANGES_ASKED_MAX + SCANS_MAX {
            self.counts.dropped.overflow += 1;
            return;
        }
        let RangeRequest { range, sum } = asked;
        let listing = RangeListing::Node {
            to: envelope.origin,
            round: envelope.round,
            via: envelope.via,
            sum,
            floor: self.durable.floor(),
        };
        let bounds = PageBounds {
            length_max: RANGE_KEYS_MAX,
            size_max: RANGE_SIZE_MAX,
            counts_values: false,
        };
        self.requests.scans.list(listing, range, bounds);
    }

    /// The next range to list.
    pub(super) fn poll_range(&mut self) -> Option<Output> {
        let (listing, range, bounds) = self.requests.scans.due.pop_front()?;
        Some(Output::ListRange {
            listing,
            range,
            bounds,
            epoch: self.epoch(),
        })
    }

    pub(super) fn handle_range_listed(
        &mut self,
        now: Now,
        listing: u64,
        epoch: Epoch,
        page: RangePage,
    ) {
        // R1: what was requested in an earlier epoch is requested again.
        if epoch != self.epoch() {
            return;
        }
        match self.requests.scans.requested.remove(&listing) {
            Some(RangeListing::Own(round)) => self.ask_members(now, round, page),
            Some(RangeListing::Node {
                to,
                round,
                via,
                sum,
                floor,
            }) => {
                // S1: a key that is purged in between is in no list, so the floor must show it.
                let floor = match rule!(S1_floor) {
                    true => self.durable.floor(),
                    false => floor,
                };
                let message = self.range_answer(&page, sum, floor);
                // R2: what was listed was returned to the driver for the disk before.
                let group = self.durable.answer_in(self.durable.last_closed(), true);
                self.send(to, round, message, group, Way::Back(via));
            }
            None => {}
        }
    }

    fn range_answer(&self, page: &RangePage, sum: u64, floor: Ballot) -> Message {
        let terms = self.terms();
        let votes = || {
            page.states
                .iter()
                .filter(|(_, state)| is_scanned(state, terms))
        };
        if page.next.is_none() && self.sum_of(votes()) == sum {
            return RangeEqual { floor }.into();
        }
        let entries = votes().map(|(key, state)| RangeEntry {
            key: key.clone(),
            accepted: state.accepted,
            chosen: state.chosen,
        });
        RangeReply {
            entries: entries.collect(),
            next: page.next.clone(),
            floor,
        }
        .into()
    }

    fn sum_of<'a>(&self, votes: impl Iterator<Item = &'a (Key, RangeState)>) -> u64 {
        let spread = self.keys.digests().spread();
        let hashes = votes.map(|(key, state)| spread.hash_of_vote(key, state.accepted));
        hashes.fold(0, u64::wrapping_add)
    }
}

/// S1: a vote with a record; tombstones are among them.
fn is_scanned(state: &RangeState, terms: AcceptorBounds) -> bool {
    let is_vote = terms.is_vote_of(state.life, rule!(E5_scanned));
    let record = state.record.as_ref().filter(|_| is_vote);
    record.is_some_and(|record| record.value.is_some() || rule!(S1_tombstones))
}
