//! How this node uses the others' clocks (B2, B5): the median of their wall clocks, a quorum's
//! reports of hybrid clocks, and the messages that are dropped because they are too far ahead.

use std::collections::BTreeMap;

use wire::clock::{self, READING_MAX, Reading};

use crate::protocol::clock::history::ClockHistory;
use crate::protocol::replica::Replica;
use crate::protocol::replica::clock_offsets::Offsets;
use crate::protocol::types::configuration;
use crate::protocol::types::message::{
    Configuration, Envelope, Event, Incarnation, Member, Message, NodeId, Now, Output, Row,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::SPACE_CONFIGURATION;
use crate::protocol::types::rules::rule;

/// The log reports at most this often that a node is ahead.
const SAID_US: u64 = 60_000_000;

/// The base of a configuration that is proposed, or copied.
fn base(message: &Message) -> Reading {
    let (key, record) = match message {
        Message::Accept(m) => (&m.key, &m.record),
        Message::Copy(m) => (&m.key, &m.record),
        _ => return 0,
    };
    let value = record.value.as_ref();
    let value = value.filter(|_| key.space() == SPACE_CONFIGURATION);
    let configuration = value.and_then(|v| configuration::decode(v).ok());
    configuration.map_or(0, |c| c.base.reading())
}

/// The clocks received in this boot.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Each voter's wall clock minus this node's monotonic clock, in milliseconds, as last
    /// reported.
    walls: BTreeMap<NodeId, (Incarnation, i64)>,
    reported_clamped: bool,
    /// Members whose own heartbeats carry a clock that is too far ahead.
    ahead: BTreeMap<NodeId, Ahead>,
    /// When the log last reported a node as ahead.
    said_us: BTreeMap<NodeId, u64>,
    pub ended: bool,
}

/// All heartbeats of a member from one moment to another, by this node's monotonic clock.
#[derive(Debug)]
struct Ahead {
    since_us: u64,
    last_us: u64,
}

/// The known clocks of a voter.
#[derive(Debug, Clone, Copy)]
struct ReportedClocks {
    node: NodeId,
    incarnation: Incarnation,
    /// Its wall clock minus this node's monotonic clock.
    wall_offset_ms: i64,
    /// Its hybrid clock.
    reading: Reading,
}

impl ReportedClocks {
    fn new(member: &Member, (wall_ms, reading): (u64, Reading), now: Now) -> Self {
        ReportedClocks {
            node: member.node,
            incarnation: member.incarnation,
            wall_offset_ms: wall_offset_ms(wall_ms, now),
            reading,
        }
    }
}

/// A wall clock minus this node's monotonic clock.
fn wall_offset_ms(wall_ms: u64, now: Now) -> i64 {
    wall_ms.min(clock::to_ms(READING_MAX)) as i64 - (now.mono_us / 1_000) as i64
}

/// This node's clock over time, and the other nodes' clocks.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    pub(super) history: ClockHistory,
    pub(super) clocks: Clocks,
    pub(super) offsets: Offsets,
}

impl Replica {
    /// B2: the median counts only if the clocks of a quorum are fresh. For voters that are
    /// unreachable at the moment it uses what they reported before. Without a quorum the last
    /// median is extrapolated.
    pub(super) fn check_clocks(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let straight = self.straight_clocks(&configuration, now);
        for reported in &straight {
            let known = (reported.incarnation, reported.wall_offset_ms);
            self.watch.clocks.walls.insert(reported.node, known);
        }
        let hearsay = match rule!(B5_straight) {
            true => self.hearsay_where_needed(&configuration, &straight, now),
            false => self.hearsay(&configuration, now),
        };
        self.check_walls(&configuration, &straight, &hearsay, now);
        let counted = match rule!(B5_straight) {
            true => straight,
            false => straight.into_iter().chain(hearsay).collect(),
        };
        self.check_readings(&configuration, &counted);
    }

