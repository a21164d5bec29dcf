//! An operator's request to change the configuration: checked against the present one, answered in
//! plain words, and turned into the desired configuration. `change` makes the change.

use rand::RngExt;
use wire::{Change, ChangeOutcome, ChangeRequest};

use crate::protocol::replica::Replica;
use crate::protocol::replica::membership::change::DesiredConfiguration;
use crate::protocol::replica::membership::vote::{HANGS_REMEDY, Obstacle, Voting};
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::configuration::{self, Forced};
use crate::protocol::types::limits::{FOLLOWED_LAST, FORCED_BASE_MS, MEMBERS_MAX, NODES_AWAY_MAX};
use crate::protocol::types::message::{
    ClientReply, Configuration, Endpoint, Epoch, Event, GroupNumber, Incarnation, Member, NodeId,
    Now, Output,
};
use crate::protocol::types::quorum::is_quorum;
use crate::protocol::types::rules::rule;

/// While messages are not authenticated, only a source on the node's own machine identifies an
/// operator. No one else can use such a source: the system drops it when it comes from the network,
/// or the session's token, without which nothing is done, is sent to that machine and not to the
/// forger (`runtime::socket`).
const ADMIN_ELSEWHERE: &str = "this node accepts membership changes only from its own machine: run \
                               the command there, with this node's address for --nodes, or start \
                               the nodes with --insecure-admin";

/// Answers that wait for the disk. The bound is low because operators seldom ask.
const HELD_REPLIES_MAX: usize = 64;

/// The meaning of a request in the present configuration. The nodes are those to which it gave an
/// id, or for which it found one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Done(NodeId),
    /// The node is admitted automatically, once it is reachable and has caught up.
    Waits(NodeId),
    Change(DesiredConfiguration, NodeId),
}

impl Replica {
    pub(in crate::protocol::replica) fn handle_change_request(
        &mut self,
        now: Now,
        from: Endpoint,
        request: ChangeRequest,
    ) {
        // A node that is stopping leaves requests to others.
        if self.requests.stopping {
            return;
        }
        let ChangeRequest {
            token,
            attempt,
            change,
        } = request;
        if !self.admits(from, token, None, attempt) {
            return;
        }
        let is_admin = from.is_own_machine || self.options.insecure_admin;
        let is_force = matches!(change, Change::Force { .. });
        let outcome = match change {
            _ if !is_admin => refused(ADMIN_ELSEWHERE.into(), false),
            Change::Force {
                nodes,
                epoch,
                despite_quorum,
            } => self
                .force(now, &nodes, epoch, despite_quorum)
                .unwrap_or_else(|reason| refused(reason, false)),
            change => self.change_asked(now, &change),
        };
        let is_forced = is_force && matches!(outcome, ChangeOutcome::Started { .. });
        let reply = ClientReply::Change { attempt, outcome };
        match is_forced {
            true => self.reply_once_durable(from, reply),
            false => self.reply(from, reply),
        }
    }

    /// R2: a force that a crash may undo is not reported.
    fn reply_once_durable(&mut self, to: Endpoint, reply: ClientReply) {
        if self.durable.is_installed() {
            self.reply(to, reply);
        } else if self.requests.held_replies.len() < HELD_REPLIES_MAX {
            let group = self.durable.installed_in();
            self.requests.held_replies.push_back((group, to, reply));
        } else {
            self.counts.dropped.overflow += 1;
        }
    }

    /// Runs whenever a group is durable.
    pub(in crate::protocol::replica) fn release_replies(&mut self) {
        let durable = &self.durable;
        let is_durable =
            |(group, ..): &mut (GroupNumber, Endpoint, ClientReply)| durable.is_durable(*group);
        while let Some((_, to, reply)) = self.requests.held_replies.pop_front_if(is_durable) {
            self.sending.push(Output::Reply { to, reply });
        }
    }

