//! Sending and relaying: which paths messages take, and how links are announced (docs/protocol.md,
//! "Network: links, rows and relays").

use std::collections::{BTreeMap, VecDeque};

use wire::Full;
use wire::clock::{READING_MAX, Reading, to_ms};

use crate::protocol::keys::outbox::Way;
use crate::protocol::replica::Replica;
use crate::protocol::replica::iteration::IterationBudget;
use crate::protocol::types::message::{
    Destination, Envelope, GroupNumber, Heartbeat, Message, NodeId, Now, Output, Relayed,
    ResolvePart, RoundId, Row, TransitFrame,
};
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;

/// Messages that leave with the next outputs.
#[derive(Debug, Default)]
pub(super) struct Sending {
    outputs: VecDeque<Output>,
    /// Messages of this node to itself.
    local: VecDeque<Envelope>,
    /// T5: parts of Resolve messages, which leave at the end of the input.
    resolves: BTreeMap<NodeId, Vec<ResolvePart>>,
    messages_sent: u64,
    /// Messages of other nodes.
    messages_relayed: u64,
    iteration: IterationBudget,
}

impl Sending {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What has left in this iteration.
    pub(super) fn iteration(&mut self) -> &mut IterationBudget {
        &mut self.iteration
    }

    /// A node that has ended sends nothing more.
    pub(super) fn clear(&mut self) {
        self.outputs.clear();
    }

    fn push_local(&mut self, envelope: Envelope) {
        self.local.push_back(envelope);
    }

    pub(super) fn pop_local(&mut self) -> Option<Envelope> {
        self.local.pop_front()
    }

    pub(super) fn push_resolve(&mut self, to: NodeId, part: ResolvePart) {
        self.resolves.entry(to).or_default().push(part);
    }

    pub(super) fn take_resolves(&mut self) -> BTreeMap<NodeId, Vec<ResolvePart>> {
        std::mem::take(&mut self.resolves)
    }

    fn push_routed(&mut self, to: NodeId, envelope: Envelope) {
        self.messages_sent += 1;
        let to = Destination::Node(to);
        self.push(Output::Send { to, envelope });
    }

    fn count_relayed(&mut self) {
        self.messages_relayed += 1;
    }

    pub(super) fn messages_sent(&self) -> u64 {
        self.messages_sent
    }

    pub(super) fn messages_relayed(&self) -> u64 {
        self.messages_relayed
    }
}

impl Replica {
    /// Sends once `group` is durable (R2), also to this node itself.
    pub(super) fn send(
        &mut self,
        to: NodeId,
        round: RoundId,
        message: Message,
        group: GroupNumber,
        way: Way,
    ) {
        let envelope = self.envelope(to, round, message);
        if self.durable.is_durable(group) {
            self.dispatch(envelope, way);
        } else if !self.durable.hold(group, envelope, way) {
            // The node that asked will ask again.
            self.counts.dropped.overflow += 1;
        }
    }

    pub(super) fn envelope(&self, to: NodeId, round: RoundId, message: Message) -> Envelope {
        Envelope {
            origin: self.identity.node,
            destination: to,
            incarnation: self.identity.incarnation,
            epoch: self.identity.configuration.as_ref().map_or(0, |c| c.epoch),
            round,
            hops_left: 0,
            via: 0,
            message,
        }
    }

    pub(super) fn dispatch(&mut self, envelope: Envelope, way: Way) {
        let to = envelope.destination;
        if to == self.identity.node {
            self.sending.push_local(envelope);
            return;
        }
        let usual = self.links.next_hop(to);
        let other = match way {
            Way::Usual => None,
            Way::Detour(turn) => self.links.detour(to, turn),
            Way::Back(via) if via == usual || via == to || via == 0 => None,
            Way::Back(via) => self.links.hops(to).map(|hops| (via, hops + 1)),
        };
        if let Some((next, hops)) = other {
            self.send_to(next, hops, envelope.clone());
        }
        let hops = self.links.hops(to).unwrap_or(1);
        self.send_to(usual, hops, envelope);
    }

    /// `hops`: the links on the path. One more may be used if relays know a better path, so a
    /// message never loops for long.
    fn send_to(&mut self, next: NodeId, hops: u8, mut envelope: Envelope) {
        envelope.hops_left = hops;
        self.sending.push_routed(next, envelope);
    }

