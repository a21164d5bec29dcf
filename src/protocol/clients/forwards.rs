//! Operations that this node forwarded and that are not answered yet: when each is sent again, and when it
//! is reclaimed, to run on this node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::protocol::clients::pending::Pending;
use crate::protocol::types::latency::Pace;
use crate::protocol::types::message::NodeId;

/// Reclaimed operations whose answers, if they still come, tell how long such answers take.
const RECLAIMED_MAX: usize = 64;

/// An operation that another node was asked to run.
#[derive(Debug)]
pub struct Forwarded {
    pub pending: Pending,
    pub to: NodeId,
    pub to_boot: u64,
    at_us: u64,
    sent_again: bool,
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct AnswerWait {
    /// ... before the operation is sent again, ...
    pub again_us: u64,
    /// ... and before it is reclaimed.
    pub reclaim_us: u64,
}

/// What is to be done about an operation whose answer is due.
#[derive(Debug)]
pub enum Overdue {
    SendAgain,
    Run(Pending),
}

#[derive(Debug, Default)]
pub struct Forwards {
    by_attempt: BTreeMap<u64, Forwarded>,
    /// When each of them is looked at: an instant and an attempt.
    due: BTreeSet<(u64, u64)>,
    /// Attempts so far, which number them.
    attempts: u64,
    /// How long answers take.
    latency: Pace,
    /// The instant for which a timer is set.
    timer_us: Option<u64>,
    /// The last operations that were reclaimed: their attempts, and when they were forwarded.
    reclaimed: VecDeque<(u64, u64)>,
}

impl Forwards {
    /// Gives the attempt's number.
    pub fn begin(&mut self, now_us: u64, to: NodeId, to_boot: u64, mut pending: Pending) -> u64 {
        pending.tried = true;
        self.attempts += 1;
        let forwarded = Forwarded {
            pending,
            to,
            to_boot,
            at_us: now_us,
            sent_again: false,
        };
        self.by_attempt.insert(self.attempts, forwarded);
        self.attempts
    }

    pub fn get(&self, attempt: u64) -> Option<&Forwarded> {
        self.by_attempt.get(&attempt)
    }

    /// The usual wait for an answer.
    pub fn usual_wait_us(&self) -> u64 {
        self.latency.wait_us(0)
    }

    pub fn look_at(&mut self, attempt: u64, at_us: u64) {
        self.due.insert((at_us, attempt));
    }

    /// Whether a timer is to be set for that instant. One is enough: whoever it wakes sets the next.
    pub fn needs_timer(&mut self, at_us: u64) -> bool {
        let needs = self.timer_us.is_none_or(|timer_us| at_us < timer_us);
        if needs {
            self.timer_us = Some(at_us);
        }
        needs
    }

    /// Whether the timer that fires now is the one that is waited for: an earlier one may have overtaken it.
    pub fn takes_timer(&mut self, now_us: u64) -> bool {
        let is_early = self.timer_us.is_some_and(|timer_us| now_us < timer_us);
        if !is_early {
            self.timer_us = None;
        }
        !is_early
    }

    /// The first attempt that is to be looked at, and when. Most are answered by then.
    pub fn first_due(&mut self) -> Option<(u64, u64)> {
        while let Some((due_us, attempt)) = self.due.first().copied() {
            if self.by_attempt.contains_key(&attempt) {
                return Some((due_us, attempt));
            }
            self.due.pop_first();
        }
        None
    }

    /// What is to be done about that attempt, the first that is due, now.
    pub fn overdue(&mut self, now_us: u64, attempt: u64, wait: AnswerWait) -> Option<Overdue> {
        self.due.pop_first();
        let forwarded = self.by_attempt.get_mut(&attempt)?;
        let at_us = forwarded.at_us;
        let (again_at_us, reclaim_at_us) = (at_us + wait.again_us, at_us + wait.reclaim_us);
        if now_us >= reclaim_at_us {
            let forwarded = self.by_attempt.remove(&attempt)?;
            self.reclaimed.push_back((attempt, at_us));
            if self.reclaimed.len() > RECLAIMED_MAX {
                self.reclaimed.pop_front();
            }
            return Some(Overdue::Run(forwarded.pending));
        }
        if !forwarded.sent_again && now_us < again_at_us {
            self.due.insert((again_at_us, attempt));
            return None;
        }
        let is_second = std::mem::replace(&mut forwarded.sent_again, true);
        self.due.insert((reclaim_at_us, attempt));
        (!is_second).then_some(Overdue::SendAgain)
    }

    /// An answer came. `None` if the operation was reclaimed: then it only tells that more patience is
    /// called for.
    pub fn answered(&mut self, now_us: u64, attempt: u64) -> Option<Pending> {
        let Some(forwarded) = self.by_attempt.remove(&attempt) else {
            let late = self.reclaimed.iter().find(|(a, _)| *a == attempt);
            if let Some((_, at_us)) = late {
                self.latency.sample(now_us.saturating_sub(*at_us), true);
            }
            return None;
        };
        let took_us = now_us.saturating_sub(forwarded.at_us);
        self.latency.sample(took_us, forwarded.sent_again);
        Some(forwarded.pending)
    }
}
