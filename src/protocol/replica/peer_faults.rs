//! Faults of peers: messages of another cluster, and a second record for one ballot. They end no
//! node: they are counted, and reported with back-off. A fault of this node itself does end it.

use crate::protocol::replica::Replica;
use crate::protocol::types::backoff::{Backoff, Waits};
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{OTHER_CLUSTER_KEPT_MS, REPORT_WAIT_MAX_MS, REPORT_WAIT_MS};
use crate::protocol::types::message::{Event, NodeId, Now, Output};
use crate::protocol::types::record::Key;

const REPORT_WAITS: Waits = Waits {
    min_us: REPORT_WAIT_MS * 1_000,
    max_us: REPORT_WAIT_MAX_MS * 1_000,
};

#[derive(Debug, Default)]
pub struct PeerFaults {
    /// The other cluster from which a message last arrived, and when.
    other_cluster: Option<(u64, u64)>,
    others_reported: Backoff,
    contradictions_reported: Backoff,
}

impl Replica {
    /// Nodes of another cluster send messages to this node: either that cluster was at these
    /// addresses before, or this node's state is of an earlier cluster. Messages alone do not show
    /// which. This node serves as long as it reaches a quorum of its own cluster, or is the quorum
    /// alone.
    pub(super) fn note_other_cluster(&mut self, now: Now, other: u64, node: NodeId) {
        self.counts.dropped.stray += 1;
        let own = self.cluster();
        // A node that knows no cluster yet belongs to no other one.
        if other == 0 || own == 0 {
            return;
        }
        self.reports.peer_faults.other_cluster = Some((other, now.mono_us));
        if self
            .reports
            .peer_faults
            .others_reported
            .is_due(now.mono_us, REPORT_WAITS)
        {
            let heard = Event::OtherCluster { own, other, node };
            self.sending.push(Output::Event(heard));
        }
    }

    /// The other cluster that still sends messages to this node; 0 for none.
    pub(super) fn other_cluster(&self) -> u64 {
        self.reports
            .peer_faults
            .other_cluster
            .map_or(0, |(other, _)| other)
    }

    /// At each heartbeat.
    pub(super) fn forget_other_cluster(&mut self, now: Now) {
        let kept_us = OTHER_CLUSTER_KEPT_MS * 1_000;
        self.reports
            .peer_faults
            .other_cluster
            .take_if(|(_, heard_us)| now.mono_us >= *heard_us + kept_us);
    }

    /// R3: a record other than the one held, at the same ballot. The record held stays, and
    /// `origin` gets no answer.
    pub(super) fn note_contradiction(
        &mut self,
        now: Now,
        key: &Key,
        ballot: Ballot,
        origin: NodeId,
    ) {
        self.counts.dropped.contradictions += 1;
        if self
            .reports
            .peer_faults
            .contradictions_reported
            .is_due(now.mono_us, REPORT_WAITS)
        {
            let contradiction = Event::Contradiction {
                key: key.clone(),
                ballot,
                origin,
            };
            self.sending.push(Output::Event(contradiction));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica};
    use crate::protocol::types::message::{Accept, DigestsRequest, Envelope, Input, Message};
    use crate::protocol::types::record::Record;
    use std::sync::Arc;

    fn after(ms: u64) -> Now {
        Now {
            mono_us: NOW.mono_us + ms * 1_000,
            ..NOW
        }
    }

    fn events(replica: &mut Replica) -> Vec<Event> {
        let outputs = std::iter::from_fn(|| replica.poll_output());
        let events = outputs.filter_map(|output| match output {
            Output::Event(Event::QuorumGained) | Output::Persist(_) => None,
            Output::Event(event) => Some(event),
            other => panic!("an answer: {other:?}"),
        });
        events.collect()
    }

    fn from_peer(replica: &Replica, message: Message) -> Envelope {
        let configuration = replica.configuration().expect("it has one");
        let origin = 2;
        Envelope {
            origin,
            destination: replica.node(),
            incarnation: configuration.voter(origin).expect("a member").incarnation,
            epoch: configuration.epoch,
            round: 7,
            hops_left: 0,
            via: origin,
            message,
        }
    }

    #[test]
    fn another_cluster_is_named_and_nothing_else() {
        let mut replica = replica();
        events(&mut replica);
        let own = replica.cluster();
        for ms in 0..100 {
            let envelope = from_peer(&replica, DigestsRequest { total: None }.into());
            let cluster = own + 1;
            replica.handle_input(after(ms), Input::Peer { cluster, envelope });
        }
        let heard = Event::OtherCluster {
            own,
            other: own + 1,
            node: 2,
        };
        assert_eq!(events(&mut replica), [heard], "once");
        assert_eq!(replica.counters().stray, 100);
        assert_eq!(replica.status(after(100)).other_cluster, own + 1);
        replica.forget_other_cluster(after(OTHER_CLUSTER_KEPT_MS + 99));
        assert_eq!(replica.status(after(100)).other_cluster, 0);
    }

    /// The record held stays, and is not named as the other one.
    #[test]
    fn a_ballot_with_another_record_is_named_and_not_answered() {
        let mut replica = replica();
        let key = Key::user(b"k");
        let ballot = Ballot::new(1 << 20, 2);
        let accept = |version: u64| {
            let record = Arc::new(Record {
                version,
                ..Record::default()
            });
            let key = key.clone();
            Accept {
                key,
                ballot,
                record,
            }
        };
        let loaded = Input::Loaded {
            key: key.clone(),
            state: None,
        };
        let cluster = replica.cluster();
        let envelope = from_peer(&replica, accept(ballot.0).into());
        replica.handle_input(NOW, Input::Peer { cluster, envelope });
        replica.handle_input(NOW, loaded);
        let _ = std::iter::from_fn(|| replica.poll_output()).count();
        for _ in 0..3 {
            let envelope = from_peer(&replica, accept(ballot.0 + 1).into());
            replica.handle_input(NOW, Input::Peer { cluster, envelope });
        }
        let origin = 2;
        let named = Event::Contradiction {
            key: key.clone(),
            ballot,
            origin,
        };
        assert_eq!(events(&mut replica), [named]);
        assert_eq!(replica.counters().contradictions, 3);
        let held = replica.keys.resident(&key).unwrap().state.clone();
        assert_eq!(held.unwrap().record.unwrap().version, ballot.0);
    }
}