    fn change_asked(&mut self, now: Now, change: &Change) -> ChangeOutcome {
        let Some(configuration) = self.identity.configuration.clone() else {
            let waits_for = self.reports.waits_for.clone();
            return refused(format!("there is no cluster yet: {waits_for}"), false);
        };
        if !self.identity.votes || !self.view.hears_quorum() {
            let reason = "this node has no vote or no quorum: send the command to another node";
            return refused(reason.into(), true);
        }
        let voting = self.voting();
        let epoch = configuration.epoch;
        if let Some(joint) = &configuration.joint {
            // The change in progress may be the requested one.
            let to_come = Configuration {
                members: joint.clone(),
                joint: None,
                ..configuration.as_ref().clone()
            };
            return match plan(&to_come, &voting, change) {
                Ok(Plan::Done(node) | Plan::Waits(node)) => ChangeOutcome::Started {
                    epoch: epoch + 1,
                    node,
                },
                Ok(Plan::Change(..)) => refused(
                    format!("another change is in progress, from epoch {epoch}"),
                    true,
                ),
                Err(reason) => refused(reason, false),
            };
        }
        match plan(&configuration, &voting, change) {
            Ok(Plan::Done(node)) => ChangeOutcome::Done { epoch, node },
            Ok(Plan::Waits(node)) => ChangeOutcome::Waits { epoch, node },
            Ok(Plan::Change(wanted, node)) => match self.begin_change(now, wanted) {
                Ok(epoch) => ChangeOutcome::Started { epoch, node },
                Err(reason) => refused(reason, true),
            },
            Err(reason) => refused(reason, false),
        }
    }

    /// A quorum is lost permanently: the named nodes continue without the others. Records that only
    /// the others hold are lost. Records that any of the named nodes holds are not, because all of
    /// them together are the quorum until the forced configuration is complete.
    fn force(
        &mut self,
        now: Now,
        nodes: &[NodeId],
        epoch: Epoch,
        despite_quorum: bool,
    ) -> Result<ChangeOutcome, String> {
        let configuration = self.identity.configuration.clone().ok_or(
            "there is no configuration yet, so nothing to force: start the nodes with empty data \
             directories, the first with --bootstrap",
        )?;
        // The request is a repetition.
        let done = configuration.forces.last().filter(|f| f.from == epoch);
        if let Some(done) = done.filter(|_| configuration.names_exactly(nodes)) {
            let epoch = configuration::first_epoch(done.lineage);
            return Ok(ChangeOutcome::Started { epoch, node: 0 });
        }
        if configuration.epoch != epoch {
            return Err(format!(
                "the configuration is now in epoch {}, not {epoch}: run `horseshoe member list` \
                 and try again",
                configuration.epoch
            ));
        }
        if self.view.hears_quorum() && !despite_quorum {
            return Err(
                "a quorum is up, so `horseshoe member remove` can remove nodes without loss; \
                 --despite-quorum forces the configuration nevertheless"
                    .into(),
            );
        }
        let pool = self.holders(&configuration);
        let members = self.named(nodes, &configuration, &pool)?;
        if !members.iter().any(|m| m.node == self.identity.node) {
            return Err(
                "this node is not one of the named nodes: send the command to one of them".into(),
            );
        }
        let behind = self.is_behind(now, &configuration, &members);
        if let Some(reason) = behind.filter(|_| rule!(E8_behind)) {
            return Ok(refused(reason, true));
        }
        let forced = self.forced(now, &configuration, members)?;
        let epoch = forced.epoch;
        self.install(now, forced);
        Ok(ChangeOutcome::Started { epoch, node: 0 })
    }

    /// The members that hold the written records: for a joint configuration the old members, while
    /// one of them is reachable, since the new ones may hold nothing yet. Some of them may have
    /// hung disks.
    fn holders(&self, configuration: &Configuration) -> Vec<Member> {
        let is_there = |m: &&Member| matches!(self.obstacle(m), None | Some(Obstacle::DiskHangs));
        let old = configuration.members.iter();
        let old: Vec<Member> = old.filter(is_there).cloned().collect();
        if !old.is_empty() {
            return old;
        }
        configuration.voters().filter(is_there).cloned().collect()
    }

    /// The named nodes, in their order in the configuration, if all of them are among those that
    /// hold records.
    fn named(
        &self,
        nodes: &[NodeId],
        configuration: &Configuration,
        pool: &[Member],
    ) -> Result<Vec<Member>, String> {
        for node in nodes {
            let known = configuration.nodes().find(|m| m.node == *node);
            let Some(member) = known else {
                return Err(unknown(configuration, *node));
            };
            let Member { address, .. } = member;
            let holder = pool.iter().find(|m| m.node == *node);
            if holder.is_some_and(|m| self.can_vote(m)) {
                continue;
            }
            return Err(if holder.is_some() {
                format!(
                    "the disk of node {node} at {address} does not finish writes, so it can't be \
                     in the forced configuration: {HANGS_REMEDY}, or omit it"
                )
            } else if *node != self.identity.node && !self.links.is_joined(*node) {
                format!(
                    "node {node} at {address} is unreachable; only nodes that are up can continue"
                )
            } else {
                format!(
                    "node {node} at {address} lost its state: omit it; it is admitted \
                     automatically afterwards"
                )
            });
        }
        let pool = pool.iter().filter(|m| nodes.contains(&m.node));
        Ok(pool.cloned().collect())
    }

