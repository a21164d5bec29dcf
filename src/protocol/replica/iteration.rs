//! Limits what one sender can cause in one loop iteration: the inputs between two times that all
//! outputs were drained, except for bucket entries still to be listed. A request of a few bytes has
//! an answer of tens of KiB, and one datagram has space for two thousand of them.

use std::collections::{BTreeMap, BTreeSet};

use wire::NodeStatus;

use crate::protocol::replica::Replica;
use crate::protocol::types::limits::DIGESTS_PER_TURN_MAX;
use crate::protocol::types::message::{ClientReply, Endpoint, NodeId, Now};

/// What was sent since the iteration began.
#[derive(Debug, Default)]
pub struct IterationBudget {
    /// Answers with the digests of all buckets, by the node that asked.
    digests: BTreeMap<NodeId, usize>,
    /// This node's status, once a client has asked for it.
    status: Option<Box<NodeStatus>>,
    /// The clients that have received it.
    status_receivers: BTreeSet<Endpoint>,
}

impl Replica {
    pub(super) fn end_turn(&mut self) {
        *self.sending.iteration() = IterationBudget::default();
    }

    /// Whether that node gets one more answer to `DigestsRequest`; the node repeats a request
    /// without an answer.
    pub(super) fn may_send_digests(&mut self, to: NodeId) -> bool {
        let reported = self.sending.iteration().digests.entry(to).or_default();
        *reported += 1;
        let may = *reported <= DIGESTS_PER_TURN_MAX;
        self.counts.dropped.overflow += u64::from(!may);
        may
    }

    /// Sends the status once to each client; a client repeats a request without an answer.
    pub(super) fn send_status(&mut self, now: Now, to: Endpoint, attempt: u64) {
        if !self.sending.iteration().status_receivers.insert(to) {
            self.counts.dropped.overflow += 1;
            return;
        }
        let made = self.sending.iteration().status.take();
        let status = made.unwrap_or_else(|| Box::new(self.status(now)));
        self.sending.iteration().status = Some(status.clone());
        self.reply(to, ClientReply::Status { attempt, status });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::replica::catchup::serve::Purpose;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica, reported};
    use crate::protocol::types::message::{
        ClientMessage, DigestsRequest, Heartbeat, Input, Message, Output, ReportedLink, Row,
    };
    use wire::{Hello, StatusRequest};

    /// Drains all outputs; returns the messages to other nodes.
    fn drain(replica: &mut Replica, now: Now) -> Vec<Message> {
        let mut sent = Vec::new();
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Persist(group) => {
                    let group = group.number;
                    replica.handle_input(now, Input::Persisted { group });
                }
                Output::Send { envelope, .. } => sent.push(envelope.message),
                _ => {}
            }
        }
        sent
    }

    #[test]
    fn a_node_gets_few_digests_a_turn_however_often_it_asks() {
        let mut replica = replica();
        drain(&mut replica, NOW);
        for turn in 1..3 {
            for _ in 0..1_000 {
                reported(&mut replica, 1, DigestsRequest { total: None }.into());
            }
            let sent = drain(&mut replica, NOW);
            let digests = sent
                .iter()
                .filter(|m| matches!(m, Message::DigestsReply(_)));
            assert_eq!(digests.count(), DIGESTS_PER_TURN_MAX);
            let left_out = turn * (1_000 - DIGESTS_PER_TURN_MAX as u64);
            assert_eq!(replica.counters().overflow, left_out);
        }
    }

    #[test]
    fn a_client_gets_one_status_a_turn() {
        let mut replica = replica();
        let from = Endpoint::new(1, 1);
        let client = |replica: &mut Replica, message| {
            replica.handle_input(NOW, Input::Client { from, message });
        };
        let hello = Hello {
            client: 5,
            nonce: 1,
            library_version: String::new(),
        };
        client(&mut replica, ClientMessage::Hello(hello));
        let token = std::iter::from_fn(|| replica.poll_output()).find_map(|output| match output {
            Output::Reply {
                reply: ClientReply::Hello(answer),
                ..
            } => Some(answer.token),
            _ => None,
        });
        let token = token.expect("a session");
        drain(&mut replica, NOW);
        for turn in 0..3 {
            for attempt in 1..100 {
                let attempt = 100 * turn + attempt;
                let request = StatusRequest { token, attempt };
                client(&mut replica, ClientMessage::StatusRequest(request));
            }
            let outputs = std::iter::from_fn(|| replica.poll_output());
            let reported = outputs.filter(|output| matches!(output, Output::Reply { .. }));
            assert_eq!(reported.count(), 1);
        }
    }

    /// A driver that has no time left drains everything except the bucket entries to be listed,
    /// which wait for its next iterations.
    #[test]
    fn a_turn_ends_though_buckets_are_still_to_be_listed() {
        let mut replica = replica();
        drain(&mut replica, NOW);
        for bucket in 0..3 {
            replica.list_own(bucket, None, Purpose::Compare);
            for _ in 0..1_000 {
                reported(&mut replica, 1, DigestsRequest { total: None }.into());
            }
            let mut told_count = 0;
            while let Some(output) = replica.poll_output() {
                match output {
                    Output::Persist(group) => {
                        let group = group.number;
                        replica.handle_input(NOW, Input::Persisted { group });
                    }
                    Output::Send { envelope, .. } => {
                        told_count +=
                            usize::from(matches!(envelope.message, Message::DigestsReply(_)));
                    }
                    Output::List { .. } => break,
                    _ => {}
                }
            }
            assert_eq!(told_count, DIGESTS_PER_TURN_MAX, "turn {bucket}");
            replica.list_own(100 + bucket, None, Purpose::Compare);
        }
    }

    /// A link that changes with each heartbeat of one datagram.
    #[test]
    fn news_of_links_is_told_at_most_once_in_five_milliseconds() {
        let mut replica = replica();
        let at = |us: u64| Now {
            mono_us: NOW.mono_us + us,
            ..NOW
        };
        drain(&mut replica, NOW);
        let mut told_count = 0;
        for number in 1..1_000u64 {
            let link = ReportedLink {
                from: 1,
                up: number % 2 == 0,
                heard: true,
                rtt_us: 0,
                loss_permille: 0,
            };
            let row = Row {
                node: 2,
                incarnation: 2,
                boot: 2,
                starts: 0,
                found: 0,
                synced: 0,
                clock: number,
                wall_ms: NOW.wall_ms,
                unsynced_ms: 0,
                seen: Vec::new(),
                full: 0,
                links: vec![link],
            };
            let heartbeat = Heartbeat {
                number: number as u32,
                echo: None,
                rows: vec![row],
            };
            reported(&mut replica, 1, heartbeat.into());
        }
        for us in (0..=20_000).step_by(100) {
            let is_due = replica
                .next_timeout()
                .is_some_and(|due_us| due_us <= at(us).mono_us);
            if is_due {
                replica.handle_input(at(us), Input::Timeout);
            }
            let sent = drain(&mut replica, at(us));
            let beats = sent.iter().filter(|m| matches!(m, Message::Heartbeat(_)));
            told_count += beats.count();
        }
        assert!(
            (1..=5).contains(&told_count),
            "{told_count} heartbeats in 20 ms"
        );
    }
}