    /// The only function that decides about a frame between other nodes: where it goes next, if it
    /// may. The runtime passes frames that it has not decoded, `relay_message` those that it has.
    pub fn relay(&mut self, now: Now, frame: &TransitFrame) -> Option<Relayed> {
        let TransitFrame {
            cluster,
            via,
            origin,
            destination,
            hops_left,
        } = *frame;
        if cluster != self.cluster() {
            self.note_other_cluster(now, cluster, origin);
            return None;
        }
        self.links.heard(via, now);
        let next = self.links.relay(via, origin, destination, hops_left);
        match next {
            Some(_) => self.sending.count_relayed(),
            None => self.counts.dropped.unroutable += 1,
        }
        next.map(|(next, hops_left)| Relayed { next, hops_left })
    }

    /// The usual way to a node, for frames of the runtime that carry no message: the next hop, and
    /// how many hops they have left.
    pub fn usual_way(&self, to: NodeId) -> (NodeId, u8) {
        (self.links.next_hop(to), self.links.hops(to).unwrap_or(1))
    }

    /// Relays a message that was decoded nevertheless.
    pub(super) fn relay_message(&mut self, now: Now, mut envelope: Envelope) {
        let frame = TransitFrame {
            cluster: self.cluster(),
            via: envelope.via,
            origin: envelope.origin,
            destination: envelope.destination,
            hops_left: envelope.hops_left,
        };
        if let Some(Relayed { next, hops_left }) = self.relay(now, &frame) {
            envelope.hops_left = hops_left;
            let to = Destination::Node(next);
            self.sending.push(Output::Send { to, envelope });
        }
    }

    /// Announces this node's links to all neighbours, each over the direct link, whether it works
    /// or not.
    pub(super) fn announce_links(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        // The other nodes do not know a node that was removed.
        if self.identity.node == 0 {
            return;
        }
        self.view.note_announced(now);
        self.links.take_news();
        let own = Row {
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            boot: self.options.boot,
            starts: self.reported_starts(),
            found: self.membership.group_found(),
            synced: self.durable.synced(),
            clock: self.clock.tick(now),
            wall_ms: now.wall_ms.min(to_ms(READING_MAX)),
            unsynced_ms: self.unsynced_ms(),
            seen: self
                .membership
                .starts_seen(|node| configuration.voter(node).is_some()),
            full: self.space.full.map_or(0, Full::code),
            links: Vec::new(),
        };
        let me = self.identity.node;
        for member in configuration.nodes().filter(|m| m.node != me) {
            let Some(heartbeat) = self.links.beat(member.node, own.clone(), now) else {
                continue;
            };
            let envelope = self.envelope(member.node, 0, heartbeat.into());
            self.sending.push(Output::Send {
                to: Destination::Node(member.node),
                envelope,
            });
        }
    }

    /// A change is announced at once, but no more often than every few milliseconds.
    pub(super) fn announce_news(&mut self, now: Now) {
        if self.identity.node == 0 || !self.links.has_news() {
            return;
        }
        if self.view.may_announce_news(now) {
            self.announce_links(now);
        } else if let Some(next_us) = self.view.defer_news() {
            self.timers.set(next_us, Timer::News);
        }
    }

    /// B4: a node learns the others' clocks before it issues a ballot. The reported clocks alone
    /// would keep ballots above every base, so they are ignored where that rule is switched off.
    pub(super) fn hear_clock(&mut self, reading: Reading) {
        if hears_clocks() {
            self.clock.observe(reading);
        }
    }

    /// B5: a reading that a quorum reported, or chose.
    pub(super) fn hear_agreed(&mut self, reading: Reading) {
        if hears_clocks() {
            self.clock.observe_agreed(reading);
        }
    }

    pub(super) fn handle_heartbeat(&mut self, now: Now, from: NodeId, heartbeat: Heartbeat) {
        for row in &heartbeat.rows {
            // B5: the row's report of which links work is used even if its clock is not. Otherwise
            // a learner could never receive from the nodes whose clocks it does not know yet.
            let is_believable = self.clock.is_believable(row.clock);
            if is_believable {
                self.hear_clock(row.clock);
            } else {
                self.note_ahead(now, row.node, row.clock);
            }
            if row.node == from {
                self.check_member_ahead(now, row, is_believable);
                self.watch.offsets.hear(from, row.wall_ms, now);
            }
            // The row's node waits for this, whatever the row's clock is (E1_asked).
            self.check_start(row);
        }
        let clock = &self.clock;
        self.links
            .heartbeat(from, heartbeat, now, |row| clock.is_believable(row.clock));
        if self.view.hear_heartbeat(now) {
            self.check_links(now, true, false);
        }
    }
}

fn hears_clocks() -> bool {
    let kept = [rule!(B4), rule!(B3), rule!(E3_base)];
    kept.iter().all(|kept| *kept)
}