    fn forced(
        &mut self,
        now: Now,
        configuration: &Configuration,
        members: Vec<Member>,
    ) -> Result<Configuration, String> {
        let mut forces = self.superseded(configuration);
        let lineage =
            configuration::next_lineage(&forces, self.identity.node, self.random.random());
        let lineage = lineage.ok_or(
            "this cluster was forced as often as the format of its configuration allows: to \
             continue, copy its keys to a new cluster",
        )?;
        forces.push(Forced {
            lineage,
            from: configuration.epoch,
        });
        let left = |m: &&Member| members.iter().all(|named| named.node != m.node);
        let mut away: Vec<Member> = configuration.nodes().filter(left).cloned().collect();
        let beyond = away.split_off(away.len().min(NODES_AWAY_MAX));
        let mut left_out: Vec<String> = beyond.into_iter().map(|m| m.address).collect();
        // The base is above everything that the named nodes may have received as they continued.
        let last = wire::clock::to_ms(self.clock.tick(now)) + FORCED_BASE_MS;
        let base = wire::clock::from_ms(last);
        if base > FOLLOWED_LAST {
            return Err(
                "the clocks of this cluster have nearly reached the last time that the store can \
                 represent: to continue, copy its keys to a new cluster"
                    .into(),
            );
        }
        let base = Ballot::new(base, NodeId::MAX);
        let mut forced = Configuration {
            epoch: configuration::first_epoch(lineage),
            joint: Some(members.clone()),
            members,
            away,
            base: base.max(configuration.base),
            forced: true,
            forces,
            ..configuration.clone()
        };
        left_out.extend(self.take_in_splits(&mut forced));
        forced.check()?;
        if !left_out.is_empty() {
            self.sending.push(Output::Event(Event::LeftOut(left_out)));
        }
        Ok(forced)
    }

    /// The incarnation in which a node without a vote is reachable, 0 if that is unknown.
    pub(in crate::protocol::replica) fn incarnation_heard(&self, node: NodeId) -> Incarnation {
        match node == self.identity.node {
            true => self.identity.incarnation,
            false => self.links.incarnation(node).unwrap_or(0),
        }
    }
}

fn refused(reason: String, soon: bool) -> ChangeOutcome {
    ChangeOutcome::Refused { reason, soon }
}

fn unknown(configuration: &Configuration, node: NodeId) -> String {
    let ids = configuration.nodes().map(|m| m.node.to_string());
    let ids: Vec<String> = ids.collect();
    format!("there is no node {node}; the nodes are {}", ids.join(", "))
}

/// The meaning of a request in a configuration that is not joint; `voting` are its members that can
/// vote.
fn plan(configuration: &Configuration, voting: &Voting, change: &Change) -> Result<Plan, String> {
    let plan = match change {
        Change::Add { address } => add(configuration, address)?,
        Change::Remove { node } => remove(configuration, *node)?,
        Change::Replace { node, address } => replace(configuration, voting, *node, address)?,
        Change::TransferMaster { node } => transfer_master(configuration, voting, *node)?,
        Change::Force { .. } => unreachable!("needs no plan"),
    };
    if let Plan::Change(wanted, _) = &plan
        && !is_quorum(&wanted.members, &voting.nodes)
    {
        return Err(format!(
            "the remaining members would have no quorum; {}",
            voting.missing_in_words(&wanted.members)
        ));
    }
    Ok(plan)
}

fn add(configuration: &Configuration, address: &str) -> Result<Plan, String> {
    if let Some(known) = configuration.nodes().find(|m| m.address == address) {
        return Ok(match configuration.voter(known.node) {
            Some(_) => Plan::Done(known.node),
            None => Plan::Waits(known.node),
        });
    }
    if configuration.nodes().count() >= MEMBERS_MAX {
        return Err(format!(
            "there are {MEMBERS_MAX} nodes, which is the maximum: first remove one that is gone \
             for good"
        ));
    }
    let mut wanted = as_it_is(configuration);
    let node = admit(&mut wanted, address)?;
    Ok(Plan::Change(wanted, node))
}

