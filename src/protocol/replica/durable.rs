//! This node's state besides the keys, and what the disk holds of all its state: messages wait in
//! the outbox until the group that they depend on is durable (R2).

use std::collections::VecDeque;

use crate::protocol::clock::ballot_clock::BallotClock;
use crate::protocol::keys::backlog::DiskBacklog;
use crate::protocol::keys::outbox::{Closed, HeldMessage, Outbox, Way};
use crate::protocol::membership::formation::Bootstrap;
use crate::protocol::register::acceptor::AcceptorBounds;
use crate::protocol::replica::hung_disk::OldestGroup;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{MARKS_MAX, NODES_AWAY_MAX};
use crate::protocol::types::message::{
    Configuration, Envelope, Group, GroupNumber, Incarnation, Meta, NodeId, Now, Survey,
    SurveyAnswer,
};
use crate::protocol::types::record::Key;

#[derive(Debug)]
pub(super) struct DurableState {
    /// The state besides the keys. Its configuration is in `NodeIdentity`.
    meta: Meta,
    outbox: Outbox,
    oldest_group: OldestGroup,
    backlog: DiskBacklog,
    /// Chosen marks go to the disk with the next group.
    marks_due: bool,
    /// Ceilings that are not durable yet, by group.
    ceilings: VecDeque<(GroupNumber, u64)>,
    /// B1: the highest ceiling that is on disk.
    durable_ceiling: u64,
    /// The group that holds the count of this start.
    started_in: GroupNumber,
    /// The group that carries the configuration.
    installed_in: GroupNumber,
    /// The group that carries the floor (P1).
    floored_in: GroupNumber,
    /// The group that carries the commitment (E6).
    bound_in: GroupNumber,
}

/// At each start, and during it.
impl DurableState {
    /// `group` is the last one that the disk holds. The start itself is counted in the next one.
    pub(super) fn new(meta: Meta, group: GroupNumber) -> Self {
        let mut durable = DurableState {
            outbox: Outbox::new(group),
            oldest_group: OldestGroup::default(),
            backlog: DiskBacklog::default(),
            marks_due: false,
            ceilings: VecDeque::new(),
            durable_ceiling: meta.ceiling,
            started_in: 0,
            installed_in: 0,
            floored_in: 0,
            bound_in: 0,
            meta,
        };
        durable.meta.starts += 1;
        durable.started_in = durable.outbox.change_meta();
        durable
    }

    /// How often the node was started with this state, this time included.
    pub(super) fn starts(&self) -> u64 {
        self.meta.starts
    }

    pub(super) fn is_start_durable(&self) -> bool {
        self.outbox.is_durable(self.started_in)
    }

    /// E6: the answer leaves once this node's commitment is on disk; until then the query is
    /// repeated.
    pub(super) fn answer_survey(
        &mut self,
        bootstrap: &mut Bootstrap,
        survey: &Survey,
    ) -> Option<SurveyAnswer> {
        let bound = self.meta.bound_to;
        let answer = bootstrap.asked(survey, &mut self.meta);
        if self.meta.bound_to != bound {
            self.bound_in = self.outbox.change_meta();
        }
        answer.filter(|_| self.outbox.is_durable(self.bound_in))
    }

    /// E6: the incarnation of the first listed node to which this node is committed.
    pub(super) fn bound_to(&self) -> Option<Incarnation> {
        self.meta.bound_to
    }
}

/// The configuration, and this node's part in it.
impl DurableState {
    /// E5: the node is admitted. What it holds so far is a cache; it has promised nothing in this
    /// life.
    pub(super) fn begin_life(&mut self) {
        self.meta.life += 1;
        self.meta.floor = Ballot::ZERO;
    }

    /// E4: this incarnation replaces the store's own one.
    pub(super) fn continue_as(&mut self, incarnation: Incarnation) {
        self.meta.incarnation = incarnation;
    }

    /// The configuration goes to the disk with the group that is being filled, and so does this
    /// node's life and incarnation in it.
    pub(super) fn install(&mut self) {
        self.installed_in = self.outbox.change_meta();
    }

    /// The group that makes the configuration durable. Messages that belong to its epoch wait for
    /// it.
    pub(super) fn installed_in(&self) -> GroupNumber {
        self.installed_in
    }

    pub(super) fn is_installed(&self) -> bool {
        self.outbox.is_durable(self.installed_in)
    }

    /// Which admission of this node it is (E5).
    pub(super) fn life(&self) -> u32 {
        self.meta.life
    }

    pub(super) fn floor(&self) -> Ballot {
        self.meta.floor
    }

    /// P1: nothing below that ballot is accepted for a key without state.
    pub(super) fn raise_floor(&mut self, floor: Ballot) {
        self.meta.floor = floor;
        self.floored_in = self.outbox.change_meta();
    }

    pub(super) fn acceptor_bounds(&self, base: Ballot) -> AcceptorBounds {
        AcceptorBounds {
            base,
            floor: self.meta.floor,
            life: self.meta.life,
        }
    }

    /// R2: an answer shows the key's state as of its last group, `key_in`, and an epoch; or, of a
    /// key without state, the floor.
    pub(super) fn answer_in(&self, key_in: GroupNumber, is_under_floor: bool) -> GroupNumber {
        let group = key_in.max(self.installed_in);
        match is_under_floor {
            true => group.max(self.floored_in),
            false => group,
        }
    }

