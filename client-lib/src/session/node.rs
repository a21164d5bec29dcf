//! One given node as the client knows it: its session, its pace, whether it seems to be there.

use std::collections::HashMap;

use super::{Session, Timer};
use crate::wire::{Hello, HelloAnswer, NoSession, kind};

/// Wait before an attempt is repeated elsewhere, until the node's pace is known.
const WAIT_US_INITIAL: u64 = 20_000;
const WAIT_US_MIN: u64 = 4_000;
const WAIT_US_MAX: u64 = 1_000_000;
const HELLO_WAIT_US_INITIAL: u64 = 20_000;
const HELLO_WAIT_US_MAX: u64 = 400_000;
/// Attempts in a row without an answer after which a node must say hello again.
const SILENT_ATTEMPTS_MAX: u32 = 3;

/// X4: what a hello gave.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub token: u64,
    pub node: u8,
    pub cluster: u64,
}

#[derive(Debug, Clone, Copy)]
struct PendingHello {
    nonce: u64,
    sent_us: u64,
    tries: u32,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub session: Option<Live>,
    hello: Option<PendingHello>,
    /// The call of each attempt that is not answered.
    pub attempts: HashMap<u64, u64>,
    pub heard_us: u64,
    silent: u32,
    silent_us: u64,
    smoothed_us: Option<u64>,
    deviation_us: u64,
}

impl Node {
    /// How long an attempt at this node waits before another is made.
    pub fn wait_us(&self) -> u64 {
        self.smoothed_us
            .map_or(WAIT_US_INITIAL, |s| s + 4 * self.deviation_us + 1_000)
            .clamp(WAIT_US_MIN, WAIT_US_MAX)
    }

    pub fn sample(&mut self, took_us: u64) {
        match self.smoothed_us {
            None => (self.smoothed_us, self.deviation_us) = (Some(took_us), took_us.max(2_000)),
            Some(smoothed) => {
                self.deviation_us = (3 * self.deviation_us + smoothed.abs_diff(took_us)) / 4;
                self.smoothed_us = Some((7 * smoothed + took_us) / 8);
            }
        }
    }

    /// An attempt of `sent_us` got no answer in time. A node that stays silent altogether has to say
    /// hello again before it is sent anything more, so that a dead one costs no operation its outcome.
    pub fn kept_silent(&mut self, now_us: u64, sent_us: u64) {
        if self.heard_us >= sent_us {
            self.silent = 0;
            return;
        }
        // Many attempts in one lost datagram are one silence.
        if now_us < self.silent_us + self.wait_us() {
            return;
        }
        self.silent_us = now_us;
        self.silent += 1;
        if self.silent >= SILENT_ATTEMPTS_MAX {
            self.session = None;
        }
    }
}

impl Session {
    /// Says hello to every node that has no session, unless that is under way.
    pub(super) fn greet_all(&mut self, now_us: u64) {
        for place in 0..self.nodes.len() {
            if self.nodes[place].session.is_none() && self.nodes[place].hello.is_none() {
                self.greet(now_us, place, 0);
            }
        }
    }

    fn greet(&mut self, now_us: u64, place: usize, tries: u32) {
        // A hello that is sent again keeps its nonce: the node then keeps the token (X4).
        let nonce = match self.nodes[place].hello {
            Some(hello) => hello.nonce,
            None => self.random(),
        };
        self.nodes[place].hello = Some(PendingHello {
            nonce,
            sent_us: now_us,
            tries,
        });
        let hello = Hello {
            client: self.options.client,
            nonce,
            library_version: self.options.library_version.clone(),
        };
        self.transmit(place, kind::HELLO, &hello);
        let wait_us = (HELLO_WAIT_US_INITIAL << tries.min(10)).min(HELLO_WAIT_US_MAX);
        self.set_timer(now_us + wait_us, Timer::Hello(place));
    }

    pub(super) fn hello_timeout(&mut self, now_us: u64, place: usize) {
        let Some(hello) = self.nodes[place].hello else {
            return;
        };
        if self.calls.is_empty() && self.statuses.is_empty() {
            // Nobody waits: no chatter. The next call says hello anew.
            self.nodes[place].hello = None;
        } else {
            self.greet(now_us, place, hello.tries + 1);
        }
    }

    pub(super) fn handle_hello(&mut self, now_us: u64, place: usize, answer: HelloAnswer) {
        let node = &mut self.nodes[place];
        let Some(hello) = node.hello.filter(|h| h.nonce == answer.nonce) else {
            self.counters.late += 1;
            return;
        };
        if hello.tries == 0 && node.smoothed_us.is_none() {
            node.sample(now_us.saturating_sub(hello.sent_us));
        }
        node.hello = None;
        node.silent = 0;
        if answer.cluster != 0 && self.cluster != 0 && answer.cluster != self.cluster {
            // Two clusters must never be taken for one store.
            self.counters.foreign += 1;
            return;
        }
        self.cluster = self.cluster.max(answer.cluster);
        let HelloAnswer {
            token,
            node,
            cluster,
            clock,
            ..
        } = answer;
        self.nodes[place].session = Some(Live {
            token,
            node,
            cluster,
        });
        self.observe(now_us, clock);
        self.send_waiting(now_us);
        self.send_statuses(now_us, place);
    }

    /// X4: the node forgot the session, or never knew it; the attempt was not executed.
    pub(super) fn handle_no_session(&mut self, now_us: u64, place: usize, refusal: NoSession) {
        let node = &mut self.nodes[place];
        if node
            .session
            .as_ref()
            .is_some_and(|live| live.token == refusal.token)
        {
            node.session = None;
        }
        if node.session.is_none() && node.hello.is_none() {
            self.greet(now_us, place, 0);
        }
        self.attempt_refused(now_us, place, refusal.attempt);
    }

    pub(super) fn set_timer(&mut self, at_us: u64, timer: Timer) {
        self.timers.push(std::cmp::Reverse((at_us, timer)));
    }
}