fn remove(configuration: &Configuration, node: NodeId) -> Result<Plan, String> {
    if !configuration.nodes().any(|m| m.node == node) {
        return match node <= configuration.ids {
            true => Ok(Plan::Done(node)),
            false => Err(unknown(configuration, node)),
        };
    }
    let mut wanted = as_it_is(configuration);
    take_out(&mut wanted, node)?;
    Ok(Plan::Change(wanted, node))
}

/// A member that can vote stays until the new node is admitted, so that there are never fewer
/// members. A member that cannot vote is removed at once, so that it no longer counts.
fn replace(
    configuration: &Configuration,
    voting: &Voting,
    node: NodeId,
    address: &str,
) -> Result<Plan, String> {
    let old = configuration.nodes().find(|m| m.node == node);
    let new = configuration.nodes().find(|m| m.address == address);
    let Some(old) = old else {
        // The node was removed before; only the other half of the request remains to be done.
        return match node <= configuration.ids {
            true => add(configuration, address),
            false => Err(unknown(configuration, node)),
        };
    };
    if old.address == address {
        return Err(format!(
            "{address} is the address of node {node} itself: start the node there with an empty \
             data directory, and it is admitted automatically"
        ));
    }
    let counts = configuration.voter(node).is_some() && voting.nodes.contains(node);
    let mut wanted = as_it_is(configuration);
    match new {
        Some(new) if configuration.voter(new.node).is_some() => {
            take_out(&mut wanted, node)?;
            Ok(Plan::Change(wanted, new.node))
        }
        Some(new) if counts => Ok(Plan::Waits(new.node)),
        Some(new) => {
            take_out(&mut wanted, node)?;
            Ok(Plan::Change(wanted, new.node))
        }
        None => {
            if configuration.nodes().count() >= MEMBERS_MAX {
                // One is removed before the other is added, so that there are never more.
                take_out(&mut wanted, node)?;
                return Ok(Plan::Change(wanted, 0));
            }
            if !counts {
                take_out(&mut wanted, node)?;
            }
            let node = admit(&mut wanted, address)?;
            Ok(Plan::Change(wanted, node))
        }
    }
}

fn transfer_master(
    configuration: &Configuration,
    voting: &Voting,
    node: NodeId,
) -> Result<Plan, String> {
    let Some(place) = configuration.members.iter().position(|m| m.node == node) else {
        return Err(match configuration.nodes().any(|m| m.node == node) {
            true => format!("node {node} is not a member, so it can't be the master"),
            false => unknown(configuration, node),
        });
    };
    if place == 0 {
        return Ok(Plan::Done(node));
    }
    if !voting.nodes.contains(node) {
        return Err(match voting.hung.contains(node) {
            true => format!(
                "the disk of node {node} does not finish writes, so it is not made master: {HANGS_REMEDY}"
            ),
            false => format!("node {node} is unreachable, so it is not made master"),
        });
    }
    let mut wanted = as_it_is(configuration);
    let master = wanted.members.remove(place);
    wanted.members.insert(0, master);
    Ok(Plan::Change(wanted, node))
}

pub(in crate::protocol::replica) fn as_it_is(
    configuration: &Configuration,
) -> DesiredConfiguration {
    DesiredConfiguration {
        members: configuration.members.clone(),
        away: configuration.away.clone(),
        ids: configuration.ids,
    }
}

fn take_out(wanted: &mut DesiredConfiguration, node: NodeId) -> Result<(), String> {
    wanted.members.retain(|m| m.node != node);
    wanted.away.retain(|m| m.node != node);
    match wanted.members.is_empty() {
        true => Err(format!("node {node} is the only member")),
        false => Ok(()),
    }
}

/// Gives the node at that address an id. It becomes a member automatically once it has caught up.
fn admit(wanted: &mut DesiredConfiguration, address: &str) -> Result<NodeId, String> {
    check_address(address)?;
    let node = wanted.ids.checked_add(1).ok_or(
        "all 255 ids of this cluster are used up: copy its keys to a new cluster to continue",
    )?;
    wanted.ids = node;
    wanted.away.push(Member {
        node,
        address: address.to_owned(),
        ..Member::default()
    });
    Ok(node)
}

/// The command line checks an address in full. This check is the minimum for an address that is
/// sent to all nodes.
fn check_address(address: &str) -> Result<(), String> {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(1..) => Ok(()),
        _ => Err(format!("{address:?} is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests;
