//! Asking a node for its status, once, with retries.

use super::{Session, Timer};
use crate::wire::{NodeStatus, StatusAnswer, StatusRequest, kind};

const RETRY_US: u64 = 50_000;

#[derive(Debug)]
pub(super) struct StatusCall {
    tag: u64,
    place: usize,
    deadline_us: u64,
    attempts: Vec<u64>,
}

/// `None` if the node did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCompletion {
    pub tag: u64,
    pub node: usize,
    pub status: Option<NodeStatus>,
}

impl Session {
    /// Asks the node at that place among those given.
    pub fn request_status(&mut self, now_us: u64, place: usize, wait_us: u64, tag: u64) {
        let handle = self.next_call;
        self.next_call += 1;
        let deadline_us = now_us + wait_us;
        let call = StatusCall {
            tag,
            place,
            deadline_us,
            attempts: Vec::new(),
        };
        self.statuses.insert(handle, call);
        self.greet_all(now_us);
        self.send_status(now_us, handle);
    }

    fn send_status(&mut self, now_us: u64, handle: u64) {
        let Some(call) = self.statuses.get_mut(&handle) else {
            return;
        };
        let place = call.place;
        if let Some(live) = &self.nodes[place].session {
            let token = live.token;
            let attempt = self.next_attempt;
            self.next_attempt += 1;
            call.attempts.push(attempt);
            self.transmit(
                place,
                kind::STATUS_REQUEST,
                &StatusRequest { token, attempt },
            );
        }
        let deadline_us = self.statuses[&handle].deadline_us;
        self.set_timer(deadline_us.min(now_us + RETRY_US), Timer::Status(handle));
    }

    pub(super) fn send_statuses(&mut self, now_us: u64, place: usize) {
        let waiting = self.statuses.iter().filter(|(_, call)| call.place == place);
        let mut waiting: Vec<u64> = waiting.map(|(handle, _)| *handle).collect();
        waiting.sort_unstable();
        for handle in waiting {
            self.send_status(now_us, handle);
        }
    }

    pub(super) fn status_timeout(&mut self, now_us: u64, handle: u64) {
        let Some(call) = self.statuses.get(&handle) else {
            return;
        };
        if now_us >= call.deadline_us {
            self.complete_status(handle, None);
        } else {
            self.send_status(now_us, handle);
        }
    }

    pub(super) fn handle_status(&mut self, _now_us: u64, place: usize, answer: StatusAnswer) {
        let mut asked = self
            .statuses
            .iter()
            .filter(|(_, call)| call.place == place && call.attempts.contains(&answer.attempt));
        let handle = asked.next().map(|(handle, _)| *handle);
        match handle {
            Some(handle) => self.complete_status(handle, Some(answer.status)),
            None => self.counters.late += 1,
        }
    }

    fn complete_status(&mut self, handle: u64, status: Option<NodeStatus>) {
        if let Some(call) = self.statuses.remove(&handle) {
            let completion = StatusCompletion {
                tag: call.tag,
                node: call.place,
                status,
            };
            self.status_completions.push_back(completion);
        }
    }
}
