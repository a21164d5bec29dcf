//! The work at every heartbeat: links, the quorum (X5), Chosen messages, and, before the first
//! configuration, the formation query (E6).

use rand::RngExt;
use wire::{MemberAddress, MemberStatus, NodeStatus};

use crate::protocol::catchup::pending_chosen::PendingChosen;
use crate::protocol::keys::outbox::Way;
use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::replica::Replica;
use crate::protocol::replica::view::Reach;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::digest::Spread;
use crate::protocol::types::limits::FORMATION_QUERY_MS;
use crate::protocol::types::message::{Destination, Envelope, Event, Message, NodeId, Now, Output};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;

/// The time until the next heartbeat: nodes send them when the wall clock shows a multiple of the
/// interval. Where clocks agree the heartbeats of all nodes arrive together, and an idle node is
/// woken once for all of them. A quarter more or less than the interval at most, whatever the clock
/// shows.
fn until_next_ms(wall_ms: u64, interval_ms: u64) -> u64 {
    let rest_ms = interval_ms - wall_ms % interval_ms;
    let wait_ms = match rest_ms < interval_ms.div_ceil(2) {
        true => rest_ms + interval_ms,
        false => rest_ms,
    };
    wait_ms.clamp(interval_ms - interval_ms / 4, interval_ms + interval_ms / 4)
}

