//! Asking a node for its status, with retries.

use super::Session;
use super::attempts::Target;
use crate::wire::{NodeStatus, StatusAnswer, StatusRequest, kind};

const RETRY_US: u64 = 50_000;

#[derive(Debug)]
pub(super) struct StatusCall {
    tag: u64,
    place: usize,
    deadline_us: u64,
    /// When the next request is due.
    retry_us: u64,
}

/// `None` if the node did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCompletion {
    pub tag: u64,
    pub node: usize,
    pub status: Option<NodeStatus>,
}

impl Session {
    /// Asks the node at that place among those given; waits for up to `wait_us`.
    pub fn request_status(&mut self, now_us: u64, place: usize, wait_us: u64, tag: u64) {
        let call = StatusCall {
            tag,
            place,
            deadline_us: now_us.saturating_add(wait_us),
            retry_us: now_us,
        };
        let id = self.next_status;
        self.next_status += 1;
        self.statuses.insert(id, call);
        self.ask_statuses(now_us);
    }

    /// Sends the requests that are due, and gives up those whose time is over.
    pub(super) fn ask_statuses(&mut self, now_us: u64) {
        let closed = self.closed;
        let due = |call: &StatusCall| closed || now_us >= call.retry_us.min(call.deadline_us);
        let ids = self.statuses.iter().filter(|(_, call)| due(call));
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            let call = &self.statuses[&id];
            if closed || now_us >= call.deadline_us || call.place >= self.nodes.len() {
                self.complete_status(id, None);
            } else {
                self.ask_status(now_us, id);
            }
        }
    }

    /// A node can be sent requests again: those that wait for it are.
    pub(super) fn ask_statuses_of(&mut self, now_us: u64, place: usize) {
        for call in self.statuses.values_mut().filter(|c| c.place == place) {
            call.retry_us = now_us;
        }
        self.ask_statuses(now_us);
    }

    fn ask_status(&mut self, now_us: u64, id: u64) {
        let call = self.statuses.get_mut(&id).expect("the caller looked");
        call.retry_us = now_us + RETRY_US;
        let place = call.place;
        let node = &mut self.nodes[place];
        if !node.is_usable(now_us) {
            node.unanswered_since_us.get_or_insert(now_us);
            self.greet(now_us, place);
            return;
        }
        let token = node.live.as_ref().expect("usable").token;
        let attempt = node
            .attempts
            .push(now_us, Target::Status(id), false, |_| false);
        let request = StatusRequest { token, attempt };
        self.transmit(place, kind::STATUS_REQUEST, &request);
    }

    pub(super) fn handle_status(&mut self, place: usize, answer: StatusAnswer) {
        let attempts = &mut self.nodes[place].attempts;
        let target = attempts.peek(answer.attempt).map(|sent| sent.target);
        match target {
            Some(Target::Status(id)) => {
                attempts.take(answer.attempt);
                self.complete_status(id, Some(answer.status));
            }
            _ => self.counters.late += 1,
        }
    }

    fn complete_status(&mut self, id: u64, status: Option<NodeStatus>) {
        if let Some(call) = self.statuses.remove(&id) {
            self.status_completions.push_back(StatusCompletion {
                tag: call.tag,
                node: call.place,
                status,
            });
        }
    }

    /// When the next of them is due.
    pub(super) fn next_status_us(&self) -> Option<u64> {
        let due = self.statuses.values();
        due.map(|call| call.retry_us.min(call.deadline_us)).min()
    }
}