    /// The clocks that the voters reported directly.
    fn straight_clocks(&self, configuration: &Configuration, now: Now) -> Vec<ReportedClocks> {
        let of = |member: &Member| {
            let clocks = match member.node == self.identity.node {
                true => self
                    .identity
                    .votes
                    .then(|| (now.wall_ms, self.clock.last())),
                false => self
                    .links
                    .straight_clocks(member.node, member.incarnation, now),
            };
            clocks.map(|clocks| ReportedClocks::new(member, clocks, now))
        };
        configuration.voters().filter_map(of).collect()
    }

    /// The known clocks of the other voters, whichever node reported them.
    fn hearsay(&self, configuration: &Configuration, now: Now) -> Vec<ReportedClocks> {
        let of = |member: &Member| {
            let clocks = self.links.clocks(member.node, member.incarnation, now);
            clocks.map(|clocks| ReportedClocks::new(member, clocks, now))
        };
        let others = configuration
            .voters()
            .filter(|m| m.node != self.identity.node);
        others.filter_map(of).collect()
    }

    /// B5: another node's report about a voter counts only if too few voters are received from
    /// directly.
    fn hearsay_where_needed(
        &self,
        configuration: &Configuration,
        straight: &[ReportedClocks],
        now: Now,
    ) -> Vec<ReportedClocks> {
        let heard: NodeSet = straight.iter().map(|reported| reported.node).collect();
        if configuration.has_quorum(&heard) {
            return Vec::new();
        }
        let mut hearsay = self.hearsay(configuration, now);
        hearsay.retain(|reported| !heard.contains(reported.node));
        hearsay
    }

    fn check_walls(
        &mut self,
        configuration: &Configuration,
        straight: &[ReportedClocks],
        hearsay: &[ReportedClocks],
        now: Now,
    ) {
        let fresh: NodeSet = straight.iter().chain(hearsay).map(|t| t.node).collect();
        let known = |member: &Member| {
            let kept = self.watch.clocks.walls.get(&member.node);
            let kept = kept.filter(|(incarnation, _)| *incarnation == member.incarnation);
            let kept = kept.filter(|_| fresh.contains(member.node) || rule!(B2_quorum));
            let hearsay = hearsay.iter().find(|reported| reported.node == member.node);
            let hearsay = hearsay.map(|reported| reported.wall_offset_ms);
            hearsay.or(kept.map(|(_, offset_ms)| *offset_ms))
        };
        let mut walls: Vec<i64> = configuration.voters().filter_map(known).collect();
        walls.sort_unstable();
        // Voters whose clocks are unknown count as behind all others: of a few clocks most may be
        // wrong, although of all clocks only a few are.
        let voters = match rule!(B2_most) {
            true => configuration.voters().count(),
            false => walls.len(),
        };
        let middle = walls.len().saturating_sub(voters / 2 + 1);
        if let Some(offset_ms) = walls.get(middle)
            && (configuration.has_quorum(&fresh) || !rule!(B2_quorum))
        {
            let mono_ms = (now.mono_us / 1_000) as i64;
            let median_ms = u64::try_from(mono_ms + offset_ms).unwrap_or(0);
            self.clock.set_median(median_ms, now);
        }
    }

    /// B5: of the readings that each member reported itself, the latest one that a quorum has
    /// reached counts.
    fn check_readings(&mut self, configuration: &Configuration, counted: &[ReportedClocks]) {
        let hybrid = counted
            .iter()
            .map(|reported| (reported.reading, reported.node));
        let mut hybrid: Vec<(Reading, NodeId)> = hybrid.collect();
        hybrid.sort_unstable();
        let mut beyond = NodeSet::default();
        for (reading, node) in hybrid.into_iter().rev() {
            beyond.insert(node);
            if configuration.has_quorum(&beyond) {
                self.hear_agreed(reading);
                return;
            }
        }
    }