impl Replica {
    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some((at_us, timer)) = self.timers.pop_due(now.mono_us) {
            match timer {
                Timer::Heartbeat => self.heartbeat(now),
                Timer::Survey => self.survey(now),
                Timer::News => {
                    self.view.news_have_waited();
                    self.announce_news(now);
                }
                Timer::Forwards => self.check_forwards(now),
                Timer::Scans => self.scans_timeout(now),
                Timer::Watches => self.watches_timeout(now),
                Timer::Transactions => self.transactions_timeout(now),
                Timer::Copies => self.copies_timeout(now),
                Timer::Key(key) => self.key_timeout(now, &key, at_us),
                Timer::Expiry => self.expiry_timeout(now),
            }
        }
    }

    fn heartbeat(&mut self, now: Now) {
        let next_us = now.mono_us + until_next_ms(now.wall_ms, self.timings.heartbeat_ms) * 1_000;
        self.timers.set(next_us, Timer::Heartbeat);
        self.check_links(now, true, true);
        let heartbeats = self.view.count_heartbeat();
        if heartbeats.is_multiple_of(self.timings.marks_every) {
            self.durable.flush_marks();
        }
        self.forget_other_cluster(now);
        self.check_disk(now);
        self.check_overdue_proof(now);
        self.report_waits();
        self.announce_links(now);
        self.probe_links(now);
        for node in self
            .catchup
            .pending_chosen
            .keys()
            .copied()
            .collect::<Vec<_>>()
        {
            self.flush_notices(node);
        }
        self.send_hinted_copies(now);
        self.find_uninstalled(now);
        self.check_membership(now);
        self.send_to_silent_nodes(now);
        self.compare_at_heartbeat(now);
        self.expire_keys(now);
        self.sweep_transactions(now);
        self.report_clock(now);
        self.report_offsets(now);
    }

    /// Updates which nodes are reachable, whether they are a quorum, and the median. A quorum is
    /// found to be lost only at a timer (`may_lose`), which comes after what had arrived before it:
    /// otherwise a node that did not run for a while would mistake its own absence for that of the
    /// others.
    pub(super) fn check_links(&mut self, now: Now, at_once: bool, may_lose: bool) {
        if !self.view.begin_look(now, at_once) {
            return;
        }
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        self.links.look(now);
        self.check_proof(now);
        self.announce_news(now);
        let is_quorum = configuration.has_quorum(&self.voting().nodes)
            && (self.takes_part() || !self.identity.votes);
        let lost_us = self.timings.quorum_lost_ms * 1_000;
        let hears = self.view.check_quorum(now, is_quorum, lost_us);
        let hears = hears && !self.is_split();
        if self.view.hears_quorum() && !hears && !may_lose {
            return;
        }
        let mut near: Vec<NodeId> = self.joined().collect();
        self.see_slow_disks(now, &near);
        // This node first, then the nearest, then those whose disks are slow: their answers to
        // reads wait for these disks, too. Those that cannot answer are last. Among nodes at the
        // same distance those after this node in order come first, so that not all nodes ask the
        // same ones.
        let node = self.identity.node;
        let behind = near.iter().position(|n| *n >= node).unwrap_or(0);
        near.rotate_left(behind);
        near.sort_by_key(|n| {
            if *n == node {
                (false, false, 0)
            } else {
                let is_slow = self.view.slow_disks.contains(now, *n);
                let hops = self.links.hops(*n).unwrap_or(u8::MAX);
                (self.hangs(*n), is_slow, hops)
            }
        });
        let able = near.iter().copied();
        let able = able.filter(|n| !self.hangs(*n) || !rule!(X5_hung));
        let able = able.collect();
        let coordinators = self.without_slow_disks(now, able);
        self.view.see(Reach {
            coordinators,
            learners: self.joined_without_vote().collect(),
            voters: near,
        });
        self.take_back(now);
        self.view.measure(&self.links, &configuration);
        let phase_us = self.view.distances().phase_us();
        self.requests.waits.set_least_us(phase_us);
        self.check_full();
        if self.view.conclude(hears) {
            let event = if hears {
                Event::QuorumGained
            } else {
                Event::QuorumLost {
                    heard: self.view.reachable().to_vec(),
                }
            };
            self.sending.push(Output::Event(event));
            for key in self.timers.keys() {
                self.coordinate(now, &key, Coordinator::handle_quorum_change);
            }
            if !hears {
                self.refuse_snapshots(now);
            }
        }
        self.check_clocks(now);
    }

    /// The reachable voters, in order of id.
    fn joined(&self) -> impl Iterator<Item = NodeId> {
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let joined = voters.filter(|m| {
            let there = self.links.is_joined(m.node)
                && (self.links.is_incarnation(m.node, m.incarnation) || !rule!(E1));
            if m.node == self.identity.node {
                self.takes_part()
            } else {
                there
            }
        });
        joined.map(|m| m.node)
    }

    /// The reachable nodes that are no members in their present incarnation.
    fn joined_without_vote(&self) -> impl Iterator<Item = NodeId> {
        let configuration = self.identity.configuration.as_deref();
        let nodes = configuration
            .into_iter()
            .flat_map(|c| c.nodes().map(move |m| (c, m.node)));
        let learners = nodes.filter(|(c, node)| {
            let voter = c.voter(*node);
            let votes = voter.is_some_and(|m| self.links.is_incarnation(*node, m.incarnation));
            *node != self.identity.node && self.links.is_joined(*node) && !votes
        });
        learners.map(|(_, node)| node)
    }

    /// Reports to the other voters that `ballot` is chosen for `key`, with the next message that
    /// goes there.
    pub(super) fn spread_chosen(&mut self, key: &Key, ballot: Ballot) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let me = self.identity.node;
        for member in configuration.voters().filter(|m| m.node != me) {
            let notices = self.catchup.pending_chosen.entry(member.node).or_default();
            if let Some(full) = notices.push(key, ballot) {
                let envelope = self.envelope(member.node, 0, full.into());
                self.dispatch(envelope, Way::Usual);
            }
        }
    }

    fn flush_notices(&mut self, node: NodeId) {
        if let Some(chosen) = self
            .catchup
            .pending_chosen
            .get_mut(&node)
            .and_then(PendingChosen::take)
        {
            let envelope = self.envelope(node, 0, chosen.into());
            self.dispatch(envelope, Way::Usual);
        }
    }

    fn survey(&mut self, now: Now) {
        let Some(bootstrap) = &self.identity.formation else {
            return;
        };
        let questions = bootstrap.questions(now);
        if bootstrap.is_ready(now) {
            self.form(now);
            return;
        }
        self.timers
            .set(now.mono_us + FORMATION_QUERY_MS * 1_000, Timer::Survey);
        for (index, survey) in questions {
            let envelope = self.envelope(0, 0, survey.into());
            self.sending.push(Output::Send {
                to: Destination::Listed(index),
                envelope,
            });
        }
    }

    pub(super) fn handle_survey(&mut self, now: Now, envelope: Envelope) {
        let Some(bootstrap) = &mut self.identity.formation else {
            // This node has state: the sender of the query learns the configuration.
            if matches!(envelope.message, Message::Survey(_)) {
                self.offer_configuration(now, &envelope);
            }
            return;
        };
        match envelope.message {
            Message::Survey(survey) => {
                if let Some(answer) = self.durable.answer_survey(bootstrap, &survey) {
                    let envelope = self.envelope(0, 0, answer.into());
                    let to = Destination::Listed(survey.index);
                    self.sending.push(Output::Send { to, envelope });
                }
            }
            Message::SurveyAnswer(answer) => {
                bootstrap.answered(now, &answer);
                if bootstrap.is_ready(now) {
                    self.form(now);
                }
            }
            _ => unreachable!("the caller sorted"),
        }
    }

    /// E6: the first listed node has the commitments that it needs. Its messages wait for the disk.
    fn form(&mut self, now: Now) {
        let cluster = self.random.random_range(1..=u64::MAX);
        let spread = Spread::new(self.random.random(), self.options.tuning.buckets);
        let bootstrap = self.identity.formation.as_ref();
        let formed = bootstrap.and_then(|b| b.form(now, cluster, spread));
        let Some(configuration) = formed else { return };
        self.install(now, configuration);
    }

    fn report_waits(&mut self) {
        let waits_for = self.waits_for_now();
        if waits_for != self.reports.waits_for {
            self.reports.waits_for = waits_for.clone();
            self.sending.push(Output::Event(Event::Waits(waits_for)));
        }
    }

    pub(super) fn member_addresses(&self) -> Vec<MemberAddress> {
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        voters
            .map(|m| MemberAddress {
                node: m.node,
                address: m.address.clone(),
            })
            .collect()
    }

    /// The core's part of the node's status; the runtime adds the rest.
    pub fn status(&self, now: Now) -> NodeStatus {
        let configuration = self.identity.configuration.as_deref();
        let voters = configuration.iter().flat_map(|c| c.voters());
        let members = voters.map(|m| MemberStatus {
            node: m.node,
            address: m.address.clone(),
            heard: self.view.reaches(m.node),
            incarnation: m.incarnation,
        });
        let others = configuration
            .iter()
            .flat_map(|c| c.nodes().map(move |m| (*c, m)));
        let others = others.filter(|(c, m)| c.voter(m.node).is_none());
        let away = others.map(|(_, m)| MemberStatus {
            node: m.node,
            address: m.address.clone(),
            heard: m.node == self.identity.node || self.links.is_joined(m.node),
            incarnation: self.incarnation_heard(m.node),
        });
        NodeStatus {
            node: self.identity.node,
            cluster: self.cluster(),
            cluster_name: configuration.map_or_else(String::new, |c| c.name.clone()),
            other_cluster: self.other_cluster(),
            epoch: self.identity.configuration.as_ref().map_or(0, |c| c.epoch),
            incarnation: self.identity.incarnation,
            boot: self.options.boot,
            votes: self.identity.votes,
            quorum: self.view.hears_quorum(),
            master: self
                .identity
                .configuration
                .as_ref()
                .map_or(0, |c| c.master()),
            members: members.collect(),
            away: away.collect(),
            joint: configuration.is_some_and(|c| c.joint.is_some()),
            waits_for: self.waits_for_now(),
            digest: self.keys.digests().total(),
            clock_clamped: self.clock.is_clamped(),
            links: self.links_status(now),
            component: self.view.reachable().to_vec(),
            routes: self.links.routes(),
            messages_sent: self.sending.messages_sent(),
            messages_relayed: self.sending.messages_relayed(),
            behind: self.behind(),
            learning: self.learning(),
            warnings: self.warnings(now),
            disk: Some(self.disk_status(now)),
            clocks: self.clock_offsets(now),
            ..NodeStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::until_next_ms;

    #[test]
    fn heartbeats_come_when_the_wall_clock_shows_a_multiple() {
        assert_eq!(until_next_ms(1_000, 50), 50);
        // A clock that is slowed down shows a little less than the multiple.
        assert_eq!(until_next_ms(1_049, 50), 51);
        for interval_ms in [1, 10, 50, 1_000] {
            for begin_ms in 0..2_000 {
                let mut wall_ms = begin_ms;
                for _ in 0..3 {
                    let wait_ms = until_next_ms(wall_ms, interval_ms);
                    assert!(4 * wait_ms.abs_diff(interval_ms) <= interval_ms);
                    wall_ms += wait_ms;
                }
                assert!(wall_ms.is_multiple_of(interval_ms), "from {begin_ms}");
            }
        }
    }
}