    /// Records the addresses of nodes that the next configuration names no more, so that they are
    /// sent it when they are received from again.
    pub(super) fn note_former(&mut self, before: Option<&Configuration>, next: &Configuration) {
        let former = &mut self.meta.former;
        for member in before.into_iter().flat_map(|c| c.nodes()) {
            former.insert(member.node, member.address.clone());
        }
        former.retain(|node, _| next.nodes().all(|m| m.node != *node));
        while former.len() > NODES_AWAY_MAX {
            former.pop_first();
        }
    }

    pub(super) fn former_address(&self, node: NodeId) -> Option<&str> {
        self.meta.former.get(&node).map(String::as_str)
    }

    pub(super) fn former_addresses(&self) -> impl Iterator<Item = &str> {
        self.meta.former.values().map(String::as_str)
    }

    /// E8: the configurations from which the present one is split by force.
    pub(super) fn splits(&self) -> &[Configuration] {
        &self.meta.splits
    }

    pub(super) fn keep_splits(&mut self, splits: Vec<Configuration>) {
        if self.meta.splits != splits {
            self.meta.splits = splits;
            self.outbox.change_meta();
        }
    }
}

/// The clock's ceiling (B1).
impl DurableState {
    /// The ceiling is raised before the clock reaches it, in the same group as what moved the
    /// clock.
    pub(super) fn keep_ceiling(&mut self, clock: &mut BallotClock) {
        if clock.needs_ceiling() {
            clock.raise_ceiling();
            self.outbox.change_meta();
        }
    }

    /// The group that must be durable before a ballot or round id issued now may leave.
    pub(super) fn ceiling_group(&mut self, clock: &mut BallotClock) -> GroupNumber {
        if clock.last() < self.durable_ceiling {
            return 0;
        }
        self.keep_ceiling(clock);
        let last = clock.last();
        let covering = self.ceilings.iter().find(|(_, ceiling)| *ceiling > last);
        covering.map_or(self.outbox.filling(), |(group, _)| *group)
    }
}

/// Groups, and what waits for them.
impl DurableState {
    pub(super) fn is_durable(&self, group: GroupNumber) -> bool {
        self.outbox.is_durable(group)
    }

    /// The last group that is durable.
    pub(super) fn synced(&self) -> GroupNumber {
        self.outbox.synced()
    }

    /// At each heartbeat. Returns whether the disk hangs, if that has changed.
    pub(super) fn observe_oldest_group(&mut self, now: Now, hung_after_ms: u64) -> Option<bool> {
        let oldest = self.outbox.oldest_unsynced();
        self.oldest_group.observe(now, oldest, hung_after_ms)
    }

    pub(super) fn oldest_group(&self) -> &OldestGroup {
        &self.oldest_group
    }

    /// The last group that was returned to the driver.
    pub(super) fn last_closed(&self) -> GroupNumber {
        self.outbox.filling() - 1
    }

    /// The group with which everything that this node holds now is durable.
    pub(super) fn group_of_now(&self) -> GroupNumber {
        match self.outbox.is_dirty() {
            true => self.outbox.filling(),
            false => self.last_closed(),
        }
    }

    /// The key's state has changed; it was last written in `group`. Returns the group in which it
    /// is written now.
    pub(super) fn change_key(&mut self, key: &Key, group: GroupNumber) -> GroupNumber {
        match group == self.outbox.filling() {
            true => group,
            false => self.outbox.change(key.clone()),
        }
    }

    /// Nothing waits for the mark: it goes with a later group.
    pub(super) fn note_chosen(&mut self, key: Key, ballot: Ballot) {
        self.outbox.note_chosen(key, ballot);
    }

    /// The chosen marks noted so far go with the next group, and are reason enough for one.
    pub(super) fn flush_marks(&mut self) {
        self.marks_due = true;
    }

    /// Keeps the message until the group is durable; returns false if there is no space for it.
    pub(super) fn hold(&mut self, group: GroupNumber, envelope: Envelope, way: Way) -> bool {
        self.outbox.hold(group, envelope, way)
    }

    /// Closes the group that is being filled, if there is a reason. `lists`: entries are to be
    /// listed, and must show what is marked.
    pub(super) fn close(&mut self, lists: bool) -> Option<Closed> {
        let many = self.outbox.marks() >= MARKS_MAX;
        let marks = std::mem::take(&mut self.marks_due) || many || lists;
        self.outbox.close(marks)
    }

    /// What goes to the disk with that group of the state besides the keys.
    pub(super) fn close_meta(
        &mut self,
        group: GroupNumber,
        ceiling: u64,
        configuration: Option<Configuration>,
    ) -> Meta {
        self.meta.ceiling = ceiling;
        self.ceilings.push_back((group, ceiling));
        Meta {
            configuration,
            ..self.meta.clone()
        }
    }

    /// The group goes to the disk.
    pub(super) fn write(&mut self, group: &Group) {
        self.backlog.add(group);
    }

    /// What was given to the disk and is not durable yet.
    pub(super) fn backlog(&self) -> &DiskBacklog {
        &self.backlog
    }

    /// All groups up to this one are on disk. Returns whether the count of this start is on disk
    /// from now on.
    pub(super) fn persisted(&mut self, group: GroupNumber) -> bool {
        let started = self.is_start_durable();
        self.outbox.persisted(group);
        self.backlog.persisted(group);
        let on_disk = |(number, _): &mut (GroupNumber, u64)| *number <= group;
        while let Some((_, ceiling)) = self.ceilings.pop_front_if(on_disk) {
            self.durable_ceiling = ceiling;
        }
        !started && self.is_start_durable()
    }

    /// How many messages wait for groups.
    pub(super) fn held_messages(&self) -> usize {
        self.outbox.held()
    }

    /// The next message whose group is durable.
    pub(super) fn pop_released(&mut self) -> Option<HeldMessage> {
        self.outbox.pop_released()
    }
}