    /// B5: a member that is far ahead in all its heartbeats for a while is followed. Otherwise no
    /// node could issue a ballot above that member's promises and above the records that only that
    /// member holds.
    pub(super) fn check_member_ahead(&mut self, now: Now, row: &Row, is_believable: bool) {
        let configuration = self.identity.configuration.as_deref();
        let voter = configuration.and_then(|c| c.voter(row.node));
        let votes = voter.is_some_and(|m| m.incarnation == row.incarnation);
        if is_believable || !votes || !rule!(B5_member) {
            self.watch.clocks.ahead.remove(&row.node);
            return;
        }
        let ahead = self.watch.clocks.ahead.entry(row.node).or_insert(Ahead {
            since_us: now.mono_us,
            last_us: now.mono_us,
        });
        if now.mono_us > ahead.last_us + self.timings.row_stale_ms * 1_000 {
            ahead.since_us = now.mono_us;
        }
        ahead.last_us = now.mono_us;
        let follows_us = ahead.since_us + self.timings.follow_after_ms * 1_000;
        if now.mono_us >= follows_us && self.clock.may_follow(row.clock, now) {
            self.hear_agreed(row.clock);
        }
    }

    /// B5: a message with a ballot, a birth or a clock that is too far ahead is dropped, as if
    /// lost.
    pub(super) fn is_too_far_ahead(&mut self, now: Now, envelope: &Envelope) -> bool {
        let latest = envelope.message.latest().max(base(&envelope.message));
        let ahead = !self.clock.is_believable(latest);
        if ahead {
            self.note_ahead(now, envelope.origin, latest);
        }
        ahead
    }

    pub(super) fn note_ahead(&mut self, now: Now, node: NodeId, reading: Reading) {
        self.counts.dropped.ahead += 1;
        // A node that has not received a quorum's clocks cannot tell which clock is wrong.
        if self.clock.knows_no_walls() {
            return;
        }
        let said_us = self.watch.clocks.said_us.get(&node);
        if said_us.is_some_and(|at_us| now.mono_us < at_us + SAID_US) {
            return;
        }
        self.watch.clocks.said_us.insert(node, now.mono_us);
        let ahead_ms = clock::to_ms(reading.saturating_sub(self.clock.last()));
        let event = Event::NodeAhead { node, ahead_ms };
        self.sending.push(Output::Event(event));
    }

    /// At each heartbeat.
    pub(super) fn report_clock(&mut self, now: Now) {
        let clamped = self.clock.is_clamped();
        if clamped == self.watch.clocks.reported_clamped {
            return;
        }
        self.watch.clocks.reported_clamped = clamped;
        let event = match clamped {
            true => {
                let ahead_ms = self.clock.wall_ahead_ms(now);
                Event::ClockClamped { ahead_ms }
            }
            false => Event::ClockTrusted,
        };
        self.sending.push(Output::Event(event));
    }

    /// Whether a clock is at its end, or this node's cluster is not the one that the operator
    /// named. If so, the node does nothing more than report it.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.membership.is_first_input()
            && let Some(held) = self.identity.configuration.clone()
        {
            self.refuses_name(&held);
        }
        if !self.watch.clocks.ended
            && let Some((ms, is_wall)) = self.clock.at_end()
        {
            self.watch.clocks.ended = true;
            self.sending.clear();
            let event = Event::ClockAtEnd { ms, is_wall };
            self.sending.push(Output::Event(event));
        }
        self.watch.clocks.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::message::{Accept, Copy};
    use crate::protocol::types::record::{Key, Record};

    #[test]
    fn the_base_of_a_configuration_that_travels_is_looked_at() {
        let configuration = Configuration {
            epoch: 1,
            members: vec![Member {
                node: 1,
                ..Member::default()
            }],
            base: Ballot::new(7, 1),
            ..Configuration::default()
        };
        let record = Record {
            value: Some(configuration::encode(&configuration)),
            ..Record::default()
        };
        let (key, ballot) = (Key::configuration(), Ballot::new(3, 1));
        let record = std::sync::Arc::new(record);
        let copy = Copy {
            key: key.clone(),
            ballot,
            record: record.clone(),
        };
        assert_eq!(base(&copy.into()), 7);
        let accept = Accept {
            key,
            ballot,
            record,
        };
        assert_eq!(base(&accept.into()), 7);
    }
}
